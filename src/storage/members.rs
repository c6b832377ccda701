//! Changes of rooms and members, as the writer makes them: each one batch, so that no crash leaves half of one.
//!
//! A deleted room goes in two steps. The first unmaps its name, removes its options and its log, and marks it as doomed:
//! from then on nobody finds it. What remains are its members and their memberships, which are cleared away in pieces, so
//! that no turn of the writer takes long; a mark that is found at an opening is worked off then.

use std::{collections::HashMap, sync::Arc};

use parlor_actors::{
    members::{
        Asker, Changed, Counts, Member, MemberChange, MembersChanged, Refusal, RoomChange, What,
        deciding::{self, Facts, Stand},
        rights::Act,
    },
    port::{EpochStart, RoomOptions, StoreError},
};
use parlor_protocol::{
    Code, Epoch, Name, RoomNumber, Seq,
    message::{Durability, Role},
};
use rocksdb::{ReadOptions, WriteBatch};

use super::{
    announcements,
    cutting::cut,
    db::{Db, failed},
    member_schema::{
        DOOMED, counts_key, decode_counts, decode_member, doomed_key, encode_counts, encode_member, member_key,
        member_key_user, membership_key,
    },
    recover::{self, Counters, Found},
    schema::{self, Family, Floor, RoomMeta, damaged},
};

/// The most members of a deleted room that one entry of the writer's queue clears away.
const PURGED_MAX: usize = 4_096;

/// Why a change is not made.
pub(super) enum Failure {
    /// It may not be.
    Refused(Refusal),
    /// The store failed.
    Store(StoreError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Where a change reads and writes. Everything before it is in the database; what it changes goes to the batch.
pub(super) struct Desk<'a> {
    pub(super) db: &'a Db,
    pub(super) counters: &'a mut Counters,
    pub(super) batch: &'a mut WriteBatch,
}

/// Makes a change, or says why not; then the batch is as it was. `live` knows the epoch and tail of rooms that are loaded.
pub(super) fn change(
    desk: &mut Desk<'_>,
    change: RoomChange,
    live: impl FnOnce(RoomNumber) -> Option<(Epoch, Seq)>,
) -> Result<Result<Changed, Refusal>, StoreError> {
    match make(desk, change, live) {
        Ok(changed) => Ok(Ok(changed)),
        Err(Failure::Refused(refusal)) => Ok(Err(refusal)),
        Err(Failure::Store(error)) => Err(error),
    }
}

fn make(
    desk: &mut Desk<'_>,
    change: RoomChange,
    live: impl FnOnce(RoomNumber) -> Option<(Epoch, Seq)>,
) -> Result<Changed, Failure> {
    let RoomChange { name, by, at, members_max, what } = change;
    let (role, users) = match what {
        What::Create { options, members, or_find } => {
            let change = RoomChange { name, by, at, members_max, what: What::Delete };
            return create(desk, change, options, &members, or_find);
        }
        What::Purge(room) => {
            let more = purge(desk.db, desk.batch, room)?;
            return Ok(Changed::Deleted { room, more });
        }
        What::Configure(options) => return configure(desk, &name, &by, options),
        What::Delete => return delete(desk, &name, &by),
        What::Set(role, users) => (Some(role), users),
        What::Remove(users) => (None, users),
    };
    let (room, meta) = recover::find(desk.db, &name)?.ok_or(UNKNOWN)?;
    let facts = Facts { name: &name, options: &meta.options, by: &by, role: role_of(desk.db, room, &by)? };
    let stand = match live(room) {
        // What a memory room holds is its channel's business.
        _ if meta.options.durability == Durability::Memory => Stand { tail: 0, count: 0, epoch: Epoch(0), at },
        live => {
            // What the room appended lies in the store: it was written before this.
            let end = recover::end(desk.db, room, &meta)?;
            let epoch = live.map_or_else(|| Found::epoch_of(&meta), |(epoch, _)| epoch);
            Stand { tail: end.tail, count: end.count, epoch, at }
        }
    };
    let users = facts.change_members(role, &users, stand, |user| Ok::<_, Failure>(member(desk.db, room, user)?))?;
    let counts = deciding::count(counts(desk.db, room)?, &users, members_max)?;
    put(desk, room, &users, counts);
    let changed = MembersChanged::new(room, &meta.options, by, users, counts, || desk.counters.change());
    desk.counters.put(desk.db, desk.batch);
    // A memory room has no log in which it would be missing after a crash.
    if meta.options.durability != Durability::Memory {
        announcements::put(desk.db, desk.batch, room, &changed.announcements);
    }
    Ok(Changed::Members(Arc::new(changed)))
}

const UNKNOWN: Refusal = (Code::UnknownRoom, "there is no such room");

fn create(
    desk: &mut Desk<'_>,
    change: RoomChange,
    options: RoomOptions,
    members: &[(Name, Role)],
    or_find: bool,
) -> Result<Changed, Failure> {
    let RoomChange { name, by, at, members_max, .. } = change;
    if let Some((room, _)) = recover::find(desk.db, &name)? {
        let mut same = or_find;
        for (user, _) in members {
            same = same && member(desk.db, room, user)?.is_some();
        }
        let exists = (Code::RoomExists, "there is a room of that name");
        return if same { Ok(Changed::Made { room, name, fresh: false }) } else { Err(exists.into()) };
    }
    let stand = Stand { tail: 0, count: 0, epoch: desk.counters.next_epoch(), at };
    let first = deciding::first_members(&name, &by, members, stand);
    let counts = deciding::count(Counts::default(), &first, members_max)?;
    let mut found = recover::create(desk.db, name.clone(), options, desk.counters, desk.batch);
    found.meta.push_epoch(EpochStart { epoch: desk.counters.epoch(), first: 1 });
    desk.batch.put_cf(desk.db.family(Family::Rooms), schema::room_key(found.room), found.meta.encode());
    desk.counters.put(desk.db, desk.batch);
    put(desk, found.room, &first, counts);
    Ok(Changed::Made { room: found.room, name, fresh: true })
}

fn configure(desk: &mut Desk<'_>, name: &Name, by: &Asker, options: RoomOptions) -> Result<Changed, Failure> {
    let (room, mut meta) = recover::find(desk.db, name)?.ok_or(UNKNOWN)?;
    let facts = Facts { name, options: &meta.options, by, role: role_of(desk.db, room, by)? };
    facts.check_options(&options)?;
    if options.durability != meta.options.durability {
        // What it may have lost was lost under what was promised until now.
        let tail = recover::end(desk.db, room, &meta)?.tail;
        recover::renew(&mut meta, tail, desk.counters);
        desk.counters.put(desk.db, desk.batch);
    }
    cut_hidden(desk, room, &mut meta)?;
    meta.options = options;
    desk.batch.put_cf(desk.db.family(Family::Rooms), schema::room_key(room), meta.encode());
    Ok(Changed::Configured(room, options))
}

/// What a room keeps no longer does not come back when it is to keep more, though the store has not deleted it yet.
fn cut_hidden(desk: &mut Desk<'_>, room: RoomNumber, meta: &mut RoomMeta) -> Result<(), StoreError> {
    if meta.options.records_max == 0 || meta.options.durability == Durability::Memory {
        return Ok(());
    }
    let end = recover::end(desk.db, room, meta)?;
    let first = recover::gone(desk.db, room, meta, &end)?.seq + 1;
    if first > end.first {
        if end.tail > meta.floor.seq {
            // Compactions drop what changes the trimmed ones, and that may be the newest record.
            meta.floor = Floor { seq: end.tail, count: end.count, time: end.time };
        }
        cut(desk.db, desk.batch, room, meta, first)?;
        meta.trimmed = first;
    }
    Ok(())
}

fn delete(desk: &mut Desk<'_>, name: &Name, by: &Asker) -> Result<Changed, Failure> {
    let (room, meta) = recover::find(desk.db, name)?.ok_or(UNKNOWN)?;
    Facts { name, options: &meta.options, by, role: role_of(desk.db, room, by)? }.check(Act::Delete)?;
    let more = counts(desk.db, room)?.known() > 0;
    let Desk { db, batch, .. } = desk;
    batch.delete_cf(db.family(Family::Names), name.as_bytes());
    batch.delete_cf(db.family(Family::Rooms), schema::room_key(room));
    let (low, high) = (schema::room_key(room), schema::room_key(RoomNumber(room.0 + 1)));
    for family in [Family::Log, Family::Answers, Family::Marks, Family::Sizes] {
        batch.delete_range_cf(db.family(family), low, high);
    }
    announcements::forget(db, batch, room)?;
    if more {
        batch.put_cf(db.family(Family::Meta), doomed_key(room), []);
    }
    Ok(Changed::Deleted { room, more })
}

/// Clears some more away of a room that was deleted; whether there is still something.
fn purge(db: &Db, batch: &mut WriteBatch, room: RoomNumber) -> Result<bool, StoreError> {
    if db.value(Family::Meta, &doomed_key(room))?.is_none() {
        return Ok(false);
    }
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(schema::room_key(room));
    options.set_iterate_upper_bound(schema::room_key(RoomNumber(room.0 + 1)));
    let mut found = db.rocks().raw_iterator_cf_opt(db.family(Family::Members), options);
    found.seek_to_first();
    let mut cleared = 0;
    while let Some(key) = found.key() {
        if cleared == PURGED_MAX {
            return Ok(true);
        }
        if key != counts_key(room) {
            batch.delete_cf(db.family(Family::Memberships), membership_key(&member_key_user(key)?, room));
        }
        batch.delete_cf(db.family(Family::Members), key);
        cleared += 1;
        found.next();
    }
    found.status().map_err(failed)?;
    batch.delete_cf(db.family(Family::Meta), doomed_key(room));
    Ok(false)
}

/// Clears away what deletions left that did not come to their end before the store was last left.
pub(super) fn finish_deletions(db: &Db) -> Result<(), StoreError> {
    let mut doomed = Vec::new();
    let mut found = db.rocks().raw_iterator_cf(db.family(Family::Meta));
    found.seek(DOOMED);
    while let Some(room) = found.key().and_then(|key| key.strip_prefix(DOOMED)) {
        let number = schema::decode_u64(room).map_err(|wrong| damaged(Family::Meta, DOOMED, &wrong))?;
        doomed.push(RoomNumber(number));
        found.next();
    }
    found.status().map_err(failed)?;
    drop(found);
    for room in doomed {
        loop {
            let mut batch = WriteBatch::default();
            let more = purge(db, &mut batch, room)?;
            db.rocks().write(batch).map_err(failed)?;
            if !more {
                break;
            }
        }
    }
    Ok(())
}

fn put(desk: &mut Desk<'_>, room: RoomNumber, changes: &[MemberChange], counts: Counts) {
    let Desk { db, batch, .. } = desk;
    let (members, memberships, marks) =
        (db.family(Family::Members), db.family(Family::Memberships), db.family(Family::Marks));
    for MemberChange { user, after, .. } in changes {
        match after {
            Some(member) => batch.put_cf(members, member_key(room, user), encode_member(member)),
            None => batch.delete_cf(members, member_key(room, user)),
        }
        match after {
            Some(member) if member.role != Role::Banned => {
                batch.put_cf(memberships, membership_key(user, room), []);
            }
            _ => {
                batch.delete_cf(memberships, membership_key(user, room));
                // How far he was goes with his membership.
                batch.delete_cf(marks, schema::user_prefix(room, user));
            }
        }
    }
    if !changes.is_empty() {
        batch.put_cf(members, counts_key(room), encode_counts(counts));
    }
}

/// What a user is in a room.
pub(super) fn member(db: &Db, room: RoomNumber, user: &Name) -> Result<Option<Member>, StoreError> {
    let key = member_key(room, user);
    let value = db.value(Family::Members, &key)?;
    value.map(|value| decode_member(&value).map_err(|wrong| damaged(Family::Members, &key, &wrong))).transpose()
}

/// The people that a room knows, at most so many, and whether there are more.
pub(super) fn people(db: &Db, room: RoomNumber, max: usize) -> Result<(HashMap<Name, Role>, bool), StoreError> {
    let mut options = ReadOptions::default();
    // Behind the counts, whose key is the room's alone.
    options.set_iterate_lower_bound([counts_key(room).as_slice(), &[0]].concat());
    options.set_iterate_upper_bound(schema::room_key(RoomNumber(room.0 + 1)));
    let mut found = db.rocks().raw_iterator_cf_opt(db.family(Family::Members), options);
    found.seek_to_first();
    let mut people = HashMap::new();
    while let Some((key, value)) = found.item() {
        if people.len() == max {
            return Ok((people, true));
        }
        let member = decode_member(value).map_err(|wrong| damaged(Family::Members, key, &wrong))?;
        people.insert(member_key_user(key)?, member.role);
        found.next();
    }
    found.status().map_err(failed)?;
    Ok((people, false))
}

/// How many people a room knows.
pub(super) fn counts(db: &Db, room: RoomNumber) -> Result<Counts, StoreError> {
    let key = counts_key(room);
    let Some(value) = db.value(Family::Members, &key)? else { return Ok(Counts::default()) };
    decode_counts(&value).map_err(|wrong| damaged(Family::Members, &key, &wrong))
}

/// What whoever asks is in a room.
pub(super) fn role_of(db: &Db, room: RoomNumber, by: &Asker) -> Result<Option<Role>, StoreError> {
    match by {
        Asker::Host => Ok(None),
        Asker::User(user) => Ok(member(db, room, user)?.map(|member| member.role)),
    }
}

#[cfg(test)]
mod tests;
