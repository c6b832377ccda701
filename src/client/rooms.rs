//! The rooms' half of the client's state: joins, leaves, and what comes back. `attaching.rs` says what becomes of rooms when
//! connections end and begin.
//!
//! Inputs only note what is wanted; [`settle`](State::settle) compares that with what the connection allows and sends
//! what is due. So a reconnect is nothing special: everything is wanted again, and settled once it may be.

use std::time::Duration;

use parlor_protocol::{
    Advice, Code, Epoch, Extensions, Name, Seq,
    message::{self, Direction, JoinFrom},
};

use super::{
    effect::{Effect, Now, Pending, RoomKey, Ticket},
    error::{PublishError, RequestError},
    event::{Acked, Event},
    inbound::Inbound,
    room::{Room, Stage},
    state::State,
    wire::Incoming,
};

/// The shortest wait before a refused join, leave or fill is tried again.
pub(super) const RETRY_MIN: Duration = Duration::from_millis(50);

impl State {
    /// The application wants to join a room, which is `key` from here on.
    pub(super) fn handle_join(&mut self, now: Now, key: RoomKey, ticket: Ticket, name: Name, from: JoinFrom) {
        if self.rooms.values().any(|room| room.name == name && !room.leaving) {
            self.effects.push_back(Effect::Refused(ticket, RequestError::AlreadyJoined));
            self.effects.push_back(Effect::EventsEnd(key));
            return;
        }
        self.follow.wants(&name);
        self.rooms.insert(key, Room::new(name, from, ticket));
        self.settle(now, key);
    }

    /// The application wants to leave a room, or (without a ticket) has dropped all that it had of it.
    pub(super) fn handle_leave(&mut self, now: Now, key: RoomKey, ticket: Option<Ticket>) {
        match self.rooms.get_mut(&key) {
            Some(room) if !room.leaving => {
                room.leaving = true;
                room.leave = ticket;
                if self.config.follow.is_some() {
                    self.follow.left(&room.name);
                }
                self.settle(now, key);
            }
            _ => self.effects.extend(ticket.map(|ticket| Effect::Refused(ticket, RequestError::NotJoined))),
        }
    }

    /// A room's epoch and position, once it is joined.
    pub(super) fn position(&self, key: RoomKey) -> Option<(Epoch, Seq)> {
        self.rooms.get(&key)?.inbound.as_ref().map(Inbound::position)
    }

    /// The epoch that the server's words about a room are of.
    pub(super) fn epoch_of(&self, key: RoomKey) -> Epoch {
        self.rooms.get(&key).and_then(|room| room.inbound.as_ref()).map_or_else(Epoch::default, Inbound::epoch)
    }

    /// A gap may begin another epoch.
    fn on_turn(&mut self, key: RoomKey, gap: &super::event::Gap) {
        let turns = self.epoch_of(key) != gap.epoch;
        if let Some(room) = self.rooms.get_mut(&key).filter(|_| turns) {
            room.marker.on_turned(gap.to);
        }
    }

    /// A frame about a room.
    pub(super) fn on_room_frame(&mut self, now: Now, request: u32, frame: Incoming<'_>) {
        if !matches!(frame, Incoming::Error(_)) && matches!(self.requests.get(&request), Some(Pending::Ask(_))) {
            return self.on_answer(now, request, &frame);
        }
        let result = match frame {
            Incoming::Deliver(record) => self.on_deliver(now, &record),
            Incoming::Page(page) => self.on_page(now, request, &page),
            Incoming::Ack(ack) => {
                self.answered(request);
                let acked = Acked {
                    nonce: ack.nonce,
                    epoch: Epoch::default(),
                    seq: ack.seq,
                    time: ack.time,
                    durability: ack.durability,
                    duplicate: ack.duplicate,
                };
                if let Some(key) = self.numbers.get(&ack.room).copied() {
                    let acked = Acked { epoch: self.epoch_of(key), ..acked };
                    self.stored(key, acked);
                    self.settle(now, key);
                }
                Ok(())
            }
            Incoming::PartTaken(taken) => {
                self.on_part_taken(now, request, &taken);
                Ok(())
            }
            Incoming::Gap(gap) => {
                if let Some(key) = self.numbers.get(&gap.room).copied() {
                    let gap = super::event::Gap { epoch: gap.epoch, from: gap.from, to: gap.to, why: gap.why };
                    self.on_turn(key, &gap);
                    self.receive(key, |inbound, sink| inbound.on_gap(gap, sink));
                    self.settle(now, key);
                }
                Ok(())
            }
            Incoming::Joined(joined) => {
                self.on_joined(now, request, &joined);
                Ok(())
            }
            Incoming::Left(left) => {
                self.on_left(now, request, left.cursor);
                Ok(())
            }
            Incoming::Attached(attached) => self.on_attached(now, request, &attached),
            Incoming::Detached(detached) => {
                self.on_detached(now, request, &detached);
                Ok(())
            }
            Incoming::Error(error) => {
                self.on_error(now, request, &error);
                Ok(())
            }
            Incoming::Marked(marked) => {
                self.on_marked(now, request, &marked);
                Ok(())
            }
            Incoming::Signaled(signaled) => self.on_signaled(&signaled),
            Incoming::Presence(presence) => self.on_presence(request, &presence),
            Incoming::RoomPresence(presence) => self.on_room_presence(request, &presence),
            Incoming::Done if self.follow.is_answered_by(request) => {
                self.on_followed(now);
                Ok(())
            }
            // Answers to what nobody asks any longer.
            Incoming::Readers(_)
            | Incoming::Done
            | Incoming::RoomInfo(_)
            | Incoming::Members(_)
            | Incoming::Rooms(_)
            | Incoming::Welcome(_)
            | Incoming::Close(_)
            | Incoming::HeartbeatAck(_) => Ok(()),
        };
        if let Err(error) = result {
            self.handle_lost(now, error.to_string(), true);
        }
    }

    /// The client is over.
    pub(super) fn end_rooms(&mut self, code: Code, message: &str) {
        let closed = || RequestError::Closed { code, message: message.to_owned() };
        for (_, pending) in std::mem::take(&mut self.requests) {
            if let Pending::Ask(ask) = pending {
                self.effects.push_back(Effect::Refused(ask.ticket, closed()));
            }
        }
        let asks = std::mem::take(&mut self.asks);
        self.effects.extend(asks.into_iter().map(|ask| Effect::Refused(ask.ticket, closed())));
        for key in self.rooms.keys().copied().collect::<Vec<_>>() {
            self.close_room(key, code, message, closed());
        }
        self.numbers.clear();
        self.timers.clear();
    }

    /// Something of this room is due.
    pub(super) fn on_room_timeout(&mut self, now: Now, key: RoomKey) {
        self.on_overdue(now, key);
        if let Some(room) = self.rooms.get_mut(&key) {
            room.outbox.release(now.at);
            room.marker.release(now.at);
            room.retry_at = room.retry_at.filter(|at| now.at < *at);
        }
        self.settle(now, key);
    }

    /// Sends what is due for all rooms.
    pub(super) fn settle_all(&mut self, now: Now) {
        for key in self.rooms.keys().copied().collect::<Vec<_>>() {
            self.settle(now, key);
        }
    }

    /// Sends what is due for this room, and for those that waited for it, and sets its timer.
    pub(super) fn settle(&mut self, now: Now, key: RoomKey) {
        self.settle_one(now, key);
        while let Some(key) = self.next_upload() {
            self.settle_one(now, key);
        }
        while self.publishing < self.window()
            && let Some(key) = self.starved.pop_front()
        {
            if let Some(room) = self.rooms.get_mut(&key) {
                room.starved = false;
                self.turn = Some(key);
                self.settle_one(now, key);
                self.turn = None;
            }
        }
    }

    fn settle_one(&mut self, now: Now, key: RoomKey) {
        if self.is_online() {
            let Some(room) = self.rooms.get(&key) else { return };
            match room.stage {
                Stage::Out | Stage::Coming if room.retry_at.is_none() => self.send_join(key),
                Stage::In => self.settle_joined(now, key),
                Stage::Left(cursor) => self.settle_left(now, key, cursor),
                Stage::Out | Stage::Joining | Stage::Resuming | Stage::Coming | Stage::Following | Stage::Leaving => {}
            }
        } else if let Some(Stage::Left(cursor)) = self.rooms.get(&key).map(|room| room.stage) {
            self.settle_left(now, key, cursor);
        }
        self.arm(key);
    }

    fn arm(&mut self, key: RoomKey) {
        let Some(room) = self.rooms.get_mut(&key) else { return };
        let timer = room.timeout();
        if timer != room.timer {
            if let Some(old) = std::mem::replace(&mut room.timer, timer) {
                self.timers.remove(&(old, key));
            }
            self.timers.extend(timer.map(|at| (at, key)));
        }
    }

    fn send_join(&mut self, key: RoomKey) {
        let Some(room) = self.rooms.get_mut(&key) else { return };
        if room.leaving && room.inbound.is_none() {
            // Never joined and not wanted any longer.
            self.effects.extend(room.join.take().map(|ticket| Effect::Refused(ticket, RequestError::NotJoined)));
            return self.remove(key);
        }
        let (name, from) = (room.name.clone(), room.join_from());
        if self.rooms.range(..key).any(|(_, other)| other.name == name) {
            return; // That one is being left; its end settles this one.
        }
        if let Some(room) = self.rooms.get_mut(&key) {
            room.stage = Stage::Joining;
        }
        self.ask(&message::Join { room: &name, from, extensions: Extensions::default() }, Pending::Join(key));
    }

    fn settle_joined(&mut self, now: Now, key: RoomKey) {
        let Some(room) = self.rooms.get_mut(&key) else { return };
        let number = room.number;
        if room.retry_at.is_none()
            && let Some(inbound) = &mut room.inbound
            && let Some(start) = inbound.wants_fill()
        {
            inbound.on_fill_sent();
            let (start, direction) = (Some(start), Direction::Forward);
            let fetch = message::Fetch { room: number, start, direction, limit: 0, extensions: Extensions::default() };
            self.ask(&fetch, Pending::Fill(key));
        }
        self.settle_asks_of(key);
        self.settle_mark(now, key, false);
        self.settle_watch(now, key);
        while self.publish(now, key, None) {}
        let Some(room) = self.rooms.get_mut(&key) else { return };
        if room.leaving && room.outbox.is_stalled() {
            // Their senders know. What is kept outside goes out at the next join.
            let left = room.outbox.drain().map(|ticket| Effect::Sent(ticket, Err(PublishError::Busy)));
            self.effects.extend(left);
            self.end_uploads_of(key);
        }
        let Some(room) = self.rooms.get(&key) else { return };
        if room.retry_at.is_none() && room.may_leave() && !self.is_asking(key) {
            let Some(room) = self.rooms.get_mut(&key) else { return };
            room.stage = Stage::Leaving;
            self.ask(&message::Leave { room: number, extensions: Extensions::default() }, Pending::Leave(key));
        }
    }

    fn on_left(&mut self, now: Now, request: u32, cursor: Seq) {
        let Some(Pending::Leave(key)) = self.answered(request) else { return };
        let Some(room) = self.rooms.get_mut(&key) else { return };
        room.stage = Stage::Left(cursor);
        self.effects.extend(room.leave.take().map(|ticket| Effect::Left(ticket, cursor)));
        self.settle(now, key);
    }

    fn settle_left(&mut self, now: Now, key: RoomKey, cursor: Seq) {
        let Some(inbound) = self.rooms.get(&key).and_then(|room| room.inbound.as_ref()) else { return };
        if self.is_online() && inbound.is_filling() {
            return;
        }
        // Nothing can be fetched from a room that was left: what is missing is told as a gap, never kept quiet.
        self.receive(key, |inbound, sink| inbound.give_up(cursor, sink));
        self.effects.push_back(Effect::EventsEnd(key));
        self.remove(key);
        self.settle_all_out(now);
    }

    /// Rooms that waited for one of the same name to be left.
    pub(super) fn settle_all_out(&mut self, now: Now) {
        let out = self.rooms.iter().filter(|(_, room)| room.stage == Stage::Out).map(|(key, _)| *key);
        for key in out.collect::<Vec<_>>() {
            self.settle(now, key);
        }
    }

    fn on_error(&mut self, now: Now, request: u32, error: &message::Error<'_>) {
        if self.resuming == Some(request) {
            return self.on_resume_refused(now);
        }
        if self.follow.is_answered_by(request) {
            return self.on_follow_refused(now, error);
        }
        if self.watching.is_answered_by(request) {
            return self.on_watch_refused(now, request, error);
        }
        let Some(pending) = self.answered(request) else { return };
        let retry_after = Duration::from_millis(u64::from(error.retry_after_ms));
        let later = error.code.advice() == Advice::RetryLater;
        let refused = || RequestError::Refused { code: error.code, message: error.message.to_owned(), retry_after };
        let retry_at = now.at.saturating_add(retry_after.max(RETRY_MIN) + self.rng.up_to(RETRY_MIN));
        match pending {
            Pending::Publish(key, nonce) | Pending::Part(key, nonce) => {
                self.on_publish_refused(now, key, nonce, error);
                self.settle(now, key);
            }
            Pending::Ask(ask) => self.on_ask_refused(now, &ask, error),
            Pending::Mark(key) => self.on_mark_refused(now, key, error),
            Pending::Watch(key) => self.on_room_watch_refused(now, key, error),
            // The server attached it of itself meanwhile.
            Pending::Join(key) if self.rooms.get(&key).is_some_and(|room| room.stage == Stage::In) => {}
            Pending::Join(key) => match self.rooms.get_mut(&key) {
                // The application asked for it and decides.
                Some(room) if room.join.is_some() => {
                    self.effects.extend(room.join.take().map(|ticket| Effect::Refused(ticket, refused())));
                    self.effects.push_back(Effect::EventsEnd(key));
                    self.remove(key);
                    self.settle_all_out(now);
                }
                Some(room) if later => {
                    (room.stage, room.retry_at) = (Stage::Out, Some(retry_at));
                    self.settle(now, key);
                }
                Some(room) if error.code == Code::AlreadyJoined && room.inbound.is_some() => {
                    self.await_attached(now, key);
                }
                _ => {
                    self.close_room(key, error.code, error.message, refused());
                    self.settle_all_out(now);
                }
            },
            Pending::Leave(key) => match self.rooms.get_mut(&key) {
                Some(room) if later => {
                    (room.stage, room.retry_at) = (Stage::In, Some(retry_at));
                    self.settle(now, key);
                }
                _ => {
                    self.close_room(key, error.code, error.message, refused());
                    self.settle_all_out(now);
                }
            },
            Pending::Fill(key) => {
                if later && self.rooms.get(&key).is_some_and(|room| room.stage == Stage::In) {
                    self.receive(key, |inbound, _| inbound.on_fill_put_off());
                    self.rooms.entry(key).and_modify(|room| room.retry_at = Some(retry_at));
                } else {
                    self.receive(key, |inbound, sink| inbound.on_fill_refused(sink));
                }
                self.settle(now, key);
            }
        }
    }

    /// Ends a room with a reason: everything that it still waits for fails.
    pub(super) fn close_room(&mut self, key: RoomKey, code: Code, message: &str, error: RequestError) {
        let Some(room) = self.rooms.get_mut(&key) else { return };
        let tickets = room.asks.drain(..).map(|ask| ask.ticket).chain(room.join.take()).chain(room.leave.take());
        self.effects.extend(tickets.map(|ticket| Effect::Refused(ticket, error.clone())));
        let closed = PublishError::Closed { code, message: message.to_owned() };
        self.effects.extend(room.outbox.drain().map(|ticket| Effect::Sent(ticket, Err(closed.clone()))));
        if let Some(inbound) = &room.inbound {
            let event = Event::Closed { code, message: message.to_owned() };
            self.effects.push_back(Effect::Event(key, event, inbound.position()));
        }
        self.effects.push_back(Effect::EventsEnd(key));
        self.remove(key);
    }

    fn remove(&mut self, key: RoomKey) {
        self.end_uploads_of(key);
        let Some(room) = self.rooms.remove(&key) else { return };
        if let Some(at) = room.timer {
            self.timers.remove(&(at, key));
        }
        if self.numbers.get(&room.number) == Some(&key) {
            self.numbers.remove(&room.number);
        }
    }
}
