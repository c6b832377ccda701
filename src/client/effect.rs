//! What goes into the state and comes out of it, beside frames.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use parlor_protocol::{Code, DeviceTag, Epoch, Name, Nonce, Seq};

use super::{
    error::{ConnectError, PublishError, RequestError},
    event::{Acked, Event, Outgoing, RoomInfo},
    presence::{RoomPresence, UserPresence},
    question::{Answer, Ask},
    reading::Standing,
    servers::Attempt,
    signal::Signal,
};

/// Names a request of the application until it is answered.
pub(super) type Ticket = u64;

/// The ticket of what nobody waits for.
pub(super) const NOBODYS: Ticket = 0;

/// Names a room within the client, from its join on; never used twice.
pub(super) type RoomKey = u32;

/// Gives the rooms of a client their names: to the handles, which join some, and to the state, which is attached to others.
#[derive(Clone, Debug, Default)]
pub(super) struct RoomKeys(Arc<AtomicU32>);

impl RoomKeys {
    #[cfg(test)]
    pub(super) fn starting_at(first: RoomKey) -> Self {
        Self(Arc::new(AtomicU32::new(first)))
    }

    pub(super) fn next(&self) -> RoomKey {
        self.0.fetch_add(1, SeqCst)
    }
}

/// The time, given with every input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Since the client's start; never goes back.
    pub(super) at: Duration,
    /// The wall clock in microseconds; may jump.
    pub(super) unix_us: u64,
}

/// What the driver has to do.
#[derive(Debug)]
pub(super) enum Effect {
    /// Look a server's name up; answer with `handle_resolved`.
    Resolve(usize, String),
    /// Connect; answer with `handle_connected` or `handle_unreachable`. The first that is made wins: drop the others.
    Dial(Attempt, SocketAddr),
    /// Drop one attempt.
    GiveUp(Attempt),
    /// Drop the connection, or all attempts at one.
    HangUp,
    /// A server at this address said welcome.
    Welcomed(Option<SocketAddr>),
    /// The first welcome came.
    Ready(DeviceTag),
    /// The first connect is given up. Nothing follows.
    Failed(ConnectError),
    /// A join succeeded.
    Joined(Ticket, RoomKey, RoomInfo),
    /// A room that nobody joined is attached. Answer with `handle_restored`; its events follow.
    Attached(RoomKey, Name, RoomInfo),
    /// A question was answered.
    Answered(Ticket, Answer),
    /// A leave was answered.
    Left(Ticket, Seq),
    /// A join, a leave or a question failed.
    Refused(Ticket, RequestError),
    /// A send has its outcome.
    Sent(Ticket, Result<Acked, PublishError>),
    /// The server does not answer. The send stays in the outbox, and may have its outcome later.
    Stalled(Ticket),
    /// Keep a message until it is acked; answer with `handle_kept` or `handle_not_kept`.
    Keep(RoomKey, Nonce, Outgoing),
    /// Keep a message under another nonce from here on; answer for that one as for `Keep`.
    Renumber(RoomKey, Nonce, Nonce),
    /// A message is acked or refused for good.
    Forget(RoomKey, Nonce),
    /// For the events of a room; with the position behind it.
    Event(RoomKey, Event, (Epoch, Seq)),
    /// For the events of a room: where the user's read cursor stands.
    Marked(RoomKey, Standing),
    /// A watched user changed.
    Presence(UserPresence),
    /// The application was told of these users otherwise: what waits of them is older.
    Told(Vec<Name>),
    /// For the events of a room that is watched: who is there.
    RoomPresence(RoomKey, RoomPresence),
    /// Somebody signals, in a room or to the user.
    Signal(Option<RoomKey>, Signal),
    /// No event of this room follows.
    EventsEnd(RoomKey),
    /// The client is over. Nothing follows.
    Ended(Code, String),
}

/// How far the connection is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// Before the next attempt.
    Waiting { until: Duration },
    /// The driver makes a connection.
    Dialing,
    /// Hello is said, welcome is not.
    Greeting { deadline: Duration },
    /// Welcome.
    Online { since: Duration },
    /// Goodbye is said.
    Closing { deadline: Duration },
    /// For good.
    Ended,
}

/// What a request was about.
#[derive(Debug)]
pub(super) enum Pending {
    Join(RoomKey),
    Leave(RoomKey),
    Publish(RoomKey, Nonce),
    /// A part of a long message.
    Part(RoomKey, Nonce),
    Ask(Ask),
    Mark(RoomKey),
    Fill(RoomKey),
    /// Who is in a room, which is watched again.
    Watch(RoomKey),
}
