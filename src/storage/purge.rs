//! Writes a stretch of a room's log anew, so that what was replaced or deleted there is in no file any more.
//!
//! What is in memory is flushed to tables, whereupon the write-ahead logs up to here have no use and are deleted, and the
//! tables that hold the stretch are compacted, the lowest ones too. It takes as long as those tables take to be written, which
//! for one message are some tens of megabytes at each level: seconds. It does not reach copies made of the store's files,
//! nor blocks of deleted files that the file system has not overwritten.

use parlor_actors::port::StoreError;
use parlor_protocol::{RoomNumber, Seq};
use rocksdb::{BottommostLevelCompaction, CompactOptions, FlushOptions};

use super::{
    db::{Db, failed},
    schema::{self, Family},
};

/// See the module.
pub(super) fn purge(db: &Db, room: RoomNumber, first: Seq, last: Seq) -> Result<(), StoreError> {
    let families: Vec<_> = Family::ALL.iter().map(|family| db.family(*family)).collect();
    let mut flush = FlushOptions::default();
    flush.set_wait(true);
    db.rocks().flush_cfs_opt(&families.iter().collect::<Vec<_>>(), &flush).map_err(failed)?;
    let mut compact = CompactOptions::default();
    compact.set_exclusive_manual_compaction(false);
    compact.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    let (low, high) = (schema::log_key(room, first), schema::log_key(room, last));
    db.rocks().compact_range_cf_opt(db.family(Family::Log), Some(low), Some(high), &compact);
    Ok(())
}
