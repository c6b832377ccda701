//! Rooms that sleep and are woken, on two arbiters.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use parlor_actors::{
    limits::Limits,
    members::{Asker, RoomChange, What},
    port::Clock,
    testkit::with_deliver,
};
use parlor_protocol::{
    Code, Epoch, Extensions, Kind, List, Seq,
    message::{
        Access, Detached, Direction, Durability, Error, Fetch, Goodbye, Heartbeat, Join, JoinFrom, Joined, Mark,
        Marked, Page, Position, Role, RoomPresence, Signal, SignalTo, Signaled, WatchRoom,
    },
};

use super::{Client, Engine, Frame, RoomOptions, wait_for, wait_for_census};

const IDLE_MS: u64 = 40;

fn engine(durability: Durability) -> Engine {
    Engine::start_with(durability, true, Limits { room_idle_ms: IDLE_MS, ..Limits::default() }, 100_000_000)
}

/// Ann on arbiter 0 and bob on arbiter 1, both in the room.
fn both(engine: &Engine) -> (Client, Client) {
    let (mut ann, mut bob) = (engine.connect("ann", 0), engine.connect("bob", 1));
    ann.join(JoinFrom::Tail);
    bob.join(JoinFrom::Tail);
    (ann, bob)
}

/// Waits until the room sleeps, for which time passes.
#[track_caller]
fn sleeps(engine: &Engine) {
    wait_for_census(engine, "the room sleeps", |census| {
        engine.clock.clock.advance(IDLE_MS / 4);
        (census.loaded, census.asleep) == (0, 1)
    });
}

#[track_caller]
fn change(engine: &Engine, what: What) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let name = "room".parse().unwrap();
    let change = RoomChange { name, by: Asker::Host, at: engine.clock.now().unix_ms, members_max: 9, what };
    runtime.block_on(engine.fleet.change(change)).unwrap();
}

/// Says something that is stored under the seq of its nonce, and hears it.
#[track_caller]
fn say(client: &mut Client, nonce: u64) {
    let mut heard = Vec::new();
    assert_eq!(client.insist(nonce, &mut heard), (nonce, false));
    if heard.is_empty() {
        heard.push(client.next());
    }
    assert_eq!(heard.iter().map(deliver).collect::<Vec<_>>(), [nonce]);
}

fn deliver(frame: &Frame) -> Seq {
    assert_eq!(frame.kind, Kind::Deliver);
    with_deliver(&frame.bytes, |deliver| deliver.seq)
}

#[test]
fn a_room_is_woken_by_whatever_is_wanted_of_it() {
    let engine = engine(Durability::Synced);
    let (mut ann, mut bob) = both(&engine);
    say(&mut ann, 1);
    bob.deliveries(0, 1);
    let mut wakes = 0;
    let mut woken = |what: &str| {
        wakes += 1;
        wait_for_census(&engine, what, |census| census.wakes == wakes);
        sleeps(&engine);
    };
    let extensions = Extensions::default;
    sleeps(&engine);
    say(&mut ann, 2);
    assert_eq!(bob.deliveries(1, 1).0, [2]);
    woken("by a publish");
    let (room, limit) = (bob.room, 9);
    let fetch = Fetch { room, start: None, direction: Direction::Backward, limit, extensions: extensions() };
    let asked = bob.send(&fetch);
    let answer = bob.next();
    assert_eq!((answer.kind, answer.request, answer.body::<Page<'_>>().tail), (Kind::Page, asked, 2));
    woken("by a fetch");
    let asked = bob.send(&Mark { room, read: 1, extensions: extensions() });
    let answer = bob.next();
    let Marked { read, unread, .. } = answer.body();
    assert_eq!((answer.request, read, unread), (asked, 1, 1));
    woken("by a mark");
    bob.send(&Signal { to: SignalTo::Room(room), key: 3, payload: &[7], extensions: extensions() });
    let signaled = ann.next();
    assert_eq!(signaled.body::<Signaled<'_>>().key, 3);
    woken("by a signal");
    let position = Position { room, epoch: Epoch(1), seq: 2 };
    let beat = bob.send(&Heartbeat { network: None, positions: List(vec![position]), extensions: extensions() });
    assert_eq!(bob.next().request, beat);
    // A position is no reason to wake a room: the next wake is the join's.
    let mut cem = engine.connect("cem", 1);
    assert_eq!(cem.join(JoinFrom::Newest(1)), 1);
    assert_eq!(cem.deliveries(1, 1).0, [2]);
    woken("by a join");
    // What was answered before is known, though the room slept since.
    assert_eq!(ann.insist(2, &mut Vec::new()), (2, true));
    woken("by a repeat");
    assert_eq!(ann.insist(3, &mut Vec::new()), (3, false));
    for (client, after) in [(&mut bob, 2), (&mut cem, 2)] {
        assert_eq!(client.deliveries(after, 1).0, [3]);
    }
    assert_eq!(engine.store.frames(&"room".parse().unwrap()).len(), 3);
}

#[test]
fn what_a_user_sent_is_not_unread_after_a_sleep() {
    let engine = engine(Durability::Synced);
    let (mut ann, mut bob) = both(&engine);
    say(&mut bob, 1);
    ann.deliveries(0, 1);
    say(&mut ann, 2);
    bob.deliveries(1, 1);
    sleeps(&engine);
    // Her window of answers is not loaded for this.
    let asked = ann.send(&Mark { room: ann.room, read: 0, extensions: Extensions::default() });
    let answer = ann.next();
    assert_eq!((answer.request, answer.body::<Marked<'_>>().unread), (asked, 0));
}

#[test]
fn whoever_asks_who_is_in_a_room_that_slept_is_told_of_those_who_were_there() {
    let engine = engine(Durability::Synced);
    let (mut ann, mut bob) = both(&engine);
    sleeps(&engine);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(engine.fleet.count_present("room".parse().unwrap())), Ok(2));
    sleeps(&engine);
    let watch = WatchRoom { room: ann.room, watch: true, extensions: Extensions::default() };
    let asked = ann.send(&watch);
    let answer = ann.next();
    let RoomPresence { all, count, mut came, .. } = answer.body();
    came.0.sort_unstable();
    assert_eq!((answer.request, all, count, came.0), (asked, true, 2, vec!["ann", "bob"]));
    // One of them leaves for good.
    bob.send(&Goodbye::default());
    wait_for("somebody looks whether he is gone", || {
        engine.clock.clock.advance(IDLE_MS);
        thread::sleep(Duration::from_millis(1)); // Not so fast that nobody gets to look.
        !ann.socket.ends.lock().down.is_empty()
    });
    let went = ann.next();
    let RoomPresence { all, count, went, .. } = went.body();
    assert_eq!((all, count, went.0), (false, 1, vec!["bob"]));
}

#[test]
fn a_room_without_subscribers_is_no_more_in_memory() {
    let engine = engine(Durability::Synced);
    let mut ann = engine.connect("ann", 0);
    ann.join(JoinFrom::Tail);
    ann.insist(1, &mut Vec::new());
    sleeps(&engine);
    ann.socket.change(|ends| ends.hung_up = true);
    wait_for_census(&engine, "the last one left", |census| (census.loaded, census.asleep) == (0, 0));
    let mut bob = engine.connect("bob", 1);
    assert_eq!(bob.join(JoinFrom::Newest(1)), 0);
    assert_eq!(bob.deliveries(0, 1).0, [1]);
    bob.socket.change(|ends| ends.hung_up = true);
    wait_for_census(&engine, "it is forgotten", |census| {
        engine.clock.clock.advance(IDLE_MS / 4);
        (census.loaded, census.asleep, census.sleeps) == (0, 0, 2)
    });
}

#[test]
fn a_memory_room_sleeps_only_when_nobody_is_there() {
    let engine = engine(Durability::Memory);
    let (mut ann, bob) = both(&engine);
    ann.insist(1, &mut Vec::new());
    for _ in 0..20 {
        engine.clock.clock.advance(IDLE_MS);
        wait_for_census(&engine, "it is told", |census| census.asleep == 0);
    }
    assert_eq!(ann.insist(2, &mut Vec::new()), (2, false));
    for client in [&ann, &bob] {
        client.socket.change(|ends| ends.hung_up = true);
    }
    wait_for_census(&engine, "it is forgotten", |census| {
        engine.clock.clock.advance(IDLE_MS / 4);
        census.sleeps == 1 && census.loaded == 0
    });
}

#[test]
fn who_is_banned_from_a_room_that_sleeps_is_put_out() {
    let engine = engine(Durability::Synced);
    let (mut ann, mut bob) = both(&engine);
    sleeps(&engine);
    change(&engine, What::Set(Role::Banned, vec!["bob".parse().unwrap()]));
    let told = bob.next();
    assert_eq!(told.body::<Detached<'_>>().code, Code::Forbidden);
    // So is everybody whom the room's new rules do not let in.
    wait_for_census(&engine, "the room sleeps", |census| {
        engine.clock.clock.advance(IDLE_MS / 4);
        (census.loaded, census.asleep) == (0, 1)
    });
    let options = RoomOptions { access: Access::Members, ..RoomOptions::default() };
    change(&engine, What::Configure(options));
    let told = loop {
        let frame = ann.next();
        if frame.kind != Kind::Deliver {
            break frame;
        }
    };
    assert_eq!(told.body::<Detached<'_>>().code, Code::Forbidden);
}

#[test]
fn a_room_that_sleeps_can_be_deleted() {
    let engine = engine(Durability::Synced);
    let (mut ann, mut bob) = both(&engine);
    sleeps(&engine);
    change(&engine, What::Delete);
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.next().body::<Detached<'_>>().code, Code::RoomDeleted);
    }
    wait_for_census(&engine, "it is forgotten", |census| (census.loaded, census.asleep) == (0, 0));
    assert_eq!(ann.join(JoinFrom::Tail), 0, "a new one");
}

/// Joins in whatever moment, and again until it is let in; then hangs up.
fn look_in(engine: &Engine, at: usize) {
    let mut client = engine.connect(&format!("guest {at}"), at % 2);
    loop {
        let asked = client.send(&Join { room: "room", from: JoinFrom::Newest(3), extensions: Extensions::default() });
        let answer = client.next();
        assert_eq!(answer.request, asked);
        if answer.kind == Kind::Joined {
            let Joined { cursor, tail, .. } = answer.body();
            client.deliveries(cursor, tail - cursor);
            return client.socket.change(|ends| ends.hung_up = true);
        }
        assert_eq!(answer.body::<Error<'_>>().code, Code::RoomUnavailable);
    }
}

/// Says so many messages, with pauses after which the room may sleep or not; returns their seqs and what it heard.
fn talk(mut client: Client, from: u64, many: u64) -> (Vec<Seq>, Vec<Frame>, Client) {
    let (mut seqs, mut heard) = (Vec::new(), Vec::new());
    for nonce in from..from + many {
        let (seq, again) = client.insist(nonce, &mut heard);
        assert!(!again || !seqs.contains(&seq), "an ack of another message");
        seqs.push(seq);
        let pause_us = if nonce % 3 == 0 { 24_000 } else { nonce * 7_919 % 5_000 };
        thread::sleep(Duration::from_micros(pause_us));
    }
    (seqs, heard, client)
}

#[test]
fn nothing_is_lost_or_doubled_in_the_very_moment() {
    const MANY: u64 = 150;
    let limits = Limits { room_idle_ms: 2, ..Limits::default() };
    let engine = Engine::start_with(Durability::Synced, true, limits, 100_000_000);
    let (ann, bob) = both(&engine);
    let (over, engine) = (AtomicBool::new(false), &engine);
    let (said, heard) = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(SeqCst) {
                thread::sleep(Duration::from_millis(1));
                engine.clock.clock.advance(1);
            }
        });
        let guests = scope.spawn(|| {
            for at in 0..100 {
                look_in(engine, at);
                thread::sleep(Duration::from_micros(at as u64 * 104_729 % 30_000));
            }
        });
        let talks = [(ann, 1), (bob, 1_001)].map(|(client, from)| scope.spawn(move || talk(client, from, MANY)));
        let mut said = Vec::new();
        let heard = talks.map(|talk| {
            let (seqs, heard, client) = talk.join().unwrap();
            said.extend(seqs);
            (heard, client)
        });
        guests.join().unwrap();
        over.store(true, SeqCst);
        (said, heard)
    });
    let mut seqs = said;
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=2 * MANY).collect::<Vec<_>>());
    for (frames, mut client) in heard {
        let mut heard: Vec<Seq> = frames.iter().filter(|frame| frame.kind == Kind::Deliver).map(deliver).collect();
        while heard.len() < seqs.len() {
            heard.push(deliver(&client.next()));
        }
        assert_eq!(heard, seqs, "a hole, a repeat or another order");
    }
    assert_eq!(engine.store.frames(&"room".parse().unwrap()).len(), seqs.len());
    wait_for_census(engine, "it was met", |census| census.sleeps > 10 && census.wakes > 10);
    wait_for("the last guest is gone", || engine.fleet.shared().router.conns("guest 99").is_empty());
}
