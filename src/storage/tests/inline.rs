//! Appends that are written by whoever hands them over: when that may be, and that nothing is overtaken by it.

use std::{collections::BTreeMap, thread};

use crossbeam::channel::{Receiver as Entries, Sender as Queue, bounded};
use parlor_actors::{
    members::{Asker, What},
    port::{Now, Rewrite},
    testkit::Chance,
};
use tempfile::TempDir;

use super::*;
use crate::storage::writer::{BUSY_HANDOVERS, INLINE_APPENDS_MAX, INLINE_BYTES_MAX, INLINE_RECORDS_MAX, Shared};

impl Rig {
    /// Waits until the writer's thread has nothing to do.
    fn idle(&self) {
        self.one_turn(|| ());
        // The answer to a flush comes before the end of its turn.
        while self.store.queues.read().as_ref().is_some_and(|queues| queues.inline.is_taken()) {
            thread::yield_now();
        }
    }

    fn so_far(&self) -> Vec<Event> {
        self.events.try_iter().collect()
    }
}

#[test]
fn few_buffered_records_are_stored_when_the_call_returns() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let room = rig.try_load("b", Durability::Buffered).unwrap();
    rig.idle();
    for seq in 1..=3 {
        rig.append(&room, seq);
        assert_eq!(rig.so_far(), [Event::Write, Event::Committed(room.room.0, seq)]);
    }
    assert_eq!(rig.store.budget().records(), 0);
    // A sync that is asked for later stands behind them.
    rig.flush();
    rig.expect(&[Event::Sync, Event::Flushed(Ok(()))]);
    rig.store.close().unwrap();
    assert_eq!(Rig::open(dir.path()).try_load("b", Durability::Buffered).unwrap().tail, 3);
}

/// A writer without a thread: what is in its queue stays there until [`step`](Still::step).
struct Still {
    shared: Shared,
    queue: Queue<Box<Queued>>,
    entries: Entries<Box<Queued>>,
    waiting: WaitingCount,
    controls: Controls,
    budget: Arc<Budget>,
    events: Receiver<Event>,
    tell: Sender<Event>,
    faults: Sender<Fault>,
    _dir: TempDir,
}

impl Still {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ((tell, events), (faults, due)) = (channel(), channel());
        let (db, age) = db::open(&StoreConfig::new(dir.path())).unwrap();
        let counters = recover::begin(&db, age, None).unwrap();
        let disk = Box::new(Faulty { db: db.clone(), faults: due, fault: None, events: tell.clone() });
        let writer = Writer::new(db, disk, counters, 9, Poison::default(), Arc::default());
        let (queue, entries) = bounded(99);
        let waiting = WaitingCount::default();
        let (shared, controls, budget) =
            (Shared::new(writer, waiting.clone()), Controls::default(), Budget::new(999, 9_999));
        Self { shared, queue, entries, waiting, controls, budget, events, tell, faults, _dir: dir }
    }

    /// A room that is loaded.
    fn room(&self) -> Loaded {
        self.room_of("b", Durability::Buffered)
    }

    fn room_of(&self, name: &str, durability: Durability) -> Loaded {
        let (told, loaded) = channel();
        let create = Some(RoomOptions { durability, ..RoomOptions::default() });
        let load = Load { name: name.parse().unwrap(), create };
        let reply = Once::new(Box::new(move |loaded| told.send(loaded).unwrap()));
        self.put(Entry::Load(self.controls.take().unwrap(), load, reply));
        self.step();
        loaded.try_recv().unwrap().unwrap()
    }

    fn put(&self, entry: Entry) {
        assert!(self.queue.try_send(Box::new(Queued::new(entry, &self.waiting))).is_ok());
    }

    fn step(&self) {
        if let Ok(first) = self.entries.try_recv() {
            self.shared.turn(first, &self.entries);
        }
    }

    fn an_append(&self, room: &Loaded, seq: Seq, payload: &[u8]) -> Append {
        let (place, commits) = (self.budget.take(1).unwrap(), Arc::new(Teller(self.tell.clone())));
        an_append(room, seq, payload, place, commits)
    }

    fn pending(&self, room: &Loaded, seq: Seq) -> PendingAppend {
        PendingAppend::new(self.an_append(room, seq, b""))
    }

    /// Appends as the store does. Returns whether it is done.
    fn append(&self, room: &Loaded, seq: Seq) -> bool {
        self.append_all(vec![self.pending(room, seq)])
    }

    fn append_all(&self, appends: Vec<PendingAppend>) -> bool {
        match self.shared.append(appends, &self.queue) {
            Ok(()) => true,
            Err(appends) => {
                self.put(Entry::Appends(appends));
                false
            }
        }
    }

    #[track_caller]
    fn expect(&self, want: &[Event]) {
        assert_eq!(self.events.try_iter().collect::<Vec<_>>(), want);
    }
}

use Event::{Committed, Failed, Slow, Sync, Write};

#[test]
fn what_may_take_long_is_left_to_the_writers_thread() {
    #[track_caller]
    fn check(still: &Still, want: bool, appends: Vec<Append>) {
        assert_eq!(still.append_all(appends.into_iter().map(PendingAppend::new).collect()), want);
        still.step();
        assert_eq!(still.budget.records(), 0);
    }
    let still = Still::new();
    let (b, s) = (still.room(), still.room_of("s", Durability::Synced));
    let upto = |first: Seq, count: usize, payload: &[u8]| {
        (first..).take(count).map(|seq| still.an_append(&b, seq, payload)).collect::<Vec<_>>()
    };
    check(&still, true, upto(1, 1, b""));
    check(&still, true, upto(2, INLINE_APPENDS_MAX, b""));
    check(&still, false, vec![still.an_append(&s, 1, b"")]);
    check(&still, false, vec![still.an_append(&b, 18, b""), still.an_append(&s, 2, b"")]);
    let bytes = |payload_bytes| vec![b'x'; payload_bytes];
    check(&still, true, upto(19, 2, &bytes(INLINE_BYTES_MAX / 2 - 200)));
    check(&still, false, upto(21, 2, &bytes(INLINE_BYTES_MAX / 2)));

    let many = |first: Seq, count: usize| {
        let parts: Vec<_> = upto(first, count, b"");
        let frames: Vec<_> = parts.iter().map(|append| append.frames.clone()).collect();
        let mut append = still.an_append(&b, first, b"");
        let mut end = 0;
        append.records = parts.into_iter().flat_map(|append| append.records).collect();
        for (record, frame) in append.records.iter_mut().zip(&frames) {
            end += u32::try_from(frame.len()).unwrap();
            record.end = end;
        }
        append.frames = frames.concat().into();
        vec![append]
    };
    check(&still, true, many(23, INLINE_RECORDS_MAX));
    check(&still, false, many(87, INLINE_RECORDS_MAX + 1));

    let next = 87 + INLINE_RECORDS_MAX as u64 + 1;
    check(&still, false, upto(next, INLINE_APPENDS_MAX + 1, b""));
    let next = next + INLINE_APPENDS_MAX as u64 + 1;
    for at in 0..=BUSY_HANDOVERS {
        check(&still, at == BUSY_HANDOVERS, upto(next + at as u64, 1, b""));
    }

    // A change reads what it rewrites. Whether this one is sound is asked later.
    let last = next + BUSY_HANDOVERS as u64;
    let mut change = still.an_append(&b, last + 1, b"");
    let frame = change.frames.clone();
    change.rewrites.push(Rewrite { seq: 1, revision: last + 1, notes: frame.slice(..0), frame });
    check(&still, false, vec![change]);
    let mut told = still.events.try_iter();
    assert!(told.any(|event| event == Committed(b.room.0, last)), "all before it were sound");
}

#[test]
fn an_append_does_not_overtake_an_append_of_its_room() {
    let still = Still::new();
    let room = still.room();
    let number = room.room.0;
    still.events.try_iter().for_each(drop);
    still.put(Entry::Appends(vec![still.pending(&room, 1)]));
    assert!(!still.append(&room, 2), "the first one waits");
    // As the thread does: between the queue and the lock it is in neither.
    let first = still.entries.try_recv().unwrap();
    let second = still.entries.try_recv().unwrap();
    assert!(!still.append(&room, 3), "the first two are on their way");
    still.expect(&[]);
    still.shared.turn(first, &bounded(1).1);
    still.expect(&[Write, Committed(number, 1)]);
    still.shared.turn(second, &still.entries);
    still.expect(&[Write, Committed(number, 3)]);
    assert!(still.append(&room, 4));
    still.expect(&[Write, Committed(number, 4)]);
}

#[test]
fn an_append_does_not_overtake_whatever_else_was_asked_before() {
    fn entry(kind: usize, room: &Loaded, slot: pending::Control) -> Option<Entry> {
        let (number, generation) = (room.room, room.generation);
        let name = || "b".parse().unwrap();
        let change = RoomChange { name: name(), by: Asker::Host, at: 1, members_max: 9, what: What::Delete };
        let sweep = Sweep { now: Now { unix_ms: 1, mono_ms: 1 }, records_max: 9, dedupe_horizon_ms: 0 };
        let save = SaveMarks { room: number, generation, heard: 0, marks: Vec::new() };
        Some(match kind {
            0 => Entry::Load(slot, Load { name: name(), create: None }, Once::new(Box::new(|_| ()))),
            1 => Entry::Change(slot, change, Once::new(Box::new(|_| ()))),
            2 => Entry::Marks(slot, save, Once::new(Box::new(|_| ()))),
            3 => Entry::Flush(slot, Once::new(Box::new(|_| ()))),
            4 => Entry::Sweep(slot, sweep, Once::new(Box::new(|_| ()))),
            5 => Entry::Trim(
                slot,
                Trim { room: number, generation, first: 1, bytes_max: 0 },
                Once::new(Box::new(|_| ())),
            ),
            _ => return None,
        })
    }
    let mut kinds = 0;
    loop {
        let still = Still::new();
        let room = still.room();
        let Some(entry) = entry(kinds, &room, still.controls.take().unwrap()) else { break };
        let ends = matches!(entry, Entry::Load(..) | Entry::Change(..));
        assert!(still.append(&room, 1));
        still.put(entry);
        still.events.try_iter().for_each(drop);
        assert!(!still.append(&room, 2), "kind {kinds}");
        still.expect(&[]);
        still.step();
        let told: Vec<_> = still.events.try_iter().filter(|event| !matches!(event, Write | Sync)).collect();
        let number = room.room.0;
        // What hands out a new generation, or deletes the room, fences the append that was asked for later.
        let want = if ends { Failed(number, StoreError::Superseded(room.generation)) } else { Committed(number, 2) };
        assert_eq!(told, [want], "kind {kinds}");
        kinds += 1;
    }
    assert_eq!(kinds, 6, "each kind of entry but appends");
}

#[test]
fn what_is_slowed_down_is_done_by_the_thread_before_all_that_comes_later() {
    let still = Still::new();
    let room = still.room();
    let number = room.room.0;
    still.events.try_iter().for_each(drop);
    still.faults.send(Fault::Slow).unwrap();
    assert!(still.append(&room, 1), "taken");
    still.expect(&[Slow]);
    assert_eq!(still.budget.records(), 1, "it is not done");
    assert_eq!(still.queue.len(), 1, "the thread is woken");
    assert!(!still.append(&room, 2));
    still.step();
    still.expect(&[Write, Committed(number, 1), Committed(number, 2)]);
    assert_eq!(still.budget.records(), 0);
}

#[test]
fn what_is_slowed_down_is_told_though_nothing_else_comes() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::open(dir.path());
    let room = rig.try_load("b", Durability::Buffered).unwrap();
    rig.idle();
    rig.faults.send(Fault::Slow).unwrap();
    rig.append(&room, 1);
    rig.expect(&[Slow, Write, Committed(room.room.0, 1)]);
}

#[test]
fn an_append_of_an_older_generation_is_refused_at_once_too() {
    let still = Still::new();
    let old = still.room();
    let new = still.room();
    assert!(new.generation > old.generation);
    still.events.try_iter().for_each(drop);
    assert!(still.append(&old, 1));
    still.expect(&[Failed(old.room.0, StoreError::Superseded(old.generation))]);
    assert!(still.append(&new, 1));
    still.expect(&[Write, Committed(new.room.0, 1)]);
}

#[test]
fn what_fails_at_once_poisons_the_store() {
    for (fault, why) in [(Fault::Write, "a write failed: "), (Fault::Panic, "the store's writer panicked")] {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::open(dir.path());
        let room = rig.try_load("b", Durability::Buffered).unwrap();
        rig.idle();
        rig.faults.send(fault).unwrap();
        rig.append(&room, 1);
        assert!(rig.store.poisoned().unwrap().starts_with(why));
        let told = rig.so_far();
        assert!(matches!(&told[..], [Write, Failed(_, StoreError::Poisoned(_))]), "{told:?}");
        check_poisoned(&rig, &room);
    }
}

#[test]
fn after_the_end_nothing_is_written() {
    let still = Still::new();
    let room = still.room();
    let Still { shared, queue, entries, tell, events, budget, .. } = still;
    drop(queue);
    assert_eq!(shared.run(&entries), Ok(()));
    let (late, _held) = bounded(1);
    events.try_iter().for_each(drop);
    let append = an_append(&room, 1, b"", budget.none(), Arc::new(Teller(tell)));
    assert!(shared.append(vec![PendingAppend::new(append)], &late).is_err());
    assert!(!events.try_iter().any(|event| event == Write));
}

/// Appends of some rooms, few and many at a time, between everything else that passes through the writer.
#[test]
fn at_random_every_room_hears_of_its_records_in_order_once() {
    const SEEDS: u64 = 4;
    const STEPS: usize = 400;
    for seed in 0..SEEDS {
        let mut chance = Chance::new(seed);
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::open(dir.path());
        let levels = [Durability::Buffered, Durability::Buffered, Durability::Synced];
        let mut rooms: Vec<_> = ["a", "b", "s"]
            .into_iter()
            .zip(levels)
            .map(|(name, level)| (name, level, rig.try_load(name, level).unwrap(), 0))
            .collect();
        let mut flushed = 1;
        for _ in 0..STEPS {
            match chance.below(12) {
                0 => rig.faults.send(Fault::Slow).unwrap(),
                1 => {
                    rig.flush();
                    flushed += 1;
                }
                2 => rig.sweep(1),
                3 => {
                    let (name, level, room, tail) = &mut rooms[chance.below(3)];
                    *room = rig.try_load(name, *level).unwrap();
                    assert_eq!(room.tail, *tail, "seed {seed}: a load sees all that was appended before it");
                }
                _ => {
                    let mut appends = Vec::new();
                    let (appends_max, among) =
                        (if chance.one_in(50) { 40 } else { 3 }, if chance.one_in(5) { 3 } else { 2 });
                    for _ in 0..=chance.below(appends_max) {
                        let (_, _, room, tail) = &mut rooms[chance.below(among)];
                        *tail += 1;
                        let commits = Arc::new(Teller(rig.tell.clone()));
                        appends.push(an_append(room, *tail, b"x", rig.store.budget().none(), commits));
                    }
                    rig.store.append(appends);
                }
            }
        }
        rig.flush();
        let mut told = BTreeMap::new();
        // Loads' and sweeps' answers, and flushes' of before, are among them: the last flush is behind all.
        let mut flushes = 0;
        while flushes < flushed {
            let event = rig.next();
            flushes += usize::from(matches!(event, Event::Flushed(_)));

            match event {
                Committed(room, upto) => {
                    let before = told.insert(room, upto).unwrap_or_default();
                    assert!(before < upto, "seed {seed}: room {room} was told {upto} after {before}");
                }
                Failed(room, error) => panic!("seed {seed}: room {room}: {error}"),
                _ => {}
            }
        }
        for (name, _, room, tail) in rooms {
            assert_eq!(told.get(&room.room.0).copied().unwrap_or_default(), tail, "seed {seed}, room {name}");
        }
    }
}
