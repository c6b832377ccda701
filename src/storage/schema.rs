//! What the store's bytes are: column families, keys and values. Pure, and the only file that knows their layout.
//!
//! Numbers in keys are big-endian, so that keys sort as numbers do; values are big-endian too, for one rule. Every value
//! that may change its layout begins with a version. Values are read with checks: bytes that break a rule are an error
//! that says which, never a panic.

use std::fmt::Write;

use parlor_actors::port::{Answer, DeviceKey, EpochStart, RoomOptions, StoreError};
use parlor_protocol::{
    Epoch, Header, Kind, Name, RoomNumber, Seq, UnixMillis, decode,
    frame::HEADER_BYTES,
    message::{Access, Announce, Deliver, Durability, Past},
};

pub(super) use due::{WIDTH_MOST_MS, bucket, due_key, read_due_key};

mod due;

/// The format of everything below. A store of a higher one is refused.
pub(super) const FORMAT: u32 = 1;

/// The most epochs kept of a room: the newest. A client whose position is of an older one is told of a new epoch anyway.
pub(super) const EPOCHS_MAX: usize = 16;

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
    /// Room number, length of the user's name, user, device tag, slot -> [`Answer`].
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

/// What is stored of a room besides its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RoomMeta {
    pub(super) name: Name,
    pub(super) options: RoomOptions,
    pub(super) created: UnixMillis,
    /// The trim mark: records below this seq are gone on purpose…
    pub(super) first: Seq,
    /// …and at least one of those below this one because the room keeps only so much, not because it expired.
    pub(super) trimmed: Seq,
    /// Count and time of the newest record below the trim mark, so that a room emptied by its lifetime goes on from them.
    pub(super) gone_count: u64,
    pub(super) gone_time: UnixMillis,
    /// The room goes on from here, also if a compaction dropped the record.
    pub(super) floor: Floor,
    /// The value of [`meta::LOSSES`] up to which the room was given a new epoch.
    pub(super) losses: u64,
    /// Oldest first, 1 to [`EPOCHS_MAX`].
    pub(super) epochs: Vec<EpochStart>,
}

/// Where a room stood with one of its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Floor {
    pub(super) seq: Seq,
    pub(super) count: u64,
    pub(super) time: UnixMillis,
}

const ROOM_VERSION: u8 = 3;

impl RoomMeta {
    /// Adds a newest epoch; the oldest makes room for it.
    pub(super) fn push_epoch(&mut self, start: EpochStart) {
        if self.epochs.len() >= EPOCHS_MAX {
            self.epochs.remove(0);
        }
        self.epochs.push(start);
    }

    /// `version u8 = 3 | durability u8 | created u64 | first u64 | gone_count u64 | gone_time u64 | losses u64 | access u8 |
    /// past u8 | announce u8 | lifetime_ms u64 | records_max u64 | bytes_max u64 | payload_bytes_max u32 |
    /// messages_per_second_max u32 | trimmed u64 | floor: seq u64, count u64, time u64 | epochs u8 | (epoch u64 | first u64)*
    /// | name`; version 2 has neither `trimmed` nor the floor, and version 1 ends its numbers with `losses`.
    pub(super) fn encode(&self) -> Vec<u8> {
        debug_assert!((1..=EPOCHS_MAX).contains(&self.epochs.len()));
        let options = &self.options;
        let mut out = vec![ROOM_VERSION, options.durability as u8];
        for number in [self.created, self.first, self.gone_count, self.gone_time, self.losses] {
            out.extend(number.to_be_bytes());
        }
        out.extend([options.access as u8, options.past as u8, options.announce as u8]);
        for number in [options.lifetime_ms, options.records_max, options.bytes_max] {
            out.extend(number.to_be_bytes());
        }
        out.extend(options.payload_bytes_max.to_be_bytes());
        out.extend(options.messages_per_second_max.to_be_bytes());
        for number in [self.trimmed, self.floor.seq, self.floor.count, self.floor.time] {
            out.extend(number.to_be_bytes());
        }
        // One byte, always: there are at most 16.
        out.extend(u8::try_from(self.epochs.len()));
        for start in &self.epochs {
            out.extend(start.epoch.0.to_be_bytes());
            out.extend(start.first.to_be_bytes());
        }
        out.extend(self.name.as_bytes());
        out
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Wrong> {
        let mut fields = Fields(value);
        let version = fields.u8()?;
        if !(1..=ROOM_VERSION).contains(&version) {
            return Err(format!("version {version} of the value, where 1 to {ROOM_VERSION} are known"));
        }
        let mut options = RoomOptions { durability: durability_from(fields.u8()?)?, ..RoomOptions::default() };
        let (created, first) = (fields.u64()?, fields.u64()?);
        let (gone_count, gone_time, losses) = (fields.u64()?, fields.u64()?, fields.u64()?);
        if version >= 2 {
            let (access, past, announce) = (fields.u8()?, fields.u8()?, fields.u8()?);
            options = RoomOptions {
                access: one_of(&[Access::Open, Access::Members, Access::Broadcast], access, "access")?,
                past: one_of(&[Past::ByAccess, Past::All, Past::SinceAdded], past, "past")?,
                announce: one_of(&[Announce::WhileSmall, Announce::Always, Announce::Never], announce, "announce")?,
                lifetime_ms: fields.u64()?,
                records_max: fields.u64()?,
                bytes_max: fields.u64()?,
                payload_bytes_max: fields.u32()?,
                messages_per_second_max: fields.u32()?,
                ..options
            };
        }
        // Rooms of the earlier versions were never swept or trimmed.
        let (mut trimmed, mut floor) = (1, Floor::default());
        if version >= 3 {
            trimmed = fields.u64()?;
            floor = Floor { seq: fields.u64()?, count: fields.u64()?, time: fields.u64()? };
        }
        let len = usize::from(fields.u8()?);
        if !(1..=EPOCHS_MAX).contains(&len) {
            return Err(format!("{len} epochs, where 1 to {EPOCHS_MAX} are allowed"));
        }
        let mut epochs = Vec::with_capacity(len);
        for _ in 0..len {
            epochs.push(EpochStart { epoch: Epoch(fields.u64()?), first: fields.u64()? });
        }
        let name = std::str::from_utf8(fields.rest()).map_err(|error| error.to_string())?;
        let name = Name::parse(name).map_err(|error| error.to_string())?;
        let first = first.max(1);
        Ok(Self { name, options, created, first, trimmed, gone_count, gone_time, floor, losses, epochs })
    }
}

fn durability_from(byte: u8) -> Result<Durability, Wrong> {
    one_of(&[Durability::Memory, Durability::Buffered, Durability::Synced], byte, "durability")
}

/// The variant that a byte stands for.
fn one_of<T: Copy>(variants: &[T], byte: u8, what: &str) -> Result<T, Wrong> {
    variants.get(usize::from(byte)).copied().ok_or_else(|| format!("{what} {byte} is not known"))
}

/// The key of a room's meta.
pub(super) fn room_key(room: RoomNumber) -> [u8; 8] {
    room.0.to_be_bytes()
}

/// The key of a record.
pub(super) fn log_key(room: RoomNumber, seq: Seq) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&room.0.to_be_bytes());
    key[8..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// The seq of a record's key.
pub(super) fn log_key_seq(key: &[u8]) -> Result<Seq, StoreError> {
    let mut fields = Fields(key);
    let seq = fields.u64().and_then(|_| fields.u64());
    let seq = seq.and_then(|seq| fields.end().map(|()| seq));
    seq.map_err(|wrong| damaged(Family::Log, key, &format!("the key: {wrong}")))
}

/// The room of a record's key.
pub(super) fn log_key_room(key: &[u8]) -> Result<RoomNumber, StoreError> {
    Fields(key).u64().map(RoomNumber).map_err(|wrong| damaged(Family::Log, key, &format!("the key: {wrong}")))
}

/// Which record a stored change changes; `None` of what is no change.
pub(super) fn changes(value: &[u8]) -> Option<Seq> {
    if value.first() != Some(&RECORD_VERSION) {
        return None;
    }
    // Changes have no notes behind their frame.
    parlor_protocol::peek::changes(value.get(frame_at(value) + HEADER_BYTES..)?)
}

/// A record as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) epoch: Epoch,
    /// From when on it may not be read; 0 for never.
    pub(super) expires: UnixMillis,
    /// The bytes of the frames of all records before it as they were first stored, counted from any start.
    pub(super) bytes_before: u64,
    /// The bytes of its own frame as it was first stored.
    pub(super) first_bytes: u32,
    /// The `Deliver` frame as it goes out.
    pub(super) frame: &'a [u8],
}

const RECORD_VERSION: u8 = 2;

/// Where a record's expiry stands, in every version.
const EXPIRES_AT: usize = 1 + 1 + 8;

/// The flag of a record that has notes behind its frame.
const RECORD_NOTES: u8 = 1;

/// The flag of a record whose frame is not as long as it was first, which stands before the frame.
const RECORD_RESIZED: u8 = 2;

/// Where the frame of a record begins, in the version with `bytes_before`.
fn frame_at(value: &[u8]) -> usize {
    let resized = value.get(1).is_some_and(|flags| flags & RECORD_RESIZED != 0);
    EXPIRES_AT + 8 + 8 + if resized { 4 } else { 0 }
}

impl<'a> Record<'a> {
    /// The bytes of all frames up to and with its own, as they were first stored.
    pub(super) fn bytes_upto(&self) -> u64 {
        self.bytes_before + u64::from(self.first_bytes)
    }

    /// `version u8 = 2 | flags u8 = 0 | epoch u64 | expires u64 | bytes_before u64 | Deliver frame`, written over `out`;
    /// version 1 has no `bytes_before`. With flag 2, `first_bytes u32` stands before the frame, which is not as long.
    pub(super) fn encode_into(&self, out: &mut Vec<u8>) {
        self.encode_with_notes(&[], out);
    }

    /// The same with flag 1 and notes behind the frame, if there are any.
    pub(super) fn encode_with_notes(&self, notes: &[u8], out: &mut Vec<u8>) {
        out.clear();
        let resized = self.first_bytes as usize != self.frame.len();
        let flags = if notes.is_empty() { 0 } else { RECORD_NOTES } | if resized { RECORD_RESIZED } else { 0 };
        out.extend([RECORD_VERSION, flags]);
        out.extend(self.epoch.0.to_be_bytes());
        out.extend(self.expires.to_be_bytes());
        out.extend(self.bytes_before.to_be_bytes());
        if resized {
            out.extend(self.first_bytes.to_be_bytes());
        }
        out.extend_from_slice(self.frame);
        out.extend_from_slice(notes);
    }

    /// The notes of a value that [`decode`](Self::decode) has taken.
    pub(super) fn notes(value: &'a [u8]) -> &'a [u8] {
        // Only this version has them.
        match (value.get(1), value.get(frame_at(value)..).map(split_frame)) {
            (Some(flags), Some((_, notes))) if flags & RECORD_NOTES != 0 => notes,
            _ => &[],
        }
    }

    /// Reads a record and the message in it, which must be the one that `key` names.
    pub(super) fn decode(key: &[u8], value: &'a [u8]) -> Result<(Self, Deliver<'a>), StoreError> {
        Self::parts(value)
            .and_then(|(record, deliver)| {
                if key == log_key(deliver.room, deliver.seq) {
                    return Ok((record, deliver));
                }
                Err(format!("the record is of room {}, seq {}", deliver.room, deliver.seq))
            })
            .map_err(|wrong| damaged(Family::Log, key, &wrong))
    }

    fn parts(value: &'a [u8]) -> Result<(Self, Deliver<'a>), Wrong> {
        let mut fields = Fields(value);
        let version = fields.record_version()?;
        let flags = fields.u8()?;
        if flags & !(RECORD_NOTES | RECORD_RESIZED) != 0 {
            return Err(format!("flags {flags:#04x} are not known"));
        }
        let (epoch, expires) = (Epoch(fields.u64()?), fields.u64()?);
        let bytes_before = if version >= 2 { fields.u64()? } else { 0 };
        let first_bytes = if flags & RECORD_RESIZED != 0 { Some(fields.u32()?) } else { None };
        let mut frame = fields.rest();
        if flags & RECORD_NOTES != 0 {
            // They are read when the record is changed again.
            frame = split_frame(frame).0;
        }
        let deliver = deliver_of(frame)?;
        // A frame's length was read out of 32 bits.
        let first_bytes = first_bytes.unwrap_or(u32::try_from(frame.len()).unwrap_or(u32::MAX));
        Ok((Self { epoch, expires, bytes_before, first_bytes, frame }, deliver))
    }
}

/// A record's expiry, without reading the rest; 0 for never.
pub(super) fn expiry(value: &[u8]) -> Result<UnixMillis, Wrong> {
    let mut fields = Fields(value);
    fields.record_version()?;
    value
        .get(EXPIRES_AT..)
        .ok_or_else(|| "the value ends within a field".to_owned())
        .and_then(|rest| Fields(rest).u64())
}

/// The bytes of the frames before a record, without reading the rest. Those of version 1 were not counted.
pub(super) fn bytes_before(value: &[u8]) -> Result<u64, Wrong> {
    let mut fields = Fields(value);
    if fields.record_version()? == 1 {
        return Ok(0);
    }
    fields.0 = fields.0.get(EXPIRES_AT - 1 + 8..).unwrap_or_default();
    fields.u64()
}

/// By how much rewrites have made a record longer, without reading the rest.
pub(super) fn grown(value: &[u8]) -> Result<i64, Wrong> {
    let mut fields = Fields(value);
    if fields.record_version()? == 1 || fields.u8()? & RECORD_RESIZED == 0 {
        return Ok(0);
    }
    let (_, _, _) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let first_bytes = fields.u32()?;
    Ok(split_frame(fields.0).0.len() as i64 - i64::from(first_bytes))
}

/// When a record expires, for compactions; `None` if it never does, or if its expiry was not put into [`Family::Due`] as
/// that of version 1.
pub(super) fn expiry_to_filter(value: &[u8]) -> Option<UnixMillis> {
    let due = value.first().is_some_and(|version| *version == RECORD_VERSION);
    expiry(value).ok().filter(|expires| due && *expires != 0)
}

/// A frame and what follows it; all of the bytes if they are less than a frame.
fn split_frame(bytes: &[u8]) -> (&[u8], &[u8]) {
    let header = bytes.first_chunk::<HEADER_BYTES>().map(Header::from_bytes);
    let end = header.map_or(bytes.len(), |header| HEADER_BYTES + header.len as usize);
    bytes.split_at(end.min(bytes.len()))
}

/// The message in a `Deliver` frame, which must end where the bytes end.
pub(super) fn deliver_of(frame: &[u8]) -> Result<Deliver<'_>, Wrong> {
    let (header, body) = frame.split_first_chunk::<HEADER_BYTES>().ok_or("half a header of a frame")?;
    let header = Header::from_bytes(header);
    if header.kind != Kind::Deliver as u16 {
        return Err(format!("a frame of kind {:#06x}, where a Deliver belongs", header.kind));
    }
    if header.len as usize != body.len() {
        return Err(format!("a frame that claims a body of {} bytes and has {}", header.len, body.len()));
    }
    decode(body).map_err(|error| error.to_string())
}

/// What the keys of a device's answers in a room begin with; the slot follows.
pub(super) fn answers_prefix(room: RoomNumber, device: &DeviceKey) -> Vec<u8> {
    let mut key = user_prefix(room, &device.user);
    key.extend(device.tag.0.to_be_bytes());
    key
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

/// What all keys of one device's answers begin with: what [`answers_prefix`] makes. `None` if it is no such key.
pub(super) fn answers_prefix_of(key: &[u8]) -> Option<&[u8]> {
    let user = usize::from(*key.get(8)?);
    key.get(..8 + 1 + user + 8)
}

const ANSWER_VERSION: u8 = 2;

/// `version u8 = 2 | nonce u64 | seq u64 | time u64 | content_hash u64 | count u64`; version 1 ends with `content_hash`.
pub(super) fn encode_answer(answer: &Answer) -> [u8; 41] {
    let mut out = [ANSWER_VERSION; 41];
    let numbers = [answer.nonce, answer.seq, answer.time, answer.content_hash, answer.count];
    for (field, number) in out[1..].chunks_exact_mut(8).zip(numbers) {
        field.copy_from_slice(&number.to_be_bytes());
    }
    out
}

pub(super) fn decode_answer(value: &[u8]) -> Result<Answer, Wrong> {
    let mut fields = Fields(value);
    let version = fields.u8()?;
    if !(1..=ANSWER_VERSION).contains(&version) {
        return Err(format!("version {version} of the value, where 1 to {ANSWER_VERSION} are known"));
    }
    let (nonce, seq, time, content_hash) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
    let count = if version >= 2 { fields.u64()? } else { 0 };
    fields.end()?;
    Ok(Answer { nonce, seq, time, content_hash, count })
}

/// When an answer was given, for compactions.
pub(super) fn answer_time(value: &[u8]) -> Option<UnixMillis> {
    decode_answer(value).ok().map(|answer| answer.time)
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

    fn record_version(&mut self) -> Result<u8, Wrong> {
        match self.u8()? {
            known @ 1..=RECORD_VERSION => Ok(known),
            found => Err(format!("version {found} of the value, where 1 to {RECORD_VERSION} are known")),
        }
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(super) fn end(&self) -> Result<(), Wrong> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("{} bytes behind the last field", self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parlor_protocol::{
        DeviceTag,
        message::{ContentType, RecordKind},
        to_bytes,
    };

    use super::*;

    fn room_meta() -> RoomMeta {
        let epochs = vec![EpochStart { epoch: Epoch(3), first: 1 }, EpochStart { epoch: Epoch(9), first: 5 }];
        RoomMeta {
            name: "lobby".parse().unwrap(),
            options: RoomOptions {
                durability: Durability::Buffered,
                access: Access::Members,
                past: Past::SinceAdded,
                announce: Announce::Always,
                lifetime_ms: 5,
                records_max: 6,
                bytes_max: 7,
                payload_bytes_max: 8,
                messages_per_second_max: 9,
            },
            created: 1_000,
            first: 2,
            trimmed: 10,
            gone_count: 1,
            gone_time: 900,
            floor: Floor { seq: 11, count: 12, time: 13 },
            losses: 4,
            epochs,
        }
    }

    fn deliver(room: u64, seq: Seq) -> Bytes {
        let deliver = Deliver {
            room: RoomNumber(room),
            seq,
            time: 7,
            sender: "ann",
            device_tag: DeviceTag(1),
            nonce: 1,
            kind: RecordKind::MESSAGE,
            refers_to: 0,
            expires: 0,
            count: seq,
            content_type: ContentType::TEXT,
            payload: b"hi",
            extensions: parlor_protocol::Extensions::default(),
        };
        to_bytes(0, &deliver)
    }

    #[test]
    fn a_room_reads_as_written_and_its_bytes_never_change() {
        let meta = room_meta();
        let bytes = meta.encode();
        assert_eq!(RoomMeta::decode(&bytes), Ok(meta.clone()));
        let mut want = vec![3, 1];
        want.extend([0, 0, 0, 0, 0, 0, 3, 0xe8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]);
        want.extend([0, 0, 0, 0, 0, 0, 3, 0x84, 0, 0, 0, 0, 0, 0, 0, 4]);
        let options = want.len();
        want.extend([1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7]);
        want.extend([0, 0, 0, 8, 0, 0, 0, 9]);
        let floor = want.len();
        for number in [10u64, 11, 12, 13] {
            want.extend(number.to_be_bytes());
        }
        let epochs = want.len();
        want.push(2);
        want.extend([0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1]);
        want.extend([0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 5]);
        want.extend(b"lobby");
        assert_eq!(bytes, want);

        let meta = RoomMeta { trimmed: 1, floor: Floor::default(), ..meta };
        let mut earlier = want;
        earlier.drain(floor..epochs);
        earlier[0] = 2;
        assert_eq!(RoomMeta::decode(&earlier), Ok(meta.clone()));
        earlier.drain(options..floor);
        earlier[0] = 1;
        let options = RoomOptions { durability: Durability::Buffered, ..RoomOptions::default() };
        assert_eq!(RoomMeta::decode(&earlier), Ok(RoomMeta { options, ..meta }));
    }

    #[test]
    fn no_cut_and_no_flipped_byte_of_a_room_panics() {
        let bytes = room_meta().encode();
        for cut in 0..bytes.len() - "lobby".len() + 1 {
            assert!(RoomMeta::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0xff;
            let _ = RoomMeta::decode(&bytes);
        }
    }

    #[test]
    fn the_oldest_epoch_makes_room_for_the_newest() {
        let mut meta = room_meta();
        for epoch in 10..40 {
            meta.push_epoch(EpochStart { epoch: Epoch(epoch), first: 9 });
        }
        assert_eq!(meta.epochs.len(), EPOCHS_MAX);
        assert_eq!(meta.epochs.last().unwrap().epoch, Epoch(39));
        assert_eq!(meta.epochs[0].epoch, Epoch(24));
    }

    #[track_caller]
    fn check_record(key: &[u8], value: &[u8], want: &str) {
        let error = Record::decode(key, value).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StoreError::Damaged(_)) && text.contains(want), "{text}");
        assert!(text.contains("log/0000000000000002"), "names the key: {text}");
    }

    #[test]
    fn a_record_reads_as_written_and_damage_is_named() {
        let (frame, key) = (deliver(2, 3), log_key(RoomNumber(2), 3));
        let first_bytes = u32::try_from(frame.len()).unwrap();
        let record = Record { epoch: Epoch(1), expires: 5, bytes_before: 6, first_bytes, frame: &frame };
        let mut value = vec![0xee; 3];
        record.encode_into(&mut value);
        assert_eq!(value[..18], [2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(value[18..26], [0, 0, 0, 0, 0, 0, 0, 6]);
        let (read, message) = Record::decode(&key, &value).unwrap();
        assert_eq!((read, message.count), (record, 3));
        assert_eq!((expiry(&value), bytes_before(&value), expiry_to_filter(&value)), (Ok(5), Ok(6), Some(5)));

        let mut earlier = value.clone();
        earlier.drain(18..26);
        earlier[0] = 1;
        let (read, _) = Record::decode(&key, &earlier).unwrap();
        assert_eq!(read, Record { bytes_before: 0, ..record });
        assert_eq!((expiry(&earlier), bytes_before(&earlier), expiry_to_filter(&earlier)), (Ok(5), Ok(0), None));
        for cut in 0..26 {
            assert!(expiry(&value[..cut]).is_err() || bytes_before(&value[..cut]).is_err(), "cut at {cut}");
        }

        for cut in 0..value.len() {
            check_record(&key, &value[..cut], "");
        }
        check_record(&log_key(RoomNumber(2), 4), &value, "the record is of room 2, seq 3");
        let with = |at: usize, byte: u8| {
            let mut value = value.clone();
            value[at] = byte;
            value
        };
        check_record(&key, &with(0, 3), "version 3");
        check_record(&key, &with(1, 4), "flags 0x04");
        check_record(&key, &with(26, 0xff), "claims a body");
        check_record(&key, &with(30, 0x31), "kind 0x0031");
        assert!(log_key_seq(&key[..15]).is_err() && log_key_seq(&[0; 17]).is_err());
    }

    #[test]
    fn notes_lie_behind_the_frame_and_are_no_part_of_it() {
        let (frame, key) = (deliver(2, 3), log_key(RoomNumber(2), 3));
        let first_bytes = u32::try_from(frame.len()).unwrap();
        let record = Record { epoch: Epoch(1), expires: 5, bytes_before: 7, first_bytes, frame: &frame };
        let mut value = Vec::new();
        record.encode_with_notes(b"who", &mut value);
        assert_eq!(value[..2], [2, 1]);
        assert_eq!((Record::decode(&key, &value).unwrap().0, Record::notes(&value)), (record, &b"who"[..]));
        for cut in 0..26 + frame.len() {
            check_record(&key, &value[..cut], "");
        }
        record.encode_into(&mut value);
        assert_eq!((value[1], Record::notes(&value), grown(&value)), (0, &b""[..], Ok(0)));
    }

    #[test]
    fn a_record_says_how_long_it_was_at_first() {
        let (frame, key) = (deliver(2, 3), log_key(RoomNumber(2), 3));
        let record = Record { epoch: Epoch(1), expires: 5, bytes_before: 7, first_bytes: 100, frame: &frame };
        let mut value = Vec::new();
        for notes in [&b""[..], b"who"] {
            record.encode_with_notes(notes, &mut value);
            assert_eq!(value[1], RECORD_RESIZED | u8::from(!notes.is_empty()));
            assert_eq!(value[26..30], [0, 0, 0, 100]);
            assert_eq!((Record::decode(&key, &value).unwrap().0, Record::notes(&value)), (record, notes));
            assert_eq!((grown(&value), record.bytes_upto()), (Ok(frame.len() as i64 - 100), 107));
            assert_eq!((bytes_before(&value), expiry(&value)), (Ok(7), Ok(5)));
        }
        for cut in 0..30 + frame.len() {
            check_record(&key, &value[..cut], "");
        }
    }

    #[test]
    fn records_sort_by_room_and_seq() {
        let keys = [(1, 1), (1, 255), (1, 256), (1, u64::MAX), (2, 0), (256, 1)];
        assert!(keys.map(|(room, seq)| log_key(RoomNumber(room), seq)).is_sorted());
        assert_eq!(log_key_seq(&log_key(RoomNumber(1), 256)), Ok(256));
    }

    #[test]
    fn an_answer_reads_as_written() {
        let answer = Answer { nonce: 1, seq: 2, time: 3, content_hash: u64::MAX, count: 9 };
        let bytes = encode_answer(&answer);
        let first_version = [&[1], &bytes[1..33]].concat();
        assert_eq!(decode_answer(&first_version), Ok(Answer { count: 0, ..answer }));
        assert_eq!(decode_answer(&bytes), Ok(answer));
        assert_eq!(answer_time(&bytes), Some(3));
        for cut in 0..bytes.len() {
            assert!(decode_answer(&bytes[..cut]).is_err());
        }
        assert!(decode_answer(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn no_users_answers_lie_among_anothers() {
        let prefix = |user: &str, tag| {
            answers_prefix(RoomNumber(1), &DeviceKey { user: user.parse().unwrap(), tag: DeviceTag(tag) })
        };
        let (short, long) = (prefix("a", 0x6161_6161_6161_6161), prefix("aaaaaaaaa", 1));
        assert!(!long.starts_with(&short) && !short.starts_with(&long));
        for prefix in [short, long] {
            assert_eq!(answers_prefix_of(&[prefix.as_slice(), &[127]].concat()), Some(&*prefix));
            assert_eq!(answers_prefix_of(&prefix), Some(&*prefix));
            assert_eq!(answers_prefix_of(&prefix[..prefix.len() - 1]), None);
        }
        assert_eq!(answers_prefix_of(&[0; 8]), None);
    }
}
