//! Bytes from strangers: nothing that arrives may panic, be misread, or cost more memory than a small multiple of itself.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may panic, and its data is small")]

use parlor_protocol::{
    Body, Code, DecodeError, DeviceTag, Epoch, Extensions, Kind, List, RoomNumber, Token, decode,
    frame::{self, HEADER_BYTES, Header},
    message::*,
    split, to_bytes,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// Applies a macro to every message's type.
macro_rules! every_message {
    ($macro:ident) => {
        $macro!(Hello Welcome Goodbye Close Resume Follow Attached Error Join Joined Leave Left Publish Ack Deliver Gap Fetch Page Heartbeat
            HeartbeatAck Part PartTaken Mark Marked FetchReaders Readers Signal Signaled
            CreateRoom Done ConfigureRoom Detached DeleteRoom RoomInfo DescribeRoom Members SetMembers Rooms
            RemoveMembers ListMembers ListRooms OpenDirect
            QueryPresence Presence WatchPresence WatchRoom RoomPresence)
    };
}

/// Decodes a body; gives the frame that the message encodes to.
fn read(kind: Kind, request: u32, body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    macro_rules! dispatch {
        ($($name:ident)*) => {
            match kind {
                $(Kind::$name => decode::<$name<'_>>(body).map(|message| to_bytes(request, &message).to_vec()),)*
            }
        };
    }
    every_message!(dispatch)
}

/// Decodes a body and drops the message; `true` if it was one.
fn decodes(kind: Kind, body: &[u8]) -> bool {
    macro_rules! dispatch {
        ($($name:ident)*) => {
            match kind {
                $(Kind::$name => decode::<$name<'_>>(body).is_ok(),)*
            }
        };
    }
    every_message!(dispatch)
}

/// Decodes and asserts that memory stays within a small multiple of the input.
#[track_caller]
fn check_memory(kind: Kind, body: &[u8]) -> bool {
    let mut decoded = false;
    let used = allocation_counter::measure(|| decoded = decodes(kind, body));
    // A position takes 3 bytes on the wire and 24 in memory; a vector that grows holds its old and its new half at once
    // and may be twice as large as its content. The constant is the text of an error.
    // Names and entries of lists take less on the wire, and their lists are short.
    let growth = match kind {
        Kind::CreateRoom | Kind::SetMembers | Kind::RemoveMembers | Kind::Members | Kind::Rooms => 48,
        Kind::QueryPresence | Kind::Presence | Kind::WatchPresence | Kind::RoomPresence => 48,
        _ => 16,
    };
    let max = growth * body.len() as u64 + 1_024;
    assert!(used.bytes_max <= max, "{kind:?} of {} bytes used {} bytes, more than {max}", body.len(), used.bytes_max);
    assert_eq!(used.bytes_current, 0, "{kind:?} leaked");
    decoded
}

struct Golden {
    name: String,
    kind: Kind,
    frame: Vec<u8>,
}

impl Golden {
    fn body(&self) -> &[u8] {
        &self.frame[HEADER_BYTES..]
    }
}

fn golden() -> Vec<Golden> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/frames.json");
    let file: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let read = |vector: &serde_json::Value| {
        let digits = vector["hex"].as_str().unwrap();
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let frame: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        let kind = Kind::from_wire(Header::from_bytes(frame.first_chunk().unwrap()).kind).unwrap();
        Golden { name: vector["name"].to_string(), kind, frame }
    };
    file["frames"].as_array().unwrap().iter().map(read).collect()
}

#[test]
fn every_truncation_of_every_vector_is_incomplete_or_refused() {
    for vector in golden() {
        for cut in 0..vector.frame.len() {
            let frame = split(&vector.frame[..cut], |header| Ok(header.len));
            assert_eq!(frame, Ok(None), "{} cut at {cut}", vector.name);
        }
        for cut in 0..vector.body().len() {
            assert!(!check_memory(vector.kind, &vector.body()[..cut]), "{} body cut at {cut}", vector.name);
        }
    }
}

#[test]
fn no_single_byte_of_a_vector_matters_more_than_itself() {
    for vector in golden() {
        let mut body = vector.body().to_vec();
        for at in 0..body.len() {
            for value in [0, 1, 2, 0x7f, 0x80, 250, 251, 252, 253, 254, 255, body[at] ^ 1, body[at].wrapping_add(1)] {
                let good = std::mem::replace(&mut body[at], value);
                check_memory(vector.kind, &body);
                body[at] = good;
            }
        }
    }
}

#[test]
fn trailing_bytes_are_refused() {
    for vector in golden() {
        for extra in [&[0][..], &[0; 100], &[255]] {
            let body = [vector.body(), extra].concat();
            let want = DecodeError::TrailingBytes { kind: vector.kind, extra: extra.len() };
            assert_eq!(read(vector.kind, 0, &body), Err(want), "{}", vector.name);
        }
    }
}

#[test]
fn odd_extensions_are_refused_and_even_ones_skipped() {
    let mut kinds = std::collections::HashSet::new();
    for vector in golden().iter().filter(|vector| vector.body().ends_with(&[0])) {
        // The vector's last byte is its empty list of extensions; most vectors end so.
        let with = |extensions: &[u8]| [&vector.body()[..vector.body().len() - 1], extensions].concat();
        if !decodes(vector.kind, &with(&[1, 2, 1, b'x'])) {
            continue; // The 0 was the length of a last extension.
        }
        kinds.insert(vector.kind);
        for (tag, bytes) in
            [(1, &[1][..]), (249, &[249]), (251, &[251, 251, 0]), (u32::MAX, &[252, 255, 255, 255, 255])]
        {
            let body = with(&[&[1], bytes, &[0]].concat());
            let want = DecodeError::UnknownExtension { kind: vector.kind, tag };
            assert_eq!(read(vector.kind, 0, &body), Err(want), "{}", vector.name);
        }
        assert!(decodes(vector.kind, &with(&[16].iter().chain(&[2, 0].repeat(16)).copied().collect::<Vec<_>>())));
        assert!(!decodes(vector.kind, &with(&[17].iter().chain(&[2, 0].repeat(17)).copied().collect::<Vec<_>>())));
    }
    assert_eq!(kinds.len(), Kind::ALL.len());
}

#[test]
fn lists_that_claim_much_cost_little() {
    for claim in
        [[251, 255, 255].as_slice(), &[252, 255, 255, 255, 255], &[253, 255, 255, 255, 255, 255, 255, 255, 255]]
    {
        assert!(!check_memory(Kind::Heartbeat, &[&[0], claim].concat()));
        assert!(!check_memory(Kind::Page, &[&[7, 3, 9, 0], claim].concat()));
        assert!(!check_memory(Kind::Goodbye, claim));
        assert!(!check_memory(Kind::Join, claim));
    }
    let full = [[0, 251, 232, 3].as_slice(), &[7, 3, 42].repeat(1_000), &[0]].concat();
    assert!(check_memory(Kind::Heartbeat, &full), "1,000 positions are allowed");
}

#[test]
fn a_header_is_judged_before_its_body_arrives() {
    for kind in Kind::ALL {
        let header = Header { len: u32::MAX, kind: *kind as u16, flags: 0, request: 1 }.to_bytes();
        assert!(split(&header, |header| frame::request_body_max(header, 1_440)).is_err(), "{kind:?}");
        assert!(split(&header, frame::answer_body_max).is_err(), "{kind:?}");
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    select(Kind::ALL)
}

/// Bytes, of which many are the markers and lengths that a decoder minds.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![any::<u8>(), 0..4_u8, 249..=255_u8], 0..512)
}

/// Integers of every encoded length, and their boundaries.
fn number() -> impl Strategy<Value = u64> {
    let boundaries = select(&[0, 250, 251, 65_535, 65_536, (1 << 32) - 1, 1 << 32, u64::MAX][..]);
    (prop_oneof![any::<u64>(), boundaries], 0..64_u32).prop_map(|(number, shift)| number >> shift)
}

type Entries = Vec<(u32, Vec<u8>)>;

fn entries() -> impl Strategy<Value = Entries> {
    let tag = any::<u32>().prop_map(|tag| tag & !1);
    prop_oneof![Just(vec![]), vec((tag, vec(any::<u8>(), 0..20)), 0..=16)]
}

fn extensions(entries: &Entries) -> Extensions<'_> {
    Extensions(entries.iter().map(|(tag, bytes)| (*tag, &bytes[..])).collect())
}

fn networks() -> impl Strategy<Value = Network> {
    use Network::*;
    select(&[Unknown, Wired, Wifi, Mobile2g, Mobile3g, Mobile4g, Mobile5g][..])
}

fn durabilities() -> impl Strategy<Value = Durability> {
    select(&[Durability::Memory, Durability::Buffered, Durability::Synced][..])
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..80).prop_map(String::from_iter)
}

fn round_trip<'a, B: Body<'a> + PartialEq + std::fmt::Debug>(
    frame: &'a [u8],
    want: &B,
    request: u32,
) -> Result<(), TestCaseError> {
    let header = Header::from_bytes(frame.first_chunk().unwrap());
    prop_assert_eq!(
        header,
        Header { len: (frame.len() - HEADER_BYTES) as u32, kind: B::KIND as u16, flags: 0, request }
    );
    let have: B = decode(&frame[HEADER_BYTES..]).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(&have, want);
    Ok(())
}

macro_rules! check_round_trip {
    ($request:expr, $message:expr) => {{
        let message = $message;
        let frame = to_bytes($request, &message);
        round_trip(&frame, &message, $request)?;
    }};
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bodies_never_panic_nor_bloat(kind in kinds(), body in bytes()) {
        check_memory(kind, &body);
    }

    #[test]
    fn arbitrary_streams_never_panic(input in bytes(), payload in any::<u32>()) {
        let payload = payload % (64 << 10);
        for frame in [
            split(&input, |header| frame::request_body_max(header, payload)),
            split(&input, frame::answer_body_max),
        ] {
            if let Ok(Some(frame)) = frame {
                prop_assert!(frame.size() <= input.len());
                prop_assert_eq!(frame.body, &input[HEADER_BYTES..frame.size()]);
            }
        }
    }

    #[test]
    fn what_decodes_encodes_to_something_that_decodes_alike(kind in kinds(), body in bytes()) {
        if let Ok(frame) = read(kind, 9, &body) {
            prop_assert!(frame.len() <= HEADER_BYTES + body.len(), "senders write the shortest form");
            prop_assert_eq!(read(kind, 9, &frame[HEADER_BYTES..]), Ok(frame.clone()));
        }
    }

    #[test]
    fn mutated_vectors_never_panic_nor_bloat(at in any::<prop::sample::Index>(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let all = golden();
        let vector = &all[at.index(all.len())];
        let mut body = vector.body().to_vec();
        for (at, value) in changes {
            let at = at.index(body.len());
            body[at] = value;
        }
        check_memory(vector.kind, &body);
    }

    #[test]
    fn requests_round_trip(
        request in any::<u32>(), a in number(), b in number(), c in any::<u32>(), d in any::<u16>(), e in any::<u16>(),
        some in option::of(number()), one in text(), two in text(), blob in vec(any::<u8>(), 0..2_000),
        token in option::of(any::<[u8; 16]>()), network in networks(), changed in any::<bool>(), from in 0..4_u8,
        list in vec((number(), number(), number()), 0..40), entries in entries(),
    ) {
        let extensions = || extensions(&entries);
        let (room, token) = (RoomNumber(a), token.map(Token));
        let from = match from {
            0 => JoinFrom::Tail,
            1 => JoinFrom::Newest(c),
            2 => JoinFrom::Seq(a),
            _ => JoinFrom::Position(Epoch(a), b),
        };
        let position = |&(room, epoch, seq): &_| Position { room: RoomNumber(room), epoch: Epoch(epoch), seq };
        check_round_trip!(request, Hello {
            magic: c.to_le_bytes(), version_min: d, version_max: e, features: a, user: &one, device: &two,
            device_class: DeviceClass::Desktop, network, credentials: &blob, resume: token, attempt: b,
            extensions: extensions(),
        });
        check_round_trip!(request, Goodbye { extensions: extensions() });
        check_round_trip!(request, Follow {
            positions: List(list.iter().map(position).collect()), newest: c, extensions: extensions(),
        });
        check_round_trip!(request, Resume {
            positions: List(list.iter().map(position).collect()), extensions: extensions(),
        });
        check_round_trip!(request, Join { room: &one, from, extensions: extensions() });
        check_round_trip!(request, Leave { room, extensions: extensions() });
        check_round_trip!(request, Publish {
            room, nonce: b, kind: RecordKind(d), refers_to: a, lifetime_ms: some, flags: c, content_type: ContentType(e),
            payload: &blob, extensions: extensions(),
        });
        check_round_trip!(request, Part {
            room, nonce: b, number: c, parts: c >> 3, total_bytes: c >> 7, kind: RecordKind(d), refers_to: a,
            lifetime_ms: some, flags: c, content_type: ContentType(e), payload: &blob, extensions: extensions(),
        });
        let options = RoomOptions {
            access: Access::Broadcast, past: Past::SinceAdded, lifetime_ms: a, records_max: b, payload_bytes_max: c,
            ..RoomOptions::default()
        };
        let users = || List(vec![&*one, &*two]);
        let (room_name, before) = (&*one, some.map(|time| Activity { time, room }));
        let (role, after) = (if changed { Role::Muted } else { Role::Owner }, changed.then_some(&*two));
        check_round_trip!(request, CreateRoom { room: room_name, options, members: users(), extensions: extensions() });
        check_round_trip!(request, ConfigureRoom { room: room_name, options, extensions: extensions() });
        check_round_trip!(request, DeleteRoom { room: room_name, extensions: extensions() });
        check_round_trip!(request, DescribeRoom { room: room_name, extensions: extensions() });
        check_round_trip!(request, SetMembers { room: room_name, role, users: users(), extensions: extensions() });
        check_round_trip!(request, RemoveMembers { room: room_name, users: users(), extensions: extensions() });
        check_round_trip!(request, ListMembers { room: room_name, after, limit: c, extensions: extensions() });
        check_round_trip!(request, ListRooms { before, limit: c, extensions: extensions() });
        check_round_trip!(request, OpenDirect { user: &one, extensions: extensions() });
        let direction = if changed { Direction::Forward } else { Direction::Backward };
        check_round_trip!(request, Fetch { room, start: some, direction, limit: c, extensions: extensions() });
        let positions = List(list.iter().map(position).collect());
        check_round_trip!(request, Heartbeat { network: changed.then_some(network), positions, extensions: extensions() });
    }

    #[test]
    fn answers_round_trip(
        request in any::<u32>(), a in number(), b in number(), c in any::<u32>(), d in any::<u16>(), e in any::<u16>(),
        f in number(), some in option::of(number()), one in text(), blob in vec(any::<u8>(), 0..2_000),
        token in any::<[u8; 16]>(), durability in durabilities(), yes in any::<bool>(),
        list in vec((number(), number(), any::<u16>()), 0..32), entries in entries(),
    ) {
        let extensions = || extensions(&entries);
        let room = RoomNumber(a);
        let limits = Limits {
            payload_bytes_max: c, rooms_max: c >> 1, unanswered_requests_max: c >> 9, page_records_max: c >> 17,
            page_bytes_max: c >> 25, text_bytes_max: c >> 3,
        };
        let module = |&(_, _, kind): &(_, _, u16)| Module { name: &one, kind_first: kind, kind_last: d };
        let gap = |&(from, to, why): &_| PageGap { from, to, why: GapReason(why) };
        check_round_trip!(request, Welcome {
            version: d, features: a, server_time: b, grant_ms: c, token: Token(token), resumed: yes,
            device_tag: DeviceTag(f), limits, modules: List(list.iter().map(module).collect()),
            extensions: extensions(),
        });
        check_round_trip!(request, Close { code: Code(d), retry_after_ms: c, message: &one, extensions: extensions() });
        check_round_trip!(request, Error { code: Code(d), retry_after_ms: c, message: &one, extensions: extensions() });
        check_round_trip!(request, Joined {
            room, epoch: Epoch(b), tail: f, first: a, cursor: b, count: f, read: a, unread: b, durability,
            newest_nonce: some, extensions: extensions(),
        });
        check_round_trip!(request, Attached {
            name: &one, room, epoch: Epoch(b), tail: f, first: a, cursor: b, count: f, read: a, unread: b, durability,
            newest_nonce: some, extensions: extensions(),
        });
        check_round_trip!(request, Left { room, cursor: b, extensions: extensions() });
        check_round_trip!(request, Ack {
            room, nonce: b, seq: f, time: a, durability, duplicate: yes, extensions: extensions(),
        });
        check_round_trip!(request, Deliver {
            room, seq: b, time: f, sender: &one, device_tag: DeviceTag(a), nonce: b, kind: RecordKind(d), refers_to: f,
            expires: a, count: b, content_type: ContentType(e), payload: &blob, extensions: extensions(),
        });
        let missing = List(list.iter().map(|(_, _, number)| u32::from(*number)).collect());
        check_round_trip!(request, PartTaken { room, nonce: b, missing, extensions: extensions() });
        check_round_trip!(request, Gap {
            room, epoch: Epoch(b), from: f, to: a, why: GapReason(d), extensions: extensions(),
        });
        check_round_trip!(request, Page {
            room, epoch: Epoch(b), tail: f, next: some, gaps: List(list.iter().map(gap).collect()), records: &blob,
            extensions: extensions(),
        });
        check_round_trip!(request, Done { extensions: extensions() });
        check_round_trip!(request, Detached { room, cursor: b, code: Code(d), message: &one, extensions: extensions() });
        let (role, options) = (yes.then_some(Role::Moderator), RoomOptions { durability, ..RoomOptions::default() });
        check_round_trip!(request, RoomInfo {
            name: &one, room, epoch: Epoch(b), options, tail: f, count: a, members: b, role, extensions: extensions(),
        });
        let member = |&(added, _, _): &(u64, u64, u16)| MemberEntry { user: &one, role: Role::Banned, added };
        let members = List(list.iter().map(member).collect());
        check_round_trip!(request, Members { members, next: yes.then_some(&*one), extensions: extensions() });
        let entry = |&(tail, count, _): &(u64, u64, u16)| RoomEntry {
            name: &one, room, epoch: Epoch(a), role: Role::Member, tail, count, unread: b, time: f, newest: &blob,
        };
        let (rooms, next) = (List(list.iter().map(entry).collect()), some.map(|time| Activity { time, room }));
        check_round_trip!(request, Rooms { rooms, next, extensions: extensions() });
        check_round_trip!(request, HeartbeatAck { server_time: a, grant_ms: c, extensions: extensions() });
        check_round_trip!(request, Mark { room, read: b, extensions: extensions() });
        check_round_trip!(request, Marked { room, read: b, unread: f, extensions: extensions() });
        check_round_trip!(request, FetchReaders { room, seq: a, extensions: extensions() });
        let reader = |&(read, delivered, _): &_| Reader { user: &one, read, delivered };
        check_round_trip!(request, Readers {
            room, readers: List(list.iter().map(reader).collect()), extensions: extensions(),
        });
        let to = if yes { SignalTo::Room(room) } else { SignalTo::User(&one) };
        check_round_trip!(request, Signal { to, key: c, payload: &blob, extensions: extensions() });
        check_round_trip!(request, Signaled {
            room: yes.then_some(room), sender: &one, device_tag: DeviceTag(f), key: c, payload: &blob,
            extensions: extensions(),
        });
    }
}
