//! Messages that are kept outside until they are acked, and own ones that are seen once.

use std::sync::{Arc, Mutex};

use super::*;
use crate::client::{FileOutbox, SyncPolicy};

/// A lab whose messages are kept by the test.
fn keeping() -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let name = |text: &str| Name::parse(text).unwrap();
    let outbox = FileOutbox::open(folder.path(), &name("ann"), &name("default"), SyncPolicy::System).unwrap();
    let mut lab = Lab::with(|config| config.outbox = Some(Arc::new(Mutex::new(outbox))));
    lab.connect(false);
    lab.state.handle_join(lab.now(), 0, 1, Name::parse("lobby").unwrap(), JoinFrom::Tail);
    lab
}

/// What the keeper is told, as text.
fn told(lab: &mut Lab) -> Vec<String> {
    let effects = lab.effects().into_iter();
    effects
        .filter_map(|effect| match effect {
            Effect::Keep(_, nonce, message) => Some(format!("keep {nonce}: {:?}", message.payload)),
            Effect::Renumber(_, from, to) => Some(format!("{from} is {to}")),
            Effect::Forget(_, nonce) => Some(format!("forget {nonce}")),
            _ => None,
        })
        .collect()
}

#[test]
fn nothing_goes_out_before_it_is_kept() {
    let mut lab = keeping();
    lab.answer_join(EPOCH, 0, None);
    lab.effects();
    lab.send(1, "one");
    lab.send(2, "two");
    assert_eq!(told(&mut lab), ["keep 1000000: b\"one\"", "keep 1000001: b\"two\""]);
    assert_eq!(lab.sent(), []);
    lab.state.handle_kept(lab.now(), 0, 1_000_001);
    assert_eq!(lab.sent(), [], "not out of turn");
    lab.state.handle_kept(lab.now(), 0, 1_000_000);
    let sent = lab.sent();
    assert_eq!(texts(&sent), ["one", "two"]);
    lab.ack(&sent[0], 1);
    assert_eq!(told(&mut lab), ["forget 1000000"]);
    lab.refuse(sent[1].0, Code::Forbidden, 0);
    assert_eq!(told(&mut lab), ["forget 1000001"]);
}

#[test]
fn what_cannot_be_kept_is_not_sent() {
    let mut lab = keeping();
    lab.answer_join(EPOCH, 0, None);
    lab.effects();
    lab.send(1, "one");
    lab.send(2, "two");
    lab.state.handle_not_kept(lab.now(), 0, 1_000_000, "disk full".into());
    lab.state.handle_kept(lab.now(), 0, 1_000_001);
    assert_eq!(texts(&lab.sent()), ["two"]);
    assert_eq!(lab.outcomes(), [(1, Err(PublishError::NotKept("disk full".into())))]);
}

#[test]
fn what_was_left_goes_out_first_under_its_nonce_and_is_no_news() {
    let mut lab = keeping();
    let left = vec![(400, Outgoing::text("four")), (500, Outgoing::text("five"))];
    lab.state.handle_restored(lab.now(), 0, left);
    lab.send(2, "new");
    lab.state.handle_kept(lab.now(), 0, 1_000_000);
    lab.answer_join(EPOCH, 0, Some(400));
    let sent = lab.sent();
    assert_eq!((texts(&sent), nonces(&sent)), (vec!["four", "five", "new"], vec![400, 500, 1_000_000]));
    lab.effects();
    lab.ack(&sent[0], 1);
    lab.refuse(sent[1].0, Code::NonceTooOld, 0);
    assert_eq!(told(&mut lab), ["forget 400", "forget 500"]);
}

#[test]
fn another_nonce_is_kept_before_it_goes_out() {
    let mut lab = keeping();
    lab.send(2, "early");
    lab.state.handle_kept(lab.now(), 0, 1_000_000);
    lab.answer_join(EPOCH, 0, Some(9_000_000));
    assert_eq!(told(&mut lab), ["keep 1000000: b\"early\"", "1000000 is 9000001"]);
    assert_eq!(lab.sent(), []);
    lab.state.handle_kept(lab.now(), 0, 9_000_001);
    assert_eq!(nonces(&lab.sent()), [9_000_001]);
}

/// The text of a record and its ack, in any order or alone, with a loss of the connection at any place.
#[test]
fn an_own_message_is_told_and_acked_once_whatever_comes_first() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Step {
        Ack,
        Deliver,
        Lose,
    }
    use Step::{Ack, Deliver, Lose};
    let orders: &[&[Step]] = &[
        &[Ack, Deliver],
        &[Deliver, Ack],
        &[Deliver],
        &[Ack, Ack, Deliver, Deliver],
        &[Deliver, Deliver, Ack, Ack],
        &[Ack, Lose, Deliver],
        &[Deliver, Lose, Deliver],
        &[Deliver, Lose, Ack, Deliver],
        &[Lose, Deliver, Ack],
        &[Lose, Ack, Deliver],
        &[Lose, Deliver],
        &[Ack, Deliver, Lose, Deliver, Ack],
        &[Ack],
        &[Lose, Ack],
    ];
    for order in orders {
        let mut lab = Lab::joined();
        let mut sent = lab.send_all(1..=1);
        let nonce = sent[0].1;
        let (mut shown, mut acked, mut is_acked) = (0, 0, false);
        for step in *order {
            match step {
                Ack => lab.ack(&sent[0], 1),
                Deliver => lab.hear(0, Incoming::Deliver(own_record(1, nonce))),
                Lose => {
                    lab.lose();
                    lab.connect(false);
                    let position = lab.position().1;
                    lab.answer_join(EPOCH, position, None);
                    let again = lab.sent();
                    assert_eq!(nonces(&again), if is_acked { vec![] } else { vec![nonce] }, "{order:?}");
                    sent = if is_acked { sent } else { again };
                }
            }
            is_acked |= *step != Lose;
            for effect in lab.effects() {
                match effect {
                    Effect::Event(_, Event::Message(message), _) => {
                        assert!(message.own && message.nonce == nonce);
                        shown += 1;
                    }
                    Effect::Sent(1, outcome) => {
                        assert_eq!(outcome.unwrap().seq, 1);
                        acked += 1;
                    }
                    _ => {}
                }
            }
        }
        let is_delivered = order.contains(&Deliver);
        assert_eq!((shown, acked), (usize::from(is_delivered), 1), "{order:?}");
    }
}
