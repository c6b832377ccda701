//! What tests need instead of the world: a store in memory that can be broken, a clock that can be set, a source of
//! chance that can be repeated.
//!
//! A [`MemStore`] keeps the promises of [`Store`] and none beyond them. Left alone it does nothing: a test decides when
//! the writer commits ([`step`](MemStore::step)) and when reads are done and told ([`step_reader`](MemStore::step_reader)),
//! and breaks it by [`crash`](MemStore::crash) and [`Faults`]. For tests of actors, [`serve`](MemStore::serve) runs it on
//! a thread.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
};

use bytes::{Bytes, BytesMut};
use parking_lot::{Condvar, Mutex, MutexGuard};
use parlor_protocol::{
    Epoch, Name, RoomNumber, Seq,
    frame::HEADER_BYTES,
    message::{Deliver, Direction, Durability, GapReason},
};

pub use self::chance::{Chance, TestClock};
use crate::members::{Changed, Look, Member, Refusal, RoomChange, Seen};
use crate::port::{
    Answer, Append, AppendRecord, Budget, Commit, CommitNumber, Commits, DeviceKey, EpochStart, Generation, Load,
    Loaded, Marks, Outcome, Read, Records, Reply, Rewrite, RoomOptions, Run, SaveMarks, Store, StoreError, Sweep,
    Swept, Target, Trim, Trimmed,
};

/// What may go wrong in a store.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// One in so many reads is answered [`StoreError::Busy`]; 0 for none.
    pub busy_read_one_in: usize,
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
    /// Bytes as the channel counts them.
    counted: u64,
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
    RoomMarks(RoomNumber, usize, Reply<Vec<(Name, Marks)>>),
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

    /// Runs the store on a thread of its own until the answer is dropped.
    #[must_use]
    pub fn serve(self: &Arc<Self>) -> Served {
        let (store, stop) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(SeqCst) {
                store.run();
                let mut inside = store.lock();
                if inside.queue.is_empty() && inside.reads.is_empty() {
                    store.work.wait_for(&mut inside, std::time::Duration::from_millis(5));
                }
            }
        });
        Served { stop, thread: Some(thread) }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock()
    }
}

/// A store's thread; ends when dropped.
pub struct Served {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            // It fails with whoever was told and panicked, who has said so.
            let _ = thread.join();
        }
    }
}

impl Store for MemStore {
    fn load(&self, load: Load, reply: Reply<Loaded>) {
        let mut inside = self.lock();
        let entry = Entry::Load(load, reply);
        if inside.faults.unfenced {
            inside.queue.push_front(entry)
        } else {
            inside.queue.push_back(entry)
        }
        self.work.notify_one();
    }

    fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn append(&self, appends: Vec<Append>) {
        appends.into_iter().for_each(|append| self.append_one(append));
    }

    fn read(&self, read: Read, reply: Reply<Records>) {
        self.lock().reads.push_back(Job::Read(read, reply));
        self.work.notify_one();
    }

    fn save_marks(&self, save: SaveMarks, reply: Reply<()>) {
        self.lock().queue.push_back(Entry::Marks(save, reply));
        self.work.notify_one();
    }

    fn marks(&self, user: Name, rooms: Vec<RoomNumber>, reply: Reply<Vec<Marks>>) {
        self.lock().reads.push_back(Job::Marks(user, rooms, reply));
        self.work.notify_one();
    }

    fn room_marks(&self, room: RoomNumber, users_max: usize, reply: Reply<Vec<(Name, Marks)>>) {
        self.lock().reads.push_back(Job::RoomMarks(room, users_max, reply));
        self.work.notify_one();
    }

    fn target(&self, room: RoomNumber, seq: Seq, reply: Reply<Option<Target>>) {
        self.lock().reads.push_back(Job::Target(room, seq, reply));
        self.work.notify_one();
    }

    fn purge(&self, _: RoomNumber, _: Seq, _: Seq, reply: Reply<()>) {
        self.lock().reads.push_back(Job::Done(Box::new(move || reply(Ok(())))));
        self.work.notify_one();
    }

    fn answers(&self, room: RoomNumber, device: DeviceKey, reply: Reply<Vec<(u8, Answer)>>) {
        self.lock().reads.push_back(Job::Answers(room, device, reply));
        self.work.notify_one();
    }

    fn sweep(&self, sweep: Sweep, reply: Reply<Swept>) {
        self.lock().queue.push_back(Entry::Sweep(sweep, reply));
        self.work.notify_one();
    }

    fn trim(&self, trim: Trim, reply: Reply<Trimmed>) {
        self.lock().queue.push_back(Entry::Trim(trim, reply));
    }

    fn change(&self, change: RoomChange, reply: Reply<Result<Changed, Refusal>>) {
        self.lock().queue.push_back(Entry::Change(change, reply));
        self.work.notify_one();
    }

    fn member(&self, room: RoomNumber, user: Name, reply: Reply<Option<Member>>) {
        self.lock().reads.push_back(Job::Member(room, user, reply));
        self.work.notify_one();
    }

    fn look(&self, look: Look, reply: Reply<Result<Seen, Refusal>>) {
        self.lock().reads.push_back(Job::Look(look, reply));
        self.work.notify_one();
    }

    fn settle(&self, reply: Reply<()>) {
        self.lock().queue.push_back(Entry::Settle(reply));
        self.work.notify_one();
    }
}

impl MemStore {
    fn append_one(&self, append: Append) {
        let mut inside = self.lock();
        let (commits, room, generation, upto) = (append.commits.clone(), append.room, append.generation, last(&append));
        let claimed = if std::mem::take(&mut inside.faults.overstate_next_append) {
            Some(upto + 1)
        } else {
            let early = inside.faults.tells_early.then_some(upto);
            inside.queue.push_back(Entry::Append(append));
            early
        };
        drop(inside);
        if let Some(upto) = claimed {
            tell(commits, room, generation, Ok(Commit { number: CommitNumber(0), upto }));
        }
        self.work.notify_one();
    }
}

impl Inside {
    fn turn(&mut self, batch: Vec<Entry>) -> Vec<Tell> {
        self.commit += 1;
        let commit = CommitNumber(self.commit);
        // A turn that fails may have been written all the same.
        let fails = std::mem::take(&mut self.faults.fail_next_turn);
        let written = !self.poisoned && (!fails || self.chance.one_in(2));
        self.poisoned |= fails;
        let poison = self.poisoned.then(|| StoreError::Poisoned("a planted failure".into()));
        let (mut buffered, mut synced, mut refused, mut loads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for entry in batch {
            match entry {
                Entry::Append(append) => {
                    let (upto, commits, durability) = (last(&append), append.commits.clone(), append.durability);
                    let (room, generation) = (append.room, append.generation);
                    let outcome = if written { self.append(append) } else { Ok(()) };
                    let tell = match poison.clone().map_or(outcome, Err) {
                        Ok(()) => {
                            let commit = Commit { number: commit, upto };
                            Box::new(move || tell(commits, room, generation, Ok(commit))) as Tell
                        }
                        Err(error) => {
                            refused.push(Box::new(move || tell(commits, room, generation, Err(error))) as Tell);
                            continue;
                        }
                    };
                    if durability == Durability::Buffered { buffered.push(tell) } else { synced.push(tell) }
                }
                Entry::Marks(save, reply) => {
                    let saved = poison.clone().map_or_else(|| self.save_marks(save), Err);
                    loads.push(Box::new(move || reply(saved)) as Tell);
                }
                Entry::Load(load, reply) => {
                    let loaded = match poison.clone() {
                        Some(poison) => Err(poison),
                        None => self.load(load),
                    };
                    loads.push(Box::new(move || reply(loaded)) as Tell);
                }
                Entry::Sweep(sweep, reply) => {
                    let swept = poison.clone().map_or_else(|| Ok(self.sweep(sweep)), Err);
                    refused.push(Box::new(move || reply(swept)) as Tell);
                }
                Entry::Trim(trim, reply) => {
                    let trimmed = poison.clone().map_or_else(|| self.trim(trim), Err);
                    refused.push(Box::new(move || reply(trimmed)) as Tell);
                }
                Entry::Change(change, reply) => {
                    let changed = match poison.clone() {
                        Some(poison) => Err(poison),
                        None => Ok(self.change(change)),
                    };
                    loads.push(Box::new(move || reply(changed)) as Tell);
                }
                Entry::Settle(reply) => {
                    let settled = poison.clone().map_or(Ok(()), Err);
                    loads.push(Box::new(move || reply(settled)) as Tell);
                }
            }
        }
        if !synced.is_empty() || !loads.is_empty() {
            self.rooms.values_mut().for_each(|room| room.synced = room.records.len());
        }
        buffered.into_iter().chain(synced).chain(refused).chain(loads).collect()
    }

    /// Writes an append, or says why not.
    fn append(&mut self, append: Append) -> Result<(), StoreError> {
        let Append { room, generation, epoch, durability, first, frames, records, rewrites, .. } = append;
        assert_ne!(durability, Durability::Memory, "memory rooms are not stored");
        let fenced = !self.faults.unfenced;
        let Some(room) = self.names.get(&room).and_then(|name| self.rooms.get_mut(name)) else {
            return Err(StoreError::Damaged("an append to no room".into()));
        };
        if fenced && room.writer != Some(generation) {
            return Err(StoreError::Superseded(generation));
        }
        if !fenced && first <= room.tail() {
            room.lose(index(first));
        }
        if first != room.tail() + 1 || room.epoch() != epoch {
            room.writer = None;
            assert!(!fenced, "an append begins with seq {first} of {epoch}, the tail is {}", room.tail());
            return Err(StoreError::Damaged("not the next append".into()));
        }
        let mut start = 0;
        for (record, seq) in records.into_iter().zip(first..) {
            let AppendRecord { end, expires, device, slot, answer } = record;
            let frame = frames.slice(start..end as usize);
            start = end as usize;
            with_deliver(&frame, |deliver| assert_eq!(deliver.seq, seq, "a frame is that of its record"));
            room.records.push(Kept {
                frame,
                rewrites: Vec::new(),
                too_late: Vec::new(),
                expires,
                device,
                slot,
                answer,
            });
        }
        assert_eq!(start, frames.len(), "the records make up the frames");
        room.counted += frames.len() as u64;
        for rewrite in rewrites {
            let (seq, revision) = (rewrite.seq, rewrite.revision);
            let stated = |deliver: &Deliver<'_>| (deliver.seq, deliver.changed().revision);
            assert_eq!(with_deliver(&rewrite.frame, stated), (seq, revision), "a rewrite is that of its record");
            assert!(
                seq < revision && (first..=room.tail()).contains(&revision),
                "a rewrite is of the append's changes"
            );
            // What was trimmed meanwhile is not there to be rewritten.
            let (first, kept) = (room.first, &mut room.records[index(seq)]);
            if seq >= first {
                room.counted = room.counted + rewrite.frame.len() as u64 - kept.frame().len() as u64;
                kept.rewrites.push(rewrite);
            } else {
                kept.too_late.push(rewrite.frame);
            }
        }
        Ok(())
    }

    fn load(&mut self, load: Load) -> Result<Loaded, StoreError> {
        let Load { name, create } = load;
        let losses = self.losses;
        if !self.rooms.contains_key(&name) {
            let options = create.ok_or(StoreError::UnknownRoom)?;
            let room = self.new_room(options);
            self.names.insert(room.number, name.clone());
            self.rooms.insert(name.clone(), room);
        }
        let Some(room) = self.rooms.get_mut(&name) else { return Err(StoreError::UnknownRoom) };
        let lost = match room.options.durability {
            Durability::Memory => {
                room.epochs.clear();
                true
            }
            Durability::Buffered => room.losses != losses,
            Durability::Synced => false,
        };
        if lost || room.epochs.is_empty() {
            room.losses = losses;
            room.epochs.push(EpochStart { epoch: Epoch(self.next_epoch), first: room.tail() + 1 });
            self.next_epoch += 1;
        }
        self.generation += 1;
        room.writer = Some(Generation(self.generation));
        let (count, time) = (room.count(), room.time());
        room.counted = room.bytes_from(1);
        Ok(Loaded {
            room: room.number,
            name,
            options: room.options,
            generation: Generation(self.generation),
            epochs: room.epochs.clone(),
            first: room.first,
            tail: room.tail(),
            count,
            time,
            gone_count: room.gone_count(),
            trimmed: room.trimmed,
            bytes_before: room.counted - room.bytes_from(room.first),
            bytes_upto: room.counted,
            known: room.counts().known(),
        })
    }

    /// Does a read; what comes back tells it.
    fn job(&mut self, job: Job) -> Tell {
        let busy = self.faults.busy_read_one_in;
        match job {
            Job::Done(tell) => tell,
            Job::Read(read, reply) => {
                let found = if self.chance.one_in(busy) { Err(StoreError::Busy) } else { Ok(self.read(read)) };
                Box::new(move || reply(found))
            }
            Job::Marks(user, rooms, reply) => {
                let found = rooms.iter().map(|room| self.marks(*room, &user)).collect();
                let found = if self.chance.one_in(busy) { Err(StoreError::Busy) } else { Ok(found) };
                Box::new(move || reply(found))
            }
            Job::RoomMarks(room, users_max, reply) => {
                let room = self.names.get(&room).and_then(|name| self.rooms.get(name));
                let all = room.into_iter().flat_map(|room| &room.marks).map(|(user, marks)| (user.clone(), *marks));
                let found = all.take(users_max).collect();
                Box::new(move || reply(Ok(found)))
            }
            Job::Target(room, seq, reply) => {
                let found = if self.chance.one_in(busy) { Err(StoreError::Busy) } else { Ok(self.target(room, seq)) };
                Box::new(move || reply(found))
            }
            Job::Answers(room, device, reply) => {
                let found =
                    if self.chance.one_in(busy) { Err(StoreError::Busy) } else { Ok(self.answers(room, &device)) };
                Box::new(move || reply(found))
            }
            Job::Member(room, user, reply) => {
                let found = if self.chance.one_in(busy) { Err(StoreError::Busy) } else { Ok(self.member(room, &user)) };
                Box::new(move || reply(found))
            }
            Job::Look(look, reply) => {
                let found = if self.chance.one_in(busy) { Err(StoreError::Busy) } else { Ok(self.look(look)) };
                Box::new(move || reply(found))
            }
        }
    }

    fn read(&self, read: Read) -> Records {
        let Read { room, start, end, direction, records_max, bytes_max, now } = read;
        let Some(room) = self.names.get(&room).and_then(|name| self.rooms.get(name)) else {
            return Records::default();
        };
        let (low, high) = if direction == Direction::Forward { (start, end) } else { (end, start) };
        assert!(high <= room.tail(), "a read passes the newest record, {}", room.tail());
        let (mut records, mut bytes) = (0, 0);
        let mut fits = |seq: Seq| {
            records += 1;
            bytes += room.records[index(seq)].frame().len();
            records == 1 || (records <= records_max && bytes <= bytes_max as usize)
        };
        let mut taken: Vec<Seq> = match direction {
            Direction::Forward => (low..=high).take_while(|seq| fits(*seq)).collect(),
            Direction::Backward => (low..=high).rev().take_while(|seq| fits(*seq)).collect(),
        };
        let next = match (direction, taken.last()) {
            (Direction::Forward, Some(last)) => (*last < high).then_some(last + 1),
            (Direction::Backward, Some(last)) => (*last > low).then(|| last - 1),
            (_, None) => None,
        };
        taken.sort_unstable();
        let mut runs = Vec::new();
        for seq in taken {
            room.add(&mut runs, seq, now);
        }
        Records { runs, next }
    }

    fn target(&self, room: RoomNumber, seq: Seq) -> Option<Target> {
        let room = self.names.get(&room).and_then(|name| self.rooms.get(name))?;
        let kept = room.records.get(index(seq)).filter(|_| seq >= room.first)?;
        let notes = kept.rewrites.last().map_or(Bytes::new(), |rewrite| rewrite.notes.clone());
        Some(Target { frame: kept.frame().clone(), notes })
    }

    fn answers(&self, room: RoomNumber, device: &DeviceKey) -> Vec<(u8, Answer)> {
        let room = self.names.get(&room).and_then(|name| self.rooms.get(name));
        let mut slots = BTreeMap::new();
        for kept in room.iter().flat_map(|room| &room.records).filter(|kept| kept.device == *device) {
            slots.insert(kept.slot, kept.answer);
        }
        slots.into_iter().collect()
    }

    fn crash(&mut self, crash: Crash) {
        let queued = self.queue.len();
        let stored = self.chance.below(queued + 1);
        for entry in self.queue.drain(..stored).collect::<Vec<_>>() {
            if let Entry::Append(append) = entry
                && !self.poisoned
            {
                // A refusal concerns nobody any more.
                let _ = self.append(append);
            }
        }
        if crash == Crash::Power {
            self.losses += 1;
            for room in self.rooms.values_mut() {
                let kept = room.synced + self.chance.below(room.records.len() - room.synced + 1);
                room.lose(kept);
            }
        }
        for room in self.rooms.values_mut() {
            // Opening syncs what is found.
            room.synced = room.records.len();
            room.first = room.first.min(room.tail() + 1);
            room.trimmed = room.trimmed.min(room.first);
            room.writer = None;
        }
        self.poisoned = false;
        self.faults = Faults::default();
    }
}

impl Kept {
    /// The record as it is now.
    fn frame(&self) -> &Bytes {
        self.rewrites.last().map_or(&self.frame, |rewrite| &rewrite.frame)
    }
}

impl Room {
    /// The records behind these are lost, and what they rewrote is as it was.
    fn lose(&mut self, kept: usize) {
        self.records.truncate(kept);
        for record in &mut self.records {
            record.rewrites.retain(|rewrite| index(rewrite.revision) < kept);
        }
    }

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

    /// Adds a seq to the last run, or begins another.
    fn add(&self, runs: &mut Vec<Run>, seq: Seq, now: u64) {
        let kept = &self.records[index(seq)];
        let frame = kept.frame();
        let gap = if seq < self.trimmed {
            Some(GapReason::TRIMMED)
        } else {
            (seq < self.first || kept.is_expired(now)).then_some(GapReason::EXPIRED)
        };
        match (runs.last_mut(), gap) {
            (Some(Run::Frames { last, frames, .. }), None) => {
                let mut joined = BytesMut::from(&frames[..]);
                joined.extend_from_slice(frame);
                (*last, *frames) = (seq, joined.freeze());
            }
            (Some(Run::Gap { to, why, .. }), Some(gap)) if *why == gap => *to = seq,
            (_, None) => runs.push(Run::Frames { first: seq, last: seq, frames: frame.clone() }),
            (_, Some(why)) => runs.push(Run::Gap { from: seq, to: seq, why }),
        }
    }
}

fn tell(commits: Arc<dyn Commits>, room: RoomNumber, generation: Generation, stored: Result<Commit, StoreError>) {
    commits.settled(vec![Outcome { room, generation, stored }]);
}

fn last(append: &Append) -> Seq {
    append.first + append.records.len() as u64 - 1
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
mod looking;
mod marks;
mod members;
mod sweeping;
#[cfg(test)]
mod tests;
