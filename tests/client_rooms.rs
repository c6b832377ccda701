//! The client's calls about rooms, members, reading and signals, over real sockets.
#![cfg(all(feature = "engine", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod common;

use std::net::SocketAddr;

use common::{PATIENCE, client, config, engine, soon};
use parlor::{
    client::{
        Access, Announce, Client, Direction, Durability, Event, Events, JoinFrom, RequestError, Role, RoomOptions,
        Standing,
    },
    engine::Engine,
};
use parlor_protocol::Code;
use tempfile::TempDir;

async fn start(data: &TempDir) -> (Engine, SocketAddr) {
    engine(data.path(), |config| config.arbiters = 2)
}

fn quiet(access: Access) -> RoomOptions {
    RoomOptions { access, announce: Announce::Never, ..RoomOptions::default() }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, RequestError>, code: Code) {
    assert_eq!(outcome.as_ref().err().and_then(RequestError::code), Some(code), "{outcome:?}");
}

/// The next event that is no record.
async fn aside(events: &mut Events) -> Event {
    loop {
        match soon("an event", events.next()).await.unwrap() {
            Event::Message(_) => {}
            other => return other,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_are_made_changed_and_deleted() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    let (olga, ann) = (client(address, "olga").await, client(address, "ann").await);
    let made = olga.create_room("tea", quiet(Access::Members), &["ann"]).await.unwrap();
    assert_eq!((&*made.name, made.members, made.role, made.tail), ("tea", 2, Some(Role::Owner), 0));
    refused(olga.create_room("tea", quiet(Access::Open), &[]).await, Code::RoomExists);
    let seen = ann.room_info("tea").await.unwrap();
    assert_eq!((seen.number, seen.role), (made.number, Some(Role::Member)));
    let options = RoomOptions { records_max: 100, ..seen.options };
    refused(ann.configure_room("tea", options).await, Code::Forbidden);
    olga.configure_room("tea", options).await.unwrap();
    assert_eq!(ann.room_info("tea").await.unwrap().options, options);
    let other = RoomOptions { durability: Durability::Memory, ..options };
    refused(olga.configure_room("tea", other).await, Code::Unsupported);
    refused(ann.delete_room("tea").await, Code::Forbidden);
    let (_room, mut events) = ann.join("tea", JoinFrom::Tail).await.unwrap();
    olga.delete_room("tea").await.unwrap();
    assert!(matches!(aside(&mut events).await, Event::Closed { code: Code::RoomDeleted, .. }));
    refused(ann.room_info("tea").await, Code::UnknownRoom);
    assert!(matches!(ann.room_info("a\nb").await, Err(RequestError::InvalidName(_))));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_added_given_roles_paged_and_removed() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    let (olga, ann) = (client(address, "olga").await, client(address, "ann").await);
    olga.create_room("tea", quiet(Access::Members), &[]).await.unwrap();
    refused(ann.join("tea", JoinFrom::Tail).await, Code::Forbidden);
    olga.set_members("tea", Role::Member, &["ann", "bob", "eve"]).await.unwrap();
    olga.set_members("tea", Role::Banned, &["eve"]).await.unwrap();
    let (mut roles, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = ann.members("tea", after.as_deref(), 2).await.unwrap();
        roles.extend(page.members.into_iter().map(|member| (member.user.to_string(), member.role)));
        (after, pages) = (page.next, pages + 1);
        if after.is_none() {
            break;
        }
    }
    let want = [("ann", Role::Member), ("bob", Role::Member), ("eve", Role::Banned), ("olga", Role::Owner)];
    assert_eq!(roles, want.map(|(user, role)| (user.to_owned(), role)));
    assert_eq!(pages, 2);
    let many: Vec<_> = (0..1_001).map(|user| format!("user{user}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let outcome = olga.set_members("tea", Role::Member, &many).await;
    assert_eq!(outcome, Err(RequestError::TooManyUsers { given: 1_001 }));
    let (_room, mut events) = ann.join("tea", JoinFrom::Tail).await.unwrap();
    olga.remove_members("tea", &["ann", "nobody"]).await.unwrap();
    assert!(matches!(aside(&mut events).await, Event::Closed { code: Code::Forbidden, .. }));
    refused(ann.members("tea", None, 0).await, Code::Forbidden);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_for_good_may_not_leave_again() {
    // So such a request is not asked twice by the client itself.
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    let (olga, ann) = (client(address, "olga").await, client(address, "ann").await);
    olga.create_room("tea", quiet(Access::Members), &["ann"]).await.unwrap();
    ann.remove_members("tea", &["ann"]).await.unwrap();
    refused(ann.remove_members("tea", &["ann"]).await, Code::Forbidden);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_users_have_one_direct_room() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    let (ann, bob) = (client(address, "ann").await, client(address, "bob").await);
    let (one, other) = tokio::join!(ann.open_direct("bob"), bob.open_direct("ann"));
    let room = one.unwrap();
    assert_eq!(room.name, other.unwrap().name);
    let (here, _events) = ann.join(&room.name, JoinFrom::Tail).await.unwrap();
    here.publish("psst").await.unwrap();
    let list = bob.rooms(None, 0).await.unwrap().rooms;
    assert_eq!(list[0].newest.as_ref().and_then(|message| message.text()), Some("psst"));
    refused(ann.open_direct("ann").await, Code::InvalidName);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_s_rooms_come_by_activity_with_what_is_unread() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    let (olga, ann) = (client(address, "olga").await, client(address, "ann").await);
    for name in ["one", "two", "three"] {
        olga.create_room(name, quiet(Access::Members), &["ann"]).await.unwrap();
    }
    for (name, messages) in [("two", 3), ("one", 2), ("three", 1)] {
        let (room, events) = olga.join(name, JoinFrom::Tail).await.unwrap();
        drop(events);
        for number in 1..=messages {
            room.publish(&format!("{name} {number}")).await.unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await; // Activity is told to the millisecond.
    }
    let (mut rooms, mut before) = (Vec::new(), None);
    loop {
        let page = ann.rooms(before, 2).await.unwrap();
        rooms.extend(page.rooms);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    let seen: Vec<_> = rooms
        .iter()
        .map(|room| (&*room.name, room.unread, room.newest.as_ref().unwrap().text().unwrap().to_owned()))
        .collect();
    let want = [("three", 1, "three 1"), ("one", 2, "one 2"), ("two", 3, "two 3")];
    assert_eq!(seen, want.map(|(name, unread, text)| (name, unread, text.to_owned())));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_is_told_to_the_other_device_and_to_who_asks() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    let ann = client(address, "ann").await;
    let (said, _events) = ann.join("tea", JoinFrom::Tail).await.unwrap();
    for number in 1..=5 {
        said.publish(&number.to_string()).await.unwrap();
    }
    let device = async |device: &str| {
        let mut config = config(address, "bob");
        config.device = device.parse().unwrap();
        Client::connect(config).await.unwrap()
    };
    let (phone, laptop) = (device("phone").await, device("laptop").await);
    let (on_phone, mut phone_events) = phone.join("tea", JoinFrom::Seq(1)).await.unwrap();
    let (on_laptop, mut laptop_events) = laptop.join("tea", JoinFrom::Tail).await.unwrap();
    assert_eq!((on_phone.joined().read, on_phone.joined().unread), (0, 5));
    on_phone.mark_read(3).unwrap();
    let moved = Event::Marked(Standing { read: 3, unread: 2 });
    assert_eq!(aside(&mut phone_events).await, moved);
    assert_eq!(aside(&mut laptop_events).await, moved);
    assert_eq!(on_laptop.standing().await.unwrap(), Standing { read: 3, unread: 2 });
    let readers = said.readers(3).await.unwrap();
    assert_eq!(readers.iter().map(|reader| (&*reader.user, reader.read)).collect::<Vec<_>>(), [("bob", 3)]);
    assert_eq!(said.readers(4).await.unwrap(), []);
    // A mark that waits for its time goes out before the goodbye.
    on_phone.mark_read(4).unwrap();
    on_phone.mark_read(5).unwrap();
    phone.close().await;
    assert_eq!(aside(&mut laptop_events).await, Event::Marked(Standing { read: 5, unread: 0 }));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_reach_the_room_or_the_user_and_are_not_kept() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    let (ann, bob) = (client(address, "ann").await, client(address, "bob").await);
    let (here, _events) = ann.join("tea", JoinFrom::Tail).await.unwrap();
    let (_there, mut events) = bob.join("tea", JoinFrom::Tail).await.unwrap();
    here.signal(7, "types").unwrap();
    let Event::Signal(signal) = aside(&mut events).await else { panic!("no signal") };
    assert_eq!((&*signal.sender, signal.key, &signal.payload[..]), ("ann", 7, &b"types"[..]));
    let mut signals = bob.signals();
    ann.signal("bob", 8, "psst").unwrap();
    let signal = soon("a signal", signals.next()).await.unwrap();
    assert_eq!((&*signal.sender, signal.key, &signal.payload[..]), ("ann", 8, &b"psst"[..]));
    assert!(matches!(here.signal(1, vec![0; 513]), Err(RequestError::SignalTooLarge { bytes: 513 })));
    bob.clone().close().await;
    assert_eq!(soon("the end", signals.next()).await, None);
    assert_eq!(soon("the end", bob.signals().next()).await, None);
    assert!(matches!(bob.signal("ann", 1, ""), Err(RequestError::Closed { .. })));
    assert_eq!(here.fetch(None, Direction::Forward, 0).await.unwrap().messages, []);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_signals_that_wait_the_newest_of_each_key_is_kept() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    let (ann, bob) = (client(address, "ann").await, client(address, "bob").await);
    let (here, _events) = ann.join("tea", JoinFrom::Tail).await.unwrap();
    let (there, mut events) = bob.join("tea", JoinFrom::Tail).await.unwrap();
    for number in 0..5 {
        here.signal(number % 2, number.to_string()).unwrap();
    }
    // What was said after them has come, so they have.
    let acked = here.publish("said").await.unwrap();
    common::until("it is held", async || there.position().1 >= acked.seq).await;
    assert!(matches!(events.next().await, Some(Event::Message(_))), "records come first");
    let mut heard = Vec::new();
    while let Some(Event::Signal(signal)) = events.try_next() {
        heard.push(String::from_utf8(signal.payload.to_vec()).unwrap());
    }
    assert_eq!(heard, ["3", "4"]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_changed_by_calls_of_the_room() {
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data).await;
    let (ann, bob) = (client(address, "ann").await, client(address, "bob").await);
    let (here, _events) = ann.join("tea", JoinFrom::Tail).await.unwrap();
    let (there, _heard) = bob.join("tea", JoinFrom::Tail).await.unwrap();
    let one = here.publish("one").await.unwrap();
    assert_eq!(one.epoch, here.joined().epoch);
    let two = here.publish("two").await.unwrap();
    here.edit(one.seq, "ONE").await.unwrap();
    there.react(one.seq, "👍").await.unwrap();
    there.react(one.seq, "👎").await.unwrap();
    there.unreact(one.seq, "👎").await.unwrap();
    here.recall(two.seq).await.unwrap();
    assert!(there.edit(one.seq, "mine").await.is_err());
    let page = there.fetch(None, Direction::Forward, 2).await.unwrap();
    let [one, two] = &page.messages[..] else { panic!("{page:?}") };
    assert_eq!((one.text(), &one.changes.reactions[..]), (Some("ONE"), &[("👍".to_owned(), 1)][..]));
    assert!(two.changes.tombstone.is_some() && two.payload.is_empty());
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_wait_for_a_server_that_is_away() {
    let data = TempDir::new().unwrap();
    let (first, address) = start(&data).await;
    let ann = client(address, "ann").await;
    ann.create_room("tea", quiet(Access::Members), &[]).await.unwrap();
    first.shutdown().await;
    let waiting = {
        let ann = ann.clone();
        tokio::spawn(
            async move { (ann.room_info("tea").await, ann.create_room("more", quiet(Access::Open), &[]).await) },
        )
    };
    let mut config = parlor::config::EngineConfig::new(data.path());
    config.arbiters = 2;
    let second = Engine::start(config).unwrap();
    second.listen(address).unwrap();
    let (info, made) = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(info.unwrap().role, Some(Role::Owner));
    made.unwrap();
    second.shutdown().await;
}
