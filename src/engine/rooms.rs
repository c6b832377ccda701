//! Rooms and members, for the host: he may do everything, and is refused only what cannot be.

use parlor_actors::members::{Asker, Changed, Look, Refusal, RoomChange, Seen, What, direct};
pub use parlor_actors::members::{Counts, Member, RoomOf, RoomSummary};
use parlor_protocol::{
    Code, Name, RoomNumber,
    message::{Activity, Role},
};

use super::{Engine, RoomError, RoomOptions};

/// A page of a list, and whether there is more behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The page.
    pub items: Vec<T>,
    /// Whether there is more.
    pub more: bool,
}

impl From<Refusal> for RoomError {
    fn from((code, message): Refusal) -> Self {
        Self::Refused { code, message }
    }
}

impl Engine {
    /// Creates a room with its first members.
    ///
    /// # Errors
    /// If there is a room of that name, a name is none, there are too many members, or the engine refuses for now.
    pub async fn create_room_with(
        &self,
        name: &str,
        options: RoomOptions,
        members: &[(&str, Role)],
    ) -> Result<RoomNumber, RoomError> {
        let name = room_name(name)?;
        let member = |&(user, role): &(&str, Role)| Ok((Name::parse(user)?, role));
        let members = members.iter().map(member).collect::<Result<_, RoomError>>()?;
        self.make(name, What::Create { options, members, or_find: false }).await
    }

    /// Finds or creates the room of two users.
    ///
    /// # Errors
    /// If a name is none, or both are one, or the engine refuses for now.
    pub async fn open_direct(&self, one: &str, other: &str) -> Result<RoomSummary, RoomError> {
        let (one, other) = (Name::parse(one)?, Name::parse(other)?);
        if one == other {
            return Err((Code::InvalidName, "a direct room is of two users").into());
        }
        let (name, what) = direct::open(&one, &other, self.fleet.shared().create_at_join.unwrap_or_default());
        self.make(name.clone(), what).await?;
        self.room_info(&name).await
    }

    /// Changes what a room is like; all of it, but a `memory` room stays one and no other becomes one.
    ///
    /// # Errors
    /// If there is no such room, it would be stored or no longer be, or the engine refuses for now.
    pub async fn configure_room(&self, name: &str, options: RoomOptions) -> Result<(), RoomError> {
        self.change(Name::parse(name)?, What::Configure(options)).await.map(drop)
    }

    /// Deletes a room with all that it holds. Its number is never used again; its name can be.
    ///
    /// # Errors
    /// If there is no such room, or the engine refuses for now.
    pub async fn delete_room(&self, name: &str) -> Result<(), RoomError> {
        self.change(Name::parse(name)?, What::Delete).await.map(drop)
    }

    /// What a room is like. Wakes no room.
    ///
    /// # Errors
    /// If there is no such room, or the engine refuses for now.
    pub async fn room_info(&self, name: &str) -> Result<RoomSummary, RoomError> {
        match self.fleet.look(Look::Room { name: Name::parse(name)?, by: Asker::Host }).await? {
            Seen::Room(room) => Ok(room),
            _ => Err(UNEXPECTED.into()),
        }
    }

    /// Adds users to a room, or changes what they are there: all of them, or none. Counts everywhere when it returns. At
    /// most some thousand at a time are wise: the store does nothing else meanwhile.
    ///
    /// # Errors
    /// If there is no such room, it is a direct one, a name is none, there would be too many, or the engine refuses for
    /// now.
    pub async fn set_members(&self, room: &str, role: Role, users: &[&str]) -> Result<(), RoomError> {
        self.change(Name::parse(room)?, What::Set(role, names(users)?)).await.map(drop)
    }

    /// Takes users' roles in a room away, bans too. Counts everywhere when it returns.
    ///
    /// # Errors
    /// As [`set_members`](Self::set_members).
    pub async fn remove_members(&self, room: &str, users: &[&str]) -> Result<(), RoomError> {
        self.change(Name::parse(room)?, What::Remove(names(users)?)).await.map(drop)
    }

    /// A page of a room's members, the banned among them, in the order of their names' bytes, behind `after`.
    ///
    /// # Errors
    /// If there is no such room, a name is none, or the engine refuses for now.
    pub async fn members(
        &self,
        room: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listed<(Name, Member)>, RoomError> {
        let (name, after) = (Name::parse(room)?, after.map(Name::parse).transpose()?);
        match self.fleet.look(Look::Members { name, by: Asker::Host, after, limit }).await? {
            Seen::Members(items, more) => Ok(Listed { items, more }),
            _ => Err(UNEXPECTED.into()),
        }
    }

    /// A page of a user's rooms, newest activity first, behind `before`. Wakes no room, and
    /// so says nothing of what was said in `memory` rooms: see [`RoomOf`].
    ///
    /// # Errors
    /// If the name is none, or the engine refuses for now.
    pub async fn rooms_of(
        &self,
        user: &str,
        before: Option<Activity>,
        limit: usize,
    ) -> Result<Listed<RoomOf>, RoomError> {
        let (user, now) = (Name::parse(user)?, self.fleet.shared().clock.now().unix_ms);
        match self.fleet.look(Look::RoomsOf { user, before, limit, now }).await? {
            Seen::RoomsOf(items, more) => Ok(Listed { items, more }),
            _ => Err(UNEXPECTED.into()),
        }
    }

    /// A page of all rooms, in the order of their names' bytes, behind `after`.
    ///
    /// # Errors
    /// If the name is none, or the engine refuses for now.
    pub async fn rooms(&self, after: Option<&str>, limit: usize) -> Result<Listed<(Name, RoomNumber)>, RoomError> {
        let after = after.map(Name::parse).transpose()?;
        match self.fleet.look(Look::AllRooms { after, limit }).await? {
            Seen::AllRooms(items, more) => Ok(Listed { items, more }),
            _ => Err(UNEXPECTED.into()),
        }
    }

    async fn make(&self, name: Name, what: What) -> Result<RoomNumber, RoomError> {
        match self.change(name, what).await? {
            Changed::Made { room, .. } => Ok(room),
            _ => Err(UNEXPECTED.into()),
        }
    }

    async fn change(&self, name: Name, what: What) -> Result<Changed, RoomError> {
        let shared = self.fleet.shared();
        let (at, members_max) = (shared.clock.now().unix_ms, shared.limits.members_per_room_max);
        Ok(self.fleet.change(RoomChange { name, by: Asker::Host, at, members_max, what }).await?)
    }
}

const UNEXPECTED: Refusal = (Code::StoreUnavailable, "the store answered something else");

/// A name that rooms other than direct ones may have.
pub(super) fn room_name(text: &str) -> Result<Name, RoomError> {
    let name = Name::parse(text)?;
    if direct::is_direct(&name) {
        return Err((Code::InvalidName, "names that begin with \"direct:\" are kept for direct rooms").into());
    }
    Ok(name)
}

fn names(users: &[&str]) -> Result<Vec<Name>, RoomError> {
    users.iter().map(|user| Ok(Name::parse(user)?)).collect()
}
