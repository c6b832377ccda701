//! What actors say to one another, besides what a state machine's own `Input` holds.

use std::sync::Arc;

use bytes::Bytes;
use parlor_protocol::{
    Code, Epoch, Name, Nonce, Seq, UnixMillis,
    message::{Direction, Durability, JoinFrom, RecordKind},
};

use crate::{
    port::{DeviceKey, EpochStart, Mark},
    tiers::TierNumber,
};

/// A connection: which arbiter has it, and where there. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn {
    /// The arbiter's number.
    pub arbiter: u16,
    /// The connection's place in the arbiter's table.
    pub slot: u32,
    /// Tells it from others that had the place before.
    pub serial: u64,
}

/// A request to attach a connection to a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Whose.
    pub conn: Conn,
    /// Which request.
    pub request: u32,
    /// The session's device.
    pub device: DeviceKey,
    /// Where delivery begins.
    pub from: JoinFrom,
    /// The session follows its user, and its client may not have heard of the room.
    pub follows: bool,
}

/// A message on its way to a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Whose.
    pub conn: Conn,
    /// Which request.
    pub request: u32,
    /// The session's device.
    pub device: DeviceKey,
    /// The user's tier.
    pub tier: TierNumber,
    /// The device's nonce.
    pub nonce: Nonce,
    /// What it is.
    pub kind: RecordKind,
    /// The record that it changes; 0 for none.
    pub refers_to: Seq,
    /// In which epoch that stands; 0, which is none, if its client does not say.
    pub epoch: Epoch,
    /// How long it may be read, if shorter than the room's lifetime.
    pub lifetime_ms: Option<u64>,
    /// Whether it leaves the room's count as it is.
    pub silent: bool,
    /// Whether a reaction is taken back.
    pub remove: bool,
    /// How to read the payload.
    pub content_type: u16,
    /// What is said.
    pub payload: Bytes,
}

impl Publish {
    /// Whether it raises the room's count: messages do, except silent ones; changes do not.
    #[must_use]
    pub fn is_countable(&self) -> bool {
        self.kind == RecordKind::MESSAGE && !self.silent
    }
}

/// A request for a page of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Whose.
    pub conn: Conn,
    /// Which request.
    pub request: u32,
    /// The session's device.
    pub device: DeviceKey,
    /// The first seq to read.
    pub start: Option<Seq>,
    /// Which way.
    pub direction: Direction,
    /// The most records; 0 for the usual page.
    pub limit: u32,
}

/// A user has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkRead {
    /// Whose session says so.
    pub conn: Conn,
    /// Which request.
    pub request: u32,
    /// The session's device.
    pub device: DeviceKey,
    /// He has read everything up to here.
    pub read: Seq,
}

/// A request for who has read a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchReaders {
    /// Whose.
    pub conn: Conn,
    /// Which request.
    pub request: u32,
    /// Who has read up to here, or further.
    pub seq: Seq,
}

/// Something on its way that is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// The connection that sent it, which does not get it; `None` if the host did.
    pub conn: Option<Conn>,
    /// Which request, to be told if it is refused; 0 for never.
    pub request: u32,
    /// The sender's device.
    pub device: DeviceKey,
    /// What it is about.
    pub key: u32,
    /// The frame, one for all receivers.
    pub frame: Bytes,
}

/// Records that were committed together: one for all subscribers of an arbiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The first record's seq.
    pub first: Seq,
    /// The last record's seq.
    pub last: Seq,
    /// Their `Deliver` frames, one behind the other.
    pub frames: Bytes,
}

/// The answer to a publish that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Whose publish.
    pub conn: Conn,
    /// Which request.
    pub request: u32,
    /// Its nonce.
    pub nonce: Nonce,
    /// Its seq.
    pub seq: Seq,
    /// Its time.
    pub time: UnixMillis,
    /// Whether an earlier publish stored it.
    pub duplicate: bool,
}

/// A new subscriber, from the channel to the relay of its arbiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Which connection.
    pub conn: Conn,
    /// Its join.
    pub request: u32,
    /// Its device, for the channel to know when it leaves.
    pub device: DeviceKey,
    /// Whether its user is a member of the room…
    pub member: bool,
    /// …and how far the room was when he came as a stranger.
    pub met: Mark,
    /// The room's name.
    pub name: Name,
    /// The room's epoch.
    pub epoch: Epoch,
    /// The newest committed seq: batches above it follow.
    pub tail: Seq,
    /// Delivery begins behind this seq.
    pub cursor: Seq,
    /// The `Joined` frame, and a `Gap` if the join asked for what is not there.
    pub answer: Bytes,
}

/// A subscriber of a channel that is no more, as its relay tells the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returning {
    /// Its device.
    pub device: DeviceKey,
    /// Whether its user was a member, as that channel knew last…
    pub member: bool,
    /// …and how far the room was when he came as a stranger.
    pub met: Mark,
}

/// From whom the past is hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// The subscriber's device.
    pub device: DeviceKey,
    /// The first seq that it may read.
    pub first: Seq,
}

/// What a relay hears from channels, through its arbiter's mailbox.
#[derive(Debug, PartialEq, Eq)]
pub enum FromChannel {
    /// A subscriber joins.
    Attach(Attach),
    /// Records are committed, and publishes of this arbiter's connections with them.
    Committed {
        /// The records, if the arbiter has subscribers.
        batch: Option<Batch>,
        /// What an ack means in this room.
        durability: Durability,
        /// The answers.
        stored: Vec<Stored>,
    },
    /// A request was refused.
    Refused {
        /// Whose.
        conn: Conn,
        /// Which.
        request: u32,
        /// Why.
        code: Code,
        /// Not before this.
        retry_after_ms: u32,
        /// For a person.
        message: &'static str,
    },
    /// A whole answer.
    Answer {
        /// Whose request.
        conn: Conn,
        /// Which.
        request: u32,
        /// The frame.
        frame: Bytes,
    },
    /// A signal for the room's subscribers.
    Signal(Signal),
    /// A signal was refused: no request of it is pending.
    SignalRefused {
        /// Whose.
        conn: Conn,
        /// Which request.
        request: u32,
        /// Why.
        code: Code,
        /// For a person.
        message: &'static str,
    },
    /// A frame for some of the room's subscribers, which nobody asked for, and which is all that counts: one that was not read
    /// before it need not come.
    Notice {
        /// Which connections, if they are still attached.
        conns: Vec<Conn>,
        /// The frame.
        frame: Bytes,
    },
    /// What subscribers whose cursor is `after` pulled.
    Pulled {
        /// Which subscribers.
        conns: Vec<Conn>,
        /// Their cursor.
        after: Seq,
        /// The frames up to `last`, or `None` if the store could not say now.
        page: Option<(Seq, Bytes)>,
    },
    /// These users were removed, or may no longer be in the room.
    Detach {
        /// Who.
        users: Arc<[Name]>,
        /// Why.
        code: Code,
        /// For a person.
        message: &'static str,
    },
    /// These users, whose subscribers came as strangers, are members now.
    Members(Arc<[Name]>),
    /// From these subscribers some of the past is hidden from now on.
    Hide(Arc<[Hidden]>),
    /// A rebuilt channel has taken up the arbiter's subscribers.
    Adopted {
        /// The room's epochs, oldest first.
        epochs: Vec<EpochStart>,
        /// The oldest readable seq.
        first: Seq,
        /// What is gone below this seq did not expire.
        trimmed: Seq,
        /// The newest committed seq: batches above it follow.
        tail: Seq,
    },
}
