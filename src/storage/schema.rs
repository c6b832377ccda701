//! What the store's bytes are: column families, keys and values. Pure; nothing else knows their layout.
//!
//! Numbers in keys are big-endian, so that keys sort as numbers do; values are big-endian too, for one rule. Every value
//! that may change its layout begins with a version. Values are read with checks: bytes that break a rule are an error
//! that says which, never a panic.

use std::fmt::Write;

use parlor_actors::port::StoreError;
use parlor_protocol::{Name, RoomNumber};

pub(super) use answer::{answer_time, answers_prefix, answers_prefix_of, decode_answer, encode_answer};
pub(super) use due::{WIDTH_MOST_MS, bucket, due_key, read_due_key};
pub(super) use record::{
    Record, bytes_before, changes, deliver_of, expiry, expiry_to_filter, grown, log_key, log_key_room, log_key_seq,
};
pub(super) use room::{Floor, RoomMeta, room_key};

mod answer;
mod due;
mod record;
mod room;

/// The format of everything below. A store of a higher one is refused.
pub(super) const FORMAT: u32 = 1;

/// The column families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Key of [`meta`] -> a number or text: the store as a whole.
    Meta,
    /// Room name -> room number.
    Names,
    /// Room number -> [`RoomMeta`].
    Rooms,
    /// Room number, seq -> [`Record`].
    Log,
    /// Room number, block of seqs -> by how many bytes changes have made its records longer. See `sizes`.
    Sizes,
    /// Room number, length of the user's name, user, device tag, slot -> [`Answer`](parlor_actors::port::Answer).
    Answers,
    /// Room number, length of the user's name, user -> how far he is: see [`marks`](super::marks).
    Marks,
    /// A time, room number -> nothing: when a sweep has to look at which room.
    Due,
    /// Room number, user -> what he is there; room number alone -> how many there are. See `member_schema`.
    Members,
    /// Length of the user's name, user, room number -> nothing: he belongs to it.
    Memberships,
}

impl Family {
    /// All of them. A store has these and RocksDB's own `default`, which stays empty.
    pub(super) const ALL: [Self; 10] = [
        Self::Meta,
        Self::Names,
        Self::Rooms,
        Self::Log,
        Self::Sizes,
        Self::Answers,
        Self::Marks,
        Self::Due,
        Self::Members,
        Self::Memberships,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Names => "names",
            Self::Rooms => "rooms",
            Self::Log => "log",
            Self::Sizes => "sizes",
            Self::Answers => "answers",
            Self::Marks => "marks",
            Self::Due => "due",
            Self::Members => "members",
            Self::Memberships => "memberships",
        }
    }
}

/// The keys of [`Family::Meta`].
pub(super) mod meta {
    /// [`FORMAT`](super::FORMAT) of the store, u32.
    pub(in crate::storage) const FORMAT: &[u8] = b"format";
    /// The number of the next room, u64.
    pub(in crate::storage) const NEXT_ROOM: &[u8] = b"next_room";
    /// The next epoch, u64.
    pub(in crate::storage) const NEXT_EPOCH: &[u8] = b"next_epoch";
    /// How often the store was opened after the machine may have lost what was not synced, u64.
    pub(in crate::storage) const LOSSES: &[u8] = b"losses";
    /// Which run of the kernel last opened the store, as text; empty if it could not tell.
    pub(in crate::storage) const BOOT: &[u8] = b"boot";
    /// There, and empty, while the store is closed and everything in it is synced.
    pub(in crate::storage) const CLEAN: &[u8] = b"clean";
    /// The wall clock at some sweep of late, u64; missing before the first.
    pub(in crate::storage) const SWEPT: &[u8] = b"swept";
    /// The number of the newest change of members, u64; missing before the first.
    pub(in crate::storage) const CHANGES: &[u8] = b"changes";
}

/// What is wrong with a stored value.
pub(super) type Wrong = String;

/// The error for a value that breaks a rule; names the key.
pub(super) fn damaged(family: Family, key: &[u8], wrong: &str) -> StoreError {
    let mut text = format!("{}/", family.name());
    for byte in key {
        // Infallible: the target is a string.
        let _ = write!(text, "{byte:02x}");
    }
    StoreError::Damaged(format!("{text}: {wrong}").into())
}

/// What the keys of a user in a room begin with.
pub(super) fn user_prefix(room: RoomNumber, user: &Name) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + 1 + user.len() + 8 + 1);
    key.extend(room.0.to_be_bytes());
    // Always one byte: a name has at most 64. With its length in front, no user's keys lie among another's.
    key.extend(u8::try_from(user.len()));
    key.extend(user.as_bytes());
    key
}

/// A value that is one number.
pub(super) fn decode_u64(value: &[u8]) -> Result<u64, Wrong> {
    let mut fields = Fields(value);
    let number = fields.u64()?;
    fields.end().map(|()| number)
}

/// The fields of a value that are still to be read.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let (chunk, rest) = self.0.split_first_chunk().ok_or("the value ends within a field")?;
        self.0 = rest;
        Ok(*chunk)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Wrong> {
        self.chunk().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Wrong> {
        self.chunk().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Wrong> {
        self.chunk().map(u64::from_be_bytes)
    }

    pub(super) fn version(&mut self, want: u8) -> Result<(), Wrong> {
        match self.u8()? {
            found if found == want => Ok(()),
            found => Err(format!("version {found} of the value, where only {want} is known")),
        }
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(super) fn end(&self) -> Result<(), Wrong> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("{} bytes behind the last field", self.0.len())) }
    }
}
