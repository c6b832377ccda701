//! What an arbiter's relay is told.

use std::{ops::Range, sync::Arc, time::Duration};

use actix::{Addr, Message};
use parlor_protocol::{Name, RoomNumber};
use tokio::sync::oneshot;

use super::{Local, Relay};
use crate::{
    arbiters::Arbiters,
    channel::{
        Channel,
        gathering::{To, Told},
    },
    handover::Handover,
    message::{Conn, FromChannel, Signal},
};

/// What a channel says, with its address where the relay may not know it yet.
pub(crate) struct RoomNews {
    pub(crate) room: RoomNumber,
    pub(crate) news: FromChannel,
    pub(crate) channel: Option<Addr<Channel>>,
}

impl Message for RoomNews {
    type Result = ();
}

/// A room that slept, and whoever runs it now.
pub(crate) struct Woken<H> {
    pub(crate) room: RoomNumber,
    pub(crate) channel: H,
    /// The arbiters whose subscribers the channel waits for.
    pub(crate) expected: Arbiters,
    /// Whether it is told all that changed meanwhile.
    pub(crate) trusted: bool,
}

/// What others say to a relay.
pub(crate) enum ToRelay {
    /// All relays, by their arbiters' numbers: the first message of all.
    Relays(Arc<[Addr<Relay>]>),
    /// A signal for some connections of the arbiter.
    Signal(Vec<Conn>, Signal),
    /// Something about a user changed whom somebody here watches.
    Presence(Name),
    /// Who is in a room, for those who watch it.
    RoomPresence { room: RoomNumber, watch: u32, to: To, told: Arc<Told> },
    /// A room's channel died.
    Down(RoomNumber),
    /// A room was deleted, and its channel has ended.
    Gone(RoomNumber),
    /// A room has a new channel.
    Up(RoomNumber, Addr<Channel>),
    /// Send nothing more to a room's channel, and tell it so.
    LetGo(RoomNumber, Addr<Channel>),
    /// A channel that was let go goes on.
    Awake(RoomNumber, Addr<Channel>),
    /// A channel that was let go has ended: its room sleeps.
    Asleep(RoomNumber),
    /// A room that slept has a channel.
    Woken(Woken<Addr<Channel>>),
    /// A room that sleeps cannot be woken now.
    NotWoken(RoomNumber),
    /// A join came to a channel that had ended.
    Unheard { room: RoomNumber, conn: Conn, request: u32 },
    /// The end of a turn in which channels appended.
    HandOver(Arc<Handover>),
    /// Appends of the arbiter's channels are settled.
    Settled(Arc<Handover>),
    /// Run this on the arbiter's thread.
    Run(Box<dyn FnOnce(&Local) + Send>),
    /// Take nothing more, answer everything, then close all connections.
    Drain { patience: Duration, come_back_ms: Range<u32>, done: oneshot::Sender<()> },
}

impl Message for ToRelay {
    type Result = ();
}
