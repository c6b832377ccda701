//! The store's writer, through the port that the rooms use.

use std::sync::{
    Arc,
    mpsc::{Receiver, Sender, channel},
};

use parlor::storage::{RocksStore, StoreConfig};
use parlor_actors::port::{
    Answer, Append, AppendRecord, Commits, DeviceKey, Load, Loaded, Outcome, RoomOptions, Store as _,
};
use parlor_protocol::{DeviceTag, Seq, message::Durability};
use tempfile::TempDir;

use crate::parts::codec;

/// A room as its channel sees it.
struct Room {
    loaded: Loaded,
    next: Seq,
}

/// A store in a directory of its own, and some of its rooms.
pub(crate) struct Rooms {
    rooms: Vec<Room>,
    device: DeviceKey,
    answers_max: u64,
    teller: Arc<Teller>,
    told: Receiver<usize>,
    store: RocksStore,
    _folder: TempDir,
}

struct Teller(Sender<usize>);

impl Commits for Teller {
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>) {
        assert!(outcomes.iter().all(|outcome| outcome.stored.is_ok()), "a sound store takes all: {outcomes:?}");
        // Nobody listens any more when a bench ends.
        let _ = self.0.send(outcomes.len());
    }
}

impl Rooms {
    /// A new store with so many rooms.
    pub(crate) fn new(count: usize, durability: Durability) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let store = RocksStore::open(StoreConfig::new(folder.path())).expect("a new store");
        let load = |number| {
            let (tell, told) = channel();
            let name = format!("room-{number}").parse().expect("a name");
            let create = Some(RoomOptions { durability, ..RoomOptions::default() });
            store.load(Load { name, create }, Box::new(move |loaded| tell.send(loaded).expect("somebody waits")));
            let loaded = told.recv().expect("every reply is called").expect("a new room");
            Room { next: loaded.tail + 1, loaded }
        };
        let rooms = (0..count).map(load).collect();
        let device = DeviceKey { user: "somebody".parse().expect("a name"), tag: DeviceTag(0x1234_5678_9abc_def0) };
        let answers_max = parlor_actors::limits::Limits::default().answers_per_device_max as u64;
        let (tell, told) = channel();
        Self { rooms, device, answers_max, teller: Arc::new(Teller(tell)), told, store, _folder: folder }
    }

    /// The next record of each room, as their channels append them at the end of a turn.
    pub(crate) fn turn(&mut self) -> Vec<Append> {
        let Self { rooms, device, answers_max, teller, store, .. } = self;
        let append = |room: &mut Room| {
            let seq = room.next;
            room.next += 1;
            let frames = codec::batch(room.loaded.room, seq, 1);
            let answer = Answer { nonce: seq, seq, time: seq, content_hash: seq, count: seq };
            let record = AppendRecord {
                end: u32::try_from(frames.len()).expect("a short frame"),
                expires: 0,
                device: device.clone(),
                slot: u8::try_from(seq % *answers_max).expect("few slots"),
                answer,
            };
            Append {
                room: room.loaded.room,
                generation: room.loaded.generation,
                epoch: room.loaded.epochs.last().expect("at least one").epoch,
                durability: room.loaded.options.durability,
                first: seq,
                place: store.budget().take(frames.len()).expect("nothing else waits"),
                frames,
                records: vec![record],
                rewrites: Vec::new(),
                commits: teller.clone(),
            }
        };
        rooms.iter_mut().map(append).collect()
    }

    /// Appends them and waits until all are committed.
    pub(crate) fn append(&self, turn: Vec<Append>) {
        let mut waiting = turn.len();
        self.store.append(turn);
        while waiting > 0 {
            waiting -= self.told.recv().expect("the teller is kept");
        }
    }
}
