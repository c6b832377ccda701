//! Long messages. A payload here has 100 bytes, a long one 1,000.

use super::*;

/// A part as it was sent: request, nonce, number, payload's length.
type SentPart = (u32, Nonce, u32, usize);

impl Lab {
    /// The parts among the frames sent.
    fn parts(&mut self) -> Vec<SentPart> {
        let parts = self.frames(|frame| {
            (frame.header.kind == Kind::Part as u16).then(|| {
                let part: message::Part<'_> = decode(frame.body).unwrap();
                (frame.header.request, part.nonce, part.number, part.payload.len())
            })
        });
        parts.into_iter().flatten().collect()
    }

    fn take(&mut self, (request, nonce, ..): SentPart, missing: &[u32]) {
        let missing = List(missing.to_vec());
        self.hear(request, Incoming::PartTaken(message::PartTaken { room: ROOM, nonce, missing, extensions: ext() }));
    }

    fn ack_part(&mut self, (request, nonce, ..): SentPart, seq: Seq) {
        self.ack(&(request, nonce, String::new()), seq);
    }

    fn long(&mut self, ticket: Ticket) -> Vec<SentPart> {
        self.send(ticket, &"x".repeat(250));
        self.parts()
    }
}

fn numbers(parts: &[SentPart]) -> Vec<u32> {
    parts.iter().map(|part| part.2).collect()
}

#[test]
fn a_long_text_goes_up_in_parts() {
    let mut lab = Lab::joined();
    let parts = lab.long(1);
    assert_eq!(parts.iter().map(|part| (part.2, part.3)).collect::<Vec<_>>(), [(0, 100), (1, 100), (2, 50)]);
    lab.take(parts[0], &[1, 2]);
    lab.take(parts[1], &[2]);
    assert_eq!(lab.outcomes(), []);
    lab.ack_part(parts[2], 1);
    assert_eq!(lab.outcomes(), [(1, Ok(1))]);
    assert_eq!(lab.parts(), []);
}

#[test]
fn it_goes_alone_in_its_place() {
    let mut lab = Lab::joined();
    let sent = lab.send_all(1..=1);
    assert_eq!(lab.long(2), [], "not before what is before it is answered");
    lab.send(3, "3");
    assert_eq!(lab.sent(), []);
    lab.ack(&sent[0], 1);
    let parts = lab.parts();
    assert_eq!(parts.len(), 3);
    lab.take(parts[0], &[1, 2]);
    lab.take(parts[1], &[2]);
    assert_eq!(lab.sent(), [], "nothing overtakes it");
    lab.ack_part(parts[2], 2);
    assert_eq!(texts(&lab.sent()), ["3"]);
}

#[test]
fn an_own_delivery_ends_it() {
    let mut lab = Lab::joined();
    let parts = lab.long(1);
    lab.hear(0, Incoming::Deliver(own_record(1, parts[0].1)));
    assert_eq!(lab.outcomes(), [(1, Ok(1))]);
    // Its answers come late.
    lab.take(parts[0], &[1, 2]);
    lab.ack_part(parts[2], 1);
    assert_eq!((lab.outcomes(), lab.parts()), (vec![], vec![]));
}

#[test]
fn missing_parts_go_out_after_a_silence() {
    let mut lab = Lab::joined();
    let parts = lab.long(1);
    lab.at(4_000);
    lab.take(parts[0], &[1, 2]);
    lab.at(8_999);
    assert_eq!(lab.parts(), [], "the server was heard of");
    lab.at(9_000);
    let again = lab.parts();
    assert_eq!(numbers(&again), [1, 2]);
    lab.take(again[0], &[2]);
    lab.ack_part(again[1], 1);
    assert_eq!(lab.outcomes(), [(1, Ok(1))]);
}

#[test]
fn what_the_server_forgot_goes_out_again() {
    let mut lab = Lab::joined();
    let parts = lab.long(1);
    lab.take(parts[0], &[1, 2]);
    lab.take(parts[1], &[0, 2]);
    lab.take(parts[2], &[0, 1]);
    assert_eq!(numbers(&lab.parts()), [0, 1]);
}

#[test]
fn after_a_refusal_for_now_and_after_a_reconnect_one_part_tells_what_is_missing() {
    let mut lab = Lab::joined();
    let parts = lab.long(1);
    lab.deliver(1);
    lab.take(parts[0], &[1, 2]);
    lab.take(parts[1], &[2]);
    lab.refuse(parts[2].0, Code::RateLimited, 500);
    lab.at(499);
    assert_eq!(lab.parts(), []);
    lab.at(600);
    let again = lab.parts();
    assert_eq!(numbers(&again), [0]);
    assert_eq!(again[0].1, parts[0].1, "under the same nonce");
    lab.take(again[0], &[2]);
    assert_eq!(numbers(&lab.parts()), [2], "the session has the other");
    lab.lose();
    // Nothing is left of it in a new session.
    lab.connect(false);
    let mut lab = rejoined(lab);
    let first = lab.parts();
    assert_eq!(numbers(&first), [0]);
    lab.take(first[0], &[1, 2]);
    let last = lab.parts();
    assert_eq!(numbers(&last), [1, 2]);
    lab.ack_part(last[1], 2);
    assert_eq!(lab.outcomes(), [(1, Ok(2))]);
}

#[test]
fn a_refusal_for_good_is_its_own() {
    let mut lab = Lab::joined();
    let parts = lab.long(1);
    lab.send(2, "2");
    lab.refuse(parts[0].0, Code::TooLarge, 0);
    lab.refuse(parts[1].0, Code::TooLarge, 0);
    assert!(matches!(lab.outcomes()[..], [(1, Err(PublishError::Refused { code: Code::TooLarge, .. }))]));
    assert_eq!(texts(&lab.sent()), ["2"]);
}

#[test]
fn a_server_that_says_nothing_is_asked_twice() {
    let mut lab = Lab::joined();
    lab.long(1);
    lab.at(5_000);
    assert_eq!(numbers(&lab.parts()), [0, 1, 2]);
    lab.at(10_000);
    assert_eq!(numbers(&lab.parts()), [0, 1, 2]);
    lab.at(15_000);
    assert_eq!(lab.outcomes(), [(1, Err(PublishError::Busy))]);
    assert_eq!(lab.parts(), []);
}

#[test]
fn many_parts_go_a_few_at_a_time() {
    let mut lab = Lab::joined();
    lab.send(1, &"x".repeat(1_000));
    let mut parts = lab.parts();
    assert_eq!(parts.len(), 8);
    lab.take(parts[0], &(1..10).collect::<Vec<_>>());
    parts.extend(lab.parts());
    assert_eq!(numbers(&parts), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn rooms_take_turns_with_long_texts() {
    let mut lab = Lab::joined();
    lab.state.handle_join(lab.now(), 1, 1, Name::parse("other").unwrap(), JoinFrom::Tail);
    let request = lab.only(Kind::Join);
    lab.hear(request, Incoming::Joined(joined(RoomNumber(8), 0)));
    let parts = lab.long(1);
    lab.state.handle_send(lab.now(), 1, 2, Outgoing::text("y".repeat(250)));
    assert_eq!(lab.parts(), [], "a session has one upload");
    lab.ack_part(parts[2], 1);
    assert_eq!(lab.parts().len(), 3);
}
