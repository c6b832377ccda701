//! Presence: asked for, watched, and watched again on the next connection.

use super::*;
use crate::client::presence::{RoomPresence, UserPresence};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn names(texts: &[&str]) -> Vec<Name> {
    texts.iter().map(|text| name(text)).collect()
}

/// A frame about users, each with since when he is online.
fn presence<'a>(users: &[(&'a str, u64)]) -> message::Presence<'a> {
    let user = |&(user, since)| message::UserPresence { user, online: since > 0, since, devices: List::default() };
    message::Presence { users: List(users.iter().map(user).collect()), extensions: ext() }
}

fn in_room<'a>(all: bool, came: &[&'a str], went: &[&'a str]) -> message::RoomPresence<'a> {
    let (came, went) = (List(came.to_vec()), List(went.to_vec()));
    message::RoomPresence { room: ROOM, all, named: true, count: 2, came, went, extensions: ext() }
}

impl Lab {
    /// Has the application watch these users, who are all offline.
    fn watching(users: &[&str]) -> Self {
        let mut lab = Self::joined();
        lab.watch(users, &[]);
        lab
    }

    fn watch(&mut self, add: &[&str], remove: &[&str]) {
        self.ask(60, None, Question::WatchUsers { add: names(add), remove: names(remove) });
        let request = self.only(Kind::WatchPresence);
        let answer: Vec<_> = add.iter().map(|user| (*user, 0)).collect();
        self.hear(request, Incoming::Presence(presence(&answer)));
        self.effects();
    }

    /// Has the application watch the room.
    fn watching_room() -> Self {
        let mut lab = Self::joined();
        lab.ask(60, Some(0), Question::WatchRoom);
        let request = lab.only(Kind::WatchRoom);
        lab.hear(request, Incoming::RoomPresence(in_room(true, &["ann"], &[])));
        lab.effects();
        lab
    }

    /// The users that the application is told of, each with since when he is online.
    fn told(&mut self) -> Vec<(String, u64)> {
        let effects = self.effects().into_iter();
        effects
            .filter_map(|effect| match effect {
                Effect::Presence(UserPresence { user, since, .. }) => Some((user.to_string(), since)),
                _ => None,
            })
            .collect()
    }

    fn told_of_room(&mut self) -> Vec<RoomPresence> {
        let effects = self.effects().into_iter();
        effects
            .filter_map(|effect| if let Effect::RoomPresence(0, presence) = effect { Some(presence) } else { None })
            .collect()
    }

    /// What a request to watch users asks for, and its number.
    fn watched_again(&mut self) -> Vec<(u32, Vec<String>)> {
        let frames = self.frames(|frame| {
            (frame.header.kind == Kind::WatchPresence as u16).then(|| {
                let watch: message::WatchPresence<'_> = decode(frame.body).unwrap();
                assert_eq!(watch.remove.0.len(), 0);
                (frame.header.request, watch.add.0.iter().map(|user| (*user).to_owned()).collect())
            })
        });
        frames.into_iter().flatten().collect()
    }
}

#[test]
fn questions_about_presence_take_their_answers() {
    let users = vec![UserPresence { user: name("bob"), online: true, since: 5, devices: Vec::new() }];
    for (question, kind) in [
        (Question::Presence { users: names(&["bob"]) }, Kind::QueryPresence),
        (Question::WatchUsers { add: names(&["bob"]), remove: Vec::new() }, Kind::WatchPresence),
    ] {
        let mut lab = Lab::joined();
        lab.ask(70, None, question);
        let request = lab.only(kind);
        lab.hear(request, Incoming::Presence(presence(&[("bob", 5)])));
        assert_eq!(lab.answers(), [(70, Ok(Answer::Users(users.clone())))]);
    }
    let mut lab = Lab::joined();
    lab.ask(70, Some(0), Question::WatchRoom);
    let request = lab.only(Kind::WatchRoom);
    lab.hear(request, Incoming::RoomPresence(in_room(true, &["ann", "bob"], &[])));
    let all = RoomPresence { all: true, named: true, count: 2, came: names(&["ann", "bob"]), went: Vec::new() };
    let effects = lab.effects();
    let [Effect::RoomPresence(0, told), Effect::Answered(70, answer)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((told, answer), (&all, &Answer::InRoom(all.clone())));
    lab.ask(71, Some(0), Question::UnwatchRoom);
    let request = lab.only(Kind::WatchRoom);
    lab.hear(request, Incoming::Done);
    assert_eq!(lab.answers(), [(71, Ok(Answer::Done))]);
}

#[test]
fn changes_of_watched_users_are_told() {
    let mut lab = Lab::watching(&["bob", "eve"]);
    lab.hear(0, Incoming::Presence(presence(&[("bob", 5), ("cid", 5)])));
    assert_eq!(lab.told(), [("bob".to_owned(), 5)], "nobody watches cid");
    lab.watch(&[], &["bob"]);
    lab.hear(0, Incoming::Presence(presence(&[("bob", 0), ("eve", 6)])));
    assert_eq!(lab.told(), [("eve".to_owned(), 6)]);
}

#[test]
fn an_answer_is_newer_than_what_waits_for_the_application() {
    let mut lab = Lab::watching(&["bob", "eve"]);
    lab.ask(70, None, Question::WatchUsers { add: names(&["bob"]), remove: names(&["eve"]) });
    let request = lab.only(Kind::WatchPresence);
    lab.hear(request, Incoming::Presence(presence(&[("bob", 5)])));
    let effects = lab.effects();
    let [Effect::Told(users), Effect::Answered(70, _)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(*users, names(&["eve", "bob"]));
}

#[test]
fn users_are_watched_again_on_each_connection_and_only_what_was_missed_is_told() {
    for resumed in [true, false] {
        let mut lab = Lab::watching(&["bob", "cid", "eve"]);
        lab.watch(&[], &["cid"]);
        lab.hear(0, Incoming::Presence(presence(&[("bob", 5)])));
        lab.effects();
        lab.lose();
        lab.connect(resumed);
        let (request, users) = lab.watched_again().remove(0);
        assert_eq!(users, ["bob", "eve"]);
        lab.effects();
        lab.hear(request, Incoming::Presence(presence(&[("bob", 5), ("eve", 7)])));
        assert_eq!(lab.told(), [("eve".to_owned(), 7)], "bob is as he was");
    }
}

#[test]
fn many_users_are_watched_again_in_several_requests() {
    let users: Vec<String> = (0..1_001).map(|user| format!("user{user:04}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut lab = Lab::watching(&users[..1_000]);
    lab.watch(&users[1_000..], &[]);
    lab.lose();
    lab.connect(true);
    let again: Vec<usize> = lab.watched_again().iter().map(|(_, users)| users.len()).collect();
    assert_eq!(again, [1_000, 1]);
}

#[test]
fn a_server_that_is_too_busy_to_watch_is_asked_later_and_one_that_does_not_is_not() {
    let mut lab = Lab::watching(&["bob"]);
    lab.lose();
    lab.connect(true);
    let (request, _) = lab.watched_again().remove(0);
    lab.refuse(request, Code::Busy, 3_000);
    assert_eq!(lab.watched_again(), []);
    lab.at(lab.ms + 2_999);
    assert_eq!(lab.watched_again(), []);
    lab.at(lab.ms + 4_000);
    let (request, users) = lab.watched_again().remove(0);
    assert_eq!(users, ["bob"]);
    lab.refuse(request, Code::Unsupported, 0);
    lab.at(lab.ms + 20_000);
    assert_eq!(lab.watched_again(), []);
    lab.lose();
    lab.connect(true);
    assert_eq!(lab.watched_again().len(), 1, "the next connection may be to another server");
}

#[test]
fn changes_in_a_watched_room_are_told() {
    let mut lab = Lab::watching_room();
    lab.hear(0, Incoming::RoomPresence(in_room(false, &["bob"], &["eve"])));
    let change = RoomPresence { all: false, named: true, count: 2, came: names(&["bob"]), went: names(&["eve"]) };
    assert_eq!(lab.told_of_room(), [change]);
    let other = message::RoomPresence { room: RoomNumber(99), ..in_room(false, &["bob"], &[]) };
    lab.hear(0, Incoming::RoomPresence(other));
    lab.ask(70, Some(0), Question::UnwatchRoom);
    let request = lab.only(Kind::WatchRoom);
    lab.hear(request, Incoming::Done);
    lab.hear(0, Incoming::RoomPresence(in_room(false, &["cid"], &[])));
    assert_eq!(lab.told_of_room(), []);
}

#[test]
fn a_room_is_watched_again_once_it_is_attached() {
    let mut lab = Lab::watching_room();
    lab.lose();
    assert!(!lab.take_up().contains(&Kind::WatchRoom), "not before it is attached");
    let request = lab.only(Kind::WatchRoom);
    // For now it cannot be had.
    lab.refuse(request, Code::RoomUnavailable, 500);
    assert_eq!(lab.kinds(), []);
    lab.at(lab.ms + 2_000);
    let request = lab.only(Kind::WatchRoom);
    lab.effects();
    lab.hear(request, Incoming::RoomPresence(in_room(true, &["ann", "bob"], &[])));
    lab.hear(0, Incoming::RoomPresence(in_room(false, &[], &["bob"])));
    let told: Vec<(bool, usize, usize)> =
        lab.told_of_room().iter().map(|it| (it.all, it.came.len(), it.went.len())).collect();
    assert_eq!(told, [(true, 2, 0), (false, 0, 1)]);
}

#[test]
fn a_room_that_is_not_watched_is_not_watched_again() {
    let mut lab = Lab::joined();
    lab.lose();
    lab.take_up();
    assert!(!lab.kinds().contains(&Kind::WatchRoom));
}

#[test]
fn a_room_that_is_left_is_not_watched_again() {
    let mut lab = Lab::watching_room();
    lab.lose();
    // Its last send is not answered, so that it cannot be left yet.
    lab.send(5, "bye");
    lab.state.handle_leave(lab.now(), 0, None);
    lab.take_up();
    assert!(!lab.kinds().contains(&Kind::WatchRoom));
}
