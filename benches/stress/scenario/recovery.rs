//! How long a server with a full store takes from the start of its process to its first answer, after a clean stop and
//! after it was killed; and that it then holds all that it had acknowledged.

use std::{
    io,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;

use super::{Scenario, not_offered, payload::Noise, publishing::Publishing, rooms::loaders};
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

/// What he publishes.
const ASKED: [u8; PAYLOAD] = [b'x'; PAYLOAD];

/// The most rooms that are read back whole, spread over all.
const READ_BACK_MAX: usize = 1_000;

/// The id of the first who reads, above those of the others.
const READER: u32 = 1 << 18;

/// How long nothing may come while rooms are read back.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

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
    /// Messages that are stored between a clean stop and the next kill, so that there is something that only the log has.
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
            "a store of {messages} messages in {rooms} rooms, {opens} × killed with {again} more in between, {opens} × stopped"
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
        read_back(peer, &server, &held)?;
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

/// Reads rooms back from the first message on: each must hold as many as were acknowledged, without a gap, and each of them has
/// to be one that was published.
fn read_back<P: Peer>(peer: &P, server: &Server, held: &[u64]) -> io::Result<()> {
    let rooms: Vec<u32> = (0..held.len() as u32).step_by(held.len().div_ceil(READ_BACK_MAX)).collect();
    let session = |room: u32, role| peer.session(READER + room, role).ok_or_else(not_offered);
    let members = rooms.iter().map(|&room| session(room, Role::Member { room })).collect::<io::Result<Vec<_>>>()?;
    let members = Client::connect(server.addr, members, CONCURRENCY, LOAD_LIMIT)?;
    let incarnations: Vec<u64> = members.conns.iter().map(|conn| conn.session.positions()[0].epoch).collect();
    drop(members);

    let (noise, mut client) = (Noise::new(), Client::new()?);
    let published = noise.index();
    for (&room, &epoch) in rooms.iter().zip(&incarnations) {
        client.open(server.addr, session(room, Role::Back { room, position: Position { epoch, seq: 0 } })?)?;
    }
    let owed: Vec<u64> = rooms.iter().map(|room| held[*room as usize]).collect();
    let (mut got, all, mut came) = (0, owed.iter().sum::<u64>(), Instant::now());
    while got < all {
        client.turn(Duration::from_millis(100), |index, event| {
            let Event::Delivery { payload, .. } = event else { return Ok(()) };
            if payload != ASKED && !published.has(payload) {
                let room = rooms[index];
                return Err(io::Error::other(format!("room {room} holds a message that nobody published")));
            }
            (got, came) = (got + 1, Instant::now());
            Ok(())
        })?;
        if came.elapsed() > SILENCE_LIMIT {
            return Err(io::Error::other(format!("only {got} of {all} messages were read back")));
        }
    }
    if tails(&client) == owed { Ok(()) } else { Err(io::Error::other("more was read back than was acknowledged")) }
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
    client.conns[0].publish(&ASKED);
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
