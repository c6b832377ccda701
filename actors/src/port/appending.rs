//! What goes to the store's writer, and what comes back.

use std::sync::Arc;

use bytes::Bytes;
use parlor_protocol::{Epoch, RoomNumber, Seq, UnixMillis, message::Durability};

use super::{Answer, DeviceKey, Generation, Place, StoreError};

/// Consecutive records of one room, as one entry of the writer's queue.
pub struct Append {
    /// Which room.
    pub room: RoomNumber,
    /// The appending channel's generation.
    pub generation: Generation,
    /// The room's epoch.
    pub epoch: Epoch,
    /// When the records count as committed: `Buffered` or `Synced`. `Memory` never comes here.
    pub durability: Durability,
    /// The first record's seq, one above the one appended before it.
    pub first: Seq,
    /// The records' `Deliver` frames, one behind the other.
    pub frames: Bytes,
    /// One entry for each record, in order.
    pub records: Vec<AppendRecord>,
    /// Records of before, or of this append, as the changes among `records` leave them; in the order of those.
    pub rewrites: Vec<Rewrite>,
    /// The records' places, given back when the writer is done with them.
    pub place: Place,
    /// Who is told. Rooms that share one are told together.
    pub commits: Arc<dyn Commits>,
}

/// What the store needs to know of a record besides its frame.
#[derive(Clone, Debug)]
pub struct AppendRecord {
    /// Where its frame ends within `Append::frames`.
    pub end: u32,
    /// From when on it may not be read; 0 for never.
    pub expires: UnixMillis,
    /// Whose it is…
    pub device: DeviceKey,
    /// …which of the device's slots its answer overwrites…
    pub slot: u8,
    /// …and the answer, stored in the record's batch.
    pub answer: Answer,
}

/// A record as a change leaves it, stored in the batch of the change. Of what is stored of the record, only this is
/// replaced. If the record is no longer there, nothing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Which record.
    pub seq: Seq,
    /// The seq of the change, which is among the append's records.
    pub revision: Seq,
    /// The record's new `Deliver` frame.
    pub frame: Bytes,
    /// What the room has to know of it besides, for further changes; never sent to anybody.
    pub notes: Bytes,
}

/// Told what became of appends.
pub trait Commits: Send + Sync + 'static {
    /// Some rooms' appends are settled; a room's outcomes come in order. Called by the writer's thread, or before the call of
    /// [`append`](super::Store::append) returns; must not block.
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>);
}

/// What became of a room's appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which room…
    pub room: RoomNumber,
    /// …and which channel's.
    pub generation: Generation,
    /// What is stored now. An error means that nothing above the last commit told is known to be stored, and that nothing
    /// more will be.
    pub stored: Result<Commit, StoreError>,
}

/// A room's part of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Which commit.
    pub number: CommitNumber,
    /// Everything up to here is stored at the durability of its append.
    pub upto: Seq,
}

/// The number of a batch that the writer has committed: one for all rooms, rising, new at each opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitNumber(pub u64);
