//! Questions about rooms and members, as the readers answer them. No room is loaded for any of them.

use std::cmp::Reverse;

use bytes::Bytes;
use parlor_actors::{
    channel::marks::unread,
    members::{
        Asker, Look, Member, ROOMS_LOOKED_AT_MAX, Refusal, RoomOf, RoomSummary, Seen,
        deciding::Facts,
        rights::{Act, hides_past},
    },
    port::StoreError,
};
use parlor_protocol::{
    Code, Name, RoomNumber, Seq, UnixMillis,
    message::{Activity, Durability, NEWEST_BYTES_MAX, RecordKind, Role},
};
use rocksdb::ReadOptions;

use super::{
    db::{Db, failed},
    marks,
    member_schema::{counts_key, decode_member, member_key, member_key_user, membership_key_room, memberships_prefix},
    members::{counts, member, role_of},
    recover::{self, End, Found},
    schema::{self, Family, Record, RoomMeta, damaged},
};

/// How many of a room's newest records are looked at for one that a user may read.
const NEWEST_LOOKED_AT_MAX: usize = 64;

/// Answers a question, or says why the asker is not told.
pub(super) fn look(db: &Db, look: Look) -> Result<Result<Seen, Refusal>, StoreError> {
    match look {
        Look::Room { name, by } => room(db, name, &by),
        Look::Members { name, by, after, limit } => members(db, &name, &by, after.as_ref(), limit),
        Look::RoomsOf { user, before, limit, now } => rooms_of(db, &user, before, limit, now).map(Ok),
        Look::RoomsToFollow { user, limit } => rooms_to_follow(db, &user, limit).map(Ok),
        Look::AllRooms { after, limit } => all_rooms(db, after.as_ref(), limit).map(Ok),
    }
}

type Visible = Result<(RoomNumber, RoomMeta, Option<Role>), Refusal>;

/// A room that the asker may see, and what he is there.
fn seen(db: &Db, name: &Name, by: &Asker) -> Result<Visible, StoreError> {
    let Some((room, meta)) = recover::find(db, name)? else {
        return Ok(Err((Code::UnknownRoom, "there is no such room")));
    };
    let role = role_of(db, room, by)?;
    let allowed = Facts { name, options: &meta.options, by, role }.check(Act::Join);
    Ok(allowed.map(|()| (room, meta, role)))
}

fn end(db: &Db, room: RoomNumber, meta: &RoomMeta) -> Result<End, StoreError> {
    if meta.options.durability == Durability::Memory { Ok(End::EMPTY) } else { recover::end(db, room, meta) }
}

fn room(db: &Db, name: Name, by: &Asker) -> Result<Result<Seen, Refusal>, StoreError> {
    let (room, meta, role) = match seen(db, &name, by)? {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let End { tail, count, .. } = end(db, room, &meta)?;
    let (epoch, options, counts) = (Found::epoch_of(&meta), meta.options, counts(db, room)?);
    Ok(Ok(Seen::Room(RoomSummary { room, name, epoch, options, tail, count, counts, role })))
}

fn members(
    db: &Db,
    name: &Name,
    by: &Asker,
    after: Option<&Name>,
    limit: usize,
) -> Result<Result<Seen, Refusal>, StoreError> {
    let room = match seen(db, name, by)? {
        Ok((room, ..)) => room,
        Err(refusal) => return Ok(Err(refusal)),
    };
    // The least key behind the last user's, or behind the counts.
    let behind = after.map_or(counts_key(room).to_vec(), |after| member_key(room, after));
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound([behind.as_slice(), &[0]].concat());
    options.set_iterate_upper_bound(schema::room_key(RoomNumber(room.0 + 1)));
    let mut found = db.rocks().raw_iterator_cf_opt(db.family(Family::Members), options);
    found.seek_to_first();
    let mut members = Vec::new();
    while let Some((key, value)) = found.item() {
        if members.len() == limit {
            return Ok(Ok(Seen::Members(members, true)));
        }
        let member = decode_member(value).map_err(|wrong| damaged(Family::Members, key, &wrong))?;
        members.push((member_key_user(key)?, member));
        found.next();
    }
    found.status().map_err(failed)?;
    Ok(Ok(Seen::Members(members, false)))
}

/// One of a user's rooms, before its newest message is looked for.
struct Place {
    activity: Activity,
    meta: RoomMeta,
    member: Member,
    end: End,
}

fn rooms_of(db: &Db, user: &Name, before: Option<Activity>, limit: usize, now: UnixMillis) -> Result<Seen, StoreError> {
    let mut places = places(db, user)?;
    places.retain(|place| before.is_none_or(|before| place.activity < before));
    let more = places.len() > limit;
    places.truncate(limit);
    let mut rooms = Vec::with_capacity(places.len());
    for Place { activity: Activity { time, room }, meta, member, end } in places {
        let gone = recover::gone(db, room, &meta, &end)?;
        let newest = newest(db, room, &meta, &member, (gone.seq + 1, end.tail), now)?;
        let (epoch, role) = (Found::epoch_of(&meta), member.role);
        let End { tail, count, .. } = end;
        let marks = marks::of_user(db, user, &[room])?;
        let unread = marks.iter().map(|marks| unread(count, marks, marks.since, gone)).sum();
        rooms.push(RoomOf { room, name: meta.name, epoch, role, tail, count, unread, time, newest });
    }
    Ok(Seen::RoomsOf(rooms, more))
}

fn rooms_to_follow(db: &Db, user: &Name, limit: usize) -> Result<Seen, StoreError> {
    let places = places(db, user)?.into_iter().take(limit);
    Ok(Seen::RoomsToFollow(places.map(|place| (place.activity.room, place.meta.name)).collect()))
}

/// A user's rooms, newest activity first.
fn places(db: &Db, user: &Name) -> Result<Vec<Place>, StoreError> {
    let mut places = Vec::new();
    for room in memberships(db, user)? {
        // A room that is being deleted still has them.
        places.extend(place(db, room, user)?);
    }
    places.sort_unstable_by_key(|place| Reverse(place.activity));
    Ok(places)
}

/// The rooms that a user belongs to: those with the highest numbers, if there are very many.
fn memberships(db: &Db, user: &Name) -> Result<Vec<RoomNumber>, StoreError> {
    let prefix = memberships_prefix(user);
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(prefix.as_slice());
    options.set_iterate_upper_bound([prefix.as_slice(), &[0xff; 9]].concat());
    let mut found = db.rocks().raw_iterator_cf_opt(db.family(Family::Memberships), options);
    found.seek_to_last();
    let mut rooms = Vec::new();
    while let Some(key) = found.key().filter(|_| rooms.len() < ROOMS_LOOKED_AT_MAX) {
        rooms.push(membership_key_room(key)?);
        found.prev();
    }
    found.status().map_err(failed)?;
    Ok(rooms)
}

fn place(db: &Db, room: RoomNumber, user: &Name) -> Result<Option<Place>, StoreError> {
    let key = schema::room_key(room);
    let Some(value) = db.value(Family::Rooms, &key)? else { return Ok(None) };
    let Some(member) = member(db, room, user)? else { return Ok(None) };
    let meta = RoomMeta::decode(&value).map_err(|wrong| damaged(Family::Rooms, &key, &wrong))?;
    let end = end(db, room, &meta)?;
    let activity = Activity { time: end.time.max(member.added), room };
    Ok(Some(Place { activity, meta, member, end }))
}

/// The frame of the newest message that a member may read, from the oldest record that the room shows to its tail; empty if
/// there is none, or it is long.
fn newest(
    db: &Db,
    room: RoomNumber,
    meta: &RoomMeta,
    member: &Member,
    (oldest, tail): (Seq, Seq),
    now: UnixMillis,
) -> Result<Bytes, StoreError> {
    let first = if hides_past(&meta.options) { member.since_in(&meta.epochs) } else { 0 }.max(oldest);
    if tail < first {
        return Ok(Bytes::new());
    }
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(schema::log_key(room, first));
    options.set_iterate_upper_bound(schema::room_key(RoomNumber(room.0 + 1)));
    let mut found = db.rocks().raw_iterator_cf_opt(db.family(Family::Log), options);
    found.seek_to_last();
    for _ in 0..NEWEST_LOOKED_AT_MAX {
        let Some((key, value)) = found.item() else { break };
        let (record, deliver) = Record::decode(key, value)?;
        if deliver.kind == RecordKind::MESSAGE && (record.expires == 0 || record.expires > now) {
            let fits = record.frame.len() <= NEWEST_BYTES_MAX;
            return Ok(if fits { Bytes::copy_from_slice(record.frame) } else { Bytes::new() });
        }
        found.prev();
    }
    found.status().map_err(failed)?;
    Ok(Bytes::new())
}

fn all_rooms(db: &Db, after: Option<&Name>, limit: usize) -> Result<Seen, StoreError> {
    let mut options = ReadOptions::default();
    if let Some(after) = after {
        options.set_iterate_lower_bound([after.as_bytes(), &[0]].concat());
    }
    let mut found = db.rocks().raw_iterator_cf_opt(db.family(Family::Names), options);
    found.seek_to_first();
    let mut rooms = Vec::new();
    while let Some((key, value)) = found.item() {
        if rooms.len() == limit {
            return Ok(Seen::AllRooms(rooms, true));
        }
        let name = std::str::from_utf8(key).ok().and_then(|name| Name::parse(name).ok());
        let name = name.ok_or_else(|| damaged(Family::Names, key, "the key is not a name"))?;
        let number = schema::decode_u64(value).map_err(|wrong| damaged(Family::Names, key, &wrong))?;
        rooms.push((name, RoomNumber(number)));
        found.next();
    }
    found.status().map_err(failed)?;
    Ok(Seen::AllRooms(rooms, false))
}
