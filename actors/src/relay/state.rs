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

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use parlor_protocol::{
    Code, Epoch, Extensions, Name, Nonce, RoomNumber, Seq,
    message::{Close, Position},
};
use rustc_hash::FxHashMap;
use slab::Slab;

use crate::{
    channel::position::Extent,
    limits::Limits,
    message::{Conn, FromChannel},
    outbound::Outbound,
    port::DeviceKey,
};

/// Pulls that one connection may have under way.
const PULLS_PER_CONNECTION_MAX: usize = 4;

/// Fetches that one connection may have under way.
const FETCHES_PER_CONNECTION_MAX: usize = 4;

use self::{signals::Aside, sleeping::Nap};

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
        /// Of which room, where the request is about several.
        asked: Option<RoomNumber>,
        /// The room, or why the join was refused.
        room: Result<(RoomNumber, Name), Code>,
    },
    /// Tell the connection's session that it is no longer attached to a room.
    Lost {
        /// Which connection.
        conn: Conn,
        /// Which room, and where its client stands there when it reads of this.
        stands: Position,
    },
    /// Tell the connection's session that fewer requests wait for an answer, or fewer answers for the socket.
    Answered(Conn),
    /// Tell the room's channel that a user's device has received everything up to here.
    Delivered {
        /// Which room.
        room: RoomNumber,
        /// Whose device.
        user: Name,
        /// Up to here.
        seq: Seq,
    },
    /// Ask the supervisor to wake a room.
    Wake(RoomNumber),
    /// Tell the supervisor that a room that sleeps has no subscribers here any more.
    Forgot(RoomNumber),
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

impl Pending {
    /// Whether the server wants it by itself, so that its number is none of the client's.
    fn is_unasked(&self) -> bool {
        self.request == 0 && self.asks == Asks::Follow
    }

    /// Whether it is a join of one kind or another.
    fn is_join(&self) -> bool {
        matches!(self.asks, Asks::Join | Asks::Resume(_) | Asks::Follow)
    }

    fn is(&self, room: RoomNumber, asks: Asks) -> bool {
        self.room == Some(room) && self.asks == asks
    }
}

/// What a pending request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// To join.
    Join,
    /// To join a room that the session was in, behind this seq. One request asks for several.
    Resume(Seq),
    /// To join rooms of the session's user, all in one request, or as he is added: the session alone hears of refusals.
    Follow,
    /// To publish, under this nonce.
    Publish(Nonce),
    /// To read.
    Fetch,
    /// About rooms, members and presence: answered with one frame.
    Rooms,
    /// To have a cursor moved.
    Mark,
}

/// A connection.
#[derive(Debug)]
struct Connection {
    serial: u64,
    device: DeviceKey,
    outbound: Outbound,
    /// What was queued since little waited, and nobody asked for; records, signals and presence have limits of their own.
    unasked_bytes: usize,
    dirty: bool,
    /// Since when the socket refuses what waits, on the monotonic clock.
    blocked_since: Option<u64>,
    /// The rooms that it is attached to, each with its index among the room's subscribers.
    rooms: Vec<(RoomNumber, u32)>,
    /// Rooms whose tail it has to be pulled to.
    lagging: VecDeque<RoomNumber>,
    pulls: usize,
    pending: VecDeque<Pending>,
    /// At least the highest number among those, so that a new one is known as such without a look at all.
    newest: u32,
    /// How many of those are fetches.
    fetches: usize,
    /// Publishes that were refused for now: later ones of the room are held back.
    held: Vec<Held>,
    /// Its session waits for the socket before it handles more.
    unheard: bool,
    /// A tick looks at it.
    watched: bool,
    aside: Option<Box<Aside>>,
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
    WhenAnswered(u32),
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
    /// Whether its user is a member: what a later channel has to know.
    member: bool,
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
    /// Boxed, so that the table has little to copy and to leave behind when it grows.
    connections: Slab<Box<Connection>>,
    rooms: FxHashMap<RoomNumber, Room>,
    /// Those of them whose channels were let go.
    naps: FxHashMap<RoomNumber, Nap>,
    serial: u64,
    /// Slots with something to write, each once.
    dirty: VecDeque<u32>,
    /// Connections whose socket refuses something, or for which publishes are held back: all that a tick has to look at.
    watched: Vec<Conn>,
    /// Pulls that the store could not serve, to be tried again.
    retries: Vec<(Conn, RoomNumber)>,
    pending: usize,
    signals_dropped: u64,
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
            rooms: FxHashMap::default(),
            naps: FxHashMap::default(),
            serial: 0,
            dirty: VecDeque::new(),
            watched: Vec::new(),
            retries: Vec::new(),
            pending: 0,
            signals_dropped: 0,
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

    /// Whether a request of this connection waits for an answer, other than this one to follow and what that attaches.
    #[must_use]
    pub fn owes(&self, conn: Conn, follow: Option<u32>) -> bool {
        let waits = |pending: &Pending| pending.asks != Asks::Follow && Some(pending.request) != follow;
        self.connection(conn).is_some_and(|connection| connection.pending.iter().any(waits))
    }

    /// Whether a request of this number waits for an answer.
    #[must_use]
    pub fn is_pending(&self, conn: Conn, request: u32) -> bool {
        self.connection(conn).is_some_and(|connection| {
            let is = |pending: &Pending| pending.request == request && !pending.is_unasked();
            request <= connection.newest && connection.pending.iter().any(is)
        })
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
        let slot = self.connections.insert(Box::new(Connection {
            serial: self.serial,
            device,
            outbound: Outbound::default(),
            unasked_bytes: 0,
            dirty: false,
            blocked_since: None,
            rooms: Vec::new(),
            lagging: VecDeque::new(),
            pulls: 0,
            pending: VecDeque::new(),
            newest: 0,
            fetches: 0,
            held: Vec::new(),
            unheard: false,
            watched: false,
            aside: None,
            closing: Closing::Open,
        }));
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

    /// A whole frame for one connection that nobody asked for.
    pub fn on_frame(&mut self, conn: Conn, frame: Bytes) {
        self.push(conn, frame);
    }

    /// Whether a connection is attached to a room.
    #[must_use]
    pub fn is_attached(&self, conn: Conn, room: RoomNumber) -> bool {
        self.connection(conn).is_some_and(|connection| connection.rooms.iter().any(|(attached, _)| *attached == room))
    }

    /// Whose connection it is.
    #[must_use]
    pub fn user_of(&self, conn: Conn) -> Option<Name> {
        self.connection(conn).map(|connection| connection.device.user.clone())
    }

    /// A frame for one connection that no pending request waits for.
    pub fn on_send<'a, B: parlor_protocol::Body<'a>>(&mut self, conn: Conn, request: u32, body: &B) {
        self.queue(conn, request, |outbound| outbound.encode(request, body));
    }

    /// Queues frames of a request. Those that nobody asked for, under 0, end the connection instead if it has read too little of
    /// the ones before; what is asked for is bounded by how much may be asked.
    fn queue(&mut self, conn: Conn, request: u32, frames: impl FnOnce(&mut Outbound)) {
        let max = self.limits.outbound_bytes_max;
        let Some(connection) = self.open_mut(conn) else { return };
        if request == 0 && connection.unasked_bytes > max {
            return self.close(conn, 0, Code::SlowReader, "too much was not read: join again with the position", 0);
        }
        let before = connection.outbound.bytes();
        frames(&mut connection.outbound);
        if request == 0 {
            connection.unasked_bytes += connection.outbound.bytes() - before;
        }
        self.mark_dirty(conn.slot);
    }

    /// The session ends the connection: now, or, for a goodbye of this request, when everything accepted is answered.
    pub fn on_close(&mut self, conn: Conn, code: Code, message: &str, retry_after_ms: u32, goodbye: Option<u32>) {
        let Some(connection) = self.open_mut(conn) else { return };
        if let Some(request) = goodbye {
            connection.closing = Closing::WhenAnswered(request);
            self.close_if_answered(conn);
        } else {
            self.close(conn, 0, code, message, retry_after_ms);
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
        self.connections.iter().map(|(slot, connection)| self.conn(slot, connection)).collect()
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
                // An answer that comes late, to a number that has been used again, is not for the newer one.
                let meant = |pending: &Pending| pending.room == Some(room);
                self.refuse_one(conn, request, meant, code, retry_after_ms, message);
            }
            FromChannel::Answer { conn, request, frame } => {
                let meant = |pending: &Pending| pending.is(room, Asks::Fetch) || pending.is(room, Asks::Mark);
                if self.end(conn, request, meant).is_some() {
                    self.push(conn, frame);
                }
                self.close_if_answered(conn);
            }
            FromChannel::Pulled { conns, after, page } => {
                for conn in conns {
                    self.on_pulled(conn, room, after, page.clone());
                }
            }
            FromChannel::Detach { users, code, message } => self.on_detach(room, &users, code, message),
            FromChannel::Members(users) => self.on_members(room, &users),
            FromChannel::Hide(hidden) => self.on_hide(room, &hidden),
            FromChannel::Signal(signal) => self.on_signal(room, &signal),
            FromChannel::SignalRefused { conn, request, code, message } => {
                self.on_signal_refused(conn, request, code, message);
            }
            FromChannel::Notice { conns, frame } => self.on_notice(room, conns, &frame),
            FromChannel::Adopted { epochs, first, trimmed, tail } => {
                self.on_adopted(room, &Extent { epochs, first, trimmed, tail });
            }
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
            self.watch(conn);
        }
        let Some(connection) = self.connection_mut(conn) else { return };
        if connection.outbound.bytes() <= low {
            connection.unasked_bytes = 0;
            if std::mem::take(&mut connection.unheard) {
                self.effects.push_back(Effect::Answered(conn));
            }
            self.pull_lagging(conn);
            self.bring_kept(conn);
        }
    }

    /// Time passed: tries failed pulls again and closes connections that do not read.
    pub fn on_tick(&mut self, now_mono: u64) {
        for (conn, room) in std::mem::take(&mut self.retries) {
            // Meanwhile it may have left and come back, or have been adopted.
            if let Some((subscriber, _)) = self.subscriber_mut(conn, room)
                && subscriber.standing == Standing::Lagging
                && self.is_served(room)
                && let Some(connection) = self.connection_mut(conn)
                && !connection.lagging.contains(&room)
            {
                connection.lagging.push_back(room);
            }
            self.pull_lagging(conn);
        }
        for conn in std::mem::take(&mut self.watched) {
            self.look_at(conn, now_mono);
        }
    }

    /// Whether what is asked of a room gets to a channel that knows its subscribers, or wakes it.
    fn is_served(&self, room: RoomNumber) -> bool {
        self.naps.contains_key(&room) || self.rooms.get(&room).is_some_and(|entry| !entry.orphaned)
    }

    /// Ends what is over for a watched connection, which stays watched while there is something to watch.
    fn look_at(&mut self, conn: Conn, now_mono: u64) {
        let hold_until = now_mono + self.limits.hold_back_ms;
        let (slow_reader_ms, close_linger_ms) = (self.limits.slow_reader_ms, self.limits.close_linger_ms);
        let Some(connection) = self.connection_mut(conn) else { return };
        connection.watched = false;
        connection.held.retain_mut(|held| *held.until.get_or_insert(hold_until) > now_mono);
        let closed = connection.closing == Closing::Closed;
        let patience = if closed { close_linger_ms } else { slow_reader_ms };
        let (blocked, holds) = (connection.blocked_since, !connection.held.is_empty());
        if blocked.is_some() || holds {
            self.watch(conn);
        }
        if blocked.is_none_or(|since| now_mono < since + patience) {
            return;
        }
        if closed {
            self.effects.push_back(Effect::Kill(conn));
        } else {
            self.close(conn, 0, Code::SlowReader, "nothing was read for too long: join again with the position", 0);
            self.on_written(conn, true, now_mono);
        }
    }

    /// Has the next tick look at a connection.
    fn watch(&mut self, conn: Conn) {
        if let Some(connection) = self.connection_mut(conn)
            && !std::mem::replace(&mut connection.watched, true)
        {
            self.watched.push(conn);
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

    fn connection(&self, conn: Conn) -> Option<&Connection> {
        self.connections.get(conn.slot as usize).map(Box::as_ref).filter(|connection| connection.serial == conn.serial)
    }

    fn connection_mut(&mut self, conn: Conn) -> Option<&mut Connection> {
        self.connections
            .get_mut(conn.slot as usize)
            .map(Box::as_mut)
            .filter(|connection| connection.serial == conn.serial)
    }

    fn open_mut(&mut self, conn: Conn) -> Option<&mut Connection> {
        self.connection_mut(conn).filter(|connection| connection.closing != Closing::Closed)
    }

    fn conn(&self, slot: usize, connection: &Connection) -> Conn {
        #[expect(clippy::cast_possible_truncation, reason = "the number of connections is limited")]
        Conn { arbiter: self.arbiter, slot: slot as u32, serial: connection.serial }
    }
}

mod answering;
mod delivering;
mod detaching;
mod hiding;
mod signals;
mod sleeping;
#[cfg(test)]
mod tests;
