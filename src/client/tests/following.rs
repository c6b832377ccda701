//! Rooms that come by following the user, and the network that heartbeats tell.

use super::*;

fn following() -> Lab {
    let mut lab = Lab::with(|config| config.follow = Some(5));
    lab.connect(false);
    lab
}

pub(super) fn attached(name: &str, number: u64, cursor: Seq) -> message::Attached<'_> {
    let message::Joined { epoch, tail, first, cursor, count, read, durability, newest_nonce, .. } =
        joined(RoomNumber(number), cursor);
    let room = RoomNumber(number);
    let unread = 4;
    let extensions = ext();
    message::Attached {
        name,
        room,
        epoch,
        tail,
        first,
        cursor,
        count,
        read,
        unread,
        durability,
        newest_nonce,
        extensions,
    }
}

/// The one `Follow` among the frames sent: its request, its positions as numbers and seqs, and all kinds behind the hello.
#[track_caller]
fn follow(lab: &mut Lab) -> (u32, Vec<(u64, Seq)>, Vec<Kind>) {
    let frames = lab.frames(|frame| {
        let kind = Kind::from_wire(frame.header.kind).unwrap();
        let follow = (kind == Kind::Follow).then(|| {
            let follow: message::Follow<'_> = decode(frame.body).unwrap();
            assert_eq!(follow.newest, 5);
            follow.positions.0.iter().map(|position| (position.room.0, position.seq)).collect()
        });
        (kind, frame.header.request, follow)
    });
    let kinds = frames.iter().map(|(kind, ..)| *kind).filter(|kind| *kind != Kind::Hello).collect();
    let mut follows = frames.into_iter().filter_map(|(_, request, follow)| Some((request, follow?)));
    let (request, positions) = follows.next().expect("a follow");
    assert!(follows.next().is_none(), "one is enough");
    (request, positions, kinds)
}

/// The rooms that the application gets, with what is unread, and the ends of rooms.
fn arrivals(lab: &mut Lab) -> Vec<(RoomKey, String, u64)> {
    let effects = lab.effects().into_iter();
    effects
        .filter_map(|effect| match effect {
            Effect::Attached(key, name, info) => Some((key, name.to_string(), info.unread)),
            _ => None,
        })
        .collect()
}

#[test]
fn rooms_come_without_being_asked_for() {
    let mut lab = following();
    let (request, positions, kinds) = follow(&mut lab);
    assert_eq!((positions.len(), kinds), (0, vec![Kind::Follow]));
    lab.hear(request, Incoming::Attached(attached("tea", 7, 3)));
    lab.hear(request, Incoming::Attached(attached("jam", 8, 0)));
    assert_eq!(arrivals(&mut lab), [(100, "tea".into(), 4), (101, "jam".into(), 4)]);
    lab.hear(request, Incoming::Done);
    // One that he is added to later, and its first message.
    lab.hear(0, Incoming::Attached(attached("new", 9, 0)));
    assert_eq!(arrivals(&mut lab), [(102, "new".into(), 4)]);
    lab.hear(0, Incoming::Deliver(message::Deliver { room: RoomNumber(9), ..record(1) }));
    assert_eq!(lab.received(), [(1, 1)]);
    lab.state.handle_send(lab.now(), 102, 5, Outgoing::text("hi"));
    assert_eq!(texts(&lab.sent()), ["hi"]);
}

#[test]
fn a_room_comes_once_whatever_becomes_of_the_connection() {
    for resumed in [false, true] {
        let mut lab = following();
        let (request, ..) = follow(&mut lab);
        lab.hear(request, Incoming::Attached(attached("tea", 7, 3)));
        lab.hear(request, Incoming::Done);
        lab.deliver(4);
        // One more that the application joined itself.
        lab.state.handle_join(lab.now(), 0, 1, Name::parse("own").unwrap(), JoinFrom::Tail);
        let joining = lab.only(Kind::Join);
        lab.hear(joining, Incoming::Joined(joined(RoomNumber(8), 0)));
        lab.effects();
        lab.lose();
        lab.connect(resumed);
        let (request, positions, kinds) = follow(&mut lab);
        assert_eq!(positions, [(7, 4)], "the other one is not covered");
        assert_eq!(kinds, [if resumed { Kind::Resume } else { Kind::Join }, Kind::Follow]);
        lab.state.handle_send(lab.now(), 100, 5, Outgoing::text("hi"));
        assert!(lab.sent().is_empty(), "not attached yet");
        lab.hear(request, Incoming::Attached(attached("tea", 7, 4)));
        assert_eq!(texts(&lab.sent()), ["hi"]);
        lab.hear(request, Incoming::Done);
        assert_eq!(lab.kinds(), []);
        let effects = lab.effects();
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Attached(..))), "{effects:?}");
        let back = |effect: &Effect| matches!(effect, Effect::Event(100, Event::Reconnected, _));
        assert!(effects.iter().any(back), "{effects:?}");
    }
}

#[test]
fn a_room_that_following_no_longer_brings_is_asked_for_by_name() {
    let mut lab = following();
    let (request, ..) = follow(&mut lab);
    lab.hear(request, Incoming::Attached(attached("tea", 7, 3)));
    lab.hear(request, Incoming::Done);
    lab.lose();
    lab.connect(false);
    let (request, ..) = follow(&mut lab);
    lab.effects();
    lab.hear(request, Incoming::Done);
    let join = lab.only(Kind::Join);
    lab.refuse(join, Code::Forbidden, 0);
    assert_eq!(lab.events(), [Event::Closed { code: Code::Forbidden, message: "no".into() }]);
    // Added again, he gets it as another room.
    lab.hear(0, Incoming::Attached(attached("tea", 7, 9)));
    assert_eq!(arrivals(&mut lab), [(101, "tea".into(), 4)]);
}

#[test]
fn a_room_that_was_left_is_not_taken_again_before_the_user_is_added_again() {
    let mut lab = following();
    let (request, ..) = follow(&mut lab);
    lab.hear(request, Incoming::Attached(attached("tea", 7, 3)));
    lab.hear(request, Incoming::Done);
    lab.state.handle_leave(lab.now(), 100, None);
    let leave = lab.only(Kind::Leave);
    lab.hear(leave, Incoming::Left(message::Left { room: ROOM, cursor: 3, extensions: ext() }));
    for _ in 0..3 {
        lab.lose();
        lab.connect(true);
        let (request, ..) = follow(&mut lab);
        lab.effects();
        lab.hear(request, Incoming::Attached(attached("tea", 7, 3)));
        lab.hear(request, Incoming::Done);
        lab.only(Kind::Leave);
        lab.deliver(4);
        assert!(lab.effects().is_empty());
    }
    lab.hear(0, Incoming::Attached(attached("tea", 7, 8)));
    assert_eq!(arrivals(&mut lab), [(101, "tea".into(), 4)]);
}

#[test]
fn a_join_that_following_overtakes_is_answered_by_it() {
    let mut lab = following();
    let (request, ..) = follow(&mut lab);
    lab.state.handle_join(lab.now(), 0, 1, Name::parse("tea").unwrap(), JoinFrom::Position(EPOCH, 1));
    let join = lab.only(Kind::Join);
    lab.hear(request, Incoming::Attached(attached("tea", 7, 3)));
    let effects = lab.effects();
    assert!(matches!(effects.last(), Some(Effect::Joined(1, 0, _))), "{effects:?}");
    lab.answer_fetch(2, &[2, 3], &[]);
    assert_eq!(lab.received(), [(2, 2), (3, 3)], "what it asked for is fetched");
    lab.refuse(join, Code::AlreadyJoined, 0);
    assert!(lab.effects().is_empty());
}

#[test]
fn a_follow_that_is_refused_for_now_is_asked_again_with_the_positions() {
    let mut lab = following();
    let (request, ..) = follow(&mut lab);
    lab.hear(request, Incoming::Attached(attached("tea", 7, 3)));
    lab.hear(request, Incoming::Done);
    lab.lose();
    lab.connect(true);
    let (request, ..) = follow(&mut lab);
    lab.refuse(request, Code::StoreUnavailable, 2_000);
    lab.at(lab.ms + 1_999);
    assert_eq!(lab.kinds(), []);
    lab.at(lab.ms + 2_001);
    assert_eq!(follow(&mut lab).1, [(7, 3)]);
}

#[test]
fn a_server_that_does_not_follow_is_asked_for_rooms_by_name() {
    let mut lab = following();
    let (request, ..) = follow(&mut lab);
    lab.hear(request, Incoming::Attached(attached("tea", 7, 3)));
    lab.hear(request, Incoming::Done);
    lab.lose();
    lab.connect(false);
    let (request, ..) = follow(&mut lab);
    lab.refuse(request, Code::Unsupported, 0);
    assert_eq!(lab.kinds(), [Kind::Join]);
}

/// What the next beat says of the network, and how long it took to come.
fn beat(lab: &mut Lab) -> (Option<message::Network>, u64) {
    let start = lab.ms;
    loop {
        let beats = lab.frames(|frame| decode::<message::Heartbeat<'_>>(frame.body).unwrap().network);
        if let [network] = beats[..] {
            return (network, lab.ms - start);
        }
        assert!(beats.is_empty());
        let due = u64::try_from(lab.state.timeout().unwrap().as_micros().div_ceil(1_000)).unwrap();
        lab.at(due.max(lab.ms));
    }
}

#[test]
fn another_network_is_told_at_once_where_beats_are_to_come_more_often() {
    let mut lab = Lab::with(|config| config.network = message::Network::Mobile4g);
    lab.connect(false);
    lab.frames(|_| ());
    let ack = |lab: &mut Lab| {
        let ack = message::HeartbeatAck { server_time: 0, grant_ms: 30_000, extensions: ext() };
        lab.hear(0, Incoming::HeartbeatAck(ack));
    };
    lab.state.handle_network(lab.now(), message::Network::Wired);
    assert_eq!(beat(&mut lab), (Some(message::Network::Wired), 0));
    ack(&mut lab);
    lab.state.handle_network(lab.now(), message::Network::Mobile2g);
    let (network, waited) = beat(&mut lab);
    assert_eq!(network, Some(message::Network::Mobile2g));
    assert!(waited >= 20_000, "after {waited} ms");
    ack(&mut lab);
    assert_eq!(beat(&mut lab).0, None, "told once");
    // The next hello tells it, too.
    lab.lose();
    lab.connected();
    let hellos = lab.frames(|frame| decode::<message::Hello<'_>>(frame.body).unwrap().network);
    assert_eq!(hellos, [message::Network::Mobile2g]);
}
