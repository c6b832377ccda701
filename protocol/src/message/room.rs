//! Joining and leaving rooms.

use super::{Position, ROOMS_PER_SESSION_MAX};
use crate::{
    codec::{BorrowDecode, Encode, Extensions, List},
    id::{Epoch, Nonce, RoomNumber, Seq},
};

/// How safe a stored record is. What an ack names is reached before it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, BorrowDecode)]
pub enum Durability {
    /// In the room's ring only.
    Memory,
    /// In the operating system's cache: survives the death of the process.
    Buffered,
    /// Synced to the device: survives the loss of power.
    #[default]
    Synced,
}

/// Who may join a room, and who may say something in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub enum Access {
    /// Everybody joins and everybody speaks.
    #[default]
    Open,
    /// Members join, and members speak.
    Members,
    /// Everybody joins; its owner and its moderators speak.
    Broadcast,
}

/// Who may read what was said before he was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub enum Past {
    /// Everybody, unless only members may join: then like `SinceAdded`.
    #[default]
    ByAccess,
    /// Everybody who may join reads all of it.
    All,
    /// A member reads what was said since he was added.
    SinceAdded,
}

/// Whether members' coming and going is recorded in the room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub enum Announce {
    /// While the room has at most 1,000 members.
    #[default]
    WhileSmall,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a room is created with. Most of it can be changed later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, BorrowDecode)]
pub struct RoomOptions {
    /// What an ack means. Cannot be changed.
    pub durability: Durability,
    /// Who may join and speak.
    pub access: Access,
    /// Who may read the past.
    pub past: Past,
    /// Whether members' coming and going is recorded.
    pub announce: Announce,
    /// How long a record may be read, in milliseconds; 0 for ever.
    pub lifetime_ms: u64,
    /// How many records are kept; 0 for all.
    pub records_max: u64,
    /// How many bytes of records are kept; 0 for all.
    pub bytes_max: u64,
    /// The longest payload, in bytes, below the server's own limit; 0 for that.
    pub payload_bytes_max: u32,
    /// How many messages a second the room takes from all its users together; 0 for any number.
    pub messages_per_second_max: u32,
}

/// Where a join's delivery begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum JoinFrom {
    /// Behind the newest record.
    Tail,
    /// With the newest this many records.
    Newest(u32),
    /// With this seq.
    Seq(Seq),
    /// Behind this position: the client holds, or was told a gap for, everything up to here.
    Position(Epoch, Seq),
}

/// Attaches the session to a room.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Join<'a> {
    /// The room's name.
    pub room: &'a str,
    /// Where delivery begins.
    pub from: JoinFrom,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Answers `Join`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Joined<'a> {
    /// The number by which frames name the room.
    pub room: RoomNumber,
    /// The room's epoch.
    pub epoch: Epoch,
    /// The seq of the newest stored record; 0 in an empty room.
    pub tail: Seq,
    /// The seq of the oldest record that can still be read; `tail + 1` if there is none.
    pub first: Seq,
    /// Delivery begins behind this seq.
    pub cursor: Seq,
    /// How many countable records the room holds up to and with the tail.
    pub count: u64,
    /// Where the user's read cursor stands.
    pub read: Seq,
    /// How many countable records the user has not read.
    pub unread: u64,
    /// What an ack means in this room.
    pub durability: Durability,
    /// The newest nonce that the server has stored from this device in this room.
    pub newest_nonce: Option<Nonce>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Attaches the session to all rooms that its user is a member of, and from now on to each that he is added to. Answered
/// with one `Attached` for each, then `Done`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Follow<'a> {
    /// Where the client stands in rooms that it has been in.
    pub positions: List<Position, ROOMS_PER_SESSION_MAX>,
    /// Delivery of the other rooms begins with the newest this many seqs; 0 for behind the newest record.
    pub newest: u32,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// The session is attached to a room of its user, as if it had joined it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Attached<'a> {
    /// The room's name.
    pub name: &'a str,
    /// The number by which frames name the room.
    pub room: RoomNumber,
    /// The room's epoch.
    pub epoch: Epoch,
    /// The seq of the newest stored record; 0 in an empty room.
    pub tail: Seq,
    /// The seq of the oldest record that can still be read; `tail + 1` if there is none.
    pub first: Seq,
    /// Delivery begins behind this seq.
    pub cursor: Seq,
    /// How many countable records the room holds up to and with the tail.
    pub count: u64,
    /// Where the user's read cursor stands.
    pub read: Seq,
    /// How many countable records the user has not read.
    pub unread: u64,
    /// What an ack means in this room.
    pub durability: Durability,
    /// The newest nonce that the server has stored from this device in this room.
    pub newest_nonce: Option<Nonce>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Detaches the session from a room.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Leave<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Answers `Leave`: nothing of the room follows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Left<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// Everything up to here was sent on this connection, as records or gaps.
    pub cursor: Seq,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}
