//! Subscribers and their cursors: the one delivery rule.

use std::cmp::Ordering;

use bytes::Bytes;
use parlor_protocol::{
    Code, Extensions, Name, RoomNumber, Seq,
    message::{Error, Gap, GapReason, Left, Position},
};

use super::{Closing, Effect, PULLS_PER_CONNECTION_MAX, Pending, Room, Standing, State, Subscriber};
use crate::{
    channel::position::Extent,
    message::{Attach, Batch, Conn, Returning},
};

impl State {
    /// Whether the room has subscribers here.
    #[must_use]
    pub fn knows(&self, room: RoomNumber) -> bool {
        self.rooms.contains_key(&room)
    }

    pub(super) fn on_attach(&mut self, room: RoomNumber, attach: Attach) {
        let Attach { conn, request, device, member, met, name, epoch, tail, cursor, answer } = attach;
        if self.rooms.get(&room).is_some_and(|entry| entry.orphaned) {
            // It overtook the adoption of those before it, and was answered, unless a client uses a number twice.
            self.refuse_in(conn, request, room, Code::RoomUnavailable, 100, "the room is being rebuilt");
            self.effects.push_back(Effect::Detached { room, device });
            return;
        }
        let meant = |pending: &Pending| pending.room == Some(room) && pending.is_join();
        if self.end(conn, request, meant).is_none() {
            // The connection is gone, and the channel has to hear of it.
            self.effects.push_back(Effect::Detached { room, device });
            return;
        }
        if self.subscriber_mut(conn, room).is_some() {
            debug_assert!(false, "a session joins a room once");
            self.effects.push_back(Effect::Detached { room, device });
            return;
        }
        self.queue(conn, request, |outbound| outbound.push(answer));
        let entry = self.rooms.entry(room).or_insert(Room { epoch, tail, orphaned: false, subscribers: Vec::new() });
        // Batches and attachments come from one channel in order, so both know the same tail.
        (entry.epoch, entry.tail) = (epoch, tail);
        let standing = if cursor == tail { Standing::Live } else { Standing::Lagging };
        #[expect(clippy::cast_possible_truncation, reason = "the number of connections is limited")]
        let index = entry.subscribers.len() as u32;
        entry.subscribers.push(Subscriber { slot: conn.slot, standing, member, met, cursor });
        if let Some(connection) = self.connection_mut(conn) {
            if connection.rooms.is_empty() {
                connection.rooms.reserve_exact(1); // Mostly it stays at one.
            }
            connection.rooms.push((room, index));
            if standing == Standing::Lagging {
                connection.lagging.push_back(room);
            }
        }
        self.effects.push_back(Effect::JoinEnded { conn, request, asked: Some(room), room: Ok((room, name)) });
        self.pull_lagging(conn);
        self.close_if_answered(conn);
    }

    /// Detaches a connection from a room; its cursor there, if it was attached.
    pub fn on_leave(&mut self, conn: Conn, room: RoomNumber) -> Option<Seq> {
        let connection = self.connection_mut(conn)?;
        let at = connection.rooms.iter().position(|(attached, _)| *attached == room)?;
        let (_, index) = connection.rooms.swap_remove(at);
        connection.lagging.retain(|lagging| *lagging != room);
        connection.held.retain(|held| held.room != room);
        self.forget_aside(conn, room);
        let connection = self.connection_mut(conn)?;
        let device = connection.device.clone();
        let entry = self.rooms.get_mut(&room)?;
        let left = entry.subscribers.swap_remove(index as usize);
        debug_assert_eq!(left.slot, conn.slot, "a connection knows its places");
        if let Some(moved) = entry.subscribers.get(index as usize)
            && let Some(mover) = self.connections.get_mut(moved.slot as usize)
            && let Some(place) = mover.rooms.iter_mut().find(|(attached, _)| *attached == room)
        {
            place.1 = index;
        }
        if entry.subscribers.is_empty() {
            self.rooms.remove(&room);
        }
        if left.standing == Standing::Pulling
            && let Some(connection) = self.connection_mut(conn)
        {
            connection.pulls -= 1;
        }
        self.effects.push_back(Effect::Detached { room, device });
        Some(left.cursor)
    }

    /// Answers a leave.
    pub fn on_left(&mut self, conn: Conn, request: u32, room: RoomNumber) {
        let extensions = Extensions::default();
        match self.on_leave(conn, room) {
            Some(cursor) => self.on_send(conn, request, &Left { room, cursor, extensions }),
            // It was put out, of which its session has yet to hear.
            None => {
                let (code, message) = (Code::NotJoined, "the room is not joined any more");
                self.on_send(conn, request, &Error { code, retry_after_ms: 0, message, extensions });
            }
        }
    }

    pub(super) fn on_batch(&mut self, room: RoomNumber, batch: &Batch) {
        let Some(entry) = self.rooms.get_mut(&room).filter(|entry| !entry.orphaned) else { return };
        entry.tail = batch.last;
        for subscriber in &mut entry.subscribers {
            if subscriber.standing != Standing::Live {
                continue;
            }
            debug_assert_eq!(subscriber.cursor + 1, batch.first, "a live cursor is at the tail");
            let Some(connection) = self.connections.get_mut(subscriber.slot as usize) else { continue };
            // With nothing queued it takes a batch of any size: nothing would drain, and so nothing would ever pull it.
            let waiting = connection.outbound.bytes();
            if waiting > 0 && waiting + batch.frames.len() > self.limits.outbound_bytes_max {
                subscriber.standing = Standing::Lagging;
                connection.lagging.push_back(room);
                continue;
            }
            subscriber.cursor = batch.last;
            if connection.closing != Closing::Closed {
                connection.outbound.push(batch.frames.clone());
                if !connection.dirty {
                    connection.dirty = true;
                    self.dirty.push_back(subscriber.slot);
                }
            }
        }
    }

    pub(super) fn on_pulled(&mut self, conn: Conn, room: RoomNumber, after: Seq, page: Option<(Seq, Bytes)>) {
        let Some((subscriber, tail)) = self.subscriber_mut(conn, room) else { return };
        if subscriber.standing != Standing::Pulling || subscriber.cursor != after {
            // It left and came back since, and this answer is not for it.
            return;
        }
        let frames = match page {
            Some((last, frames)) => {
                subscriber.cursor = last;
                frames
            }
            None => Bytes::new(),
        };
        subscriber.standing = if subscriber.cursor == tail { Standing::Live } else { Standing::Lagging };
        let (lags, failed) = (subscriber.standing == Standing::Lagging, subscriber.cursor == after);
        if let Some(connection) = self.connection_mut(conn) {
            connection.pulls -= 1;
            if lags && !failed {
                connection.lagging.push_back(room);
            }
        }
        if lags && failed {
            self.retries.push((conn, room));
        }
        self.push(conn, frames);
        self.pull_lagging(conn);
    }

    /// Nothing is pulled for a room's subscribers before a channel has taken them up. Until then it does not know what they
    /// may be shown, nor do they know its epoch; and what the one before it still says of pulls is not waited for.
    pub(super) fn stop_pulls(&mut self, room: RoomNumber) {
        let Some(entry) = self.rooms.get_mut(&room) else { return };
        let mut freed = Vec::new();
        for subscriber in entry.subscribers.iter_mut().filter(|subscriber| subscriber.standing != Standing::Live) {
            let Some(connection) = self.connections.get_mut(subscriber.slot as usize) else { continue };
            connection.lagging.retain(|lagging| *lagging != room);
            if std::mem::replace(&mut subscriber.standing, Standing::Lagging) == Standing::Pulling {
                connection.pulls -= 1;
                freed.push(Conn { arbiter: self.arbiter, slot: subscriber.slot, serial: connection.serial });
            }
        }
        // Its other rooms may have waited for that.
        freed.into_iter().for_each(|conn| self.pull_lagging(conn));
    }

    /// The room's subscribers here, for its new channel. Empty if there are none.
    #[must_use]
    pub fn devices_in(&self, room: RoomNumber) -> Vec<Returning> {
        let subscribers = self.rooms.get(&room).map_or(&[][..], |entry| &entry.subscribers);
        let returning = |subscriber: &Subscriber| {
            let device = self.connections.get(subscriber.slot as usize)?.device.clone();
            Some(Returning { device, member: subscriber.member, met: subscriber.met })
        };
        subscribers.iter().filter_map(returning).collect()
    }

    /// These users came as strangers, and are members now.
    pub(super) fn on_members(&mut self, room: RoomNumber, users: &[Name]) {
        let Some(entry) = self.rooms.get_mut(&room) else { return };
        for subscriber in &mut entry.subscribers {
            let connection = self.connections.get(subscriber.slot as usize);
            subscriber.member |= connection.is_some_and(|connection| users.contains(&connection.device.user));
        }
    }

    pub(super) fn on_adopted(&mut self, room: RoomNumber, extent: &Extent) {
        let Some(entry) = self.rooms.get_mut(&room) else { return };
        let (before, epoch, tail) = (entry.epoch, extent.epoch(), extent.tail);
        (entry.epoch, entry.tail, entry.orphaned) = (epoch, tail, false);
        let mut behind = Vec::new();
        for subscriber in &mut entry.subscribers {
            let Some(connection) = self.connections.get_mut(subscriber.slot as usize) else { continue };
            if subscriber.standing == Standing::Pulling {
                connection.pulls -= 1;
            }
            let start = extent.resume(before, subscriber.cursor);
            subscriber.cursor = start.cursor;
            // In a new epoch even a subscriber that lagged may stand at the tail now.
            connection.lagging.retain(|lagging| *lagging != room);
            subscriber.standing = if start.cursor == tail { Standing::Live } else { Standing::Lagging };
            if subscriber.standing == Standing::Lagging {
                connection.lagging.push_back(room);
            }
            let conn = Conn { arbiter: self.arbiter, slot: subscriber.slot, serial: connection.serial };
            behind.push((conn, start.gap));
        }
        for (conn, gap) in behind {
            if let Some((from, to, why)) = gap {
                self.on_send(conn, 0, &Gap { room, epoch, from, to, why, extensions: Extensions::default() });
            }
            self.pull_lagging(conn);
        }
    }

    /// The session's client says that it is there, and how far it is: its lagging rooms are pulled.
    ///
    /// A position at or below the cursor acknowledges, and is never a reason to send again. One of an earlier epoch was
    /// sent before the client read the gap that told it of the new one. Any other was not given by this room, and the
    /// client is told where it stands.
    pub fn on_beat(&mut self, conn: Conn, positions: &[Position]) {
        for &Position { room, epoch: named, seq } in positions {
            let Some(epoch) = self.rooms.get(&room).map(|entry| entry.epoch) else { continue };
            let Some((subscriber, tail)) = self.subscriber_mut(conn, room) else { continue };
            let why = match named.cmp(&epoch) {
                Ordering::Equal if seq > tail => GapReason::ABOVE_TAIL,
                Ordering::Greater => GapReason::NEW_EPOCH,
                Ordering::Equal => {
                    self.on_received(conn, room, seq);
                    continue;
                }
                Ordering::Less => continue,
            };
            let to = subscriber.cursor;
            self.on_send(conn, 0, &Gap { room, epoch, from: to + 1, to, why, extensions: Extensions::default() });
        }
        self.pull_lagging(conn);
    }

    pub(super) fn pull_lagging(&mut self, conn: Conn) {
        let low = self.limits.outbound_low_bytes;
        loop {
            let Some(connection) = self.open_mut(conn) else { return };
            if connection.outbound.bytes() > low || connection.pulls >= PULLS_PER_CONNECTION_MAX {
                return;
            }
            let Some(room) = connection.lagging.pop_front() else { return };
            connection.pulls += 1;
            let Some((subscriber, _)) = self.subscriber_mut(conn, room) else {
                debug_assert!(false, "a room lags only for its subscribers");
                return;
            };
            debug_assert_eq!(subscriber.standing, Standing::Lagging);
            subscriber.standing = Standing::Pulling;
            let after = subscriber.cursor;
            self.effects.push_back(Effect::Pull { room, conn, after });
        }
    }

    pub(super) fn subscriber_mut(&mut self, conn: Conn, room: RoomNumber) -> Option<(&mut Subscriber, Seq)> {
        let index = self.connection(conn)?.rooms.iter().find(|(attached, _)| *attached == room)?.1;
        let entry = self.rooms.get_mut(&room)?;
        let tail = entry.tail;
        Some((entry.subscribers.get_mut(index as usize)?, tail))
    }
}
