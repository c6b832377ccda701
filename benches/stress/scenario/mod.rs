//! The scenarios. Each measures one peer at a time, with a fresh server for every repetition.

pub(crate) mod asleep;
pub(crate) mod chat;
mod disk;
pub(crate) mod durable;
pub(crate) mod fanout;
mod flight;
mod follow;
pub(crate) mod growth;
pub(crate) mod idle;
pub(crate) mod inprocess;
pub(crate) mod joins;
pub(crate) mod large;
mod payload;
mod publishing;
pub(crate) mod reconnects;
pub(crate) mod recovery;
pub(crate) mod replay;
pub(crate) mod rooms;
mod scan;
mod storm;
pub(crate) mod sweep;
mod traffic;

use std::{io, ops::Range, time::Duration};

use crate::{
    options::Common,
    peers::{Peer, Role, Storage},
    stats::Figure,
};

/// How long all connections of a repetition may take to become ready.
const CONNECT_LIMIT: Duration = Duration::from_secs(120);

/// Connections that are opened at a time.
const CONCURRENCY: usize = 64;

/// A load and what is measured under it.
pub(crate) trait Scenario {
    /// Its name on the command line.
    const NAME: &'static str;

    /// The peers that fit, where the user names none.
    const PEERS: &'static [&'static str];

    /// Completes what the user left open.
    fn complete(&mut self, _common: &mut Common) {}

    /// The load in words.
    fn title(&self) -> String;

    /// What of the options cannot work, and what is allowed; `None` if all can.
    fn refused(&self) -> Option<String> {
        None
    }

    /// What the scenario itself lacks to run on this machine; `None` if it can.
    fn lacks(&self) -> Option<String> {
        None
    }

    /// How the server of a peer is to store, if the user wants `wanted`.
    fn storage(&self, wanted: Storage, parlor: bool) -> Storage;

    /// Whether the peer offers what the scenario needs.
    fn offered<P: Peer>(&self, peer: &P) -> bool;

    /// Measures one repetition of a baseline that needs no server; `None` if `name` is none of the scenario's.
    fn in_process(&self, _name: &str, _common: &Common) -> Option<io::Result<Vec<Figure>>> {
        None
    }

    /// Measures one repetition.
    fn measure<P: Peer>(&self, peer: &P, storage: Storage, common: &Common) -> io::Result<Vec<Figure>>;
}

/// Connections `ids` of a peer, each in the role that it is given.
fn sessions<P: Peer>(peer: &P, ids: Range<u32>, role: impl Fn(u32) -> Role) -> io::Result<Vec<P::Session>> {
    ids.map(|id| peer.session(id, role(id)).ok_or_else(not_offered)).collect()
}

/// Says so if there would be more connections than this process may have open; `None` stands for too many to count.
fn too_many(connections: Option<usize>) -> Option<String> {
    let (most, _) = rlimit::Resource::NOFILE.get().ok()?;
    let fit = connections.is_some_and(|connections| (connections as u64) < most);
    (!fit).then(|| format!("so many clients need more than the {most} files that this process may have open"))
}

/// What a peer was asked for although it does not offer it.
fn not_offered() -> io::Error {
    io::Error::other("not offered")
}
