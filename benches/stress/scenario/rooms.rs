//! Many rooms, few of them active: whether a publish costs more when very many other rooms are loaded, and what memory
//! each of those takes.

use std::{io, time::Instant};

use clap::Args;
use serde::Serialize;

use super::{
    CONNECT_LIMIT, Scenario,
    fanout::{Fanned, Load, fan_out},
    not_offered, too_many,
};
use crate::{
    client::Client,
    options::{Common, at_least_one, rate, window},
    peers::{Peer, Role, Storage},
    server::Server,
    stats::{Figure, figure},
};

/// Rooms that one connection keeps loaded: as many as a session of Parlor may join.
pub(super) const ROOMS_PER_CONNECTION: u32 = 1_000;

/// Connections that keep rooms loaded join theirs so many at a time.
const CONCURRENCY: usize = 8;

/// The id of the first of them, above those of all members.
const FIRST_ID: u32 = 50_000;

/// The load.
#[derive(Clone, Debug, Args, Serialize)]
#[group(skip)]
pub(crate) struct Rooms {
    /// How many rooms are loaded; somebody is in each.
    #[arg(long, default_value_t = 100_000, value_parser = at_least_one::<u32>)]
    rooms: u32,
    /// How many rooms there are in the server that this is compared with.
    #[arg(long, default_value_t = 100, value_parser = at_least_one::<u32>)]
    base: u32,
    /// How many of the rooms carry traffic.
    #[arg(long, default_value_t = 100, value_parser = at_least_one::<u32>)]
    active: u32,
    /// Members of each of those.
    #[arg(long, default_value_t = 20, value_parser = at_least_one::<usize>)]
    members: usize,
    /// Messages that each room's publisher has in flight at most.
    #[arg(long, default_value_t = 16, value_parser = window::<usize>)]
    window: usize,
    /// Publishes per second over all rooms; 0: as fast as it goes.
    #[arg(long, default_value_t = 0.0, value_parser = rate)]
    rate: f64,
}

impl Scenario for Rooms {
    const NAME: &'static str = "rooms";
    const PEERS: &'static [&'static str] = &["parlor", "redis", "nats", "mosquitto"];

    fn title(&self) -> String {
        let Self { rooms, base, active, members, window, rate } = self;
        let pace = if *rate > 0.0 { format!(", paced: {rate} publishes/s") } else { String::new() };
        format!(
            "{base} rooms, then {rooms}, {active} of them active × {members} members, 1 publisher × window {window}{pace}"
        )
    }

    fn lacks(&self) -> Option<String> {
        let Self { rooms, base, active, .. } = *self;
        let short = active > base || active >= rooms;
        short.then(|| {
            format!("{active} active rooms among {base} and {rooms} leave none that is idle: more rooms are needed")
        })
    }

    fn refused(&self) -> Option<String> {
        too_many((self.active as usize).checked_mul(self.members))
    }

    fn storage(&self, wanted: Storage, parlor: bool) -> Storage {
        if parlor { wanted } else { Storage::Memory }
    }

    fn offered<P: Peer>(&self, peer: &P) -> bool {
        peer.session(0, Role::Rooms { first: 0, count: 1 }).is_some()
    }

    fn measure<P: Peer>(&self, peer: &P, storage: Storage, common: &Common) -> io::Result<Vec<Figure>> {
        let base = self.with(self.base, peer, storage, common)?;
        let many = self.with(self.rooms, peer, storage, common)?;
        let per_publish = |measured: &Measured| 1e6 * measured.fanned.spent.server / measured.fanned.publishes;
        let rate = |measured: &Measured| measured.fanned.publishes / measured.fanned.spent.seconds;
        let mut figures = vec![
            figure("publishes/s, base", rate(&base)),
            figure("publishes/s, many rooms", rate(&many)),
            figure("server CPU µs per publish, base", per_publish(&base)),
            figure("server CPU µs per publish, many rooms", per_publish(&many)),
            figure("CPU per publish, many rooms to base", per_publish(&many) / per_publish(&base)),
            figure("server bytes per idle room", many.bytes_per_idle_room),
            figure("rooms created and joined/s", many.created_per_second),
        ];
        figures.extend(many.fanned.spent.shares());
        Ok(figures)
    }
}

struct Measured {
    fanned: Fanned,
    bytes_per_idle_room: f64,
    created_per_second: f64,
}

impl Rooms {
    /// Measures the traffic beside so many rooms altogether.
    fn with<P: Peer>(&self, rooms: u32, peer: &P, storage: Storage, common: &Common) -> io::Result<Measured> {
        let server = Server::start(peer, storage, common)?;
        let before = server.rss_bytes()?;
        let start = Instant::now();
        let idle = loaders(peer, self.active..rooms)?;
        let _idle = Client::connect(server.addr, idle, CONCURRENCY, CONNECT_LIMIT)?;
        let seconds = start.elapsed().as_secs_f64();
        server.settle()?;
        let idle = f64::from(rooms.saturating_sub(self.active));
        let bytes_per_idle_room = server.rss_bytes()?.saturating_sub(before) as f64 / idle;
        let Self { members, window, rate, .. } = *self;
        let load = Load { rooms: self.active as usize, members, pubs: 1, window, rate };
        let fanned = fan_out(peer, &server, &load, common)?;
        Ok(Measured { fanned, bytes_per_idle_room, created_per_second: idle / seconds })
    }
}

/// Connections that join these rooms, each as many as it may.
pub(super) fn loaders<P: Peer>(peer: &P, rooms: std::ops::Range<u32>) -> io::Result<Vec<P::Session>> {
    let firsts = rooms.clone().step_by(ROOMS_PER_CONNECTION as usize);
    let loader = |(id, first): (u32, u32)| {
        let count = ROOMS_PER_CONNECTION.min(rooms.end - first);
        peer.session(FIRST_ID + id, Role::Rooms { first, count }).ok_or_else(not_offered)
    };
    (0..).zip(firsts).map(loader).collect()
}
