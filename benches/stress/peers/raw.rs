//! The baselines of the machine: a room id, then length-prefixed frames. See [`crate::baseline`].

use std::{io, process::Command};

use bytes::BytesMut;

use super::{
    Event, Peer, Place, Role,
    steps::{Codec, Step, Stepped},
};
use crate::baseline::Kind;

/// A baseline, run as a child of this program.
pub(crate) struct Raw(pub(crate) Kind);

impl Peer for Raw {
    type Session = Stepped<RawCodec>;

    fn server(&self, place: &Place<'_>) -> io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["baseline", self.0.name(), "--port", &place.port.to_string()]).current_dir(place.dir);
        Ok(command)
    }

    fn session(&self, id: u32, role: Role) -> Option<Self::Session> {
        let stores = matches!(self.0, Kind::Store | Kind::Sync);
        let (room, acked) = match role {
            Role::Member { room } | Role::Newest { room, messages: 0 } => (room, false),
            Role::Publisher if stores => (id, true),
            Role::Setup if stores => (u32::MAX, true),
            _ => return None,
        };
        Some(Stepped::new([Step::new(room.to_le_bytes(), [0; 4])], RawCodec { acked }))
    }
}

/// `u32` length, then the payload, both ways.
pub(crate) struct RawCodec {
    /// A member alone in its room takes the delivery for the ack: it comes once the message is stored.
    acked: bool,
}

impl Codec for RawCodec {
    fn decode<'a>(&mut self, input: &'a [u8], _out: &mut BytesMut) -> io::Result<Option<(usize, Event<'a>)>> {
        let Some(len) = input.first_chunk() else { return Ok(None) };
        let len = u32::from_le_bytes(*len) as usize;
        let Some(payload) = input[4..].get(..len) else { return Ok(None) };
        let event = if self.acked { Event::Stored } else { Event::Delivery { payload, sender: None } };
        Ok(Some((4 + len, event)))
    }

    fn publish(&mut self, payload: &[u8], out: &mut BytesMut) {
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.extend_from_slice(payload);
    }
}
