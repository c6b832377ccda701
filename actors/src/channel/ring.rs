//! A room's newest records, kept in memory.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use parlor_protocol::{
    Seq, UnixMillis,
    message::{Direction, GapReason},
};

use crate::port::{Records, Run};

/// The newest records of a room: at most so many, and at most so many bytes of their frames.
///
/// Holds consecutive seqs up to the newest committed one. What falls off is in the store, unless the room's durability
/// is `memory`.
#[derive(Debug)]
pub struct Ring {
    entries: VecDeque<Entry>,
    /// The first entry's seq.
    first: Seq,
    bytes: usize,
    records_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Entry {
    expires: UnixMillis,
    frame: Bytes,
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
        Self { entries: VecDeque::new(), first: next, bytes: 0, records_max, bytes_max }
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
    pub fn push(&mut self, expires: UnixMillis, frame: Bytes) {
        self.bytes += frame.len();
        self.entries.push_back(Entry { expires, frame });
        while self.entries.len() > self.records_max || (self.bytes > self.bytes_max && self.entries.len() > 1) {
            if let Some(oldest) = self.entries.pop_front() {
                self.bytes -= oldest.frame.len();
                self.first += 1;
            }
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
            bytes += self.entry(*seq).frame.len();
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

    fn join(&self, first: Seq, last: Seq) -> Bytes {
        if first == last {
            return self.entry(first).frame.clone();
        }
        let mut frames = BytesMut::with_capacity((first..=last).map(|seq| self.entry(seq).frame.len()).sum());
        (first..=last).for_each(|seq| frames.extend_from_slice(&self.entry(seq).frame));
        frames.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> Ring {
        let mut ring = Ring::new(5, 4, 100);
        for (at, frame) in ["e", "f", "g", "h", "i"].into_iter().enumerate() {
            ring.push(if at == 2 { 1_000 } else { 0 }, Bytes::from_static(frame.as_bytes()));
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
        ring.push(0, Bytes::from(vec![b'x'; 99]));
        assert_eq!((ring.first(), ring.last()), (9, 10), "99 bytes leave room for one");
        ring.push(0, Bytes::from(vec![b'x'; 200]));
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
