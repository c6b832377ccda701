//! Requests that wait for an answer: taken, held back, answered, refused.

use std::collections::VecDeque;

use parlor_protocol::{
    Advice, Code, Extensions, Nonce, RoomNumber,
    message::{Ack, Detached, Durability, Error},
};

use super::{Asks, Closing, Effect, FETCHES_PER_CONNECTION_MAX, Held, Pending, State};
use crate::message::{Conn, Stored};

impl State {
    /// A request is on its way to a channel or the supervisor.
    pub fn begin(&mut self, conn: Conn, pending: Pending) {
        if let Some(connection) = self.connection_mut(conn) {
            connection.newest = connection.newest.max(pending.request);
            connection.fetches += usize::from(pending.asks == Asks::Fetch);
            connection.pending.push_back(pending);
            self.pending += 1;
        }
    }

    /// A join's room is known now.
    pub fn on_resolved(&mut self, conn: Conn, request: u32, room: RoomNumber) {
        let Some(connection) = self.connection_mut(conn) else { return };
        let is = |pending: &&mut Pending| pending.request == request && pending.asks == Asks::Join;
        if let Some(pending) = connection.pending.iter_mut().find(is) {
            pending.room = Some(room);
        }
    }

    /// Whether a session may handle its client's next request: not while too many wait for an answer, nor while the client
    /// does not read those that it was given. [`Effect::Answered`] says when to ask again.
    pub fn may_ask(&mut self, conn: Conn) -> bool {
        let (pending_max, bytes_max) = (self.limits.unanswered_requests_max, self.limits.outbound_bytes_max);
        let Some(connection) = self.connection_mut(conn) else { return true };
        connection.unheard = connection.outbound.bytes() > bytes_max;
        // Pages are large: few may be on their way at a time, so that what comes at once is bounded, too.
        !connection.unheard
            && connection.pending.len() < pending_max as usize
            && connection.fetches < FETCHES_PER_CONNECTION_MAX
    }

    /// Whether what a session asks of a room may go to its channel, or else how it is refused. Not from a connection that was
    /// put out of the room, of which its session may have yet to hear, and the channel knows devices alone. A publish not
    /// before one that was refused for now has come again: only the relay sees all refusals, those of a dead channel's
    /// successor and those for want of a channel too. Nothing passes from a connection that is gone, since what was held
    /// back for it is forgotten.
    ///
    /// # Errors
    /// How to refuse it.
    pub fn may_pass(&mut self, conn: Conn, request: u32, room: RoomNumber) -> Result<(), (Code, u32, &'static str)> {
        if !self.is_attached(conn, room) {
            return Err((Code::NotJoined, 0, "the session has left this room"));
        }
        let held_back = (Code::HeldBack, 100, "an earlier send was refused: send again in order");
        if self.is_in_turn(conn, request) { Ok(()) } else { Err(held_back) }
    }

    fn is_in_turn(&mut self, conn: Conn, request: u32) -> bool {
        let Some(connection) = self.connection_mut(conn) else { return false };
        let newest = connection.pending.iter().rev().find(|pending| pending.request == request);
        let Some(Pending { room: Some(room), asks: Asks::Publish(nonce), .. }) = newest.copied() else { return true };
        let Some(at) = connection.held.iter().position(|held| held.room == room) else { return true };
        if nonce == connection.held[at].nonce {
            connection.held.swap_remove(at);
            return true;
        }
        nonce < connection.held[at].nonce
    }

    /// Refuses a pending request.
    pub fn refuse(&mut self, conn: Conn, request: u32, code: Code, retry_after_ms: u32, message: &str) {
        self.refuse_one(conn, request, |pending| !pending.is_unasked(), code, retry_after_ms, message);
    }

    /// Refuses a pending request about this room.
    pub fn refuse_in(
        &mut self,
        conn: Conn,
        request: u32,
        room: RoomNumber,
        code: Code,
        retry_after_ms: u32,
        message: &str,
    ) {
        // A join's room may not be known yet. A request to follow has the number of all its rooms, and is about none of them.
        let unknown = |pending: &Pending| pending.room.is_none() && pending.asks != Asks::Rooms;
        let here = |pending: &Pending| pending.room == Some(room) || unknown(pending);
        self.refuse_one(conn, request, here, code, retry_after_ms, message);
    }

    /// Whoever asked who is in a room has left it since: he is told, if he still waits.
    pub fn not_watched(&mut self, conn: Conn, request: u32, room: RoomNumber) {
        let watch = |pending: &Pending| pending.asks == Asks::Rooms && pending.room == Some(room);
        self.refuse_one(conn, request, watch, Code::NotJoined, 0, "the session has left this room");
    }

    pub(super) fn refuse_one(
        &mut self,
        conn: Conn,
        request: u32,
        meant: impl Fn(&Pending) -> bool,
        code: Code,
        retry_after_ms: u32,
        message: &str,
    ) {
        let Some(ended) = self.end(conn, request, meant) else { return };
        let asked = ended.room;
        if ended.is_join() {
            self.effects.push_back(Effect::JoinEnded { conn, request, asked, room: Err(code) });
        }
        if ended.asks == Asks::Follow {
            return self.close_if_answered(conn);
        }
        if let (Asks::Resume(cursor), Some(room)) = (ended.asks, asked) {
            let extensions = Extensions::default();
            self.on_send(conn, request, &Detached { room, cursor, code, message, extensions });
            return self.close_if_answered(conn);
        }
        if let (Asks::Publish(nonce), Some(room), Advice::RetryLater) = (ended.asks, ended.room, code.advice()) {
            self.hold(conn, room, nonce);
        }
        self.on_send(conn, request, &Error { code, retry_after_ms, message, extensions: Extensions::default() });
        self.close_if_answered(conn);
    }

    pub(super) fn on_stored(&mut self, room: RoomNumber, durability: Durability, stored: Stored) {
        let Stored { conn, request, nonce, seq, time, duplicate } = stored;
        if self.end(conn, request, |pending| pending.is(room, Asks::Publish(nonce))).is_some() {
            let extensions = Extensions::default();
            self.on_send(conn, request, &Ack { room, nonce, seq, time, durability, duplicate, extensions });
            self.close_if_answered(conn);
        }
    }

    /// The room's channel died: what waited for it is answered, and pulls will not come back.
    pub fn on_channel_down(&mut self, room: RoomNumber) {
        self.end_nap(room);
        if let Some(entry) = self.rooms.get_mut(&room) {
            entry.orphaned = true;
        }
        self.stop_pulls(room);
        let mut ended = Vec::new();
        for (slot, connection) in &self.connections {
            let conn = self.conn(slot, connection);
            let here = connection.pending.iter().filter(|pending| pending.room == Some(room));
            ended.extend(here.map(|pending| (conn, *pending)));
        }
        for (conn, Pending { request, asks, .. }) in ended {
            let (code, message) = match asks {
                Asks::Publish(_) => (Code::OutcomeUnknown, "the room is being rebuilt: it may be stored or not"),
                Asks::Join | Asks::Resume(_) | Asks::Follow | Asks::Fetch | Asks::Mark | Asks::Rooms => {
                    (Code::RoomUnavailable, "the room is being rebuilt")
                }
            };
            self.refuse_in(conn, request, room, code, 100, message);
        }
    }

    pub(super) fn close_if_answered(&mut self, conn: Conn) {
        if let Some(connection) = self.connection(conn)
            && let Closing::WhenAnswered(request) = connection.closing
            && connection.pending.is_empty()
        {
            self.close(conn, request, Code::Goodbye, "goodbye", 0);
        }
    }

    /// Takes a request off the pending ones, if it is the one that is meant: an answer may come late, when its number has
    /// been used again.
    pub(super) fn end(&mut self, conn: Conn, request: u32, meant: impl Fn(&Pending) -> bool) -> Option<Pending> {
        let connection = self.connection_mut(conn)?;
        let at = connection.pending.iter().position(|pending| pending.request == request && meant(pending))?;
        let ended = connection.pending.remove(at)?;
        connection.fetches -= usize::from(ended.asks == Asks::Fetch);
        if connection.pending.is_empty() {
            connection.newest = 0;
            if ended.is_join() {
                connection.pending = VecDeque::new(); // It may only listen from now on.
            }
        }
        self.pending -= 1;
        self.effects.push_back(Effect::Answered(conn));
        Some(ended)
    }

    pub(super) fn hold(&mut self, conn: Conn, room: RoomNumber, nonce: Nonce) {
        let Some(connection) = self.connection_mut(conn) else { return };
        // Its membership may have ended meanwhile, and its nonces' order with that.
        if !connection.rooms.iter().any(|(attached, _)| *attached == room) {
            return;
        }
        match connection.held.iter_mut().find(|held| held.room == room) {
            Some(held) if held.nonce < nonce => {}
            Some(held) => *held = Held { room, nonce, until: None },
            None => connection.held.push(Held { room, nonce, until: None }),
        }
        self.watch(conn);
    }
}
