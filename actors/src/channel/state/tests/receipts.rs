//! Marks, readers and signals.

use parlor_protocol::message::Past;

use super::*;

/// Ann on arbiter 0 and bob on arbiter 1, and three records of ann's, the second silent.
fn talked() -> Room {
    let mut room = joined(0);
    for (nonce, silent) in [(1, false), (2, true), (3, false)] {
        room.handle(Input::Publish(Publish { silent, ..publish("ann", 0, 1, nonce, "x") }));
        room.commit();
    }
    room
}

fn mark(user: &str, arbiter: u16, request: u32, read: Seq) -> Input {
    Input::Mark(MarkRead { conn: conn(arbiter), request, device: key(user), read })
}

fn at(seq: Seq, count: u64) -> crate::port::Mark {
    crate::port::Mark { seq, count }
}

fn fetch_readers(request: u32, seq: Seq) -> Input {
    Input::FetchReaders(FetchReaders { conn: conn(0), request, seq })
}

#[test]
fn a_mark_moves_the_cursor_forward_and_tells_what_is_unread() {
    let mut room = talked();
    room.check(mark("bob", 1, 5, 0), &["1: #5 read 0, 2 unread"]);
    room.check(mark("bob", 1, 6, 2), &["1: #6 read 2, 1 unread"]);
    room.check(mark("bob", 1, 7, 1), &["1: #7 read 2, 1 unread"]);
    room.check(mark("bob", 1, 8, u64::MAX), &["1: #8 read 3, 0 unread"]);
    room.check(mark("ann", 0, 9, 0), &["0: #9 read 0, 0 unread"]);
    room.ann(10, 4, &["end turn"]);
    room.check(mark("bob", 1, 11, 4), &["1: #11 read 3, 0 unread"]);
    room.commit();
    room.check(mark("bob", 1, 12, 3), &["1: #12 read 3, 1 unread"]);
    room.detach("ann", 0);
    room.check(mark("ann", 0, 13, 1), &["0: #13 NotJoined"]);
}

#[test]
fn a_join_tells_where_the_user_stands() {
    let mut room = talked();
    room.handle(mark("bob", 1, 5, 1));
    let mut stands = |user: &str| {
        room.state.handle(
            room.now,
            Input::Join(Join { conn: conn(0), request: 1, device: key(user), from: JoinFrom::Tail, follows: false }),
        );
        let mut found = None;
        while let Some(effect) = room.state.poll() {
            match effect {
                Effect::LoadAnswers(device) => {
                    room.state.handle(room.now, Input::Answers { device, answers: Ok(Vec::new()) });
                }
                Effect::LoadMarks(user) => {
                    let marks = Marks { read: at(9, 9), ..Marks::default() };
                    room.state.handle(room.now, Input::Marks { user, marks: Ok(marks) });
                }
                Effect::Relay { news: FromChannel::Attach(attach), .. } => {
                    let joined: Joined<'_> = body(&attach.answer);
                    found = Some((joined.read, joined.unread));
                }
                _ => {}
            }
        }
        found.unwrap()
    };
    assert_eq!(stands("bob"), (1, 1), "on another device");
    assert_eq!(stands("ann"), (0, 0), "her own");
    assert_eq!(stands("cid"), (3, 0), "what the store has is never above the tail");
}

#[test]
fn a_join_waits_for_the_answers_and_for_the_marks() {
    let answers = || Input::Answers { device: key("ann"), answers: Ok(Vec::new()) };
    let marks = || Input::Marks { user: key("ann").user, marks: Ok(Marks::default()) };
    for (first, second) in [(answers(), marks()), (marks(), answers())] {
        let mut room = room(Durability::Synced, 1, 0);
        let Room { state, now, .. } = &mut room;
        let join = Join { conn: conn(0), request: 1, device: key("ann"), from: JoinFrom::Tail, follows: false };
        state.handle(*now, Input::Join(join));
        let asked = [state.poll(), state.poll(), state.poll()];
        assert!(matches!(&asked, [Some(Effect::LoadAnswers(_)), Some(Effect::LoadMarks(_)), None]), "{asked:?}");
        state.handle(*now, first);
        assert!(state.poll().is_none(), "it has one of both");
        state.handle(*now, second);
        assert!(matches!(state.poll(), Some(Effect::Relay { news: FromChannel::Attach(_), .. })));
    }
}

#[test]
fn a_join_whose_marks_cannot_be_loaded_is_refused_and_may_come_again() {
    let mut room = room(Durability::Synced, 1, 0);
    let Room { state, now, .. } = &mut room;
    for _ in 0..2 {
        let join = Join { conn: conn(0), request: 1, device: key("ann"), from: JoinFrom::Tail, follows: false };
        state.handle(*now, Input::Join(join));
        while state.poll().is_some() {}
        state.handle(*now, Input::Answers { device: key("ann"), answers: Ok(Vec::new()) });
        state.handle(*now, Input::Marks { user: key("ann").user, marks: Err(StoreError::Busy) });
        let refused = state.poll();
        assert!(matches!(refused, Some(Effect::Relay { news: FromChannel::Refused { code: Code::Busy, .. }, .. })));
        assert_eq!((state.devices(), state.users.len(), state.subscribers()), (0, 0, 0));
    }
}

#[test]
fn nothing_is_read_for_each_of_those_who_come_back_to_a_room_that_was_just_loaded() {
    let come_back = || {
        let mut room = room(Durability::Synced, 1, 10);
        for user in ["ann", "bob", "cid"] {
            room.join(user, 0, JoinFrom::Position(Epoch(3), 8));
            assert_eq!(room.answers(user, vec![]), [format!("0: attach {user} at 8 of 10")]);
        }
        // One read brings what they missed, and the count of what they had.
        room.check(Input::Pull { conn: conn(0), after: 8 }, &["read 1: 10-7, 4 of them"]);
        room.check(Input::Pull { conn: conn(0), after: 8 }, &[]);
        room
    };
    let mut room = come_back();
    room.check(Input::Read { id: 1, records: Ok(records(7, 10)) }, &["0: 2 pulled 9 10 after 8 to 10"]);
    room.check(Input::SaveMarks, &["save ann 0/8/0, bob 0/8/0, cid 0/8/0"]);
    // What that read does not bring is read, and so it is once the room's newest records are here.
    room.join("dan", 0, JoinFrom::Position(Epoch(3), 6));
    assert_eq!(room.answers("dan", vec![]), ["read 2: 6-10, 1 of them", "0: attach dan at 6 of 10"]);
    // Where it fails, their next beats say more.
    let mut room = come_back();
    room.check(Input::Read { id: 1, records: Err(StoreError::Busy) }, &["0: 2 pulled nothing after 8"]);
    room.check(Input::SaveMarks, &[]);
}

#[test]
fn a_count_that_is_not_in_memory_is_read() {
    let mut room = joined(10);
    room.check(mark("bob", 1, 5, 4), &["read 1: 4-10, 1 of them"]);
    room.check(Input::Read { id: 1, records: Ok(records(4, 4)) }, &["1: #5 read 4, 6 unread"]);
    // From 5 to 7 nothing is left: it counts as read.
    room.check(mark("bob", 1, 6, 5), &["read 2: 5-10, 1 of them"]);
    let gap = Run::Gap { from: 5, to: 7, why: parlor_protocol::message::GapReason::EXPIRED };
    let runs = [vec![gap.clone()], records(8, 8).runs].concat();
    room.check(Input::Read { id: 2, records: Ok(Records { runs, next: None }) }, &["1: #6 read 5, 3 unread"]);
    // The store looked at as many as it does at a time, and then to the end.
    room.check(mark("bob", 1, 7, 8), &["read 3: 8-10, 1 of them"]);
    let some = Records { runs: vec![gap.clone()], next: Some(9) };
    room.check(Input::Read { id: 3, records: Ok(some) }, &["read 4: 9-10, 1 of them"]);
    let none = Records { runs: vec![gap], next: None };
    room.check(Input::Read { id: 4, records: Ok(none) }, &["1: #7 read 8, 0 unread"]);
    room.check(mark("bob", 1, 8, 10), &["1: #8 read 10, 0 unread"]);
    room.check(mark("ann", 0, 9, 1), &["read 5: 1-10, 1 of them"]);
    room.check(Input::Read { id: 5, records: Err(StoreError::Busy) }, &["0: #9 Busy"]);
    room.check(mark("ann", 0, 9, 0), &["0: #9 read 0, 10 unread"]);
}

/// A record that counts, or not, as a store has it.
fn stored(seq: Seq, count: u64, silent: bool) -> Run {
    let frame = parlor_protocol::change::Changed { silent, ..Default::default() }.with_extensions(|extensions| {
        let Run::Frames { frames, .. } = &records(seq, seq).runs[0] else { unreachable!() };
        parlor_protocol::to_bytes(0, &Deliver { count, extensions, ..body(frames) })
    });
    Run::Frames { first: seq, last: seq, frames: frame }
}

#[test]
fn a_count_is_read_behind_a_gap_from_what_counts_or_does_not() {
    for (silent, unread) in [(true, 3), (false, 4)] {
        let mut room = joined(10);
        room.check(mark("bob", 1, 5, 5), &["read 1: 5-10, 1 of them"]);
        let gap = Run::Gap { from: 5, to: 7, why: GapReason::EXPIRED };
        let records = Records { runs: vec![gap, stored(8, 7, silent)], next: None };
        room.check(Input::Read { id: 1, records: Ok(records) }, &[&format!("1: #5 read 5, {unread} unread")]);
    }
}

#[test]
fn what_a_room_keeps_no_longer_is_not_unread_whether_it_counted_or_not() {
    let mut room = room_of_six(10, 6);
    assert_eq!((room.state.extent.first, room.state.ring.first()), (11, 13));
    // That nothing of 11 to 16 counts is seen from the oldest of them, once for all who ask meanwhile.
    room.check(mark("bob", 1, 5, 0), &["read 1: 11-12, 1 of them"]);
    room.check(mark("bob", 1, 6, 0), &[]);
    let records = Records { runs: vec![stored(11, 10, true)], next: None };
    let answers = ["1: #5 read 0, 0 unread", "1: #6 read 0, 0 unread"];
    room.check(Input::Read { id: 1, records: Ok(records) }, &answers);
    room.check(mark("bob", 1, 7, 0), &["1: #7 read 0, 0 unread"]);
    // Nothing else is left that might have counted.
    room.handle(Input::Publish(publish("ann", 0, 1, 17, "x")));
    room.commit();
    room.check(mark("bob", 1, 8, 0), &["1: #8 read 0, 1 unread"]);
}

/// A room that keeps six records and holds four in memory; bob has read nothing, and ann has said so many things and has then
/// been silent.
fn room_of_six(said: u64, silent: u64) -> Room {
    let options = RoomOptions { records_max: 6, ..RoomOptions::default() };
    let mut room = room_with(options, Tiers::sending(SendRate::OFF), 1, 0);
    for (user, arbiter) in [("ann", 0), ("bob", 1)] {
        room.join(user, arbiter, JoinFrom::Tail);
        room.answers(user, Vec::new());
        room.handle(Input::Marks { user: user.parse().unwrap(), marks: Ok(Marks::default()) });
    }
    for nonce in 1..=said + silent {
        room.handle(Input::Publish(Publish { silent: nonce > said, ..publish("ann", 0, 1, nonce, "x") }));
        room.commit();
    }
    room
}

#[test]
fn what_falls_out_of_memory_while_the_store_is_asked_is_looked_at_as_well() {
    let mut room = room_of_six(10, 6);
    room.check(mark("bob", 1, 5, 0), &["read 1: 11-12, 1 of them"]);
    for nonce in 17..=18 {
        room.handle(Input::Publish(publish("ann", 0, 1, nonce, "x")));
        room.commit();
    }
    assert_eq!((room.state.extent.first, room.state.ring.first()), (13, 15));
    let gap = Run::Gap { from: 11, to: 12, why: GapReason::EXPIRED };
    let nothing = Records { runs: vec![gap], next: None };
    room.check(Input::Read { id: 1, records: Ok(nothing) }, &["read 2: 13-14, 1 of them"]);
    let records = Records { runs: vec![stored(13, 10, true)], next: None };
    room.check(Input::Read { id: 2, records: Ok(records) }, &["1: #5 read 0, 2 unread"]);
}

#[test]
fn what_was_said_before_a_stranger_came_is_unread_only_where_he_may_read_it() {
    for (past, unread) in [(Past::All, 10), (Past::SinceAdded, 0)] {
        let mut room = room_with(RoomOptions { past, ..RoomOptions::default() }, Tiers::sending(SendRate::OFF), 1, 10);
        room.join("cem", 0, JoinFrom::Tail);
        room.answers("cem", Vec::new());
        room.handle(Input::Marks { user: "cem".parse().unwrap(), marks: Ok(Marks::default()) });
        let read = format!("0: #5 read 0, {unread} unread");
        room.check(mark("cem", 0, 5, 0), &[&read]);
    }
}

#[test]
fn a_users_other_sessions_hear_of_a_mark() {
    let mut room = talked();
    room.join("bob", 0, JoinFrom::Tail);
    room.check(mark("bob", 1, 5, 2), &["tell bob except Some(1)", "1: #5 read 2, 1 unread"]);
    room.check(mark("bob", 0, 6, 2), &["0: #6 read 2, 1 unread"]);
    room.check(Input::Delivered { user: key("bob").user, seq: 3 }, &[]);
    room.detach_saving("bob");
    room.check(mark("bob", 1, 7, 3), &["1: #7 read 3, 0 unread"]);
}

impl Room {
    /// A subscriber on arbiter 0 leaves, and marks are saved for it.
    #[track_caller]
    fn detach_saving(&mut self, user: &str) {
        self.check(Input::Detached { arbiter: 0, device: key(user) }, &["end turn"]);
        let saved = self.handle(Input::EndOfTurn);
        assert!(saved.len() == 1 && saved[0].starts_with("save"), "{saved:?}");
        self.check(Input::MarksSaved(Ok(())), &[]);
    }
}

#[test]
fn marks_are_saved_together_and_again_if_the_store_was_busy() {
    let mut room = talked();
    room.check(Input::SaveMarks, &[]);
    room.handle(mark("bob", 1, 5, 1));
    room.check(Input::Delivered { user: key("bob").user, seq: 2 }, &[]);
    room.check(Input::SaveMarks, &["save bob 1/2/0"]);
    room.handle(mark("bob", 1, 6, 2));
    room.check(Input::SaveMarks, &[]);
    room.check(Input::MarksSaved(Err(StoreError::Busy)), &[]);
    room.check(Input::SaveMarks, &["save bob 2/2/0"]);
    room.check(Input::MarksSaved(Ok(())), &[]);
    room.check(Input::SaveMarks, &[]);
    // What somebody sent is saved when he leaves.
    room.check(Input::Detached { arbiter: 0, device: key("ann") }, &["end turn"]);
    room.check(Input::EndOfTurn, &["save ann 0/0/3"]);
    room.check(Input::MarksSaved(Err(StoreError::Superseded(Generation(1)))), &["stop"]);
}

#[test]
fn a_timer_runs_while_there_is_something_to_save_and_many_are_not_left_to_wait() {
    let mut room = joined(3);
    let users: Vec<String> = (0..300).map(|n| format!("user {n}")).collect();
    for user in &users {
        room.join(user, 0, JoinFrom::Tail);
        room.answers(user, vec![]);
    }
    let (mut timers, mut saved, mut under_way) = (0, 0, false);
    for user in &users {
        room.state.handle(room.now, mark(user, 0, 5, 3));
        while let Some(effect) = room.state.poll() {
            match effect {
                Effect::SaveMarksIn(ms) => timers += u64::from(ms == 1_000),
                Effect::SaveMarks(save) => {
                    assert!(!std::mem::replace(&mut under_way, true), "one after the other");
                    saved += save.marks.len();
                }
                _ => {}
            }
        }
    }
    assert_eq!((timers, saved), (1, 256));
    assert_eq!(room.state.last_marks().map(|save| save.marks.len()), Some(44), "what the channel leaves behind");
    assert!(room.state.last_marks().is_none());
}

#[test]
fn who_has_read_is_told_from_the_store_and_from_memory() {
    let mut room = talked();
    room.handle(mark("bob", 1, 5, 2));
    let marks = |read| Marks { read: at(read, read), delivered: at(3, 3), ..Marks::default() };
    let found = |seq| {
        let all = vec![("bob".parse().unwrap(), marks(1)), ("cid".parse().unwrap(), marks(3))];
        let fetch = FetchReaders { conn: conn(0), request: 6, seq };
        Input::RoomMarks { fetch, found: Ok(RoomMarks { members: all, strangers: Some(Vec::new()), more: false }) }
    };
    room.check(fetch_readers(6, 0), &["load marks of 1000 for #6"]);
    room.check(found(0), &["0: #6 readers bob 2/3, cid 3/3"]);
    room.check(found(3), &["0: #6 readers cid 3/3"]);
    let fetch = FetchReaders { conn: conn(0), request: 7, seq: 1 };
    room.check(Input::RoomMarks { fetch, found: Err(StoreError::Busy) }, &["0: #7 Busy"]);
    let found = RoomMarks { more: true, ..RoomMarks::default() };
    room.check(Input::RoomMarks { fetch, found: Ok(found) }, &["0: #7 Unsupported"]);
}

#[test]
fn a_memory_room_keeps_marks_without_a_store() {
    let mut room = room(Durability::Memory, 1, 0);
    room.join("ann", 0, JoinFrom::Tail);
    room.join("bob", 1, JoinFrom::Tail);
    for (nonce, request) in (1..=6).zip(1..) {
        room.ann(request, nonce, &["end turn"]);
        room.handle(Input::EndOfTurn);
    }
    room.check(mark("bob", 1, 5, 0), &["1: #5 read 0, 4 unread"]); // Two fell off the ring.
    room.check(mark("bob", 1, 6, 1), &["1: #6 read 1, 4 unread"]);
    room.check(mark("bob", 1, 7, 4), &["1: #7 read 4, 2 unread"]);
    room.check(Input::SaveMarks, &[]);
    room.detach("bob", 1);
    room.join("bob", 1, JoinFrom::Tail);
    room.check(mark("bob", 1, 8, 0), &["1: #8 read 4, 2 unread"]);
    room.check(fetch_readers(9, 1), &["0: #9 readers bob 4/4"]);
}

#[test]
fn the_host_asks_for_users_who_are_not_there() {
    let mut room = talked();
    let answers = Arc::new(std::sync::Mutex::new(Vec::new()));
    let ask = |user: &str, read| {
        let answers = answers.clone();
        let reply = HostReply::new(move |standing| answers.lock().unwrap().push(standing));
        Input::Ask(Ask { user: user.parse().unwrap(), read, reply })
    };
    for (user, read) in [("cid", None), ("cid", Some(1)), ("bob", Some(3)), ("ann", None)] {
        room.state.handle(room.now, ask(user, read));
        while let Some(effect) = room.state.poll() {
            match effect {
                Effect::LoadMarks(user) => {
                    let marks = Ok(Marks { read: at(1, 1), ..Marks::default() });
                    room.state.handle(room.now, Input::Marks { user, marks });
                }
                Effect::TellHost(reply, standing) => reply.give(standing),
                _ => {}
            }
        }
    }
    let stands = |read, unread| Ok(Standing { read, unread });
    assert_eq!(*answers.lock().unwrap(), [stands(1, 1), stands(1, 1), stands(3, 0), stands(0, 0)]);
    assert_eq!(room.state.users.len(), 2, "whoever is not there is forgotten");
}

#[test]
fn a_signal_goes_to_the_arbiters_that_have_subscribers_and_nowhere_else() {
    let mut room = talked();
    let signal = |user: &str, arbiter| {
        let (device, frame) = (key(user), Bytes::from_static(b"frame"));
        Input::Signal(Signal { conn: Some(conn(arbiter)), request: 5, device, key: 9, frame })
    };
    room.check(signal("ann", 0), &["0: signal 9 of ann", "1: signal 9 of ann"]);
    room.detach("bob", 1);
    room.check(signal("ann", 0), &["0: signal 9 of ann"]);
    room.check(signal("bob", 1), &["1: signal #5 NotJoined"]);
    assert_eq!((room.state.tail(), room.state.ring.last()), (3, 3), "it is no record");
}

#[test]
fn of_those_who_ask_who_has_read_so_many_wait_for_the_store() {
    let mut room = talked();
    for request in [6, 7] {
        room.check(fetch_readers(request, 0), &[&format!("load marks of 1000 for #{request}")]);
    }
    room.check(fetch_readers(8, 0), &["0: #8 Busy"]);
    let fetch = FetchReaders { conn: conn(0), request: 6, seq: 0 };
    room.check(Input::RoomMarks { fetch, found: Err(StoreError::Busy) }, &["0: #6 Busy"]);
    room.check(fetch_readers(8, 0), &["load marks of 1000 for #8"]);
}
