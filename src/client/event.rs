//! What the application sends and receives.

use std::time::Duration;

use bytes::Bytes;
use parlor_protocol::{
    Code, DeviceTag, Epoch, Name, Nonce, RoomNumber, Seq, UnixMillis,
    message::{self, ContentType, Durability, GapReason, PageGap, RecordKind},
};

use super::{
    change::{Change, Changes},
    presence::RoomPresence,
    reading::Standing,
    signal::Signal,
};

/// What happens in a room, in order. Every record comes once, or a [`Gap`] says that it will not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A record.
    Message(Message),
    /// Records that will not come.
    Gap(Gap),
    /// Where the user's read cursor of the room stands: what a mark came to, or that he has read on on another device. Comes
    /// behind all records that wait, and only the newest.
    Marked(Standing),
    /// Who is in the room, if that is [watched](super::Room::watch_presence). Comes behind all records that wait, and what
    /// waits is one change.
    Presence(RoomPresence),
    /// Somebody signals in the room. Comes behind all records that wait; of one sender and key only the newest, and no more
    /// than 64.
    Signal(Signal),
    /// The connection was lost. The client comes back on its own; sends wait meanwhile.
    Disconnected {
        /// Why, for a person.
        reason: String,
    },
    /// The room is attached again; what was missed follows.
    Reconnected,
    /// The last event: the client, or its membership of this room, is over.
    Closed {
        /// Why.
        code: Code,
        /// Why, for a person.
        message: String,
    },
}

/// A record of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its number in the room's epoch.
    pub seq: Seq,
    /// When the server accepted it, in Unix milliseconds.
    pub time: UnixMillis,
    /// Who said it.
    pub sender: Name,
    /// On which of the sender's devices.
    pub device_tag: DeviceTag,
    /// The device's nonce for it.
    pub nonce: Nonce,
    /// What it is. Show what you know and keep the seq of what you do not.
    pub kind: RecordKind,
    /// The record that it changes; 0 for none.
    pub refers_to: Seq,
    /// From when on it may not be read, in Unix milliseconds; 0 for never.
    pub expires: UnixMillis,
    /// How many countable records the room holds up to and with this one.
    pub count: u64,
    /// How to read the payload.
    pub content_type: ContentType,
    /// What is said.
    pub payload: Bytes,
    /// Whether this user said it on this device.
    pub own: bool,
    /// What was changed in it.
    pub changes: Changes,
}

impl Message {
    /// The payload as text; `None` if it is something else or is not UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        (self.content_type == ContentType::TEXT).then(|| std::str::from_utf8(&self.payload).ok()).flatten()
    }
}

/// Records that will not come: `from` to `to`. Behind it the position is `(epoch, to)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The room's epoch.
    pub epoch: Epoch,
    /// The first seq that will not come; `to + 1` if only the position changes.
    pub from: Seq,
    /// The last seq that will not come.
    pub to: Seq,
    /// Why.
    pub why: GapReason,
}

/// A page of a room's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The records, oldest first.
    pub messages: Vec<Message>,
    /// The stretches of seqs within the page that cannot be read, oldest first.
    pub gaps: Vec<PageGap>,
    /// Where to go on in the same direction; `None` at the end.
    pub next: Option<Seq>,
    /// The seq of the newest stored record.
    pub tail: Seq,
    /// The room's epoch.
    pub epoch: Epoch,
}

/// A room as it was when it was joined, or attached by following.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomInfo {
    /// The number by which frames name it.
    pub number: RoomNumber,
    /// Its epoch.
    pub epoch: Epoch,
    /// The seq of the newest stored record; 0 in an empty room.
    pub tail: Seq,
    /// The seq of the oldest record that can still be read; `tail + 1` if there is none.
    pub first: Seq,
    /// Delivery begins behind this seq.
    pub cursor: Seq,
    /// How many countable records it holds.
    pub count: u64,
    /// The user has read everything up to here, on whichever device.
    pub read: Seq,
    /// How many countable records he has not read.
    pub unread: u64,
    /// What an ack means in it.
    pub durability: Durability,
}

impl RoomInfo {
    pub(super) fn of(joined: &message::Joined<'_>) -> Self {
        let &message::Joined { room: number, epoch, tail, first, cursor, count, read, unread, durability, .. } = joined;
        Self { number, epoch, tail, first, cursor, count, read, unread, durability }
    }

    pub(super) fn of_attached(it: &message::Attached<'_>) -> Self {
        let &message::Attached { room: number, epoch, tail, first, cursor, count, read, unread, durability, .. } = it;
        Self { number, epoch, tail, first, cursor, count, read, unread, durability }
    }
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// How to read the payload.
    pub content_type: ContentType,
    /// What is said; may be empty.
    pub payload: Bytes,
    /// Do not raise the room's count of messages.
    pub silent: bool,
    /// For how long it may be read, in milliseconds, if that is shorter than the room's lifetime; `None` for as long as the
    /// room allows. Of no effect on a change.
    pub lifetime_ms: Option<u64>,
    /// What it changes; `None` for a message.
    pub change: Option<Change>,
}

impl Outgoing {
    /// A text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { content_type: ContentType::TEXT, ..Self::bytes(text.into()) }
    }

    /// Bytes whose meaning the clients know.
    #[must_use]
    pub fn bytes(payload: impl Into<Bytes>) -> Self {
        let (content_type, payload) = (ContentType::OPAQUE, payload.into());
        Self { content_type, payload, silent: false, lifetime_ms: None, change: None }
    }
}

/// A message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// Its nonce, by which its delivery is known.
    pub nonce: Nonce,
    /// The room's epoch.
    pub epoch: Epoch,
    /// Its number in the room.
    pub seq: Seq,
    /// When the server accepted it, in Unix milliseconds.
    pub time: UnixMillis,
    /// How safely it is stored.
    pub durability: Durability,
    /// Whether an earlier try of this send had stored it.
    pub duplicate: bool,
}

/// What a client has counted since it was made, over all rooms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records received and handed to the application.
    pub messages: u64,
    /// Records that came again and were dropped.
    pub duplicates: u64,
    /// Times that live records jumped ahead and the client fetched what was missing.
    pub holes: u64,
    /// Records that came of themselves after later ones.
    pub late: u64,
    /// Gaps told to the application.
    pub gaps: u64,
    /// Connections that were welcomed, the first one included.
    pub connections: u64,
    /// Publishes sent again because no ack came in time.
    pub resends: u64,
    /// Publishes refused for the moment and to be sent again.
    pub refusals: u64,
    /// How many of these because the server limits how fast one may send.
    pub rate_limited: u64,
    /// Times that a message that is done with could not be taken out of [`Config::outbox`](super::Config::outbox).
    pub outbox_errors: u64,
    /// From the last heartbeat to its answer; `None` before the first.
    pub round_trip: Option<Duration>,
}
