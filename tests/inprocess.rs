//! Connections within the process: the same protocol as over a socket, in frames that are shared.
#![cfg(all(feature = "engine", feature = "client", feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod common;

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use common::{Got, Raw, beat, claim, engine, frame, hello, join, publish, soon, until};
use parlor::{
    client::JoinFrom,
    engine::{Engine, Pipe, TryRecvError},
};
use parlor_protocol::{
    Body, Code, Kind, RoomNumber, encode, frame::answer_body_max, message, message::Durability, split, to_bytes,
};
use tempfile::TempDir;

/// A host that speaks in frames.
struct Host {
    pipe: Pipe,
    /// What is left of the chunk received last.
    chunk: Bytes,
}

impl Host {
    fn connect(engine: &Engine) -> Self {
        Self { pipe: engine.connect(), chunk: Bytes::new() }
    }

    async fn welcomed(engine: &Engine, user: &str) -> Self {
        let mut host = Self::connect(engine);
        let got = host.ask(1, &hello(user, "host")).await;
        assert_eq!(got.read::<message::Welcome<'_>>().version, 1);
        host
    }

    async fn send(&mut self, frames: impl Into<Bytes>) {
        soon("room in the pipe", self.pipe.sender.send(frames.into())).await.unwrap();
    }

    /// The next frame; `None` at the end of the connection.
    async fn next(&mut self) -> Option<Got> {
        if self.chunk.is_empty() {
            self.chunk = soon("a chunk or the end of the connection", self.pipe.receiver.recv()).await?;
        }
        let found = split(&self.chunk, answer_body_max).unwrap().expect("chunks of whole frames");
        let (size, got) = (found.size(), Got { header: found.header, body: found.body.to_vec() });
        self.chunk.advance(size);
        Some(got)
    }

    /// The answer to this request; what comes before it is dropped.
    async fn answer(&mut self, request: u32) -> Got {
        loop {
            let got = self.next().await.expect("an answer");
            if got.header.request == request {
                return got;
            }
        }
    }

    async fn ask<'a, B: Body<'a>>(&mut self, request: u32, body: &B) -> Got {
        self.send(to_bytes(request, body)).await;
        self.answer(request).await
    }

    async fn join(&mut self, room: &str, from: JoinFrom) -> RoomNumber {
        self.ask(2, &join(room, from)).await.read::<message::Joined<'_>>().room
    }

    /// Publishes `count` messages in one chunk and waits for their acks; the last one's seq.
    async fn say(&mut self, room: RoomNumber, nonce: u64, count: u32, payload: &[u8]) -> u64 {
        let mut frames = BytesMut::new();
        for n in 0..count {
            encode(100 + n, &publish(room, nonce + u64::from(n), payload), &mut frames);
        }
        self.send(frames).await;
        let mut last = 0;
        for n in 0..count {
            last = self.answer(100 + n).await.read::<message::Ack<'_>>().seq;
        }
        last
    }

    /// Reads the room's records `from` to `to`, and nothing else of it.
    async fn hear(&mut self, from: u64, to: u64) {
        for seq in from..=to {
            loop {
                let got = self.next().await.expect("a record");
                if got.kind() == Kind::Deliver {
                    assert_eq!(got.read::<message::Deliver<'_>>().seq, seq);
                    break;
                }
                assert_eq!(got.kind(), Kind::Ack, "{got:?}");
            }
        }
    }

    /// Reads to the end of the connection; the last frame.
    async fn end(&mut self) -> Option<Got> {
        let mut last = None;
        while let Some(got) = self.next().await {
            last = Some(got);
        }
        last
    }
}

#[tokio::test]
async fn every_subscriber_gets_every_record_in_order_and_the_same_bytes() {
    let data = TempDir::new().unwrap();
    let (engine, _) = engine(data.path(), |config| config.arbiters = 1);
    let mut ann = Host::welcomed(&engine, "ann").await;
    let room = ann.join("tea", JoinFrom::Tail).await;
    let (mut bob, mut eve) = (Host::welcomed(&engine, "bob").await, Host::welcomed(&engine, "eve").await);
    bob.join("tea", JoinFrom::Tail).await;
    eve.join("tea", JoinFrom::Tail).await;
    for round in 0..20 {
        assert_eq!(ann.say(room, 1 + round * 50, 50, b"as one").await, 50 * (round + 1));
    }
    let mut seq = 0;
    while seq < 1_000 {
        let of_bob = soon("bob's frames", bob.pipe.receiver.recv()).await.unwrap();
        let of_eve = soon("eve's frames", eve.pipe.receiver.recv()).await.unwrap();
        assert_eq!((of_bob.as_ptr(), of_bob.len()), (of_eve.as_ptr(), of_eve.len()), "shared, not copied");
        bob.chunk = of_bob;
        while !bob.chunk.is_empty() {
            seq += 1;
            bob.hear(seq, seq).await;
        }
    }
    assert_eq!(bob.pipe.receiver.try_recv(), Err(TryRecvError::Empty));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_host_that_stops_reading_lags_and_catches_up() {
    let data = TempDir::new().unwrap();
    let (engine, _) = engine(data.path(), |config| {
        config.limits.outbound_bytes_max = 64 << 10;
        config.limits.outbound_low_bytes = 16 << 10;
        config.limits.ring_records_max = 100;
        config.room_defaults.durability = Durability::Buffered;
    });
    let mut slow = Host::welcomed(&engine, "slow").await;
    slow.join("tea", JoinFrom::Tail).await;
    let mut ann = Host::welcomed(&engine, "ann").await;
    let room = ann.join("tea", JoinFrom::Tail).await;
    for round in 0..100 {
        let last = ann.say(room, 1 + round * 40, 40, &[b'x'; 1_000]).await;
        assert_eq!(last, 40 * (round + 1), "4 MB in all, and nobody waits for the slow one");
    }
    let (mut waiting, mut chunks) = (0, Vec::new());
    while let Ok(chunk) = slow.pipe.receiver.try_recv() {
        waiting += chunk.len();
        chunks.push(chunk);
        assert!(chunks.len() < 10_000);
        if waiting > 1 << 20 {
            break; // The engine follows: what is read makes room for more.
        }
    }
    assert!(!chunks.is_empty());
    slow.chunk = chunks.concat().into();
    slow.hear(1, 4_000).await;
    engine.shutdown().await;
}

#[tokio::test]
async fn one_commit_above_what_may_be_queued_reaches_who_only_listens() {
    let data = TempDir::new().unwrap();
    let (engine, _) = engine(data.path(), |config| {
        config.limits.outbound_bytes_max = 32 << 10;
        config.limits.outbound_low_bytes = 16 << 10;
        config.limits.unanswered_requests_max = 256;
    });
    let mut bob = Host::welcomed(&engine, "bob").await;
    bob.join("tea", JoinFrom::Tail).await;
    let mut ann = Host::welcomed(&engine, "ann").await;
    let room = ann.join("tea", JoinFrom::Tail).await;
    for round in 0..3 {
        // What comes in one chunk is committed together, mostly: 200 kB.
        assert_eq!(ann.say(room, 1 + 200 * round, 200, &[b'x'; 1_000]).await, 200 * (round + 1));
        bob.hear(200 * round + 1, 200 * (round + 1)).await;
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn a_pipe_holds_no_more_than_it_says() {
    let data = TempDir::new().unwrap();
    let (engine, _) = engine(data.path(), |_| {});
    let mut host = Host::welcomed(&engine, "ann").await;
    let room = host.join("tea", JoinFrom::Tail).await;
    host.say(room, 1, 60, &[b'x'; 1_000]).await;
    // Each answer is far longer than its request, and nobody reads them: the engine stops hearing.
    let fetch = message::Fetch {
        room,
        start: None,
        direction: message::Direction::Forward,
        limit: 60,
        extensions: common::ext(),
    };
    let mut asked = 0_u32;
    let full = async {
        loop {
            let frames: Bytes =
                (1..=1_000).flat_map(|n| to_bytes(1_000 + asked + n, &fetch)).collect::<Vec<u8>>().into();
            match tokio::time::timeout(Duration::from_secs(2), host.pipe.sender.send(frames)).await {
                Ok(sent) => sent.unwrap(),
                Err(_) => return,
            }
            asked += 1_000;
        }
    };
    tokio::time::timeout(common::PATIENCE, full).await.expect("the pipe is full at last");
    assert!(asked > 1_000, "{asked}");
    drop(host);
    until("the session's end", async || engine.users_online() == 0).await;
    engine.shutdown().await;
}

#[tokio::test]
async fn dropping_either_half_ends_the_session_and_what_was_sent_is_done() {
    let data = TempDir::new().unwrap();
    let (engine, _) = engine(data.path(), |_| {});
    let mut watcher = Host::welcomed(&engine, "watcher").await;
    watcher.join("tea", JoinFrom::Tail).await;
    for (half, seq) in [("sender", 1), ("receiver", 2), ("pipe", 3)] {
        let mut host = Host::welcomed(&engine, "ann").await;
        let room = host.join("tea", JoinFrom::Tail).await;
        host.send(to_bytes(9, &publish(room, seq, b"goodbye"))).await;
        let Pipe { sender, receiver } = host.pipe;
        let (mut sender, mut receiver) = (Some(sender), Some(receiver));
        match half {
            "sender" => sender = None,
            "receiver" => receiver = None,
            _ => (sender, receiver) = (None, None),
        }
        watcher.hear(seq, seq).await;
        until("the session's end", async || engine.sessions("ann").is_empty()).await;
        drop((sender, receiver));
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_is_said_and_a_dropped_engine_ends_what_waits() {
    let data = TempDir::new().unwrap();
    let (first, _) = engine(data.path(), |_| {});
    let mut host = Host::welcomed(&first, "ann").await;
    let room = host.join("tea", JoinFrom::Tail).await;
    host.send(to_bytes(9, &publish(room, 1, b"last words"))).await;
    assert_eq!(host.answer(9).await.read::<message::Ack<'_>>().seq, 1);
    let (_, last) = tokio::join!(first.shutdown(), host.end());
    assert_eq!(last.unwrap().refusal(), Some(Code::GoingAway));
    assert!(host.pipe.sender.send(Bytes::from_static(b"x")).await.is_err());
    let mut late = first.connect();
    assert_eq!(late.receiver.recv().await, None, "nobody is there any more");
    drop(first);

    let (second, _) = engine(data.path(), |_| {});
    let mut host = Host::welcomed(&second, "ann").await;
    let waits = tokio::spawn(async move { host.end().await.map(|last| last.kind()) });
    tokio::task::spawn_blocking(move || drop(second)).await.unwrap();
    assert_eq!(soon("the end", waits).await.unwrap(), None, "at once, and without a word");
}

/// What a connection is told in the end if it sends this, over TCP and within the process.
#[track_caller]
fn check(what: &str, tcp: Option<Got>, pipe: Option<Got>, want: Code) {
    for (way, got) in [("tcp", tcp), ("pipe", pipe)] {
        let got = got.unwrap_or_else(|| panic!("{what}, {way}: no last frame"));
        assert_eq!((got.kind(), got.refusal()), (Kind::Close, Some(want)), "{what}, {way}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_frames_are_closed_as_on_a_socket() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| {
        // Long enough for those who say hello, however busy the machine is.
        config.net.hello_ms = 2_000;
        config.net.frame_ms = 300;
    });
    let long = hello("ann", &"x".repeat(65)).device.to_owned();
    for (what, bytes, want) in [
        ("no hello", to_bytes(9, &beat()).to_vec(), Code::HelloExpected),
        ("another protocol", frame(Kind::Hello as u16, 0, b"GET / HTTP/1.1"), Code::BadMagic),
        ("a long name", to_bytes(9, &hello("ann", &long)).to_vec(), Code::InvalidHello),
        ("a huge hello", claim(Kind::Hello, 1 << 30), Code::FrameTooLarge),
        ("nothing", Vec::new(), Code::TooSlow),
        ("half a hello", to_bytes(9, &hello("ann", "phone"))[..20].to_vec(), Code::TooSlow),
    ] {
        let (mut raw, mut host) = (Raw::connect(address).await, Host::connect(&engine));
        raw.send(&bytes).await;
        host.send(bytes).await;
        check(what, raw.end().await, host.end().await, want);
    }
    for (what, bytes, want) in [
        ("a huge publish", claim(Kind::Publish, 1 << 30), Code::FrameTooLarge),
        ("an unknown kind", frame(0x7f00, 0, b""), Code::UnknownKind),
        ("an unknown flag", frame(Kind::Publish as u16, 0x0100, b""), Code::MalformedFrame),
        ("a body of rubbish", frame(Kind::Join as u16, 0, b"\xff\xff\xff"), Code::MalformedFrame),
        ("a second hello", to_bytes(9, &hello("ann", "phone")).to_vec(), Code::HelloExpected),
        ("half a frame", to_bytes(9, &join("tea", JoinFrom::Tail))[..14].to_vec(), Code::TooSlow),
        ("good before bad", [&to_bytes(9, &beat())[..], &frame(0x7f00, 0, b"")].concat(), Code::UnknownKind),
        ("goodbye", to_bytes(9, &message::Goodbye { extensions: common::ext() }).to_vec(), Code::Goodbye),
    ] {
        let (mut raw, mut host) = (Raw::welcomed(address, "ann", "tcp").await, Host::welcomed(&engine, "bob").await);
        raw.send(&bytes).await;
        host.send(bytes).await;
        check(what, raw.end().await, host.end().await, want);
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn frames_may_be_cut_anywhere() {
    let data = TempDir::new().unwrap();
    let (engine, _) = engine(data.path(), |_| {});
    let mut host = Host::connect(&engine);
    let mut all = to_bytes(1, &hello("ann", "host")).to_vec();
    all.extend_from_slice(&to_bytes(2, &join("tea", JoinFrom::Tail)));
    for (at, byte) in all.iter().enumerate() {
        host.send(vec![*byte]).await;
        if at % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(host.answer(1).await.kind(), Kind::Welcome);
    assert_eq!(host.answer(2).await.kind(), Kind::Joined);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_silent_host_keeps_its_session_where_a_silent_client_loses_it() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| {
        config.beats.wired_ms = 100;
        config.beats.least_ms = 100;
        config.beats.grace_least_ms = 10;
    });
    let mut host = Host::welcomed(&engine, "bob").await;
    for _ in 0..2 {
        let mut raw = Raw::welcomed(address, "ann", "tcp").await;
        assert_eq!(raw.end().await.unwrap().refusal(), Some(Code::LeaseExpired));
    }
    assert_eq!(host.ask(9, &beat()).await.kind(), Kind::HeartbeatAck);
    engine.shutdown().await;
}

#[test]
fn a_host_needs_no_runtime() {
    let data = TempDir::new().unwrap();
    let (engine, _) = {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        engine(data.path(), |_| {})
    };
    let mut pipe = engine.connect();
    pipe.sender.send_blocking(to_bytes(1, &hello("ann", "host"))).unwrap();
    let first = |frames: Bytes| split(&frames, answer_body_max).unwrap().unwrap().header;
    assert_eq!(first(pipe.receiver.recv_blocking().unwrap()).kind, Kind::Welcome as u16);
    pipe.sender.try_send(to_bytes(2, &join("tea", JoinFrom::Tail))).unwrap();
    assert_eq!(first(pipe.receiver.recv_blocking().unwrap()).kind, Kind::Joined as u16);
    let Pipe { mut sender, mut receiver } = pipe;
    let listener = std::thread::spawn(move || {
        let mut acks = 0;
        while acks < 500 {
            let mut chunk = receiver.recv_blocking().unwrap();
            while let Some(found) = split(&chunk, answer_body_max).unwrap() {
                acks += u32::from(found.header.kind == Kind::Ack as u16);
                let size = found.size();
                chunk.advance(size);
            }
        }
        receiver
    });
    for nonce in 1..=500 {
        sender
            .send_blocking(to_bytes(9 + u32::try_from(nonce).unwrap(), &publish(RoomNumber(1), nonce, b"x")))
            .unwrap();
    }
    let _receiver = listener.join().unwrap();
    drop(engine);
}
