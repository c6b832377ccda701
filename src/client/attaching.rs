//! What becomes of the rooms when a connection ends and another begins, and how they are attached.
//!
//! A session that is taken up again goes on with the rooms that one `Resume` names. Each is answered by itself; until then it
//! counts as not attached, so that nothing is published or fetched there. What the server no longer has is joined by its
//! name. In a new session all rooms are.

use std::time::Duration;

use parlor_protocol::{
    Advice, Code, Extensions, List, Nonce,
    message::{self, JoinFrom, ROOMS_PER_SESSION_MAX},
};

use super::{
    effect::{Effect, Now, Pending, RoomKey},
    error::RequestError,
    event::{Event, RoomInfo},
    inbound::Inbound,
    reading::Standing,
    room::Stage,
    rooms::RETRY_MIN,
    state::State,
};

/// How long a room is waited for that the server says it attaches of itself, before it is joined by its name.
const COMES_WITHIN: Duration = Duration::from_secs(5);

impl State {
    /// The connection is lost. No room is attached until the next one says so.
    pub(super) fn on_connection_lost(&mut self, now: Now, reason: &str) {
        self.publishing = 0;
        self.upload = None;
        self.uploads_waiting.clear();
        self.asking = 0;
        self.resuming = None;
        self.follow.on_connection_lost();
        self.watching.on_connection_lost();
        let mut pending: Vec<_> = std::mem::take(&mut self.requests).into_iter().collect();
        // What is asked again is asked in its old order.
        pending.sort_unstable_by_key(|(request, _)| *request);
        for (_, pending) in pending {
            match pending {
                Pending::Ask(ask) => self.on_ask_lost(ask),
                Pending::Mark(key) => {
                    self.rooms.entry(key).and_modify(|room| room.marker.put_off(None));
                }
                Pending::Join(_)
                | Pending::Leave(_)
                | Pending::Publish(..)
                | Pending::Part(..)
                | Pending::Fill(_)
                | Pending::Watch(_) => {}
            }
        }
        for (key, room) in &mut self.rooms {
            room.outbox.rewind();
            room.watch.on_connection_lost();
            let position = room.inbound.as_ref().map(Inbound::position);
            match (room.stage, position) {
                // The next connection does not ask for it again, whether or not the server has read the leave.
                (Stage::Leaving, Some((_, cursor))) => {
                    room.stage = Stage::Left(cursor);
                    self.effects.extend(room.leave.take().map(|ticket| Effect::Left(ticket, cursor)));
                }
                (Stage::Left(_), _) => {}
                (stage, _) => {
                    room.retry_at.take_if(|_| stage == Stage::Coming);
                    room.stage = Stage::Out;
                }
            }
            if let Some(inbound) = &mut room.inbound {
                inbound.on_lost();
                if !room.down {
                    room.down = true;
                    let event = Event::Disconnected { reason: reason.to_owned() };
                    self.effects.push_back(Effect::Event(*key, event, inbound.position()));
                }
            }
        }
        self.settle_all(now);
    }

    /// The session was taken up again. Its rooms go on behind their positions, once the server says so of each. A room whose
    /// join was under way for the first time has no position, and is joined anew.
    pub(super) fn on_resumed(&mut self) {
        let mut positions = Vec::new();
        self.numbers.retain(|number, key| {
            let Some(room) = self.rooms.get_mut(key) else { return false };
            let Some(inbound) = room.inbound.as_ref().filter(|_| room.stage == Stage::Out) else { return false };
            if positions.len() == ROOMS_PER_SESSION_MAX {
                return false;
            }
            room.stage = Stage::Resuming;
            let (epoch, seq) = inbound.position();
            positions.push(message::Position { room: *number, epoch, seq });
            true
        });
        // Also with no room at all: those that the session still has, and nobody wants, are left by that.
        let resume = message::Resume { positions: List(positions), extensions: Extensions::default() };
        self.resuming = Some(self.write(|request, out| parlor_protocol::encode(request, &resume, out)));
    }

    /// The session is a new one: every room has to be joined again.
    pub(super) fn on_new_session(&mut self) {
        self.numbers.clear();
    }

    /// The server attached a room: one that was joined, or one of a session that was taken up.
    pub(super) fn on_joined(&mut self, now: Now, request: u32, joined: &message::Joined<'_>) {
        let key = match self.answered(request) {
            Some(Pending::Join(key)) => key,
            Some(_) => return,
            None => match self.resumes(request, joined.room) {
                Some(key) => key,
                None => return,
            },
        };
        self.attach(now, key, RoomInfo::of(joined), joined.newest_nonce);
    }

    /// The room that this answer to a `Resume` is about.
    fn resumes(&self, request: u32, number: parlor_protocol::RoomNumber) -> Option<RoomKey> {
        let key = self.numbers.get(&number).copied().filter(|_| self.resuming == Some(request))?;
        self.rooms.get(&key).is_some_and(|room| room.stage == Stage::Resuming).then_some(key)
    }

    /// A room is attached, for the first time or again.
    pub(super) fn attach(&mut self, now: Now, key: RoomKey, info: RoomInfo, newest_nonce: Option<Nonce>) {
        let Some(room) = self.rooms.get_mut(&key) else { return };
        room.retry_at.take_if(|_| room.stage == Stage::Coming);
        (room.stage, room.number, room.durability) = (Stage::In, info.number, info.durability);
        self.numbers.insert(info.number, key);
        let changes = room.outbox.on_newest_nonce(newest_nonce);
        if self.keeps {
            for (from, to) in changes {
                self.rekeep(key, from, to);
            }
        }
        let Some(room) = self.rooms.get_mut(&key) else { return };
        let (from, first) = (room.from, room.inbound.is_none());
        let inbound = room.inbound.get_or_insert_with(|| match from {
            JoinFrom::Position(epoch, seq) => Inbound::new(epoch, seq),
            JoinFrom::Tail | JoinFrom::Newest(_) | JoinFrom::Seq(_) => Inbound::new(info.epoch, info.cursor),
        });
        let turned = (inbound.position().0 != info.epoch).then_some(info.cursor);
        inbound.on_joined(info.epoch, info.cursor);
        let position = inbound.position();
        let moved = room.marker.on_joined(info.read, turned);
        if let Some(ticket) = room.join.take() {
            self.effects.push_back(Effect::Joined(ticket, key, info));
        } else if first {
            self.effects.push_back(Effect::Attached(key, room.name.clone(), info));
        } else if moved {
            let standing = Standing { read: info.read, unread: info.unread };
            self.effects.push_back(Effect::Marked(key, standing));
        }
        if std::mem::take(&mut room.down) {
            self.effects.push_back(Effect::Event(key, Event::Reconnected, position));
        }
        self.settle(now, key);
    }

    /// A room is not attached, or no longer.
    pub(super) fn on_detached(&mut self, now: Now, request: u32, detached: &message::Detached<'_>) {
        let code = detached.code;
        if request != 0 {
            // About a room that was listed for a session that was taken up.
            let Some(key) = self.resumes(request, detached.room) else { return };
            if code == Code::AlreadyJoined {
                return self.await_attached(now, key);
            }
            let later = code.advice() == Advice::RetryLater;
            if later || matches!(code, Code::NotJoined | Code::TooManyRooms) {
                self.numbers.remove(&detached.room);
                let wait = RETRY_MIN + self.rng.up_to(RETRY_MIN);
                self.rooms.entry(key).and_modify(|room| {
                    room.stage = Stage::Out;
                    room.retry_at = later.then(|| now.at.saturating_add(wait));
                });
                return self.settle(now, key);
            }
        }
        self.on_put_out(now, detached);
    }

    /// The server attaches a room of itself, as the client follows its user: its `Attached` has yet to come.
    pub(super) fn await_attached(&mut self, now: Now, key: RoomKey) {
        let until = now.at.saturating_add(COMES_WITHIN);
        self.rooms.entry(key).and_modify(|room| (room.stage, room.retry_at) = (Stage::Coming, Some(until)));
        self.settle(now, key);
    }

    /// The server put the session out of a room: what is missing is told as a gap, and nothing is tried again.
    fn on_put_out(&mut self, now: Now, detached: &message::Detached<'_>) {
        let Some(key) = self.numbers.get(&detached.room).copied() else { return };
        let (code, message) = (detached.code, detached.message);
        self.receive(key, |inbound, sink| inbound.give_up(detached.cursor, sink));
        let refused = RequestError::Refused { code, message: message.to_owned(), retry_after: Duration::ZERO };
        self.close_room(key, code, message, refused);
        self.settle_all_out(now);
    }

    /// A `Resume` was refused as a whole: its rooms are joined by their names.
    pub(super) fn on_resume_refused(&mut self, now: Now) {
        self.resuming = None;
        for room in self.rooms.values_mut().filter(|room| room.stage == Stage::Resuming) {
            room.stage = Stage::Out;
        }
        self.settle_all_out(now);
    }
}
