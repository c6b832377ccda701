//! Read marks and signals of joined rooms.

use bytes::Bytes;

use super::*;
use crate::client::marking::Target;

fn marked<'a>(read: Seq, unread: u64) -> message::Marked<'a> {
    message::Marked { room: ROOM, read, unread, extensions: ext() }
}

/// The marks that were sent, with their requests.
fn marks(lab: &mut Lab) -> Vec<(u32, Seq)> {
    let sent = lab.frames(|frame| {
        (frame.header.kind == Kind::Mark as u16)
            .then(|| (frame.header.request, decode::<message::Mark<'_>>(frame.body).unwrap().read))
    });
    sent.into_iter().flatten().collect()
}

fn standings(lab: &mut Lab) -> Vec<(Seq, u64)> {
    let effects = lab.effects().into_iter();
    effects
        .filter_map(|effect| match effect {
            Effect::Marked(0, Standing { read, unread }) => Some((read, unread)),
            _ => None,
        })
        .collect()
}

fn holding(seqs: Seq) -> Lab {
    let mut lab = Lab::joined();
    (1..=seqs).for_each(|seq| lab.deliver(seq));
    lab.effects();
    lab
}

#[test]
fn marks_are_gathered_and_told_at_most_once_a_second() {
    let mut lab = holding(9);
    for seq in 1..=5 {
        lab.state.handle_mark(lab.now(), 0, seq);
    }
    let sent = marks(&mut lab);
    assert_eq!(sent.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [1], "the first at once");
    lab.hear(sent[0].0, Incoming::Marked(marked(1, 8)));
    assert_eq!(standings(&mut lab), [(1, 8)]);
    assert_eq!(marks(&mut lab), []);
    lab.at(1_000);
    let sent = marks(&mut lab);
    assert_eq!(sent.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [5]);
    lab.hear(sent[0].0, Incoming::Marked(marked(5, 4)));
    lab.at(60_000);
    assert_eq!(marks(&mut lab), []);
}

#[test]
fn a_cursor_that_moved_elsewhere_is_told_once_and_never_back() {
    let mut lab = holding(9);
    lab.hear(0, Incoming::Marked(marked(6, 3)));
    lab.hear(0, Incoming::Marked(marked(4, 5)));
    assert_eq!(standings(&mut lab), [(6, 3)]);
    lab.state.handle_mark(lab.now(), 0, 5);
    assert_eq!(marks(&mut lab), [], "that is known there");
}

#[test]
fn a_mark_that_got_lost_goes_out_again() {
    let mut lab = holding(1);
    lab.state.handle_mark(lab.now(), 0, 1);
    assert_eq!(marks(&mut lab).len(), 1);
    lab.lose();
    lab.connect(false);
    let mut lab = rejoined(lab);
    assert_eq!(marks(&mut lab).len(), 1);
}

#[test]
fn what_was_read_of_an_old_epoch_is_not_read_of_the_new_one() {
    let mut lab = holding(9);
    lab.state.handle_mark(lab.now(), 0, 9);
    lab.lose();
    lab.connect(false);
    lab.answer_join(Epoch(4), 2, None);
    assert_eq!(marks(&mut lab).iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_goodbye_and_a_leave_send_the_last_mark_first() {
    let wait = |lab: &mut Lab| {
        lab.state.handle_mark(lab.now(), 0, 3);
        let sent = marks(lab);
        lab.hear(sent[0].0, Incoming::Marked(marked(3, 6)));
        lab.state.handle_mark(lab.now(), 0, 9);
        assert_eq!(marks(lab), [], "it waits for its time");
    };
    let mut lab = holding(9);
    wait(&mut lab);
    lab.state.handle_close(lab.now());
    assert_eq!(lab.kinds(), [Kind::Mark, Kind::Goodbye]);
    let mut lab = holding(9);
    wait(&mut lab);
    lab.state.handle_leave(lab.now(), 0, None);
    assert_eq!(lab.kinds(), [Kind::Mark, Kind::Leave]);
}

#[test]
fn a_refused_mark_is_tried_again_only_if_it_may_be() {
    for (code, again) in [(Code::Busy, 1), (Code::Unsupported, 0)] {
        let mut lab = holding(1);
        lab.state.handle_mark(lab.now(), 0, 1);
        let sent = marks(&mut lab);
        lab.refuse(sent[0].0, code, 5_000);
        lab.at(4_999);
        assert_eq!(marks(&mut lab), []);
        lab.at(5_000);
        assert_eq!(marks(&mut lab).len(), again, "{code:?}");
    }
}

#[test]
fn signals_go_out_now_or_never() {
    let mut lab = Lab::joined();
    let payload = Bytes::from_static(b"types");
    lab.state.handle_signal(&Target::Room(0), 1, &payload);
    lab.state.handle_signal(&Target::Room(99), 1, &payload);
    lab.state.handle_signal(&Target::User("bob".parse().unwrap()), 1, &payload);
    let to = lab.frames(|frame| {
        let signal: message::Signal<'_> = decode(frame.body).unwrap();
        (frame.header.request, matches!(signal.to, message::SignalTo::Room(ROOM)))
    });
    assert_eq!(to, [(0, true), (0, false)]);
    for _ in 0..10_000 {
        lab.state.handle_signal(&Target::Room(0), 1, &payload);
    }
    assert!(lab.state.output().len() < 80 << 10, "a socket that takes nothing does not pile them up");
    lab.lose();
    lab.state.handle_signal(&Target::Room(0), 1, &payload);
    lab.connect(true);
    assert!(!lab.kinds().contains(&Kind::Signal));
}

#[test]
fn signals_come_in_their_room_or_for_the_user() {
    let mut lab = Lab::joined();
    for room in [Some(ROOM), None, Some(RoomNumber(99))] {
        let signaled = message::Signaled {
            room,
            sender: "bob",
            device_tag: DeviceTag(6),
            key: 1,
            payload: b"",
            extensions: ext(),
        };
        lab.hear(0, Incoming::Signaled(signaled));
    }
    let effects = lab.effects();
    let rooms: Vec<_> = effects
        .iter()
        .map(|effect| if let Effect::Signal(room, _) = effect { *room } else { panic!("{effect:?}") })
        .collect();
    assert_eq!(rooms, [Some(0), None], "one of a room that was left is nobody's");
}
