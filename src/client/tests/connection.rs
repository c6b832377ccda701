//! Connecting, coming back, leaving, the end.

use super::*;

#[test]
fn events_tell_of_a_loss_once() {
    let mut lab = Lab::joined();
    lab.state.handle_lost(lab.now(), "cut".into(), false);
    assert!(matches!(&lab.events()[..], [Event::Disconnected { .. }]));
    for _ in 0..5 {
        let due = u64::try_from(lab.state.timeout().unwrap().as_millis()).unwrap() + 1;
        lab.at(due);
        lab.unreachable();
        assert_eq!(lab.events(), []);
    }
    let due = u64::try_from(lab.state.timeout().unwrap().as_millis()).unwrap() + 1;
    lab.at(due);
    lab.connect(false);
    lab.answer_join(EPOCH, 0, None);
    assert_eq!(lab.events(), [Event::Reconnected]);
}

#[test]
fn a_leave_waits_for_what_was_sent_and_ends_behind_what_is_owed() {
    let mut lab = Lab::joined();
    let sent = lab.send_all(1..=1);
    lab.state.handle_leave(lab.now(), 0, Some(50));
    lab.send(2, "late");
    assert_eq!(lab.outcomes(), [(2, Err(PublishError::NotJoined))]);
    assert!(lab.kinds().is_empty());
    lab.ack(&sent[0], 1);
    let request = lab.only(Kind::Leave);
    lab.deliver(1);
    lab.hear(request, Incoming::Left(message::Left { room: ROOM, cursor: 2, extensions: ext() }));
    let effects = lab.effects();
    let shape: Vec<_> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Sent(..) => "sent",
            Effect::Event(_, Event::Message(_), _) => "message",
            Effect::Event(_, Event::Gap(gap), _) if gap.why == GapReason::LOST => "lost",
            Effect::Left(50, 2) => "left",
            Effect::EventsEnd(0) => "end",
            _ => "?",
        })
        .collect();
    assert_eq!(shape, ["sent", "message", "left", "lost", "end"], "a record that was owed is never kept quiet");
}

#[test]
fn a_leave_while_disconnected_joins_again_first() {
    let mut lab = Lab::joined();
    lab.deliver(1);
    lab.lose();
    lab.state.handle_leave(lab.now(), 0, Some(50));
    lab.connect(false);
    let mut lab = rejoined(lab);
    lab.only(Kind::Leave);
}

#[test]
fn a_room_that_is_being_left_can_be_joined_again() {
    let mut lab = Lab::joined();
    lab.state.handle_join(lab.now(), 1, 8, Name::parse("lobby").unwrap(), JoinFrom::Tail);
    assert!(matches!(lab.effects()[..], [Effect::Refused(8, RequestError::AlreadyJoined), Effect::EventsEnd(1)]));
    lab.state.handle_leave(lab.now(), 0, None);
    let request = lab.only(Kind::Leave);
    lab.state.handle_join(lab.now(), 2, 9, Name::parse("lobby").unwrap(), JoinFrom::Tail);
    assert!(lab.kinds().is_empty());
    lab.hear(request, Incoming::Left(message::Left { room: ROOM, cursor: 0, extensions: ext() }));
    assert_eq!(lab.kinds(), [Kind::Join]);
}

#[track_caller]
fn check_close(code: Code, wait: Option<std::ops::Range<u64>>) {
    let mut lab = Lab::joined();
    lab.hear(0, Incoming::Close(message::Close { code, retry_after_ms: 3_000, message: "x", extensions: ext() }));
    let effects = lab.effects();
    match wait {
        Some(wait) => {
            let until = u64::try_from(lab.state.timeout().unwrap().as_millis()).unwrap();
            assert!(wait.contains(&until), "{code}: {until} ms");
        }
        None => assert!(
            matches!(effects.last(), Some(Effect::Ended(of, why)) if *of == code && why == "x"),
            "{code}: {effects:?}"
        ),
    }
}

#[test]
fn closes_are_obeyed_by_their_range() {
    for code in [Code::SlowReader, Code::Internal, Code(3_499)] {
        check_close(code, Some(0..1_001));
    }
    for code in [Code::GoingAway, Code(3_999)] {
        check_close(code, Some(3_000..4_001));
    }
    for code in [Code::Replaced, Code::Kicked, Code::Unauthorized, Code(4_499), Code::Superseded, Code(9_999)] {
        check_close(code, None);
    }
}

/// How long the client waits after a connection that stood so long, which many failures went before.
fn wait_after(stood_ms: u64) -> u64 {
    let mut lab = Lab::joined();
    lab.lose();
    for _ in 0..6 {
        lab.unreachable();
        let due = u64::try_from(lab.state.timeout().unwrap().as_millis()).unwrap() + 1;
        lab.at(due);
    }
    lab.connect(true);
    lab.at(lab.ms + stood_ms);
    lab.state.handle_lost(lab.now(), "cut".into(), false);
    u64::try_from(lab.state.timeout().unwrap().as_millis()).unwrap() - lab.ms
}

#[test]
fn waits_grow_until_a_connection_has_stood_for_a_minute() {
    assert!(wait_after(60_000) <= 1_000);
    assert!((1_001..=60_000).contains(&wait_after(59_000)), "this seed draws a long one");
}

#[test]
fn the_first_connect_tries_every_server_once_or_as_long_as_it_may() {
    let refused = |lab: &mut Lab| {
        lab.unreachable();
        lab.effects()
    };
    let servers = |config: &mut Config| config.servers = vec!["10.0.0.1:1".into(), "10.0.0.2:2".into()];
    let mut lab = Lab::with(servers);
    assert!(matches!(&refused(&mut lab)[..], [Effect::Dial(_, one), Effect::Dial(_, two)]
        if one.port() == 1 && two.port() == 2));
    assert!(matches!(&refused(&mut lab)[..], [Effect::HangUp, Effect::Failed(ConnectError::Unreachable { .. })]));

    let mut lab = Lab::with(|config| {
        servers(config);
        config.connect_patience = Duration::from_secs(60);
    });
    let mut dials = 1;
    loop {
        let effects = refused(&mut lab);
        if let Some(Effect::Failed(_)) = effects.last() {
            break;
        }
        if !matches!(effects.last(), Some(Effect::Dial(..))) {
            let due = u64::try_from(lab.state.timeout().unwrap().as_millis()).unwrap() + 1;
            lab.at(due);
        }
        dials += 1;
    }
    assert!((60_000..60_010).contains(&lab.ms), "gave up after {} ms: the last try is made when patience ends", lab.ms);
    assert!((10..50).contains(&dials), "{dials} dials");
}

#[test]
fn the_end_answers_everybody() {
    let mut lab = Lab::joined();
    lab.send_all(1..=2);
    lab.ask(70, Some(0), page(None, message::Direction::Backward, 0));
    lab.state.handle_join(lab.now(), 1, 71, Name::parse("other").unwrap(), JoinFrom::Tail);
    lab.state.handle_leave(lab.now(), 0, Some(72));
    lab.state.handle_close(lab.now());
    assert_eq!(lab.kinds().last(), Some(&Kind::Goodbye));
    lab.at(2_000);
    let effects = lab.effects();
    let mut tickets: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Sent(ticket, Err(PublishError::Closed { .. })) => Some(*ticket),
            Effect::Refused(ticket, RequestError::Closed { .. }) => Some(*ticket),
            _ => None,
        })
        .collect();
    tickets.sort_unstable();
    assert_eq!(tickets, [1, 2, 70, 71, 72]);
    assert!(matches!(effects.last(), Some(Effect::Ended(Code::Goodbye, _))));
    assert_eq!(lab.state.timeout(), None);
}

#[test]
fn an_ack_behind_the_goodbye_counts() {
    let mut lab = Lab::joined();
    let sent = lab.send_all(1..=2);
    lab.state.handle_close(lab.now());
    lab.ack(&sent[0], 1);
    lab.deliver(1);
    lab.hear(
        0,
        Incoming::Close(message::Close { code: Code::Goodbye, retry_after_ms: 0, message: "", extensions: ext() }),
    );
    assert!(matches!(lab.outcomes()[..], [(1, Ok(1)), (2, Err(PublishError::Closed { .. }))]));
}
