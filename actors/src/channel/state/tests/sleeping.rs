//! Rooms that fall asleep, stay awake, and begin after a sleep.

use parlor_protocol::message::{Access, Role};

use super::*;
use crate::{
    arbiters::Arbiters,
    members::{Asker, Changed, Counts, MemberChange, MembersChanged, announcing::Announcement},
};

const IDLE: u64 = 600_000;

fn ask() -> Input {
    Input::Sleep(Sleep::Ask)
}

fn fetch(user: &str, arbiter: u16, start: Seq) -> Input {
    let start = Some(start);
    Input::Fetch(Fetch {
        conn: conn(arbiter),
        request: 9,
        device: key(user),
        start,
        direction: Direction::Backward,
        limit: 1,
    })
}

pub(super) fn signal(user: &str, arbiter: u16) -> Input {
    let conn = Some(conn(arbiter));
    Input::Signal(Signal { conn, request: 8, device: key(user), key: 5, frame: Bytes::new() })
}

impl Room {
    fn asked_after(&mut self, ms: u64) -> Vec<String> {
        self.now.mono_ms += ms;
        self.handle(ask())
    }

    /// Both relays let go.
    fn let_go(&mut self) -> Vec<String> {
        self.check(Input::Sleep(Sleep::LetGo(1)), &[]);
        self.handle(Input::Sleep(Sleep::LetGo(0)))
    }

    pub(super) fn woken(&mut self, arbiter: u16, users: &[&str]) -> Vec<String> {
        let devices = back(users);
        self.handle(Input::Sleep(Sleep::Woken { arbiter, devices }))
    }
}

#[test]
fn a_room_that_nobody_touched_for_long_falls_asleep() {
    let mut room = joined(2);
    assert_eq!(room.asked_after(IDLE - 1), [""; 0]);
    assert_eq!(room.asked_after(1), ["Idle"]);
    assert_eq!(room.let_go(), ["Asleep(Arbiters(3))"]);
    // With nobody in it.
    let mut room = self::room(Durability::Synced, 1, 2);
    assert_eq!(room.asked_after(0), [""; 0], "this is when its time begins");
    assert_eq!(room.asked_after(IDLE), ["Idle"]);
    assert_eq!(room.let_go(), ["Asleep(Arbiters(0))"]);
}

#[test]
fn a_room_that_is_touched_while_it_falls_asleep_stays() {
    let touches: [fn(&mut Room); 6] = [
        |room| room.detach("bob", 1),
        |room| drop(room.handle(fetch("ann", 0, 2))),
        |room| drop(room.handle(signal("ann", 0))),
        |room| drop(room.join("cem", 0, JoinFrom::Tail)),
        |room| drop(room.handle(Input::Pull { conn: conn(0), after: 2 })),
        |room| drop(room.handle(Input::Delivered { user: "ann".parse().unwrap(), seq: 1 })),
    ];
    for touch in touches {
        let mut room = joined(2);
        assert_eq!(room.asked_after(IDLE), ["Idle"]);
        touch(&mut room);
        assert_eq!(room.let_go(), ["Awake"]);
        assert_eq!(room.asked_after(IDLE - 1), [""; 0]);
    }
    // What is not about the room's people does not keep it awake.
    let mut room = joined(2);
    room.asked_after(IDLE);
    room.check(Input::Swept { first: 2, gone_count: 1 }, &[]);
    assert_eq!(room.let_go(), ["Asleep(Arbiters(3))"]);
}

#[test]
fn a_room_that_is_asked_again_while_it_falls_asleep_still_knows_that_it_was_touched() {
    for lets_go in [false, true] {
        let mut room = room(Durability::Synced, 1, 2);
        room.asked_after(0);
        assert_eq!(room.asked_after(IDLE), ["Idle"]);
        if lets_go {
            room.check(Input::Sleep(Sleep::LetGo(1)), &[]);
        }
        room.join("ann", 1, JoinFrom::Tail);
        assert_eq!(room.answers("ann", vec![]), ["1: attach ann at 2 of 2"]);
        // It was asked before the supervisor heard of the first answer, and had much to do.
        assert_eq!(room.asked_after(IDLE), ["Idle"]);
        if !lets_go {
            room.check(Input::Sleep(Sleep::LetGo(1)), &[]);
        }
        assert_eq!(room.handle(Input::Sleep(Sleep::LetGo(0))), ["Awake"], "a relay let go before it knew of ann");
    }
}

#[test]
fn a_room_in_which_something_is_under_way_stays() {
    type Step = fn(&mut Room);
    let nothing: Step = |_| {};
    let cases: [(&str, Step, Step, Step); 6] = [
        (
            "a turn",
            nothing,
            |room| room.ann(3, 1, &["end turn"]),
            |room| {
                room.commit();
                assert_eq!(room.asked_after(0), ["save ann 0/0/3"]);
                room.check(Input::MarksSaved(Ok(())), &[]);
            },
        ),
        (
            "records on their way",
            nothing,
            |room| {
                room.ann(3, 1, &["end turn"]);
                room.handle(Input::EndOfTurn);
            },
            |room| {
                room.handle(Input::Committed(3));
                assert_eq!(room.asked_after(0), ["save ann 0/0/3"]);
                room.check(Input::MarksSaved(Ok(())), &[]);
            },
        ),
        (
            "a refill",
            nothing,
            |room| drop(room.handle(fetch("ann", 0, 2))),
            |room| drop(room.handle(Input::Read { id: 1, records: Ok(records(1, 2)) })),
        ),
        ("a join", nothing, |room| drop(room.join("cem", 0, JoinFrom::Tail)), |room| drop(room.answers("cem", vec![]))),
        (
            "marks to save",
            nothing,
            |room| drop(room.handle(Input::Mark(MarkRead { conn: conn(1), request: 1, device: key("bob"), read: 2 }))),
            |room| room.check(Input::MarksSaved(Ok(())), &[]),
        ),
        (
            "a question about marks",
            nothing,
            |room| drop(room.handle(Input::FetchReaders(FetchReaders { conn: conn(1), request: 1, seq: 1 }))),
            |room| {
                let fetch = FetchReaders { conn: conn(1), request: 1, seq: 1 };
                room.handle(Input::RoomMarks { fetch, found: Ok(RoomMarks::default()) });
            },
        ),
    ];
    for (what, before, begin, end) in cases {
        let mut room = joined(2);
        before(&mut room);
        begin(&mut room);
        let asked = room.asked_after(2 * IDLE);
        assert!(!asked.iter().any(|line| line == "Idle"), "{what}");
        end(&mut room);
        assert_eq!(room.asked_after(2 * IDLE), ["Idle"], "{what}");
        assert_eq!(room.let_go(), ["Asleep(Arbiters(3))"], "{what}");
    }
}

#[test]
fn an_erasure_and_a_change_of_a_record_keep_a_room_awake() {
    let mut room = joined(9);
    let told = Told::new(|_| {});
    room.check(Input::Erase(Erase { seq: 2, whose: None, told }), &["read 1: target 2"]);
    assert_eq!(room.asked_after(2 * IDLE), [""; 0]);
    room.handle(Input::Target { id: 1, target: Ok(None) });
    let edit = Publish { kind: RecordKind::EDIT, refers_to: 3, ..publish("ann", 0, 4, 1, "y") };
    room.check(Input::Publish(edit), &["read 2: target 3"]);
    assert_eq!(room.asked_after(2 * IDLE), [""; 0]);
    room.handle(Input::Target { id: 2, target: Ok(None) });
    assert_eq!(room.asked_after(2 * IDLE), ["Idle"]);
}

#[test]
fn a_room_that_would_not_be_the_same_never_sleeps() {
    let mut room = room(Durability::Memory, 1, 0);
    room.join("ann", 0, JoinFrom::Tail);
    assert_eq!(room.asked_after(2 * IDLE), [""; 0], "its records would be gone");
    room.detach("ann", 0);
    room.handle(Input::EndOfTurn);
    assert_eq!(room.asked_after(2 * IDLE), ["Idle"]);
    let mut room = joined(2);
    room.handle(Input::Failed(StoreError::Poisoned("a test".into())));
    assert_eq!(room.asked_after(2 * IDLE), [""; 0], "the store may not be able to load it");
}

#[test]
fn what_users_sent_is_in_their_marks_before_the_room_sleeps() {
    let mut room = joined(2);
    room.ann(3, 1, &["end turn"]);
    room.commit();
    assert_eq!(room.asked_after(IDLE), ["save ann 0/0/3"]);
    room.check(Input::MarksSaved(Ok(())), &[]);
    assert_eq!(room.asked_after(IDLE / 4), ["Idle"], "and that it was saved is no touch");
}

#[test]
fn a_woken_room_opens_when_all_are_back_who_were_there() {
    let mut room = room(Durability::Synced, 1, 2);
    room.check(Input::Sleep(Sleep::Expect(Arbiters::first(2))), &[]);
    assert_eq!(room.join("cem", 0, JoinFrom::Tail), [""; 0]);
    room.check(Input::Signal(Signal { conn: None, request: 0, device: key("dan"), key: 5, frame: Bytes::new() }), &[]);
    assert_eq!(room.woken(0, &["ann"]), ["0: adopted 1-2"]);
    room.check(fetch("ann", 0, 2), &[]);
    assert_eq!(room.asked_after(2 * IDLE), [""; 0]);
    let want = ["1: adopted 1-2", "load cem", "0: signal 5 of dan", "1: signal 5 of dan", "load ann"];
    assert_eq!(room.woken(1, &["bob"]), want);
    assert_eq!(room.state.subscribers(), 2);
    assert_eq!(room.answers("cem", vec![]), ["0: attach cem at 2 of 2"]);
    assert_eq!(room.answers("ann", vec![]), ["read 1: 2-1, 4 of them"]);
}

#[test]
fn what_changed_before_is_recorded_when_all_are_back_who_were_there() {
    let mut room = self::room(Durability::Synced, 1, 2);
    let announcement = Announcement { number: 1, by: Asker::Host, payload: Bytes::from_static(b"bob is banned") };
    room.state.people.unannounced.push_back(announcement);
    room.check(Input::Sleep(Sleep::Expect(Arbiters::first(2))), &[]);
    room.woken(1, &["bob"]);
    assert!(room.state.announces(), "who has to go is not known yet, and would be brought the record of it");
    room.woken(0, &["ann"]);
    assert!(!room.state.announces());
}

#[test]
fn a_device_of_before_the_sleep_is_loaded_when_it_asks_for_something() {
    let mut room = room(Durability::Synced, 1, 2);
    room.check(Input::Sleep(Sleep::Expect(Arbiters::first(1))), &[]);
    assert_eq!(room.woken(0, &["ann", "bob"]), ["0: adopted 1-2"]);
    room.ann(2, 6, &["load ann"]);
    room.ann(3, 7, &[]);
    room.check(signal("bob", 0), &["load bob"]);
    room.check(Input::Detached { arbiter: 0, device: key("ann") }, &[]);
    room.ann(4, 8, &[]);
    room.detach("bob", 0);
    // What she sent before the room slept is known when she sends it again.
    assert_eq!(room.answers("ann", vec![answer(6, 2, "x")]), ["0: #2 stored at 2 again", "end turn"]);
    assert_eq!(room.answers("bob", vec![]), ["0: signal 5 of bob"]);
    room.commit();
    assert_eq!((room.state.subscribers(), room.state.devices()), (0, 0));
}

#[test]
fn what_cannot_be_loaded_is_refused_for_now_and_not_overtaken() {
    let mut room = room(Durability::Synced, 1, 2);
    room.check(Input::Sleep(Sleep::Expect(Arbiters::first(1))), &[]);
    room.woken(0, &["ann"]);
    room.ann(2, 6, &["load ann"]);
    room.check(fetch("ann", 0, 2), &[]);
    let failed = Input::Answers { device: key("ann"), answers: Err(StoreError::Busy) };
    room.check(failed, &["0: #2 Busy", "0: #9 Busy"]);
    room.ann(3, 7, &["load ann"]);
    assert_eq!(room.answers("ann", vec![]), ["0: #3 HeldBack"]);
    room.ann(4, 6, &["end turn"]);
    // So many wait for one device, and no more.
    let mut room = self::room(Durability::Synced, 1, 2);
    room.check(Input::Sleep(Sleep::Expect(Arbiters::first(1))), &[]);
    room.woken(0, &["ann"]);
    room.ann(1, 1, &["load ann"]);
    for nonce in 2..=64 {
        room.ann(1, nonce, &[]);
    }
    room.ann(65, 65, &["0: #65 Busy"]);
}

#[test]
fn what_was_refused_while_a_device_was_loaded_is_not_overtaken_by_what_comes_behind_that() {
    let mut room = room(Durability::Synced, 1, 2);
    room.state.limits = Arc::new(Limits { parked_per_device_max: 1, ..(*room.state.limits).clone() });
    room.check(Input::Sleep(Sleep::Expect(Arbiters::first(1))), &[]);
    room.woken(0, &["ann"]);
    room.ann(1, 1, &["load ann"]);
    room.ann(2, 2, &["0: #2 Busy"]);
    assert_eq!(room.answers("ann", vec![]), ["end turn"], "the first is taken");
    room.ann(3, 3, &["0: #3 HeldBack"]);
    room.commit();
    room.ann(2, 2, &["end turn"]);
    room.commit();
    room.ann(3, 3, &["end turn"]);
}

#[test]
fn what_changed_while_a_room_slept_puts_out_whom_it_concerns() {
    let options = RoomOptions { access: Access::Open, ..RoomOptions::default() };
    let woken = || {
        let mut room = room_of("room", options, (1, 2), 1);
        room.check(Input::Sleep(Sleep::Expect(Arbiters::first(1))), &[]);
        room
    };
    let member = |role| Member { role, since: 1, epoch: Epoch(3), count: 0, added: 1 };
    let banned = MemberChange { user: "bob".parse().unwrap(), before: None, after: Some(member(Role::Banned)) };
    let counts = Counts { members: 1, banned: 1 };
    let change = MembersChanged {
        room: RoomNumber(1),
        by: Asker::Host,
        users: vec![banned],
        counts,
        number: 1,
        announcements: Vec::new(),
    };
    let mut room = woken();
    room.check(Input::Changed { id: 4, change: Arc::new(Changed::Members(change.into())) }, &[]);
    assert_eq!(room.woken(0, &["ann", "bob"]), ["0: adopted 1-2", "0: detach bob Forbidden", "told 4"]);
    // The room's own rules concern everybody.
    let configured = Changed::Configured(RoomNumber(1), RoomOptions { access: Access::Members, ..options });
    let mut room = woken();
    room.woken(0, &["ann", "bob"]);
    let mut lines = room.handle(Input::Changed { id: 5, change: configured.into() });
    lines.sort_unstable();
    assert_eq!(lines, ["load rights of ann", "load rights of bob", "told 5"]);
    room.check(Input::Rights { device: key("ann"), member: Ok(Some(member(Role::Member))) }, &["0: members ann"]);
    room.check(Input::Rights { device: key("bob"), member: Ok(None) }, &["0: detach bob Forbidden"]);
    // Nobody stays on a guess.
    let configured = Changed::Configured(RoomNumber(1), RoomOptions { access: Access::Members, ..options });
    let mut room = woken();
    room.woken(0, &["ann"]);
    room.handle(Input::Changed { id: 5, change: configured.into() });
    room.check(Input::Rights { device: key("ann"), member: Err(StoreError::Busy) }, &["stop"]);
}
