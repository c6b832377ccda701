//! A session that follows its user: it is attached to all his rooms, and to each that he is added to.
//!
//! A few rooms are on their way at a time, so that a user of a thousand does not flood the supervisor. A room that cannot
//! be attached now is tried again.
//!
//! Who is removed and added again may have been brought what came in between: it was said while he was still there for the
//! room, and since he was added for the store. It is not brought to him twice over one connection.

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
    /// There was one over this connection.
    asked: bool,
    /// The rooms are being listed for it.
    listing: bool,
    /// Where its client said that it stands…
    positions: Vec<Position>,
    /// …and of rooms that it has not been in it wants so many of the newest records.
    newest: u32,
    waiting: VecDeque<Wanted>,
    /// Rooms that the user was added to while the session was in them: he was put out before, or it had joined already.
    again: Vec<Wanted>,
    /// Rooms that the user was added to while the session had as many as it may, until it has a place.
    full: VecDeque<Wanted>,
    /// Where its client stands in rooms that it is not in any more, as far as this connection knows; the newest are last.
    stands: Vec<Position>,
    under_way: usize,
    /// Those among the waiting that were refused for now are tried again then.
    retry_at: Option<u64>,
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
            asked: false,
            listing: false,
            positions: Vec::new(),
            newest: 0,
            waiting: VecDeque::new(),
            again: Vec::new(),
            full: VecDeque::new(),
            stands: Vec::new(),
            under_way: 0,
            retry_at: None,
        })
    }

    /// When it has to be looked at, on the monotonic clock.
    pub(super) fn retry_at(&self) -> u64 {
        self.retry_at.unwrap_or(u64::MAX)
    }

    /// Where delivery of a room begins.
    fn from(&self, room: RoomNumber) -> JoinFrom {
        let known = self.positions.iter().find(|position| position.room == room);
        match known {
            Some(&Position { epoch, seq, .. }) => JoinFrom::Position(epoch, seq),
            None if self.newest == 0 => JoinFrom::Tail,
            None => JoinFrom::Newest(self.newest),
        }
    }

    /// Where delivery of a room begins that its user was added to: not before what its client holds of it.
    fn behind_what_is_held(&self, room: RoomNumber, added: JoinFrom) -> JoinFrom {
        let known = self.positions.iter().chain(&self.stands).filter(|position| position.room == room);
        let Some(held) = known.map(|position| (position.epoch, position.seq)).max() else { return added };
        match added {
            JoinFrom::Position(epoch, seq) if (epoch, seq) > held => added,
            _ => JoinFrom::Position(held.0, held.1),
        }
    }
}

impl State {
    /// The `Follow` that waits for its answer.
    #[must_use]
    pub fn follow_request(&self) -> Option<u32> {
        self.following.as_ref().and_then(|following| following.request)
    }

    pub(super) fn on_follow(&mut self, request: u32, body: &[u8]) -> Result<(), DecodeError> {
        let message::Follow { positions, newest, .. } = parlor_protocol::decode(body)?;
        let following = self.following.get_or_insert_with(Following::new);
        if following.request.is_some() {
            self.error(request, Code::Busy, "an earlier follow waits for its answer".into());
            return Ok(());
        }
        (following.request, following.asked) = (Some(request), true);
        (following.listing, following.positions, following.newest) = (true, positions.0, newest);
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
        if !std::mem::take(&mut following.listing) {
            return;
        }
        for (room, name) in rooms {
            let from = following.from(room);
            following.waiting.push_back(Wanted { request, room, name, from });
        }
        self.attach_waiting(0);
    }

    /// A question was refused, maybe the one for the rooms to follow.
    pub(super) fn on_not_listed(&mut self, request: u32) {
        let Some(following) = &mut self.following else { return };
        if following.request == Some(request) {
            // Rooms that the user was added to meanwhile are attached all the same.
            (following.request, following.listing) = (None, false);
            self.attach_waiting(0);
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
        self.attach_waiting(0);
    }

    /// The session is not in a room any more, which its user may have been added to since.
    pub(super) fn attach_again(&mut self, name: &Name, stands: Option<Position>) {
        if let Some(stands) = stands {
            self.stands_no_more(stands.room);
            let following = self.following.get_or_insert_with(Following::new);
            if following.stands.len() >= self.rooms_max as usize {
                following.stands.remove(0); // It may be brought again what it holds of that room, and knows its position.
            }
            following.stands.push(stands);
        }
        let Some(following) = &mut self.following else { return };
        if let Some(at) = following.again.iter().position(|wanted| wanted.name == *name) {
            let wanted = following.again.swap_remove(at);
            following.waiting.push_back(wanted);
        }
        self.attach_waiting(0);
    }

    /// The session is in a room, and gets on there.
    pub(super) fn stands_no_more(&mut self, room: RoomNumber) {
        if let Some(following) = &mut self.following {
            following.stands.retain(|position| position.room != room);
        }
    }

    /// Its client leaves a room, which is not attached again before its user is added anew.
    pub(super) fn follow_no_more(&mut self, room: RoomNumber) {
        if let Some(following) = &mut self.following {
            following.again.retain(|wanted| wanted.room != room);
            following.waiting.retain(|wanted| wanted.room != room);
            self.attach_waiting(0);
        }
    }

    /// Tries again what was refused for now, if it is time.
    pub(super) fn follow_on(&mut self, now: Now) {
        if let Some(following) = &mut self.following {
            following.retry_at.take_if(|at| *at <= now.mono_ms);
            self.attach_waiting(0);
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
        // One that was attached is among the session's rooms behind this.
        self.attach_waiting(usize::from(refused.is_none()));
    }

    /// Attaches what waits, while there are places for it besides so many that are `taken` and not noted yet.
    pub(super) fn attach_waiting(&mut self, taken: usize) {
        let Some(mut following) = self.following.take() else { return };
        let rooms_max = self.rooms_max as usize;
        if self.rooms.len() + self.joining.len() + taken < rooms_max {
            following.waiting.extend(std::mem::take(&mut following.full));
        }
        while following.under_way < UNDER_WAY_MAX
            && following.retry_at.is_none()
            && let Some(Wanted { request, room, name, from }) = following.waiting.pop_front()
        {
            if self.has(&name) {
                continue;
            }
            // What nobody asked for takes no place of those that its client may go on with.
            let unasked = request == 0 && !following.asked;
            let kept = if unasked { self.left_behind.iter().filter(|behind| behind.0 != room).count() } else { 0 };
            if self.rooms.len() + self.joining.len() + taken + kept >= rooms_max {
                following.full.retain(|wanted| wanted.room != room);
                // What a `Follow` listed beyond that is left out.
                if request == 0 && following.full.len() < rooms_max {
                    following.full.push_back(Wanted { request, room, name, from });
                }
                continue;
            }
            let from = if request == 0 { following.behind_what_is_held(room, from) } else { from };
            following.under_way += 1;
            self.joining.push(Joining { request, resumes: Some(room), name: name.clone(), from, follows: true });
            self.effects.push_back(Effect::Begin(Pending { request, room: Some(room), asks: Asks::Follow }));
            self.effects.push_back(Effect::Resolve { request, resumes: Some(room), name });
        }
        let rests = following.under_way == 0 && following.waiting.is_empty() && !following.listing;
        if rests && let Some(request) = following.request.take() {
            self.answer(request, &Done::default());
        }
        let keeps = !following.again.is_empty() || !following.stands.is_empty() || !following.full.is_empty();
        if !rests || keeps {
            self.following = Some(following);
        }
    }
}
