//! The messages of version 1, field by field in wire order. `PROTOCOL.md` says what they mean; a test keeps its tables
//! in step with these files.

use crate::{
    codec::{Body, Extensions},
    frame::Kind,
};

pub use self::{change::*, presence::*, receipt::*, record::*, room::*, rooms::*, session::*, upload::*};

mod change;
mod presence;
mod receipt;
mod record;
mod room;
mod rooms;
mod session;
mod upload;

macro_rules! bodies {
    ($($name:ident $(<$life:lifetime>)?),* $(,)?) => {
        $(bodies!(@ $name $($life)?);)*

        /// Every message with its kind, as `(kind, name)`.
        pub const BODIES: &[(Kind, &str)] = &[$((Kind::$name, stringify!($name))),*];
    };
    (@ $name:ident $life:lifetime) => {
        impl<$life> Body<$life> for $name<$life> {
            const KIND: Kind = Kind::$name;

            fn extensions(&self) -> &Extensions<$life> {
                &self.extensions
            }
        }
    };
}

bodies! {
    Hello<'a>, Welcome<'a>, Goodbye<'a>, Close<'a>, Resume<'a>, Error<'a>, Join<'a>, Joined<'a>, Leave<'a>, Left<'a>, Follow<'a>,
    Attached<'a>, Publish<'a>,
    Ack<'a>, Deliver<'a>, Gap<'a>, Fetch<'a>, Page<'a>, Heartbeat<'a>, HeartbeatAck<'a>,
    Mark<'a>, Marked<'a>, FetchReaders<'a>, Readers<'a>, Signal<'a>, Signaled<'a>,
    Part<'a>, PartTaken<'a>,
    CreateRoom<'a>, Done<'a>, ConfigureRoom<'a>, Detached<'a>, DeleteRoom<'a>, RoomInfo<'a>, DescribeRoom<'a>,
    Members<'a>, SetMembers<'a>, Rooms<'a>, RemoveMembers<'a>, ListMembers<'a>, ListRooms<'a>, OpenDirect<'a>,
    QueryPresence<'a>, Presence<'a>, WatchPresence<'a>, WatchRoom<'a>, RoomPresence<'a>,
}
