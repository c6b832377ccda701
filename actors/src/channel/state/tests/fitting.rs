//! Rooms beside others that leave little memory for their rings.

use super::*;
use crate::pools::Share;

/// A room with ann and bob whose ring has seqs 1 to 4, of which each takes as much, and the share of all other rooms.
fn beside(durability: Durability) -> (Room, Share) {
    let mut room = room(durability, 1, 0);
    let others = room.state.pools.ring_bytes.share();
    room.join("ann", 0, JoinFrom::Tail);
    room.answers("ann", vec![]);
    room.join("bob", 1, JoinFrom::Tail);
    room.answers("bob", vec![]);
    for nonce in 1..=4 {
        room.ann(1, nonce, &["end turn"]);
        room.commit();
    }
    assert_eq!((room.state.ring.first(), room.state.ring.last()), (1, 4));
    (room, others)
}

impl Room {
    /// The others leave so many times what one record takes.
    fn leave(&mut self, others: &mut Share, records: usize) {
        let pool = &self.state.pools.ring_bytes;
        others.set(pool.max() - records * self.record_bytes());
    }

    fn record_bytes(&self) -> usize {
        let records = self.state.ring.last() + 1 - self.state.ring.first();
        self.state.ring_bytes() / usize::try_from(records).unwrap()
    }

    fn in_ring(&self) -> (Seq, Seq) {
        assert_eq!(self.state.ring_bytes(), self.state.share.held(), "what it holds is what it says");
        (self.state.ring.first(), self.state.ring.last())
    }

    fn ask(&mut self) {
        self.check(Input::Sleep(Sleep::Ask), &[]);
    }
}

#[test]
fn a_stored_room_lets_records_go_and_delivers_all_the_same() {
    let (mut room, mut others) = beside(Durability::Buffered);
    room.leave(&mut others, 2 * 16);
    assert_eq!(room.in_ring(), (1, 4), "nobody takes them away");
    room.ann(1, 5, &["end turn"]);
    let told = room.commit();
    assert_eq!(told, ["append 5-5", "0: batch 5, #1 stored at 5", "1: batch 5"]);
    assert_eq!(room.in_ring(), (4, 5));
    // Of nothing at all it has nothing, and still pushes what is committed.
    room.leave(&mut others, 0);
    room.ann(1, 6, &["end turn"]);
    assert_eq!(room.commit(), ["append 6-6", "0: batch 6, #1 stored at 6", "1: batch 6"]);
    assert_eq!(room.in_ring(), (7, 6));
    // Whoever lags reads from the store, and nothing that would fall off again.
    room.check(Input::Pull { conn: conn(1), after: 4 }, &["read 1: 5-6, 3 of them"]);
    room.check(Input::Read { id: 1, records: Ok(records(5, 6)) }, &["1: 1 pulled 5 6 after 4 to 6"]);
    assert_eq!(room.in_ring(), (7, 6));
}

#[test]
fn a_room_that_nobody_speaks_in_lets_go_when_it_is_asked_and_is_read_anew_when_there_is_memory() {
    let (mut room, mut others) = beside(Durability::Synced);
    room.check(Input::Pull { conn: conn(1), after: 0 }, &["1: 1 pulled 1 2 3 after 0 to 3"]);
    room.leave(&mut others, 16);
    room.ask();
    assert_eq!(room.in_ring(), (4, 4));
    // It was refilled once; that it is not now is no reason never to do it again.
    room.state.refill = Refill::Done;
    room.leave(&mut others, 0);
    room.ask();
    assert_eq!(room.in_ring(), (5, 4));
    others.set(0);
    room.check(Input::Pull { conn: conn(1), after: 0 }, &["read 1: 1-4, 3 of them"]);
    room.check(Input::Read { id: 1, records: Ok(records(1, 3)) }, &["1: 1 pulled 1 2 3 after 0 to 3"]);
    room.ask();
    room.check(Input::Pull { conn: conn(1), after: 0 }, &["read 2: 4-1, 4 of them"]);
    room.check(Input::Read { id: 2, records: Ok(records(1, 4)) }, &["1: 1 pulled 1 2 3 after 0 to 3"]);
    assert_eq!(room.in_ring(), (1, 4));
}

#[test]
fn nothing_is_refilled_while_memory_is_short() {
    let mut room = room(Durability::Synced, 1, 9);
    let mut others = room.state.pools.ring_bytes.share();
    others.set(room.state.pools.ring_bytes.max() * 7 / 8);
    room.check(Input::Pull { conn: conn(1), after: 5 }, &["read 1: 6-9, 3 of them"]);
    others.set(0);
    room.check(Input::Pull { conn: conn(1), after: 6 }, &["read 2: 9-6, 4 of them"]);
}

#[test]
fn a_room_in_memory_tells_what_falls_off_and_keeps_the_newest() {
    let (mut room, mut others) = beside(Durability::Memory);
    room.leave(&mut others, 2 * 16);
    room.ask();
    assert_eq!(room.in_ring(), (3, 4));
    let why = room.state.extent.why_gone(1);
    assert_eq!((room.state.extent.first, why), (3, GapReason::TRIMMED));
    room.check(Input::Pull { conn: conn(1), after: 0 }, &["1: 1 pulled none after 0 to 2"]);
    room.check(Input::Pull { conn: conn(1), after: 2 }, &["1: 1 pulled 3 4 after 2 to 4"]);
    // A sixteenth of this is less than one record.
    room.leave(&mut others, 8);
    room.ann(1, 5, &["end turn"]);
    room.commit();
    assert_eq!(room.in_ring(), (5, 5));
    assert!(room.join("cem", 1, JoinFrom::Seq(1))[0].ends_with("gap 1-4 Trimmed"), "it is told");
}

#[test]
fn a_room_in_memory_takes_no_message_for_which_there_is_no_memory_at_all() {
    let (mut room, mut others) = beside(Durability::Memory);
    room.leave(&mut others, 1);
    room.ann(2, 5, &["0: #2 Busy"]);
    // Later ones of the device must not overtake it.
    others.set(0);
    room.ann(3, 6, &["0: #3 HeldBack"]);
    room.ann(2, 5, &["end turn"]);
    assert_eq!(room.commit(), ["0: batch 5, #2 stored at 5", "1: batch 5"]);
    room.ann(3, 6, &["end turn"]);
}

#[test]
fn a_stored_room_sleeps_sooner_while_memory_is_short_and_one_in_memory_does_not() {
    const IDLE_MS: u64 = 600_000;
    let sleeps = |durability, after_ms, short| {
        let mut room = room(durability, 1, 0);
        let mut others = room.state.pools.ring_bytes.share();
        room.ask();
        others.set(if short { room.state.pools.ring_bytes.max() } else { 0 });
        room.now.mono_ms += after_ms;
        room.handle(Input::Sleep(Sleep::Ask)) == ["Idle"]
    };
    assert!(!sleeps(Durability::Synced, IDLE_MS / 4, false) && !sleeps(Durability::Synced, IDLE_MS / 4 - 1, true));
    assert!(sleeps(Durability::Synced, IDLE_MS / 4, true) && sleeps(Durability::Buffered, IDLE_MS / 4, true));
    assert!(!sleeps(Durability::Memory, IDLE_MS - 1, true) && sleeps(Durability::Memory, IDLE_MS, true));
}

#[test]
fn what_a_channel_had_is_given_back_when_it_ends() {
    let (room, others) = beside(Durability::Synced);
    let pools = room.state.pools.clone();
    assert!(pools.ring_bytes.used() > 0);
    drop((room, others));
    assert_eq!((pools.ring_bytes.used(), pools.absent.used()), (0, 0));
}

#[test]
fn those_who_left_many_rooms_are_forgotten_by_each_as_they_are_too_many_together() {
    let mut room = room(Durability::Memory, 1, 0);
    let mut others = room.state.pools.absent.share();
    let leaves = |room: &mut Room, user: &str| {
        room.join(user, 0, JoinFrom::Tail);
        room.say((user, 0), 1, 1, "x", &["end turn"]);
        room.commit();
        room.detach(user, 0);
    };
    leaves(&mut room, "ann");
    assert_eq!((room.state.devices(), room.state.pools.absent.used()), (1, 2), "a device that has sent, and its user");
    // Now nobody may be remembered, and what is there goes when the room is asked.
    others.set(room.state.pools.absent.max());
    assert_eq!(room.state.devices(), 1);
    room.handle(Input::Sleep(Sleep::Ask));
    assert_eq!(room.state.devices(), 0);
    leaves(&mut room, "bob");
    assert_eq!((room.state.devices(), others.held()), (0, room.state.pools.absent.used()));
    others.set(0);
    leaves(&mut room, "cem");
    assert_eq!(room.state.devices(), 1);
}
