//! What compactions drop by themselves: records that expired among others that did not, changes of messages that their
//! rooms keep no longer, and answers of long ago.
//!
//! Nothing depends on it: readers judge by themselves what has expired. But a room's newest record says where its seqs,
//! count and time stand, so a record may only be dropped once the sweep has seen to that (`writer/sweeping.rs`). Up to
//! which expiry that is so says the horizon, and every compaction takes what it was when it began.

use std::{
    collections::HashMap,
    ffi::CStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use parking_lot::RwLock;
use parlor_protocol::{RoomNumber, Seq, UnixMillis};
use rocksdb::{
    CompactionDecision, Options,
    compaction_filter::CompactionFilter,
    compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory},
};

use super::schema::{self, Family};

/// Up to which times compactions may drop. 0, as at every opening, is for nothing.
#[derive(Debug, Default)]
pub(super) struct Horizons {
    /// Records that expired at or before this.
    pub(super) records: AtomicU64,
    /// Answers given at or before this.
    pub(super) answers: AtomicU64,
    /// Up to where rooms are trimmed. Only what is synced stands here.
    pub(super) marks: Marks,
}

/// How far a room is trimmed, as far as compactions need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// What changes a record below this may go…
    pub(super) first: Seq,
    /// …up to this seq: the room goes on from there though it is gone.
    pub(super) floor: Seq,
}

/// The rooms whose marks are known: all that were loaded or trimmed since the store was opened, up to a limit. Of others
/// compactions keep the changes for now.
#[derive(Debug, Default)]
pub(super) struct Marks(RwLock<HashMap<RoomNumber, Mark>>);

/// The most rooms whose marks are known.
const MARKS_MAX: usize = 65_536;

impl Marks {
    pub(super) fn put(&self, room: RoomNumber, mark: Mark) {
        let mut marks = self.0.write();
        if marks.len() < MARKS_MAX || marks.contains_key(&room) {
            marks.insert(room, mark);
        }
    }

    fn of(&self, room: RoomNumber) -> Option<Mark> {
        self.0.read().get(&room).copied()
    }
}

impl Horizons {
    /// Makes the compactions of a family forget.
    pub(super) fn install(self: &Arc<Self>, family: &str, options: &mut Options) {
        let (time, name): (TimeOf, _) = if family == Family::Log.name() {
            (schema::expiry_to_filter, c"parlor.expired")
        } else if family == Family::Answers.name() {
            (schema::answer_time, c"parlor.old-answers")
        } else {
            return;
        };
        let of_records = family == Family::Log.name();
        options.set_compaction_filter_factory(Factory { horizons: self.clone(), of_records, time, name });
    }
}

/// What a value says of when it may go.
type TimeOf = fn(&[u8]) -> Option<UnixMillis>;

struct Factory {
    horizons: Arc<Horizons>,
    of_records: bool,
    time: TimeOf,
    name: &'static CStr,
}

impl CompactionFilterFactory for Factory {
    type Filter = Filter;

    fn create(&mut self, _context: CompactionFilterContext) -> Filter {
        let horizon = if self.of_records { &self.horizons.records } else { &self.horizons.answers };
        let marks = self.of_records.then(|| self.horizons.clone());
        Filter { horizon: horizon.load(SeqCst), time: self.time, name: self.name, marks, room: (RoomNumber(0), None) }
    }

    fn name(&self) -> &CStr {
        self.name
    }
}

struct Filter {
    horizon: UnixMillis,
    time: TimeOf,
    name: &'static CStr,
    /// Of a log.
    marks: Option<Arc<Horizons>>,
    /// The room whose records come now, and its mark.
    room: (RoomNumber, Option<Mark>),
}

impl Filter {
    /// Whether a record changes a message that its room keeps no longer.
    fn is_orphan(&mut self, key: &[u8], value: &[u8]) -> bool {
        let Some(horizons) = &self.marks else { return false };
        let (Ok(room), Ok(seq)) = (schema::log_key_room(key), schema::log_key_seq(key)) else { return false };
        if room != self.room.0 {
            self.room = (room, horizons.marks.of(room));
        }
        let mark = self.room.1.filter(|mark| seq <= mark.floor);
        mark.is_some_and(|mark| schema::changes(value).is_some_and(|target| target < mark.first))
    }
}

impl CompactionFilter for Filter {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> CompactionDecision {
        let expired = self.horizon > 0 && (self.time)(value).is_some_and(|time| time <= self.horizon);
        if expired || self.is_orphan(key, value) { CompactionDecision::Remove } else { CompactionDecision::Keep }
    }

    fn name(&self) -> &CStr {
        self.name
    }
}
