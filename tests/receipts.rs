//! Cursors, unread and signals over real sockets, and what survives an engine's end.
#![cfg(all(feature = "engine", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod common;

use std::net::SocketAddr;

use common::{Raw, engine, ext, join, publish, soon, until};
use parlor::{
    client::JoinFrom,
    engine::{Engine, RoomOptions, SignalError, SignalTo},
};
use parlor_protocol::{
    Code, Epoch, Kind, List, RoomNumber, Seq, decode,
    message::{self, Durability, PUBLISH_SILENT, SIGNAL_BYTES_MAX},
    split, to_bytes,
};
use tempfile::TempDir;

/// A connection that has joined "tea".
struct Member {
    raw: Raw,
    room: RoomNumber,
    joined: (Seq, u64),
    request: u32,
}

impl Member {
    async fn join(address: SocketAddr, user: &str, device: &str) -> Self {
        let mut raw = Raw::welcomed(address, user, device).await;
        let answer = raw.ask(2, &join("tea", JoinFrom::Tail)).await;
        let joined: message::Joined<'_> = answer.read();
        let (room, joined) = (joined.room, (joined.read, joined.unread));
        Self { raw, room, joined, request: 2 }
    }

    async fn say(&mut self, nonce: u64, silent: bool) -> Seq {
        self.request += 1;
        let flags = if silent { PUBLISH_SILENT } else { 0 };
        let message = message::Publish { flags, ..publish(self.room, nonce, b"hi") };
        self.raw.ask(self.request, &message).await.read::<message::Ack<'_>>().seq
    }

    /// Marks, and is told the cursor and what is unread.
    async fn mark(&mut self, read: Seq) -> (Seq, u64) {
        self.request += 1;
        let mark = message::Mark { room: self.room, read, extensions: ext() };
        let answer = self.raw.ask(self.request, &mark).await;
        let marked: message::Marked<'_> = answer.read();
        (marked.read, marked.unread)
    }

    async fn readers(&mut self, seq: Seq) -> Vec<(String, Seq, Seq)> {
        self.request += 1;
        let fetch = message::FetchReaders { room: self.room, seq, extensions: ext() };
        let answer = self.raw.ask(self.request, &fetch).await;
        let readers: message::Readers<'_> = answer.read();
        readers.readers.0.iter().map(|reader| (reader.user.to_owned(), reader.read, reader.delivered)).collect()
    }

    /// What the list of his rooms says of this one: its count, what is unread, and the seq of the newest message, 0 for none.
    async fn listed(&mut self) -> (u64, u64, Seq) {
        self.request += 1;
        let list = message::ListRooms { before: None, limit: 9, extensions: ext() };
        let got = self.raw.ask(self.request, &list).await;
        let rooms: message::Rooms<'_> = got.read();
        let entry = rooms.rooms.0.iter().find(|entry| entry.name == "tea").expect("his room");
        let newest = split(entry.newest, parlor_protocol::frame::answer_body_max).unwrap();
        let newest = newest.map_or(0, |frame| decode::<message::Deliver<'_>>(frame.body).unwrap().seq);
        (entry.count, entry.unread, newest)
    }

    async fn beat(&mut self, seq: Seq) {
        self.request += 1;
        let epoch = Epoch(1);
        let positions = List(vec![message::Position { room: self.room, epoch, seq }]);
        let beat = message::Heartbeat { network: None, positions, extensions: ext() };
        assert_eq!(self.raw.ask(self.request, &beat).await.kind(), Kind::HeartbeatAck);
    }

    async fn signal(&mut self, to: message::SignalTo<'_>, key: u32, payload: &[u8]) {
        self.raw.send(&to_bytes(0, &message::Signal { to, key, payload, extensions: ext() })).await;
    }

    /// The next signal: its room, sender, key and payload.
    async fn hear(&mut self) -> (Option<RoomNumber>, String, u32, Vec<u8>) {
        let got = self.next(Kind::Signaled).await;
        let heard: message::Signaled<'_> = got.read();
        (heard.room, heard.sender.to_owned(), heard.key, heard.payload.to_vec())
    }

    /// The next frame of a kind; what comes before it is dropped.
    async fn next(&mut self, kind: Kind) -> common::Got {
        loop {
            let got = self.raw.next().await.expect("a frame");
            if got.kind() == kind {
                return got;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_on_one_device_moves_the_cursor_on_the_other() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.arbiters = 2);
    let mut ann = Member::join(address, "ann", "phone").await;
    for nonce in 1..=5 {
        ann.say(nonce, nonce == 2).await;
    }
    let mut phone = Member::join(address, "bob", "phone").await;
    assert_eq!(phone.joined, (0, 4), "one is silent");
    let mut laptop = Member::join(address, "bob", "laptop").await;
    assert_eq!(phone.mark(3).await, (3, 2));
    let got = laptop.next(Kind::Marked).await;
    let marked: message::Marked<'_> = got.read();
    assert_eq!((got.header.request, marked.room, marked.read, marked.unread), (0, laptop.room, 3, 2));
    assert_eq!(laptop.mark(2).await, (3, 2), "it never goes back");
    assert_eq!(laptop.mark(99).await, (5, 0), "nor above the tail");
    assert_eq!(phone.next(Kind::Marked).await.read::<message::Marked<'_>>().read, 5);
    assert_eq!(ann.mark(0).await, (0, 0), "her own are not unread to her");
    laptop.say(1, false).await;
    assert_eq!(ann.mark(0).await, (0, 1));
    assert_eq!(phone.mark(0).await, (5, 0), "what his laptop said is not unread on his phone");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_survive_a_restart_and_unread_with_them() {
    let data = TempDir::new().unwrap();
    for durability in [Durability::Synced, Durability::Buffered] {
        let data = data.path().join(format!("{durability:?}"));
        {
            let (engine, address) = engine(&data, |config| config.room_defaults.durability = durability);
            let (mut ann, mut bob) =
                (Member::join(address, "ann", "phone").await, Member::join(address, "bob", "phone").await);
            for nonce in 1..=6 {
                ann.say(nonce, false).await;
            }
            assert_eq!(bob.mark(4).await, (4, 2));
            bob.beat(5).await;
            engine.shutdown().await;
        }
        let (engine, address) = engine(&data, |config| config.room_defaults.durability = durability);
        let mut bob = Member::join(address, "bob", "tablet").await;
        assert_eq!(bob.joined, (4, 2));
        assert_eq!(Member::join(address, "ann", "tablet").await.joined, (0, 0), "sent on another device, before");
        assert_eq!(bob.mark(5).await, (5, 1), "its count is in the store only");
        assert_eq!(bob.readers(1).await, [("bob".into(), 5, 5)]);
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_read_is_told_in_small_rooms() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.limits.readers_per_room_max = 3);
    let mut ann = Member::join(address, "ann", "phone").await;
    for nonce in 1..=3 {
        ann.say(nonce, false).await;
    }
    for (user, read) in [("bob", 1), ("cid", 3), ("dan", 2)] {
        let mut member = Member::join(address, user, "phone").await;
        assert_eq!(member.mark(read).await, (read, 3 - read));
    }
    // Those who left are read from the store, perhaps not at once.
    assert_eq!(ann.readers(2).await, [("cid".into(), 3, 3), ("dan".into(), 2, 2)]);
    assert_eq!(ann.readers(0).await.len(), 3);
    ann.mark(1).await;
    let fetch = message::FetchReaders { room: ann.room, seq: 0, extensions: ext() };
    assert_eq!(ann.raw.ask(99, &fetch).await.refusal(), Some(Code::Unsupported), "four have cursors");
    let elsewhere = message::FetchReaders { room: RoomNumber(77), seq: 0, extensions: ext() };
    assert_eq!(ann.raw.ask(98, &elsewhere).await.refusal(), Some(Code::NotJoined));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_reach_others_and_leave_no_trace() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.arbiters = 2);
    let (mut ann, mut bob) = (Member::join(address, "ann", "phone").await, Member::join(address, "bob", "phone").await);
    let mut laptop = Member::join(address, "ann", "laptop").await;
    let room = message::SignalTo::Room(ann.room);
    ann.signal(room, 7, b"types").await;
    let heard = (Some(ann.room), "ann".to_owned(), 7, b"types".to_vec());
    assert_eq!((bob.hear().await, laptop.hear().await), (heard.clone(), heard));
    for to in ["bob", "ann", "nobody"] {
        ann.signal(message::SignalTo::User(to), 8, to.as_bytes()).await;
    }
    assert_eq!(bob.hear().await, (None, "ann".into(), 8, b"bob".to_vec()));
    assert_eq!(laptop.hear().await, (None, "ann".into(), 8, b"ann".to_vec()));

    assert_eq!(bob.say(1, false).await, 1, "signals have no seq");
    let fetch = message::Fetch {
        room: bob.room,
        start: None,
        direction: message::Direction::Forward,
        limit: 0,
        extensions: ext(),
    };
    let answer = bob.raw.ask(50, &fetch).await;
    let page: message::Page<'_> = answer.read();
    let first = split(page.records, parlor_protocol::frame::answer_body_max).unwrap().unwrap();
    assert_eq!((decode::<message::Deliver<'_>>(first.body).unwrap().seq, first.size()), (1, page.records.len()));
    let again = Member::join(address, "cid", "phone").await;
    assert_eq!(again.joined, (0, 1));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_that_may_not_be_is_refused_or_dropped_and_costs_its_sender_only() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |_| {});
    let (mut ann, mut bob) = (Member::join(address, "ann", "phone").await, Member::join(address, "bob", "phone").await);
    let room = message::SignalTo::Room(ann.room);
    for (to, bytes, code) in [
        (room, SIGNAL_BYTES_MAX + 1, Code::TooLarge),
        (message::SignalTo::Room(RoomNumber(77)), 0, Code::NotJoined),
        (message::SignalTo::User("a\nb"), 0, Code::InvalidName),
    ] {
        let signal = message::Signal { to, key: 1, payload: &vec![1; bytes], extensions: ext() };
        assert_eq!(ann.raw.ask(60, &signal).await.refusal(), Some(code));
        ann.raw.send(&to_bytes(0, &signal)).await; // Nobody hears of this one.
    }
    // Far more than the rate: they are dropped, and records pass.
    for key in 0..500 {
        ann.signal(room, key, &[0; SIGNAL_BYTES_MAX]).await;
    }
    assert_eq!(ann.say(1, false).await, 1);
    let mut heard = 0;
    loop {
        let got = bob.raw.next().await.unwrap();
        match got.kind() {
            Kind::Signaled => heard += 1,
            Kind::Deliver => break,
            kind => panic!("{kind:?}"),
        }
    }
    assert!((1..500).contains(&heard), "{heard} of 500");
    let large = message::Signal { to: room, key: 1, payload: &[0; 1_100], extensions: ext() };
    ann.raw.send(&to_bytes(61, &large)).await;
    assert_eq!(ann.raw.end().await.unwrap().refusal(), Some(Code::FrameTooLarge));
    assert_eq!(bob.say(1, false).await, 2);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_reads_marks_and_signals_by_itself() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |_| {});
    engine.create_room("quiet", RoomOptions::default()).await.unwrap();
    let standing = async |engine: &Engine, user, room| {
        let standing = soon("a standing", engine.unread(user, room)).await.unwrap();
        (standing.read, standing.unread)
    };
    assert_eq!(standing(&engine, "bob", "quiet").await, (0, 0));
    assert!(engine.unread("bob", "nowhere").await.is_err());

    let mut ann = Member::join(address, "ann", "phone").await;
    for nonce in 1..=3 {
        ann.say(nonce, false).await;
    }
    assert_eq!(standing(&engine, "bob", "tea").await, (0, 3), "he has never been there");
    assert_eq!(standing(&engine, "ann", "tea").await, (0, 0));
    let marked = engine.mark_read("bob", "tea", 2).await.unwrap();
    assert_eq!((marked.read, marked.unread), (2, 1));
    let mut bob = Member::join(address, "bob", "phone").await;
    assert_eq!(bob.joined, (2, 1));
    engine.mark_read("bob", "tea", 3).await.unwrap();
    assert_eq!(bob.next(Kind::Marked).await.read::<message::Marked<'_>>().unread, 0);

    engine.signal(SignalTo::Room("tea"), "the house", 1, b"closing").await.unwrap();
    assert_eq!(bob.hear().await, (Some(bob.room), "the house".into(), 1, b"closing".to_vec()));
    engine.signal(SignalTo::User("bob"), "the house", 2, b"bill").await.unwrap();
    assert_eq!(bob.hear().await, (None, "the house".into(), 2, b"bill".to_vec()));
    let long = [0; SIGNAL_BYTES_MAX + 1];
    let refused = engine.signal(SignalTo::User("bob"), "the house", 2, &long).await;
    assert!(matches!(refused, Err(SignalError::TooLarge { bytes: 513 })));
    assert!(engine.signal(SignalTo::Room("nowhere"), "the house", 2, b"").await.is_err());
    until("bob's cursor in the store", async || standing(&engine, "bob", "tea").await == (3, 0)).await;
    engine.shutdown().await;
}

#[cfg(feature = "cli")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_what_was_sent_counts_as_read_and_a_cursor_that_was_saved_stands() {
    let data = TempDir::new().unwrap();
    {
        let served = common::Served::start(data.path(), None, common::loopback());
        let mut ann = Member::join(served.address, "ann", "phone").await;
        for nonce in 1..=3 {
            ann.say(nonce, false).await;
        }
        let mut bob = Member::join(served.address, "bob", "phone").await;
        assert_eq!(bob.mark(2).await, (2, 1));
        // His marks are saved when he leaves, which is before what is said afterwards is acked.
        let leave = message::Leave { room: bob.room, extensions: ext() };
        assert_eq!(bob.raw.ask(9, &leave).await.kind(), Kind::Left);
        ann.say(4, false).await;
        served.signal("KILL");
        served.exit().await;
    }
    let served = common::Served::start(data.path(), None, common::loopback());
    assert_eq!(Member::join(served.address, "bob", "phone").await.joined, (2, 2));
    // Nobody saved that ann had sent anything.
    assert_eq!(Member::join(served.address, "ann", "laptop").await.joined, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_read_gets_the_newest_signal_when_he_reads_again() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.room_defaults.durability = Durability::Buffered);
    let mut ann = Member::join(address, "ann", "phone").await;
    let mut bob = Raw::connect_narrow(address).await;
    bob.greet("bob", "phone").await;
    bob.join("tea", JoinFrom::Tail).await;
    // More than sockets and the outbound queue take.
    let (payload, mut nonce) = ([b'x'; 1_400], 0);
    for _ in 0..120 {
        let mut frames = Vec::new();
        for request in 100..150 {
            nonce += 1;
            frames.extend(to_bytes(request, &publish(ann.room, nonce, &payload)));
        }
        ann.raw.send(&frames).await;
        ann.raw.answer(149).await;
    }
    for says in 0..10 {
        ann.signal(message::SignalTo::Room(ann.room), 7, &[says]).await;
    }
    let last = ann.say(nonce + 1, false).await;
    let (mut heard, mut seq) = (Vec::new(), 0);
    while heard.last() != Some(&9) || seq < last {
        let got = bob.next().await.expect("a frame");
        match got.kind() {
            Kind::Signaled => heard.push(got.read::<message::Signaled<'_>>().payload[0]),
            Kind::Deliver => {
                let delivered = got.read::<message::Deliver<'_>>().seq;
                assert_eq!(delivered, seq + 1, "no record is lost for a signal");
                seq = delivered;
            }
            kind => panic!("{kind:?}"),
        }
    }
    assert!(heard.is_sorted(), "{heard:?}");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_within_the_process_gets_signals_too() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.room_defaults.durability = Durability::Buffered);
    let mut pipe = engine.connect();
    let frames = [to_bytes(1, &common::hello("bot", "host")), to_bytes(2, &join("tea", JoinFrom::Tail))].concat();
    soon("a send", pipe.sender.send(frames.into())).await.unwrap();
    let mut heard = async || {
        loop {
            let frames = soon("frames", pipe.receiver.recv()).await.expect("frames");
            let mut rest = &frames[..];
            while let Some(frame) = split(rest, parlor_protocol::frame::answer_body_max).unwrap() {
                rest = &rest[frame.size()..];
                match Kind::from_wire(frame.header.kind).unwrap() {
                    Kind::Joined => return None,
                    Kind::Signaled => return Some(decode::<message::Signaled<'_>>(frame.body).unwrap().key),
                    _ => {}
                }
            }
        }
    };
    assert_eq!(heard().await, None);
    let mut ann = Member::join(address, "ann", "phone").await;
    ann.signal(message::SignalTo::Room(ann.room), 7, b"").await;
    assert_eq!(heard().await, Some(7));

    // More than the pipe takes, and less than what the engine holds for it: nothing but the reading sets it going again.
    for nonce in 1..=430 {
        ann.raw.send(&to_bytes(100, &publish(ann.room, nonce, &[b'x'; 1_400]))).await;
        ann.raw.answer(100).await;
    }
    ann.signal(message::SignalTo::Room(ann.room), 8, b"").await;
    ann.say(431, false).await;
    assert_eq!(heard().await, Some(8));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_before_a_member_was_added_is_not_unread_for_him() {
    let data = TempDir::new().unwrap();
    {
        let (engine, address) = engine(data.path(), |_| {});
        let mut ann = Member::join(address, "ann", "phone").await;
        for nonce in 1..=4 {
            ann.say(nonce, false).await;
        }
        let mut bob = Member::join(address, "bob", "phone").await;
        assert_eq!(bob.joined, (0, 4), "a stranger has read nothing");
        engine.set_members("tea", message::Role::Member, &["bob", "cem"]).await.unwrap();
        assert_eq!(bob.mark(0).await, (0, 0), "also for who is there already");
        // The first of them is counted, what announces the members is not.
        ann.say(5, false).await;
        ann.say(6, true).await;
        assert_eq!(bob.mark(0).await, (0, 1));
        assert_eq!(Member::join(address, "cem", "phone").await.joined, (0, 1));
        assert_eq!(bob.readers(1).await, [], "nobody has read anything");
        engine.shutdown().await;
    }
    let (engine, address) = engine(data.path(), |_| {});
    let mut cem = Member::join(address, "cem", "phone").await;
    assert_eq!(cem.joined, (0, 1));
    // His list of rooms says the same, and what he has read since.
    for (read, want) in [(0, 1), (9, 0)] {
        cem.mark(read).await;
        let list = message::ListRooms { before: None, limit: 9, extensions: ext() };
        until("the list says what is unread", async || {
            cem.request += 1;
            let got = cem.raw.ask(cem.request, &list).await;
            let rooms: message::Rooms<'_> = got.read();
            rooms.rooms.0.iter().map(|entry| (entry.name, entry.unread)).eq([("tea", want)])
        })
        .await;
    }
    // A room of the same name knows nothing of it.
    engine.delete_room("tea").await.unwrap();
    assert_eq!(Member::join(address, "dan", "phone").await.joined, (0, 0));
    let mut cem = Member::join(address, "cem", "tablet").await;
    assert_eq!(cem.joined, (0, 0));
    assert_eq!(cem.readers(0).await, []);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_room_keeps_no_longer_is_not_unread_also_after_a_restart() {
    let data = TempDir::new().unwrap();
    for again in [false, true] {
        let (engine, address) = engine(data.path(), |config| config.room_defaults.records_max = 6);
        let mut ann = Member::join(address, "ann", "phone").await;
        if !again {
            for nonce in 1..=40 {
                ann.say(nonce, nonce % 2 == 0).await;
            }
        }
        // The newest six are said loud and silently in turn.
        assert_eq!(Member::join(address, "bob", "phone").await.joined, (0, 3), "again: {again}");
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_rooms_knows_no_more_than_a_join_of_a_room_that_keeps_little() {
    let data = TempDir::new().unwrap();
    for again in [false, true] {
        let (engine, address) = engine(data.path(), |config| config.room_defaults.records_max = 10);
        let mut ann = Member::join(address, "ann", "phone").await;
        if !again {
            engine.set_members("tea", message::Role::Member, &["bob"]).await.unwrap();
            let message = ann.say(1, false).await;
            for nonce in 2..=11 {
                ann.request += 1;
                let edit = message::Publish {
                    kind: message::RecordKind::EDIT,
                    refers_to: message,
                    ..publish(ann.room, nonce, b"hi!")
                };
                assert_eq!(ann.raw.ask(ann.request, &edit).await.kind(), Kind::Ack);
            }
        }
        // The last edit has pushed the message out, and the store has deleted nothing.
        let mut bob = Member::join(address, "bob", "phone").await;
        assert_eq!((bob.joined.1, bob.listed().await), (0, (1, 0, 0)), "again: {again}");
        if again {
            let mut newest = 0;
            for nonce in 12..=84 {
                newest = ann.say(nonce, false).await;
            }
            let mut bob = Member::join(address, "bob", "tablet").await;
            assert_eq!((bob.joined.1, bob.listed().await), (10, (74, 10, newest)));
            bob.request += 1;
            let describe = message::DescribeRoom { room: "tea", extensions: ext() };
            let got = bob.raw.ask(bob.request, &describe).await;
            let info: message::RoomInfo<'_> = got.read();
            assert_eq!((info.count, info.tail), (74, newest));
        }
        engine.shutdown().await;
    }
}
