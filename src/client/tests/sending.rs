//! Nonces, windows, refusals, retries, and what a reconnect sends again.

use super::*;

#[test]
fn nothing_is_sent_to_a_room_before_it_is_joined() {
    let mut lab = Lab::new();
    lab.state.handle_join(lab.now(), 0, 1, Name::parse("lobby").unwrap(), JoinFrom::Tail);
    lab.send(2, "early");
    assert!(lab.state.output().is_empty());
    lab.connect(false);
    assert_eq!(lab.kinds(), [Kind::Hello, Kind::Join]);
}

#[test]
fn nonces_rise_with_the_clock_and_above_what_the_server_knows() {
    let mut lab = Lab::joined();
    assert_eq!(nonces(&lab.send_all(1..=3)), [1_000_000, 1_000_001, 1_000_002]);
    lab.at(5);
    assert_eq!(nonces(&lab.send_all(4..=4)), [1_005_000]);

    let mut lab = Lab::new();
    lab.connect(false);
    lab.state.handle_join(lab.now(), 0, 1, Name::parse("lobby").unwrap(), JoinFrom::Tail);
    lab.send(2, "early");
    lab.answer_join(EPOCH, 0, Some(9_000_000));
    assert_eq!(nonces(&lab.sent()), [9_000_001], "what never went out is renumbered");
    assert_eq!(nonces(&lab.send_all(3..=3)), [9_000_002]);
}

#[test]
fn publishes_are_pipelined_up_to_the_window() {
    let mut lab = Lab::joined();
    let sent = lab.send_all(1..=40);
    assert_eq!(sent.len(), 32);
    lab.ack(&sent[0], 1);
    assert_eq!(texts(&lab.sent()), ["33"]);
    assert_eq!(lab.outcomes(), [(1, Ok(1))]);
}

#[test]
fn rooms_share_the_window() {
    let mut lab = Lab::joined();
    lab.state.handle_join(lab.now(), 1, 1, Name::parse("other").unwrap(), JoinFrom::Tail);
    let request = lab.only(Kind::Join);
    let joined = message::Joined {
        room: RoomNumber(8),
        epoch: EPOCH,
        tail: 0,
        first: 1,
        cursor: 0,
        count: 0,
        read: 0,
        unread: 0,
        durability: Durability::Synced,
        newest_nonce: None,
        extensions: ext(),
    };
    lab.hear(request, Incoming::Joined(joined));
    let sent = lab.send_all(1..=40);
    lab.state.handle_send(lab.now(), 1, 99, Outgoing::text("other"));
    assert_eq!(lab.sent(), []);
    lab.ack(&sent[0], 1);
    lab.ack(&sent[1], 2);
    assert!(texts(&lab.sent()).contains(&"other"), "a busy room does not starve a quiet one");
}

#[test]
fn a_refusal_in_the_middle_goes_back_to_it() {
    let mut lab = Lab::joined();
    let sent = lab.send_all(1..=5);
    lab.ack(&sent[0], 1);
    lab.refuse(sent[1].0, Code::RateLimited, 500);
    lab.refuse(sent[2].0, Code::HeldBack, 0);
    lab.ack(&sent[3], 2); // It slipped through.
    lab.refuse(sent[4].0, Code::HeldBack, 0);
    lab.send(6, "6");
    assert_eq!(lab.sent(), [], "all later ones wait");
    lab.at(499);
    assert_eq!(lab.sent(), []);
    lab.at(600);
    let again = lab.sent();
    assert_eq!((texts(&again), nonces(&again)), (vec!["2"], vec![sent[1].1]), "the refused one first, to see");
    lab.ack(&again[0], 3);
    let rest = lab.sent();
    assert_eq!(texts(&rest), ["3", "5"]);
    assert_eq!(nonces(&rest), [sent[2].1, sent[4].1]);
    lab.ack(&rest[0], 4);
    lab.ack(&rest[1], 5);
    let last = lab.sent();
    assert_eq!(texts(&last), ["6"]);
    lab.ack(&last[0], 6);
    let outcomes = lab.outcomes();
    assert_eq!(outcomes, [(1, Ok(1)), (4, Ok(2)), (2, Ok(3)), (3, Ok(4)), (5, Ok(5)), (6, Ok(6))]);
    assert_eq!(lab.state.stats().rate_limited, 1, "what is held back because of it does not count");
}

#[test]
fn what_was_refused_and_not_heard_is_not_overtaken() {
    let mut lab = Lab::joined();
    let sent = lab.send_all(1..=4);
    lab.ack(&sent[0], 1);
    lab.send(5, "5");
    lab.sent();
    // The server has refused 2 and held back the rest, and its answers are still on their way when the acks are overdue.
    lab.at(5_000);
    let again = lab.sent();
    assert_eq!((texts(&again), nonces(&again)), (vec!["2"], vec![sent[1].1]));
    lab.send(6, "6");
    assert_eq!(lab.sent(), [], "what is newer waits");
    lab.refuse(sent[1].0, Code::RateLimited, 500);
    assert_eq!(lab.sent(), [], "nobody waits for that answer any longer");
    lab.ack(&again[0], 2);
    assert_eq!(texts(&lab.sent()), ["3", "4"], "the others follow in their order");
}

#[test]
fn refusals_for_now_are_no_retries() {
    let mut lab = Lab::joined();
    let mut sent = lab.send_all(1..=1);
    for round in 0..20 {
        lab.refuse(sent[0].0, Code::Busy, 0);
        let before = lab.ms;
        sent = Vec::new();
        while sent.is_empty() {
            let due = lab.state.timeout().unwrap();
            lab.at(u64::try_from(due.as_millis()).unwrap() + 1);
            sent = lab.sent();
        }
        assert!(lab.ms - before >= 20, "round {round} was too quick");
        assert_eq!(texts(&sent), ["1"], "round {round}");
    }
    lab.ack(&sent[0], 1);
    assert_eq!(lab.outcomes(), [(1, Ok(1))]);
}

#[test]
fn a_refusal_for_good_is_that_sends_only() {
    let mut lab = Lab::joined();
    let sent = lab.send_all(1..=3);
    lab.ack(&sent[0], 1);
    lab.refuse(sent[1].0, Code::NonceConflict, 0);
    lab.ack(&sent[2], 2);
    let refused = PublishError::Refused { code: Code::NonceConflict, message: "no".into() };
    assert_eq!(lab.outcomes(), [(1, Ok(1)), (2, Err(refused)), (3, Ok(2))]);
    lab.send(4, &"x".repeat(1_001));
    assert!(lab.sent().is_empty(), "the server would close the connection");
    assert!(matches!(lab.outcomes()[..], [(4, Err(PublishError::Refused { code: Code::TooLarge, .. }))]));
}

#[test]
fn an_ack_that_is_late_is_asked_for_then_given_up() {
    let mut lab = Lab::joined();
    let sent = lab.send_all(1..=2);
    lab.at(4_999);
    assert_eq!(lab.sent(), []);
    lab.at(5_000);
    assert_eq!(nonces(&lab.sent()), nonces(&sent)[..1], "the other follows when this one is answered");
    lab.ack(&sent[1], 1); // The answer to the first try, late: as good as any.
    assert_eq!(lab.outcomes(), [(2, Ok(1))]);
    lab.at(10_000);
    assert_eq!(nonces(&lab.sent()), nonces(&sent)[..1]);
    lab.at(14_999);
    assert_eq!(lab.outcomes(), []);
    lab.at(15_000);
    assert_eq!(lab.outcomes(), [(1, Err(PublishError::Busy))]);
    assert_eq!(lab.state.stats().resends, 2);
    lab.at(20_000);
    assert_eq!(lab.sent(), [], "the server had its chances");
    // Whoever sends tries again: first what is kept, and the newer ones behind it.
    let again = lab.send_all(3..=3);
    assert_eq!((texts(&again), nonces(&again)), (vec!["1"], vec![sent[0].1]));
    lab.ack(&again[0], 2);
    let last = lab.sent();
    assert_eq!(texts(&last), ["3"]);
    lab.ack(&last[0], 3);
    assert_eq!(lab.outcomes(), [(1, Ok(2)), (3, Ok(3))], "it has its outcome in the end");
}

#[test]
fn what_the_server_did_not_answer_is_kept_and_goes_out_after_a_reconnect() {
    let mut lab = Lab::joined();
    let sent = lab.send_all(1..=3);
    lab.at(15_000);
    lab.sent();
    let busy = |ticket| (ticket, Err(PublishError::Busy));
    assert_eq!(lab.outcomes(), [busy(1), busy(2), busy(3)], "those behind it wait, and are told so");
    lab.deliver(1);
    lab.lose();
    lab.connect(false);
    let mut lab = rejoined(lab);
    let again = lab.sent();
    assert_eq!((texts(&again), nonces(&again)), (vec!["1"], vec![sent[0].1]), "one at first, to see");
    lab.ack(&again[0], 2);
    let again = lab.sent();
    assert_eq!(nonces(&again), nonces(&sent)[1..]);
}

#[test]
fn a_room_whose_server_does_not_answer_can_be_left() {
    let mut lab = Lab::joined();
    lab.send_all(1..=1);
    lab.at(15_000);
    lab.sent();
    lab.state.handle_leave(lab.now(), 0, Some(9));
    assert_eq!(lab.kinds(), [Kind::Leave]);
}

#[test]
fn an_own_delivery_is_as_good_as_the_ack() {
    let mut lab = Lab::joined();
    let sent = lab.send_all(1..=2);
    lab.hear(0, Incoming::Deliver(own_record(1, sent[0].1)));
    lab.hear(0, Incoming::Deliver(message::Deliver { device_tag: DeviceTag(9), ..own_record(2, sent[1].1) }));
    assert_eq!(lab.outcomes(), [(1, Ok(1))], "another device of the user is not this one");
    lab.ack(&sent[0], 1);
    assert_eq!(lab.outcomes(), [], "answered once");
}

#[test]
fn after_a_reconnect_what_is_not_acked_goes_out_again_in_order() {
    let mut lab = Lab::joined();
    let sent = lab.send_all(1..=4);
    lab.ack(&sent[1], 1); // Out of order on purpose.
    lab.deliver(1);
    lab.at(4_000);
    lab.lose();
    lab.send(5, "5");
    assert_eq!(lab.sent(), []);
    lab.at(60_000); // Time disconnected is nobody's fault...
    lab.effects();
    lab.connect(false);
    assert_eq!(lab.outcomes(), [], "...so nothing was given up");
    let mut lab = rejoined(lab);
    let again = lab.sent();
    assert_eq!(texts(&again), ["1", "3", "4", "5"]);
    assert_eq!(nonces(&again)[..3], [sent[0].1, sent[2].1, sent[3].1]);
}

#[test]
fn a_client_held_up_by_its_application_blames_nobody() {
    let mut lab = Lab::joined();
    let sent = lab.send_all(1..=1);
    lab.state.handle_reading(lab.now(), false);
    lab.at(500_000);
    assert!(lab.outcomes().is_empty(), "nothing is late while nobody reads");
    let beats = lab.kinds();
    assert!(beats.len() > 10 && beats.iter().all(|kind| *kind == Kind::Heartbeat), "{beats:?}");
    lab.state.handle_reading(lab.now(), true);
    lab.at(504_000);
    lab.ack(&sent[0], 1);
    assert_eq!(lab.outcomes(), [(1, Ok(1))]);
}
