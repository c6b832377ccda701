//! Connections: their sockets, as clients and relays see them.

use std::{
    cell::RefCell,
    collections::VecDeque,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use parlor_actors::{
    message::Conn,
    outbound::{Outbound, Wire},
    port::DeviceKey,
    session::{self, heartbeat::Heartbeat},
};
use parlor_protocol::{Token, message::Network};

use super::{ChannelId, Hello, House, ToSession, setting::beats};

/// A connection: its session, its link and its socket.
pub struct Line {
    pub(super) session: session::state::State,
    mailbox: VecDeque<ToSession>,
    /// What its beginning needs; taken then.
    pub(super) opening: Option<Hello>,
    /// The token by which its session goes on.
    pub(super) token: Token,
    /// The supervisor knows of it, and has to be told when its connection is gone.
    pub(super) known: bool,
    /// Its session reads its connection.
    pub(super) driven: bool,
    pub(super) backlog: VecDeque<Bytes>,
    pub(super) resolved: Option<ChannelId>,
    pub(super) device: DeviceKey,
    pub(super) busy: bool,
    pub(super) held: bool,
    blocked: bool,
    finish: bool,
    kill: bool,
    /// The session's actor has stopped.
    stopped: bool,
    /// The link is dropped.
    pub(super) dropped: bool,
    /// The client has closed its end.
    pub hung_up: bool,
    /// What the client sent and nobody read.
    pub up: VecDeque<Bytes>,
    /// What the socket took and the client did not read.
    pub down: Vec<u8>,
    /// What the socket takes.
    narrow: usize,
}

impl Line {
    /// Tells the session, if it still runs.
    pub(super) fn tell(&mut self, message: ToSession) {
        if !self.stopped {
            self.mailbox.push_back(message);
        }
    }

    pub(super) fn next_message(&mut self) -> Option<ToSession> {
        self.mailbox.pop_front()
    }

    /// Something was answered, for which the session may wait.
    pub(super) fn answered(&mut self) {
        if self.held {
            self.held = false;
            self.tell(ToSession::Resume);
        }
    }

    pub(super) fn finish(&mut self) {
        self.finish = true;
    }

    pub(super) fn kill(&mut self) {
        self.kill = true;
    }

    /// Nothing of it is left for anybody.
    pub(super) fn is_over(&self) -> bool {
        self.dropped && self.down.is_empty()
    }
}

/// Takes what there is room for.
struct Narrow<'a> {
    taken: RefCell<&'a mut Vec<u8>>,
    room: usize,
}

impl Wire for Narrow<'_> {
    fn poll_write(&self, _: &mut Context<'_>, waiting: &mut Outbound) -> Poll<std::io::Result<()>> {
        let mut taken = self.taken.borrow_mut();
        waiting.write_with(|slices| {
            let before = taken.len();
            for slice in slices {
                let n = slice.len().min(self.room.saturating_sub(taken.len()));
                taken.extend(&slice[..n]);
            }
            let n = taken.len() - before;
            if n == 0 { Poll::Pending } else { Poll::Ready(Ok(n)) }
        })
    }
}

impl House {
    /// A client connects and says hello: the session's actor is about to start.
    pub fn connect(&mut self, arbiter: u16, device: DeviceKey, hello: Hello) -> Conn {
        let now = self.now();
        let conn = self.arbiters[usize::from(arbiter)].state.on_connect(device.clone());
        let heartbeat = Heartbeat::new(beats(), Network::Wifi, now.mono_ms);
        let session = session::state::State::new(
            conn,
            device.clone(),
            parlor_actors::tiers::TierNumber(0),
            heartbeat,
            &self.limits,
            self.uploads.clone(),
            now,
        );
        let narrow = self.chance.pick(&[40, 300, 2_000, 20_000]);
        let token = Token(std::array::from_fn(|_| self.chance.any().to_le_bytes()[0]));
        let line = Line {
            session,
            mailbox: [ToSession::Started].into(),
            opening: Some(hello),
            token,
            known: false,
            driven: false,
            backlog: VecDeque::new(),
            resolved: None,
            device,
            busy: false,
            held: false,
            blocked: false,
            finish: false,
            kill: false,
            stopped: false,
            dropped: false,
            hung_up: false,
            up: VecDeque::new(),
            down: Vec::new(),
            narrow,
        };
        self.lines.push((conn, line));
        conn
    }

    /// The client's end of a connection; `None` if the server has ended it and nothing is left to read.
    pub fn line(&mut self, conn: Conn) -> Option<&mut Line> {
        let (_, line) = self.lines.iter_mut().find(|(known, _)| *known == conn)?;
        (!line.dropped || !line.down.is_empty()).then_some(line)
    }

    pub(super) fn line_of(&mut self, conn: Conn) -> Option<&mut Line> {
        self.lines.iter_mut().find(|(known, _)| *known == conn).map(|(_, line)| line)
    }

    /// A connection ends, and its session with it, which has handled what it was told before.
    fn end_line(&mut self, conn: Conn) {
        while self.session_turn(conn) {}
        self.say_gone(conn, false);
        self.disconnect(conn);
    }

    /// A session's actor panics. It may be taken up, but nothing that it knew can be relied on, and its relay hears of it a
    /// little later.
    pub fn crash_session(&mut self, conn: Conn) {
        let Some(line) = self.line_of(conn).filter(|line| !line.stopped) else { return };
        (line.stopped, line.kill, line.driven) = (true, true, true);
        line.mailbox.clear();
        self.say_gone(conn, true);
    }

    /// The connection is gone, and its session with it.
    fn disconnect(&mut self, conn: Conn) {
        let Some(line) = self.line_of(conn) else { return };
        (line.dropped, line.stopped) = (true, true);
        line.mailbox.clear();
        if line.hung_up {
            line.down.clear();
        }
        let device = line.device.clone();
        self.plant_end(conn, &device);
        self.unwatch_all(conn);
        let arbiter = &mut self.arbiters[usize::from(conn.arbiter)];
        arbiter.timers.disarm(conn.slot);
        arbiter.state.on_disconnect(conn);
        self.run_relay(conn.arbiter);
    }

    /// A relay's end of turn: writes to some connections. False if none had anything.
    pub fn flush(&mut self, arbiter: u16) -> bool {
        let max = self.limits.connections_per_turn_max;
        let dirty = self.arbiters[usize::from(arbiter)].state.take_dirty(max);
        for conn in &dirty {
            if self.line_of(*conn).is_some_and(|line| !line.blocked && !line.dropped) {
                self.write(*conn);
            }
        }
        !dirty.is_empty()
    }

    /// A link's turn: writes what was blocked, reads what is there, ends.
    pub fn link_turn(&mut self, conn: Conn) -> bool {
        let Some(line) = self.line_of(conn).filter(|line| line.driven && !line.dropped) else { return false };
        let blocked = line.blocked;
        if blocked && line.down.len() < line.narrow {
            line.blocked = false;
            self.write(conn);
        }
        let waiting = self.outbound_bytes(conn);
        let many = 1 + self.chance.below(3);
        let Some(line) = self.line_of(conn) else { return false };
        let gone = line.hung_up && (line.up.is_empty() || line.finish);
        if line.kill || gone || line.finish && waiting == 0 {
            self.end_line(conn);
            return true;
        }
        if line.hung_up {
            // What the client does not read any more is lost.
            line.down.clear();
        }
        if line.busy || line.finish || line.up.is_empty() {
            return false;
        }
        let many = many.min(line.up.len());
        let frames: Vec<u8> = line.up.drain(..many).collect::<Vec<_>>().concat();
        line.busy = true;
        line.tell(ToSession::Frames(frames.into()));
        true
    }

    /// No session of a connection that stands outlives its lease: whose deadline has come is told so.
    pub(super) fn check_timers(&self) {
        let now = self.now().mono_ms;
        let is_told = |line: &Line| line.mailbox.iter().any(|message| matches!(message, ToSession::Timer));
        let runs = self.lines.iter().filter(|(_, line)| line.driven && !line.stopped);
        for (conn, line) in runs.filter(|(_, line)| line.session.deadline() <= now) {
            assert!(
                is_told(line),
                "the deadline of the session of {conn:?} has come, and its timer is set to a later one"
            );
        }
    }

    pub fn conns(&self) -> Vec<Conn> {
        self.lines.iter().filter(|(_, line)| !line.dropped).map(|(conn, _)| *conn).collect()
    }

    pub(super) fn write(&mut self, conn: Conn) {
        let now = self.now().mono_ms;
        let Some((_, line)) = self.lines.iter_mut().find(|(known, _)| *known == conn) else { return };
        let state = &mut self.arbiters[usize::from(conn.arbiter)].state;
        let Some(outbound) = state.outbound(conn) else { return };
        let before = outbound.bytes();
        let wire = Narrow { taken: RefCell::new(&mut line.down), room: line.narrow };
        let pending = outbound.poll_drain(&wire, &mut Context::from_waker(Waker::noop())).is_pending();
        let progressed = outbound.bytes() < before;
        line.blocked = pending;
        state.on_written(conn, progressed, now);
        if pending {
            self.count("socket full");
        }
        self.run_relay(conn.arbiter);
    }
}
