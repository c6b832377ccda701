//! Changes: what is refused, what waits for what, and when a change is seen.

use parlor_protocol::message::{TAG_REMOVES, TombstoneReason};

use super::*;
use crate::port::{Read, Target};

const EDIT: RecordKind = RecordKind::EDIT;
const RECALL: RecordKind = RecordKind::RECALL;
const REACTION: RecordKind = RecordKind::REACTION;

fn change(user: &str, request: u32, nonce: Nonce, kind: RecordKind, to: Seq, payload: &'static str) -> Input {
    let arbiter = u16::from(user == "bob");
    Input::Publish(Publish { kind, refers_to: to, ..publish(user, arbiter, request, nonce, payload) })
}

fn fetch_one(seq: Seq) -> Input {
    fetch(seq, Direction::Forward, 1)
}

fn fetch(start: Seq, direction: Direction, limit: u32) -> Input {
    Input::Fetch(Fetch { conn: conn(0), request: 99, device: key("ann"), start: Some(start), direction, limit })
}

/// A record as it is stored, with this said of its changes.
fn stored(seq: Seq, payload: &'static str, changed: &Changed<'_>) -> Bytes {
    let Run::Frames { frames, .. } = records(seq, seq).runs.remove(0) else { panic!("a record") };
    with_deliver(&frames, |deliver| {
        changed.with_extensions(|extensions| {
            let payload = payload.as_bytes();
            parlor_protocol::to_bytes(0, &Deliver { payload, time: UNIX, extensions, ..deliver.clone() })
        })
    })
}

fn target(id: u64, frame: Bytes, notes: &'static [u8]) -> Input {
    Input::Target { id, target: Ok(Some(Target { frame, notes: Bytes::from_static(notes) })) }
}

impl Room {
    /// A writer's queue for more than two records.
    fn widen_queue(&mut self) {
        self.state.budget = Budget::new(99, 1 << 20);
        self.state.turn_place = self.state.budget.none();
    }

    /// What a page shows of a record, which has to be hot.
    fn shows(&mut self, seq: Seq) -> String {
        self.state.handle(self.now, fetch_one(seq));
        let Some(Effect::Relay { news: FromChannel::Answer { frame, .. }, .. }) = self.state.poll() else {
            panic!("seq {seq} is not hot")
        };
        let page: Page<'_> = body(&frame);
        with_deliver(page.records, |deliver| {
            let changed = deliver.changed();
            let mut line = format!("{} r{}", String::from_utf8_lossy(deliver.payload), changed.revision);
            if let Some(TombstoneReason(why)) = changed.tombstone {
                line += &format!(" gone {why}");
            }
            for (reaction, count) in changed.reactions {
                line += &format!(" {reaction}{count}");
            }
            line
        })
    }
}

/// A room where ann has said 1 and bob 2, both hot.
fn talk() -> Room {
    let mut room = joined(0);
    room.ann(1, 1, &["end turn"]);
    room.say(("bob", 1), 1, 1, "y", &[]);
    room.commit();
    room
}

#[test]
fn a_change_is_seen_once_it_is_stored_in_its_own_record_and_in_the_one_it_refers_to() {
    let mut room = talk();
    room.check(change("ann", 2, 2, EDIT, 1, "new"), &["end turn"]);
    room.check(change("bob", 3, 2, REACTION, 1, "+"), &[]);
    room.check(Input::EndOfTurn, &["append 3-4"]);
    assert_eq!(
        room.queue[0].rewrites.iter().map(|made| (made.seq, made.revision)).collect::<Vec<_>>(),
        [(1, 3), (1, 4)]
    );
    assert_eq!(room.shows(1), "x r0", "not before it is stored");
    room.queue.clear();
    let want = ["0: batch 3 4, #2 stored at 3", "1: batch 3 4, #3 stored at 4"];
    room.check(Input::Committed(4), &want);
    assert_eq!(room.shows(1), "new r4 +1");
    assert_eq!(room.state.committed_count, 2, "changes do not count");
    assert_eq!(room.state.changing(), 0, "nothing is kept of what is done");
    // A repeat changes nothing again.
    room.check(change("bob", 4, 2, REACTION, 1, "+"), &["1: #4 stored at 4 again"]);
    room.check(change("bob", 5, 2, REACTION, 2, "+"), &["1: #5 NonceConflict"]);
    let Input::Publish(taken_back) = change("bob", 6, 2, REACTION, 1, "+") else { panic!("a publish") };
    room.check(Input::Publish(Publish { remove: true, ..taken_back }), &["1: #6 NonceConflict"]);
}

#[test]
fn an_edit_and_a_recall_leave_nothing_of_what_was_said_before() {
    let mut room = talk();
    room.check(change("ann", 2, 2, EDIT, 1, "second"), &["end turn"]);
    room.commit();
    // Two on their way at once: the second builds on the first.
    room.check(change("ann", 3, 3, EDIT, 1, "third"), &["end turn"]);
    room.check(change("ann", 4, 4, RECALL, 1, ""), &[]);
    room.check(Input::EndOfTurn, &["append 4-5"]);
    let made: Vec<_> = room.queue[0].rewrites.iter().map(|made| (made.seq, made.revision)).collect();
    assert_eq!(made, [(1, 4), (3, 4), (1, 5), (4, 5)]);
    room.queue.clear();
    room.handle(Input::Committed(5));
    let seen = [2, 3, 4, 5].map(|seq| room.shows(seq));
    assert_eq!(seen, ["y r0", " r4 gone 1", " r5 gone 1", " r0"]);
    room.check(change("bob", 5, 2, REACTION, 6, "+"), &["1: #5 TargetGone"]);
    room.check(change("ann", 5, 5, EDIT, 3, "x"), &["0: #5 NotChangeable"]);
}

#[test]
fn what_may_not_be_changed_is_refused_and_its_nonce_stays_unused() {
    let mut room = talk();
    room.check(change("bob", 2, 2, EDIT, 1, "x"), &["1: #2 Forbidden"]);
    room.check(change("bob", 3, 2, RECALL, 1, ""), &["1: #3 Forbidden"]);
    room.check(change("ann", 4, 2, EDIT, 3, "x"), &["0: #4 TargetGone"]);
    let taken_back = |request, nonce| match change("ann", request, nonce, REACTION, 2, "+") {
        Input::Publish(publish) => Input::Publish(Publish { remove: true, ..publish }),
        input => input,
    };
    room.check(taken_back(5, 2), &["0: #5 NoEffect"]);
    room.check(change("ann", 6, 2, REACTION, 2, "+"), &["end turn"]);
    room.check(change("ann", 7, 3, REACTION, 2, "+"), &["0: #7 NoEffect"]);
    room.commit();
    room.check(taken_back(8, 3), &["end turn"]);
    room.handle(Input::EndOfTurn);
    let removes = with_deliver(&room.queue[0].frames, |deliver| deliver.extensions.0[0].0);
    assert_eq!(removes, TAG_REMOVES);
    room.queue.clear();
    room.handle(Input::Committed(4));
    assert_eq!(room.shows(2), "y r4");
    room.check(change("ann", 9, 4, REACTION, 3, "+"), &["0: #9 NotChangeable"]);
    room.now.unix_ms += 120_000;
    room.check(change("bob", 10, 2, RECALL, 2, ""), &["end turn"]);
    room.commit();
    room.check(change("bob", 11, 3, EDIT, 2, "x"), &["1: #11 NotChangeable"]);
    let mut room = talk();
    room.now.unix_ms += 120_001;
    room.check(change("bob", 2, 2, RECALL, 2, ""), &["1: #2 TooLate"]);
    room.now.unix_ms = UNIX + 24 * 60 * 60 * 1_000 + 1;
    room.check(change("bob", 3, 2, EDIT, 2, "x"), &["1: #3 TooLate"]);
    room.check(change("bob", 4, 2, REACTION, 1, "+"), &["end turn"]);
}

#[test]
fn a_message_takes_so_many_reactions_and_no_more() {
    let mut room = joined(0);
    room.state.limits = Arc::new(Limits { reactions_per_record_max: 17, ring_records_max: 99, ..limits() });
    room.state.ring = Ring::new(1, 99, 1 << 20);
    room.widen_queue();
    room.ann(1, 1, &["end turn"]);
    room.commit();
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];
    for (name, nonce) in names.into_iter().zip(2..) {
        room.handle(change("ann", 1, nonce, REACTION, 1, name));
    }
    room.check(change("ann", 2, 18, REACTION, 1, "q"), &["0: #2 TooManyReactions"]);
    room.check(change("bob", 3, 1, REACTION, 1, "a"), &[]);
    room.check(change("bob", 4, 2, REACTION, 1, "b"), &["1: #4 TooManyReactions"]);
}

#[test]
fn a_change_expires_with_what_it_changes() {
    let mut room = joined(0);
    let lasting = |lifetime_ms, input| match input {
        Input::Publish(publish) => Input::Publish(Publish { lifetime_ms, ..publish }),
        input => input,
    };
    room.check(lasting(Some(500), Input::Publish(publish("ann", 0, 1, 1, "x"))), &["end turn"]);
    room.commit();
    room.now.unix_ms += 100;
    room.check(change("ann", 2, 2, EDIT, 1, "y"), &["end turn"]);
    room.check(lasting(Some(50), change("ann", 3, 3, REACTION, 1, "+")), &[]);
    room.check(Input::EndOfTurn, &["append 2-3"]);
    let expires: Vec<_> = room.queue[0].records.iter().map(|record| record.expires).collect();
    assert_eq!(expires, [UNIX + 500; 2], "not sooner, whatever was asked for");
    room.queue.clear();
    room.handle(Input::Committed(3));
    room.now.unix_ms = UNIX + 500;
    room.check(change("ann", 4, 4, EDIT, 1, "z"), &["0: #4 TargetGone"]);
}

#[test]
fn a_cold_target_is_read_first_and_nothing_of_its_device_overtakes_it() {
    let mut room = joined(9);
    room.check(change("ann", 2, 1, REACTION, 3, "+"), &["read 1: target 3"]);
    room.ann(3, 2, &[]);
    room.check(change("ann", 4, 3, EDIT, 4, "new"), &[]);
    room.ann(5, 4, &[]);
    room.ann(6, 1, &[]);
    room.say(("bob", 1), 7, 1, "y", &["end turn"]);
    assert_eq!(room.state.parked(), 5);
    room.commit();
    // The head goes on, and the next one waits for another record.
    room.check(target(1, stored(3, "x", &Changed::default()), b""), &["end turn", "read 2: target 4"]);
    assert_eq!(room.commit(), ["append 11-12", "0: batch 11 12, #2 stored at 11, #3 stored at 12", "1: batch 11 12"]);
    let want = ["end turn", "0: #6 NonceTooOld"];
    room.check(target(2, stored(4, "x", &Changed::default()), b""), &want);
    room.check(Input::EndOfTurn, &["append 13-14"]);
    assert_eq!((room.state.parked(), room.state.reading()), (0, 0));
}

#[test]
fn a_target_that_cannot_be_read_is_refused_for_now_and_holds_back_the_rest() {
    let mut room = joined(9);
    room.check(change("ann", 2, 1, REACTION, 3, "+"), &["read 1: target 3"]);
    room.ann(3, 2, &[]);
    room.check(Input::Target { id: 1, target: Err(StoreError::Busy) }, &["0: #2 Busy", "0: #3 HeldBack"]);
    room.check(change("ann", 4, 1, REACTION, 3, "+"), &["read 2: target 3"]);
    room.check(Input::Target { id: 2, target: Ok(None) }, &["0: #4 TargetGone"]);
    // One who has left meanwhile hears of it, if anybody listens.
    room.check(change("ann", 5, 1, REACTION, 3, "+"), &["read 3: target 3"]);
    room.detach("ann", 0);
    room.check(Input::Target { id: 3, target: Ok(None) }, &["0: #5 NotJoined"]);
}

#[test]
fn devices_that_wait_for_one_record_share_its_read_and_what_waits_is_bounded() {
    let mut room = joined(9);
    room.state.limits = Arc::new(Limits { parked_per_room_max: 3, parked_per_device_max: 2, ..limits() });
    room.check(change("ann", 2, 1, REACTION, 3, "+"), &["read 1: target 3"]);
    room.check(change("bob", 3, 1, REACTION, 3, "+"), &[]);
    room.ann(4, 2, &[]);
    room.ann(5, 3, &["0: #5 Busy"]);
    room.say(("bob", 1), 6, 2, "y", &["1: #6 Busy"]);
    room.widen_queue();
    room.check(target(1, stored(3, "x", &Changed::default()), b""), &["end turn"]);
    room.check(Input::EndOfTurn, &["append 10-12"]);
    let notes: Vec<_> = room.queue[0].rewrites.iter().map(|made| made.notes.clone()).collect();
    assert_eq!(notes[1], &b"\x01\x01+\x00\x02\x03ann\x03bob"[..], "the second builds on the first");
}

#[test]
fn a_recall_of_a_cold_message_reads_its_edit_too() {
    let mut room = joined(9);
    room.check(change("ann", 2, 1, RECALL, 3, ""), &["read 1: target 3"]);
    let edited = Changed { revision: 6, edited: 5, ..Changed::default() };
    room.check(target(1, stored(3, "x", &edited), b""), &["read 2: target 5"]);
    room.check(target(2, stored(5, "x", &Changed::default()), b""), &["end turn"]);
    room.check(Input::EndOfTurn, &["append 10-10"]);
    assert_eq!(room.queue[0].rewrites.iter().map(|made| made.seq).collect::<Vec<_>>(), [3, 5]);
}

#[test]
fn a_read_shows_of_a_record_that_is_being_changed_what_is_committed() {
    let mut room = joined(9);
    let frames = |frame: Bytes| Records { runs: vec![Run::Frames { first: 2, last: 2, frames: frame }], next: Some(3) };
    let payload = |effect: Option<Effect>| {
        let Some(Effect::Relay { news: FromChannel::Answer { frame, .. }, .. }) = effect else { panic!("{effect:?}") };
        let page: Page<'_> = body(&frame);
        with_deliver(page.records, |deliver| String::from_utf8(deliver.payload.to_vec()).unwrap())
    };
    let (old, new) = (stored(2, "old", &Changed::default()), stored(2, "new", &Changed::default()));
    room.check(change("ann", 2, 1, EDIT, 2, "new"), &["read 1: target 2"]);
    room.check(target(1, old.clone(), b""), &["end turn"]);
    room.check(Input::EndOfTurn, &["append 10-10"]);
    // The store has written it and not said so.
    room.check(fetch_one(2), &["read 2: 2-9, 1 of them"]);
    room.state.handle(room.now, Input::Read { id: 2, records: Ok(frames(new)) });
    assert_eq!(payload(room.state.poll()), "old");
    // The store was read before it was written, and the page comes when it is known.
    room.check(fetch_one(2), &["read 3: 2-9, 1 of them"]);
    room.queue.clear();
    room.handle(Input::Committed(10));
    room.state.handle(room.now, Input::Read { id: 3, records: Ok(frames(old)) });
    assert_eq!(payload(room.state.poll()), "new");
    assert_eq!(room.state.changing(), 0);
}

#[test]
fn in_a_memory_room_what_fell_off_the_ring_is_gone() {
    let mut room = room(Durability::Memory, 1, 0);
    room.join("ann", 0, JoinFrom::Tail);
    for nonce in 1..=5 {
        room.ann(1, nonce, &["end turn"]);
        room.handle(Input::EndOfTurn);
    }
    room.check(change("ann", 2, 6, REACTION, 1, "+"), &["0: #2 TargetGone"]);
    room.check(change("ann", 3, 6, REACTION, 3, "+"), &["end turn"]);
    room.check(Input::EndOfTurn, &["0: batch 6, #3 stored at 6"]);
    room.check(change("ann", 4, 7, REACTION, 3, "+"), &["0: #4 NoEffect"]);
    assert_eq!(room.shows(3), "x r6 +1");
}

#[test]
fn a_loaded_rooms_ring_is_refilled_by_one_read_for_all_who_ask_meanwhile() {
    let mut room = joined(9);
    // Four records are hot: 6 to 9. What reaches below them is read by itself.
    room.check(fetch(9, Direction::Backward, 2), &["read 1: 9-6, 4 of them"]);
    room.check(fetch(7, Direction::Backward, 2), &[]);
    room.check(Input::Pull { conn: conn(0), after: 6 }, &[]);
    room.check(Input::Pull { conn: conn(1), after: 6 }, &[]);
    room.check(fetch(7, Direction::Backward, 3), &["read 2: 7-1, 3 of them"]);
    // One more is committed meanwhile.
    room.ann(1, 1, &["end turn"]);
    room.commit();
    let read = records(6, 9);
    let want = [
        "0: 1 pulled 7 8 9 after 6 to 9",
        "1: 1 pulled 7 8 9 after 6 to 9",
        "0: #99 page 8 9, next Some(7), tail 10",
        "0: #99 page 6 7, next Some(5), tail 10",
    ];
    let told = room.handle(Input::Read { id: 1, records: Ok(read) });
    assert_eq!((room.state.ring.first(), room.state.ring.last()), (7, 10), "the ring's limit holds");
    assert_eq!(told[..3], want[..3]);
    assert_eq!(told[3], "read 3: 7-1, 2 of them", "6 did not fit any more");
    room.check(fetch(10, Direction::Backward, 3), &["0: #99 page 8 9 10, next Some(7), tail 10"]);
}

#[test]
fn a_refill_ends_at_the_newest_gap_and_is_tried_again_when_it_failed() {
    let mut room = joined(9);
    room.check(fetch(9, Direction::Backward, 1), &["read 1: 9-6, 4 of them"]);
    room.check(Input::Read { id: 1, records: Err(StoreError::Busy) }, &["0: #99 Busy"]);
    room.check(fetch(9, Direction::Backward, 1), &["read 2: 9-6, 4 of them"]);
    let gap = Run::Gap { from: 7, to: 7, why: parlor_protocol::message::GapReason::EXPIRED };
    let runs = [records(6, 6).runs, vec![gap], records(8, 9).runs].concat();
    let want = ["0: #99 page 9, next Some(8), tail 9"];
    room.check(Input::Read { id: 2, records: Ok(Records { runs, next: None }) }, &want);
    assert_eq!((room.state.ring.first(), room.state.ring.last()), (8, 9));
    room.check(fetch(7, Direction::Backward, 1), &["read 3: 7-1, 1 of them"]);
}

#[test]
fn a_room_that_is_only_published_to_reads_nothing() {
    let mut room = joined(9);
    for nonce in 1..=6 {
        room.ann(1, nonce, &["end turn"]);
        room.commit();
        room.check(
            Input::Pull { conn: conn(1), after: 9 + nonce },
            &[&format!("1: 1 pulled none after {} to {}", 9 + nonce, 9 + nonce)],
        );
    }
    assert_eq!(room.state.reads.newest(), 0);
}

#[test]
fn equal_cold_pages_share_a_read_and_each_asker_is_told_where_to_go_on() {
    let mut room = joined(9);
    let read = |read: Read| (read.start, read.end, read.records_max);
    room.state.handle(room.now, fetch(3, Direction::Forward, 3));
    let Some(Effect::Read(new)) = room.state.poll() else { panic!("a read") };
    assert_eq!(read(new.read), (3, 9, 3));
    room.check(fetch(3, Direction::Forward, 3), &[]);
    room.check(Input::Pull { conn: conn(1), after: 2 }, &[]);
    room.check(fetch(3, Direction::Forward, 2), &["read 2: 3-9, 2 of them"]);
    room.ann(1, 1, &["end turn"]);
    room.commit();
    room.check(fetch(3, Direction::Forward, 3), &[]);
    // The page happens to reach the tail of when it was first asked for.
    let whole = Records { runs: records(3, 9).runs, next: None };
    let want = [
        "0: #99 page 3 4 5 6 7 8 9, next None, tail 9",
        "0: #99 page 3 4 5 6 7 8 9, next None, tail 9",
        "0: #99 page 3 4 5 6 7 8 9, next Some(10), tail 10",
        "1: 1 pulled 3 4 5 6 7 8 9 after 2 to 9",
    ];
    room.check(Input::Read { id: new.id, records: Ok(whole) }, &want);
}

/// What the host hears of an erasure.
type Heard = Arc<parking_lot::Mutex<Vec<String>>>;

fn erase(seq: Seq, heard: &Heard) -> Input {
    let heard = heard.clone();
    let told = Told::new(move |outcome| {
        heard.lock().push(match outcome {
            Ok(Erased { first, last, .. }) => format!("erased {first}-{last}"),
            Err((code, _)) => code.to_string(),
        });
    });
    Input::Erase(Erase { seq, whose: None, told })
}

#[test]
fn the_host_erases_what_nobody_may_recall_and_hears_of_it_when_it_is_stored() {
    let heard = Heard::default();
    let mut room = talk();
    room.now.unix_ms += 1_000_000_000;
    room.check(erase(2, &heard), &["end turn"]);
    room.check(Input::EndOfTurn, &["append 3-3"]);
    assert_eq!((room.shows(2), heard.lock().len()), ("y r0".to_owned(), 0));
    with_deliver(&room.queue[0].frames, |deliver| {
        assert_eq!((deliver.sender, deliver.kind, deliver.refers_to, deliver.count), ("bob", RECALL, 2, 2));
    });
    room.queue.clear();
    room.check(Input::Committed(3), &["0: batch 3", "1: batch 3"]);
    assert_eq!(room.shows(2), " r3 gone 2");
    // Again, and what is no message.
    room.check(erase(2, &heard), &[]);
    room.check(erase(3, &heard), &[]);
    room.check(erase(9, &heard), &[]);
    assert_eq!(*heard.lock(), ["erased 2-2", "erased 2-3", "NotChangeable (2011)", "TargetGone (2010)"]);
    room.say(("bob", 1), 2, 2, "z", &["end turn"]);
    room.check(erase(1, &heard), &[]);
    room.handle(Input::EndOfTurn);
    room.handle(Input::Failed(StoreError::Poisoned("a test".into())));
    room.check(erase(1, &heard), &[]);
    assert_eq!(heard.lock()[4..], ["OutcomeUnknown (1002)", "StoreUnavailable (1005)"]);
}

#[test]
fn a_change_of_what_another_epoch_had_changes_nothing() {
    let mut room = talk();
    let current = room.state.epoch();
    room.state.extent.epochs.insert(0, EpochStart { epoch: Epoch(current.0 - 1), first: 1 });
    room.state.extent.epochs[1].first = 2;
    let edit = |request, nonce, to, epoch: u64| {
        let publish = publish("ann", 0, request, nonce, "z");
        Input::Publish(Publish { kind: RecordKind::REACTION, refers_to: to, epoch: Epoch(epoch), ..publish })
    };
    // What was the second record then is not what is the second one now; the first is what it was.
    room.check(edit(11, 11, 2, current.0 - 1), &["0: #11 TargetGone"]);
    room.check(edit(12, 11, 1, current.0 - 1), &["end turn"]);
    room.check(edit(13, 12, 2, current.0), &[]);
    room.check(edit(14, 13, 1, current.0 + 7), &["0: #14 TargetGone"]);
    room.check(edit(15, 13, 1, 0), &["0: #15 NoEffect"]);
}

#[test]
fn who_erases_what_is_about_to_be_gone_hears_of_it_when_that_is_stored() {
    let (heard, failed) = (Heard::default(), Heard::default());
    for (heard, stored) in [(&heard, true), (&failed, false)] {
        let mut room = talk();
        room.check(erase(2, heard), &["end turn"]);
        room.check(erase(2, heard), &[]);
        room.handle(Input::EndOfTurn);
        room.check(erase(2, heard), &[]);
        assert!(heard.lock().is_empty(), "the store has the message as it was");
        room.queue.clear();
        room.handle(if stored { Input::Committed(3) } else { Input::Failed(StoreError::Poisoned("a test".into())) });
    }
    assert_eq!(*heard.lock(), ["erased 2-2", "erased 2-3", "erased 2-3"]);
    assert_eq!(*failed.lock(), ["OutcomeUnknown (1002)"; 3]);
}

#[test]
fn a_cold_message_is_read_with_its_edit_before_it_is_erased() {
    let heard = Heard::default();
    let mut room = joined(9);
    room.check(erase(3, &heard), &["read 1: target 3"]);
    let edited = Changed { revision: 6, edited: 5, ..Changed::default() };
    room.check(target(1, stored(3, "x", &edited), b""), &["read 2: target 5"]);
    room.check(target(2, stored(5, "x", &Changed::default()), b""), &["end turn"]);
    room.check(Input::EndOfTurn, &["append 10-10"]);
    assert_eq!(room.queue[0].rewrites.iter().map(|made| made.seq).collect::<Vec<_>>(), [3, 5]);
    room.queue.clear();
    room.handle(Input::Committed(10));
    room.check(erase(4, &heard), &["read 3: target 4"]);
    room.check(Input::Target { id: 3, target: Err(StoreError::Busy) }, &[]);
    assert_eq!(*heard.lock(), ["erased 3-5", "Busy (1000)"]);
}
