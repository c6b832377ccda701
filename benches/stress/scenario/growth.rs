//! Whether a publish costs more when very much is stored already.

use std::io;

use clap::Args;
use serde::Serialize;

use super::{
    Scenario,
    publishing::{Publishing, Stored, setup},
};
use crate::{
    options::{Common, at_least_one, window},
    peers::{Peer, Role, Storage},
    server::Server,
    stats::{Figure, figure, quantiles_ms},
};

/// Messages that each publisher has in flight while the store is filled: as many as Parlor reads ahead of its answers.
const FILL_WINDOW: usize = 64;

/// The load.
#[derive(Clone, Debug, Args, Serialize)]
#[group(skip)]
pub(crate) struct Growth {
    /// How many messages are stored between the two measurements, by the same publishers.
    #[arg(long, default_value_t = 10_000_000, value_parser = at_least_one::<u64>)]
    stored: u64,
    /// How many publish.
    #[arg(long, default_value_t = 256, value_parser = at_least_one::<u32>)]
    publishers: u32,
    /// Messages that each has in flight.
    #[arg(long, default_value_t = 1, value_parser = window::<usize>)]
    window: usize,
}

impl Scenario for Growth {
    const NAME: &'static str = "growth";
    const PEERS: &'static [&'static str] = &["parlor"];

    fn title(&self) -> String {
        let Self { stored, publishers, window } = self;
        format!("{publishers} publishers × {window} in flight, before and after {stored} messages were stored")
    }

    fn storage(&self, wanted: Storage, _parlor: bool) -> Storage {
        wanted
    }

    fn offered<P: Peer>(&self, peer: &P) -> bool {
        peer.session(0, Role::Publisher).is_some()
    }

    fn measure<P: Peer>(&self, peer: &P, storage: Storage, common: &Common) -> io::Result<Vec<Figure>> {
        let server = Server::start(peer, storage, common)?;
        let _setup = setup(peer, &server)?;
        let mut publishing = Publishing::connect(peer, &server, self.publishers)?;
        let empty = publishing.measure(self.window, &server, common)?;
        let fill = publishing.store(self.stored, FILL_WINDOW)?;
        server.settle()?;
        let full = publishing.measure(self.window, &server, common)?;
        let cost = |stored: &Stored| 1e6 * stored.spent.server / stored.messages();
        let p50 = |stored: &Stored| quantiles_ms(&stored.latency)[0];
        let mut figures = vec![
            figure("server CPU µs per publish, empty", cost(&empty)),
            figure("server CPU µs per publish, full", cost(&full)),
            figure("CPU per publish, full to empty", cost(&full) / cost(&empty)),
            figure("acked msgs/s, empty", empty.messages() / empty.spent.seconds),
            figure("acked msgs/s, full", full.messages() / full.spent.seconds),
            figure("p50 ms, empty", p50(&empty)),
            figure("p50 ms, full", p50(&full)),
            figure("fill: stored msgs/s", fill),
        ];
        figures.extend(full.spent.shares());
        Ok(figures)
    }
}
