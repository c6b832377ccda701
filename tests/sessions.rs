//! Sessions over real sockets: taken up over another connection, following their user, put out by the host.
#![cfg(all(feature = "engine", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod common;

use std::collections::BTreeSet;

use common::{Got, Raw, engine, ext, hello, publish, soon, until};
use parlor::{
    client::{ContentType, JoinFrom, RecordKind},
    config::SessionPolicy,
    engine::{RoomOptions, SessionsOf},
};
use parlor_protocol::{
    Code, Kind, List, RoomNumber, Token,
    message::{
        Access, Ack, Attached, Close, CreateRoom, Deliver, Detached, Follow, Hello, Joined, OpenDirect, Part, Position,
        RemoveMembers, Resume, Role, RoomInfo, SetMembers, Welcome,
    },
};
use tempfile::TempDir;

/// Says hello and returns what is answered.
async fn greet(raw: &mut Raw, hello: Hello<'_>) -> Got {
    raw.ask(1, &hello).await
}

fn welcome(got: &Got) -> (Token, bool) {
    let welcome: Welcome<'_> = got.read();
    (welcome.token, welcome.resumed)
}

fn follow(newest: u32) -> Follow<'static> {
    Follow { positions: List::default(), newest, extensions: ext() }
}

/// Asks to follow, and returns the names of the rooms that are attached.
async fn followed(raw: &mut Raw, newest: u32) -> BTreeSet<String> {
    raw.send(&parlor_protocol::to_bytes(7, &follow(newest))).await;
    let mut names = BTreeSet::new();
    loop {
        let got = raw.next().await.expect("an answer");
        match got.kind() {
            Kind::Attached => assert!(names.insert(got.read::<Attached<'_>>().name.to_owned())),
            Kind::Done => return names,
            Kind::Deliver => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_outlives_its_socket() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.arbiters = 2);
    let mut ann = Raw::connect(address).await;
    let (token, resumed) = welcome(&greet(&mut ann, hello("ann", "phone")).await);
    assert!(!resumed);
    let mut bob = Raw::welcomed(address, "bob", "phone").await;
    let mut rooms = Vec::new();
    for name in ["one", "two", "three"] {
        let joined = ann.ask(2, &common::join(name, JoinFrom::Tail)).await;
        let joined: Joined<'_> = joined.read();
        rooms.push((joined.room, joined.epoch));
        bob.join(name, JoinFrom::Tail).await;
    }
    let since = engine.sessions("ann")[0].since;
    // Half a long message is there when the socket breaks.
    let part = |number: u32, payload| Part {
        room: rooms[0].0,
        nonce: 9,
        number,
        parts: 2,
        total_bytes: 10,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        lifetime_ms: None,
        flags: 0,
        content_type: ContentType::TEXT,
        payload,
        extensions: ext(),
    };
    assert_eq!(ann.ask(3, &part(0, b"hello")).await.kind(), Kind::PartTaken);
    drop(ann);
    until("her socket is gone", async || !engine.sessions("ann")[0].connected).await;
    for (nonce, (room, _)) in (1..).zip(&rooms) {
        assert_eq!(bob.ask(4, &publish(*room, nonce, b"while she is away")).await.kind(), Kind::Ack);
    }
    let mut ann = Raw::connect(address).await;
    let again = Hello { resume: Some(token), attempt: 2, ..hello("ann", "phone") };
    assert_eq!(welcome(&greet(&mut ann, again).await), (token, true));
    // Two of the three, and one that she was not in.
    let unknown = (RoomNumber(99), rooms[0].1);
    let position = |(room, epoch)| Position { room, epoch, seq: 0 };
    let positions = [rooms[0], unknown, rooms[2]].map(position);
    ann.send(&parlor_protocol::to_bytes(2, &Resume { positions: List(positions.to_vec()), extensions: ext() })).await;
    let (mut joined, mut delivered) = (BTreeSet::new(), BTreeSet::new());
    while joined.len() < 2 || delivered.len() < 2 {
        let got = ann.next().await.unwrap();
        match got.kind() {
            Kind::Joined => assert!(joined.insert(got.read::<Joined<'_>>().room.0)),
            Kind::Deliver => {
                let deliver: Deliver<'_> = got.read();
                assert!(joined.contains(&deliver.room.0) && delivered.insert(deliver.room.0), "once, behind Joined");
            }
            Kind::Detached => assert_eq!(got.read::<Detached<'_>>().code, Code::NotJoined),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(joined, [rooms[0].0.0, rooms[2].0.0].into());
    assert_eq!(engine.sessions("ann")[0].since, since, "others saw her all the time");
    let whole = ann.ask(5, &part(1, b"world")).await;
    assert_eq!(whole.read::<Ack<'_>>().nonce, 9, "the part that came over the older socket is still there");
    let left = ann.ask(6, &publish(rooms[1].0, 1, b"not here")).await;
    assert_eq!(left.refusal(), Some(Code::NotJoined));
    // A clean goodbye ends it at once.
    ann.send(&parlor_protocol::to_bytes(8, &parlor_protocol::message::Goodbye::default())).await;
    assert_eq!(ann.end().await.and_then(|close| close.refusal()), Some(Code::Goodbye));
    until("she is offline", async || engine.sessions("ann").is_empty()).await;
    let mut later = Raw::connect(address).await;
    let again = Hello { resume: Some(token), attempt: 3, ..hello("ann", "phone") };
    assert!(!welcome(&greet(&mut later, again).await).1);
    soon("the engine ends", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_taken_up_leaves_its_older_socket() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.arbiters = 2);
    let mut older = Raw::connect(address).await;
    let (token, _) = welcome(&greet(&mut older, hello("ann", "phone")).await);
    for attempt in 2..20 {
        let mut newer = Raw::connect(address).await;
        let again = Hello { resume: Some(token), attempt, ..hello("ann", "phone") };
        assert!(welcome(&greet(&mut newer, again).await).1);
        assert_eq!(older.end().await.and_then(|close| close.refusal()), Some(Code::Superseded));
        assert_eq!(engine.sessions("ann").len(), 1);
        older = newer;
    }
    // A stranger's token is worth nothing.
    let mut eve = Raw::connect(address).await;
    let stolen = Hello { resume: Some(token), attempt: 99, ..hello("eve", "phone") };
    assert!(!welcome(&greet(&mut eve, stolen).await).1);
    soon("the engine ends", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_hears_the_first_message_of_a_room_he_never_heard_of() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.arbiters = 2);
    let (mut ann, mut bob) =
        (Raw::welcomed(address, "ann", "phone").await, Raw::welcomed(address, "bob", "phone").await);
    let options = RoomOptions { access: Access::Members, ..RoomOptions::default() };
    for room in ["first", "second"] {
        let create = CreateRoom { room, options, members: List(vec!["bob"]), extensions: ext() };
        assert_eq!(ann.ask(2, &create).await.kind(), Kind::RoomInfo);
    }
    assert_eq!(followed(&mut bob, 0).await, ["first", "second"].map(str::to_owned).into());
    // A direct room, opened and used at once.
    let opened = ann.ask(3, &OpenDirect { user: "bob", extensions: ext() }).await;
    let name = opened.read::<RoomInfo<'_>>().name.to_owned();
    let room = ann.join(&name, JoinFrom::Tail).await;
    assert_eq!(ann.ask(4, &publish(room, 1, b"have you heard?")).await.kind(), Kind::Ack);
    let attached = bob.next().await.unwrap();
    let attached: Attached<'_> = attached.read();
    assert_eq!((attached.name, attached.room), (&*name, room));
    let first = bob.next().await.unwrap();
    assert_eq!(first.read::<Deliver<'_>>().payload, b"have you heard?");
    assert_eq!(bob.ask(5, &publish(room, 1, b"no!")).await.kind(), Kind::Ack, "he is in it as if he had joined");
    // Added to an older room, then removed.
    let create = CreateRoom { room: "third", options, members: List::default(), extensions: ext() };
    assert_eq!(ann.ask(5, &create).await.kind(), Kind::RoomInfo);
    let third = ann.join("third", JoinFrom::Tail).await;
    assert_eq!(ann.ask(6, &publish(third, 1, b"before he came")).await.kind(), Kind::Ack);
    let set = SetMembers { room: "third", role: Role::Member, users: List(vec!["bob"]), extensions: ext() };
    assert_eq!(ann.ask(7, &set).await.kind(), Kind::Done);
    assert_eq!(ann.ask(8, &publish(third, 2, b"welcome")).await.kind(), Kind::Ack);
    let remove = RemoveMembers { room: "third", users: List(vec!["bob"]), extensions: ext() };
    let mut heard = Vec::new();
    loop {
        let got = bob.next().await.unwrap();
        match got.kind() {
            Kind::Attached => assert_eq!(got.read::<Attached<'_>>().name, "third"),
            Kind::Deliver => {
                let deliver: Deliver<'_> = got.read();
                if deliver.room == third && deliver.kind == RecordKind::MESSAGE {
                    heard.push(deliver.payload.to_vec());
                    assert_eq!(ann.ask(9, &remove).await.kind(), Kind::Done);
                }
            }
            Kind::Detached => {
                assert_eq!(got.read::<Detached<'_>>().room, third);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard, [b"welcome".to_vec()]);
    soon("the engine ends", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_puts_sessions_out() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.sessions = SessionPolicy::All);
    let mut phone = Raw::welcomed(address, "ann", "phone").await;
    let mut second = Raw::welcomed(address, "ann", "phone").await;
    let mut desk = Raw::welcomed(address, "ann", "desk").await;
    until("all are there", async || engine.sessions("ann").len() == 3).await;
    assert!(engine.kick("ann", SessionsOf::Device("\n"), "").await.is_err());
    assert_eq!(engine.kick("ann", SessionsOf::Device("watch"), "").await.unwrap(), 0);
    let newest = engine.sessions("ann").iter().rfind(|session| &*session.device == "phone").cloned();
    assert_eq!(engine.kick("ann", SessionsOf::Session(&newest.unwrap()), "one of two").await.unwrap(), 1);
    let close = second.end().await.unwrap();
    let close: Close<'_> = close.read();
    assert_eq!((close.code, close.message), (Code::Kicked, "one of two"));
    assert_eq!(engine.kick("ann", SessionsOf::Device("desk"), &"long ".repeat(1_000)).await.unwrap(), 1);
    assert_eq!(desk.end().await.unwrap().refusal(), Some(Code::Kicked));
    assert_eq!(engine.kick("ann", SessionsOf::User, "go").await.unwrap(), 1);
    assert_eq!(phone.end().await.unwrap().refusal(), Some(Code::Kicked));
    assert!(engine.sessions("ann").is_empty());
    soon("the engine ends", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_tells_each_client_another_time_to_come_back() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.come_back_spread_ms = 20);
    let mut raws = Vec::new();
    for at in 0..40 {
        raws.push(Raw::welcomed(address, &format!("user {at}"), "phone").await);
    }
    let ended = tokio::spawn(async move { engine.shutdown().await });
    let mut times = Vec::new();
    for mut raw in raws {
        let close = raw.end().await.unwrap();
        let close: Close<'_> = close.read();
        assert_eq!(close.code, Code::GoingAway);
        times.push(close.retry_after_ms);
    }
    times.sort_unstable();
    assert_eq!(times, (0..40).map(|at| 500 + at / 2).collect::<Vec<_>>());
    soon("the engine ends", ended).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_removed_from_an_open_room_hears_nothing_more_of_it_and_may_come_again() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.arbiters = 2);
    let people = [("ann", Role::Owner), ("bob", Role::Member), ("cem", Role::Member)];
    engine.create_room_with("open", RoomOptions::default(), &people).await.unwrap();
    let mut ann = Raw::welcomed(address, "ann", "phone").await;
    let mut bob = Raw::welcomed(address, "bob", "phone").await;
    let mut cem = Raw::welcomed(address, "cem", "phone").await;
    followed(&mut bob, 0).await;
    let room = ann.join("open", JoinFrom::Tail).await;
    assert_eq!(cem.join("open", JoinFrom::Tail).await, room);
    let remove = RemoveMembers { room: "open", users: List(vec!["bob"]), extensions: ext() };
    assert_eq!(ann.ask(9, &remove).await.kind(), Kind::Done);
    // One removes himself.
    let remove = RemoveMembers { room: "open", users: List(vec!["cem"]), extensions: ext() };
    cem.send(&parlor_protocol::to_bytes(9, &remove)).await;
    for user in [&mut bob, &mut cem] {
        loop {
            let got = user.next().await.unwrap();
            match got.kind() {
                Kind::Detached => break assert_eq!(got.read::<Detached<'_>>().code, Code::Forbidden),
                Kind::Deliver => assert_ne!(got.read::<Deliver<'_>>().payload, b"after he was removed"),
                _ => {}
            }
        }
    }
    assert_eq!(ann.ask(10, &publish(room, 1, b"after he was removed")).await.kind(), Kind::Ack);
    assert_eq!(bob.join("open", JoinFrom::Tail).await, room);
    assert_eq!(ann.ask(11, &publish(room, 2, b"to a stranger")).await.kind(), Kind::Ack);
    loop {
        let got = bob.next().await.unwrap();
        if got.kind() == Kind::Deliver {
            break assert_eq!(got.read::<Deliver<'_>>().payload, b"to a stranger");
        }
    }
    engine.shutdown().await;
}
