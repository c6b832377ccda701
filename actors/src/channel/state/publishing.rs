//! From a publish to its ack: accepted, appended, committed.

use bytes::Bytes;
use parlor_protocol::{
    Code, Extensions, Seq, UnixMillis,
    message::{ContentType, Deliver, Durability, RecordKind, TAG_REMOVES, TAG_SILENT},
};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    BUSY_RETRY_MS, Chunk, Effect, RECORD_OVERHEAD_BYTES, RECORDS_PER_TURN_MAX, State, Turn, Waiting, changing::Prepared,
};
use crate::{
    channel::{change::Change, window::Known},
    members::rights::Act,
    message::{Batch, FromChannel, Publish, Stored},
    port::{Answer, AppendRecord, Now, Place, StoreError},
    rates::Pace,
};

impl State {
    pub(super) fn on_publish(&mut self, now: Now, publish: Publish) {
        if self.parked.has(&publish.device) {
            return self.park_behind(now, publish);
        }
        let (conn, request, nonce) = (publish.conn, publish.request, publish.nonce);
        let hold_until = now.mono_ms + self.limits.hold_back_ms;
        let hash = content_hash(&publish);
        let Some(device) = self.devices.device(&publish.device) else {
            // Its session left meanwhile.
            return self.refuse(conn, request, Code::NotJoined, 0, "the session has left this room");
        };
        let (Some(window), Some(rights)) = (&device.window, device.rights) else {
            // A rebuilt room, or the load failed before. What comes when it is loaded must not overtake this one.
            device.hold(nonce, now.mono_ms, hold_until);
            if self.devices.wants_load(&publish.device) {
                self.effects.push_back(Effect::LoadAnswers(publish.device.clone()));
            }
            self.want_rights(&publish.device);
            return self.refuse(conn, request, Code::RoomUnavailable, BUSY_RETRY_MS, "the room is being rebuilt");
        };
        let known = window.look_up(nonce, hash);
        let allowed = rights.may(self.people.kind, Act::Speak);
        let payload_max = self.options.payload_bytes_max;
        let too_large = payload_max > 0 && publish.payload.len() > payload_max as usize;
        if known != Known::New || !allowed || too_large {
            // It is answered for good, and does not come again.
            device.release(nonce);
        }
        match known {
            Known::New if allowed => {}
            Known::New => {
                return self.refuse(conn, request, Code::Forbidden, 0, "the user may not publish in this room");
            }
            Known::Repeat(Answer { seq, time, .. }) => {
                let stored = Stored { conn, request, nonce, seq, time, duplicate: true };
                return self.repeat(stored);
            }
            Known::Conflict => {
                return self.refuse(conn, request, Code::NonceConflict, 0, "this nonce was used for other content");
            }
            Known::TooOld => {
                return self.refuse(
                    conn,
                    request,
                    Code::NonceTooOld,
                    0,
                    "a nonce must be above all that were used before",
                );
            }
        }
        // Only now: a repeat of what was stored is answered though the room takes less since.
        if too_large {
            return self.refuse(conn, request, Code::TooLarge, 0, "the payload is longer than this room takes");
        }
        // An earlier send was refused for now: this one must not overtake it.
        if let Some((held, until)) = device.held
            && held < nonce
            && now.mono_ms < until
        {
            return self.refuse(
                conn,
                request,
                Code::HeldBack,
                BUSY_RETRY_MS,
                "an earlier send was refused: send again in order",
            );
        }
        // Not if one before the one that is held for came late: what waited for a record or for the device's answers.
        device.held.take_if(|(held, _)| *held <= nonce);
        if self.failed.is_some() {
            return self.refuse(conn, request, Code::StoreUnavailable, 1_000, "the store takes no more writes");
        }
        let change = match self.prepare(&publish, now) {
            Prepared::Message => None,
            Prepared::Change(change) => Some(change),
            Prepared::Read(seq) => return self.park(now, publish, seq),
            Prepared::Refused((code, message)) => return self.refuse(conn, request, code, 0, message),
        };
        let rewrites = change.as_ref().map_or(0, |change| change.bytes(&publish));
        let cost = publish.payload.len() + RECORD_OVERHEAD_BYTES + rewrites;
        let place = match self.options.durability {
            Durability::Memory if !self.takes(cost) => {
                return self.refuse_for_now(
                    now,
                    &publish,
                    "the newest records of other rooms take all memory for them",
                );
            }
            Durability::Memory => self.budget.none(),
            Durability::Buffered | Durability::Synced => match self.budget.take(cost) {
                Some(place) => place,
                None => return self.refuse_for_now(now, &publish, "the store's queue is full"),
            },
        };
        if let Err((retry_after_ms, message)) = self.take_token(now, &publish) {
            // As long as told, and then as after any refusal for now.
            let until = hold_until + u64::from(retry_after_ms);
            if let Some(device) = self.devices.device(&publish.device) {
                device.hold(nonce, now.mono_ms, until);
            }
            return self.refuse(conn, request, Code::RateLimited, retry_after_ms, message);
        }
        self.accept(now, publish, hash, place, change);
    }

    /// Takes what a new message costs: a token of its room and one of its user, or neither and says when to come again.
    fn take_token(&mut self, now: Now, publish: &Publish) -> Result<(), (u32, &'static str)> {
        let pace = Pace::of_room(self.options.messages_per_second_max);
        let room_is_full = |ms| (ms, "the room takes no more messages a second");
        self.bucket.look(pace, now.mono_ms).map_err(room_is_full)?;
        let rate = self.tiers.get(publish.tier).send;
        let taken = self.rates.take(&publish.device.user, rate, now.mono_ms);
        taken.map_err(|ms| (ms, "the user sends faster than allowed"))?;
        self.bucket.take(pace, now.mono_ms).map_err(room_is_full)
    }

    /// Gives the message its seq. From here on only the store's failure can undo it.
    pub(super) fn accept(
        &mut self,
        now: Now,
        publish: Publish,
        content_hash: u64,
        place: Place,
        change: Option<Change>,
    ) {
        let lifetime_ms = self.lifetime_ms(&publish);
        let (seq, time, nonce) = (self.given + 1, self.time.max(now.unix_ms), publish.nonce);
        let own = if lifetime_ms == 0 { 0 } else { time.saturating_add(lifetime_ms) };
        // A change lives as long as what it changes: not longer, and not shorter, or a client that was away would never hear
        // that something was recalled.
        let expires = change.as_ref().map_or(own, |change| change.expires);
        let count = self.given_count + u64::from(publish.is_countable());
        let answer = Answer { nonce, seq, time, content_hash, count };
        let Some(slot) = self.devices.accept(&publish.device, answer, self.limits.answers_per_device_max) else {
            debug_assert!(false, "on_publish found the device with its window");
            return;
        };
        self.record(&publish, answer, slot, expires, place, change.as_ref());
        let Publish { conn, request, device, .. } = publish;
        self.waiting
            .push_back(Waiting { stored: Stored { conn, request, nonce, seq, time, duplicate: false }, device });
        self.turn_goes_on();
    }

    /// Puts a record into the turn, under the seq and the time of its answer.
    pub(super) fn record(
        &mut self,
        publish: &Publish,
        answer: Answer,
        slot: u8,
        expires: UnixMillis,
        place: Place,
        change: Option<&Change>,
    ) {
        let Publish { ref device, nonce, kind, refers_to, .. } = *publish;
        let Answer { seq, time, .. } = answer;
        (self.given, self.time) = (seq, time);
        self.given_count = answer.count;
        let deliver = Deliver {
            room: self.room,
            seq,
            time,
            sender: &device.user,
            device_tag: device.tag,
            nonce,
            kind,
            refers_to,
            expires,
            count: self.given_count,
            content_type: ContentType(publish.content_type),
            payload: &publish.payload,
            extensions: extensions(publish),
        };
        self.turn.reserve(publish.payload.len() + RECORD_OVERHEAD_BYTES);
        let start = self.turn.len();
        parlor_protocol::encode(0, &deliver, &mut self.turn);
        if let Some(change) = change {
            let frame = Bytes::copy_from_slice(&self.turn[start..]);
            self.rewrite(change, publish, seq, frame);
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a turn is bounded by the writer's budget, far below 4 GiB"
        )]
        let end = self.turn.len() as u32;
        self.turn_records.push(AppendRecord { end, expires, device: device.clone(), slot, answer });
        self.turn_place.merge(place);
    }

    /// A record is in the turn, which ends when the mailbox is empty or the turn is full.
    pub(super) fn turn_goes_on(&mut self) {
        if !self.turn_ending {
            self.turn_ending = true;
            self.effects.push_back(Effect::EndTurn);
        }
        if self.turn_records.len() >= RECORDS_PER_TURN_MAX {
            self.end_turn();
        }
    }

    /// The shortest of what the room, the sender's tier and the message itself allow; 0 for ever.
    fn lifetime_ms(&self, publish: &Publish) -> u64 {
        let tier = self.tiers.get(publish.tier).lifetime_ms;
        let all = [self.options.lifetime_ms, tier, publish.lifetime_ms.unwrap_or_default()];
        all.into_iter().filter(|lifetime| *lifetime > 0).min().unwrap_or_default()
    }

    pub(super) fn repeat(&mut self, stored: Stored) {
        if stored.seq <= self.extent.tail {
            let (arbiter, durability) = (stored.conn.arbiter, self.options.durability);
            self.relay(arbiter, FromChannel::Committed { batch: None, durability, stored: vec![stored] });
        } else if self.failed.is_some() {
            self.outcome_unknown(stored);
        } else {
            self.repeats.push(stored);
        }
    }

    pub(super) fn on_end_of_turn(&mut self) {
        self.turn_ending = false;
        self.end_turn();
        self.save_if_due();
    }

    pub(super) fn end_turn(&mut self) {
        if self.turn_records.is_empty() {
            return;
        }
        let first = self.given + 1 - self.turn_records.len() as u64;
        let frames = std::mem::take(&mut self.turn).freeze();
        let records = std::mem::take(&mut self.turn_records);
        let rewrites = std::mem::take(&mut self.turn_rewrites);
        let place = std::mem::replace(&mut self.turn_place, self.budget.none());
        let ends = records.iter().map(|record| (record.end, record.expires)).collect();
        let (count, kept, grown) = (self.given_count, rewrites.clone(), std::mem::take(&mut self.turn_grown));
        self.uncommitted.push_back(Chunk {
            first,
            frames: frames.clone(),
            count,
            records: ends,
            rewrites: kept,
            grown,
        });
        if self.options.durability == Durability::Memory {
            self.on_committed(self.given);
        } else if let Some(error) = self.failed.clone() {
            // The store failed between the publish and the end of its turn.
            self.on_failed(error);
        } else {
            self.effects.push_back(Effect::Append(Turn { first, frames, records, rewrites, place }));
        }
    }

    pub(super) fn on_committed(&mut self, upto: Seq) {
        if self.failed.is_some() || upto <= self.extent.tail {
            return;
        }
        assert!(upto <= self.given, "the store committed seq {upto} of room {}, which was not given", self.room);
        let first = self.extent.tail + 1;
        let (mut parts, mut grown) = (Vec::new(), 0);
        while self.uncommitted.front().is_some_and(|chunk| chunk.first <= upto)
            && let Some(chunk) = self.uncommitted.pop_front()
        {
            let mut start = 0;
            for (end, expires) in &chunk.records {
                self.ring.push(*expires, &chunk.frames[start..*end as usize]);
                start = *end as usize;
            }
            self.commit_rewrites(chunk.rewrites);
            self.committed_count = chunk.count;
            grown += length(&chunk.frames) + chunk.grown;
            parts.push(chunk.frames);
        }
        debug_assert_eq!(self.ring.last(), upto, "a turn is committed as a whole");
        self.extent.tail = upto;
        self.keep(grown);
        let frames = if let [one] = &parts[..] { one.clone() } else { Bytes::from(parts.concat()) };
        self.tell_committed(&Batch { first, last: upto, frames });
        self.finish_adoptions();
        self.erased(upto);
    }

    pub(super) fn tell_committed(&mut self, batch: &Batch) {
        let mut all = Vec::new();
        while self.waiting.front().is_some_and(|waiting| waiting.stored.seq <= batch.last)
            && let Some(Waiting { stored, device }) = self.waiting.pop_front()
        {
            self.devices.committed(&device);
            all.push(stored);
        }
        all.extend(self.repeats.extract_if(.., |repeat| repeat.seq <= batch.last));
        for arbiter in 0..self.subscribers.len() {
            // Mostly they are all of one arbiter, and are not moved.
            let its = |stored: &Stored| usize::from(stored.conn.arbiter) == arbiter;
            let others =
                if all.iter().all(its) { Vec::new() } else { all.extract_if(.., |stored| !its(stored)).collect() };
            let stored = std::mem::replace(&mut all, others);
            let subscribed = self.subscribers[arbiter] > 0;
            if subscribed || !stored.is_empty() {
                let (batch, durability) = (subscribed.then(|| batch.clone()), self.options.durability);
                #[expect(clippy::cast_possible_truncation, reason = "arbiters are numbered with 16 bits")]
                self.relay(arbiter as u16, FromChannel::Committed { batch, durability, stored });
            }
        }
    }

    pub(super) fn on_failed(&mut self, error: StoreError) {
        tracing::error!(room = %self.name, %error, "the room's records can no longer be stored");
        // A store that takes no more writes still serves the past. Anything else is this channel's alone: one that is
        // loaded anew goes on from what is truly there.
        let stops = !matches!(error, StoreError::Poisoned(_));
        self.failed = Some(error);
        self.uncommitted.clear();
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|waiting| waiting.stored);
        for stored in waiting.chain(std::mem::take(&mut self.repeats)) {
            self.outcome_unknown(stored);
        }
        self.not_erased();
        if stops {
            self.effects.push_back(Effect::Stop);
        } else {
            self.finish_adoptions();
        }
    }

    fn outcome_unknown(&mut self, Stored { conn, request, .. }: Stored) {
        self.refuse(conn, request, Code::OutcomeUnknown, 1_000, "the store failed: it may be stored or not");
    }
}

/// A length in memory.
pub(super) fn length(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

/// What a record says besides its fields.
fn extensions(publish: &Publish) -> Extensions<'static> {
    let mut tags = Vec::new();
    if publish.remove {
        tags.push((TAG_REMOVES, &[][..]));
    }
    if publish.silent && publish.kind == RecordKind::MESSAGE {
        tags.push((TAG_SILENT, &[][..]));
    }
    Extensions(tags)
}

/// What is hashed besides the payload.
const FIELDS_BYTES: usize = 21;

/// What is hashed without memory of its own.
const SHORT_BYTES: usize = 256;

/// Tells a repeat of a publish from a conflict: all that a publish says besides room and nonce, decoded. Stored, so it
/// must not change.
pub(super) fn content_hash(publish: &Publish) -> u64 {
    let mut fields = [0; FIELDS_BYTES];
    fields[..2].copy_from_slice(&publish.kind.0.to_le_bytes());
    fields[2..10].copy_from_slice(&publish.refers_to.to_le_bytes());
    fields[10..18].copy_from_slice(&publish.lifetime_ms.unwrap_or_default().to_le_bytes());
    fields[18] = u8::from(publish.silent) | u8::from(publish.remove) << 1;
    fields[19..].copy_from_slice(&publish.content_type.to_le_bytes());
    // In one piece: the hash's other form costs more than this copy.
    let len = FIELDS_BYTES + publish.payload.len();
    if len <= SHORT_BYTES {
        let mut said = [0; SHORT_BYTES];
        said[..FIELDS_BYTES].copy_from_slice(&fields);
        said[FIELDS_BYTES..len].copy_from_slice(&publish.payload);
        xxh3_64(&said[..len])
    } else {
        xxh3_64(&[&fields[..], &publish.payload[..]].concat())
    }
}
