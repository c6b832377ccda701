//! What a relay's state wants done, and what it is asked for.

use parlor_protocol::{Code, Name, Nonce, RoomNumber, Seq, message::Position};

use crate::{message::Conn, port::DeviceKey};

/// What a relay wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell the room's channel that this subscriber can take more.
    Pull {
        /// Which room.
        room: RoomNumber,
        /// Which subscriber.
        conn: Conn,
        /// Its cursor.
        after: Seq,
    },
    /// Tell the room's channel that a subscriber of this device is gone.
    Detached {
        /// Which room.
        room: RoomNumber,
        /// Its device.
        device: DeviceKey,
    },
    /// Tell the connection's session how its join ended.
    JoinEnded {
        /// Which connection.
        conn: Conn,
        /// Which request.
        request: u32,
        /// Of which room, where the request is about several.
        asked: Option<RoomNumber>,
        /// The room, or why the join was refused.
        room: Result<(RoomNumber, Name), Code>,
    },
    /// Tell the connection's session that it is no longer attached to a room.
    Lost {
        /// Which connection.
        conn: Conn,
        /// Which room, and where its client stands there when it reads of this.
        stands: Position,
    },
    /// Tell the connection's session that fewer requests wait for an answer, or fewer answers for the socket.
    Answered(Conn),
    /// Tell the room's channel that a user's device has received everything up to here.
    Delivered {
        /// Which room.
        room: RoomNumber,
        /// Whose device.
        user: Name,
        /// Up to here.
        seq: Seq,
    },
    /// Ask the supervisor to wake a room.
    Wake(RoomNumber),
    /// Tell the supervisor that a room that sleeps has no subscribers here any more.
    Forgot(RoomNumber),
    /// The connection has had its last frame: end it once that is written.
    Finish(Conn),
    /// The connection had its last frame long ago and does not read it: end it now.
    Kill(Conn),
}

/// A request that a channel or the supervisor has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its number.
    pub request: u32,
    /// The room, once it is known.
    pub room: Option<RoomNumber>,
    /// What it asks for.
    pub asks: Asks,
}

impl Pending {
    /// Whether the server wants it by itself, so that its number is none of the client's.
    pub(super) fn is_unasked(&self) -> bool {
        self.request == 0 && self.asks == Asks::Follow
    }

    /// Whether it is a join of one kind or another.
    pub(super) fn is_join(&self) -> bool {
        matches!(self.asks, Asks::Join | Asks::Resume(_) | Asks::Follow)
    }

    pub(super) fn is(&self, room: RoomNumber, asks: Asks) -> bool {
        self.room == Some(room) && self.asks == asks
    }
}

/// What a pending request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// To join.
    Join,
    /// To join a room that the session was in, behind this seq. One request asks for several.
    Resume(Seq),
    /// To join rooms of the session's user, all in one request, or as he is added: the session alone hears of refusals.
    Follow,
    /// To publish, under this nonce.
    Publish(Nonce),
    /// To read.
    Fetch,
    /// About rooms, members and presence: answered with one frame.
    Rooms,
    /// To have a cursor moved.
    Mark,
}
