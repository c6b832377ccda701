//! How far users are, in a [`MemStore`](super::MemStore).

use parlor_protocol::{Name, RoomNumber};

use super::{Inside, Kept, Room};
use crate::{
    members::Member,
    port::{Mark, Marks, SaveMarks, StoreError},
};

impl Inside {
    pub(super) fn save_marks(&mut self, save: SaveMarks) -> Result<(), StoreError> {
        let SaveMarks { room, generation, marks } = save;
        let room = self.names.get(&room).and_then(|name| self.rooms.get_mut(name));
        let room = room.filter(|room| room.writer == Some(generation)).ok_or(StoreError::Superseded(generation))?;
        room.marks.extend(marks);
        Ok(())
    }

    pub(super) fn marks(&self, room: RoomNumber, user: &Name) -> Marks {
        let Some(room) = self.names.get(&room).and_then(|name| self.rooms.get(name)) else { return Marks::default() };
        let mut marks = room.marks.get(user).copied().unwrap_or_default();
        for Kept { answer, .. } in
            room.records.iter().filter(|kept| kept.device.user == *user && kept.device.tag.0 != 0)
        {
            marks.sent = marks.sent.max(Mark { seq: answer.seq, count: answer.count });
        }
        marks.since = room.members.get(user).map(Member::added_at).unwrap_or_default();
        marks
    }
}

impl Room {
    /// The count of the newest record below the first.
    pub(super) fn gone_count(&self) -> u64 {
        let gone = self.first.checked_sub(2).and_then(|at| self.records.get(usize::try_from(at).ok()?));
        gone.map_or(0, |kept| kept.answer.count)
    }
}
