//! Parlor's actors: who does what when something is said.
//!
//! Four kinds of actor, each a shell over a pure state machine in a file of its own, so that ordering, recovery and time
//! are tested without a runtime:
//!
//! * [`supervisor`]: one; finds or loads rooms, builds their channels, rebuilds those that died, knows the sessions;
//! * [`channel`]: one for each room; gives seqs, keeps the newest records, answers devices;
//! * [`session`]: one for each connection; what its client may ask, and whether it lives;
//! * [`relay`]: one for each arbiter; brings committed records to the arbiter's connections.
//!
//! [`port`] holds what they need from outside (a store, a clock), [`limits`] what they may hold. Nothing here knows
//! sockets, RocksDB or the configuration file.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod arbiters;
pub mod channel;
pub mod context;
pub mod fleet;
mod handover;
pub mod limits;
pub mod members;
pub mod message;
pub mod outbound;
mod panics;
pub mod pools;
pub mod port;
pub mod rates;
pub mod relay;
pub mod restart;
pub mod router;
pub mod session;
pub mod supervisor;
pub mod testkit;
pub mod tiers;
mod turns;
pub mod wall;
