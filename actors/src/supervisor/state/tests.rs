//! Inputs in, effects out, each written as a line of text. Handles, sessions and waiters are words and numbers.

use parlor_protocol::{Epoch, message::Announce};

use super::*;
use crate::{
    members::{Asker, Counts, MemberChange, MembersChanged, What},
    port::EpochStart,
};

mod sleeping;

struct Office {
    state: State<&'static str, &'static str, u32>,
    now: Now,
}

fn office() -> Office {
    let limits = Limits {
        rooms_loaded_max: 2,
        waiters_per_room_max: 2,
        restarts_max: 2,
        restart_window_ms: 1_000,
        rest_ms: 500,
        sweep_interval_ms: 1_000,
        sweep_pause_ms: 10,
        ..Limits::default()
    };
    Office { state: State::new(Arc::new(limits), SessionPolicy::default()), now: Now::default() }
}

fn loaded(name: &str, generation: u64) -> Loaded {
    Loaded {
        room: RoomNumber(name.len() as u64),
        name: name.parse().unwrap(),
        options: RoomOptions::default(),
        generation: Generation(generation),
        epochs: vec![EpochStart { epoch: Epoch(1), first: 1 }],
        first: 1,
        tail: 0,
        count: 0,
        gone_count: 0,
        time: 0,
        trimmed: 1,
        bytes_before: 0,
        bytes_upto: 0,
        known: 0,
        change: 0,
        announcements: Vec::new(),
    }
}

impl Office {
    #[track_caller]
    fn check(&mut self, input: Input<&'static str, &'static str, u32>, want: &[&str]) {
        let what = format!("{input:?}");
        self.state.handle(self.now, input);
        let mut lines = Vec::new();
        while let Some(effect) = self.state.poll() {
            lines.push(match effect {
                Effect::Load { name, create } => {
                    format!("load {name}{}", if create.is_some() { " or create it" } else { "" })
                }
                Effect::Build(loaded) => format!("build {} of generation {}", loaded.name, loaded.generation.0),
                Effect::Resolved { waiter, room: Ok((room, handle)) } => format!("{waiter} gets {room} by {handle}"),
                Effect::Resolved { waiter, room: Err((code, _)) } => format!("{waiter} {}", code.name().unwrap()),
                Effect::Down(room) => format!("{room} down"),
                Effect::Up(room, handle) => format!("{room} up by {handle}"),
                Effect::Kicked(waiter, count) => format!("{waiter} kicked {count}"),
                Effect::Sleep(bed) => sleeping::text(bed),
                Effect::Session(told) => format!("{told:?}"),
                Effect::Sweep(sweep) => format!("sweep at {}", sweep.now.unix_ms),
                Effect::SweepIn(ms) => format!("sweep in {ms}"),
                Effect::Swept(handle, first, gone) => format!("{handle} begins with {first}, {gone} gone"),
                Effect::Change { change, waiter } => {
                    let what = if matches!(change.what, What::Purge(_)) { "purge" } else { "change" };
                    format!("{what} {} for {waiter:?}", change.name)
                }
                Effect::Tell { handle, id, .. } => format!("tell {handle} of {id}"),
                Effect::Changed { waiter, outcome: Ok(_) } => format!("{waiter} done"),
                Effect::Changed { waiter, outcome: Err((code, _)) } => format!("{waiter} {}", code.name().unwrap()),
                Effect::End(handle) => format!("end {handle}"),
                Effect::Gone(room) => format!("{room} gone"),
            });
        }
        assert_eq!(lines, want, "{what:.100}");
    }

    #[track_caller]
    fn resolve(&mut self, name: &str, waiter: u32, want: &[&str]) {
        let create = Some(RoomOptions::default());
        self.check(Input::Resolve { name: name.parse().unwrap(), create, waiter }, want);
    }

    #[track_caller]
    fn loaded(&mut self, name: &str, loaded: Result<Loaded, StoreError>, want: &[&str]) {
        self.check(Input::Loaded { name: name.parse().unwrap(), loaded }, want);
    }

    #[track_caller]
    fn built(&mut self, name: &str, generation: u64, handle: &'static str, want: &[&str]) {
        let (room, generation) = (RoomNumber(name.len() as u64), Generation(generation));
        self.check(Input::Built { name: name.parse().unwrap(), room, generation, handle }, want);
    }

    #[track_caller]
    fn died(&mut self, generation: u64, want: &[&str]) {
        self.check(Input::Died { room: RoomNumber(1), generation: Generation(generation) }, want);
    }

    /// The store's answer to a change of room `a`, which waiter 9 wants.
    #[track_caller]
    fn changed(&mut self, what: What, changed: Result<Changed, Refusal>, want: &[&str]) {
        let change = RoomChange { name: "a".parse().unwrap(), by: Asker::Host, at: 1, members_max: 9, what };
        self.check(Input::Changed { change, waiter: Some(9), outcome: Ok(changed) }, want);
    }

    #[track_caller]
    fn members(&mut self, announced: bool, want: &[&str]) {
        let user = MemberChange { user: "ann".parse().unwrap(), before: None, after: None };
        let (room, by, counts) = (RoomNumber(1), Asker::Host, Counts::default());
        let announce = if announced { Announce::Always } else { Announce::Never };
        let options = RoomOptions { announce, ..RoomOptions::default() };
        let members = MembersChanged::new(room, &options, by, vec![user], counts, || 1);
        self.changed(What::Remove(Vec::new()), Ok(Changed::Members(members.into())), want);
    }

    #[track_caller]
    fn deleted(&mut self, more: bool, want: &[&str]) {
        self.changed(What::Delete, Ok(Changed::Deleted { room: RoomNumber(1), more }), want);
    }

    /// Room `a`, number 1, run by "first" in generation 1.
    fn running(mut self) -> Self {
        self.resolve("a", 1, &["load a or create it"]);
        self.loaded("a", Ok(loaded("a", 1)), &["build a of generation 1"]);
        self.built("a", 1, "first", &["1 gets 1 by first"]);
        self
    }
}

#[test]
fn a_room_is_loaded_once_for_all_who_wait() {
    let mut office = office();
    office.resolve("a", 1, &["load a or create it"]);
    office.resolve("a", 2, &[]);
    office.resolve("a", 3, &["3 Busy"]);
    office.loaded("a", Ok(loaded("a", 1)), &["build a of generation 1"]);
    office.built("a", 1, "first", &["1 gets 1 by first", "2 gets 1 by first"]);
    office.resolve("a", 4, &["4 gets 1 by first"]);
    office.resolve("bb", 5, &["load bb or create it"]);
    office.resolve("ccc", 6, &["6 Busy"]);
}

#[test]
fn a_refused_load_leaves_nothing() {
    #[track_caller]
    fn check(error: StoreError, want: &str) {
        let mut office = office();
        office.resolve("a", 1, &["load a or create it"]);
        office.resolve("a", 2, &[]);
        office.loaded("a", Err(error), &[&format!("1 {want}"), &format!("2 {want}")]);
        assert_eq!(office.state.rooms(), 0);
        office.resolve("a", 3, &["load a or create it"]);
    }
    check(StoreError::Busy, "Busy");
    check(StoreError::UnknownRoom, "UnknownRoom");
    check(StoreError::Poisoned("a test".into()), "StoreUnavailable");
    check(StoreError::Damaged("a test".into()), "StoreUnavailable");
}

#[test]
fn who_would_create_a_room_is_not_refused_for_who_would_not() {
    let mut office = office();
    let asks = |waiter| Input::Resolve { name: "a".parse().unwrap(), create: None, waiter };
    office.check(asks(1), &["load a"]);
    office.resolve("a", 2, &[]);
    office.loaded("a", Err(StoreError::UnknownRoom), &["load a or create it", "1 UnknownRoom"]);
    office.check(asks(3), &[]);
    office.loaded("a", Ok(loaded("a", 1)), &["build a of generation 1"]);
    office.built("a", 1, "first", &["2 gets 1 by first", "3 gets 1 by first"]);
}

#[test]
fn a_dead_channel_is_rebuilt_and_those_who_come_meanwhile_wait() {
    let mut office = office().running();
    office.died(1, &["1 down", "load a"]);
    office.resolve("a", 2, &[]);
    office.loaded("a", Ok(loaded("a", 2)), &["build a of generation 2"]);
    office.built("a", 2, "second", &["1 up by second", "2 gets 1 by second"]);
    office.died(1, &[]);
    office.resolve("a", 3, &["3 gets 1 by second"]);
    office.check(Input::Died { room: RoomNumber(9), generation: Generation(1) }, &[]);
    assert_eq!(office.state.deaths, 1);
}

#[test]
fn a_room_that_keeps_failing_rests() {
    let mut office = office().running();
    for generation in 1..3 {
        office.died(generation, &["1 down", "load a"]);
        office.loaded("a", Ok(loaded("a", generation + 1)), &[&format!("build a of generation {}", generation + 1)]);
        office.built("a", generation + 1, "next", &["1 up by next"]);
    }
    office.died(3, &["1 down"]);
    office.resolve("a", 2, &["2 RoomUnavailable"]);
    office.now.mono_ms = 499;
    office.check(Input::Tick, &[]);
    office.now.mono_ms = 500;
    office.check(Input::Tick, &["load a"]);
    office.check(Input::Tick, &[]);
    office.resolve("a", 3, &[]);
    // A load that fails now is tried again: its subscribers are still there.
    office.loaded("a", Err(StoreError::Busy), &["3 Busy"]);
    office.now.mono_ms = 1_000;
    office.check(Input::Tick, &["load a"]);
    office.loaded("a", Ok(loaded("a", 4)), &["build a of generation 4"]);
    office.built("a", 4, "next", &["1 up by next"]);
    office.died(4, &["1 down", "load a"]);
}

#[test]
fn one_sweep_at_a_time_and_none_when_the_engine_ends() {
    let mut office = office().running();
    office.now.unix_ms = 7;
    office.check(Input::Sweep, &["sweep at 7"]);
    office.check(Input::Sweep, &[]);
    let rooms = vec![(RoomNumber(1), 5, 4), (RoomNumber(2), 9, 8)];
    office.check(
        Input::Swept(Ok(Swept { rooms, more: true, paused: false })),
        &["first begins with 5, 4 gone", "sweep in 10"],
    );
    office.check(Input::Sweep, &["sweep at 7"]);
    office.check(Input::Swept(Ok(Swept::default())), &["sweep in 1000"]);
    office.check(Input::Sweep, &["sweep at 7"]);
    office.check(Input::Swept(Err(StoreError::Busy)), &["sweep in 1000"]);
    office.check(Input::Sweep, &["sweep at 7"]);
    office.check(Input::Drain, &[]);
    office.check(
        Input::Swept(Ok(Swept { rooms: vec![(RoomNumber(1), 6, 5)], ..Swept::default() })),
        &["first begins with 6, 5 gone"],
    );
    office.check(Input::Sweep, &[]);
}

#[test]
fn a_change_is_answered_when_the_channel_goes_by_it() {
    let mut office = office().running();
    office.members(false, &["tell first of 1"]);
    office.changed(What::Delete, Err((Code::Forbidden, "no")), &["9 Forbidden"]);
    office.check(Input::Told(1), &["9 done"]);
    office.check(Input::Told(1), &[]);
}

#[test]
fn a_change_of_a_room_that_does_not_run_is_done_and_wakes_it_only_to_be_recorded() {
    let mut office = office();
    office.members(false, &["9 done"]);
    office.members(true, &["load a"]);
    office.loaded("a", Ok(loaded("a", 1)), &["build a of generation 1"]);
    office.built("a", 1, "first", &["tell first of 1"]);
    office.check(Input::Told(1), &["9 done"]);
}

#[test]
fn a_channel_that_is_being_built_is_told_what_changed_meanwhile() {
    let mut office = office();
    office.resolve("a", 1, &["load a or create it"]);
    office.members(false, &[]);
    office.loaded("a", Ok(loaded("a", 1)), &["build a of generation 1"]);
    office.built("a", 1, "first", &["tell first of 1", "1 gets 1 by first"]);
    office.died(1, &["1 down", "load a", "9 done"]);
    // Its successor reads the store; what changes before it is there is told.
    office.members(false, &[]);
    office.loaded("a", Err(StoreError::Busy), &["9 done"]);
}

#[test]
fn a_deleted_room_ends_before_its_deletion_is_answered() {
    let mut office = office().running();
    office.members(false, &["tell first of 1"]);
    office.deleted(true, &["purge a for None", "end first"]);
    office.died(1, &["9 done", "1 gone", "9 done"]);
    assert_eq!(office.state.rooms(), 0);
    office.resolve("a", 2, &["load a or create it"]);
}

#[test]
fn a_room_that_is_deleted_while_it_is_rebuilt_is_gone_at_once() {
    let mut office = office().running();
    office.died(1, &["1 down", "load a"]);
    office.deleted(false, &["1 gone", "9 done"]);
    office.loaded("a", Err(StoreError::UnknownRoom), &[]);
    assert_eq!(office.state.rooms(), 0);
    office.deleted(false, &["9 done"]);
}

#[test]
fn what_could_not_be_cleared_away_is_tried_again() {
    let mut office = office();
    let purge = What::Purge(RoomNumber(1));
    let change = RoomChange { name: "a".parse().unwrap(), by: Asker::Host, at: 1, members_max: 9, what: purge };
    let busy = Input::Changed { change: change.clone(), waiter: None, outcome: Err(StoreError::Busy) };
    office.check(busy, &[]);
    office.check(Input::Tick, &["purge a for None"]);
    let more = Changed::Deleted { room: RoomNumber(1), more: true };
    office.check(Input::Changed { change, waiter: None, outcome: Ok(Ok(more)) }, &["purge a for None"]);
    office.check(Input::Tick, &[]);
}

#[test]
fn joining_makes_no_direct_room() {
    let mut office = office();
    office.resolve("direct:00", 1, &["load direct:00"]);
}
