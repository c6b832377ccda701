//! Reading a room's past: out of the ring if hot, out of the store if cold, the same answer either way.

use std::collections::{HashMap, hash_map::Entry};

use bytes::{Bytes, BytesMut};
use parlor_protocol::{
    Epoch, Extensions, List, RoomNumber, Seq, UnixMillis,
    message::{Direction, GAPS_PER_PAGE_MAX, Gap, GapReason, Page, PageGap},
};

use super::{
    position::Extent,
    ring::{PageLimit, Ring},
};
use crate::{
    limits::Limits,
    message::Conn,
    port::{Read, Records, Run, StoreError},
};

/// Reads of the store that are under way, and who waits for each.
#[derive(Debug, Default)]
pub struct Reads {
    next: u64,
    waiting: HashMap<u64, Purpose>,
    /// Pulls of the same page share one read: the read that begins behind this seq.
    pulls: HashMap<Seq, u64>,
}

/// What a read is for.
#[derive(Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To bring these subscribers, whose cursors are all `after`, nearer to the tail.
    Pull {
        /// Their cursor.
        after: Seq,
        /// Which ones.
        conns: Vec<Conn>,
    },
    /// To answer a fetch.
    Fetch {
        /// Whose.
        conn: Conn,
        /// Which one.
        request: u32,
        /// The tail when it was asked, where the read ends.
        tail: Seq,
    },
    /// To find the count at a seq, for a mark.
    Count,
}

/// A read for the store, with the number under which its answer is awaited.
#[derive(Debug)]
pub struct NewRead {
    /// Under which number.
    pub id: u64,
    /// What to read.
    pub read: Read,
}

impl Reads {
    /// Registers a pull; the read to start if none for the same page is under way. `Err` if too many are.
    pub fn pull(&mut self, conn: Conn, after: Seq, read: Read, max: usize) -> Result<Option<NewRead>, StoreError> {
        if let Entry::Occupied(entry) = self.pulls.entry(after)
            && let Some(Purpose::Pull { conns, .. }) = self.waiting.get_mut(entry.get())
        {
            conns.push(conn);
            return Ok(None);
        }
        let new = self.start(Purpose::Pull { after, conns: vec![conn] }, read, max)?;
        self.pulls.insert(after, new.id);
        Ok(Some(new))
    }

    /// Registers a fetch. `Err` if too many reads are under way.
    pub fn fetch(
        &mut self,
        conn: Conn,
        request: u32,
        tail: Seq,
        read: Read,
        max: usize,
    ) -> Result<NewRead, StoreError> {
        self.start(Purpose::Fetch { conn, request, tail }, read, max)
    }

    /// Registers a search for a count. `Err` if too many reads are under way.
    pub fn count(&mut self, read: Read, max: usize) -> Result<NewRead, StoreError> {
        self.start(Purpose::Count, read, max)
    }

    /// How many reads are under way.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A read came back: what it was for.
    pub fn done(&mut self, id: u64) -> Option<Purpose> {
        let purpose = self.waiting.remove(&id)?;
        if let Purpose::Pull { after, .. } = &purpose {
            self.pulls.remove(after);
        }
        Some(purpose)
    }

    fn start(&mut self, purpose: Purpose, read: Read, max: usize) -> Result<NewRead, StoreError> {
        if self.waiting.len() >= max {
            return Err(StoreError::Busy);
        }
        self.next += 1;
        self.waiting.insert(self.next, purpose);
        Ok(NewRead { id: self.next, read })
    }
}

/// What to do for a request for history.
#[derive(Debug)]
pub enum Source {
    /// Here it is.
    Hot(Records),
    /// The store has it.
    Cold(Read),
}

/// Finds the records behind `after`, for a pull.
pub fn source_of_pull(
    room: RoomNumber,
    extent: &Extent,
    ring: &Ring,
    after: Seq,
    limits: &Limits,
    now: UnixMillis,
) -> Source {
    let limit = PageLimit { records: limits.page_records_max, bytes: limits.page_bytes_max };
    source(room, extent, ring, (after + 1, extent.tail), Direction::Forward, limit, now)
}

/// Finds the records of a page, for a fetch.
pub fn source_of_fetch(
    room: RoomNumber,
    extent: &Extent,
    ring: &Ring,
    (start, direction, records): (Option<Seq>, Direction, u32),
    limits: &Limits,
    now: UnixMillis,
) -> Source {
    let records = if records == 0 { limits.page_records } else { records.min(limits.page_records_max) };
    let limit = PageLimit { records, bytes: limits.page_bytes_max };
    let range = match direction {
        Direction::Forward => (start.unwrap_or(extent.first).max(1), extent.tail),
        Direction::Backward => (start.unwrap_or(extent.tail).min(extent.tail), extent.first),
    };
    source(room, extent, ring, range, direction, limit, now)
}

fn source(
    room: RoomNumber,
    extent: &Extent,
    ring: &Ring,
    (start, end): (Seq, Seq),
    direction: Direction,
    limit: PageLimit,
    now: UnixMillis,
) -> Source {
    let lowest = match direction {
        Direction::Forward => {
            if start > end {
                return Source::Hot(Records::default());
            }
            if start < extent.first {
                // What was trimmed is told first; the rest is the next page's.
                let gap = Run::Gap { from: start, to: extent.first - 1, why: GapReason::TRIMMED };
                return Source::Hot(Records { runs: vec![gap], next: (extent.first <= end).then_some(extent.first) });
            }
            start
        }
        Direction::Backward => {
            if start < end {
                return Source::Hot(Records::default());
            }
            end.max((start + 1).saturating_sub(u64::from(limit.records)))
        }
    };
    if ring.first() <= lowest {
        if direction == Direction::Forward {
            return Source::Hot(ring.read(start, end, direction, limit, now));
        }
        // What lies below the page may not be in the ring, and must not be looked at there.
        let Records { runs, next } = ring.read(start, lowest, direction, limit, now);
        return Source::Hot(Records { runs, next: next.or((lowest > end).then(|| lowest - 1)) });
    }
    Source::Cold(Read { room, start, end, direction, records_max: limit.records, bytes_max: limit.bytes, now })
}

/// The runs as a subscriber gets them, one frame behind the other, and the last seq that they cover.
#[must_use]
pub fn to_stream(room: RoomNumber, extent: &Extent, records: &Records) -> Option<(Seq, Bytes)> {
    if let [Run::Frames { last, frames, .. }] = &records.runs[..] {
        return Some((*last, frames.clone()));
    }
    let mut stream = BytesMut::new();
    let mut covered = None;
    for run in &records.runs {
        match *run {
            Run::Frames { last, ref frames, .. } => {
                stream.extend_from_slice(frames);
                covered = Some(last);
            }
            Run::Gap { from, to, why } => {
                let gap = Gap { room, epoch: extent.epoch(), from, to, why, extensions: Extensions::default() };
                parlor_protocol::encode(0, &gap, &mut stream);
                covered = Some(to);
            }
        }
    }
    covered.map(|last| (last, stream.freeze()))
}

/// The runs as the answer to a fetch of when the room's tail was `tail`.
#[must_use]
pub fn to_page(room: RoomNumber, epoch: Epoch, tail: Seq, records: &Records, request: u32) -> Bytes {
    let mut gaps = List::default();
    let mut frames = Vec::new();
    for run in &records.runs {
        match *run {
            Run::Frames { frames: ref run, .. } => frames.push(run.clone()),
            Run::Gap { from, to, why } if gaps.0.len() < GAPS_PER_PAGE_MAX => gaps.0.push(PageGap { from, to, why }),
            Run::Gap { .. } => debug_assert!(false, "a page has at most 200 records and one gap more"),
        }
    }
    let joined;
    let records_bytes: &[u8] = match &frames[..] {
        [one] => one,
        many => {
            joined = many.concat();
            &joined
        }
    };
    let page =
        Page { room, epoch, tail, next: records.next, gaps, records: records_bytes, extensions: Extensions::default() };
    parlor_protocol::to_bytes(request, &page)
}
