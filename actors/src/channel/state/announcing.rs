//! Records of members' coming and going, which the room itself writes.

use parlor_protocol::{
    DeviceTag, Extensions, Name,
    message::{ContentType, Deliver, Durability, HOST, RecordKind, encode_member_changes},
};

use super::{Effect, RECORD_OVERHEAD_BYTES, RECORDS_PER_TURN_MAX, State};
use crate::{
    members::{Asker, MembersChanged},
    port::{Answer, AppendRecord, DeviceKey, Now},
};

/// The most users that one record names.
const USERS_PER_RECORD_MAX: usize = 100;

impl State {
    /// Records a change of members. Without a place in the writer's queue it goes unrecorded: the change itself is stored.
    pub(super) fn announce(&mut self, now: Now, change: &MembersChanged) {
        if self.failed.is_some() {
            return;
        }
        for users in change.users.chunks(USERS_PER_RECORD_MAX) {
            let users = users.iter().map(|one| (&*one.user, one.after.map(|member| member.role)));
            if !self.record(now, &change.by, &encode_member_changes(users)) {
                tracing::warn!(room = %self.name, "a change of members was not recorded: the store's queue is full");
                return;
            }
        }
    }

    fn record(&mut self, now: Now, by: &Asker, payload: &[u8]) -> bool {
        let place = match self.options.durability {
            Durability::Memory => Some(self.budget.none()),
            Durability::Buffered | Durability::Synced => self.budget.take(payload.len() + RECORD_OVERHEAD_BYTES),
        };
        let Some(place) = place else { return false };
        let (seq, time) = (self.given + 1, self.time.max(now.unix_ms));
        (self.given, self.time) = (seq, time);
        let expires = if self.options.lifetime_ms == 0 { 0 } else { time.saturating_add(self.options.lifetime_ms) };
        // No device has this tag, so the answer that is stored with the record is in nobody's way.
        let device = DeviceKey { user: name_of(by), tag: DeviceTag(0) };
        let deliver = Deliver {
            room: self.room,
            seq,
            time,
            sender: &device.user,
            device_tag: device.tag,
            nonce: 0,
            kind: RecordKind::MEMBERS,
            refers_to: 0,
            expires,
            count: self.given_count,
            content_type: ContentType::OPAQUE,
            payload,
            extensions: Extensions::default(),
        };
        self.turn.reserve(payload.len() + RECORD_OVERHEAD_BYTES);
        parlor_protocol::encode(0, &deliver, &mut self.turn);
        #[expect(clippy::cast_possible_truncation, reason = "a turn is bounded, far below 4 GiB")]
        let end = self.turn.len() as u32;
        let answer = Answer { nonce: 0, seq, time, content_hash: 0 };
        self.turn_records.push(AppendRecord { end, expires, device, slot: 0, answer });
        self.turn_place.merge(place);
        if !self.turn_ending {
            self.turn_ending = true;
            self.effects.push_back(Effect::EndTurn);
        }
        if self.turn_records.len() >= RECORDS_PER_TURN_MAX {
            self.end_turn();
        }
        true
    }
}

fn name_of(by: &Asker) -> Name {
    match by {
        Asker::User(user) => user.clone(),
        #[expect(clippy::expect_used, reason = "four letters")]
        Asker::Host => Name::parse(HOST).expect("such a text is a name"),
    }
}
