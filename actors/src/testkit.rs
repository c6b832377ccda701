//! What tests need instead of the world: a store in memory that can be broken, a clock that can be set, a source of
//! chance that can be repeated.
//!
//! A [`MemStore`] keeps the promises of [`Store`](crate::port::Store) and none beyond them. Left alone it does nothing: a test decides when
//! the writer commits ([`step`](MemStore::step)) and when reads are done and told ([`step_reader`](MemStore::step_reader)),
//! and breaks it by [`crash`](MemStore::crash) and [`Faults`]. For tests of actors, [`serve`](MemStore::serve) runs it on
//! a thread.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use parlor_protocol::{Epoch, Name, RoomNumber, Seq, frame::HEADER_BYTES, message::Deliver};

pub use self::{
    chance::{Chance, TestClock},
    serving::Served,
};
use crate::members::{Changed, Look, Member, Refusal, RoomChange, Seen, announcing::Announcement};
use crate::port::{
    Answer, Append, Budget, DeviceKey, EpochStart, Generation, Load, Loaded, Marks, Read, Records, Reply, Rewrite,
    RoomMarks, RoomOptions, SaveMarks, Sweep, Swept, Target, Trim, Trimmed,
};

/// What may go wrong in a store.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// One in so many reads is answered [`StoreError::Busy`](crate::port::StoreError::Busy); 0 for none.
    pub busy_read_one_in: usize,
    /// The same of loads of rooms.
    pub busy_load_one_in: usize,
    /// The writer's next turn fails: the store is poisoned, and what became of the turn is left to chance.
    pub fail_next_turn: bool,
    /// The next append is not stored, and its room is told of more than it gave, at which its channel panics.
    pub overstate_next_append: bool,
    /// A planted bug: a load does not wait for the appends before it, and nobody is fenced.
    pub unfenced: bool,
    /// A planted bug: commits are told when the append is queued, before anything is stored.
    pub tells_early: bool,
}

/// How an engine ends without saying goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies. What was written is there.
    Process,
    /// The machine loses power. What was synced is there, and of the rest as much as chance leaves.
    Power,
}

/// A store in memory. See the [module](self).
pub struct MemStore {
    inside: Mutex<Inside>,
    budget: Arc<Budget>,
    work: Condvar,
}

struct Inside {
    chance: Chance,
    faults: Faults,
    rooms: BTreeMap<Name, Room>,
    names: BTreeMap<RoomNumber, Name>,
    next_room: u64,
    next_epoch: u64,
    /// The number of the newest change of members.
    changes: u64,
    losses: u64,
    generation: u64,
    commit: u64,
    queue: VecDeque<Entry>,
    reads: VecDeque<Job>,
    poisoned: bool,
}

struct Room {
    number: RoomNumber,
    options: RoomOptions,
    epochs: Vec<EpochStart>,
    losses: u64,
    /// The oldest seq kept.
    first: Seq,
    /// What is gone below this seq did not expire.
    trimmed: Seq,
    /// From seq 1 on; trimmed ones stay for tests to compare with.
    records: Vec<Kept>,
    /// How many of them survive the loss of power.
    synced: usize,
    /// Who may append; nobody after a refused append.
    writer: Option<Generation>,
    members: BTreeMap<Name, Member>,
    marks: BTreeMap<Name, Marks>,
    /// The newest change of its members since it was loaded.
    changed: u64,
    /// What its log was ever to say of changes of its members, oldest first.
    announcements: Vec<Announcement>,
    /// Bytes as the channel counts them.
    counted: u64,
    /// Answers that were given before this are forgotten.
    answers_from: u64,
}

struct Kept {
    frame: Bytes,
    /// What it was rewritten to, oldest first.
    rewrites: Vec<Rewrite>,
    /// What changes would have left of it, had it not been swept.
    too_late: Vec<Bytes>,
    expires: u64,
    device: DeviceKey,
    slot: u8,
    answer: Answer,
}

impl Kept {
    fn is_expired(&self, now: u64) -> bool {
        self.expires != 0 && self.expires <= now
    }
}

enum Entry {
    Append(Append),
    Load(Load, Reply<Loaded>),
    Marks(SaveMarks, Reply<()>),
    Sweep(Sweep, Reply<Swept>),
    Trim(Trim, Reply<Trimmed>),
    Change(RoomChange, Reply<Result<Changed, Refusal>>),
    Settle(Reply<()>),
}

/// A read: asked, then done, then told.
enum Job {
    Read(Read, Reply<Records>),
    Marks(Name, Vec<RoomNumber>, Reply<Vec<Marks>>),
    RoomMarks(RoomNumber, usize, Reply<RoomMarks>),
    Target(RoomNumber, Seq, Reply<Option<Target>>),
    Answers(RoomNumber, DeviceKey, Reply<Vec<(u8, Answer)>>),
    Member(RoomNumber, Name, Reply<Option<Member>>),
    Look(Look, Reply<Result<Seen, Refusal>>),
    Done(Box<dyn FnOnce() + Send>),
}

/// What has to be told when nothing is locked any more.
type Tell = Box<dyn FnOnce() + Send>;

impl MemStore {
    /// An empty store, whose writer's queue holds so many records.
    #[must_use]
    pub fn new(seed: u64, queue_records_max: usize) -> Arc<Self> {
        let inside = Inside {
            chance: Chance::new(seed),
            faults: Faults::default(),
            rooms: BTreeMap::new(),
            names: BTreeMap::new(),
            next_room: 0,
            next_epoch: 1,
            changes: 0,
            losses: 0,
            generation: 0,
            commit: 0,
            queue: VecDeque::new(),
            reads: VecDeque::new(),
            poisoned: false,
        };
        let budget = Budget::new(queue_records_max, 1 << 30);
        Arc::new(Self { inside: Mutex::new(inside), budget, work: Condvar::new() })
    }

    /// What goes wrong from now on.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock().faults);
    }

    /// Entries that wait for the writer.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.lock().queue.len()
    }

    /// Reads that are not told.
    #[must_use]
    pub fn reading(&self) -> usize {
        self.lock().reads.len()
    }

    /// The writer takes at most `entries_max` entries and commits them together. False if there were none.
    pub fn step(&self, entries_max: usize) -> bool {
        let tells = {
            let mut inside = self.lock();
            let entries = inside.queue.len().min(entries_max);
            let batch: Vec<Entry> = inside.queue.drain(..entries).collect();
            if batch.is_empty() {
                return false;
            }
            inside.turn(batch)
        };
        tells.into_iter().for_each(|tell| tell());
        true
    }

    /// Does a read, or tells one that is done, whichever chance takes. False if there were none.
    pub fn step_reader(&self) -> bool {
        let tell = {
            let mut inside = self.lock();
            if inside.reads.is_empty() {
                return false;
            }
            let reads = inside.reads.len();
            let at = inside.chance.below(reads);
            let Some(job) = inside.reads.remove(at) else { return false };
            let done = inside.job(job);
            if inside.chance.one_in(2) {
                inside.reads.push_back(Job::Done(done));
                return true;
            }
            done
        };
        tell();
        true
    }

    /// Does and tells everything, until nothing is left.
    pub fn run(&self) {
        while self.step(usize::MAX) || self.step_reader() {}
    }

    /// The engine ends here; the store can be used by the next one. Nobody hears of what was queued, and chance decides
    /// how much of it is stored all the same.
    pub fn crash(&self, crash: Crash) {
        let dropped = {
            let mut inside = self.lock();
            inside.crash(crash);
            (std::mem::take(&mut inside.queue), std::mem::take(&mut inside.reads))
        };
        drop(dropped);
    }

    /// Forgets a room's records below `first`, as a sweep would. A channel hears of it when it is rebuilt.
    pub fn forget_below(&self, name: &Name, first: Seq) {
        if let Some(room) = self.lock().rooms.get_mut(name) {
            room.first = room.first.max(first.min(room.tail() + 1));
            room.trimmed = room.first;
        }
    }

    /// The oldest seq of a room that was not trimmed.
    #[must_use]
    pub fn trimmed(&self, name: &Name) -> Seq {
        self.lock().rooms.get(name).map_or(1, |room| room.trimmed)
    }

    /// The oldest and the newest seq of a room.
    #[must_use]
    pub fn extent(&self, name: &Name) -> Option<(Seq, Seq)> {
        self.lock().rooms.get(name).map(|room| (room.first, room.tail()))
    }

    /// The frame that is stored under a seq, trimmed or not.
    #[must_use]
    pub fn frame(&self, room: RoomNumber, seq: Seq) -> Option<Bytes> {
        let inside = self.lock();
        let room = inside.rooms.get(inside.names.get(&room)?)?;
        Some(room.records.get(index(seq))?.frame().clone())
    }

    /// All frames of a room, from seq 1 on, trimmed or not.
    #[must_use]
    pub fn frames(&self, name: &Name) -> Vec<Bytes> {
        self.lock()
            .rooms
            .get(name)
            .map_or(Vec::new(), |room| room.records.iter().map(|kept| kept.frame().clone()).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock()
    }
}

impl Kept {
    /// The record as it is now.
    fn frame(&self) -> &Bytes {
        self.rewrites.last().map_or(&self.frame, |rewrite| &rewrite.frame)
    }
}

impl Room {
    fn tail(&self) -> Seq {
        self.records.len() as u64
    }

    fn epoch(&self) -> Epoch {
        self.epochs.last().map(|start| start.epoch).unwrap_or_default()
    }

    fn count(&self) -> u64 {
        self.records.last().map_or(0, |newest| with_deliver(&newest.frame, |deliver| deliver.count))
    }

    fn time(&self) -> u64 {
        self.records.last().map_or(0, |newest| with_deliver(&newest.frame, |deliver| deliver.time))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "an index of a list in memory")]
fn index(seq: Seq) -> usize {
    seq as usize - 1
}

/// Reads a `Deliver` frame.
///
/// # Panics
/// If it is none.
#[expect(clippy::expect_used, reason = "for tests")]
pub fn with_deliver<T>(frame: &[u8], look: impl FnOnce(&Deliver<'_>) -> T) -> T {
    look(&parlor_protocol::decode(&frame[HEADER_BYTES..]).expect("a frame of a room is a Deliver"))
}

mod chance;
mod crashing;
mod looking;
mod marks;
mod members;
mod port;
mod reading;
mod serving;
mod sweeping;
#[cfg(test)]
mod tests;
mod writing;
