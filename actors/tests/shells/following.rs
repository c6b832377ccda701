//! Sessions that follow their user, and what only time makes go on, over wires that notice the end of their client and
//! others.

use std::collections::BTreeSet;

use parlor_actors::{
    limits::Limits,
    members::{Asker, RoomChange, What},
    port::{Clock, RoomOptions, Store},
};
use parlor_protocol::{
    Code, Extensions, Kind, List,
    message::{
        Attached, ContentType, Durability, Follow, Heartbeat, JoinFrom, Part, ROOMS_PER_PAGE_MAX, RecordKind, Role,
    },
};

use super::{Client, Engine, Socket, wait_for};

/// Makes a room of ann's.
fn make(engine: &Engine, room: &str) {
    let what = What::Create {
        options: RoomOptions::default(),
        members: vec![("ann".parse().unwrap(), Role::Member)],
        or_find: false,
    };
    let (name, at) = (room.parse().unwrap(), engine.clock.now().unix_ms);
    let change = RoomChange { name, by: Asker::Host, at, members_max: 9, what };
    engine.store.change(change, Box::new(|made| drop(made.unwrap().unwrap())));
    engine.store.run();
}

/// Asks for all of ann's rooms, which the store is about to list.
fn follow(engine: &Engine, ann: &mut Client) {
    let request = Follow { positions: List::default(), newest: 0, extensions: Extensions::default() };
    ann.send(&request);
    wait_for("her rooms are asked for", || engine.store.reading() > 0);
}

/// Ann, over a wire that notices her end, or over one that may not.
fn connect(engine: &Engine, near: bool) -> Client {
    let socket = Socket { near, ..Socket::default() };
    let (client, welcome) = engine.hello_over(socket, "ann", 0, [0; 16], None);
    assert_eq!(welcome.kind, Kind::Welcome);
    client
}

fn hears(client: &Client) -> bool {
    !client.socket.ends.lock().down.is_empty()
}

#[test]
fn a_room_that_is_talked_in_while_a_followers_rooms_are_listed_is_attached() {
    let mut engine = Engine::start(Durability::Synced, false);
    // The quietest one comes first, so that it would be on the second page of a list.
    let rooms = ROOMS_PER_PAGE_MAX + 1;
    make(&engine, "room");
    (1..rooms).for_each(|number| make(&engine, &format!("room {number}")));
    let (mut ann, mut bob) = (engine.connect("ann", 0), engine.connect("bob", 1));
    engine.served = Some(engine.store.serve());
    bob.join(JoinFrom::Tail);
    engine.served = None;
    follow(&engine, &mut ann);
    while engine.store.step_reader() {}
    engine.clock.clock.advance(1);
    bob.publish(1);
    wait_for("the message is stored", || {
        engine.store.step(usize::MAX);
        hears(&bob)
    });
    engine.served = Some(engine.store.serve());
    let mut attached = BTreeSet::new();
    loop {
        let frame = ann.next();
        match frame.kind {
            Kind::Attached => assert!(attached.insert(frame.body::<Attached<'_>>().room), "it is attached once"),
            Kind::Done => break,
            _ => {}
        }
    }
    assert_eq!(attached.len(), rooms);
}

#[test]
fn a_room_that_is_refused_for_now_is_attached_later_over_every_wire() {
    for near in [false, true] {
        let engine = Engine::start_with(Durability::Synced, false, Limits::default(), 100_000_000);
        make(&engine, "room");
        let mut ann = connect(&engine, near);
        follow(&engine, &mut ann);
        while engine.store.step_reader() {}
        engine.store.faults(|faults| faults.busy_read_one_in = 1);
        wait_for("the room asks about her", || {
            engine.store.step(usize::MAX);
            engine.store.reading() > 0
        });
        while engine.store.step_reader() {}
        engine.store.faults(|faults| faults.busy_read_one_in = 0);
        assert!(!hears(&ann), "the room is refused");
        wait_for("it is tried again", || {
            engine.clock.clock.advance(1);
            engine.store.run();
            hears(&ann)
        });
        assert_eq!(ann.next().kind, Kind::Attached);
    }
}

#[test]
fn parts_of_which_no_more_come_are_forgotten_where_no_lease_ends() {
    let engine = Engine::start(Durability::Synced, true);
    let mut ann = connect(&engine, true);
    ann.join(JoinFrom::Tail);
    ann.send(&Part {
        room: ann.room,
        nonce: 1,
        number: 0,
        parts: 2,
        total_bytes: 8,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        lifetime_ms: None,
        flags: 0,
        content_type: ContentType::TEXT,
        payload: b"half",
        extensions: Extensions::default(),
    });
    assert_eq!(ann.next().kind, Kind::PartTaken);
    let shared = engine.fleet.shared();
    assert_eq!(shared.uploads.records(), 1);
    engine.clock.clock.advance(shared.limits.upload_ms);
    wait_for("the part is forgotten", || shared.uploads.records() == 0);
    // Three grants of a second are long over.
    let beat = ann.send(&Heartbeat { network: None, positions: List::default(), extensions: Extensions::default() });
    assert_eq!(ann.next().request, beat);
}

#[test]
fn a_client_that_is_gone_while_it_waits_to_follow_loses_its_lease() {
    let mut engine = Engine::start(Durability::Synced, false);
    make(&engine, "room");
    let mut ann = connect(&engine, false);
    follow(&engine, &mut ann);
    // Its room cannot be loaded, and is tried again and again.
    engine.store.faults(|faults| faults.busy_load_one_in = 1);
    while engine.store.step_reader() {}
    wait_for("her room is tried", || engine.store.queued() > 0);
    engine.served = Some(engine.store.serve());
    let router = &engine.fleet.shared().router;
    assert_eq!(router.sessions("ann").len(), 1);
    // Three grants of a second and a tenth.
    engine.clock.clock.advance(3_300);
    ann.until_closed(Code::LeaseExpired);
    wait_for("she is offline", || router.sessions("ann").is_empty());
}
