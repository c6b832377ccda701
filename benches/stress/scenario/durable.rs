//! W2: publishers whose messages are acknowledged once they are stored.
//!
//! Where a peer has rooms, each publisher is alone in its own, and receives what it publishes like any member. Redis has
//! one stream for all and delivers nothing; NATS one JetStream stream. The raw baselines take the delivery for the ack.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;

use super::{CONCURRENCY, CONNECT_LIMIT, Scenario, not_offered};
use crate::{
    client::Client,
    options::Common,
    peers::{Event, PAYLOAD, Peer, Role, Storage},
    server::Server,
    stats::{Figure, Meter, Spent, figure, latency_histogram, quantiles_ms},
};

/// How long the last acks may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// The load.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct Durable {
    /// How many publish.
    #[arg(long, default_value_t = 256)]
    publishers: u32,
    /// Messages that each has in flight.
    #[arg(long, default_value_t = 1)]
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
        let sessions = (0..self.publishers).map(|id| peer.session(id, Role::Publisher).ok_or_else(not_offered));
        let sessions = sessions.collect::<io::Result<Vec<_>>>()?;
        let mut client = Client::connect(server.addr, sessions, CONCURRENCY, CONNECT_LIMIT)?;
        let payload = [b'x'; PAYLOAD];
        // Acks come in the order of the publishes, so the oldest time belongs to the next ack.
        let mut sent = vec![VecDeque::from(vec![Instant::now(); self.window]); self.publishers as usize];
        for conn in &mut client.conns {
            (0..self.window).for_each(|_| conn.publish(&payload));
            conn.flush()?;
        }

        let mut latency = latency_histogram();
        let start = Instant::now();
        let warm = start + Duration::from_secs_f64(common.warm);
        let end = warm + Duration::from_secs_f64(common.secs);
        let (mut meter, mut figures) = (None, None);
        while figures.is_none() || sent.iter().any(|sent| !sent.is_empty()) {
            let now = Instant::now();
            if meter.is_none() && now >= warm {
                latency.reset();
                meter = Some(Meter::begin(&server)?);
            }
            if let Some(meter) = &meter
                && figures.is_none()
                && now >= end
            {
                figures = Some(self.figures(&meter.end(&server)?, &latency));
            }
            if now > end + DRAIN_LIMIT {
                return Err(io::Error::other(format!("acks were still missing after {DRAIN_LIMIT:?}")));
            }
            client.wait(Duration::from_millis(100))?;
            for &index in &client.ready {
                let (conn, sent) = (&mut client.conns[index], &mut sent[index]);
                let mut acked = 0;
                conn.receive(&mut client.scratch, |event| acked += usize::from(matches!(event, Event::Stored)))?;
                let now = Instant::now();
                for _ in 0..acked {
                    let Some(sent) = sent.pop_front() else {
                        return Err(io::Error::other("an ack for nothing"));
                    };
                    latency.saturating_record((now - sent).as_nanos() as u64);
                }
                if figures.is_none() {
                    (0..acked).for_each(|_| conn.publish(&payload));
                    sent.extend(std::iter::repeat_n(now, acked));
                    conn.flush()?;
                }
            }
        }
        figures.ok_or_else(|| io::Error::other("nothing was measured"))
    }
}

impl Durable {
    fn figures(&self, spent: &Spent, latency: &hdrhistogram::Histogram<u64>) -> Vec<Figure> {
        let acked = latency.len() as f64;
        let [p50, p99, p999] = quantiles_ms(latency);
        let mut figures = vec![
            figure("acked msgs/s", acked / spent.seconds),
            figure("p50 ms", p50),
            figure("p99 ms", p99),
            figure("p99.9 ms", p999),
            figure("server CPU s per M msgs", spent.server / (acked / 1e6)),
        ];
        figures.extend(spent.shares());
        figures
    }
}

/// Prepares the peer; the connection has to stay open.
pub(super) fn setup<P: Peer>(peer: &P, server: &Server) -> io::Result<Client<P::Session>> {
    let session = peer.session(u32::MAX >> 15, Role::Setup).ok_or_else(not_offered)?;
    Client::connect(server.addr, [session], 1, Duration::from_secs(10))
}
