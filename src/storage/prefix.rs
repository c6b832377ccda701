//! Looking at a room's log for what can go: its expired beginning, its newest record, where so many bytes begin.

use std::time::{Duration, Instant};

use parlor_protocol::{RoomNumber, Seq, UnixMillis};
use rocksdb::{DBRawIterator, ReadOptions};

use super::{
    db::{Db, failed},
    schema::{self, Family, Floor, Record, damaged},
    sizes,
};
use parlor_actors::port::StoreError;

/// How long a step of a sweep may take: publishes wait behind it.
const STEP_TIME: Duration = Duration::from_millis(2);

/// How many keys are looked at between two looks at the clock.
const KEYS_PER_LOOK: u32 = 256;

/// What a step of a sweep may still do.
pub(super) struct Work {
    keys: u32,
    end: Instant,
}

impl Work {
    /// At most so many keys, but always one: each step comes further.
    pub(super) fn new(keys: u32) -> Self {
        Self { keys: keys.max(1), end: Instant::now() + STEP_TIME }
    }

    /// Whether another key may be looked at, which then counts.
    fn take(&mut self) -> bool {
        if self.keys == 0 || (self.keys.is_multiple_of(KEYS_PER_LOOK) && Instant::now() > self.end) {
            self.keys = 0;
            return false;
        }
        self.keys -= 1;
        true
    }

    /// Whether nothing more may be done.
    pub(super) fn is_over(&self) -> bool {
        self.keys == 0
    }

    /// Counts what costs as much as some keys.
    pub(super) fn charge(&mut self, keys: u32) {
        self.keys = self.keys.saturating_sub(keys);
        if Instant::now() > self.end {
            self.keys = 0;
        }
    }
}

/// Where the expired beginning of a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// At this record, which has not expired.
    Upto(Seq),
    /// With the log.
    All,
    /// Not known: this is the next record to look at.
    More(Seq),
}

/// A room's records from `low` on. Reading them leaves the cache to others.
fn records(db: &Db, room: RoomNumber, low: Seq, high: Seq) -> DBRawIterator<'_> {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(schema::log_key(room, low));
    options.set_iterate_upper_bound([schema::log_key(room, high).as_slice(), &[0]].concat());
    options.fill_cache(false);
    db.rocks().raw_iterator_cf_opt(db.family(Family::Log), options)
}

/// Looks at the records from `start` on, as far as they have expired.
pub(super) fn expired(
    db: &Db,
    room: RoomNumber,
    start: Seq,
    now: UnixMillis,
    work: &mut Work,
) -> Result<Expired, StoreError> {
    let mut found = records(db, room, start, Seq::MAX);
    found.seek_to_first();
    while let Some((key, value)) = found.item() {
        let seq = schema::log_key_seq(key)?;
        if !is_expired(key, value, now)? {
            return Ok(Expired::Upto(seq));
        }
        if !work.take() {
            return Ok(Expired::More(seq));
        }
        found.next();
    }
    found.status().map_err(failed)?;
    Ok(Expired::All)
}

fn is_expired(key: &[u8], value: &[u8], now: UnixMillis) -> Result<bool, StoreError> {
    let expires = schema::expiry(value).map_err(|wrong| damaged(Family::Log, key, &wrong))?;
    Ok(expires != 0 && expires <= now)
}

/// A record as far as a sweep needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newest {
    pub(super) at: Floor,
    pub(super) expires: UnixMillis,
    /// The bytes of all frames up to and with it.
    pub(super) bytes_upto: u64,
}

/// The newest record from `low` to `high`.
pub(super) fn newest(db: &Db, room: RoomNumber, low: Seq, high: Seq) -> Result<Option<Newest>, StoreError> {
    let mut found = records(db, room, low, high);
    found.seek_to_last();
    let Some((key, value)) = found.item() else { return found.status().map(|()| None).map_err(failed) };
    let (record, deliver) = Record::decode(key, value)?;
    let at = Floor { seq: deliver.seq, count: deliver.count, time: deliver.time };
    Ok(Some(Newest { at, expires: record.expires, bytes_upto: record.bytes_upto() }))
}

/// The oldest record from `low` on: its seq, and the bytes of all frames before it.
pub(super) fn oldest(db: &Db, room: RoomNumber, low: Seq) -> Result<Option<(Seq, u64)>, StoreError> {
    let mut found = records(db, room, low, Seq::MAX);
    found.seek_to_first();
    let Some((key, value)) = found.item() else { return found.status().map(|()| None).map_err(failed) };
    let bytes = schema::bytes_before(value).map_err(|wrong| damaged(Family::Log, key, &wrong))?;
    Ok(Some((schema::log_key_seq(key)?, bytes)))
}

/// How many countable records there were before the oldest one from `low` on; `None` if there is none.
pub(super) fn count_before(db: &Db, room: RoomNumber, low: Seq) -> Result<Option<u64>, StoreError> {
    let mut found = records(db, room, low, Seq::MAX);
    found.seek_to_first();
    let Some((key, value)) = found.item() else { return found.status().map(|()| None).map_err(failed) };
    Record::decode(key, value).map(|(_, deliver)| Some(deliver.count_before()))
}

/// Looks at a room's records from `low` to `high`, in order, until `look` says that it is enough: the seq of each, by how
/// much rewrites have made it longer, and the bytes of all frames before it.
pub(super) fn each(
    db: &Db,
    room: RoomNumber,
    low: Seq,
    high: Seq,
    mut look: impl FnMut(Seq, i64, u64) -> bool,
) -> Result<(), StoreError> {
    let mut found = records(db, room, low, high);
    found.seek_to_first();
    while let Some((key, value)) = found.item() {
        let wrong = |wrong: String| damaged(Family::Log, key, &wrong);
        let (grown, before) = (schema::grown(value).map_err(wrong)?, schema::bytes_before(value).map_err(wrong)?);
        if look(schema::log_key_seq(key)?, grown, before) {
            return Ok(());
        }
        found.next();
    }
    found.status().map_err(failed)
}

/// The lowest seq from `low` on from which the frames up to the newest record have at most so many bytes; that record's at
/// the highest. The room's oldest record may be `oldest`.
pub(super) fn first_within(
    db: &Db,
    room: RoomNumber,
    oldest_seq: Seq,
    low: Seq,
    newest: &Newest,
    bytes_max: u64,
) -> Result<Seq, StoreError> {
    let sums = sizes::sums(db, room, sizes::block(low))?;
    // What rewrites have added to everything from a block on.
    let added_from = |block: u64| -> i64 { sums.iter().filter(|(at, _)| *at >= block).map(|(_, sum)| sum).sum() };
    let upto = newest.bytes_upto;
    let bytes = |before: u64, added: i64| upto.saturating_sub(before).saturating_add_signed(added);
    // First the block: at its beginning nothing has to be taken off its sum.
    let (mut below, mut above) = (sizes::block(low), sizes::block(newest.at.seq));
    while below < above {
        let middle = below + (above - below) / 2;
        // The beginning of the next block.
        let next = middle + 1;
        let before = oldest(db, room, sizes::block_start(next))?.map_or(upto, |(_, before)| before);
        if bytes(before, added_from(next)) <= bytes_max { above = middle } else { below = next }
    }
    let (start, end) = (sizes::block_start(below), newest.at.seq.min(sizes::block_start(below + 1)));
    let mut added = added_from(below);
    let mut first = None;
    each(db, room, start.max(oldest_seq), end, |seq, grown, before| {
        if seq >= low && bytes(before, added) <= bytes_max {
            first = Some(seq);
            return true;
        }
        added -= grown;
        false
    })?;
    // Behind a record that must go lies the first that may stay, or nothing but the next block.
    Ok(first.unwrap_or(end).clamp(low, newest.at.seq.max(low)))
}
