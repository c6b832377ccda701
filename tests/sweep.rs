//! The sweep on disk: a great number of expired records, and what becomes of each.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use bytes::BytesMut;
use parlor::storage::{RocksStore, StoreConfig};
use parlor_actors::port::{
    Answer, Append, AppendRecord, Commits, DeviceKey, Load, Loaded, Now, Outcome, Read, Records, Reply, RoomOptions,
    Run, Store, StoreError, Sweep, Swept, Trim,
};
use parlor_protocol::{
    DeviceTag, Extensions, Seq, encode,
    message::{ContentType, Deliver, Direction, Durability, GapReason, RecordKind},
};

/// When it all happens, in Unix milliseconds.
const NOW: u64 = 1_700_000_000_000;

const HOUR: u64 = 3_600_000;

/// Records in each room but the last.
const PER_ROOM: u64 = 40_000;

/// In the last one every hundredth record lives.
const LIVING_ONE_IN: u64 = 100;

struct Teller(Sender<Result<Seq, StoreError>>);

impl Commits for Teller {
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            let _ = self.0.send(outcome.stored.map(|commit| commit.upto));
        }
    }
}

fn ask<T: Send + 'static>(question: impl FnOnce(Reply<T>)) -> Result<T, StoreError> {
    let (told, answer) = channel();
    question(Box::new(move |answer| told.send(answer).unwrap()));
    answer.recv().expect("every reply is called")
}

fn load(store: &RocksStore, name: &str) -> Loaded {
    let create = Some(RoomOptions { durability: Durability::Buffered, ..RoomOptions::default() });
    ask(|reply| store.load(Load { name: name.parse().unwrap(), create }, reply)).unwrap()
}

/// Appends records from `first` on, each with its expiry, and waits until they are stored.
fn fill(store: &RocksStore, room: &Loaded, first: Seq, expires: impl Iterator<Item = u64>) {
    let (tell, told): (_, Receiver<_>) = channel();
    let device = DeviceKey { user: "ann".parse().unwrap(), tag: DeviceTag(7) };
    let mut expires = (first..).zip(expires).peekable();
    while let Some(&(first, _)) = expires.peek() {
        let (mut frames, mut records) = (BytesMut::new(), Vec::new());
        let mut place = store.budget().none();
        for (seq, expires) in expires.by_ref().take(256) {
            let deliver = Deliver {
                room: room.room,
                seq,
                time: NOW,
                sender: "ann",
                device_tag: DeviceTag(7),
                nonce: seq,
                kind: RecordKind::MESSAGE,
                refers_to: 0,
                expires,
                count: seq,
                content_type: ContentType::TEXT,
                payload: &[b'x'; 64],
                extensions: Extensions::default(),
            };
            encode(0, &deliver, &mut frames);
            place.merge(store.budget().take(1).unwrap());
            let end = u32::try_from(frames.len()).unwrap();
            let answer = Answer { nonce: seq, seq, time: NOW, content_hash: seq, count: seq };
            records.push(AppendRecord { end, expires, device: device.clone(), slot: (seq % 128) as u8, answer });
        }
        let last = first + records.len() as u64 - 1;
        store.append(vec![Append {
            room: room.room,
            generation: room.generation,
            epoch: room.epochs.last().unwrap().epoch,
            durability: Durability::Buffered,
            first,
            frames: frames.freeze(),
            records,
            rewrites: Vec::new(),
            place,
            commits: Arc::new(Teller(tell.clone())),
        }]);
        assert_eq!(told.recv().unwrap(), Ok(last));
    }
}

/// Reads a whole room: seqs that can be read, and the seqs and reasons of all gaps.
fn read_all(store: &RocksStore, room: &Loaded, start: Seq, tail: Seq, now: u64) -> (Vec<Seq>, u64) {
    let (mut readable, mut gone, mut next) = (Vec::new(), 0, Some(start));
    while let Some(start) = next {
        let (room, direction) = (room.room, Direction::Forward);
        let read = Read { room, start, end: tail, direction, records_max: 1_000, bytes_max: 1 << 20, now };
        let records: Records = ask(|reply| store.read(read, reply)).unwrap();
        for run in records.runs {
            match run {
                Run::Frames { first, last, .. } => readable.extend(first..=last),
                Run::Gap { from, to, why } => {
                    assert_eq!(why, GapReason::EXPIRED);
                    gone += to + 1 - from;
                }
            }
        }
        next = records.next;
    }
    (readable, gone)
}

fn at(unix_ms: u64) -> Now {
    Now { unix_ms, mono_ms: unix_ms - NOW }
}

/// Sweeps to the end; returns how many steps it took and the longest of them.
fn sweep(store: &RocksStore, now: Now) -> (u32, Duration) {
    let (mut steps, mut longest) = (0, Duration::ZERO);
    loop {
        let began = Instant::now();
        let sweep = Sweep { now, records_max: 8_192, dedupe_horizon_ms: 24 * HOUR };
        let swept: Swept = ask(|reply| store.sweep(sweep, reply)).unwrap();
        longest = longest.max(began.elapsed());
        steps += 1;
        assert!(!swept.paused && steps < 10_000, "{swept:?}");
        if !swept.more {
            return (steps, longest);
        }
    }
}

/// Keys of each family that the closed store has.
fn keys(path: &std::path::Path, family: &str) -> usize {
    let options = rocksdb::Options::default();
    let families = rocksdb::DB::list_cf(&options, path).unwrap();
    let db = rocksdb::DB::open_cf(&options, path, families).unwrap();
    db.iterator_cf(db.cf_handle(family).unwrap(), rocksdb::IteratorMode::Start).count()
}

#[test]
fn two_hundred_thousand_expired_records_go_and_leave_nothing_but_what_lives() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::open(StoreConfig::new(dir.path())).unwrap();
    let names = ["a", "b", "c", "d", "mixed"];
    let rooms = names.map(|name| load(&store, name));
    for room in &rooms[..4] {
        fill(&store, room, 1, (0..PER_ROOM).map(|at| NOW + HOUR + at));
    }
    // The first lives, so that nothing of the rest lies before all that lives.
    let mixed = PER_ROOM + PER_ROOM / 50;
    let living = |seq: Seq| seq % LIVING_ONE_IN == 1;
    fill(&store, &rooms[4], 1, (1..=mixed).map(|seq| if living(seq) { 0 } else { NOW + HOUR }));
    let alive: Vec<Seq> = (1..=mixed).filter(|seq| living(*seq)).collect();
    let expired = 4 * PER_ROOM + mixed - alive.len() as u64;
    assert!(expired > 200_000, "{expired}");

    // Nothing is due yet; then nothing can be read, swept or not.
    sweep(&store, at(NOW + HOUR / 2));
    assert_eq!(read_all(&store, &rooms[0], 1, PER_ROOM, NOW).0.len() as u64, PER_ROOM);
    let later = NOW + 2 * HOUR;
    let unreadable = |store: &RocksStore| {
        for room in &rooms[..4] {
            assert_eq!(read_all(store, room, 1, PER_ROOM, later), (vec![], PER_ROOM));
        }
        let (readable, gone) = read_all(store, &rooms[4], 1, mixed, later);
        assert_eq!((readable, gone), (alive.clone(), mixed - alive.len() as u64));
    };
    unreadable(&store);

    let began = Instant::now();
    let (steps, longest) = sweep(&store, at(later));
    println!("{expired} records swept in {:?}: {steps} steps, the longest {longest:?}", began.elapsed());
    // 8,192 records or 2 ms each, whichever is first.
    assert!(steps as u64 >= 4 * PER_ROOM / 8_192);
    unreadable(&store);
    for (room, name) in rooms[..4].iter().zip(names) {
        let swept = load(&store, name);
        assert_eq!((swept.first, swept.tail, swept.count, swept.time), (PER_ROOM + 1, PER_ROOM, PER_ROOM, NOW));
        fill(&store, &swept, PER_ROOM + 1, [0].into_iter());
        assert_eq!(read_all(&store, room, PER_ROOM, PER_ROOM + 1, later), (vec![PER_ROOM + 1], 1));
    }
    // The horizon follows by as much as the index is coarse.
    sweep(&store, at(later + HOUR));
    ask(|reply| store.compact(reply)).unwrap();
    unreadable_above(&store, &rooms[4], &alive, mixed, later);
    store.close().unwrap();
    drop(store);
    assert_eq!(keys(dir.path(), "log"), alive.len() + 4, "what lives, and one new record in each of the others");
    assert_eq!(keys(dir.path(), "due"), 0);

    let store = RocksStore::open(StoreConfig::new(dir.path())).unwrap();
    for name in &names[..4] {
        let room = load(&store, name);
        assert_eq!((room.first, room.tail, room.count), (PER_ROOM + 1, PER_ROOM + 1, PER_ROOM + 1));
    }
    let room = load(&store, "mixed");
    assert_eq!((room.first, room.tail, room.count), (1, mixed, mixed), "its newest is gone, and its seqs go on");
    assert_ne!(alive.last(), Some(&mixed));
    fill(&store, &room, mixed + 1, [0].into_iter());
    assert_eq!(load(&store, "mixed").tail, mixed + 1);
}

fn unreadable_above(store: &RocksStore, room: &Loaded, alive: &[Seq], tail: Seq, now: u64) {
    let (readable, gone) = read_all(store, room, 1, tail, now);
    assert_eq!((readable.as_slice(), gone), (alive, tail - alive.len() as u64));
}

#[test]
fn a_jump_of_the_wall_clock_deletes_nothing_until_somebody_says_that_it_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::open(StoreConfig::new(dir.path())).unwrap();
    let room = load(&store, "a");
    fill(&store, &room, 1, [NOW + HOUR; 100].into_iter());
    let step = |store: &RocksStore, unix_ms, mono_ms| -> Swept {
        let sweep = Sweep { now: Now { unix_ms, mono_ms }, records_max: 8_192, dedupe_horizon_ms: HOUR };
        ask(|reply| store.sweep(sweep, reply)).unwrap()
    };
    assert_eq!(step(&store, NOW, 0), Swept::default());
    let paused = Swept { paused: true, ..Swept::default() };
    assert_eq!(step(&store, NOW + 9 * HOUR, 1_000), paused);
    assert_eq!(store.sweep_paused(), Some((9 * HOUR - 1_000) as i64));
    assert_eq!(load(&store, "a").first, 1);
    // Back by itself.
    assert_eq!(step(&store, NOW + 2_000, 2_000), Swept::default());
    assert_eq!(store.sweep_paused(), None);
    // Right, says somebody.
    assert_eq!(step(&store, NOW + 9 * HOUR, 3_000), paused);
    store.resume_sweep();
    assert_eq!(step(&store, NOW + 9 * HOUR, 4_000).rooms, [(room.room, 101, 100)]);
    assert_eq!(store.sweep_paused(), None);
    drop(store);
    // A later run that begins before this one is not believed either.
    let store = RocksStore::open(StoreConfig::new(dir.path())).unwrap();
    assert_eq!(step(&store, NOW + 8 * HOUR, 0), paused);
    assert_eq!(store.sweep_paused(), Some(-(HOUR as i64)));
}

#[test]
fn answers_older_than_the_horizon_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::open(StoreConfig::new(dir.path())).unwrap();
    let room = load(&store, "a");
    fill(&store, &room, 1, [0; 3].into_iter());
    let device = DeviceKey { user: "ann".parse().unwrap(), tag: DeviceTag(7) };
    let answers = || ask(|reply| store.answers(room.room, device.clone(), reply)).unwrap().len();
    sweep(&store, at(NOW + 24 * HOUR - 1));
    ask(|reply| store.compact(reply)).unwrap();
    assert_eq!(answers(), 3);
    sweep(&store, at(NOW + 25 * HOUR));
    ask(|reply| store.compact(reply)).unwrap();
    assert_eq!(answers(), 0);
    assert_eq!(read_all(&store, &room, 1, 3, NOW + 25 * HOUR).0, [1, 2, 3], "the records themselves stay");
}

#[test]
fn a_clock_that_went_back_loses_no_record_that_comes_after() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::open(StoreConfig::new(dir.path())).unwrap();
    let room = load(&store, "a");
    // Everything up to a hundred hours from now was swept, and then somebody set the clock right.
    sweep(&store, at(NOW + 100 * HOUR));
    fill(&store, &room, 1, [NOW + HOUR, NOW + HOUR, 0].into_iter());
    ask(|reply| store.compact(reply)).unwrap();
    assert_eq!(read_all(&store, &room, 1, 3, NOW).0, [1, 2, 3]);
    assert_eq!(load(&store, "a").tail, 3);
}

#[test]
fn a_store_of_before_the_sweep_opens_and_is_swept_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::open(StoreConfig::new(dir.path())).unwrap();
    let room = load(&store, "a");
    fill(&store, &room, 1, [0; 3].into_iter());
    drop(store);
    // As it was written then: no index, and records without the count of bytes.
    {
        let options = rocksdb::Options::default();
        let families = rocksdb::DB::list_cf(&options, dir.path()).unwrap();
        let mut db = rocksdb::DB::open_cf(&options, dir.path(), families).unwrap();
        db.drop_cf("due").unwrap();
        let log = db.cf_handle("log").unwrap();
        let records: Vec<_> = db.iterator_cf(log, rocksdb::IteratorMode::Start).map(Result::unwrap).collect();
        for (key, value) in records {
            let earlier = [&[1], &value[1..18], &value[26..]].concat();
            db.put_cf(log, key, earlier).unwrap();
        }
        db.flush_wal(true).unwrap();
    }
    let store = RocksStore::open(StoreConfig::new(dir.path())).unwrap();
    let room = load(&store, "a");
    assert_eq!((room.first, room.tail, room.trimmed, room.bytes_before), (1, 3, 1, 0));
    assert!(room.bytes_upto < 200, "only the newest is counted");
    assert_eq!(read_all(&store, &room, 1, 3, NOW).0, [1, 2, 3]);
    fill(&store, &room, 4, [NOW + HOUR, 0].into_iter());
    sweep(&store, at(NOW + 9 * HOUR));
    ask(|reply| store.compact(reply)).unwrap();
    assert_eq!(read_all(&store, &room, 1, 5, NOW).0, [1, 2, 3, 5]);
    let bytes_max = load(&store, "a").bytes_upto / 2;
    let generation = load(&store, "a").generation;
    let trim = Trim { room: room.room, generation, first: 1, bytes_max };
    let first = ask(|reply| store.trim(trim, reply)).unwrap().first;
    assert!((4..=5).contains(&first), "what was not counted goes first: {first}");
}

#[test]
fn a_trim_is_the_current_channels_alone_and_says_why_records_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::open(StoreConfig::new(dir.path())).unwrap();
    let old = load(&store, "a");
    fill(&store, &old, 1, (1..=200).map(|seq| if seq <= 150 { NOW + HOUR } else { 0 }));
    let new = load(&store, "a");
    let trim = |loaded: &Loaded, first| {
        let trim = Trim { room: loaded.room, generation: loaded.generation, first, bytes_max: 0 };
        ask(|reply| store.trim(trim, reply))
    };
    assert_eq!(trim(&old, 9), Err(StoreError::Superseded(old.generation)));
    assert_eq!(trim(&new, 9).unwrap().first, 9);
    assert_eq!(trim(&new, 5).unwrap().first, 9, "what is gone is gone");
    sweep(&store, at(NOW + 2 * HOUR));
    let loaded = load(&store, "a");
    assert_eq!((loaded.first, loaded.trimmed, loaded.tail), (151, 9, 200));
    let trimmed = trim(&loaded, 9).unwrap();
    assert_eq!((trimmed.first, trimmed.trimmed), (151, 9), "a sweep took the rest");
    assert_eq!(trim(&loaded, 999).unwrap().first, 200, "the newest stays");
    let loaded = load(&store, "a");
    assert_eq!((loaded.first, loaded.trimmed, loaded.tail, loaded.count), (200, 200, 200, 200));
    assert!(loaded.bytes_before < loaded.bytes_upto && loaded.bytes_upto - loaded.bytes_before < 200);
}

#[test]
fn a_room_whose_newest_record_a_compaction_dropped_goes_on_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::open(StoreConfig::new(dir.path())).unwrap();
    let room = load(&store, "a");
    fill(&store, &room, 1, [NOW + 10 * HOUR, NOW + HOUR, NOW + HOUR].into_iter());
    let stands = |store: &RocksStore| {
        let room = load(store, "a");
        (room.first, room.tail, room.count, room.time)
    };
    sweep(&store, at(NOW + 3 * HOUR));
    ask(|reply| store.compact(reply)).unwrap();
    assert_eq!(stands(&store), (1, 3, 3, NOW), "the first lives");
    // Twice: what it goes on from is not in the log.
    sweep(&store, at(NOW + 20 * HOUR));
    ask(|reply| store.compact(reply)).unwrap();
    assert_eq!(stands(&store), (4, 3, 3, NOW), "none lives");
    drop(store);
    assert_eq!(keys(dir.path(), "log"), 0);
    let store = RocksStore::open(StoreConfig::new(dir.path())).unwrap();
    assert_eq!(stands(&store), (4, 3, 3, NOW));
    fill(&store, &load(&store, "a"), 4, [0].into_iter());
    assert_eq!(stands(&store), (4, 4, 4, NOW));
}

#[test]
fn what_comes_behind_the_sweep_of_its_own_stretch_of_time_is_due_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::open(StoreConfig::new(dir.path())).unwrap();
    let room = load(&store, "a");
    for seq in 1..=3 {
        // The clock has gone back a little: what was swept is due for others.
        fill(&store, &room, seq, [NOW + HOUR].into_iter());
        let swept: Swept = ask(|reply| {
            let sweep = Sweep { now: at(NOW + 2 * HOUR), records_max: 8_192, dedupe_horizon_ms: HOUR };
            store.sweep(sweep, reply);
        })
        .unwrap();
        assert_eq!(swept.rooms, [(room.room, seq + 1, seq)]);
    }
}
