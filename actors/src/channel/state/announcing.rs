//! Records of members' coming and going, which the room itself writes.
//!
//! What is to be recorded waits here until the writer's queue has a place for it, and in the store until the record is
//! there: a channel that dies before leaves it to its successor.

use parlor_protocol::{
    DeviceTag, Epoch, Name,
    message::{ContentType, Durability, HOST, RecordKind},
};

use super::{RECORD_OVERHEAD_BYTES, State};
use crate::{
    members::{Asker, MembersChanged, announcing::Announcement},
    message::{Conn, Publish},
    port::{Answer, DeviceKey, Now, Place},
    tiers::TierNumber,
};

impl State {
    /// Whether something has yet to be recorded.
    pub(super) fn announces(&self) -> bool {
        !self.people.unannounced.is_empty() && self.failed.is_none()
    }

    /// A change of members was told. What the store knew of when it loaded the room is here already.
    pub(super) fn note_announcements(&mut self, change: &MembersChanged) {
        // A room without a log has nothing in the store.
        let loaded = if self.options.durability == Durability::Memory { 0 } else { self.people.loaded_change };
        let new = change.announcements.iter().filter(|announcement| announcement.number > loaded);
        self.people.unannounced.extend(new.cloned());
        self.people.heard = self.people.heard.max(change.number);
    }

    /// Records what has yet to be recorded, as far as the writer's queue takes it; the rest is tried again soon.
    pub(super) fn announce(&mut self, now: Now) {
        if self.is_waking() {
            return; // Who has to go by it would still be brought it.
        }
        while self.announces()
            && let Some(next) = self.people.unannounced.front()
        {
            let place = match self.options.durability {
                Durability::Memory => Some(self.budget.none()),
                Durability::Buffered | Durability::Synced => {
                    self.budget.take(next.payload.len() + RECORD_OVERHEAD_BYTES)
                }
            };
            let Some(place) = place else { return self.arm_save() };
            if let Some(next) = self.people.unannounced.pop_front() {
                self.announce_one(now, next, place);
            }
        }
    }

    fn announce_one(&mut self, now: Now, Announcement { number, by, payload }: Announcement, place: Place) {
        let (seq, time) = (self.given + 1, self.time.max(now.unix_ms));
        let expires = if self.options.lifetime_ms == 0 { 0 } else { time.saturating_add(self.options.lifetime_ms) };
        let publish = Publish {
            // Nobody asked, and nobody is answered.
            conn: Conn { arbiter: 0, slot: 0, serial: 0 },
            request: 0,
            // No device has this tag, so the answer that is stored with the record is in nobody's way.
            device: DeviceKey { user: name_of(&by), tag: DeviceTag(0) },
            tier: TierNumber(0),
            // By this the store knows what is recorded now.
            nonce: number,
            kind: RecordKind::MEMBERS,
            refers_to: 0,
            epoch: Epoch(0),
            lifetime_ms: None,
            silent: true,
            remove: false,
            content_type: ContentType::OPAQUE.0,
            payload,
        };
        let answer = Answer { nonce: number, seq, time, content_hash: 0, count: self.given_count };
        self.record(&publish, answer, 0, expires, place, None);
        self.turn_goes_on();
    }
}

fn name_of(by: &Asker) -> Name {
    match by {
        Asker::User(user) => user.clone(),
        #[expect(clippy::expect_used, reason = "four letters")]
        Asker::Host => Name::parse(HOST).expect("such a text is a name"),
    }
}
