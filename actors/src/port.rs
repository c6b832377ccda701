//! What the actors need from outside: a [`Store`] and a [`Clock`].
//!
//! The root crate implements `Store` on RocksDB; `testkit` has one in memory with seeded faults. No
//! method blocks: answers come back through [`Reply`] and [`Commits`], from threads of the store.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use parlor_protocol::{DeviceTag, Epoch, Name, Nonce, RoomNumber, Seq, UnixMillis};

pub use appending::{Append, AppendRecord, Commit, CommitNumber, Commits, Outcome, Rewrite};
pub use budget::{Budget, Place};
pub use parlor_protocol::message::RoomOptions;
pub use records::{Read, Records, Run, Target};

use crate::members::{Changed, Look, Member, Refusal, RoomChange, Seen, announcing::Announcement};

mod appending;
mod budget;
mod records;

/// Where an answer of the store goes. Called exactly once, from any thread, and must not block.
pub type Reply<T> = Box<dyn FnOnce(Result<T, StoreError>) + Send>;

/// Durable rooms.
///
/// [`load`](Store::load), [`append`](Store::append), [`sweep`](Store::sweep) and [`trim`](Store::trim) pass through one
/// writer in the order of their calls, so that a load sees every append before it. The other methods read.
pub trait Store: Send + Sync + 'static {
    /// Finds a room by its name, or creates it, and hands out a new generation: from here on appends of older
    /// generations of this room are refused.
    fn load(&self, load: Load, reply: Reply<Loaded>);

    /// What may wait for the writer. A record takes its place here before it is given a seq, so that a seq once given
    /// always finds room in the queue.
    fn budget(&self) -> &Arc<Budget>;

    /// Appends records to rooms, in this order. Each one's outcome goes to its `commits`.
    fn append(&self, appends: Vec<Append>);

    /// Reads records of a room, which the caller knows to be committed.
    fn read(&self, read: Read, reply: Reply<Records>);

    /// Stores how far users are in a room, behind everything appended before it; without a sync of its own. Refused as
    /// [`Superseded`](StoreError::Superseded) if another generation of the room has been loaded since, and as
    /// [`Busy`](StoreError::Busy) if a change of members is stored of which the channel has not heard: what it holds may be
    /// that of somebody who is no member any more.
    fn save_marks(&self, save: SaveMarks, reply: Reply<()>);

    /// Reads how far a user is in each of these rooms, in their order. What he sent counts as of his newest answer, so that
    /// it is right also where marks were not saved any more.
    fn marks(&self, user: Name, rooms: Vec<RoomNumber>, reply: Reply<Vec<Marks>>);

    /// Reads how far the users of a room are, if it knows at most so many people.
    fn room_marks(&self, room: RoomNumber, users_max: usize, reply: Reply<RoomMarks>);

    /// Reads one record to change it. `None` if it is not there. Rewrites not yet committed may be missing.
    fn target(&self, room: RoomNumber, seq: Seq, reply: Reply<Option<Target>>);

    /// Rewrites what is stored of a room's records from `first` to `last`, so that nothing is left of what was replaced or
    /// deleted there before. Answered when that is done; takes as long as writing those records' tables anew.
    fn purge(&self, room: RoomNumber, first: Seq, last: Seq, reply: Reply<()>);

    /// Reads what a device was answered in a room, with the slots that it lies in. Answers of records not yet committed may
    /// be missing, and so may those that a sweep let be forgotten.
    fn answers(&self, room: RoomNumber, device: DeviceKey, reply: Reply<Vec<(u8, Answer)>>);

    /// Deletes some of what has expired, behind every append before it. Takes bounded time: who is told of more comes
    /// again soon.
    fn sweep(&self, sweep: Sweep, reply: Reply<Swept>);

    /// Deletes the oldest records of a room that keeps only so many, behind every append before it.
    fn trim(&self, trim: Trim, reply: Reply<Trimmed>);

    /// Changes a room, or refuses to, behind every append and load before it; answered when the change is synced.
    fn change(&self, change: RoomChange, reply: Reply<Result<Changed, Refusal>>);

    /// Reads what a user is in a room; `None` for a stranger.
    fn member(&self, room: RoomNumber, user: Name, reply: Reply<Option<Member>>);

    /// Reads about rooms and members. What is found may be written and not yet synced: see [`settle`](Store::settle).
    fn look(&self, look: Look, reply: Reply<Result<Seen, Refusal>>);

    /// Answers once everything that can be read now is synced.
    fn settle(&self, reply: Reply<()>);
}

/// One incarnation of a channel: raised by every load of its room, so that a dead channel's late appends are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// Which room to load.
#[derive(Clone, Debug)]
pub struct Load {
    /// Its name.
    pub name: Name,
    /// How to create it if there is none; `None` leaves it uncreated and answers [`StoreError::UnknownRoom`].
    pub create: Option<RoomOptions>,
}

/// A room as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its number.
    pub room: RoomNumber,
    /// Its name.
    pub name: Name,
    /// What it was created with, or was last changed to.
    pub options: RoomOptions,
    /// This load's generation.
    pub generation: Generation,
    /// Its epochs, oldest first; the last one is the current. At least one.
    pub epochs: Vec<EpochStart>,
    /// The seq of the oldest record kept; `tail + 1` if there is none.
    pub first: Seq,
    /// The seq of the newest record; 0 if there never was one.
    pub tail: Seq,
    /// The newest record's count.
    pub count: u64,
    /// The newest record's time; 0 if there is none.
    pub time: UnixMillis,
    /// How many people it knows, the banned among them.
    pub known: u64,
    /// The number of the newest change of members in the store, of any room.
    pub change: u64,
    /// What of earlier changes of its members has yet to be recorded, oldest first.
    pub announcements: Vec<Announcement>,
    /// The count of the newest record that is gone on purpose, or that the room keeps no longer though it is there; 0 if none
    /// is.
    pub gone_count: u64,
    /// What is gone below this seq is gone because the room keeps only so much; what is gone from here up to `first` has
    /// expired.
    pub trimmed: Seq,
    /// The bytes of the frames before the oldest record, counted from any start…
    pub bytes_before: u64,
    /// …and up to and with the newest, counted from the same. From here on each appended frame adds its bytes, and each
    /// rewrite what its frame is longer than the one before, which may be less than nothing.
    pub bytes_upto: u64,
}

/// What to sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// What has expired by now may go.
    pub now: Now,
    /// The most records to look at.
    pub records_max: u32,
    /// Answers older than this may be forgotten, in milliseconds.
    pub dedupe_horizon_ms: u64,
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Rooms whose oldest records are gone, the oldest seq that each may still have, and the count of the newest record
    /// that is gone.
    pub rooms: Vec<(RoomNumber, Seq, u64)>,
    /// Whether there is more to do now.
    pub more: bool,
    /// Whether nothing is deleted because the wall clock cannot be trusted.
    pub paused: bool,
}

/// What a room is to keep.
#[derive(Clone, Copy, Debug)]
pub struct Trim {
    /// Which room.
    pub room: RoomNumber,
    /// The asking channel's generation.
    pub generation: Generation,
    /// Records below this seq go.
    pub first: Seq,
    /// So do the oldest until the frames of the rest have at most so many bytes; 0 for any number. The newest stays.
    pub bytes_max: u64,
}

/// What a room has kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// Everything below this seq is gone…
    pub first: Seq,
    /// …and what is gone above this one has expired: see [`Loaded::trimmed`].
    pub trimmed: Seq,
    /// The count of the newest record that is gone; 0 if none is.
    pub gone_count: u64,
    /// The bytes of all frames before it, counted like [`Loaded::bytes_before`].
    pub bytes_before: u64,
}

/// Where an epoch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// Which epoch.
    pub epoch: Epoch,
    /// The seq of its first record: what came before is of the epochs before it.
    pub first: Seq,
}

/// One device of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceKey {
    /// The user.
    pub user: Name,
    /// The device.
    pub tag: DeviceTag,
}

impl Hash for DeviceKey {
    /// The tag is a hash of the user and the device already.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tag.hash(state);
    }
}

/// What a device was answered for a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The nonce.
    pub nonce: Nonce,
    /// The seq that it was given.
    pub seq: Seq,
    /// The time that it was given.
    pub time: UnixMillis,
    /// A hash of the content, to tell a repeat from a conflict.
    pub content_hash: u64,
    /// The record's count; 0 if it was stored before counts were.
    pub count: u64,
}

/// A place in a room's log: a seq, and how many countable records there are up to and with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The seq; 0 for before the first.
    pub seq: Seq,
    /// The count there.
    pub count: u64,
}

/// How far a user is in a room, on all his devices together. Each only rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// He has read everything up to here.
    pub read: Mark,
    /// One of his devices has received everything up to here.
    pub delivered: Mark,
    /// The newest record that he sent.
    pub sent: Mark,
    /// The newest record when he became a member; what is older is not unread for him.
    pub since: Mark,
}

impl Marks {
    /// Takes what is higher in another's; true if anything is.
    pub fn merge(&mut self, other: &Self) -> bool {
        let before = *self;
        self.read = self.read.max(other.read);
        self.delivered = self.delivered.max(other.delivered);
        self.sent = self.sent.max(other.sent);
        self.since = self.since.max(other.since);
        *self != before
    }
}

/// How far the users of a room are, as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomMarks {
    /// Its members, the banned left out, each with his marks if he has any; in any order.
    pub members: Vec<(Name, Marks)>,
    /// Whether it knows more people than were asked for; then they are not all here.
    pub more: bool,
    /// Strangers who have marks, in any order; `None` if they are too many.
    pub strangers: Option<Vec<(Name, Marks)>>,
}

/// How far users of a room are, as one entry of the writer's queue.
#[derive(Debug)]
pub struct SaveMarks {
    /// Which room.
    pub room: RoomNumber,
    /// The saving channel's generation.
    pub generation: Generation,
    /// The number of the newest change of members that it has heard of.
    pub heard: u64,
    /// The users, each with all his marks.
    pub marks: Vec<(Name, Marks)>,
}

/// Why the store could not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A queue of the store is full: try later.
    #[error("the store is busy")]
    Busy,
    /// There is no room of that name and it was not to be created.
    #[error("there is no such room")]
    UnknownRoom,
    /// The append came from a channel that has been succeeded by another.
    #[error("the append is of generation {0:?}, which another one has succeeded")]
    Superseded(Generation),
    /// A write or sync failed earlier; the store takes no more writes until it is opened again.
    #[error("the store takes no more writes, since one failed: {0}")]
    Poisoned(Arc<str>),
    /// A stored value is not what it should be.
    #[error("the store holds damaged data: {0}")]
    Damaged(Arc<str>),
    /// The disk or the library below failed.
    #[error("the store failed: {0}")]
    Failed(Arc<str>),
}

/// The time, as whoever runs a state machine sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The wall clock. It may jump.
    pub unix_ms: UnixMillis,
    /// A clock that only goes forward, from any start.
    pub mono_ms: u64,
}

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Now;
}
