//! The store over a disk that fails, and over kernels that do not tell which they are. The rest is in `tests/store.rs`.

use std::{
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

use parlor_actors::{
    members::{Asker, RoomChange, What},
    port::{AppendRecord, Commits, Outcome, Place, RoomOptions},
};
use parlor_protocol::{
    DeviceTag, Extensions, Seq,
    message::{ContentType, Deliver, Direction, Durability, RecordKind},
    to_bytes,
};

use super::*;

mod changes;
mod forgetting;
mod inline;
mod keeping;

/// What happens, in the order in which it happens.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    Write,
    /// What was to be written at once waits.
    Slow,
    Sync,
    Committed(u64, Seq),
    Failed(u64, StoreError),
    Loaded,
    Flushed(Result<(), StoreError>),
    Swept(Result<(), StoreError>),
}

/// What the disk does next time it is asked.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Write,
    Sync,
    Panic,
    Slow,
}

struct Faulty {
    db: Arc<Db>,
    faults: Receiver<Fault>,
    fault: Option<Fault>,
    events: Sender<Event>,
}

impl Faulty {
    fn is_due(&mut self, fault: Fault) -> bool {
        self.fault = self.fault.take().or_else(|| self.faults.try_recv().ok());
        self.fault.take_if(|due| *due == fault).is_some()
    }
}

impl Disk for Faulty {
    fn write(&mut self, batch: rocksdb::WriteBatch) -> Result<(), rocksdb::Error> {
        let _ = self.events.send(Event::Write);
        assert!(!self.is_due(Fault::Panic), "a bug");
        if self.is_due(Fault::Write) { Err(no_space()) } else { self.db.write(batch) }
    }

    fn try_write(&mut self, batch: rocksdb::WriteBatch) -> Result<Option<rocksdb::WriteBatch>, rocksdb::Error> {
        if self.is_due(Fault::Slow) {
            let _ = self.events.send(Event::Slow);
            return Ok(Some(batch));
        }
        self.write(batch).map(|()| None)
    }

    fn sync(&mut self) -> Result<(), rocksdb::Error> {
        let _ = self.events.send(Event::Sync);
        if self.is_due(Fault::Sync) { Err(no_space()) } else { self.db.sync() }
    }
}

/// An error as RocksDB makes them.
fn no_space() -> rocksdb::Error {
    rocksdb::DB::open_default(Path::new("/dev/null/none")).unwrap_err()
}

struct Teller(Sender<Event>);

impl Commits for Teller {
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>) {
        for Outcome { room, stored, .. } in outcomes {
            let _ = self.0.send(match stored {
                Ok(commit) => Event::Committed(room.0, commit.upto),
                Err(error) => Event::Failed(room.0, error),
            });
        }
    }
}

/// A room's next append, of one record.
fn an_append(room: &Loaded, seq: Seq, payload: &[u8], place: Place, commits: Arc<dyn Commits>) -> Append {
    let deliver = Deliver {
        room: room.room,
        seq,
        time: seq,
        sender: "ann",
        device_tag: DeviceTag(1),
        nonce: seq,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        expires: 0,
        count: seq,
        content_type: ContentType::TEXT,
        payload,
        extensions: Extensions::default(),
    };
    let frames = to_bytes(0, &deliver);
    let record = AppendRecord {
        end: u32::try_from(frames.len()).unwrap(),
        expires: 0,
        device: DeviceKey { user: "ann".parse().unwrap(), tag: DeviceTag(1) },
        slot: 0,
        answer: Answer { nonce: seq, seq, time: seq, content_hash: 0, count: seq },
    };
    Append {
        room: room.room,
        generation: room.generation,
        epoch: room.epochs.last().unwrap().epoch,
        durability: room.options.durability,
        first: seq,
        frames,
        records: vec![record],
        rewrites: Vec::new(),
        place,
        commits,
    }
}

struct Rig {
    store: RocksStore,
    events: Receiver<Event>,
    tell: Sender<Event>,
    faults: Sender<Fault>,
}

impl Rig {
    fn open(path: &Path) -> Self {
        Self::open_with(StoreConfig::new(path))
    }

    fn open_with(config: StoreConfig) -> Self {
        let ((tell, events), (faults, due)) = (channel(), channel());
        let told = tell.clone();
        let store = RocksStore::open_on(config, |db| Box::new(Faulty { db, faults: due, fault: None, events: told }));
        Self { store: store.unwrap(), events, tell, faults }
    }

    fn try_load(&self, name: &str, durability: Durability) -> Result<Loaded, StoreError> {
        let (tell, (told, answer)) = (self.tell.clone(), channel());
        let load =
            Load { name: name.parse().unwrap(), create: Some(RoomOptions { durability, ..RoomOptions::default() }) };
        let reply = Box::new(move |loaded| {
            tell.send(Event::Loaded).unwrap();
            told.send(loaded).unwrap();
        });
        self.store.load(load, reply);
        answer.recv().unwrap()
    }

    fn append(&self, room: &Loaded, seq: Seq) {
        let place = self.store.budget().take(1).unwrap();
        self.append_for(room, seq, place, Arc::new(Teller(self.tell.clone())));
    }

    fn append_for(&self, room: &Loaded, seq: Seq, place: Place, commits: Arc<dyn Commits>) {
        self.store.append(vec![an_append(room, seq, b"", place, commits)]);
    }

    fn flush(&self) {
        let tell = self.tell.clone();
        self.store.flush(Box::new(move |answer| drop(tell.send(Event::Flushed(answer)))));
    }

    fn sweep(&self, unix_ms: u64) {
        let tell = self.tell.clone();
        let now = parlor_actors::port::Now { unix_ms, mono_ms: unix_ms };
        let sweep = Sweep { now, records_max: 100, dedupe_horizon_ms: 0 };
        self.store.sweep(sweep, Box::new(move |answer| drop(tell.send(Event::Swept(answer.map(drop))))));
    }

    /// Runs `during` while the writer is held up, so that all that it asks for is one turn. Leaves no events behind.
    fn one_turn(&self, during: impl FnOnce()) {
        let ((reached, at_gate), (go_on, gate)) = (channel(), channel::<()>());
        self.store.flush(Box::new(move |_| {
            reached.send(()).unwrap();
            let _ = gate.recv();
        }));
        at_gate.recv().unwrap();
        self.events.try_iter().for_each(drop);
        during();
        drop(go_on);
    }

    /// The next event. The rig itself can send events, so one that never comes must not be waited for for ever.
    fn next(&self) -> Event {
        self.events.recv_timeout(Duration::from_secs(60)).expect("an event")
    }

    #[track_caller]
    fn expect(&self, want: &[Event]) {
        let got: Vec<_> = want.iter().map(|_| self.next()).collect();
        assert_eq!(got, want);
    }

    fn read(&self, room: RoomNumber) -> Result<Records, StoreError> {
        let (told, answer) = channel();
        let read =
            Read { room, start: 1, end: 9, direction: Direction::Forward, records_max: 9, bytes_max: 9_999, now: 0 };
        self.store.read(read, Box::new(move |records| told.send(records).unwrap()));
        answer.recv().unwrap()
    }
}

#[test]
fn nothing_is_told_before_it_is_stored_and_a_turn_syncs_once() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let synced = rig.try_load("s", Durability::Synced).unwrap();
    let buffered = rig.try_load("b", Durability::Buffered).unwrap();
    let (s, b) = (synced.room.0, buffered.room.0);
    rig.one_turn(|| {
        rig.append(&synced, 1);
        rig.append(&buffered, 1);
        rig.append(&synced, 2);
        rig.flush();
    });
    use Event::{Committed, Flushed, Sync, Write};
    rig.expect(&[Write, Committed(b, 1), Sync, Committed(s, 2), Flushed(Ok(()))]);
    rig.one_turn(|| rig.append(&buffered, 2));
    rig.expect(&[Write, Committed(b, 2)]);
    rig.one_turn(|| rig.append(&synced, 3));
    rig.expect(&[Write, Sync, Committed(s, 3)]);
    rig.one_turn(|| rig.flush());
    rig.expect(&[Flushed(Ok(()))]);
}

#[test]
fn what_a_room_that_is_synced_from_now_on_appends_as_before_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let room = rig.try_load("b", Durability::Buffered).unwrap();
    let number = room.room.0;
    rig.one_turn(|| {
        rig.append(&room, 1);
        let what = What::Configure(RoomOptions::default());
        let change = RoomChange { name: "b".parse().unwrap(), by: Asker::Host, at: 0, members_max: 9, what };
        rig.store.change(change, Box::new(|changed| assert!(matches!(changed, Ok(Ok(_))), "{changed:?}")));
        rig.append(&room, 2);
    });
    use Event::{Committed, Sync, Write};
    rig.expect(&[Write, Write, Write, Sync, Committed(number, 2)]);
    // Its channel has yet to hear of that.
    rig.append(&room, 3);
    rig.expect(&[Write, Sync, Committed(number, 3)]);
}

#[test]
fn a_load_is_answered_when_what_came_before_it_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let room = rig.try_load("b", Durability::Buffered).unwrap();
    let (told, loaded) = channel();
    rig.one_turn(|| {
        rig.append(&room, 1);
        let tell = rig.tell.clone();
        let load = Load { name: "b".parse().unwrap(), create: None };
        rig.store.load(
            load,
            Box::new(move |loaded| {
                tell.send(Event::Loaded).unwrap();
                told.send(loaded.unwrap()).unwrap();
            }),
        );
        rig.append(&room, 2);
    });
    let room_number = room.room.0;
    rig.expect(&[Event::Write, Event::Committed(room_number, 1), Event::Sync]);
    rig.expect(&[Event::Failed(room_number, StoreError::Superseded(room.generation)), Event::Loaded]);
    assert_eq!(loaded.recv().unwrap().tail, 1);
}

#[test]
fn compactions_may_drop_only_what_a_sync_stands_behind() {
    const HOUR: u64 = 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let room = rig.try_load("b", Durability::Buffered).unwrap();
    let number = room.room.0;
    rig.one_turn(|| {
        rig.append(&room, 1);
        rig.sweep(1_000 * HOUR);
    });
    use Event::{Committed, Swept, Sync, Write};
    rig.expect(&[Write, Write, Sync, Committed(number, 1), Swept(Ok(()))]);
    // Not each time: it is enough now and then.
    rig.one_turn(|| {
        rig.append(&room, 2);
        rig.sweep(1_000 * HOUR + 59_999);
    });
    rig.expect(&[Write, Committed(number, 2), Swept(Ok(()))]);
    let horizons = rig.store.horizons.clone();
    let before = horizons.records.load(SeqCst);
    assert!(before > 998 * HOUR && before < 1_000 * HOUR, "{before}");
    rig.one_turn(|| {
        rig.sweep(1_001 * HOUR);
        rig.faults.send(Fault::Sync).unwrap();
    });
    rig.expect(&[Write, Sync]);
    assert!(matches!(rig.next(), Swept(Err(StoreError::Poisoned(_)))));
    assert_eq!(horizons.records.load(SeqCst), before);
}

#[track_caller]
fn check_poisoned(rig: &Rig, room: &Loaded) {
    assert!(rig.store.poisoned().is_some());
    rig.append(room, 4);
    assert!(matches!(rig.next(), Event::Failed(_, StoreError::Poisoned(_))));
    assert!(matches!(rig.try_load("other", Durability::Memory), Err(StoreError::Poisoned(_))));
    rig.next();
    rig.flush();
    assert!(matches!(rig.next(), Event::Flushed(Err(StoreError::Poisoned(_)))));
    assert!(rig.read(room.room).is_ok(), "what is there can still be read");
    assert_eq!(rig.store.budget().records(), 0);
    assert!(matches!(rig.store.close(), Err(StoreError::Poisoned(_))));
    assert!(matches!(rig.store.close(), Err(StoreError::Poisoned(_))), "closing again says the same");
}

#[test]
fn a_failed_sync_poisons_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let synced = rig.try_load("s", Durability::Synced).unwrap();
    let buffered = rig.try_load("b", Durability::Buffered).unwrap();
    rig.one_turn(|| {
        rig.append(&synced, 1);
        rig.append(&buffered, 1);
        rig.faults.send(Fault::Sync).unwrap();
    });
    rig.expect(&[Event::Write, Event::Committed(buffered.room.0, 1), Event::Sync]);
    let Event::Failed(room, StoreError::Poisoned(why)) = rig.next() else { panic!() };
    assert!(room == synced.room.0 && why.starts_with("a sync failed: "), "{why}");
    check_poisoned(&rig, &synced);
    drop(rig);

    // What a failed sync leaves behind may be gone, whether or not the machine stopped.
    let rig = Rig::open(dir.path());
    let again = rig.try_load("s", Durability::Synced).unwrap();
    assert_eq!((again.tail, &again.epochs), (1, &synced.epochs), "it was written after all");
    assert_eq!(rig.try_load("b", Durability::Buffered).unwrap().epochs.len(), 2);
    rig.append(&again, 2);
    rig.store.close().unwrap();
    let rig = Rig::open(dir.path());
    assert_eq!(rig.try_load("s", Durability::Synced).unwrap().tail, 2);
    assert_eq!(rig.try_load("b", Durability::Buffered).unwrap().epochs.len(), 2, "once");
}

#[test]
fn a_failed_write_poisons_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let rooms = ["a", "b"].map(|name| rig.try_load(name, Durability::Buffered).unwrap());
    rig.one_turn(|| {
        rig.append(&rooms[0], 1);
        rig.append(&rooms[1], 1);
        rig.faults.send(Fault::Write).unwrap();
    });
    rig.expect(&[Event::Write]);
    for room in &rooms {
        assert!(matches!(rig.next(), Event::Failed(told, StoreError::Poisoned(_)) if told == room.room.0));
    }
    check_poisoned(&rig, &rooms[0]);
}

#[test]
fn a_panic_of_the_writer_poisons_the_store_and_answers_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let room = rig.try_load("a", Durability::Buffered).unwrap();
    rig.one_turn(|| {
        rig.append(&room, 1);
        rig.flush();
        rig.faults.send(Fault::Panic).unwrap();
    });
    rig.expect(&[Event::Write]);
    assert!(matches!(rig.next(), Event::Failed(_, StoreError::Poisoned(_))));
    assert!(matches!(rig.next(), Event::Flushed(Err(StoreError::Poisoned(_)))));
    check_poisoned(&rig, &room);
}

#[test]
fn a_panic_of_one_who_is_told_harms_nobody_else() {
    struct Panics;
    impl Commits for Panics {
        fn settled(self: Arc<Self>, _: Vec<Outcome>) {
            panic!("on purpose");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let rooms = ["a", "b"].map(|name| rig.try_load(name, Durability::Synced).unwrap());
    rig.one_turn(|| {
        rig.append_for(&rooms[0], 1, rig.store.budget().none(), Arc::new(Panics));
        rig.append(&rooms[1], 1);
    });
    rig.expect(&[Event::Write, Event::Sync, Event::Committed(rooms[1].room.0, 1)]);
    assert_eq!(rig.try_load("a", Durability::Synced).unwrap().tail, 1);
    rig.store.close().unwrap();
}

#[test]
fn full_queues_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { readers: 1, reads_max: 1, ..StoreConfig::new(dir.path()) };
    let store = RocksStore::open(config).unwrap();
    let device = DeviceKey { user: "ann".parse().unwrap(), tag: DeviceTag(1) };
    let ((reached, at_gate), (go_on, gate)) = (channel(), channel::<()>());
    let held = Box::new(move |_| {
        reached.send(()).unwrap();
        let _ = gate.recv();
    });
    store.answers(RoomNumber(1), device.clone(), held);
    at_gate.recv().unwrap();
    let (told, answers) = channel();
    for _ in 0..2 {
        let told = told.clone();
        store.answers(RoomNumber(1), device.clone(), Box::new(move |answer| told.send(answer).unwrap()));
    }
    assert_eq!(answers.recv().unwrap(), Err(StoreError::Busy), "the second waits, the third is refused");
    drop(go_on);
    assert_eq!(answers.recv().unwrap(), Ok(vec![]));

    let ((reached, at_gate), (go_on, gate)) = (channel(), channel::<()>());
    store.flush(Box::new(move |_| {
        reached.send(()).unwrap();
        let _ = gate.recv();
    }));
    at_gate.recv().unwrap();
    let (told, answers) = channel();
    // The one that is being answered has left its slot.
    for _ in 0..=CONTROLS_MAX {
        let told = told.clone();
        let load = Load { name: "none".parse().unwrap(), create: None };
        store.load(load, Box::new(move |answer| told.send(answer.map(drop)).unwrap()));
    }
    assert_eq!(answers.recv().unwrap(), Err(StoreError::Busy));
    drop(go_on);
    for _ in 0..CONTROLS_MAX {
        assert_eq!(answers.recv().unwrap(), Err(StoreError::UnknownRoom));
    }
}

#[test]
fn an_append_without_a_place_never_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open_with(StoreConfig { writer_records_max: 1, ..StoreConfig::new(dir.path()) });
    let room = rig.try_load("a", Durability::Synced).unwrap();
    let capacity = 1 + CONTROLS_MAX as u64;
    rig.one_turn(|| {
        for seq in 1..=capacity + 1 {
            let place = rig.store.budget().none();
            rig.append_for(&room, seq, place, Arc::new(Teller(rig.tell.clone())));
        }
        rig.expect(&[Event::Failed(room.room.0, StoreError::Busy)]);
    });
    rig.expect(&[Event::Write, Event::Sync, Event::Committed(room.room.0, capacity)]);
}

#[test]
fn without_a_boot_id_every_unclean_stop_counts_as_a_loss() {
    use schema::{Family, meta};
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig::new(dir.path());
    let (db, age) = db::open(&config).unwrap();
    let clean = || db.rocks().put_cf(db.family(Family::Meta), meta::CLEAN, []).unwrap();
    let mut before = recover::begin(&db, age, None).unwrap();
    let mut check = |clean_first: bool, boot, loss: bool| {
        if clean_first {
            clean();
        }
        let after = recover::begin(&db, db::Age::Known, boot).unwrap();
        assert_eq!(after != before, loss, "clean: {clean_first}, boot: {boot:?}");
        before = after;
    };
    check(false, None, true);
    check(true, None, false);
    check(false, Some("one"), true);
    check(false, Some("one"), false);
    check(false, Some("two"), true);
    check(true, Some("three"), false);
    check(false, None, true);
    check(false, None, true);
}

#[test]
fn what_is_appended_around_a_deletion_is_stored_before_it_or_refused_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let room = rig.try_load("r", Durability::Synced).unwrap();
    let number = room.room.0;
    let tell = rig.tell.clone();
    let (by, what) = (parlor_actors::members::Asker::Host, parlor_actors::members::What::Delete);
    let delete = RoomChange { name: "r".parse().unwrap(), by, at: 1, members_max: 9, what };
    rig.one_turn(|| {
        rig.append(&room, 1);
        let deleted = Changed::Deleted { room: room.room, more: false };
        rig.store.change(
            delete,
            Box::new(move |changed| {
                assert_eq!(changed, Ok(Ok(deleted)));
                tell.send(Event::Flushed(Ok(()))).unwrap();
            }),
        );
        rig.append(&room, 2);
    });
    use Event::{Committed, Failed, Flushed, Sync, Write};
    let superseded = Failed(number, StoreError::Superseded(room.generation));
    rig.expect(&[Write, Write, Sync, Committed(number, 1), superseded, Flushed(Ok(()))]);
    assert_eq!(rig.read(room.room).unwrap().runs.len(), 1, "a gap, and no record");
    let again = rig.try_load("r", Durability::Synced).unwrap();
    assert!(again.room > room.room && again.epochs[0].epoch > room.epochs[0].epoch && again.tail == 0);
}
