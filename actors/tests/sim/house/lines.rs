//! Connections: their sockets, as clients and relays see them.

use std::{
    cell::RefCell,
    collections::VecDeque,
    task::{Context, Poll, Waker},
};

use parlor_actors::{
    message::Conn,
    outbound::{Outbound, Wire},
    port::DeviceKey,
    session::{self, heartbeat::Heartbeat},
};
use parlor_protocol::{RoomNumber, message::Network};

use super::{House, Line, ToSession, ToSupervisor, setting::beats};
use crate::Plant;

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
    /// A client connects and is welcome.
    pub fn connect(&mut self, arbiter: u16, device: DeviceKey) -> Conn {
        let now = self.now();
        let conn = self.arbiters[usize::from(arbiter)].state.on_connect(device.clone());
        let heartbeat = Heartbeat::new(beats(), Network::Wifi, now.mono_ms);
        let session = session::state::State::new(
            conn,
            device.clone(),
            parlor_actors::tiers::TierNumber(0),
            heartbeat,
            &self.limits,
            self.limits.uploads(),
            now,
        );
        self.arbiters[usize::from(arbiter)].timers.arm(session.deadline(), conn.slot);
        self.office.push_back(ToSupervisor::Opened { device: device.clone(), conn });
        let narrow = self.chance.pick(&[40, 300, 2_000, 20_000]);
        let line = Line {
            session,
            mailbox: VecDeque::new(),
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

    /// Nothing that is on its way to or from the socket arrives.
    pub fn drop_line(&mut self, conn: Conn) {
        let Some(line) = self.line_of(conn).filter(|line| !line.dropped) else { return };
        line.dropped = true;
        line.mailbox.push_back(ToSession::Disconnected);
        let user = line.device.user.to_string();
        if self.plant == Some(Plant::ResumeFromServerCursor) {
            for room in (1..5).map(RoomNumber) {
                if let Some(cursor) = self.arbiters[usize::from(conn.arbiter)].state.on_leave(conn, room) {
                    self.last_cursors.insert((user.clone(), room.0), cursor);
                }
            }
        }
        self.arbiters[usize::from(conn.arbiter)].state.on_disconnect(conn);
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
        let Some(line) = self.line_of(conn).filter(|line| !line.dropped) else { return false };
        let blocked = line.blocked;
        if blocked && line.down.len() < line.narrow {
            line.blocked = false;
            self.write(conn);
        }
        let waiting = self.outbound_bytes(conn);
        let many = 1 + self.chance.below(3);
        let Some(line) = self.line_of(conn) else { return false };
        if line.kill || line.hung_up && line.up.is_empty() || line.finish && waiting == 0 {
            self.drop_line(conn);
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
        line.mailbox.push_back(ToSession::Frames(frames.into()));
        true
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
