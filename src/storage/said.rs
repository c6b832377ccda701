//! Finding all that one user said. No index knows it: the whole log is gone through, a bounded piece at a time.
//!
//! Each piece is a question of its own, so that the reads of rooms come between them; the writer and the channels do not
//! notice. A room is looked at up to the record that was its newest when the search came to it, so that a search ends
//! whatever the user goes on saying.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use parlor_actors::port::StoreError;
use parlor_protocol::{Name, RoomNumber, Seq, message::RecordKind};
use rocksdb::ReadOptions;

use super::{
    db::{Db, failed},
    prefix, recover,
    schema::{self, Family, Record, damaged},
};

/// How long a piece may take: reads wait behind it.
const PIECE_TIME: Duration = Duration::from_millis(5);

/// How many records are looked at between two looks at the clock.
const RECORDS_PER_LOOK: u32 = 256;

/// The most records that a piece tells of.
const FOUND_MAX: usize = 1_024;

/// Where a search goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    room: RoomNumber,
    seq: Seq,
    /// The last seq of this room to look at; 0 if the search has not come to it.
    upto: Seq,
}

/// A piece of a search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// What was found.
    pub rooms: Vec<SaidIn>,
    /// Where to go on, if not at the end.
    pub next: Option<Place>,
}

/// What a user said in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaidIn {
    /// Which room…
    pub room: RoomNumber,
    /// …and its name.
    pub name: Name,
    /// Messages and reactions of which something is left; for an edit, what it edits.
    pub seqs: BTreeSet<Seq>,
}

/// Goes on with a search.
pub(super) fn search(db: &Db, user: &Name, from: Place) -> Result<Said, StoreError> {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(schema::log_key(from.room, from.seq));
    options.fill_cache(false);
    let mut found = db.rocks().raw_iterator_cf_opt(db.family(Family::Log), options);
    found.seek_to_first();
    let (mut at, mut rooms, mut looked, mut held) = (from, Vec::<SaidIn>::new(), 0_u32, 0);
    let end = Instant::now() + PIECE_TIME;
    while let Some((key, value)) = found.item() {
        let room = schema::log_key_room(key)?;
        let seq = schema::log_key_seq(key)?;
        if at.upto == 0 || room != at.room {
            let upto = prefix::newest(db, room, 1, Seq::MAX)?.map_or(seq, |newest| newest.at.seq);
            at = Place { room, seq, upto };
        }
        at.seq = seq;
        if seq > at.upto {
            found.seek(schema::log_key(RoomNumber(room.0.saturating_add(1)), 0));
            continue;
        }
        looked += 1;
        if held >= FOUND_MAX || (looked.is_multiple_of(RECORDS_PER_LOOK) && Instant::now() > end) {
            return Ok(Said { rooms, next: Some(at) });
        }
        let (_, deliver) = Record::decode(key, value)?;
        if *deliver.sender == **user {
            let refers_to = if deliver.refers_to == 0 { seq } else { deliver.refers_to };
            let said = match rooms.last_mut() {
                Some(last) if last.room == room => last,
                _ => {
                    let Some(meta) = recover::meta_of(db, room)? else {
                        // It was deleted meanwhile.
                        found.seek(schema::log_key(RoomNumber(room.0.saturating_add(1)), 0));
                        continue;
                    };
                    rooms.push(SaidIn { room, name: meta.name, seqs: BTreeSet::new() });
                    rooms.last_mut().ok_or_else(|| damaged(Family::Log, key, "it has just been added"))?
                }
            };
            if deliver.changed().tombstone.is_none() {
                let erased = match deliver.kind {
                    RecordKind::MESSAGE | RecordKind::REACTION => Some(seq),
                    RecordKind::EDIT => Some(refers_to),
                    _ => None,
                };
                held += usize::from(erased.is_some_and(|seq| said.seqs.insert(seq)));
            }
        }
        found.next();
    }
    found.status().map_err(failed)?;
    Ok(Said { rooms, next: None })
}
