//! A join storm: very many clients connect and join at once, to rooms that have history and in which others talk.

use std::{
    io,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;

use super::{
    CONCURRENCY, CONNECT_LIMIT, Scenario, fanout::Load, follow::Follow, sessions, storm::Storm, too_many, traffic::Run,
};
use crate::{
    client::Client,
    options::{Common, at_least_one, none_or_window, rate},
    peers::{Peer, Role, Session, Storage},
    server::Server,
    stats::{Figure, Meter, figure, quantiles_ms},
};

/// How often those in the rooms look whether the storm has begun, or is over.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The load.
#[derive(Clone, Debug, Args, Serialize)]
#[group(skip)]
pub(crate) struct Joins {
    /// How many clients come.
    #[arg(long, default_value_t = 5_000, value_parser = at_least_one::<u32>)]
    clients: u32,
    /// Over how many rooms they are spread. Somebody who talks is in each.
    #[arg(long, default_value_t = 50, value_parser = at_least_one::<u32>)]
    rooms: u32,
    /// Messages that each room holds before they come.
    #[arg(long, default_value_t = 100, value_parser = none_or_window)]
    history: usize,
    /// The newest messages of its room that each client asks for.
    #[arg(long, default_value_t = 0)]
    newest: u32,
    /// Publishes per second over all rooms, before and during the storm.
    #[arg(long, default_value_t = 100.0, value_parser = rate)]
    rate: f64,
}

impl Scenario for Joins {
    const NAME: &'static str = "joins";
    const PEERS: &'static [&'static str] =
        &["parlor", "raw-mio", "raw-tokio", "raw-local", "redis", "nats", "rumqttd", "ejabberd"];

    fn title(&self) -> String {
        let Self { clients, rooms, history, newest, rate } = self;
        format!(
            "{clients} clients join {rooms} rooms at once, with {newest} of {history} stored messages each, beside {rate} \
             publishes/s"
        )
    }

    fn refused(&self) -> Option<String> {
        too_many(Some(self.clients as usize + self.rooms as usize))
    }

    fn storage(&self, wanted: Storage, parlor: bool) -> Storage {
        if parlor { wanted } else { Storage::Memory }
    }

    fn offered<P: Peer>(&self, peer: &P) -> bool {
        peer.session(0, Role::Newest { room: 0, messages: self.newest }).is_some()
    }

    fn measure<P: Peer>(&self, peer: &P, storage: Storage, common: &Common) -> io::Result<Vec<Figure>> {
        let server = Server::start(peer, storage, common)?;
        let start = Instant::now();
        let load = talk(self.rooms, self.history, self.rate);
        let mut talkers = talkers(peer, &server, &load, start)?;
        talkers.publish_each(self.history)?;

        let ids = self.rooms..self.rooms + self.clients;
        let role = |id| Role::Newest { room: (id - self.rooms) % self.rooms, messages: self.newest };
        let clients = sessions(peer, ids, role)?;
        let follow = Follow::newcomers(self.rooms as usize, clients.len(), self.newest);
        let phase = AtomicU8::new(BEFORE);
        // Those in the rooms have a thread of their own, so that what they see is the server's delay and not that of a
        // load generator that opens connections meanwhile.
        let (talked, stormed) = scope(|scope| {
            let talking = scope.spawn(|| talk_through(&mut talkers, &load, &phase));
            sleep(Duration::from_secs_f64(common.secs));
            phase.store(STORM, Relaxed);
            let stormed = Meter::begin(&server).and_then(|meter| {
                let storm = Storm::come(server.addr, clients, follow, start, Follow::joined)?;
                Ok((storm, meter.end(&server)?))
            });
            phase.store(OVER, Relaxed);
            (talking.join(), stormed)
        });
        let (mut storm, spent) = stormed?;
        let [before, during] = talked.map_err(|_| io::Error::other("the talkers panicked"))??;
        // One more to each room, so that a client that missed what came before is found out.
        talkers.publish_each(1)?;
        storm.catch_up(&talkers.flight.published())?;

        let count = f64::from(self.clients);
        let [p50, p99, _] = quantiles_ms(&storm.took);
        let mut figures = vec![
            figure("joins/s", count / spent.seconds),
            figure("connect to joined p50 ms", p50),
            figure("p99 ms", p99),
            figure("max ms", storm.took.max() as f64 / 1e6),
            figure("server CPU µs per join", 1e6 * spent.server / count),
            figure("delivery p99 ms before", before),
            figure("delivery p99 ms during", during),
        ];
        figures.extend(spent.shares());
        Ok(figures)
    }
}

const BEFORE: u8 = 0;
const STORM: u8 = 1;
const OVER: u8 = 2;

/// Talks until the storm is over. Returns the p99 of delivery in milliseconds, before and during it.
fn talk_through<S: Session>(talkers: &mut Run<S>, load: &Load, phase: &AtomicU8) -> io::Result<[f64; 2]> {
    let mut phase_p99 = |now| {
        talkers.flight.begin_measuring();
        loop {
            talkers.go_on(load, LOOK_EVERY)?;
            if phase.load(Relaxed) != now {
                if now == STORM {
                    // What was on its way when the last had joined was held up by the storm, too.
                    talkers.flight.counted.end = talkers.now();
                    talkers.drain()?;
                }
                return io::Result::Ok(quantiles_ms(&talkers.flight.latency)[1]);
            }
        }
    };
    Ok([phase_p99(BEFORE)?, phase_p99(STORM)?])
}

/// One who talks in each room, alone there, and may have `history` messages in flight.
pub(super) fn talk(rooms: u32, history: usize, rate: f64) -> Load {
    const WINDOW_MIN: usize = 64;
    Load { rooms: rooms as usize, members: 1, pubs: 1, window: history.max(WINDOW_MIN), rate }
}

/// Connects them. The one in room `r` has the id `r`.
pub(super) fn talkers<P: Peer>(peer: &P, server: &Server, load: &Load, start: Instant) -> io::Result<Run<P::Session>> {
    let sessions = sessions(peer, 0..load.rooms as u32, |room| Role::Member { room })?;
    let client = Client::connect(server.addr, sessions, CONCURRENCY, CONNECT_LIMIT)?;
    Ok(Run::new(load, client, start))
}
