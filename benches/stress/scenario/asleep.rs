//! Many rooms, in each of which somebody is, few of them active: what memory they take when the others sleep.

use std::{io, thread::sleep, time::Duration};

use clap::Args;
use serde::Serialize;

use super::{
    CONNECT_LIMIT, Scenario,
    fanout::{Load, fan_out},
    rooms::loaders,
};
use crate::{
    client::Client,
    options::{Common, at_least_one, rate},
    peers::{Peer, Storage},
    server::Server,
    stats::{Figure, figure},
};

/// Connections that join the rooms that sleep do so this many at a time.
const CONCURRENCY: usize = 8;

/// The load.
#[derive(Clone, Debug, Args, Serialize)]
#[group(skip)]
pub(crate) struct Asleep {
    /// How many rooms there are.
    #[arg(long, default_value_t = 100_000, value_parser = at_least_one::<u32>)]
    rooms: u32,
    /// How many of them carry traffic.
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one::<u32>)]
    active: u32,
    /// Members of each of those.
    #[arg(long, default_value_t = 2, value_parser = at_least_one::<usize>)]
    members: usize,
    /// Publishes per second over all active rooms.
    #[arg(long, default_value_t = 2_000.0, value_parser = rate)]
    rate: f64,
    /// How long a room has to be idle to be put to sleep, in milliseconds.
    #[arg(long, default_value_t = 5_000, value_parser = at_least_one::<u64>)]
    idle_ms: u64,
    /// The run fails if the server takes more memory than this, in bytes, beyond what it took without rooms.
    #[arg(long, default_value_t = BYTES_MAX)]
    bytes_max: u64,
}

/// What 100,000 rooms may take of which 1,000 are active: stated in docs/performance.md.
const BYTES_MAX: u64 = 256 << 20;

impl Scenario for Asleep {
    const NAME: &'static str = "asleep";
    const PEERS: &'static [&'static str] = &["parlor"];

    fn title(&self) -> String {
        let Self { rooms, active, members, rate, idle_ms, .. } = self;
        format!(
            "{rooms} rooms, {active} active × {members} members, {rate} publishes/s; others sleep after {idle_ms} ms"
        )
    }

    fn lacks(&self) -> Option<String> {
        let Self { rooms, active, .. } = *self;
        (active >= rooms).then(|| format!("{active} active rooms of {rooms} leave none that sleeps"))
    }

    fn complete(&mut self, common: &mut Common) {
        // The rooms of a memory store never sleep while somebody is there.
        if common.storage == Storage::Memory {
            common.storage = Storage::Buffered;
        }
    }

    fn storage(&self, wanted: Storage, _parlor: bool) -> Storage {
        wanted
    }

    fn offered<P: Peer>(&self, _peer: &P) -> bool {
        P::STORES_ROOMS
    }

    fn measure<P: Peer>(&self, peer: &P, storage: Storage, common: &Common) -> io::Result<Vec<Figure>> {
        let idle = Duration::from_millis(self.idle_ms);
        let common = &Common { room_idle: Some(idle), ..common.clone() };
        let server = Server::start(peer, storage, common)?;
        let before = server.rss_bytes()?;
        let _idle = Client::connect(server.addr, loaders(peer, self.active..self.rooms)?, CONCURRENCY, CONNECT_LIMIT)?;
        let loaded = server.rss_bytes()?.saturating_sub(before);
        // Each room is asked four times in that time.
        sleep(idle + idle / 4);
        server.settle()?;
        let asleep = server.rss_bytes()?.saturating_sub(before);
        let Self { members, rate, .. } = *self;
        let load = Load { rooms: self.active as usize, members, pubs: 1, window: 1, rate };
        let fanned = fan_out(peer, &server, &load, common)?;
        let all = server.rss_bytes()?.saturating_sub(before);
        if all > self.bytes_max {
            let Self { rooms, active, bytes_max, .. } = self;
            return Err(io::Error::other(format!(
                "{rooms} rooms of which {active} are active take {all} bytes, at most {bytes_max} are allowed"
            )));
        }
        let sleepers = f64::from(self.rooms - self.active);
        Ok(vec![
            figure("server MB, all rooms", all as f64 / 1e6),
            figure("server MB, when all were joined", loaded as f64 / 1e6),
            figure("server bytes per sleeping room", asleep as f64 / sleepers),
            figure("publishes/s", fanned.publishes / fanned.spent.seconds),
            figure("server CPU µs per publish", 1e6 * fanned.spent.server / fanned.publishes),
        ])
    }
}
