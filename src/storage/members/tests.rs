//! Changes of rooms through the store, and what is there after it was left at each step.

use std::{path::Path, sync::mpsc::channel};

use parlor_actors::{
    members::{Look, Seen},
    port::{Load, Loaded, Reply, Store},
};
use parlor_protocol::message::{Access, ROOMS_PER_PAGE_MAX, RecordKind};
use tempfile::TempDir;

use super::*;
use crate::storage::{RocksStore, StoreConfig, member_schema::memberships_prefix};

fn open(path: &Path) -> RocksStore {
    RocksStore::open(StoreConfig::new(path)).unwrap()
}

fn ask<T: Send + 'static>(question: impl FnOnce(Reply<T>)) -> Result<T, StoreError> {
    let (told, answer) = channel();
    question(Box::new(move |answer| told.send(answer).unwrap()));
    answer.recv().unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn names(texts: &[&str]) -> Vec<Name> {
    texts.iter().map(|text| name(text)).collect()
}

fn wants(room: &str, by: Asker, what: What) -> RoomChange {
    RoomChange { name: name(room), by, at: 1_000, members_max: 10_000, what }
}

#[track_caller]
fn host(store: &RocksStore, room: &str, what: What) -> Result<Changed, Refusal> {
    ask(|reply| store.change(wants(room, Asker::Host, what), reply)).unwrap()
}

fn create(access: Access) -> What {
    let members = vec![(name("olga"), Role::Owner), (name("ann"), Role::Member)];
    What::Create { options: RoomOptions { access, ..RoomOptions::default() }, members, or_find: false }
}

#[track_caller]
fn number(changed: &Result<Changed, Refusal>) -> RoomNumber {
    match changed {
        Ok(Changed::Made { room, .. } | Changed::Deleted { room, .. }) => *room,
        other => panic!("{other:?}"),
    }
}

fn members(store: &RocksStore, room: &str) -> Vec<(String, Role, Seq)> {
    let look = Look::Members { name: name(room), by: Asker::Host, after: None, limit: 99 };
    match ask(|reply| store.look(look, reply)).unwrap() {
        Ok(Seen::Members(all, false)) => {
            all.iter().map(|(user, member)| (user.to_string(), member.role, member.since)).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn rooms_of(store: &RocksStore, user: &str) -> Vec<String> {
    let look = Look::RoomsOf { user: name(user), before: None, limit: 99, now: 1_000 };
    match ask(|reply| store.look(look, reply)).unwrap() {
        Ok(Seen::RoomsOf(rooms, false)) => rooms.iter().map(|room| room.name.to_string()).collect(),
        other => panic!("{other:?}"),
    }
}

fn load(store: &RocksStore, room: &str) -> Result<Loaded, StoreError> {
    ask(|reply| store.load(Load { name: name(room), create: None }, reply))
}

/// How many keys of a user's rooms there are, whether the rooms are or not.
fn memberships(path: &Path, user: &str) -> usize {
    let (db, _) = crate::storage::db::open(&StoreConfig::new(path)).unwrap();
    let prefix = memberships_prefix(&name(user));
    let mut found = db.rocks().raw_iterator_cf(db.family(Family::Memberships));
    found.seek(&prefix);
    let mut keys = 0;
    while found.key().is_some_and(|key| key.starts_with(&prefix)) {
        keys += 1;
        found.next();
    }
    keys
}

#[test]
fn members_are_there_after_a_reopening_in_both_directions() {
    let data = TempDir::new().unwrap();
    let store = open(data.path());
    let room = number(&host(&store, "tea", create(Access::Members)));
    assert_eq!(host(&store, "tea", create(Access::Open)).unwrap_err().0, Code::RoomExists);
    host(&store, "tea", What::Set(Role::Muted, names(&["bob", "ann"]))).unwrap();
    host(&store, "tea", What::Set(Role::Banned, names(&["eve", "bob"]))).unwrap();
    drop(store);
    let store = open(data.path());
    let want = [("ann", Role::Muted), ("bob", Role::Banned), ("eve", Role::Banned), ("olga", Role::Owner)];
    let want = want.map(|(user, role)| (user.to_owned(), role, 1));
    assert_eq!(members(&store, "tea"), want);
    assert_eq!(rooms_of(&store, "ann"), ["tea"]);
    assert_eq!(rooms_of(&store, "bob"), [""; 0], "the banned do not belong to it");
    let loaded = load(&store, "tea").unwrap();
    assert_eq!((loaded.room, loaded.known, loaded.options.access), (room, 4, Access::Members));
    let eve = ask(|reply| store.member(room, name("eve"), reply)).unwrap();
    assert_eq!(eve.map(|member| member.role), Some(Role::Banned));
    host(&store, "tea", What::Remove(names(&["ann", "eve", "nobody"]))).unwrap();
    assert_eq!((members(&store, "tea").len(), rooms_of(&store, "ann").len()), (2, 0));
}

#[test]
fn a_change_that_is_refused_for_one_is_made_for_none() {
    let data = TempDir::new().unwrap();
    let store = open(data.path());
    host(&store, "tea", create(Access::Open)).unwrap();
    host(&store, "tea", What::Set(Role::Moderator, names(&["mo"]))).unwrap();
    let before = members(&store, "tea");
    let mo = || Asker::User(name("mo"));
    let ban = wants("tea", mo(), What::Set(Role::Banned, names(&["ann", "olga"])));
    assert_eq!(ask(|reply| store.change(ban, reply)).unwrap().unwrap_err().0, Code::Forbidden);
    let crowd: Vec<Name> = (0..20_000).map(|number| name(&number.to_string())).collect();
    assert_eq!(host(&store, "tea", What::Set(Role::Member, crowd)).unwrap_err().0, Code::TooManyMembers);
    assert_eq!(members(&store, "tea"), before);
    for what in [What::Delete, What::Configure(RoomOptions::default())] {
        let refused = ask(|reply| store.change(wants("tea", mo(), what), reply)).unwrap();
        assert_eq!(refused.unwrap_err().0, Code::Forbidden);
    }
}

#[test]
fn a_deleted_room_leaves_nothing_whenever_the_store_is_left() {
    let data = TempDir::new().unwrap();
    let store = open(data.path());
    let old = number(&host(&store, "tea", create(Access::Open)));
    let crowd: Vec<Name> = (0..9_000).map(|number| name(&number.to_string())).collect();
    host(&store, "tea", What::Set(Role::Member, crowd)).unwrap();
    let epoch = load(&store, "tea").unwrap().epochs;
    assert_eq!(host(&store, "tea", What::Delete), Ok(Changed::Deleted { room: old, more: true }));
    assert_eq!(load(&store, "tea").unwrap_err(), StoreError::UnknownRoom);
    assert_eq!(rooms_of(&store, "77"), [""; 0]);
    // One piece, and the store is left with the rest.
    assert_eq!(host(&store, "tea", What::Purge(old)), Ok(Changed::Deleted { room: old, more: true }));
    let new = number(&host(&store, "tea", create(Access::Open)));
    drop(store);
    assert_eq!(memberships(data.path(), "8999"), 1, "not cleared away yet");
    let store = open(data.path());
    assert!(new > old && load(&store, "tea").unwrap().epochs[0].epoch > epoch[0].epoch);
    assert_eq!(members(&store, "tea").len(), 2, "the new room has its own");
    drop(store);
    assert_eq!((memberships(data.path(), "8999"), memberships(data.path(), "77")), (0, 0));
    assert_eq!(memberships(data.path(), "ann"), 1);
    let store = open(data.path());
    assert_eq!(host(&store, "tea", What::Purge(new)), Ok(Changed::Deleted { room: new, more: false }));
    assert_eq!(members(&store, "tea").len(), 2, "a room that is not doomed is not cleared away");
}

#[test]
fn a_direct_room_is_found_again_by_its_two_only() {
    let data = TempDir::new().unwrap();
    let store = open(data.path());
    let open = |one: &str, other: &str| {
        let members = vec![(name(one), Role::Member), (name(other), Role::Member)];
        let what = What::Create { options: RoomOptions::default(), members, or_find: true };
        ask(|reply| store.change(wants("direct:1", Asker::User(name(one)), what), reply)).unwrap()
    };
    let room = number(&open("ann", "bob"));
    assert_eq!(number(&open("bob", "ann")), room);
    assert_eq!(open("ann", "eve").unwrap_err().0, Code::RoomExists, "were it another pair's name");
    assert_eq!(members(&store, "direct:1").iter().map(|member| member.1).collect::<Vec<_>>(), [Role::Member; 2]);
}

#[test]
fn all_rooms_to_follow_come_at_once_and_of_too_many_the_ones_with_the_newest_activity() {
    let data = TempDir::new().unwrap();
    let store = open(data.path());
    // More than a page of a list of rooms may have, all made at the same time: the newest number is first.
    let rooms = 2 * ROOMS_PER_PAGE_MAX + 1;
    for number in 0..rooms {
        let members = vec![(name("ann"), Role::Member)];
        let what = What::Create { options: RoomOptions::default(), members, or_find: false };
        let change = RoomChange { at: 0, ..wants(&format!("room {number}"), Asker::Host, what) };
        ask(|reply| store.change(change, reply)).unwrap().unwrap();
    }
    let to_follow = |limit| {
        let look = Look::RoomsToFollow { user: name("ann"), limit };
        match ask(|reply| store.look(look, reply)).unwrap() {
            Ok(Seen::RoomsToFollow(rooms)) => rooms,
            other => panic!("{other:?}"),
        }
    };
    let named = |numbers: &mut dyn Iterator<Item = usize>| -> Vec<(RoomNumber, Name)> {
        let room = |number| name(&format!("room {number}"));
        numbers.map(|number| (load(&store, &room(number)).unwrap().room, room(number))).collect()
    };
    assert_eq!(to_follow(1_000), named(&mut (0..rooms).rev()));
    leaving::record(&store, &load(&store, "room 0").unwrap(), 1, RecordKind::MESSAGE, 1);
    assert_eq!(to_follow(1_000), named(&mut [0].into_iter().chain((1..rooms).rev())));
    assert_eq!(to_follow(3), named(&mut [0, 200, 199].into_iter()));
    host(&store, "room 200", What::Set(Role::Banned, names(&["ann"]))).unwrap();
    assert_eq!(to_follow(3), named(&mut [0, 199, 198].into_iter()));
}

mod leaving;
