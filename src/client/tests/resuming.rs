//! A session that is taken up again: its rooms one by one.

use super::*;

/// The positions of the one `Resume` among the frames sent, its request, and the kinds of all frames behind the hello.
#[track_caller]
fn resume(lab: &mut Lab) -> (u32, Vec<message::Position>, Vec<Kind>) {
    let frames = lab.frames(|frame| {
        let kind = Kind::from_wire(frame.header.kind).unwrap();
        let positions = (kind == Kind::Resume).then(|| decode::<message::Resume<'_>>(frame.body).unwrap().positions.0);
        (kind, frame.header.request, positions)
    });
    let kinds: Vec<_> = frames.iter().map(|(kind, ..)| *kind).filter(|kind| *kind != Kind::Hello).collect();
    let mut resumes = frames.into_iter().filter_map(|(_, request, positions)| Some((request, positions?)));
    let (request, positions) = resumes.next().expect("a resume");
    assert!(resumes.next().is_none(), "one is enough");
    (request, positions, kinds)
}

fn detached<'a>(room: RoomNumber, code: Code) -> message::Detached<'a> {
    message::Detached { room, cursor: 1, code, message: "why", extensions: ext() }
}

/// In room 7 at seq 1, back on a session that was taken up, with a `Resume` of this number on its way.
fn resumed() -> (Lab, u32) {
    let mut lab = Lab::joined();
    lab.deliver(1);
    lab.lose();
    lab.connect(true);
    let (request, positions, kinds) = resume(&mut lab);
    assert_eq!(positions, [message::Position { room: ROOM, epoch: EPOCH, seq: 1 }]);
    assert_eq!(kinds, [Kind::Resume]);
    lab.effects();
    (lab, request)
}

#[test]
fn nothing_goes_to_a_room_before_the_server_says_that_it_goes_on() {
    let mut lab = Lab::joined();
    let sent = lab.send_all(1..=2);
    lab.lose();
    lab.connect(true);
    lab.ask(70, Some(0), page(None, message::Direction::Backward, 0));
    lab.send(3, "3");
    let (request, _, kinds) = resume(&mut lab);
    assert_eq!(kinds, [Kind::Resume]);
    assert_eq!(lab.events(), []);
    lab.hear(request, Incoming::Joined(joined(ROOM, 0)));
    assert_eq!(lab.events(), [Event::Reconnected]);
    let kinds = lab.kinds();
    assert_eq!(
        kinds,
        [Kind::Fetch, Kind::Publish, Kind::Publish, Kind::Publish],
        "no join, and no heartbeat of its own"
    );
    lab.ack(&sent[0], 1);
    assert_eq!(lab.outcomes(), [(1, Ok(1))]);
}

#[test]
fn rooms_that_cannot_go_on_are_joined_by_their_names() {
    for (code, at_once) in
        [(Code::NotJoined, true), (Code::TooManyRooms, true), (Code::Busy, false), (Code(1_999), false)]
    {
        let (mut lab, request) = resumed();
        lab.hear(request, Incoming::Detached(detached(ROOM, code)));
        assert_eq!(lab.state.output().is_empty(), !at_once, "{code}");
        lab.at(lab.ms + 200);
        let mut lab = rejoined(lab);
        assert_eq!(lab.events(), [Event::Reconnected], "{code}");
    }
}

#[test]
fn rooms_that_are_no_longer_for_the_user_end() {
    for code in [Code::Forbidden, Code::RoomDeleted, Code::UnknownRoom, Code(2_999)] {
        let (mut lab, request) = resumed();
        lab.hear(request, Incoming::Detached(detached(ROOM, code)));
        assert_eq!(lab.events(), [Event::Closed { code, message: "why".into() }]);
        assert!(lab.state.output().is_empty());
    }
}

#[test]
fn an_answer_to_another_request_ends_no_waiting() {
    let (mut lab, request) = resumed();
    lab.hear(request + 1, Incoming::Joined(joined(ROOM, 1)));
    lab.hear(request + 1, Incoming::Detached(detached(ROOM, Code::Forbidden)));
    assert_eq!(lab.events(), []);
    lab.send(5, "5");
    assert!(lab.sent().is_empty());
}

#[test]
fn a_resume_that_is_refused_as_a_whole_is_many_joins() {
    let (mut lab, request) = resumed();
    lab.refuse(request, Code::Busy, 0);
    rejoined(lab);
}

#[test]
fn a_first_join_under_way_is_sent_again_by_name() {
    let mut lab = Lab::joined();
    lab.state.handle_join(lab.now(), 1, 9, Name::parse("other").unwrap(), JoinFrom::Newest(3));
    lab.lose();
    lab.connected();
    let resumes = lab.frames(|frame| decode::<message::Hello<'_>>(frame.body).unwrap().resume);
    assert_eq!(resumes, [Some(Token([1; 16]))], "whatever was under way");
    lab.welcome(true, 30_000);
    let (_, positions, kinds) = resume(&mut lab);
    assert_eq!(positions.len(), 1, "the other has no position");
    assert_eq!(kinds, [Kind::Resume, Kind::Join]);
}

#[test]
fn a_resume_lost_in_the_middle_is_asked_again() {
    let (mut lab, request) = resumed();
    lab.lose();
    lab.connect(true);
    let (again, positions, _) = resume(&mut lab);
    assert_eq!(positions.len(), 1);
    lab.hear(request, Incoming::Joined(joined(ROOM, 1)));
    assert_eq!(lab.events(), [], "an answer to the older one means nothing");
    lab.hear(again, Incoming::Joined(joined(ROOM, 1)));
    assert_eq!(lab.events(), [Event::Reconnected]);
}

#[test]
fn a_leave_under_way_is_done_once_the_connection_is_lost() {
    let mut lab = Lab::joined();
    lab.deliver(1);
    lab.state.handle_leave(lab.now(), 0, Some(50));
    lab.only(Kind::Leave);
    lab.state.handle_lost(lab.now(), "cut".into(), false);
    let effects = lab.effects();
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Left(50, 1))), "{effects:?}");
    assert!(matches!(effects.last(), Some(Effect::EventsEnd(0))), "{effects:?}");
    lab.redial();
    lab.connect(true);
    let (_, positions, kinds) = resume(&mut lab);
    assert_eq!((positions.len(), kinds), (0, vec![Kind::Resume]), "what is not listed is left");
}

#[test]
fn a_room_of_a_session_that_is_over_is_not_listed_by_its_old_number() {
    let mut lab = Lab::joined();
    lab.deliver(1);
    lab.lose();
    // A new session, maybe on another server: lost before the room is joined there.
    lab.connect(false);
    lab.only(Kind::Join);
    lab.lose();
    lab.connect(true);
    let (_, positions, kinds) = resume(&mut lab);
    assert_eq!((positions.len(), kinds), (0, vec![Kind::Resume, Kind::Join]));
}

#[test]
fn a_room_that_is_about_to_be_attached_is_waited_for() {
    let (mut lab, request) = resumed();
    lab.send(2, "2");
    lab.hear(request, Incoming::Detached(detached(ROOM, Code::AlreadyJoined)));
    assert!(lab.state.output().is_empty(), "the room's Attached is on its way");
    lab.hear(0, Incoming::Attached(following::attached("lobby", ROOM.0, 1)));
    assert_eq!(lab.events(), [Event::Reconnected]);
    assert_eq!(lab.kinds(), [Kind::Publish]);
}

#[test]
fn a_room_that_is_not_attached_after_all_is_joined_by_its_name() {
    let (mut lab, request) = resumed();
    lab.hear(request, Incoming::Detached(detached(ROOM, Code::AlreadyJoined)));
    lab.at(lab.ms + 4_999);
    assert!(lab.state.output().is_empty());
    lab.at(lab.ms + 1);
    let join = lab.only(Kind::Join);
    // Still on its way: that ends nothing.
    lab.refuse(join, Code::AlreadyJoined, 0);
    assert_eq!(lab.events(), []);
    lab.at(lab.ms + 5_000);
    let mut lab = rejoined(lab);
    assert_eq!(lab.events(), [Event::Reconnected]);
}
