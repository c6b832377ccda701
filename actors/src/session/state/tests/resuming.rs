//! Sessions that go on over another connection.

use parlor_protocol::{
    Code, Epoch, Extensions, List, RoomNumber,
    message::{Goodbye, Heartbeat, JoinFrom, Network, Part, Position, RecordKind, Resume},
};

use super::{Session, session};
use crate::{
    limits::Limits,
    session::{parked::Parked, state::Input},
};

/// The session, broken and taken up again by a client on another network.
fn again(mut before: Session) -> Session {
    let parked = before.state.park().unwrap();
    assert!(before.state.park().is_none(), "it is handed over once");
    let mut after = session();
    after.now = before.now;
    after.state.uploads = before.state.uploads.clone();
    after.state.take_up(after.now, Network::Wired, parked);
    after
}

fn resume(rooms: &[u64]) -> Resume<'static> {
    let position = |&room: &u64| Position { room: RoomNumber(room), epoch: Epoch(1), seq: 5 };
    Resume { positions: List(rooms.iter().map(position).collect()), extensions: Extensions::default() }
}

impl Session {
    /// Its user is added to room 7, to which it is being attached then.
    #[track_caller]
    fn is_attached_anew(&mut self) {
        let (room, name) = (RoomNumber(7), "room".parse().unwrap());
        let attaches = ["#0 begins to Follow", "#0 resolve room, which was 7"];
        self.check(Input::Added { room, name, from: JoinFrom::Seq(1) }, &attaches);
    }
}

#[test]
fn its_rooms_are_joined_from_the_positions_that_its_client_holds() {
    let mut session = again(session().joined());
    session.frame(
        2,
        &resume(&[8, 7]),
        &["#2 not resumed 8 NotJoined", "#2 begins to Resume(5)", "#2 resolve room, which was 7"],
    );
    let resolved = |room| Input::Resolved { request: 2, resumes: Some(RoomNumber(7)), room };
    session.check(resolved(Ok(RoomNumber(7))), &["#2 join 7 Position(Epoch(1), 5)"]);
    let joined = Ok((RoomNumber(7), "room".parse().unwrap()));
    session.check(Input::JoinEnded { request: 2, asked: Some(RoomNumber(7)), room: joined }, &[]);
    session.join(3, "room", &["#3 AlreadyJoined"]);
    // A second one finds nothing.
    session.frame(4, &resume(&[7, 8]), &["#4 not resumed 7 AlreadyJoined", "#4 not resumed 8 NotJoined"]);
}

#[test]
fn a_room_that_following_attaches_first_is_not_said_to_be_none_of_its_own() {
    let mut session = again(session().joined());
    session.is_attached_anew();
    // Also if it has as many rooms as it may.
    session.join(1, "other", &["#1 begins to Join", "#1 resolve other"]);
    session.frame(2, &resume(&[7]), &["#2 not resumed 7 AlreadyJoined"]);
    let mut session = again(session);
    session.is_attached_anew();
    let joined = Ok((RoomNumber(7), "room".parse().unwrap()));
    session.check(Input::JoinEnded { request: 0, asked: Some(RoomNumber(7)), room: joined }, &[]);
    session.frame(2, &resume(&[7]), &["#2 not resumed 7 AlreadyJoined"]);
}

#[test]
fn a_room_that_following_attaches_anew_is_not_said_to_be_lost() {
    // The session was put out of room 7 and is being attached to it again, of which its client has heard nothing.
    let mut session = again(session());
    session.is_attached_anew();
    session.frame(2, &resume(&[7]), &["#2 not resumed 7 AlreadyJoined"]);
}

#[test]
fn a_room_that_following_attaches_first_is_not_one_too_many() {
    let mut session = again(session().joined());
    session.is_attached_anew();
    session.join(2, "other", &["#2 begins to Join", "#2 resolve other"]);
    session.frame(3, &resume(&[7]), &["#3 not resumed 7 AlreadyJoined"]);
}

#[test]
fn rooms_that_no_connection_goes_on_with_do_not_heap_up() {
    let mut session = session().joined();
    for number in 8..12 {
        session = again(session);
        let name = format!("room {number}");
        session.join(1, &name, &["#1 begins to Join", &format!("#1 resolve {name}")]);
        let joined = Ok((RoomNumber(number), name.parse().unwrap()));
        session.check(Input::JoinEnded { request: 1, asked: None, room: joined }, &[]);
    }
    // As many as a session may have, and the one that it was in last is among them.
    let rooms = session.state.park().unwrap().rooms;
    assert_eq!((rooms.len(), rooms[0].0), (2, RoomNumber(11)));
}

#[test]
fn a_room_that_was_made_again_meanwhile_is_another() {
    let mut session = again(session().joined());
    session.frame(2, &resume(&[7]), &["#2 begins to Resume(5)", "#2 resolve room, which was 7"]);
    let resolved = Input::Resolved { request: 2, resumes: Some(RoomNumber(7)), room: Ok(RoomNumber(9)) };
    session.check(resolved, &["#2 refuse 7 RoomDeleted"]);
    session.check(Input::JoinEnded { request: 2, asked: Some(RoomNumber(7)), room: Err(Code::RoomDeleted) }, &[]);
    session.join(3, "room", &["#3 begins to Join", "#3 resolve room"]);
}

#[test]
fn rooms_that_it_did_not_go_on_with_are_kept_until_it_says_so() {
    let mut session = again(again(session().joined()));
    session.frame(2, &resume(&[7]), &["#2 begins to Resume(5)", "#2 resolve room, which was 7"]);
}

#[test]
fn a_connection_that_breaks_before_a_room_is_attached_again_loses_nothing() {
    let mut broken = again(session().joined());
    broken.frame(2, &resume(&[7]), &["#2 begins to Resume(5)", "#2 resolve room, which was 7"]);
    let mut session = again(broken);
    session.frame(2, &resume(&[7]), &["#2 begins to Resume(5)", "#2 resolve room, which was 7"]);
}

#[test]
fn a_room_that_is_being_attached_anew_takes_no_other_ones_place() {
    let mut session = session().joined();
    session.join(1, "other", &["#1 begins to Join", "#1 resolve other"]);
    let joined = Ok((RoomNumber(8), "other".parse().unwrap()));
    session.check(Input::JoinEnded { request: 1, asked: None, room: joined }, &[]);
    let mut broken = again(session);
    broken.is_attached_anew();
    let rooms = broken.state.park().unwrap().rooms;
    assert_eq!(rooms.iter().map(|(room, _)| room.0).collect::<Vec<_>>(), [7, 8]);
}

#[test]
fn parts_of_a_long_message_survive_the_connection() {
    let mut before = session().joined();
    let part = |number, payload: &'static [u8]| Part {
        room: RoomNumber(7),
        nonce: 1,
        number,
        parts: 3,
        total_bytes: 11,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        lifetime_ms: None,
        flags: 0,
        content_type: parlor_protocol::message::ContentType(0),
        payload,
        extensions: Extensions::default(),
    };
    before.frame(2, &part(0, b"hello"), &["timer at 1000", "#2 misses [1, 2]"]);
    let mut session = again(before);
    assert_eq!(session.state.deadline(), 1_000, "an abandoned one is forgotten");
    session.frame(3, &resume(&[7]), &["#3 begins to Resume(5)", "#3 resolve room, which was 7"]);
    let joined = Ok((RoomNumber(7), "room".parse().unwrap()));
    session.check(Input::JoinEnded { request: 3, asked: Some(RoomNumber(7)), room: joined }, &[]);
    session.frame(4, &part(2, b"!"), &["#4 misses [1]"]);
}

#[test]
fn its_hello_is_a_beat_and_tells_the_network() {
    let mut before = session();
    before.now.mono_ms = 1_200;
    let session = again(before);
    // One interval of 1,000 ms was missed: half of the base of a cable.
    assert_eq!(session.state.grant_ms(), 5_000);
}

#[test]
fn what_ended_for_good_is_not_kept() {
    let kept = |code| {
        let mut session = session().joined();
        session.state.on_closed(code);
        session.state.park().is_some()
    };
    for code in [Code::SlowReader, Code::TooSlow, Code::Internal, Code::GoingAway] {
        assert!(kept(code), "{code}: its client is told to come back");
    }
    for code in [Code::LeaseExpired, Code::Replaced, Code::MalformedFrame, Code::Goodbye] {
        assert!(!kept(code), "{code}");
    }
    let mut session = session().joined();
    session.frame(2, &Goodbye { extensions: Extensions::default() }, &["close Goodbye when answered"]);
    assert!(session.state.park().is_none());
    let parked: Option<Parked> = super::session().state.park();
    assert!(parked.is_some(), "a connection that breaks ends nothing");
}

#[test]
fn of_a_session_that_failed_its_lease_is_kept_and_nothing_that_it_knew() {
    let mut failed = session().joined();
    failed.now.mono_ms = 1_500;
    let beat =
        Heartbeat { network: Some(Network::Wifi), positions: List::default(), extensions: Extensions::default() };
    failed.frame(2, &beat, &["#2 grant 500", "timer at 3150"]);
    let parked = failed.state.park_failed(&Limits::default()).unwrap();
    assert!(failed.state.park_failed(&Limits::default()).is_none() && failed.state.park().is_none(), "it is kept once");
    // It has missed nothing.
    assert_eq!((parked.rooms.len(), parked.deadline()), (0, 1_500 + 3_300));
    let mut again = session();
    again.now.mono_ms = 2_500;
    again.state.take_up(again.now, Network::Wifi, parked);
    assert_eq!(again.state.grant_ms(), 1_000);
    again.frame(1, &resume(&[7]), &["#1 not resumed 7 NotJoined"]);
    again.join(2, "room", &["#2 begins to Join", "#2 resolve room"]);

    let mut over = session();
    over.check(Input::Kick("cheats".into()), &["close Kicked"]);
    assert!(over.state.park_failed(&Limits::default()).is_none());
    let mut silent = session();
    silent.state.let_be_silent(true);
    assert!(silent.state.park_failed(&Limits::default()).is_none());
}
