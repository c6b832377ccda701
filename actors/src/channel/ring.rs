//! A room's newest records, kept in memory.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use parlor_protocol::{
    Header, Seq, UnixMillis,
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
/// used, each with a visit to memory that no cache holds any more. Records that were rewritten lie beside it, and what they
/// were before is overwritten in it.
#[derive(Debug)]
pub struct Ring {
    entries: VecDeque<Entry>,
    /// The first entry's seq.
    first: Seq,
    frames: VecDeque<u8>,
    /// Where the buffer begins, counted from [`ORIGIN`]: what has fallen off, less what was put in front.
    gone: u64,
    /// Records as changes have left them, instead of what the buffer holds of them.
    rewritten: BTreeMap<Seq, Rewritten>,
    rewritten_bytes: usize,
    records_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Entry {
    expires: UnixMillis,
    /// Where its frame ends, counted from [`ORIGIN`].
    end: u64,
}

impl Entry {
    fn is_expired(&self, now: UnixMillis) -> bool {
        self.expires != 0 && self.expires <= now
    }
}

#[derive(Debug)]
struct Rewritten {
    frame: Bytes,
    notes: Bytes,
}

impl Rewritten {
    fn bytes(&self) -> usize {
        self.frame.len() + self.notes.len()
    }
}

/// What a record that was rewritten costs besides its bytes: about what a table takes for it.
const REWRITTEN_OVERHEAD_BYTES: usize = 128;

/// A buffer that has no more room to spare than this is left as it is.
const SPARE_LEAST: usize = 1 << 10;

/// Where an empty ring's buffer begins: so high that whatever is put in front of it has a place above 0.
const ORIGIN: u64 = 1 << 62;

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
        Self {
            entries: VecDeque::new(),
            first: next,
            frames: VecDeque::new(),
            gone: ORIGIN,
            rewritten: BTreeMap::new(),
            rewritten_bytes: 0,
            records_max,
            bytes_max,
        }
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
        self.shrink();
    }

    /// Replaces a record by what a change left of it, if it is held; the oldest fall off.
    pub fn rewrite(&mut self, seq: Seq, frame: Bytes, notes: Bytes) {
        if !self.holds(seq) {
            return;
        }
        // What was said before is kept nowhere.
        let (start, end) = (self.offset(seq), self.offset(seq + 1));
        self.frames.range_mut(start..end).for_each(|byte| *byte = 0);
        let new = Rewritten { frame, notes };
        self.rewritten_bytes += new.bytes();
        if let Some(old) = self.rewritten.insert(seq, new) {
            self.rewritten_bytes -= old.bytes();
        }
        self.shrink();
    }

    /// Puts records in front of the oldest: those that end right before it, as many of the newest as there is room for.
    /// They come oldest first, with their expiries, and with frames of which each says its length.
    pub fn refill(&mut self, expires: &[UnixMillis], mut frames: &[u8]) {
        let mut sizes = Vec::with_capacity(expires.len());
        let mut rest = frames;
        while let Some(header) = rest.first_chunk() {
            let size = (HEADER_BYTES + Header::from_bytes(header).len as usize).min(rest.len());
            rest = &rest[size..];
            sizes.push(size);
        }
        debug_assert_eq!(sizes.len(), expires.len(), "an expiry for each frame");
        let room = self.bytes_max.saturating_sub(self.bytes());
        let mut bytes = 0;
        let fits = |size: &&usize| {
            bytes += **size;
            bytes <= room
        };
        let free = self.records_max.saturating_sub(self.entries.len()).min(expires.len());
        let taken = sizes.iter().rev().take(free).take_while(fits).count();
        let skipped = sizes.len() - taken;
        frames = &frames[sizes[..skipped].iter().sum()..];
        let mut buffer = Vec::with_capacity(frames.len() + self.frames.len());
        buffer.extend_from_slice(frames);
        let (head, tail) = self.frames.as_slices();
        buffer.extend_from_slice(head);
        buffer.extend_from_slice(tail);
        let mut end = self.gone;
        for (size, expires) in sizes.iter().zip(expires).skip(skipped).rev() {
            self.entries.push_front(Entry { expires: *expires, end });
            end -= *size as u64;
        }
        self.gone = end;
        self.first -= taken as u64;
        self.frames = buffer.into();
    }

    /// How many records, and how many bytes of them, could be put in front, if it may hold so many bytes.
    #[must_use]
    pub fn room(&self, bytes_most: usize) -> (usize, usize) {
        let bytes = self.bytes_max.saturating_sub(self.bytes()).min(bytes_most.saturating_sub(self.held_bytes()));
        (self.records_max.saturating_sub(self.entries.len()), bytes)
    }

    /// What it holds, with what it needs to know about each record. Its buffers may be twice as large.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let entries = self.entries.len() * size_of::<Entry>();
        self.bytes() + entries + self.rewritten.len() * REWRITTEN_OVERHEAD_BYTES
    }

    /// The oldest record that stays if it is to hold at most so many bytes; one above the newest if none does.
    #[must_use]
    pub fn first_within(&self, bytes_most: usize) -> Seq {
        let (mut held, mut first) = (self.held_bytes(), self.first);
        while held > bytes_most && first <= self.last() {
            let rewritten = self.rewritten.get(&first).map_or(0, |old| old.bytes() + REWRITTEN_OVERHEAD_BYTES);
            held -= self.offset(first + 1) - self.offset(first) + size_of::<Entry>() + rewritten;
            first += 1;
        }
        first
    }

    /// Gives memory back that is not needed for what it holds, if that is much.
    pub fn release(&mut self) {
        let wide = |capacity: usize, len: usize| capacity > 2 * len && capacity - len > SPARE_LEAST;
        if wide(self.frames.capacity(), self.frames.len()) {
            self.frames.shrink_to(self.frames.len() + self.frames.len() / 2);
        }
        if wide(self.entries.capacity() * size_of::<Entry>(), self.entries.len() * size_of::<Entry>()) {
            self.entries.shrink_to(self.entries.len() + self.entries.len() / 2);
        }
    }

    /// Whether it holds a record.
    #[must_use]
    pub fn holds(&self, seq: Seq) -> bool {
        (self.first..=self.last()).contains(&seq)
    }

    /// A record's frame, if it is held.
    #[must_use]
    pub fn frame(&self, seq: Seq) -> Option<Bytes> {
        self.holds(seq).then(|| self.join(seq, seq))
    }

    /// The notes of a record that was rewritten here; `None` of others.
    #[must_use]
    pub fn notes(&self, seq: Seq) -> Option<Bytes> {
        self.rewritten.get(&seq).map(|rewritten| rewritten.notes.clone())
    }

    fn bytes(&self) -> usize {
        self.frames.len() + self.rewritten_bytes
    }

    /// Lets the oldest fall off until the rest is within the limits.
    fn shrink(&mut self) {
        while self.entries.len() > self.records_max || (self.bytes() > self.bytes_max && self.entries.len() > 1) {
            self.pop();
        }
    }

    /// Lets the oldest fall off until there are at most so many, and so many bytes of frames; 0 for any number. The newest
    /// stays.
    pub fn keep(&mut self, records_max: u64, bytes_max: u64) {
        let too_many = |ring: &Self| records_max > 0 && ring.entries.len() as u64 > records_max;
        let too_large = |ring: &Self| bytes_max > 0 && ring.bytes() as u64 > bytes_max;
        while self.entries.len() > 1 && (too_many(self) || too_large(self)) {
            self.pop();
        }
    }

    /// The oldest seq held that has not expired by `now`; one above the newest if all have.
    #[must_use]
    pub fn first_unexpired(&self, now: UnixMillis) -> Seq {
        self.first + self.entries.iter().take_while(|entry| entry.is_expired(now)).count() as u64
    }

    /// Lets everything below a seq fall off.
    pub fn drop_below(&mut self, first: Seq) {
        while self.first < first && !self.entries.is_empty() {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let end = self.offset(self.first + 1);
        self.entries.pop_front();
        self.frames.drain(..end);
        self.gone += end as u64;
        if let Some(old) = self.rewritten.remove(&self.first) {
            self.rewritten_bytes -= old.bytes();
        }
        self.first += 1;
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
            bytes += self.size(*seq);
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

    /// How many countable records the room held before a record that is held.
    #[must_use]
    pub fn count_before(&self, seq: Seq) -> Option<u64> {
        if seq < self.first || seq > self.last() {
            return None;
        }
        parlor_protocol::peek::count_before(self.join(seq, seq).get(HEADER_BYTES..)?).ok()
    }

    fn entry(&self, seq: Seq) -> &Entry {
        #[expect(clippy::cast_possible_truncation, reason = "an index of a ring in memory")]
        &self.entries[(seq - self.first) as usize]
    }

    fn runs(&self, from: Seq, to: Seq, now: UnixMillis) -> Vec<Run> {
        let readable = |seq: Seq| !self.entry(seq).is_expired(now);
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

    fn size(&self, seq: Seq) -> usize {
        match self.rewritten.get(&seq) {
            Some(rewritten) => rewritten.frame.len(),
            None => self.offset(seq + 1) - self.offset(seq),
        }
    }

    fn join(&self, first: Seq, last: Seq) -> Bytes {
        let mut changed = self.rewritten.range(first..=last).peekable();
        if first == last
            && let Some((_, rewritten)) = changed.peek()
        {
            return rewritten.frame.clone();
        }
        let mut frames = Vec::with_capacity(self.offset(last + 1) - self.offset(first));
        let mut from = first;
        for (seq, rewritten) in changed {
            self.copy(from, *seq, &mut frames);
            frames.extend_from_slice(&rewritten.frame);
            from = seq + 1;
        }
        self.copy(from, last + 1, &mut frames);
        frames.into()
    }

    /// Copies records from `first` on that lie before `end` and were not rewritten.
    fn copy(&self, first: Seq, end: Seq, frames: &mut Vec<u8>) {
        let (start, end) = (self.offset(first), self.offset(end));
        let (head, tail) = self.frames.as_slices();
        let at = head.len();
        frames.extend_from_slice(&head[start.min(at)..end.min(at)]);
        frames.extend_from_slice(&tail[start.saturating_sub(at)..end.saturating_sub(at)]);
    }
}

#[cfg(test)]
mod tests;
