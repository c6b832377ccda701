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

use super::{CONCURRENCY, CONNECT_LIMIT, Scenario, flight::Flight, not_offered};
use crate::{
    client::Client,
    options::Common,
    peers::{Event, Peer, Role, Session, Storage},
    server::Server,
    stats::{Figure, Meter, figure, quantiles_ms},
};

/// How long the messages in flight may take to arrive after the last was published.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

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
pub(crate) struct Fanout {
    /// A shape with a name.
    #[arg(value_enum, default_value = "w1a")]
    shape: Shape,
    /// How many rooms.
    #[arg(long)]
    rooms: Option<usize>,
    /// Members of each room.
    #[arg(long)]
    members: Option<usize>,
    /// How many of a room's members publish.
    #[arg(long)]
    pubs: Option<usize>,
    /// Messages that each publisher has in flight at most.
    #[arg(long)]
    window: Option<usize>,
    /// Publishes per second over all publishers; 0: as fast as it goes.
    #[arg(long)]
    rate: Option<f64>,
}

/// The load with nothing left open.
pub(super) struct Load {
    pub(super) rooms: usize,
    pub(super) members: usize,
    pub(super) pubs: usize,
    pub(super) window: usize,
    pub(super) rate: f64,
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

    fn storage(&self, wanted: Storage, parlor: bool) -> Storage {
        if parlor { wanted } else { Storage::Memory }
    }

    fn offered<P: Peer>(&self, peer: &P) -> bool {
        peer.session(0, Role::Member { room: 0 }).is_some()
    }

    fn measure<P: Peer>(&self, peer: &P, storage: Storage, common: &Common) -> io::Result<Vec<Figure>> {
        let load = self.load();
        let server = Server::start(peer, storage, common)?;
        let member = |id: usize| {
            let room = u32::try_from(id / load.members).ok()?;
            peer.session(u32::try_from(id).ok()?, Role::Member { room })
        };
        let sessions = (0..load.rooms * load.members).map(|id| member(id).ok_or_else(not_offered));
        let sessions = sessions.collect::<io::Result<Vec<_>>>()?;
        let client = Client::connect(server.addr, sessions, CONCURRENCY, CONNECT_LIMIT)?;
        let mut run = Run { flight: Flight::new(&load), client, start: Instant::now(), due: 0, touched: Vec::new() };

        let warm = Duration::from_secs_f64(common.warm);
        let end = warm + Duration::from_secs_f64(common.secs);
        run.until(&load, warm)?;
        run.flight.begin_measuring();
        let meter = Meter::begin(&server)?;
        run.until(&load, end)?;
        let spent = meter.end(&server)?;
        let flight = &run.flight;
        let (deliveries, completed) = (flight.deliveries as f64, flight.completed as f64);
        let [p50, p99, p999] = quantiles_ms(&flight.latency);
        let mut figures = vec![
            figure("deliveries/s", deliveries / spent.seconds),
            figure("publishes/s", completed / spent.seconds),
            figure("p50 ms", p50),
            figure("p99 ms", p99),
            figure("p99.9 ms", p999),
            figure("server CPU s per M deliveries", spent.server / (deliveries / 1e6)),
        ];
        figures.extend(spent.shares());
        if load.rate > 0.0 {
            figures.push(figure("publishes skipped", flight.skipped as f64));
        }
        run.drain()?;
        Ok(figures)
    }
}

struct Run<S> {
    flight: Flight,
    client: Client<S>,
    start: Instant,
    /// Publishes that the pace has asked for so far.
    due: u64,
    touched: Vec<usize>,
}

impl<S: Session> Run<S> {
    fn now(&self) -> u64 {
        nanos(self.start)
    }

    /// Publishes and receives until `end` after the start.
    fn until(&mut self, load: &Load, end: Duration) -> io::Result<()> {
        loop {
            let now = self.start.elapsed();
            if now >= end {
                return Ok(());
            }
            if load.rate > 0.0 {
                self.publish_due(load, now);
            } else {
                self.publish_ready();
            }
            for conn in self.touched.drain(..) {
                self.client.conns[conn].flush()?;
            }
            self.receive(Duration::from_millis(if load.rate > 0.0 { 1 } else { 20 }))?;
        }
    }

    /// Takes the messages that are due from the publishers in turn; a full window skips one.
    fn publish_due(&mut self, load: &Load, now: Duration) {
        let due = (now.as_secs_f64() * load.rate) as u64;
        for index in std::mem::replace(&mut self.due, due)..due {
            let publisher = index as usize % self.flight.publishers();
            if self.flight.free(publisher) == 0 {
                self.flight.skipped += 1;
                continue;
            }
            let stamp = self.now();
            self.publish(publisher, stamp);
        }
    }

    /// Fills the windows of all publishers that have room in theirs.
    fn publish_ready(&mut self) {
        for publisher in self.flight.take_ready() {
            let stamp = self.now();
            for _ in 0..self.flight.free(publisher) {
                self.publish(publisher, stamp);
            }
        }
    }

    fn publish(&mut self, publisher: usize, stamp: u64) {
        let (conn, payload) = self.flight.publish(publisher, stamp);
        self.client.conns[conn].publish(&payload);
        if self.touched.last() != Some(&conn) {
            self.touched.push(conn);
        }
    }

    fn receive(&mut self, timeout: Duration) -> io::Result<()> {
        let (client, flight, start) = (&mut self.client, &mut self.flight, self.start);
        client.wait(timeout)?;
        for &index in &client.ready {
            let mut now = None;
            let mut wrong = None;
            client.conns[index].receive(&mut client.scratch, |event| {
                if let Event::Delivery { payload, sender } = event {
                    let now = *now.get_or_insert_with(|| nanos(start));
                    if let Err(error) = flight.delivered(index, payload, sender, now) {
                        wrong.get_or_insert(error);
                    }
                }
            })?;
            if let Some(error) = wrong {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits until all that was published has come to all.
    fn drain(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + DRAIN_LIMIT;
        while self.flight.in_flight() > 0 {
            self.receive(Duration::from_millis(20))?;
            if Instant::now() > deadline {
                let lost = self.flight.in_flight();
                return Err(io::Error::other(format!("{lost} messages did not come to all in {DRAIN_LIMIT:?}")));
            }
        }
        Ok(())
    }
}

fn nanos(start: Instant) -> u64 {
    start.elapsed().as_nanos() as u64
}
