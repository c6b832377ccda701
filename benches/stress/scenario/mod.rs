//! The scenarios. Each measures one peer at a time, with a fresh server for every repetition.

pub(crate) mod durable;
pub(crate) mod fanout;
mod flight;
pub(crate) mod idle;
pub(crate) mod inprocess;
pub(crate) mod replay;
mod traffic;

use std::{io, time::Duration};

use crate::{
    options::Common,
    peers::{Peer, Storage},
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

    /// How the server of a peer is to store, if the user wants `wanted`.
    fn storage(&self, wanted: Storage, parlor: bool) -> Storage;

    /// Whether the peer offers what the scenario needs.
    fn offered<P: Peer>(&self, peer: &P) -> bool;

    /// Measures one repetition.
    fn measure<P: Peer>(&self, peer: &P, storage: Storage, common: &Common) -> io::Result<Vec<Figure>>;
}

/// What a peer was asked for although it does not offer it.
fn not_offered() -> io::Error {
    io::Error::other("not offered")
}
