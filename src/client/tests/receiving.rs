//! Positions, holes, gaps, epochs, pages.

use super::*;

#[test]
fn records_come_once_and_in_order() {
    let mut lab = Lab::joined();
    for seq in [1, 2, 2, 1, 3] {
        lab.deliver(seq);
    }
    assert_eq!(lab.received(), [(1, 1), (2, 2), (3, 3)]);
    assert_eq!(lab.position(), (EPOCH, 3));
    assert_eq!((lab.state.stats().duplicates, lab.state.stats().holes), (2, 0));
}

#[test]
fn a_hole_is_filled_before_what_came_behind_it() {
    let mut lab = Lab::joined();
    lab.deliver(1);
    lab.deliver(4);
    lab.deliver(5);
    assert_eq!(lab.received(), [(1, 1)]);
    lab.answer_fetch(2, &[2], &[]); // A page may end early.
    assert_eq!(lab.received(), [(2, 2)]);
    lab.deliver(6);
    lab.answer_fetch(3, &[3, 4], &[]);
    assert_eq!(lab.received(), [(3, 3), (4, 4), (5, 5), (6, 6)]);
    assert!(lab.kinds().is_empty(), "whole again");
    assert_eq!((lab.state.stats().holes, lab.state.stats().gaps, lab.position().1), (1, 0, 6));
    assert_eq!(lab.state.stats().late, 0, "what was fetched did not come late");
}

#[test]
fn records_that_change_places_are_put_right_and_counted() {
    let mut lab = Lab::joined();
    for seq in [1, 3, 2, 4] {
        lab.deliver(seq);
    }
    assert_eq!(lab.received(), [(1, 1), (2, 2), (3, 3), (4, 4)]);
    assert_eq!((lab.state.stats().holes, lab.state.stats().late), (1, 1));
}

#[test]
fn what_a_page_cannot_show_is_told() {
    let mut lab = Lab::joined();
    lab.deliver(10);
    lab.answer_fetch(1, &[4, 5], &[(1, 3), (6, 9)]);
    assert_eq!(lab.received(), [(1, 3), (4, 4), (5, 5), (6, 9), (10, 10)]);
    // A page that brings nothing must not be asked for again and again.
    lab.deliver(15);
    lab.answer_fetch(11, &[], &[]);
    assert_eq!(lab.received(), [(11, 14), (15, 15)]);
    // Nor one that is refused.
    lab.deliver(20);
    let request = lab.only(Kind::Fetch);
    lab.refuse(request, Code::Forbidden, 0);
    assert_eq!(lab.received(), [(16, 19), (20, 20)]);
    assert!(lab.kinds().is_empty());
}

#[test]
fn more_than_can_be_held_back_is_fetched() {
    let mut lab = Lab::joined();
    for seq in 2..=3_000 {
        lab.deliver(seq);
    }
    let mut start = 1;
    let mut got = Vec::new();
    while lab.position().1 < 3_000 {
        let seqs: Vec<_> = (start..start + 200).collect();
        lab.answer_fetch(start, &seqs, &[]);
        got.extend(lab.received());
        start = lab.position().1 + 1;
    }
    assert!(got.iter().zip(1..).all(|((seq, _), want)| *seq == want));
    assert_eq!(lab.state.stats().gaps, 0);
}

#[test]
fn gaps_advance_the_position() {
    let mut lab = Lab::joined();
    lab.gap(EPOCH, 1, 4, GapReason::TRIMMED);
    lab.deliver(5);
    assert_eq!(lab.received(), [(1, 4), (5, 5)]);
    lab.gap(EPOCH, 3, 7, GapReason::EXPIRED);
    assert_eq!(lab.received(), [(6, 7)], "only what is not held");
    lab.gap(EPOCH, 2, 3, GapReason::EXPIRED);
    assert_eq!(lab.received(), []);
    lab.gap(EPOCH, 10, 12, GapReason::EXPIRED); // Behind a hole: the page tells of it.
    lab.answer_fetch(8, &[8, 9], &[(10, 12)]);
    assert_eq!(lab.received(), [(8, 8), (9, 9), (10, 12)]);
    lab.gap(EPOCH, 6, 5, GapReason::ABOVE_TAIL);
    assert_eq!(lab.position(), (EPOCH, 5), "the room is shorter than the client thought");
}

#[test]
fn a_new_epoch_starts_where_the_gap_says() {
    let mut lab = Lab::joined();
    lab.deliver(1);
    lab.deliver(5); // A hole of the old epoch is of no interest in the new one.
    lab.effects();
    lab.gap(Epoch(4), 1, 0, GapReason::NEW_EPOCH);
    assert_eq!(lab.position(), (Epoch(4), 0));
    lab.deliver(1);
    lab.deliver(2);
    assert_eq!(lab.received(), [(1, 0), (1, 1), (2, 2)]);
    lab.answer_fetch(2, &[2, 3], &[]); // Late, and of the old epoch.
    assert_eq!(lab.received(), []);
    assert_eq!(lab.position(), (Epoch(4), 2));
}

#[test]
fn a_join_in_another_epoch_never_hides_it() {
    let mut lab = Lab::joined();
    lab.deliver(1);
    lab.lose();
    lab.connect(false);
    lab.answer_join(Epoch(4), 6, None);
    lab.effects();
    lab.deliver(7);
    let want = Gap { epoch: Epoch(4), from: 7, to: 6, why: GapReason::NEW_EPOCH };
    assert_eq!(lab.events()[..1], [Event::Gap(want)]);
    assert_eq!(lab.position(), (Epoch(4), 7));
}

#[test]
fn a_fetch_outlives_its_connection() {
    let mut lab = Lab::joined();
    lab.ask(70, Some(0), page(Some(1), message::Direction::Forward, 5));
    lab.only(Kind::Fetch);
    lab.lose();
    assert_eq!(lab.take_up(), [Kind::Hello, Kind::Resume]);
    let request = lab.only(Kind::Fetch);
    lab.refuse(request, Code::Busy, 10);
    assert!(lab.effects().iter().any(|effect| matches!(effect, Effect::Refused(70, error) if error.is_temporary())));
}

#[test]
fn what_a_first_join_asked_for_in_vain_is_told() {
    let mut lab = Lab::new();
    lab.connect(false);
    lab.state.handle_join(lab.now(), 0, 1, Name::parse("lobby").unwrap(), JoinFrom::Seq(1));
    lab.answer_join(EPOCH, 4, None);
    lab.effects();
    lab.gap(EPOCH, 1, 4, GapReason::EXPIRED);
    assert_eq!((lab.received(), lab.position()), (vec![(1, 4)], (EPOCH, 4)));
    lab.gap(EPOCH, 1, 4, GapReason::EXPIRED);
    lab.deliver(5);
    assert_eq!((lab.received(), lab.position()), (vec![(5, 5)], (EPOCH, 5)), "told once");
}
