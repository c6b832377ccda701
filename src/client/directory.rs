//! Rooms and their people by name, whether joined or not: made, changed, looked at.
//!
//! All of these wait while there is no connection. What became of one that cannot be asked twice without harm, and whose
//! answer was lost with its connection, is [`RequestError::OutcomeUnknown`]; the others are asked again. Dropping a future
//! does not take back what it asked.

use parlor_protocol::{
    Epoch, Name, NameError, RoomNumber, Seq, UnixMillis,
    message::{self, Activity, MEMBERS_PER_REQUEST_MAX, Role, RoomOptions},
};

use super::{
    Client,
    error::RequestError,
    event::Message,
    question::Question,
    wire::{self, Messages, WireError},
};

/// What a room is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomDetails {
    /// Its name.
    pub name: Name,
    /// Its number.
    pub number: RoomNumber,
    /// Its epoch.
    pub epoch: Epoch,
    /// What it was created with, or last changed to.
    pub options: RoomOptions,
    /// The seq of the newest stored record; 0 in an empty room.
    pub tail: Seq,
    /// How many countable records it holds.
    pub count: u64,
    /// How many members it has, the banned not counted.
    pub members: u64,
    /// What this user is there; `None` for a stranger.
    pub role: Option<Role>,
}

/// Somebody who has a role in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: Name,
    /// What he is there.
    pub role: Role,
    /// When he was added, in Unix milliseconds.
    pub added: UnixMillis,
}

/// A page of a room's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// In the order of their names' bytes, the banned among them.
    pub members: Vec<Member>,
    /// The `after` of the next page; `None` at the end.
    pub next: Option<Name>,
}

/// One of this user's rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomEntry {
    /// Its name.
    pub name: Name,
    /// Its number.
    pub number: RoomNumber,
    /// Its epoch.
    pub epoch: Epoch,
    /// What the user is there.
    pub role: Role,
    /// The seq of the newest stored record; 0 in an empty room.
    pub tail: Seq,
    /// How many countable records it holds.
    pub count: u64,
    /// How many of them the user has not read. What he read within the last second may still count.
    pub unread: u64,
    /// When something last happened there, in Unix milliseconds.
    pub time: UnixMillis,
    /// The newest message that he may read, unless it is long or far below the tail.
    pub newest: Option<Message>,
}

/// A page of this user's rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rooms {
    /// The newest activity first.
    pub rooms: Vec<RoomEntry>,
    /// The `before` of the next page; `None` at the end.
    pub next: Option<Activity>,
}

impl Client {
    /// Creates a room that this user owns, with its first members.
    ///
    /// # Errors
    /// [`OutcomeUnknown`](RequestError::OutcomeUnknown) if the connection broke before the answer:
    /// [`room_info`](Self::room_info) tells whether the room is there, and whose it is. Otherwise see [`RequestError`].
    pub async fn create_room(
        &self,
        name: &str,
        options: RoomOptions,
        members: &[&str],
    ) -> Result<RoomDetails, RequestError> {
        let room = Name::parse(name)?;
        self.handle.ask(None, Question::Create { room, options, members: names(members)? }).await
    }

    /// Changes what a room is like: all of `options` counts, so begin with those of [`room_info`](Self::room_info). A
    /// `memory` room stays one, and no other becomes one.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn configure_room(&self, name: &str, options: RoomOptions) -> Result<(), RequestError> {
        let room = Name::parse(name)?;
        self.handle.ask(None, Question::Configure { room, options }).await
    }

    /// Deletes a room with all that it holds.
    ///
    /// # Errors
    /// [`OutcomeUnknown`](RequestError::OutcomeUnknown) if the connection broke before the answer:
    /// [`room_info`](Self::room_info) tells whether it is gone. Otherwise see [`RequestError`].
    pub async fn delete_room(&self, name: &str) -> Result<(), RequestError> {
        let room = Name::parse(name)?;
        self.handle.ask(None, Question::Delete { room }).await
    }

    /// What a room is like, and what this user is there.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn room_info(&self, name: &str) -> Result<RoomDetails, RequestError> {
        let room = Name::parse(name)?;
        self.handle.ask(None, Question::Describe { room }).await
    }

    /// Adds users to a room, or changes what they are there. At most 1,000 at once.
    ///
    /// # Errors
    /// See [`RequestError`]. If one of them may not be changed, none is.
    pub async fn set_members(&self, room: &str, role: Role, users: &[&str]) -> Result<(), RequestError> {
        let room = Name::parse(room)?;
        self.handle.ask(None, Question::SetMembers { room, role, users: names(users)? }).await
    }

    /// Takes users' roles away, bans included. With the own name alone it leaves the room for good. At most 1,000 at once.
    ///
    /// # Errors
    /// [`OutcomeUnknown`](RequestError::OutcomeUnknown) if this user is among them and the connection broke before the
    /// answer: [`room_info`](Self::room_info) tells what he is there. Otherwise see [`RequestError`].
    pub async fn remove_members(&self, room: &str, users: &[&str]) -> Result<(), RequestError> {
        let room = Name::parse(room)?;
        self.handle.ask(None, Question::RemoveMembers { room, users: names(users)? }).await
    }

    /// A page of a room's members behind the user `after`; `limit` 0 for as many as a page holds.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn members(&self, room: &str, after: Option<&str>, limit: u32) -> Result<Members, RequestError> {
        let (room, after) = (Name::parse(room)?, after.map(Name::parse).transpose()?);
        self.handle.ask(None, Question::Members { room, after, limit }).await
    }

    /// A page of the rooms in which this user has a role, with what is unread there, by recent activity. `limit` 0 for as
    /// many as a page holds. No room is woken for it.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn rooms(&self, before: Option<Activity>, limit: u32) -> Result<Rooms, RequestError> {
        self.handle.ask(None, Question::Rooms { before, limit }).await
    }

    /// Finds or creates the one room of this user and another. Join it by the name in the answer.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn open_direct(&self, user: &str) -> Result<RoomDetails, RequestError> {
        let user = Name::parse(user)?;
        self.handle.ask(None, Question::OpenDirect { user }).await
    }
}

pub(super) fn names(texts: &[&str]) -> Result<Vec<Name>, RequestError> {
    if texts.len() > MEMBERS_PER_REQUEST_MAX {
        return Err(RequestError::TooManyUsers { given: texts.len() });
    }
    Ok(texts.iter().map(|text| Name::parse(text)).collect::<Result<_, _>>()?)
}

impl RoomDetails {
    pub(super) fn of(room: &message::RoomInfo<'_>) -> Result<Self, NameError> {
        let &message::RoomInfo { name, room: number, epoch, options, tail, count, members, role, .. } = room;
        Ok(Self { name: Name::parse(name)?, number, epoch, options, tail, count, members, role })
    }
}

impl Members {
    pub(super) fn of(page: &message::Members<'_>) -> Result<Self, NameError> {
        let member = |entry: &message::MemberEntry<'_>| {
            let message::MemberEntry { user, role, added } = *entry;
            Name::parse(user).map(|user| Member { user, role, added })
        };
        let members = page.members.0.iter().map(member).collect::<Result<_, _>>()?;
        Ok(Self { members, next: page.next.map(Name::parse).transpose()? })
    }
}

impl Rooms {
    pub(super) fn of(
        page: &message::Rooms<'_>,
        messages: &mut Messages,
        own: impl Fn(&message::Deliver<'_>) -> bool,
    ) -> Result<Self, WireError> {
        let mut rooms = Vec::with_capacity(page.rooms.0.len());
        for entry in &page.rooms.0 {
            let message::RoomEntry { name, room: number, epoch, role, tail, count, unread, time, newest } = *entry;
            let mut message = None;
            wire::records(newest, |record| {
                message = Some(messages.message(&record, own(&record))?);
                Ok(())
            })?;
            let name = Name::parse(name)?;
            rooms.push(RoomEntry { name, number, epoch, role, tail, count, unread, time, newest: message });
        }
        Ok(Self { rooms, next: page.next })
    }
}
