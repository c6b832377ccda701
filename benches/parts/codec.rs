//! Frames of a message of 128 bytes.

use bytes::{Bytes, BytesMut};
use parlor_protocol::{
    Body, DeviceTag, Extensions, RoomNumber, Seq, decode,
    frame::HEADER_BYTES,
    message::{Ack, ContentType, Deliver, Durability, Publish, RecordKind},
};

use super::{NOW, PAYLOAD};

/// A message as every member of its room receives it.
pub(crate) fn deliver(room: RoomNumber, seq: Seq) -> Deliver<'static> {
    Deliver {
        room,
        seq,
        time: NOW.unix_ms,
        sender: "somebody",
        device_tag: DeviceTag(0x1234_5678_9abc_def0),
        nonce: NOW.unix_ms * 1_000 + seq,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        expires: 0,
        count: seq,
        content_type: ContentType::TEXT,
        payload: PAYLOAD,
        extensions: Extensions::default(),
    }
}

/// The same message as its sender sends it.
pub(crate) fn publish(room: RoomNumber, seq: Seq) -> Publish<'static> {
    Publish {
        room,
        nonce: NOW.unix_ms * 1_000 + seq,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        lifetime_ms: None,
        flags: 0,
        content_type: ContentType::TEXT,
        payload: PAYLOAD,
        extensions: Extensions::default(),
    }
}

/// The same message's ack.
pub(crate) fn ack(room: RoomNumber, seq: Seq) -> Ack<'static> {
    Ack {
        room,
        nonce: NOW.unix_ms * 1_000 + seq,
        seq,
        time: NOW.unix_ms,
        durability: Durability::Synced,
        duplicate: false,
        extensions: Extensions::default(),
    }
}

/// The frames of `records` messages that follow one another.
pub(crate) fn batch(room: RoomNumber, first: Seq, records: u64) -> Bytes {
    let mut frames = BytesMut::new();
    for seq in first..first + records {
        encode(&deliver(room, seq), &mut frames);
    }
    frames.freeze()
}

/// Appends a message's frame.
pub(crate) fn encode<'a, B: Body<'a>>(body: &B, out: &mut BytesMut) {
    parlor_protocol::encode(0, body, out);
}

/// Decodes a deliver's frame, and reads it as far as the compiler must not leave anything out.
pub(crate) fn decode_deliver(frame: &[u8]) -> Option<(Seq, usize)> {
    let deliver = decode::<Deliver<'_>>(frame.get(HEADER_BYTES..)?).ok()?;
    Some((deliver.seq, deliver.sender.len() + deliver.payload.len()))
}

/// The same of a publish.
pub(crate) fn decode_publish(frame: &[u8]) -> Option<(u64, usize)> {
    let publish = decode::<Publish<'_>>(frame.get(HEADER_BYTES..)?).ok()?;
    Some((publish.nonce, publish.payload.len()))
}
