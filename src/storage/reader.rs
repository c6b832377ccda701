//! Reads: pages of records and devices' answers, on a small pool of threads behind a bounded queue.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use crossbeam::channel::Receiver;
use parlor_actors::{
    members::{Look, Member, Refusal, Seen},
    port::{Answer, DeviceKey, Marks, Read, Records, RoomMarks, Run, StoreError, Target},
};
use parlor_protocol::{
    Name, RoomNumber, Seq,
    message::{Direction, GapReason},
};
use rocksdb::{BottommostLevelCompaction, CompactOptions, ReadOptions};

use super::{
    db::{Db, failed},
    looking, marks, members,
    pending::Once,
    reads::Counts,
    said::{self, Place, Said},
    schema::{self, Family, Record, damaged},
    targets,
};

/// The most records one read looks at, also if all of them have expired: beyond it the caller comes again, so that no
/// read holds a thread for long.
const EXAMINED_MAX: usize = 4_096;

/// What the readers are asked.
pub(super) enum Question {
    Records(Read, Once<Records>),
    Marks(Name, Vec<RoomNumber>, Once<Vec<Marks>>),
    RoomMarks(RoomNumber, usize, Once<RoomMarks>),
    Target(RoomNumber, Seq, Once<Option<Target>>),
    Answers(RoomNumber, DeviceKey, Once<Vec<(u8, Answer)>>),
    Compact(Once<()>),
    Said(Name, Place, Once<Said>),
    Member(RoomNumber, Name, Once<Option<Member>>),
    Look(Look, Once<Result<Seen, Refusal>>),
}

impl Question {
    /// Answers without looking.
    pub(super) fn refuse(self, error: StoreError) {
        match self {
            Self::Records(_, reply) => reply.give(Err(error)),
            Self::Target(_, _, reply) => reply.give(Err(error)),
            Self::Answers(_, _, reply) => reply.give(Err(error)),
            Self::Marks(_, _, reply) => reply.give(Err(error)),
            Self::RoomMarks(_, _, reply) => reply.give(Err(error)),
            Self::Compact(reply) => reply.give(Err(error)),
            Self::Said(_, _, reply) => reply.give(Err(error)),
            Self::Member(_, _, reply) => reply.give(Err(error)),
            Self::Look(_, reply) => reply.give(Err(error)),
        }
    }
}

/// A reader's thread: ends when the queue is closed and empty.
pub(super) fn run(db: &Arc<Db>, questions: &Receiver<Box<Question>>, reads: &Counts) {
    for question in questions {
        reads.question(&question);
        // The reply tells of a panic by itself; the thread goes on with the next question.
        let answered = catch_unwind(AssertUnwindSafe(|| match *question {
            Question::Records(read, reply) => reply.give(records(db, &read)),
            Question::Target(room, seq, reply) => reply.give(targets::read(db, room, seq)),
            Question::Answers(room, device, reply) => reply.give(answers(db, room, &device)),
            Question::Marks(user, rooms, reply) => reply.give(marks::of_user(db, &user, &rooms)),
            Question::RoomMarks(room, users_max, reply) => reply.give(marks::of_room(db, room, users_max)),
            Question::Compact(reply) => reply.give(compact(db)),
            Question::Said(user, from, reply) => reply.give(said::search(db, &user, from)),
            Question::Member(room, user, reply) => reply.give(members::member(db, room, &user)),
            Question::Look(look, reply) => reply.give(looking::look(db, look)),
        }));
        if answered.is_err() {
            tracing::error!("a reader of the store panicked over one question and goes on");
        }
    }
}

fn records(db: &Db, read: &Read) -> Result<Records, StoreError> {
    let forward = read.direction == Direction::Forward;
    let (low, high) = if forward { (read.start, read.end) } else { (read.end, read.start) };
    let low = low.max(1);
    if low > high {
        return Ok(Records::default());
    }
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(schema::log_key(read.room, low));
    // The upper bound is exclusive: the least key behind the last record's.
    options.set_iterate_upper_bound([schema::log_key(read.room, high).as_slice(), &[0]].concat());
    let mut found = db.rocks().raw_iterator_cf_opt(db.family(Family::Log), options);
    if forward {
        found.seek_to_first()
    } else {
        found.seek_to_last()
    }

    let mut page = Page::new(forward, low, high);
    let mut examined = 0;
    while let Some((key, value)) = found.item() {
        let seq = schema::log_key_seq(key)?;
        if examined == EXAMINED_MAX {
            return Ok(page.stop_before(seq));
        }
        examined += 1;
        let (record, _) = Record::decode(key, value)?;
        if record.expires == 0 || record.expires > read.now {
            if page.is_full(record.frame.len(), read) {
                return Ok(page.stop_before(seq));
            }
            page.push(seq, record.frame);
        }
        if forward { found.next() } else { found.prev() }
    }
    found.status().map_err(failed)?;
    Ok(page.stop_at_end())
}

/// What a read has gathered, in the order of reading.
struct Page {
    forward: bool,
    low: Seq,
    high: Seq,
    frames: Vec<u8>,
    /// Each record's seq and where its frame lies.
    spans: Vec<(Seq, Range<usize>)>,
}

impl Page {
    fn new(forward: bool, low: Seq, high: Seq) -> Self {
        Self { forward, low, high, frames: Vec::new(), spans: Vec::new() }
    }

    fn is_full(&self, bytes: usize, read: &Read) -> bool {
        let first = self.spans.is_empty();
        !first && (self.spans.len() >= read.records_max as usize || self.frames.len() + bytes > read.bytes_max as usize)
    }

    fn push(&mut self, seq: Seq, frame: &[u8]) {
        let start = self.frames.len();
        self.frames.extend_from_slice(frame);
        self.spans.push((seq, start..self.frames.len()));
    }

    /// The page ends at the record nearer than `seq`, which is the next to read.
    fn stop_before(mut self, seq: Seq) -> Records {
        // `seq` lies within the stretch and is not its first, so neither can overflow.
        if self.forward {
            self.high = seq - 1
        } else {
            self.low = seq + 1
        }
        Records { runs: self.runs(), next: Some(seq) }
    }

    fn stop_at_end(self) -> Records {
        Records { runs: self.runs(), next: None }
    }

    /// Everything from `low` to `high`, oldest first. What was not gathered is a gap.
    fn runs(mut self) -> Vec<Run> {
        if !self.forward {
            self.turn_round();
        }
        let frames = Bytes::from(self.frames);
        let gap = |from, to| Run::Gap { from, to, why: GapReason::EXPIRED };
        let mut runs = Vec::new();
        let mut covered = self.low - 1;
        for run in self.spans.chunk_by(|(a, _), (b, _)| a + 1 == *b) {
            let (Some(&(first, ref start)), Some(&(last, ref end))) = (run.first(), run.last()) else { continue };
            if covered + 1 < first {
                runs.push(gap(covered + 1, first - 1));
            }
            runs.push(Run::Frames { first, last, frames: frames.slice(start.start..end.end) });
            covered = last;
        }
        if covered < self.high {
            runs.push(gap(covered + 1, self.high));
        }
        runs
    }

    fn turn_round(&mut self) {
        let gathered = std::mem::take(&mut self.frames);
        self.frames.reserve_exact(gathered.len());
        self.spans.reverse();
        for (_, span) in &mut self.spans {
            let start = self.frames.len();
            self.frames.extend_from_slice(&gathered[span.clone()]);
            *span = start..self.frames.len();
        }
    }
}

fn compact(db: &Db) -> Result<(), StoreError> {
    for family in [Family::Log, Family::Answers, Family::Due].map(|family| db.family(family)) {
        db.rocks().flush_cf(family).map_err(failed)?;
        let mut options = CompactOptions::default();
        // Otherwise the last level is left as it is.
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        db.rocks().compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &options);
    }
    Ok(())
}

fn answers(db: &Db, room: RoomNumber, device: &DeviceKey) -> Result<Vec<(u8, Answer)>, StoreError> {
    let prefix = schema::answers_prefix(room, device);
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(prefix.as_slice());
    // Slots are one byte; nothing but them lies between these bounds, and so at most 256 keys.
    options.set_iterate_upper_bound([prefix.as_slice(), &[u8::MAX, 0]].concat());
    // That a device is new the filters say without reading a block.
    options.set_prefix_same_as_start(true);
    let mut found = db.rocks().raw_iterator_cf_opt(db.family(Family::Answers), options);
    found.seek_to_first();
    let mut answers = Vec::new();
    while let Some((key, value)) = found.item() {
        // Slots are filled in turn, and old ones are forgotten.
        let Some(&[slot]) = key.strip_prefix(prefix.as_slice()) else {
            return Err(damaged(Family::Answers, key, "the key does not end with a slot"));
        };
        let answer = schema::decode_answer(value).map_err(|wrong| damaged(Family::Answers, key, &wrong))?;
        answers.push((slot, answer));
        found.next();
    }
    found.status().map_err(failed)?;
    Ok(answers)
}
