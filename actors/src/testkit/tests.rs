use parlor_protocol::{
    DeviceTag, Extensions,
    message::{ContentType, Durability, RecordKind},
};

use super::*;
use crate::port::{AppendRecord, Commits, Outcome, Store, StoreError};

struct Told(Mutex<Vec<Result<Seq, StoreError>>>);

impl Commits for Told {
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>) {
        self.0.lock().extend(outcomes.into_iter().map(|outcome| outcome.stored.map(|commit| commit.upto)));
    }
}

fn load(store: &MemStore, durability: Durability) -> Loaded {
    let (loaded, name) = (Arc::new(Mutex::new(None)), "room".parse().unwrap());
    let answer = loaded.clone();
    let create = Some(RoomOptions { durability, ..RoomOptions::default() });
    store.load(Load { name, create }, Box::new(move |loaded| *answer.lock() = Some(loaded.unwrap())));
    store.step(usize::MAX);
    loaded.lock().take().unwrap()
}

fn append(store: &MemStore, to: &Loaded, seq: Seq, told: &Arc<Told>) {
    let deliver = Deliver {
        room: to.room,
        seq,
        time: seq,
        sender: "ann",
        device_tag: DeviceTag(1),
        nonce: seq,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        expires: 0,
        count: seq,
        content_type: ContentType(0),
        payload: b"x",
        extensions: Extensions::default(),
    };
    let frames = parlor_protocol::to_bytes(0, &deliver);
    let device = DeviceKey { user: "ann".parse().unwrap(), tag: DeviceTag(1) };
    let answer = Answer { nonce: seq, seq, time: seq, content_hash: 0, count: seq };
    #[expect(clippy::cast_possible_truncation, reason = "a small frame")]
    let records = vec![AppendRecord { end: frames.len() as u32, expires: 0, device, slot: 0, answer }];
    store.append(vec![Append {
        room: to.room,
        generation: to.generation,
        epoch: to.epochs.last().unwrap().epoch,
        durability: to.options.durability,
        first: seq,
        frames,
        records,
        rewrites: Vec::new(),
        place: store.budget().take(1).unwrap(),
        commits: told.clone(),
    }]);
}

fn told() -> Arc<Told> {
    Arc::new(Told(Mutex::default()))
}

#[test]
fn a_load_sees_the_appends_before_it_and_fences_those_behind_it() {
    let store = MemStore::new(1, 8);
    let (old, answers) = (load(&store, Durability::Synced), told());
    append(&store, &old, 1, &answers);
    assert_eq!(store.budget().records(), 1, "it waits");
    let new = load(&store, Durability::Synced);
    assert_eq!((new.tail, new.epochs == old.epochs), (1, true));
    append(&store, &old, 2, &answers);
    store.run();
    assert_eq!(*answers.0.lock(), [Ok(1), Err(StoreError::Superseded(old.generation))]);
    assert_eq!(store.budget().records(), 0);
}

#[test]
fn a_crash_loses_nothing_that_was_told_and_a_buffered_room_begins_anew_after_a_loss_of_power() {
    let mut lost = 0;
    for seed in 0..50 {
        let store = MemStore::new(seed, 8);
        let (old, answers) = (load(&store, Durability::Buffered), told());
        append(&store, &old, 1, &answers);
        store.run();
        append(&store, &old, 2, &answers);
        store.crash(Crash::Process);
        assert_eq!((store.queued(), store.budget().records()), (0, 0));
        let new = load(&store, Durability::Buffered);
        assert!((1..=2).contains(&new.tail) && new.epochs == old.epochs, "{new:?}");
        append(&store, &new, new.tail + 1, &answers);
        store.run();
        store.crash(Crash::Power);
        let after = load(&store, Durability::Buffered);
        assert!(new.tail <= after.tail && after.tail <= new.tail + 1, "a load syncs what it found");
        assert_eq!(after.epochs[1].first, after.tail + 1);
        lost += new.tail + 1 - after.tail;
    }
    assert!((5..45).contains(&lost), "chance loses some and keeps some: {lost} of 50");
}

#[test]
fn a_turn_that_fails_poisons_the_store() {
    let store = MemStore::new(1, 8);
    let (room, answers) = (load(&store, Durability::Synced), told());
    store.faults(|faults| faults.fail_next_turn = true);
    append(&store, &room, 1, &answers);
    append(&store, &room, 2, &answers);
    store.step(1);
    store.step(1);
    assert!(matches!(answers.0.lock()[..], [Err(StoreError::Poisoned(_)), Err(StoreError::Poisoned(_))]));
}
