//! Random histories of a room that forgets, beside a small model: seqs, count and time never go back, no record that lives
//! is lost, none that expired is read, whatever is swept, trimmed, compacted, cut off or lost in between.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc::channel},
};

use bytes::BytesMut;
use parlor_actors::{
    port::{
        Answer, Append, AppendRecord, Commits, DeviceKey, Load, Loaded, Now, Outcome, Place, Read, Records, Reply,
        Rewrite, RoomOptions, Run, Store, StoreError, Sweep, Swept, Trim, Trimmed,
    },
    testkit::{Chance, with_deliver},
};
use parlor_protocol::{
    DeviceTag, Extensions, Seq,
    message::{ContentType, Deliver, Direction, Durability, RecordKind},
};

use super::super::{Disk, RocksStore, StoreConfig, db::Db};

const MIN: u64 = 60_000;

/// The database, which remembers how much of its newest log was synced.
struct Measured {
    db: Arc<Db>,
    synced: Synced,
}

/// The newest write-ahead log at the last sync, and its length.
type Synced = Arc<Mutex<(PathBuf, u64)>>;

impl Disk for Measured {
    fn write(&mut self, batch: rocksdb::WriteBatch) -> Result<(), rocksdb::Error> {
        self.db.write(batch)
    }

    fn sync(&mut self) -> Result<(), rocksdb::Error> {
        self.db.sync()?;
        *self.synced.lock().unwrap() = newest_wal(self.db.rocks().path()).unwrap();
        Ok(())
    }
}

fn newest_wal(path: &Path) -> io::Result<(PathBuf, u64)> {
    let mut newest = (PathBuf::new(), 0);
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        // An old one may be deleted meanwhile.
        if path.extension().is_some_and(|extension| extension == "log")
            && path > newest.0
            && let Ok(data) = fs::metadata(&path)
        {
            newest = (path, data.len());
        }
    }
    Ok(newest)
}

pub(super) fn ask<T: Send + 'static>(question: impl FnOnce(Reply<T>)) -> Result<T, StoreError> {
    let (told, answer) = channel();
    question(Box::new(move |answer| told.send(answer).unwrap()));
    answer.recv().unwrap()
}

struct Told(std::sync::mpsc::Sender<Result<(), StoreError>>);

impl Commits for Told {
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>) {
        let _ = self.0.send(outcomes.into_iter().try_for_each(|outcome| outcome.stored.map(drop)));
    }
}

/// What a record must be, as long as it can be read.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Kept {
    expires: u64,
    count: u64,
    /// The count leaves it out.
    silent: bool,
    time: u64,
    /// How long its frame is now.
    bytes: u64,
    /// How much of the record's seqs was trimmed when a sync came after it; for a buffered room.
    synced: bool,
}

/// A store with one room, and what the room should hold.
struct World {
    chance: Chance,
    /// Before its directory, so that it is closed first.
    store: Option<RocksStore>,
    dir: tempfile::TempDir,
    synced: Synced,
    durability: Durability,
    /// Whether records expire.
    expire: bool,
    /// The bytes of all frames as the room's channel counts them.
    counted: u64,
    room: Loaded,
    /// Everything ever given in this epoch and not lost.
    records: BTreeMap<Seq, Kept>,
    tail: Seq,
    count: u64,
    time: u64,
    /// Records below this were trimmed.
    trimmed: Seq,
    /// What each edit edits.
    targets: BTreeMap<Seq, Seq>,
    /// Each edit with its target and how long that was before.
    edits: Vec<(Seq, Seq, u64)>,
    now: Now,
    /// The latest that the wall clock ever showed.
    latest: u64,
    /// What happened, for people.
    log: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let (dir, synced) = (directory(), Synced::default());
        let mut chance = Chance::new(seed);
        let durability = chance.pick(&[Durability::Synced, Durability::Buffered]);
        let expire = chance.one_in(2);
        let store = open(dir.path(), &synced);
        let room = load(&store, durability);
        let now = Now { unix_ms: 1_000_000 * MIN, mono_ms: 0 };
        Self {
            chance,
            dir,
            store: Some(store),
            synced,
            durability,
            expire,
            counted: 0,
            room,
            records: BTreeMap::new(),
            tail: 0,
            count: 0,
            time: 0,
            trimmed: 1,
            targets: BTreeMap::new(),
            edits: Vec::new(),
            now,
            latest: now.unix_ms,
            log: Vec::new(),
        }
    }

    fn store(&self) -> &RocksStore {
        self.store.as_ref().unwrap()
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..25 => self.append(),
            25..35 => self.change(),
            35..55 => {
                let minutes = self.chance.pick(&[0, 1, 5, 30, 100]);
                self.now.unix_ms += minutes * MIN;
                self.now.mono_ms += minutes * MIN;
                self.latest = self.latest.max(self.now.unix_ms);
                // The wall clock may go back by less than what counts as a jump.
                let back = self.chance.pick(&[0, 0, 0, 4, 9]);
                self.now.unix_ms -= back * MIN;
                self.log.push(format!("{minutes} min pass, {back} back"));
            }
            55..75 => self.sweep(),
            75..82 => self.trim(),
            82..90 => {
                self.log.push("compaction".into());
                ask(|reply| self.store().compact(reply)).unwrap();
            }
            90..94 => self.reopen(),
            94..97 => self.lose_power(),
            _ => self.check(),
        }
    }

    fn append(&mut self) {
        let many = 1 + self.chance.below(6) as u64;
        let (mut frames, mut records) = (BytesMut::new(), Vec::new());
        let mut place = self.store().budget().none();
        let first = self.tail + 1;
        for _ in 0..many {
            let lifetime = self.chance.pick(&[0, 0, 1, MIN, 20 * MIN, 300 * MIN]);
            let lifetime = if self.expire { lifetime } else { 0 };
            self.tail += 1;
            let silent = self.chance.one_in(2);
            self.count += u64::from(!silent);
            self.time = self.time.max(self.now.unix_ms);
            let expires = if lifetime == 0 { 0 } else { self.time + lifetime };
            let payload = vec![b'x'; self.chance.below(200)];
            let deliver = Deliver {
                room: self.room.room,
                seq: self.tail,
                time: self.time,
                sender: "ann",
                device_tag: DeviceTag(1),
                nonce: self.tail,
                kind: RecordKind::MESSAGE,
                refers_to: 0,
                expires,
                count: self.count,
                content_type: ContentType::TEXT,
                payload: &payload,
                extensions: Extensions::default(),
            };
            let start = frames.len();
            parlor_protocol::Changed { silent, ..Default::default() }.with_extensions(|extensions| {
                parlor_protocol::encode(0, &Deliver { extensions, ..deliver }, &mut frames);
            });
            let bytes = (frames.len() - start) as u64;
            place.merge(self.store().budget().take(1).unwrap());
            let answer =
                Answer { nonce: self.tail, seq: self.tail, time: self.time, content_hash: 0, count: self.count };
            let device = DeviceKey { user: "ann".parse().unwrap(), tag: DeviceTag(1) };
            let end = u32::try_from(frames.len()).unwrap();
            records.push(AppendRecord { end, expires, device, slot: 0, answer });
            let synced = self.durability == Durability::Synced;
            let kept = Kept { expires, count: self.count, silent, time: self.time, bytes, synced };
            self.records.insert(self.tail, kept);
        }
        self.log.push(format!("append {first}-{}: {:?}", self.tail, self.records.range(first..).collect::<Vec<_>>()));
        self.send(first, frames.freeze(), records, Vec::new(), place);
    }

    /// Edits records that live, some of them twice in one append.
    fn change(&mut self) {
        // Edits are no targets of edits.
        let is_target = |seq: &Seq| self.lives(*seq) && !self.targets.contains_key(seq);
        let living: Vec<Seq> = self.records.keys().copied().filter(is_target).collect();
        if living.is_empty() {
            return;
        }
        let (mut frames, mut records, mut rewrites) = (BytesMut::new(), Vec::new(), Vec::new());
        let mut place = self.store().budget().none();
        let first = self.tail + 1;
        let mut target = self.chance.pick(&living);
        for _ in 0..=self.chance.below(3) {
            self.tail += 1;
            self.time = self.time.max(self.now.unix_ms);
            let (seq, kept) = (self.tail, self.records[&target]);
            let payload = vec![b'y'; self.chance.below(300)];
            let room = self.room.room;
            let deliver = |seq, kind, refers_to, count, time, expires| Deliver {
                room,
                seq,
                time,
                sender: "ann",
                device_tag: DeviceTag(1),
                nonce: seq,
                kind,
                refers_to,
                expires,
                count,
                content_type: ContentType::TEXT,
                payload: &payload,
                extensions: Extensions::default(),
            };
            let edit = deliver(seq, RecordKind::EDIT, target, self.count, self.time, kept.expires);
            let start = frames.len();
            parlor_protocol::encode(0, &edit, &mut frames);
            let bytes = (frames.len() - start) as u64;
            let changed = parlor_protocol::Changed { revision: seq, silent: kept.silent, ..Default::default() };
            let frame = changed.with_extensions(|extensions| {
                let message = deliver(target, RecordKind::MESSAGE, 0, kept.count, kept.time, kept.expires);
                parlor_protocol::to_bytes(0, &Deliver { extensions, ..message })
            });
            place.merge(self.store().budget().take(1).unwrap());
            let answer = Answer { nonce: seq, seq, time: self.time, content_hash: 0, count: self.count };
            let device = DeviceKey { user: "ann".parse().unwrap(), tag: DeviceTag(1) };
            records.push(AppendRecord {
                end: u32::try_from(frames.len()).unwrap(),
                expires: kept.expires,
                device,
                slot: 0,
                answer,
            });
            let after = frame.len() as u64;
            self.counted = self.counted + after - kept.bytes;
            rewrites.push(Rewrite { seq: target, revision: seq, frame, notes: bytes::Bytes::new() });
            self.log.push(format!("{seq} edits {target}, which has {after} bytes now"));
            let synced = self.durability == Durability::Synced;
            self.edits.push((seq, target, kept.bytes));
            self.records.get_mut(&target).unwrap().bytes = after;
            let (expires, silent) = (kept.expires, true);
            let kept = Kept { expires, count: self.count, silent, time: self.time, bytes, synced };
            self.records.insert(seq, kept);
            self.targets.insert(seq, target);
            if self.chance.one_in(2) {
                target = self.chance.pick(&living);
            }
        }
        self.send(first, frames.freeze(), records, rewrites, place);
    }

    fn send(
        &mut self,
        first: Seq,
        frames: bytes::Bytes,
        records: Vec<AppendRecord>,
        rewrites: Vec<Rewrite>,
        place: Place,
    ) {
        self.counted += frames.len() as u64;
        let (tell, told) = channel();
        self.store().append(vec![Append {
            room: self.room.room,
            generation: self.room.generation,
            epoch: self.room.epochs.last().unwrap().epoch,
            durability: self.durability,
            first,
            frames,
            records,
            rewrites,
            place,
            commits: Arc::new(Told(tell)),
        }]);
        told.recv().unwrap().unwrap();
        if self.durability == Durability::Synced {
            self.all_synced();
        }
    }

    fn all_synced(&mut self) {
        self.records.values_mut().for_each(|kept| kept.synced = true);
    }

    fn sweep(&mut self) {
        let records_max = self.chance.pick(&[1, 3, 100, 8_192]);
        let sweep = Sweep { now: self.now, records_max, dedupe_horizon_ms: 100 * MIN };
        let whole = self.chance.one_in(2);
        self.log.push(format!("sweep {records_max}, to its end: {whole}"));
        // The clock may have gone back twice.
        self.store().resume_sweep();
        for _ in 0..10_000 {
            let swept: Swept = ask(|reply| self.store().sweep(sweep, reply)).unwrap();
            assert!(!swept.paused);
            for (room, first, gone_count) in swept.rooms {
                assert_eq!(room, self.room.room);
                assert_eq!(gone_count, self.records[&(first - 1)].count, "below {first}");
                for (seq, kept) in self.records.range(..first).filter(|(seq, _)| **seq >= self.trimmed) {
                    assert!(self.is_expired(kept) || self.is_orphan(*seq), "{seq} lives and is swept below {first}");
                }
            }
            if !swept.more {
                return;
            }
            if !whole {
                return;
            }
        }
        panic!("a sweep that never ends");
    }

    fn trim(&mut self) {
        let (room, generation) = (self.room.room, self.room.generation);
        let first = if self.tail == 0 { 1 } else { 1 + self.chance.any() % self.tail };
        let bytes_max = self.chance.pick(&[0, 0, 1, 500, 2_000]);
        let trim = Trim { room, generation, first, bytes_max };
        let trimmed: Trimmed = ask(|reply| self.store().trim(trim, reply)).unwrap();
        self.log.push(format!("{trim:?}: {trimmed:?}"));
        assert!(trimmed.first >= first.min(self.tail.max(1)) && trimmed.first <= self.tail + 1);
        assert!(bytes_max > 0 || trimmed.first <= first || !self.lives(trimmed.first - 1), "more than was asked");
        if self.lives(trimmed.first - 1) {
            // It was there to be read; what comes behind it may have expired and be gone as well.
            let least = self.records[&(trimmed.first - 1)].count;
            let stays = (trimmed.first..=self.tail).find(|seq| self.lives(*seq)).unwrap_or(self.tail + 1);
            let most = self.records[&(stays - 1)].count;
            assert!((least..=most).contains(&trimmed.gone_count), "{least} to {most} are gone");
        }
        self.trimmed = self.trimmed.max(trimmed.first);
        self.check_bytes(self.counted - trimmed.bytes_before, trimmed.first);
        if trimmed.first > first.max(self.trimmed) && !self.expire && !self.is_orphan(trimmed.first - 1) {
            let more = self.bytes_from(trimmed.first - 1);
            assert!(more > bytes_max, "{more} bytes from {} on would do", trimmed.first - 1);
        }
        // What is left has at most so many bytes, but for the newest.
        let left = self.read_all();
        let bytes: usize = left.iter().map(|(_, frame)| *frame).sum();
        assert!(bytes_max == 0 || left.len() <= 1 || bytes as u64 <= bytes_max, "{bytes} bytes are left");
    }

    /// The bytes of all frames from a seq on.
    fn bytes_from(&self, first: Seq) -> u64 {
        self.records.range(first..).map(|(_, kept)| kept.bytes).sum()
    }

    /// What is counted is what is there, unless compactions may have dropped some of it.
    fn check_bytes(&self, counted: u64, first: Seq) {
        if !self.expire && !self.records.range(first..).any(|(seq, _)| self.is_orphan(*seq)) {
            assert_eq!(counted, self.bytes_from(first), "the bytes from {first} on");
        }
    }

    /// Whether it edits what was trimmed, so that it may be gone.
    fn is_orphan(&self, seq: Seq) -> bool {
        self.targets.get(&seq).is_some_and(|target| *target < self.trimmed)
    }

    fn lives(&self, seq: Seq) -> bool {
        let kept = self.records.get(&seq).filter(|_| seq >= self.trimmed && !self.is_orphan(seq));
        kept.is_some_and(|kept| !self.is_expired(kept))
    }

    /// Whether a record had expired at any time, so that it may be gone.
    fn is_expired(&self, kept: &Kept) -> bool {
        kept.expires != 0 && kept.expires <= self.latest
    }

    fn reopen(&mut self) {
        self.log.push("closed and opened".into());
        drop(self.store.take());
        self.all_synced();
        self.open_again();
    }

    /// The machine stops: what was not synced is gone, or some of it.
    fn lose_power(&mut self) {
        let (wal, length) = self.synced.lock().unwrap().clone();
        // What closing adds to the log lies behind what was synced, and is cut off or not like the rest.
        drop(self.store.take());
        let newest = newest_wal(self.dir.path()).unwrap();
        // A log that is newer than the last sync begins with nothing that is synced.
        let synced = if newest.0 == wal { length } else { 0 };
        let kept = synced + self.chance.any() % (newest.1 - synced + 1);
        fs::OpenOptions::new().write(true).open(&newest.0).unwrap().set_len(kept).unwrap();
        // The kernel is the same here, so it must be told.
        fs::write(self.dir.path().join("UNSYNCED"), "a test").unwrap();
        self.log.push(format!("power is lost: {kept} of {} bytes, {synced} synced", newest.1));
        self.open_again();
    }

    fn open_again(&mut self) {
        let store = open(self.dir.path(), &self.synced);
        let epoch = *self.room.epochs.last().unwrap();
        self.room = load(&store, self.durability);
        self.store = Some(store);
        self.log.push(format!("{:?}", self.room));
        let Loaded { tail, count, time, first, gone_count, .. } = self.room;
        // What was synced, or was there before, counts.
        let least = self.records.iter().filter(|(_, kept)| kept.synced).map(|(seq, _)| *seq).max().unwrap_or(0);
        assert!(least <= tail && tail <= self.tail, "the tail is {tail}, {least} was synced of {}", self.tail);
        assert!(tail == self.tail || *self.room.epochs.last().unwrap() != epoch, "seqs may be given twice");
        let newest = self.records.get(&tail).copied();
        let newest = newest.map_or((0, 0), |kept| (kept.count, kept.time));
        assert_eq!((count, time), newest, "where it stood with seq {tail}");
        assert!(first <= tail + 1);
        let gone = self.records.get(&(first - 1)).map_or(0, |kept| kept.count);
        assert_eq!(gone_count, gone, "the count below {first}");
        self.records.split_off(&(tail + 1));
        (self.tail, self.count, self.time) = (tail, count, time);
        self.targets.split_off(&(tail + 1));
        while let Some((_, target, before)) = self.edits.pop_if(|(edit, ..)| *edit > tail) {
            // Lost with its target's new length.
            if let Some(target) = self.records.get_mut(&target) {
                target.bytes = before;
            }
        }
        self.counted = self.room.bytes_upto;
        self.trimmed = self.trimmed.min(tail + 1);
        // Trims may be lost like records.
        self.trimmed = self.trimmed.min(self.room.trimmed.max(1));
        self.all_synced();
        if self.trimmed == self.room.first {
            self.check_bytes(self.room.bytes_upto - self.room.bytes_before, first);
        }
        self.check();
    }

    /// Reads the room both ways.
    fn check(&mut self) {
        let read: Vec<Seq> = self.read_all().iter().map(|(seq, _)| *seq).collect();
        for (seq, kept) in self.records.range(self.trimmed..) {
            let expired = kept.expires != 0 && kept.expires <= self.now.unix_ms;
            let is_read = read.binary_search(seq).is_ok();
            assert!(!(is_read && expired), "{seq} expired at {} and is read", kept.expires);
            assert!(is_read || !self.lives(*seq), "{seq} lives and is not read");
        }
    }

    /// All that can be read, with the size of each frame.
    fn read_all(&self) -> Vec<(Seq, usize)> {
        let mut found = Vec::new();
        let mut next = Some(self.trimmed);
        while let Some(start) = next.filter(|start| *start <= self.tail) {
            let read = Read {
                room: self.room.room,
                start,
                end: self.tail,
                direction: Direction::Forward,
                records_max: 7,
                bytes_max: 1_000,
                now: self.now.unix_ms,
            };
            let records: Records = ask(|reply| self.store().read(read, reply)).unwrap();
            for run in records.runs {
                let Run::Frames { first, last, mut frames } = run else { continue };
                for seq in first..=last {
                    let header = parlor_protocol::Header::from_bytes(frames.first_chunk().unwrap());
                    let frame = frames.split_to(parlor_protocol::frame::HEADER_BYTES + header.len as usize);
                    with_deliver(&frame, |deliver| {
                        let kept = self.records[&seq];
                        assert_eq!((deliver.seq, deliver.count, deliver.time), (seq, kept.count, kept.time));
                    });
                    found.push((seq, frame.len()));
                }
            }
            next = records.next;
        }
        found
    }
}

/// In memory, if there is such a place: histories sync thousands of times, and nothing here depends on the disk.
fn directory() -> tempfile::TempDir {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() }.unwrap()
}

fn open(path: &Path, synced: &Synced) -> RocksStore {
    let synced = synced.clone();
    let config = StoreConfig { readers: 1, write_buffers_bytes_max: 1 << 20, ..StoreConfig::new(path) };
    let store = RocksStore::open_on(config, |db| {
        *synced.lock().unwrap() = newest_wal(db.rocks().path()).unwrap();
        Box::new(Measured { db, synced })
    });
    store.unwrap()
}

fn load(store: &RocksStore, durability: Durability) -> Loaded {
    let create = Some(RoomOptions { durability, ..RoomOptions::default() });
    ask(|reply| store.load(Load { name: "room".parse().unwrap(), create }, reply)).unwrap()
}

#[test]
fn random_histories_lose_nothing_that_lives_and_give_no_seq_twice() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seeds = match number("PARLOR_SWEEP_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PARLOR_SWEEP_SEEDS").unwrap_or(60),
    };
    for seed in seeds {
        let mut world = World::new(seed);
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..80).for_each(|_| world.step());
            world.reopen();
        }));
        if run.is_err() {
            println!("{:#?}", world.log);
            panic!("PARLOR_SWEEP_SEED={seed} fails");
        }
    }
}
