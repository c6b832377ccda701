//! W2: publishers whose messages are acknowledged once they are stored.
//!
//! Where a peer has rooms, each publisher is alone in its own, and receives what it publishes like any member. Redis has
//! one stream for all and delivers nothing; NATS one JetStream stream. The raw baselines take the delivery for the ack.

use std::io;

use clap::Args;
use serde::Serialize;

use super::{
    Scenario,
    publishing::{Publishing, setup},
};
use crate::{
    options::{Common, at_least_one, window},
    peers::{Peer, Role, Storage},
    server::Server,
    stats::{Figure, figure, quantiles_ms},
};

/// The load.
#[derive(Clone, Debug, Args, Serialize)]
#[group(skip)]
pub(crate) struct Durable {
    /// How many publish.
    #[arg(long, default_value_t = 256, value_parser = at_least_one::<u32>)]
    publishers: u32,
    /// Messages that each has in flight.
    #[arg(long, default_value_t = 1, value_parser = window::<usize>)]
    window: usize,
}

impl Scenario for Durable {
    const NAME: &'static str = "durable";
    const PEERS: &'static [&'static str] = &["parlor", "raw-store", "raw-sync", "redis", "nats"];

    fn title(&self) -> String {
        format!("{} publishers × {} in flight", self.publishers, self.window)
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
        let done = publishing.measure(self.window, &server, common)?;
        let [p50, p99, p999] = quantiles_ms(&done.latency);
        let mut figures = vec![
            figure("acked msgs/s", done.messages() / done.spent.seconds),
            figure("p50 ms", p50),
            figure("p99 ms", p99),
            figure("p99.9 ms", p999),
            figure("server CPU s per M msgs", done.spent.server / (done.messages() / 1e6)),
        ];
        figures.extend(done.spent.shares());
        Ok(figures)
    }
}
