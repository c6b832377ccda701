//! The RocksDB store through its port: what it promises across closing, killing, damage and losses.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use parlor::storage::{OpenError, RocksStore, StoreConfig};
use parlor_actors::{
    members::{Asker, RoomChange, What},
    port::{
        Answer, Append, AppendRecord, CommitNumber, Commits, DeviceKey, EpochStart, Load, Loaded, Outcome, Read,
        Records, Reply, RoomOptions, Run, Store, StoreError,
    },
};
use parlor_protocol::{
    Code, DeviceTag, Epoch, Extensions, RoomNumber, Seq, UnixMillis, encode,
    message::{ContentType, Deliver, Direction, Durability, GapReason, RecordKind},
};

/// What a room was told.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Committed(CommitNumber, Seq),
    Failed(StoreError),
}

struct Teller(Sender<(RoomNumber, Told)>);

impl Commits for Teller {
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>) {
        for Outcome { room, stored, .. } in outcomes {
            let told = stored.map_or_else(Told::Failed, |commit| Told::Committed(commit.number, commit.upto));
            let _ = self.0.send((room, told));
        }
    }
}

/// Holds the writer up, whoever that is, until told to go on, so that what comes meanwhile is one drain.
struct Gate(std::sync::Mutex<(Sender<()>, Receiver<()>)>);

impl Commits for Gate {
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>) {
        assert!(outcomes.iter().all(|outcome| outcome.stored.is_ok()), "{outcomes:?}");
        let gate = self.0.lock().unwrap();
        gate.0.send(()).unwrap();
        let _ = gate.1.recv();
    }
}

fn open(path: &Path) -> RocksStore {
    RocksStore::open(StoreConfig::new(path)).unwrap()
}

/// Asks and waits for the answer.
fn ask<T: Send + 'static>(question: impl FnOnce(Reply<T>)) -> Result<T, StoreError> {
    let (told, answer) = channel();
    question(Box::new(move |answer| told.send(answer).unwrap()));
    answer.recv().expect("every reply is called")
}

fn load(store: &RocksStore, name: &str, durability: Durability) -> Loaded {
    try_load(store, name, Some(durability)).unwrap()
}

fn try_load(store: &RocksStore, name: &str, create: Option<Durability>) -> Result<Loaded, StoreError> {
    let create = create.map(|durability| RoomOptions { durability, ..RoomOptions::default() });
    ask(|reply| store.load(Load { name: name.parse().unwrap(), create }, reply))
}

fn device() -> DeviceKey {
    DeviceKey { user: "ann".parse().unwrap(), tag: DeviceTag(7) }
}

fn frame(room: RoomNumber, seq: Seq, expires: UnixMillis, out: &mut BytesMut) {
    let deliver = Deliver {
        room,
        seq,
        time: 1_000 + seq,
        sender: "ann",
        device_tag: DeviceTag(7),
        nonce: seq,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        expires,
        count: seq,
        content_type: ContentType::TEXT,
        payload: b"hello",
        extensions: Extensions::default(),
    };
    encode(0, &deliver, out);
}

fn frames(room: RoomNumber, seqs: std::ops::RangeInclusive<Seq>) -> Bytes {
    let mut out = BytesMut::new();
    seqs.for_each(|seq| frame(room, seq, 0, &mut out));
    out.freeze()
}

fn answer(seq: Seq) -> Answer {
    Answer { nonce: seq, seq, time: 1_000 + seq, content_hash: seq * 3, count: seq }
}

/// A channel's end of a room.
struct Room {
    loaded: Loaded,
    next: Seq,
    tell: Sender<(RoomNumber, Told)>,
    told: Receiver<(RoomNumber, Told)>,
}

impl Room {
    fn load(store: &RocksStore, name: &str, durability: Durability) -> Self {
        let loaded = load(store, name, durability);
        let (tell, told) = channel();
        Self { next: loaded.tail + 1, loaded, tell, told }
    }

    fn number(&self) -> RoomNumber {
        self.loaded.room
    }

    fn epoch(&self) -> EpochStart {
        *self.loaded.epochs.last().unwrap()
    }

    /// `expires` of each record.
    fn make(&mut self, store: &RocksStore, expires: &[UnixMillis]) -> Append {
        let (first, mut frames, mut records) = (self.next, BytesMut::new(), Vec::new());
        let mut place = store.budget().none();
        for &expires in expires {
            let seq = self.next;
            self.next += 1;
            frame(self.number(), seq, expires, &mut frames);
            place.merge(store.budget().take(1).unwrap());
            let end = u32::try_from(frames.len()).unwrap();
            let slot = u8::try_from((seq - 1) % 4).unwrap();
            records.push(AppendRecord { end, expires, device: device(), slot, answer: answer(seq) });
        }
        Append {
            room: self.number(),
            generation: self.loaded.generation,
            epoch: self.epoch().epoch,
            durability: self.loaded.options.durability,
            first,
            frames: frames.freeze(),
            records,
            rewrites: Vec::new(),
            place,
            commits: Arc::new(Teller(self.tell.clone())),
        }
    }

    fn append(&mut self, store: &RocksStore, expires: &[UnixMillis]) {
        let append = self.make(store, expires);
        store.append(vec![append]);
    }

    fn told(&self) -> Told {
        // The room holds a sender itself, so what never comes must not be waited for for ever.
        self.told.recv_timeout(Duration::from_secs(60)).unwrap().1
    }

    /// Appends and waits until they are committed.
    fn fill(&mut self, store: &RocksStore, expires: &[UnixMillis]) {
        self.append(store, expires);
        assert!(matches!(self.told(), Told::Committed(_, upto) if upto == self.next - 1));
    }
}

fn read(store: &RocksStore, read: Read) -> Result<Records, StoreError> {
    ask(|reply| store.read(read, reply))
}

fn forward(room: RoomNumber, start: Seq, end: Seq) -> Read {
    Read { room, start, end, direction: Direction::Forward, records_max: 100, bytes_max: 1 << 20, now: 0 }
}

fn backward(room: RoomNumber, start: Seq, end: Seq) -> Read {
    Read { direction: Direction::Backward, ..forward(room, start, end) }
}

fn run(room: RoomNumber, first: Seq, last: Seq) -> Run {
    Run::Frames { first, last, frames: frames(room, first..=last) }
}

fn gap(from: Seq, to: Seq) -> Run {
    Run::Gap { from, to, why: GapReason::EXPIRED }
}

/// Changes the closed store in `path` behind parlor's back.
fn tamper(path: &Path, change: impl FnOnce(&rocksdb::DB)) {
    let options = rocksdb::Options::default();
    let families = rocksdb::DB::list_cf(&options, path).unwrap();
    let db = rocksdb::DB::open_cf(&options, path, families).unwrap();
    change(&db);
    db.flush_wal(true).unwrap();
}

fn put(db: &rocksdb::DB, family: &str, key: &[u8], value: &[u8]) {
    db.put_cf(db.cf_handle(family).unwrap(), key, value).unwrap();
}

fn log_key(room: RoomNumber, seq: Seq) -> Vec<u8> {
    [room.0.to_be_bytes(), seq.to_be_bytes()].concat()
}

#[test]
fn what_was_committed_is_there_when_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/store");
    let store = open(&path);
    let mut room = Room::load(&store, "lobby", Durability::Synced);
    assert_eq!((room.loaded.first, room.loaded.tail, room.loaded.count, room.loaded.time), (1, 0, 0, 0));
    assert_eq!(room.epoch().first, 1);
    room.fill(&store, &[0, 0]);
    room.fill(&store, &[0]);
    assert_eq!(store.budget().records(), 0, "places are given back");
    store.close().unwrap();
    store.close().unwrap();
    assert!(try_load(&store, "lobby", None).is_err(), "closed");
    room.append(&store, &[0]);
    assert!(matches!(room.told(), Told::Failed(StoreError::Failed(_))));
    drop(store);

    let store = open(&path);
    let again = load(&store, "lobby", Durability::Buffered);
    assert_eq!((again.room, again.options.durability), (room.number(), Durability::Synced), "options are for creation");
    assert_eq!((again.first, again.tail, again.count, again.time), (1, 3, 3, 1_003));
    assert_eq!(again.epochs, room.loaded.epochs, "a synced room keeps its epoch");
    let records = read(&store, forward(again.room, 1, 3)).unwrap();
    assert_eq!(records, Records { runs: vec![run(again.room, 1, 3)], next: None });
    assert_eq!(try_load(&store, "attic", None), Err(StoreError::UnknownRoom));
    let other = load(&store, "attic", Durability::Synced);
    assert!(other.room > again.room && other.epochs[0].epoch > again.epochs[0].epoch, "never reused");
}

#[test]
fn a_second_opener_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let error = RocksStore::open(StoreConfig::new(dir.path())).unwrap_err();
    assert!(matches!(&error, OpenError::Locked { path } if path == dir.path()), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("another parlor runs on this directory; stop that one, or name another directory"), "{text}");
    let other = child("child_opens", dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&other.stdout);
    assert!(text.contains("another parlor runs on this directory"), "{text}");
    drop(store);
    open(dir.path());
}

#[test]
fn what_is_no_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = RocksStore::open(StoreConfig::new(&file)).unwrap_err();
    assert!(matches!(error, OpenError::NotADirectory { .. }), "{error:?}");
    let error = RocksStore::open(StoreConfig::new(file.join("below"))).unwrap_err();
    assert!(matches!(error, OpenError::Unusable { .. }), "{error:?}");

    let other = dir.path().join("other");
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    rocksdb::DB::open(&options, &other).unwrap().put("key", "value").unwrap();
    let error = RocksStore::open(StoreConfig::new(&other)).unwrap_err();
    assert!(error.to_string().contains("no format version"), "{error}");
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    tamper(dir.path(), |db| put(db, "meta", b"format", &2u32.to_be_bytes()));
    let error = RocksStore::open(StoreConfig::new(dir.path())).unwrap_err();
    assert!(matches!(error, OpenError::NewerFormat { found: 2, known: 1, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("format 2") && text.contains("up to 1"), "{text}");
    tamper(dir.path(), |db| {
        let family = db.cf_handle("meta").unwrap();
        assert!(db.get_cf(family, b"clean").unwrap().is_some(), "nothing was written");
        db.put_cf(family, b"format", 1u32.to_be_bytes()).unwrap();
    });
    open(dir.path());
}

#[test]
fn a_damaged_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    std::fs::write(dir.path().join("CURRENT"), "nonsense").unwrap();
    let error = RocksStore::open(StoreConfig::new(dir.path())).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
}

#[test]
fn appends_of_several_rooms_share_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut gated = Room::load(&store, "gate", Durability::Buffered);
    let mut a = Room::load(&store, "a", Durability::Synced);
    let mut b = Room::load(&store, "b", Durability::Buffered);

    let (reached, at_gate) = channel();
    let (go_on, gate) = channel();
    let mut append = gated.make(&store, &[0]);
    append.commits = Arc::new(Gate(std::sync::Mutex::new((reached, gate))));
    std::thread::scope(|scope| {
        // Whoever appends may be the writer.
        scope.spawn(|| store.append(vec![append]));
        at_gate.recv().unwrap();
        a.append(&store, &[0]);
        b.append(&store, &[0, 0]);
        a.append(&store, &[0, 0]);
        drop(go_on);
    });

    let Told::Committed(commit, upto) = a.told() else { panic!() };
    assert_eq!(upto, 3, "one notice for both appends");
    assert_eq!(b.told(), Told::Committed(commit, 2));
    a.append(&store, &[0]);
    assert!(matches!(a.told(), Told::Committed(later, 4) if later > commit));
    assert_eq!(read(&store, forward(a.number(), 1, 4)).unwrap().runs, [run(a.number(), 1, 4)]);
    assert_eq!(read(&store, forward(b.number(), 1, 2)).unwrap().runs, [run(b.number(), 1, 2)], "rooms do not mix");
}

#[test]
fn a_seq_is_never_given_twice() {
    for next in [1, 2, 4] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let mut room = Room::load(&store, "lobby", Durability::Synced);
        room.fill(&store, &[0, 0]);
        room.next = next;
        room.append(&store, &[0]);
        assert!(matches!(room.told(), Told::Failed(StoreError::Damaged(_))), "{next} does not follow 2");
        room.next = 3;
        room.append(&store, &[0]);
        assert!(matches!(room.told(), Told::Failed(StoreError::Superseded(_))), "nothing follows what was refused");
        let mut room = Room::load(&store, "lobby", Durability::Synced);
        assert_eq!(room.next, 3);
        room.fill(&store, &[0]);
    }
}

#[test]
fn a_later_generation_saw_everything_and_fences_the_earlier() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut old = Room::load(&store, "lobby", Durability::Buffered);
    for _ in 0..50 {
        old.append(&store, &[0]);
    }
    let mut new = Room::load(&store, "lobby", Durability::Buffered);
    assert!(new.loaded.generation > old.loaded.generation);
    assert_eq!(new.loaded.tail, 50, "the load came behind every append");
    old.append(&store, &[0]);
    let superseded = StoreError::Superseded(old.loaded.generation);
    let mut told = Vec::new();
    while !matches!(told.last(), Some(Told::Failed(_))) {
        told.push(old.told());
    }
    assert_eq!(told.pop(), Some(Told::Failed(superseded)));
    assert!(matches!(told.last(), Some(Told::Committed(_, 50))));
    new.fill(&store, &[0]);
    let other = Room::load(&store, "attic", Durability::Buffered);
    assert_ne!(other.number(), new.number());
}

#[test]
fn a_devices_answers_are_overwritten_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut room = Room::load(&store, "lobby", Durability::Synced);
    let answers = |room: RoomNumber, device| ask(|reply| store.answers(room, device, reply)).unwrap();
    assert_eq!(answers(room.number(), device()), []);
    room.fill(&store, &[0; 3]);
    let slots = |seqs: &[Seq]| (0..).zip(seqs.iter().map(|seq| answer(*seq))).collect::<Vec<_>>();
    assert_eq!(answers(room.number(), device()), slots(&[1, 2, 3]));
    room.fill(&store, &[0; 3]);
    assert_eq!(answers(room.number(), device()), slots(&[5, 6, 3, 4]), "slots in their order");
    assert_eq!(answers(room.number(), DeviceKey { tag: DeviceTag(8), ..device() }), []);
    assert_eq!(answers(RoomNumber(99), device()), []);
}

#[test]
fn pages_go_both_ways_and_tell_of_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut room = Room::load(&store, "lobby", Durability::Synced);
    // 3, 4 and 10 expire at 50.
    room.fill(&store, &[0, 0, 50, 50, 0, 0, 0, 0, 0, 50]);
    let mut neighbour = Room::load(&store, "next", Durability::Synced);
    neighbour.fill(&store, &[0, 0]);
    let n = room.number();
    let one = frames(n, 1..=1).len();
    #[track_caller]
    fn check(store: &RocksStore, read: Read, runs: Vec<Run>, next: Option<Seq>) {
        assert_eq!(self::read(store, read), Ok(Records { runs, next }), "{read:?}");
    }
    let at = |now, read| Read { now, ..read };
    let most = |records_max, read| Read { records_max, ..read };
    let bytes = |bytes: usize, read| Read { bytes_max: u32::try_from(bytes).unwrap(), ..read };
    let all = vec![run(n, 1, 2), gap(3, 4), run(n, 5, 9), gap(10, 10)];
    check(&store, at(50, forward(n, 1, 10)), all.clone(), None);
    check(&store, at(50, backward(n, 10, 1)), all, None);
    check(&store, at(50, forward(n, 0, 2)), vec![run(n, 1, 2)], None);
    check(&store, at(50, backward(n, 2, 0)), vec![run(n, 1, 2)], None);
    check(&store, at(50, forward(n, 3, 4)), vec![gap(3, 4)], None);
    check(&store, at(50, forward(n, 9, Seq::MAX)), vec![run(n, 9, 9), gap(10, Seq::MAX)], None);
    check(&store, forward(n, 5, 4), vec![], None);
    check(&store, backward(n, 4, 5), vec![], None);
    // A page that is full tells of the gap behind it, up to the record that the next begins with.
    check(&store, at(50, most(2, forward(n, 1, 10))), vec![run(n, 1, 2), gap(3, 4)], Some(5));
    check(&store, at(50, most(2, forward(n, 5, 10))), vec![run(n, 5, 6)], Some(7));
    check(&store, at(50, most(2, forward(n, 5, 6))), vec![run(n, 5, 6)], None);
    check(&store, at(50, most(2, backward(n, 10, 1))), vec![run(n, 8, 9), gap(10, 10)], Some(7));
    check(&store, at(50, most(3, backward(n, 7, 1))), vec![gap(3, 4), run(n, 5, 7)], Some(2));
    check(&store, at(50, most(1, backward(n, 1, 1))), vec![run(n, 1, 1)], None);
    check(&store, bytes(2 * one, forward(n, 5, 9)), vec![run(n, 5, 6)], Some(7));
    check(&store, bytes(2 * one - 1, backward(n, 9, 5)), vec![run(n, 9, 9)], Some(8));
    check(&store, bytes(1, forward(n, 5, 9)), vec![run(n, 5, 5)], Some(6));
    check(&store, forward(RoomNumber(99), 1, 3), vec![gap(1, 3)], None);

    // Absent records are gaps as well.
    store.close().unwrap();
    tamper(dir.path(), |db| {
        for seq in [1, 2, 7] {
            db.delete_cf(db.cf_handle("log").unwrap(), log_key(n, seq)).unwrap();
        }
    });
    let store = open(dir.path());
    let loaded = load(&store, "lobby", Durability::Synced);
    assert_eq!((loaded.first, loaded.tail), (3, 10));
    let all = vec![gap(1, 4), run(n, 5, 6), gap(7, 7), run(n, 8, 9), gap(10, 10)];
    check(&store, at(50, forward(n, 1, 10)), all.clone(), None);
    check(&store, at(50, backward(n, 10, 1)), all, None);
    check(&store, at(50, most(2, forward(n, 5, 10))), vec![run(n, 5, 6), gap(7, 7)], Some(8));
}

#[test]
fn a_long_stretch_of_expired_records_is_read_in_steps() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut room = Room::load(&store, "lobby", Durability::Buffered);
    for _ in 0..50 {
        room.fill(&store, &[1; 100]);
    }
    room.fill(&store, &[0]);
    let n = room.number();
    let (mut next, mut covered, mut steps) = (Some(1), 0, 0);
    while let Some(start) = next {
        let records = read(&store, Read { now: 1, ..forward(n, start, 5_001) }).unwrap();
        for run in records.runs {
            let (Run::Frames { first: from, last: to, .. } | Run::Gap { from, to, .. }) = run;
            assert_eq!(from, covered + 1);
            covered = to;
        }
        next = records.next;
        steps += 1;
    }
    assert_eq!((covered, steps), (5_001, 2));
}

#[test]
fn a_damaged_record_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut room = Room::load(&store, "lobby", Durability::Synced);
    room.fill(&store, &[0; 5]);
    let n = room.number();
    store.close().unwrap();
    let damage = |seq| {
        tamper(dir.path(), |db| {
            let family = db.cf_handle("log").unwrap();
            let mut value = db.get_cf(family, log_key(n, seq)).unwrap().unwrap();
            value.truncate(40);
            db.put_cf(family, log_key(n, seq), value).unwrap();
        });
    };
    damage(3);
    let store = open(dir.path());
    assert_eq!(load(&store, "lobby", Durability::Synced).tail, 5);
    let Err(StoreError::Damaged(what)) = read(&store, forward(n, 1, 5)) else { panic!() };
    assert!(what.starts_with("log/00000000000000010000000000000003: "), "{what}");
    assert_eq!(read(&store, forward(n, 4, 5)).unwrap().runs, [run(n, 4, 5)], "the others are readable");
    store.close().unwrap();
    damage(5);
    tamper(dir.path(), |db| put(db, "names", b"attic", b"?"));
    let store = open(dir.path());
    assert!(matches!(try_load(&store, "lobby", None), Err(StoreError::Damaged(_))), "no tail, no load");
    assert!(matches!(try_load(&store, "attic", None), Err(StoreError::Damaged(_))));
}

#[test]
fn epochs_change_when_something_may_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let kinds = [("s", Durability::Synced), ("b", Durability::Buffered), ("m", Durability::Memory)];
    let load_all = |store: &RocksStore| kinds.map(|(name, durability)| load(store, name, durability));
    let store = open(dir.path());
    for (name, durability) in &kinds[..2] {
        Room::load(&store, name, *durability).fill(&store, &[0, 0]);
    }
    let [synced, buffered, memory] = load_all(&store);
    let [_, _, again] = load_all(&store);
    assert_eq!((again.room, again.epochs.len(), again.tail), (memory.room, 1, 0));
    assert!(again.epochs[0].epoch > memory.epochs[0].epoch, "a memory room at each load");
    store.close().unwrap();

    // Closed cleanly: another run of the kernel changes nothing.
    let other_boot = |clean: bool| {
        tamper(dir.path(), |db| {
            put(db, "meta", b"boot", b"another");
            if !clean {
                db.delete_cf(db.cf_handle("meta").unwrap(), b"clean").unwrap();
            }
        });
    };
    other_boot(true);
    let store = open(dir.path());
    let [s, b, m] = load_all(&store);
    assert_eq!((&s.epochs, &b.epochs), (&synced.epochs, &buffered.epochs));
    assert!(m.epochs[0].epoch > again.epochs[0].epoch);
    store.close().unwrap();

    // Not closed, same run of the kernel: its cache is still there.
    tamper(dir.path(), |db| db.delete_cf(db.cf_handle("meta").unwrap(), b"clean").unwrap());
    let store = open(dir.path());
    let [s, b, _] = load_all(&store);
    assert_eq!((&s.epochs, &b.epochs), (&synced.epochs, &buffered.epochs));
    store.close().unwrap();

    // Not closed, another run: the machine stopped.
    other_boot(false);
    let store = open(dir.path());
    store.close().unwrap();
    let store = open(dir.path());
    for _ in 0..2 {
        let [s, b, _] = load_all(&store);
        assert_eq!(s.epochs, synced.epochs, "a synced room loses nothing");
        let [old, new] = b.epochs[..] else { panic!("{:?}: one new epoch, once", b.epochs) };
        assert_eq!((old, new.first, b.tail), (buffered.epochs[0], 3, 2));
        assert!(new.epoch > m.epochs[0].epoch, "never reused");
    }
    let mut room = Room::load(&store, "b", Durability::Buffered);
    room.fill(&store, &[0]);
    assert_eq!(load(&store, "new", Durability::Buffered).epochs.len(), 1);
    store.close().unwrap();
    let store = open(dir.path());
    assert_eq!(load(&store, "new", Durability::Buffered).epochs.len(), 1, "born after the loss");
    assert_eq!(load(&store, "b", Durability::Buffered).epochs.len(), 2);
}

#[test]
fn what_a_room_promises_may_change_and_what_it_lost_before_counts() {
    let dir = tempfile::tempdir().unwrap();
    let configure = |store: &RocksStore, name: &str, durability: Durability| {
        let what = What::Configure(RoomOptions { durability, ..RoomOptions::default() });
        let change = RoomChange { name: name.parse().unwrap(), by: Asker::Host, at: 0, members_max: 9, what };
        ask(|reply| store.change(change, reply)).unwrap().map(|_| ()).map_err(|(code, _)| code)
    };
    let lose = || {
        tamper(dir.path(), |db| {
            put(db, "meta", b"boot", b"another");
            db.delete_cf(db.cf_handle("meta").unwrap(), b"clean").unwrap();
        });
    };
    let epochs = |store: &RocksStore, name: &str| load(store, name, Durability::Synced).epochs.len();
    let store = open(dir.path());
    for (name, durability) in [("was synced", Durability::Synced), ("was buffered", Durability::Buffered)] {
        Room::load(&store, name, durability).fill(&store, &[0, 0]);
    }
    load(&store, "m", Durability::Memory);
    assert_eq!(configure(&store, "m", Durability::Buffered), Err(Code::Unsupported));
    assert_eq!(configure(&store, "was synced", Durability::Memory), Err(Code::Unsupported));
    store.close().unwrap();
    lose();
    // Nobody has loaded them since.
    let store = open(dir.path());
    configure(&store, "was synced", Durability::Buffered).unwrap();
    configure(&store, "was buffered", Durability::Synced).unwrap();
    assert_eq!((epochs(&store, "was synced"), epochs(&store, "was buffered")), (1, 2));
    store.close().unwrap();
    lose();
    let store = open(dir.path());
    assert_eq!((epochs(&store, "was synced"), epochs(&store, "was buffered")), (2, 2));
}

#[test]
fn a_memory_rooms_records_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut room = Room::load(&store, "m", Durability::Memory);
    for durability in [Durability::Memory, Durability::Synced] {
        room.next = 1;
        let append = Append { durability, ..room.make(&store, &[0]) };
        store.append(vec![append]);
        assert!(matches!(room.told(), Told::Failed(_)));
    }
    assert_eq!(store.budget().records(), 0);
}

#[test]
fn an_append_that_is_not_whole_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let spoil: [fn(&mut Append); 6] = [
        |append| append.records[0].end += 1,
        |append| append.records[1].end -= 1,
        |append| append.records[1].end = u32::MAX,
        |append| drop(append.records.pop()),
        |append| append.records.clear(),
        |append| append.frames = frames(append.room, 2..=3),
    ];
    for spoil in spoil {
        let mut room = Room::load(&store, "lobby", Durability::Synced);
        let mut append = room.make(&store, &[0, 0]);
        spoil(&mut append);
        store.append(vec![append]);
        assert!(matches!(room.told(), Told::Failed(StoreError::Failed(_))));
    }
    assert_eq!(load(&store, "lobby", Durability::Synced).tail, 0);
}

#[test]
fn the_last_handle_may_go_on_the_stores_own_thread() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    let (told, done) = channel();
    let (go, gate) = channel::<()>();
    let held = store.clone();
    store.flush(Box::new(move |_| {
        let _ = gate.recv();
        drop(held);
        told.send(()).unwrap();
    }));
    drop(store);
    drop(go);
    done.recv().expect("closing does not wait for itself");
}

#[test]
fn closing_answers_everything_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut rooms = ["a", "b"].map(|name| Room::load(&store, name, Durability::Synced));
    for _ in 0..500 {
        rooms.iter_mut().for_each(|room| room.append(&store, &[0]));
    }
    let (told, flushed) = channel();
    store.flush(Box::new(move |answer| told.send(answer).unwrap()));
    store.close().unwrap();
    assert_eq!(flushed.try_recv(), Ok(Ok(())));
    for room in &rooms {
        let last = room.told.try_iter().last().unwrap().1;
        assert!(matches!(last, Told::Committed(_, 500)), "{last:?}");
    }
    let store = open(dir.path());
    assert_eq!(load(&store, "a", Durability::Synced).tail, 500);
}

#[test]
fn an_append_holds_its_place_until_it_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { writer_records_max: 4, ..StoreConfig::new(dir.path()) };
    let store = RocksStore::open(config).unwrap();
    let mut room = Room::load(&store, "a", Durability::Buffered);
    let (reached, at_gate) = channel();
    let (go_on, gate) = channel();
    let mut append = room.make(&store, &[0]);
    append.commits = Arc::new(Gate(std::sync::Mutex::new((reached, gate))));
    std::thread::scope(|scope| {
        scope.spawn(|| store.append(vec![append]));
        at_gate.recv().unwrap();
        for _ in 0..4 {
            room.append(&store, &[0]);
        }
        assert!(store.budget().take(1).is_none(), "the queue is full, and says so before a seq is given");
        drop(go_on);
    });
    while !matches!(room.told(), Told::Committed(_, 5)) {}
    assert!(store.budget().take(1).is_some());
}

/// This test binary again, as a process of its own that runs one function of it on a store.
fn child(function: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", function, "--nocapture", "--test-threads=1"]).env("PARLOR_TEST_STORE", path);
    command
}

/// Set for a child that appends to the buffered room only.
const ALONE: &str = "PARLOR_TEST_ALONE";

fn child_path() -> Option<std::path::PathBuf> {
    std::env::var_os("PARLOR_TEST_STORE").map(Into::into)
}

/// Does nothing unless it runs as a child.
#[test]
fn child_opens() {
    let Some(path) = child_path() else { return };
    println!("{}", RocksStore::open(StoreConfig::new(path)).unwrap_err());
}

/// Does nothing unless it runs as a child: appends for ever, and prints what was acked.
#[test]
fn child_appends() {
    let Some(path) = child_path() else { return };
    let store = open(&path);
    let kinds = [("s", Durability::Synced), ("b", Durability::Buffered)];
    // A sync covers the buffered room too, so it must also be seen alone.
    let kinds = if std::env::var_os(ALONE).is_some() { &kinds[1..] } else { &kinds[..] };
    let mut rooms: Vec<_> = kinds.iter().map(|&(name, durability)| Room::load(&store, name, durability)).collect();
    let mut out = std::io::stdout().lock();
    loop {
        for room in &mut rooms {
            for _ in 0..8 {
                room.append(&store, &[0, 0]);
            }
        }
        for room in &rooms {
            loop {
                let Told::Committed(_, upto) = room.told() else { panic!() };
                writeln!(out, "acked {} {upto}", &*room.loaded.name).unwrap();
                if upto == room.next - 1 {
                    break;
                }
            }
        }
    }
}

#[test]
fn what_was_acked_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut epochs: [Option<Vec<EpochStart>>; 2] = [None, None];
    for (round, (lines, alone)) in [(40, false), (100, true), (1, false), (300, true)].into_iter().enumerate() {
        let mut command = child("child_appends", dir.path());
        if alone {
            command.env(ALONE, "1");
        }
        let mut running = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut acked = [0, 0];
        let mut output = BufReader::new(running.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut note = |line: String| -> bool {
            // The harness prints the test's name in front of the first line.
            let Some((_, ack)) = line.split_once("acked ") else { return false };
            let Some((name, upto)) = ack.split_once(' ') else { return false };
            acked[usize::from(name == "b")] = upto.parse::<Seq>().unwrap();
            true
        };
        let mut seen = 0;
        while seen < lines {
            seen += usize::from(note(output.next().expect("the child runs until it is killed")));
        }
        running.kill().unwrap();
        // What it had printed when it died counts too, but for a line cut short.
        let rest: Vec<_> = output.collect();
        rest.iter().take(rest.len().saturating_sub(1)).for_each(|line| assert!(note(line.clone()), "{line}"));
        running.wait().unwrap();

        let store = open(dir.path());
        for (at, name) in ["s", "b"].into_iter().enumerate() {
            let loaded = try_load(&store, name, None).unwrap();
            assert!(loaded.tail >= acked[at], "round {round}, {name}: acked {}, found {}", acked[at], loaded.tail);
            assert_eq!(loaded.count, loaded.tail);
            let known = epochs[at].get_or_insert(loaded.epochs.clone());
            assert_eq!(*known, loaded.epochs, "the machine did not stop");
            let whole = Read { records_max: u32::MAX, bytes_max: u32::MAX, ..forward(loaded.room, 1, loaded.tail) };
            let mut whole = read(&store, whole).unwrap();
            let mut covered = 0;
            loop {
                let [Run::Frames { first, last, ref frames }] = whole.runs[..] else { panic!("no gaps") };
                assert_eq!((first, frames), (covered + 1, &self::frames(loaded.room, first..=last)));
                covered = last;
                let Some(next) = whole.next else { break };
                let rest =
                    Read { records_max: u32::MAX, bytes_max: u32::MAX, ..forward(loaded.room, next, loaded.tail) };
                whole = read(&store, rest).unwrap();
            }
            assert_eq!(covered, loaded.tail);
        }
        assert_eq!(load(&store, "s", Durability::Synced).epochs[0].epoch, Epoch(1));
    }
}
