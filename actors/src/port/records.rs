//! What is read of a room's log.

use bytes::Bytes;
use parlor_protocol::{
    RoomNumber, Seq, UnixMillis,
    message::{Direction, GapReason},
};

/// Which records to read.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Of which room.
    pub room: RoomNumber,
    /// The first seq to read: the lowest going forward, the highest going backward.
    pub start: Seq,
    /// The last seq to read: the highest going forward, the lowest going backward.
    pub end: Seq,
    /// Which way.
    pub direction: Direction,
    /// The most records to read, at least 1.
    pub records_max: u32,
    /// The most bytes of frames to read; the first record always fits.
    pub bytes_max: u32,
    /// Records that expired before this are gaps.
    pub now: UnixMillis,
}

/// What a read found: every seq of the stretch that it covers is in one of the runs, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// The runs, oldest first, without holes between them.
    pub runs: Vec<Run>,
    /// Where to go on in the same direction; `None` if the read reached its end.
    pub next: Option<Seq>,
}

/// Consecutive seqs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// Records that can be read.
    Frames {
        /// The first record's seq.
        first: Seq,
        /// The last record's seq.
        last: Seq,
        /// Their `Deliver` frames, one behind the other.
        frames: Bytes,
    },
    /// Records that cannot.
    Gap {
        /// The first seq.
        from: Seq,
        /// The last seq.
        to: Seq,
        /// Why.
        why: GapReason,
    },
}

/// A record to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its `Deliver` frame.
    pub frame: Bytes,
    /// The notes of its newest [`Rewrite`](super::Rewrite); empty if there was none.
    pub notes: Bytes,
}
