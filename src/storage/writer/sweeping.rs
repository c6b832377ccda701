//! Deleting: what has expired, and what rooms keep no longer.
//!
//! Rooms that are due come from an index by time, into which [`note_due`](Writer::note_due) puts them as they append. A
//! due room's log loses its expired beginning: the trim mark moves behind it, and one deletion takes the keys. Records that
//! expired above a record that did not are left to compactions, which drop them up to the horizon (`filter`).
//!
//! **What keeps a seq from being given twice.** A room goes on from its newest record, and that one may be dropped like any
//! other. So before the horizon passes a record's expiry, its room must have been looked at later than that, and everything
//! written then must be synced. Either the record was not the newest any more, and the newer one had not expired: then
//! that one is the next of which the same holds. Or it was, and then the room's floor says where it stood. Entries lie at
//! most [`WIDTH_MOST_MS`] behind the expiries that they stand for; the horizon stays as far behind the time of a sweep that
//! found nothing due any more, and below the expiry of every record that comes later.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
};

use parlor_actors::{
    port::{AppendRecord, Now, StoreError, Sweep, Swept, Trim, Trimmed},
    wall::WallGuard,
};
use parlor_protocol::{RoomNumber, Seq, UnixMillis};
use rocksdb::ReadOptions;

use super::Writer;
use crate::storage::{
    cutting::cut,
    db::failed,
    filter::{Horizons, Mark},
    pending::Once,
    prefix::{self, Expired, Work},
    recover,
    schema::{self, Family, RoomMeta, WIDTH_MOST_MS, damaged, meta},
    sizes,
};

/// The most rooms that one step of a sweep deletes from.
const ROOMS_PER_STEP_MAX: usize = 16;

/// The most entries of the index that one step looks at.
const ENTRIES_PER_STEP_MAX: usize = 1_024;

/// What a look at a room costs besides its records, in records.
const ROOM_COST: u32 = 64;

/// The horizons rise by steps of at least this: each costs a sync.
const HORIZON_STEP_MS: u64 = 60_000;

/// Told to whoever asks: whether the wall clock is believed.
#[derive(Debug, Default)]
pub(in crate::storage) struct Pause {
    /// By how many milliseconds the wall clock is off; 0 if it is believed.
    pub(in crate::storage) off_ms: AtomicI64,
    /// Whether somebody says that it is right.
    pub(in crate::storage) trusted: AtomicBool,
}

/// What the writer knows of its sweeps.
pub(super) struct Sweeping {
    wall: WallGuard,
    pause: Arc<Pause>,
    /// No entry of the index lies below this.
    low: UnixMillis,
    /// What compactions may drop up to: the writer's own copy.
    horizon: UnixMillis,
    /// A room whose expired beginning is longer than a step, and where the next step goes on.
    half_done: Option<(RoomNumber, Seq)>,
    /// Rooms that cannot be swept. Nothing of theirs is deleted, and compactions drop nothing while there are any.
    damaged: BTreeSet<RoomNumber>,
    /// How far rooms are trimmed, for compactions; told when it is synced.
    marks: HashMap<RoomNumber, Mark>,
    pub(super) replies: Vec<(Once<Swept>, Result<Swept, StoreError>)>,
    pub(super) trims: Vec<(Once<Trimmed>, Result<Trimmed, StoreError>)>,
}

impl Sweeping {
    /// `seen` is what the wall clock showed in an earlier run.
    pub(super) fn new(seen: UnixMillis, pause: Arc<Pause>) -> Self {
        Self {
            wall: WallGuard::new(seen),
            pause,
            low: 0,
            horizon: 0,
            half_done: None,
            damaged: BTreeSet::new(),
            marks: HashMap::new(),
            replies: Vec::new(),
            trims: Vec::new(),
        }
    }

    fn lower_horizon(&mut self, horizons: &Horizons, to: UnixMillis) {
        self.horizon = to;
        horizons.records.store(to, SeqCst);
    }
}

/// The ends of the stretches of time that a room wrote to the index of late.
pub(in crate::storage) type RecentlyDue = [UnixMillis; 4];

impl Writer {
    /// Puts a room into the index for its records that will expire, in the batch that has them.
    pub(super) fn note_due(&mut self, room: RoomNumber, records: &[AppendRecord]) {
        let mut expiring = records.iter().filter(|record| record.expires != 0).peekable();
        if expiring.peek().is_none() {
            return;
        }
        let Some(live) = self.rooms.find(room) else { return };
        for AppendRecord { expires, answer, .. } in expiring {
            if *expires <= self.sweeping.horizon {
                // The wall clock has gone back. No compaction that begins from here on may take this record for one
                // that was swept.
                self.sweeping.lower_horizon(&self.db.horizons, expires - 1);
            }
            let bucket = schema::bucket(*expires, expires.saturating_sub(answer.time));
            if live.due.contains(&bucket) {
                continue;
            }
            live.due.rotate_right(1);
            live.due[0] = bucket;
            self.sweeping.low = self.sweeping.low.min(bucket);
            self.batch.put_cf(self.db.family(Family::Due), schema::due_key(bucket, room), []);
        }
    }

    pub(super) fn take_sweep(&mut self, sweep: &Sweep, reply: Once<Swept>) {
        // So that rooms are seen with what this turn has gathered for them.
        self.write();
        let swept = self.poisoned().map_or_else(|| self.sweep(sweep), Err);
        // So that no rewrite of this turn takes what is deleted for something that is there.
        self.write();
        self.sweeping.replies.push((reply, swept));
    }

    pub(super) fn take_trim(&mut self, trim: Trim, reply: Once<Trimmed>) {
        self.write();
        let trimmed = self.poisoned().map_or_else(|| self.trim(trim), Err);
        self.write();
        self.sweeping.trims.push((reply, trimmed));
    }

    fn sweep(&mut self, sweep: &Sweep) -> Result<Swept, StoreError> {
        if !self.believes(sweep.now) {
            return Ok(Swept { paused: true, ..Swept::default() });
        }
        let now = sweep.now.unix_ms;
        let mut work = Work::new(sweep.records_max);
        let mut swept = Swept::default();
        let mut done = HashSet::new();
        // The lowest entry that stays.
        let mut stays = None;
        let entries = self.due(now)?;
        for (bucket, room) in &entries {
            if self.sweeping.damaged.contains(room) {
                stays.get_or_insert(*bucket);
                continue;
            }
            if !done.contains(room) {
                swept.more = done.len() >= ROOMS_PER_STEP_MAX || work.is_over();
                if swept.more {
                    stays.get_or_insert(*bucket);
                    break;
                }
                match self.sweep_room(*room, now, &mut work) {
                    Ok(Some(cut)) => swept.rooms.extend(cut.map(|(first, gone_count)| (*room, first, gone_count))),
                    Ok(None) => {
                        swept.more = true;
                        stays.get_or_insert(*bucket);
                        break;
                    }
                    Err(error @ StoreError::Damaged(_)) => {
                        tracing::error!(%room, %error, "what has expired in a room cannot be deleted");
                        self.sweeping.damaged.insert(*room);
                        stays.get_or_insert(*bucket);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                done.insert(*room);
            }
            self.batch.delete_cf(self.db.family(Family::Due), schema::due_key(*bucket, *room));
        }
        swept.more |= entries.len() >= ENTRIES_PER_STEP_MAX;
        if let Some(low) = stays.or_else(|| entries.last().map(|(bucket, _)| *bucket)) {
            self.sweeping.low = low;
        }
        if !swept.more && self.sweeping.damaged.is_empty() {
            self.raise_horizons(sweep);
        }
        Ok(swept)
    }

    /// Entries of the index that are due, oldest first.
    fn due(&self, now: UnixMillis) -> Result<Vec<(UnixMillis, RoomNumber)>, StoreError> {
        // From where the last sweep left off, so that nothing goes through the entries that were deleted before.
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(schema::due_key(self.sweeping.low, RoomNumber(0)));
        options.set_iterate_upper_bound(schema::due_key(now.saturating_add(1), RoomNumber(0)));
        let mut found = self.db.rocks().raw_iterator_cf_opt(self.db.family(Family::Due), options);
        found.seek_to_first();
        let mut entries = Vec::new();
        while entries.len() < ENTRIES_PER_STEP_MAX
            && let Some(key) = found.key()
        {
            let entry = schema::read_due_key(key).ok_or_else(|| damaged(Family::Due, key, "not a time and a room"))?;
            entries.push(entry);
            found.next();
        }
        found.status().map(|()| entries).map_err(failed)
    }

    /// Deletes a room's expired beginning and sees to its floor. Returns its new trim mark and the count below it if it has one, or
    /// `None` if the work is over before the room is done.
    fn sweep_room(
        &mut self,
        room: RoomNumber,
        now: UnixMillis,
        work: &mut Work,
    ) -> Result<Option<Option<(Seq, u64)>>, StoreError> {
        let half_done = self.sweeping.half_done.take_if(|(half_done, _)| *half_done == room);
        // A room that was deleted leaves its entries behind.
        let Some(mut meta) = recover::meta_of(&self.db, room)? else { return Ok(Some(None)) };
        let start = half_done.map_or(meta.first, |(_, next)| next.max(meta.first));
        let first = match prefix::expired(&self.db, room, start, now, work)? {
            Expired::Upto(seq) => Some(seq),
            Expired::All => None,
            Expired::More(next) => {
                self.sweeping.half_done = Some((room, next));
                return Ok(None);
            }
        };
        work.charge(ROOM_COST);
        let before = meta.clone();
        let newest = prefix::newest(&self.db, room, meta.first, Seq::MAX)?;
        if let Some(newest) = newest
            && newest.expires != 0
            && newest.expires <= now
            && newest.at.seq > meta.floor.seq
        {
            meta.floor = newest.at;
        }
        let tail = newest.map_or(0, |newest| newest.at.seq).max(meta.floor.seq);
        let first = first.unwrap_or_else(|| tail.saturating_add(1)).max(meta.first);
        cut(&self.db, &mut self.batch, room, &mut meta, first)?;
        if meta != before {
            self.batch.put_cf(self.db.family(Family::Rooms), schema::room_key(room), meta.encode());
        }
        if let Some(live) = self.rooms.peek(room) {
            // The entries that stand for these are deleted.
            live.due = RecentlyDue::default();
        }
        Ok(Some((first > before.first).then_some((first, meta.gone_count))))
    }

    fn trim(&mut self, trim: Trim) -> Result<Trimmed, StoreError> {
        let Trim { room, generation, first, bytes_max } = trim;
        let live = self.rooms.find(room).filter(|live| live.generation == generation);
        live.ok_or(StoreError::Superseded(generation))?;
        let key = schema::room_key(room);
        let mut meta = recover::meta_of(&self.db, room)?.ok_or_else(|| damaged(Family::Rooms, &key, "missing"))?;
        let newest = prefix::newest(&self.db, room, meta.first, Seq::MAX)?;
        let tail = newest.map_or(meta.first - 1, |newest| newest.at.seq).max(meta.floor.seq);
        let mut first = first.min(tail).max(meta.first);
        if let Some(newest) = newest.filter(|newest| bytes_max > 0 && newest.at.seq > first) {
            first = prefix::first_within(&self.db, room, meta.first, first, &newest, bytes_max)?;
        }
        let oldest = prefix::oldest(&self.db, room, first)?;
        let rewritten = sizes::from(&self.db, room, meta.first, first)?;
        let before = meta.clone();
        if let Some(newest) = newest.filter(|newest| newest.at.seq > meta.floor.seq) {
            // Compactions drop what changes the trimmed ones, and that may be the newest record.
            meta.floor = newest.at;
        }
        if first > meta.first {
            cut(&self.db, &mut self.batch, room, &mut meta, first)?;
            meta.trimmed = first;
        }
        if meta != before {
            self.batch.put_cf(self.db.family(Family::Rooms), key, meta.encode());
        }
        self.note_mark(room, &meta);
        let upto = newest.map_or(0, |newest| newest.bytes_upto);
        // Counted as the channel does, which adds what each rewrite changes and never looks where.
        let left = upto.saturating_sub(oldest.map_or(upto, |(_, bytes)| bytes)).saturating_add_signed(rewritten);
        let counted = self.rooms.find(room).map_or(left, |live| live.bytes_counted);
        let bytes_before = counted.saturating_sub(left);
        Ok(Trimmed { first, trimmed: meta.trimmed.min(first), gone_count: meta.gone_count, bytes_before })
    }

    /// Compactions may drop changes of what was trimmed, once the mark and the floor are synced.
    pub(super) fn note_mark(&mut self, room: RoomNumber, meta: &RoomMeta) {
        if meta.first > 1 {
            self.dirty = true;
            self.sweeping.marks.insert(room, Mark { first: meta.first, floor: meta.floor.seq });
        }
    }

    /// Everything is synced: compactions are told how far rooms are trimmed.
    pub(super) fn tell_marks(&mut self) {
        for (room, mark) in self.sweeping.marks.drain() {
            self.db.horizons.marks.put(room, mark);
        }
    }

    /// Lets compactions drop what this and all earlier sweeps have seen to.
    fn raise_horizons(&mut self, sweep: &Sweep) {
        let now = sweep.now.unix_ms;
        let horizon = now.saturating_sub(WIDTH_MOST_MS);
        if horizon < self.sweeping.horizon.saturating_add(HORIZON_STEP_MS) {
            return;
        }
        self.batch.put_cf(self.db.family(Family::Meta), meta::SWEPT, now.to_be_bytes());
        self.write();
        self.sync();
        if self.poison.get().is_none() {
            self.sweeping.horizon = horizon;
            self.db.horizons.records.store(horizon, SeqCst);
            self.db.horizons.answers.store(now.saturating_sub(sweep.dedupe_horizon_ms), SeqCst);
        }
    }

    /// Whether the wall clock is good enough to delete by.
    fn believes(&mut self, now: Now) -> bool {
        let Sweeping { wall, pause, .. } = &mut self.sweeping;
        if pause.trusted.swap(false, SeqCst) {
            wall.trust();
        }
        let off_ms = wall.look(now).unwrap_or_default();
        let before = pause.off_ms.swap(off_ms, SeqCst);
        if off_ms == 0 {
            if before != 0 {
                tracing::warn!("the wall clock is believed again: what has expired is deleted");
            }
            return true;
        }
        if before == 0 {
            tracing::error!(
                off_ms,
                "the wall clock has jumped: nothing is deleted until it is back, or until the engine is told that it is right"
            );
            self.sweeping.lower_horizon(&self.db.horizons, 0);
            self.db.horizons.answers.store(0, SeqCst);
        }
        false
    }
}
