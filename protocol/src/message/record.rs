//! Records: sent, acknowledged, delivered, read again.

use super::Durability;
use crate::{
    codec::{BorrowDecode, Encode, Extensions, List},
    id::{DeviceTag, Epoch, Nonce, RoomNumber, Seq, UnixMillis},
};

/// The most gaps a page tells of.
pub const GAPS_PER_PAGE_MAX: usize = 256;

/// The way a fetch reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Direction {
    /// Towards newer records.
    #[default]
    Forward,
    /// Towards older records. A page lists its records oldest first all the same.
    Backward,
}

/// What a record is. A client keeps the seq of those that it does not know, and shows what it knows. 4 is kept for events of
/// membership.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub struct RecordKind(pub u16);

impl RecordKind {
    /// Something that somebody said.
    pub const MESSAGE: Self = Self(0);
    /// Another body for the message that it refers to.
    pub const EDIT: Self = Self(1);
    /// Takes the message that it refers to back.
    pub const RECALL: Self = Self(2);
    /// A user's reaction to the message that it refers to, or its end.
    pub const REACTION: Self = Self(3);
}

impl std::fmt::Debug for RecordKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordKind({})", self.0)
    }
}

/// How to read a payload. 0x8000 and up are the application's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub struct ContentType(pub u16);

impl ContentType {
    /// Bytes whose meaning the clients know.
    pub const OPAQUE: Self = Self(0);
    /// Text in UTF-8.
    pub const TEXT: Self = Self(1);
}

/// Why records will not come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub struct GapReason(pub u16);

impl GapReason {
    /// Their lifetime is over.
    pub const EXPIRED: Self = Self(0);
    /// The room keeps fewer.
    pub const TRIMMED: Self = Self(1);
    /// The store lost them.
    pub const LOST: Self = Self(2);
    /// The client's position is of an epoch that is over.
    pub const NEW_EPOCH: Self = Self(3);
    /// The client's position is above the tail.
    pub const ABOVE_TAIL: Self = Self(4);
}

impl std::fmt::Debug for GapReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            0 => "Expired",
            1 => "Trimmed",
            2 => "Lost",
            3 => "NewEpoch",
            4 => "AboveTail",
            other => return write!(f, "GapReason({other})"),
        })
    }
}

/// A publish that does not raise the room's count of messages (and later, no unread mark).
pub const PUBLISH_SILENT: u32 = 1;

/// A publish of a reaction that takes it back.
pub const PUBLISH_REMOVE: u32 = 2;

/// Sends a message to a room.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Publish<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// Larger than every nonce that this device has used in this room.
    pub nonce: Nonce,
    /// What it is: a message or a change.
    pub kind: RecordKind,
    /// The record that it changes; 0 for none, which a message must have.
    pub refers_to: Seq,
    /// How long it may be read, in milliseconds, if shorter than the room's lifetime.
    pub lifetime_ms: Option<u64>,
    /// [`PUBLISH_SILENT`], [`PUBLISH_REMOVE`] or 0.
    pub flags: u32,
    /// How to read the payload.
    pub content_type: ContentType,
    /// What is said; may be empty.
    pub payload: &'a [u8],
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Answers `Publish`: the message is stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Ack<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// The publish's nonce.
    pub nonce: Nonce,
    /// The message's number.
    pub seq: Seq,
    /// The message's time.
    pub time: UnixMillis,
    /// How safely it is stored.
    pub durability: Durability,
    /// Whether it was stored by an earlier publish with this nonce.
    pub duplicate: bool,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// A record of a room. Byte for byte the same for every receiver, and stored as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Deliver<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// The record's number.
    pub seq: Seq,
    /// When it was accepted; never before the record that precedes it.
    pub time: UnixMillis,
    /// Who said it.
    pub sender: &'a str,
    /// On which of the sender's devices.
    pub device_tag: DeviceTag,
    /// The device's nonce for it.
    pub nonce: Nonce,
    /// What it is.
    pub kind: RecordKind,
    /// The record that it changes; 0 for none.
    pub refers_to: Seq,
    /// From when on it may not be read; 0 for never.
    pub expires: UnixMillis,
    /// How many countable records the room holds up to and with this one.
    pub count: u64,
    /// How to read the payload.
    pub content_type: ContentType,
    /// What is said; may be empty.
    pub payload: &'a [u8],
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Records that will not come: `from` to `to`. Behind it the client's position is `(epoch, to)`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Gap<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// The room's epoch.
    pub epoch: Epoch,
    /// The first seq that will not come; `to + 1` if only the position changes.
    pub from: Seq,
    /// The last seq that will not come.
    pub to: Seq,
    /// Why.
    pub why: GapReason,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Asks for a page of history.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Fetch<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// The first seq to read, whichever the direction; without it, the oldest (forward) or the newest (backward).
    pub start: Option<Seq>,
    /// Which way.
    pub direction: Direction,
    /// The most records to read; 0 for the server's usual page.
    pub limit: u32,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// A stretch of seqs that a page cannot show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct PageGap {
    /// The first seq.
    pub from: Seq,
    /// The last seq.
    pub to: Seq,
    /// Why.
    pub why: GapReason,
}

/// Answers `Fetch`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Page<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// The room's epoch.
    pub epoch: Epoch,
    /// The seq of the newest stored record.
    pub tail: Seq,
    /// Where to go on in the same direction; `None` at the end.
    pub next: Option<Seq>,
    /// The stretches of seqs within the page that cannot be read, oldest first.
    pub gaps: List<PageGap, GAPS_PER_PAGE_MAX>,
    /// `Deliver` frames one behind the other, each with its header, oldest first.
    pub records: &'a [u8],
    /// What later versions add.
    pub extensions: Extensions<'a>,
}
