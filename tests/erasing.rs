//! Erasing all that one user said, over TCP: gone from the rooms, from those who are there, and from the disk.
#![cfg(all(feature = "engine", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod common;
#[path = "erasing/large.rs"]
mod large;

use std::path::Path;

use common::{engine, soon};
use parlor::{
    client::{
        Client, Config, Direction, Durability, Event, JoinFrom, Message, Outgoing, RecordKind, Room, TombstoneReason,
    },
    config::EngineConfig,
    engine::RoomOptions,
};
use parlor_protocol::Seq;

/// What nobody may find afterwards.
const SECRET: &str = "kW93hTzL0q";

async fn joined(address: std::net::SocketAddr, user: &str, room: &str) -> (Client, Room, parlor::client::Events) {
    let client = Client::connect(Config::new(address.to_string(), user.parse().unwrap())).await.unwrap();
    let (room, events) = client.join(room, JoinFrom::Seq(1)).await.unwrap();
    (client, room, events)
}

async fn send(room: &Room, outgoing: Outgoing) -> Seq {
    soon("an ack", room.send(outgoing)).await.unwrap().seq
}

async fn page(room: &Room) -> Vec<Message> {
    soon("a page", room.fetch(Some(1), Direction::Forward, 200)).await.unwrap().messages
}

/// The files of a store that hold these bytes.
fn files_with(data: &Path, needle: &[u8]) -> Vec<std::path::PathBuf> {
    let (mut paths, mut found) = (vec![data.to_path_buf()], Vec::new());
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if std::fs::read(&path).unwrap_or_default().windows(needle.len()).any(|window| window == needle) {
            found.push(path);
        }
    }
    found
}

/// How long it takes on a large store: `PARLOR_ERASE_RECORDS` says how large.
#[test]
#[ignore = "for scripts/long.sh: fills a store with a million records"]
fn erasing_takes_the_time_that_is_stated() {
    let records: u64 = std::env::var("PARLOR_ERASE_RECORDS").map_or(1_000_000, |text| text.parse().unwrap());
    let data = tempfile::tempdir_in(std::env::var("PARLOR_ERASE_DIR").unwrap_or_else(|_| ".".into())).unwrap();
    large::fill(data.path(), records, SECRET);
    let bytes: u64 = std::fs::read_dir(data.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (engine, _) = engine(data.path(), |_| {});
    let engine = std::sync::Arc::new(engine);
    let clock = std::time::Instant::now();
    runtime.block_on(engine.erase_message("room 7", 10)).unwrap();
    let one = clock.elapsed();
    // Many at a time share their rounds.
    let clock = std::time::Instant::now();
    runtime.block_on(async {
        let erase = |seq| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.erase_message("room 7", seq).await.unwrap() })
        };
        for erased in (20..36).map(erase).collect::<Vec<_>>() {
            erased.await.unwrap();
        }
    });
    let sixteen = clock.elapsed();
    let report = runtime.block_on(engine.erase_user("ann")).unwrap();
    println!("{records} records in {} MiB: one message {one:?}, 16 at once {sixteen:?}, {report:?}", bytes >> 20);
    assert!(report.records > 0);
    assert_eq!(files_with(data.path(), SECRET.as_bytes()), Vec::<std::path::PathBuf>::new());
    assert!(one.as_secs() < 300 && sixteen.as_secs() < 600, "the stated time: one round, or two");
    runtime.block_on(engine.shutdown());
}

fn cold(config: &mut EngineConfig) {
    // So that most of what is erased has to be read first.
    config.limits.ring_records_max = 4;
}

#[test]
fn all_that_a_user_said_is_gone_and_nothing_of_the_others() {
    let data = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (engine, address) = engine(data.path(), cold);
    runtime.block_on(async {
        let memory = RoomOptions { durability: Durability::Memory, ..RoomOptions::default() };
        engine.create_room("flash", memory).await.unwrap();
        let keeps_few = RoomOptions { records_max: 3, ..RoomOptions::default() };
        engine.create_room("few", keeps_few).await.unwrap();
        let (ann, tea, _) = joined(address, "ann", "tea").await;
        let (_bob, at_bob, mut bobs) = joined(address, "bob", "tea").await;
        let (flash, _flash) = ann.join("flash", JoinFrom::Seq(1)).await.unwrap();
        let (few, _few) = ann.join("few", JoinFrom::Seq(1)).await.unwrap();
        send(&at_bob, Outgoing::text("hello")).await; // 1
        send(&tea, Outgoing::text(SECRET)).await; // 2
        send(&tea, Outgoing::react(1, SECRET)).await; // 3
        send(&at_bob, Outgoing::react(1, "x")).await; // 4
        send(&at_bob, Outgoing::react(2, "x")).await; // 5
        send(&tea, Outgoing::edit(2, format!("{SECRET} again"))).await; // 6
        for _ in 0..9 {
            send(&at_bob, Outgoing::text("so that it is cold")).await; // 7 to 15
        }
        for room in [&flash, &few] {
            send(room, Outgoing::text(format!("{SECRET} elsewhere"))).await;
        }
        // What is edited is pushed out, and the edit is not.
        send(&few, Outgoing::edit(1, format!("{SECRET} edited"))).await;
        send(&few, Outgoing::text(format!("{SECRET} third"))).await;
        send(&few, Outgoing::text(format!("{SECRET} fourth"))).await;
        assert!(!page(&few).await.iter().any(|message| message.kind == RecordKind::EDIT), "it outlives its message");
        assert!(!files_with(data.path(), SECRET.as_bytes()).is_empty(), "the test looks where it lies");

        let report = engine.erase_user("ann").await.unwrap();
        assert_eq!((report.rooms, report.in_memory), (2, 1), "{report:?}");
        // Message and reaction in one room, two messages that are left in another, one in memory.
        assert_eq!(report.records, 5, "{report:?}");
        assert_eq!(files_with(data.path(), SECRET.as_bytes()), Vec::<std::path::PathBuf>::new());

        let messages = page(&at_bob).await;
        let why = |seq: usize| messages[seq - 1].changes.tombstone;
        assert_eq!(
            (why(2), why(3), why(6)),
            (Some(TombstoneReason::ERASED), Some(TombstoneReason::ERASED), Some(TombstoneReason::REPLACED))
        );
        assert_eq!(messages[0].changes.reactions, [("x".to_owned(), 1)], "bob's reaction stays, ann's is gone");
        assert_eq!(&*messages[0].payload, b"hello");
        assert_eq!(messages.iter().map(|message| message.seq).collect::<Vec<_>>(), (1..=17).collect::<Vec<_>>());
        assert!(page(&flash).await.iter().all(|message| message.payload.is_empty()));
        // Who is there was told.
        let mut recalled = Vec::new();
        while recalled.len() < 2 {
            if let Some(Event::Message(message)) = soon("an event", bobs.next()).await
                && message.kind == RecordKind::RECALL
            {
                recalled.push(message.refers_to);
            }
        }
        recalled.sort_unstable();
        assert_eq!(recalled, [2, 3]);

        // Again, there is nothing left to do; what she says later stays.
        send(&tea, Outgoing::text("later")).await;
        let again = engine.erase_user("bob the other").await.unwrap();
        assert_eq!((again.rooms, again.records), (0, 0));
        assert_eq!(page(&at_bob).await.last().map(|message| message.payload.to_vec()), Some(b"later".to_vec()));
    });
    runtime.block_on(engine.shutdown());
}

#[test]
fn what_had_gone_before_is_erased_as_well() {
    let data = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.limits.sweep_interval_ms = 50);
    runtime.block_on(async {
        let few = RoomOptions { records_max: 2, ..RoomOptions::default() };
        let short = RoomOptions { lifetime_ms: 1_000, ..RoomOptions::default() };
        let secrets = ["trimmed kW93hTzL0q", "expired 7fPqX2mVbd", "deleted Zt5wGk81Rn"];
        for ((room, options), secret) in
            [("few", few), ("short", short), ("gone", RoomOptions::default())].into_iter().zip(secrets)
        {
            engine.create_room(room, options).await.unwrap();
            let (_ann, at_ann, _) = joined(address, "ann", room).await;
            send(&at_ann, Outgoing::text(secret)).await;
        }
        // Everything is in tables from now on, unless the machine is so busy that one has expired and gone before.
        let (_ann, at_ann, _) = joined(address, "ann", "short").await;
        common::until("the test looks where it lies", async || {
            send(&at_ann, Outgoing::text(secrets[1])).await;
            engine.erase_user("nobody").await.unwrap();
            secrets.iter().all(|secret| !files_with(data.path(), secret.as_bytes()).is_empty())
        })
        .await;
        let (_bob, at_bob, _) = joined(address, "bob", "few").await;
        for _ in 0..9 {
            send(&at_bob, Outgoing::text("so that hers is pushed out")).await;
        }
        let (_bob, at_bob, _) = joined(address, "bob", "short").await;
        common::until("hers has expired", async || page(&at_bob).await.is_empty()).await;
        engine.delete_room("gone").await.unwrap();
        engine.erase_user("ann").await.unwrap();
        for secret in secrets {
            assert_eq!(files_with(data.path(), secret.as_bytes()), Vec::<std::path::PathBuf>::new(), "{secret}");
        }
    });
    runtime.block_on(engine.shutdown());
}
