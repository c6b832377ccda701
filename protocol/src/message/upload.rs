//! Long texts: messages whose payload goes up in parts.

use super::{ContentType, RecordKind};
use crate::{
    codec::{BorrowDecode, Encode, Extensions, List},
    id::{Nonce, RoomNumber, Seq},
};

/// The most parts of an upload.
pub const PARTS_MAX: u32 = 1_024;

/// The most missing parts that an answer names.
pub const MISSING_MAX: usize = 64;

/// Brings a part of a message whose payload is longer than one `Publish` may bring. All that is said of the message stands
/// in every part, so that they may come in any order.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Part<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// The message's nonce.
    pub nonce: Nonce,
    /// Which part: from 0 to `parts` - 1.
    pub number: u32,
    /// How many parts there are: 1 to [`PARTS_MAX`].
    pub parts: u32,
    /// How many bytes they make together.
    pub total_bytes: u32,
    /// What the message is; version 1 takes messages only.
    pub kind: RecordKind,
    /// The record that it changes; 0 for none, which a message must have.
    pub refers_to: Seq,
    /// How long it may be read, in milliseconds, if shorter than the room's lifetime.
    pub lifetime_ms: Option<u64>,
    /// As in `Publish`.
    pub flags: u32,
    /// How to read the payload.
    pub content_type: ContentType,
    /// This part of what is said; never empty.
    pub payload: &'a [u8],
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Answers a `Part` that does not complete its message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct PartTaken<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// The message's nonce.
    pub nonce: Nonce,
    /// The parts that are missing, lowest first; of more than fit, the lowest.
    pub missing: List<u32, MISSING_MAX>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}
