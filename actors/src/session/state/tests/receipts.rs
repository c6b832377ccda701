//! Marks and signals of a client.

use parlor_protocol::message::{FetchReaders, Mark, SIGNAL_BYTES_MAX, Signal, SignalTo};

use super::*;

fn signal<'a>(to: SignalTo<'a>, payload: &'a [u8]) -> Signal<'a> {
    Signal { to, key: 9, payload, extensions: Extensions::default() }
}

const ROOM: SignalTo<'static> = SignalTo::Room(RoomNumber(7));
const BOB: SignalTo<'static> = SignalTo::User("bob");

#[test]
fn marks_and_questions_go_to_joined_rooms_only() {
    let (mut session, room, extensions) = (session(), RoomNumber(7), Extensions::default());
    session.frame(5, &Mark { room, read: 3, extensions: extensions.clone() }, &["#5 NotJoined"]);
    session.frame(6, &FetchReaders { room, seq: 3, extensions: extensions.clone() }, &["#6 NotJoined"]);
    let mut session = session.joined();
    session.frame(
        5,
        &Mark { room, read: 3, extensions: extensions.clone() },
        &["#5 begins to Mark", "#5 to 7: read 3"],
    );
    session.frame(6, &FetchReaders { room, seq: 3, extensions }, &["#6 begins to Fetch", "#6 to 7: who read 3"]);
}

#[test]
fn a_signal_begins_no_request_and_is_refused_only_under_a_number() {
    let mut session = session();
    session.frame(5, &signal(ROOM, b""), &["#5 NotJoined"]);
    session.frame(0, &signal(ROOM, b""), &[]);
    let mut session = session.joined();
    session.frame(5, &signal(ROOM, b""), &["to 7: signal 9"]);
    session.frame(0, &signal(ROOM, &[1; SIGNAL_BYTES_MAX]), &["to 7: signal 9"]);
    session.frame(5, &signal(ROOM, &[1; SIGNAL_BYTES_MAX + 1]), &["#5 TooLarge"]);
    session.frame(5, &signal(BOB, b""), &["to bob: signal 9"]);
    session.frame(5, &signal(SignalTo::User(""), b""), &["#5 InvalidName"]);
    session.frame(0, &signal(SignalTo::User(""), b""), &[]);
}

#[test]
fn signals_beyond_the_rate_are_dropped_and_counted() {
    // 20 in a second, 40 after a rest.
    let mut session = session().joined();
    session.now.mono_ms = 10_000;
    for _ in 0..40 {
        session.frame(0, &signal(ROOM, b""), &["to 7: signal 9"]);
    }
    session.frame(5, &signal(ROOM, b""), &["signal dropped"]);
    session.frame(5, &signal(BOB, b""), &["signal dropped"]);
    session.now.mono_ms += 49;
    session.frame(0, &signal(ROOM, b""), &["signal dropped"]);
    session.now.mono_ms += 1;
    session.frame(0, &signal(ROOM, b""), &["to 7: signal 9"]);
    session.frame(0, &signal(ROOM, b""), &["signal dropped"]);
    session.now.mono_ms += 1_000;
    for _ in 0..20 {
        session.frame(0, &signal(ROOM, b""), &["to 7: signal 9"]);
    }
    session.frame(0, &signal(ROOM, b""), &["signal dropped"]);
}

#[test]
fn signals_can_be_switched_off() {
    let with = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        let heartbeat = Heartbeat::new(BeatIntervals::default(), Network::Wifi, 0);
        let device = DeviceKey { user: "ann".parse().unwrap(), tag: DeviceTag(1) };
        let conn = Conn { arbiter: 0, slot: 0, serial: 1 };
        let state = State::new(conn, device, TierNumber(0), heartbeat, &limits, limits.uploads(), Now::default());
        Session { state, now: Now::default() }.joined()
    };
    let mut rooms_only = with(|limits| limits.signals_to_users = false);
    rooms_only.frame(5, &signal(BOB, b""), &["#5 Forbidden"]);
    rooms_only.frame(5, &signal(ROOM, b""), &["to 7: signal 9"]);
    let mut none = with(|limits| limits.signals_per_second_max = 0);
    none.frame(5, &signal(ROOM, b""), &["#5 Unsupported"]);
}
