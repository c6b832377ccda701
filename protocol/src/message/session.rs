//! Sessions: hello and welcome, heartbeats, errors, the end.

use crate::{
    code::Code,
    codec::{BorrowDecode, Encode, Extensions, List},
    id::{DeviceTag, Epoch, RoomNumber, Seq, Token, UnixMillis},
};

/// The most rooms one session may join, and so the most positions of a heartbeat.
pub const ROOMS_PER_SESSION_MAX: usize = 1_000;

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
    /// The longest payload that goes up in parts, in bytes.
    pub text_bytes_max: u32,
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
    /// Whether `Hello.resume` was taken up: the session goes on, and `Resume` attaches its rooms.
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

/// Attaches a session that was taken up again to its rooms: those named here, each behind its position. The others are
/// left. Answered with one `Joined` or one `Detached` for each.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Resume<'a> {
    /// Where the client stands in each room that it wants to go on with.
    pub positions: List<Position, ROOMS_PER_SESSION_MAX>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
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
