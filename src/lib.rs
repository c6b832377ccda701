//! Parlor, an embeddable chat engine: rooms with ordered, durable messages inside your own process.
//!
//! * [`engine`] (feature `engine`): start an [`Engine`](engine::Engine), let clients in over TCP or within the process.
//! * [`client`] (feature `client`): the client, for either way. Builds without RocksDB and actix.
//! * [`protocol`]: frames and messages, for whoever speaks the wire himself, over a socket or an
//!   [`engine::Pipe`].
//!
//! `README.md` begins at the beginning, `ARCHITECTURE.md` explains the inside, `PROTOCOL.md` the wire.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "engine")]
pub mod config;
#[cfg(feature = "engine")]
pub mod engine;
#[cfg(feature = "engine")]
pub mod net;
#[cfg(feature = "engine")]
pub mod storage;
#[cfg(feature = "engine")]
pub use parlor_actors::tiers;
pub use parlor_protocol as protocol;
