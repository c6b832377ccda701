//! The client over real sockets: sessions that it takes up, rooms that come by following, presence,
//! servers among which it chooses.
#![cfg(all(feature = "engine", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod common;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use common::{Served, client, config, engine, loopback, soon, until};
use parlor::client::{Client, Event, Events, JoinFrom, Outgoing, UserPresence};
use parlor_protocol::Code;
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// A way to a server that can be cut.
struct Way {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Way {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let list = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let task = tokio::spawn(async move {
                    let mut far = TcpStream::connect(server).await.unwrap();
                    // That one side hangs up is what it is for.
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
                list.lock().unwrap().push(task.abort_handle());
            }
        });
        Self { address, connections }
    }

    fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }
}

/// The next text of a room.
async fn text(events: &mut Events) -> String {
    loop {
        match soon("an event", events.next()).await.expect("the room goes on") {
            Event::Message(message) => return message.text().unwrap().to_owned(),
            Event::Gap(gap) => panic!("{gap:?}"),
            Event::Closed { code, message } => panic!("{code}: {message}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_taken_up_with_all_its_rooms() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.arbiters = 2);
    let way = Way::to(address).await;
    let ann = client(way.address, "ann").await;
    let bob = client(address, "bob").await;
    let mut rooms = Vec::new();
    for name in ["one", "two", "three"] {
        let (his, _) = bob.join(name, JoinFrom::Tail).await.unwrap();
        let (hers, events) = ann.join(name, JoinFrom::Tail).await.unwrap();
        rooms.push((his, hers, events));
    }
    let since = engine.sessions("ann")[0].since;
    for round in 0..5 {
        let mut sends = Vec::new();
        for (his, hers, _) in &rooms {
            his.publish(&format!("before {round}")).await.unwrap();
            // On its way while the connection breaks; one of them in parts.
            sends.push(hers.send(Outgoing::text("x".repeat(if round % 2 == 0 { 5_000 } else { 10 }))));
        }
        way.cut();
        for (his, ..) in &rooms {
            his.publish(&format!("after {round}")).await.unwrap();
        }
        for send in sends {
            soon("an ack", send).await.unwrap();
        }
        for (.., events) in &mut rooms {
            let mut got = Vec::new();
            for _ in 0..3 {
                got.push(text(events).await);
            }
            got.retain(|text| !text.starts_with('x'));
            assert_eq!(got, [format!("before {round}"), format!("after {round}")], "once and in order");
        }
    }
    assert!(ann.stats().connections > 5, "{:?}", ann.stats());
    let sessions = engine.sessions("ann");
    assert_eq!((sessions.len(), sessions[0].since), (1, since), "others saw her all the time");
    soon("the end", ann.close()).await;
    soon("the end", bob.close()).await;
    soon("the engine ends", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_fills_by_itself() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.arbiters = 2);
    let ann = client(address, "ann").await;
    ann.create_room("old", parlor::client::RoomOptions::default(), &["bob"]).await.unwrap();
    let (old, _old_events) = ann.join("old", JoinFrom::Tail).await.unwrap();
    old.publish("long ago").await.unwrap();

    let way = Way::to(address).await;
    let mut his = config(way.address, "bob");
    his.follow = Some(10);
    let bob = Client::connect(his).await.unwrap();
    let mut inbox = bob.attached();
    let (room, mut events) = soon("a room", inbox.next()).await.unwrap();
    assert_eq!((&**room.name(), room.joined().unread), ("old", 1));
    while text(&mut events).await != "long ago" {}

    let direct = ann.open_direct("bob").await.unwrap();
    let (hers, _events) = ann.join(&direct.name, JoinFrom::Tail).await.unwrap();
    hers.publish("hello bob").await.unwrap();
    let (talk, mut talk_events) = soon("a room that he never heard of", inbox.next()).await.unwrap();
    assert_eq!(talk.name(), &direct.name);
    while text(&mut talk_events).await != "hello bob" {}
    talk.publish("hello ann").await.unwrap();
    assert_eq!(text(&mut talk_events).await, "hello ann");

    // While he is away he is added to another; he comes back to all of them, once each.
    way.cut();
    ann.create_room("new", parlor::client::RoomOptions::default(), &["bob"]).await.unwrap();
    let (room, _new_events) = soon("the new room", inbox.next()).await.unwrap();
    assert_eq!(&**room.name(), "new");
    hers.publish("back again").await.unwrap();
    assert_eq!(text(&mut talk_events).await, "back again");

    ann.remove_members("old", &["bob"]).await.unwrap();
    soon("the old room is over, though anybody may join it", async {
        loop {
            if let Event::Closed { code, .. } = events.next().await.expect("it says why it is over") {
                break assert_eq!(code, Code::Forbidden);
            }
        }
    })
    .await;
    ann.delete_room("old").await.unwrap();
    ann.delete_room("new").await.unwrap();
    soon("the end", bob.close()).await;
    assert!(soon("no room follows", inbox.next()).await.is_none());
    soon("the end", ann.close()).await;
    soon("the engine ends", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_leaves_the_other() {
    let (one_data, two_data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let one = Served::start(one_data.path(), None, loopback());
    let two = Served::start(two_data.path(), None, loopback());
    let mut config = config(one.address, "ann");
    config.servers.push(two.address.to_string());
    let client = Client::connect(config.clone()).await.unwrap();
    let (room, _events) = client.join("lobby", JoinFrom::Tail).await.unwrap();
    room.publish("one").await.unwrap();
    let first = client.server().unwrap();
    let (killed, other) = if first == one.address { (one, two) } else { (two, one) };
    drop(killed);
    soon("an ack of the other server", room.publish("two")).await.unwrap();
    assert_eq!(client.server(), Some(other.address));
    assert_eq!(client.stats().connections, 2);
    // Another run begins where this one was well, and finds out what is there no longer.
    config.prefer = client.server();
    let again = Client::connect(config.clone()).await.unwrap();
    assert_eq!(again.server(), Some(other.address));
    soon("the end", again.close()).await;
    config.prefer = Some(first);
    config.device = "third".parse().unwrap();
    let third = Client::connect(config).await.unwrap();
    assert_eq!(third.server(), Some(other.address));
    until("nothing waits", async || third.stats().connections == 1).await;
    soon("the end", third.close()).await;
}

/// Keeps up with who is in a room until these are; whether all of it was told on the way.
async fn present(events: &mut Events, here: &mut BTreeSet<String>, want: &[&str]) -> bool {
    let (want, mut all): (BTreeSet<String>, _) = (want.iter().map(|user| (*user).to_owned()).collect(), false);
    while *here != want {
        match soon("an event", events.next()).await.expect("the room goes on") {
            Event::Presence(it) => {
                if it.all {
                    all = true;
                    here.clear();
                }
                here.retain(|user| !it.went.iter().any(|went| **went == **user));
                here.extend(it.came.iter().map(ToString::to_string));
                assert!(it.named && it.count as usize == here.len(), "{it:?}");
            }
            Event::Closed { code, message } => panic!("{code}: {message}"),
            _ => {}
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_is_watched_across_a_lost_connection() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.limits.presence_window_ms = 50);
    let way = Way::to(address).await;
    let ann = client(way.address, "ann").await;
    let told = |user: &UserPresence| (user.user.to_string(), user.online, user.devices.len());
    let (bob_on, bob_off) = (("bob".to_owned(), true, 1), ("bob".to_owned(), false, 0));
    let asked = ann.presence(&["ann", "bob"]).await.unwrap();
    assert_eq!(asked.iter().map(told).collect::<Vec<_>>(), [("ann".to_owned(), true, 1), bob_off.clone()]);
    let (room, mut events) = ann.join("tea", JoinFrom::Tail).await.unwrap();
    let all = room.watch_presence().await.unwrap();
    assert_eq!((all.all, all.named, all.count, all.came.len()), (true, true, 1, 1));
    let mut here = BTreeSet::new();
    assert!(present(&mut events, &mut here, &["ann"]).await);
    let mut watched = ann.watched();
    assert_eq!(ann.watch_users(&["bob", "eve"]).await.unwrap().iter().map(told).next(), Some(bob_off.clone()));

    let bob = client(address, "bob").await;
    let _tea = bob.join("tea", JoinFrom::Tail).await.unwrap();
    assert_eq!(told(&soon("a change", watched.next()).await.unwrap()), bob_on);
    assert!(!present(&mut events, &mut here, &["ann", "bob"]).await);

    // What she misses she is told when she is back, and from then on what changes.
    way.cut();
    bob.close().await;
    assert_eq!(told(&soon("a change", watched.next()).await.unwrap()), bob_off);
    let eve = client(address, "eve").await;
    assert_eq!(told(&soon("a change", watched.next()).await.unwrap()), ("eve".to_owned(), true, 1));
    assert!(present(&mut events, &mut here, &["ann"]).await);
    let _tea = eve.join("tea", JoinFrom::Tail).await.unwrap();
    present(&mut events, &mut here, &["ann", "eve"]).await;

    // No more of either.
    ann.unwatch_users(&["eve"]).await.unwrap();
    room.unwatch_presence().await.unwrap();
    eve.close().await;
    let bob = client(address, "bob").await;
    assert_eq!(told(&soon("a change", watched.next()).await.unwrap()), bob_on, "eve is not watched");
    bob.close().await;
    ann.close().await;
    while let Some(user) = soon("the end", watched.next()).await {
        assert_eq!(told(&user), bob_off);
    }
    engine.shutdown().await;
}
