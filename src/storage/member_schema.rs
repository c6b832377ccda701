//! What the store's bytes are for members: keys and values of `members` and `memberships`. Pure, like `schema`, and by its
//! rules.

use parlor_actors::{
    members::{Counts, Member},
    port::StoreError,
};
use parlor_protocol::{Epoch, Name, RoomNumber, message::Role};

use super::schema::{Family, Fields, Wrong, damaged, room_key};

/// What the key of a room begins with that was deleted and is not cleared away; its number follows.
pub(super) const DOOMED: &[u8] = b"doomed";

/// `room u64 | user`: what a user is in a room. Users of a room are in the order of their names' bytes.
pub(super) fn member_key(room: RoomNumber, user: &Name) -> Vec<u8> {
    [room_key(room).as_slice(), user.as_bytes()].concat()
}

/// `room u64` alone, before the keys of all its users: how many there are.
pub(super) fn counts_key(room: RoomNumber) -> [u8; 8] {
    room_key(room)
}

/// The user of a member's key.
pub(super) fn member_key_user(key: &[u8]) -> Result<Name, StoreError> {
    let user = key.get(8..).and_then(|user| std::str::from_utf8(user).ok()).and_then(|user| Name::parse(user).ok());
    user.ok_or_else(|| damaged(Family::Members, key, "the key does not end with a name"))
}

/// What the keys of a user's rooms begin with: `length u8 | user`. With its length in front, no user's keys lie among
/// another's.
pub(super) fn memberships_prefix(user: &Name) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + user.len() + 8);
    // Always one byte: a name has at most 64.
    key.extend(u8::try_from(user.len()));
    key.extend(user.as_bytes());
    key
}

/// `length u8 | user | room u64` -> nothing: the user belongs to the room.
pub(super) fn membership_key(user: &Name, room: RoomNumber) -> Vec<u8> {
    let mut key = memberships_prefix(user);
    key.extend(room_key(room));
    key
}

/// The room of a membership's key, whose first bytes are those of its user.
pub(super) fn membership_key_room(key: &[u8]) -> Result<RoomNumber, StoreError> {
    let room = key.last_chunk().map(|room| RoomNumber(u64::from_be_bytes(*room)));
    room.ok_or_else(|| damaged(Family::Memberships, key, "the key does not end with a room"))
}

/// The key of a room that was deleted and is not cleared away, in `meta`.
pub(super) fn doomed_key(room: RoomNumber) -> Vec<u8> {
    [DOOMED, &room_key(room)].concat()
}

const MEMBER_VERSION: u8 = 1;

/// `version u8 = 1 | role u8 | since u64 | epoch u64 | count u64 | added u64`
pub(super) fn encode_member(member: &Member) -> [u8; 34] {
    let mut out = [MEMBER_VERSION; 34];
    out[1] = member.role as u8;
    let numbers = [member.since, member.epoch.0, member.count, member.added];
    for (field, number) in out[2..].chunks_exact_mut(8).zip(numbers) {
        field.copy_from_slice(&number.to_be_bytes());
    }
    out
}

pub(super) fn decode_member(value: &[u8]) -> Result<Member, Wrong> {
    let mut fields = Fields(value);
    fields.version(MEMBER_VERSION)?;
    let role = match fields.u8()? {
        0 => Role::Owner,
        1 => Role::Moderator,
        2 => Role::Member,
        3 => Role::Muted,
        4 => Role::Banned,
        other => return Err(format!("role {other} is not known")),
    };
    let (since, epoch) = (fields.u64()?, Epoch(fields.u64()?));
    let (count, added) = (fields.u64()?, fields.u64()?);
    fields.end()?;
    Ok(Member { role, since, epoch, count, added })
}

const COUNTS_VERSION: u8 = 1;

/// `version u8 = 1 | members u64 | banned u64`
pub(super) fn encode_counts(counts: Counts) -> [u8; 17] {
    let mut out = [COUNTS_VERSION; 17];
    for (field, number) in out[1..].chunks_exact_mut(8).zip([counts.members, counts.banned]) {
        field.copy_from_slice(&number.to_be_bytes());
    }
    out
}

pub(super) fn decode_counts(value: &[u8]) -> Result<Counts, Wrong> {
    let mut fields = Fields(value);
    fields.version(COUNTS_VERSION)?;
    let counts = Counts { members: fields.u64()?, banned: fields.u64()? };
    fields.end().map(|()| counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_reads_as_written_and_its_bytes_never_change() {
        for (number, role) in (0..).zip([Role::Owner, Role::Moderator, Role::Member, Role::Muted, Role::Banned]) {
            let member = Member { role, since: 2, epoch: Epoch(3), count: 1, added: 0x0405 };
            let bytes = encode_member(&member);
            let mut want = vec![1, number];
            want.extend([
                0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4, 5,
            ]);
            assert_eq!(bytes.as_slice(), want);
            assert_eq!(decode_member(&bytes), Ok(member));
            for cut in 0..bytes.len() {
                assert!(decode_member(&bytes[..cut]).is_err());
            }
        }
        assert!(decode_member(&[1, 5].into_iter().chain([0; 32]).collect::<Vec<_>>()).is_err());
        assert!(decode_member(&[2; 34]).is_err());
        let counts = Counts { members: 1, banned: 0x0203 };
        let bytes = encode_counts(counts);
        assert_eq!(bytes, [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 3]);
        assert_eq!(decode_counts(&bytes), Ok(counts));
    }

    #[test]
    fn keys_lie_where_they_are_looked_for() {
        let name = |text: &str| -> Name { text.parse().unwrap() };
        let (one, two) = (RoomNumber(1), RoomNumber(2));
        let keys = [
            counts_key(one).to_vec(),
            member_key(one, &name("a")),
            member_key(one, &name("aa")),
            member_key(one, &name("b")),
            counts_key(two).to_vec(),
        ];
        assert!(keys.is_sorted());
        assert_eq!(member_key_user(&keys[2]), Ok(name("aa")));
        assert!(member_key_user(&keys[0]).is_err());
        let key = membership_key(&name("a"), RoomNumber(0x6161_6161_6161_6161));
        assert_eq!(membership_key_room(&key), Ok(RoomNumber(0x6161_6161_6161_6161)));
        assert!(!key.starts_with(&memberships_prefix(&name("aa"))));
    }
}
