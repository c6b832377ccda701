//! What tests find in a [`MemStore`], and what they have it forget.

use bytes::Bytes;
use parlor_protocol::{Name, RoomNumber, Seq, UnixMillis};

use super::{MemStore, index};
use crate::members::Member;

impl MemStore {
    /// Forgets what devices were answered before this time, as compactions do with what is older than the horizon.
    pub fn forget_answers(&self, name: &Name, before: UnixMillis) {
        if let Some(room) = self.lock().rooms.get_mut(name) {
            room.answers_from = room.answers_from.max(before);
        }
    }

    /// Whether a failure was planted, so that it takes no writes until it crashes.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.lock().poisoned
    }

    /// A room's people, in the order of their names.
    #[must_use]
    pub fn members(&self, name: &Name) -> Vec<(Name, Member)> {
        let inside = self.lock();
        let room = inside.rooms.get(name);
        room.map_or(Vec::new(), |room| room.members.iter().map(|(user, member)| (user.clone(), *member)).collect())
    }

    /// A record as it was first stored, before any change.
    #[must_use]
    pub fn first_frame(&self, room: RoomNumber, seq: Seq) -> Option<Bytes> {
        let inside = self.lock();
        let room = inside.rooms.get(inside.names.get(&room)?)?;
        Some(room.records.get(index(seq))?.frame.clone())
    }

    /// Whether a record is stored so, or was before a change, or would be if no sweep had been faster than its change: a
    /// channel that has not heard of the sweep shows it.
    #[must_use]
    pub fn holds(&self, room: RoomNumber, seq: Seq, frame: &Bytes) -> bool {
        let inside = self.lock();
        let room = inside.names.get(&room).and_then(|name| inside.rooms.get(name));
        let kept = room.and_then(|room| room.records.get(index(seq)));
        kept.is_some_and(|kept| {
            let rewritten = kept.rewrites.iter().map(|rewrite| &rewrite.frame);
            rewritten.chain(&kept.too_late).chain([&kept.frame]).any(|kept| kept == frame)
        })
    }
}
