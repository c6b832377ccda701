//! How far users are, in a [`MemStore`](super::MemStore).

use parlor_protocol::{Name, RoomNumber, message::Role};

use super::{Inside, Kept, Room, index};
use crate::{
    members::Member,
    port::{Mark, Marks, RoomMarks, SaveMarks, StoreError},
};

impl Inside {
    pub(super) fn save_marks(&mut self, save: SaveMarks) -> Result<(), StoreError> {
        let SaveMarks { room, generation, heard, marks } = save;
        let room = self.names.get(&room).and_then(|name| self.rooms.get_mut(name));
        let room = room.filter(|room| room.writer == Some(generation)).ok_or(StoreError::Superseded(generation))?;
        if room.changed > heard {
            return Err(StoreError::Busy);
        }
        room.marks.extend(marks);
        Ok(())
    }

    pub(super) fn room_marks(&self, room: RoomNumber, users_max: usize) -> RoomMarks {
        let Some(room) = self.names.get(&room).and_then(|name| self.rooms.get(name)) else {
            return RoomMarks { strangers: Some(Vec::new()), ..RoomMarks::default() };
        };
        let belongs = |member: &Member| member.role != Role::Banned;
        let people = room.members.iter().take(users_max).filter(|(_, member)| belongs(member));
        let marks = |user: &Name| (user.clone(), room.marks.get(user).copied().unwrap_or_default());
        let members = people.map(|(user, _)| marks(user)).collect();
        let strangers = room.marks.keys().filter(|user| !room.members.contains_key(*user));
        let strangers: Vec<_> = strangers.take(users_max + 1).map(marks).collect();
        let strangers = (strangers.len() <= users_max).then_some(strangers);
        RoomMarks { members, more: room.members.len() > users_max, strangers }
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

    /// The newest record that is gone, or that the room keeps no longer.
    pub(super) fn gone(&self) -> Mark {
        let records_max = self.options.records_max;
        let kept = if records_max == 0 { 0 } else { (self.tail() + 1).saturating_sub(records_max) };
        let seq = self.first.max(kept) - 1;
        let gone = if seq == 0 { None } else { self.records.get(index(seq)) };
        Mark { seq, count: gone.map_or(0, |kept| kept.answer.count) }
    }
}
