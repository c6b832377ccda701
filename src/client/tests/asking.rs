//! Questions: each gets its own answer, waits while there is no connection, and is asked twice only where that is safe.

use super::*;
use crate::client::directory::{Member, Members, RoomDetails, Rooms};
use parlor_protocol::message::{Role, RoomOptions};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn create() -> Question {
    Question::Create { room: name("tea"), options: RoomOptions::default(), members: vec![name("bob")] }
}

fn describe() -> Question {
    Question::Describe { room: name("tea") }
}

fn info<'a>() -> message::RoomInfo<'a> {
    message::RoomInfo {
        name: "tea",
        room: ROOM,
        epoch: EPOCH,
        options: RoomOptions::default(),
        tail: 4,
        count: 3,
        members: 2,
        role: Some(Role::Owner),
        extensions: ext(),
    }
}

#[track_caller]
fn check(question: Question, kind: Kind, answer: Incoming<'_>, want: &Answer) {
    let mut lab = Lab::joined();
    let room = matches!(question, Question::Page { .. } | Question::Readers { .. } | Question::Standing).then_some(0);
    lab.ask(70, room, question.clone());
    let request = lab.only(kind);
    lab.hear(request, answer);
    assert_eq!(lab.answers(), [(70, Ok(want.clone()))]);
    lab.ask(71, room, question);
    let request = lab.only(kind);
    lab.refuse(request, Code::Busy, 30);
    assert!(matches!(&lab.answers()[..], [(71, Err(error))]
        if error.is_temporary() && error.retry_after() == Some(Duration::from_millis(30))));
}

#[test]
fn each_question_takes_its_answer() {
    let options = RoomOptions::default();
    let room = RoomDetails::of(&info()).unwrap();
    check(create(), Kind::CreateRoom, Incoming::RoomInfo(info()), &Answer::Room(room.clone()));
    check(describe(), Kind::DescribeRoom, Incoming::RoomInfo(info()), &Answer::Room(room.clone()));
    let direct = Question::OpenDirect { user: name("bob") };
    check(direct, Kind::OpenDirect, Incoming::RoomInfo(info()), &Answer::Room(room));
    let (tea, users) = (name("tea"), vec![name("bob")]);
    let configure = Question::Configure { room: tea.clone(), options };
    check(configure, Kind::ConfigureRoom, Incoming::Done, &Answer::Done);
    check(Question::Delete { room: tea.clone() }, Kind::DeleteRoom, Incoming::Done, &Answer::Done);
    let set = Question::SetMembers { room: tea.clone(), role: Role::Muted, users: users.clone() };
    check(set, Kind::SetMembers, Incoming::Done, &Answer::Done);
    let remove = Question::RemoveMembers { room: tea.clone(), users };
    check(remove, Kind::RemoveMembers, Incoming::Done, &Answer::Done);
    let entry = message::MemberEntry { user: "bob", role: Role::Member, added: 9 };
    let page = message::Members { members: List(vec![entry]), next: Some("bob"), extensions: ext() };
    let member = Member { user: name("bob"), role: Role::Member, added: 9 };
    let members = Members { members: vec![member], next: Some(name("bob")) };
    let list = Question::Members { room: tea, after: None, limit: 1 };
    check(list, Kind::ListMembers, Incoming::Members(page), &Answer::Members(members));
    let readers = message::Readers { room: ROOM, readers: List::default(), extensions: ext() };
    check(Question::Readers { seq: 3 }, Kind::FetchReaders, Incoming::Readers(readers), &Answer::Readers(Vec::new()));
    let marked = message::Marked { room: ROOM, read: 3, unread: 2, extensions: ext() };
    let standing = Standing { read: 3, unread: 2 };
    check(Question::Standing, Kind::Mark, Incoming::Marked(marked), &Answer::Standing(standing));
}

#[test]
fn a_list_of_rooms_brings_the_newest_messages() {
    let mut lab = Lab::joined();
    lab.ask(70, None, Question::Rooms { before: None, limit: 0 });
    let newest = parlor_protocol::to_bytes(0, &record(4));
    let entry = message::RoomEntry {
        name: "tea",
        room: ROOM,
        epoch: EPOCH,
        role: Role::Member,
        tail: 4,
        count: 4,
        unread: 1,
        time: 5,
        newest: &newest,
    };
    let empty = message::RoomEntry { newest: &[], ..entry };
    let rooms = message::Rooms { rooms: List(vec![entry, empty]), next: None, extensions: ext() };
    let request = lab.only(Kind::ListRooms);
    lab.hear(request, Incoming::Rooms(rooms));
    let answers = lab.answers();
    let [(70, Ok(Answer::Rooms(Rooms { rooms, next: None })))] = &answers[..] else { panic!("{answers:?}") };
    let newest: Vec<_> = rooms.iter().map(|room| room.newest.as_ref().map(|message| message.seq)).collect();
    assert_eq!(newest, [Some(4), None]);
}

#[test]
fn what_is_safe_is_asked_again_and_the_rest_is_told() {
    let mut lab = Lab::joined();
    let leave = Question::RemoveMembers { room: name("tea"), users: vec![name("ann")] };
    lab.ask(1, None, create());
    lab.ask(2, None, describe());
    lab.ask(3, None, Question::Delete { room: name("tea") });
    lab.ask(4, Some(0), page(None, message::Direction::Forward, 0));
    lab.ask(5, None, leave);
    lab.lose();
    let mut kinds = lab.take_up();
    kinds.extend(lab.kinds());
    assert!(!kinds.contains(&Kind::CreateRoom) && !kinds.contains(&Kind::DeleteRoom), "{kinds:?}");
    assert!(kinds.contains(&Kind::DescribeRoom) && kinds.contains(&Kind::Fetch), "{kinds:?}");
    assert!(!kinds.contains(&Kind::RemoveMembers), "{kinds:?}");
}

#[test]
fn a_lost_answer_to_what_is_not_asked_again_says_so() {
    let mut lab = Lab::joined();
    lab.ask(1, None, create());
    lab.state.handle_lost(lab.now(), "cut".into(), false);
    assert_eq!(lab.answers(), [(1, Err(RequestError::OutcomeUnknown))]);
    // The server may say the same itself.
    let mut lab = Lab::joined();
    lab.ask(1, None, create());
    let request = lab.only(Kind::CreateRoom);
    lab.refuse(request, Code::OutcomeUnknown, 0);
    assert_eq!(lab.answers(), [(1, Err(RequestError::OutcomeUnknown))]);
}

#[test]
fn what_was_not_asked_yet_waits_for_a_connection() {
    let mut lab = Lab::joined();
    lab.lose();
    lab.ask(1, None, create());
    assert_eq!(lab.kinds(), []);
    lab.connect(true);
    assert!(lab.kinds().contains(&Kind::CreateRoom), "it never went out, so nothing is unknown of it");
}

#[test]
fn questions_leave_room_for_publishes() {
    let mut lab = Lab::joined();
    for ticket in 0..40 {
        lab.ask(ticket, None, describe());
    }
    let requests = lab.frames(|frame| frame.header.request);
    assert_eq!(requests.len(), 16, "a quarter of what the server takes");
    lab.hear(requests[0], Incoming::RoomInfo(info()));
    lab.refuse(requests[1], Code::UnknownRoom, 0);
    assert_eq!(lab.kinds(), [Kind::DescribeRoom; 2], "each answer makes room for one more");
    lab.lose();
    lab.connect(true);
    assert_eq!(lab.kinds().iter().filter(|kind| **kind == Kind::DescribeRoom).count(), 16);
}

#[test]
fn a_wrong_answer_ends_the_connection() {
    for answer in [Incoming::Done, Incoming::Left(message::Left { room: ROOM, cursor: 0, extensions: ext() })] {
        let mut lab = Lab::joined();
        lab.ask(1, None, describe());
        let request = lab.only(Kind::DescribeRoom);
        lab.hear(request, answer);
        assert!(lab.effects().iter().any(|effect| matches!(effect, Effect::HangUp)));
    }
}

#[test]
fn the_end_answers_every_question() {
    let mut lab = Lab::joined();
    for ticket in 0..20 {
        lab.ask(ticket, None, describe());
    }
    lab.state.handle_close(lab.now());
    lab.at(2_000);
    let answers = lab.answers();
    assert_eq!(answers.len(), 20);
    assert!(answers.iter().all(|(_, answer)| matches!(answer, Err(RequestError::Closed { .. }))));
}
