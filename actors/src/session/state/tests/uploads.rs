//! Long messages in parts. A payload here has 5 bytes, a long one 12, and parts are kept for a second.

use parlor_protocol::message::Part;

use super::*;

fn part(nonce: Nonce, number: u32, payload: &'static str) -> Part<'static> {
    Part {
        room: RoomNumber(7),
        nonce,
        number,
        parts: 3,
        total_bytes: 12,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        lifetime_ms: None,
        flags: 0,
        content_type: ContentType(1),
        payload: payload.as_bytes(),
        extensions: Extensions::default(),
    }
}

#[test]
fn the_part_that_completes_a_message_is_its_publish() {
    let mut session = session().joined();
    session.frame(1, &part(9, 2, "kl"), &["timer at 1000", "#1 misses [0, 1]"]);
    session.frame(2, &part(9, 0, "abcde"), &["#2 misses [1]"]);
    session.frame(3, &part(9, 0, "abcde"), &["#3 misses [1]"]);
    session.frame(4, &part(9, 1, "fghij"), &["#4 begins to Publish(9)", "#4 to 7: 9 b\"abcdefghijkl\""]);
    assert!(session.state.upload.is_none());
    assert_eq!(session.state.uploads.records(), 0, "the place is given back");
    // Silence and the like are the message's.
    for (number, payload) in [(0, "abcde"), (1, "fghij")] {
        let silent = Part { flags: PUBLISH_SILENT, ..part(10, number, payload) };
        let misses = if number == 0 { "#5 misses [1, 2]" } else { "#5 misses [2]" };
        session.frame(5, &silent, &[misses]);
    }
    let silent = Part { flags: PUBLISH_SILENT, ..part(10, 2, "kl") };
    session.frame(6, &silent, &["#6 begins to Publish(10)", "#6 to 7: 10 b\"abcdefghijkl\" silently"]);
}

#[test]
fn what_is_wrong_with_a_part_is_answered() {
    let mut session = session().joined();
    session.frame(1, &Part { room: RoomNumber(8), ..part(9, 0, "x") }, &["#1 NotJoined"]);
    session.frame(2, &part(9, 0, "abcdef"), &["#2 TooLarge"]);
    session.frame(3, &Part { total_bytes: 13, ..part(9, 0, "x") }, &["#3 TooLarge"]);
    session.frame(4, &Part { total_bytes: u32::MAX, parts: u32::MAX, ..part(9, 0, "x") }, &["#4 TooLarge"]);
    session.frame(5, &Part { kind: RecordKind(1), ..part(9, 0, "x") }, &["#5 Unsupported"]);
    session.frame(6, &Part { refers_to: 1, ..part(9, 0, "x") }, &["#6 Unsupported"]);
    session.frame(7, &Part { flags: 2, ..part(9, 0, "x") }, &["#7 Unsupported"]);
    session.frame(8, &part(9, 3, "x"), &["#8 InvalidPart"]);
    session.frame(9, &part(9, 0, ""), &["#9 InvalidPart"]);
    session.frame(10, &Part { parts: 0, ..part(9, 0, "x") }, &["#10 InvalidPart"]);
    session.frame(11, &Part { parts: 13, ..part(9, 0, "x") }, &["#11 InvalidPart"]);
    assert!(session.state.upload.is_none(), "none of these began anything");
    session.frame(12, &part(9, 0, "abcde"), &["timer at 1000", "#12 misses [1, 2]"]);
    session.frame(13, &Part { total_bytes: 11, ..part(9, 1, "fghij") }, &["#13 InvalidPart"]);
    session.frame(14, &part(9, 0, "other"), &["#14 InvalidPart"]);
    session.frame(15, &part(9, 1, "fghij"), &["#15 misses [2]"]);
    // All are there, and too short together: over.
    session.frame(16, &part(9, 2, "k"), &["#16 InvalidPart"]);
    session.frame(17, &part(9, 2, "kl"), &["#17 misses [0, 1]"]);
}

#[test]
fn one_message_is_under_way_at_a_time() {
    let mut session = session().joined();
    session.frame(1, &part(9, 0, "abcde"), &["timer at 1000", "#1 misses [1, 2]"]);
    session.frame(2, &part(10, 1, "fghij"), &["#2 misses [0, 2]"]);
    session.frame(3, &part(9, 1, "fghij"), &["#3 misses [0, 2]"]);
    assert_eq!(session.state.uploads.records(), 1);
    // Short ones go their way meanwhile.
    session.frame(4, &publish(11, b"x"), &["#4 begins to Publish(11)", "#4 to 7: 11 b\"x\""]);
    session.leave(5, &["#5 leave 7"]);
    assert!(session.state.upload.is_none(), "whoever leaves takes his parts with him");
}

#[test]
fn parts_of_which_no_more_come_are_forgotten() {
    let mut session = session().joined();
    session.frame(1, &part(9, 0, "abcde"), &["timer at 1000", "#1 misses [1, 2]"]);
    session.now.mono_ms = 900;
    session.frame(2, &part(9, 1, "fghij"), &["#2 misses [2]"]);
    session.now.mono_ms = 1_000;
    session.check(Input::Timer { owes: false }, &[]);
    assert_eq!(session.state.deadline(), 1_900, "each part gives it another second");
    session.now.mono_ms = 1_900;
    session.check(Input::Timer { owes: false }, &[]);
    assert!(session.state.upload.is_none());
    assert_eq!(session.state.deadline(), 900 + 3_300, "the lease alone");
    session.frame(3, &part(9, 2, "kl"), &["timer at 2900", "#3 misses [0, 1]"]);
}

#[test]
fn parts_are_not_forgotten_while_those_that_came_are_not_read() {
    let mut session = session().joined();
    session.frame(1, &part(9, 0, "abcde"), &["timer at 1000", "#1 misses [1, 2]"]);
    session.now.mono_ms = 1_000;
    session.check(Input::Timer { owes: true }, &[]);
    assert_eq!(session.state.deadline(), 2_000);
    session.now.mono_ms = 1_900;
    session.frame(2, &part(9, 1, "fghij"), &["#2 misses [2]"]);
}

#[test]
fn many_sessions_share_one_budget() {
    let uploads = Limits { uploads_bytes_max: 250, ..Limits::default() }.uploads();
    let mut sessions: Vec<_> = (0..100).map(|_| session().joined()).collect();
    let mut refused = 0;
    for session in &mut sessions {
        session.state.uploads = uploads.clone();
        let body = parlor_protocol::to_bytes(1, &part(9, 0, "abcde")).slice(HEADER_BYTES..);
        let input = Input::Frame { kind: Kind::Part as u16, request: 1, reused: false, body };
        session.state.handle(session.now, input);
        while let Some(effect) = session.state.poll() {
            refused += usize::from(matches!(effect, Effect::Error { code: Code::Busy, .. }));
        }
    }
    assert_eq!((refused, uploads.records()), (97, 3));
    drop(sessions);
    assert_eq!(uploads.records(), 0, "a session takes its parts with it");
}
