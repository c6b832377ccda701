//! The ring of a room that was just loaded is empty. What it would hold is read once, when somebody asks for it.

use std::collections::BTreeMap;

use parlor_protocol::{Seq, UnixMillis, message::Direction};

use super::{change::deliver_of, position::Extent, ring::Ring};
use crate::{
    message::{Conn, Fetch},
    port::{Read, Records, Run},
};
use parlor_protocol::RoomNumber;

/// How far a ring is refilled.
#[derive(Debug, Default)]
pub enum Refill {
    /// Nobody has asked yet.
    #[default]
    Idle,
    /// It is being read for these.
    UnderWay(Waiters),
    /// It was read.
    Done,
    /// It was read, and some of it fell off since there was no memory for it.
    Again,
}

/// Who waits for a ring to be refilled.
#[derive(Debug, Default)]
pub struct Waiters {
    /// Subscribers by their cursors.
    pub pulls: BTreeMap<Seq, Vec<Conn>>,
    /// Requests for pages.
    pub fetches: Vec<Fetch>,
    /// How many of both.
    pub len: usize,
}

impl Waiters {
    /// A subscriber waits.
    pub fn pull(&mut self, conn: Conn, after: Seq) {
        self.pulls.entry(after).or_default().push(conn);
        self.len += 1;
    }

    /// A request waits.
    pub fn fetch(&mut self, fetch: Fetch) {
        self.fetches.push(fetch);
        self.len += 1;
    }
}

/// The read that would refill a ring, if something is missing there that it has room for when it may hold so many bytes.
#[must_use]
pub fn read_of(room: RoomNumber, extent: &Extent, ring: &Ring, bytes_most: usize, now: UnixMillis) -> Option<Read> {
    let (records, bytes) = ring.room(bytes_most);
    let records_max = u32::try_from(records).unwrap_or(u32::MAX);
    let bytes_max = u32::try_from(bytes).unwrap_or(u32::MAX);
    let start = ring.first() - 1;
    let end = extent.first.max((start + 1).saturating_sub(u64::from(records_max)));
    let missing = records_max > 0 && bytes_max > 0 && end <= start;
    let direction = Direction::Backward;
    missing.then_some(Read { room, start, end, direction, records_max, bytes_max, now })
}

/// Puts what was read in front of a ring: everything above the newest gap, and nothing that was trimmed meanwhile.
pub fn put_in_front(ring: &mut Ring, extent: &Extent, records: &Records) {
    for run in records.runs.iter().rev() {
        let Run::Frames { first, last, frames } = run else { return };
        if last + 1 != ring.first() {
            return;
        }
        let (mut expires, mut start, mut at) = (Vec::new(), 0, 0);
        for seq in *first..=*last {
            let Some(size) = frame_bytes(&frames[at..]) else { return };
            let Some(deliver) = deliver_of(&frames[at..at + size]) else { return };
            debug_assert_eq!(deliver.seq, seq, "a run has no holes");
            at += size;
            if seq < extent.first {
                start = at;
            } else {
                expires.push(deliver.expires);
            }
        }
        ring.refill(&expires, &frames[start..at]);
        if ring.first() != *first {
            return;
        }
    }
}

/// The size of the first frame, if it is whole.
pub(super) fn frame_bytes(frames: &[u8]) -> Option<usize> {
    let header = parlor_protocol::Header::from_bytes(frames.first_chunk()?);
    let size = parlor_protocol::frame::HEADER_BYTES + header.len as usize;
    (size <= frames.len()).then_some(size)
}
