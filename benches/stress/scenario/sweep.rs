//! Whether publishing waits for the sweep: the same publishers in a server that has nothing to delete, and in one where very
//! many records expire at one moment.

use std::{
    io,
    path::Path,
    sync::{Arc, mpsc},
    thread::sleep,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::BytesMut;
use clap::Args;
use parlor::{
    protocol::{
        DeviceTag, Extensions, encode,
        message::{ContentType, Deliver, Durability, RecordKind},
    },
    storage::{RocksStore, StoreConfig},
};
use parlor_actors::port::{
    Answer, Append, AppendRecord, Commits, DeviceKey, Load, Loaded, Outcome, RoomOptions, Store as _, StoreError,
};
use serde::Serialize;

use super::{
    Scenario,
    publishing::{Publishing, setup},
};
use crate::{
    options::{Common, at_least_one, window},
    peers::{PAYLOAD, Peer, Role, Storage},
    server::Server,
    stats::{Figure, figure, quantiles_ms},
};

/// Records that are written at a time.
const BATCH: u64 = 1_000;

/// Between the last record written and the moment at which all expire: the server starts and clients connect.
const PREPARATION_MS: u64 = 5_000;

/// Expiries at its multiples are due at once, others at the next one.
const DUE_EVERY_MS: u64 = 1_024;

/// By then the server's timer has begun the sweep.
const BEGUN_MS: u64 = 1_000;

/// Where the server keeps its rooms, in its directory.
const DATA: &str = "rooms";

/// The load.
#[derive(Clone, Debug, Args, Serialize)]
#[group(skip)]
pub(crate) struct Sweep {
    /// How many records expire.
    #[arg(long, default_value_t = 10_000_000, value_parser = at_least_one::<u64>)]
    expired: u64,
    /// In how many rooms they lie.
    #[arg(long, default_value_t = 100, value_parser = at_least_one::<u64>)]
    rooms: u64,
    /// How many publish, to other rooms.
    #[arg(long, default_value_t = 64, value_parser = at_least_one::<u32>)]
    publishers: u32,
    /// Messages that each has in flight.
    #[arg(long, default_value_t = 1, value_parser = window::<usize>)]
    window: usize,
}

impl Scenario for Sweep {
    const NAME: &'static str = "sweep";
    const PEERS: &'static [&'static str] = &["parlor"];

    fn title(&self) -> String {
        let Self { expired, rooms, publishers, window } = self;
        format!(
            "{publishers} publishers × {window} in flight, while {expired} records of {rooms} rooms expire, and without"
        )
    }

    fn storage(&self, wanted: Storage, _parlor: bool) -> Storage {
        wanted
    }

    fn offered<P: Peer>(&self, peer: &P) -> bool {
        peer.session(0, Role::Publisher).is_some()
    }

    fn measure<P: Peer>(&self, peer: &P, storage: Storage, common: &Common) -> io::Result<Vec<Figure>> {
        let mut server = Server::start(peer, storage, common)?;
        server.stop()?;
        let [calm, _] = self.publish(peer, &mut server, common, 0)?;
        let at = self.fill(&server.dir().join(DATA))?;
        let [beside, busy] = self.publish(peer, &mut server, common, at)?;
        let swept = self.swept(&server.dir().join(DATA))?;
        if swept == 0 {
            return Err(io::Error::other("nothing was swept meanwhile: there was nothing to measure"));
        }
        Ok(vec![
            figure("p99 ms, nothing to sweep", calm),
            figure("p99 ms, beside the sweep", beside),
            figure("p99, beside to without", beside / calm),
            figure("swept when it ended, %", 100.0 * swept as f64 / self.expired as f64),
            figure("server CPU %, beside", busy),
        ])
    }
}

impl Sweep {
    /// Publishes from a moment on; returns the p99 in milliseconds and the server's CPU in percent. The server is stopped.
    fn publish<P: Peer>(&self, peer: &P, server: &mut Server, common: &Common, at: u64) -> io::Result<[f64; 2]> {
        server.start_again()?;
        let _setup = setup(peer, server)?;
        let mut publishing = Publishing::connect(peer, server, self.publishers)?;
        // Warms up before the moment, not after it.
        publishing.store(u64::from(self.publishers) * 50, self.window)?;
        let left = at.saturating_sub(unix_ms());
        if at > 0 && left == 0 {
            return Err(io::Error::other("the records expired before everything was ready"));
        }
        sleep(Duration::from_millis(left + if at > 0 { BEGUN_MS } else { 0 }));
        let measured = publishing.measure(self.window, server, &Common { warm: 0.0, ..common.clone() })?;
        drop(publishing);
        server.stop()?;
        let busy = 100.0 * measured.spent.server / measured.spent.seconds;
        Ok([quantiles_ms(&measured.latency)[1], busy])
    }

    /// Writes the records into the stopped server's store; returns when they expire.
    fn fill(&self, dir: &Path) -> io::Result<u64> {
        // Slower than any disk that is worth measuring.
        let at = (unix_ms() + PREPARATION_MS + self.expired / 100).next_multiple_of(DUE_EVERY_MS);
        let store = RocksStore::open(StoreConfig::new(dir)).map_err(io::Error::other)?;
        for number in 0..self.rooms {
            let room = load(&store, number)?;
            let records = self.expired / self.rooms + u64::from(number < self.expired % self.rooms);
            for first in (1..=records).step_by(BATCH as usize) {
                append(&store, &room, first, records.min(first + BATCH - 1), at)?;
            }
        }
        store.close().map_err(io::Error::other)?;
        Ok(at)
    }

    /// How many records the stopped server's store has no more.
    fn swept(&self, dir: &Path) -> io::Result<u64> {
        let store = RocksStore::open(StoreConfig::new(dir)).map_err(io::Error::other)?;
        (0..self.rooms).map(|number| load(&store, number).map(|room| room.first - 1)).sum()
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn load(store: &RocksStore, number: u64) -> io::Result<Loaded> {
    let create = Some(RoomOptions { durability: Durability::Buffered, ..RoomOptions::default() });
    let name = format!("old-{number}").parse().map_err(io::Error::other)?;
    let (told, answer) = mpsc::channel();
    store.load(Load { name, create }, Box::new(move |loaded| drop(told.send(loaded))));
    answer.recv().map_err(io::Error::other)?.map_err(io::Error::other)
}

struct Told(mpsc::Sender<Result<(), StoreError>>);

impl Commits for Told {
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>) {
        let _ = self.0.send(outcomes.into_iter().try_for_each(|outcome| outcome.stored.map(drop)));
    }
}

fn append(store: &RocksStore, room: &Loaded, first: u64, last: u64, expires: u64) -> io::Result<()> {
    let (mut frames, mut records) = (BytesMut::new(), Vec::new());
    let device = DeviceKey { user: "somebody".parse().map_err(io::Error::other)?, tag: DeviceTag(1) };
    // Of a lifetime so short that the sweep is due at that very moment.
    let time = expires - 1_000;
    let mut place = store.budget().none();
    for seq in first..=last {
        let deliver = Deliver {
            room: room.room,
            seq,
            time,
            sender: "somebody",
            device_tag: device.tag,
            nonce: seq,
            kind: RecordKind::MESSAGE,
            refers_to: 0,
            expires,
            count: seq,
            content_type: ContentType::OPAQUE,
            payload: &[b'x'; PAYLOAD],
            extensions: Extensions::default(),
        };
        encode(0, &deliver, &mut frames);
        place.merge(store.budget().take(PAYLOAD).ok_or_else(|| io::Error::other("the store's queue is full"))?);
        let answer = Answer { nonce: seq, seq, time, content_hash: seq, count: seq };
        records.push(AppendRecord {
            end: frames.len() as u32,
            expires,
            device: device.clone(),
            slot: (seq % 128) as u8,
            answer,
        });
    }
    let (told, answer) = mpsc::channel();
    store.append(vec![Append {
        room: room.room,
        generation: room.generation,
        epoch: room.epochs.last().map(|start| start.epoch).unwrap_or_default(),
        durability: Durability::Buffered,
        first,
        frames: frames.freeze(),
        records,
        rewrites: Vec::new(),
        place,
        commits: Arc::new(Told(told)),
    }]);
    answer.recv().map_err(io::Error::other)?.map_err(io::Error::other)
}
