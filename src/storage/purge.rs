//! Writes stretches of rooms' logs anew, so that what was replaced or deleted there is in no file any more.
//!
//! What is in memory is flushed to tables, whereupon the write-ahead logs up to here have no use and are deleted, and the
//! tables that hold the stretches are compacted, the lowest ones too. It does not reach copies made of the store's files,
//! nor blocks of deleted files that the file system has not overwritten.
//!
//! A thread of its own does it, so that no read waits behind it. Whoever comes while it is busy waits for the next round
//! and shares that with all others who wait: so nobody waits for more than two rounds, however many erase at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crossbeam::channel::Receiver;
use parlor_actors::port::StoreError;
use parlor_protocol::{RoomNumber, Seq};
use rocksdb::{BottommostLevelCompaction, CompactOptions, FlushOptions};

use super::{
    db::{Db, failed},
    pending::Once,
    schema::{self, Family},
};

/// The most requests that may wait for a round, and the most that share one.
pub(super) const PURGES_MAX: usize = 1_024;

/// The most stretches that are compacted one by one: beyond, all that lies between the lowest and the highest is.
const STRETCHES_MAX: usize = 64;

/// A stretch of a room's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stretch {
    /// Which room.
    pub room: RoomNumber,
    /// The first seq.
    pub first: Seq,
    /// The last seq.
    pub last: Seq,
}

impl Stretch {
    /// All of every room, those that were deleted included.
    pub const ALL: [Self; 2] = [
        Self { room: RoomNumber(0), first: 0, last: Seq::MAX },
        Self { room: RoomNumber(u64::MAX), first: 0, last: Seq::MAX },
    ];
}

/// What the purger is asked.
pub(super) struct Purge {
    pub(super) stretches: Vec<Stretch>,
    pub(super) reply: Once<()>,
}

/// The purger's thread: ends when the queue is closed and empty.
pub(super) fn run(db: &Db, queue: &Receiver<Purge>) {
    while let Ok(first) = queue.recv() {
        let round: Vec<Purge> = std::iter::once(first).chain(queue.try_iter().take(PURGES_MAX)).collect();
        let stretches = round.iter().flat_map(|purge| purge.stretches.iter().copied()).collect();
        let done = catch_unwind(AssertUnwindSafe(|| purge(db, &merged(stretches))));
        let done = done.unwrap_or_else(|_| Err(StoreError::Failed("the purge panicked".into())));
        round.into_iter().for_each(|purge| purge.reply.give(done.clone()));
    }
}

/// As few stretches of keys as hold all of these.
fn merged(mut stretches: Vec<Stretch>) -> Vec<([u8; 16], [u8; 16])> {
    stretches.sort_unstable();
    let mut merged: Vec<Stretch> = Vec::new();
    for next in stretches {
        match merged.last_mut() {
            Some(last) if last.room == next.room => last.last = last.last.max(next.last),
            _ => merged.push(next),
        }
    }
    let mut keys: Vec<_> =
        merged.iter().map(|it| (schema::log_key(it.room, it.first), schema::log_key(it.room, it.last))).collect();
    let all = merged.contains(&Stretch::ALL[0]) && merged.contains(&Stretch::ALL[1]);
    if (all || keys.len() > STRETCHES_MAX)
        && let (Some((low, _)), Some((_, high))) = (keys.first().copied(), keys.last().copied())
    {
        keys = vec![(low, high)];
    }
    keys
}

fn purge(db: &Db, stretches: &[([u8; 16], [u8; 16])]) -> Result<(), StoreError> {
    let families: Vec<_> = Family::ALL.iter().map(|family| db.family(*family)).collect();
    let mut flush = FlushOptions::default();
    flush.set_wait(true);
    db.rocks().flush_cfs_opt(&families.iter().collect::<Vec<_>>(), &flush).map_err(failed)?;
    let mut compact = CompactOptions::default();
    compact.set_exclusive_manual_compaction(false);
    compact.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    for (low, high) in stretches {
        db.rocks().compact_range_cf_opt(db.family(Family::Log), Some(low), Some(high), &compact);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_of_a_room_become_one_and_too_many_become_one_for_all() {
        let of = |room, first, last| Stretch { room: RoomNumber(room), first, last };
        let keys =
            |room, first, last| (schema::log_key(RoomNumber(room), first), schema::log_key(RoomNumber(room), last));
        assert_eq!(merged(vec![of(2, 5, 9), of(1, 7, 7), of(2, 1, 6)]), [keys(1, 7, 7), keys(2, 1, 9)]);
        let mut all = Stretch::ALL.to_vec();
        all.push(of(7, 1, 2));
        assert_eq!(merged(all), [(keys(0, 0, 0).0, keys(u64::MAX, 0, Seq::MAX).1)]);
        let many = (1..=65).map(|room| of(room, 3, 4)).collect();
        assert_eq!(merged(many), [(keys(1, 3, 4).0, keys(65, 3, 4).1)]);
    }
}
