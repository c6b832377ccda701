//! How far users have read.

use parlor_protocol::{Name, NameError, Seq, message};

use super::{Membership, Room, error::RequestError, question::Question, shared::Command};

/// How far this user has read a room, on whichever device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// He has read everything up to here.
    pub read: Seq,
    /// How many countable records he has not read, when the server said so.
    pub unread: u64,
}

/// How far one user of a room is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Who.
    pub user: Name,
    /// He has read everything up to here.
    pub read: Seq,
    /// One of his devices has received everything up to here.
    pub delivered: Seq,
}

impl Room {
    /// The user has read everything up to `seq`. Cheap: call it with every message that is shown. The newest goes out, at
    /// most once a second, and again after a reconnect if the server missed it; what comes of it is
    /// [`Event::Marked`](super::Event::Marked). What this client does not hold yet is not marked before it does.
    ///
    /// # Errors
    /// If the client is closed.
    pub fn mark_read(&self, seq: Seq) -> Result<(), RequestError> {
        let Membership { handle, key } = &*self.inner.membership;
        if self.inner.events.want_mark(seq) { handle.command(Command::Mark(*key)) } else { Ok(()) }
    }

    /// How far this user has read the room and what is unread, as the server knows it now. While disconnected it waits.
    ///
    /// # Errors
    /// If the server refuses, the room was left or the client is closed.
    pub async fn standing(&self) -> Result<Standing, RequestError> {
        let Membership { handle, key } = &*self.inner.membership;
        handle.ask(Some(*key), Question::Standing).await
    }

    /// Who has read the room up to `seq` or further; with 0, all whose cursors are known. For rooms of up to 1,000 readers.
    /// While disconnected it waits.
    ///
    /// # Errors
    /// If the server refuses, the room was left or the client is closed.
    pub async fn readers(&self, seq: Seq) -> Result<Vec<Reader>, RequestError> {
        let Membership { handle, key } = &*self.inner.membership;
        handle.ask(Some(*key), Question::Readers { seq }).await
    }
}

impl Standing {
    pub(super) fn of(marked: &message::Marked<'_>) -> Self {
        Self { read: marked.read, unread: marked.unread }
    }
}

impl Reader {
    pub(super) fn of(reader: &message::Reader<'_>) -> Result<Self, NameError> {
        let message::Reader { user, read, delivered } = *reader;
        Ok(Self { user: Name::parse(user)?, read, delivered })
    }
}
