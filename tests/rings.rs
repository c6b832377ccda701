//! Many rooms with long messages on little memory for their rings, with a store on disk and clients over TCP.
#![cfg(all(feature = "engine", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic, its helpers too")]

mod common;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use common::{client, engine, soon};
use parlor::client::{Event, Events, JoinFrom, Room};
use tempfile::TempDir;

const ROOMS: usize = 24;
const MESSAGES: usize = 8;
const RINGS_BYTES_MAX: usize = 1 << 20;

/// A long message of a room.
fn said(room: usize, at: usize) -> String {
    format!("{room}: {at} {}", "x".repeat(60_000))
}

async fn talk(room: Room, at: usize) -> Room {
    for message in 0..MESSAGES {
        room.publish(&said(at, message)).await.unwrap();
    }
    room
}

/// Everything in the room, once and in order.
async fn listen(mut events: Events, room: usize) -> Events {
    for at in 0..MESSAGES {
        match events.next().await.unwrap() {
            Event::Message(message) => {
                assert_eq!(message.seq, at as u64 + 1, "a hole or a repeat");
                assert_eq!(message.text().unwrap(), said(room, at));
            }
            other => panic!("{other:?}"),
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rooms_with_long_messages_stay_within_their_memory_and_everybody_gets_all() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| {
        (config.arbiters, config.limits.rings_bytes_max) = (2, RINGS_BYTES_MAX);
    });
    let engine = Arc::new(engine);
    let (looked, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let looks = {
        let (engine, looked, most) = (engine.clone(), looked.clone(), most.clone());
        tokio::spawn(async move {
            loop {
                most.fetch_max(engine.ring_bytes(), Relaxed);
                looked.fetch_add(1, Relaxed);
                tokio::time::sleep(std::time::Duration::from_micros(200)).await;
            }
        })
    };
    let (ann, bob) = (client(address, "ann").await, client(address, "bob").await);
    let (mut talks, mut listeners) = (Vec::new(), Vec::new());
    for at in 0..ROOMS {
        let name = format!("room{at}");
        let (room, own) = ann.join(&name, JoinFrom::Seq(1)).await.unwrap();
        let (other, events) = bob.join(&name, JoinFrom::Seq(1)).await.unwrap();
        talks.push(tokio::spawn(talk(room, at)));
        listeners.push(tokio::spawn(async move { (listen(own, at).await, listen(events, at).await, other) }));
    }
    let mut kept = BTreeMap::new();
    for (at, (talk, listener)) in talks.into_iter().zip(listeners).enumerate() {
        kept.insert(at, (soon("all is acked", talk).await.unwrap(), soon("all is heard", listener).await.unwrap()));
    }
    // Whoever comes now reads what no ring has any more.
    let cem = client(address, "cem").await;
    for at in 0..ROOMS {
        let (room, events) = cem.join(&format!("room{at}"), JoinFrom::Seq(1)).await.unwrap();
        let events = soon("the past is heard", listen(events, at)).await;
        drop((room, events));
    }
    looks.abort();
    // A ring says what it has before it looks how much that may be: on each arbiter one may have a message more.
    let (most, message) = (most.load(Relaxed), said(0, 0).len() + 1_000);
    assert!(looked.load(Relaxed) > 10 && most > 0);
    assert!(most <= RINGS_BYTES_MAX + 2 * message, "{most} bytes at most");
    assert!(engine.ring_bytes() <= RINGS_BYTES_MAX, "{} bytes at rest", engine.ring_bytes());
    drop(kept);
    engine.shutdown().await;
}
