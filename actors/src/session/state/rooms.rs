//! Requests about rooms and members: checked here, answered by the store, through the supervisor where they change
//! something.

use bytes::Bytes;
use parlor_protocol::{
    Body, Code, DecodeError, Extensions, Kind, List, Name,
    message::{
        self, Done, MEMBERS_PER_REQUEST_MAX, MemberEntry, Members, Position, ROOMS_PER_PAGE_MAX, Role, RoomEntry,
        RoomInfo, Rooms,
    },
    to_bytes,
};

use super::{Effect, State};
use crate::{
    members::{Asker, Changed, Look, Member, Refusal, RoomOf, RoomSummary, Seen, What, direct::is_direct},
    port::Now,
    relay::state::{Asks, Pending},
};

/// A change that a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Of the room of this name.
    Room(Name, What),
    /// The room of the session's user and this one.
    Direct(Name),
}

/// What stops a request before it is on its way.
enum Stop {
    Malformed(DecodeError),
    Refused(Code, String),
}

impl From<DecodeError> for Stop {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

type Outcome<T> = Result<T, Stop>;

impl State {
    /// Handles a request about rooms; `None` if the kind is none.
    pub(super) fn on_room_frame(
        &mut self,
        now: Now,
        kind: Kind,
        request: u32,
        body: &Bytes,
    ) -> Option<Result<(), DecodeError>> {
        let effect = match kind {
            Kind::CreateRoom => self.create_room(body).map(change),
            Kind::ConfigureRoom => configure_room(body).map(change),
            Kind::DeleteRoom => delete_room(body).map(change),
            Kind::SetMembers => set_members(body).map(change),
            Kind::RemoveMembers => remove_members(body).map(change),
            Kind::OpenDirect => self.open_direct(body).map(change),
            Kind::DescribeRoom => self.describe_room(body).map(look),
            Kind::ListMembers => self.list_members(body).map(look),
            Kind::ListRooms => self.list_rooms(now, body).map(look),
            _ => return None,
        };
        Some(match effect {
            Ok(effect) => {
                self.effects.push_back(Effect::Begin(Pending { request, room: None, asks: Asks::Rooms }));
                self.effects.push_back(effect(request));
                Ok(())
            }
            Err(Stop::Refused(code, message)) => {
                self.error(request, code, message);
                Ok(())
            }
            Err(Stop::Malformed(error)) => Err(error),
        })
    }

    fn create_room(&self, body: &[u8]) -> Outcome<Wanted> {
        let message::CreateRoom { room, options, members, .. } = parlor_protocol::decode(body)?;
        let name = name(room)?;
        if is_direct(&name) {
            let text = "names that begin with \"direct:\" are kept for direct rooms: use OpenDirect".into();
            return Err(Stop::Refused(Code::InvalidName, text));
        }
        if !self.creates {
            return Err(Stop::Refused(Code::Forbidden, "only the host creates rooms here".into()));
        }
        let members = names(&members.0)?.into_iter().map(|user| (user, Role::Member)).collect();
        Ok(Wanted::Room(name, What::Create { options, members, or_find: false }))
    }

    fn open_direct(&self, body: &[u8]) -> Outcome<Wanted> {
        let message::OpenDirect { user, .. } = parlor_protocol::decode(body)?;
        let user = name(user)?;
        if user == self.device.user {
            return Err(Stop::Refused(Code::InvalidName, "a direct room is of two users".into()));
        }
        Ok(Wanted::Direct(user))
    }

    fn describe_room(&self, body: &[u8]) -> Outcome<Look> {
        let message::DescribeRoom { room, .. } = parlor_protocol::decode(body)?;
        Ok(Look::Room { name: name(room)?, by: self.asker() })
    }

    fn list_members(&self, body: &[u8]) -> Outcome<Look> {
        let message::ListMembers { room, after, limit, .. } = parlor_protocol::decode(body)?;
        let (room, after) = (name(room)?, after.map(name).transpose()?);
        Ok(Look::Members { name: room, by: self.asker(), after, limit: at_most(limit, MEMBERS_PER_REQUEST_MAX) })
    }

    fn list_rooms(&self, now: Now, body: &[u8]) -> Outcome<Look> {
        let message::ListRooms { before, limit, .. } = parlor_protocol::decode(body)?;
        let (user, limit) = (self.device.user.clone(), at_most(limit, ROOMS_PER_PAGE_MAX));
        Ok(Look::RoomsOf { user, before, limit, now: now.unix_ms })
    }

    fn asker(&self) -> Asker {
        Asker::User(self.device.user.clone())
    }

    /// A change was made, or refused.
    pub(super) fn on_changed(&mut self, request: u32, outcome: Result<Changed, Refusal>) {
        match outcome {
            Ok(Changed::Made { name, .. }) => {
                self.effects.push_back(Effect::Look { request, look: Look::Room { name, by: self.asker() } });
            }
            Ok(_) => self.answer(request, &Done::default()),
            Err((code, message)) => self.effects.push_back(Effect::Refuse { request, room: None, code, message }),
        }
    }

    /// A question was answered, or refused.
    pub(super) fn on_seen(&mut self, request: u32, seen: Result<Seen, Refusal>) {
        match seen {
            Ok(Seen::RoomsToFollow(rooms)) => self.on_listed(request, rooms),
            Ok(Seen::Room(room)) => self.answer(request, &info(&room)),
            Ok(Seen::Members(members, more)) => self.answer(request, &members_page(&members, more)),
            Ok(Seen::RoomsOf(rooms, more)) => self.answer(request, &rooms_page(&rooms, more)),
            Ok(Seen::AllRooms(..)) => debug_assert!(false, "no client asks for all rooms"),
            Err((code, message)) => {
                self.effects.push_back(Effect::Refuse { request, room: None, code, message });
                self.on_not_listed(request);
            }
        }
    }

    /// The session is no longer attached to a room.
    pub(super) fn on_lost(&mut self, stands: Position) {
        if let Ok(at) = self.rooms.binary_search_by_key(&stands.room, |(number, _)| *number) {
            let (_, name) = self.rooms.remove(at);
            self.attach_again(&name, Some(stands));
        }
    }

    pub(super) fn answer<'a, B: Body<'a>>(&mut self, request: u32, body: &B) {
        self.effects.push_back(Effect::Answer { request, frame: to_bytes(request, body) });
    }
}

fn change(wanted: Wanted) -> Box<dyn FnOnce(u32) -> Effect> {
    Box::new(move |request| Effect::Change { request, wanted })
}

fn look(look: Look) -> Box<dyn FnOnce(u32) -> Effect> {
    Box::new(move |request| Effect::Look { request, look })
}

fn configure_room(body: &[u8]) -> Outcome<Wanted> {
    let message::ConfigureRoom { room, options, .. } = parlor_protocol::decode(body)?;
    Ok(Wanted::Room(name(room)?, What::Configure(options)))
}

fn delete_room(body: &[u8]) -> Outcome<Wanted> {
    let message::DeleteRoom { room, .. } = parlor_protocol::decode(body)?;
    Ok(Wanted::Room(name(room)?, What::Delete))
}

fn set_members(body: &[u8]) -> Outcome<Wanted> {
    let message::SetMembers { room, role, users, .. } = parlor_protocol::decode(body)?;
    Ok(Wanted::Room(name(room)?, What::Set(role, names(&users.0)?)))
}

fn remove_members(body: &[u8]) -> Outcome<Wanted> {
    let message::RemoveMembers { room, users, .. } = parlor_protocol::decode(body)?;
    Ok(Wanted::Room(name(room)?, What::Remove(names(&users.0)?)))
}

fn name(text: &str) -> Outcome<Name> {
    Name::parse(text).map_err(|error| Stop::Refused(Code::InvalidName, error.to_string()))
}

fn names(texts: &[&str]) -> Outcome<Vec<Name>> {
    texts.iter().map(|text| name(text)).collect()
}

fn at_most(limit: u32, max: usize) -> usize {
    if limit == 0 { max } else { max.min(limit as usize) }
}

fn info(room: &RoomSummary) -> RoomInfo<'_> {
    RoomInfo {
        name: &room.name,
        room: room.room,
        epoch: room.epoch,
        options: room.options,
        tail: room.tail,
        count: room.count,
        members: room.counts.members,
        role: room.role,
        extensions: Extensions::default(),
    }
}

fn members_page(members: &[(Name, Member)], more: bool) -> Members<'_> {
    let entries =
        members.iter().map(|(user, member)| MemberEntry { user, role: member.role, added: member.added }).collect();
    let next = members.last().filter(|_| more).map(|(user, _)| &**user);
    Members { members: List(entries), next, extensions: Extensions::default() }
}

fn rooms_page(rooms: &[RoomOf], more: bool) -> Rooms<'_> {
    let entry = |room: &'_ RoomOf| message::Activity { time: room.time, room: room.room };
    let next = rooms.last().filter(|_| more).map(entry);
    let entries = rooms.iter().map(|room| RoomEntry {
        name: &room.name,
        room: room.room,
        epoch: room.epoch,
        role: room.role,
        tail: room.tail,
        count: room.count,
        unread: room.unread,
        time: room.time,
        newest: &room.newest,
    });
    Rooms { rooms: List(entries.collect()), next, extensions: Extensions::default() }
}

#[cfg(test)]
mod tests;
