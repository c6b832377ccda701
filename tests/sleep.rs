//! Rooms that sleep under load, with a store on disk and clients over TCP.
#![cfg(all(feature = "engine", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic, its helpers too")]

mod common;

use std::time::Duration;

use common::{client, engine, soon, until};
use parlor::client::{Event, Events, JoinFrom, Room};
use tempfile::TempDir;

const ROOMS: usize = 3;
const MESSAGES: usize = 40;

/// Says so much, with pauses after which the room may sleep; the seqs of its acks.
async fn talk(room: Room, who: usize) -> (Vec<u64>, Room) {
    let mut seqs = Vec::new();
    for at in 0..MESSAGES {
        seqs.push(room.publish(&format!("{who}: {at}")).await.unwrap().seq);
        // All pause at about the same time.
        let pause_ms = if at % 4 == 3 { 60 } else { (who * 7 + at * 5) as u64 % 12 };
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
    (seqs, room)
}

/// Everything in the room, once and in order.
async fn listen(mut events: Events, many: usize) -> (Vec<(u64, String)>, Events) {
    let mut heard = Vec::new();
    while heard.len() < many {
        match events.next().await.unwrap() {
            Event::Message(message) => {
                assert_eq!(message.seq, heard.len() as u64 + 1, "a hole or a repeat");
                heard.push((message.seq, message.text().unwrap().to_owned()));
            }
            other => panic!("{other:?}"),
        }
    }
    (heard, events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_that_sleep_again_and_again_lose_and_double_nothing() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| {
        (config.arbiters, config.limits.room_idle_ms) = (2, 10);
    });
    let (mut talks, mut listeners, mut clients) = (Vec::new(), Vec::new(), Vec::new());
    for who in 0..2 * ROOMS {
        let client = client(address, &format!("user{who}")).await;
        let (room, events) = client.join(&format!("room{}", who % ROOMS), JoinFrom::Seq(1)).await.unwrap();
        talks.push(tokio::spawn(talk(room, who)));
        listeners.push(tokio::spawn(listen(events, 2 * MESSAGES)));
        clients.push(client);
    }
    // Whoever drops what he has of a room leaves it.
    let (mut acked, mut heard, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for (talk, listener) in talks.into_iter().zip(listeners) {
        let (seqs, room) = soon("all is acked", talk).await.unwrap();
        let (all, events) = soon("all is heard", listener).await.unwrap();
        acked.push(seqs);
        heard.push(all);
        kept.push((room, events));
    }
    for room in 0..ROOMS {
        assert_eq!(heard[room], heard[room + ROOMS], "both heard the same");
        for who in [room, room + ROOMS] {
            let own: Vec<u64> = (0..MESSAGES)
                .map(|at| {
                    let text = format!("{who}: {at}");
                    let mut said = heard[room].iter().filter(|(_, heard)| *heard == text);
                    let (Some((seq, _)), None) = (said.next(), said.next()) else { panic!("{text} is not there once") };
                    *seq
                })
                .collect();
            assert_eq!(own, acked[who], "what was acked is what was stored");
        }
    }
    let census = engine.census().await;
    assert!(census.sleeps >= ROOMS as u64 && census.wakes >= ROOMS as u64, "{census:?}");
    assert_eq!(census.deaths, 0);
    until("all rooms sleep", async || engine.census().await.asleep == ROOMS).await;
    // A host that asks wakes the room.
    assert_eq!(engine.unread("user0", "room0").await.unwrap().read, 0);
    until("the room sleeps", async || engine.census().await.loaded == 0).await;
    drop(kept);
    for client in clients {
        client.close().await;
    }
    until("they are forgotten", async || engine.census().await.asleep == 0).await;
    engine.shutdown().await;
}
