//! Subscribers that a room puts out: whose users may no longer be there, or since the room is no more.

use std::collections::HashSet;

use bytes::Bytes;
use parlor_protocol::{
    Code, Extensions, Name, RoomNumber,
    message::{Detached, Position},
};

use super::{Asks, Effect, Pending, State};
use crate::message::Conn;

impl State {
    /// The room was deleted, and its channel has ended.
    pub fn on_room_gone(&mut self, room: RoomNumber) {
        self.end_nap(room);
        let code = Code::RoomDeleted;
        let all: Vec<Conn> = self.connections.iter().map(|(slot, connection)| self.conn(slot, connection)).collect();
        for conn in all {
            self.put_out(conn, room, code, "the room was deleted", |_| (code, "the room was deleted"));
        }
    }

    /// These users may no longer be in the room.
    pub(super) fn on_detach(&mut self, room: RoomNumber, users: &[Name], code: Code, message: &'static str) {
        let Some(entry) = self.rooms.get(&room) else { return };
        let users: HashSet<&Name> = users.iter().collect();
        let of = |slot: u32| Some((slot, self.connections.get(slot as usize)?));
        let subscribers = entry.subscribers.iter().filter_map(|subscriber| of(subscriber.slot));
        let theirs = subscribers.filter(|(_, connection)| users.contains(&connection.device.user));
        let conns: Vec<Conn> = theirs.map(|(slot, connection)| self.conn(slot as usize, connection)).collect();
        // A message may have been taken before its sender was removed, and be stored.
        let unknown = (Code::OutcomeUnknown, "the user was put out of the room: it may be stored or not");
        let refused = |asks| if matches!(asks, Asks::Publish(_)) { unknown } else { (code, message) };
        for conn in conns {
            self.put_out(conn, room, code, message, refused);
        }
    }

    /// Refuses what waits in the room for a connection, and detaches it if it is attached.
    fn put_out(
        &mut self,
        conn: Conn,
        room: RoomNumber,
        code: Code,
        message: &'static str,
        refused: impl Fn(Asks) -> (Code, &'static str),
    ) {
        let Some(connection) = self.connection(conn) else { return };
        let here = connection.pending.iter().filter(|pending| pending.room == Some(room));
        let waiting: Vec<Pending> = here.copied().collect();
        for pending in waiting {
            let (code, message) = refused(pending.asks);
            self.refuse_in(conn, pending.request, room, code, 0, message);
        }
        let epoch = self.rooms.get(&room).map(|entry| entry.epoch).unwrap_or_default();
        if let Some(cursor) = self.on_leave(conn, room) {
            let extensions = Extensions::default();
            self.on_send(conn, 0, &Detached { room, cursor, code, message, extensions });
            // All that was sent is in front of it, so that the client's position will be this.
            self.effects.push_back(Effect::Lost { conn, stands: Position { room, epoch, seq: cursor } });
        }
    }

    /// The answer to a request about rooms.
    pub fn on_answer(&mut self, conn: Conn, request: u32, frame: Bytes) {
        if self.end(conn, request, |pending| pending.asks == Asks::Rooms).is_some() {
            self.push(conn, frame);
        }
        self.close_if_answered(conn);
    }
}
