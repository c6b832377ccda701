//! Who has read: the room's members, and strangers while they are few.

use std::collections::BTreeMap;

use parlor_protocol::{
    Code, Extensions, List, Name,
    message::{self, Access, Durability, Role},
};

use super::{BUSY_RETRY_MS, Effect, State};
use crate::{
    message::{FetchReaders, FromChannel},
    port::{DeviceKey, Marks, RoomMarks, StoreError},
};

/// A request for who has read, while the store is asked.
#[derive(Debug)]
pub(super) struct Asked {
    fetch: FetchReaders,
    /// What the store had not been told when it was asked. It may be saved and forgotten here before the answer comes,
    /// which may not have it.
    unsaved: Vec<(Name, Marks)>,
    /// Who is no member any more, since it was asked.
    gone: Vec<Name>,
}

/// What a user is who is named.
enum Named {
    Member,
    Stranger,
}

impl State {
    pub(super) fn on_fetch_readers(&mut self, fetch: FetchReaders) {
        let nothing_stored = self.options.durability == Durability::Memory && self.people.known == 0;
        if nothing_stored {
            return self.on_room_marks(fetch, Ok(RoomMarks { strangers: Some(Vec::new()), ..RoomMarks::default() }));
        }
        if self.saves.asked.len() >= self.limits.reads_per_room_max {
            return self.refuse(fetch.conn, fetch.request, Code::Busy, BUSY_RETRY_MS, "too many reads of this room");
        }
        self.saves.asked.push(Asked { fetch, unsaved: self.users.unsaved(), gone: Vec::new() });
        self.effects.push_back(Effect::LoadRoomMarks(fetch, self.limits.readers_per_room_max));
    }

    /// A user's membership ended, or began anew: what is asked now and answered later goes by it.
    pub(super) fn note_in_asked(&mut self, user: &Name, gone: bool) {
        for asked in &mut self.saves.asked {
            asked.gone.retain(|known| known != user);
            if gone {
                asked.gone.push(user.clone());
                asked.unsaved.retain(|(known, _)| known != user);
            }
        }
    }

    pub(super) fn on_room_marks(&mut self, fetch: FetchReaders, found: Result<RoomMarks, StoreError>) {
        let FetchReaders { conn, request, seq } = fetch;
        let at = self.saves.asked.iter().position(|asked| asked.fetch == fetch);
        let asked = at.map(|at| self.saves.asked.swap_remove(at));
        let (unsaved, gone) = asked.map(|asked| (asked.unsaved, asked.gone)).unwrap_or_default();
        let RoomMarks { members, more, strangers } = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(room = %self.name, %error, "a room's marks could not be read");
                return self.refuse(conn, request, Code::Busy, BUSY_RETRY_MS, "the store is busy");
            }
        };
        let max = self.limits.readers_per_room_max;
        let stays = |(user, marks): (Name, Marks)| (!gone.contains(&user)).then(|| (user, self.within(marks)));
        let mut all: BTreeMap<Name, Marks> = members.into_iter().filter_map(stays).collect();
        let few = strangers.is_some();
        let mut strangers: BTreeMap<Name, Marks> = strangers.into_iter().flatten().filter_map(stays).collect();
        for (user, marks) in unsaved.iter().map(|(user, marks)| (user, marks)).chain(self.users.iter()) {
            if let Some(known) = all.get_mut(user).or_else(|| strangers.get_mut(user)) {
                known.merge(marks);
                continue;
            }
            match self.named(user) {
                Some(Named::Member) => drop(all.insert(user.clone(), *marks)),
                Some(Named::Stranger) => drop(strangers.insert(user.clone(), *marks)),
                None => {}
            }
        }
        let nobody = all.is_empty();
        let has_marks = |marks: &Marks| marks.delivered.seq > 0 || marks.read.seq > 0;
        all.retain(|_, marks| has_marks(marks));
        strangers.retain(|_, marks| has_marks(marks));
        let strangers_may = self.people.kind.access != Access::Members;
        let fits = few && all.len() + strangers.len() <= max;
        // Where all are strangers there is nobody to name instead of them.
        if more || all.len() > max || (nobody && strangers_may && !fits) {
            return self.refuse(conn, request, Code::Unsupported, 0, "the room is too large to tell who has read");
        }
        if strangers_may && fits {
            all.append(&mut strangers);
        }
        let reader = |(user, marks)| {
            let (user, marks): (&Name, &Marks) = (user, marks);
            message::Reader { user, read: marks.read.seq, delivered: marks.delivered.seq }
        };
        let readers = all.iter().map(reader).filter(|reader| reader.read >= seq).collect();
        let readers = message::Readers { room: self.room, readers: List(readers), extensions: Extensions::default() };
        let frame = parlor_protocol::to_bytes(request, &readers);
        self.relay(conn.arbiter, FromChannel::Answer { conn, request, frame });
    }

    /// What a user is of whom only this channel has marks; `None` if that is not known, or he is banned.
    fn named(&self, user: &Name) -> Option<Named> {
        if self.people.known == 0 {
            return Some(Named::Stranger);
        }
        let mut devices = self.users.attached(user).iter().map(|tag| DeviceKey { user: user.clone(), tag: *tag });
        match devices.find_map(|device| self.rights_of(&device))?.role {
            Some(Role::Banned) => None,
            Some(_) => Some(Named::Member),
            None => Some(Named::Stranger),
        }
    }
}
