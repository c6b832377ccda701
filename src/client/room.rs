//! One room as the client's state holds it: data and small decisions; `state.rs` talks to the server about it.

use std::{collections::VecDeque, time::Duration};

use parlor_protocol::{
    Name, RoomNumber, Seq,
    message::{Durability, JoinFrom},
};

use super::{effect::Ticket, inbound::Inbound, marker::Marker, outbox::Outbox, question::Ask, watching::RoomWatch};

/// How far a room is attached to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// To be joined, for the first time or again.
    Out,
    /// A join is under way.
    Joining,
    /// The session that it belongs to was taken up, and the server has not said whether it goes on there.
    Resuming,
    /// The server says that it attaches it of itself, or has: until `retry_at`, that is waited for.
    Coming,
    /// A `Follow` is under way, which attaches it.
    Following,
    /// Attached.
    In,
    /// A leave is under way.
    Leaving,
    /// Left; what is owed up to this cursor is still being fetched.
    Left(Seq),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) name: Name,
    pub(super) from: JoinFrom,
    /// Whether it came by following the user, not by a join of the application.
    pub(super) followed: bool,
    pub(super) stage: Stage,
    pub(super) number: RoomNumber,
    pub(super) durability: Durability,
    /// The join of the application, until it is answered.
    pub(super) join: Option<Ticket>,
    /// Whether the application wants to leave.
    pub(super) leaving: bool,
    pub(super) leave: Option<Ticket>,
    /// `None` until joined for the first time.
    pub(super) inbound: Option<Inbound>,
    pub(super) outbox: Outbox,
    pub(super) asks: VecDeque<Ask>,
    pub(super) marker: Marker,
    pub(super) watch: RoomWatch,
    /// Whether the application was told that the connection is lost, and not yet that it is back.
    pub(super) down: bool,
    /// No join, leave or fill before this time.
    pub(super) retry_at: Option<Duration>,
    /// Whether it waits for its turn to publish.
    pub(super) starved: bool,
    /// The time under which it stands in the table of timers.
    pub(super) timer: Option<Duration>,
}

impl Room {
    pub(super) fn new(name: Name, from: JoinFrom, join: Ticket) -> Self {
        Self { join: Some(join), followed: false, ..Self::followed(name, from) }
    }

    /// A room that the server attaches of itself.
    pub(super) fn followed(name: Name, from: JoinFrom) -> Self {
        Self {
            name,
            from,
            followed: true,
            stage: Stage::Out,
            number: RoomNumber::default(),
            durability: Durability::default(),
            join: None,
            leaving: false,
            leave: None,
            inbound: None,
            outbox: Outbox::new(),
            asks: VecDeque::new(),
            marker: Marker::default(),
            watch: RoomWatch::Off,
            down: false,
            retry_at: None,
            starved: false,
            timer: None,
        }
    }

    /// Where a join begins.
    pub(super) fn join_from(&self) -> JoinFrom {
        match &self.inbound {
            Some(inbound) => {
                let (epoch, seq) = inbound.position();
                JoinFrom::Position(epoch, seq)
            }
            None => self.from,
        }
    }

    /// Whether a leave may go out: what was said before it is answered, and nothing is missing.
    pub(super) fn may_leave(&self) -> bool {
        let whole = self.inbound.as_ref().is_none_or(|inbound| !inbound.is_filling() && inbound.wants_fill().is_none());
        self.leaving && whole && self.outbox.is_empty() && self.asks.is_empty()
    }

    /// When something of it is due.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let position = self.inbound.as_ref().map_or(0, |inbound| inbound.position().1);
        let mark = self.marker.timeout(position).filter(|_| self.stage == Stage::In);
        let watch = self.watch.timeout().filter(|_| self.stage == Stage::In && !self.leaving);
        [self.outbox.timeout(), self.retry_at, mark, watch].into_iter().flatten().min()
    }
}
