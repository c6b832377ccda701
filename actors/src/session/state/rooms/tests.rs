use parlor_protocol::{
    Epoch, RoomNumber,
    message::{CreateRoom, DeleteRoom, ListMembers, ListRooms, OpenDirect, RemoveMembers, RoomOptions, SetMembers},
};

use super::*;
use crate::session::state::{
    Input,
    tests::{Session, session},
};

fn none<'a>() -> Extensions<'a> {
    Extensions::default()
}

fn allowed() -> Session {
    let mut session = session();
    session.state.let_create(true);
    session
}

#[test]
fn a_change_goes_to_the_supervisor_and_its_answer_to_the_client() {
    let mut session = session();
    let users = List(vec!["bob", "cem"]);
    let set = SetMembers { room: "tea", role: Role::Muted, users: users.clone(), extensions: none() };
    session.frame(1, &set, &["#1 begins to Rooms", "#1 change tea: Muted [\"bob\", \"cem\"]"]);
    let remove = RemoveMembers { room: "tea", users, extensions: none() };
    session.frame(2, &remove, &["#2 begins to Rooms", "#2 change tea: remove [\"bob\", \"cem\"]"]);
    session.frame(3, &DeleteRoom { room: "tea", extensions: none() }, &["#3 begins to Rooms", "#3 change tea: delete"]);
    let done = Changed::Deleted { room: RoomNumber(1), more: false };
    session.check(Input::Changed { request: 3, outcome: Ok(done) }, &["#3 Done"]);
    session.check(Input::Changed { request: 1, outcome: Err((Code::Forbidden, "no")) }, &["#1 refuse Forbidden"]);
}

#[test]
fn who_made_a_room_is_told_what_it_is_like() {
    let mut session = allowed();
    let members = List(vec!["bob"]);
    let create = CreateRoom { room: "tea", options: RoomOptions::default(), members, extensions: none() };
    session.frame(1, &create, &["#1 begins to Rooms", "#1 change tea: create with 1"]);
    let (name, room): (Name, _) = ("tea".parse().unwrap(), RoomNumber(4));
    let made = Changed::Made { room, name: name.clone(), fresh: true };
    session.check(
        Input::Changed { request: 1, outcome: Ok(made) },
        &["#1 look Room { name: \"tea\", by: User(\"ann\") }"],
    );
    let counts = crate::members::Counts { members: 2, banned: 0 };
    let (epoch, options) = (Epoch(1), RoomOptions::default());
    let summary = RoomSummary { room, name, epoch, options, tail: 0, count: 0, counts, role: Some(Role::Owner) };
    session.check(Input::Seen { request: 1, seen: Ok(Seen::Room(summary)) }, &["#1 RoomInfo"]);
    session.frame(2, &OpenDirect { user: "bob", extensions: none() }, &["#2 begins to Rooms", "#2 direct with bob"]);
}

#[test]
fn what_cannot_be_meant_is_refused_at_once() {
    let mut session = allowed();
    let create =
        |room| CreateRoom { room, options: RoomOptions::default(), members: List::default(), extensions: none() };
    session.frame(1, &create(""), &["#1 InvalidName"]);
    session.frame(2, &create("direct:00"), &["#2 InvalidName"]);
    let users = List(vec!["bob", "a\nb"]);
    session.frame(3, &RemoveMembers { room: "tea", users, extensions: none() }, &["#3 InvalidName"]);
    session.frame(4, &OpenDirect { user: "ann", extensions: none() }, &["#4 InvalidName"]);
    session.state.let_create(false);
    session.frame(5, &create("tea"), &["#5 Forbidden"]);
}

#[test]
fn a_page_has_no_more_than_a_page_holds() {
    let mut session = session();
    let list = |limit| ListMembers { room: "tea", after: Some("bob"), limit, extensions: none() };
    for (request, limit, want) in [(1, 0, 1_000), (2, 7, 7), (3, u32::MAX, 1_000)] {
        let look = format!(
            "#{request} look Members {{ name: \"tea\", by: User(\"ann\"), after: Some(\"bob\"), limit: {want} }}"
        );
        session.frame(request, &list(limit), &[&format!("#{request} begins to Rooms"), &look]);
    }
    let look = "#4 look RoomsOf { user: \"ann\", before: None, limit: 100, now: 0 }";
    session.frame(4, &ListRooms { before: None, limit: 0, extensions: none() }, &["#4 begins to Rooms", look]);
}

#[test]
fn a_room_that_put_the_session_out_can_be_joined_again() {
    let mut session = session().joined();
    session.check(Input::Lost(Position { room: RoomNumber(7), epoch: Epoch(1), seq: 4 }), &[]);
    session.join(9, "room", &["#9 begins to Join", "#9 resolve room"]);
}
