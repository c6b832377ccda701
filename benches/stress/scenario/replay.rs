//! W4: one reader reads a room's stored messages back, as fast as the peer lets it.
//!
//! Redis answers pages, NATS batches of a pull consumer; Parlor streams all from seq 1 after one join.

use std::{
    io,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;

use super::{
    Scenario, not_offered,
    payload::Noise,
    publishing::{Publishing, setup},
    scan::scan,
};
use crate::{
    client::Client,
    options::{Common, at_least_one, window},
    peers::{Event, Peer, Role, Storage},
    server::Server,
    stats::{Figure, Meter, figure},
};

/// How long reading may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The load.
#[derive(Clone, Debug, Args, Serialize)]
#[group(skip)]
pub(crate) struct Replay {
    /// How many are stored and read back.
    #[arg(long, default_value_t = 1_000_000, value_parser = at_least_one::<u64>)]
    messages: u64,
    /// How many are asked for at a time, where the peer wants to be asked.
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one::<u64>)]
    batch: u64,
    /// Messages in flight while they are stored, on one connection.
    #[arg(long, default_value_t = 1_000, value_parser = window::<usize>)]
    window: usize,
}

impl Scenario for Replay {
    const NAME: &'static str = "replay";
    const PEERS: &'static [&'static str] = &["parlor", "raw-scan", "redis", "nats"];

    fn title(&self) -> String {
        format!("replay of {} messages, batches of {}", self.messages, self.batch)
    }

    fn storage(&self, wanted: Storage, _parlor: bool) -> Storage {
        wanted
    }

    fn offered<P: Peer>(&self, peer: &P) -> bool {
        peer.session(0, Role::Reader).is_some()
    }

    fn in_process(&self, name: &str, common: &Common) -> Option<io::Result<Vec<Figure>>> {
        (name == "raw-scan").then(|| scan(self.messages, common))
    }

    fn measure<P: Peer>(&self, peer: &P, storage: Storage, common: &Common) -> io::Result<Vec<Figure>> {
        let server = Server::start(peer, storage, common)?;
        let _setup = setup(peer, &server)?;
        let fill = Publishing::connect(peer, &server, 1)?.store(self.messages, self.window)?;

        let session = peer.session(1, Role::Reader).ok_or_else(not_offered)?;
        let mut client = Client::connect(server.addr, [session], 1, LIMIT)?;
        let meter = Meter::begin(&server)?;
        let start = Instant::now();
        let (mut got, mut asked, mut stored) = (0, 0, Noise::new());
        while got < self.messages {
            if got >= asked {
                let records = self.batch.min(self.messages - got);
                asked = got + records;
                client.conns[0].read_on(records);
                client.conns[0].flush()?;
            }
            client.turn(Duration::from_millis(100), |_, event| {
                let Event::Delivery { payload, .. } = event else { return Ok(()) };
                if payload != stored.next() {
                    return Err(io::Error::other(format!("message {got}, counted from 0, is not what was stored")));
                }
                got += 1;
                Ok(())
            })?;
            if start.elapsed() > LIMIT {
                return Err(io::Error::other(format!("only {got} came in {LIMIT:?}")));
            }
        }
        let spent = meter.end(&server)?;
        let messages = got as f64;
        let mut figures = vec![
            figure("msgs/s", messages / spent.seconds),
            figure("server CPU s per M msgs", spent.server / (messages / 1e6)),
            figure("fill: stored msgs/s", fill),
        ];
        figures.extend(spent.shares());
        Ok(figures)
    }
}
