//! Rooms that fall asleep, are woken, change, die and are deleted meanwhile.

use super::*;
use crate::{
    arbiters::Arbiters,
    channel::state::Rest,
    supervisor::state::sleeping::{Census, walk_interval_ms},
};

pub(super) fn text(bed: Bed<&'static str>) -> String {
    match bed {
        Bed::Ask(handle) => format!("ask {handle}"),
        Bed::LetGo(room, handle) => format!("{room} let go of {handle}"),
        Bed::Awake(room, handle) => format!("{room} awake by {handle}"),
        Bed::Asleep(room) => format!("{room} asleep"),
        Bed::Woken { room, handle, trusted, .. } => {
            format!("{room} woken by {handle}{}", if trusted { "" } else { ", changed" })
        }
        Bed::NotWoken(room) => format!("{room} not woken"),
    }
}

impl Office {
    #[track_caller]
    fn said(&mut self, generation: u64, rest: Rest, want: &[&str]) {
        let said = Said::Rest { room: RoomNumber(1), generation: Generation(generation), rest };
        self.check(Input::Sleep(said), want);
    }

    #[track_caller]
    fn wake(&mut self, want: &[&str]) {
        self.check(Input::Sleep(Said::Wake(RoomNumber(1))), want);
    }

    #[track_caller]
    fn forgot(&mut self, arbiter: u16) {
        self.check(Input::Sleep(Said::Forgot { room: RoomNumber(1), arbiter }), &[]);
    }

    /// Room `a`, whose channel "first" was found idle.
    fn falling() -> Self {
        let mut office = office().running();
        office.said(1, Rest::Idle, &["1 let go of first"]);
        office
    }

    /// The same, asleep, with subscribers on two arbiters.
    fn asleep() -> Self {
        let mut office = Self::falling();
        office.said(1, Rest::Asleep(Arbiters::first(2)), &["1 asleep"]);
        office.died(1, &[]);
        office
    }
}

#[test]
fn a_room_without_subscribers_is_forgotten() {
    let mut office = Office::falling();
    office.said(1, Rest::Asleep(Arbiters::default()), &[]);
    assert_eq!(office.state.census(), Census { sleeps: 1, ..Census::default() });
    office.died(1, &[]);
    assert_eq!(office.state.names.len(), 0);
    office.resolve("a", 2, &["load a or create it"]);
    office.loaded("a", Ok(loaded("a", 2)), &["build a of generation 2"]);
    office.built("a", 2, "second", &["2 gets 1 by second"]);
}

#[test]
fn subscribers_are_kept_in_mind_and_told_who_runs_their_room() {
    let mut office = Office::asleep();
    assert_eq!(office.state.census(), Census { asleep: 1, sleeps: 1, ..Census::default() });
    office.wake(&["load a"]);
    office.wake(&[]);
    office.resolve("a", 2, &[]);
    office.loaded("a", Ok(loaded("a", 2)), &["build a of generation 2"]);
    office.built("a", 2, "second", &["1 woken by second", "2 gets 1 by second"]);
    office.wake(&[]);
    assert_eq!(office.state.census(), Census { loaded: 1, sleeps: 1, wakes: 1, ..Census::default() });
    // It sleeps again, and its next channel dies like any other.
    office.said(2, Rest::Idle, &["1 let go of second"]);
    office.said(2, Rest::Asleep(Arbiters::first(1)), &["1 asleep"]);
    office.resolve("a", 3, &["load a or create it"]);
    office.loaded("a", Ok(loaded("a", 3)), &["build a of generation 3"]);
    office.built("a", 3, "third", &["1 woken by third", "3 gets 1 by third"]);
    office.died(3, &["1 down", "load a"]);
    office.loaded("a", Ok(loaded("a", 4)), &["build a of generation 4"]);
    office.built("a", 4, "fourth", &["1 up by fourth"]);
}

#[test]
fn who_comes_while_a_room_falls_asleep_waits_for_how_it_ends() {
    let mut office = Office::falling();
    office.resolve("a", 2, &[]);
    office.members(false, &[]);
    office.resolve("a", 3, &[]);
    office.resolve("a", 4, &["4 Busy"]);
    office.said(1, Rest::Awake, &["1 awake by first", "tell first of 1", "2 gets 1 by first", "3 gets 1 by first"]);
    office.resolve("a", 5, &["5 gets 1 by first"]);
    let mut office = Office::falling();
    office.resolve("a", 2, &[]);
    office.members(false, &[]);
    office.said(1, Rest::Asleep(Arbiters::first(1)), &["1 asleep", "load a or create it"]);
    office.loaded("a", Ok(loaded("a", 2)), &["build a of generation 2"]);
    office.built("a", 2, "second", &["1 woken by second", "tell second of 1", "2 gets 1 by second"]);
    // A subscriber who wants something counts as one who comes.
    let mut office = Office::falling();
    office.wake(&[]);
    office.said(1, Rest::Asleep(Arbiters::first(1)), &["1 asleep", "load a"]);
}

#[test]
fn what_a_channel_says_too_late_is_not_heard() {
    let mut office = office().running();
    office.said(9, Rest::Idle, &[]);
    office.said(1, Rest::Awake, &[]);
    office.said(1, Rest::Asleep(Arbiters::default()), &[]);
    office.deleted(false, &["end first"]);
    office.said(1, Rest::Idle, &[]);
    office.died(1, &["1 gone", "9 done"]);
}

#[test]
fn a_channel_that_dies_while_it_falls_asleep_is_rebuilt() {
    let mut office = Office::falling();
    office.resolve("a", 2, &[]);
    office.died(1, &["1 down", "load a"]);
    office.loaded("a", Ok(loaded("a", 2)), &["build a of generation 2"]);
    office.built("a", 2, "second", &["1 up by second", "2 gets 1 by second"]);
    assert_eq!(office.state.deaths, 1);
}

#[test]
fn who_waits_for_a_room_that_dies_too_often_while_it_falls_asleep_is_refused() {
    let mut office = Office::falling();
    office.state.limits = Arc::new(Limits { restarts_max: 0, ..Limits::default() });
    office.resolve("a", 2, &[]);
    office.died(1, &["1 down", "2 RoomUnavailable"]);
}

#[test]
fn a_change_wakes_a_room_with_subscribers() {
    let mut office = Office::asleep();
    office.members(false, &["load a"]);
    office.loaded("a", Ok(loaded("a", 2)), &["build a of generation 2"]);
    office.built("a", 2, "second", &["1 woken by second", "tell second of 1"]);
    office.check(Input::Told(1), &["9 done"]);
}

#[test]
fn a_change_that_no_channel_could_be_told_makes_the_next_ask_for_all_rights() {
    let mut office = Office::asleep();
    office.members(false, &["load a"]);
    office.loaded("a", Err(StoreError::Busy), &["1 not woken", "9 done"]);
    office.wake(&["load a"]);
    office.loaded("a", Err(StoreError::Busy), &["1 not woken"]);
    office.wake(&["load a"]);
    office.loaded("a", Ok(loaded("a", 2)), &["build a of generation 2"]);
    office.built("a", 2, "second", &["1 woken by second, changed"]);
}

#[test]
fn a_room_that_cannot_be_loaded_sleeps_on() {
    let mut office = Office::asleep();
    office.resolve("bb", 2, &["load bb or create it"]);
    office.resolve("ccc", 3, &["load ccc or create it"]);
    office.wake(&["1 not woken"]);
    office.members(false, &["9 done"]);
    office.loaded("bb", Err(StoreError::Busy), &["2 Busy"]);
    office.wake(&["load a"]);
    office.loaded("a", Ok(loaded("a", 2)), &["build a of generation 2"]);
    office.built("a", 2, "second", &["1 woken by second, changed"]);
}

#[test]
fn a_room_that_sleeps_is_deleted_at_once() {
    let mut office = Office::asleep();
    office.deleted(false, &["1 gone", "9 done"]);
    assert_eq!((office.state.census().asleep, office.state.names.len()), (0, 0));
    // One that is being woken, too.
    let mut office = Office::asleep();
    office.wake(&["load a"]);
    office.deleted(false, &["1 gone", "9 done"]);
    office.loaded("a", Err(StoreError::UnknownRoom), &[]);
    assert_eq!(office.state.rooms(), 0);
    // And one that falls asleep, however that ends.
    let mut office = Office::falling();
    office.deleted(false, &["end first"]);
    office.said(1, Rest::Asleep(Arbiters::first(1)), &["1 gone", "9 done"]);
    office.died(1, &[]);
    let mut office = Office::falling();
    office.deleted(false, &["end first"]);
    office.died(1, &["1 gone", "9 done"]);
}

#[test]
fn who_waits_for_a_room_that_is_deleted_while_it_falls_asleep_gets_what_has_its_name_then() {
    for dies in [false, true] {
        let mut office = Office::falling();
        office.resolve("a", 2, &[]);
        office.deleted(false, &["end first"]);
        let want = ["1 gone", "9 done", "load a or create it"];
        if dies {
            office.died(1, &want);
        } else {
            office.said(1, Rest::Asleep(Arbiters::first(1)), &want);
        }
        office.loaded("a", Err(StoreError::UnknownRoom), &["2 UnknownRoom"]);
        assert_eq!(office.state.rooms(), 0);
    }
}

#[test]
fn a_room_that_sleeps_is_forgotten_with_its_last_subscriber() {
    let mut office = Office::asleep();
    office.forgot(0);
    assert_eq!(office.state.census().asleep, 1);
    office.forgot(1);
    assert_eq!((office.state.census().asleep, office.state.names.len()), (0, 0));
    office.resolve("a", 2, &["load a or create it"]);
    office.loaded("a", Ok(loaded("a", 2)), &["build a of generation 2"]);
    office.built("a", 2, "second", &["2 gets 1 by second"]);
    office.forgot(1);
    office.resolve("a", 3, &["3 gets 1 by second"]);
}

#[test]
fn a_sweep_is_told_to_a_channel_that_may_stay() {
    let mut office = Office::falling();
    let swept = || Input::Swept(Ok(Swept { rooms: vec![(RoomNumber(1), 5, 4)], ..Swept::default() }));
    office.check(swept(), &["first begins with 5, 4 gone", "sweep in 1000"]);
    office.said(1, Rest::Asleep(Arbiters::first(1)), &["1 asleep"]);
    office.check(swept(), &["sweep in 1000"]);
}

#[test]
fn each_room_is_asked_four_times_while_it_is_idle_for_long_enough() {
    let limits = Limits { room_idle_ms: 1_000, ..Limits::default() };
    let mut office = Office { state: State::new(limits.into(), SessionPolicy::default()), now: Now::default() };
    let names: Vec<String> = (1..=20).map(|length| "x".repeat(length)).collect();
    for (waiter, name) in (0..).zip(&names) {
        office.resolve(name, waiter, &[&format!("load {name} or create it")]);
        office.loaded(name, Ok(loaded(name, 1)), &[&format!("build {name} of generation 1")]);
        office.built(name, 1, "channel", &[&format!("{waiter} gets {} by channel", name.len())]);
    }
    let mut asked = 0;
    let mut walk = |office: &mut Office, ms: u64| {
        office.now.mono_ms += ms;
        office.state.handle(office.now, Input::Sleep(Said::Walk));
        let before = asked;
        while let Some(effect) = office.state.poll() {
            assert!(matches!(effect, Effect::Sleep(Bed::Ask("channel"))));
            asked += 1;
        }
        asked - before
    };
    assert_eq!(walk(&mut office, 5), 0, "the first step tells the time");
    let steps: u64 = (0..200).map(|_| walk(&mut office, 5)).sum();
    assert_eq!(steps, 80, "20 rooms, each four times in a second");
    assert!((0..50).all(|_| walk(&mut office, 5) <= 1), "a little at a time");
    assert_eq!(walk(&mut office, 100_000), 20, "and never more than all of them");
    // Channels that are gone are asked no more.
    for name in &names[1..] {
        let died = Input::Died { room: RoomNumber(name.len() as u64), generation: Generation(1) };
        office.check(died, &[&format!("{} down", name.len()), &format!("load {name}")]);
    }
    walk(&mut office, 100_000);
    assert_eq!(walk(&mut office, 100_000), 1);
    office.check(Input::Drain, &[]);
    assert_eq!(walk(&mut office, 100_000), 0, "nobody is put to sleep when the engine ends");
    assert_eq!(walk_interval_ms(&Limits::default()), Some(500));
    assert_eq!(walk_interval_ms(&Limits { room_idle_ms: 3, ..Limits::default() }), Some(1));
    assert_eq!(walk_interval_ms(&Limits { room_idle_ms: 0, ..Limits::default() }), None);
}

#[test]
fn where_no_room_sleeps_none_is_noted_to_be_asked() {
    let mut office = office();
    office.state.limits = Arc::new(Limits { room_idle_ms: 0, ..(*office.state.limits).clone() });
    let mut office = office.running();
    for generation in 2..100 {
        office.now.mono_ms += 60_000;
        office.died(generation - 1, &["1 down", "load a"]);
        office.loaded("a", Ok(loaded("a", generation)), &[&format!("build a of generation {generation}")]);
        office.built("a", generation, "next", &["1 up by next"]);
    }
    assert_eq!(office.state.sleepers.round.len(), 0, "nobody asks them");
}
