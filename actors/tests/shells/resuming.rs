//! Sessions whose connection breaks, and that go on over the next one, on whichever arbiter.

use parlor_actors::limits::Limits;
use parlor_protocol::{
    Code, Epoch, Extensions, Kind, List, RoomNumber,
    message::{Detached, Durability, Heartbeat, HeartbeatAck, JoinFrom, Joined, Network, Position, Resume, Welcome},
};

use super::{Client, Engine, Frame, wait_for};

const TOKEN: [u8; 16] = [1; 16];

fn is_resumed(frame: &Frame) -> bool {
    assert_eq!(frame.kind, Kind::Welcome);
    let welcome: Welcome<'_> = frame.body();
    assert!(!welcome.resumed || welcome.token.0 == TOKEN, "the session keeps its token");
    welcome.resumed
}

/// Ann over a new connection, whose hello takes her session up.
fn again(engine: &Engine, arbiter: usize, attempt: u64) -> (Client, Frame) {
    engine.hello("ann", arbiter, [9; 16], Some((TOKEN, attempt)))
}

fn resume(client: &mut Client, room: RoomNumber, epoch: Epoch, seq: u64) -> Frame {
    let positions = List(vec![Position { room, epoch, seq }]);
    let request = client.send(&Resume { positions, extensions: Extensions::default() });
    let answer = client.next();
    assert_eq!(answer.request, request);
    client.room = room;
    answer
}

fn breaks(engine: &Engine, client: &Client) {
    client.socket.change(|ends| ends.hung_up = true);
    let router = &engine.fleet.shared().router;
    wait_for("her connection is gone", || router.conns("ann").is_empty());
    assert_eq!(router.sessions("ann").len(), 1, "others see her online");
}

#[test]
fn a_session_goes_on_where_its_client_stands() {
    for arbiter in [0, 1] {
        let engine = Engine::start(Durability::Synced, true);
        let (mut ann, welcome) = engine.hello("ann", 0, TOKEN, None);
        assert!(!is_resumed(&welcome));
        let mut bob = engine.connect("bob", 1);
        ann.join(JoinFrom::Tail);
        bob.join(JoinFrom::Tail);
        bob.insist(1, &mut Vec::new());
        ann.deliveries(0, 1);
        breaks(&engine, &ann);
        for nonce in 2..=4 {
            bob.insist(nonce, &mut Vec::new());
        }
        let (mut later, welcome) = again(&engine, arbiter, 2);
        assert!(is_resumed(&welcome));
        let answer = resume(&mut later, ann.room, Epoch(1), 1);
        let joined: Joined<'_> = answer.body();
        assert_eq!((joined.tail, joined.cursor), (4, 1));
        assert_eq!(later.deliveries(1, 3).0, [2, 3, 4]);
        bob.insist(5, &mut Vec::new());
        assert_eq!(later.deliveries(4, 1).0, [5]);
        assert_eq!(engine.fleet.shared().router.sessions("ann").len(), 1);
    }
}

#[test]
fn a_session_is_taken_from_a_connection_that_still_stands() {
    let engine = Engine::start(Durability::Synced, true);
    let (mut ann, _) = engine.hello("ann", 0, TOKEN, None);
    ann.join(JoinFrom::Tail);
    let (mut later, welcome) = again(&engine, 1, 2);
    assert!(is_resumed(&welcome));
    ann.until_closed(Code::Superseded);
    assert_eq!(resume(&mut later, ann.room, Epoch(1), 0).kind, Kind::Joined);
    assert_eq!(later.insist(1, &mut Vec::new()), (1, false));
    // An attempt that comes late.
    let (_, answer) = again(&engine, 0, 2);
    assert_eq!(answer.kind, Kind::Close);
    assert_eq!(later.insist(2, &mut Vec::new()), (2, false), "it changed nothing");
}

#[test]
fn a_session_that_is_unknown_is_a_new_one() {
    let engine = Engine::start(Durability::Synced, true);
    let (mut ann, welcome) = again(&engine, 0, 7);
    assert!(!is_resumed(&welcome));
    let answer = resume(&mut ann, RoomNumber(1), Epoch(1), 1);
    let detached: Detached<'_> = answer.body();
    assert_eq!((detached.code, detached.cursor), (Code::NotJoined, 1));
    ann.join(JoinFrom::Tail);
    breaks(&engine, &ann);
    engine.clock.clock.advance(3_300);
    wait_for("her lease has ended", || engine.fleet.shared().router.sessions("ann").is_empty());
    let (_, welcome) = again(&engine, 0, 8);
    assert!(!is_resumed(&welcome));
}

#[test]
fn a_position_of_another_epoch_is_told_the_gap() {
    let engine = Engine::start(Durability::Synced, true);
    let (mut ann, _) = engine.hello("ann", 0, TOKEN, None);
    ann.join(JoinFrom::Tail);
    ann.insist(1, &mut Vec::new());
    breaks(&engine, &ann);
    let (mut later, _) = again(&engine, 0, 2);
    assert_eq!(resume(&mut later, ann.room, Epoch(9), 5).kind, Kind::Joined);
    assert_eq!(later.next().kind, Kind::Gap);
}

#[test]
fn a_lease_is_as_long_as_the_newest_grant_has_it() {
    let engine = Engine::start_with(Durability::Synced, true, Limits::default(), 60_000);
    let mut ann = engine.connect("ann", 0);
    let router = &engine.fleet.shared().router;
    wait_for("she is online", || router.sessions("ann").len() == 1);
    ann.send(&Heartbeat {
        network: Some(Network::Wired),
        positions: List::default(),
        extensions: Extensions::default(),
    });
    let ack = ann.next();
    assert_eq!(ack.body::<HeartbeatAck>().grant_ms, 10_000);
    // Three grants of ten seconds and a tenth of grace each. The hello was granted a minute.
    engine.clock.clock.advance(33_000);
    ann.until_closed(Code::LeaseExpired);
    wait_for("she is offline", || router.sessions("ann").is_empty());
}
