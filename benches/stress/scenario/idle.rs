//! W3: connections that do nothing, all in one room: the server's memory for each, and how fast they came.

use std::{
    io,
    thread::sleep,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;

use super::{CONNECT_LIMIT, Scenario, not_offered};
use crate::{
    client::Client,
    options::Common,
    peers::{Peer, Role, Storage},
    server::Server,
    stats::{Figure, figure},
};

/// Connections that are opened at a time.
const CONCURRENCY: usize = 128;

/// How long the server has to settle before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);

/// The load.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct Idle {
    /// How many connections.
    #[arg(long, default_value_t = 10_000)]
    conns: u32,
}

impl Scenario for Idle {
    const NAME: &'static str = "idle";
    const PEERS: &'static [&'static str] =
        &["parlor", "raw-mio", "raw-tokio", "raw-local", "redis", "nats", "rumqttd", "mosquitto", "ejabberd"];

    fn title(&self) -> String {
        format!("{} idle connections in one room", self.conns)
    }

    fn storage(&self, wanted: Storage, parlor: bool) -> Storage {
        if parlor { wanted } else { Storage::Memory }
    }

    fn offered<P: Peer>(&self, peer: &P) -> bool {
        peer.session(0, Role::Member { room: 0 }).is_some()
    }

    fn measure<P: Peer>(&self, peer: &P, storage: Storage, common: &Common) -> io::Result<Vec<Figure>> {
        let sessions = (0..self.conns).map(|id| peer.session(id, Role::Member { room: 0 }).ok_or_else(not_offered));
        let sessions = sessions.collect::<io::Result<Vec<_>>>()?;
        let server = Server::start(peer, storage, common)?;
        let (before, cpu) = (server.rss_bytes()?, server.cpu_seconds()?);
        let start = Instant::now();
        let client = Client::connect(server.addr, sessions, CONCURRENCY, CONNECT_LIMIT)?;
        let (seconds, cpu) = (start.elapsed().as_secs_f64(), server.cpu_seconds()? - cpu);
        sleep(SETTLE);
        let grown = server.rss_bytes()?.saturating_sub(before) as f64;
        let idle = server.cpu_seconds()?;
        sleep(Duration::from_secs_f64(common.secs));
        let idle = server.cpu_seconds()? - idle;
        drop(client);
        let count = f64::from(self.conns);
        Ok(vec![
            figure("server bytes per connection", grown / count),
            figure("server MB before", before as f64 / 1e6),
            figure("joins/s", count / seconds),
            figure("server CPU µs per join", 1e6 * cpu / count),
            figure("idle CPU %", 100.0 * idle / common.secs),
        ])
    }
}
