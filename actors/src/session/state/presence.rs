//! What a session's client asks about presence.

use parlor_protocol::{
    Code, DecodeError, Name, NameError, RoomNumber,
    message::{self, PRESENCE_USERS_MAX},
};

use super::{Effect, State};
use crate::{
    channel::{gathering, state::Input},
    relay::state::{Asks, Pending},
};

/// A question about presence that the session's arbiter answers at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Who of these is online?
    Query(Vec<Name>),
    /// The same of `add`, and what changes of them later.
    Watch {
        /// Tell of these, too.
        add: Vec<Name>,
        /// Tell of these no more.
        remove: Vec<Name>,
    },
    /// Tell no more who is in this room.
    LeaveRoom(RoomNumber),
}

impl State {
    pub(super) fn on_query_presence(&mut self, request: u32, body: &[u8]) -> Result<(), DecodeError> {
        let message::QueryPresence { users, .. } = parlor_protocol::decode(body)?;
        let asked = names(&users).map(Asked::Query);
        self.ask_presence(request, asked);
        Ok(())
    }

    pub(super) fn on_watch_presence(&mut self, request: u32, body: &[u8]) -> Result<(), DecodeError> {
        let message::WatchPresence { add, remove, .. } = parlor_protocol::decode(body)?;
        let asked = names(&add).and_then(|add| Ok(Asked::Watch { add, remove: names(&remove)? }));
        self.ask_presence(request, asked);
        Ok(())
    }

    pub(super) fn on_watch_room(&mut self, request: u32, body: &[u8]) -> Result<(), DecodeError> {
        let message::WatchRoom { room, watch, .. } = parlor_protocol::decode(body)?;
        if !self.is_joined(room) {
            self.not_joined(request, room);
        } else if !watch || !self.presence {
            self.ask_presence(request, Ok(Asked::LeaveRoom(room)));
        } else {
            let watch = gathering::Input::Watch { conn: self.conn, request, device: self.device.clone() };
            self.effects.push_back(Effect::Begin(Pending { request, room: Some(room), asks: Asks::Rooms }));
            self.effects.push_back(Effect::Channel { request, room, input: Input::Presence(watch) });
        }
        Ok(())
    }

    fn ask_presence(&mut self, request: u32, asked: Result<Asked, NameError>) {
        match asked {
            _ if !self.presence => self.error(request, Code::Unsupported, "presence is not told here".into()),
            Ok(asked) => self.effects.push_back(Effect::Presence { request, asked }),
            Err(error) => self.error(request, Code::InvalidName, error.to_string()),
        }
    }
}

fn names(users: &parlor_protocol::List<&str, PRESENCE_USERS_MAX>) -> Result<Vec<Name>, NameError> {
    users.0.iter().map(|user| Name::parse(user)).collect()
}

#[cfg(test)]
mod tests;
