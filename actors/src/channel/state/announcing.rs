//! Records of members' coming and going, which the room itself writes.

use parlor_protocol::{
    DeviceTag, Name,
    message::{ContentType, Durability, HOST, RecordKind, encode_member_changes},
};

use super::{RECORD_OVERHEAD_BYTES, State};
use crate::{
    members::{Asker, MembersChanged},
    message::{Conn, Publish},
    port::{Answer, DeviceKey, Now},
    tiers::TierNumber,
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
            if !self.announce_one(now, &change.by, encode_member_changes(users)) {
                tracing::warn!(room = %self.name, "a change of members was not recorded: the store's queue is full");
                return;
            }
        }
    }

    fn announce_one(&mut self, now: Now, by: &Asker, payload: Vec<u8>) -> bool {
        let place = match self.options.durability {
            Durability::Memory => Some(self.budget.none()),
            Durability::Buffered | Durability::Synced => self.budget.take(payload.len() + RECORD_OVERHEAD_BYTES),
        };
        let Some(place) = place else { return false };
        let (seq, time) = (self.given + 1, self.time.max(now.unix_ms));
        let expires = if self.options.lifetime_ms == 0 { 0 } else { time.saturating_add(self.options.lifetime_ms) };
        let publish = Publish {
            // Nobody asked, and nobody is answered.
            conn: Conn { arbiter: 0, slot: 0, serial: 0 },
            request: 0,
            // No device has this tag, so the answer that is stored with the record is in nobody's way.
            device: DeviceKey { user: name_of(by), tag: DeviceTag(0) },
            tier: TierNumber(0),
            nonce: 0,
            kind: RecordKind::MEMBERS,
            refers_to: 0,
            lifetime_ms: None,
            silent: true,
            remove: false,
            content_type: ContentType::OPAQUE.0,
            payload: payload.into(),
        };
        let answer = Answer { nonce: 0, seq, time, content_hash: 0, count: self.given_count };
        self.record(&publish, answer, 0, expires, place, None);
        self.turn_goes_on();
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
