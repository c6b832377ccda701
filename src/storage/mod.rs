//! Durable rooms on RocksDB: the engine's [`Store`].
//!
//! One writer thread takes loads and appends in order and commits them in groups, or an append is written by its caller where
//! that needs no waiting (`writer`, `writer/inline`, which check them against
//! what is known of `rooms`, and look up the `targets` of changes); a few reader threads serve pages and answers (`reader`). `schema` says what the bytes are,
//! `db` opens and tunes the database, `recover` finds out what is there, `pending` keeps every promise of an answer. What is
//! deleted, the writer deletes (`writer/sweeping`, which looks with `prefix`), but for what compactions drop (`filter`).
//!
//! What holds after `kill -9`: every append that was told `committed` is there. What holds after a loss of power: every
//! append of a `synced` room that was told `committed` is there; a `buffered` room may lose its newest records and goes
//! on in a new epoch.

mod announcements;
mod cutting;
mod db;
mod filter;
mod looking;
mod marks;
mod member_schema;
mod members;
mod pending;
mod prefix;
mod purge;
mod reader;
mod reads;
mod recover;
mod rooms;
mod said;
mod schema;
mod sizes;
mod targets;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering::SeqCst},
    thread::{self, JoinHandle},
};

use crossbeam::channel::{Sender, TrySendError, bounded};
use parking_lot::{Mutex, RwLock};
use parlor_actors::{
    limits::Limits,
    members::{Changed, Look, Member, Refusal, RoomChange, Seen},
    port::{
        Answer, Append, Budget, DeviceKey, Load, Loaded, Marks, Read, Records, Reply, RoomMarks, SaveMarks, Store,
        StoreError, Sweep, Swept, Target, Trim, Trimmed,
    },
};
use parlor_protocol::{Name, RoomNumber, Seq};

use self::{
    db::Db,
    pending::{CONTROLS_MAX, Controls, Once, PendingAppend, closed},
    purge::{PURGES_MAX, Purge},
    reader::Question,
    reads::Counts,
    writer::{Disk, Entry, Pause, Poison, Queued, Shared, WaitingCount, Writer},
};
pub use self::{
    db::OpenError,
    purge::Stretch,
    reads::StoreReads,
    said::{Place, Said, SaidIn},
};

/// Where a store is and what it may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Its directory. Created if it is missing.
    pub path: PathBuf,
    /// Records that may wait for the writer.
    pub writer_records_max: usize,
    /// Bytes of records that may wait for the writer.
    pub writer_bytes_max: usize,
    /// Rooms whose appends the writer can check; should be above the number of rooms that may be loaded at a time.
    pub rooms_max: usize,
    /// Reader threads, at least 1.
    pub readers: usize,
    /// Reads that may wait for a reader, at least 1.
    pub reads_max: usize,
    /// The cache for what was read from disk.
    pub cache_bytes: usize,
    /// What was written and is not yet in tables.
    pub write_buffers_bytes_max: usize,
    /// Write-ahead logs, beyond which the oldest is turned into tables.
    pub wal_bytes_max: u64,
    /// Files held open.
    pub open_files_max: i32,
}

impl StoreConfig {
    /// The defaults, for a machine of two cores and a gigabyte.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let limits = Limits::default();
        Self {
            path: path.into(),
            writer_records_max: limits.writer_records_max,
            writer_bytes_max: limits.writer_bytes_max,
            rooms_max: limits.rooms_loaded_max.saturating_mul(4),
            readers: 2,
            reads_max: 4_096,
            cache_bytes: 32 << 20,
            write_buffers_bytes_max: 64 << 20,
            wal_bytes_max: 128 << 20,
            open_files_max: 512,
        }
    }
}

/// A store on RocksDB. Hand it out as an `Arc`; the last one dropped closes it.
///
/// No method but [`close`](Self::close) blocks. Every reply is called once and every append's `commits` is told, also if
/// the store is closed or fails.
#[derive(Debug)]
pub struct RocksStore {
    budget: Arc<Budget>,
    controls: Controls,
    poison: Poison,
    pause: Arc<Pause>,
    waiting: WaitingCount,
    reads: Arc<Counts>,
    /// For tests to look at.
    #[cfg(test)]
    horizons: Arc<filter::Horizons>,
    /// Taken away to close the store: the threads end once their queue is closed and empty.
    queues: RwLock<Option<Queues>>,
    threads: Mutex<Threads>,
}

#[derive(Debug)]
struct Queues {
    writer: Sender<Box<Queued>>,
    /// Only while the queue is open, so that closing the store closes the database.
    inline: Arc<Shared>,
    readers: Sender<Box<Question>>,
    purger: Sender<Purge>,
}

#[derive(Debug)]
struct Threads {
    writer: Option<JoinHandle<Result<(), StoreError>>>,
    readers: Vec<JoinHandle<()>>,
    /// How the writer ended.
    outcome: Result<(), StoreError>,
}

impl RocksStore {
    /// Opens the store, or creates it.
    ///
    /// # Errors
    /// If the directory cannot be used, is in use, or holds something else than a store of a known format.
    pub fn open(config: StoreConfig) -> Result<Self, OpenError> {
        Self::open_on(config, |db| Box::new(db))
    }

    /// Opens the store with whatever `disk` puts between the writer and the database.
    fn open_on(config: StoreConfig, disk: impl FnOnce(Arc<Db>) -> Box<dyn Disk>) -> Result<Self, OpenError> {
        let (db, age) = db::open(&config)?;
        let path = &config.path;
        let counters = recover::begin(&db, age, recover::boot_id().as_deref()).map_err(|error| match error {
            StoreError::Damaged(what) => OpenError::Damaged { path: path.clone(), what: what.to_string() },
            error => OpenError::Failed { path: path.clone(), source: error.into() },
        })?;

        members::finish_deletions(&db)
            .map_err(|error| OpenError::Failed { path: path.clone(), source: error.into() })?;

        let spawn_failed = |source: std::io::Error| OpenError::Failed { path: path.clone(), source: source.into() };
        let poison = Poison::default();
        let pause = Arc::new(Pause::default());
        let (writer_queue, entries) = bounded(config.writer_records_max.saturating_add(CONTROLS_MAX));
        let disk = disk(db.clone());
        let writer = Writer::new(db.clone(), disk, counters, config.rooms_max, poison.clone(), pause.clone());
        let waiting = WaitingCount::default();
        let inline = Arc::new(Shared::new(writer, waiting.clone()));
        let writer = inline.clone();
        let writer = thread::Builder::new().name("parlor-writer".into()).spawn(move || writer.run(&entries));
        let writer = writer.map_err(spawn_failed)?;
        let (readers_queue, questions) = bounded(config.reads_max.max(1));
        let reads = Arc::new(Counts::default());
        let mut readers = Vec::new();
        for number in 0..config.readers.max(1) {
            let (db, questions, reads) = (db.clone(), questions.clone(), reads.clone());
            let reader = thread::Builder::new().name(format!("parlor-reader-{number}"));
            readers.push(reader.spawn(move || reader::run(&db, &questions, &reads)).map_err(spawn_failed)?);
        }
        // Long work: it must not hold a reader back.
        let (purger_queue, purges) = bounded(PURGES_MAX);
        let purger = thread::Builder::new().name("parlor-purger".into());
        let purged = db.clone();
        readers.push(purger.spawn(move || purge::run(&purged, &purges)).map_err(spawn_failed)?);
        Ok(Self {
            budget: Budget::new(config.writer_records_max, config.writer_bytes_max),
            controls: Controls::default(),
            poison,
            pause,
            waiting,
            reads,
            #[cfg(test)]
            horizons: db.horizons.clone(),
            queues: RwLock::new(Some(Queues {
                writer: writer_queue,
                inline,
                readers: readers_queue,
                purger: purger_queue,
            })),
            threads: Mutex::new(Threads { writer: Some(writer), readers, outcome: Ok(()) }),
        })
    }

    /// Answers once everything appended before is synced, whatever its durability.
    pub fn flush(&self, reply: Reply<()>) {
        self.control(reply, Entry::Flush);
    }

    /// Why the store takes no more writes, if a write or a sync failed.
    #[must_use]
    pub fn poisoned(&self) -> Option<Arc<str>> {
        self.poison.get().cloned()
    }

    /// By how many milliseconds the wall clock is off, negative if it is behind, while nothing is deleted for that reason.
    #[must_use]
    pub fn sweep_paused(&self) -> Option<i64> {
        Some(self.pause.off_ms.load(SeqCst)).filter(|off_ms| *off_ms != 0)
    }

    /// Says that the wall clock is right: the next sweep deletes by it, whatever it shows then.
    pub fn resume_sweep(&self) {
        self.pause.trusted.store(true, SeqCst);
    }

    /// Rewrites the tables of records and answers, so that what has expired and was swept leaves the disk now. Takes as long
    /// as copying the store, and one of the readers.
    pub fn compact(&self, reply: Reply<()>) {
        self.ask(Question::Compact(Once::new(reply)));
    }

    /// What has been read since the store was opened.
    #[must_use]
    pub fn reads(&self) -> StoreReads {
        self.reads.so_far()
    }

    /// Goes on with a search for all that a user said; it begins at the default place.
    pub fn said(&self, user: Name, from: Place, reply: Reply<Said>) {
        self.ask(Question::Said(user, from, Once::new(reply)));
    }

    /// Rewrites what is stored of these stretches, so that nothing is left of what was replaced or deleted there before.
    /// Whoever waits at the same time shares one round of it.
    pub fn purge_all(&self, stretches: Vec<Stretch>, reply: Reply<()>) {
        let purge = Purge { stretches, reply: Once::new(reply) };
        let queue = self.queues.read().as_ref().map(|queues| queues.purger.clone());
        // If it is closed, dropping the request answers it.
        if let Some(Err(TrySendError::Full(purge))) = queue.map(|queue| queue.try_send(purge)) {
            purge.reply.give(Err(StoreError::Busy));
        }
    }

    /// Closes the store: what was accepted is written, synced and answered, and the directory is free for another.
    ///
    /// Blocks until that is done, so an answer of the store's own must not call it. What is asked afterwards is answered with an error. Closing again does nothing and
    /// returns the same.
    ///
    /// # Errors
    /// If the store was poisoned, or its last sync failed.
    pub fn close(&self) -> Result<(), StoreError> {
        drop(self.queues.write().take());
        let mut threads = self.threads.lock();
        // Whoever is told of a commit or an answer may hold the last handle and drop it on the store's own thread, which
        // cannot wait for itself. It ends by itself, and the last thread to end closes the database.
        let this = thread::current().id();
        for reader in threads.readers.drain(..).filter(|reader| reader.thread().id() != this) {
            // A reader catches its panics.
            let _ = reader.join();
        }
        if let Some(writer) = threads.writer.take()
            && writer.thread().id() != this
        {
            threads.outcome = writer.join().unwrap_or_else(|_| Err(closed()));
        }
        threads.outcome.clone()
    }

    fn control<T>(&self, reply: Reply<T>, entry: impl FnOnce(pending::Control, Once<T>) -> Entry) {
        let reply = Once::new(reply);
        match self.controls.take() {
            // Slots are counted, so the queue is not full. If it is closed, the entry comes back, and dropping it answers.
            Some(slot) => drop(self.offer(|queues| &queues.writer, Queued::new(entry(slot, reply), &self.waiting))),
            None => reply.give(Err(StoreError::Busy)),
        }
    }

    fn ask(&self, question: Question) {
        if let Err(TrySendError::Full(question)) = self.offer(|queues| &queues.readers, question) {
            question.refuse(StoreError::Busy);
        }
    }

    /// Puts something into a queue, or gives it back. What is answered then must be so after this: the lock is held here,
    /// and an answer may come back to the store.
    fn offer<T>(&self, queue: impl FnOnce(&Queues) -> &Sender<Box<T>>, item: T) -> Result<(), TrySendError<Box<T>>> {
        let item = Box::new(item);
        match &*self.queues.read() {
            Some(queues) => queue(queues).try_send(item),
            None => Err(TrySendError::Disconnected(item)),
        }
    }
}

impl Drop for RocksStore {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the store was not closed cleanly");
        }
    }
}

impl Store for RocksStore {
    fn load(&self, load: Load, reply: Reply<Loaded>) {
        self.reads.load();
        self.control(reply, |slot, reply| Entry::Load(slot, load, reply));
    }

    fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn append(&self, appends: Vec<Append>) {
        let appends = appends.into_iter().map(PendingAppend::new).collect();
        // Not within the lock: outcomes are told here, and whoever hears of one may come back to the store.
        let open = self.queues.read().as_ref().map(|queues| (queues.inline.clone(), queues.writer.clone()));
        let appends = match open {
            Some((inline, queue)) => match inline.append(appends, &queue) {
                Ok(()) => return,
                Err(appends) => appends,
            },
            None => appends,
        };
        let entry = Queued::new(Entry::Appends(appends), &self.waiting);
        if let Err(TrySendError::Full(queued)) = self.offer(|queues| &queues.writer, entry)
            && let Entry::Appends(appends) = queued.entry
        {
            // Only appends without places of their own find the queue full.
            tracing::error!("appends found the writer's queue full: they have no places in the budget");
            appends.into_iter().for_each(|append| append.fail(StoreError::Busy));
        }
    }

    fn read(&self, read: Read, reply: Reply<Records>) {
        self.ask(Question::Records(read, Once::new(reply)));
    }

    fn save_marks(&self, save: SaveMarks, reply: Reply<()>) {
        self.control(reply, |slot, reply| Entry::Marks(slot, save, reply));
    }

    fn marks(&self, user: Name, rooms: Vec<RoomNumber>, reply: Reply<Vec<Marks>>) {
        self.ask(Question::Marks(user, rooms, Once::new(reply)));
    }

    fn room_marks(&self, room: RoomNumber, users_max: usize, reply: Reply<RoomMarks>) {
        self.ask(Question::RoomMarks(room, users_max, Once::new(reply)));
    }

    fn target(&self, room: RoomNumber, seq: Seq, reply: Reply<Option<Target>>) {
        self.ask(Question::Target(room, seq, Once::new(reply)));
    }

    fn purge(&self, room: RoomNumber, first: Seq, last: Seq, reply: Reply<()>) {
        self.purge_all(vec![Stretch { room, first, last }], reply);
    }

    fn answers(&self, room: RoomNumber, device: DeviceKey, reply: Reply<Vec<(u8, Answer)>>) {
        self.ask(Question::Answers(room, device, Once::new(reply)));
    }

    fn sweep(&self, sweep: Sweep, reply: Reply<Swept>) {
        self.control(reply, |slot, reply| Entry::Sweep(slot, sweep, reply));
    }

    fn trim(&self, trim: Trim, reply: Reply<Trimmed>) {
        self.control(reply, |slot, reply| Entry::Trim(slot, trim, reply));
    }

    fn change(&self, change: RoomChange, reply: Reply<Result<Changed, Refusal>>) {
        self.control(reply, |slot, reply| Entry::Change(slot, change, reply));
    }

    fn member(&self, room: RoomNumber, user: Name, reply: Reply<Option<Member>>) {
        self.ask(Question::Member(room, user, Once::new(reply)));
    }

    fn look(&self, look: Look, reply: Reply<Result<Seen, Refusal>>) {
        self.ask(Question::Look(look, Once::new(reply)));
    }

    fn settle(&self, reply: Reply<()>) {
        self.flush(reply);
    }
}
