//! One codec per system. A codec does no I/O: the load generator owns the sockets, so every peer is driven by the same
//! event loop and pays the same client cost.

mod ejabberd;
mod mqtt;
mod nats;
mod parlor;
mod raw;
mod redis;
mod steps;
mod text;

use std::{
    env, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use bytes::BytesMut;

pub(crate) use self::{ejabberd::Ejabberd, mqtt::Mqtt, nats::Nats, parlor::Parlor, raw::Raw, redis::Redis};

/// Bytes of every message of the benchmark: printable ASCII, so that every wire format can carry it.
pub(crate) const PAYLOAD: usize = 128;

/// How the server is to store messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Storage {
    /// In the server's memory, or not at all.
    Memory,
    /// In the operating system's cache before it is acknowledged.
    Buffered,
    /// On the device before it is acknowledged.
    Synced,
}

/// Where and how a peer's server is to run.
pub(crate) struct Place<'a> {
    /// The server's own directory, for configuration and data.
    pub(crate) dir: &'a Path,
    /// Listen here, on 127.0.0.1.
    pub(crate) port: u16,
    /// How to store.
    pub(crate) storage: Storage,
    /// Threads that run rooms and sockets, where the peer lets one choose.
    pub(crate) arbiters: Option<usize>,
    /// How often clients beat; `None` if they do not.
    pub(crate) beats: Option<Duration>,
    /// How long a room has to be idle to be put to sleep; `None` for the peer's own way.
    pub(crate) room_idle: Option<Duration>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// A member of a room, which may also publish there.
    Member {
        /// Which room.
        room: u32,
    },
    /// A member of a room that first reads its newest messages.
    Newest {
        /// Which room.
        room: u32,
        /// How many messages.
        messages: u32,
    },
    /// A member of a room that was there before, and goes on where it was.
    Back {
        /// Which room.
        room: u32,
        /// Up to where it has received the room.
        position: Position,
    },
    /// A member of many rooms. Where rooms [store](Peer::STORES_ROOMS), it publishes to each in turn, some messages at a
    /// time.
    Rooms {
        /// The first of them.
        first: u32,
        /// How many.
        count: u32,
    },
    /// Prepares what publishers and readers of stored messages need; open for the whole repetition.
    Setup,
    /// Publishes messages that the server acknowledges once they are stored. A peer with rooms gives each its own.
    Publisher,
    /// Reads back what publisher 0 stored.
    Reader,
}

/// Up to where a client has received a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The room's incarnation.
    pub(crate) epoch: u64,
    /// The last message's number.
    pub(crate) seq: u64,
}

/// What one piece of the received stream means to the benchmark.
pub(crate) enum Event<'a> {
    /// The connection has become what its role says.
    Ready,
    /// A message of the benchmark.
    Delivery {
        /// Its bytes: [`PAYLOAD`] of them, or any number where the peer takes [any](Peer::ANY_SIZE).
        payload: &'a [u8],
        /// The connection that published it, where the protocol [tells](Peer::TELLS_SENDER).
        sender: Option<u32>,
    },
    /// The server stored this connection's oldest message that was not acknowledged.
    Stored,
    /// The server answered the connection's oldest beat that was not answered.
    Beat,
    /// Anything else.
    Other,
}

/// A system under test.
pub(crate) trait Peer {
    /// One connection's state.
    type Session: Session + Send;

    /// Whether messages may have other sizes than [`PAYLOAD`], and hold any bytes.
    const ANY_SIZE: bool = true;

    /// Whether the protocol tells who sent a message.
    const TELLS_SENDER: bool = false;

    /// Whether every room stores what is published there, as long as the server has it.
    const STORES_ROOMS: bool = false;

    /// What the server lacks to run on this machine and to store so; `None` if it can.
    fn missing(&self, _storage: Storage) -> Option<String> {
        None
    }

    /// The server's command line, after its configuration was written.
    fn server(&self, place: &Place<'_>) -> io::Result<Command>;

    /// Connection `id`; `None` if the peer offers nothing of the kind.
    fn session(&self, id: u32, role: Role) -> Option<Self::Session>;
}

/// One connection as its protocol sees it: bytes in, bytes and events out.
///
/// First [`start`](Self::start), then [`decode`](Self::decode) with all that comes. Nothing else before [`Event::Ready`].
pub(crate) trait Session {
    /// Appends what the connection says first. True if it is ready at once, without an [`Event::Ready`].
    fn start(&mut self, out: &mut BytesMut) -> bool;

    /// Decodes the first frame of `input`: its length and meaning, or `None` if it is incomplete. Appends to `out` what the
    /// protocol requires in return.
    ///
    /// # Errors
    /// If the server refused something, or broke a promise of its protocol.
    fn decode<'a>(&mut self, input: &'a [u8], out: &mut BytesMut) -> io::Result<Option<(usize, Event<'a>)>>;

    /// Appends one publish of `payload` to the connection's room.
    fn publish(&mut self, payload: &[u8], out: &mut BytesMut);

    /// Whether a publisher receives what it publishes, besides the ack.
    fn delivers(&self) -> bool {
        false
    }

    /// Appends a request for the next `records` stored messages. A peer that streams them needs only the first.
    fn read_on(&mut self, _records: u64, _out: &mut BytesMut) {}

    /// Appends a sign of life, which the server answers. False if the protocol has none.
    fn beat(&mut self, _out: &mut BytesMut) -> bool {
        false
    }

    /// Up to where the connection has received each of its rooms, if the protocol numbers messages.
    fn positions(&self) -> Vec<Position> {
        Vec::new()
    }
}

/// A program of a peer: what `PARLOR_BENCH_<NAME>` names, or `name` from the search path and where servers are installed.
fn program(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = env::var_os(format!("PARLOR_BENCH_{variable}")) {
        return Some(path.into());
    }
    let search = env::var_os("PATH").unwrap_or_default();
    let cargo = env::home_dir().map(|home| home.join(".cargo/bin"));
    env::split_paths(&search)
        .chain(["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from))
        .chain(cargo)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Says that a program is not installed.
fn absent(variable: &str, name: &str) -> Option<String> {
    program(variable, name).is_none().then(|| format!("{name} is not installed"))
}

fn command(variable: &str, name: &str) -> io::Result<Command> {
    program(variable, name).map(Command::new).ok_or_else(|| io::Error::other(format!("{name} is not installed")))
}

/// Writes a server's configuration file and returns its path.
fn write_config(dir: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}
