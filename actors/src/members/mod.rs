//! Rooms as something that is made, changed and looked at, and the people who belong to them.
//!
//! Pure: [`rights`] says who may do what, [`deciding`] what a change of members comes to, [`announcing`] what is recorded
//! of it, [`direct`] which room two users have. What is asked of a store is here too: a [`RoomChange`] goes through its writer, a [`Look`] to its readers.

use std::sync::Arc;

use bytes::Bytes;
use parlor_protocol::{
    Code, Epoch, Name, RoomNumber, Seq, UnixMillis,
    message::{Activity, Announce, Role, RoomOptions},
};

use self::announcing::Announcement;
use crate::port::{EpochStart, Mark};

pub mod announcing;
pub mod asking;
pub mod deciding;
pub mod direct;
pub mod rights;

/// Why something is refused: a code, and the same for a person.
pub type Refusal = (Code, &'static str);

/// The most members of a room whose coming and going is recorded unless its options say otherwise.
pub const ANNOUNCED_MEMBERS_MAX: u64 = 1_000;

/// The most rooms of one user that a list of them looks at: the newest ones.
pub const ROOMS_LOOKED_AT_MAX: usize = 10_000;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The host, who may do everything.
    Host,
    /// A user.
    User(Name),
}

/// What a user is in a room, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// His role.
    pub role: Role,
    /// The first seq that was free when he was added…
    pub since: Seq,
    /// …and its epoch.
    pub epoch: Epoch,
    /// The room's count then.
    pub count: u64,
    /// When he was added.
    pub added: UnixMillis,
}

impl Member {
    /// The newest record when he was added.
    #[must_use]
    pub fn added_at(&self) -> Mark {
        Mark { seq: self.since.saturating_sub(1), count: self.count }
    }

    /// The first seq that was free when he was added, as a room with these epochs counts now: what one of them lost was
    /// given again later.
    #[must_use]
    pub fn since_in(&self, epochs: &[EpochStart]) -> Seq {
        let at = epochs.iter().position(|known| known.epoch == self.epoch);
        let later = &epochs[at.map_or(0, |at| at + 1)..];
        later.iter().map(|later| later.first).fold(self.since, Seq::min)
    }
}

/// How many people a room knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those who belong to it.
    pub members: u64,
    /// Those who are banned.
    pub banned: u64,
}

impl Counts {
    /// How many records of people the room has.
    #[must_use]
    pub fn known(self) -> u64 {
        self.members + self.banned
    }

    /// The counts after one user's record changed.
    pub fn change(&mut self, before: Option<Role>, after: Option<Role>) {
        let mut count = |role: Option<Role>, by: i64| match role {
            Some(Role::Banned) => self.banned = self.banned.saturating_add_signed(by),
            Some(_) => self.members = self.members.saturating_add_signed(by),
            None => {}
        };
        count(before, -1);
        count(after, 1);
    }
}

/// A change of a room, for the store's writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomChange {
    /// The room's name.
    pub name: Name,
    /// Who wants it.
    pub by: Asker,
    /// When.
    pub at: UnixMillis,
    /// The most people that the room may know.
    pub members_max: u64,
    /// What.
    pub what: What,
}

/// What a [`RoomChange`] changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Makes the room.
    Create {
        /// What it is like.
        options: RoomOptions,
        /// Its first members.
        members: Vec<(Name, Role)>,
        /// Whether one that is there already is as good: a direct room of the same members.
        or_find: bool,
    },
    /// Changes what it is like.
    Configure(RoomOptions),
    /// Deletes it.
    Delete,
    /// Gives users a role.
    Set(Role, Vec<Name>),
    /// Takes users' roles away.
    Remove(Vec<Name>),
    /// Clears away some more of a room that was deleted.
    Purge(RoomNumber),
}

/// What a change came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The room is there.
    Made {
        /// Its number.
        room: RoomNumber,
        /// Its name.
        name: Name,
        /// Whether it was not there before.
        fresh: bool,
    },
    /// Its options are these.
    Configured(RoomNumber, RoomOptions),
    /// It is gone.
    Deleted {
        /// Which number it had.
        room: RoomNumber,
        /// Whether there is something to [purge](What::Purge).
        more: bool,
    },
    /// Some users' roles are others.
    Members(Arc<MembersChanged>),
}

/// Members that changed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembersChanged {
    /// In which room.
    pub room: RoomNumber,
    /// Who did it.
    pub by: Asker,
    /// Each user with what he was and what he is. Those whose role was that one already are not here.
    pub users: Vec<MemberChange>,
    /// How many there are now.
    pub counts: Counts,
    /// Its number: later changes have higher ones, in the whole store; 0 if it changed nothing.
    pub number: u64,
    /// What the room's log is to say of it.
    pub announcements: Vec<Announcement>,
}

/// One user's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// Who.
    pub user: Name,
    /// What he was.
    pub before: Option<Member>,
    /// What he is.
    pub after: Option<Member>,
}

/// Whether a room with so many members records a change of them.
#[must_use]
pub fn announces(options: &RoomOptions, counts: Counts) -> bool {
    match options.announce {
        Announce::WhileSmall => counts.members <= ANNOUNCED_MEMBERS_MAX,
        Announce::Always => true,
        Announce::Never => false,
    }
}

/// A question about rooms, for the store's readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// What a room is like.
    Room {
        /// Its name.
        name: Name,
        /// Who asks.
        by: Asker,
    },
    /// Who belongs to a room.
    Members {
        /// Its name.
        name: Name,
        /// Who asks.
        by: Asker,
        /// Behind this user, in the order of the names' bytes.
        after: Option<Name>,
        /// At most so many.
        limit: usize,
    },
    /// The rooms of a user, newest activity first.
    RoomsOf {
        /// Whose.
        user: Name,
        /// Behind this place.
        before: Option<Activity>,
        /// At most so many.
        limit: usize,
        /// Records that expired before this are not shown.
        now: UnixMillis,
    },
    /// The same rooms, by number and name only, in one go: what moves up while pages are read is on none.
    RoomsToFollow {
        /// Whose.
        user: Name,
        /// At most so many.
        limit: usize,
    },
    /// All rooms, in the order of the names' bytes.
    AllRooms {
        /// Behind this name.
        after: Option<Name>,
        /// At most so many.
        limit: usize,
    },
}

/// The answer to a [`Look`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// What a room is like.
    Room(RoomSummary),
    /// A page of members, and whether there are more.
    Members(Vec<(Name, Member)>, bool),
    /// A page of a user's rooms, and whether there are more.
    RoomsOf(Vec<RoomOf>, bool),
    /// A user's rooms.
    RoomsToFollow(Vec<(RoomNumber, Name)>),
    /// A page of all rooms, and whether there are more.
    AllRooms(Vec<(Name, RoomNumber)>, bool),
}

/// What a room is like. Of a `memory` room's log nothing is known without its channel: its tail and count are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomSummary {
    /// Its number.
    pub room: RoomNumber,
    /// Its name.
    pub name: Name,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its options.
    pub options: RoomOptions,
    /// Its newest seq.
    pub tail: Seq,
    /// The newest record's count.
    pub count: u64,
    /// How many people it knows.
    pub counts: Counts,
    /// What the asker is in it.
    pub role: Option<Role>,
}

/// One of a user's rooms. Of a `memory` room's log nothing is known without its channel: its tail, count and unread are 0, its
/// newest message is empty, its epoch may be over, and its time is when the user was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomOf {
    /// Its number.
    pub room: RoomNumber,
    /// Its name.
    pub name: Name,
    /// Its epoch.
    pub epoch: Epoch,
    /// What the user is in it.
    pub role: Role,
    /// Its newest seq.
    pub tail: Seq,
    /// The newest record's count.
    pub count: u64,
    /// How much of that he has not read, as the store knows it: a second late, at most.
    pub unread: u64,
    /// The newest record's time, or when the user was added if that is later.
    pub time: UnixMillis,
    /// The frame of the newest message that the user may read; empty if there is none, or it is long.
    pub newest: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_member_was_added_is_found_again_in_a_later_epoch() {
        let start = |epoch, first| EpochStart { epoch: Epoch(epoch), first };
        let epochs = [start(3, 1), start(7, 41), start(9, 31)];
        let at = |epoch, since| {
            Member { role: Role::Member, since, epoch: Epoch(epoch), count: 0, added: 0 }.since_in(&epochs)
        };
        assert_eq!([at(9, 45), at(7, 45), at(7, 20), at(3, 60), at(2, 60)], [45, 31, 20, 31, 1]);
    }
}
