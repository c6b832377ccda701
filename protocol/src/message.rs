//! The messages of version 1, field by field in wire order. `PROTOCOL.md` says what they mean; a test keeps its tables
//! in step with this file.

use crate::{
    code::Code,
    codec::{Body, BorrowDecode, Encode, Extensions, List},
    frame::Kind,
    id::{DeviceTag, Epoch, Nonce, RoomNumber, Seq, Token, UnixMillis},
};

/// The most rooms one session may join, and so the most positions of a heartbeat.
pub const ROOMS_PER_SESSION_MAX: usize = 1_000;

/// The most gaps a page tells of.
pub const GAPS_PER_PAGE_MAX: usize = 256;

/// The longest credentials, in bytes.
pub const CREDENTIALS_BYTES_MAX: usize = 4 << 10;

/// What a client is connected through; sets the base interval of its heartbeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub enum Network {
    /// Not known.
    #[default]
    Unknown,
    /// A cable.
    Wired,
    /// A wireless local network.
    Wifi,
    /// GSM, GPRS, EDGE.
    Mobile2g,
    /// UMTS, HSPA.
    Mobile3g,
    /// LTE.
    Mobile4g,
    /// NR.
    Mobile5g,
}

/// What kind of device a client runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub enum DeviceClass {
    /// None of the others, or not said.
    #[default]
    Other,
    /// A phone or a tablet.
    Mobile,
    /// A desktop program.
    Desktop,
    /// A page in a browser.
    Web,
    /// A program without a person.
    Bot,
}

/// How safe a stored record is. What an ack names is reached before it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, BorrowDecode)]
pub enum Durability {
    /// In the room's ring only.
    Memory,
    /// In the operating system's cache: survives the death of the process.
    Buffered,
    /// Synced to the device: survives the loss of power.
    #[default]
    Synced,
}

/// Where a join's delivery begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum JoinFrom {
    /// Behind the newest record.
    Tail,
    /// With the newest this many records.
    Newest(u32),
    /// With this seq.
    Seq(Seq),
    /// Behind this position: the client holds, or was told a gap for, everything up to here.
    Position(Epoch, Seq),
}

/// The way a fetch reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Direction {
    /// Towards newer records.
    #[default]
    Forward,
    /// Towards older records. A page lists its records oldest first all the same.
    Backward,
}

/// What a record is. Others than messages come with later versions; a client keeps their seq and shows what it knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub struct RecordKind(pub u16);

impl RecordKind {
    /// Something that somebody said.
    pub const MESSAGE: Self = Self(0);
}

impl std::fmt::Debug for RecordKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordKind({})", self.0)
    }
}

/// How to read a payload. 0x8000 and up are the application's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub struct ContentType(pub u16);

impl ContentType {
    /// Bytes whose meaning the clients know.
    pub const OPAQUE: Self = Self(0);
    /// Text in UTF-8.
    pub const TEXT: Self = Self(1);
}

/// Why records will not come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub struct GapReason(pub u16);

impl GapReason {
    /// Their lifetime is over.
    pub const EXPIRED: Self = Self(0);
    /// The room keeps fewer.
    pub const TRIMMED: Self = Self(1);
    /// The store lost them.
    pub const LOST: Self = Self(2);
    /// The client's position is of an epoch that is over.
    pub const NEW_EPOCH: Self = Self(3);
    /// The client's position is above the tail.
    pub const ABOVE_TAIL: Self = Self(4);
}

impl std::fmt::Debug for GapReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            0 => "Expired",
            1 => "Trimmed",
            2 => "Lost",
            3 => "NewEpoch",
            4 => "AboveTail",
            other => return write!(f, "GapReason({other})"),
        })
    }
}

/// A publish that does not raise the room's count of messages (and later, no unread mark).
pub const PUBLISH_SILENT: u32 = 1;

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
    Hello<'a>, Welcome<'a>, Goodbye<'a>, Close<'a>, Error<'a>, Join<'a>, Joined<'a>, Leave<'a>, Left<'a>, Publish<'a>,
    Ack<'a>, Deliver<'a>, Gap<'a>, Fetch<'a>, Page<'a>, Heartbeat<'a>, HeartbeatAck<'a>,
}

/// Opens a connection; the client's first frame.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Hello<'a> {
    /// [`MAGIC`](crate::version::MAGIC).
    pub magic: [u8; 4],
    /// The oldest version that the client speaks.
    pub version_min: u16,
    /// The newest version that the client speaks.
    pub version_max: u16,
    /// Optional features that the client understands, as bits. Version 1 names none.
    pub features: u64,
    /// Who it is.
    pub user: &'a str,
    /// On which of the user's devices.
    pub device: &'a str,
    /// What kind of device.
    pub device_class: DeviceClass,
    /// What it is connected through.
    pub network: Network,
    /// Whatever the host's authentication wants, at most 4 KiB.
    pub credentials: &'a [u8],
    /// The token of the session to take up again, from its `Welcome`.
    pub resume: Option<Token>,
    /// Raised with every connection attempt of one session; the highest wins.
    pub attempt: u64,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// What a connection may do, from `Welcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Limits {
    /// The longest payload of a message, in bytes.
    pub payload_bytes_max: u32,
    /// The most rooms the session may join.
    pub rooms_max: u32,
    /// The most requests that may wait for an answer; beyond them the server stops reading the connection.
    pub unanswered_requests_max: u32,
    /// The most records of a page.
    pub page_records_max: u32,
    /// The most bytes of records of a page; one record always fits.
    pub page_bytes_max: u32,
}

/// A module's name and its range of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Module<'a> {
    /// Which module.
    pub name: &'a str,
    /// The first kind of its range, `0x8000` or above.
    pub kind_first: u16,
    /// The last kind of its range.
    pub kind_last: u16,
}

/// Answers `Hello`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Welcome<'a> {
    /// The version that both speak from here on.
    pub version: u16,
    /// The features that are on: those of `Hello` that the server knows.
    pub features: u64,
    /// The server's clock.
    pub server_time: UnixMillis,
    /// Send the first heartbeat within this many milliseconds.
    pub grant_ms: u32,
    /// Present this to take the session up again.
    pub token: Token,
    /// Whether `Hello.resume` was taken up: the session's rooms are attached again.
    pub resumed: bool,
    /// The tag that this device's records carry.
    pub device_tag: DeviceTag,
    /// What the connection may do.
    pub limits: Limits,
    /// Modules that the server runs, with their kinds.
    pub modules: List<Module<'a>, 32>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Ends the session; the server answers with `Close`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Goodbye<'a> {
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// The server's last frame on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Close<'a> {
    /// Why, 3000 and up.
    pub code: Code,
    /// Where the code says "later": not before this many milliseconds.
    pub retry_after_ms: u32,
    /// For the log of a person.
    pub message: &'a str,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Answers a request that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Error<'a> {
    /// Why, 1000 to 2999.
    pub code: Code,
    /// Where the code says "later": not before this many milliseconds.
    pub retry_after_ms: u32,
    /// For the log of a person.
    pub message: &'a str,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Attaches the session to a room.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Join<'a> {
    /// The room's name.
    pub room: &'a str,
    /// Where delivery begins.
    pub from: JoinFrom,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Answers `Join`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Joined<'a> {
    /// The number by which frames name the room.
    pub room: RoomNumber,
    /// The room's epoch.
    pub epoch: Epoch,
    /// The seq of the newest stored record; 0 in an empty room.
    pub tail: Seq,
    /// The seq of the oldest record that can still be read; `tail + 1` if there is none.
    pub first: Seq,
    /// Delivery begins behind this seq.
    pub cursor: Seq,
    /// How many countable records the room holds up to and with the tail.
    pub count: u64,
    /// What an ack means in this room.
    pub durability: Durability,
    /// The newest nonce that the server has stored from this device in this room.
    pub newest_nonce: Option<Nonce>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Detaches the session from a room.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Leave<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Answers `Leave`: nothing of the room follows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Left<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// Everything up to here was sent on this connection, as records or gaps.
    pub cursor: Seq,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Sends a message to a room.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Publish<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// Larger than every nonce that this device has used in this room.
    pub nonce: Nonce,
    /// What it is; version 1 takes messages only.
    pub kind: RecordKind,
    /// The record that it changes; 0 for none, which a message must have.
    pub refers_to: Seq,
    /// How long it may be read, in milliseconds; shorter than the room's lifetime. Version 1 takes none only.
    pub lifetime_ms: Option<u64>,
    /// [`PUBLISH_SILENT`] or 0.
    pub flags: u32,
    /// How to read the payload.
    pub content_type: ContentType,
    /// What is said; may be empty.
    pub payload: &'a [u8],
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Answers `Publish`: the message is stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Ack<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// The publish's nonce.
    pub nonce: Nonce,
    /// The message's number.
    pub seq: Seq,
    /// The message's time.
    pub time: UnixMillis,
    /// How safely it is stored.
    pub durability: Durability,
    /// Whether it was stored by an earlier publish with this nonce.
    pub duplicate: bool,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// A record of a room. Byte for byte the same for every receiver, and stored as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Deliver<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// The record's number.
    pub seq: Seq,
    /// When it was accepted; never before the record that precedes it.
    pub time: UnixMillis,
    /// Who said it.
    pub sender: &'a str,
    /// On which of the sender's devices.
    pub device_tag: DeviceTag,
    /// The device's nonce for it.
    pub nonce: Nonce,
    /// What it is.
    pub kind: RecordKind,
    /// The record that it changes; 0 for none.
    pub refers_to: Seq,
    /// From when on it may not be read; 0 for never.
    pub expires: UnixMillis,
    /// How many countable records the room holds up to and with this one.
    pub count: u64,
    /// How to read the payload.
    pub content_type: ContentType,
    /// What is said; may be empty.
    pub payload: &'a [u8],
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Records that will not come: `from` to `to`. Behind it the client's position is `(epoch, to)`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Gap<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// The room's epoch.
    pub epoch: Epoch,
    /// The first seq that will not come; `to + 1` if only the position changes.
    pub from: Seq,
    /// The last seq that will not come.
    pub to: Seq,
    /// Why.
    pub why: GapReason,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Asks for a page of history.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Fetch<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// The first seq to read, whichever the direction; without it, the oldest (forward) or the newest (backward).
    pub start: Option<Seq>,
    /// Which way.
    pub direction: Direction,
    /// The most records to read; 0 for the server's usual page.
    pub limit: u32,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// A stretch of seqs that a page cannot show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct PageGap {
    /// The first seq.
    pub from: Seq,
    /// The last seq.
    pub to: Seq,
    /// Why.
    pub why: GapReason,
}

/// Answers `Fetch`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Page<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// The room's epoch.
    pub epoch: Epoch,
    /// The seq of the newest stored record.
    pub tail: Seq,
    /// Where to go on in the same direction; `None` at the end.
    pub next: Option<Seq>,
    /// The stretches of seqs within the page that cannot be read, oldest first.
    pub gaps: List<PageGap, GAPS_PER_PAGE_MAX>,
    /// `Deliver` frames one behind the other, each with its header, oldest first.
    pub records: &'a [u8],
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// How far a client has received a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Position {
    /// Which room.
    pub room: RoomNumber,
    /// The room's epoch.
    pub epoch: Epoch,
    /// It holds, or was told a gap for, everything up to here.
    pub seq: Seq,
}

/// Keeps the session alive.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Heartbeat<'a> {
    /// What the client is connected through, if that changed.
    pub network: Option<Network>,
    /// Positions that changed since the last beat.
    pub positions: List<Position, ROOMS_PER_SESSION_MAX>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Answers `Heartbeat`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct HeartbeatAck<'a> {
    /// The server's clock.
    pub server_time: UnixMillis,
    /// Send the next heartbeat within this many milliseconds.
    pub grant_ms: u32,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}
