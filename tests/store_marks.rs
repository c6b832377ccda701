//! Users' marks in the RocksDB store: saved, fenced, found again.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    time::Duration,
};

use bytes::BytesMut;
use parlor::storage::{RocksStore, StoreConfig};
use parlor_actors::port::{
    Answer, Append, AppendRecord, Commits, DeviceKey, Generation, Load, Loaded, Mark, Marks, Outcome, Reply,
    RoomOptions, SaveMarks, Store, StoreError,
};
use parlor_protocol::{
    DeviceTag, Extensions, Name, RoomNumber, Seq,
    message::{ContentType, Deliver, Durability, RecordKind},
};

fn ask<T: Send + 'static>(question: impl FnOnce(Reply<T>)) -> Result<T, StoreError> {
    let (tell, told) = channel();
    question(Box::new(move |answer| tell.send(answer).unwrap()));
    told.recv_timeout(Duration::from_secs(30)).expect("an answer")
}

fn load(store: &RocksStore, room: &str, durability: Durability) -> Loaded {
    let create = Some(RoomOptions { durability, ..RoomOptions::default() });
    ask(|reply| store.load(Load { name: name(room), create }, reply)).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn read(seq: Seq) -> Marks {
    let mark = |seq| Mark { seq, count: seq + 100 };
    Marks { read: mark(seq), delivered: mark(seq + 1), sent: mark(seq + 2), since: Mark::default() }
}

fn save(store: &RocksStore, room: RoomNumber, generation: Generation, all: &[(&str, Seq)]) -> Result<(), StoreError> {
    let marks = all.iter().map(|(user, seq)| (name(user), read(*seq))).collect();
    ask(|reply| store.save_marks(SaveMarks { room, generation, heard: 0, marks }, reply))
}

fn marks(store: &RocksStore, user: &str, rooms: &[RoomNumber]) -> Vec<Marks> {
    ask(|reply| store.marks(name(user), rooms.to_vec(), reply)).unwrap()
}

#[test]
fn marks_are_there_when_the_store_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let (tea, coffee) = {
        let store = RocksStore::open(StoreConfig::new(folder.path())).unwrap();
        let (tea, coffee) = (load(&store, "tea", Durability::Synced), load(&store, "coffee", Durability::Buffered));
        save(&store, tea.room, tea.generation, &[("ann", 1), ("a", 2), ("Zoë 添加", 3)]).unwrap();
        save(&store, coffee.room, coffee.generation, &[("ann", 4)]).unwrap();
        save(&store, tea.room, tea.generation, &[("ann", 5)]).unwrap();
        store.close().unwrap();
        (tea.room, coffee.room)
    };
    let store = RocksStore::open(StoreConfig::new(folder.path())).unwrap();
    assert_eq!(marks(&store, "ann", &[coffee, RoomNumber(99), tea]), [read(4), Marks::default(), read(5)]);
    assert_eq!(marks(&store, "an", &[tea]), [Marks::default()]);
    // The room knows nobody, so all who have marks are strangers.
    let of_room = |room, users_max| ask(|reply| store.room_marks(room, users_max, reply)).unwrap().strangers;
    let mut all = of_room(tea, 9).unwrap();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(all, [(name("Zoë 添加"), read(3)), (name("a"), read(2)), (name("ann"), read(5))]);
    assert_eq!(
        (of_room(tea, 2), of_room(coffee, 9), of_room(RoomNumber(99), 9)),
        (None, Some(vec![(name("ann"), read(4))]), Some(vec![]))
    );
}

struct Teller(Sender<Outcome>);

impl Commits for Teller {
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>) {
        outcomes.into_iter().for_each(|outcome| self.0.send(outcome).unwrap());
    }
}

/// Appends a record of ann's, from the device with this tag.
fn append(store: &RocksStore, room: &Loaded, seq: Seq, tag: u64) {
    let device = DeviceKey { user: name("ann"), tag: DeviceTag(tag) };
    let deliver = Deliver {
        room: room.room,
        seq,
        time: 1,
        sender: "ann",
        device_tag: device.tag,
        nonce: seq,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        expires: 0,
        count: seq + 100,
        content_type: ContentType::TEXT,
        payload: b"x",
        extensions: Extensions::default(),
    };
    let mut frames = BytesMut::new();
    parlor_protocol::encode(0, &deliver, &mut frames);
    let answer = Answer { nonce: seq, seq, time: 1, content_hash: 0, count: seq + 100 };
    let end = u32::try_from(frames.len()).unwrap();
    let (tell, told) = channel();
    store.append(vec![Append {
        room: room.room,
        generation: room.generation,
        epoch: room.epochs[0].epoch,
        durability: Durability::Synced,
        first: seq,
        frames: frames.freeze(),
        records: vec![AppendRecord { end, expires: 0, device, slot: 0, answer }],
        rewrites: Vec::new(),
        place: store.budget().take(1).unwrap(),
        commits: Arc::new(Teller(tell)),
    }]);
    told.recv_timeout(Duration::from_secs(30)).unwrap().stored.unwrap();
}

#[test]
fn what_a_user_sent_is_found_on_any_of_his_devices_and_is_not_what_the_host_said_for_him() {
    let folder = tempfile::tempdir().unwrap();
    let store = RocksStore::open(StoreConfig::new(folder.path())).unwrap();
    let tea = load(&store, "tea", Durability::Synced);
    let sent = || marks(&store, "ann", &[tea.room])[0].sent;
    for (seq, tag, want) in [(1, 1, 1), (2, u64::MAX, 2), (3, 7, 3), (4, 0, 3)] {
        append(&store, &tea, seq, tag);
        assert_eq!(sent(), Mark { seq: want, count: want + 100 }, "in memory, at {seq}");
        ask(|reply| store.compact(reply)).unwrap();
        assert_eq!(sent(), Mark { seq: want, count: want + 100 }, "in tables, at {seq}");
    }
}

#[test]
fn a_channel_that_was_succeeded_saves_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let store = RocksStore::open(StoreConfig::new(folder.path())).unwrap();
    let old = load(&store, "tea", Durability::Synced);
    save(&store, old.room, old.generation, &[("ann", 1)]).unwrap();
    let new = load(&store, "tea", Durability::Synced);
    assert_eq!(save(&store, old.room, old.generation, &[("ann", 9)]), Err(StoreError::Superseded(old.generation)));
    assert_eq!(
        save(&store, RoomNumber(99), new.generation, &[("ann", 9)]),
        Err(StoreError::Superseded(new.generation))
    );
    assert_eq!(marks(&store, "ann", &[old.room]), [read(1)]);
    save(&store, new.room, new.generation, &[("ann", 2)]).unwrap();
    assert_eq!(marks(&store, "ann", &[old.room]), [read(2)]);
    store.close().unwrap();
    assert!(save(&store, new.room, new.generation, &[("ann", 3)]).is_err(), "answered all the same");
}

#[test]
fn damage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let room = {
        let store = RocksStore::open(StoreConfig::new(folder.path())).unwrap();
        let tea = load(&store, "tea", Durability::Synced);
        save(&store, tea.room, tea.generation, &[("ann", 1)]).unwrap();
        tea.room
    };
    {
        let options = rocksdb::Options::default();
        let families = rocksdb::DB::list_cf(&options, folder.path()).unwrap();
        let db = rocksdb::DB::open_cf(&options, folder.path(), families).unwrap();
        let key = [&room.0.to_be_bytes()[..], b"\x03ann"].concat();
        db.put_cf(db.cf_handle("marks").unwrap(), key, [9; 49]).unwrap();
    }
    let store = RocksStore::open(StoreConfig::new(folder.path())).unwrap();
    let damaged = |error: StoreError| error.to_string();
    let of_user = ask(|reply| store.marks(name("ann"), vec![room], reply)).map_err(damaged).unwrap_err();
    let of_room = ask(|reply| store.room_marks(room, 9, reply)).map_err(damaged).unwrap_err();
    for text in [of_user, of_room] {
        assert!(text.contains("marks/0000000000000001") && text.contains("version 9"), "{text}");
    }
}
