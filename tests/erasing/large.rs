//! A large store, filled without an engine.

use std::{
    path::Path,
    sync::{Arc, mpsc::channel},
};

use bytes::BytesMut;
use parlor::storage::{RocksStore, StoreConfig};
use parlor_actors::port::{
    Answer, Append, AppendRecord, Commits, DeviceKey, Load, Loaded, Outcome, RoomOptions, Store, StoreError,
};
use parlor_protocol::{
    DeviceTag, Extensions, Seq, encode,
    message::{ContentType, Deliver, Durability, RecordKind},
};

/// How many rooms there are.
const ROOMS: u64 = 100;

/// Every so many records are of the user to erase.
const HIS_ONE_IN: u64 = 500;

struct Teller(std::sync::mpsc::Sender<Result<Seq, StoreError>>);

impl Commits for Teller {
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            let _ = self.0.send(outcome.stored.map(|commit| commit.upto));
        }
    }
}

/// Fills a store with records of about 150 bytes that do not compress, all rooms at a time. Those of `ann` say `secret`.
pub(crate) fn fill(data: &Path, records: u64, secret: &str) {
    let store = RocksStore::open(StoreConfig::new(data)).unwrap();
    let load = |number: u64| -> Loaded {
        let create = Some(RoomOptions { durability: Durability::Buffered, ..RoomOptions::default() });
        let (told, answer) = channel();
        let name = format!("room {number}").parse().unwrap();
        store.load(Load { name, create }, Box::new(move |loaded| told.send(loaded).unwrap()));
        answer.recv().unwrap().unwrap()
    };
    let rooms: Vec<Loaded> = (0..ROOMS).map(load).collect();
    let (tell, told) = channel();
    let teller = Arc::new(Teller(tell));
    let mut chance = 1_u64;
    for first in (1..=records / ROOMS).step_by(100) {
        for room in &rooms {
            append(&store, room, first, secret, &mut chance, teller.clone());
        }
        for _ in &rooms {
            told.recv().unwrap().unwrap();
        }
    }
}

fn append(store: &RocksStore, room: &Loaded, first: Seq, secret: &str, chance: &mut u64, commits: Arc<Teller>) {
    let (mut frames, mut records) = (BytesMut::new(), Vec::new());
    let mut place = store.budget().none();
    for seq in first..first + 100 {
        let sender = if (seq + room.room.0).is_multiple_of(HIS_ONE_IN) { "ann" } else { "bob" };
        let mut payload = Vec::with_capacity(100);
        while payload.len() < 100 {
            *chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            payload.extend((*chance >> 16).to_le_bytes());
        }
        if sender == "ann" {
            payload[..secret.len()].copy_from_slice(secret.as_bytes());
        }
        let deliver = Deliver {
            room: room.room,
            seq,
            time: seq,
            sender,
            device_tag: DeviceTag(7),
            nonce: seq,
            kind: RecordKind::MESSAGE,
            refers_to: 0,
            expires: 0,
            count: seq,
            content_type: ContentType::OPAQUE,
            payload: &payload,
            extensions: Extensions::default(),
        };
        encode(0, &deliver, &mut frames);
        place.merge(store.budget().take(1).unwrap());
        let device = DeviceKey { user: sender.parse().unwrap(), tag: DeviceTag(7) };
        let answer = Answer { nonce: seq, seq, time: seq, content_hash: seq, count: seq };
        records.push(AppendRecord { end: u32::try_from(frames.len()).unwrap(), expires: 0, device, slot: 0, answer });
    }
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
        commits,
    }]);
}
