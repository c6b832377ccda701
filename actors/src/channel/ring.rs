//! A room's newest records, kept in memory.

use std::collections::VecDeque;

use bytes::Bytes;
use parlor_protocol::{
    Seq, UnixMillis,
    frame::HEADER_BYTES,
    message::{Direction, GapReason},
};

use crate::port::{Records, Run};

/// The newest records of a room: at most so many, and at most so many bytes of their frames.
///
/// Holds consecutive seqs up to the newest committed one. What falls off is in the store, unless the room's durability
/// is `memory`.
///
/// The frames lie behind one another in one buffer. As buffers of their own they would be freed long after they were
/// used, each with a visit to memory that no cache holds any more.
#[derive(Debug)]
pub struct Ring {
    entries: VecDeque<Entry>,
    /// The first entry's seq.
    first: Seq,
    frames: VecDeque<u8>,
    /// How many bytes have fallen off.
    gone: u64,
    records_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Entry {
    expires: UnixMillis,
    /// Where its frame ends, counted from the first byte that the ring ever held.
    end: u64,
}

/// How much a page may hold.
#[derive(Clone, Copy, Debug)]
pub struct PageLimit {
    /// The most records, at least 1.
    pub records: u32,
    /// The most bytes of frames; the first record always fits.
    pub bytes: u32,
}

impl Ring {
    /// An empty ring whose first record will be `next`.
    #[must_use]
    pub fn new(next: Seq, records_max: usize, bytes_max: usize) -> Self {
        Self { entries: VecDeque::new(), first: next, frames: VecDeque::new(), gone: 0, records_max, bytes_max }
    }

    /// The oldest seq held; one above the newest committed one if the ring is empty.
    #[must_use]
    pub fn first(&self) -> Seq {
        self.first
    }

    /// The newest seq held; one below [`first`](Self::first) if the ring is empty.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.first + self.entries.len() as u64 - 1
    }

    /// Adds the record behind the newest one; the oldest fall off.
    pub fn push(&mut self, expires: UnixMillis, frame: &[u8]) {
        self.frames.extend(frame);
        self.entries.push_back(Entry { expires, end: self.gone + self.frames.len() as u64 });
        while self.entries.len() > self.records_max || (self.frames.len() > self.bytes_max && self.entries.len() > 1) {
            let end = self.offset(self.first + 1);
            self.entries.pop_front();
            self.frames.drain(..end);
            self.gone += end as u64;
            self.first += 1;
        }
    }

    /// Reads from `start` towards `end`, in either direction; records that expired by `now` are gaps. Everything within
    /// the limit is held here.
    #[must_use]
    pub fn read(&self, start: Seq, end: Seq, direction: Direction, limit: PageLimit, now: UnixMillis) -> Records {
        let (low, high) = match direction {
            Direction::Forward => (start, end),
            Direction::Backward => (end, start),
        };
        if low > high {
            return Records::default();
        }
        debug_assert!(self.first <= start && high <= self.last(), "{low}..={high} is not in the ring");
        let (mut records, mut bytes) = (0, 0);
        let fits = |seq: &Seq| {
            records += 1;
            if records > limit.records.max(1) as usize {
                return false; // Unseen: it may be below the ring, where a backward page goes on.
            }
            bytes += self.offset(*seq + 1) - self.offset(*seq);
            records == 1 || bytes <= limit.bytes as usize
        };
        let (from, to, next) = match direction {
            Direction::Forward => {
                let to = low - 1 + (low..=high).take_while(fits).count() as u64;
                (low, to, (to < high).then_some(to + 1))
            }
            Direction::Backward => {
                let from = high + 1 - (low..=high).rev().take_while(fits).count() as u64;
                (from, high, (from > low).then(|| from - 1))
            }
        };
        Records { runs: self.runs(from, to, now), next }
    }

    /// The count of a record, expired or not, if it is held here.
    #[must_use]
    pub fn count(&self, seq: Seq) -> Option<u64> {
        if seq < self.first || seq > self.last() {
            return None;
        }
        parlor_protocol::peek::count(self.join(seq, seq).get(HEADER_BYTES..)?).ok()
    }

    fn entry(&self, seq: Seq) -> &Entry {
        #[expect(clippy::cast_possible_truncation, reason = "an index of a ring in memory")]
        &self.entries[(seq - self.first) as usize]
    }

    fn runs(&self, from: Seq, to: Seq, now: UnixMillis) -> Vec<Run> {
        let readable = |seq: Seq| {
            let expires = self.entry(seq).expires;
            expires == 0 || expires > now
        };
        let mut runs = Vec::new();
        let mut at = from;
        while at <= to {
            let as_first = readable(at);
            let last = at + (at..=to).skip(1).take_while(|seq| readable(*seq) == as_first).count() as u64;
            runs.push(if as_first {
                Run::Frames { first: at, last, frames: self.join(at, last) }
            } else {
                Run::Gap { from: at, to: last, why: GapReason::EXPIRED }
            });
            at = last + 1;
        }
        runs
    }

    /// Where a record's frame begins in the buffer, or ends for the one before it.
    #[expect(clippy::cast_possible_truncation, reason = "an offset within a buffer in memory")]
    fn offset(&self, seq: Seq) -> usize {
        if seq == self.first { 0 } else { (self.entry(seq - 1).end - self.gone) as usize }
    }

    fn join(&self, first: Seq, last: Seq) -> Bytes {
        let (start, end) = (self.offset(first), self.offset(last + 1));
        let mut frames = Vec::with_capacity(end - start);
        let (head, tail) = self.frames.as_slices();
        let at = head.len();
        frames.extend_from_slice(&head[start.min(at)..end.min(at)]);
        frames.extend_from_slice(&tail[start.saturating_sub(at)..end.saturating_sub(at)]);
        frames.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> Ring {
        let mut ring = Ring::new(5, 4, 100);
        for (at, frame) in ["e", "f", "g", "h", "i"].into_iter().enumerate() {
            ring.push(if at == 2 { 1_000 } else { 0 }, frame.as_bytes());
        }
        ring
    }

    fn frames(first: Seq, last: Seq, text: &'static str) -> Run {
        Run::Frames { first, last, frames: Bytes::from_static(text.as_bytes()) }
    }

    #[test]
    fn the_oldest_fall_off_by_number_and_by_bytes() {
        let mut ring = ring();
        assert_eq!((ring.first(), ring.last()), (6, 9));
        ring.push(0, &[b'x'; 99]);
        assert_eq!((ring.first(), ring.last()), (9, 10), "99 bytes leave room for one");
        ring.push(0, &[b'x'; 200]);
        assert_eq!((ring.first(), ring.last()), (11, 11), "the newest always stays");
    }

    #[track_caller]
    fn check(start: Seq, end: Seq, direction: Direction, limit: (u32, u32), now: u64, want: (Vec<Run>, Option<Seq>)) {
        let limit = PageLimit { records: limit.0, bytes: limit.1 };
        let got = ring().read(start, end, direction, limit, now);
        assert_eq!((got.runs, got.next), want);
    }

    #[test]
    fn a_page_ends_at_its_limits() {
        use Direction::{Backward, Forward};
        check(6, 9, Forward, (9, 9), 0, (vec![frames(6, 9, "fghi")], None));
        check(6, 9, Forward, (3, 9), 0, (vec![frames(6, 8, "fgh")], Some(9)));
        check(6, 9, Forward, (9, 2), 0, (vec![frames(6, 7, "fg")], Some(8)));
        check(6, 9, Forward, (9, 0), 0, (vec![frames(6, 6, "f")], Some(7)));
        check(9, 6, Backward, (9, 9), 0, (vec![frames(6, 9, "fghi")], None));
        check(9, 6, Backward, (3, 9), 0, (vec![frames(7, 9, "ghi")], Some(6)));
        check(8, 6, Backward, (2, 9), 0, (vec![frames(7, 8, "gh")], Some(6)));
        check(10, 9, Forward, (9, 9), 0, (vec![], None));
    }

    #[test]
    fn what_expired_is_a_gap() {
        let gap = Run::Gap { from: 7, to: 7, why: GapReason::EXPIRED };
        let want = vec![frames(6, 6, "f"), gap.clone(), frames(8, 9, "hi")];
        check(6, 9, Direction::Forward, (9, 9), 1_000, (want, None));
        check(7, 7, Direction::Forward, (9, 9), 1_000, (vec![gap], None));
        check(7, 7, Direction::Forward, (9, 9), 999, (vec![frames(7, 7, "g")], None));
    }
}
