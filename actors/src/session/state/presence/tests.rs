//! What a client may ask about presence.

use parlor_protocol::{
    Extensions, List,
    message::{QueryPresence, WatchPresence, WatchRoom},
};

use super::super::tests::session;
use super::*;

fn query<'a>(users: &[&'a str]) -> QueryPresence<'a> {
    QueryPresence { users: List(users.to_vec()), extensions: Extensions::default() }
}

fn watch<'a>(add: &[&'a str], remove: &[&'a str]) -> WatchPresence<'a> {
    WatchPresence { add: List(add.to_vec()), remove: List(remove.to_vec()), extensions: Extensions::default() }
}

fn watch_room(room: u64, watch: bool) -> WatchRoom<'static> {
    WatchRoom { room: RoomNumber(room), watch, extensions: Extensions::default() }
}

#[test]
fn users_are_asked_about_by_their_names() {
    let mut session = session();
    session.frame(1, &query(&["bob", "bob"]), &[r#"#1 Query(["bob", "bob"])"#]);
    session.frame(2, &query(&[]), &["#2 Query([])"]);
    session.frame(3, &query(&["bob", ""]), &["#3 InvalidName"]);
    session.frame(4, &watch(&["bob"], &["cid"]), &[r#"#4 Watch { add: ["bob"], remove: ["cid"] }"#]);
    session.frame(5, &watch(&["a\nb"], &[]), &["#5 InvalidName"]);
    session.frame(6, &watch(&[], &["a\nb"]), &["#6 InvalidName"]);
}

#[test]
fn who_is_in_a_room_is_told_to_whoever_has_joined_it() {
    let mut session = session();
    session.frame(1, &watch_room(7, true), &["#1 NotJoined"]);
    session.frame(2, &watch_room(7, false), &["#2 NotJoined"]);
    let mut session = session.joined();
    let watch = "Presence(Watch { conn: Conn { arbiter: 0, slot: 0, serial: 1 }, request: 3, \
                 device: DeviceKey { user: \"ann\", tag: DeviceTag(1) } })";
    session.frame(3, &watch_room(7, true), &["#3 begins to Rooms", watch]);
    session.frame(4, &watch_room(7, false), &["#4 LeaveRoom(RoomNumber(7))"]);
    session.frame(5, &watch_room(8, true), &["#5 NotJoined"]);
}

#[test]
fn where_presence_is_not_told_nothing_of_it_is() {
    let mut session = session().joined();
    session.state.presence = false;
    session.frame(1, &query(&["bob"]), &["#1 Unsupported"]);
    session.frame(2, &watch(&["bob"], &[]), &["#2 Unsupported"]);
    session.frame(3, &watch_room(7, true), &["#3 Unsupported"]);
    session.frame(4, &watch_room(7, false), &["#4 Unsupported"]);
}
