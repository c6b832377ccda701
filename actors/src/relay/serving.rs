//! What an arbiter's sessions ask of its relay, without messages.

use actix::Addr;
use bytes::Bytes;
use parlor_protocol::{Body, Code, RoomNumber, message::Position};

use super::{Local, ToRelay, state::Pending};
use crate::{
    channel::{self, Channel, Knock},
    message::{Conn, Join, Signal},
};

impl Local {
    pub(crate) fn send<'a, B: Body<'a>>(&self, conn: Conn, request: u32, body: &B) {
        self.with(|state| state.on_send(conn, request, body));
    }

    pub(crate) fn begin(&self, conn: Conn, pending: Pending) {
        self.0.state.borrow_mut().begin(conn, pending);
    }

    pub(crate) fn may_ask(&self, conn: Conn) -> bool {
        self.0.state.borrow_mut().may_ask(conn)
    }

    pub(crate) fn is_pending(&self, conn: Conn, request: u32) -> bool {
        self.0.state.borrow().is_pending(conn, request)
    }

    pub(crate) fn owes(&self, conn: Conn, follow: Option<u32>) -> bool {
        self.0.state.borrow().owes(conn, follow)
    }

    pub(crate) fn takes(&self, conn: Conn) -> bool {
        self.0.state.borrow().takes(conn)
    }

    pub(crate) fn refuse(&self, conn: Conn, request: u32, code: Code, retry_after_ms: u32, message: &str) {
        self.with(|state| state.refuse(conn, request, code, retry_after_ms, message));
    }

    pub(crate) fn refuse_in(
        &self,
        conn: Conn,
        request: u32,
        room: RoomNumber,
        code: Code,
        retry_after_ms: u32,
        message: &str,
    ) {
        self.with(|state| state.refuse_in(conn, request, room, code, retry_after_ms, message));
    }

    pub(crate) fn answer(&self, conn: Conn, request: u32, frame: Bytes) {
        self.with(|state| state.on_answer(conn, request, frame));
    }

    pub(crate) fn join(&self, room: RoomNumber, channel: &Addr<Channel>, join: Join) {
        let (conn, request) = (join.conn, join.request);
        self.0.state.borrow_mut().on_resolved(conn, request, room);
        // Told by the message itself if the channel has ended, or does before it has it.
        let relay = self.0.relays.get().and_then(|relays| relays.get(usize::from(conn.arbiter)));
        match relay {
            Some(relay) => channel.do_send(Knock::new(room, join, relay.clone())),
            None => self.refuse_in(conn, request, room, Code::RoomUnavailable, 100, "the engine begins"),
        }
    }

    pub(crate) fn to_channel(&self, conn: Conn, request: u32, room: RoomNumber, input: channel::state::Input) {
        let passes = self.0.state.borrow_mut().may_pass(conn, request, room);
        if let Err((code, retry_after_ms, message)) = passes {
            return self.refuse(conn, request, code, retry_after_ms, message);
        }
        let Some(input) = self.0.state.borrow_mut().pass(room, input) else { return self.run() };
        let connected = match self.0.channels.borrow().get(&room).filter(|channel| channel.connected()) {
            // Not through an address of its own: a clone of one is two allocations.
            Some(channel) => {
                channel.do_send(input);
                true
            }
            None => false,
        };
        if !connected {
            self.refuse(conn, request, Code::RoomUnavailable, 100, "the room is being rebuilt");
        }
    }

    pub(crate) fn leave(&self, conn: Conn, request: u32, room: RoomNumber) {
        self.unwatch_room(conn, room);
        self.with(|state| state.on_left(conn, request, room));
    }

    pub(crate) fn beat(&self, conn: Conn, positions: &[Position]) {
        self.with(|state| state.on_beat(conn, positions));
    }

    pub(crate) fn close(&self, conn: Conn, code: Code, message: &str, retry_after_ms: u32, goodbye: Option<u32>) {
        self.with(|state| state.on_close(conn, code, message, retry_after_ms, goodbye));
    }

    /// Brings a signal to all sessions of a user.
    pub(crate) fn signal_user(&self, user: &str, signal: &Signal) {
        let mut conns = self.0.shared.router.conns(user);
        conns.sort_unstable_by_key(|conn| conn.arbiter);
        let own = self.0.state.borrow().arbiter();
        for conns in conns.chunk_by(|a, b| a.arbiter == b.arbiter) {
            let arbiter = conns[0].arbiter;
            if arbiter == own {
                self.with(|state| state.on_signal_to(conns, signal));
            } else if let Some(relay) = self.0.relays.get().and_then(|relays| relays.get(usize::from(arbiter))) {
                relay.do_send(ToRelay::Signal(conns.to_vec(), signal.clone()));
            }
        }
    }

    pub(crate) fn signal_dropped(&self) {
        self.0.state.borrow_mut().on_signal_dropped();
    }

    /// How many signals the arbiter has dropped.
    #[must_use]
    pub fn signals_dropped(&self) -> u64 {
        self.0.state.borrow().signals_dropped()
    }

    /// Wakes the session at `at`, or before.
    pub(crate) fn arm(&self, conn: Conn, at: u64) {
        if self.link(conn).is_some() {
            self.0.timers.borrow_mut().arm(at, conn.slot);
        }
    }
}
