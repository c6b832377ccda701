//! A reconnect storm: very many clients are cut off at once, miss messages, and all come back at once to where they were.

use std::{
    io,
    thread::sleep,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;

use super::{
    Scenario,
    follow::Follow,
    joins::{talk, talkers},
    not_offered, sessions,
    storm::Storm,
    too_many,
};
use crate::{
    options::{Common, at_least_one, window},
    peers::{Peer, Position, Role, Storage},
    server::Server,
    stats::{Figure, Meter, figure, quantiles_ms},
};

/// Messages of each room before anybody is cut off.
const HISTORY: usize = 10;

/// How long the clients stay away, so that the server has noticed.
const AWAY: Duration = Duration::from_millis(500);

/// The load.
#[derive(Clone, Debug, Args, Serialize)]
#[group(skip)]
pub(crate) struct Reconnects {
    /// How many clients come back.
    #[arg(long, default_value_t = 2_000, value_parser = at_least_one::<u32>)]
    clients: u32,
    /// Over how many rooms they are spread.
    #[arg(long, default_value_t = 50, value_parser = at_least_one::<u32>)]
    rooms: u32,
    /// Messages of its room that each missed.
    #[arg(long, default_value_t = 50, value_parser = window::<usize>)]
    missed: usize,
}

impl Scenario for Reconnects {
    const NAME: &'static str = "reconnects";
    const PEERS: &'static [&'static str] = &["parlor"];

    fn title(&self) -> String {
        let Self { clients, rooms, missed } = self;
        format!("{clients} clients come back to {rooms} rooms at once, each having missed {missed} messages")
    }

    fn refused(&self) -> Option<String> {
        too_many(Some(self.clients as usize + self.rooms as usize))
    }

    fn storage(&self, wanted: Storage, _parlor: bool) -> Storage {
        wanted
    }

    fn offered<P: Peer>(&self, peer: &P) -> bool {
        peer.session(0, Role::Back { room: 0, position: Position { epoch: 1, seq: 0 } }).is_some()
    }

    fn measure<P: Peer>(&self, peer: &P, storage: Storage, common: &Common) -> io::Result<Vec<Figure>> {
        let server = Server::start(peer, storage, common)?;
        let start = Instant::now();
        let load = talk(self.rooms, self.missed, 0.0);
        let mut talkers = talkers(peer, &server, &load, start)?;

        let (ids, room) = (self.rooms..self.rooms + self.clients, |index: u32| index % self.rooms);
        let first = sessions(peer, ids.clone(), |id| Role::Member { room: room(id - self.rooms) })?;
        let follow = Follow::newcomers(self.rooms as usize, first.len(), 0);
        let mut members = Storm::come(server.addr, first, follow, start, Follow::joined)?;
        talkers.publish_each(HISTORY)?;
        let before = talkers.flight.published();
        members.catch_up(&before)?;
        let positions = members.cut()?;
        sleep(AWAY);
        talkers.publish_each(self.missed)?;
        let after = talkers.flight.published();

        let back = ids.zip(&positions).map(|(id, &position)| {
            peer.session(id, Role::Back { room: room(id - self.rooms), position }).ok_or_else(not_offered)
        });
        let back = back.collect::<io::Result<Vec<_>>>()?;
        let follow = Follow::returning(&before, back.len());
        let meter = Meter::begin(&server)?;
        let caught_up = |follow: &Follow, index| follow.has_all(index, &after);
        let mut storm = Storm::come(server.addr, back, follow, start, caught_up)?;
        let spent = meter.end(&server)?;
        // One more to each room: whoever is given something twice has it before that.
        talkers.publish_each(1)?;
        storm.catch_up(&talkers.flight.published())?;

        let count = f64::from(self.clients);
        let [p50, p99, _] = quantiles_ms(&storm.took);
        let mut figures = vec![
            figure("reconnects/s", count / spent.seconds),
            figure("all caught up after ms", 1e3 * spent.seconds),
            figure("connect to caught up p50 ms", p50),
            figure("p99 ms", p99),
            figure("missed messages read/s", count * self.missed as f64 / spent.seconds),
            figure("server CPU µs per reconnect", 1e6 * spent.server / count),
        ];
        figures.extend(spent.shares());
        Ok(figures)
    }
}
