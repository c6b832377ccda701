//! Bytes that no client sends, against a real engine on a real socket: each sender gets exactly the code that
//! `PROTOCOL.md` promises, and a healthy neighbour in the same engine notices nothing.
#![cfg(all(feature = "engine", feature = "client", feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod common;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use common::{
    Neighbour, Raw, Served, beat, claim, config_file, engine, ext, frame, hello, join, loopback, publish, soon, until,
};
use parlor::{
    client::{Event, JoinFrom, Outgoing},
    config::EngineConfig,
    engine::Engine,
};
use parlor_protocol::{
    Body, Code, Extensions, Header, Kind, List, RoomNumber, Seq,
    message::{self, Direction, Durability, RecordKind},
    to_bytes,
};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, runtime::Runtime};

/// An engine with a neighbour in it, and what a test breaks it with.
struct House {
    runtime: Runtime,
    engine: Engine,
    address: SocketAddr,
    neighbour: Option<Neighbour>,
    room: RoomNumber,
    cases: u32,
    _data: TempDir,
}

/// Where a case begins.
#[derive(Clone, Copy)]
enum Start {
    /// Nothing was said yet.
    Cold,
    /// Hello was said, and the room "hall" is joined.
    Welcomed,
}
use Start::{Cold, Welcomed};

/// How a case ends.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// This close, then the end.
    Close(Code),
    /// The end without a close.
    End,
    /// This error as the answer to request 9; the connection goes on.
    Error(Code),
    /// No answer; the connection goes on.
    Nothing,
}
use Want::{Close, End, Error, Nothing};

impl House {
    fn new(change: impl FnOnce(&mut EngineConfig)) -> Self {
        let data = TempDir::new().unwrap();
        let (engine, address) = engine(data.path(), change);
        let runtime = Runtime::new().unwrap();
        let (neighbour, room) = runtime.block_on(async {
            let room = engine.create_room(
                "hall",
                parlor::engine::RoomOptions {
                    durability: Durability::Buffered,
                    ..parlor::engine::RoomOptions::default()
                },
            );
            (Neighbour::move_in(address).await, room.await.unwrap())
        });
        Self { runtime, engine, address, neighbour: Some(neighbour), room, cases: 0, _data: data }
    }

    /// The neighbour still lives as he did.
    fn round(&mut self) {
        self.runtime.block_on(self.neighbour.as_mut().unwrap().round());
    }

    /// A connection of a device of its own.
    fn enter(&mut self) -> Raw {
        self.cases += 1;
        let device = format!("device {}", self.cases);
        self.runtime.block_on(Raw::welcomed(self.address, "stranger", &device))
    }

    #[track_caller]
    fn check(&mut self, label: &str, start: Start, bytes: &[u8], want: Want) {
        eprintln!("case: {label}");
        let mut raw = match start {
            Cold => self.runtime.block_on(Raw::connect(self.address)),
            Welcomed => self.enter(),
        };
        let got = self.runtime.block_on(async {
            if matches!(start, Welcomed) {
                assert_eq!(raw.join("hall", JoinFrom::Tail).await, self.room);
            }
            raw.try_send(bytes).await;
            match want {
                Close(_) => raw.end().await,
                End => {
                    raw.stream.shutdown().await.unwrap();
                    raw.end().await
                }
                Error(_) => Some(raw.answer(9).await),
                Nothing => None,
            }
        });
        let code = got.as_ref().and_then(common::Got::refusal);
        match want {
            Close(wanted) => assert_eq!(code, Some(wanted), "{label}: {got:?}"),
            End => assert!(got.is_none(), "{label}: {got:?}"),
            Error(wanted) => {
                assert_eq!(got.as_ref().map(common::Got::kind), Some(Kind::Error), "{label}");
                assert_eq!(code, Some(wanted), "{label}");
            }
            Nothing => {}
        }
        if matches!(want, Error(_) | Nothing) {
            let answered = self.runtime.block_on(raw.ask(77, &beat()));
            assert_eq!(answered.kind(), Kind::HeartbeatAck, "{label}: the connection goes on");
        }
        self.round();
    }

    fn close(mut self) {
        self.runtime.block_on(async {
            until("strangers are forgotten", async || self.engine.connections() == 1).await;
            self.neighbour.take().unwrap().move_out().await;
            soon("the shutdown", self.engine.shutdown()).await;
        });
    }
}

fn bytes_of<'a, B: Body<'a>>(body: &B) -> Vec<u8> {
    to_bytes(9, body).to_vec()
}

/// A frame with bytes changed.
fn bent<'a, B: Body<'a>>(body: &B, bend: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = bytes_of(body);
    bend(&mut bytes);
    bytes
}

/// A frame with more bytes behind its body's end, claimed by its length.
fn stretched<'a, B: Body<'a>>(body: &B, by: &[u8]) -> Vec<u8> {
    let bytes = bytes_of(body);
    frame(B::KIND as u16, 0, &[&bytes[12..], by].concat())
}

fn odd<'a>() -> Extensions<'a> {
    Extensions(vec![(3, b"x")])
}

fn even<'a>() -> Extensions<'a> {
    Extensions(vec![(2, b"x"), (4_000_000_000, b"")])
}

/// Noise that is the same on every run.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn a_first_frame_that_is_no_hello_closes_its_own_connection_only() {
    let mut house = House::new(|config| {
        config.authenticate = Some(Arc::new(|login| match login.credentials {
            b"wrong" => Err("no".to_owned()),
            b"panic" => panic!("a host's mistake"),
            _ => Ok(()),
        }));
    });
    let good = hello("bad", "first");
    for seed in 0..8 {
        // Kind 0x0010 would be luck: the noise does not have it.
        house.check("noise", Cold, &noise(seed, 4_096), Close(Code::HelloExpected));
    }
    house.check("HTTP", Cold, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Close(Code::HelloExpected));
    house.check("TLS", Cold, &[&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &noise(9, 506)].concat(), {
        Close(Code::HelloExpected)
    });
    house.check("zeroes", Cold, &[0; 64], Close(Code::HelloExpected));
    house.check("a publish", Cold, &bytes_of(&publish(house.room, 1, b"x")), Close(Code::HelloExpected));
    house.check("an answer", Cold, &frame(Kind::Welcome as u16, 0, &[]), Close(Code::HelloExpected));
    house.check("a module's frame", Cold, &frame(0x8000, 0, &[]), Close(Code::HelloExpected));
    house.check("4 GiB", Cold, &claim(Kind::Hello, u32::MAX), Close(Code::FrameTooLarge));
    house.check("4 GiB of a publish", Cold, &claim(Kind::Publish, u32::MAX), Close(Code::HelloExpected));
    house.check("a byte too long", Cold, &claim(Kind::Hello, 8_193), Close(Code::FrameTooLarge));
    house.check("too long, and all of it", Cold, &frame(0x10, 0, &[0; 60_000]), Close(Code::FrameTooLarge));
    house.check("too long, with upper flags", Cold, &frame(0x10, 0x0100, &[0; 8_193]), Close(Code::FrameTooLarge));
    for flag in 8..16 {
        house.check("an upper flag", Cold, &bent(&good, |bytes| bytes[7] = 1 << (flag - 8)), {
            Close(Code::MalformedFrame)
        });
    }
    house.check("empty", Cold, &frame(0x10, 0, &[]), Close(Code::BadMagic));
    house.check("other magic", Cold, &bytes_of(&message::Hello { magic: *b"PRLX", ..good.clone() }), {
        Close(Code::BadMagic)
    });
    house.check("magic alone", Cold, &frame(0x10, 0, b"PRLR"), Close(Code::MalformedFrame));
    house.check("a wrong byte", Cold, &bent(&good, |bytes| bytes[12 + 4] = 0xff), Close(Code::MalformedFrame));
    house.check("trailing", Cold, &stretched(&good, &[0]), Close(Code::MalformedFrame));
    house.check("odd extension", Cold, &bytes_of(&message::Hello { extensions: odd(), ..good.clone() }), {
        Close(Code::MalformedFrame)
    });
    for (version_min, version_max) in [(0, 0), (2, 2), (2, 65_535), (1, 0)] {
        let hello = message::Hello { version_min, version_max, ..good.clone() };
        house.check("versions", Cold, &bytes_of(&hello), Close(Code::UnsupportedVersion));
    }
    let long = "x".repeat(65);
    for name in ["", "a\nb", "\u{7f}", "\u{85}", &long] {
        let user = message::Hello { user: name, ..good.clone() };
        house.check("a bad user", Cold, &bytes_of(&user), Close(Code::InvalidHello));
        let device = message::Hello { device: name, ..good.clone() };
        house.check("a bad device", Cold, &bytes_of(&device), Close(Code::InvalidHello));
    }
    let text = message::Hello { credentials: &[7; 4_097], ..good.clone() };
    house.check("credentials too long", Cold, &bytes_of(&text), Close(Code::InvalidHello));
    house.check("refused", Cold, &bytes_of(&message::Hello { credentials: b"wrong", ..good.clone() }), {
        Close(Code::Unauthorized)
    });
    house.check("a host that panics", Cold, &bytes_of(&message::Hello { credentials: b"panic", ..good.clone() }), End);
    house.check("nothing and an end", Cold, &[], End);
    house.check("half a hello and an end", Cold, &bytes_of(&good)[..20], End);
    house.close();
}

#[test]
fn a_hello_that_does_not_come_is_not_waited_for() {
    // Long enough for the neighbour's, however busy the machine is.
    let mut house = House::new(|config| config.net.hello_ms = 2_000);
    let good = hello("bad", "first");
    house.check("silence", Cold, &[], Close(Code::TooSlow));
    house.check("half a header", Cold, &bytes_of(&good)[..7], Close(Code::TooSlow));
    house.check("half a hello", Cold, &bytes_of(&good)[..20], Close(Code::TooSlow));
    house.close();
}

#[test]
fn what_a_hello_may_have_is_welcomed() {
    let mut house = House::new(|_| {});
    let good = hello("good", "first");
    let check = |label: &str, bytes: &[u8]| {
        house.runtime.block_on(async {
            let mut raw = Raw::connect(house.address).await;
            raw.send(bytes).await;
            assert_eq!(raw.next().await.expect("a welcome").kind(), Kind::Welcome, "{label}");
        });
    };
    check("lower flags", &bent(&good, |bytes| bytes[6] = 0xff));
    check("even extensions", &bytes_of(&message::Hello { extensions: even(), ..good.clone() }));
    check("newer versions too", &bytes_of(&message::Hello { version_max: 65_535, ..good.clone() }));
    check("older versions too", &bytes_of(&message::Hello { version_min: 0, ..good.clone() }));
    check("unknown features", &bytes_of(&message::Hello { features: u64::MAX, ..good.clone() }));
    check("the longest credentials", &bytes_of(&message::Hello { credentials: &[7; 4_096], ..good.clone() }));
    let long = "x".repeat(64);
    check("the longest names", &bytes_of(&message::Hello { user: &long, device: &long, ..good.clone() }));
    house.round();
    house.close();
}

#[test]
fn a_bad_frame_closes_its_own_connection_only() {
    // What is sent whole comes whole, so that only half a frame is slow.
    let mut house = House::new(|config| config.net.frame_ms = 500);
    let good = publish(house.room, 1, b"x");
    let twice = [to_bytes(500, &join("one", JoinFrom::Tail)), to_bytes(500, &join("two", JoinFrom::Tail))].concat();
    house.check("a number used again before its answer", Welcomed, &twice, Close(Code::MalformedFrame));
    house.check("a second hello", Welcomed, &bytes_of(&hello("bad", "first")), Close(Code::HelloExpected));
    for kind in [0, 1, 0x0e, 0x22 + 0x100, 0x7ffe, 0x7fff] {
        house.check("an unknown kind", Welcomed, &frame(kind, 0, &[]), Close(Code::UnknownKind));
    }
    for kind in Kind::ALL.iter().filter(|kind| !kind.is_request()) {
        house.check("an answer", Welcomed, &frame(*kind as u16, 0, &[]), Close(Code::UnknownKind));
    }
    for seed in 10..14 {
        house.check("noise", Welcomed, &[&frame(0x7001, 0, &[])[..], &noise(seed, 9_000)].concat(), {
            Close(Code::UnknownKind)
        });
    }
    // Its "HT" stands where the flags are.
    house.check("HTTP", Welcomed, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Close(Code::MalformedFrame));
    for flag in 8..16 {
        house.check("an upper flag", Welcomed, &bent(&good, |bytes| bytes[7] = 1 << (flag - 8)), {
            Close(Code::MalformedFrame)
        });
    }
    house.check("upper flags of a module", Welcomed, &frame(0x8000, 0x0100, &[]), Close(Code::MalformedFrame));
    let payload_max = 1_440;
    for (kind, most) in [
        (Kind::Publish, payload_max + 1_024),
        (Kind::Join, 1_024),
        (Kind::Leave, 1_024),
        (Kind::Fetch, 1_024),
        (Kind::Goodbye, 1_024),
        (Kind::Heartbeat, 65_536),
    ] {
        house.check("4 GiB", Welcomed, &claim(kind, u32::MAX), Close(Code::FrameTooLarge));
        house.check("a byte too long", Welcomed, &claim(kind, most + 1), Close(Code::FrameTooLarge));
        house.check("an empty body", Welcomed, &frame(kind as u16, 0, &[]), Close(Code::MalformedFrame));
        house.check("noise as a body", Welcomed, &frame(kind as u16, 0, &[0xff; 900]), Close(Code::MalformedFrame));
    }
    let module = Header { len: payload_max + 1_025, kind: 0x9000, flags: 0, request: 0 }.to_bytes();
    house.check("a module's frame too long", Welcomed, &module, Close(Code::FrameTooLarge));
    house.check("trailing", Welcomed, &stretched(&good, b"."), Close(Code::MalformedFrame));
    house.check("trailing a beat", Welcomed, &stretched(&beat(), b"."), Close(Code::MalformedFrame));
    house.check("trailing a goodbye", Welcomed, &stretched(&message::Goodbye { extensions: ext() }, b"."), {
        Close(Code::MalformedFrame)
    });
    house.check("an odd extension", Welcomed, &bytes_of(&message::Publish { extensions: odd(), ..good.clone() }), {
        Close(Code::MalformedFrame)
    });
    house.check(
        "2^64 bytes of payload",
        Welcomed,
        &{
            let bytes = bytes_of(&publish(house.room, 1, b""));
            let end = bytes.len() - 2;
            frame(Kind::Publish as u16, 0, &[&bytes[12..end], &[0xfd], &[0xff; 8], &[0]].concat())
        },
        Close(Code::MalformedFrame),
    );
    house.check("a million positions", Welcomed, &frame(Kind::Heartbeat as u16, 0, &[0, 0xfc, 0, 0, 16, 0, 1]), {
        Close(Code::MalformedFrame)
    });
    house.check("not UTF-8", Welcomed, &bent(&join("room", JoinFrom::Tail), |bytes| bytes[13] = 0xff), {
        Close(Code::MalformedFrame)
    });
    house.check("half a frame", Welcomed, &bytes_of(&good)[..15], Close(Code::TooSlow));
    house.check("half a header", Welcomed, &bytes_of(&good)[..5], Close(Code::TooSlow));
    house.check("a frame and half a frame", Welcomed, &[&frame(0x8000, 0, &[]), &bytes_of(&good)[..15]].concat(), {
        Close(Code::TooSlow)
    });
    house.check("half a frame and an end", Welcomed, &bytes_of(&good)[..15], End);
    house.check("an end", Welcomed, &[], End);
    house.check("a goodbye", Welcomed, &bytes_of(&message::Goodbye { extensions: ext() }), Close(Code::Goodbye));
    house.check("a good frame before a bad one", Welcomed, &[bytes_of(&beat()), frame(1, 0, &[])].concat(), {
        Close(Code::UnknownKind)
    });
    house.close();
}

#[test]
fn an_error_leaves_the_connection_usable() {
    let mut house = House::new(|config| config.limits.rooms_per_session_max = 2);
    let room = house.room;
    let good = publish(room, 1_000, b"x");
    house.check("skipped", Welcomed, &frame(0x8000, 0, b"whatever"), Nothing);
    house.check("skipped, the longest", Welcomed, &frame(0xffff, 0x00ff, &[7; 1_440 + 1_024]), Nothing);
    house.check("a lower flag", Welcomed, &bent(&beat(), |bytes| bytes[6] = 0xff), Nothing);
    house.check("even extensions", Welcomed, &bytes_of(&message::Heartbeat { extensions: even(), ..beat() }), Nothing);
    let long = "x".repeat(65);
    for name in ["", "a\nb", "\u{0}", "\u{9f}", &long] {
        house.check("a bad name", Welcomed, &bytes_of(&join(name, JoinFrom::Tail)), Error(Code::InvalidName));
    }
    house.check("twice", Welcomed, &bytes_of(&join("hall", JoinFrom::Tail)), Error(Code::AlreadyJoined));
    let third = [to_bytes(8, &join("second", JoinFrom::Tail)), to_bytes(9, &join("third", JoinFrom::Tail))].concat();
    house.check("a room too many", Welcomed, &third, Error(Code::TooManyRooms));
    let elsewhere = RoomNumber(1 << 40);
    house.check("publish elsewhere", Welcomed, &bytes_of(&publish(elsewhere, 1, b"x")), Error(Code::NotJoined));
    let fetch =
        message::Fetch { room: elsewhere, start: None, direction: Direction::Forward, limit: 0, extensions: ext() };
    house.check("fetch elsewhere", Welcomed, &bytes_of(&fetch), Error(Code::NotJoined));
    let leave = message::Leave { room: elsewhere, extensions: ext() };
    house.check("leave elsewhere", Welcomed, &bytes_of(&leave), Error(Code::NotJoined));
    house.check("a little too long", Welcomed, &bytes_of(&publish(room, 1, &[7; 1_441])), Error(Code::TooLarge));
    for unsupported in [
        message::Publish { kind: RecordKind::EDIT, ..good.clone() },
        message::Publish { kind: RecordKind(4), refers_to: 1, ..good.clone() },
        message::Publish { kind: RecordKind::RECALL, refers_to: 1, ..good.clone() },
        message::Publish { kind: RecordKind::REACTION, refers_to: 1, payload: b"", ..good.clone() },
        message::Publish { kind: RecordKind::REACTION, refers_to: 1, payload: &[b'x'; 33], ..good.clone() },
        message::Publish { kind: RecordKind::REACTION, refers_to: 1, payload: b"\xff", ..good.clone() },
        message::Publish { kind: RecordKind::EDIT, refers_to: 1, flags: 2, ..good.clone() },
        message::Publish { refers_to: 1, ..good.clone() },
        message::Publish { flags: 2, ..good.clone() },
        message::Publish { flags: 1 << 31 | 1, ..good.clone() },
    ] {
        house.check("unsupported", Welcomed, &bytes_of(&unsupported), Error(Code::Unsupported));
    }
    let gone = message::Publish { kind: RecordKind::EDIT, refers_to: 1 << 40, ..good.clone() };
    house.check("a change of nothing", Welcomed, &bytes_of(&gone), Error(Code::TargetGone));
    let conflict = [to_bytes(8, &good), to_bytes(9, &publish(room, 1_000, b"y"))].concat();
    house.check("other content", Welcomed, &conflict, Error(Code::NonceConflict));
    let old = [to_bytes(8, &good), to_bytes(9, &publish(room, 999, b"y"))].concat();
    house.check("a nonce that was skipped", Welcomed, &old, Error(Code::NonceTooOld));
    let many: Vec<u8> = (1..=200).flat_map(|n| to_bytes(1_000 + n, &publish(room, n.into(), b"x"))).collect();
    house.check("a nonce long gone", Welcomed, &[many, bytes_of(&publish(room, 1, b"x"))].concat(), {
        Error(Code::NonceTooOld)
    });
    house.close();
}

#[test]
fn a_room_that_may_not_be_made_is_unknown() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.create_at_join = false);
    Runtime::new().unwrap().block_on(async {
        let mut raw = Raw::welcomed(address, "stranger", "device").await;
        let got = raw.ask(9, &join("nowhere", JoinFrom::Tail)).await;
        assert_eq!(got.refusal(), Some(Code::UnknownRoom));
        assert_eq!(raw.ask(10, &beat()).await.kind(), Kind::HeartbeatAck);
        soon("the shutdown", engine.shutdown()).await;
    });
}
#[test]
fn a_close_that_answers_a_hello_or_a_goodbye_carries_its_number() {
    let house = House::new(|_| {});
    house.runtime.block_on(async {
        let mut raw = Raw::connect(house.address).await;
        raw.send(&to_bytes(4_711, &message::Hello { version_min: 9, version_max: 9, ..hello("a", "b") })).await;
        let close = raw.end().await.unwrap();
        assert_eq!((close.refusal(), close.header.request), (Some(Code::UnsupportedVersion), 4_711));
        let mut raw = Raw::welcomed(house.address, "a", "b").await;
        raw.send(&frame(1, 0, &[])).await;
        let close = raw.end().await.unwrap();
        assert_eq!((close.refusal(), close.header.request), (Some(Code::UnknownKind), 0));
        let mut raw = Raw::welcomed(house.address, "a", "b").await;
        raw.send(&to_bytes(815, &message::Goodbye { extensions: ext() })).await;
        let close = raw.end().await.unwrap();
        assert_eq!((close.refusal(), close.header.request), (Some(Code::Goodbye), 815));
    });
    house.close();
}

#[test]
fn a_conversation_may_come_byte_by_byte() {
    let mut house = House::new(|_| {});
    let mut raw = house.runtime.block_on(Raw::connect(house.address));
    let room = house.room;
    house.runtime.block_on(async {
        let talk =
            [to_bytes(1, &hello("slow", "typist")), to_bytes(2, &join("hall", JoinFrom::Tail)), to_bytes(3, &beat())];
        for byte in talk.concat() {
            raw.send(&[byte]).await;
        }
        assert_eq!(raw.answer(2).await.read::<message::Joined<'_>>().room, room);
        let more = [
            to_bytes(4, &publish(room, 1, b"one")).to_vec(),
            frame(0x8000, 0, b"skip me"),
            to_bytes(5, &publish(room, 2, b"two")).to_vec(),
        ];
        for byte in more.concat() {
            raw.send(&[byte]).await;
        }
        assert_eq!(raw.answer(4).await.read::<message::Ack<'_>>().seq, 1);
        assert_eq!(raw.answer(5).await.read::<message::Ack<'_>>().seq, 2);
        raw.send(&to_bytes(6, &message::Goodbye { extensions: ext() })).await;
        assert_eq!(raw.end().await.unwrap().refusal(), Some(Code::Goodbye));
    });
    house.round();
    house.close();
}

#[test]
fn a_burst_beyond_the_unanswered_limit_is_answered_whole_and_in_order() {
    const BURST: u32 = 1_000;
    let mut house = House::new(|_| {});
    let mut raw = house.enter();
    let room = house.room;
    house.runtime.block_on(async {
        assert_eq!(raw.join("hall", JoinFrom::Tail).await, room);
        let burst: Vec<u8> = (1..=BURST)
            .flat_map(|n| to_bytes(100 + n, &publish(room, n.into(), &u64::from(n).to_le_bytes())))
            .collect();
        raw.send(&burst).await;
        let (mut acked, mut delivered) = (0, 0);
        while acked < u64::from(BURST) || delivered < u64::from(BURST) {
            let got = raw.next().await.expect("an answer");
            match got.kind() {
                Kind::Ack => {
                    let ack = got.read::<message::Ack<'_>>();
                    acked += 1;
                    assert_eq!((ack.nonce, ack.seq, ack.duplicate), (acked, acked, false));
                }
                _ => {
                    let record = got.read::<message::Deliver<'_>>();
                    delivered += 1;
                    assert_eq!((record.nonce, record.seq), (delivered, delivered));
                    assert_eq!(record.payload, delivered.to_le_bytes());
                }
            }
        }
    });
    house.round();
    drop(raw);
    house.close();
}

#[test]
fn too_many_connections_are_told_to_come_back() {
    let mut house = House::new(|config| {
        config.net.connections_max = 3;
        config.net.linger_ms = 60_000;
        config.net.retry_after_ms = 1_234;
    });
    let (first, mut second) = (house.enter(), house.enter());
    let address = house.address;
    // Refused, and it lingers: it neither says hello nor goes away.
    let mut refused = house.runtime.block_on(Raw::connect(address));
    house.runtime.block_on(async {
        let got = refused.next().await.expect("a close");
        let close = got.read::<message::Close<'_>>();
        assert_eq!((close.code, close.retry_after_ms), (Code::TooManyConnections, 1_234));
        assert_eq!(second.ask(5, &beat()).await.kind(), Kind::HeartbeatAck);
        drop(first);
        until("the free place is given away", async || {
            let mut raw = Raw::connect(address).await;
            raw.try_send(&to_bytes(1, &hello("stranger", "next"))).await;
            raw.next().await.is_some_and(|got| got.kind() == Kind::Welcome)
        })
        .await;
    });
    house.round();
    drop((refused, second));
    house.close();
}

#[test]
fn the_same_device_twice_replaces_the_older() {
    for arbiters in [1, 2] {
        check_replaced(arbiters);
    }
}

fn check_replaced(arbiters: usize) {
    let mut house = House::new(|config| config.arbiters = arbiters);
    let (address, room) = (house.address, house.room);
    house.runtime.block_on(async {
        let mut older = Raw::welcomed(address, "twin", "phone").await;
        older.join("hall", JoinFrom::Tail).await;
        for nonce in 1..=20 {
            let mut newer = Raw::welcomed(address, "twin", "phone").await;
            let close = older.end().await.expect("a close");
            assert_eq!(close.refusal(), Some(Code::Replaced));
            newer.join("hall", JoinFrom::Tail).await;
            let ack = newer.ask(5, &publish(room, nonce, b"still me")).await;
            assert_eq!(ack.read::<message::Ack<'_>>().seq, nonce);
            older = newer;
        }
        let mut other = Raw::welcomed(address, "twin", "tablet").await;
        assert_eq!(other.ask(6, &beat()).await.kind(), Kind::HeartbeatAck);
        assert_eq!(older.ask(6, &beat()).await.kind(), Kind::HeartbeatAck, "another device replaces nobody");
    });
    house.round();
    house.close();
}

#[test]
fn of_many_connections_of_one_device_one_remains() {
    const TWINS: usize = 40;
    let mut house = House::new(|config| config.arbiters = 2);
    let address = house.address;
    house.runtime.block_on(async {
        let connects: Vec<_> = (0..TWINS).map(|_| tokio::spawn(Raw::welcomed(address, "twin", "phone"))).collect();
        let mut lives = Vec::new();
        for connect in connects {
            let mut raw = connect.await.unwrap();
            lives.push(tokio::spawn(async move {
                raw.send(&to_bytes(2, &join("hall", JoinFrom::Tail))).await;
                raw.end().await.and_then(|got| got.refusal())
            }));
        }
        until("one is left", async || lives.iter().filter(|life| !life.is_finished()).count() == 1).await;
        assert_eq!(house.engine.sessions("twin").len(), 1);
        let (over, left): (Vec<_>, Vec<_>) = lives.into_iter().partition(tokio::task::JoinHandle::is_finished);
        for life in over {
            assert_eq!(life.await.unwrap(), Some(Code::Replaced));
        }
        for life in left {
            life.abort();
        }
    });
    house.round();
    house.close();
}

/// Payloads that fill the buffers of a connection which is not read.
const FAT: usize = 32 << 10;
/// So many that the system's buffers cannot hold them, whatever its settings.
const FLOOD: u64 = 600;

fn fat(config: &mut EngineConfig) {
    config.limits.payload_bytes_max = 64 << 10;
    config.limits.outbound_bytes_max = 256 << 10;
    config.limits.close_linger_ms = 500;
}

/// Reads records of a room until `upto`, or the end of the connection; the seq of the last one.
async fn records(raw: &mut Raw, mut last: Seq, upto: Seq) -> (Seq, Option<Code>) {
    let mut code = None;
    while last < upto {
        let Some(got) = raw.next().await else { break };
        if got.kind() == Kind::Close {
            code = got.refusal();
            continue;
        }
        let record = got.read::<message::Deliver<'_>>();
        assert_eq!((record.seq, record.payload.len()), (last + 1, FAT), "in order, without a gap or a repeat");
        last = record.seq;
    }
    (last, code)
}

/// Publishes the flood, and receives all of it.
async fn flood(address: SocketAddr) {
    let client = common::client(address, "speaker").await;
    let (room, mut events) = client.join("hall", JoinFrom::Tail).await.unwrap();
    for seq in 1..=FLOOD {
        let acked = soon("an ack", room.send(Outgoing::bytes(vec![7; FAT]))).await.unwrap();
        assert_eq!(acked.seq, seq);
        let Some(Event::Message(message)) = soon("a record", events.next()).await else { panic!("a record") };
        assert_eq!(message.seq, seq);
    }
    client.close().await;
}

#[test]
fn a_reader_who_stops_for_good_is_closed_and_loses_nothing() {
    let mut house = House::new(|config| {
        fat(config);
        config.limits.slow_reader_ms = 700;
    });
    let address = house.address;
    house.runtime.block_on(async {
        let mut raw = Raw::connect_narrow(address).await;
        raw.greet("slow", "reader").await;
        raw.join("hall", JoinFrom::Tail).await;
        flood(address).await;
        until("the reader is thrown out", async || {
            house.engine.sessions("slow").iter().all(|session| !session.connected)
        })
        .await;
        raw.may_be_cut = true;
        let (last, code) = records(&mut raw, 0, FLOOD).await;
        assert!(last < FLOOD, "the buffers held all {last}");
        assert!(matches!(code, None | Some(Code::SlowReader)), "{code:?}");
        // It comes back with its position.
        let mut raw = Raw::welcomed(address, "slow", "reader").await;
        raw.join("hall", JoinFrom::Seq(last + 1)).await;
        assert_eq!(records(&mut raw, last, FLOOD).await, (FLOOD, None));
    });
    house.round();
    house.close();
}

#[test]
fn a_reader_who_pauses_gets_everything_once_and_in_order() {
    let mut house = House::new(|config| {
        fat(config);
        // He pauses for as long as the flood takes.
        config.limits.slow_reader_ms = 600_000;
    });
    let address = house.address;
    house.runtime.block_on(async {
        let mut raw = Raw::connect_narrow(address).await;
        raw.greet("slow", "reader").await;
        raw.join("hall", JoinFrom::Tail).await;
        flood(address).await;
        assert_eq!(records(&mut raw, 0, FLOOD).await, (FLOOD, None));
        assert_eq!(raw.ask(5, &beat()).await.kind(), Kind::HeartbeatAck);
    });
    house.round();
    house.close();
}

#[test]
fn whoever_asks_much_and_reads_late_gets_every_answer() {
    const ASKED: u32 = 200;
    let mut house = House::new(fat);
    let (address, room) = (house.address, house.room);
    house.runtime.block_on(async {
        let mut raw = Raw::connect_narrow(address).await;
        raw.greet("late", "reader").await;
        raw.join("hall", JoinFrom::Tail).await;
        for nonce in 1..=16 {
            raw.ask(8, &publish(room, nonce, &[7; 60_000])).await.read::<message::Ack<'_>>();
        }
        let direction = Direction::Backward;
        let fetch = message::Fetch { room, start: None, direction, limit: 200, extensions: ext() };
        let mut asked = BTreeSet::new();
        for request in (1_000..).take(ASKED as usize) {
            raw.send(&to_bytes(request, &fetch)).await;
            raw.send(&to_bytes(request + ASKED, &beat())).await;
            asked.extend([request, request + ASKED]);
        }
        while !asked.is_empty() {
            let got = raw.next().await.expect("an answer");
            if got.kind() == Kind::Page {
                let page = got.read::<message::Page<'_>>();
                assert_eq!((page.tail, page.records.len() > 200_000), (16, true));
            }
            assert!(matches!(got.kind(), Kind::Page | Kind::HeartbeatAck | Kind::Deliver), "{:?}", got.refusal());
            assert!(got.header.request == 0 || asked.remove(&got.header.request), "each is answered once");
        }
    });
    house.round();
    house.close();
}

#[test]
fn a_position_that_cannot_be_is_answered_with_a_gap() {
    let mut house = House::new(|_| {});
    let mut raw = house.enter();
    house.runtime.block_on(async {
        let got = raw.ask(2, &join("hall", JoinFrom::Tail)).await;
        let (room, epoch) = (house.room, got.read::<message::Joined<'_>>().epoch);
        let positions = List(vec![message::Position { room, epoch, seq: 1_000 }]);
        raw.send(&to_bytes(3, &message::Heartbeat { positions, ..beat() })).await;
        loop {
            let got = raw.next().await.expect("a gap");
            if got.kind() == Kind::Gap {
                let gap = got.read::<message::Gap<'_>>();
                break assert_eq!((gap.from, gap.to, gap.why), (1, 0, message::GapReason::ABOVE_TAIL));
            }
        }
    });
    drop(raw);
    house.close();
}

/// Connections that go wrong, one of each kind in turn, as quickly as they can.
async fn go_wrong(address: SocketAddr, number: u64) {
    // Names that no other connection has: what is kept for each of them would show.
    let user = format!("user {number}");
    let mut raw = Raw::connect(address).await;
    raw.may_be_cut = true;
    let bytes = match number % 16 {
        0 => noise(number, 3_000),
        1 => b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        2 => claim(Kind::Hello, u32::MAX),
        3 => bytes_of(&message::Hello { magic: *b"PRLX", ..hello(&user, "x") }),
        4 => bytes_of(&message::Hello { version_min: 7, version_max: 9, ..hello(&user, "x") }),
        5 => frame(0x10, 0, &[&b"PRLR"[..], &noise(number, 8_000)].concat()),
        6 => bytes_of(&hello(&user, "x"))[..20].to_vec(),
        // The others say hello; some go away with their welcome unread.
        7 => return raw.try_send(&to_bytes(1, &hello(&user, "x"))).await,
        kind => {
            raw.try_send(&to_bytes(1, &hello(&user, "x"))).await;
            let Some(welcome) = raw.next().await else { panic!("no welcome") };
            assert_eq!(welcome.kind(), Kind::Welcome);
            let room = if kind % 2 == 0 { raw.join("hall", JoinFrom::Newest(5)).await } else { RoomNumber(1) };
            match kind {
                8 => claim(Kind::Publish, u32::MAX),
                9 => frame(0x7777, 0, b"?"),
                10 => frame(Kind::Publish as u16, 0, &noise(number, 2_000)),
                11 => [frame(0x8000, 0, &[7; 2_000]), claim(Kind::Heartbeat, 60_000), noise(number, 59_000)].concat(),
                12 => bytes_of(&publish(room, 1, b"x"))[..17].to_vec(),
                13 => frame(Kind::Heartbeat as u16, 0, &noise(number, 60_000)),
                14 => [to_bytes(8, &publish(room, 1, &[7; 1_441])).to_vec(), frame(1, 0, &[])].concat(),
                _ => bytes_of(&message::Goodbye { extensions: ext() }),
            }
        }
    };
    raw.try_send(&bytes).await;
    match number % 16 {
        // Gone without an end, or with one, within a frame.
        6 | 12 if number.is_multiple_of(3) => drop(raw),
        6 | 11 | 12 => {
            let _ = raw.stream.shutdown().await;
            raw.end().await;
        }
        _ => drop(raw.end().await),
    }
}

async fn many_go_wrong(address: SocketAddr, numbers: std::ops::Range<u64>) {
    const AT_ONCE: u64 = 50;
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|lane| {
            let own = numbers.clone().skip(usize::try_from(lane).unwrap()).step_by(50);
            tokio::spawn(async move {
                for number in own {
                    go_wrong(address, number).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn ten_thousand_bad_connections_leave_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let file = config_file(
        folder.path(),
        "[limits]\nsessions_away_max = 100\n[net]\nhello_ms = 2_000\nframe_ms = 2_000\nlinger_ms = 500\n",
    );
    let served = Served::start(&folder.path().join("data"), Some(&file), loopback());
    Runtime::new().unwrap().block_on(async {
        let mut neighbour = Neighbour::move_in(served.address).await;
        // So many, until the allocator has what the busiest moment needs.
        many_go_wrong(served.address, 0..6_000).await;
        neighbour.round().await;
        let before = served.resident_bytes();
        many_go_wrong(served.address, 6_000..16_000).await;
        neighbour.round().await;
        match before.zip(served.resident_bytes()) {
            Some((before, after)) => {
                let grown = after.saturating_sub(before);
                eprintln!("resident before {before}, after {after}, grown by {grown} bytes");
                // An allocator keeps some tens of bytes for each; the least that a connection could leave behind is more
                // than 300.
                assert!(grown < 2 << 20, "the server grew by {grown} bytes");
            }
            None => eprintln!("SKIPPED: this system does not tell how much memory a process has"),
        }
        neighbour.move_out().await;
        served.signal("TERM");
        assert!(served.exit().await.success());
    });
}

/// Writes `request` so many times without reading, or until the server takes no more.
async fn pour(raw: &mut Raw, request: &[u8], times: usize) {
    let all = request.repeat(times);
    let mut poured = 0;
    while poured < all.len() {
        let written = tokio::time::timeout(Duration::from_secs(2), raw.stream.write(&all[poured..])).await;
        let Ok(Ok(written)) = written else { break };
        poured += written;
    }
    eprintln!("the server took {poured} bytes of requests");
}

/// The most that the server has within a while.
async fn peak(served: &Served) -> Option<u64> {
    let mut peak = served.resident_bytes()?;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        peak = peak.max(served.resident_bytes()?);
    }
    Some(peak)
}

/// Asks without end and reads no answer.
#[track_caller]
fn check_poured(label: &str, times: usize, request: impl FnOnce(RoomNumber) -> Vec<u8>) {
    let folder = TempDir::new().unwrap();
    let file = config_file(folder.path(), "[limits]\npayload_bytes_max = 65536\n[rooms]\ndurability = \"memory\"\n");
    let served = Served::start(&folder.path().join("data"), Some(&file), loopback());
    let grown = Runtime::new().unwrap().block_on(async {
        let neighbour = Neighbour::move_in(served.address).await;
        let mut raw = Raw::connect_narrow(served.address).await;
        raw.greet("greedy", "x").await;
        let room = raw.join("hall", JoinFrom::Tail).await;
        for nonce in 1..=16 {
            raw.ask(8, &publish(room, nonce, &[7; 60_000])).await.read::<message::Ack<'_>>();
        }
        let before = served.resident_bytes();
        pour(&mut raw, &request(room), times).await;
        let after = peak(&served).await;
        neighbour.move_out().await;
        after.zip(before).map(|(after, before)| after.saturating_sub(before))
    });
    match grown {
        Some(grown) => assert!(grown < 32 << 20, "{label}: the server grew by {} MiB", grown >> 20),
        None => eprintln!("SKIPPED: this system does not tell how much memory a process has"),
    }
}

#[test]
fn whoever_asks_for_pages_and_does_not_read_them_costs_bounded_memory() {
    check_poured("fetches", 1_000, |room| {
        let direction = Direction::Forward;
        bytes_of(&message::Fetch { room, start: None, direction, limit: 200, extensions: ext() })
    });
}

#[test]
fn whoever_beats_and_does_not_read_costs_bounded_memory() {
    check_poured("beats", 4_000_000, |_| bytes_of(&beat()));
}

#[test]
fn whoever_is_refused_and_does_not_read_costs_bounded_memory() {
    check_poured("refusals", 2_000_000, |_| bytes_of(&publish(RoomNumber(1 << 40), 1, b"")));
}

#[test]
fn readers_who_stop_cost_bounded_memory() {
    const READERS: u64 = 10;
    let folder = TempDir::new().unwrap();
    let file = config_file(
        folder.path(),
        "[limits]\npayload_bytes_max = 65536\noutbound_bytes_max = 262144\n[rooms]\ndurability = \"memory\"\n",
    );
    let served = Served::start(&folder.path().join("data"), Some(&file), loopback());
    let grown = Runtime::new().unwrap().block_on(async {
        let neighbour = Neighbour::move_in(served.address).await;
        let mut readers = Vec::new();
        for number in 0..READERS {
            let mut raw = Raw::connect_narrow(served.address).await;
            raw.greet(&format!("reader {number}"), "x").await;
            raw.join("hall", JoinFrom::Tail).await;
            readers.push(raw);
        }
        let before = served.resident_bytes();
        // 19 MiB for each of them, of which the system's buffers take a part.
        flood(served.address).await;
        let after = peak(&served).await;
        neighbour.move_out().await;
        after.zip(before).map(|(after, before)| after.saturating_sub(before))
    });
    match grown {
        Some(grown) => assert!(grown < 32 << 20, "the server grew by {} MiB", grown >> 20),
        None => eprintln!("SKIPPED: this system does not tell how much memory a process has"),
    }
}
