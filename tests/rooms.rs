//! Rooms and members over real sockets and through the host's handles: who may do what, and when a change counts.
#![cfg(all(feature = "engine", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod common;

use std::{collections::BTreeSet, net::SocketAddr, time::Instant};

use common::{Got, Raw, engine, ext, join, publish, soon};
use parlor::{
    client::{Event, JoinFrom},
    engine::{Engine, RoomOptions},
};
use parlor_protocol::{
    Code, Kind, List, RoomNumber,
    message::{
        self, Access, Activity, ConfigureRoom, CreateRoom, DeleteRoom, DescribeRoom, Detached, Direction, Fetch, Gap,
        GapReason, Joined, ListMembers, ListRooms, Members, OpenDirect, Page, Past, RemoveMembers, Role, RoomInfo,
        Rooms, SetMembers,
    },
};
use tempfile::TempDir;

fn options(access: Access, past: Past) -> RoomOptions {
    RoomOptions { access, past, announce: message::Announce::Never, ..RoomOptions::default() }
}

fn set<'a>(room: &'a str, role: Role, users: &[&'a str]) -> SetMembers<'a> {
    SetMembers { room, role, users: List(users.to_vec()), extensions: ext() }
}

fn remove<'a>(room: &'a str, users: &[&'a str]) -> RemoveMembers<'a> {
    RemoveMembers { room, users: List(users.to_vec()), extensions: ext() }
}

fn fetch(room: RoomNumber) -> Fetch<'static> {
    Fetch { room, start: None, direction: Direction::Forward, limit: 0, extensions: ext() }
}

async fn create(owner: &mut Raw, room: &str, options: RoomOptions, members: &[&str]) -> RoomNumber {
    let create = CreateRoom { room, options, members: List(members.to_vec()), extensions: ext() };
    let got = owner.ask(100, &create).await;
    let info: RoomInfo<'_> = got.read();
    assert_eq!((info.name, info.role, info.members), (room, Some(Role::Owner), members.len() as u64 + 1));
    info.room
}

#[track_caller]
fn done(got: &Got) {
    assert_eq!(got.kind(), Kind::Done, "{:?}", got.refusal());
}

#[track_caller]
fn refused(got: &Got, code: Code) {
    assert_eq!(got.refusal(), Some(code), "{got:?}");
}

async fn start(data: &TempDir) -> (Engine, SocketAddr) {
    engine(data.path(), |_| {})
}

/// Everything that comes until this request is answered, and the answer.
async fn until_answer(raw: &mut Raw, request: u32) -> (Vec<Got>, Got) {
    let mut before = Vec::new();
    loop {
        let got = raw.next().await.expect("an answer");
        if got.header.request == request {
            return (before, got);
        }
        before.push(got);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_join_and_speak_depends_on_role_and_access() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    let mut olga = Raw::welcomed(address, "olga", "phone").await;
    for (access, name) in [(Access::Open, "open"), (Access::Members, "members"), (Access::Broadcast, "broadcast")] {
        create(&mut olga, name, options(access, Past::All), &["ann", "mo", "mute", "bad"]).await;
        done(&olga.ask(1, &set(name, Role::Moderator, &["mo"])).await);
        let mut mo = Raw::welcomed(address, "mo", "phone").await;
        done(&mo.ask(1, &set(name, Role::Muted, &["mute"])).await);
        done(&mo.ask(2, &set(name, Role::Banned, &["bad", "worse"])).await);
        refused(&mo.ask(3, &set(name, Role::Moderator, &["ann"])).await, Code::Forbidden);
        refused(&mo.ask(4, &remove(name, &["olga"])).await, Code::Forbidden);
        refused(&mo.ask(5, &DeleteRoom { room: name, extensions: ext() }).await, Code::Forbidden);
        for (user, joins, speaks) in [
            ("olga", true, true),
            ("mo", true, true),
            ("ann", true, access != Access::Broadcast),
            ("mute", true, false),
            ("stranger", access != Access::Members, access == Access::Open),
            ("bad", false, false),
            ("worse", false, false),
        ] {
            let mut raw = Raw::welcomed(address, user, "laptop").await;
            let describe = raw.ask(9, &DescribeRoom { room: name, extensions: ext() }).await;
            let list = ListMembers { room: name, after: None, limit: 0, extensions: ext() };
            let list = raw.ask(10, &list).await;
            let got = raw.ask(11, &join(name, JoinFrom::Tail)).await;
            if !joins {
                for got in [&describe, &list, &got] {
                    refused(got, Code::Forbidden);
                }
                continue;
            }
            assert_eq!(list.read::<Members<'_>>().members.0.len(), 6, "with the banned");
            let info: RoomInfo<'_> = describe.read();
            assert_eq!((info.members, info.options.access), (4, access));
            let room = got.read::<Joined<'_>>().room;
            let got = raw.ask(12, &publish(room, 1, b"hi")).await;
            if speaks {
                assert_eq!(got.kind(), Kind::Ack, "{user} in {name}");
            } else {
                refused(&got, Code::Forbidden);
            }
            let wanted = raw.ask(13, &set(name, Role::Member, &["new"])).await;
            let keeps_order = user == "olga" || user == "mo";
            assert_eq!(wanted.kind() == Kind::Done, keeps_order, "{user} adds somebody");
            let unwanted = raw.ask(14, &remove(name, &["new"])).await;
            assert_eq!(unwanted.kind() == Kind::Done, keeps_order, "{user} removes somebody");
        }
    }
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_removed_or_banned_gets_nothing_said_after_it() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    let mut olga = Raw::welcomed(address, "olga", "phone").await;
    let room = create(&mut olga, "tea", options(Access::Members, Past::All), &["ann"]).await;
    olga.join("tea", JoinFrom::Tail).await;
    let mut nonce = 0;
    for round in 0..20 {
        let mut ann = Raw::welcomed(address, "ann", "phone").await;
        assert_eq!(ann.join("tea", JoinFrom::Tail).await, room);
        nonce += 1;
        assert_eq!(olga.ask(10, &publish(room, nonce, b"before")).await.kind(), Kind::Ack);
        let out = if round % 2 == 0 {
            olga.ask(11, &remove("tea", &["ann"])).await
        } else {
            olga.ask(11, &set("tea", Role::Banned, &["ann"])).await
        };
        done(&out);
        nonce += 1;
        let after = olga.ask(12, &publish(room, nonce, b"after")).await.read::<message::Ack<'_>>().seq;
        let (before, got) = {
            ann.send(&parlor_protocol::to_bytes(13, &fetch(room))).await;
            until_answer(&mut ann, 13).await
        };
        refused(&got, Code::NotJoined);
        let delivered = before.iter().filter(|got| got.kind() == Kind::Deliver);
        assert!(delivered.clone().all(|got| got.read::<message::Deliver<'_>>().seq < after));
        assert_eq!(delivered.count(), 1, "what was said before");
        let detached = before.iter().find(|got| got.kind() == Kind::Detached).expect("ann is told");
        let detached: Detached<'_> = detached.read();
        assert_eq!((detached.room, detached.code, detached.cursor), (room, Code::Forbidden, after - 1));
        refused(&ann.ask(14, &publish(room, 1, b"let me in")).await, Code::NotJoined);
        refused(&ann.ask(15, &join("tea", JoinFrom::Seq(1))).await, Code::Forbidden);
        done(&olga.ask(16, &set("tea", Role::Member, &["ann"])).await);
        // The very connection that was put out may come back.
        assert_eq!(ann.join("tea", JoinFrom::Tail).await, room);
    }
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mute_counts_once_it_is_done_and_speaking_again_too() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    let mut olga = Raw::welcomed(address, "olga", "phone").await;
    let room = create(&mut olga, "tea", RoomOptions::default(), &[]).await;
    let mut ann = Raw::welcomed(address, "ann", "phone").await;
    ann.join("tea", JoinFrom::Tail).await;
    for nonce in 1..=20 {
        done(&olga.ask(1, &set("tea", Role::Muted, &["ann"])).await);
        refused(&ann.ask(2, &publish(room, nonce, b"x")).await, Code::Forbidden);
        refused(&ann.ask(3, &remove("tea", &["ann"])).await, Code::Forbidden);
        assert_eq!(ann.ask(4, &fetch(room)).await.kind(), Kind::Page);
        done(&olga.ask(5, &set("tea", Role::Member, &["ann"])).await);
        assert_eq!(ann.ask(6, &publish(room, nonce, b"x")).await.kind(), Kind::Ack);
    }
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_reads_what_was_said_since_he_was_added() {
    let data = TempDir::new().unwrap();
    let (first, address) = start(&data).await;
    let mut olga = Raw::welcomed(address, "olga", "phone").await;
    let room = create(&mut olga, "tea", options(Access::Members, Past::ByAccess), &[]).await;
    olga.join("tea", JoinFrom::Tail).await;
    for nonce in 1..=5 {
        olga.ask(9, &publish(room, nonce, b"before")).await;
    }
    done(&olga.ask(10, &set("tea", Role::Member, &["ann"])).await);
    for nonce in 6..=8 {
        olga.ask(9, &publish(room, nonce, b"after")).await;
    }
    let check = async |address: SocketAddr| {
        let mut ann = Raw::welcomed(address, "ann", "phone").await;
        let got = ann.ask(2, &join("tea", JoinFrom::Seq(1))).await;
        let joined: Joined<'_> = got.read();
        assert_eq!((joined.tail, joined.first, joined.cursor), (8, 6, 5));
        let got = ann.next().await.unwrap();
        let gap: Gap<'_> = got.read();
        assert_eq!((gap.from, gap.to, gap.why), (1, 5, GapReason::NOT_YOURS));
        for seq in 6..=8 {
            assert_eq!(ann.next().await.unwrap().read::<message::Deliver<'_>>().seq, seq);
        }
        let (mut start, mut seen) = (Some(1), Vec::new());
        while let Some(from) = start {
            let fetch = Fetch { start: Some(from), ..fetch(room) };
            let got = ann.ask(3, &fetch).await;
            let page: Page<'_> = got.read();
            seen.extend(page.gaps.0.iter().map(|gap| (gap.from, gap.to, gap.why)));
            assert!(page.records.windows(6).all(|text| text != b"before"));
            start = page.next;
        }
        assert_eq!(seen, [(1, 5, GapReason::NOT_YOURS)]);
        let backward = Fetch { direction: Direction::Backward, start: None, limit: 200, ..fetch(room) };
        let got = ann.ask(4, &backward).await;
        assert_eq!(got.read::<Page<'_>>().next, None);
    };
    check(address).await;
    first.shutdown().await;
    drop(first);
    let (second, address) = start(&data).await;
    check(address).await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_users_have_one_direct_room_whoever_opens_it() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    let open = async |user: &'static str, other: &'static str, device: String| {
        let mut raw = Raw::welcomed(address, user, &device).await;
        let got = raw.ask(1, &OpenDirect { user: other, extensions: ext() }).await;
        let info: RoomInfo<'_> = got.read();
        (info.room, info.name.to_owned(), raw)
    };
    let mut rooms = BTreeSet::new();
    for round in 0..20 {
        let (a, b) = tokio::join!(open("ann", "bob", format!("a{round}")), open("bob", "ann", format!("b{round}")));
        rooms.extend([(a.0, a.1), (b.0, b.1)]);
    }
    assert_eq!(rooms.len(), 1, "{rooms:?}");
    let (room, name) = rooms.pop_first().unwrap();
    let (_, _, mut ann) = open("ann", "bob", "phone".into()).await;
    let (_, _, mut bob) = open("bob", "ann", "phone".into()).await;
    assert_eq!((ann.join(&name, JoinFrom::Tail).await, bob.join(&name, JoinFrom::Tail).await), (room, room));
    ann.ask(3, &publish(room, 1, b"hi")).await;
    assert_eq!(soon("bob hears", bob.next()).await.unwrap().read::<message::Deliver<'_>>().payload, b"hi");
    // Nobody else comes in, and nothing of it changes.
    let mut eve = Raw::welcomed(address, "eve", "phone").await;
    refused(&eve.ask(1, &join(&name, JoinFrom::Tail)).await, Code::Forbidden);
    refused(&ann.ask(4, &set(&name, Role::Member, &["eve"])).await, Code::Forbidden);
    refused(&ann.ask(5, &set(&name, Role::Banned, &["bob"])).await, Code::Forbidden);
    refused(&ann.ask(6, &remove(&name, &["ann"])).await, Code::Forbidden);
    refused(&ann.ask(7, &DeleteRoom { room: &name, extensions: ext() }).await, Code::Forbidden);
    let open_to_all = ConfigureRoom { room: &name, options: RoomOptions::default(), extensions: ext() };
    refused(&ann.ask(8, &open_to_all).await, Code::Forbidden);
    assert!(engine.set_members(&name, Role::Member, &["eve"]).await.is_err());
    // Names of direct rooms are made by nobody else.
    refused(&eve.ask(2, &join("direct:0", JoinFrom::Tail)).await, Code::UnknownRoom);
    let squat =
        CreateRoom { room: "direct:0", options: RoomOptions::default(), members: List(vec![]), extensions: ext() };
    refused(&eve.ask(3, &squat).await, Code::InvalidName);
    assert!(engine.create_room("direct:0", RoomOptions::default()).await.is_err());
    assert_eq!(engine.open_direct("bob", "ann").await.unwrap().room, room);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_room_is_gone_and_its_name_is_free() {
    let data = TempDir::new().unwrap();
    let (first, address) = start(&data).await;
    let mut olga = Raw::welcomed(address, "olga", "phone").await;
    let old = create(&mut olga, "tea", RoomOptions::default(), &["ann"]).await;
    let mut ann = Raw::welcomed(address, "ann", "phone").await;
    let epoch = ann.ask(2, &join("tea", JoinFrom::Tail)).await.read::<Joined<'_>>().epoch;
    for nonce in 1..=10 {
        ann.ask(3, &publish(old, nonce, b"old")).await;
    }
    done(&olga.ask(5, &DeleteRoom { room: "tea", extensions: ext() }).await);
    let (before, got) = {
        ann.send(&parlor_protocol::to_bytes(4, &publish(old, 11, b"late"))).await;
        until_answer(&mut ann, 4).await
    };
    refused(&got, Code::NotJoined);
    let detached: Vec<&Got> = before.iter().filter(|got| got.kind() == Kind::Detached).collect();
    assert_eq!(detached.len(), 1);
    let detached: Detached<'_> = detached[0].read();
    assert_eq!((detached.room, detached.code, detached.cursor), (old, Code::RoomDeleted, 10));
    refused(&olga.ask(6, &DescribeRoom { room: "tea", extensions: ext() }).await, Code::UnknownRoom);
    refused(&olga.ask(7, &DeleteRoom { room: "tea", extensions: ext() }).await, Code::UnknownRoom);
    let list = ListRooms { before: None, limit: 0, extensions: ext() };
    assert_eq!(ann.ask(8, &list).await.read::<Rooms<'_>>().rooms.0, []);
    let new = create(&mut olga, "tea", RoomOptions::default(), &[]).await;
    let got = ann.ask(9, &join("tea", JoinFrom::Position(epoch, 10))).await;
    let joined: Joined<'_> = got.read();
    assert!(new > old && joined.room == new && joined.epoch > epoch && joined.tail == 0, "{joined:?}");
    assert_eq!(ann.next().await.unwrap().read::<Gap<'_>>().why, GapReason::NEW_EPOCH);
    // A nonce of the old room means nothing in the new one.
    let got = ann.ask(10, &publish(new, 1, b"new")).await;
    let ack: message::Ack<'_> = got.read();
    assert!(ack.seq == 1 && !ack.duplicate);
    first.shutdown().await;
    drop(first);
    let (second, address) = start(&data).await;
    let mut ann = Raw::welcomed(address, "ann", "phone").await;
    let joined = ann.ask(2, &join("tea", JoinFrom::Seq(1))).await;
    assert_eq!((joined.read::<Joined<'_>>().room, joined.read::<Joined<'_>>().tail), (new, 1));
    assert_eq!(second.rooms(None, 10).await.unwrap().items.len(), 1);
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_is_deleted_under_fire_answers_everybody() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    for round in 0..10 {
        engine.create_room_with("tea", RoomOptions::default(), &[]).await.unwrap();
        let talk = async |user: String| {
            let mut raw = Raw::welcomed(address, &user, "phone").await;
            let room = raw.join("tea", JoinFrom::Tail).await;
            let mut nonce = 1;
            for request in 100.. {
                let got = raw.ask(request, &publish(room, nonce, b"x")).await;
                match got.refusal() {
                    None => nonce += 1,
                    Some(Code::RoomDeleted | Code::NotJoined) => break,
                    Some(code) => assert_eq!(code.advice(), parlor_protocol::Advice::RetryLater, "round {round}"),
                }
            }
            raw
        };
        let delete = async {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            engine.delete_room("tea").await.unwrap();
        };
        let names = ["a", "b", "c"].map(|name| format!("{name}{round}"));
        let [a, b, c] = names;
        let _ = soon("all are told", async { tokio::join!(talk(a), talk(b), talk(c), delete) }).await;
    }
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_configured_for_those_who_are_in_it_too() {
    let data = TempDir::new().unwrap();
    let (first, address) = start(&data).await;
    let mut olga = Raw::welcomed(address, "olga", "phone").await;
    let room = create(&mut olga, "tea", options(Access::Open, Past::All), &["ann"]).await;
    let (mut ann, mut bob) =
        (Raw::welcomed(address, "ann", "phone").await, Raw::welcomed(address, "bob", "phone").await);
    for raw in [&mut ann, &mut bob] {
        raw.join("tea", JoinFrom::Tail).await;
    }
    let configure = |options| ConfigureRoom { room: "tea", options, extensions: ext() };
    refused(&ann.ask(3, &configure(RoomOptions::default())).await, Code::Forbidden);
    let memory = RoomOptions { durability: message::Durability::Memory, ..RoomOptions::default() };
    refused(&olga.ask(3, &configure(memory)).await, Code::Unsupported);
    for durability in [message::Durability::Buffered, message::Durability::Synced] {
        done(&olga.ask(3, &configure(RoomOptions { durability, ..options(Access::Open, Past::All) })).await);
        let acked = ann.ask(8, &publish(room, 10 + durability as u64, b"x")).await;
        assert_eq!(acked.read::<message::Ack>().durability, durability);
    }
    done(&olga.ask(4, &configure(options(Access::Members, Past::All))).await);
    let put_out = loop {
        let got = bob.next().await.unwrap();
        if got.kind() != Kind::Deliver {
            break got;
        }
    };
    assert_eq!(put_out.read::<Detached<'_>>().code, Code::Forbidden);
    assert_eq!(ann.ask(5, &publish(room, 21, b"x")).await.kind(), Kind::Ack);
    done(&olga.ask(6, &configure(options(Access::Broadcast, Past::All))).await);
    refused(&ann.ask(7, &publish(room, 22, b"x")).await, Code::Forbidden);
    first.shutdown().await;
    drop(first);
    let (second, _) = start(&data).await;
    assert_eq!(second.room_info("tea").await.unwrap().options.access, Access::Broadcast);
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_memory_room_the_list_says_that_the_user_is_in_it_and_nothing_of_what_was_said() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    let mut olga = Raw::welcomed(address, "olga", "phone").await;
    let memory = RoomOptions { durability: message::Durability::Memory, ..options(Access::Open, Past::All) };
    let room = create(&mut olga, "tea", memory, &["ann"]).await;
    let mut ann = Raw::welcomed(address, "ann", "phone").await;
    let before = engine.rooms_of("ann", None, 9).await.unwrap().items;
    olga.join("tea", JoinFrom::Tail).await;
    for nonce in 1..=3 {
        assert_eq!(olga.ask(10, &publish(room, nonce, b"hi")).await.kind(), Kind::Ack);
    }
    let one = &engine.rooms_of("ann", None, 9).await.unwrap().items[0];
    assert_eq!((&*one.name, one.room, one.tail, one.count, one.unread), ("tea", room, 0, 0, 0));
    assert_eq!((one.time, &one.newest[..]), (before[0].time, &[][..]), "its place is that of when she was added");
    assert!(one.time > 0);
    // A join says the rest.
    let answer = ann.ask(3, &join("tea", JoinFrom::Tail)).await;
    let joined: message::Joined<'_> = answer.read();
    assert_eq!((joined.count, joined.unread), (3, 3));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rooms_of_a_user_come_by_recent_activity() {
    let data = TempDir::new().unwrap();
    let (first, address) = start(&data).await;
    let mut ann = Raw::welcomed(address, "ann", "phone").await;
    for number in 0..30 {
        let name = format!("room {number}");
        let room = create(&mut ann, &name, RoomOptions::default(), &["bob"]).await;
        if number % 3 == 0 {
            ann.join(&name, JoinFrom::Tail).await;
            ann.ask(9, &publish(room, 1, name.as_bytes())).await;
        }
    }
    first.shutdown().await;
    drop(first);
    let (second, address) = start(&data).await;
    // The last to hear something is the first of the list.
    let mut ann = Raw::welcomed(address, "ann", "phone").await;
    let room = ann.join("room 6", JoinFrom::Tail).await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    ann.ask(9, &publish(room, 2, b"newest")).await;
    second.set_members("room 7", Role::Banned, &["bob"]).await.unwrap();
    let mut bob = Raw::welcomed(address, "bob", "phone").await;
    let (mut before, mut seen, mut pages) = (None, Vec::new(), 0);
    loop {
        let got = bob.ask(2, &ListRooms { before, limit: 7, extensions: ext() }).await;
        let page: Rooms<'_> = got.read();
        for entry in &page.rooms.0 {
            assert_eq!(entry.role, Role::Member);
            let said = (!entry.newest.is_empty()).then(|| {
                let deliver = parlor_protocol::decode::<message::Deliver<'_>>(&entry.newest[12..]).unwrap();
                assert_eq!((deliver.room, deliver.seq, deliver.count), (entry.room, entry.tail, entry.count));
                String::from_utf8(deliver.payload.to_vec()).unwrap()
            });
            seen.push((entry.name.to_owned(), Activity { time: entry.time, room: entry.room }, said));
        }
        pages += 1;
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!((seen.len(), pages), (29, 5), "all but the one that banned him");
    assert!(seen.is_sorted_by(|a, b| a.1 > b.1));
    assert_eq!((seen[0].0.as_str(), seen[0].2.as_deref()), ("room 6", Some("newest")));
    let said = seen.iter().find(|(name, ..)| name == "room 9").unwrap();
    assert_eq!(said.2.as_deref(), Some("room 9"));
    assert!(seen.iter().find(|(name, ..)| name == "room 1").unwrap().2.is_none());
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_of_100_000_members_is_read_in_pages() {
    const MEMBERS: usize = 100_000;
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    let began = Instant::now();
    engine.create_room_with("hall", options(Access::Members, Past::All), &[("olga", Role::Owner)]).await.unwrap();
    let users: Vec<String> = (0..MEMBERS).map(|number| format!("user {number:06}")).collect();
    for users in users.chunks(1_000) {
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        engine.set_members("hall", Role::Member, &users).await.unwrap();
    }
    let added = began.elapsed();
    assert_eq!(engine.room_info("hall").await.unwrap().counts.members, MEMBERS as u64 + 1);
    let mut user = Raw::welcomed(address, "user 050000", "phone").await;
    let (mut after, mut seen, began) = (None::<String>, Vec::new(), Instant::now());
    loop {
        let list = ListMembers { room: "hall", after: after.as_deref(), limit: 0, extensions: ext() };
        let got = user.ask(2, &list).await;
        let page: Members<'_> = got.read();
        seen.extend(page.members.0.iter().map(|entry| entry.user.to_owned()));
        after = page.next.map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    let read = began.elapsed();
    assert_eq!(seen[0], "olga");
    assert_eq!(seen[1..], users);
    let began = Instant::now();
    engine.delete_room("hall").await.unwrap();
    let deleted = began.elapsed();
    common::until("the memberships are cleared away", async || {
        engine.rooms_of("user 099999", None, 10).await.unwrap().items.is_empty()
    })
    .await;
    eprintln!("100,000 members: added in {added:?}, read in {read:?}, deleted in {deleted:?}");
    // Generous: this guards against a cost that grows with the square.
    assert!(added.as_secs() < 60 && read.as_secs() < 20 && deleted.as_secs() < 5);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_cannot_be_meant_leave_the_connection_alone() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.create_at_join = false);
    let mut raw = Raw::welcomed(address, "ann", "phone").await;
    let create = |room| CreateRoom { room, options: RoomOptions::default(), members: List(vec![]), extensions: ext() };
    refused(&raw.ask(1, &create("tea")).await, Code::Forbidden);
    refused(&raw.ask(2, &create("a\nb")).await, Code::InvalidName);
    refused(&raw.ask(3, &set("nowhere", Role::Member, &["bob"])).await, Code::UnknownRoom);
    refused(&raw.ask(4, &OpenDirect { user: "ann", extensions: ext() }).await, Code::InvalidName);
    refused(&raw.ask(5, &OpenDirect { user: "", extensions: ext() }).await, Code::InvalidName);
    assert_eq!(raw.ask(6, &OpenDirect { user: "bob", extensions: ext() }).await.kind(), Kind::RoomInfo);
    let name = "x".repeat(64);
    let users: Vec<String> = (0..1_000).map(|number| format!("{number:064}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    refused(&raw.ask(7, &set(&name, Role::Member, &users)).await, Code::UnknownRoom);
    engine.create_room(&name, RoomOptions::default()).await.unwrap();
    engine.set_members(&name, Role::Owner, &["ann"]).await.unwrap();
    done(&raw.ask(8, &set(&name, Role::Member, &users)).await);
    assert_eq!(engine.room_info(&name).await.unwrap().counts.members, 1_001);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_told_that_it_was_put_out_and_does_not_come_back_by_itself() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    engine.create_room_with("tea", options(Access::Open, Past::All), &[("olga", Role::Owner)]).await.unwrap();
    let (ann, bob) = (common::client(address, "ann").await, common::client(address, "bob").await);
    let (anns, mut events) = soon("a join", ann.join("tea", JoinFrom::Tail)).await.unwrap();
    let (bobs, mut others) = soon("a join", bob.join("tea", JoinFrom::Tail)).await.unwrap();
    engine.set_members("tea", Role::Banned, &["ann"]).await.unwrap();
    let closed = |event| match event {
        Some(Event::Closed { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(closed(soon("the end", events.next()).await), Code::Forbidden);
    assert!(soon("nothing more", events.next()).await.is_none());
    assert!(soon("a refusal", anns.publish("hello?")).await.is_err());
    assert!(soon("a refusal", ann.join("tea", JoinFrom::Tail)).await.is_err());
    soon("an ack", bobs.publish("peace")).await.unwrap();
    assert!(matches!(soon("a message", others.next()).await, Some(Event::Message(_))));
    engine.delete_room("tea").await.unwrap();
    assert_eq!(closed(soon("the end", others.next()).await), Code::RoomDeleted);
    ann.close().await;
    bob.close().await;
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_room_records_who_came_and_went_also_if_it_slept() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    engine.create_room_with("tea", RoomOptions::default(), &[("olga", Role::Owner)]).await.unwrap();
    // Nobody has joined it, so it does not run.
    engine.set_members("tea", Role::Member, &["bob", "ann"]).await.unwrap();
    let mut olga = Raw::welcomed(address, "olga", "phone").await;
    let room = olga.join("tea", JoinFrom::Seq(1)).await;
    let got = olga.next().await.unwrap();
    let record: message::Deliver<'_> = got.read();
    assert_eq!((record.kind, record.sender, record.count), (message::RecordKind::MEMBERS, message::HOST, 0));
    let want = [("ann", Some(Role::Member)), ("bob", Some(Role::Member))];
    assert_eq!(message::decode_member_changes(record.payload).unwrap(), want);
    let (before, got) = {
        olga.send(&parlor_protocol::to_bytes(3, &remove("tea", &["bob", "nobody"]))).await;
        until_answer(&mut olga, 3).await
    };
    done(&got);
    let got = match before.into_iter().next() {
        Some(got) => got,
        None => olga.next().await.unwrap(),
    };
    let record: message::Deliver<'_> = got.read();
    assert_eq!((record.room, record.seq, record.sender), (room, 2, "olga"));
    assert_eq!(message::decode_member_changes(record.payload).unwrap(), [("bob", None)]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rooms_of_somebody_who_has_a_thousand_are_listed_soon() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    let mut ann = Raw::welcomed(address, "ann", "phone").await;
    for number in 0..1_000 {
        let (name, member) = (format!("room {number}"), [("ann", Role::Member)]);
        engine.create_room_with(&name, RoomOptions::default(), &member).await.unwrap();
        if number % 10 == 0 {
            let room = ann.join(&name, JoinFrom::Tail).await;
            ann.ask(3, &publish(room, 1, b"hi")).await;
        }
    }
    let loaded = engine.census().await.loaded;
    assert_eq!(loaded, 100, "those that she has joined");
    let began = Instant::now();
    let page = engine.rooms_of("ann", None, 100).await.unwrap();
    let took = began.elapsed();
    assert_eq!(engine.census().await.loaded, loaded, "it wakes no room");
    assert!(page.more && page.items.len() == 100 && page.items.is_sorted_by(|a, b| a.time >= b.time));
    eprintln!("the first page of 1,000 rooms took {took:?}");
    assert!(took.as_secs() < 2);
    engine.shutdown().await;
}
