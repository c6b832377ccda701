//! The extensions with which a `Deliver` says what changes were made to it.

use crate::codec::{BorrowDecode, Encode};

/// Extension of `Deliver`: the seq of the newest change made to the record, a u64.
pub const TAG_REVISION: u32 = 2;

/// Extension of `Deliver`: what was said here is gone; a [`TombstoneReason`].
pub const TAG_TOMBSTONE: u32 = 4;

/// Extension of `Deliver`: a list of (reaction string, number of users u32), in the order of their first use.
pub const TAG_REACTIONS: u32 = 6;

/// Extension of `Deliver`: a reaction record that takes the reaction back; without a value.
pub const TAG_REMOVES: u32 = 8;

/// Extension of `Deliver`: the seq of the newest edit in the record, a u64.
pub const TAG_EDITED: u32 = 10;

/// Extension of `Deliver`: a silent message, which the count leaves out; without a value.
pub const TAG_SILENT: u32 = 12;

/// Extension of `Publish` and `Part`: the epoch in which the record stands that is to be changed, a u64.
pub const TAG_EPOCH: u32 = 2;

/// The most different reactions of one record.
pub const REACTIONS_PER_RECORD_MAX: usize = 16;

/// The longest reaction, in bytes of UTF-8.
pub const REACTION_BYTES_MAX: usize = 32;

/// What a rewritten record needs besides what it needed before, in bytes, at most.
pub const CHANGED_BYTES_MAX: usize = 16 + 16 + 16 + REACTIONS_PER_RECORD_MAX * (REACTION_BYTES_MAX + 6);

/// Why a record is a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub struct TombstoneReason(pub u16);

impl TombstoneReason {
    /// Its sender, or a moderator, took it back.
    pub const RECALLED: Self = Self(0);
    /// An edit that a later edit or a recall of the same record has replaced.
    pub const REPLACED: Self = Self(1);
    /// The host erased it.
    pub const ERASED: Self = Self(2);
}
