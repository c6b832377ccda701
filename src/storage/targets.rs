//! Records that changes rewrite: read before a change is given its seq, replaced in the batch of the change.
//!
//! Of a stored record a rewrite replaces the frame and the notes. Its epoch and its expiry stay, so the writer looks them
//! up; a record that is gone by then stays gone.

use std::collections::HashMap;

use parlor_actors::port::{Append, Rewrite, StoreError, Target};
use parlor_protocol::{Epoch, RoomNumber, Seq, UnixMillis};
use rocksdb::WriteBatch;

use super::{
    db::{Db, failed},
    schema::{self, Family, Record},
    sizes,
};

/// What a rewrite leaves as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    epoch: Epoch,
    expires: UnixMillis,
    bytes_before: u64,
    first_bytes: u32,
    /// How long its frame is before the rewrite.
    frame_bytes: u32,
}

/// Reads a record to change it.
pub(super) fn read(db: &Db, room: RoomNumber, seq: Seq) -> Result<Option<Target>, StoreError> {
    let key = schema::log_key(room, seq);
    let Some(value) = db.rocks().get_pinned_cf(db.family(Family::Log), key).map_err(failed)? else { return Ok(None) };
    let (record, _) = Record::decode(&key, &value)?;
    let notes = Record::notes(&value).to_vec().into();
    Ok(Some(Target { frame: record.frame.to_vec().into(), notes }))
}

/// What is stored of the records that an append rewrites, in their order; `None` of those that are not there, which may
/// be so because they are gathered and not yet written. `bytes_upto` counts the room's frames before the append.
pub(super) fn find(db: &Db, append: &Append, bytes_upto: u64) -> Result<Vec<Option<Kept>>, StoreError> {
    append.rewrites.iter().map(|rewrite| find_one(db, append, bytes_upto, rewrite)).collect()
}

fn find_one(db: &Db, append: &Append, bytes_upto: u64, rewrite: &Rewrite) -> Result<Option<Kept>, StoreError> {
    let Append { room, epoch, first, ref records, .. } = *append;
    if let Some(at) = rewrite.seq.checked_sub(first).and_then(|at| usize::try_from(at).ok()) {
        let before = at.checked_sub(1).and_then(|before| records.get(before)).map_or(0, |record| record.end);
        let bytes_before = bytes_upto + u64::from(before);
        return Ok(records.get(at).map(|record| {
            let own = record.end.saturating_sub(before);
            Kept { epoch, expires: record.expires, bytes_before, first_bytes: own, frame_bytes: own }
        }));
    }
    let key = schema::log_key(room, rewrite.seq);
    let Some(value) = db.rocks().get_pinned_cf(db.family(Family::Log), key).map_err(failed)? else { return Ok(None) };
    let (record, _) = Record::decode(&key, &value)?;
    let Record { epoch, expires, bytes_before, first_bytes, frame } = record;
    Ok(Some(Kept { epoch, expires, bytes_before, first_bytes, frame_bytes: bytes_of(frame) }))
}

/// How long the frames are of records that the batch which is being gathered rewrites.
pub(super) type Rewritten = HashMap<(RoomNumber, Seq), u32>;

fn bytes_of(frame: &[u8]) -> u32 {
    u32::try_from(frame.len()).unwrap_or(u32::MAX)
}

/// Puts rewritten records into the batch. Returns by how many bytes that makes the room's frames longer.
pub(super) fn gather(
    db: &Db,
    batch: &mut WriteBatch,
    scratch: &mut Vec<u8>,
    rewritten: &mut Rewritten,
    room: RoomNumber,
    rewrites: &[Rewrite],
    found: &[Option<Kept>],
) -> i64 {
    let mut all = 0;
    for (rewrite, kept) in rewrites.iter().zip(found) {
        // What was swept meanwhile must not come back.
        let Some(Kept { epoch, expires, bytes_before, first_bytes, frame_bytes }) = *kept else { continue };
        let after = bytes_of(&rewrite.frame);
        let before = rewritten.insert((room, rewrite.seq), after).unwrap_or(frame_bytes);
        let grown = i64::from(after) - i64::from(before);
        sizes::grow(db, batch, room, rewrite.seq, grown);
        all += grown;
        let record = Record { epoch, expires, bytes_before, first_bytes, frame: &rewrite.frame };
        record.encode_with_notes(&rewrite.notes, scratch);
        batch.put_cf(db.family(Family::Log), schema::log_key(room, rewrite.seq), &scratch);
    }
    all
}

/// Whether an append's rewrites are what they claim.
pub(super) fn check_shape(append: &Append) -> Result<(), &'static str> {
    let Append { room, first, ref records, ref rewrites, .. } = *append;
    for Rewrite { seq, revision, frame, .. } in rewrites {
        let made_here = revision.checked_sub(first).is_some_and(|at| at < records.len() as u64);
        match schema::deliver_of(frame) {
            Ok(deliver) if (deliver.room, deliver.seq) == (room, *seq) => {
                if !made_here || seq >= revision || deliver.changed().revision != *revision {
                    return Err("a rewrite is not of one of its changes");
                }
            }
            _ => return Err("a rewritten frame is not that of its record"),
        }
    }
    Ok(())
}
