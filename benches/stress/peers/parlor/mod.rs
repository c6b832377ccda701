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

use parlor_protocol::{
    Epoch,
    message::{Durability, JoinFrom},
};

use self::session::ParlorSession;
use super::{Peer, Place, Role, Storage, write_config};

/// Granted to clients that do not beat, so that a long run does not end their sessions.
const NEVER_MS: u128 = 3_600_000;

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

    const TELLS_SENDER: bool = true;

    const STORES_ROOMS: bool = true;

    fn server(&self, place: &Place<'_>) -> io::Result<Command> {
        let arbiters = place.arbiters.map_or(String::new(), |count| format!("arbiters = {count}\n"));
        let (durability, beats) = (self.durability().1, place.beats.map_or(NEVER_MS, |beats| beats.as_millis()));
        let idle = place.room_idle;
        let idle = idle.map_or(String::new(), |idle| format!("[limits]\nroom_idle_ms = {}\n", idle.as_millis()));
        let config =
            format!("{arbiters}[rooms]\ndurability = \"{durability}\"\n[heartbeat]\nwired_ms = {beats}\n{idle}");
        let mut command = Command::new(self.program.as_deref().unwrap_or(Path::new(env!("CARGO_BIN_EXE_parlor"))));
        command
            .args(["serve", "--send-rate", "off", "--listen", &format!("127.0.0.1:{}", place.port), "--data"])
            .arg(place.dir.join("rooms"))
            .arg("--config")
            .arg(write_config(place.dir, "parlor.toml", &config)?);
        Ok(command)
    }

    fn session(&self, id: u32, role: Role) -> Option<ParlorSession> {
        let room = |room: u32| vec![format!("r{room}")];
        let (names, from) = match role {
            Role::Member { room: number } => (room(number), JoinFrom::Tail),
            Role::Newest { room: number, messages } => (room(number), JoinFrom::Newest(messages)),
            Role::Back { room: number, position } => {
                (room(number), JoinFrom::Position(Epoch(position.epoch), position.seq))
            }
            Role::Rooms { first, count } => {
                ((first..first + count).map(|room| format!("r{room}")).collect(), JoinFrom::Tail)
            }
            Role::Publisher => (vec![format!("own{id}")], JoinFrom::Tail),
            Role::Reader => (vec!["own0".to_owned()], JoinFrom::Seq(1)),
            Role::Setup => (vec![], JoinFrom::Tail),
        };
        Some(ParlorSession::new(id, role, names, from, self.durability().0))
    }
}
