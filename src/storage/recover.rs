//! What the store knows when it opens, and what it knows of a room when that is loaded.
//!
//! When RocksDB opens, it writes what it finds in its log into tables and syncs them. So whatever is read here survives
//! the next loss of power, even if nobody had synced it before the store was last left.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use parlor_actors::{
    members::announcing::Announcement,
    port::{EpochStart, Generation, Load, Loaded, Mark, RoomOptions, StoreError},
};
use parlor_protocol::{Epoch, Name, RoomNumber, Seq, UnixMillis, message::Durability};
use rocksdb::{ReadOptions, WriteBatch};

use super::{
    announcements,
    db::{Age, Db, failed},
    members, prefix,
    schema::{self, FORMAT, Family, Floor, Record, RoomMeta, damaged, meta},
    sizes,
};

/// What is counted for the whole store. Raised in memory and stored in the same batch as what uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counters {
    next_room: u64,
    next_epoch: u64,
    /// The number of the newest change of members.
    changes: u64,
    /// How often what was not synced may have been lost.
    losses: u64,
    /// The wall clock at some sweep of late; 0 if there was none.
    pub(super) swept: UnixMillis,
}

/// Which run of the kernel this is; what it cached lasts as long. `None` if it does not tell.
pub(super) fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// The file that tells the next opening of a failed write or sync. Not in the database, which takes no more writes then.
const DOUBT: &str = "UNSYNCED";

/// Remembers, as well as a failing disk lets it, that what was written may be gone without the machine having stopped: a
/// failed sync lets the kernel drop it.
pub(super) fn mark_doubt(db: &Db, why: &str) {
    let path = db.rocks().path().join(DOUBT);
    let marked = File::create(path).and_then(|mut file| {
        file.write_all(why.as_bytes())?;
        file.sync_all()
    });
    if let Err(error) = marked {
        tracing::error!(%error, "the failure could not be noted for the next opening");
    }
}

/// Begins an opening: reads the counters, finds out whether anything may have been lost, and takes the clean mark away.
/// All of that is synced when this returns.
pub(super) fn begin(db: &Db, age: Age, boot: Option<&str>) -> Result<Counters, StoreError> {
    let mut batch = WriteBatch::default();
    let mut counters = Counters { next_room: 1, next_epoch: 1, changes: 0, losses: 0, swept: 0 };
    let family = db.family(Family::Meta);
    let doubt = db.rocks().path().join(DOUBT);
    match age {
        Age::New => batch.put_cf(family, meta::FORMAT, FORMAT.to_be_bytes()),
        Age::Known => {
            let number = |key: &[u8]| {
                let value = db.value(Family::Meta, key)?.ok_or_else(|| damaged(Family::Meta, key, "missing"))?;
                schema::decode_u64(&value).map_err(|wrong| damaged(Family::Meta, key, &wrong))
            };
            counters.next_room = number(meta::NEXT_ROOM)?;
            counters.next_epoch = number(meta::NEXT_EPOCH)?;
            counters.losses = number(meta::LOSSES)?;
            if db.value(Family::Meta, meta::CHANGES)?.is_some() {
                counters.changes = number(meta::CHANGES)?;
            }
            if db.value(Family::Meta, meta::SWEPT)?.is_some() {
                counters.swept = number(meta::SWEPT)?;
            }
            let clean = db.value(Family::Meta, meta::CLEAN)?.is_some();
            let stored = db.value(Family::Meta, meta::BOOT)?.unwrap_or_default();
            let same_boot = boot.is_some_and(|boot| boot.as_bytes() == stored);
            if doubt.exists() || (!clean && !same_boot) {
                counters.losses += 1;
                tracing::warn!("the store was left with records that may be lost: buffered rooms begin new epochs");
            }
        }
    }
    counters.put(db, &mut batch);
    batch.put_cf(family, meta::LOSSES, counters.losses.to_be_bytes());
    batch.put_cf(family, meta::BOOT, boot.unwrap_or_default());
    batch.delete_cf(family, meta::CLEAN);
    db.rocks().write(batch).and_then(|()| db.rocks().flush_wal(true)).map_err(failed)?;
    // Only now: a loss counted twice costs an epoch, one not counted a seq given twice.
    match fs::remove_file(doubt) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StoreError::Failed(error.to_string().into())),
        _ => Ok(counters),
    }
}

impl Counters {
    pub(super) fn put(&self, db: &Db, batch: &mut WriteBatch) {
        let family = db.family(Family::Meta);
        batch.put_cf(family, meta::NEXT_ROOM, self.next_room.to_be_bytes());
        batch.put_cf(family, meta::NEXT_EPOCH, self.next_epoch.to_be_bytes());
        batch.put_cf(family, meta::CHANGES, self.changes.to_be_bytes());
    }

    /// The number of the newest change of members.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// The number of another change of members.
    pub(super) fn change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    fn room(&mut self) -> RoomNumber {
        let number = self.next_room;
        self.next_room += 1;
        RoomNumber(number)
    }

    /// The epoch that is given next.
    pub(super) fn next_epoch(&self) -> Epoch {
        Epoch(self.next_epoch)
    }

    pub(super) fn epoch(&mut self) -> Epoch {
        let number = self.next_epoch;
        self.next_epoch += 1;
        Epoch(number)
    }
}

/// A room as it was found, or is to be created. Its generation is the writer's business.
pub(super) struct Found {
    pub(super) room: RoomNumber,
    pub(super) meta: RoomMeta,
    pub(super) end: End,
    /// By how many bytes rewrites have made its records longer.
    rewritten: i64,
    /// How many people it knows.
    pub(super) known: u64,
    /// What it has yet to record, oldest first.
    pub(super) announcements: Vec<Announcement>,
}

impl Found {
    /// The room's epoch.
    pub(super) fn epoch(&self) -> Epoch {
        Self::epoch_of(&self.meta)
    }

    pub(super) fn epoch_of(meta: &RoomMeta) -> Epoch {
        meta.epochs.last().map_or(Epoch(0), |start| start.epoch)
    }

    /// The bytes of all frames up to and with the newest, as rewrites have left them.
    pub(super) fn bytes_counted(&self) -> u64 {
        self.end.bytes_upto.saturating_add_signed(self.rewritten)
    }

    /// As it is answered; `change` is the number of the newest change of members.
    pub(super) fn loaded(self, generation: Generation, change: u64) -> Loaded {
        let bytes_upto = self.bytes_counted();
        let Self { room, meta, end, known, announcements, .. } = self;
        let RoomMeta { name, options, epochs, trimmed, gone_count, .. } = meta;
        let End { first, tail, count, time, bytes_before, .. } = end;
        Loaded {
            room,
            name,
            options,
            generation,
            epochs,
            first,
            tail,
            count,
            time,
            trimmed: trimmed.min(first),
            bytes_before,
            bytes_upto,
            known,
            change,
            announcements,
            gone_count,
        }
    }
}

/// Finds a room, or creates it. What it is given for that, a number or an epoch, goes to `batch`, which the caller writes
/// and syncs before it answers.
pub(super) fn load(db: &Db, load: Load, counters: &mut Counters, batch: &mut WriteBatch) -> Result<Found, StoreError> {
    let mut found = match find(db, &load.name)? {
        Some((room, meta)) => {
            let end = if meta.options.durability == Durability::Memory { End::EMPTY } else { end(db, room, &meta)? };
            let (known, announcements) = (members::counts(db, room)?.known(), announcements::of_room(db, room)?);
            let rewritten = sizes::from(db, room, meta.first, end.first)?;
            Found { room, meta, end, rewritten, known, announcements }
        }
        None => create(db, load.name, load.create.ok_or(StoreError::UnknownRoom)?, counters, batch),
    };
    let meta = &mut found.meta;
    if renew(meta, found.end.tail, counters) {
        batch.put_cf(db.family(Family::Rooms), schema::room_key(found.room), meta.encode());
        counters.put(db, batch);
    }
    // What it shows no longer the channel knows, and has it deleted when that is much.
    found.meta.gone_count = gone(db, found.room, &found.meta, &found.end)?.count;
    Ok(found)
}

/// Gives a room a new epoch if it may have lost what was behind its tail; whether it did. What was lost so far has counted then.
pub(super) fn renew(meta: &mut RoomMeta, tail: Seq, counters: &mut Counters) -> bool {
    let lost = match meta.options.durability {
        Durability::Memory => {
            // Whatever it had is gone, whoever left it.
            meta.epochs.clear();
            true
        }
        Durability::Buffered => meta.losses != counters.losses,
        Durability::Synced => false,
    };
    let renewed = lost || meta.epochs.is_empty();
    if renewed {
        meta.push_epoch(EpochStart { epoch: counters.epoch(), first: tail.saturating_add(1) });
    }
    meta.losses = counters.losses;
    renewed
}

/// The newest record of a room that is gone on purpose. A room shows no more than it keeps, though the store deletes the rest
/// later and more of it at a time: the count of what it keeps no longer is read while that is still there.
pub(super) fn gone(db: &Db, room: RoomNumber, meta: &RoomMeta, end: &End) -> Result<Mark, StoreError> {
    let (records_max, next) = (meta.options.records_max, end.tail.saturating_add(1));
    let kept = if records_max == 0 { 0 } else { next.saturating_sub(records_max) };
    let first = kept.max(end.first);
    // Where nothing is left, all of it is gone.
    let before = if kept > end.first { prefix::count_before(db, room, kept)?.unwrap_or(end.count) } else { end.before };
    Ok(Mark { seq: first.saturating_sub(1), count: before.max(meta.gone_count) })
}

pub(super) fn find(db: &Db, name: &Name) -> Result<Option<(RoomNumber, RoomMeta)>, StoreError> {
    let Some(value) = db.value(Family::Names, name.as_bytes())? else { return Ok(None) };
    let number = schema::decode_u64(&value).map_err(|wrong| damaged(Family::Names, name.as_bytes(), &wrong))?;
    let key = schema::room_key(RoomNumber(number));
    let meta = meta_of(db, RoomNumber(number))?.ok_or_else(|| damaged(Family::Rooms, &key, "missing"))?;
    if meta.name != *name {
        return Err(damaged(Family::Rooms, &key, &format!("the room is named {:?}, not {name:?}", meta.name)));
    }
    Ok(Some((RoomNumber(number), meta)))
}

/// What is stored of a room besides its log; `None` if there is no such room.
pub(super) fn meta_of(db: &Db, room: RoomNumber) -> Result<Option<RoomMeta>, StoreError> {
    let key = schema::room_key(room);
    let value = db.value(Family::Rooms, &key)?;
    let meta = value.map(|value| RoomMeta::decode(&value).map_err(|wrong| damaged(Family::Rooms, &key, &wrong)));
    meta.transpose()
}

/// A new room, without an epoch: whoever creates one gives it that, and stores it.
pub(super) fn create(
    db: &Db,
    name: Name,
    options: RoomOptions,
    counters: &mut Counters,
    batch: &mut WriteBatch,
) -> Found {
    let room = counters.room();
    batch.put_cf(db.family(Family::Names), name.as_bytes(), schema::room_key(room));
    let meta = RoomMeta {
        name,
        options,
        created: unix_millis(),
        first: 1,
        trimmed: 1,
        gone_count: 0,
        gone_time: 0,
        floor: Floor::default(),
        losses: counters.losses,
        epochs: Vec::new(),
    };
    Found { room, meta, end: End::EMPTY, rewritten: 0, known: 0, announcements: Vec::new() }
}

/// For people who look into a store; nothing depends on it, so it need not come from the engine's clock.
fn unix_millis() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Where a room's log begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) first: Seq,
    pub(super) tail: Seq,
    pub(super) count: u64,
    pub(super) time: UnixMillis,
    /// How many countable records there were before the first.
    before: u64,
    bytes_before: u64,
    pub(super) bytes_upto: u64,
}

impl End {
    pub(super) const EMPTY: Self =
        Self { first: 1, tail: 0, count: 0, time: 0, before: 0, bytes_before: 0, bytes_upto: 0 };
}

pub(super) fn end(db: &Db, room: RoomNumber, meta: &RoomMeta) -> Result<End, StoreError> {
    // Bounds keep a room's reads off its neighbours, and off what was deleted below its first record.
    let (low, high) = (schema::log_key(room, meta.first), schema::log_key(room, Seq::MAX));
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(low);
    options.set_iterate_upper_bound(high);
    let mut records = db.rocks().raw_iterator_cf_opt(db.family(Family::Log), options);
    records.seek_to_last();
    // What the log cannot say any more: where the room stood with what is gone.
    let gone = Floor { seq: meta.first.saturating_sub(1), count: meta.gone_count, time: meta.gone_time };
    let floor = if meta.floor.seq >= gone.seq { meta.floor } else { gone };
    let Some((key, value)) = records.item() else {
        records.status().map_err(failed)?;
        let Floor { seq: tail, count, time } = floor;
        let first = tail.saturating_add(1);
        return Ok(End { first, tail, count, time, before: count, bytes_before: 0, bytes_upto: 0 });
    };
    let (record, newest) = Record::decode(key, value)?;
    let newest = Floor { seq: newest.seq, count: newest.count, time: newest.time };
    let bytes_upto = record.bytes_upto();
    if meta.epochs.last().is_some_and(|start| record.epoch > start.epoch) {
        return Err(damaged(Family::Log, key, &format!("epoch {} is above its room's", record.epoch)));
    }
    records.seek_to_first();
    let Some((key, value)) = records.item() else {
        records.status().map_err(failed)?;
        return Err(damaged(Family::Log, &schema::log_key(room, newest.seq), "it has gone while it was read"));
    };
    let (oldest, deliver) = Record::decode(key, value)?;
    let (first, before, bytes_before) = (deliver.seq, deliver.count_before(), oldest.bytes_before);
    // The newest may have been dropped after it expired, and left older ones that have not.
    let Floor { seq: tail, count, time } = if newest.seq >= floor.seq { newest } else { floor };
    Ok(End { first, tail, count, time, before, bytes_before, bytes_upto })
}
