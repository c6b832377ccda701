//! By how much changes have made a room's records longer or shorter.
//!
//! A record says how many bytes of frames came before it, as they were first stored: so a few looks find where so many
//! bytes begin, also where compactions have dropped records. What rewrites add or take away is counted apart, in one sum
//! for each block of seqs, which the batch of the rewrite adds to. A record that was rewritten says how long it was at
//! first, and so what it contributes: that is taken off its block when the record is deleted alone. A block that is deleted
//! whole takes its sum along.

use parlor_actors::port::StoreError;
use parlor_protocol::{RoomNumber, Seq};
use rocksdb::{MergeOperands, ReadOptions, WriteBatch};

use super::{
    db::{Db, failed},
    prefix,
    schema::{self, Family, damaged},
};

/// How many seqs share a sum, as a power of two: a look at a block looks at so many records at most. Fewer in tests, whose
/// rooms are small.
const BLOCK_BITS: u32 = if cfg!(test) { 3 } else { 10 };

/// The block of a seq.
pub(super) fn block(seq: Seq) -> u64 {
    seq >> BLOCK_BITS
}

/// The first seq of a block.
pub(super) fn block_start(block: u64) -> Seq {
    block << BLOCK_BITS
}

/// How RocksDB adds to a sum.
pub(super) fn add(_key: &[u8], before: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let number = |bytes: &[u8]| bytes.try_into().map(i64::from_be_bytes).ok();
    let mut sum = before.map_or(Some(0), number)?;
    for operand in operands {
        sum = sum.saturating_add(number(operand)?);
    }
    Some(sum.to_be_bytes().to_vec())
}

/// A record's frame has become longer by so many bytes.
pub(super) fn grow(db: &Db, batch: &mut WriteBatch, room: RoomNumber, seq: Seq, bytes: i64) {
    if bytes != 0 {
        batch.merge_cf(db.family(Family::Sizes), schema::log_key(room, block(seq)), bytes.to_be_bytes());
    }
}

/// The sums of a room's blocks from one on, in order.
pub(super) fn sums(db: &Db, room: RoomNumber, from: u64) -> Result<Vec<(u64, i64)>, StoreError> {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(schema::log_key(room, from));
    options.set_iterate_upper_bound(schema::room_key(RoomNumber(room.0.saturating_add(1))));
    let mut found = db.rocks().raw_iterator_cf_opt(db.family(Family::Sizes), options);
    found.seek_to_first();
    let mut sums = Vec::new();
    while let Some((key, value)) = found.item() {
        let sum = value.try_into().map(i64::from_be_bytes);
        let sum = sum.map_err(|_| damaged(Family::Sizes, key, "not a number"))?;
        sums.push((schema::log_key_seq(key)?, sum));
        found.next();
    }
    found.status().map(|()| sums).map_err(failed)
}

/// What rewrites have added to the records from `first` on, in a room whose oldest record is `oldest`.
pub(super) fn from(db: &Db, room: RoomNumber, oldest: Seq, first: Seq) -> Result<i64, StoreError> {
    let sums = sums(db, room, block(first))?;
    let all: i64 = sums.iter().map(|(_, sum)| sum).sum();
    let partly = sums.first().is_some_and(|(at, _)| *at == block(first));
    Ok(all - if partly { below(db, room, oldest, first)? } else { 0 })
}

/// What rewrites have added to the records of a seq's block that lie below it.
fn below(db: &Db, room: RoomNumber, oldest: Seq, seq: Seq) -> Result<i64, StoreError> {
    let start = block_start(block(seq)).max(oldest);
    let mut sum = 0;
    if start < seq {
        prefix::each(db, room, start, seq - 1, |_, grown, _| {
            sum += grown;
            false
        })?;
    }
    Ok(sum)
}

/// A room's records from `oldest` up to `first` are deleted in this batch.
pub(super) fn cut(
    db: &Db,
    batch: &mut WriteBatch,
    room: RoomNumber,
    oldest: Seq,
    first: Seq,
) -> Result<(), StoreError> {
    let family = db.family(Family::Sizes);
    for (at, _) in sums(db, room, block(oldest))?.into_iter().take_while(|(at, _)| *at <= block(first)) {
        if at < block(first) {
            batch.delete_cf(family, schema::log_key(room, at));
        } else {
            grow(db, batch, room, first, -below(db, room, oldest, first)?);
        }
    }
    Ok(())
}
