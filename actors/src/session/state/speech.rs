//! What a session is told, and what it wants done.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use parlor_protocol::{
    Code, Name, Nonce, RoomNumber,
    message::{JoinFrom, Position},
};

use super::{Asked, Wanted};
use crate::{
    channel,
    members::{Changed, Look, Refusal, Seen},
    message::{Join, Signal},
    relay::state::Pending,
};

/// What a session is told.
#[derive(Debug)]
pub enum Input {
    /// Its client sent a frame.
    Frame {
        /// The frame's kind.
        kind: u16,
        /// The frame's request.
        request: u32,
        /// Whether a request of that number still waits for its answer.
        reused: bool,
        /// The frame's body.
        body: Bytes,
    },
    /// The supervisor found the room of a join, or says why not.
    Resolved {
        /// The join.
        request: u32,
        /// The room that the session was in before.
        resumes: Option<RoomNumber>,
        /// The room.
        room: Result<RoomNumber, (Code, &'static str)>,
    },
    /// A join was answered.
    JoinEnded {
        /// The join.
        request: u32,
        /// Of which room, where the request is about several.
        asked: Option<RoomNumber>,
        /// The room, or why it was refused.
        room: Result<(RoomNumber, Name), Code>,
    },
    /// A change that its client wanted was made, or refused.
    Changed {
        /// The request.
        request: u32,
        /// What became of it.
        outcome: Result<Changed, Refusal>,
    },
    /// A question of its client's was answered, or refused.
    Seen {
        /// The request.
        request: u32,
        /// The answer.
        seen: Result<Seen, Refusal>,
    },
    /// Its user was added to a room: the session follows.
    Added {
        /// The room.
        room: RoomNumber,
        /// Its name.
        name: Name,
        /// Where delivery begins.
        from: JoinFrom,
    },
    /// A room put the session out. Its client stands here when it reads of that.
    Lost(Position),
    /// The time that [`State::deadline`](super::State::deadline) named has come.
    Timer {
        /// Whether the session owes its client answers, for which it may have stopped reading. A `Follow` is none of those:
        /// it waits for rooms that cannot be loaded for as long as it takes, and its client has to prove that it lives.
        owes: bool,
    },
    /// It has to go, for another session. If that is its own, over another connection, what is left of it is handed over.
    End(Code),
    /// Its device's sessions kept failing: it may come back after so many milliseconds.
    PutOff(u64),
    /// The host puts it out, for this reason.
    Kick(Arc<str>),
}

/// What a session wants done.
#[derive(Debug)]
pub enum Effect {
    /// Refuse a request that is not pending.
    Error {
        /// Which.
        request: u32,
        /// Why.
        code: Code,
        /// For a person.
        message: String,
    },
    /// A request begins to wait for somebody else's answer.
    Begin(Pending),
    /// Ask the supervisor for a room.
    Resolve {
        /// For which join.
        request: u32,
        /// The room that the session was in before; it is not created.
        resumes: Option<RoomNumber>,
        /// Its name.
        name: Name,
    },
    /// A join's room is known: tell the relay, then the channel.
    Join(RoomNumber, Join),
    /// Refuse a pending request.
    Refuse {
        /// Which.
        request: u32,
        /// About which room, where it is about several.
        room: Option<RoomNumber>,
        /// Why.
        code: Code,
        /// For a person.
        message: &'static str,
    },
    /// Tell a room's channel.
    Channel {
        /// Of which request.
        request: u32,
        /// Which room.
        room: RoomNumber,
        /// What.
        input: channel::state::Input,
    },
    /// Answer a part of a long message that others of it are missing.
    PartTaken {
        /// Which request.
        request: u32,
        /// Of which room.
        room: RoomNumber,
        /// Of which message.
        nonce: Nonce,
        /// Which ones.
        missing: Vec<u32>,
    },
    /// Give it [`Input::Timer`] at [`State::deadline`](super::State::deadline), which is sooner than before.
    Arm,
    /// Detach from a room and answer.
    Leave {
        /// Which request.
        request: u32,
        /// Which room.
        room: RoomNumber,
    },
    /// Ask the supervisor to change a room.
    Change {
        /// For which request.
        request: u32,
        /// How.
        wanted: Wanted,
    },
    /// Ask the store about rooms.
    Look {
        /// For which request.
        request: u32,
        /// What.
        look: Look,
    },
    /// Answer a pending request.
    Answer {
        /// Which.
        request: u32,
        /// The frame.
        frame: Bytes,
    },
    /// Bring a signal to all sessions of a user.
    SignalUser {
        /// Whom.
        user: Name,
        /// What.
        signal: Signal,
    },
    /// Count a signal that is not brought to anybody: there were too many.
    SignalDropped,
    /// Answer what its client asks about presence.
    Presence {
        /// Which request.
        request: u32,
        /// What.
        asked: Asked,
    },
    /// Answer a beat, and pull what lags.
    BeatAck {
        /// Which request.
        request: u32,
        /// The grant.
        grant_ms: u32,
        /// How far the client has received its rooms.
        positions: Vec<Position>,
    },
    /// Say that a room is not attached, which the client wanted to go on with.
    NotResumed {
        /// Which request.
        request: u32,
        /// Where the client stands.
        position: Position,
        /// Why.
        code: Code,
        /// For a person.
        message: &'static str,
    },
    /// Say that the session wants to hear of rooms that its user is added to.
    Follow,
    /// Hand what [`State::park`](super::State::park) leaves to the supervisor.
    HandOver,
    /// End the connection.
    Close {
        /// Why.
        code: Code,
        /// For a person.
        message: Cow<'static, str>,
        /// When its client may come back, if it is to wait.
        retry_after_ms: u32,
        /// The goodbye that this answers, as soon as everything accepted is answered; `None` for at once.
        goodbye: Option<u32>,
    },
}
