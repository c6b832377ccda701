//! Whole flows through the client, the socket, the engine and the store, and what survives an engine's end.
#![cfg(all(feature = "engine", feature = "client", feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    process::{Command, Stdio},
};

use common::{Raw, Served, client, config, config_file, engine, loopback, publish, soon, until};
use parlor::{
    client::{Client, Direction, Durability, Event, Events, GapReason, JoinFrom, Message, Outgoing, Room},
    config::EngineConfig,
    engine::{Engine, RoomOptions},
};
use parlor_protocol::{Code, Epoch, Kind, Seq, message, to_bytes};
use tempfile::TempDir;
use tokio::runtime;

async fn enter(client: &Client, room: &str, from: JoinFrom) -> (Room, Events) {
    soon("a join", client.join(room, from)).await.unwrap()
}

async fn say(room: &Room, text: &str) -> Seq {
    soon("an ack", room.publish(text)).await.unwrap().seq
}

async fn next(events: &mut Events) -> Event {
    soon("an event", events.next()).await.expect("an event")
}

async fn message(events: &mut Events) -> Message {
    match next(events).await {
        Event::Message(message) => message,
        other => panic!("a message, not {other:?}"),
    }
}

/// All records of a room in pages, as one list in the order of the seqs.
async fn pages(room: &Room, direction: Direction, limit: u32) -> Vec<Message> {
    let (mut all, mut start) = (Vec::new(), None);
    loop {
        let page = soon("a page", room.fetch(start, direction, limit)).await.unwrap();
        assert_eq!(page.gaps, []);
        match direction {
            Direction::Forward => all.extend(page.messages),
            Direction::Backward => drop(all.splice(0..0, page.messages)),
        }
        start = page.next;
        if start.is_none() {
            return all;
        }
    }
}

fn texts(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.text().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_begins_where_it_says() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |_| {});
    let ann = client(address, "ann").await;
    let (room, _events) = enter(&ann, "tea", JoinFrom::Tail).await;
    for seq in 1..=10 {
        assert_eq!(say(&room, &format!("text {seq}")).await, seq);
    }
    let epoch = room.joined().epoch;
    for (from, first) in [
        (JoinFrom::Tail, 11),
        (JoinFrom::Newest(0), 11),
        (JoinFrom::Newest(3), 8),
        (JoinFrom::Newest(99), 1),
        (JoinFrom::Seq(0), 1),
        (JoinFrom::Seq(1), 1),
        (JoinFrom::Seq(4), 4),
        (JoinFrom::Seq(11), 11),
        (JoinFrom::Position(epoch, 0), 1),
        (JoinFrom::Position(epoch, 7), 8),
        (JoinFrom::Position(epoch, 10), 11),
    ] {
        let bob = client(address, "bob").await;
        let (bobs, mut events) = enter(&bob, "tea", from).await;
        let joined = bobs.joined();
        assert_eq!((joined.tail, joined.first, joined.cursor, joined.count), (10, 1, first - 1, 10), "{from:?}");
        for seq in first..=10 {
            let message = message(&mut events).await;
            assert_eq!((message.seq, message.count, message.text()), (seq, seq, Some(&*format!("text {seq}"))));
            assert!(!message.own && &*message.sender == "ann");
        }
        assert_eq!(events.try_next(), None, "{from:?}");
        bob.close().await;
    }
    for (from, why) in [
        (JoinFrom::Seq(1_000), GapReason::ABOVE_TAIL),
        (JoinFrom::Position(epoch, 1_000), GapReason::ABOVE_TAIL),
        (JoinFrom::Position(epoch, u64::MAX), GapReason::ABOVE_TAIL),
        (JoinFrom::Seq(u64::MAX), GapReason::ABOVE_TAIL),
        (JoinFrom::Position(Epoch(0), 5), GapReason::NEW_EPOCH),
        (JoinFrom::Position(Epoch(u64::MAX), u64::MAX), GapReason::NEW_EPOCH),
    ] {
        let bob = client(address, "bob").await;
        let (_room, mut events) = enter(&bob, "tea", from).await;
        let Event::Gap(gap) = next(&mut events).await else { panic!("a gap") };
        assert_eq!((gap.epoch, gap.why, gap.from), (epoch, why, gap.to + 1), "{from:?}: {gap:?}");
        let seq = say(&room, "after").await;
        for seq in gap.to + 1..=seq {
            assert_eq!(message(&mut events).await.seq, seq, "{from:?}");
        }
        bob.close().await;
    }
    ann.close().await;
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_what_was_sent_both_ways() {
    check_history(1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_what_was_sent_both_ways_where_the_ring_is_small() {
    check_history(50).await;
}

async fn check_history(ring_records_max: usize) {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.limits.ring_records_max = ring_records_max);
    let ann = client(address, "ann").await;
    let (room, _events) = enter(&ann, "tea", JoinFrom::Tail).await;
    let sent: Vec<String> = (0..333).map(|n| format!("text {n} {}", "x".repeat(n % 97))).collect();
    let sendings: Vec<_> = sent.iter().map(|text| room.send(Outgoing::text(text))).collect();
    for (sending, seq) in sendings.into_iter().zip(1..) {
        assert_eq!(soon("an ack", sending).await.unwrap().seq, seq);
    }
    for limit in [0, 7, 200, 10_000] {
        for direction in [Direction::Forward, Direction::Backward] {
            let all = pages(&room, direction, limit).await;
            assert_eq!(texts(&all), sent, "{direction:?} by {limit}");
            assert!(all.iter().map(|message| message.seq).eq(1..=333));
        }
    }
    let page = room.fetch(Some(100), Direction::Backward, 5).await.unwrap();
    assert!(page.messages.iter().map(|message| message.seq).eq(96..=100));
    assert_eq!((page.next, page.tail), (Some(95), 333));
    let page = room.fetch(Some(100), Direction::Forward, 5).await.unwrap();
    assert!(page.messages.iter().map(|message| message.seq).eq(100..=104));
    assert_eq!(page.next, Some(105));
    let above = room.fetch(Some(334), Direction::Forward, 5).await.unwrap();
    assert_eq!((above.messages, above.next), (vec![], None));
    let above = room.fetch(Some(u64::MAX), Direction::Backward, 1).await.unwrap();
    assert_eq!((above.messages[0].seq, above.next), (333, Some(332)));
    let below = room.fetch(Some(0), Direction::Backward, 5).await.unwrap();
    assert_eq!((below.messages, below.next), (vec![], None));
    ann.close().await;
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_name_the_rooms_durability() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |_| {});
    let levels = [Durability::Memory, Durability::Buffered, Durability::Synced];
    let mut numbers = BTreeSet::new();
    for durability in levels {
        let name = format!("{durability:?}");
        let number = soon("a room", engine.create_room(&name, RoomOptions { durability, ..RoomOptions::default() }))
            .await
            .unwrap();
        let again = soon("a room", engine.create_room(&name, RoomOptions::default())).await.unwrap();
        assert_eq!(number, again, "a room keeps what it was created with");
        numbers.insert(number);
    }
    assert_eq!(numbers.len(), 3);
    assert!(engine.create_room("a\nb", RoomOptions::default()).await.is_err());
    let ann = client(address, "ann").await;
    for durability in levels {
        let (room, mut events) = enter(&ann, &format!("{durability:?}"), JoinFrom::Tail).await;
        assert_eq!(room.joined().durability, durability);
        let acked = soon("an ack", room.publish("x")).await.unwrap();
        assert_eq!(acked.durability, durability);
        assert_eq!(message(&mut events).await.seq, acked.seq);
    }
    let (room, _events) = enter(&ann, "made at join", JoinFrom::Tail).await;
    assert_eq!(room.joined().durability, Durability::Synced);
    ann.close().await;
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_buffered_or_synced_room_acked_is_there_after_a_restart() {
    let data = TempDir::new().unwrap();
    let (first, address) = engine(data.path(), |_| {});
    let levels = [Durability::Memory, Durability::Buffered, Durability::Synced];
    let ann = client(address, "ann").await;
    let mut before = Vec::new();
    for durability in levels {
        let name = format!("{durability:?}");
        let number = first.create_room(&name, RoomOptions { durability, ..RoomOptions::default() }).await.unwrap();
        let (room, _events) = enter(&ann, &name, JoinFrom::Tail).await;
        for seq in 1..=5 {
            assert_eq!(say(&room, "x").await, seq);
        }
        before.push((number, room.joined().epoch));
    }
    ann.close().await;
    first.shutdown().await;
    drop(first);
    let (second, address) = engine(data.path(), |_| {});
    let ann = client(address, "ann").await;
    for (durability, (number, epoch)) in levels.into_iter().zip(before) {
        let (room, mut events) = enter(&ann, &format!("{durability:?}"), JoinFrom::Position(epoch, 3)).await;
        assert_eq!(room.joined().number, number);
        if durability == Durability::Memory {
            let Event::Gap(gap) = next(&mut events).await else { panic!("a gap") };
            assert_eq!((gap.why, gap.to, room.joined().tail), (GapReason::NEW_EPOCH, 0, 0));
            assert!(gap.epoch > epoch);
        } else {
            assert_eq!((room.joined().epoch, room.joined().tail), (epoch, 5));
            assert_eq!((message(&mut events).await.seq, message(&mut events).await.seq), (4, 5));
        }
    }
    ann.close().await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rooms_do_not_mix() {
    const ROOMS: usize = 200;
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.arbiters = 2);
    let (ann, bob) = (client(address, "ann").await, client(address, "bob").await);
    let mut rooms = Vec::new();
    for n in 0..ROOMS {
        let (room, _) = enter(&ann, &format!("room {n}"), JoinFrom::Tail).await;
        let (_bobs, events) = enter(&bob, &format!("room {n}"), JoinFrom::Tail).await;
        rooms.push((room, events));
    }
    let numbers: BTreeSet<_> = rooms.iter().map(|(room, _)| room.joined().number).collect();
    assert_eq!(numbers.len(), ROOMS);
    let mut sendings = Vec::new();
    for round in 1..=3 {
        for (n, (room, _)) in rooms.iter().enumerate() {
            sendings.push((round, room.send(Outgoing::text(format!("{n} {round}")))));
        }
    }
    for (round, sending) in sendings {
        assert_eq!(soon("an ack", sending).await.unwrap().seq, round);
    }
    for (n, (_, events)) in rooms.iter_mut().enumerate() {
        for round in 1..=3 {
            let message = message(events).await;
            assert_eq!((message.seq, message.text()), (round, Some(&*format!("{n} {round}"))));
        }
        assert_eq!(events.try_next(), None);
    }
    let stats = bob.stats();
    assert_eq!((stats.messages, stats.duplicates, stats.holes, stats.gaps), (3 * ROOMS as u64, 0, 0, 0));
    ann.close().await;
    bob.close().await;
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leave_says_the_cursor_and_a_silent_message_does_not_count() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |_| {});
    let (ann, bob) = (client(address, "ann").await, client(address, "bob").await);
    let (room, _events) = enter(&ann, "tea", JoinFrom::Tail).await;
    let (bobs, mut events) = enter(&bob, "tea", JoinFrom::Tail).await;
    let mut counts = Vec::new();
    for silent in [false, true, true, false] {
        let sending = room.send(Outgoing { silent, ..Outgoing::text("x") });
        soon("an ack", sending).await.unwrap();
        counts.push(message(&mut events).await.count);
    }
    assert_eq!(counts, [1, 1, 1, 2]);
    assert_eq!(soon("a leave", bobs.leave()).await.unwrap(), 4);
    assert_eq!(soon("the end", events.next()).await, None);
    say(&room, "bob does not hear this").await;
    let (bobs, mut events) = enter(&bob, "tea", JoinFrom::Position(bobs.joined().epoch, 4)).await;
    assert_eq!((bobs.joined().tail, bobs.joined().cursor, bobs.joined().count), (5, 4, 3));
    assert_eq!(message(&mut events).await.seq, 5);
    ann.close().await;
    bob.close().await;
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_nonce_is_a_duplicate_also_after_a_restart() {
    let data = TempDir::new().unwrap();
    let mut first_answers = BTreeMap::new();
    for restart in 0..3 {
        let (engine, address) = engine(data.path(), |_| {});
        let mut raw = Raw::welcomed(address, "ann", "phone").await;
        let joined = raw.ask(2, &common::join("tea", JoinFrom::Tail)).await;
        let (room, newest) = {
            let joined = joined.read::<message::Joined<'_>>();
            (joined.room, joined.newest_nonce)
        };
        assert_eq!(newest, (restart > 0).then_some(100), "restart {restart}");
        for nonce in [5, 6, 100] {
            let got = raw.ask(3, &publish(room, nonce, b"once")).await;
            let ack = got.read::<message::Ack<'_>>();
            assert_eq!(ack.duplicate, restart > 0, "nonce {nonce}, restart {restart}");
            let first = *first_answers.entry(nonce).or_insert((ack.seq, ack.time));
            assert_eq!((ack.seq, ack.time), first);
            // And at once.
            let got = raw.ask(4, &publish(room, nonce, b"once")).await;
            let ack = got.read::<message::Ack<'_>>();
            assert_eq!((ack.seq, ack.time, ack.duplicate), (first.0, first.1, true));
        }
        let got = raw.ask(5, &publish(room, 6, b"other")).await;
        assert_eq!(got.refusal(), Some(Code::NonceConflict), "restart {restart}");
        let got = raw.ask(6, &publish(room, 7, b"skipped")).await;
        assert_eq!(got.refusal(), Some(Code::NonceTooOld), "restart {restart}");
        // Another device has nonces of its own.
        let mut tablet = Raw::welcomed(address, "ann", "tablet").await;
        let got = tablet.ask(2, &common::join("tea", JoinFrom::Tail)).await;
        assert_eq!(got.read::<message::Joined<'_>>().tail, 3);
        assert_eq!(got.read::<message::Joined<'_>>().newest_nonce, None);
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_in_the_same_process_need_no_socket() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |_| {});
    let inside = soon("a client", Client::over(engine.connect(), config(address, "inside"))).await.unwrap();
    let outside = client(address, "outside").await;
    let (here, mut heard_here) = enter(&inside, "tea", JoinFrom::Tail).await;
    let (there, mut heard_there) = enter(&outside, "tea", JoinFrom::Tail).await;
    for n in 0..50 {
        say(if n % 2 == 0 { &here } else { &there }, &n.to_string()).await;
        assert_eq!(message(&mut heard_here).await.text(), Some(&*n.to_string()));
        assert_eq!(message(&mut heard_there).await.text(), Some(&*n.to_string()));
    }
    assert_eq!((engine.users_online(), engine.sessions("inside").len()), (2, 1));
    inside.close().await;
    until("the session is over", async || engine.sessions("inside").is_empty()).await;
    outside.close().await;
    engine.shutdown().await;
}

/// Starts an engine on an address that was just in use.
async fn engine_at(data: &TempDir, address: SocketAddr) -> Engine {
    let mut config = EngineConfig::new(data.path());
    config.tiers = parlor::tiers::Tiers::sending(parlor::tiers::SendRate::OFF);
    let engine = Engine::start(config).unwrap();
    until("the address is free", async || engine.listen(address).is_ok()).await;
    engine
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_under_load_loses_and_repeats_nothing() {
    const SPEAKERS: u64 = 4;
    const EACH: u64 = 400;
    let data = TempDir::new().unwrap();
    let (mut current, address) = engine(data.path(), |_| {});
    let listener = client(address, "listener").await;
    let (heard_room, mut events) = enter(&listener, "tea", JoinFrom::Tail).await;
    let progress = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut speakers = Vec::new();
    for speaker in 0..SPEAKERS {
        let progress = progress.clone();
        speakers.push(tokio::spawn(async move {
            let client = client(address, &format!("speaker {speaker}")).await;
            let (room, events) = enter(&client, "tea", JoinFrom::Tail).await;
            drop(events);
            let mut acked = Vec::new();
            // A few on the way at a time, so that a shutdown cuts through them.
            for chunk in (0..EACH).collect::<Vec<_>>().chunks(8) {
                let sendings: Vec<_> =
                    chunk.iter().map(|n| (n, room.send(Outgoing::text(format!("{speaker} {n}"))))).collect();
                for (n, sending) in sendings {
                    acked.push((soon("an ack", sending).await.unwrap().seq, format!("{speaker} {n}")));
                    progress.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
            }
            client.close().await;
            acked
        }));
    }
    for restart in 1..=3 {
        let so_far = || progress.load(std::sync::atomic::Ordering::SeqCst);
        until("some more is said", async || so_far() >= restart * SPEAKERS * EACH / 5).await;
        soon("the shutdown", current.shutdown()).await;
        current = engine_at(&data, address).await;
    }
    let mut acked = BTreeMap::new();
    for speaker in speakers {
        acked.extend(speaker.await.unwrap());
    }
    let (mut heard, mut goodbyes) = (BTreeMap::new(), 0);
    while (heard.len() as u64) < SPEAKERS * EACH {
        match next(&mut events).await {
            Event::Message(message) => {
                assert_eq!(message.seq, heard.len() as u64 + 1, "in order, without a gap or a repeat");
                heard.insert(message.seq, message.text().unwrap().to_owned());
            }
            Event::Disconnected { reason } => {
                assert!(reason.contains("GoingAway"), "{reason}");
                goodbyes += 1;
            }
            Event::Reconnected => {}
            other => panic!("the listener was told {other:?}"),
        }
    }
    assert_eq!(heard, acked, "what was acked is what was heard");
    assert!(goodbyes >= 1);
    let stored = pages(&heard_room, Direction::Forward, 200).await;
    assert!(stored.iter().map(|message| message.text().unwrap()).eq(heard.values()), "and what is stored");
    listener.close().await;
    soon("the shutdown", current.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_belongs_to_one_engine() {
    let (data, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (first, address) = engine(data.path(), |_| {});
    let error = Engine::start(EngineConfig::new(data.path())).err().expect("it is taken").to_string();
    assert!(error.contains(&*data.path().to_string_lossy()), "it names the folder: {error}");
    assert!(error.contains("another") || error.contains("already"), "it says why: {error}");
    let served = Command::new(env!("CARGO_BIN_EXE_parlor"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&served.stderr);
    assert!(!served.status.success() && said.contains(&*data.path().to_string_lossy()), "{said}");
    // Two engines with a folder each are strangers.
    let (second, elsewhere) = engine(other.path(), |_| {});
    let (ann, bob) = (client(address, "ann").await, client(elsewhere, "bob").await);
    let (anns, mut heard) = enter(&ann, "tea", JoinFrom::Tail).await;
    let (bobs, mut heard_elsewhere) = enter(&bob, "tea", JoinFrom::Tail).await;
    assert_eq!((say(&anns, "here").await, say(&bobs, "there").await), (1, 1));
    assert_eq!(message(&mut heard).await.text(), Some("here"));
    assert_eq!(message(&mut heard_elsewhere).await.text(), Some("there"));
    soon("the shutdown", first.shutdown()).await;
    assert_eq!(say(&bobs, "still there").await, 2);
    drop(first);
    let again = Engine::start(EngineConfig::new(data.path()));
    assert!(again.is_ok(), "it is free again: {:?}", again.err());
    bob.close().await;
    soon("the shutdown", second.shutdown()).await;
}

/// Starts an engine within `runtime`, talks, and ends it by a shutdown or by a drop.
#[track_caller]
fn check_host(runtime: &runtime::Runtime, shut_down: bool) {
    let data = TempDir::new().unwrap();
    for seq in 1..=3 {
        runtime.block_on(async {
            let (engine, address) = engine(data.path(), |config| config.arbiters = 2);
            let ann = client(address, "ann").await;
            let (room, mut events) = enter(&ann, "tea", JoinFrom::Tail).await;
            assert_eq!(say(&room, "x").await, seq, "what was acked before is there");
            assert_eq!(message(&mut events).await.seq, seq);
            if shut_down {
                soon("the shutdown", engine.shutdown()).await;
                soon("another shutdown", engine.shutdown()).await;
            }
            drop(engine);
        });
    }
}

#[test]
fn the_host_may_have_any_runtime() {
    let current = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let several = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for runtime in [&current, &several] {
        check_host(runtime, true);
        check_host(runtime, false);
    }
    // Nor does it need one.
    let data = TempDir::new().unwrap();
    drop(engine(data.path(), |_| {}));
    drop(Engine::start(EngineConfig::new(data.path())).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_served_engine_ends_in_order_when_it_is_told_to() {
    for signal in ["TERM", "INT"] {
        let (acked, stored) = check_signal(signal).await;
        assert!(acked <= stored, "SIG{signal}: {acked} were acked, {stored} are stored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_served_engine_stores_nothing_that_it_does_not_answer() {
    for _ in 0..20 {
        let (acked, stored) = check_signal("TERM").await;
        assert_eq!(acked, stored, "everything accepted was answered");
    }
}

/// Signals a server in the middle of a burst; how many messages it acked, and how many it stored.
async fn check_signal(signal: &str) -> (u64, u64) {
    const BURST: u32 = 3_000;
    let data = TempDir::new().unwrap();
    let served = Served::start(data.path(), None, loopback());
    let mut raw = Raw::welcomed(served.address, "ann", "phone").await;
    let room = raw.join("tea", JoinFrom::Tail).await;
    let burst: Vec<u8> = (1..=BURST).flat_map(|n| to_bytes(2 + n, &publish(room, n.into(), b"x"))).collect();
    raw.try_send(&burst).await;
    let (mut acked, mut delivered, mut close) = (0, 0, None);
    while let Some(got) = raw.next().await {
        assert!(close.is_none(), "nothing follows a close");
        match got.kind() {
            Kind::Ack => {
                acked += 1;
                assert_eq!(got.read::<message::Ack<'_>>().seq, acked);
                if acked == 1 {
                    served.signal(signal);
                }
            }
            Kind::Deliver => delivered += 1,
            _ => close = got.refusal(),
        }
    }
    assert_eq!(close, Some(Code::GoingAway), "after {acked} acks and {delivered} records");
    assert_eq!(served.exit().await.code(), Some(0), "SIG{signal}");
    let (engine, address) = engine(data.path(), |_| {});
    let reader = client(address, "reader").await;
    let (room, _events) = enter(&reader, "tea", JoinFrom::Tail).await;
    let stored = room.joined().tail;
    reader.close().await;
    engine.shutdown().await;
    (acked, stored)
}

#[test]
fn a_wrong_configuration_is_refused_with_a_reason() {
    let folder = TempDir::new().unwrap();
    let check = |text: &str, says: &[&str]| {
        let file = config_file(folder.path(), text);
        let mut command = Command::new(env!("CARGO_BIN_EXE_parlor"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path().join("data"));
        let served = command.arg("--config").arg(&file).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&served.stderr);
        assert!(!served.status.success(), "{text}: {said}");
        for part in says {
            assert!(said.contains(part), "{text}: {said}");
        }
        assert!(!folder.path().join("data").exists(), "nothing was made for a configuration that cannot be used");
    };
    check("[limits]\npayload_bytes = 7\n", &["parlor.toml", "payload_bytes", "payload_bytes_max", "line 2"]);
    check("[limit]\n", &["parlor.toml", "limit", "line 1"]);
    check("[net]\nhello_ms = \"soon\"\n", &["parlor.toml", "hello_ms", "line 2"]);
    check("[rooms]\ndurability = \"eternal\"\n", &["eternal", "synced"]);
    check("arbiters = 0\n", &["arbiters is 0"]);
    check("what is this", &["parlor.toml", "line 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_shuts_down_waits_for_no_stranger() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| {
        config.net.hello_ms = 60_000;
        config.shutdown_patience_ms = 60_000;
    });
    // One says nothing, one says half, one is quiet.
    let _silent = Raw::connect(address).await;
    let mut half = Raw::connect(address).await;
    half.send(&to_bytes(1, &common::hello("half", "x"))[..20]).await;
    let mut quiet = Raw::welcomed(address, "quiet", "x").await;
    quiet.send(&to_bytes(1, &publish(parlor_protocol::RoomNumber(1), 1, b"x"))[..13]).await;
    let reads = tokio::spawn(async move { quiet.end().await.and_then(|got| got.refusal()) });
    soon("the shutdown", engine.shutdown()).await;
    assert_eq!(reads.await.unwrap(), Some(Code::GoingAway));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expired_is_swept_while_the_room_runs_and_told_as_a_gap() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| {
        config.room_defaults.lifetime_ms = 200;
        config.limits.sweep_interval_ms = 20;
    });
    let ann = client(address, "ann").await;
    let (room, mut events) = enter(&ann, "hall", JoinFrom::Tail).await;
    for seq in 1..=3 {
        assert_eq!(say(&room, "soon gone").await, seq);
        assert_eq!(message(&mut events).await.seq, seq);
    }
    // Whoever joins is told where the room begins: behind what the sweep took, in the channel that runs all the time.
    until("the sweep", async || {
        let bob = client(address, "bob").await;
        let (hall, _heard) = enter(&bob, "hall", JoinFrom::Tail).await;
        let swept = hall.joined().first == 4;
        if swept {
            let page = soon("a page", hall.fetch(Some(1), Direction::Forward, 9)).await.unwrap();
            assert!(page.messages.is_empty() && page.next.is_none());
            let [gap] = page.gaps[..] else { panic!("one gap, not {:?}", page.gaps) };
            assert_eq!((gap.from, gap.to, gap.why), (1, 3, GapReason::EXPIRED));
        }
        bob.close().await;
        swept
    })
    .await;
    assert_eq!(say(&room, "goes on").await, 4);
    assert_eq!(engine.sweep_paused(), None);
    ann.close().await;
    engine.shutdown().await;
}
