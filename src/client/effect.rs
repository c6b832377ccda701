//! What goes into the state and comes out of it, beside frames.

use std::time::Duration;

use parlor_protocol::{Code, DeviceTag, Epoch, Nonce, Seq};

use super::{
    error::{ConnectError, PublishError, RequestError},
    event::{Acked, Event, Page, RoomInfo},
    room::Ask,
};

/// Names a request of the application until it is answered.
pub(super) type Ticket = u64;

/// Names a room within the client, from its join on; never used twice.
pub(super) type RoomKey = u32;

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
    /// Make a connection to this server; answer with `handle_connected` or `handle_unreachable`.
    Dial(String),
    /// Drop the connection, or the attempt at one.
    HangUp,
    /// The first welcome came.
    Ready(DeviceTag),
    /// The first connect is given up. Nothing follows.
    Failed(ConnectError),
    /// A join succeeded.
    Joined(Ticket, RoomKey, RoomInfo),
    /// A fetch was answered.
    Fetched(Ticket, Page),
    /// A leave was answered.
    Left(Ticket, Seq),
    /// A join, fetch or leave failed.
    Refused(Ticket, RequestError),
    /// A send has its outcome.
    Sent(Ticket, Result<Acked, PublishError>),
    /// For the events of a room; with the position behind it.
    Event(RoomKey, Event, (Epoch, Seq)),
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
    Dialing { deadline: Duration },
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
    Fetch(RoomKey, Ask),
    Fill(RoomKey),
}
