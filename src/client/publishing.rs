//! The sending half of the client's rooms: publishes, and what becomes of them.

use std::time::Duration;

use parlor_protocol::{
    Advice, Code, Epoch, Nonce, Seq,
    change::with_epoch,
    message::{self, PUBLISH_REMOVE, PUBLISH_SILENT, RecordKind},
};

use super::{
    effect::{Effect, NOBODYS, Now, Pending, RoomKey, Ticket},
    error::PublishError,
    event::{Acked, Outgoing},
    outbox::Overdue,
    room::Room,
    state::State,
};

impl State {
    /// The application sends.
    pub(super) fn handle_send(&mut self, now: Now, key: RoomKey, ticket: Ticket, outgoing: Outgoing) {
        match self.rooms.get_mut(&key) {
            Some(room) if !room.leaving => {
                let mut outgoing = outgoing;
                if let (Some(change), Some(inbound)) = (&mut outgoing.change, &room.inbound) {
                    change.epoch.get_or_insert(inbound.epoch());
                }
                let nonce = room.outbox.push(ticket, outgoing.clone(), now.unix_us, self.keeps);
                if self.keeps {
                    // It goes out once it is kept.
                    self.effects.push_back(Effect::Keep(key, nonce, outgoing));
                }
                self.settle(now, key);
            }
            _ => self.effects.push_back(Effect::Sent(ticket, Err(PublishError::NotJoined))),
        }
    }

    /// How many publishes may be under way over all rooms.
    pub(super) fn window(&self) -> usize {
        (self.limits.unanswered_requests_max / 2).max(1) as usize
    }

    /// Sends the next publish of a room, or one again; returns whether to go on.
    pub(super) fn publish(&mut self, now: Now, key: RoomKey, again: Option<Nonce>) -> bool {
        let window = self.window();
        let payload_max = self.payload_max();
        let deadline = now.at.saturating_add(self.config.ack_timeout);
        let Some(room) = self.rooms.get_mut(&key) else { return false };
        let (number, in_flight) = (room.number, room.outbox.in_flight());
        let next = match again {
            Some(nonce) => room.outbox.entry(nonce),
            None => room.outbox.next(now.at, window),
        };
        let Some(entry) = next else { return false };
        let (nonce, outgoing) = (entry.nonce, entry.outgoing.clone());
        let bytes = outgoing.payload.len();
        let is_long = bytes > payload_max;
        // A long one goes alone: before it everything is answered, behind it everything waits.
        let alone = self.upload.as_ref().is_none_or(|upload| upload.key != key) && !(is_long && in_flight);
        if again.is_none() && !alone {
            return false;
        }
        if let Some(refused) = self.too_large(bytes) {
            // The server would close the connection on such a frame.
            self.refused_for_good(key, nonce, refused);
            return true;
        }
        if is_long {
            return self.upload(now, key, nonce, bytes, again.is_some());
        }
        // Rooms that wait for their turn come first, one publish each; this one then joins them.
        let turn = self.starved.is_empty() || self.turn.take() == Some(key);
        if again.is_none() && (self.publishing >= window || !turn) {
            let newly = |room: &mut Room| !std::mem::replace(&mut room.starved, true);
            if self.rooms.get_mut(&key).is_some_and(newly) {
                self.starved.push_back(key);
            }
            return false;
        }
        let (kind, refers_to) = outgoing.kind();
        let request = with_epoch(outgoing.epoch(), |extensions| {
            let publish = message::Publish {
                room: number,
                nonce,
                kind,
                refers_to,
                lifetime_ms: outgoing.lifetime_ms,
                flags: outgoing.flags(),
                content_type: outgoing.content_type,
                payload: &outgoing.payload,
                extensions,
            };
            self.ask(&publish, Pending::Publish(key, nonce))
        });
        if let Some(room) = self.rooms.get_mut(&key) {
            match again {
                Some(nonce) => room.outbox.sent_again(nonce, request, deadline),
                None => room.outbox.sent(request, deadline),
            }
        }
        true
    }

    /// A send is stored, as its ack or its delivery tells.
    pub(super) fn stored(&mut self, key: RoomKey, acked: Acked) {
        self.end_upload(key, acked.nonce);
        let Some((ticket, request)) = self.rooms.get_mut(&key).and_then(|room| room.outbox.acked(acked.nonce)) else {
            return;
        };
        if let Some(request) = request {
            self.answered(request);
        }
        self.effects.push_back(Effect::Sent(ticket, Ok(acked)));
        self.forget(key, acked.nonce);
    }

    pub(super) fn own_is_stored(&mut self, key: RoomKey, record: &message::Deliver<'_>) {
        let Some(room) = self.rooms.get(&key) else { return };
        let (nonce, seq, time) = (record.nonce, record.seq, record.time);
        let (epoch, durability) = (self.epoch_of(key), room.durability);
        self.stored(key, Acked { nonce, epoch, seq, time, durability, duplicate: false });
    }

    pub(super) fn on_publish_refused(&mut self, now: Now, key: RoomKey, nonce: Nonce, error: &message::Error<'_>) {
        self.end_upload(key, nonce);
        let Some(room) = self.rooms.get_mut(&key) else { return };
        if error.code.advice() == Advice::RetryLater {
            let retry_after = Duration::from_millis(u64::from(error.retry_after_ms));
            let dropped = room.outbox.refused(nonce, now.at, retry_after, &mut self.rng);
            self.stats.refusals += 1;
            self.stats.rate_limited += u64::from(error.code == Code::RateLimited);
            // Their own refusals are under way and mean nothing any more; their acks are known by nonce.
            for request in dropped {
                self.answered(request);
            }
        } else {
            let refused = PublishError::Refused { code: error.code, message: error.message.to_owned() };
            self.refused_for_good(key, nonce, refused);
        }
    }

    fn refused_for_good(&mut self, key: RoomKey, nonce: Nonce, why: PublishError) {
        if let Some((entry, _)) = self.rooms.get_mut(&key).and_then(|room| room.outbox.take(nonce)) {
            if entry.ticket == NOBODYS {
                tracing::warn!(nonce, error = %why, "a message of an earlier run is refused");
            }
            self.effects.push_back(Effect::Sent(entry.ticket, Err(why)));
            self.forget(key, nonce);
        }
    }

    fn forget(&mut self, key: RoomKey, nonce: Nonce) {
        if self.keeps {
            self.effects.push_back(Effect::Forget(key, nonce));
        }
    }

    /// Messages of an earlier run of this device, which were not acked then. Behind [`handle_join`](Self::handle_join), or
    /// in answer to [`Effect::Attached`].
    pub(super) fn handle_restored(&mut self, now: Now, key: RoomKey, messages: Vec<(Nonce, Outgoing)>) {
        if let Some(room) = self.rooms.get_mut(&key).filter(|_| !messages.is_empty()) {
            messages.into_iter().for_each(|(nonce, outgoing)| room.outbox.restore(nonce, outgoing));
            self.settle(now, key);
        }
    }

    /// A message that never went out has another nonce now: it is kept under that, and no longer under the other.
    pub(super) fn rekeep(&mut self, key: RoomKey, from: Nonce, to: Nonce) {
        let Some(room) = self.rooms.get_mut(&key) else { return };
        room.outbox.not_kept(to);
        self.effects.push_back(Effect::Renumber(key, from, to));
    }

    /// A message is kept, and may go out. Under another nonce, if that was changed meanwhile.
    pub(super) fn handle_kept(&mut self, now: Now, key: RoomKey, nonce: Nonce) {
        if let Some(room) = self.rooms.get_mut(&key) {
            room.outbox.kept(nonce);
            self.settle(now, key);
        }
    }

    /// A message that is done with is still kept.
    pub(super) fn handle_not_forgotten(&mut self) {
        self.stats.outbox_errors += 1;
    }

    /// A message cannot be kept, so it does not go out.
    pub(super) fn handle_not_kept(&mut self, now: Now, key: RoomKey, nonce: Nonce, why: String) {
        if let Some((entry, _)) = self.rooms.get_mut(&key).and_then(|room| room.outbox.take(nonce)) {
            self.effects.push_back(Effect::Sent(entry.ticket, Err(PublishError::NotKept(why))));
            self.settle(now, key);
        }
    }

    /// Acks of this room that did not come in time: asks again, or gives up.
    pub(super) fn on_overdue(&mut self, now: Now, key: RoomKey) {
        let retries = self.config.ack_retries;
        while let Some(overdue) = self.rooms.get_mut(&key).and_then(|room| room.outbox.overdue(now.at, retries)) {
            match overdue {
                Overdue::Resend { nonce, request } => {
                    self.answered(request);
                    self.stats.resends += 1;
                    self.publish(now, key, Some(nonce));
                }
                Overdue::Rewound { requests } => {
                    for request in requests {
                        self.answered(request);
                    }
                    self.stats.resends += 1;
                }
                Overdue::Stalled { nonce, tickets, requests } => {
                    self.end_upload(key, nonce);
                    for request in requests {
                        self.answered(request);
                    }
                    self.effects.extend(tickets.into_iter().map(Effect::Stalled));
                }
            }
        }
    }
}

impl Outgoing {
    /// What kind of record it is, and what it refers to.
    pub(super) fn kind(&self) -> (RecordKind, Seq) {
        self.change.map_or((RecordKind::MESSAGE, 0), |change| (change.kind, change.refers_to))
    }

    /// In which epoch what it refers to stands.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.change.and_then(|change| change.epoch)
    }

    /// Its flags.
    pub(super) fn flags(&self) -> u32 {
        let removes = self.change.is_some_and(|change| change.remove);
        (if self.silent { PUBLISH_SILENT } else { 0 }) | if removes { PUBLISH_REMOVE } else { 0 }
    }
}
