//! What can go wrong, from where the application stands.

use std::{io, time::Duration};

use parlor_protocol::{Advice, Code, NameError};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The configuration cannot work with any server.
    #[error("the client's configuration cannot work: {0}")]
    InvalidConfig(&'static str),
    /// No connection could be made.
    #[error("no connection to {server}: {source}")]
    Unreachable {
        /// The server as configured.
        server: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server took the connection and did not say welcome in time.
    #[error("{server} did not say welcome within {}", millis(*.within))]
    HandshakeTimeout {
        /// The server as configured.
        server: String,
        /// The time that it had.
        within: Duration,
    },
    /// The server closed the connection and said why.
    #[error("{server} closed the connection: {code}: {message}")]
    Refused {
        /// The server as configured.
        server: String,
        /// Why; its range says whether to come back.
        code: Code,
        /// Why, for a person.
        message: String,
        /// Not before this time, if the code says "later".
        retry_after: Duration,
    },
    /// The connection ended without a reason.
    #[error("the connection to {server} was lost: {reason}")]
    Lost {
        /// The server as configured.
        server: String,
        /// What was seen of it.
        reason: String,
    },
    /// The server sent something that this client cannot read.
    #[error("{server} does not speak this protocol: {what}")]
    Protocol {
        /// The server as configured.
        server: String,
        /// What was wrong.
        what: String,
    },
    /// The client's task was stopped, as when its runtime shuts down.
    #[error("the client's task was stopped")]
    Stopped,
}

impl ConnectError {
    /// Whether the same attempt may succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::HandshakeTimeout { .. } | Self::Lost { .. } => true,
            Self::Refused { code, .. } => comes_back(*code),
            Self::InvalidConfig(_) | Self::Protocol { .. } | Self::Stopped => false,
        }
    }
}

/// Whether a close with this code lets the client come back. A number that has no business in a close is obeyed by its
/// range all the same.
pub(super) fn comes_back(code: Code) -> bool {
    matches!(code.advice(), Advice::ReconnectNow | Advice::ReconnectLater | Advice::RetryLater)
}

/// Why a request failed: a join, a leave, a question about a room or its members, a mark or a signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// What should be the name of a room or a user is none.
    #[error("not a name: {0}")]
    InvalidName(#[from] NameError),
    /// This client has joined that room already, or is about to.
    #[error("the room is joined already")]
    AlreadyJoined,
    /// The room was left, or is being left.
    #[error("the room was left")]
    NotJoined,
    /// What is kept for the room cannot be read, so it is not joined: what is sent to it would overtake that.
    #[error("the outbox cannot be read: {0}")]
    Outbox(String),
    /// The connection broke before the answer, and the request is not asked again, since a second time could do harm. It may
    /// have been done or not: [`Client::room_info`](super::Client::room_info) tells how the room is now.
    #[error(
        "the answer was lost, so it may be done or not: ask for the room to see how it is now, before you try again"
    )]
    OutcomeUnknown,
    /// One request names at most 1,000 users.
    #[error("{given} users in one request, at most 1000 are allowed: send several requests")]
    TooManyUsers {
        /// How many were named.
        given: usize,
    },
    /// A signal's payload is longer than 512 bytes.
    #[error("{bytes} bytes of payload in a signal, at most 512 are allowed: send it as a message, or less of it")]
    SignalTooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// More requests wait for answers than [`Config::requests_max`](super::Config::requests_max) allows.
    #[error("too many requests wait for their answers: wait for some, or raise `requests_max`")]
    TooManyRequests,
    /// The server refused.
    #[error("the server refused: {code}: {message}")]
    Refused {
        /// Why.
        code: Code,
        /// Why, for a person.
        message: String,
        /// Not before this time, if the code says "later".
        retry_after: Duration,
    },
    /// The client is closed.
    #[error("the client is closed: {code}: {message}")]
    Closed {
        /// Why.
        code: Code,
        /// Why, for a person.
        message: String,
    },
}

impl RequestError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::TooManyRequests => true,
            Self::Refused { code, .. } => code.advice() == Advice::RetryLater,
            Self::InvalidName(_)
            | Self::AlreadyJoined
            | Self::NotJoined
            | Self::Outbox(_)
            | Self::OutcomeUnknown
            | Self::TooManyUsers { .. }
            | Self::SignalTooLarge { .. }
            | Self::Closed { .. } => false,
        }
    }

    /// How long to wait before the same request, if the server said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } if self.is_temporary() => Some(*retry_after),
            _ => None,
        }
    }

    /// The server's code, if it refused or ended the client.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } | Self::Closed { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Why a message was not sent, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// More messages wait than [`Config::outbox_messages_max`](super::Config::outbox_messages_max) allows; this one was
    /// not taken.
    #[error("the outbox is full")]
    OutboxFull,
    /// The server did not answer, however often it was asked. The message may be stored or not. It stays in the outbox, and
    /// the newer ones of its room behind it: they go out again with the next send to the room, and after a reconnect. So do
    /// not send its text once more. If it is delivered, that is the room's event of it.
    #[error("the server did not answer in time; the message stays in the outbox")]
    Busy,
    /// The outbox on disk could not take the message; it was not sent.
    #[error("the message could not be kept, and was not sent: {0}")]
    NotKept(String),
    /// The server refused for good; nothing was stored.
    #[error("the server refused the message: {code}: {message}")]
    Refused {
        /// Why.
        code: Code,
        /// Why, for a person.
        message: String,
    },
    /// The room was left, or is being left.
    #[error("the room was left")]
    NotJoined,
    /// The client is closed, or its user was put out of the room. If the message was on its way, it may be stored.
    #[error("the room or the client is closed: {code}: {message}")]
    Closed {
        /// Why.
        code: Code,
        /// Why, for a person.
        message: String,
    },
}

impl PublishError {
    /// Whether the same message may be taken later. Not [`Busy`](Self::Busy): it is in the outbox.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::OutboxFull)
    }
}

fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
