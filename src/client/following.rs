//! Following the user: the server attaches the rooms that he is a member of, and the client takes what it is given.
//!
//! A `Follow` goes out behind each welcome. It carries the positions of the rooms that came by an earlier one, which are
//! not resumed or joined besides. What it does not attach before its `Done` is joined by name, so that the application
//! learns from the server why it is out.

use std::{collections::BTreeMap, time::Duration};

use parlor_protocol::{
    Advice, Code, Extensions, List, Name, encode,
    message::{self, JoinFrom, ROOMS_PER_SESSION_MAX},
};

use super::{
    effect::Now,
    event::RoomInfo,
    room::{Room, Stage},
    rooms::RETRY_MIN,
    state::State,
    wire::WireError,
};

/// How far following is.
#[derive(Debug, Default)]
pub(super) struct Follow {
    /// The request that waits for its `Done`.
    request: Option<u32>,
    /// When one that was refused for now is sent again.
    retry_at: Option<Duration>,
    /// Rooms that the application has left, and whether the user was seen to be a member since the last `Follow`. They are
    /// not taken again before he is added anew.
    left: BTreeMap<Name, bool>,
}

impl Follow {
    /// The application leaves this room.
    pub(super) fn left(&mut self, room: &Name) {
        self.left.insert(room.clone(), true);
    }

    /// The application joins this room.
    pub(super) fn wants(&mut self, room: &Name) {
        self.left.remove(room);
    }

    pub(super) fn is_answered_by(&self, request: u32) -> bool {
        self.request == Some(request)
    }

    pub(super) fn on_connection_lost(&mut self) {
        (self.request, self.retry_at) = (None, None);
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.retry_at
    }

    /// Whether this room, which the server attached, is one that the application has left.
    fn is_unwanted(&mut self, request: u32, room: &Name) -> bool {
        if request == 0 {
            self.left.remove(room);
        }
        self.left.get_mut(room).map(|seen| *seen = true).is_some()
    }
}

impl State {
    /// A welcome came: the rooms that following has brought wait for it to bring them again. Returns where they stand, if
    /// the client follows.
    pub(super) fn begin_to_follow(&mut self) -> Option<Vec<message::Position>> {
        self.config.follow?;
        let mut positions = Vec::new();
        for room in self.rooms.values_mut().filter(|room| room.followed && room.stage == Stage::Out) {
            let Some(inbound) = room.inbound.as_ref().filter(|_| positions.len() < ROOMS_PER_SESSION_MAX) else {
                continue;
            };
            room.stage = Stage::Following;
            let (epoch, seq) = inbound.position();
            positions.push(message::Position { room: room.number, epoch, seq });
        }
        Some(positions)
    }

    /// Asks to follow, with the positions from [`begin_to_follow`](Self::begin_to_follow). Behind the joins and the `Resume`
    /// of other rooms, which the server then leaves out.
    pub(super) fn send_follow(&mut self, positions: Option<Vec<message::Position>>) {
        let (Some(positions), Some(newest)) = (positions, self.config.follow) else { return };
        self.follow.left.values_mut().for_each(|seen| *seen = false);
        let follow = message::Follow { positions: List(positions), newest, extensions: Extensions::default() };
        self.follow.request = Some(self.write(|request, out| encode(request, &follow, out)));
    }

    /// Asks again, if it is time.
    pub(super) fn follow_again(&mut self, now: Now) {
        if self.follow.retry_at.take_if(|at| *at <= now.at).is_some() {
            for room in self.rooms.values_mut().filter(|room| room.stage == Stage::Following) {
                room.stage = Stage::Out;
            }
            let positions = self.begin_to_follow();
            self.send_follow(positions);
        }
    }

    /// The server attached a room of itself.
    pub(super) fn on_attached(
        &mut self,
        now: Now,
        request: u32,
        attached: &message::Attached<'_>,
    ) -> Result<(), WireError> {
        let name = Name::parse(attached.name)?;
        let gone = |room: &Room| matches!(room.stage, Stage::Leaving | Stage::Left(_));
        let known = self.rooms.iter().find(|(_, room)| room.name == name && !gone(room)).map(|(key, _)| *key);
        let (epoch, cursor) = (attached.epoch, attached.cursor);
        let key = match known {
            Some(key) => key,
            None if self.follow.is_unwanted(request, &name) => {
                // Nobody waits for the answer, and what comes of the room meanwhile is nobody's.
                let leave = message::Leave { room: attached.room, extensions: Extensions::default() };
                self.write(|request, out| encode(request, &leave, out));
                return Ok(());
            }
            None => {
                let key = self.keys.next();
                self.rooms.insert(key, Room::followed(name, JoinFrom::Tail));
                key
            }
        };
        if let Some(room) = self.rooms.get_mut(&key) {
            room.followed = true;
        }
        self.attach(now, key, RoomInfo::of_attached(attached), attached.newest_nonce);
        self.receive(key, |inbound, _| inbound.on_begun(epoch, cursor));
        self.settle(now, key);
        Ok(())
    }

    /// All rooms are attached that are to be.
    pub(super) fn on_followed(&mut self, now: Now) {
        self.follow.request = None;
        self.follow.left.retain(|_, seen| *seen);
        self.end_following(now);
    }

    /// The server does not follow, for now or at all.
    pub(super) fn on_follow_refused(&mut self, now: Now, error: &message::Error<'_>) {
        self.follow.request = None;
        if error.code.advice() == Advice::RetryLater {
            let wait = Duration::from_millis(u64::from(error.retry_after_ms)).max(10 * RETRY_MIN);
            self.follow.retry_at = Some(now.at.saturating_add(wait + self.rng.up_to(wait)));
        } else {
            let (code, message): (Code, _) = (error.code, error.message);
            tracing::warn!(%code, message, "the server does not follow the user's rooms");
            self.end_following(now);
        }
    }

    fn end_following(&mut self, now: Now) {
        for room in self.rooms.values_mut().filter(|room| room.stage == Stage::Following) {
            room.stage = Stage::Out;
        }
        self.settle_all_out(now);
    }
}
