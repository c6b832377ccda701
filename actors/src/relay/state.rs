//! The deliveries of one arbiter, without a runtime: which connection is where in which room, and what waits for it.
//!
//! In: the methods that begin with `on_`, and [`begin`](State::begin) for requests on their way. Out:
//! [`poll`](State::poll) for what others must do, [`take_dirty`](State::take_dirty) and
//! [`outbound`](State::outbound) for what has to be written.
//!
//! The one delivery rule: a batch is pushed to a subscriber whose cursor stands right before it and whose connection
//! takes it; otherwise the cursor stays and the room lags for that connection. A pull brings a page from the cursor on;
//! a subscriber whose cursor meets the tail is live again. Joining, catching up, slow reading and a rebuilt room all go
//! this one way.

use std::{
    cmp::Ordering,
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use parlor_protocol::{
    Advice, Code, Epoch, Extensions, Name, Nonce, RoomNumber, Seq,
    message::{Ack, Close, Durability, Error, Gap, GapReason, Left, Position},
};
use slab::Slab;

use crate::{
    channel::position::Extent,
    limits::Limits,
    message::{Attach, Batch, Conn, FromChannel, Stored},
    outbound::Outbound,
    port::{DeviceKey, EpochStart},
};

/// Pulls that one connection may have under way.
const PULLS_PER_CONNECTION_MAX: usize = 4;

/// Fetches that one connection may have under way.
const FETCHES_PER_CONNECTION_MAX: usize = 4;

/// What a relay wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell the room's channel that this subscriber can take more.
    Pull {
        /// Which room.
        room: RoomNumber,
        /// Which subscriber.
        conn: Conn,
        /// Its cursor.
        after: Seq,
    },
    /// Tell the room's channel that a subscriber of this device is gone.
    Detached {
        /// Which room.
        room: RoomNumber,
        /// Its device.
        device: DeviceKey,
    },
    /// Tell the connection's session how its join ended.
    JoinEnded {
        /// Which connection.
        conn: Conn,
        /// Which request.
        request: u32,
        /// The room, or `None` if the join was refused.
        room: Option<(RoomNumber, Name)>,
    },
    /// Tell the connection's session that fewer requests wait for an answer, or fewer answers for the socket.
    Answered(Conn),
    /// The connection has had its last frame: end it once that is written.
    Finish(Conn),
    /// The connection had its last frame long ago and does not read it: end it now.
    Kill(Conn),
}

/// A request that a channel or the supervisor has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its number.
    pub request: u32,
    /// The room, once it is known.
    pub room: Option<RoomNumber>,
    /// What it asks for.
    pub asks: Asks,
}

/// What a pending request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// To join.
    Join,
    /// To publish, under this nonce.
    Publish(Nonce),
    /// To read.
    Fetch,
}

/// A connection.
#[derive(Debug)]
struct Connection {
    serial: u64,
    device: DeviceKey,
    outbound: Outbound,
    dirty: bool,
    /// Since when the socket refuses what waits, on the monotonic clock.
    blocked_since: Option<u64>,
    /// The rooms that it is attached to, each with its index among the room's subscribers.
    rooms: Vec<(RoomNumber, u32)>,
    /// Rooms whose tail it has to be pulled to.
    lagging: VecDeque<RoomNumber>,
    pulls: usize,
    pending: VecDeque<Pending>,
    /// Publishes that were refused for now: later ones of the room are held back.
    held: Vec<Held>,
    /// Its session waits for the socket before it handles more.
    unheard: bool,
    closing: Closing,
}

/// A publish that was refused for now, the lowest of its room.
#[derive(Clone, Copy, Debug)]
struct Held {
    room: RoomNumber,
    nonce: Nonce,
    /// On the monotonic clock; set by the next tick.
    until: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Closing {
    Open,
    /// As soon as all is answered.
    WhenAnswered(u32, Code, &'static str),
    Closed,
}

/// A room, as far as this arbiter has subscribers of it.
#[derive(Debug)]
struct Room {
    epoch: Epoch,
    /// The newest seq that the channel told.
    tail: Seq,
    /// The channel that told it is gone, and its successor has not taken up the subscribers yet. What that one commits
    /// meanwhile is behind its tail, of which they know nothing.
    orphaned: bool,
    subscribers: Vec<Subscriber>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subscriber {
    slot: u32,
    standing: Standing,
    cursor: Seq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The cursor is at the tail.
    Live,
    /// The cursor is below the tail, and a pull is due.
    Lagging,
    /// A pull is under way.
    Pulling,
}

/// All connections of one arbiter.
#[derive(Debug)]
pub struct State {
    arbiter: u16,
    limits: Arc<Limits>,
    connections: Slab<Connection>,
    rooms: HashMap<RoomNumber, Room>,
    serial: u64,
    /// Slots with something to write, each once.
    dirty: VecDeque<u32>,
    /// Pulls that the store could not serve, to be tried again.
    retries: Vec<(Conn, RoomNumber)>,
    pending: usize,
    effects: VecDeque<Effect>,
}

impl State {
    /// An arbiter without connections.
    #[must_use]
    pub fn new(arbiter: u16, limits: Arc<Limits>) -> Self {
        Self {
            arbiter,
            limits,
            connections: Slab::new(),
            rooms: HashMap::new(),
            serial: 0,
            dirty: VecDeque::new(),
            retries: Vec::new(),
            pending: 0,
            effects: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The arbiter's number.
    #[must_use]
    pub fn arbiter(&self) -> u16 {
        self.arbiter
    }

    /// Whether the room has subscribers here.
    #[must_use]
    pub fn knows(&self, room: RoomNumber) -> bool {
        self.rooms.contains_key(&room)
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// How many requests wait for an answer, over all connections.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// How many requests of this connection wait for an answer.
    #[must_use]
    pub fn pending_of(&self, conn: Conn) -> usize {
        self.connection(conn).map_or(0, |connection| connection.pending.len())
    }

    /// Whether requests of this connection are still taken: it has not had its last frame.
    #[must_use]
    pub fn takes(&self, conn: Conn) -> bool {
        self.connection(conn).is_some_and(|connection| connection.closing != Closing::Closed)
    }

    /// How many pulls are under way, over all connections.
    #[must_use]
    pub fn pulls(&self) -> usize {
        self.connections.iter().map(|(_, connection)| connection.pulls).sum()
    }

    /// A connection is there.
    #[expect(clippy::cast_possible_truncation, reason = "the number of connections is limited")]
    pub fn on_connect(&mut self, device: DeviceKey) -> Conn {
        self.serial += 1;
        let slot = self.connections.insert(Connection {
            serial: self.serial,
            device,
            outbound: Outbound::default(),
            dirty: false,
            blocked_since: None,
            rooms: Vec::new(),
            lagging: VecDeque::new(),
            pulls: 0,
            pending: VecDeque::new(),
            held: Vec::new(),
            unheard: false,
            closing: Closing::Open,
        });
        Conn { arbiter: self.arbiter, slot: slot as u32, serial: self.serial }
    }

    /// A connection is gone.
    pub fn on_disconnect(&mut self, conn: Conn) {
        let Some(connection) = self.connection(conn) else { return };
        let rooms: Vec<RoomNumber> = connection.rooms.iter().map(|(room, _)| *room).collect();
        for room in rooms {
            self.on_leave(conn, room);
        }
        let connection = self.connections.remove(conn.slot as usize);
        self.pending -= connection.pending.len();
    }

    /// A request is on its way to a channel or the supervisor.
    pub fn begin(&mut self, conn: Conn, pending: Pending) {
        if let Some(connection) = self.connection_mut(conn) {
            connection.pending.push_back(pending);
            self.pending += 1;
        }
    }

    /// A join's room is known now.
    pub fn on_resolved(&mut self, conn: Conn, request: u32, room: RoomNumber) {
        let Some(connection) = self.connection_mut(conn) else { return };
        if let Some(pending) = connection.pending.iter_mut().find(|pending| pending.request == request) {
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
        let fetches = connection.pending.iter().filter(|pending| pending.asks == Asks::Fetch).count();
        !connection.unheard && connection.pending.len() < pending_max as usize && fetches < FETCHES_PER_CONNECTION_MAX
    }

    /// Whether a pending publish may go to its channel: not before one that was refused for now has come again. Only the
    /// relay sees all refusals, those of a dead channel's successor and those for want of a channel too. Nothing passes
    /// from a connection that is gone, since what was held back for it is forgotten.
    pub fn may_pass(&mut self, conn: Conn, request: u32) -> bool {
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

    /// A frame for one connection that no pending request waits for.
    pub fn on_send<'a, B: parlor_protocol::Body<'a>>(&mut self, conn: Conn, request: u32, body: &B) {
        if let Some(connection) = self.open_mut(conn) {
            connection.outbound.encode(request, body);
            self.mark_dirty(conn.slot);
        }
    }

    /// The session ends the connection: now, or, for a goodbye, when everything accepted is answered.
    pub fn on_close(&mut self, conn: Conn, code: Code, message: &'static str, goodbye: Option<u32>) {
        let Some(connection) = self.open_mut(conn) else { return };
        if let Some(request) = goodbye {
            connection.closing = Closing::WhenAnswered(request, code, message);
            self.close_if_answered(conn);
        } else {
            self.close(conn, 0, code, message, 0);
        }
    }

    /// Ends a connection with a last frame; nothing follows it. `request` is that of the goodbye it answers, or 0.
    pub fn close(&mut self, conn: Conn, request: u32, code: Code, message: &str, retry_after_ms: u32) {
        if let Some(connection) = self.open_mut(conn) {
            let close = Close { code, retry_after_ms, message, extensions: Extensions::default() };
            connection.outbound.encode(request, &close);
            connection.closing = Closing::Closed;
            self.mark_dirty(conn.slot);
            self.effects.push_back(Effect::Finish(conn));
        }
    }

    /// Every connection, for closing them all.
    #[must_use]
    pub fn all(&self) -> Vec<Conn> {
        let conn = |(slot, connection): (usize, &Connection)| self.conn(slot, connection);
        self.connections.iter().map(conn).collect()
    }

    /// A channel of this room says something.
    pub fn on_news(&mut self, room: RoomNumber, news: FromChannel) {
        match news {
            FromChannel::Attach(attach) => self.on_attach(room, attach),
            FromChannel::Committed { batch, durability, stored } => {
                // Acks and batch leave in one write; either may come first.
                for stored in stored {
                    self.on_stored(room, durability, stored);
                }
                if let Some(batch) = batch {
                    self.on_batch(room, &batch);
                }
            }
            FromChannel::Refused { conn, request, code, retry_after_ms, message } => {
                self.refuse(conn, request, code, retry_after_ms, message);
            }
            FromChannel::Answer { conn, request, frame } => {
                if self.end(conn, request).is_some() {
                    self.push(conn, frame);
                }
                self.close_if_answered(conn);
            }
            FromChannel::Pulled { conns, after, page } => {
                for conn in conns {
                    self.on_pulled(conn, room, after, page.clone());
                }
            }
            FromChannel::Adopted { epochs, first, tail } => self.on_adopted(room, epochs, first, tail),
        }
    }

    /// Refuses a pending request.
    pub fn refuse(&mut self, conn: Conn, request: u32, code: Code, retry_after_ms: u32, message: &str) {
        let Some(ended) = self.end(conn, request) else { return };
        if ended.asks == Asks::Join {
            self.effects.push_back(Effect::JoinEnded { conn, request, room: None });
        }
        if let (Asks::Publish(nonce), Some(room), Advice::RetryLater) = (ended.asks, ended.room, code.advice()) {
            self.hold(conn, room, nonce);
        }
        self.on_send(conn, request, &Error { code, retry_after_ms, message, extensions: Extensions::default() });
        self.close_if_answered(conn);
    }

    fn on_attach(&mut self, room: RoomNumber, attach: Attach) {
        let Attach { conn, request, device, name, epoch, tail, cursor, answer } = attach;
        if self.rooms.get(&room).is_some_and(|entry| entry.orphaned) {
            // It overtook the adoption of those before it, and was answered, unless a client uses a number twice.
            self.refuse(conn, request, Code::RoomUnavailable, 100, "the room is being rebuilt");
            self.effects.push_back(Effect::Detached { room, device });
            return;
        }
        if self.end(conn, request).is_none() {
            // The connection is gone, and the channel has to hear of it.
            self.effects.push_back(Effect::Detached { room, device });
            return;
        }
        self.push(conn, answer);
        let entry = self.rooms.entry(room).or_insert(Room { epoch, tail, orphaned: false, subscribers: Vec::new() });
        // Batches and attachments come from one channel in order, so both know the same tail.
        (entry.epoch, entry.tail) = (epoch, tail);
        let standing = if cursor == tail { Standing::Live } else { Standing::Lagging };
        #[expect(clippy::cast_possible_truncation, reason = "the number of connections is limited")]
        let index = entry.subscribers.len() as u32;
        entry.subscribers.push(Subscriber { slot: conn.slot, standing, cursor });
        if let Some(connection) = self.connection_mut(conn) {
            connection.rooms.push((room, index));
            if standing == Standing::Lagging {
                connection.lagging.push_back(room);
            }
        }
        self.effects.push_back(Effect::JoinEnded { conn, request, room: Some((room, name)) });
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
        if let Some(cursor) = self.on_leave(conn, room) {
            self.on_send(conn, request, &Left { room, cursor, extensions: Extensions::default() });
        }
    }

    fn on_stored(&mut self, room: RoomNumber, durability: Durability, stored: Stored) {
        let Stored { conn, request, nonce, seq, time, duplicate } = stored;
        if self.end(conn, request).is_some() {
            let extensions = Extensions::default();
            self.on_send(conn, request, &Ack { room, nonce, seq, time, durability, duplicate, extensions });
            self.close_if_answered(conn);
        }
    }

    fn on_batch(&mut self, room: RoomNumber, batch: &Batch) {
        let Some(entry) = self.rooms.get_mut(&room).filter(|entry| !entry.orphaned) else { return };
        entry.tail = batch.last;
        for subscriber in &mut entry.subscribers {
            if subscriber.standing != Standing::Live {
                continue;
            }
            debug_assert_eq!(subscriber.cursor + 1, batch.first, "a live cursor is at the tail");
            let Some(connection) = self.connections.get_mut(subscriber.slot as usize) else { continue };
            if connection.outbound.bytes() + batch.frames.len() > self.limits.outbound_bytes_max {
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

    fn on_pulled(&mut self, conn: Conn, room: RoomNumber, after: Seq, page: Option<(Seq, Bytes)>) {
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

    /// The room's channel died: what waited for it is answered, and pulls will not come back.
    pub fn on_channel_down(&mut self, room: RoomNumber) {
        if let Some(entry) = self.rooms.get_mut(&room) {
            entry.orphaned = true;
        }
        let mut ended = Vec::new();
        for (slot, connection) in &self.connections {
            let conn = self.conn(slot, connection);
            let here = connection.pending.iter().filter(|pending| pending.room == Some(room));
            ended.extend(here.map(|pending| (conn, *pending)));
        }
        for (conn, Pending { request, asks, .. }) in ended {
            let (code, message) = match asks {
                Asks::Publish(_) => (Code::OutcomeUnknown, "the room is being rebuilt: it may be stored or not"),
                Asks::Join | Asks::Fetch => (Code::RoomUnavailable, "the room is being rebuilt"),
            };
            self.refuse(conn, request, code, 100, message);
        }
    }

    /// The devices of the room's subscribers here, for its new channel. Empty if there are none.
    #[must_use]
    pub fn devices_in(&self, room: RoomNumber) -> Vec<DeviceKey> {
        let subscribers = self.rooms.get(&room).map_or(&[][..], |entry| &entry.subscribers);
        let device = |subscriber: &Subscriber| Some(self.connections.get(subscriber.slot as usize)?.device.clone());
        subscribers.iter().filter_map(device).collect()
    }

    fn on_adopted(&mut self, room: RoomNumber, epochs: Vec<EpochStart>, first: Seq, tail: Seq) {
        let Some(entry) = self.rooms.get_mut(&room) else { return };
        let extent = Extent { epochs, first, tail };
        let (before, epoch) = (entry.epoch, extent.epoch());
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

    /// The socket took what it could; `progressed` if that was anything.
    pub fn on_written(&mut self, conn: Conn, progressed: bool, now_mono: u64) {
        let low = self.limits.outbound_low_bytes;
        let Some(connection) = self.connection_mut(conn) else { return };
        if connection.outbound.bytes() == 0 {
            connection.blocked_since = None;
        } else if progressed || connection.blocked_since.is_none() {
            connection.blocked_since = Some(now_mono);
        }
        if connection.outbound.bytes() <= low {
            if std::mem::take(&mut connection.unheard) {
                self.effects.push_back(Effect::Answered(conn));
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
                Ordering::Equal | Ordering::Less => continue,
            };
            let to = subscriber.cursor;
            self.on_send(conn, 0, &Gap { room, epoch, from: to + 1, to, why, extensions: Extensions::default() });
        }
        self.pull_lagging(conn);
    }

    /// Time passed: tries failed pulls again and closes connections that do not read.
    pub fn on_tick(&mut self, now_mono: u64) {
        for (conn, room) in std::mem::take(&mut self.retries) {
            // Meanwhile it may have left and come back, or have been adopted.
            if let Some((subscriber, _)) = self.subscriber_mut(conn, room)
                && subscriber.standing == Standing::Lagging
                && let Some(connection) = self.connection_mut(conn)
                && !connection.lagging.contains(&room)
            {
                connection.lagging.push_back(room);
            }
            self.pull_lagging(conn);
        }
        let hold_until = now_mono + self.limits.hold_back_ms;
        for (_, connection) in &mut self.connections {
            connection.held.retain_mut(|held| *held.until.get_or_insert(hold_until) > now_mono);
        }
        let overdue = |connection: &Connection| {
            let patience = match connection.closing {
                Closing::Closed => self.limits.close_linger_ms,
                Closing::Open | Closing::WhenAnswered(..) => self.limits.slow_reader_ms,
            };
            connection.blocked_since.is_some_and(|since| now_mono >= since + patience)
        };
        let slow = self.connections.iter().filter(|(_, connection)| overdue(connection));
        let slow: Vec<(Conn, bool)> = slow
            .map(|(slot, connection)| (self.conn(slot, connection), connection.closing == Closing::Closed))
            .collect();
        for (conn, closed) in slow {
            if closed {
                self.effects.push_back(Effect::Kill(conn));
            } else {
                self.close(conn, 0, Code::SlowReader, "nothing was read for too long: join again with the position", 0);
                self.on_written(conn, true, now_mono);
            }
        }
    }

    /// Whether some connection has something to write.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Connections with something to write, at most `max`.
    pub fn take_dirty(&mut self, max: usize) -> Vec<Conn> {
        let mut dirty = Vec::with_capacity(self.dirty.len().min(max));
        while dirty.len() < max
            && let Some(slot) = self.dirty.pop_front()
        {
            if let Some(connection) = self.connections.get_mut(slot as usize)
                && std::mem::take(&mut connection.dirty)
            {
                dirty.push(Conn { arbiter: self.arbiter, slot, serial: connection.serial });
            }
        }
        dirty
    }

    /// What waits for a connection.
    pub fn outbound(&mut self, conn: Conn) -> Option<&mut Outbound> {
        self.connection_mut(conn).map(|connection| &mut connection.outbound)
    }

    fn pull_lagging(&mut self, conn: Conn) {
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

    fn close_if_answered(&mut self, conn: Conn) {
        if let Some(connection) = self.connection(conn)
            && let Closing::WhenAnswered(request, code, message) = connection.closing
            && connection.pending.is_empty()
        {
            self.close(conn, request, code, message, 0);
        }
    }

    /// Takes a request off the pending ones.
    fn end(&mut self, conn: Conn, request: u32) -> Option<Pending> {
        let connection = self.connection_mut(conn)?;
        let at = connection.pending.iter().position(|pending| pending.request == request)?;
        let ended = connection.pending.remove(at);
        self.pending -= 1;
        self.effects.push_back(Effect::Answered(conn));
        ended
    }

    fn hold(&mut self, conn: Conn, room: RoomNumber, nonce: Nonce) {
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
    }

    fn push(&mut self, conn: Conn, frames: Bytes) {
        if let Some(connection) = self.open_mut(conn) {
            connection.outbound.push(frames);
            self.mark_dirty(conn.slot);
        }
    }

    fn mark_dirty(&mut self, slot: u32) {
        if let Some(connection) = self.connections.get_mut(slot as usize)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push_back(slot);
        }
    }

    fn subscriber_mut(&mut self, conn: Conn, room: RoomNumber) -> Option<(&mut Subscriber, Seq)> {
        let index = self.connection(conn)?.rooms.iter().find(|(attached, _)| *attached == room)?.1;
        let entry = self.rooms.get_mut(&room)?;
        let tail = entry.tail;
        Some((entry.subscribers.get_mut(index as usize)?, tail))
    }

    fn connection(&self, conn: Conn) -> Option<&Connection> {
        self.connections.get(conn.slot as usize).filter(|connection| connection.serial == conn.serial)
    }

    fn connection_mut(&mut self, conn: Conn) -> Option<&mut Connection> {
        self.connections.get_mut(conn.slot as usize).filter(|connection| connection.serial == conn.serial)
    }

    fn open_mut(&mut self, conn: Conn) -> Option<&mut Connection> {
        self.connection_mut(conn).filter(|connection| connection.closing != Closing::Closed)
    }

    fn conn(&self, slot: usize, connection: &Connection) -> Conn {
        #[expect(clippy::cast_possible_truncation, reason = "the number of connections is limited")]
        Conn { arbiter: self.arbiter, slot: slot as u32, serial: connection.serial }
    }
}

#[cfg(test)]
mod tests;
