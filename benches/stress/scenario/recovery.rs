//! How long a server with a full store takes from the start of its process to its first answer, after a clean stop and
//! after it was killed; and that it then holds all that it had acknowledged.

use std::{
    io,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;

use super::{Scenario, not_offered, publishing::Publishing, rooms::loaders};
use crate::{
    client::Client,
    options::{Common, at_least_one},
    peers::{Event, PAYLOAD, Peer, Position, Role, Session, Storage},
    server::Server,
    stats::{Figure, figure, median},
};

/// Messages that each connection has in flight while the store is filled.
const WINDOW: usize = 64;

/// Connections that join their rooms at a time.
const CONCURRENCY: usize = 8;

/// How long joining all rooms may take: each is loaded from the store.
const LOAD_LIMIT: Duration = Duration::from_secs(1_200);

/// How long a first answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The id of the one who asks, below those of the others.
const ASKER: u32 = 0;

/// The load.
#[derive(Clone, Debug, Args, Serialize)]
#[group(skip)]
pub(crate) struct Recovery {
    /// How many messages are stored at first.
    #[arg(long, default_value_t = 10_000_000, value_parser = at_least_one::<u64>)]
    messages: u64,
    /// In how many rooms.
    #[arg(long, default_value_t = 100_000, value_parser = at_least_one::<u32>)]
    rooms: u32,
    /// Messages that are stored before each kill, so that there is something that only the log has.
    #[arg(long, default_value_t = 200_000, value_parser = at_least_one::<u64>)]
    again: u64,
    /// How often the server is killed, and as often stopped.
    #[arg(long, default_value_t = 3, value_parser = at_least_one::<usize>)]
    opens: usize,
}

impl Scenario for Recovery {
    const NAME: &'static str = "recovery";
    const PEERS: &'static [&'static str] = &["parlor"];

    fn title(&self) -> String {
        let Self { messages, rooms, again, opens } = self;
        format!(
            "a store of {messages} messages in {rooms} rooms, {opens} × killed after {again} more, {opens} × stopped"
        )
    }

    fn storage(&self, wanted: Storage, _parlor: bool) -> Storage {
        wanted
    }

    fn offered<P: Peer>(&self, _peer: &P) -> bool {
        P::STORES_ROOMS
    }

    fn measure<P: Peer>(&self, peer: &P, storage: Storage, common: &Common) -> io::Result<Vec<Figure>> {
        let mut server = Server::start(peer, storage, common)?;
        let mut held = vec![0; self.rooms as usize];
        let fill = self.store(self.messages, &mut held, peer, &server)?;
        let (mut killed, mut stopped) = (Vec::new(), Vec::new());
        for open in 0..self.opens {
            if open > 0 {
                self.store(self.again, &mut held, peer, &server)?;
            }
            server.kill()?;
            killed.push(first_answer(peer, &mut server, &mut held)?);
            server.stop()?;
            stopped.push(first_answer(peer, &mut server, &mut held)?);
        }
        // Once more, only to look: each room must hold what was acknowledged.
        let start = Instant::now();
        self.store(0, &mut held, peer, &server)?;
        let loaded = f64::from(self.rooms) / start.elapsed().as_secs_f64();
        let worst = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
        Ok(vec![
            figure("first publish ms after a kill", median(&killed)),
            figure("worst after a kill", worst(&killed)),
            figure("first publish ms after a clean stop", median(&stopped)),
            figure("worst after a clean stop", worst(&stopped)),
            figure("rooms loaded/s", loaded),
            figure("store MB", size_bytes(server.dir())? as f64 / 1e6),
            figure("fill: stored msgs/s", fill),
        ])
    }
}

impl Recovery {
    /// Joins all rooms, compares what they hold with `held`, and stores so many messages more, spread over them.
    fn store<P: Peer>(&self, messages: u64, held: &mut [u64], peer: &P, server: &Server) -> io::Result<f64> {
        let client = Client::connect(server.addr, loaders(peer, 0..self.rooms)?, CONCURRENCY, LOAD_LIMIT)?;
        let tails = tails(&client);
        if let Some((room, (tail, held))) = (0..).zip(tails.iter().zip(&*held)).find(|(_, (tail, held))| tail != held) {
            return Err(io::Error::other(format!("room {room} holds {tail} messages, {held} were acknowledged")));
        }
        let mut publishing = Publishing::new(client);
        let rate = publishing.store(messages, WINDOW)?;
        held.copy_from_slice(&self::tails(&publishing.received()?));
        Ok(rate)
    }
}

/// How many messages each room holds, as its member has it.
fn tails<S: Session>(client: &Client<S>) -> Vec<u64> {
    client.conns.iter().flat_map(|conn| conn.session.positions()).map(|Position { seq, .. }| seq).collect()
}

/// Starts the server, publishes to the first room as soon as that goes, and returns the milliseconds until the answer.
fn first_answer<P: Peer>(peer: &P, server: &mut Server, held: &mut [u64]) -> io::Result<f64> {
    let began = server.start_again()?;
    let session = peer.session(ASKER, Role::Member { room: 0 }).ok_or_else(not_offered)?;
    let mut client = Client::connect(server.addr, [session], 1, ANSWER_LIMIT)?;
    client.conns[0].publish(&[b'x'; PAYLOAD]);
    client.conns[0].flush()?;
    let (mut stored, mut delivered) = (None, false);
    while stored.is_none() || !delivered {
        client.turn(Duration::from_millis(100), |_, event| {
            match event {
                Event::Stored => stored = Some(began.elapsed()),
                Event::Delivery { .. } => delivered = true,
                _ => {}
            }
            Ok(())
        })?;
        if began.elapsed() > ANSWER_LIMIT {
            return Err(io::Error::other(format!("no answer in {ANSWER_LIMIT:?}")));
        }
    }
    held[0] += 1;
    if tails(&client) != held[..1] {
        return Err(io::Error::other(format!("room 0 holds {:?} messages, and not {}", tails(&client), held[0])));
    }
    stored.map(|stored| 1e3 * stored.as_secs_f64()).ok_or_else(|| io::Error::other("no answer"))
}

/// Bytes of all files below a directory.
fn size_bytes(dir: &std::path::Path) -> io::Result<u64> {
    std::fs::read_dir(dir)?.try_fold(0, |sum, entry| {
        let entry = entry?;
        let data = entry.metadata()?;
        Ok(sum + if data.is_dir() { size_bytes(&entry.path())? } else { data.len() })
    })
}
