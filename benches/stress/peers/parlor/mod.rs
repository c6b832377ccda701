//! Parlor over its TCP protocol, in a process of its own.
//!
//! Requests are encoded by the protocol's crate. What comes in bulk, deliveries and acks, is read by hand (see
//! [`thin`]), so that the load generator is not what is measured; every 1,024th frame of a connection is decoded in full
//! as well and must say the same.

mod session;
mod thin;

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

use parlor_protocol::message::{Durability, JoinFrom};

use self::session::ParlorSession;
use super::{Peer, Place, Role, Storage, write_config};

/// Parlor, with rooms of one durability.
pub(crate) struct Parlor {
    /// The durability.
    pub(crate) storage: Storage,
    /// Another build of it than this one.
    pub(crate) program: Option<PathBuf>,
}

impl Parlor {
    fn durability(&self) -> (Durability, &'static str) {
        match self.storage {
            Storage::Memory => (Durability::Memory, "memory"),
            Storage::Buffered => (Durability::Buffered, "buffered"),
            Storage::Synced => (Durability::Synced, "synced"),
        }
    }
}

impl Peer for Parlor {
    type Session = ParlorSession;

    fn server(&self, place: &Place<'_>) -> io::Result<Command> {
        let arbiters = place.arbiters.map_or(String::new(), |count| format!("arbiters = {count}\n"));
        let config = format!("{arbiters}[rooms]\ndurability = \"{}\"\n", self.durability().1);
        let mut command = Command::new(self.program.as_deref().unwrap_or(Path::new(env!("CARGO_BIN_EXE_parlor"))));
        command
            .args(["serve", "--listen", &format!("127.0.0.1:{}", place.port), "--data"])
            .arg(place.dir.join("rooms"))
            .arg("--config")
            .arg(write_config(place.dir, "parlor.toml", &config)?);
        Ok(command)
    }

    fn session(&self, id: u32, role: Role) -> Option<ParlorSession> {
        let (name, from) = match role {
            Role::Member { room } => (Some(format!("r{room}")), JoinFrom::Tail),
            Role::Publisher => (Some(format!("own{id}")), JoinFrom::Tail),
            Role::Reader => (Some("own0".to_owned()), JoinFrom::Seq(1)),
            Role::Setup => (None, JoinFrom::Tail),
        };
        Some(ParlorSession::new(id, role, name, from, self.durability().0))
    }
}
