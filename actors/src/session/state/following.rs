//! A session that follows its user: it is attached to all his rooms, and to each that he is added to.
//!
//! A few rooms are on their way at a time, so that a user of a thousand does not flood the supervisor. A room that cannot
//! be attached now is tried again.

use std::collections::VecDeque;

use parlor_protocol::{
    Advice, Code, DecodeError, Name, RoomNumber,
    message::{self, Done, JoinFrom, Position},
};

use super::{Effect, Joining, State};
use crate::{
    members::Look,
    port::Now,
    relay::state::{Asks, Pending},
};

/// Rooms that are on their way at a time.
const UNDER_WAY_MAX: usize = 16;

/// When a room that could not be attached is tried again.
const RETRY_MS: u64 = 500;

/// Rooms that a session is being attached to.
#[derive(Debug)]
pub(super) struct Following {
    /// The `Follow` that waits for its `Done`.
    request: Option<u32>,
    /// Where its client stands, until the rooms are listed.
    listing: Option<Stands>,
    waiting: VecDeque<Wanted>,
    /// Rooms that the user was added to while the session was in them: he was put out before, or it had joined already.
    again: Vec<Wanted>,
    under_way: usize,
    /// Those among the waiting that were refused for now are tried again then.
    retry_at: Option<u64>,
}

/// Where a client stands in its rooms.
#[derive(Debug)]
struct Stands {
    positions: Vec<Position>,
    /// Of rooms that it has not been in it wants so many of the newest records.
    newest: u32,
}

impl Stands {
    /// Where delivery of a room begins.
    fn from(&self, room: RoomNumber) -> JoinFrom {
        let known = self.positions.iter().find(|position| position.room == room);
        match known {
            Some(&Position { epoch, seq, .. }) => JoinFrom::Position(epoch, seq),
            None if self.newest == 0 => JoinFrom::Tail,
            None => JoinFrom::Newest(self.newest),
        }
    }
}

#[derive(Debug)]
struct Wanted {
    /// The request that it belongs to; 0 for one that the user was added to later.
    request: u32,
    room: RoomNumber,
    name: Name,
    from: JoinFrom,
}

impl Following {
    fn new() -> Box<Self> {
        Box::new(Self {
            request: None,
            listing: None,
            waiting: VecDeque::new(),
            again: Vec::new(),
            under_way: 0,
            retry_at: None,
        })
    }

    /// When it has to be looked at, on the monotonic clock.
    pub(super) fn retry_at(&self) -> u64 {
        self.retry_at.unwrap_or(u64::MAX)
    }
}

impl State {
    pub(super) fn on_follow(&mut self, request: u32, body: &[u8]) -> Result<(), DecodeError> {
        let message::Follow { positions, newest, .. } = parlor_protocol::decode(body)?;
        let following = self.following.get_or_insert_with(Following::new);
        if following.request.is_some() {
            self.error(request, Code::Busy, "an earlier follow waits for its answer".into());
            return Ok(());
        }
        following.request = Some(request);
        following.listing = Some(Stands { positions: positions.0, newest });
        self.effects.push_back(Effect::Begin(Pending { request, room: None, asks: Asks::Rooms }));
        // First, so that no room is missed between the list and what is told.
        self.effects.push_back(Effect::Follow);
        // All that it may have, whatever it has already.
        let look = Look::RoomsToFollow { user: self.device.user.clone(), limit: self.rooms_max as usize };
        self.effects.push_back(Effect::Look { request, look });
        Ok(())
    }

    /// The user's rooms were listed for a `Follow`.
    pub(super) fn on_listed(&mut self, request: u32, rooms: Vec<(RoomNumber, Name)>) {
        let Some(following) = &mut self.following else { return };
        let Some(stands) = following.listing.take() else { return };
        let wanted = rooms.into_iter().map(|(room, name)| Wanted { request, room, name, from: stands.from(room) });
        following.waiting.extend(wanted);
        self.attach_waiting();
    }

    /// A question was refused, maybe the one for the rooms to follow.
    pub(super) fn on_not_listed(&mut self, request: u32) {
        let Some(following) = &mut self.following else { return };
        if following.request == Some(request) {
            // Rooms that the user was added to meanwhile are attached all the same.
            (following.request, following.listing) = (None, None);
            self.attach_waiting();
        }
    }

    /// The user was added to a room.
    pub(super) fn on_added(&mut self, room: RoomNumber, name: Name, from: JoinFrom) {
        let has = self.has(&name);
        let following = self.following.get_or_insert_with(Following::new);
        if has {
            // What put him out comes another way, and may be overtaken.
            following.again.retain(|wanted| wanted.room != room);
            following.again.push(Wanted { request: 0, room, name, from });
            return;
        }
        if following.waiting.iter().all(|wanted| wanted.room != room) {
            following.waiting.push_back(Wanted { request: 0, room, name, from });
        }
        self.attach_waiting();
    }

    /// The session is not in a room any more, which its user may have been added to since.
    pub(super) fn attach_again(&mut self, name: &Name) {
        let Some(following) = &mut self.following else { return };
        let Some(at) = following.again.iter().position(|wanted| wanted.name == *name) else { return };
        let wanted = following.again.swap_remove(at);
        following.waiting.push_back(wanted);
        self.attach_waiting();
    }

    /// Tries again what was refused for now, if it is time.
    pub(super) fn follow_on(&mut self, now: Now) {
        if let Some(following) = &mut self.following {
            following.retry_at.take_if(|at| *at <= now.mono_ms);
            self.attach_waiting();
        }
    }

    /// A join has ended, maybe one of those that follow; `refused` says why it was not carried out.
    pub(super) fn follow_ended(&mut self, now: Now, ended: Joining, refused: Option<Code>) {
        let (Some(following), Some(room), true) = (&mut self.following, ended.resumes, ended.follows) else { return };
        following.under_way -= 1;
        if refused.is_some_and(|code| code.advice() == Advice::RetryLater) {
            let Joining { request, name, from, .. } = ended;
            following.waiting.push_back(Wanted { request, room, name, from });
            if following.retry_at.is_none() {
                following.retry_at = Some(now.mono_ms + RETRY_MS);
                self.effects.push_back(Effect::Arm);
            }
        }
        self.attach_waiting();
    }

    fn attach_waiting(&mut self) {
        let Some(mut following) = self.following.take() else { return };
        while following.under_way < UNDER_WAY_MAX
            && following.retry_at.is_none()
            && let Some(Wanted { request, room, name, from }) = following.waiting.pop_front()
        {
            if self.has(&name) || self.rooms.len() + self.joining.len() >= self.rooms_max as usize {
                continue;
            }
            following.under_way += 1;
            self.joining.push(Joining { request, resumes: Some(room), name: name.clone(), from, follows: true });
            self.effects.push_back(Effect::Begin(Pending { request, room: Some(room), asks: Asks::Follow }));
            self.effects.push_back(Effect::Resolve { request, resumes: Some(room), name });
        }
        let rests = following.under_way == 0 && following.waiting.is_empty() && following.listing.is_none();
        if rests && let Some(request) = following.request.take() {
            self.answer(request, &Done::default());
        }
        if !rests || !following.again.is_empty() {
            self.following = Some(following);
        }
    }
}
