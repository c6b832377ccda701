//! Reading a room's past: out of the ring if hot, out of the store if cold, the same answer either way.

use std::collections::{BTreeMap, HashMap};

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
    under_way: BTreeMap<u64, Purpose>,
    /// The reads of pages by what they read: whoever wants the same page shares one.
    pages: HashMap<PageKey, u64>,
    /// The reads of single records.
    targets: HashMap<Seq, u64>,
}

/// Where a page begins, which way it goes, and its most records. Where it ends at the latest is not part of it: a page
/// that was asked for later may go on behind the tail of before.
type PageKey = (Seq, bool, u32, Seq);

/// What a read is for.
#[derive(Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A page for all of these.
    Page(Waiters),
    /// To change this record.
    Target(Seq),
    /// To refill the ring.
    Refill,
    /// To find the count at a seq, for a mark.
    Count,
}

/// Who waits for a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Waiters {
    /// Where the read begins…
    pub start: Seq,
    /// …and where it ends at the latest.
    pub end: Seq,
    /// Which way.
    pub direction: Direction,
    /// Subscribers whose cursors are right before the page.
    pub pulls: Vec<Conn>,
    /// Requests for it.
    pub fetches: Vec<Fetched>,
    /// When the read was asked for, and when the last of those who wait came.
    pub times: (UnixMillis, UnixMillis),
}

/// A request for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Whose.
    pub conn: Conn,
    /// Which one.
    pub request: u32,
    /// The tail when it was asked.
    pub tail: Seq,
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
    /// Registers a pull of the page behind its cursor; the read to start if none of the same page is under way. `Err` if
    /// too many are.
    pub fn pull(&mut self, conn: Conn, read: Read, max: usize) -> Result<Option<NewRead>, StoreError> {
        let (waiters, new) = self.page(read, max)?;
        waiters.pulls.push(conn);
        Ok(new)
    }

    /// Registers a fetch; the read to start if none of the same page is under way. `Err` if too many are.
    pub fn fetch(&mut self, fetched: Fetched, read: Read, max: usize) -> Result<Option<NewRead>, StoreError> {
        let (waiters, new) = self.page(read, max)?;
        waiters.fetches.push(fetched);
        Ok(new)
    }

    /// Registers a read of one record; its number if none of the same record is under way. `Err` if too many are.
    pub fn target(&mut self, seq: Seq, max: usize) -> Result<Option<u64>, StoreError> {
        if self.targets.contains_key(&seq) {
            return Ok(None);
        }
        let id = self.start(Purpose::Target(seq), max)?;
        self.targets.insert(seq, id);
        Ok(Some(id))
    }

    /// Registers the read that refills the ring. `Err` if too many are under way.
    pub fn refill(&mut self, read: Read, max: usize) -> Result<NewRead, StoreError> {
        let id = self.start(Purpose::Refill, max)?;
        Ok(NewRead { id, read })
    }

    /// Registers a search for a count. `Err` if too many reads are under way.
    pub fn count(&mut self, read: Read, max: usize) -> Result<NewRead, StoreError> {
        let id = self.start(Purpose::Count, max)?;
        Ok(NewRead { id, read })
    }

    /// Takes away all requests that wait for pages; whoever takes them answers them.
    pub fn give_up_fetches(&mut self) -> Vec<Fetched> {
        let pages = self.under_way.values_mut().filter_map(|purpose| match purpose {
            Purpose::Page(waiters) => Some(std::mem::take(&mut waiters.fetches)),
            Purpose::Target(_) | Purpose::Refill | Purpose::Count => None,
        });
        pages.flatten().collect()
    }

    /// How many reads are under way.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    /// The number of the newest read that was ever started.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.next
    }

    /// The number of the oldest read under way.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.under_way.first_key_value().map(|(id, _)| *id)
    }

    /// A read came back: what it was for.
    pub fn done(&mut self, id: u64) -> Option<Purpose> {
        let purpose = self.under_way.remove(&id)?;
        match &purpose {
            Purpose::Page(_) => self.pages.retain(|_, read| *read != id),
            Purpose::Target(seq) => drop(self.targets.remove(seq)),
            Purpose::Refill | Purpose::Count => {}
        }
        Some(purpose)
    }

    /// The read of a page, under way or new.
    fn page(&mut self, read: Read, max: usize) -> Result<(&mut Waiters, Option<NewRead>), StoreError> {
        let Read { start, end, direction, records_max, now, .. } = read;
        // A page that goes backward ends where he who asks may not look further.
        let lowest = if direction == Direction::Forward { 0 } else { end };
        let key = (start, direction == Direction::Forward, records_max, lowest);
        let (id, new) = match self.pages.get(&key) {
            Some(id) => (*id, None),
            None => {
                let waiters =
                    Waiters { start, end, direction, pulls: Vec::new(), fetches: Vec::new(), times: (now, now) };
                let id = self.start(Purpose::Page(waiters), max)?;
                self.pages.insert(key, id);
                (id, Some(NewRead { id, read }))
            }
        };
        match self.under_way.get_mut(&id) {
            Some(Purpose::Page(waiters)) => {
                waiters.times.1 = waiters.times.1.max(now);
                Ok((waiters, new))
            }
            // Registered above, or when its key was.
            _ => Err(StoreError::Busy),
        }
    }

    fn start(&mut self, purpose: Purpose, max: usize) -> Result<u64, StoreError> {
        if self.under_way.len() >= max {
            return Err(StoreError::Busy);
        }
        self.next += 1;
        self.under_way.insert(self.next, purpose);
        Ok(self.next)
    }
}

impl Waiters {
    /// Where a page goes on for one who asked when the tail was `tail`: a page that others asked for may have ended at the
    /// tail of before.
    #[must_use]
    pub fn next(&self, records: &Records, tail: Seq) -> Option<Seq> {
        let later = self.direction == Direction::Forward && self.end < tail;
        records.next.or_else(|| later.then_some(self.end + 1))
    }
}

/// What to do for a request for history.
#[derive(Debug)]
pub enum Source {
    /// Here it is.
    Hot(Records),
    /// The store has it; how far down the page may reach.
    Cold(Read, Seq),
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
                let gap = Run::Gap { from: start, to: extent.first - 1, why: extent.why_gone(start) };
                return Source::Hot(Records { runs: vec![gap], next: (extent.first <= end).then_some(extent.first) });
            }
            start
        }
        Direction::Backward => {
            if start < end {
                // Below the first that can be read there is nothing, which is told if there ever was something.
                let gap = Run::Gap { from: 1, to: start, why: extent.why_gone(1) };
                let runs = if start > 0 { vec![gap] } else { Vec::new() };
                return Source::Hot(Records { runs, next: None });
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
    let read = Read { room, start, end, direction, records_max: limit.records, bytes_max: limit.bytes, now };
    Source::Cold(read, lowest)
}

/// What a store found, with gaps named as the room knows them: a store cannot tell what it trimmed from what expired.
#[must_use]
pub fn named(extent: &Extent, mut records: Records) -> Records {
    for run in &mut records.runs {
        if let Run::Gap { from, why, .. } = run
            && *why == GapReason::EXPIRED
        {
            *why = extent.why_gone(*from);
        }
    }
    records
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

/// The runs as the answer to a fetch of when the room's tail was `tail`; `next` is where to go on.
#[must_use]
pub fn to_page(room: RoomNumber, epoch: Epoch, tail: Seq, records: &Records, next: Option<Seq>, request: u32) -> Bytes {
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
    let page = Page { room, epoch, tail, next, gaps, records: records_bytes, extensions: Extensions::default() };
    parlor_protocol::to_bytes(request, &page)
}
