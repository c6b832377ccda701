//! Errors and closes by number. The number's range alone tells a client what to do, so that a client can obey codes
//! that it does not know.

use std::fmt;

use crate::codec::{BorrowDecode, Encode};

/// What a client does about a [`Code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Advice {
    /// 1000–1999, errors: the same request may succeed later; a publish is retried with the same nonce.
    RetryLater,
    /// 2000–2999, errors: the same request will be refused again.
    DoNotRetry,
    /// 3000–3499, closes: connect again now (with the usual back-off).
    ReconnectNow,
    /// 3500–3999, closes: connect again after the time that the close names.
    ReconnectLater,
    /// 4000–4499, closes: do not connect again without a change (of the client, the credentials, the user's mind).
    DoNotReconnect,
    /// Any other number: the connection is no longer needed.
    None,
}

/// Why a request was refused or a connection closed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub struct Code(pub u16);

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal),* $(,)?) => {
        #[allow(non_upper_case_globals, reason = "codes read as the variants that they would be if they were closed")]
        impl Code {
            $($(#[doc = $doc])* pub const $name: Self = Self($number);)*

            /// Every code of version 1 with its name.
            pub const ALL: &[(Self, &str)] = &[$((Self::$name, stringify!($name))),*];
        }
    };
}

codes! {
    /// A queue of the server is full; nothing was stored.
    Busy = 1000,
    /// The user sends faster than allowed; nothing was stored.
    RateLimited = 1001,
    /// The write or its sync failed, or the room was rebuilt meanwhile: it may or may not be stored. Retry the same
    /// nonce to find out.
    OutcomeUnknown = 1002,
    /// The room is being rebuilt.
    RoomUnavailable = 1003,
    /// An earlier send of this device to this room was refused for now, so this one is too: send both again, in order.
    HeldBack = 1004,
    /// The store failed and takes no more writes until the server is restarted.
    StoreUnavailable = 1005,

    /// A name is empty, longer than 64 bytes, or has a control character.
    InvalidName = 2000,
    /// The session has not joined that room.
    NotJoined = 2001,
    /// The session has joined that room already, or is about to.
    AlreadyJoined = 2002,
    /// The payload is longer than `Welcome` or the room allows.
    TooLarge = 2003,
    /// The nonce was used for other content.
    NonceConflict = 2004,
    /// The nonce is below those that the server remembers, or was skipped; nothing was stored.
    NonceTooOld = 2005,
    /// The request asks for something that this server does not offer.
    Unsupported = 2006,
    /// The session has joined as many rooms as it may.
    TooManyRooms = 2007,
    /// The user may not do that.
    Forbidden = 2008,
    /// The room does not exist and this server does not create rooms at join.
    UnknownRoom = 2009,
    /// The record that a change refers to is not there: never stored, trimmed, expired or above the tail.
    TargetGone = 2010,
    /// The record that a change refers to is itself a change, or is a tombstone.
    NotChangeable = 2011,
    /// The time in which the record could be changed so is over.
    TooLate = 2012,
    /// The reaction is there already, or the one to take back is not.
    NoEffect = 2013,
    /// The record has as many reactions as it may, or different ones.
    TooManyReactions = 2014,
    /// A part of a long message contradicts itself, or the parts that came before it.
    InvalidPart = 2020,
    /// There is a room of that name.
    RoomExists = 2021,
    /// The room was deleted.
    RoomDeleted = 2022,
    /// The room has as many members as it may.
    TooManyMembers = 2023,
    /// The session watches as many users as it may.
    TooManyWatched = 2030,

    /// The client did not read what it was sent for too long. It lost nothing: join with the position.
    SlowReader = 3000,
    /// Nothing came from the client for three granted intervals.
    LeaseExpired = 3001,
    /// The client took too long to say hello, or to finish a frame that it had begun.
    TooSlow = 3002,
    /// The session's actor failed.
    Internal = 3003,

    /// The server shuts down.
    GoingAway = 3500,
    /// The server has as many connections as it may.
    TooManyConnections = 3501,
    /// The server's part for sessions of this device failed again and again.
    SessionsFail = 3502,

    /// A frame's body does not decode, or its flags are unknown.
    MalformedFrame = 4000,
    /// A frame claims to be longer than its kind may be.
    FrameTooLarge = 4001,
    /// A kind below 0x8000 that the server does not know, or that clients do not send.
    UnknownKind = 4002,
    /// The first frame was not a hello, or a later one was.
    HelloExpected = 4003,
    /// The hello does not begin with `PRLR`.
    BadMagic = 4004,
    /// The server speaks none of the versions that the client does.
    UnsupportedVersion = 4005,
    /// The credentials were refused.
    Unauthorized = 4006,
    /// The hello's user or device is not a name, or its credentials are too long.
    InvalidHello = 4007,
    /// The same device connected again.
    Replaced = 4008,
    /// The host put the session out.
    Kicked = 4009,

    /// The client said goodbye.
    Goodbye = 4500,
    /// The client took its session up on another connection.
    Superseded = 4501,
}

impl Code {
    /// What its range says.
    #[must_use]
    pub fn advice(self) -> Advice {
        match self.0 {
            1000..2000 => Advice::RetryLater,
            2000..3000 => Advice::DoNotRetry,
            3000..3500 => Advice::ReconnectNow,
            3500..4000 => Advice::ReconnectLater,
            4000..4500 => Advice::DoNotReconnect,
            _ => Advice::None,
        }
    }

    /// Its name, if version 1 knows it.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::ALL.iter().find(|(code, _)| *code == self).map(|(_, name)| *name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "code {}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_every_range_advises() {
        let mut seen = std::collections::HashSet::new();
        for (code, name) in Code::ALL {
            assert!(seen.insert(code.0), "{name} reuses {}", code.0);
            assert_eq!(code.name(), Some(*name));
        }
        assert_eq!(Code(1999).advice(), Advice::RetryLater);
        assert_eq!(Code(2999).advice(), Advice::DoNotRetry);
        assert_eq!(Code(3499).advice(), Advice::ReconnectNow);
        assert_eq!(Code(3500).advice(), Advice::ReconnectLater);
        assert_eq!(Code(4499).advice(), Advice::DoNotReconnect);
        assert_eq!(Code(4500).advice(), Advice::None);
    }
}
