//! What ends and begins with a membership, over real sockets: marks, the past, what is recorded.
#![cfg(all(feature = "engine", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod common;

use std::net::SocketAddr;

use common::{Got, Raw, engine, ext, join, publish};
use parlor::{
    client::JoinFrom,
    engine::{Engine, RoomOptions},
};
use parlor_protocol::{
    Code, Kind, RoomNumber, Seq,
    message::{
        self, Access, Announce, ConfigureRoom, Deliver, Direction, Durability, Fetch, GapReason, Joined, ListRooms,
        Marked, Page, Past, Readers, RecordKind, Role, Rooms, SignalTo, decode_member_changes,
    },
    split, to_bytes,
};
use tempfile::TempDir;

async fn start(data: &TempDir) -> (Engine, SocketAddr) {
    engine(data.path(), |_| {})
}

fn quiet(access: Access, past: Past) -> RoomOptions {
    RoomOptions { access, past, announce: Announce::Never, ..RoomOptions::default() }
}

async fn enter(address: SocketAddr, user: &str, room: &str) -> (Raw, RoomNumber) {
    let mut raw = Raw::welcomed(address, user, "phone").await;
    let room = raw.join(room, JoinFrom::Tail).await;
    (raw, room)
}

async fn say(raw: &mut Raw, room: RoomNumber, nonce: u64, text: &[u8]) -> Seq {
    raw.ask(50, &publish(room, nonce, text)).await.read::<message::Ack<'_>>().seq
}

async fn mark(raw: &mut Raw, room: RoomNumber, read: Seq) -> (Seq, u64) {
    let got = raw.ask(51, &message::Mark { room, read, extensions: ext() }).await;
    let marked: Marked<'_> = got.read();
    (marked.read, marked.unread)
}

async fn readers(raw: &mut Raw, room: RoomNumber) -> Vec<(String, Seq)> {
    let got = raw.ask(52, &message::FetchReaders { room, seq: 0, extensions: ext() }).await;
    let readers: Readers<'_> = got.read();
    readers.readers.0.iter().map(|reader| (reader.user.to_owned(), reader.read)).collect()
}

fn named(all: &[(&str, Seq)]) -> Vec<(String, Seq)> {
    all.iter().map(|(user, read)| ((*user).to_owned(), *read)).collect()
}

/// The records of a page as `seq:payload`, and its gaps.
async fn page(raw: &mut Raw, room: RoomNumber, start: Option<Seq>) -> (Vec<String>, Vec<(Seq, Seq, GapReason)>) {
    let (mut records, mut gaps, mut next) = (Vec::new(), Vec::new(), Some(start));
    while let Some(start) = next {
        let fetch = Fetch { room, start, direction: Direction::Forward, limit: 0, extensions: ext() };
        let got = raw.ask(53, &fetch).await;
        let page: Page<'_> = got.read();
        gaps.extend(page.gaps.0.iter().map(|gap| (gap.from, gap.to, gap.why)));
        let mut rest = page.records;
        while let Some(found) = split(rest, parlor_protocol::frame::answer_body_max).unwrap() {
            records.push(line(&parlor_protocol::decode(found.body).unwrap()));
            rest = &rest[found.size()..];
        }
        next = page.next.map(Some);
    }
    (records, gaps)
}

fn line(deliver: &Deliver<'_>) -> String {
    format!("{}:{}", deliver.seq, String::from_utf8_lossy(deliver.payload))
}

#[track_caller]
fn refused(got: &Got, code: Code) {
    assert_eq!(got.refusal(), Some(code), "{got:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_go_with_the_membership_also_if_they_were_saved_or_are_saved_late() {
    let data = TempDir::new().unwrap();
    let (first, address) = start(&data).await;
    let members = [("olga", Role::Owner), ("ann", Role::Member), ("bad", Role::Member), ("out", Role::Member)];
    first.create_room_with("tea", quiet(Access::Members, Past::All), &members).await.unwrap();
    let (mut olga, room) = enter(address, "olga", "tea").await;
    for nonce in 1..=5 {
        say(&mut olga, room, nonce, b"x").await;
    }
    let (mut ann, _) = enter(address, "ann", "tea").await;
    let (mut bad, _) = enter(address, "bad", "tea").await;
    let (mut out, _) = enter(address, "out", "tea").await;
    for raw in [&mut ann, &mut bad, &mut out] {
        assert_eq!(mark(raw, room, 3).await, (3, 2));
    }
    assert_eq!(readers(&mut olga, room).await, named(&[("ann", 3), ("bad", 3), ("out", 3)]));
    // Some of the marks are saved now, some when those who are put out leave, some a second later.
    drop(out);
    first.set_members("tea", Role::Banned, &["bad"]).await.unwrap();
    first.remove_members("tea", &["out"]).await.unwrap();
    assert_eq!(readers(&mut olga, room).await, named(&[("ann", 3)]));
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    assert_eq!(readers(&mut olga, room).await, named(&[("ann", 3)]), "after the last save");
    first.shutdown().await;
    drop(first);

    let (second, address) = start(&data).await;
    let (mut olga, _) = enter(address, "olga", "tea").await;
    assert_eq!(readers(&mut olga, room).await, named(&[("ann", 3)]));
    say(&mut olga, room, 6, b"x").await;
    // Added again, they begin anew.
    second.set_members("tea", Role::Member, &["bad", "out"]).await.unwrap();
    say(&mut olga, room, 7, b"x").await;
    for user in ["bad", "out"] {
        let mut raw = Raw::welcomed(address, user, "phone").await;
        let got = raw.ask(2, &join("tea", JoinFrom::Tail)).await;
        let joined: Joined<'_> = got.read();
        assert_eq!((joined.read, joined.unread), (0, 1), "{user}");
    }
    assert_eq!(readers(&mut olga, room).await, named(&[("ann", 3)]));
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_named_while_they_are_few_and_never_crowd_out_members() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.limits.readers_per_room_max = 3);
    engine.create_room_with("tea", quiet(Access::Open, Past::All), &[("zoe", Role::Member)]).await.unwrap();
    let (mut zoe, room) = enter(address, "zoe", "tea").await;
    say(&mut zoe, room, 1, b"x").await;
    mark(&mut zoe, room, 1).await;
    let mut strangers = Vec::new();
    for user in ["a", "b", "c"] {
        let (mut raw, _) = enter(address, user, "tea").await;
        assert_eq!(mark(&mut raw, room, 1).await, (1, 0), "own unread works for strangers too");
        strangers.push(raw);
        let want: &[_] = match strangers.len() {
            1 => &[("a", 1), ("zoe", 1)],
            2 => &[("a", 1), ("b", 1), ("zoe", 1)],
            _ => &[("zoe", 1)],
        };
        assert_eq!(readers(&mut zoe, room).await, named(want));
    }
    drop(strangers);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(readers(&mut zoe, room).await, named(&[("zoe", 1)]), "out of the store, too");
    engine.configure_room("tea", quiet(Access::Members, Past::All)).await.unwrap();
    engine.set_members("tea", Role::Member, &["a"]).await.unwrap();
    assert_eq!(readers(&mut zoe, room).await, named(&[("a", 1), ("zoe", 1)]));
    engine.set_members("tea", Role::Member, &["b", "c"]).await.unwrap();
    let got = zoe.ask(5, &message::FetchReaders { room, seq: 0, extensions: ext() }).await;
    refused(&got, Code::Unsupported);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_is_a_statement_of_when_it_is_made_and_all_ways_to_read_agree() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    engine.create_room_with("tea", quiet(Access::Members, Past::SinceAdded), &[("olga", Role::Owner)]).await.unwrap();
    let (mut olga, room) = enter(address, "olga", "tea").await;
    assert_eq!(say(&mut olga, room, 1, b"old").await, 1);
    engine.set_members("tea", Role::Member, &["ann"]).await.unwrap();
    let (mut ann, _) = enter(address, "ann", "tea").await;
    let edit = message::Publish { kind: RecordKind::EDIT, refers_to: 1, ..publish(room, 2, b"new") };
    assert_eq!(olga.ask(50, &edit).await.read::<message::Ack<'_>>().seq, 2);
    // Live.
    let got = ann.next().await.unwrap();
    let deliver: Deliver<'_> = got.read();
    assert_eq!((deliver.kind, deliver.refers_to, line(&deliver).as_str()), (RecordKind::EDIT, 1, "2:new"));
    // By a page: the edit, and of the message nothing, though it has the same text now.
    let want = (vec!["2:new".to_owned()], vec![(1, 1, GapReason::NOT_YOURS)]);
    assert_eq!(page(&mut ann, room, Some(1)).await, want);
    // By a join from the beginning, which pulls.
    let mut tablet = Raw::welcomed(address, "ann", "tablet").await;
    let got = tablet.ask(2, &join("tea", JoinFrom::Seq(1))).await;
    assert_eq!((got.read::<Joined<'_>>().first, got.read::<Joined<'_>>().cursor), (2, 1));
    assert_eq!(tablet.next().await.unwrap().read::<message::Gap<'_>>().why, GapReason::NOT_YOURS);
    let pulled = tablet.next().await.unwrap();
    assert_eq!(line(&pulled.read()), "2:new");
    // The newest message of the room is none that she may read.
    let got = ann.ask(5, &ListRooms { before: None, limit: 0, extensions: ext() }).await;
    assert_eq!(got.read::<Rooms<'_>>().rooms.0[0].newest, b"");
    // What she may not read she may not react to.
    let react = message::Publish { kind: RecordKind::REACTION, refers_to: 1, ..publish(room, 1, b"+") };
    refused(&ann.ask(6, &react).await, Code::TargetGone);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_past_that_is_hidden_is_hidden_at_once_from_who_is_there() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    engine.create_room_with("tea", quiet(Access::Members, Past::All), &[("olga", Role::Owner)]).await.unwrap();
    let (mut olga, room) = enter(address, "olga", "tea").await;
    let old = vec![b'o'; 1_400];
    for nonce in 1..=4_000 {
        olga.send(&to_bytes(9, &publish(room, nonce, &old))).await;
        olga.answer(9).await;
    }
    engine.set_members("tea", Role::Member, &["ann"]).await.unwrap();
    say(&mut olga, room, 4_001, b"new").await;
    // Ann joins from the beginning and does not read: she lags.
    let mut ann = Raw::connect_narrow(address).await;
    ann.greet("ann", "phone").await;
    assert_eq!(ann.ask(2, &join("tea", JoinFrom::Seq(1))).await.read::<Joined<'_>>().first, 1);
    let options = quiet(Access::Members, Past::SinceAdded);
    let got = olga.ask(3, &ConfigureRoom { room: "tea", options, extensions: ext() }).await;
    assert_eq!(got.kind(), Kind::Done);
    let want = (vec!["4001:new".to_owned()], vec![(1, 4_000, GapReason::NOT_YOURS)]);
    let mut laptop = Raw::welcomed(address, "ann", "laptop").await;
    laptop.join("tea", JoinFrom::Tail).await;
    assert_eq!(page(&mut laptop, room, Some(1)).await, want);
    // What was on its way comes, then the gap, then what she may read.
    let mut last = 0;
    let (from, to) = loop {
        let got = ann.next().await.unwrap();
        if got.kind() == Kind::Gap {
            let gap: message::Gap<'_> = got.read();
            assert_eq!(gap.why, GapReason::NOT_YOURS);
            break (gap.from, gap.to);
        }
        let deliver: Deliver<'_> = got.read();
        assert_eq!(deliver.seq, last + 1);
        last = deliver.seq;
    };
    assert_eq!((from, to), (last + 1, 4_000));
    assert!(last < 3_000, "not more than what her connection held: {last}");
    assert_eq!(line(&ann.next().await.unwrap().read()), "4001:new");
    assert_eq!(page(&mut ann, room, Some(1)).await, want);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_a_memory_room_that_slept_reads_all_that_came_after_he_was_added() {
    let data = TempDir::new().unwrap();
    let options = RoomOptions { durability: Durability::Memory, ..quiet(Access::Members, Past::SinceAdded) };
    let (first, address) = start(&data).await;
    first.create_room_with("tea", options, &[("olga", Role::Owner)]).await.unwrap();
    let (mut olga, room) = enter(address, "olga", "tea").await;
    for nonce in 1..=3 {
        say(&mut olga, room, nonce, b"gone").await;
    }
    first.shutdown().await;
    drop(first);
    let (second, address) = start(&data).await;
    // Nobody is there, and the room is not loaded.
    second.set_members("tea", Role::Member, &["ann"]).await.unwrap();
    let (mut olga, room) = enter(address, "olga", "tea").await;
    assert_eq!(say(&mut olga, room, 4, b"one").await, 1, "a new epoch");
    second.set_members("tea", Role::Member, &["bob"]).await.unwrap();
    say(&mut olga, room, 5, b"two").await;
    let check = async |user: &str, first: Seq, want: &[&str], unread: u64| {
        let mut raw = Raw::welcomed(address, user, "phone").await;
        let got = raw.ask(2, &join("tea", JoinFrom::Tail)).await;
        let joined: Joined<'_> = got.read();
        assert_eq!((joined.first, joined.unread), (first, unread), "{user}");
        assert_eq!(page(&mut raw, room, None).await, (want.iter().map(|&text| text.to_owned()).collect(), vec![]));
    };
    check("ann", 1, &["1:one", "2:two"], 2).await;
    check("bob", 2, &["2:two"], 1).await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_muted_member_reads_and_marks_and_says_nothing_in_any_form() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    engine.create_room_with("tea", quiet(Access::Open, Past::All), &[("ann", Role::Member)]).await.unwrap();
    let (mut ann, room) = enter(address, "ann", "tea").await;
    say(&mut ann, room, 1, b"mine").await;
    let forms = |nonce| {
        let change = |kind, payload| message::Publish { kind, refers_to: 1, ..publish(room, nonce, payload) };
        [
            publish(room, nonce, b"x"),
            change(RecordKind::EDIT, b"edited"),
            change(RecordKind::REACTION, b"+"),
            change(RecordKind::RECALL, b""),
        ]
    };
    engine.set_members("tea", Role::Muted, &["ann"]).await.unwrap();
    for form in forms(2) {
        refused(&ann.ask(3, &form).await, Code::Forbidden);
    }
    let signal = |request| {
        to_bytes(request, &message::Signal { to: SignalTo::Room(room), key: 1, payload: b"types", extensions: ext() })
    };
    ann.send(&signal(4)).await;
    refused(&ann.answer(4).await, Code::Forbidden);
    assert_eq!(mark(&mut ann, room, 1).await, (1, 0));
    assert_eq!(page(&mut ann, room, None).await.0, ["1:mine"]);
    // As a member she may do all of it.
    engine.set_members("tea", Role::Member, &["ann"]).await.unwrap();
    for (form, nonce) in forms(0).into_iter().zip(2..) {
        assert_eq!(ann.ask(5, &message::Publish { nonce, ..form }).await.kind(), Kind::Ack);
    }
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_says_of_members_is_what_they_are_though_engines_end() {
    let data = TempDir::new().unwrap();
    let people: Vec<String> = (0..250).map(|number| format!("user {number:03}")).collect();
    let (first, _) = start(&data).await;
    first.create_room_with("tea", RoomOptions::default(), &[]).await.unwrap();
    let all: Vec<&str> = people.iter().map(String::as_str).collect();
    first.set_members("tea", Role::Member, &all).await.unwrap();
    first.set_members("tea", Role::Banned, &all[..40]).await.unwrap();
    // It may end before the records are stored.
    drop(first);
    let (second, address) = start(&data).await;
    second.remove_members("tea", &all[30..60]).await.unwrap();
    let (mut olga, room) = enter(address, "olga", "tea").await;
    // What was to be recorded before is in the log before it.
    say(&mut olga, room, 1, b"x").await;
    let mut told = std::collections::BTreeMap::new();
    let (mut start, mut seqs) = (Some(1), Vec::new());
    while let Some(from) = start {
        let fetch = Fetch { room, start: Some(from), direction: Direction::Forward, limit: 0, extensions: ext() };
        let got = olga.ask(53, &fetch).await;
        let page: Page<'_> = got.read();
        let mut rest = page.records;
        while let Some(found) = split(rest, parlor_protocol::frame::answer_body_max).unwrap() {
            let deliver: Deliver<'_> = parlor_protocol::decode(found.body).unwrap();
            rest = &rest[found.size()..];
            if deliver.kind == RecordKind::MESSAGE {
                continue;
            }
            assert_eq!((deliver.kind, deliver.sender), (RecordKind::MEMBERS, message::HOST));
            seqs.push((deliver.seq, deliver.nonce));
            for (user, role) in decode_member_changes(deliver.payload).unwrap() {
                told.insert(user.to_owned(), role);
            }
        }
        start = page.next;
    }
    assert_eq!(seqs.len(), 5, "three, one, one: {seqs:?}");
    assert!(seqs.is_sorted() && seqs.iter().map(|(_, nonce)| nonce).is_sorted());
    told.retain(|_, role| role.is_some());
    let members = second.members("tea", None, 1_000).await.unwrap().items;
    let members = members.into_iter().map(|(user, member)| (user.to_string(), Some(member.role))).collect();
    assert_eq!(told, members);
    second.shutdown().await;
}
