//! Who is removed is put out of the room, whoever may join it.

use super::*;
use crate::{
    arbiters::Arbiters,
    channel::state::{Sleep, tests::publish},
    message::{Join, MarkRead, Signal},
};

const OPEN: [Access; 2] = [Access::Open, Access::Broadcast];

fn ann() -> Option<Member> {
    Some(member(Role::Member, 1))
}

fn gone(user: &str) -> Input {
    Input::Detached { arbiter: 0, device: key(user) }
}

#[test]
fn who_is_removed_is_put_out_of_a_room_that_he_may_join() {
    for access in OPEN {
        let mut room = room(access, Past::All);
        room.enter("ann", 0, ann());
        room.enter("bob", 1, None);
        let out = ["0: detach ann Forbidden", "1: detach ann Forbidden", "told 7"];
        assert_eq!(room.change(7, "ann", ann(), None), out, "{access:?}");
        // What she asked for before she heard of it is answered as what waits in the relay is.
        room.check(Input::Publish(publish("ann", 0, 2, 1, "x")), &["0: #2 Forbidden"]);
        assert_eq!(room.fetch("ann", None, Direction::Forward), ["0: #9 Forbidden"]);
        let mark = MarkRead { conn: conn(0), request: 3, device: key("ann"), read: 5 };
        room.check(Input::Mark(mark), &["0: #3 Forbidden"]);
        let signal = Signal { conn: Some(conn(0)), request: 4, device: key("ann"), key: 5, frame: Default::default() };
        room.check(Input::Signal(signal), &["0: signal #4 Forbidden"]);
        room.check(gone("ann"), &[]);
        // She comes again, as anybody may.
        let joined = room.join("ann", 0, JoinFrom::Tail);
        assert!(joined.concat().contains("load ann"), "{joined:?}");
        room.answers("ann", vec![]);
        assert_eq!(room.rights("ann", None), ["0: attach ann at 5 of 5"]);
        let speaks = if access == Access::Open { "end turn" } else { "0: #2 Forbidden" };
        room.say(("ann", 0), 2, 1, "x", &[speaks]);
    }
}

#[test]
fn who_is_no_member_or_unbanned_is_not_put_out_again() {
    let mut room = room(Access::Open, Past::All);
    room.enter("ann", 0, ann());
    let banned = Some(member(Role::Banned, 1));
    assert_eq!(room.change(7, "ann", ann(), banned), ["0: detach ann Forbidden", "told 7"]);
    room.check(gone("ann"), &[]);
    assert_eq!(room.change(8, "ann", banned, None), ["told 8"]);
    room.enter("bob", 0, None);
    assert_eq!(room.change(9, "cem", ann(), None), ["told 9"]);
}

#[test]
fn who_is_removed_and_added_in_one_turn_is_put_out_and_what_he_asks_meanwhile_is_not_done() {
    for access in [Access::Open, Access::Members] {
        let mut room = room(access, Past::All);
        room.enter("ann", 0, ann());
        assert_eq!(room.change(7, "ann", ann(), None), ["0: detach ann Forbidden", "told 7"]);
        assert!(room.change(8, "ann", None, ann()).ends_with(&["told 8".into()]));
        room.say(("ann", 0), 2, 1, "x", &["0: #2 Forbidden"]);
        // Another session of the device is not let in before the first is out.
        room.check(Input::Join(Join { conn: conn(1), ..join("ann") }), &["1: #1 Busy"]);
        room.check(gone("ann"), &[]);
        room.enter("ann", 0, ann());
        room.say(("ann", 0), 2, 1, "x", &["end turn"]);
    }
}

#[test]
fn who_comes_in_on_another_device_while_he_is_put_out_on_one_stays_in() {
    let mut room = room(Access::Open, Past::All);
    room.enter("ann", 0, ann());
    assert_eq!(room.change(7, "ann", ann(), None), ["0: detach ann Forbidden", "told 7"]);
    // As a stranger, before the relay of the first has said that she is out.
    let second = DeviceKey { tag: parlor_protocol::DeviceTag(2), ..key("ann") };
    let mut came = room.handle(Input::Join(Join { conn: conn(1), device: second.clone(), ..join("ann") }));
    came.extend(room.handle(Input::Answers { device: second.clone(), answers: Ok(Vec::new()) }));
    came.extend(room.handle(Input::Rights { device: second, member: Ok(None) }));
    let is_in = came.iter().any(|line| line.starts_with("1: attach ann"));
    // Something else changes.
    let told = room.change(8, "bob", ann(), None);
    let out = told.iter().any(|line| line == "1: detach ann Forbidden");
    assert!(!(is_in && out), "{came:?} {told:?}");
}

fn join(user: &str) -> Join {
    Join { conn: conn(0), request: 1, device: key(user), from: JoinFrom::Tail, follows: false }
}

#[test]
fn a_join_on_its_way_ends_as_one_behind_the_removal() {
    let mut room = room(Access::Open, Past::All);
    room.join("ann", 0, JoinFrom::Tail);
    room.answers("ann", vec![]);
    assert_eq!(room.change(7, "ann", ann(), None), ["told 7"], "she is not in yet");
    assert_eq!(room.rights("ann", ann()), ["0: attach ann at 5 of 5"], "as a stranger");
    room.say(("ann", 0), 2, 1, "x", &["end turn"]);
    // What follows her as a member is not for strangers.
    let mut room = self::room(Access::Open, Past::All);
    room.handle(Input::Join(Join { follows: true, ..join("ann") }));
    room.answers("ann", vec![]);
    room.change(7, "ann", ann(), None);
    assert_eq!(room.rights("ann", ann()), ["0: #1 Forbidden"]);
}

#[test]
fn who_is_removed_while_a_room_sleeps_is_put_out_when_it_wakes() {
    let mut room = room(Access::Open, Past::All);
    room.check(Input::Sleep(Sleep::Expect(Arbiters::first(1))), &[]);
    let woken = Sleep::Woken { arbiter: 0, devices: members(&["ann", "bob"]) };
    assert_eq!(room.change(7, "ann", ann(), None), [""; 0], "it waits for all to be told of");
    room.check(Input::Sleep(woken), &["0: adopted 1-5", "0: detach ann Forbidden", "told 7"]);
    // Nothing was loaded of her, and what she asks for is not done.
    assert_eq!(room.fetch("ann", None, Direction::Forward), ["load ann"]);
    assert_eq!(room.answers("ann", vec![]), ["0: detach ann Forbidden", "0: #9 Forbidden"]);
    // Of another's removal it was not told.
    assert_eq!(room.fetch("bob", None, Direction::Forward), ["load bob", "load rights of bob"]);
    room.answers("bob", vec![]);
    assert_eq!(room.rights("bob", None), ["0: detach ann bob Forbidden", "0: #9 Forbidden"]);
}

#[test]
fn who_was_removed_while_nobody_ran_the_room_is_put_out_by_the_successor() {
    let mut room = room(Access::Open, Past::All);
    let devices = [members(&["ann"]), back(&["bob"])].concat();
    let want = ["load ann", "load rights of ann", "load bob", "load rights of bob"];
    room.check(Input::Adopt { arbiter: 0, devices }, &want);
    assert_eq!(room.rights("ann", None), [""; 0]);
    assert_eq!(room.rights("bob", None), ["0: adopted 1-5", "0: detach ann Forbidden"], "bob was a stranger before");
    // Removed behind what the store told the successor, and before it knows who is there.
    let mut room = self::room(Access::Open, Past::All);
    assert_eq!(room.change(7, "ann", ann(), None), ["told 7"]);
    room.handle(Input::Adopt { arbiter: 0, devices: members(&["ann"]) });
    assert_eq!(room.rights("ann", None), ["0: adopted 1-5", "0: detach ann Forbidden"]);
    // Nobody is left whom the room knows.
    let mut room = room_of("room", RoomOptions::default(), (1, 5), 0);
    let want = ["load ann", "0: adopted 1-5", "0: detach ann Forbidden"];
    room.check(Input::Adopt { arbiter: 0, devices: members(&["ann"]) }, &want);
}

#[test]
fn a_relay_is_told_of_strangers_who_become_members() {
    let mut room = room(Access::Open, Past::All);
    room.enter("ann", 0, None);
    assert_eq!(room.change(7, "ann", None, ann()), ["0: members ann", "told 7"]);
    // Added while nobody ran the room.
    let mut room = self::room(Access::Open, Past::All);
    room.handle(Input::Adopt { arbiter: 0, devices: back(&["ann"]) });
    assert_eq!(room.rights("ann", ann()), ["0: members ann", "0: adopted 1-5"]);
}
