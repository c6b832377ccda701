//! Members, and changes of rooms, in the store in memory.

use std::sync::Arc;

use parlor_protocol::{
    Code, Epoch, Name, RoomNumber,
    message::{Durability, RecordKind, Role},
};

use super::{Inside, Room, with_deliver};
use crate::{
    channel::marks::unread,
    members::{
        Asker, Changed, Counts, Look, Member, MemberChange, MembersChanged, Refusal, RoomChange, RoomOf, RoomSummary,
        Seen, What,
        announcing::Announcement,
        deciding::{self, Facts, Stand},
        rights::Act,
    },
    port::EpochStart,
};

const UNKNOWN: Refusal = (Code::UnknownRoom, "there is no such room");

impl Inside {
    /// A room without anything in it.
    pub(super) fn change(&mut self, change: RoomChange) -> Result<Changed, Refusal> {
        let RoomChange { name, by, at, members_max, what } = change;
        let (options, members) = match what {
            What::Create { options, members, or_find } => {
                return self.create((name, by, at, members_max), options, &members, or_find);
            }
            What::Purge(room) => return Ok(Changed::Deleted { room, more: false }),
            What::Configure(options) => (Some(options), None),
            What::Delete => (None, None),
            What::Set(role, users) => (None, Some((Some(role), users))),
            What::Remove(users) => (None, Some((None, users))),
        };
        let room = self.rooms.get_mut(&name).ok_or(UNKNOWN)?;
        let facts = Facts { name: &name, options: &room.options, by: &by, role: room.role(&by) };
        if let Some(options) = options {
            facts.check_options(&options)?;
            if options.durability != room.options.durability && room.losses != self.losses {
                if room.options.durability == Durability::Buffered {
                    room.epochs.push(EpochStart { epoch: Epoch(self.next_epoch), first: room.tail() + 1 });
                    self.next_epoch += 1;
                }
                room.losses = self.losses;
            }
            let kept = room.gone().seq + 1;
            if room.options.durability != Durability::Memory && kept > room.first {
                (room.first, room.trimmed) = (kept, kept);
            }
            room.options = options;
            return Ok(Changed::Configured(room.number, options));
        }
        let Some((role, users)) = members else {
            facts.check(Act::Delete)?;
            let number = room.number;
            self.rooms.remove(&name);
            self.names.remove(&number);
            return Ok(Changed::Deleted { room: number, more: false });
        };
        let stand = room.stand(at);
        let users =
            facts.change_members(role, &users, stand, |user| Ok::<_, Refusal>(room.members.get(user).copied()))?;
        let counts = deciding::count(room.counts(), &users, members_max)?;
        room.apply(&users);
        let changes = &mut self.changes;
        let next = || {
            *changes += 1;
            *changes
        };
        let changed = MembersChanged::new(room.number, &room.options, by, users, counts, next);
        if room.options.durability != Durability::Memory {
            room.announcements.extend(changed.announcements.iter().cloned());
        }
        room.changed = room.changed.max(changed.number);
        Ok(Changed::Members(Arc::new(changed)))
    }

    fn create(
        &mut self,
        (name, by, at, members_max): (Name, Asker, u64, u64),
        options: crate::port::RoomOptions,
        members: &[(Name, Role)],
        or_find: bool,
    ) -> Result<Changed, Refusal> {
        if let Some(room) = self.rooms.get(&name) {
            let same = members.iter().all(|(user, _)| room.members.contains_key(user));
            return if or_find && same {
                Ok(Changed::Made { room: room.number, name, fresh: false })
            } else {
                Err((Code::RoomExists, "there is a room of that name"))
            };
        }
        let mut room = self.new_room(options);
        room.epochs.push(EpochStart { epoch: Epoch(self.next_epoch), first: 1 });
        self.next_epoch += 1;
        let first = deciding::first_members(&name, &by, members, room.stand(at));
        deciding::count(Counts::default(), &first, members_max)?;
        room.apply(&first);
        let number = room.number;
        self.names.insert(number, name.clone());
        self.rooms.insert(name.clone(), room);
        Ok(Changed::Made { room: number, name, fresh: true })
    }

    pub(super) fn member(&self, room: RoomNumber, user: &Name) -> Option<Member> {
        self.rooms.get(self.names.get(&room)?)?.members.get(user).copied()
    }

    pub(super) fn look(&self, look: Look) -> Result<Seen, Refusal> {
        match look {
            Look::Room { name, by } => {
                let (room, role) = self.seen(&name, &by)?;
                let (tail, count) = (room.tail(), room.count());
                let (epoch, options, counts) = (room.epoch(), room.options, room.counts());
                Ok(Seen::Room(RoomSummary { room: room.number, name, epoch, options, tail, count, counts, role }))
            }
            Look::Members { name, by, after, limit } => {
                let (room, _) = self.seen(&name, &by)?;
                let behind = |(user, _): &(&Name, &Member)| after.as_ref().is_none_or(|after| *user > after);
                let all = room.members.iter().filter(behind).map(|(user, member)| (user.clone(), *member));
                Ok(page(all, limit, Seen::Members))
            }
            Look::RoomsOf { user, before, limit, .. } => {
                let behind =
                    |room: &RoomOf| before.is_none_or(|place| (room.time, room.room) < (place.time, place.room));
                Ok(page(self.rooms_of(&user).into_iter().filter(behind), limit, Seen::RoomsOf))
            }
            Look::RoomsToFollow { user, limit } => {
                let rooms = self.rooms_of(&user).into_iter().take(limit);
                Ok(Seen::RoomsToFollow(rooms.map(|room| (room.room, room.name)).collect()))
            }
            Look::AllRooms { after, limit } => {
                let behind = |(name, _): &(&Name, &Room)| after.as_ref().is_none_or(|after| *name > after);
                let all = self.rooms.iter().filter(behind).map(|(name, room)| (name.clone(), room.number));
                Ok(page(all, limit, Seen::AllRooms))
            }
        }
    }

    /// A user's rooms, newest activity first.
    fn rooms_of(&self, user: &Name) -> Vec<RoomOf> {
        let mut rooms: Vec<RoomOf> = Vec::new();
        for (name, room) in &self.rooms {
            let Some(member) = room.members.get(user).filter(|member| member.role != Role::Banned) else {
                continue;
            };
            let marks = self.marks(room.number, user);
            rooms.push(RoomOf {
                room: room.number,
                name: name.clone(),
                epoch: room.epoch(),
                role: member.role,
                tail: room.tail(),
                count: room.count(),
                unread: unread(room.count(), &marks, marks.since, room.gone()),
                time: room.time().max(member.added),
                newest: room.records.last().map(|kept| kept.frame.clone()).unwrap_or_default(),
            });
        }
        rooms.sort_by_key(|room| std::cmp::Reverse((room.time, room.room)));
        rooms
    }

    /// A room that the asker may see, and what he is there.
    fn seen(&self, name: &Name, by: &Asker) -> Result<(&Room, Option<Role>), Refusal> {
        let room = self.rooms.get(name).ok_or(UNKNOWN)?;
        let facts = Facts { name, options: &room.options, by, role: room.role(by) };
        facts.check(Act::Join).map(|()| (room, facts.role))
    }
}

fn page<T>(mut all: impl Iterator<Item = T>, limit: usize, seen: impl FnOnce(Vec<T>, bool) -> Seen) -> Seen {
    let page = all.by_ref().take(limit).collect();
    seen(page, all.next().is_some())
}

impl Room {
    fn role(&self, by: &Asker) -> Option<Role> {
        let Asker::User(user) = by else { return None };
        self.members.get(user).map(|member| member.role)
    }

    /// What a memory room holds is its channel's business.
    fn stand(&self, at: u64) -> Stand {
        match self.options.durability {
            Durability::Memory => Stand { tail: 0, count: 0, epoch: Epoch(0), at },
            _ => Stand { tail: self.tail(), count: self.count(), epoch: self.epoch(), at },
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.members.values().for_each(|member| counts.change(None, Some(member.role)));
        counts
    }

    fn apply(&mut self, changes: &[MemberChange]) {
        for MemberChange { user, after, .. } in changes {
            match after {
                Some(member) => self.members.insert(user.clone(), *member),
                None => self.members.remove(user),
            };
            if matches!(after, None | Some(Member { role: Role::Banned, .. })) {
                self.marks.remove(user);
            }
        }
    }

    /// What of changes of its members is not in its log.
    pub(super) fn unannounced(&self) -> Vec<Announcement> {
        let recorded = |number: u64| {
            self.records.iter().any(|kept| {
                with_deliver(&kept.frame, |deliver| deliver.kind == RecordKind::MEMBERS && deliver.nonce == number)
            })
        };
        self.announcements.iter().filter(|announcement| !recorded(announcement.number)).cloned().collect()
    }
}
