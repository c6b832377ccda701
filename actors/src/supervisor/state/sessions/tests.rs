//! Who takes whose place, each step written as a line of text. Sessions are words, connections numbers.

use parlor_protocol::message::Network;

use super::*;
use crate::{
    port::Now,
    router::Presence,
    session::heartbeat::{BeatIntervals, Heartbeat},
};

struct Lab {
    sessions: Sessions<&'static str>,
    now: Now,
}

fn lab(policy: SessionPolicy) -> Lab {
    let limits = Limits { sessions_away_max: 4, sessions_away_per_user_max: 2, ..Limits::default() };
    Lab { sessions: Sessions::new(Arc::new(limits), policy), now: Now { unix_ms: 1_000, mono_ms: 0 } }
}

fn conn(serial: u64) -> Conn {
    Conn { arbiter: 0, slot: 0, serial }
}

fn token(of: u8) -> Token {
    Token([of; 16])
}

/// A hello of ann's phone over this connection, which offers `fresh` as a token.
struct Hello {
    conn: u64,
    fresh: u8,
    resume: Option<u8>,
    attempt: u64,
    device: u64,
    class: DeviceClass,
}

fn hello(conn: u64, resume: Option<u8>, attempt: u64) -> Hello {
    Hello { conn, fresh: u8::try_from(conn).unwrap(), resume, attempt, device: 1, class: DeviceClass::Mobile }
}

impl Lab {
    #[track_caller]
    fn told(&mut self, want: &[&str]) {
        let mut lines = Vec::new();
        while let Some(told) = self.sessions.poll() {
            lines.push(match told {
                Told::Begin(session, None) => format!("{session} begins anew"),
                Told::Begin(session, Some(_)) => format!("{session} goes on"),
                Told::End(session, code) => format!("{session} {}", code.name().unwrap()),
                Told::PutOff(session, ms) => format!("{session} put off for {ms} ms"),
                Told::Kick(session, reason) => format!("{session} kicked: {reason}"),
                Told::Added(session, room, name, from) => format!("{session} added to {name}, {room}, {from:?}"),
                Told::Enter(user, presence) => format!("{user} enters by {}", presence.conn().serial),
                Told::Move(user, before, presence) => {
                    format!("{user} moves from {} to {}", before.serial, presence.conn().serial)
                }
                Told::Rest(user, conn) => format!("{user} rests at {}", conn.serial),
                Told::Exit(user, conn) => format!("{user} exits by {}", conn.serial),
            });
        }
        assert_eq!(lines, want);
    }

    #[track_caller]
    fn opened(&mut self, hello: Hello, want: &[&str]) {
        let names = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight"];
        let Hello { conn: serial, fresh, resume, attempt, device, class } = hello;
        let presence = Presence {
            device: "phone".parse().unwrap(),
            device_tag: DeviceTag(device),
            device_class: class,
            network: Network::Wifi,
            since: self.now.unix_ms,
            conn: conn(serial),
            connected: true,
            beats: [0; 4],
        };
        let (user, presence, session) =
            ("ann".parse().unwrap(), presence.into(), names[usize::try_from(serial).unwrap()]);
        let (token, resume) = (token(fresh), resume.map(token));
        self.sessions.on_opened(Opening { user, presence, token, resume, attempt, session });
        self.told(want);
    }

    fn parked(&self) -> Option<Box<Parked>> {
        let heartbeat = Heartbeat::new(BeatIntervals::default(), Network::Wifi, self.now.mono_ms);
        Some(Box::new(Parked::idle(heartbeat, &Limits::default(), self.now.mono_ms)))
    }

    #[track_caller]
    fn broke(&mut self, serial: u64, want: &[&str]) {
        self.sessions.on_closed(&"ann".parse().unwrap(), conn(serial), self.parked());
        self.told(want);
    }

    #[track_caller]
    fn ended(&mut self, serial: u64, want: &[&str]) {
        self.sessions.on_closed(&"ann".parse().unwrap(), conn(serial), None);
        self.told(want);
    }

    fn is_empty(&self) -> bool {
        self.sessions.users.is_empty() && self.sessions.away.is_empty()
    }
}

#[test]
fn the_newer_session_of_a_device_replaces_the_older() {
    let mut lab = lab(SessionPolicy::default());
    lab.opened(hello(1, None, 1), &["ann enters by 1"]);
    lab.opened(hello(2, None, 1), &["one Replaced", "ann exits by 1", "ann enters by 2"]);
    lab.broke(1, &[]);
    lab.opened(Hello { device: 2, ..hello(3, None, 1) }, &["ann enters by 3"]);
    lab.ended(2, &["ann exits by 2"]);
    lab.ended(3, &["ann exits by 3"]);
    assert!(lab.is_empty());
}

#[test]
fn the_host_says_how_many_sessions_a_user_may_have() {
    let enter = |serial: u64, device, class, policy, want: &[&str]| {
        let mut lab = lab(policy);
        lab.opened(hello(1, None, 1), &["ann enters by 1"]);
        lab.opened(Hello { device, class, ..hello(serial, None, 1) }, want);
    };
    let (both, newer) = (["ann enters by 2"], ["one Replaced", "ann exits by 1", "ann enters by 2"]);
    for (device, class, policy, replaced) in [
        (1, DeviceClass::Mobile, SessionPolicy::All, false),
        (2, DeviceClass::Mobile, SessionPolicy::OnePerDevice, false),
        (1, DeviceClass::Web, SessionPolicy::OnePerDevice, true),
        (2, DeviceClass::Mobile, SessionPolicy::OnePerClass, true),
        (2, DeviceClass::Web, SessionPolicy::OnePerClass, false),
        (1, DeviceClass::Web, SessionPolicy::OnePerClass, true),
        (2, DeviceClass::Web, SessionPolicy::Single, true),
    ] {
        enter(2, device, class, policy, if replaced { &newer } else { &both });
    }
}

#[test]
fn a_session_whose_connection_broke_goes_on_over_the_next() {
    let mut lab = lab(SessionPolicy::default());
    lab.opened(hello(1, None, 1), &["ann enters by 1"]);
    lab.broke(1, &["ann rests at 1"]);
    lab.now.unix_ms = 9_000;
    lab.opened(hello(2, Some(1), 2), &["ann moves from 1 to 2", "two goes on"]);
    // Its token is still the first one.
    lab.broke(2, &["ann rests at 2"]);
    lab.opened(hello(3, Some(1), 3), &["ann moves from 2 to 3", "three goes on"]);
    lab.ended(3, &["ann exits by 3"]);
    assert!(lab.is_empty());
}

#[test]
fn a_session_is_taken_up_while_its_older_connection_stands() {
    let mut lab = lab(SessionPolicy::default());
    lab.opened(hello(1, None, 1), &["ann enters by 1"]);
    lab.opened(hello(2, Some(1), 2), &["ann moves from 1 to 2", "one Superseded"]);
    lab.broke(1, &["two goes on"]);
    // The older one failed, and nothing is left of it: the session is a new one, with the new token.
    lab.opened(hello(3, Some(1), 3), &["ann moves from 2 to 3", "two Superseded"]);
    lab.ended(2, &["three begins anew"]);
    // Its client did not hear of that, and tries again with the token that it knows: it is the same client.
    lab.opened(hello(4, Some(1), 4), &["ann moves from 3 to 4", "three Superseded"]);
    lab.broke(3, &["four begins anew"]);
    lab.opened(hello(5, Some(4), 5), &["ann moves from 4 to 5", "four Superseded"]);
}

#[test]
fn the_highest_attempt_wins_whichever_comes_first() {
    let mut lab = lab(SessionPolicy::default());
    lab.opened(hello(1, None, 1), &["ann enters by 1"]);
    lab.opened(hello(2, Some(1), 3), &["ann moves from 1 to 2", "one Superseded"]);
    // An earlier attempt comes late, and a later one before the first has handed over.
    lab.opened(hello(3, Some(1), 2), &["three Superseded"]);
    lab.opened(hello(4, Some(1), 4), &["ann moves from 2 to 4", "two Superseded"]);
    lab.ended(3, &[]);
    lab.ended(2, &[]);
    lab.broke(1, &["four goes on"]);
    // The newest breaks before it has begun.
    lab.opened(hello(5, Some(1), 5), &["ann moves from 4 to 5", "four Superseded"]);
    lab.ended(5, &[]);
    lab.broke(4, &["ann rests at 5"]);
    lab.opened(hello(1, Some(1), 5), &["one Superseded"]);
    lab.opened(hello(2, Some(1), 6), &["ann moves from 5 to 2", "two goes on"]);
}

#[test]
fn a_late_attempt_whose_session_is_unknown_does_not_replace_the_newer() {
    let mut lab = lab(SessionPolicy::default());
    // The session of token 9 has ended, or its server was restarted.
    lab.opened(hello(2, Some(9), 7), &["two begins anew", "ann enters by 2"]);
    lab.opened(hello(1, Some(9), 6), &["one Superseded"]);
    lab.broke(1, &[]);
    // Also when the newer has gone on over other connections since, or has none.
    lab.opened(hello(3, Some(2), 8), &["ann moves from 2 to 3", "two Superseded"]);
    lab.broke(2, &["three goes on"]);
    lab.opened(hello(1, Some(9), 5), &["one Superseded"]);
    lab.broke(3, &["ann rests at 3"]);
    lab.opened(hello(1, Some(9), 7), &["one Superseded"]);
    // A later one takes it over. A client that was started anew replaces it, and another device stands beside it.
    lab.opened(Hello { device: 2, ..hello(5, Some(9), 1) }, &["five begins anew", "ann enters by 5"]);
    lab.opened(hello(4, Some(9), 9), &["ann moves from 3 to 4", "four begins anew"]);
    lab.opened(hello(1, None, 1), &["four Replaced", "ann exits by 4", "ann enters by 1"]);
}

#[test]
fn later_attempts_with_a_token_of_no_session_take_over_what_the_first_has_begun() {
    for policy in [SessionPolicy::OnePerDevice, SessionPolicy::All] {
        let mut lab = lab(policy);
        lab.opened(hello(2, Some(9), 7), &["two begins anew", "ann enters by 2"]);
        lab.opened(hello(3, Some(9), 8), &["ann moves from 2 to 3", "two Superseded"]);
        // Its client knows nothing of what the first one left.
        lab.broke(2, &["three begins anew"]);
        lab.opened(hello(1, Some(9), 7), &["one Superseded"]);
        lab.opened(hello(4, Some(9), 9), &["ann moves from 3 to 4", "three Superseded"]);
        // The newest before the second has handed over, with the token that the second was given.
        lab.opened(hello(5, Some(3), 10), &["ann moves from 4 to 5", "four Superseded"]);
        lab.broke(3, &["five goes on"]);
        lab.opened(hello(6, Some(3), 11), &["ann moves from 5 to 6", "five Superseded"]);
        lab.ended(5, &["six begins anew"]);
        lab.ended(6, &["ann exits by 6"]);
        assert!(lab.is_empty());
    }
}

#[test]
fn a_session_that_begins_anew_does_not_follow() {
    let (ann, room): (Name, Name) = ("ann".parse().unwrap(), "room".parse().unwrap());
    let added = |lab: &mut Lab, want: &[&str]| {
        lab.sessions.on_added(&ann, RoomNumber(7), &room, JoinFrom::Tail);
        lab.told(want);
    };
    let mut lab = lab(SessionPolicy::default());
    lab.opened(hello(1, None, 1), &["ann enters by 1"]);
    lab.sessions.on_follow(&ann, conn(1));
    lab.opened(hello(2, Some(1), 2), &["ann moves from 1 to 2", "one Superseded"]);
    lab.broke(1, &["two goes on"]);
    added(&mut lab, &["two added to room, 7, Tail"]);
    lab.opened(hello(3, Some(1), 3), &["ann moves from 2 to 3", "two Superseded"]);
    lab.ended(2, &["three begins anew"]);
    added(&mut lab, &[]);
}

#[test]
fn a_late_attempt_does_not_replace_a_session_of_which_nothing_was_left() {
    let mut lab = lab(SessionPolicy::default());
    lab.opened(hello(1, None, 1), &["ann enters by 1"]);
    lab.opened(hello(2, Some(1), 3), &["ann moves from 1 to 2", "one Superseded"]);
    lab.ended(1, &["two begins anew"]);
    lab.opened(hello(3, Some(1), 2), &["three Superseded"]);
    lab.opened(hello(4, Some(2), 4), &["ann moves from 2 to 4", "two Superseded"]);
}

#[test]
fn a_token_opens_its_own_device_alone() {
    let mut lab = lab(SessionPolicy::default());
    lab.opened(hello(1, None, 1), &["ann enters by 1"]);
    lab.broke(1, &["ann rests at 1"]);
    lab.opened(Hello { device: 2, ..hello(2, Some(1), 2) }, &["two begins anew", "ann enters by 2"]);
    lab.opened(hello(3, Some(9), 2), &["ann exits by 1", "three begins anew", "ann enters by 3"]);
}

#[test]
fn who_was_replaced_and_did_not_hear_of_it_is_told_when_it_comes_back() {
    let mut lab = lab(SessionPolicy::Single);
    let at = |device, serial, resume, attempt| Hello { device, ..hello(serial, resume, attempt) };
    lab.opened(at(1, 1, None, 1), &["ann enters by 1"]);
    lab.broke(1, &["ann rests at 1"]);
    lab.opened(at(2, 2, None, 1), &["ann exits by 1", "ann enters by 2"]);
    lab.opened(at(1, 3, Some(1), 2), &["three Replaced"]);
    // Neither has it a place where a third one has replaced the second.
    lab.opened(at(3, 4, None, 1), &["two Replaced", "ann exits by 2", "ann enters by 4"]);
    lab.opened(at(1, 3, Some(1), 3), &["three Replaced"]);
    lab.opened(at(2, 3, Some(2), 2), &["three Replaced"]);
    // Its user logs in there again.
    lab.opened(at(1, 5, None, 1), &["four Replaced", "ann exits by 4", "ann enters by 5"]);
    lab.opened(at(1, 3, Some(5), 2), &["ann moves from 5 to 3", "five Superseded"]);
}

#[test]
fn who_was_replaced_on_its_own_device_is_told_when_it_comes_back() {
    let mut lab = lab(SessionPolicy::default());
    lab.opened(hello(1, None, 1), &["ann enters by 1"]);
    lab.broke(1, &["ann rests at 1"]);
    // Another program of the same device: two that came back would throw one another out for ever.
    lab.opened(hello(2, None, 1), &["ann exits by 1", "ann enters by 2"]);
    lab.opened(hello(3, Some(1), 2), &["three Replaced"]);
    lab.broke(2, &["ann rests at 2"]);
    lab.opened(hello(3, Some(1), 3), &["three Replaced"]);
    lab.opened(hello(4, Some(2), 2), &["ann moves from 2 to 4", "four goes on"]);
    // For as long as the other one is there.
    lab.ended(4, &["ann exits by 4"]);
    lab.opened(hello(3, Some(1), 4), &["three begins anew", "ann enters by 3"]);
}

#[test]
fn who_was_replaced_before_it_heard_of_its_new_token_is_told_when_it_comes_back() {
    let mut lab = lab(SessionPolicy::default());
    // Its session is over, and the welcome that told it of the new one is lost.
    lab.opened(hello(1, Some(9), 7), &["one begins anew", "ann enters by 1"]);
    lab.broke(1, &["ann rests at 1"]);
    lab.opened(hello(2, None, 1), &["ann exits by 1", "ann enters by 2"]);
    lab.opened(hello(3, Some(9), 8), &["three Replaced"]);
    lab.opened(hello(3, Some(1), 8), &["three Replaced"]);
}

#[test]
fn a_device_that_begins_again_and_again_makes_no_other_one_forgotten() {
    let mut lab = lab(SessionPolicy::Single);
    lab.opened(hello(1, None, 1), &["ann enters by 1"]);
    lab.broke(1, &["ann rests at 1"]);
    lab.opened(Hello { device: 2, ..hello(2, None, 1) }, &["ann exits by 1", "ann enters by 2"]);
    for fresh in 10..30 {
        lab.broke(2, &["ann rests at 2"]);
        lab.opened(Hello { device: 2, fresh, ..hello(2, None, 1) }, &["ann exits by 2", "ann enters by 2"]);
    }
    lab.opened(hello(3, Some(1), 2), &["three Replaced"]);
    let at_most = &lab.sessions.users.values().next().unwrap()[0].replaced;
    assert_eq!((at_most.len(), at_most[7].1), (REPLACED_MAX, token(28)));
}

#[test]
fn a_session_without_a_connection_ends_with_its_lease() {
    let mut lab = lab(SessionPolicy::default());
    lab.opened(hello(1, None, 1), &["ann enters by 1"]);
    lab.broke(1, &["ann rests at 1"]);
    lab.sessions.on_tick(98_999);
    lab.told(&[]);
    // Three grants of 30 s, and 3 s of grace each.
    lab.sessions.on_tick(99_000);
    lab.told(&["ann exits by 1"]);
    assert!(lab.is_empty());
}

#[test]
fn of_too_many_the_one_that_would_end_first_has_to_go() {
    let mut lab = lab(SessionPolicy::default());
    for serial in 1..=3 {
        let enters = format!("ann enters by {serial}");
        lab.opened(Hello { device: serial, ..hello(serial, None, 1) }, &[&enters]);
    }
    lab.broke(1, &["ann rests at 1"]);
    lab.now.mono_ms = 1;
    lab.broke(2, &["ann rests at 2"]);
    lab.now.mono_ms = 2;
    lab.broke(3, &["ann rests at 3", "ann exits by 1"]);
    assert_eq!(lab.sessions.away(), 2);
}

#[test]
fn the_host_puts_out_a_user_a_device_or_a_session() {
    let mut lab = lab(SessionPolicy::default());
    for serial in 1..=3 {
        let enters = format!("ann enters by {serial}");
        lab.opened(Hello { device: serial, ..hello(serial, None, 1) }, &[&enters]);
    }
    let (ann, reason): (Name, Arc<str>) = ("ann".parse().unwrap(), "cheats".into());
    let kick = |lab: &mut Lab, which, want: &[&str]| {
        let count = lab.sessions.on_kick(&ann, which, &reason);
        lab.told(want);
        count
    };
    assert_eq!(kick(&mut lab, Which::Device(DeviceTag(9)), &[]), 0);
    assert_eq!(kick(&mut lab, Which::Device(DeviceTag(2)), &["ann exits by 2", "two kicked: cheats"]), 1);
    assert_eq!(kick(&mut lab, Which::Session(conn(3)), &["ann exits by 3", "three kicked: cheats"]), 1);
    // One that has gone on over other connections since it was looked at.
    let hello_of_six = |conn, resume, attempt| Hello { device: 6, ..hello(conn, resume, attempt) };
    lab.opened(hello_of_six(6, None, 1), &["ann enters by 6"]);
    lab.broke(6, &["ann rests at 6"]);
    lab.opened(hello_of_six(7, Some(6), 2), &["ann moves from 6 to 7", "seven goes on"]);
    lab.opened(hello_of_six(8, Some(6), 3), &["ann moves from 7 to 8", "seven Superseded"]);
    assert_eq!(kick(&mut lab, Which::Session(conn(6)), &["ann exits by 8", "eight kicked: cheats"]), 1);
    // One without a connection, and one that passes to another connection.
    lab.broke(1, &["ann rests at 1"]);
    assert_eq!(kick(&mut lab, Which::All, &["ann exits by 1"]), 1);
    lab.opened(hello(4, None, 1), &["ann enters by 4"]);
    lab.opened(hello(5, Some(4), 2), &["ann moves from 4 to 5", "four Superseded"]);
    assert_eq!(kick(&mut lab, Which::All, &["ann exits by 5", "five kicked: cheats"]), 1);
    lab.broke(4, &[]);
    assert!(lab.is_empty());
}
