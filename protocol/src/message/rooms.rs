//! Rooms and their members: made, changed, looked at. All of it by the room's name, joined or not.

use super::RoomOptions;
use crate::{
    code::Code,
    codec::{BorrowDecode, Encode, Extensions, List},
    id::{Epoch, RoomNumber, Seq, UnixMillis},
};

/// The most users that one request names, and the most members that a page lists.
pub const MEMBERS_PER_REQUEST_MAX: usize = 1_000;

/// The most rooms that a page lists.
pub const ROOMS_PER_PAGE_MAX: usize = 100;

/// The longest newest record that a list of rooms holds, in bytes of its frame; longer ones are left out.
pub const NEWEST_BYTES_MAX: usize = 4 << 10;

/// What a user is in a room. Somebody without a role is a stranger there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub enum Role {
    /// May do everything. Nobody but the host makes or unmakes one.
    Owner,
    /// Keeps order.
    Moderator,
    /// Belongs to the room.
    #[default]
    Member,
    /// Reads and says nothing.
    Muted,
    /// Neither reads nor comes in.
    Banned,
}

/// Creates a room whose owner is the asker. Answered with `RoomInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct CreateRoom<'a> {
    /// The room's name.
    pub room: &'a str,
    /// What it is like.
    pub options: RoomOptions,
    /// Its first members, besides the asker.
    pub members: List<&'a str, MEMBERS_PER_REQUEST_MAX>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Answers a request that has nothing more to say: it is done, and counts everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Done<'a> {
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Changes what a room is like.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct ConfigureRoom<'a> {
    /// The room's name.
    pub room: &'a str,
    /// All of it, changed or not; a memory room stays one, and no other becomes one.
    pub options: RoomOptions,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// The session is no longer attached to a room, and did not ask for that.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Detached<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// Everything up to here was sent on this connection, as records or gaps.
    pub cursor: Seq,
    /// Why.
    pub code: Code,
    /// For the log of a person.
    pub message: &'a str,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Deletes a room with all that it holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct DeleteRoom<'a> {
    /// The room's name.
    pub room: &'a str,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// What a room is like.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct RoomInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its number.
    pub room: RoomNumber,
    /// Its epoch.
    pub epoch: Epoch,
    /// What it was created with, or last changed to.
    pub options: RoomOptions,
    /// The seq of the newest stored record; 0 in an empty room.
    pub tail: Seq,
    /// How many countable records the room holds up to and with the tail.
    pub count: u64,
    /// How many members it has, the banned not counted.
    pub members: u64,
    /// What the asker is there.
    pub role: Option<Role>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Asks what a room is like.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct DescribeRoom<'a> {
    /// The room's name.
    pub room: &'a str,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// A page of a room's members.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Members<'a> {
    /// In the order of their names' bytes.
    pub members: List<MemberEntry<'a>, MEMBERS_PER_REQUEST_MAX>,
    /// The `after` for the next page; absent at the end.
    pub next: Option<&'a str>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// One member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct MemberEntry<'a> {
    /// Who.
    pub user: &'a str,
    /// What he is in the room.
    pub role: Role,
    /// When he was added.
    pub added: UnixMillis,
}

/// Adds users to a room, or changes what they are there.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct SetMembers<'a> {
    /// The room's name.
    pub room: &'a str,
    /// What they become.
    pub role: Role,
    /// Who.
    pub users: List<&'a str, MEMBERS_PER_REQUEST_MAX>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// A page of the asker's rooms.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Rooms<'a> {
    /// The newest activity first.
    pub rooms: List<RoomEntry<'a>, ROOMS_PER_PAGE_MAX>,
    /// The `before` for the next page; absent at the end.
    pub next: Option<Activity>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// One of a user's rooms. What a `memory` room holds is not in it: its tail, count and unread are 0, its newest message is
/// empty, and its time is when the user was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct RoomEntry<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its number.
    pub room: RoomNumber,
    /// Its epoch.
    pub epoch: Epoch,
    /// What the user is there.
    pub role: Role,
    /// The seq of the newest stored record; 0 in an empty room.
    pub tail: Seq,
    /// How many countable records the room holds up to and with the tail.
    pub count: u64,
    /// How many of them the user has not read.
    pub unread: u64,
    /// When something last happened: the newest record's time, or when the user was added if that is later.
    pub time: UnixMillis,
    /// The `Deliver` frame of the newest message that the user may read; empty if there is none, or if it is longer than
    /// 4,096 bytes.
    pub newest: &'a [u8],
}

/// A place in a list of rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, BorrowDecode)]
pub struct Activity {
    /// When something last happened in the last room of the page.
    pub time: UnixMillis,
    /// That room.
    pub room: RoomNumber,
}

/// Removes users from a room.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct RemoveMembers<'a> {
    /// The room's name.
    pub room: &'a str,
    /// Who.
    pub users: List<&'a str, MEMBERS_PER_REQUEST_MAX>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Asks for a page of a room's members.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct ListMembers<'a> {
    /// The room's name.
    pub room: &'a str,
    /// Begin behind this user.
    pub after: Option<&'a str>,
    /// The most members; 0 for as many as a page holds.
    pub limit: u32,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Asks for a page of the asker's own rooms.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct ListRooms<'a> {
    /// Begin behind this place.
    pub before: Option<Activity>,
    /// The most rooms; 0 for as many as a page holds.
    pub limit: u32,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Finds or creates the room of the asker and one other user. Answered with `RoomInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct OpenDirect<'a> {
    /// The other user.
    pub user: &'a str,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// The sender of records of kind [`MEMBERS`](super::RecordKind::MEMBERS) of what the host did. Their device tag is 0.
pub const HOST: &str = "host";

/// The payload of a record of kind [`MEMBERS`](super::RecordKind::MEMBERS): for each user one byte of role (255 if he has
/// none any more), one byte with his name's length, and his name.
pub fn encode_member_changes<'a>(users: impl Iterator<Item = (&'a str, Option<Role>)>) -> Vec<u8> {
    let mut payload = Vec::new();
    for (user, role) in users {
        payload.push(role.map_or(NO_ROLE, |role| role as u8));
        // A name has at most 64 bytes.
        payload.push(u8::try_from(user.len()).unwrap_or(u8::MAX));
        payload.extend(user.as_bytes());
    }
    payload
}

/// Reads the payload of a record of kind [`MEMBERS`](super::RecordKind::MEMBERS); `None` if it is not one.
#[must_use]
pub fn decode_member_changes(mut payload: &[u8]) -> Option<Vec<(&str, Option<Role>)>> {
    let mut users = Vec::new();
    while let [role, len, rest @ ..] = payload {
        let (user, rest) = rest.split_at_checked(usize::from(*len))?;
        let role = match role {
            0 => Some(Role::Owner),
            1 => Some(Role::Moderator),
            2 => Some(Role::Member),
            3 => Some(Role::Muted),
            4 => Some(Role::Banned),
            &NO_ROLE => None,
            _ => return None,
        };
        users.push((std::str::from_utf8(user).ok()?, role));
        payload = rest;
    }
    payload.is_empty().then_some(users)
}

/// Stands for the role of somebody who has none.
const NO_ROLE: u8 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_changes_read_as_written() {
        let users = [("ann", Some(Role::Owner)), ("Zoë 添加", None), ("bob", Some(Role::Banned))];
        let payload = encode_member_changes(users.into_iter());
        assert_eq!(&payload[..5], b"\x00\x03ann");
        assert_eq!(decode_member_changes(&payload), Some(users.to_vec()));
        for cut in 1..payload.len() {
            if let Some(some) = decode_member_changes(&payload[..cut]) {
                assert!(users.starts_with(&some), "a cut between two users");
            }
        }
        for wrong in [&b"\x05\x01a"[..], b"\x00\x02a", b"\x00", b"\x00\x01\xff"] {
            assert_eq!(decode_member_changes(wrong), None);
        }
    }
}
