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

use parlor_protocol::{Epoch, Name, Nonce, RoomNumber, Seq};
use rustc_hash::FxHashMap;
use slab::Slab;

use crate::{
    channel::position::Extent,
    limits::Limits,
    message::{Conn, FromChannel},
    outbound::Outbound,
    port::{DeviceKey, Mark},
};

pub use self::speech::{Asks, Effect, Pending};
use self::{signals::Aside, sleeping::Nap};

/// Pulls that one connection may have under way.
const PULLS_PER_CONNECTION_MAX: usize = 4;

/// Fetches that one connection may have under way.
const FETCHES_PER_CONNECTION_MAX: usize = 4;

/// A connection. In the order in which it lies in memory: what a delivery touches comes first and together.
#[derive(Debug)]
#[repr(C)]
struct Connection {
    serial: u64,
    outbound: Outbound,
    dirty: bool,
    closing: Closing,
    /// Its session waits for the socket before it handles more.
    unheard: bool,
    /// A tick looks at it.
    watched: bool,
    /// What was queued since little waited, and nobody asked for; records, signals and presence have limits of their own.
    unasked_bytes: usize,
    /// Since when the socket refuses what waits, on the monotonic clock.
    blocked_since: Option<u64>,
    aside: Option<Box<Aside>>,
    pulls: usize,
    /// Rooms whose tail it has to be pulled to.
    lagging: VecDeque<RoomNumber>,
    pending: VecDeque<Pending>,
    /// At least the highest number among those, so that a new one is known as such without a look at all.
    newest: u32,
    /// How many of those are fetches.
    fetches: usize,
    /// Publishes that were refused for now: later ones of the room are held back.
    held: Vec<Held>,
    /// The rooms that it is attached to, each with its index among the room's subscribers.
    rooms: Vec<(RoomNumber, u32)>,
    device: DeviceKey,
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
    /// Whether its user is a member, and how far the room was when he came as a stranger: what a later channel has to know.
    member: bool,
    met: Mark,
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
mod speech;
#[cfg(test)]
mod tests;
mod writing;
