//! What compactions drop by themselves: records that expired among others that did not, and answers of long ago.
//!
//! Nothing depends on it: readers judge by themselves what has expired. But a room's newest record says where its seqs,
//! count and time stand, so a record may only be dropped once the sweep has seen to that (`writer/sweeping.rs`). Up to
//! which expiry that is so says the horizon, and every compaction takes what it was when it began.

use std::{
    ffi::CStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use parlor_protocol::UnixMillis;
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
        Filter { horizon: horizon.load(SeqCst), time: self.time, name: self.name }
    }

    fn name(&self) -> &CStr {
        self.name
    }
}

struct Filter {
    horizon: UnixMillis,
    time: TimeOf,
    name: &'static CStr,
}

impl CompactionFilter for Filter {
    fn filter(&mut self, _level: u32, _key: &[u8], value: &[u8]) -> CompactionDecision {
        if self.horizon > 0 && (self.time)(value).is_some_and(|time| time <= self.horizon) {
            CompactionDecision::Remove
        } else {
            CompactionDecision::Keep
        }
    }

    fn name(&self) -> &CStr {
        self.name
    }
}
