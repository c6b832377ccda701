//! Lifetimes and retention.

use parlor_protocol::message::GapReason;

use super::*;
use crate::{
    port::Trimmed,
    tiers::{SendRate, Tier},
};

/// A room with these options, joined by ann, in whose tier records live for a second.
fn home(options: RoomOptions) -> Room {
    let tier = |lifetime_ms: u64| Tier { name: lifetime_ms.to_string(), lifetime_ms, send: SendRate::OFF };
    let mut room = room_with(options, Tiers::new(tier(0), vec![tier(1_000)], None), 1, 0);
    room.join("ann", 0, JoinFrom::Tail);
    room.answers("ann", vec![]);
    room
}

/// A page's seqs, its gaps and where the next begins.
type Found<'a> = (&'a str, &'a [(Seq, Seq, GapReason)], Option<Seq>);

impl Room {
    /// Ann says something that is stored; returns its expiry.
    fn stored(&mut self, tier: u8, lifetime_ms: Option<u64>) -> u64 {
        let nonce = self.state.given + 1;
        let publish = Publish { tier: TierNumber(tier), lifetime_ms, ..publish("ann", 0, 1, nonce, "x") };
        self.handle(Input::Publish(publish));
        self.handle(Input::EndOfTurn);
        let expires = self.queue.pop().map_or(0, |turn| {
            let expires = with_deliver(&turn.frames, |deliver| deliver.expires);
            assert_eq!(turn.records[0].expires, expires, "what the store is told is what the frame says");
            expires
        });
        self.handle(Input::Committed(nonce));
        expires
    }

    /// A page: its seqs and its gaps.
    #[track_caller]
    fn page(&mut self, start: Option<Seq>, direction: Direction, want: Found<'_>) {
        self.state.handle(
            self.now,
            Input::Fetch(Fetch { conn: conn(0), request: 4, device: key("ann"), start, direction, limit: 3 }),
        );
        let Some(Effect::Relay { news: FromChannel::Answer { frame, .. }, .. }) = self.state.poll() else {
            panic!("not answered at once")
        };
        let page: Page<'_> = body(&frame);
        let gaps: Vec<_> = page.gaps.0.iter().map(|gap| (gap.from, gap.to, gap.why)).collect();
        assert_eq!((&*seqs(page.records), &gaps[..], page.next), want);
    }
}

#[test]
fn a_record_expires_by_the_shortest_of_room_tier_and_message() {
    #[track_caller]
    fn check(room_ms: u64, tier: u8, message: Option<u64>, want: u64) {
        let mut room = home(RoomOptions { lifetime_ms: room_ms, ..RoomOptions::default() });
        assert_eq!(room.stored(tier, message), if want == 0 { 0 } else { UNIX + want });
    }
    check(0, 0, None, 0);
    check(0, 0, Some(0), 0);
    check(500, 0, None, 500);
    check(500, 0, Some(0), 500);
    check(500, 0, Some(400), 400);
    check(500, 0, Some(600), 500);
    check(0, 0, Some(600), 600);
    check(0, 1, None, 1_000);
    check(2_000, 1, None, 1_000);
    check(500, 1, None, 500);
    check(2_000, 1, Some(1_500), 1_000);
    check(2_000, 1, Some(900), 900);
    check(u64::MAX, 0, None, u64::MAX - UNIX);
}

#[test]
fn what_expired_is_unreadable_at_once() {
    let mut room = home(RoomOptions::default());
    for lifetime in [Some(10), None, Some(20), Some(10)] {
        room.stored(0, lifetime);
    }
    let expired = |from, to| (from, to, GapReason::EXPIRED);
    use Direction::{Backward, Forward};
    room.now.unix_ms = UNIX + 9;
    room.page(None, Forward, ("1 2 3", &[], Some(4)));
    room.now.unix_ms = UNIX + 10;
    room.page(None, Forward, ("2 3", &[expired(1, 1)], Some(4)));
    room.page(Some(4), Forward, ("none", &[expired(4, 4)], None));
    room.page(None, Backward, ("2 3", &[expired(4, 4)], Some(1)));
    room.page(Some(1), Backward, ("none", &[expired(1, 1)], None));
    room.check(Input::Pull { conn: conn(0), after: 0 }, &["0: 1 pulled 2 3 after 0 to 3"]);
    room.check(Input::Pull { conn: conn(0), after: 3 }, &["0: 1 pulled none after 3 to 4"]);
    // A clock that went back shows it again: nothing was deleted by it.
    room.now.unix_ms = UNIX;
    room.page(None, Forward, ("1 2 3", &[], Some(4)));
}

#[test]
fn what_was_hidden_while_the_store_was_deleting_is_deleted_though_the_room_keeps_more_now() {
    let mut room = home(RoomOptions { records_max: 2, ..RoomOptions::default() });
    for _ in 0..70 {
        room.stored(0, None);
    }
    let trims = |lines: Vec<String>| lines.into_iter().filter(|line| line.contains("trim")).count();
    let trimmed =
        |first: Seq| Input::Trimmed(Ok(Trimmed { first, trimmed: first, gone_count: first - 1, bytes_before: 0 }));
    let keeps_all = crate::members::Changed::Configured(RoomNumber(1), RoomOptions::default());
    // One is under way, from when there was much.
    assert!(room.state.held.asked);
    let change = Input::Changed { id: 1, change: Arc::new(keeps_all) };
    assert_eq!(trims(room.handle(change)), 0);
    assert_eq!(trims(room.handle(trimmed(65))), 1);
    // It failed, and is asked again when somebody looks.
    room.handle(Input::Trimmed(Err(StoreError::Busy)));
    assert_eq!(trims(room.handle(Input::Sleep(Sleep::Ask))), 1);
    room.handle(trimmed(69));
    assert_eq!((room.state.extent.first, room.state.held.first), (69, 69));
}

#[test]
fn a_sweep_moves_the_oldest_readable_and_the_ring_with_it() {
    let mut room = home(RoomOptions::default());
    for _ in 0..4 {
        room.stored(0, Some(10));
    }
    room.check(Input::Swept { first: 3, gone_count: 2 }, &[]);
    assert_eq!((room.state.extent.first, room.state.ring.first()), (3, 3));
    room.check(Input::Swept { first: 2, gone_count: 1 }, &[]);
    let gap = (1, 2, GapReason::EXPIRED);
    room.page(Some(1), Direction::Forward, ("none", &[gap], Some(3)));
    room.page(None, Direction::Forward, ("3 4", &[], None));
    assert_eq!(room.join("bob", 0, JoinFrom::Seq(1)), ["load bob"]);
    assert_eq!(room.answers("bob", vec![]), ["0: attach bob at 2 of 4, gap 1-2 Expired"]);
    // The store may have swept what the channel has not been told of.
    room.ann(1, 5, &["end turn"]);
    room.handle(Input::EndOfTurn);
    room.check(Input::Swept { first: 6, gone_count: 5 }, &[]);
    assert_eq!((room.state.extent.first, room.state.ring.first()), (5, 5), "it is all gone");
    room.handle(Input::Committed(5));
    assert_eq!((room.state.extent.first, room.state.tail()), (6, 5));
    assert_eq!(room.state.extent.why_gone(5), GapReason::EXPIRED, "a sweep took it, and no rule on what is kept");
}

#[test]
fn what_a_sweep_took_has_expired_also_if_a_trim_behind_it_is_told_first() {
    let mut room = home(RoomOptions::default());
    for _ in 0..4 {
        room.stored(0, Some(10));
    }
    let trimmed = |first| Input::Trimmed(Ok(Trimmed { first, trimmed: 1, gone_count: first - 1, bytes_before: 0 }));
    room.check(trimmed(3), &[]);
    assert_eq!((room.state.extent.first, room.state.extent.why_gone(1)), (3, GapReason::EXPIRED));
    room.check(Input::Swept { first: 3, gone_count: 2 }, &[]);
    // As well of what has yet to be told as committed.
    room.ann(1, 5, &["end turn"]);
    room.handle(Input::EndOfTurn);
    room.check(trimmed(6), &[]);
    room.handle(Input::Committed(5));
    assert_eq!((room.state.extent.first, room.state.extent.why_gone(1)), (6, GapReason::EXPIRED));
}

#[test]
fn a_room_that_keeps_so_many_records_shows_no_more_and_deletes_many_at_a_time() {
    let mut room = home(RoomOptions { records_max: 2, ..RoomOptions::default() });
    for seq in 1..=65 {
        room.stored(0, None);
        assert_eq!(room.state.extent.first, seq.max(2) - 1);
    }
    room.page(Some(60), Direction::Forward, ("none", &[(60, 63, GapReason::TRIMMED)], Some(64)));
    room.page(None, Direction::Backward, ("64 65", &[], None));
    assert_eq!(room.join("bob", 0, JoinFrom::Newest(9)), ["load bob"]);
    assert_eq!(room.answers("bob", vec![]), ["0: attach bob at 63 of 65"]);
    room.ann(1, 66, &["end turn"]);
    room.handle(Input::EndOfTurn);
    room.queue.clear();
    let told = room.handle(Input::Committed(66));
    assert_eq!(told[0], "trim below 65 to 0 bytes", "{told:?}");
    // Once is enough.
    room.ann(1, 67, &["end turn"]);
    room.handle(Input::EndOfTurn);
    room.queue.clear();
    assert!(!room.handle(Input::Committed(67))[0].starts_with("trim"));
    room.check(Input::Trimmed(Err(StoreError::Busy)), &[]);
    room.ann(1, 68, &["end turn"]);
    room.handle(Input::EndOfTurn);
    assert_eq!(room.handle(Input::Committed(68))[0], "trim below 67 to 0 bytes");
    room.check(Input::Trimmed(Ok(Trimmed { first: 67, trimmed: 67, gone_count: 66, bytes_before: 9 })), &[]);
    assert!(!room.state.held.asked && room.state.held.first == 67);
}

#[test]
fn a_loaded_room_keeps_no_more_than_it_may() {
    let options = RoomOptions { records_max: 100, ..RoomOptions::default() };
    let mut room = room_with(options, Tiers::sending(SendRate::OFF), 1, 150);
    assert!(room.state.poll().is_none(), "fifty are not worth it");
    assert_eq!(room.state.extent.first, 51);
    let mut room = room_with(options, Tiers::sending(SendRate::OFF), 1, 200);
    assert!(matches!(room.state.poll(), Some(Effect::Trim(trim)) if trim.first == 101));
}

#[test]
fn a_room_that_keeps_so_many_bytes_is_trimmed_by_what_the_store_says() {
    let mut room = home(RoomOptions { bytes_max: 100, ..RoomOptions::default() });
    let mut asked = 0;
    while asked == 0 {
        room.stored(0, None);
        asked = u64::from(room.state.held.asked);
        assert_eq!(room.state.extent.first, 1);
    }
    let bytes = room.state.held.bytes_upto;
    assert!(bytes > 100 + (16 << 10) && bytes < 200 + (16 << 10), "{bytes}");
    let tail = room.state.tail();
    room.check(
        Input::Trimmed(Ok(Trimmed { first: tail, trimmed: tail, gone_count: tail - 1, bytes_before: bytes - 60 })),
        &[],
    );
    assert_eq!(room.state.extent.first, tail);
    room.page(Some(1), Direction::Forward, ("none", &[(1, tail - 1, GapReason::TRIMMED)], Some(tail)));
    room.stored(0, None);
    assert!(!room.state.held.asked);
}

#[test]
fn what_came_too_much_while_the_store_was_deleting_is_deleted_as_well() {
    #[track_caller]
    fn check(records_max: u64, bytes_max: u64) {
        let mut room = home(RoomOptions { records_max, bytes_max, ..RoomOptions::default() });
        while !room.state.held.asked {
            room.stored(0, None);
        }
        let (tail, bytes) = (room.state.tail(), room.state.held.bytes_upto);
        let answer = || {
            Input::Trimmed(Ok(Trimmed { first: tail, trimmed: tail, gone_count: tail - 1, bytes_before: bytes - 60 }))
        };
        // The store has done what it was told, and the answer is on its way, when as much comes again.
        for _ in 0..=tail {
            room.stored(0, None);
        }
        assert_eq!(room.handle(answer()), [format!("trim below {} to {bytes_max} bytes", room.state.extent.first)]);
        // Should the store count otherwise, it is not asked for ever.
        room.check(answer(), &[]);
    }
    check(2, 0);
    check(0, 100);
}

#[test]
fn a_page_that_was_read_while_its_records_were_trimmed_says_trimmed() {
    let mut room = room(Durability::Synced, 1, 20);
    room.join("ann", 0, JoinFrom::Tail);
    room.answers("ann", vec![]);
    let fetch = Fetch {
        conn: conn(0),
        request: 4,
        device: key("ann"),
        start: Some(3),
        direction: Direction::Forward,
        limit: 0,
    };
    room.check(Input::Fetch(fetch), &["read 1: 3-20, 2 of them"]);
    room.check(Input::Trimmed(Ok(Trimmed { first: 9, trimmed: 9, gone_count: 8, bytes_before: 0 })), &[]);
    let gap = Run::Gap { from: 3, to: 8, why: GapReason::EXPIRED };
    room.state.handle(room.now, Input::Read { id: 1, records: Ok(Records { runs: vec![gap], next: Some(9) }) });
    let Some(Effect::Relay { news: FromChannel::Answer { frame, .. }, .. }) = room.state.poll() else { panic!() };
    assert_eq!(body::<Page<'_>>(&frame).gaps.0[0].why, GapReason::TRIMMED);
}

#[test]
fn a_memory_room_obeys_as_well() {
    let mut room = home(RoomOptions { durability: Durability::Memory, records_max: 3, ..RoomOptions::default() });
    for _ in 0..4 {
        room.stored(0, None);
    }
    assert_eq!((room.state.extent.first, room.state.extent.trimmed), (2, 2));
    room.page(Some(1), Direction::Forward, ("none", &[(1, 1, GapReason::TRIMMED)], Some(2)));
    let mut room = home(RoomOptions { durability: Durability::Memory, bytes_max: 1_000, ..RoomOptions::default() });
    let long: &'static str = str::from_utf8(&[b'x'; 400]).unwrap();
    for nonce in 1..=3 {
        room.state.handle(room.now, Input::Publish(publish("ann", 0, 1, nonce, long)));
        room.state.handle(room.now, Input::EndOfTurn);
    }
    assert_eq!((room.state.extent.first, room.state.tail()), (2, 3), "two of more than 400 bytes");
}

impl Room {
    /// Both clocks go on.
    fn pass(&mut self, ms: u64) {
        self.now.unix_ms += ms;
        self.now.mono_ms += ms;
    }

    /// The oldest seq that can be read, and the first one that is in memory.
    fn oldest(&self) -> (Seq, Seq) {
        (self.state.extent.first, self.state.ring.first())
    }
}

#[test]
fn a_memory_room_lets_go_of_what_expired_though_nobody_sweeps_it() {
    let options = RoomOptions { durability: Durability::Memory, lifetime_ms: 10, ..RoomOptions::default() };
    let mut room = home(options);
    for _ in 0..3 {
        room.stored(0, None);
    }
    room.pass(9);
    assert_eq!(room.join("bob", 1, JoinFrom::Newest(9)), ["1: attach bob at 0 of 3"]);
    let mark = |request| Input::Mark(MarkRead { conn: conn(1), request, device: key("bob"), read: 0 });
    room.check(mark(1), &["1: #1 read 0, 3 unread"]);
    room.pass(1);
    room.check(mark(2), &["1: #2 read 0, 0 unread"]);
    assert_eq!(room.oldest(), (4, 4), "nothing is kept that nobody may read");
    assert_eq!(room.join("cid", 1, JoinFrom::Newest(9)), ["1: attach cid at 3 of 3"]);
    room.page(Some(1), Direction::Forward, ("none", &[(1, 3, GapReason::EXPIRED)], None));
    // The next one is the fourth.
    room.stored(0, None);
    room.page(None, Direction::Forward, ("4", &[], None));
    room.check(mark(3), &["1: #3 read 0, 1 unread"]);
    // One that lives for longer keeps what is behind it: single records expire there.
    room.pass(10);
    room.state.options.lifetime_ms = 0;
    room.stored(0, None);
    room.stored(0, Some(5));
    room.pass(5);
    room.page(None, Direction::Forward, ("5", &[(6, 6, GapReason::EXPIRED)], None));
    assert_eq!(room.oldest(), (5, 5));
    // Nobody wants anything: it is asked whether it is idle.
    let mut room = home(options);
    room.stored(0, None);
    room.pass(10);
    room.check(Input::Sleep(Sleep::Ask), &[]);
    assert_eq!(room.oldest(), (2, 2));
}

#[test]
fn a_memory_room_deletes_nothing_by_a_wall_clock_that_jumps() {
    let minute = 60_000;
    let options = RoomOptions { durability: Durability::Memory, lifetime_ms: 2 * minute, ..RoomOptions::default() };
    let mut room = home(options);
    room.stored(0, None);
    room.now.unix_ms += 11 * minute;
    room.page(Some(1), Direction::Forward, ("none", &[(1, 1, GapReason::EXPIRED)], None));
    assert_eq!(room.oldest(), (1, 1), "it cannot be read, and is there");
    room.now.unix_ms -= 11 * minute;
    room.page(Some(1), Direction::Forward, ("1", &[], None));
    room.pass(2 * minute);
    room.check(Input::Sleep(Sleep::Ask), &[]);
    assert_eq!(room.oldest(), (2, 2));
    // Somebody says that the clock is right.
    room.stored(0, None);
    room.now.unix_ms += 11 * minute;
    room.check(Input::Sleep(Sleep::Ask), &[]);
    assert_eq!(room.oldest(), (2, 2));
    room.word.give();
    room.check(Input::Sleep(Sleep::Ask), &[]);
    assert_eq!(room.oldest(), (3, 3));
}

#[test]
fn what_a_memory_room_keeps_no_longer_is_not_unread_whatever_pushed_it_out() {
    let options = RoomOptions { durability: Durability::Memory, records_max: 3, ..RoomOptions::default() };
    let mut room = home(options);
    room.join("bob", 1, JoinFrom::Tail);
    room.stored(0, None);
    for nonce in 2..=4 {
        room.handle(Input::Publish(Publish { silent: true, ..publish("ann", 0, 1, nonce, "x") }));
        room.handle(Input::EndOfTurn);
    }
    let mark = Input::Mark(MarkRead { conn: conn(1), request: 1, device: key("bob"), read: 0 });
    room.check(mark, &["1: #1 read 0, 0 unread"]);
}
