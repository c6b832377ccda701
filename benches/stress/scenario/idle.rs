//! W3: connections that do nothing, or nothing but say that they are there, all in one room: the server's memory for
//! each, how fast they came, and what keeping them costs.

use std::{
    io,
    thread::sleep,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use clap::Args;
use serde::Serialize;

use super::{CONNECT_LIMIT, Scenario, sessions, too_many};
use crate::{
    client::Client,
    options::{Common, at_least_one, seconds},
    peers::{Event, Peer, Role, Session, Storage},
    server::Server,
    stats::{Figure, Meter, figure},
};

/// Connections that are opened at a time.
const CONCURRENCY: usize = 128;

/// How long the server has to settle before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);

/// How long answers to the last beats may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The load.
#[derive(Clone, Debug, Args, Serialize)]
#[group(skip)]
pub(crate) struct Idle {
    /// How many connections.
    #[arg(long, default_value_t = 10_000, value_parser = at_least_one::<u32>)]
    conns: u32,
    /// Seconds between the beats of a connection, evenly spread over all; without it nobody beats. Peers without a beat
    /// that the server answers are skipped.
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    beats: Option<f64>,
    /// Seconds over which the cost of the beats is measured.
    #[arg(long, default_value_t = 60.0, value_parser = seconds)]
    beat_secs: f64,
}

impl Scenario for Idle {
    const NAME: &'static str = "idle";
    const PEERS: &'static [&'static str] =
        &["parlor", "raw-mio", "raw-tokio", "raw-local", "redis", "nats", "rumqttd", "mosquitto", "ejabberd"];

    fn complete(&mut self, common: &mut Common) {
        common.beats = self.beats.map(Duration::from_secs_f64);
    }

    fn title(&self) -> String {
        let beats = self.beats.map_or(String::new(), |beats| format!(", a beat every {beats} s"));
        format!("{} idle connections in one room{beats}", self.conns)
    }

    fn refused(&self) -> Option<String> {
        too_many(Some(self.conns as usize))
    }

    fn storage(&self, wanted: Storage, parlor: bool) -> Storage {
        if parlor { wanted } else { Storage::Memory }
    }

    fn offered<P: Peer>(&self, peer: &P) -> bool {
        let session = peer.session(0, Role::Member { room: 0 });
        session.is_some_and(|mut session| self.beats.is_none() || session.beat(&mut BytesMut::new()))
    }

    fn measure<P: Peer>(&self, peer: &P, storage: Storage, common: &Common) -> io::Result<Vec<Figure>> {
        let sessions = sessions(peer, 0..self.conns, |_| Role::Member { room: 0 })?;
        let server = Server::start(peer, storage, common)?;
        let (before, cpu) = (server.rss_bytes()?, server.cpu_seconds()?);
        let start = Instant::now();
        let mut client = Client::connect(server.addr, sessions, CONCURRENCY, CONNECT_LIMIT)?;
        let (seconds, cpu) = (start.elapsed().as_secs_f64(), server.cpu_seconds()? - cpu);
        sleep(SETTLE);
        let grown = server.rss_bytes()?.saturating_sub(before) as f64;
        let idle = server.cpu_seconds()?;
        sleep(Duration::from_secs_f64(common.secs));
        let idle = server.cpu_seconds()? - idle;
        let count = f64::from(self.conns);
        let mut figures = vec![
            figure("server bytes per connection", grown / count),
            figure("server MB before", before as f64 / 1e6),
            figure("joins/s", count / seconds),
            figure("server CPU µs per join", 1e6 * cpu / count),
            figure("idle CPU %", 100.0 * idle / common.secs),
        ];
        if let Some(beats) = self.beats {
            let meter = Meter::begin(&server)?;
            let answered = beat(&mut client, count / beats, self.beat_secs)?;
            let spent = meter.end(&server)?;
            figures.push(figure("beats/s", answered as f64 / spent.seconds));
            figures.push(figure("CPU % with beats", 100.0 * spent.server / spent.seconds));
            figures.push(figure("server CPU µs per beat", 1e6 * spent.server / answered as f64));
        }
        still_there(&mut client)?;
        Ok(figures)
    }
}

/// Fails if the server closed a connection or sent a message meanwhile: what is measured must be that of all of them.
fn still_there<S: Session>(client: &mut Client<S>) -> io::Result<()> {
    let deadline = Instant::now() + CONNECT_LIMIT;
    loop {
        client.turn(Duration::ZERO, |_, event| match event {
            Event::Delivery { .. } => Err(io::Error::other("a message that nobody published")),
            _ => Ok(()),
        })?;
        if client.ready.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("connections are not idle after {CONNECT_LIMIT:?}")));
        }
    }
}

/// Beats from the connections in turn, so many times a second, and waits for the answers. Returns how many there were.
fn beat<S: Session>(client: &mut Client<S>, rate: f64, seconds: f64) -> io::Result<usize> {
    let count = client.conns.len();
    let (mut sent, mut answered) = (0, vec![0; count]);
    let start = Instant::now();
    let end = Duration::from_secs_f64(seconds);
    let beats_of = |conn: usize, sent: usize| sent / count + usize::from(conn < sent % count);
    loop {
        let now = start.elapsed();
        let due = (now.min(end).as_secs_f64() * rate) as usize;
        for beat in std::mem::replace(&mut sent, due)..due {
            let conn = &mut client.conns[beat % count];
            conn.beat();
            conn.flush()?;
        }
        client.turn(Duration::from_millis(10), |conn, event| {
            match event {
                Event::Beat => answered[conn] += 1,
                Event::Delivery { .. } => return Err(io::Error::other("a message that nobody published")),
                _ => {}
            }
            Ok(())
        })?;
        let missing = answered.iter().enumerate().filter(|&(conn, answered)| *answered != beats_of(conn, sent)).count();
        if now >= end && missing == 0 {
            return Ok(sent);
        }
        if now > end + ANSWER_LIMIT {
            return Err(io::Error::other(format!("{missing} connections have not as many answers as beats")));
        }
    }
}
