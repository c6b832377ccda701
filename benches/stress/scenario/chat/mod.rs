//! Recorded conversations as load: what people really said, in as many rooms as there are logs, as fast as it goes.

mod recorded;
mod talk;

use std::{io, path::PathBuf};

use clap::Args;
use serde::Serialize;

use self::{
    recorded::{conversation, logs},
    talk::{Talk, said},
};
use super::{CONCURRENCY, CONNECT_LIMIT, Scenario, fanout::Load, sessions};
use crate::{
    client::Client,
    options::{Common, at_least_one, window},
    peers::{Peer, Role, Storage},
    server::Server,
    stats::{Figure, Meter, figure, quantiles_ms},
};

/// The load.
#[derive(Clone, Debug, Args, Serialize)]
#[group(skip)]
pub(crate) struct Chat {
    /// The logs, or folders of files that end in .log: a room each. Their form is that of `parlor replay`.
    #[arg(long, value_delimiter = ',', value_name = "PATHS")]
    logs: Vec<PathBuf>,
    /// Connections of each room that speak; the nicks of its log share them.
    #[arg(long, default_value_t = 16, value_parser = at_least_one::<usize>)]
    speakers: usize,
    /// Connections of each room that only listen.
    #[arg(long, default_value_t = 84)]
    readers: usize,
    /// Messages that each speaker has in flight at most.
    #[arg(long, default_value_t = 4, value_parser = window::<usize>)]
    window: usize,
    /// How often the logs are said over.
    #[arg(long, default_value_t = 2, value_parser = at_least_one::<u64>)]
    times: u64,
}

impl Scenario for Chat {
    const NAME: &'static str = "chat";
    const PEERS: &'static [&'static str] =
        &["parlor", "raw-mio", "raw-tokio", "raw-local", "redis", "nats", "rumqttd", "mosquitto"];

    fn title(&self) -> String {
        let Self { speakers, readers, window, times, .. } = self;
        let rooms = logs(&self.logs).map_or(0, |logs| logs.len());
        format!(
            "{rooms} recorded conversations {times} ×, {speakers} speakers × window {window} and {readers} readers each"
        )
    }

    fn lacks(&self) -> Option<String> {
        match logs(&self.logs) {
            Ok(logs) if !logs.is_empty() => None,
            Ok(_) => Some("there are no logs to replay; --logs names some".to_owned()),
            Err(error) => Some(format!("the logs cannot be read: {error}; --logs names others")),
        }
    }

    fn storage(&self, wanted: Storage, parlor: bool) -> Storage {
        if parlor { wanted } else { Storage::Memory }
    }

    fn offered<P: Peer>(&self, _peer: &P) -> bool {
        P::ANY_SIZE
    }

    fn measure<P: Peer>(&self, peer: &P, storage: Storage, common: &Common) -> io::Result<Vec<Figure>> {
        let rooms =
            logs(&self.logs)?.iter().map(|log| conversation(log, self.speakers)).collect::<io::Result<Vec<_>>>()?;
        let members = self.speakers + self.readers;
        let load = Load { rooms: rooms.len(), members, pubs: self.speakers, window: self.window, rate: 0.0 };
        if let Some(why) = load.refused() {
            return Err(io::Error::other(why));
        }
        let server = Server::start(peer, storage, common)?;
        let role = |id| Role::Member { room: id / members as u32 };
        let sessions = sessions(peer, 0..(load.rooms * members) as u32, role)?;
        let client = Client::connect(server.addr, sessions, CONCURRENCY, CONNECT_LIMIT)?;
        let mut talk = Talk::new(&load, client, said(rooms.concat(), P::TELLS_SENDER), self.times);
        let meter = Meter::begin(&server)?;
        talk.through()?;
        let spent = meter.end(&server)?;
        let (messages, deliveries) = (talk.flight.completed as f64, talk.flight.deliveries as f64);
        let [p50, p99, _] = quantiles_ms(&talk.flight.latency);
        let mut figures = vec![
            figure("messages/s", messages / spent.seconds),
            figure("deliveries/s", deliveries / spent.seconds),
            figure("p50 ms", p50),
            figure("p99 ms", p99),
            figure("server CPU s per M deliveries", spent.server / (deliveries / 1e6)),
            figure("messages said", messages),
        ];
        figures.extend(spent.shares());
        Ok(figures)
    }
}
