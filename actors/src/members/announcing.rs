//! What a room's log is to say of a change of its members.
//!
//! The store keeps it beside the change, in the same batch, until the record is stored: so a change that is stored is
//! recorded, whoever dies between the two.

use bytes::Bytes;
use parlor_protocol::{RoomNumber, message::RoomOptions, message::encode_member_changes};

use super::{Asker, Counts, MemberChange, MembersChanged, announces};

/// The most users that one record names.
pub const USERS_PER_RECORD_MAX: usize = 100;

/// A record of members' coming and going that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its number: no other has it, in the whole store, and later ones have higher ones. It is the record's nonce.
    pub number: u64,
    /// Who changed the members.
    pub by: Asker,
    /// The record's payload.
    pub payload: Bytes,
}

impl MembersChanged {
    /// A change of a room's members, and what its log is to say of it. `next` gives numbers that rise.
    pub fn new(
        room: RoomNumber,
        options: &RoomOptions,
        by: Asker,
        users: Vec<MemberChange>,
        counts: Counts,
        mut next: impl FnMut() -> u64,
    ) -> Self {
        let mut announcements = Vec::new();
        if announces(options, counts) {
            for users in users.chunks(USERS_PER_RECORD_MAX) {
                let users = users.iter().map(|one| (&*one.user, one.after.map(|member| member.role)));
                let payload = encode_member_changes(users).into();
                announcements.push(Announcement { number: next(), by: by.clone(), payload });
            }
        }
        let number = match announcements.last() {
            Some(last) => last.number,
            None if users.is_empty() => 0,
            None => next(),
        };
        Self { room, by, users, counts, number, announcements }
    }
}

#[cfg(test)]
mod tests {
    use parlor_protocol::message::{Announce, decode_member_changes};

    use super::*;

    #[track_caller]
    fn check(announce: Announce, users: usize, records: &[usize], number: u64) {
        let user = |at: usize| MemberChange { user: format!("{at}").parse().unwrap(), before: None, after: None };
        let options = RoomOptions { announce, ..RoomOptions::default() };
        let (counts, mut given) = (Counts { members: 1_001, banned: 0 }, 10);
        let next = || {
            given += 1;
            given
        };
        let users = (0..users).map(user).collect();
        let changed = MembersChanged::new(RoomNumber(1), &options, Asker::Host, users, counts, next);
        let named = |one: &Announcement| decode_member_changes(&one.payload).unwrap().len();
        assert_eq!(changed.announcements.iter().map(named).collect::<Vec<_>>(), records);
        assert!(changed.announcements.iter().map(|one| one.number).eq(11..11 + records.len() as u64));
        assert_eq!(changed.number, number);
    }

    #[test]
    fn a_change_is_announced_in_records_of_a_hundred_users_and_always_has_a_number() {
        check(Announce::Always, 250, &[100, 100, 50], 13);
        check(Announce::Always, 0, &[], 0);
        check(Announce::Never, 3, &[], 11);
        check(Announce::WhileSmall, 3, &[], 11);
    }
}
