//! Cutting off the beginning of a room's log.

use parlor_actors::port::StoreError;
use parlor_protocol::{RoomNumber, Seq};
use rocksdb::WriteBatch;

use super::{
    db::Db,
    prefix,
    schema::{self, Family, Floor, RoomMeta},
    sizes,
};

/// So many records are deleted one by one, which costs later readers less than a range would.
const SINGLE_DELETES_MAX: u64 = 64;

/// Moves a room's trim mark and deletes what lies below. The caller stores the mark, in the same batch.
pub(super) fn cut(
    db: &Db,
    batch: &mut WriteBatch,
    room: RoomNumber,
    meta: &mut RoomMeta,
    first: Seq,
) -> Result<(), StoreError> {
    if first <= meta.first {
        return Ok(());
    }
    let newest = prefix::newest(db, room, meta.first, first - 1)?.map(|newest| newest.at);
    // A compaction may have dropped the newest below the mark; the floor may know it.
    let floor = Some(meta.floor).filter(|floor| floor.seq < first);
    if let Some(Floor { count, time, .. }) = newest.into_iter().chain(floor).max_by_key(|floor| floor.seq) {
        (meta.gone_count, meta.gone_time) = (meta.gone_count.max(count), meta.gone_time.max(time));
    }
    // It may know neither, but the oldest record that stays does.
    let before = prefix::count_before(db, room, first)?;
    meta.gone_count = meta.gone_count.max(before.unwrap_or_default());
    if newest.is_some() {
        let log = db.family(Family::Log);
        if first - meta.first <= SINGLE_DELETES_MAX {
            (meta.first..first).for_each(|seq| batch.delete_cf(log, schema::log_key(room, seq)));
        } else {
            batch.delete_range_cf(log, schema::log_key(room, meta.first), schema::log_key(room, first));
        }
    }
    sizes::cut(db, batch, room, meta.first, first)?;
    meta.first = first;
    Ok(())
}
