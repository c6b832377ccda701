//! Records: the entries of the rooms' logs.

use parlor_actors::port::StoreError;
use parlor_protocol::{
    Epoch, Header, Kind, RoomNumber, Seq, UnixMillis, decode, frame::HEADER_BYTES, message::Deliver,
};

use super::{Family, Fields, Wrong, damaged};

/// The key of a record.
pub(in crate::storage) fn log_key(room: RoomNumber, seq: Seq) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&room.0.to_be_bytes());
    key[8..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// The seq of a record's key.
pub(in crate::storage) fn log_key_seq(key: &[u8]) -> Result<Seq, StoreError> {
    let mut fields = Fields(key);
    let seq = fields.u64().and_then(|_| fields.u64());
    let seq = seq.and_then(|seq| fields.end().map(|()| seq));
    seq.map_err(|wrong| damaged(Family::Log, key, &format!("the key: {wrong}")))
}

/// The room of a record's key.
pub(in crate::storage) fn log_key_room(key: &[u8]) -> Result<RoomNumber, StoreError> {
    Fields(key).u64().map(RoomNumber).map_err(|wrong| damaged(Family::Log, key, &format!("the key: {wrong}")))
}

/// Which record a stored change changes; `None` of what is no change.
pub(in crate::storage) fn changes(value: &[u8]) -> Option<Seq> {
    if value.first() != Some(&RECORD_VERSION) {
        return None;
    }
    // Changes have no notes behind their frame.
    parlor_protocol::peek::changes(value.get(frame_at(value) + HEADER_BYTES..)?)
}

/// A record as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Record<'a> {
    pub(in crate::storage) epoch: Epoch,
    /// From when on it may not be read; 0 for never.
    pub(in crate::storage) expires: UnixMillis,
    /// The bytes of the frames of all records before it as they were first stored, counted from any start.
    pub(in crate::storage) bytes_before: u64,
    /// The bytes of its own frame as it was first stored.
    pub(in crate::storage) first_bytes: u32,
    /// The `Deliver` frame as it goes out.
    pub(in crate::storage) frame: &'a [u8],
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
    pub(in crate::storage) fn bytes_upto(&self) -> u64 {
        self.bytes_before + u64::from(self.first_bytes)
    }

    /// `version u8 = 2 | flags u8 = 0 | epoch u64 | expires u64 | bytes_before u64 | Deliver frame`, written over `out`;
    /// version 1 has no `bytes_before`. With flag 2, `first_bytes u32` stands before the frame, which is not as long.
    pub(in crate::storage) fn encode_into(&self, out: &mut Vec<u8>) {
        self.encode_with_notes(&[], out);
    }

    /// The same with flag 1 and notes behind the frame, if there are any.
    pub(in crate::storage) fn encode_with_notes(&self, notes: &[u8], out: &mut Vec<u8>) {
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
    pub(in crate::storage) fn notes(value: &'a [u8]) -> &'a [u8] {
        // Only this version has them.
        match (value.get(1), value.get(frame_at(value)..).map(split_frame)) {
            (Some(flags), Some((_, notes))) if flags & RECORD_NOTES != 0 => notes,
            _ => &[],
        }
    }

    /// Reads a record and the message in it, which must be the one that `key` names.
    pub(in crate::storage) fn decode(key: &[u8], value: &'a [u8]) -> Result<(Self, Deliver<'a>), StoreError> {
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
pub(in crate::storage) fn expiry(value: &[u8]) -> Result<UnixMillis, Wrong> {
    let mut fields = Fields(value);
    fields.record_version()?;
    value
        .get(EXPIRES_AT..)
        .ok_or_else(|| "the value ends within a field".to_owned())
        .and_then(|rest| Fields(rest).u64())
}

/// The bytes of the frames before a record, without reading the rest. Those of version 1 were not counted.
pub(in crate::storage) fn bytes_before(value: &[u8]) -> Result<u64, Wrong> {
    let mut fields = Fields(value);
    if fields.record_version()? == 1 {
        return Ok(0);
    }
    fields.0 = fields.0.get(EXPIRES_AT - 1 + 8..).unwrap_or_default();
    fields.u64()
}

/// By how much rewrites have made a record longer, without reading the rest.
pub(in crate::storage) fn grown(value: &[u8]) -> Result<i64, Wrong> {
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
pub(in crate::storage) fn expiry_to_filter(value: &[u8]) -> Option<UnixMillis> {
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
pub(in crate::storage) fn deliver_of(frame: &[u8]) -> Result<Deliver<'_>, Wrong> {
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

impl Fields<'_> {
    fn record_version(&mut self) -> Result<u8, Wrong> {
        match self.u8()? {
            known @ 1..=RECORD_VERSION => Ok(known),
            found => Err(format!("version {found} of the value, where 1 to {RECORD_VERSION} are known")),
        }
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
}
