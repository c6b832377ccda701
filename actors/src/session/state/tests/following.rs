//! A session that follows its user.

use parlor_protocol::{
    Code, Epoch, Extensions, List, Name, RoomNumber, Seq,
    message::{Follow, Heartbeat, JoinFrom, Leave, Network, Position, Resume},
};

use super::{Session, session};
use crate::{members::Seen, session::state::Input};

/// The one question of a session that may have two rooms.
const LOOK: &str = "#1 look RoomsToFollow { user: \"ann\", limit: 2 }";

fn follow(positions: &[u64]) -> Follow<'static> {
    let position = |&room: &u64| Position { room: RoomNumber(room), epoch: Epoch(1), seq: 5 };
    Follow { positions: List(positions.iter().map(position).collect()), newest: 3, extensions: Extensions::default() }
}

impl Session {
    /// Asks to follow as request 1, and is told of these rooms.
    #[track_caller]
    fn follow(&mut self, positions: &[u64], rooms: &[u64], want: &[&str]) {
        self.frame(1, &follow(positions), &["#1 begins to Rooms", "follow", LOOK]);
        self.listed(rooms, want);
    }

    #[track_caller]
    fn listed(&mut self, rooms: &[u64], want: &[&str]) {
        let room = |number: &u64| (RoomNumber(*number), format!("room {number}").parse().unwrap());
        let rooms = rooms.iter().map(room).collect();
        self.check(Input::Seen { request: 1, seen: Ok(Seen::RoomsToFollow(rooms)) }, want);
    }

    #[track_caller]
    fn ended(&mut self, request: u32, number: u64, refused: Option<Code>, want: &[&str]) {
        let room = (RoomNumber(number), format!("room {number}").parse().unwrap());
        let ended = Input::JoinEnded { request, asked: Some(room.0), room: refused.map_or(Ok(room), Err) };
        self.check(ended, want);
    }

    #[track_caller]
    fn resolved(&mut self, request: u32, number: u64, want: &[&str]) {
        let room = RoomNumber(number);
        self.check(Input::Resolved { request, resumes: Some(room), room: Ok(room) }, want);
    }
}

/// What it takes to attach a room.
fn attaching(request: u32, number: u64) -> [String; 2] {
    [format!("#{request} begins to Follow"), format!("#{request} resolve room {number}, which was {number}")]
}

fn lines<const N: usize>(rooms: [[String; 2]; N]) -> Vec<String> {
    rooms.into_iter().flatten().collect()
}

macro_rules! refs {
    ($lines:expr) => {
        $lines.iter().map(String::as_str).collect::<Vec<_>>().as_slice()
    };
}

#[test]
fn all_rooms_of_the_user_are_attached_and_then_it_is_done() {
    let mut session = session();
    session.follow(&[4], &[4, 8], refs!(lines([attaching(1, 4), attaching(1, 8)])));
    session.resolved(1, 4, &["#1 join 4 Position(Epoch(1), 5)"]);
    session.resolved(1, 8, &["#1 join 8 Newest(3)"]);
    session.ended(1, 8, None, &[]);
    // A room that is gone meanwhile is left out.
    session.ended(1, 4, Some(Code::Forbidden), &["#1 Done"]);
    session.join(2, "room 8", &["#2 AlreadyJoined"]);
}

#[test]
fn a_room_that_cannot_be_had_now_is_tried_again() {
    let mut session = session();
    session.follow(&[], &[4], refs!(attaching(1, 4)));
    session.ended(1, 4, Some(Code::Busy), &["timer at 500"]);
    assert_eq!(session.state.deadline(), 500);
    session.now.mono_ms = 499;
    session.check(Input::Timer { owes: true }, &[]);
    session.now.mono_ms = 500;
    session.check(Input::Timer { owes: true }, refs!(attaching(1, 4)));
    session.ended(1, 4, None, &["#1 Done"]);
}

#[test]
fn a_session_has_no_more_rooms_than_it_may() {
    let mut session = session().joined();
    session.follow(&[], &[4, 8], refs!(attaching(1, 4)));
    session.ended(1, 4, None, &["#1 Done"]);
}

#[test]
fn a_room_that_the_user_is_added_to_waits_for_a_place() {
    let added = |room| {
        let name = format!("room {room}").parse().unwrap();
        Input::Added { room: RoomNumber(room), name, from: JoinFrom::Seq(1) }
    };
    let mut session = session().joined();
    session.check(added(4), refs!(attaching(0, 4)));
    session.resolved(0, 4, &["#0 join 4 Seq(1)"]);
    session.ended(0, 4, None, &[]);
    // Two are all that it may have, and so many may wait.
    for room in [8, 9, 8, 10] {
        session.check(added(room), &[]);
    }
    // A room that is lost makes a place, and one that is left.
    session.check(lost_of(4), refs!(attaching(0, 9)));
    session.resolved(0, 9, &["#0 join 9 Seq(1)"]);
    session.ended(0, 9, None, &[]);
    let leave = Leave { room: RoomNumber(9), extensions: Extensions::default() };
    session.frame(5, &leave, &["#0 begins to Follow", "#0 resolve room 8, which was 8", "#5 leave 9"]);
    session.ended(0, 8, Some(Code::Forbidden), &[]);
}

#[test]
fn a_room_that_was_left_while_it_was_to_be_tried_again_is_not_attached() {
    let mut session = session();
    let added = Input::Added { room: RoomNumber(4), name: "room 4".parse().unwrap(), from: JoinFrom::Seq(1) };
    session.check(added, refs!(attaching(0, 4)));
    session.ended(0, 4, Some(Code::Busy), &["timer at 500"]);
    // Its client has heard of it elsewhere, and joins and leaves it.
    session.join(2, "room 4", &["#2 begins to Join", "#2 resolve room 4"]);
    let room = (RoomNumber(4), "room 4".parse().unwrap());
    session.check(Input::JoinEnded { request: 2, asked: Some(room.0), room: Ok(room) }, &[]);
    let leave = Leave { room: RoomNumber(4), extensions: Extensions::default() };
    session.frame(3, &leave, &["#3 leave 4"]);
    session.now.mono_ms = 500;
    session.check(Input::Timer { owes: true }, &[]);
}

#[test]
fn a_room_that_is_added_takes_no_place_of_those_that_its_client_goes_on_with() {
    let resuming = |room: u64| {
        let name = if room == 7 { "room".into() } else { format!("room {room}") };
        ["#2 begins to Resume(5)".to_owned(), format!("#2 resolve {name}, which was {room}")]
    };
    for (goes_on_with, want) in [
        (&[7, 4][..], [resuming(7), resuming(4)]),
        // Then there is a place.
        (&[7], [resuming(7), attaching(0, 8)]),
    ] {
        let mut before = session().joined();
        before.follow(&[], &[4], refs!(attaching(1, 4)));
        before.ended(1, 4, None, &["#1 Done"]);
        let parked = before.state.park().unwrap();
        let mut session = session();
        session.state.take_up(session.now, Network::Wifi, parked);
        let added = Input::Added { room: RoomNumber(8), name: "room 8".parse().unwrap(), from: JoinFrom::Seq(1) };
        session.check(added, &[]);
        let positions = goes_on_with.iter().map(|room| Position { room: RoomNumber(*room), epoch: Epoch(1), seq: 5 });
        let resume = Resume { positions: List(positions.collect()), extensions: Extensions::default() };
        session.frame(2, &resume, refs!(lines(want)));
    }
}

fn lost_of(room: u64) -> Input {
    Input::Lost(Position { room: RoomNumber(room), epoch: Epoch(1), seq: 5 })
}

#[test]
fn rooms_are_listed_once_for_one_follow_at_a_time() {
    let mut session = session();
    session.frame(1, &follow(&[]), &["#1 begins to Rooms", "follow", LOOK]);
    session.frame(2, &follow(&[]), &["#2 Busy"]);
    session.listed(&[4, 8], refs!(lines([attaching(1, 4), attaching(1, 8)])));
    session.ended(1, 4, None, &[]);
    session.frame(2, &follow(&[]), &["#2 Busy"]);
    session.ended(1, 8, None, &["#1 Done"]);
    let look = LOOK.replace("#1", "#3");
    session.frame(3, &follow(&[]), &["#3 begins to Rooms", "follow", &look]);
    let failed = Input::Seen { request: 3, seen: Err((Code::StoreUnavailable, "it failed")) };
    session.check(failed, &["#3 refuse StoreUnavailable"]);
    session.frame(3, &follow(&[]), &["#3 begins to Rooms", "follow", &look]);
}

#[test]
fn a_room_that_the_user_is_added_to_is_attached_unasked() {
    let mut session = session();
    let added = |from| Input::Added { room: RoomNumber(4), name: "room 4".parse().unwrap(), from };
    session.check(added(JoinFrom::Seq(1)), refs!(attaching(0, 4)));
    session.resolved(0, 4, &["#0 join 4 Seq(1)"]);
    session.ended(0, 4, None, &[]);
    session.check(added(JoinFrom::Seq(1)), &[]);
}

#[test]
fn a_request_may_have_the_number_0_while_a_room_is_attached_unasked() {
    let mut session = session();
    let added = Input::Added { room: RoomNumber(4), name: "room 4".parse().unwrap(), from: JoinFrom::Seq(1) };
    session.check(added, refs!(attaching(0, 4)));
    let beat = Heartbeat { network: None, positions: List::default(), extensions: Extensions::default() };
    session.frame(0, &beat, &["#0 grant 1000"]);
    session.resolved(0, 4, &["#0 join 4 Seq(1)"]);
    session.frame(0, &beat, &["#0 grant 1000"]);
}

#[test]
fn a_room_that_the_user_was_added_to_is_attached_though_the_list_of_his_others_fails() {
    let mut session = session();
    let added = |number| {
        let (room, name) = (RoomNumber(number), format!("room {number}").parse().unwrap());
        Input::Added { room, name, from: JoinFrom::Seq(1) }
    };
    session.frame(1, &follow(&[]), &["#1 begins to Rooms", "follow", LOOK]);
    session.check(added(4), refs!(attaching(0, 4)));
    let failed = Input::Seen { request: 1, seen: Err((Code::StoreUnavailable, "it failed")) };
    session.check(failed, &["#1 refuse StoreUnavailable"]);
    session.ended(0, 4, Some(Code::Busy), &["timer at 500"]);
    session.now.mono_ms = 500;
    session.check(Input::Timer { owes: true }, refs!(attaching(0, 4)));
    session.ended(0, 4, None, &[]);
    session.check(added(8), refs!(attaching(0, 8)));
}

#[test]
fn a_session_that_goes_on_elsewhere_attaches_nothing_here() {
    let mut session = session();
    session.frame(1, &follow(&[]), &["#1 begins to Rooms", "follow", LOOK]);
    assert!(session.state.park().is_some());
    session.listed(&[4], &[]);
}

/// The news that its user was added to room 4, behind this seq of epoch 1.
fn added_behind(seq: Seq) -> Input {
    let (room, name) = (RoomNumber(4), "room 4".parse().unwrap());
    Input::Added { room, name, from: JoinFrom::Position(Epoch(1), seq) }
}

/// The news that room 4 put the session out, whose client holds everything up to this seq of epoch 1.
fn lost_at(seq: Seq) -> Input {
    Input::Lost(Position { room: RoomNumber(4), epoch: Epoch(1), seq })
}

#[test]
fn who_is_put_out_and_added_again_is_attached_though_the_news_comes_first() {
    let mut session = session();
    session.check(added_behind(0), refs!(attaching(0, 4)));
    session.ended(0, 4, None, &[]);
    session.check(added_behind(6), &[]);
    session.check(lost_at(5), refs!(attaching(0, 4)));
    session.resolved(0, 4, &["#0 join 4 Position(Epoch(1), 6)"]);
    session.check(added_behind(8), &[]);
    session.ended(0, 4, Some(Code::Forbidden), refs!(attaching(0, 4)));
    session.resolved(0, 4, &["#0 join 4 Position(Epoch(1), 8)"]);
}

/// The store had removed him and added him again behind 14 when the room, which had not heard of it, brought him 15.
#[test]
fn who_is_put_out_and_added_again_is_not_brought_what_he_holds() {
    let mut first = session();
    first.check(added_behind(2), refs!(attaching(0, 4)));
    first.ended(0, 4, None, &[]);
    first.check(lost_at(15), &[]);
    first.check(added_behind(14), refs!(attaching(0, 4)));
    first.resolved(0, 4, &["#0 join 4 Position(Epoch(1), 15)"]);
    // He was removed once more, and is added once more.
    first.ended(0, 4, Some(Code::Forbidden), &[]);
    first.check(added_behind(14), refs!(attaching(0, 4)));
    first.resolved(0, 4, &["#0 join 4 Position(Epoch(1), 15)"]);
    first.ended(0, 4, None, &[]);

    let mut last = session();
    last.check(added_behind(2), refs!(attaching(0, 4)));
    last.ended(0, 4, None, &[]);
    last.check(added_behind(14), &[]);
    last.check(lost_at(15), refs!(attaching(0, 4)));
    last.resolved(0, 4, &["#0 join 4 Position(Epoch(1), 15)"]);
}

/// The session was in the room already when it heard that its user had been added, long ago.
#[test]
fn who_is_put_out_is_not_attached_from_where_he_was_added_long_ago() {
    let mut session = session();
    session.follow(&[], &[4], refs!(attaching(1, 4)));
    session.check(added_behind(2), &[]);
    session.ended(1, 4, None, &["#1 Done"]);
    session.check(lost_at(900), refs!(attaching(0, 4)));
    session.resolved(0, 4, &["#0 join 4 Position(Epoch(1), 900)"]);
}

#[test]
fn what_an_earlier_epoch_brought_is_no_reason_to_begin_later() {
    let mut session = session();
    session.check(added_behind(2), refs!(attaching(0, 4)));
    session.ended(0, 4, None, &[]);
    session.check(Input::Lost(Position { room: RoomNumber(4), epoch: Epoch(0), seq: 15 }), &[]);
    session.check(added_behind(3), refs!(attaching(0, 4)));
    session.resolved(0, 4, &["#0 join 4 Position(Epoch(1), 3)"]);
}

#[test]
fn a_position_that_the_client_told_counts_though_its_room_could_not_be_attached() {
    let mut session = session();
    session.follow(&[4], &[4], refs!(attaching(1, 4)));
    session.ended(1, 4, Some(Code::Forbidden), &["#1 Done"]);
    session.check(added_behind(3), refs!(attaching(0, 4)));
    session.resolved(0, 4, &["#0 join 4 Position(Epoch(1), 5)"]);
}

#[test]
fn a_room_that_was_left_is_not_attached_for_having_been_added_to_before() {
    let mut session = session().joined();
    let name: Name = "room".parse().unwrap();
    let added = Input::Added { room: RoomNumber(7), name, from: JoinFrom::Position(Epoch(1), 2) };
    session.check(added, &[]);
    session.leave(2, &["#2 leave 7"]);
    session.join(3, "room", &["#3 begins to Join", "#3 resolve room"]);
    session.check(Input::JoinEnded { request: 3, asked: None, room: Err(Code::Busy) }, &[]);
}

#[test]
fn a_session_keeps_in_mind_where_it_stood_in_as_many_rooms_as_it_may_join() {
    let mut session = session();
    for number in 0..4 {
        let (room, name) = (RoomNumber(number), format!("room {number}").parse().unwrap());
        session.check(Input::Added { room, name, from: JoinFrom::Position(Epoch(1), 1) }, refs!(attaching(0, number)));
        session.ended(0, number, None, &[]);
        session.check(Input::Lost(Position { room, epoch: Epoch(1), seq: 9 }), &[]);
    }
    for (number, from) in [(0, 1), (1, 1), (2, 9), (3, 9)] {
        let (room, name) = (RoomNumber(number), format!("room {number}").parse().unwrap());
        session.check(Input::Added { room, name, from: JoinFrom::Position(Epoch(1), 1) }, refs!(attaching(0, number)));
        session.resolved(0, number, &[&format!("#0 join {number} Position(Epoch(1), {from})")]);
        session.ended(0, number, Some(Code::Forbidden), &[]);
    }
}
