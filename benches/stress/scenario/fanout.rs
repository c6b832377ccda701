//! W1: rooms of members, some of which publish; every member receives every message of its room.
//!
//! It is a closed loop: a publisher is a member of its room and has at most `window` messages in flight, and a message
//! leaves the window when the last member has received it. So at full speed latency is queueing, set by the window: read
//! it in the paced runs. Time is stamped when a publish is encoded and read once per socket read.

use std::{
    io,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{CONCURRENCY, CONNECT_LIMIT, Scenario, disk::fdatasync_ms, sessions, too_many, traffic::Run};
use crate::{
    client::Client,
    options::{Common, at_least_one, rate, window},
    peers::{Peer, Role, Storage},
    server::Server,
    stats::{Figure, Meter, Spent, figure, quantiles_ms},
};

/// Shapes with a name. Options next to them replace a part.
#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// 1 room × 1,000 members, 4 publishers × window 16.
    W1a,
    /// 100 rooms × 50 members, 1 publisher each × window 16.
    W1b,
    /// 1,000 rooms × 10 members, 1 publisher each × window 8.
    W1c,
    /// 100 rooms × 50 members, paced: 400 publishes/s, 20,000 deliveries/s.
    W1e,
}

/// The load.
#[derive(Clone, Debug, Args, Serialize)]
#[group(skip)]
pub(crate) struct Fanout {
    /// A shape with a name.
    #[arg(value_enum, default_value = "w1a")]
    shape: Shape,
    /// How many rooms.
    #[arg(long, value_parser = at_least_one::<usize>)]
    rooms: Option<usize>,
    /// Members of each room.
    #[arg(long, value_parser = at_least_one::<usize>)]
    members: Option<usize>,
    /// How many of a room's members publish.
    #[arg(long, value_parser = at_least_one::<usize>)]
    pubs: Option<usize>,
    /// Messages that each publisher has in flight at most.
    #[arg(long, value_parser = window::<usize>)]
    window: Option<usize>,
    /// Publishes per second over all publishers; 0: as fast as it goes.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
}

/// The load with nothing left open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) rooms: usize,
    pub(super) members: usize,
    pub(super) pubs: usize,
    pub(super) window: usize,
    pub(super) rate: f64,
}

impl Load {
    /// What cannot work of it.
    pub(super) fn refused(&self) -> Option<String> {
        let Self { rooms, members, pubs, .. } = *self;
        if pubs > members {
            return Some(format!("{pubs} members cannot publish in a room that has {members}: at most {members} can"));
        }
        too_many(rooms.checked_mul(members))
    }
}

impl Fanout {
    fn load(&self) -> Load {
        let (rooms, members, pubs, window, rate) = match self.shape {
            Shape::W1a => (1, 1_000, 4, 16, 0.0),
            Shape::W1b => (100, 50, 1, 16, 0.0),
            Shape::W1c => (1_000, 10, 1, 8, 0.0),
            Shape::W1e => (100, 50, 1, 64, 400.0),
        };
        Load {
            rooms: self.rooms.unwrap_or(rooms),
            members: self.members.unwrap_or(members),
            pubs: self.pubs.unwrap_or(pubs),
            window: self.window.unwrap_or(window),
            rate: self.rate.unwrap_or(rate),
        }
    }
}

impl Scenario for Fanout {
    const NAME: &'static str = "fanout";
    const PEERS: &'static [&'static str] = &[
        "parlor",
        "raw-mio",
        "raw-tokio",
        "raw-local",
        "raw-sync",
        "redis",
        "nats",
        "rumqttd",
        "mosquitto",
        "ejabberd",
    ];

    fn title(&self) -> String {
        let Load { rooms, members, pubs, window, rate } = self.load();
        let pace = if rate > 0.0 { format!(", paced: {rate} publishes/s") } else { String::new() };
        format!("{rooms} rooms × {members} members, {pubs} publishers each × window {window}{pace}")
    }

    fn refused(&self) -> Option<String> {
        self.load().refused()
    }

    fn storage(&self, wanted: Storage, parlor: bool) -> Storage {
        if parlor { wanted } else { Storage::Memory }
    }

    fn offered<P: Peer>(&self, peer: &P) -> bool {
        peer.session(0, Role::Member { room: 0 }).is_some()
    }

    fn measure<P: Peer>(&self, peer: &P, storage: Storage, common: &Common) -> io::Result<Vec<Figure>> {
        let load = self.load();
        let server = Server::start(peer, storage, common)?;
        let Fanned { deliveries, publishes, quantiles: [p50, p99, p999], skipped, spent } =
            fan_out(peer, &server, &load, common)?;
        let mut figures = vec![
            figure("deliveries/s", deliveries / spent.seconds),
            figure("publishes/s", publishes / spent.seconds),
            figure("p50 ms", p50),
            figure("p99 ms", p99),
            figure("p99.9 ms", p999),
            figure("server CPU s per M deliveries", spent.server / (deliveries / 1e6)),
        ];
        figures.extend(spent.shares());
        if load.rate > 0.0 {
            figures.push(figure("publishes skipped", skipped as f64));
            figures.push(figure("fdatasync p50 ms", fdatasync_ms(server.dir())?));
        }
        Ok(figures)
    }
}

/// What came of a fan-out.
pub(super) struct Fanned {
    /// Messages that came to a member.
    pub(super) deliveries: f64,
    /// Messages that came to all members.
    pub(super) publishes: f64,
    /// Latency in milliseconds: p50, p99, p99.9.
    quantiles: [f64; 3],
    /// Messages that were due while the publisher's window was full.
    skipped: u64,
    /// What it cost.
    pub(super) spent: Spent,
}

/// Measures a fan-out on a running server, and waits until all that was published has come to all.
pub(super) fn fan_out<P: Peer>(peer: &P, server: &Server, load: &Load, common: &Common) -> io::Result<Fanned> {
    let room = |id: u32| id / load.members as u32;
    let sessions = sessions(peer, 0..(load.rooms * load.members) as u32, |id| Role::Member { room: room(id) })?;
    let client = Client::connect(server.addr, sessions, CONCURRENCY, CONNECT_LIMIT)?;
    let mut run = Run::new(load, client, Instant::now());
    run.go_on(load, Duration::from_secs_f64(common.warm))?;
    run.flight.begin_measuring();
    run.flight.counted.start = run.now();
    let meter = Meter::begin(server)?;
    run.go_on(load, Duration::from_secs_f64(common.secs))?;
    let spent = meter.end(server)?;
    run.flight.counted.end = run.now();
    let flight = &run.flight;
    let (deliveries, publishes, skipped) = (flight.deliveries as f64, flight.completed as f64, flight.skipped);
    if publishes == 0.0 {
        return Err(io::Error::other("in the measured time no message came to all: choose more --secs"));
    }
    // What was on its way at the end belongs to it: a server that stalls there would else look like a fast one.
    run.drain()?;
    let quantiles = quantiles_ms(&run.flight.latency);
    Ok(Fanned { deliveries, publishes, quantiles, skipped, spent })
}
