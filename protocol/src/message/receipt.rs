//! Receipts and signals: how far users have read, and what is said without being kept.

use crate::{
    codec::{BorrowDecode, Encode, Extensions, List},
    id::{DeviceTag, RoomNumber, Seq},
};

/// The most users that one answer names as readers.
pub const READERS_MAX: usize = 1_000;

/// The longest payload of a signal, in bytes.
pub const SIGNAL_BYTES_MAX: usize = 512;

/// Moves the user's read cursor of a room.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Mark<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// The user has read everything up to here.
    pub read: Seq,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Answers `Mark`, and tells the user's other sessions in the room that the cursor moved.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Marked<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// Where the user's read cursor stands.
    pub read: Seq,
    /// How many countable records the user has not read.
    pub unread: u64,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Asks who has read a record.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct FetchReaders<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// Who has read up to here, or further; 0 for all whose cursors are known.
    pub seq: Seq,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// How far one user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Reader<'a> {
    /// Who.
    pub user: &'a str,
    /// He has read everything up to here.
    pub read: Seq,
    /// One of his devices has received everything up to here.
    pub delivered: Seq,
}

/// Answers `FetchReaders`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Readers<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// The users, in the order of their names' bytes.
    pub readers: List<Reader<'a>, READERS_MAX>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum SignalTo<'a> {
    /// All sessions that have joined this room.
    Room(RoomNumber),
    /// All sessions of this user.
    User(&'a str),
}

/// Says something that is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Signal<'a> {
    /// For whom.
    pub to: SignalTo<'a>,
    /// What the signal is about: of those that wait for a receiver, only the newest of each sender and key is kept.
    pub key: u32,
    /// What is said, at most 512 bytes; may be empty.
    pub payload: &'a [u8],
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// A signal of somebody.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Signaled<'a> {
    /// In which room; `None` if it is for the user.
    pub room: Option<RoomNumber>,
    /// Who said it.
    pub sender: &'a str,
    /// On which of the sender's devices.
    pub device_tag: DeviceTag,
    /// What the signal is about.
    pub key: u32,
    /// What is said; may be empty.
    pub payload: &'a [u8],
    /// What later versions add.
    pub extensions: Extensions<'a>,
}
