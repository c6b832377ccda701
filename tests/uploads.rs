//! Long texts and send rates over real sockets: as bytes, and by the client.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod common;

use std::time::{Duration, Instant};

use common::{Raw, client, config, engine, ext, publish, soon, until};
use parlor::{
    client::{Client, Event, JoinFrom, Outgoing, PublishError},
    tiers::{SendRate, Tiers},
};
use parlor_protocol::{
    Code, Kind, RoomNumber,
    message::{self, ContentType, RecordKind},
    to_bytes,
};
use tempfile::TempDir;

const PART_BYTES: usize = 1_440;

/// The parts of a message.
fn parts(room: RoomNumber, nonce: u64, payload: &[u8]) -> Vec<message::Part<'_>> {
    let chunks: Vec<_> = payload.chunks(PART_BYTES).collect();
    let part = |(number, piece)| message::Part {
        room,
        nonce,
        number,
        parts: u32::try_from(chunks.len()).unwrap(),
        total_bytes: u32::try_from(payload.len()).unwrap(),
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        lifetime_ms: None,
        flags: 0,
        content_type: ContentType::TEXT,
        payload: piece,
        extensions: ext(),
    };
    (0..).zip(chunks.iter().copied()).map(part).collect()
}

fn text(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| b'a' + u8::try_from(at / 7 % 26).unwrap()).collect()
}

/// Sends parts and returns the answer to the last.
async fn upload(raw: &mut Raw, parts: &[message::Part<'_>]) -> common::Got {
    let (last, others) = parts.split_last().unwrap();
    for part in others {
        let taken = raw.ask(9, part).await;
        assert!(!taken.read::<message::PartTaken<'_>>().missing.0.contains(&part.number));
    }
    raw.ask(9, last).await
}

async fn delivered(raw: &mut Raw) -> (u64, Vec<u8>) {
    loop {
        let got = raw.next().await.unwrap();
        if got.kind() == Kind::Deliver {
            let record = got.read::<message::Deliver<'_>>();
            return (record.seq, record.payload.to_vec());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_text_is_one_record_whatever_the_order_of_its_parts() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |_| {});
    let mut ear = Raw::welcomed(address, "bo", "ear").await;
    ear.join("tea", JoinFrom::Tail).await;
    let mut raw = Raw::welcomed(address, "ann", "phone").await;
    let room = raw.join("tea", JoinFrom::Tail).await;
    let payload = text(64 << 10);

    let mut backward = parts(room, 5, &payload);
    backward.reverse();
    // Some come twice.
    let twice: Vec<_> = backward.iter().flat_map(|part| [part.clone(), part.clone()]).skip(1).collect();
    let ack = upload(&mut raw, &twice[..twice.len() - 1]).await;
    let ack = ack.read::<message::Ack<'_>>();
    assert_eq!((ack.nonce, ack.seq, ack.duplicate), (5, 1, false));
    assert_eq!(delivered(&mut ear).await, (1, payload.clone()));

    // A repeat is found by the whole, and other content is a conflict.
    let again = upload(&mut raw, &parts(room, 5, &payload)).await;
    assert_eq!((again.read::<message::Ack<'_>>().seq, again.read::<message::Ack<'_>>().duplicate), (1, true));
    let mut other = payload.clone();
    other[40_000] ^= 1;
    assert_eq!(upload(&mut raw, &parts(room, 5, &other)).await.refusal(), Some(Code::NonceConflict));
    // How it went up is not part of it.
    let short = raw.ask(9, &publish(room, 6, b"short")).await;
    let in_parts = upload(&mut raw, &parts(room, 6, b"short")).await;
    assert_eq!(short.read::<message::Ack<'_>>().seq, in_parts.read::<message::Ack<'_>>().seq);
    assert!(in_parts.read::<message::Ack<'_>>().duplicate);
    // It is in the history, too: at least one record to a page, however long.
    for nonce in 7..12 {
        assert_eq!(upload(&mut raw, &parts(room, nonce, &payload)).await.kind(), Kind::Ack);
    }
    let start = Some(3);
    let fetch = message::Fetch { room, start, direction: message::Direction::Forward, limit: 0, extensions: ext() };
    let page = raw.ask(9, &fetch).await;
    let page = page.read::<message::Page<'_>>();
    assert!(page.records.len() > 3 * (64 << 10) && page.records.len() <= 256 << 10, "{}", page.records.len());
    assert_eq!(page.next, Some(6));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_parts_costs_an_answer() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |_| {});
    let mut raw = Raw::welcomed(address, "ann", "phone").await;
    let room = raw.join("tea", JoinFrom::Tail).await;
    let payload = text(4_000);
    let good = parts(room, 5, &payload);
    let long = text(PART_BYTES + 1);
    for (part, code) in [
        (message::Part { room: RoomNumber(999), ..good[0].clone() }, Code::NotJoined),
        (message::Part { total_bytes: (64 << 10) + 1, ..good[0].clone() }, Code::TooLarge),
        (message::Part { payload: &long, ..good[0].clone() }, Code::TooLarge),
        (message::Part { number: 3, ..good[0].clone() }, Code::InvalidPart),
        (message::Part { number: u32::MAX, ..good[0].clone() }, Code::InvalidPart),
        (message::Part { parts: 0, ..good[0].clone() }, Code::InvalidPart),
        (message::Part { parts: 1_025, ..good[0].clone() }, Code::InvalidPart),
        (message::Part { payload: b"", ..good[0].clone() }, Code::InvalidPart),
        (message::Part { kind: RecordKind(9), ..good[0].clone() }, Code::Unsupported),
        (message::Part { flags: 1 << 31, ..good[0].clone() }, Code::Unsupported),
    ] {
        assert_eq!(raw.ask(9, &part).await.refusal(), Some(code), "{part:?}");
    }
    assert_eq!(raw.ask(9, &good[0]).await.kind(), Kind::PartTaken);
    let other = message::Part { total_bytes: 3_999, ..good[1].clone() };
    assert_eq!(raw.ask(9, &other).await.refusal(), Some(Code::InvalidPart));
    // Another message drops what was there.
    assert_eq!(raw.ask(9, &message::Part { nonce: 4, ..good[1].clone() }).await.kind(), Kind::PartTaken);
    let taken = raw.ask(9, &good[2]).await;
    assert_eq!(taken.read::<message::PartTaken<'_>>().missing.0, [0, 1]);
    assert_eq!(upload(&mut raw, &good[..2]).await.kind(), Kind::Ack);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_beginnings_of_many_sessions_are_bounded() {
    const UPLOADS_BYTES_MAX: usize = 1 << 18;
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| {
        config.limits.uploads_bytes_max = UPLOADS_BYTES_MAX;
        config.limits.upload_ms = 600_000; // Nothing is forgotten meanwhile, however busy the machine is.
    });
    let payload = text(60_000);
    let (mut sessions, mut taken, mut busy) = (Vec::new(), 0, 0);
    for number in 0..12 {
        let mut raw = Raw::welcomed(address, &format!("user{number}"), "x").await;
        let room = raw.join("tea", JoinFrom::Tail).await;
        // All but the last part.
        for part in &parts(room, 1, &payload)[..41] {
            match raw.ask(9, part).await.refusal() {
                None => taken += 1,
                Some(code) => {
                    assert_eq!(code, Code::Busy);
                    busy += 1;
                }
            }
        }
        sessions.push(raw);
    }
    assert_eq!(taken + busy, 12 * 41);
    // A part costs a little more than its bytes.
    let fits = (taken * PART_BYTES..(taken + 10) * PART_BYTES).contains(&UPLOADS_BYTES_MAX);
    assert!(fits, "room for four, not for twelve: {taken} parts were taken");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_upload_makes_room_for_another() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| {
        config.limits.uploads_bytes_max = 1 << 18; // Room for four, not for five.
        config.limits.upload_ms = 500;
    });
    let payload = text(60_000);
    let mut gone = Vec::new();
    for number in 0..4 {
        let mut raw = Raw::welcomed(address, &format!("user{number}"), "x").await;
        let room = raw.join("tea", JoinFrom::Tail).await;
        // If the machine pauses for too long between two parts, those before are forgotten.
        until("all but one part are there", async || {
            let mut missing = Vec::new();
            for part in &parts(room, 1, &payload)[..41] {
                missing = raw.ask(9, part).await.read::<message::PartTaken<'_>>().missing.0;
            }
            missing == [41]
        })
        .await;
        gone.push(raw);
    }
    let mut late = Raw::welcomed(address, "late", "x").await;
    let room = late.join("tea", JoinFrom::Tail).await;
    // It may be any of the parts that completes it: those that were taken before are still there.
    until("nothing came of them for a while, and there is room again", async || {
        for part in &parts(room, 1, &payload) {
            match late.ask(9, part).await.kind() {
                Kind::Ack => return true,
                kind => assert!(matches!(kind, Kind::PartTaken | Kind::Error), "{kind:?}"),
            }
        }
        false
    })
    .await;
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_sends_long_texts_in_their_place_and_says_what_is_too_long() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |_| {});
    let ann = client(address, "ann").await;
    let (room, mut events) = ann.join("tea", JoinFrom::Tail).await.unwrap();
    let texts: Vec<String> = [5, 64 << 10, 7, 1_441, 1_440, 30_000, 1]
        .into_iter()
        .map(|bytes| String::from_utf8(text(bytes)).unwrap())
        .collect();
    let sending: Vec<_> = texts.iter().map(|text| room.send(Outgoing::text(text.clone()))).collect();
    for (seq, sending) in (1..).zip(sending) {
        assert_eq!(soon("an ack", sending).await.unwrap().seq, seq);
    }
    for text in &texts {
        match soon("a message", events.next()).await {
            Some(Event::Message(message)) => assert!(message.own && message.text() == Some(text)),
            other => panic!("{other:?}"),
        }
    }
    let error = room.publish(&"x".repeat((64 << 10) + 1)).await.unwrap_err();
    assert!(
        matches!(&error, PublishError::Refused { code: Code::TooLarge, message } if message.contains("65536")),
        "{error}"
    );
    assert_eq!(ann.stats().resends, 0);
    ann.close().await;
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_rate_is_told_when_to_come_again_and_the_client_does() {
    let data = TempDir::new().unwrap();
    let rate = SendRate { interval_ms: 100, burst: 3 };
    let (engine, address) = engine(data.path(), |config| config.tiers = Tiers::sending(rate));
    let mut raw = Raw::welcomed(address, "raw", "phone").await;
    let room = raw.join("tea", JoinFrom::Tail).await;
    let burst: Vec<u8> = (1..=5).flat_map(|n| to_bytes(10 + n, &publish(room, n.into(), b"x"))).collect();
    raw.send(&burst).await;
    assert_eq!(raw.answer(14).await.refusal(), Some(Code::RateLimited));
    assert_eq!(raw.answer(15).await.refusal(), Some(Code::HeldBack));
    // Repeats cost nothing.
    for _ in 0..20 {
        assert!(raw.ask(20, &publish(room, 2, b"x")).await.read::<message::Ack<'_>>().duplicate);
    }
    // A long one is one message, and two clients of a user share his rate.
    let mut config = config(address, "ann");
    config.device = "other".parse().unwrap();
    let (one, two) = (client(address, "ann").await, Client::connect(config).await.unwrap());
    let ((one_room, _a), (two_room, _b)) =
        (one.join("tea", JoinFrom::Tail).await.unwrap(), two.join("tea", JoinFrom::Tail).await.unwrap());
    let began = Instant::now();
    let long = String::from_utf8(text(20_000)).unwrap();
    let sending: Vec<_> = (0..6)
        .flat_map(|n| [&one_room, &two_room].map(|room| room.send(Outgoing::text(if n == 1 { &long } else { "x" }))))
        .collect();
    for sending in sending {
        assert!(!soon("an ack", sending).await.unwrap().duplicate);
    }
    assert!(began.elapsed() >= Duration::from_millis(900), "12 messages, 3 at once: {:?}", began.elapsed());
    assert!(one.stats().rate_limited + two.stats().rate_limited > 0);
    engine.shutdown().await;
}
