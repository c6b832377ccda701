//! Signals: brought to whoever takes them, the newest of each sender and key to whoever does not.
//!
//! They never wait in front of a record: a connection that has much waiting gets none, and those that wait for it are
//! kept here, apart from its outbound queue, until that has drained. So are notices, of which the newest of each room counts.

use std::collections::VecDeque;

use bytes::Bytes;
use parlor_protocol::{Code, Extensions, Name, RoomNumber, Seq, message::Error};

use super::{Effect, State};
use crate::message::{Conn, Signal};

/// What few connections have.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// Signals that wait, oldest first.
    signals: VecDeque<Kept>,
    /// The newest notice of each room in which one waits.
    notices: VecDeque<(RoomNumber, Bytes)>,
    /// What channels were told that the client has received.
    received: Vec<(RoomNumber, Seq)>,
}

/// A signal that waits for a connection.
#[derive(Debug)]
struct Kept {
    /// `None` if it is for the user.
    room: Option<RoomNumber>,
    sender: Name,
    key: u32,
    frame: Bytes,
}

impl Aside {
    /// Keeps a signal in place of an older one of its sender and key, or of the oldest; true if one was dropped for it.
    fn keep(&mut self, room: Option<RoomNumber>, signal: &Signal, max: usize) -> bool {
        let same = |kept: &Kept| kept.key == signal.key && kept.room == room && kept.sender == signal.device.user;
        let at = self.signals.iter().position(same).or((self.signals.len() >= max).then_some(0));
        let dropped = at.and_then(|at| self.signals.remove(at)).is_some();
        let (sender, key, frame) = (signal.device.user.clone(), signal.key, signal.frame.clone());
        self.signals.push_back(Kept { room, sender, key, frame });
        dropped
    }

    /// Keeps a notice in place of an older one of its room.
    fn keep_notice(&mut self, room: RoomNumber, frame: Bytes) {
        match self.notices.iter_mut().find(|(known, _)| *known == room) {
            Some((_, known)) => *known = frame,
            None => self.notices.push_back((room, frame)),
        }
    }
}

impl State {
    /// How many signals were dropped here: too many of one session, or in favour of newer ones.
    #[must_use]
    pub fn signals_dropped(&self) -> u64 {
        self.signals_dropped
    }

    /// A session sent more signals than it may.
    pub fn on_signal_dropped(&mut self) {
        self.signals_dropped += 1;
    }

    /// A signal for the room's subscribers.
    pub(super) fn on_signal(&mut self, room: RoomNumber, signal: &Signal) {
        let Some(entry) = self.rooms.get(&room) else { return };
        // An index and not an iterator, since each is told through the whole state; nobody comes or goes meanwhile.
        for index in 0..entry.subscribers.len() {
            let Some(slot) = self.rooms.get(&room).and_then(|entry| Some(entry.subscribers.get(index)?.slot)) else {
                return;
            };
            self.bring(slot, Some(room), signal);
        }
    }

    /// A signal for some connections, which are a user's.
    pub fn on_signal_to(&mut self, conns: &[Conn], signal: &Signal) {
        for conn in conns {
            if self.connection(*conn).is_some() {
                self.bring(conn.slot, None, signal);
            }
        }
    }

    /// A signal was refused, of which no request is pending.
    pub(super) fn on_signal_refused(&mut self, conn: Conn, request: u32, code: Code, message: &str) {
        if request != 0 {
            self.on_send(conn, request, &Error { code, retry_after_ms: 0, message, extensions: Extensions::default() });
        }
    }

    fn bring(&mut self, slot: u32, room: Option<RoomNumber>, signal: &Signal) {
        let (low, max) = (self.limits.signals_outbound_bytes_max, self.limits.signals_waiting_max);
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let own = signal.conn.is_some_and(|conn| conn.arbiter == self.arbiter && conn.serial == connection.serial);
        if own || connection.closing == super::Closing::Closed {
            return;
        }
        let waits = connection.aside.as_ref().is_some_and(|aside| !aside.signals.is_empty());
        if waits || connection.outbound.bytes() > low {
            self.signals_dropped += u64::from(connection.aside.get_or_insert_default().keep(room, signal, max));
        } else {
            connection.outbound.push(signal.frame.clone());
            self.mark_dirty(slot);
        }
    }

    /// The connection took what waited for it: now what was kept may follow.
    pub(super) fn bring_kept(&mut self, conn: Conn) {
        let (low, signals_low) = (self.limits.outbound_low_bytes, self.limits.signals_outbound_bytes_max);
        let Some(connection) = self.open_mut(conn) else { return };
        let Some(aside) = connection.aside.as_mut() else { return };
        let before = aside.notices.len() + aside.signals.len();
        while connection.outbound.bytes() <= low
            && let Some((_, frame)) = aside.notices.pop_front()
        {
            connection.outbound.push(frame);
        }
        while connection.outbound.bytes() <= signals_low
            && let Some(kept) = aside.signals.pop_front()
        {
            connection.outbound.push(kept.frame);
        }
        if aside.notices.is_empty() {
            aside.notices = VecDeque::new();
        }
        if aside.signals.is_empty() {
            aside.signals = VecDeque::new();
        }
        if before > aside.notices.len() + aside.signals.len() {
            self.mark_dirty(conn.slot);
        }
    }

    /// A frame for some of a room's subscribers, which makes those before it worth nothing.
    pub(super) fn on_notice(&mut self, room: RoomNumber, conns: Vec<Conn>, frame: &Bytes) {
        let low = self.limits.outbound_low_bytes;
        for conn in conns {
            if self.subscriber_mut(conn, room).is_none() {
                continue;
            }
            let Some(connection) = self.open_mut(conn) else { continue };
            if connection.outbound.bytes() > low {
                connection.aside.get_or_insert_default().keep_notice(room, frame.clone());
            } else {
                // None waits: when the queue has drained as far, those that did have followed.
                self.push(conn, frame.clone());
            }
        }
    }

    /// A client says how far it has received a room: the channel is told if it is not told already.
    pub(super) fn on_received(&mut self, conn: Conn, room: RoomNumber, seq: Seq) {
        let Some(connection) = self.connection_mut(conn) else { return };
        let received = &mut connection.aside.get_or_insert_default().received;
        match received.iter_mut().find(|(known, _)| *known == room) {
            Some((_, known)) if *known >= seq => return,
            Some((_, known)) => *known = seq,
            None => received.push((room, seq)),
        }
        let user = connection.device.user.clone();
        self.effects.push_back(Effect::Delivered { room, user, seq });
    }

    /// A connection left a room: nothing of it follows.
    pub(super) fn forget_aside(&mut self, conn: Conn, room: RoomNumber) {
        if let Some(aside) = self.connection_mut(conn).and_then(|connection| connection.aside.as_mut()) {
            aside.signals.retain(|kept| kept.room != Some(room));
            aside.notices.retain(|(known, _)| *known != room);
            aside.received.retain(|(known, _)| *known != room);
        }
    }
}
