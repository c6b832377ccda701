//! The light reader says what the full decoder says, of any bytes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use parlor_protocol::{
    DecodeError, DeviceTag, Extensions, RoomNumber, decode,
    frame::HEADER_BYTES,
    message::{ContentType, Deliver, RecordKind},
    peek::{self, Glance},
    to_bytes,
};
use proptest::{collection::vec, prelude::*, sample::select};

/// What the full decoder says.
fn decoded(body: &[u8]) -> Result<Glance<'_>, DecodeError> {
    let Deliver { room, seq, payload, .. } = decode(body)?;
    Ok(Glance { room, seq, payload })
}

/// Numbers of every encoded length, and their boundaries.
fn number() -> impl Strategy<Value = u64> {
    let boundaries = select(&[0, 250, 251, 65_535, 65_536, (1 << 32) - 1, 1 << 32, u64::MAX][..]);
    (prop_oneof![any::<u64>(), boundaries], 0..64_u32).prop_map(|(number, shift)| number >> shift)
}

/// A record's body, as a server encodes it.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let numbers = (number(), number(), number(), number(), number(), number(), number(), number());
    let texts = (prop_oneof!["[a-z]{0,9}", "\\PC{0,9}"], vec(any::<u8>(), 0..400));
    let rest = (
        prop_oneof![0..5_u16, any::<u16>()],
        any::<u16>(),
        prop_oneof![Just(vec![]), vec((any::<u32>(), vec(any::<u8>(), 0..9)), 1..4)],
    );
    (numbers, texts, rest).prop_map(
        |((room, seq, time, tag, nonce, refers_to, expires, count), (sender, payload), rest)| {
            let (kind, content_type, entries) = rest;
            let deliver = Deliver {
                room: RoomNumber(room),
                seq,
                time,
                sender: &sender,
                device_tag: DeviceTag(tag),
                nonce,
                kind: RecordKind(kind),
                refers_to,
                expires,
                count,
                content_type: ContentType(content_type),
                payload: &payload,
                extensions: Extensions(entries.iter().map(|(tag, bytes)| (*tag, &bytes[..])).collect()),
            };
            to_bytes(0, &deliver)[HEADER_BYTES..].to_vec()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn records_are_read_as_they_are_decoded(body in body()) {
        prop_assert_eq!(peek::deliver(&body), decoded(&body));
        if let Ok(Deliver { kind, refers_to, .. }) = decode(&body) {
            prop_assert_eq!(peek::changes(&body), kind.is_change().then_some(refers_to));
        }
    }

    #[test]
    fn so_are_damaged_ones(
        body in body(), cut in any::<prop::sample::Index>(), cuts in any::<bool>(), extra in vec(any::<u8>(), 0..3),
        changes in vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), 249..=255_u8]), 0..4),
    ) {
        let mut body = body;
        for (at, value) in changes {
            let at = at.index(body.len());
            body[at] = value;
        }
        if cuts {
            body.truncate(cut.index(body.len()));
        }
        body.extend(extra);
        prop_assert_eq!(peek::deliver(&body), decoded(&body));
    }

    #[test]
    fn so_are_any_bytes(body in vec(prop_oneof![any::<u8>(), 0..4_u8, 249..=255_u8], 0..64)) {
        prop_assert_eq!(peek::deliver(&body), decoded(&body));
    }
}

#[test]
fn a_number_longer_than_it_need_be_is_one_all_the_same() {
    // room 7 in three bytes, seq 1 in nine, a sender of a length in five.
    let start = [&[251, 7, 0][..], &[253, 1, 0, 0, 0, 0, 0, 0, 0], &[0], &[252, 1, 0, 0, 0, b'a']].concat();
    let body = [&start[..], &[0, 0, 0, 0, 0, 0, 0], &[2, b'h', b'i'], &[0]].concat();
    let glance = peek::deliver(&body).unwrap();
    assert_eq!((glance.room, glance.seq, glance.payload), (RoomNumber(7), 1, &b"hi"[..]));
    assert_eq!(Ok(glance), decoded(&body));
}
