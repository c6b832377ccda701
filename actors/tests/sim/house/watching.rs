//! Who is in a room, for those who watch it: what the shells of a channel, a relay and a session do about it.

use std::sync::Arc;

use parlor_actors::{
    channel::{
        gathering::{self, Effect, Tell, To, Told},
        state::Input,
    },
    message::Conn,
    session::state::Asked,
};
use parlor_protocol::{
    Extensions, List, Name, RoomNumber,
    message::{Done, RoomPresence},
    to_bytes,
};

use super::{ChannelId, House, ToRelay};

impl House {
    // A channel.

    pub(super) fn gather(&mut self, id: ChannelId, effect: Effect) {
        let now = self.now();
        let Some(room) = self.rooms.get_mut(&id) else { return };
        match effect {
            Effect::In(ms) => self.presence_due.push((now.mono_ms + ms, id)),
            Effect::AskAway(mut devices) => {
                devices.retain(|device| self.attendance.is_away(device));
                if !devices.is_empty() {
                    *self.counts.entry("who left may come back").or_default() += 1;
                }
                room.state.handle(now, Input::Presence(gathering::Input::Away(devices)));
            }
            Effect::Tell(Tell { arbiter, watch, to, told }) => {
                let message = ToRelay::RoomPresence { room: room.state.room(), watch, to, told };
                self.arbiters[usize::from(arbiter)].mailbox.push_back(message);
            }
            Effect::Host(..) => unreachable!("the host does not ask who is in a room here"),
        }
    }

    /// Time passed: channels tell who came and went, and relays ask for those that could not be told.
    pub(super) fn presence_tick(&mut self) {
        let now = self.now().mono_ms;
        let due: Vec<ChannelId> = self.presence_due.extract_if(.., |(at, _)| *at <= now).map(|(_, id)| id).collect();
        due.into_iter().for_each(|id| self.tell(id, Input::Presence(gathering::Input::Due)));
        let full = self.full();
        for at in 0..self.arbiters.len() {
            let rooms = self.arbiters[at].onlookers.due(|conn| !full.contains(&conn));
            rooms.into_iter().for_each(|room| self.ask_again(at, room));
        }
    }

    // A relay.

    pub(super) fn on_room_presence(&mut self, at: usize, room: RoomNumber, watch: u32, to: To, told: &Arc<Told>) {
        if let To::Asker(conn, request) = to {
            let state = &mut self.arbiters[at].state;
            if !state.is_pending(conn, request) || !state.is_attached(conn, room) {
                state.not_watched(conn, request, room);
                return self.unwatched(at, room, watch);
            }
        }
        self.count(match to {
            To::Asker(..) => "presence of a room asked",
            To::Everybody => "presence of a room told",
            To::PassedOver => "presence of a room told again",
        });
        let full = self.full();
        let conns = self.arbiters[at].onlookers.on_told(room, watch, to, told.all, |conn| !full.contains(&conn));
        let request = if let To::Asker(_, request) = to { request } else { 0 };
        let frame = frame(request, room, told);
        for conn in conns {
            let state = &mut self.arbiters[at].state;
            match to {
                To::Asker(conn, request) => state.on_answer(conn, request, frame.clone()),
                To::Everybody | To::PassedOver => state.on_frame(conn, frame.clone()),
            }
        }
    }

    /// A room has a new channel, which knows its subscribers here.
    pub(super) fn presence_rebuilt(&mut self, at: usize, room: RoomNumber) {
        if self.arbiters[at].onlookers.on_rebuilt(room) {
            self.ask_again(at, room);
        }
    }

    pub(super) fn unwatch_room(&mut self, conn: Conn, room: RoomNumber) {
        let at = usize::from(conn.arbiter);
        if let Some(watch) = self.arbiters[at].onlookers.on_left(conn, room) {
            self.unwatched(at, room, watch);
        }
    }

    /// A connection is gone. Before its rooms are left.
    pub(super) fn unwatch_all(&mut self, conn: Conn) {
        let at = usize::from(conn.arbiter);
        let rooms = self.arbiters[at].onlookers.on_gone(conn);
        rooms.into_iter().for_each(|(room, watch)| self.unwatched(at, room, watch));
    }

    fn unwatched(&mut self, at: usize, room: RoomNumber, watch: u32) {
        let arbiter = self.arbiters[at].state.arbiter();
        self.tell_room(at, room, Input::Presence(gathering::Input::Unwatch { arbiter, watch }));
    }

    fn ask_again(&mut self, at: usize, room: RoomNumber) {
        let arbiter = self.arbiters[at].state.arbiter();
        self.tell_room(at, room, Input::Presence(gathering::Input::Again { arbiter }));
    }

    /// Connections that are told of presence later, as they do not read.
    fn full(&mut self) -> Vec<Conn> {
        let max = self.limits.presence_outbound_bytes_max;
        self.conns().into_iter().filter(|conn| self.outbound_bytes(*conn) > max).collect()
    }

    // A session.

    pub(super) fn ask_presence(&mut self, conn: Conn, request: u32, asked: Asked) {
        let Asked::LeaveRoom(room) = asked else { unreachable!("nobody asks who is online here") };
        self.unwatch_room(conn, room);
        self.arbiters[usize::from(conn.arbiter)].state.on_send(conn, request, &Done::default());
    }
}

fn frame(request: u32, room: RoomNumber, Told { all, named, count, came, went }: &Told) -> bytes::Bytes {
    fn names(users: &[Name]) -> Vec<&str> {
        users.iter().map(|user| &**user).collect()
    }
    let (came, went, extensions) = (List(names(came)), List(names(went)), Extensions::default());
    to_bytes(request, &RoomPresence { room, all: *all, named: *named, count: *count, came, went, extensions })
}
