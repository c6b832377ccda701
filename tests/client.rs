//! The client against a scripted server, on real sockets and in-process streams.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

use std::time::Duration;

use bytes::BytesMut;
use parlor::client::{
    Client, Config, ConnectError, ContentType, Direction, Durability, Event, Events, GapReason, JoinFrom, Message,
    Outgoing, PublishError, RequestError, Room,
};
use parlor_protocol::{
    Body, Code, DeviceTag, Epoch, Extensions, Header, Kind, List, Name, RoomNumber, Token, decode, encode,
    message::{self, Limits, RecordKind},
    split, to_bytes,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};

const ROOM: RoomNumber = RoomNumber(7);
const EPOCH: Epoch = Epoch(3);
const GRANT_MS: u32 = 30_000;

fn ext<'a>() -> Extensions<'a> {
    Extensions::default()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The server's end of a connection, step by step.
struct Peer<S> {
    stream: S,
    input: BytesMut,
}

/// A frame as the client sent it.
struct Got {
    header: Header,
    body: Vec<u8>,
}

impl Got {
    #[track_caller]
    fn read<'a, B: Body<'a>>(&'a self) -> B {
        assert_eq!(Kind::from_wire(self.header.kind), Some(B::KIND));
        decode(&self.body).unwrap()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new() }
    }

    async fn next(&mut self) -> Option<Got> {
        loop {
            if let Some(frame) = split(&self.input, |_| Ok(1 << 20)).unwrap() {
                let got = Got { header: frame.header, body: frame.body.to_vec() };
                let size = frame.size();
                let _ = self.input.split_to(size);
                return Some(got);
            }
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn expect(&mut self, kind: Kind) -> Got {
        let got = self.next().await.expect("the client hung up");
        assert_eq!(Kind::from_wire(got.header.kind), Some(kind));
        got
    }

    async fn say<'a>(&mut self, request: u32, body: &impl Body<'a>) {
        self.stream.write_all(&to_bytes(request, body)).await.unwrap();
    }

    async fn welcome(&mut self, resumed: bool) -> Got {
        let hello = self.expect(Kind::Hello).await;
        self.say(0, &welcome(resumed)).await;
        hello
    }

    async fn joined(&mut self, tail: u64, cursor: u64) -> JoinFrom {
        let got = self.expect(Kind::Join).await;
        self.say(got.header.request, &joined(tail, cursor)).await;
        got.read::<message::Join<'_>>().from
    }

    async fn deliver(&mut self, seq: u64, text: &str) {
        self.say(0, &record(seq, "bob", 1, seq, text)).await;
    }

    async fn ack(&mut self, publish: &Got, seq: u64) {
        let nonce = publish.read::<message::Publish<'_>>().nonce;
        let ack = message::Ack {
            room: ROOM,
            nonce,
            seq,
            time: 1_000 + seq,
            durability: Durability::Synced,
            duplicate: false,
            extensions: ext(),
        };
        self.say(publish.header.request, &ack).await;
    }

    async fn close(&mut self, code: Code, retry_after_ms: u32) {
        self.say(0, &message::Close { code, retry_after_ms, message: "as the test says", extensions: ext() }).await;
    }

    async fn goodbye(&mut self) {
        self.expect(Kind::Goodbye).await;
        self.close(Code::Goodbye, 0).await;
    }
}

fn joined(tail: u64, cursor: u64) -> message::Joined<'static> {
    message::Joined {
        room: ROOM,
        epoch: EPOCH,
        tail,
        first: 1,
        cursor,
        count: tail,
        read: 0,
        unread: 0,
        durability: Durability::Synced,
        newest_nonce: None,
        extensions: ext(),
    }
}

fn welcome(resumed: bool) -> message::Welcome<'static> {
    message::Welcome {
        version: 1,
        features: 0,
        server_time: 1_000,
        grant_ms: GRANT_MS,
        token: Token([9; 16]),
        resumed,
        device_tag: DeviceTag::of(&name("ann"), &name("default")),
        limits: Limits {
            payload_bytes_max: 1_440,
            rooms_max: 100,
            unanswered_requests_max: 64,
            page_records_max: 200,
            page_bytes_max: 256 << 10,
            text_bytes_max: 64 << 10,
        },
        modules: List::default(),
        extensions: ext(),
    }
}

fn record<'a>(seq: u64, sender: &'a str, tag: u64, nonce: u64, text: &'a str) -> message::Deliver<'a> {
    message::Deliver {
        room: ROOM,
        seq,
        time: 1_000 + seq,
        sender,
        device_tag: DeviceTag(tag),
        nonce,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        expires: 0,
        count: seq,
        content_type: ContentType::TEXT,
        payload: text.as_bytes(),
        extensions: ext(),
    }
}

fn config(server: &str) -> Config {
    let mut config = Config::new(server, name("ann"));
    config.backoff_min = Duration::from_millis(1);
    config
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

async fn accept(listener: &TcpListener) -> Peer<tokio::net::TcpStream> {
    Peer::new(listener.accept().await.unwrap().0)
}

/// A client over a stream within the process, its room, and the server's end. Works with paused time.
async fn over(config: Config) -> (Client, Room, Events, Peer<tokio::io::DuplexStream>) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let mut peer = Peer::new(theirs);
    let (client, _) = tokio::join!(Client::over(ours, config), peer.welcome(false));
    let client = client.unwrap();
    let (joined, _) = tokio::join!(client.join("lobby", JoinFrom::Tail), peer.joined(0, 0));
    let (room, events) = joined.unwrap();
    (client, room, events, peer)
}

#[track_caller]
fn message(event: Option<Event>) -> Message {
    match event {
        Some(Event::Message(message)) => message,
        other => panic!("expected a message, got {other:?}"),
    }
}

#[tokio::test]
async fn connects_joins_publishes_and_receives() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let mut peer = accept(&listener).await;
        let hello = peer.welcome(false).await;
        let hello: message::Hello<'_> = hello.read();
        assert_eq!((hello.user, hello.device, hello.attempt, hello.resume), ("ann", "default", 1, None));
        assert_eq!(peer.joined(2, 1).await, JoinFrom::Newest(1));
        peer.deliver(2, "welcome").await;
        let publish = peer.expect(Kind::Publish).await;
        let body: message::Publish<'_> = publish.read();
        assert_eq!((body.payload, body.room, body.content_type), (&b"hello"[..], ROOM, ContentType::TEXT));
        let tag = DeviceTag::of(&name("ann"), &name("default"));
        peer.ack(&publish, 3).await;
        peer.say(0, &record(3, "ann", tag.0, body.nonce, "hello")).await;

        let fetch = peer.expect(Kind::Fetch).await;
        assert_eq!(fetch.read::<message::Fetch<'_>>().start, Some(1));
        let mut records = BytesMut::new();
        encode(0, &record(1, "bob", 1, 1, "first"), &mut records);
        encode(0, &record(2, "bob", 1, 2, "welcome"), &mut records);
        let page = message::Page {
            room: ROOM,
            epoch: EPOCH,
            tail: 3,
            next: Some(3),
            gaps: List::default(),
            records: &records,
            extensions: ext(),
        };
        peer.say(fetch.header.request, &page).await;

        let leave = peer.expect(Kind::Leave).await;
        peer.deliver(4, "bye").await;
        peer.say(leave.header.request, &message::Left { room: ROOM, cursor: 4, extensions: ext() }).await;
        peer.goodbye().await;
        assert!(peer.next().await.is_none(), "the client hangs up");
    });

    let client = Client::connect(config(&address)).await.unwrap();
    let (room, mut events) = client.join("lobby", JoinFrom::Newest(1)).await.unwrap();
    assert_eq!((room.joined().number, room.joined().tail, room.joined().cursor), (ROOM, 2, 1));
    assert_eq!(room.position().0, EPOCH);
    assert_eq!(client.join("lobby", JoinFrom::Tail).await.unwrap_err(), RequestError::AlreadyJoined);
    let first = message(events.next().await);
    assert_eq!((first.seq, first.text(), first.own, &*first.sender), (2, Some("welcome"), false, "bob"));
    let acked = room.publish("hello").await.unwrap();
    assert_eq!((acked.seq, acked.duplicate), (3, false));
    let second = message(events.next().await);
    assert_eq!((second.seq, second.own, second.nonce), (3, true, acked.nonce));
    assert_eq!(room.position(), (EPOCH, 3));

    let page = room.fetch(Some(1), Direction::Forward, 2).await.unwrap();
    assert_eq!(page.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((page.next, page.tail), (Some(3), 3));

    assert_eq!(room.leave().await, Ok(4));
    assert_eq!(message(events.next().await).seq, 4);
    assert_eq!(events.next().await, None);
    assert_eq!(room.publish("too late").await, Err(PublishError::NotJoined));
    let stats = client.stats();
    assert_eq!((stats.messages, stats.duplicates, stats.connections), (3, 0, 1));
    client.close().await;
    server.await.unwrap();
}

#[tokio::test]
async fn comes_back_after_a_drop_and_finishes_what_it_was_sending() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let mut peer = accept(&listener).await;
        peer.welcome(false).await;
        peer.joined(0, 0).await;
        let mut nonces = Vec::new();
        for seq in 1..=5 {
            let publish = peer.expect(Kind::Publish).await;
            nonces.push(publish.read::<message::Publish<'_>>().nonce);
            if seq <= 2 {
                peer.ack(&publish, seq).await;
                peer.deliver(seq, "x").await;
            }
        }
        assert!(nonces.is_sorted());
        drop(peer);

        let mut peer = accept(&listener).await;
        let hello = peer.welcome(false).await;
        let hello: message::Hello<'_> = hello.read();
        assert_eq!((hello.attempt, hello.resume), (2, Some(Token([9; 16]))));
        let from = peer.joined(2, 2).await;
        let JoinFrom::Position(EPOCH, position) = from else { panic!("{from:?}") };
        for seq in position + 1..=2 {
            peer.deliver(seq, "x").await; // What the first connection took with it.
        }
        let mut again = Vec::new();
        for seq in 3..=5 {
            let publish = peer.expect(Kind::Publish).await;
            let body: message::Publish<'_> = publish.read();
            again.push(body.nonce);
            assert_eq!(body.payload, format!("m{seq}").as_bytes());
            peer.ack(&publish, seq).await;
        }
        assert_eq!(again, nonces[2..], "the same nonces in the same order");
        peer.goodbye().await;
    });

    let client = Client::connect(config(&address)).await.unwrap();
    let (room, mut events) = client.join("lobby", JoinFrom::Tail).await.unwrap();
    let sends: Vec<_> = (1..=5).map(|n| room.send(Outgoing::text(format!("m{n}")))).collect();
    for (send, seq) in sends.into_iter().zip(1..) {
        assert_eq!(send.await.map(|acked| acked.seq), Ok(seq));
    }
    let mut seqs = Vec::new();
    let (mut down, mut up) = (0, 0);
    while seqs.len() < 2 || up == 0 {
        match events.next().await.unwrap() {
            Event::Message(message) => seqs.push(message.seq),
            Event::Disconnected { .. } => down += 1,
            Event::Reconnected => up += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((seqs, down, up), (vec![1, 2], 1, 1));
    client.close().await;
    assert!(matches!(events.next().await, Some(Event::Closed { code: Code::Goodbye, .. })));
    assert_eq!(events.next().await, None);
    server.await.unwrap();
}

#[tokio::test]
async fn a_close_that_says_do_not_come_back_is_the_end() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let mut peer = accept(&listener).await;
        peer.welcome(false).await;
        peer.joined(0, 0).await;
        peer.expect(Kind::Publish).await;
        peer.close(Code::Replaced, 0).await;
        assert!(peer.next().await.is_none(), "the client hangs up");
    });
    let client = Client::connect(config(&address)).await.unwrap();
    let (room, mut events) = client.join("lobby", JoinFrom::Tail).await.unwrap();
    let refused = room.publish("hello").await.unwrap_err();
    assert!(matches!(&refused, PublishError::Closed { code: Code::Replaced, .. }), "{refused}");
    assert!(matches!(events.next().await, Some(Event::Closed { code: Code::Replaced, .. })));
    assert_eq!(events.next().await, None);
    assert!(matches!(room.leave().await, Err(RequestError::Closed { code: Code::Replaced, .. })));
    assert!(matches!(room.publish("again").await, Err(PublishError::Closed { .. })));
    client.close().await;
    server.await.unwrap();
}

#[tokio::test]
async fn a_refused_hello_fails_the_connect() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let mut peer = accept(&listener).await;
        peer.expect(Kind::Hello).await;
        peer.close(Code::Unauthorized, 0).await;
    });
    let mut config = config(&address);
    config.connect_patience = Duration::from_secs(60);
    let error = Client::connect(config).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { code: Code::Unauthorized, .. }), "{error}");
    assert!(!error.is_temporary());
    server.await.unwrap();
}

#[tokio::test]
async fn servers_are_tried_in_turn() {
    let (closed, nobody) = listen().await;
    drop(closed);
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let mut peer = accept(&listener).await;
        peer.welcome(false).await;
        peer.goodbye().await;
    });
    let mut both = config(&nobody);
    both.servers.push(address);
    Client::connect(both).await.unwrap().close().await;
    server.await.unwrap();
    let error = Client::connect(config(&nobody)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }) && error.is_temporary(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_handshake_times_out() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let start = tokio::time::Instant::now();
    let error = Client::over(ours, config("")).await.unwrap_err();
    assert!(matches!(error, ConnectError::HandshakeTimeout { .. }), "{error}");
    assert_eq!(start.elapsed().as_secs(), 5);
    drop(theirs);
}

#[tokio::test(start_paused = true)]
async fn an_ack_that_does_not_come_is_asked_for_twice_and_then_reported() {
    let (_client, room, _events, mut peer) = over(config("")).await;
    let start = tokio::time::Instant::now();
    let send = room.send(Outgoing::text("hello"));
    let server = async {
        let mut nonces = Vec::new();
        while nonces.len() < 3 {
            let got = peer.next().await.unwrap();
            if got.header.kind == Kind::Publish as u16 {
                nonces.push(got.read::<message::Publish<'_>>().nonce);
            }
        }
        nonces
    };
    let (outcome, nonces) = tokio::join!(send, server);
    assert_eq!(outcome, Err(PublishError::Busy));
    assert!(nonces.iter().all(|nonce| *nonce == nonces[0]));
    assert_eq!(start.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_carry_positions_and_a_silent_server_is_left() {
    let (_client, room, mut events, mut peer) = over(config("")).await;
    peer.deliver(1, "x").await;
    assert_eq!(message(events.next().await).seq, 1);
    let start = tokio::time::Instant::now();
    let beat = peer.expect(Kind::Heartbeat).await;
    let at = start.elapsed().as_millis();
    assert!((2_900..=27_100).contains(&at), "the first beat came after {at} ms");
    let positions = beat.read::<message::Heartbeat<'_>>().positions.0;
    assert_eq!(positions, [message::Position { room: ROOM, epoch: EPOCH, seq: 1 }]);
    peer.say(beat.header.request, &message::HeartbeatAck { server_time: 0, grant_ms: 10_000, extensions: ext() }).await;
    let answered = tokio::time::Instant::now();
    let mut beats = 0;
    while let Some(got) = peer.next().await {
        assert!(got.read::<message::Heartbeat<'_>>().positions.0.is_empty());
        beats += 1;
    }
    assert!((3..=6).contains(&beats), "{beats} beats");
    assert_eq!(answered.elapsed().as_secs(), 36, "three grants and their grace");
    assert!(matches!(events.next().await, Some(Event::Disconnected { .. })));
    assert!(matches!(events.next().await, Some(Event::Closed { .. })), "there is no way back over a stream");
    assert_eq!(events.next().await, None);
    assert!(matches!(room.publish("x").await, Err(PublishError::Closed { .. })));
}

#[tokio::test]
async fn events_are_bounded_and_none_is_lost() {
    let mut config = config("");
    config.events_max = 10;
    let (client, _room, mut events, mut peer) = over(config).await;
    let server = tokio::spawn(async move {
        for seq in 1..=50_000 {
            peer.deliver(seq, "some text that fills the pipe after a while").await;
        }
        peer
    });
    for seq in 1..=50_000 {
        assert_eq!(message(events.next().await).seq, seq);
    }
    assert_eq!(events.try_next(), None);
    drop(client);
    drop(server.await.unwrap());
}

#[tokio::test]
async fn sends_beyond_the_outbox_are_refused_at_once() {
    let mut config = config("");
    config.outbox_messages_max = 2;
    let (_client, room, _events, mut peer) = over(config).await;
    let (one, two) = (room.send(Outgoing::text("1")), room.send(Outgoing::text("2")));
    assert_eq!(room.publish("3").await, Err(PublishError::OutboxFull));
    for seq in 1..=2 {
        let publish = peer.expect(Kind::Publish).await;
        peer.ack(&publish, seq).await;
    }
    assert_eq!((one.await.unwrap().seq, two.await.unwrap().seq), (1, 2));
    let third = room.send(Outgoing::text("3"));
    let publish = peer.expect(Kind::Publish).await;
    peer.ack(&publish, 3).await;
    assert_eq!(third.await.unwrap().seq, 3);
}

#[tokio::test]
async fn dropping_every_handle_says_goodbye() {
    let (client, room, events, mut peer) = over(config("")).await;
    drop(client);
    let send = room.send(Outgoing::text("last words"));
    drop(room);
    drop(events);
    let publish = peer.expect(Kind::Publish).await;
    peer.ack(&publish, 1).await;
    let leave = peer.expect(Kind::Leave).await;
    assert_eq!(send.await.unwrap().seq, 1);
    peer.say(leave.header.request, &message::Left { room: ROOM, cursor: 1, extensions: ext() }).await;
    peer.goodbye().await;
    assert!(peer.next().await.is_none());
}

#[tokio::test]
async fn rubbish_from_the_server_costs_the_connection_only() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let mut peer = accept(&listener).await;
        peer.welcome(false).await;
        peer.joined(0, 0).await;
        peer.stream.write_all(&[0xff; 64]).await.unwrap();
        assert!(peer.next().await.is_none());
        let mut peer = accept(&listener).await;
        peer.welcome(true).await;
        let resume = peer.expect(Kind::Resume).await;
        assert_eq!(resume.read::<message::Resume<'_>>().positions.0.len(), 1);
        peer.say(resume.header.request, &joined(0, 0)).await;
        let gap = message::Gap { room: ROOM, epoch: EPOCH, from: 1, to: 4, why: GapReason::EXPIRED, extensions: ext() };
        peer.say(0, &gap).await;
        peer.deliver(5, "x").await;
        peer.goodbye().await;
    });
    let client = Client::connect(config(&address)).await.unwrap();
    let (_room, mut events) = client.join("lobby", JoinFrom::Tail).await.unwrap();
    assert!(matches!(events.next().await, Some(Event::Disconnected { .. })));
    assert_eq!(events.next().await, Some(Event::Reconnected));
    assert!(matches!(events.next().await, Some(Event::Gap(gap)) if (gap.from, gap.to) == (1, 4)));
    assert_eq!(message(events.next().await).seq, 5);
    client.close().await;
    server.await.unwrap();
}

#[tokio::test]
async fn a_join_that_was_dropped_leaves_and_holds_nothing_up() {
    let mut config = config("");
    config.events_max = 4;
    let (client, _room, mut events, mut peer) = over(config).await;
    {
        let join = client.join("other", JoinFrom::Tail);
        tokio::pin!(join);
        let got = tokio::select! {
            _ = &mut join => panic!("nobody answered"),
            got = peer.expect(Kind::Join) => got,
        };
        let joined = message::Joined {
            room: RoomNumber(8),
            epoch: EPOCH,
            tail: 0,
            first: 1,
            cursor: 0,
            count: 0,
            read: 0,
            unread: 0,
            durability: Durability::Synced,
            newest_nonce: None,
            extensions: ext(),
        };
        peer.say(got.header.request, &joined).await;
        for seq in 1..=10 {
            peer.say(0, &message::Deliver { room: RoomNumber(8), ..record(seq, "bob", 1, seq, "x") }).await;
        }
    }
    assert_eq!(peer.expect(Kind::Leave).await.read::<message::Leave<'_>>().room, RoomNumber(8));
    peer.deliver(1, "x").await;
    assert_eq!(message(events.next().await).seq, 1);
}
