//! What goes with a membership, and what is to be recorded of a change until it is.

use std::sync::{Arc, mpsc::Sender};

use parlor_actors::port::{Answer, Append, AppendRecord, Commits, DeviceKey, Mark, Marks, Outcome, SaveMarks};
use parlor_protocol::{
    DeviceTag, Extensions,
    message::{ContentType, Deliver, HOST, RecordKind, decode_member_changes},
};

use super::*;

struct Teller(Sender<Outcome>);

impl Commits for Teller {
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>) {
        outcomes.into_iter().for_each(|outcome| self.0.send(outcome).unwrap());
    }
}

/// Appends a record from no device under this nonce.
pub(super) fn record(store: &RocksStore, room: &Loaded, seq: Seq, kind: RecordKind, nonce: u64) {
    let deliver = Deliver {
        room: room.room,
        seq,
        time: 1,
        sender: HOST,
        device_tag: DeviceTag(0),
        nonce,
        kind,
        refers_to: 0,
        expires: 0,
        count: 0,
        content_type: ContentType::OPAQUE,
        payload: b"",
        extensions: Extensions::default(),
    };
    let frames = parlor_protocol::to_bytes(0, &deliver);
    let device = DeviceKey { user: name(HOST), tag: DeviceTag(0) };
    let answer = Answer { nonce, seq, time: 1, content_hash: 0, count: 0 };
    let end = u32::try_from(frames.len()).unwrap();
    let (tell, told) = channel();
    store.append(vec![Append {
        room: room.room,
        generation: room.generation,
        epoch: room.epochs[0].epoch,
        durability: room.options.durability,
        first: seq,
        frames,
        records: vec![AppendRecord { end, expires: 0, device, slot: 0, answer }],
        rewrites: Vec::new(),
        place: store.budget().take(1).unwrap(),
        commits: Arc::new(Teller(tell)),
    }]);
    told.recv().unwrap().stored.unwrap();
}

/// What a room has yet to record: the changes' numbers and how many users each names.
fn unrecorded(loaded: &Loaded) -> Vec<(u64, usize)> {
    let named = |payload: &[u8]| decode_member_changes(payload).unwrap().len();
    loaded.announcements.iter().map(|one| (one.number, named(&one.payload))).collect()
}

#[test]
fn what_is_to_be_recorded_stays_until_its_record_is_there_and_numbers_are_never_used_again() {
    let data = TempDir::new().unwrap();
    let store = open(data.path());
    host(&store, "tea", create(Access::Open)).unwrap();
    let crowd: Vec<Name> = (0..150).map(|number| name(&number.to_string())).collect();
    host(&store, "tea", What::Set(Role::Member, crowd)).unwrap();
    host(&store, "other", create(Access::Open)).unwrap();
    host(&store, "other", What::Set(Role::Muted, names(&["ann"]))).unwrap();
    assert_eq!(unrecorded(&load(&store, "tea").unwrap()), [(1, 100), (2, 50)]);
    drop(store);
    let store = open(data.path());
    let room = load(&store, "tea").unwrap();
    assert_eq!((unrecorded(&room), room.change), (vec![(1, 100), (2, 50)], 3));
    record(&store, &room, 1, RecordKind::MEMBERS, 1);
    // A record of another kind says nothing of members.
    record(&store, &room, 2, RecordKind::RECALL, 2);
    drop(store);
    let store = open(data.path());
    let room = load(&store, "tea").unwrap();
    assert_eq!((unrecorded(&room), room.tail), (vec![(2, 50)], 2));
    record(&store, &room, 3, RecordKind::MEMBERS, 2);
    host(&store, "tea", What::Remove(names(&["1"]))).unwrap();
    assert_eq!(unrecorded(&load(&store, "tea").unwrap()), [(4, 1)]);
    host(&store, "tea", What::Delete).unwrap();
    host(&store, "tea", create(Access::Open)).unwrap();
    assert_eq!(unrecorded(&load(&store, "tea").unwrap()), []);
    assert_eq!(unrecorded(&load(&store, "other").unwrap()), [(3, 1)]);
}

fn marks(store: &RocksStore, room: &Loaded, heard: u64, users: &[&str]) -> Result<(), StoreError> {
    let at = Mark { seq: 5, count: 5 };
    let all = users.iter().map(|user| (name(user), Marks { read: at, ..Marks::default() })).collect();
    let save = SaveMarks { room: room.room, generation: room.generation, heard, marks: all };
    ask(|reply| store.save_marks(save, reply))
}

/// Who has read, as members and as strangers.
fn readers(store: &RocksStore, room: &Loaded) -> (Vec<String>, Vec<String>) {
    let found = ask(|reply| store.room_marks(room.room, 10, reply)).unwrap();
    let named = |all: Vec<(Name, Marks)>| {
        let read = all.into_iter().filter(|(_, marks)| marks.read.seq > 0);
        let mut users: Vec<String> = read.map(|(user, _)| user.to_string()).collect();
        users.sort();
        users
    };
    (named(found.members), named(found.strangers.unwrap()))
}

fn names_of(users: &[&str]) -> Vec<String> {
    users.iter().map(|&user| user.to_owned()).collect()
}

#[test]
fn marks_are_deleted_with_the_membership_and_no_save_from_before_brings_them_back() {
    let data = TempDir::new().unwrap();
    let store = open(data.path());
    host(&store, "tea", create(Access::Open)).unwrap();
    host(&store, "tea", What::Set(Role::Member, names(&["bad", "out"]))).unwrap();
    let room = load(&store, "tea").unwrap();
    let all = ["ann", "bad", "out", "stranger"];
    marks(&store, &room, room.change, &all).unwrap();
    assert_eq!(readers(&store, &room), (names_of(&["ann", "bad", "out"]), names_of(&["stranger"])));
    host(&store, "tea", What::Set(Role::Banned, names(&["bad"]))).unwrap();
    let Ok(Changed::Members(change)) = host(&store, "tea", What::Remove(names(&["out"]))) else { panic!() };
    let want = (names_of(&["ann"]), names_of(&["stranger"]));
    assert_eq!(readers(&store, &room), want);
    for heard in [room.change, change.number - 1] {
        assert_eq!(marks(&store, &room, heard, &all), Err(StoreError::Busy), "heard of {heard}");
    }
    assert_eq!(readers(&store, &room), want);
    marks(&store, &room, change.number, &["ann"]).unwrap();
    drop(store);
    let store = open(data.path());
    let room = load(&store, "tea").unwrap();
    assert_eq!(readers(&store, &room), want);
    // Added again, they have none.
    host(&store, "tea", What::Set(Role::Member, names(&["bad", "out"]))).unwrap();
    assert_eq!(readers(&store, &room), want);
}

#[test]
fn a_room_that_knows_too_many_says_so_and_too_many_strangers_leave_the_members() {
    let data = TempDir::new().unwrap();
    let store = open(data.path());
    host(&store, "tea", create(Access::Open)).unwrap();
    let room = load(&store, "tea").unwrap();
    marks(&store, &room, room.change, &["a", "b", "olga", "z"]).unwrap();
    let marks_of = |max| ask(|reply| store.room_marks(room.room, max, reply)).unwrap();
    let found = marks_of(2);
    assert_eq!((found.members.len(), found.more, found.strangers), (2, false, None));
    assert_eq!(marks_of(3).strangers.map(|all| all.len()), Some(3));
    assert!(marks_of(1).more);
}
