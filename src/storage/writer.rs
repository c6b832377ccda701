//! The writer, which gives all rooms' appends their order on disk. A thread, but for what `inline` says.
//!
//! A turn blocks for one entry, drains what else is there, writes it as one batch without a sync, tells the `buffered`
//! rooms, syncs once if anything waits for that, and then tells the rest. So a sync costs the same for one record and for
//! thousands, and nobody waits for a timer.
//!
//! A write or a sync that fails poisons the store: what became of the bytes is unknown, and a second sync may report
//! success without them. Everything pending and everything after fails until the store is opened again and reads what
//! is truly there.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
};

use crossbeam::channel::Receiver;
use parlor_actors::{
    members::{Changed, Refusal, RoomChange},
    port::{
        Append, AppendRecord, Commit, CommitNumber, Commits, Generation, Load, Loaded, Outcome, Place, SaveMarks,
        StoreError, Sweep, Swept, Trim, Trimmed,
    },
};
use parlor_protocol::{Epoch, RoomNumber, Seq, message::Durability};
use rocksdb::{ErrorKind, WriteBatch, WriteOptions};

use super::{
    announcements,
    db::Db,
    marks,
    members::{self, Desk},
    pending::{Control, Once, PendingAppend},
    recover::{self, Counters},
    rooms::{Live, Rooms},
    schema::{self, Family, Record, meta},
    targets::{self, Kept},
};

#[cfg(test)]
pub(super) use inline::{BUSY_HANDOVERS, INLINE_APPENDS_MAX, INLINE_BYTES_MAX, INLINE_RECORDS_MAX};
pub(super) use inline::{Queued, Shared, WaitingCount};
use sweeping::Sweeping;
pub(super) use sweeping::{Pause, RecentlyDue};

mod inline;
mod sweeping;

/// Where a turn stops draining, so that the first of it does not wait for too many behind it…
const TURN_BYTES_MAX: usize = 4 << 20;
/// …in entries of the queue.
const TURN_ENTRIES_MAX: usize = 8_192;

/// What the writer is asked. Boxed in the queue, so that the empty slots of that are small.
pub(super) enum Entry {
    /// What an arbiter's channels appended in one turn.
    Appends(Vec<PendingAppend>),
    Load(Control, Load, Once<Loaded>),
    Change(Control, RoomChange, Once<Result<Changed, Refusal>>),
    /// How far users are. Answered when it is written, without a sync.
    Marks(Control, SaveMarks, Once<()>),
    /// Answered when everything before it is synced.
    Flush(Control, Once<()>),
    Sweep(Control, Sweep, Once<Swept>),
    Trim(Control, Trim, Once<Trimmed>),
}

/// What lies below the writer, so that a test can break it.
pub(super) trait Disk: Send {
    /// Hands a batch to the operating system.
    fn write(&mut self, batch: WriteBatch) -> Result<(), rocksdb::Error>;
    /// The same unless writers are slowed down: then the batch comes back, and nothing of it is written.
    fn try_write(&mut self, batch: WriteBatch) -> Result<Option<WriteBatch>, rocksdb::Error> {
        self.write(batch).map(|()| None)
    }
    /// Syncs everything written.
    fn sync(&mut self) -> Result<(), rocksdb::Error>;
}

/// The database itself.
impl Disk for Arc<Db> {
    fn write(&mut self, batch: WriteBatch) -> Result<(), rocksdb::Error> {
        self.rocks().write(batch)
    }

    fn try_write(&mut self, batch: WriteBatch) -> Result<Option<WriteBatch>, rocksdb::Error> {
        let mut options = WriteOptions::default();
        options.set_no_slowdown(true);
        // The call takes the batch.
        let copy = WriteBatch::from_data(batch.data());
        match self.rocks().write_opt(batch, &options) {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Some(copy)),
            Err(error) => Err(error),
        }
    }

    fn sync(&mut self) -> Result<(), rocksdb::Error> {
        self.rocks().flush_wal(true)
    }
}

/// Why the store takes no more writes, if so; told to whoever asks.
pub(super) type Poison = Arc<OnceLock<Arc<str>>>;

/// The writer's state. [`Shared::run`] is the life of its thread.
pub(super) struct Writer {
    db: Arc<Db>,
    disk: Box<dyn Disk>,
    counters: Counters,
    poison: Poison,
    rooms: Rooms,
    /// The newest generation given, of any room.
    generation: u64,
    /// This turn's commit number.
    commit: u64,
    /// Whether anything was written since the last sync.
    dirty: bool,
    /// What this turn has gathered and not yet written.
    batch: WriteBatch,
    /// What of that rewrites records.
    rewritten: targets::Rewritten,
    /// Who is told at the end of the turn.
    notices: Vec<Option<Notice>>,
    /// Loads and changes, in their order: whoever is told goes by it.
    settled: Vec<Settled>,
    flushes: Vec<Once<()>>,
    /// Marks that this turn has gathered.
    saves: Vec<Once<()>>,
    sweeping: Sweeping,
    /// Room for one record's value.
    scratch: Vec<u8>,
}

/// Tells somebody at the end of a turn what became of his entry, or that the store is poisoned.
type Settled = Box<dyn FnOnce(Option<StoreError>) + Send>;

/// What a room is told at the end of a turn.
struct Notice {
    commits: Arc<dyn Commits>,
    durability: Durability,
    outcome: Outcome,
    place: Place,
}

impl Writer {
    pub(super) fn new(
        db: Arc<Db>,
        disk: Box<dyn Disk>,
        counters: Counters,
        rooms_max: usize,
        poison: Poison,
        pause: Arc<Pause>,
    ) -> Self {
        Self {
            sweeping: Sweeping::new(counters.swept, pause),
            db,
            disk,
            counters,
            poison,
            rooms: Rooms::new(rooms_max),
            generation: 0,
            commit: 0,
            dirty: false,
            batch: WriteBatch::default(),
            rewritten: targets::Rewritten::default(),
            notices: Vec::new(),
            settled: Vec::new(),
            flushes: Vec::new(),
            saves: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Leaves the store synced and marked as clean.
    fn end(mut self) -> Result<(), StoreError> {
        self.batch.put_cf(self.db.family(Family::Meta), meta::CLEAN, []);
        self.write();
        self.sync();
        self.poisoned().map_or(Ok(()), Err)
    }

    fn turn(&mut self, first: Box<Queued>, queue: &Receiver<Box<Queued>>) {
        self.commit += 1;
        let (mut next, mut entries, mut bytes) = (Some(first), 0, 0);
        while let Some(queued) = next {
            let Queued { entry, waiting } = *queued;
            match entry {
                Entry::Appends(appends) => {
                    // The one counted below is for the entry itself.
                    entries += appends.len().saturating_sub(1);
                    bytes += appends.into_iter().map(|pending| self.take_append(pending)).sum::<usize>();
                }
                Entry::Load(_slot, load, reply) => self.take_load(load, reply),
                Entry::Change(_slot, change, reply) => self.take_change(change, reply),
                Entry::Marks(_slot, save, reply) => self.take_marks(&save, reply),
                Entry::Flush(_slot, reply) => self.flushes.push(reply),
                Entry::Sweep(_slot, sweep, reply) => self.take_sweep(&sweep, reply),
                Entry::Trim(_slot, trim, reply) => self.take_trim(trim, reply),
            }
            drop(waiting);
            entries += 1;
            let more = entries < TURN_ENTRIES_MAX && bytes < TURN_BYTES_MAX;
            next = if more { queue.try_recv().ok() } else { None };
        }
        self.finish_turn();
    }

    /// Gathers an append, or refuses it. Returns its size.
    fn take_append(&mut self, pending: PendingAppend) -> usize {
        // Checked where it lies: should that panic, its sender is told.
        let check = |append| self.check(append).and_then(|()| check_shape(append)).and_then(|()| self.targets(append));
        let Some(checked) = pending.look().map(check) else {
            return 0;
        };
        let Some(append) = pending.take() else { return 0 };
        let Append { room, generation, epoch, durability, first, frames, records, rewrites, place, commits } = append;
        let bytes =
            frames.len() + rewrites.iter().map(|rewrite| rewrite.frame.len() + rewrite.notes.len()).sum::<usize>();
        let targets = match checked {
            Ok(targets) => targets,
            Err(error) => {
                if !matches!(error, StoreError::Superseded(_) | StoreError::Poisoned(_)) {
                    tracing::error!(%room, first, %error, "an append was refused");
                    // Nothing may follow what was refused: only another load makes the room whole.
                    self.rooms.remove(room);
                }
                let outcome = Outcome { room, generation, stored: Err(error) };
                self.notices.push(Some(Notice { commits, durability, outcome, place }));
                return bytes;
            }
        };
        // Neither is below 1, and the sum was checked.
        let last = first + records.len() as u64 - 1;
        let next_notice = self.notices.len();
        let stored = Ok(Commit { number: CommitNumber(self.commit), upto: last });
        if let Some(live) = self.rooms.find(room) {
            // A channel that has yet to hear that its room is `synced` from now on appends as if it were not.
            let durability = live.durability.max(durability);
            live.tail = last;
            if live.commit != self.commit {
                (live.commit, live.notice) = (self.commit, next_notice);
            }
            match self.notices.get_mut(live.notice) {
                Some(Some(notice)) => {
                    notice.outcome.stored = stored;
                    notice.durability = notice.durability.max(durability);
                    notice.place.merge(place);
                }
                _ => {
                    let outcome = Outcome { room, generation, stored };
                    self.notices.push(Some(Notice { commits, durability, outcome, place }));
                }
            }
        }
        self.note_due(room, &records);
        self.gather(room, epoch, first, &frames, &records);
        // Behind the records: a change may rewrite one of its own append.
        let Self { db, batch, scratch, rewritten, .. } = self;
        let grown = targets::gather(db, batch, scratch, rewritten, room, &rewrites, &targets);
        if let Some(live) = self.rooms.find(room).filter(|_| grown != 0) {
            live.bytes_counted = live.bytes_counted.saturating_add_signed(grown);
        }
        bytes
    }

    /// Whether an append is the next of its room, by the channel that the room belongs to now.
    fn check(&mut self, append: &Append) -> Result<(), StoreError> {
        let Append { room, generation, epoch, first, .. } = *append;
        if let Some(poisoned) = self.poisoned() {
            return Err(poisoned);
        }
        let live = self.rooms.find(room).filter(|live| live.generation == generation);
        let live = live.ok_or(StoreError::Superseded(generation))?;
        if live.durability == Durability::Memory {
            return Err(StoreError::Failed(format!("room {room} is a memory room, its records are not stored").into()));
        }
        if live.epoch != epoch {
            return Err(StoreError::Damaged(
                format!("an append to room {room} is of epoch {epoch}, the room's is {}", live.epoch).into(),
            ));
        }
        if live.tail.checked_add(1) != Some(first) {
            return Err(StoreError::Damaged(
                format!("an append to room {room} begins with seq {first}, the room's tail is {}", live.tail).into(),
            ));
        }
        Ok(())
    }

    /// What is stored of the records that an append rewrites.
    fn targets(&mut self, append: &Append) -> Result<Vec<Option<Kept>>, StoreError> {
        if append.rewrites.is_empty() {
            return Ok(Vec::new());
        }
        let bytes_upto = self.rooms.find(append.room).map_or(0, |live| live.bytes_upto);
        let mut found = targets::find(&self.db, append, bytes_upto)?;
        if found.contains(&None) && !self.batch.is_empty() {
            // They may lie in what was gathered before; an append of its own is never cut in two.
            self.write();
            found = targets::find(&self.db, append, bytes_upto)?;
        }
        Ok(found)
    }

    /// Puts an append's records and their answers into the batch. Its shape was checked.
    fn gather(&mut self, room: RoomNumber, epoch: Epoch, first: Seq, frames: &[u8], records: &[AppendRecord]) {
        let (log, answers) = (self.db.family(Family::Log), self.db.family(Family::Answers));
        let mut bytes_before = 0;
        if let Some(live) = self.rooms.find(room) {
            bytes_before = live.bytes_upto;
            live.bytes_upto += frames.len() as u64;
            live.bytes_counted += frames.len() as u64;
        }
        let mut start = 0;
        for (record, seq) in records.iter().zip(first..) {
            let end = record.end as usize;
            let frame = &frames[start..end];
            start = end;
            // The shape was checked: a frame's length fits.
            let first_bytes = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            let stored = Record { epoch, expires: record.expires, bytes_before, first_bytes, frame };
            stored.encode_into(&mut self.scratch);
            bytes_before += frame.len() as u64;
            self.batch.put_cf(log, schema::log_key(room, seq), &self.scratch);
            let mut slot = schema::answers_prefix(room, &record.device);
            slot.push(record.slot);
            self.batch.put_cf(answers, slot, schema::encode_answer(&record.answer));
            if record.device.tag.0 == 0 {
                announcements::done(&self.db, &mut self.batch, room, frame);
            }
        }
    }

    /// Gathers marks, unless the room is another channel's now, or its channel has yet to hear of a change of members: what
    /// was deleted with a membership would come back.
    fn take_marks(&mut self, save: &SaveMarks, reply: Once<()>) {
        let live = self.rooms.find(save.room).filter(|live| live.generation == save.generation);
        let heard = live.map(|live| live.changed <= save.heard);
        match (self.poisoned(), heard) {
            (Some(poisoned), _) => unharmed(|| reply.give(Err(poisoned))),
            (None, None) => unharmed(|| reply.give(Err(StoreError::Superseded(save.generation)))),
            (None, Some(false)) => unharmed(|| reply.give(Err(StoreError::Busy))),
            (None, Some(true)) => {
                marks::gather(&self.db, save, &mut self.batch);
                self.saves.push(reply);
            }
        }
    }

    /// Loads a room, behind everything that came before it. The answer waits for the turn's sync.
    fn take_load(&mut self, load: Load, reply: Once<Loaded>) {
        // So that the room is read with what this turn has gathered for it.
        self.write();
        let loaded = match self.poisoned() {
            Some(poisoned) => Err(poisoned),
            None => recover::load(&self.db, load, &mut self.counters, &mut self.batch).map(|found| {
                self.generation += 1;
                let generation = Generation(self.generation);
                let durability = found.meta.options.durability;
                let live = Live {
                    generation,
                    durability,
                    epoch: found.epoch(),
                    tail: found.end.tail,
                    changed: 0,
                    bytes_upto: found.end.bytes_upto,
                    bytes_counted: found.bytes_counted(),
                    due: RecentlyDue::default(),
                    commit: 0,
                    notice: 0,
                };
                self.rooms.insert(found.room, live);
                self.note_mark(found.room, &found.meta);
                found.loaded(generation, self.counters.changes())
            }),
        };
        self.settled.push(Box::new(move |poisoned| reply.give(poisoned.map_or(loaded, Err))));
    }

    /// Changes a room, behind everything that came before it. The answer waits for the turn's sync.
    fn take_change(&mut self, change: RoomChange, reply: Once<Result<Changed, Refusal>>) {
        // So that the change sees what this turn has gathered.
        self.write();
        let changed = match self.poisoned() {
            Some(poisoned) => Err(poisoned),
            None => {
                let (rooms, db) = (&mut self.rooms, &*self.db);
                let mut desk = Desk { db, counters: &mut self.counters, batch: &mut self.batch };
                members::change(&mut desk, change, |room| rooms.find(room).map(|live| (live.epoch, live.tail)))
            }
        };
        if let Ok(Ok(Changed::Deleted { room, .. })) = &changed {
            // What its channel still appends is refused.
            self.rooms.remove(*room);
        }
        if let Ok(Ok(Changed::Configured(room, options))) = &changed {
            if let Some(live) = self.rooms.peek(*room) {
                live.durability = options.durability;
            }
            // So that no rewrite of this turn takes what was cut off for something that is there.
            self.write();
        }
        if let Ok(Ok(Changed::Members(members))) = &changed
            && let Some(live) = self.rooms.peek(members.room)
        {
            live.changed = live.changed.max(members.number);
        }
        self.settled.push(Box::new(move |poisoned| reply.give(poisoned.map_or(changed, Err))));
    }

    fn finish_turn(&mut self) {
        self.write();
        let waits = |notice: &Notice| notice.durability == Durability::Synced && notice.outcome.stored.is_ok();
        let sync = self.notices.iter().flatten().any(waits) || !self.settled.is_empty() || !self.flushes.is_empty();
        self.tell(|notice| notice.durability == Durability::Buffered && notice.outcome.stored.is_ok());
        if sync {
            self.sync();
        }
        // What was stored before what was refused: a room is told of its last commit before it hears that it failed.
        self.tell(|notice| notice.outcome.stored.is_ok());
        self.tell(|_| true);
        self.notices.clear();
        let poisoned = self.poisoned();
        for settled in self.settled.drain(..) {
            unharmed(|| settled(poisoned.clone()));
        }
        for reply in self.saves.drain(..) {
            unharmed(|| reply.give(poisoned.clone().map_or(Ok(()), Err)));
        }
        for reply in self.flushes.drain(..) {
            unharmed(|| reply.give(poisoned.clone().map_or(Ok(()), Err)));
        }
        for (reply, swept) in self.sweeping.replies.drain(..) {
            unharmed(|| reply.give(poisoned.clone().map_or(swept, Err)));
        }
        for (reply, trimmed) in self.sweeping.trims.drain(..) {
            unharmed(|| reply.give(poisoned.clone().map_or(trimmed, Err)));
        }
    }

    /// Tells some rooms their outcomes: all that share a listener at once.
    fn tell(&mut self, which: impl Fn(&Notice) -> bool) {
        let poisoned = self.poisoned();
        let mut told: Vec<(Arc<dyn Commits>, Vec<Outcome>)> = Vec::new();
        for notice in &mut self.notices {
            let Some(notice) = notice.take_if(|notice| which(notice)) else { continue };
            let Notice { commits, mut outcome, place, .. } = notice;
            // First the place, which whoever is told may be waiting for.
            drop(place);
            if let Some(error) = &poisoned {
                outcome.stored = Err(error.clone());
            }
            // Listeners are as few as arbiters.
            match told.iter_mut().find(|(listener, _)| Arc::ptr_eq(listener, &commits)) {
                Some((_, outcomes)) => outcomes.push(outcome),
                None => told.push((commits, vec![outcome])),
            }
        }
        for (commits, outcomes) in told {
            unharmed(|| commits.settled(outcomes));
        }
    }

    /// Writes what was gathered.
    fn write(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        self.rewritten.clear();
        if self.poison.get().is_some() {
            return;
        }
        match self.disk.write(batch) {
            Ok(()) => self.dirty = true,
            Err(error) => self.poison(&format!("a write failed: {error}")),
        }
    }

    /// Syncs what was written.
    fn sync(&mut self) {
        if !self.dirty || self.poison.get().is_some() {
            return;
        }
        match self.disk.sync() {
            Ok(()) => {
                self.dirty = false;
                self.tell_marks();
            }
            Err(error) => self.poison(&format!("a sync failed: {error}")),
        }
    }

    fn poison(&self, why: &str) {
        tracing::error!("the store takes no more writes until it is opened again: {why}");
        if self.poison.set(why.into()).is_ok() {
            recover::mark_doubt(&self.db, why);
        }
    }

    fn poisoned(&self) -> Option<StoreError> {
        self.poison.get().map(|why| StoreError::Poisoned(why.clone()))
    }
}

/// Tells somebody. If that panics it is his loss: what is stored is stored, and the others are told.
fn unharmed(tell: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(tell)).is_err() {
        tracing::error!("whoever was told of a commit panicked; the store goes on");
    }
}

/// Whether an append is one that [`gather`](Writer::gather) can take apart.
fn check_shape(append: &Append) -> Result<(), StoreError> {
    let Append { room, durability, first, ref frames, ref records, .. } = *append;
    let wrong = |what: &str| Err(StoreError::Failed(format!("not a whole append: {what}").into()));
    if durability == Durability::Memory {
        return wrong("records of a memory room do not come here");
    }
    if first.checked_add(records.len() as u64).is_none() {
        return wrong("its seqs are beyond all numbers");
    }
    let mut start = 0;
    for (record, seq) in records.iter().zip(first..) {
        let end = record.end as usize;
        // Tens of nanoseconds each, against a record that could never be read again.
        match frames.get(start..end).map(schema::deliver_of) {
            Some(Ok(deliver)) if (deliver.room, deliver.seq) == (room, seq) => start = end,
            _ => return wrong("a frame is not that of its record"),
        }
    }
    if records.is_empty() || start != frames.len() {
        return wrong("its records do not make up its frames");
    }
    targets::check_shape(append).or_else(wrong)
}
