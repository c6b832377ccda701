//! Presence: who is online, on which devices, and who is in a room.

use super::session::{DeviceClass, Network};
use crate::{
    codec::{BorrowDecode, Encode, Extensions, List},
    id::{RoomNumber, UnixMillis},
};

/// The most users that one request or answer about presence names, and that one session may watch.
pub const PRESENCE_USERS_MAX: usize = 1_000;

/// The most devices that are named of one user.
pub const PRESENCE_DEVICES_MAX: usize = 6;

/// Asks who of these users is online.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct QueryPresence<'a> {
    /// Whom.
    pub users: List<&'a str, PRESENCE_USERS_MAX>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Answers `QueryPresence` and `WatchPresence`, and tells what changed of watched users.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Presence<'a> {
    /// The users, each as he is now.
    pub users: List<UserPresence<'a>, PRESENCE_USERS_MAX>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// One user.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct UserPresence<'a> {
    /// Who.
    pub user: &'a str,
    /// Whether he has a session.
    pub online: bool,
    /// Since when he has had one without a break; 0 if he is offline.
    pub since: UnixMillis,
    /// The devices of his newest sessions.
    pub devices: List<DevicePresence<'a>, PRESENCE_DEVICES_MAX>,
}

/// One session of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct DevicePresence<'a> {
    /// Its device.
    pub device: &'a str,
    /// What kind of device.
    pub device_class: DeviceClass,
    /// What it is connected through.
    pub network: Network,
    /// Whether it has a connection; without one it may come back until its lease ends.
    pub connected: bool,
}

/// Changes which users the session is told of.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct WatchPresence<'a> {
    /// Tell of these, too.
    pub add: List<&'a str, PRESENCE_USERS_MAX>,
    /// Tell of these no more.
    pub remove: List<&'a str, PRESENCE_USERS_MAX>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Has the session told who is in a room that it has joined, or told no more.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct WatchRoom<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// Whether to tell.
    pub watch: bool,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}

/// Answers `WatchRoom`, and tells what changed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct RoomPresence<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// Whether this is all of it, and not what changed.
    pub all: bool,
    /// Whether users are named. In large rooms they are counted only.
    pub named: bool,
    /// How many users are there.
    pub count: u32,
    /// Who is there, or has come.
    pub came: List<&'a str, PRESENCE_USERS_MAX>,
    /// Who has gone.
    pub went: List<&'a str, PRESENCE_USERS_MAX>,
    /// What later versions add.
    pub extensions: Extensions<'a>,
}
