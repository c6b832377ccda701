//! Writing without the writer's thread: what few `buffered` appends an arbiter's turn leaves, the arbiter writes itself
//! while the writer has nothing to do. So a message on a quiet engine wakes no thread on its way.
//!
//! The writer is a value behind a lock, and whoever holds that is the writer. Entries count as waiting from before they are put into
//! the queue until they are taken under the lock: so if none waits under it, everything that was asked before is with the
//! writer, and whoever holds it comes next in the order of all. Nobody but the writer's thread ever waits for the lock, and nothing is written here that may wait: no
//! sync, no read, no write while RocksDB slows writers down. What turns out to be one of these is left to the thread.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crossbeam::channel::{Receiver, Sender};
use parking_lot::Mutex;
use parlor_actors::port::{Append, StoreError};
use parlor_protocol::message::Durability;

use super::{Entry, Writer};
use crate::storage::pending::{PendingAppend, closed};

/// The most appends that are written without the writer's thread. Who hands over more is busy, and gains more by what the
/// thread does beside him than a wake costs…
pub(in crate::storage) const INLINE_APPENDS_MAX: usize = 16;
/// …and so it is with the next hand-overs, however many appends they have.
pub(in crate::storage) const BUSY_HANDOVERS: usize = 16;
/// The most records that they may have…
pub(in crate::storage) const INLINE_RECORDS_MAX: usize = 64;
/// …and the most bytes of frames.
pub(in crate::storage) const INLINE_BYTES_MAX: usize = 64 << 10;

/// The writer, shared by its thread and by whoever writes without it.
pub(in crate::storage) struct Shared {
    writer: Mutex<Option<Writer>>,
    /// So many hand-overs more go to the thread. A guess about load: it may be off by what happens at once.
    busy: AtomicUsize,
    /// Entries that are not with the writer yet.
    waiting: WaitingCount,
}

/// How many entries wait.
pub(in crate::storage) type WaitingCount = Arc<AtomicUsize>;

/// An entry on its way to the writer.
pub(in crate::storage) struct Queued {
    pub(in crate::storage) entry: Entry,
    pub(super) waiting: Waiting,
}

impl Queued {
    /// To be put into the queue.
    pub(in crate::storage) fn new(entry: Entry, waiting: &WaitingCount) -> Self {
        // Who knows that another's entry came before his own sees this too.
        waiting.fetch_add(1, Relaxed);
        Self { entry, waiting: Waiting(waiting.clone()) }
    }
}

/// Counts an entry that waits; no more when dropped.
pub(super) struct Waiting(WaitingCount);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// `waiting` counts what is put into the writer's queue.
    pub(in crate::storage) fn new(writer: Writer, waiting: WaitingCount) -> Self {
        Self { writer: Mutex::new(Some(writer)), busy: AtomicUsize::new(0), waiting }
    }

    /// The writer's thread: serves the queue until it is closed and empty, then leaves the store synced and marked as clean.
    ///
    /// # Errors
    /// If the store is poisoned, or the last sync fails: then there is no mark.
    pub(in crate::storage) fn run(&self, queue: &Receiver<Box<Queued>>) -> Result<(), StoreError> {
        while let Ok(first) = queue.recv() {
            self.turn(first, queue);
        }
        let writer = self.writer.lock().take();
        writer.map_or_else(|| Err(closed()), Writer::end)
    }

    /// A turn that begins with this entry.
    pub(in crate::storage) fn turn(&self, first: Box<Queued>, queue: &Receiver<Box<Queued>>) {
        // It is there until the queue is closed and empty.
        if let Some(writer) = &mut *self.writer.lock() {
            writer.guarded(|writer| writer.turn(first, queue));
        }
    }

    #[cfg(test)]
    pub(in crate::storage) fn is_taken(&self) -> bool {
        self.writer.is_locked()
    }

    /// Writes appends and tells their outcomes, if that needs no waiting and nothing was asked before them.
    ///
    /// # Errors
    /// Otherwise they come back, as they were.
    pub(in crate::storage) fn append(
        &self,
        appends: Vec<PendingAppend>,
        queue: &Sender<Box<Queued>>,
    ) -> Result<(), Vec<PendingAppend>> {
        if self.is_busy(appends.len()) || !are_small(appends.iter().filter_map(PendingAppend::look)) {
            return Err(appends);
        }
        let Some(mut held) = self.writer.try_lock() else { return Err(appends) };
        // Under the lock, for an entry that was taken out of the queue may be on its way to the lock.
        let Some(writer) = held.as_mut().filter(|_| self.waiting.load(Relaxed) == 0) else { return Err(appends) };
        let mut done = false;
        writer.guarded(|writer| done = writer.inline(appends));
        if !done {
            // They are the writer's now, before all that comes. Only to wake its thread; if the queue is full, something does.
            let _ = queue.try_send(Box::new(Queued::new(Entry::Appends(Vec::new()), &self.waiting)));
        }
        Ok(())
    }

    /// Whether whoever hands over so many appends has better things to do than to write them.
    fn is_busy(&self, appends: usize) -> bool {
        let busy = if appends > INLINE_APPENDS_MAX { BUSY_HANDOVERS + 1 } else { self.busy.load(Relaxed) };
        self.busy.store(busy.saturating_sub(1), Relaxed);
        busy > 0
    }
}

/// Whether appends can be written without waiting, if the disk does not make them. A room that has just become `synced` is
/// waited for until its channel hears of that.
fn are_small<'a>(mut appends: impl Iterator<Item = &'a Append>) -> bool {
    let (mut records, mut bytes) = (0, 0);
    appends.all(|append| {
        records += append.records.len();
        bytes += append.frames.len();
        // A rewrite reads what it rewrites.
        append.durability == Durability::Buffered
            && append.rewrites.is_empty()
            && records <= INLINE_RECORDS_MAX
            && bytes <= INLINE_BYTES_MAX
    })
}

impl Writer {
    /// Runs a part of a turn. A panic is a bug: what was written is unknown then, as with a failed write.
    fn guarded(&mut self, run: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| run(self))).is_err() {
            self.poison("the store's writer panicked");
            self.finish_turn();
        }
    }

    /// A turn of these alone. Returns whether it is over; if not, the next turn goes on with it.
    fn inline(&mut self, appends: Vec<PendingAppend>) -> bool {
        self.commit += 1;
        for pending in appends {
            self.take_append(pending);
        }
        let done = self.try_write();
        if done {
            self.finish_turn();
        }
        done
    }

    /// Writes what was gathered unless the disk makes it wait; then it stays gathered.
    fn try_write(&mut self) -> bool {
        if self.batch.is_empty() || self.poison.get().is_some() {
            return true;
        }
        let batch = std::mem::take(&mut self.batch);
        match self.disk.try_write(batch) {
            Ok(None) => self.dirty = true,
            Ok(Some(batch)) => {
                self.batch = batch;
                return false;
            }
            Err(error) => self.poison(&format!("a write failed: {error}")),
        }
        true
    }
}
