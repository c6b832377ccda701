//! Subscribers of rooms that sleep.

use super::*;
use crate::{
    channel::{gathering, state::Input},
    message::{Fetch, MarkRead, Signal},
};
use parlor_protocol::message::Direction;

fn fetch(conn: Conn, request: u32) -> Input {
    let device = key("ann");
    Input::Fetch(Fetch { conn, request, device, start: None, direction: Direction::Backward, limit: 1 })
}

fn mark(conn: Conn, request: u32) -> Input {
    Input::Mark(MarkRead { conn, request, device: key("ann"), read: 4 })
}

fn detached(user: &str) -> Input {
    Input::Detached { arbiter: 1, device: key(user) }
}

fn names(inputs: impl IntoIterator<Item = Input>) -> Vec<&'static str> {
    let name = |input| match input {
        Input::Fetch(_) => "fetch",
        Input::Mark(_) => "mark",
        Input::Pull { .. } => "pull",
        Input::Detached { .. } => "detached",
        Input::Signal(_) => "signal",
        _ => "other",
    };
    inputs.into_iter().map(name).collect()
}

impl Relay {
    /// An input that has to wait.
    #[track_caller]
    fn waits(&mut self, input: Input, want: &[&str]) {
        assert!(self.state.pass(ROOM, input).is_none());
        assert_eq!(self.effects(), want);
    }

    /// What a leave does.
    fn leaves(&mut self, conn: Conn, user: &str) -> Vec<String> {
        self.state.on_leave(conn, ROOM);
        assert_eq!(self.effects(), [format!("detached {user}")]);
        assert!(self.state.pass(ROOM, detached(user)).is_none());
        self.effects()
    }
}

#[test]
fn a_room_that_is_awake_is_told_everything_at_once() {
    let mut relay = relay();
    let ann = relay.live("ann", 4);
    assert!(relay.state.pass(ROOM, fetch(ann, 7)).is_some());
    relay.state.on_let_go(RoomNumber(9));
    assert!(relay.state.pass(RoomNumber(9), fetch(ann, 7)).is_some(), "nobody here is in that room");
    assert!(relay.state.on_awake(RoomNumber(9)).is_none());
    assert!(relay.state.on_woken(RoomNumber(9)).is_none());
}

#[test]
fn a_channel_that_stays_gets_all_that_waited_in_order() {
    let mut relay = relay();
    let (ann, bob) = (relay.live("ann", 4), relay.live("bob", 4));
    relay.state.on_let_go(ROOM);
    relay.waits(fetch(ann, 7), &["wake 1"]);
    assert_eq!(relay.leaves(bob, "bob"), [""; 0]);
    relay.waits(Input::Pull { conn: ann, after: 4 }, &[]);
    // What it commits meanwhile is delivered.
    relay.news(batch(5, 5, 10), &[]);
    assert_eq!(relay.reads(ann), "5");
    assert_eq!(names(relay.state.on_awake(ROOM).unwrap()), ["fetch", "detached", "pull"]);
    assert!(relay.state.pass(ROOM, fetch(ann, 8)).is_some());
}

#[test]
fn subscribers_stay_and_the_next_channel_is_told_of_them() {
    let mut relay = relay();
    let (ann, bob) = (relay.live("ann", 4), relay.live("bob", 4));
    relay.state.on_let_go(ROOM);
    assert_eq!(relay.leaves(bob, "bob"), [""; 0]);
    relay.state.on_asleep(ROOM);
    assert_eq!(relay.effects(), [""; 0]);
    relay.waits(Input::Pull { conn: ann, after: 4 }, &["wake 1"]);
    relay.begin(ann, 7, Asks::Mark);
    relay.waits(mark(ann, 7), &[]);
    // Another arbiter's subscribers were faster.
    relay.news(batch(5, 5, 10), &[]);
    assert_eq!(relay.reads(ann), "");
    let (devices, waited) = relay.state.on_woken(ROOM).unwrap();
    assert_eq!(
        (devices, names(waited)),
        (vec![Returning { device: key("ann"), member: false, met: Mark { seq: 4, count: 2 } }], vec!["mark"])
    );
    relay.news(adopted(&[(3, 1)], 1, 5), &["pull 0 after 4"]);
    assert!(relay.state.pass(ROOM, fetch(ann, 8)).is_some());
}

#[test]
fn what_waits_is_refused_for_now_if_the_room_cannot_be_woken() {
    let mut relay = relay();
    let ann = relay.live("ann", 4);
    relay.state.on_let_go(ROOM);
    relay.state.on_asleep(ROOM);
    for (request, asks) in [(6, Asks::Fetch), (7, Asks::Mark)] {
        relay.begin(ann, request, asks);
    }
    relay.waits(fetch(ann, 6), &["wake 1"]);
    relay.waits(mark(ann, 7), &[]);
    let signal = Signal { conn: Some(ann), request: 9, device: key("ann"), key: 1, frame: Bytes::new() };
    relay.waits(Input::Signal(signal.clone()), &[]);
    relay.waits(Input::Signal(Signal { request: 0, ..signal }), &[]);
    relay.state.on_not_woken(ROOM);
    assert_eq!(relay.effects(), ["answered 0", "answered 0"]);
    assert_eq!(relay.reads(ann), "#6 RoomUnavailable #7 RoomUnavailable #9 RoomUnavailable");
    relay.waits(fetch(ann, 8), &["wake 1"]);
}

#[test]
fn who_wants_to_watch_a_room_that_cannot_be_woken_is_told_so() {
    let mut relay = relay();
    let ann = relay.live("ann", 4);
    relay.state.on_let_go(ROOM);
    relay.state.on_asleep(ROOM);
    relay.begin(ann, 7, Asks::Rooms);
    let watch = gathering::Input::Watch { conn: ann, request: 7, device: key("ann") };
    relay.waits(Input::Presence(watch), &["wake 1"]);
    relay.state.on_not_woken(ROOM);
    assert_eq!(relay.effects(), ["answered 0"]);
    assert_eq!(relay.reads(ann), "#7 RoomUnavailable");
}

#[test]
fn a_pull_is_tried_again_if_the_room_cannot_be_woken() {
    let mut relay = relay();
    let ann = relay.connect("ann");
    relay.attach(ann, "ann", 3, 5);
    relay.state.on_let_go(ROOM);
    relay.state.on_asleep(ROOM);
    relay.waits(Input::Pull { conn: ann, after: 3 }, &["wake 1"]);
    relay.state.on_not_woken(ROOM);
    relay.tick(200, &["pull 0 after 3"]);
}

#[test]
fn a_room_that_sleeps_is_forgotten_with_its_last_subscriber() {
    let mut relay = relay();
    let (ann, bob) = (relay.live("ann", 4), relay.live("bob", 4));
    relay.state.on_let_go(ROOM);
    relay.state.on_asleep(ROOM);
    assert_eq!(relay.leaves(ann, "ann"), [""; 0]);
    relay.begin(bob, 7, Asks::Fetch);
    relay.waits(fetch(bob, 7), &["wake 1"]);
    assert_eq!(relay.leaves(bob, "bob"), ["answered 1", "1 forgotten"]);
    assert_eq!(relay.reads(bob), "#7 RoomUnavailable");
    assert!(relay.state.on_woken(ROOM).is_none());
    // And one whose last subscriber leaves while it falls asleep.
    let cem = relay.live("cem", 4);
    relay.state.on_let_go(ROOM);
    assert_eq!(relay.leaves(cem, "cem"), [""; 0]);
    relay.state.on_asleep(ROOM);
    assert_eq!(relay.effects(), ["1 forgotten"]);
}

#[test]
fn a_channel_that_dies_or_is_deleted_instead_answers_what_waits() {
    for gone in [false, true] {
        let mut relay = relay();
        let ann = relay.live("ann", 4);
        relay.state.on_let_go(ROOM);
        relay.begin(ann, 7, Asks::Publish(5));
        relay.waits(fetch(ann, 7), &["wake 1"]);
        if gone {
            relay.state.on_room_gone(ROOM);
            assert_eq!(relay.reads(ann), "#7 RoomDeleted Detached");
        } else {
            relay.state.on_channel_down(ROOM);
            assert_eq!(relay.reads(ann), "#7 OutcomeUnknown");
        }
        relay.effects();
        assert!(relay.state.pass(ROOM, fetch(ann, 8)).is_some());
    }
}

#[test]
fn no_more_wait_for_a_room_than_may() {
    let mut relay =
        Relay { state: State::new(1, Arc::new(Limits { waiters_per_room_max: 1, ..Limits::default() })), now: 0 };
    let ann = relay.live("ann", 4);
    relay.state.on_let_go(ROOM);
    relay.state.on_asleep(ROOM);
    relay.waits(mark(ann, 7), &["wake 1"]);
    relay.begin(ann, 8, Asks::Fetch);
    relay.waits(fetch(ann, 8), &["answered 0"]);
    assert_eq!(relay.reads(ann), "#8 RoomUnavailable");
}

#[test]
fn a_position_that_rose_wakes_nobody_and_is_told_when_the_room_is_woken() {
    let has = |user: &str, seq| Input::Delivered { user: user.parse().unwrap(), seq };
    let told = |inputs: VecDeque<Input>| {
        let one = |input| match input {
            Input::Delivered { user, seq } => format!("{user} has {seq}"),
            input => names([input])[0].to_owned(),
        };
        inputs.into_iter().map(one).collect::<Vec<_>>()
    };
    let mut relay = relay();
    let ann = relay.live("ann", 4);
    relay.live("bob", 4);
    relay.state.on_let_go(ROOM);
    relay.waits(has("ann", 2), &[]);
    relay.state.on_asleep(ROOM);
    for (user, seq) in [("bob", 4), ("ann", 4), ("ann", 3)] {
        relay.waits(has(user, seq), &[]);
    }
    relay.waits(fetch(ann, 7), &["wake 1"]);
    let (_, waited) = relay.state.on_woken(ROOM).unwrap();
    assert_eq!(told(waited), ["fetch", "ann has 4", "bob has 4"]);
    // Or when its channel stays. As many as may wait are kept.
    relay.state.limits = Arc::new(Limits { waiters_per_room_max: 1, ..Limits::default() });
    relay.state.on_let_go(ROOM);
    relay.waits(has("ann", 4), &[]);
    relay.waits(has("bob", 4), &[]);
    assert_eq!(told(relay.state.on_awake(ROOM).unwrap()), ["ann has 4"]);
}
