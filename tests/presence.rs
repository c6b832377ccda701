//! Presence over real sockets: two users, one of whom comes and goes.
#![cfg(all(feature = "engine", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod common;

use common::{Raw, beat, engine, ext, soon, until};
use parlor::{
    client::JoinFrom,
    config::MaySee,
    engine::{PresenceNews, SessionsOf},
};
use parlor_protocol::{
    Code, Kind, List, RoomNumber,
    message::{self, Network},
    to_bytes,
};
use tempfile::TempDir;

/// What a frame says of users: who is online, and on how many devices with a connection.
fn told(got: &common::Got) -> Vec<(String, bool, usize)> {
    let presence: message::Presence<'_> = got.read();
    let one = |user: &message::UserPresence<'_>| {
        assert_eq!(user.online, user.since > 0);
        let connected = user.devices.0.iter().filter(|device| device.connected).count();
        (user.user.to_owned(), user.online, connected)
    };
    presence.users.0.iter().map(one).collect()
}

fn watch<'a>(add: &[&'a str], remove: &[&'a str]) -> message::WatchPresence<'a> {
    message::WatchPresence { add: List(add.to_vec()), remove: List(remove.to_vec()), extensions: ext() }
}

/// What the server says unasked of a room: all of it or not, how many, who came, who went.
async fn of_room(raw: &mut Raw) -> (bool, u32, Vec<String>, Vec<String>) {
    loop {
        let got = raw.next().await.expect("a frame");
        if got.kind() == Kind::RoomPresence {
            return room(&got);
        }
    }
}

fn room(got: &common::Got) -> (bool, u32, Vec<String>, Vec<String>) {
    let presence: message::RoomPresence<'_> = got.read();
    let names = |list: &[&str]| {
        let mut names: Vec<String> = list.iter().map(|name| (*name).to_owned()).collect();
        names.sort();
        names
    };
    (presence.all, presence.count, names(&presence.came.0), names(&presence.went.0))
}

fn watch_room(room: RoomNumber) -> message::WatchRoom<'static> {
    message::WatchRoom { room, watch: true, extensions: ext() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_sees_another_come_and_go() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| {
        config.limits.presence_window_ms = 50;
        config.arbiters = 2;
        config.may_see = Some(MaySee::new(|_, asked| asked != "eve"));
    });
    let mut host = engine.watch_presence();
    let mut ann = Raw::welcomed(address, "ann", "phone").await;
    // Nobody's welcome waits for that.
    until("she is online", async || engine.presence("ann").is_online()).await;
    let query = message::QueryPresence { users: List(vec!["ann", "bob"]), extensions: ext() };
    let (ann_is_on, bob_is_off) = (("ann".to_owned(), true, 1), ("bob".to_owned(), false, 0));
    assert_eq!(told(&ann.ask(5, &query).await), [ann_is_on, bob_is_off.clone()]);
    assert_eq!(told(&ann.ask(6, &watch(&["bob", "eve"], &[])).await), [bob_is_off.clone(), ("eve".into(), false, 0)]);

    let mut eve = Raw::welcomed(address, "eve", "phone").await;
    let mut bob = Raw::welcomed(address, "bob", "phone").await;
    let got = ann.next().await.unwrap();
    assert_eq!((got.header.request, told(&got)), (0, vec![("bob".into(), true, 1)]), "nobody is told of eve");
    assert!(engine.presence("bob").is_online() && engine.presence_of(&["eve"])[0].is_online());

    // His network changes on the fly.
    let beat = message::Heartbeat { network: Some(Network::Mobile4g), ..beat() };
    bob.ask(3, &beat).await;
    let got = ann.next().await.unwrap();
    let presence: message::Presence<'_> = got.read();
    assert_eq!(presence.users.0[0].devices.0[0].network, Network::Mobile4g);
    let session = &engine.sessions("bob")[0];
    assert_eq!(session.network, Network::Mobile4g);
    assert!(session.beats[0] >= session.beats[1] && session.beats[1] >= session.since && session.beats[2] == 0);

    // In a room.
    let tea = ann.join("tea", JoinFrom::Tail).await;
    assert_eq!(room(&ann.ask(7, &watch_room(tea)).await), (true, 1, vec!["ann".into()], vec![]));
    assert_eq!(bob.ask(4, &watch_room(tea)).await.refusal(), Some(Code::NotJoined));
    bob.join("tea", JoinFrom::Tail).await;
    assert_eq!(of_room(&mut ann).await, (false, 2, vec!["bob".into()], vec![]));
    eve.join("tea", JoinFrom::Tail).await;
    assert_eq!(of_room(&mut ann).await, (false, 3, vec![], vec![]), "she is counted and not named");
    assert_eq!(engine.room_presence("tea").await.unwrap(), 3);

    // His connection breaks: he may come back, and is still there and online.
    drop(bob);
    let got = ann.next().await.unwrap();
    assert_eq!(told(&got), [("bob".into(), true, 0)]);
    assert_eq!((engine.users_online(), engine.sessions_online()), (3, 3));
    assert_eq!(engine.kick("bob", SessionsOf::User, "enough").await.unwrap(), 1);
    let mut seen = (false, false);
    while seen != (true, true) {
        let got = ann.next().await.unwrap();
        match got.kind() {
            Kind::Presence => {
                assert_eq!(told(&got), std::slice::from_ref(&bob_is_off));
                seen.0 = true;
            }
            _ => {
                assert_eq!(room(&got), (false, 2, vec![], vec!["bob".into()]));
                seen.1 = true;
            }
        }
    }
    assert_eq!(told(&ann.ask(8, &watch(&[], &["bob"])).await), []);
    let no_more = message::WatchRoom { watch: false, ..watch_room(tea) };
    ann.send(&to_bytes(9, &no_more)).await;
    assert_eq!(ann.answer(9).await.kind(), Kind::Done);

    // The host heard all of it.
    let mut of_bob = Vec::new();
    while of_bob.last() != Some(&0) {
        match soon("a change", host.next()).await.unwrap() {
            PresenceNews::Changed { user, sessions } if &*user == "bob" => of_bob.push(sessions),
            PresenceNews::Changed { .. } => {}
            PresenceNews::Missed(missed) => panic!("{missed} changes were missed"),
        }
    }
    assert_eq!(of_bob, [1, 1, 1, 0], "he came, changed his network, broke off, and ended");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_tells_no_presence_says_so() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |config| config.limits.presence = false);
    let mut ann = Raw::welcomed(address, "ann", "phone").await;
    let query = message::QueryPresence { users: List(vec!["ann"]), extensions: ext() };
    assert_eq!(ann.ask(5, &query).await.refusal(), Some(Code::Unsupported));
    assert_eq!(ann.ask(6, &watch(&["ann"], &[])).await.refusal(), Some(Code::Unsupported));
    until("the host is told all the same", async || engine.presence("ann").is_online()).await;
    engine.shutdown().await;
}
