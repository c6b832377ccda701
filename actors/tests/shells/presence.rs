//! Presence by the actors themselves, on two arbiters.

use std::time::Duration;

use parlor_actors::limits::Limits;
use parlor_protocol::{
    Code, Epoch, Extensions, Kind, List,
    message::{
        Durability, Error, Goodbye, Heartbeat, JoinFrom, Position, Presence, QueryPresence, Resume, RoomPresence,
        WatchPresence, WatchRoom,
    },
};

use super::{Client, Engine, Frame, wait_for};

/// How often actors are let look at the clock.
const LOOK: Duration = Duration::from_millis(100);

fn start(change: impl FnOnce(&mut Limits)) -> Engine {
    let mut limits = Limits { presence_window_ms: 50, ..Limits::default() };
    change(&mut limits);
    // The clock is moved on a lot, and nobody beats.
    Engine::start_with(Durability::Synced, true, limits, 100_000_000)
}

fn watch(client: &mut Client, users: &[&str]) -> Frame {
    let (add, extensions) = (List(users.to_vec()), Extensions::default());
    let request = client.send(&WatchPresence { add, remove: List::default(), extensions });
    let answer = client.next();
    assert_eq!(answer.request, request);
    answer
}

/// Of each user whether he is online.
fn online(frame: &Frame) -> Vec<bool> {
    let presence: Presence<'_> = frame.body();
    presence.users.0.iter().map(|user| user.online).collect()
}

/// The next frame about presence. Where the actors look at the clock, it is moved on for them, again and again: what they
/// were told last may have been later than that.
fn told(engine: &Engine, client: &mut Client) -> Frame {
    loop {
        wait_for("something is told", || {
            engine.clock.clock.advance(60);
            let mut ends = client.socket.ends.lock();
            !ends.down.is_empty() || !client.socket.changed.wait_for(&mut ends, LOOK).timed_out()
        });
        let frame = client.next();
        if matches!(frame.kind, Kind::Presence | Kind::RoomPresence) {
            return frame;
        }
    }
}

#[test]
fn a_change_is_told_on_either_arbiter_and_a_resumption_is_none() {
    for arbiter in [0, 1] {
        let engine = start(|_| {});
        let mut ann = engine.connect("ann", arbiter);
        // Nobody's welcome waits for that.
        wait_for("she is online", || engine.fleet.shared().router.users_online() == 1);
        assert_eq!(online(&watch(&mut ann, &["bob", "bob", "ann"])), [false, false, true]);
        let (bob, _) = engine.hello("bob", 0, [1; 16], None);
        assert_eq!(online(&told(&engine, &mut ann)), [true]);
        bob.socket.change(|ends| ends.hung_up = true);
        assert_eq!(online(&told(&engine, &mut ann)), [true], "he has no connection, and is online");
        let (mut bob, _) = engine.hello("bob", 1, [2; 16], Some(([1; 16], 2)));
        assert_eq!(online(&told(&engine, &mut ann)), [true]);
        let beats = engine.fleet.shared().router.sessions("bob")[0].beats;
        assert!(beats[1] > 0 && beats[2] == 0, "both hellos count: {beats:?}");
        bob.send(&Goodbye::default());
        assert_eq!(online(&told(&engine, &mut ann)), [false]);
    }
}

#[test]
fn what_a_watcher_held_is_given_back_when_it_ends() {
    let engine = start(|limits| {
        (limits.presence_users_per_session_max, limits.presence_watches_max) = (3, 4);
    });
    let (mut ann, mut bob) = (engine.connect("ann", 0), engine.connect("bob", 1));
    let refusal = |frame: Frame| frame.body::<Error<'_>>().code;
    assert_eq!(refusal(watch(&mut ann, &["a", "b", "c", "d"])), Code::TooManyWatched);
    watch(&mut ann, &["a", "b", "c"]);
    assert_eq!(refusal(watch(&mut bob, &["a", "b"])), Code::Busy);
    watch(&mut bob, &["a"]);
    let router = &engine.fleet.shared().router;
    assert_eq!(router.watches(), 4);
    ann.socket.change(|ends| ends.hung_up = true);
    wait_for("her watches are given back", || router.watches() == 1);
    watch(&mut bob, &["b", "c"]);
}

#[test]
fn who_is_in_a_room_survives_its_channel_and_a_broken_connection() {
    let engine = start(|_| {});
    let mut ann = engine.connect("ann", 0);
    let (mut bob, _) = engine.hello("bob", 1, [1; 16], None);
    ann.join(JoinFrom::Tail);
    bob.join(JoinFrom::Tail);
    let request = ann.send(&WatchRoom { room: ann.room, watch: true, extensions: Extensions::default() });
    let answer = ann.next();
    assert_eq!((answer.kind, answer.request), (Kind::RoomPresence, request));
    assert_eq!(answer.body::<RoomPresence<'_>>().count, 2);
    // Its channel dies: the next one tells all of it again.
    engine.store.faults(|faults| faults.overstate_next_append = true);
    let mut others = Vec::new();
    bob.insist(1, &mut others);
    let all = told(&engine, &mut ann);
    let all: RoomPresence<'_> = all.body();
    assert_eq!((all.all, all.count, all.came.0.len()), (true, 2, 2));
    // Bob's connection breaks, and he comes back: nothing is told of that. Then he leaves for good.
    bob.socket.change(|ends| ends.hung_up = true);
    let router = &engine.fleet.shared().router;
    wait_for("his connection is gone", || router.conns("bob").is_empty());
    let (mut later, _) = engine.hello("bob", 0, [2; 16], Some(([1; 16], 2)));
    let positions = List(vec![Position { room: bob.room, epoch: Epoch(1), seq: 1 }]);
    later.send(&Resume { positions, extensions: Extensions::default() });
    assert_eq!(later.next().kind, Kind::Joined);
    later.send(&Goodbye::default());
    let went = told(&engine, &mut ann);
    let went: RoomPresence<'_> = went.body();
    assert_eq!((went.all, went.count, went.went.0.as_slice()), (false, 1, &["bob"][..]));
}

#[test]
fn a_client_that_does_not_read_gets_the_newest_state_when_it_does() {
    let engine = start(|limits| limits.presence_outbound_bytes_max = 0);
    let mut ann = engine.connect("ann", 0);
    watch(&mut ann, &["bob"]);
    ann.socket.change(|ends| ends.full = true);
    // Something waits for her, so that nothing of presence does.
    ann.send(&Heartbeat { network: None, positions: List::default(), extensions: Extensions::default() });
    let router = &engine.fleet.shared().router;
    for round in 1..=3 {
        let (mut bob, _) = engine.hello("bob", 1, [round; 16], None);
        wait_for("he is online", || router.users_online() == 2);
        engine.clock.clock.advance(100);
        if round < 3 {
            bob.send(&Goodbye::default());
            wait_for("he is offline", || router.users_online() == 1);
            engine.clock.clock.advance(100);
        }
    }
    ann.socket.change(|ends| ends.full = false);
    assert_eq!(ann.next().kind, Kind::HeartbeatAck);
    assert_eq!(online(&told(&engine, &mut ann)), [true]);
    // Nothing more came: this is next.
    let (users, extensions) = (List(vec!["bob"]), Extensions::default());
    let request = ann.send(&QueryPresence { users, extensions });
    assert_eq!(ann.next().request, request);
}
