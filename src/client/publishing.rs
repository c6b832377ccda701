//! The sending half of the client's rooms: publishes, and what becomes of them.

use std::time::Duration;

use parlor_protocol::{
    Advice, Code, Extensions, Nonce,
    frame::PAYLOAD_BYTES_MAX,
    message::{self, PUBLISH_REMOVE, PUBLISH_SILENT, RecordKind},
};

use super::{
    effect::{Effect, Now, Pending, RoomKey, Ticket},
    error::PublishError,
    event::{Acked, Outgoing},
    outbox::Overdue,
    state::State,
};

impl State {
    /// The application sends.
    pub(super) fn handle_send(&mut self, now: Now, key: RoomKey, ticket: Ticket, outgoing: Outgoing) {
        match self.rooms.get_mut(&key) {
            Some(room) if !room.leaving => {
                room.outbox.push(ticket, outgoing, now.unix_us);
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
        let payload_max = self.limits.payload_bytes_max.min(PAYLOAD_BYTES_MAX) as usize;
        let deadline = now.at.saturating_add(self.config.ack_timeout);
        let Some(room) = self.rooms.get_mut(&key) else { return false };
        let number = room.number;
        let next = match again {
            Some(nonce) => room.outbox.entry(nonce),
            None => room.outbox.next(now.at, window),
        };
        let Some(entry) = next else { return false };
        let (nonce, outgoing) = (entry.nonce, entry.outgoing.clone());
        if outgoing.payload.len() > payload_max {
            // The server would close the connection on such a frame.
            let message = format!("{} bytes of payload, at most {payload_max} are allowed", outgoing.payload.len());
            let refused = PublishError::Refused { code: Code::TooLarge, message };
            if let Some((entry, _)) = room.outbox.take(nonce) {
                self.effects.push_back(Effect::Sent(entry.ticket, Err(refused)));
            }
            return true;
        }
        // Rooms that wait for their turn come first, one publish each; this one then joins them.
        let turn = self.starved.is_empty() || self.turn.take() == Some(key);
        if again.is_none() && (self.publishing >= window || !turn) {
            if !std::mem::replace(&mut room.starved, true) {
                self.starved.push_back(key);
            }
            return false;
        }
        let publish = message::Publish {
            room: number,
            nonce,
            kind: outgoing.change.map_or(RecordKind::MESSAGE, |change| change.kind),
            refers_to: outgoing.change.map_or(0, |change| change.refers_to),
            lifetime_ms: None,
            flags: flags(&outgoing),
            content_type: outgoing.content_type,
            payload: &outgoing.payload,
            extensions: Extensions::default(),
        };
        let request = self.ask(&publish, Pending::Publish(key, nonce));
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
        let Some((ticket, request)) = self.rooms.get_mut(&key).and_then(|room| room.outbox.acked(acked.nonce)) else {
            return;
        };
        if let Some(request) = request {
            self.answered(request);
        }
        self.effects.push_back(Effect::Sent(ticket, Ok(acked)));
    }

    pub(super) fn own_is_stored(&mut self, key: RoomKey, record: &message::Deliver<'_>) {
        let Some(room) = self.rooms.get(&key) else { return };
        let (nonce, seq, time) = (record.nonce, record.seq, record.time);
        self.stored(key, Acked { nonce, seq, time, durability: room.durability, duplicate: false });
    }

    pub(super) fn on_publish_refused(&mut self, now: Now, key: RoomKey, nonce: Nonce, error: &message::Error<'_>) {
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
        } else if let Some((entry, _)) = room.outbox.take(nonce) {
            let refused = PublishError::Refused { code: error.code, message: error.message.to_owned() };
            self.effects.push_back(Effect::Sent(entry.ticket, Err(refused)));
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
                Overdue::GiveUp { ticket, request } => {
                    self.answered(request);
                    self.effects.push_back(Effect::Sent(ticket, Err(PublishError::Busy)));
                }
            }
        }
    }
}

/// A publish's flags.
fn flags(outgoing: &Outgoing) -> u32 {
    let removes = outgoing.change.is_some_and(|change| change.remove);
    (if outgoing.silent { PUBLISH_SILENT } else { 0 }) | if removes { PUBLISH_REMOVE } else { 0 }
}
