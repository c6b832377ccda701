//! Who is in a room, as the room itself knows it.

use parlor_protocol::message::Role;

use super::{sleeping::signal, *};
use crate::{
    arbiters::Arbiters,
    channel::gathering::{Effect as Wanted, HostCount, Input as Asked, To},
};

/// An effect as a line.
pub(super) fn line(effect: Wanted) -> String {
    match effect {
        Wanted::In(ms) => format!("presence in {ms}"),
        Wanted::AskAway(devices) => {
            let users: Vec<&str> = devices.iter().map(|device| &*device.user).collect();
            format!("away? {}", users.join(" "))
        }
        Wanted::Tell(tell) => {
            let names = |users: &[Name]| {
                let mut users: Vec<&str> = users.iter().map(|user| &**user).collect();
                users.sort_unstable();
                users.join(" ")
            };
            let whom = match tell.to {
                To::Asker(_, request) => format!("#{request}"),
                To::Everybody => "everybody".into(),
                To::PassedOver => "passed over".into(),
            };
            let told = &tell.told;
            format!("{}: {whom} {} +{} -{}", tell.arbiter, told.count, names(&told.came), names(&told.went))
        }
        Wanted::Host(reply, count) => {
            reply.give(count);
            format!("the host: {count}")
        }
    }
}

impl Room {
    fn watch(&mut self, user: &str, arbiter: u16, want: &[&str]) {
        let watch = Asked::Watch { conn: conn(arbiter), request: 5, device: key(user) };
        self.check(Input::Presence(watch), want);
    }

    /// A window later.
    fn due(&mut self, asks: &str, away: &[&str], want: &[&str]) {
        self.now.mono_ms += 1_000;
        self.check(Input::Presence(Asked::Due), &[asks]);
        let away = away.iter().map(|user| key(user)).collect();
        self.check(Input::Presence(Asked::Away(away)), want);
    }

    fn gone(&mut self, user: &str, arbiter: u16, want: &[&str]) {
        self.check(Input::Detached { arbiter, device: key(user) }, want);
    }

    fn count(&mut self) -> String {
        self.handle(Input::Presence(Asked::Count(HostCount::new(|_| {})))).concat()
    }
}

#[test]
fn a_room_that_nobody_watches_keeps_nothing_and_can_be_counted() {
    let mut room = joined(0);
    assert_eq!(room.count(), "the host: 2");
    room.gone("ann", 0, &[]);
    assert_eq!(room.count(), "the host: 1");
    assert!(room.state.gathering.is_none());
}

#[test]
fn who_is_in_a_room_is_told_and_then_who_comes_and_goes() {
    let mut room = joined(0);
    room.watch("ann", 0, &["0: #5 2 +ann bob -"]);
    room.watch("cid", 0, &["0: #5 NotJoined"]);
    room.join("cid", 1, JoinFrom::Tail);
    // A join that is not answered is no presence; when it is, that is told.
    assert_eq!(room.answers("cid", vec![]), ["presence in 1000", "1: attach cid at 0 of 0"]);
    room.gone("bob", 1, &[]);
    room.due("away? bob", &[], &["0: everybody 2 +cid -bob"]);
    room.watch("cid", 1, &["1: #5 2 +ann cid -"]);
    assert_eq!(room.count(), "the host: 2");
}

#[test]
fn a_user_whose_session_may_come_back_is_still_there() {
    let mut room = joined(0);
    room.watch("ann", 0, &["0: #5 2 +ann bob -"]);
    room.gone("bob", 1, &["presence in 1000"]);
    room.due("away? bob", &["bob"], &["presence in 1000"]);
    room.join("bob", 1, JoinFrom::Tail);
    room.answers("bob", vec![]);
    room.due("away? ", &[], &[]);
    room.gone("bob", 1, &["presence in 1000"]);
    room.due("away? bob", &[], &["0: everybody 1 + -bob"]);
}

#[test]
fn what_nobody_watches_any_more_is_forgotten() {
    for leaves in [false, true] {
        let mut room = joined(0);
        room.watch("ann", 0, &["0: #5 2 +ann bob -"]);
        if leaves {
            room.gone("ann", 0, &["presence in 1000"]);
        } else {
            room.check(Input::Presence(Asked::Unwatch { arbiter: 0, watch: 1 }), &["presence in 1000"]);
        }
        assert!(room.state.gathering.is_some(), "somebody may ask at once");
        room.now.mono_ms += 1_000;
        room.handle(Input::Presence(Asked::Due));
        room.check(Input::Presence(Asked::Away(vec![])), &[]);
        assert!(room.state.gathering.is_none());
        room.check(Input::Presence(Asked::Due), &[]);
    }
}

#[test]
fn a_rebuilt_room_tells_all_of_it_when_its_arbiters_have_told_their_sessions() {
    // Also where the rights of its people are not loaded by then.
    for known in [0, 1] {
        let mut room = room_of("room", RoomOptions::default(), (1, 0), known);
        let adopt = |arbiter, users: &[&str]| Input::Adopt { arbiter, devices: back(users) };
        room.handle(adopt(0, &["ann"]));
        room.check(Input::Presence(Asked::Again { arbiter: 0 }), &["presence in 1000"]);
        room.handle(adopt(1, &["bob"]));
        room.due("away? ", &[], &["0: everybody 2 +bob -", "0: passed over 2 +ann bob -"]);
    }
}

#[test]
fn who_was_in_a_room_before_it_slept_is_in_it_when_it_is_woken() {
    let woken = || {
        let mut room = room_of("room", RoomOptions::default(), (1, 0), 3);
        room.check(Input::Sleep(Sleep::Expect(Arbiters::first(2))), &[]);
        room.woken(0, &["ann", "bob"]);
        room.woken(1, &["cem"]);
        room
    };
    assert_eq!(woken().count(), "the host: 3");
    let mut room = woken();
    room.watch("ann", 0, &["0: #5 3 +ann bob cem -"]);
    room.gone("bob", 0, &["presence in 1000"]);
    room.due("away? bob", &[], &["0: everybody 2 + -bob"]);
    // He joins again, and is not there before it is known that he may.
    room.join("bob", 0, JoinFrom::Tail);
    assert_eq!(room.count(), "the host: 2");
    // What is loaded later decides.
    let load = |room: &mut Room, user: &str, arbiter, role| {
        room.check(signal(user, arbiter), &[&format!("load {user}"), &format!("load rights of {user}")]);
        assert_eq!(room.answers(user, vec![]), [""; 0]);
        let member = Member { role, since: 1, epoch: Epoch(3), count: 0, added: 1 };
        room.handle(Input::Rights { device: key(user), member: Ok(Some(member)) })
    };
    let known = ["0: members ann", "1: members ann", "0: signal 5 of ann", "1: signal 5 of ann"];
    assert_eq!(load(&mut room, "ann", 0, Role::Member), known);
    assert_eq!(room.count(), "the host: 2");
    let put_out = ["0: detach cem Forbidden", "1: detach cem Forbidden", "1: signal #8 Forbidden"];
    assert_eq!(load(&mut room, "cem", 1, Role::Banned), put_out);
    room.gone("cem", 1, &["presence in 1000"]);
    room.due("away? cem", &[], &["0: everybody 1 + -cem"]);
    assert_eq!(room.count(), "the host: 1");
}
