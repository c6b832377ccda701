//! A fan-out in one room: whether a delivery costs more when there are very many members.

use std::io;

use clap::Args;
use serde::Serialize;

use super::{
    Scenario,
    fanout::{Fanned, Load, fan_out},
};
use crate::{
    options::{Common, at_least_one, window},
    peers::{Peer, Role, Storage},
    server::Server,
    stats::{Figure, figure},
};

/// The load.
#[derive(Clone, Debug, Args, Serialize)]
#[group(skip)]
pub(crate) struct Large {
    /// Members of the large room. Each takes a descriptor of the server's and one of the harness's.
    #[arg(long, default_value_t = 15_000, value_parser = at_least_one::<usize>)]
    members: usize,
    /// Members of the room that it is compared with.
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one::<usize>)]
    base: usize,
    /// How many of them publish.
    #[arg(long, default_value_t = 4, value_parser = at_least_one::<usize>)]
    pubs: usize,
    /// Messages that each publisher has in flight at most.
    #[arg(long, default_value_t = 16, value_parser = window::<usize>)]
    window: usize,
}

impl Scenario for Large {
    const NAME: &'static str = "large";
    const PEERS: &'static [&'static str] = &["parlor", "raw-mio", "raw-local", "redis", "nats", "rumqttd", "mosquitto"];

    fn title(&self) -> String {
        let Self { members, base, pubs, window } = self;
        format!("1 room × {base} members, then 1 room × {members}; {pubs} publishers × window {window}")
    }

    fn refused(&self) -> Option<String> {
        let load = |members| self.load(members).refused();
        load(self.base).or_else(|| load(self.members))
    }

    fn storage(&self, wanted: Storage, parlor: bool) -> Storage {
        if parlor { wanted } else { Storage::Memory }
    }

    fn offered<P: Peer>(&self, peer: &P) -> bool {
        peer.session(0, Role::Member { room: 0 }).is_some()
    }

    fn measure<P: Peer>(&self, peer: &P, storage: Storage, common: &Common) -> io::Result<Vec<Figure>> {
        let measure = |members| -> io::Result<Fanned> {
            fan_out(peer, &Server::start(peer, storage, common)?, &self.load(members), common)
        };
        let (base, large) = (measure(self.base)?, measure(self.members)?);
        let cost = |fanned: &Fanned| fanned.spent.server / (fanned.deliveries / 1e6);
        let mut figures = vec![
            figure("deliveries/s, base", base.deliveries / base.spent.seconds),
            figure("deliveries/s, large", large.deliveries / large.spent.seconds),
            figure("server CPU s per M deliveries, base", cost(&base)),
            figure("server CPU s per M deliveries, large", cost(&large)),
            figure("CPU per delivery, large to base", cost(&large) / cost(&base)),
        ];
        figures.extend(large.spent.shares());
        Ok(figures)
    }
}

impl Large {
    fn load(&self, members: usize) -> Load {
        Load { rooms: 1, members, pubs: self.pubs, window: self.window, rate: 0.0 }
    }
}
