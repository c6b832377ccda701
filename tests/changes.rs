//! Edits, recalls and reactions over TCP: seen alike by who was there, who comes later, and after the engine was opened anew.
#![cfg(all(feature = "engine", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::{net::SocketAddr, path::Path, time::Duration};

use parlor::{
    client::{
        Client, Config, Direction, Event, Events, JoinFrom, Message, Outgoing, PublishError, RecordKind, Room,
        TombstoneReason,
    },
    config::EngineConfig,
    engine::Engine,
};
use parlor_protocol::{Code, Seq};

fn engine(data: &Path) -> (Engine, SocketAddr) {
    let mut config = EngineConfig::new(data);
    // So that most of the room is cold.
    config.limits.ring_records_max = 4;
    let engine = Engine::start(config).unwrap();
    let address = engine.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    (engine, address)
}

async fn joined(address: SocketAddr, user: &str) -> (Client, Room, Events) {
    let client = Client::connect(Config::new(address.to_string(), user.parse().unwrap())).await.unwrap();
    let (room, events) = client.join("tea", JoinFrom::Seq(1)).await.unwrap();
    (client, room, events)
}

async fn send(room: &Room, outgoing: Outgoing) -> Result<Seq, Code> {
    match room.send(outgoing).await {
        Ok(acked) => Ok(acked.seq),
        Err(PublishError::Refused { code, .. }) => Err(code),
        Err(error) => panic!("{error}"),
    }
}

/// What a client holds that has applied everything up to `upto`.
async fn held(events: &mut Events, upto: Seq) -> Vec<Message> {
    let mut held: Vec<Message> = Vec::new();
    loop {
        let event = tokio::time::timeout(Duration::from_secs(30), events.next()).await.expect("an event");
        let Some(Event::Message(message)) = event else { panic!("{event:?}") };
        let seq = message.seq;
        for held in &mut held {
            held.apply(&message);
        }
        held.push(message);
        if seq == upto {
            return held;
        }
    }
}

/// The messages as people see them.
fn seen(messages: &[Message]) -> Vec<String> {
    let messages = messages.iter().filter(|message| message.kind == RecordKind::MESSAGE);
    messages
        .map(|message| {
            let mut line = format!("{}: {}", message.sender, String::from_utf8_lossy(&message.payload));
            if message.changes.edited > 0 {
                line += " (edited)";
            }
            if message.changes.tombstone == Some(TombstoneReason::RECALLED) {
                line += "(recalled)";
            }
            for (reaction, count) in &message.changes.reactions {
                line += &format!(" {reaction}{count}");
            }
            line
        })
        .collect()
}

#[test]
fn changes_are_seen_alike_live_in_pages_and_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (engine, address) = self::engine(data.path());
    let want = ["ann: one 👍2", "bob: two, again (edited)", "ann: (recalled)", "bob: four x1"];
    let upto = runtime.block_on(async {
        let (_ann, at_ann, mut events) = joined(address, "ann").await;
        let (_bob, at_bob, mut bobs) = joined(address, "bob").await;
        for (room, text) in [(&at_ann, "one"), (&at_bob, "two"), (&at_ann, "three"), (&at_bob, "four")] {
            send(room, Outgoing::text(text)).await.unwrap();
        }
        send(&at_ann, Outgoing::react(1, "👍")).await.unwrap();
        send(&at_bob, Outgoing::react(1, "👍")).await.unwrap();
        assert_eq!(send(&at_bob, Outgoing::react(1, "👍")).await, Err(Code::NoEffect));
        send(&at_bob, Outgoing::edit(2, "two, once")).await.unwrap();
        send(&at_bob, Outgoing::edit(2, "two, again")).await.unwrap();
        assert_eq!(send(&at_ann, Outgoing::edit(2, "mine")).await, Err(Code::Forbidden));
        send(&at_ann, Outgoing::recall(3)).await.unwrap();
        assert_eq!(send(&at_ann, Outgoing::edit(3, "back")).await, Err(Code::NotChangeable));
        assert_eq!(send(&at_ann, Outgoing::recall(99)).await, Err(Code::TargetGone));
        send(&at_ann, Outgoing::react(4, "x")).await.unwrap();
        send(&at_ann, Outgoing::react(4, "y")).await.unwrap();
        let upto = send(&at_ann, Outgoing::unreact(4, "y")).await.unwrap();
        for events in [&mut events, &mut bobs] {
            assert_eq!(seen(&held(events, upto).await), want);
        }
        let (_cem, at_cem, mut later) = joined(address, "cem").await;
        assert_eq!(at_cem.joined().count, 4, "changes do not count");
        assert_eq!(seen(&held(&mut later, upto).await), want);
        upto
    });
    runtime.block_on(engine.shutdown());

    let (engine, address) = self::engine(data.path());
    runtime.block_on(async {
        let (_ann, at_ann, mut events) = joined(address, "ann").await;
        // Of a page alone, without applying anything.
        let page = at_ann.fetch(Some(1), Direction::Forward, 200).await.unwrap();
        assert_eq!(seen(&page.messages), want);
        let replaced = page.messages.iter().find(|message| message.seq == 7).unwrap();
        assert_eq!(replaced.changes.tombstone, Some(TombstoneReason::REPLACED));
        assert!(replaced.payload.is_empty(), "what an edit replaced is nowhere");
        // Who has reacted is known as well.
        assert_eq!(send(&at_ann, Outgoing::react(1, "👍")).await, Err(Code::NoEffect));
        let next = send(&at_ann, Outgoing::unreact(1, "👍")).await.unwrap();
        assert_eq!(next, upto + 1);
        assert_eq!(seen(&held(&mut events, next).await)[0], "ann: one 👍1");
    });
    runtime.block_on(engine.shutdown());
}

#[test]
fn the_host_erases_a_message_from_the_room_and_from_the_disk() {
    let data = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (engine, address) = self::engine(data.path());
    runtime.block_on(async {
        let (_ann, at_ann, mut events) = joined(address, "ann").await;
        for text in ["one", "vB3kPq81Zs", "three"] {
            send(&at_ann, Outgoing::text(text)).await.unwrap();
        }
        send(&at_ann, Outgoing::edit(2, "vB3kPq81Zs and more")).await.unwrap();
        for _ in 0..9 {
            send(&at_ann, Outgoing::text("so that it is cold")).await.unwrap();
        }
        let missing = engine.erase_message("tea", 99).await.unwrap_err();
        assert!(missing.to_string().contains("TargetGone"), "{missing}");
        assert!(engine.erase_message("nowhere", 1).await.is_err());
        engine.erase_message("tea", 2).await.unwrap();
        engine.erase_message("tea", 2).await.unwrap();
        let held = held(&mut events, 14).await;
        assert!(held[1].payload.is_empty() && held[1].changes.tombstone.is_some(), "those who are there are told");
        let page = at_ann.fetch(Some(1), Direction::Forward, 200).await.unwrap();
        let why = |seq: usize| page.messages[seq - 1].changes.tombstone;
        assert_eq!((why(2), why(4)), (Some(TombstoneReason::ERASED), Some(TombstoneReason::REPLACED)));
        assert_eq!((page.messages.len(), page.messages[1].seq, &*page.messages[1].sender), (14, 2, "ann"));
        assert_eq!(at_ann.joined().count, 0, "as it was when joined");
    });
    let mut files = vec![data.path().to_path_buf()];
    let mut looked = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        looked += 1;
        let bytes = std::fs::read(&path).unwrap_or_default();
        assert!(!bytes.windows(10).any(|window| window == b"vB3kPq81Zs"), "{} still holds it", path.display());
    }
    assert!(looked > 3, "the files are where they were");
    runtime.block_on(engine.shutdown());
}
