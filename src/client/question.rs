//! What the application asks the server, beside joining, leaving and publishing: one list of questions, each with the one
//! kind of answer that it takes.

use bytes::BytesMut;
use parlor_protocol::{
    Extensions, List, Name, RoomNumber, Seq, encode,
    message::{self, Activity, Direction, Role, RoomOptions},
};

use super::{
    directory::{Members, RoomDetails, Rooms},
    effect::{RoomKey, Ticket},
    event::Page,
    presence::{RoomPresence, UserPresence},
    reading::{Reader, Standing},
    wire::{Incoming, Messages, WireError},
};

/// A question. The first five are about a room that is joined; the others name theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Page { start: Option<Seq>, direction: Direction, limit: u32 },
    Readers { seq: Seq },
    Standing,
    WatchRoom,
    UnwatchRoom,
    Create { room: Name, options: RoomOptions, members: Vec<Name> },
    Configure { room: Name, options: RoomOptions },
    Delete { room: Name },
    Describe { room: Name },
    SetMembers { room: Name, role: Role, users: Vec<Name> },
    RemoveMembers { room: Name, users: Vec<Name> },
    Members { room: Name, after: Option<Name>, limit: u32 },
    Rooms { before: Option<Activity>, limit: u32 },
    OpenDirect { user: Name },
    Presence { users: Vec<Name> },
    WatchUsers { add: Vec<Name>, remove: Vec<Name> },
}

/// What a question is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Page(Page),
    Readers(Vec<Reader>),
    Standing(Standing),
    Done,
    Room(RoomDetails),
    Members(Members),
    Rooms(Rooms),
    Users(Vec<UserPresence>),
    InRoom(RoomPresence),
}

/// A question on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) ticket: Ticket,
    /// The joined room that it is about.
    pub(super) room: Option<RoomKey>,
    pub(super) question: Question,
}

impl Question {
    /// Whether the same question may be asked twice without harm. If not, and the connection breaks before the answer,
    /// what became of it is not known.
    pub(super) fn repeats(&self, me: &Name) -> bool {
        match self {
            // A second time the room is there already, or another room of that name is deleted.
            Self::Create { .. } | Self::Delete { .. } => false,
            // Whoever has left a room may no longer leave it.
            Self::RemoveMembers { users, .. } => !users.contains(me),
            _ => true,
        }
    }

    /// Writes it as a frame. `number` is that of the joined room.
    pub(super) fn encode(&self, request: u32, number: RoomNumber, out: &mut BytesMut) {
        let extensions = Extensions::default();
        match self {
            &Self::Page { start, direction, limit } => {
                encode(request, &message::Fetch { room: number, start, direction, limit, extensions }, out);
            }
            &Self::Readers { seq } => encode(request, &message::FetchReaders { room: number, seq, extensions }, out),
            // A mark that moves nothing is answered like any other.
            Self::Standing => encode(request, &message::Mark { room: number, read: 0, extensions }, out),
            Self::WatchRoom | Self::UnwatchRoom => {
                let watch = matches!(self, Self::WatchRoom);
                encode(request, &message::WatchRoom { room: number, watch, extensions }, out);
            }
            Self::Create { room, options, members } => {
                let members = names(members);
                encode(request, &message::CreateRoom { room, options: *options, members, extensions }, out);
            }
            Self::Configure { room, options } => {
                encode(request, &message::ConfigureRoom { room, options: *options, extensions }, out);
            }
            Self::Delete { room } => encode(request, &message::DeleteRoom { room, extensions }, out),
            Self::Describe { room } => encode(request, &message::DescribeRoom { room, extensions }, out),
            Self::SetMembers { room, role, users } => {
                encode(request, &message::SetMembers { room, role: *role, users: names(users), extensions }, out);
            }
            Self::RemoveMembers { room, users } => {
                encode(request, &message::RemoveMembers { room, users: names(users), extensions }, out);
            }
            Self::Members { room, after, limit } => {
                let after = after.as_deref();
                encode(request, &message::ListMembers { room, after, limit: *limit, extensions }, out);
            }
            &Self::Rooms { before, limit } => encode(request, &message::ListRooms { before, limit, extensions }, out),
            Self::OpenDirect { user } => encode(request, &message::OpenDirect { user, extensions }, out),
            Self::Presence { users } => {
                encode(request, &message::QueryPresence { users: names(users), extensions }, out);
            }
            Self::WatchUsers { add, remove } => {
                let (add, remove) = (names(add), names(remove));
                encode(request, &message::WatchPresence { add, remove, extensions }, out);
            }
        }
    }

    /// Makes the answer of a frame; `None` if it is none to this question. `own` says whether a record is this device's.
    pub(super) fn answer(
        &self,
        frame: &Incoming<'_>,
        messages: &mut Messages,
        own: impl Fn(&message::Deliver<'_>) -> bool,
    ) -> Result<Option<Answer>, WireError> {
        Ok(Some(match (self, frame) {
            (Self::Page { .. }, Incoming::Page(page)) => Answer::Page(messages.page(page, own)?),
            (Self::Readers { .. }, Incoming::Readers(readers)) => {
                Answer::Readers(readers.readers.0.iter().map(Reader::of).collect::<Result<_, _>>()?)
            }
            (Self::Standing, Incoming::Marked(marked)) => Answer::Standing(Standing::of(marked)),
            (
                Self::Configure { .. }
                | Self::Delete { .. }
                | Self::SetMembers { .. }
                | Self::RemoveMembers { .. }
                | Self::UnwatchRoom,
                Incoming::Done,
            ) => Answer::Done,
            (Self::Create { .. } | Self::Describe { .. } | Self::OpenDirect { .. }, Incoming::RoomInfo(room)) => {
                Answer::Room(RoomDetails::of(room)?)
            }
            (Self::Members { .. }, Incoming::Members(members)) => Answer::Members(Members::of(members)?),
            (Self::Rooms { .. }, Incoming::Rooms(rooms)) => Answer::Rooms(Rooms::of(rooms, messages, own)?),
            (Self::Presence { .. } | Self::WatchUsers { .. }, Incoming::Presence(presence)) => {
                Answer::Users(UserPresence::all_of(presence)?)
            }
            (Self::WatchRoom, Incoming::RoomPresence(presence)) => Answer::InRoom(RoomPresence::of(presence)?),
            _ => return Ok(None),
        }))
    }
}

fn names<const MAX: usize>(names: &[Name]) -> List<&str, MAX> {
    List(names.iter().map(|name| &**name).collect())
}

macro_rules! answers {
    ($($variant:ident => $type:ty),* $(,)?) => {$(
        impl TryFrom<Answer> for $type {
            type Error = Answer;

            fn try_from(answer: Answer) -> Result<Self, Answer> {
                if let Answer::$variant(it) = answer { Ok(it) } else { Err(answer) }
            }
        }
    )*};
}

answers! {
    Page => Page,
    Readers => Vec<Reader>,
    Standing => Standing,
    Room => RoomDetails,
    Members => Members,
    Rooms => Rooms,
    Users => Vec<UserPresence>,
    InRoom => RoomPresence,
}

impl TryFrom<Answer> for () {
    type Error = Answer;

    fn try_from(answer: Answer) -> Result<Self, Answer> {
        if let Answer::Done = answer { Ok(()) } else { Err(answer) }
    }
}
