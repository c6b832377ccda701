//! Seeded simulation: the pure states of the whole engine under chance, faults and clients that check every frame.
//!
//! `PARLOR_SIM_SEED=n` replays one seed and prints its last steps; `PARLOR_SIM_SEEDS=n` runs so many.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "the modules of a test are its own")]

mod client;
mod club;
mod house;

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;
use parlor_actors::{
    members::What,
    testkit::{Crash, with_deliver},
};
use parlor_protocol::{
    Name,
    message::{Durability, RecordKind, Role},
};

use client::{Client, Memory, Standing, said};
use club::CLUB;
use house::{CLUB_NUMBER, House, durability_of};

/// Bugs that the simulation has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A join begins one record late.
    CursorOffByOne,
    /// A relay hears of a batch twice.
    RepeatedBatch,
    /// A relay does not hear of a batch.
    LostBatch,
    /// A cursor moves on without the page that it moves over.
    LostPage,
    /// Gaps are not told.
    DroppedGap,
    /// A rebuilt channel does not wait for the appends of the dead one, which go through.
    Unfenced,
    /// A commit is told when its append is queued.
    AckBeforeCommit,
    /// A client that comes back is served from where the server had sent to, not from where it had read to.
    ResumeFromServerCursor,
    /// A change of members is answered, and its room's channel does not hear of it.
    DeafToMembers,
    /// Relays do not hear who is to be put out.
    NobodyPutOut,
    /// Everybody may read what was said before he was added.
    PastShown,
}

/// Rooms of each durability, and one with members; the first letter says which.
const ROOMS: [&str; 4] = ["synced", "buffered", "memory", CLUB];

const STEPS: usize = 4_000;

struct World {
    house: House,
    clients: Vec<Client>,
    memory: Memory,
    steps: u64,
}

type Log = Option<Arc<Mutex<Vec<String>>>>;

impl World {
    fn new(seed: u64, plant: Option<Plant>, log: Log) -> Self {
        let mut house = House::new(seed, plant, log);
        house.make_club();
        let clients = ["ann", "bob", "cem", "dua"].map(|user| Client::new(user, &ROOMS, house.chance.one_in(2)));
        Self { house, clients: clients.into(), memory: Memory::new(), steps: 0 }
    }

    /// Anything happens.
    fn step(&mut self) {
        self.steps += 1;
        if self.steps % 500 == 1 {
            self.house.slow = Some(self.house.chance.below(8)).filter(|slow| *slow < 5);
        }
        let house = &mut self.house;
        let client = house.chance.below(self.clients.len());
        let client = &mut self.clients[client];
        let room = house.chance.below(ROOMS.len());
        match house.chance.below(1_000) {
            0..400 => drop(house.deliver_one()),
            400..470 => drop(house.store_step()),
            470..530 => drop(house.reader_step()),
            530..610 => {
                let arbiter = u16::try_from(house.chance.below(2)).unwrap();
                house.flush(arbiter);
            }
            610..690 => self.link_turn(),
            690..770 => {
                let bytes = house.chance.pick(&[1, 50, 500, 5_000]);
                client.read(house, &mut self.memory, bytes);
            }
            770..840 => {
                client.say(house, room);
                client.push(house, room, false);
            }
            840..880 => client.push(house, room, false),
            880..890 => client.push(house, room, true),
            890..909 => client.fetch(house, room),
            909..910 => {
                house.count("many fetches");
                (0..150).for_each(|_| client.fetch(house, room));
            }
            910..915 => client.beat(house),
            915..945 => {
                if client.conn.is_none() {
                    client.connect(house);
                }
                let anew = house.chance.one_in(6);
                client.join(house, room, anew);
            }
            945..950 => client.leave(house, room),
            950..954 => {
                house.count("hang up");
                client.hang_up(house);
            }
            954..955 => client.say_goodbye(house),
            955..984 => {
                let ms = house.chance.pick(&[1, 20, 100, 300]);
                house.tick(ms);
            }
            984..986 => house.sweep(),
            986..990 => self.change_members(),
            990..991 => {
                house.count("long silence");
                let times = house.chance.below(20);
                (0..times).for_each(|_| house.tick(400));
            }
            991..997 => self.break_something(),
            _ => {
                let wall = 900_000 + house.chance.any() % 200_000;
                house.count("wall clock set");
                house.clock.set_wall(wall);
            }
        }
        if self.steps.is_multiple_of(16) {
            self.house.check_limits();
        }
    }

    /// The host gives somebody another role in the club, or takes his away.
    fn change_members(&mut self) {
        let house = &mut self.house;
        let mut users: Vec<Name> = vec![house.chance.pick(&["bob", "cem", "dua"]).parse().unwrap()];
        if house.chance.one_in(4) {
            users.push(house.chance.pick(&["bob", "cem"]).parse().unwrap());
        }
        let roles = [Role::Member, Role::Member, Role::Muted, Role::Banned, Role::Moderator];
        let what = match house.chance.below(7) {
            0..2 => What::Remove(users),
            _ => What::Set(house.chance.pick(&roles), users),
        };
        house.change_club(what);
    }

    fn link_turn(&mut self) {
        let conns = self.house.conns();
        if !conns.is_empty() {
            let conn = self.house.chance.pick(&conns);
            self.house.link_turn(conn);
        }
    }

    fn break_something(&mut self) {
        let house = &mut self.house;
        match house.chance.below(10) {
            0..5 => {
                let channels: Vec<_> = house.rooms.keys().copied().collect();
                if !channels.is_empty() {
                    house.count("channel crash");
                    let channel = house.chance.pick(&channels);
                    house.log(|| format!("channel {channel} dies"));
                    house.kill_channel(channel);
                }
            }
            5 => {
                let crash = house.chance.pick(&[Crash::Process, Crash::Power]);
                self.crash(crash);
            }
            6 => {
                house.count("failing sync");
                house.log(|| "the next turn of the writer fails".into());
                house.store.faults(|faults| faults.fail_next_turn = true);
            }
            7 => {
                house.count("busy reads");
                let busy = house.chance.pick(&[0, 2, 4]);
                house.store.faults(|faults| faults.busy_read_one_in = busy);
            }
            _ => {
                let name = house.chance.pick(&ROOMS).parse().unwrap();
                if let Some((first, tail)) = house.store.extent(&name)
                    && durability_of(&name) != Durability::Memory
                {
                    house.count("trim");
                    let first = first + house.chance.any() % (tail + 2 - first);
                    house.store.forget_below(&name, first);
                    // Channels hear of it when they are rebuilt, which a sweep waits for.
                    let swept = |room: &house::Room| house.store.frame(room.state.room(), 1).is_some();
                    let swept: Vec<_> = house.rooms.iter().filter(|(_, room)| swept(room)).map(|(id, _)| *id).collect();
                    house.log(|| format!("{name} is trimmed below {first}, {swept:?} die"));
                    swept.into_iter().for_each(|id| house.kill_channel(id));
                }
            }
        }
    }

    fn crash(&mut self, crash: Crash) {
        let house = &mut self.house;
        house.count(if crash == Crash::Power { "loss of power" } else { "engine crash" });
        house.log(|| format!("the engine crashes: {crash:?}"));
        // Some of what was on its way arrives.
        for client in &mut self.clients {
            let bytes = house.chance.below(2_000);
            client.read(house, &mut self.memory, bytes);
            client.lose();
        }
        let before = ROOMS.map(|name| house.store.extent(&name.parse().unwrap()).map_or(0, |(_, tail)| tail));
        house.kill_engine();
        house.store.crash(crash);
        house.club.engine_crashed(&house.store);
        house.store.faults(|faults| {
            faults.unfenced = house.plant == Some(Plant::Unfenced);
            faults.tells_early = house.plant == Some(Plant::AckBeforeCommit);
        });
        for (at, name) in ROOMS.iter().enumerate() {
            let tail = house.store.extent(&name.parse().unwrap()).map_or(0, |(_, tail)| tail);
            if tail < before[at] {
                assert_ne!(durability_of(name), Durability::Memory);
                house.count("records lost");
                let buffered = durability_of(name) == Durability::Buffered;
                for view in self.clients.iter_mut().map(|client| &mut client.views[at]).filter(|_| buffered) {
                    view.acked.retain(|_, (_, seq)| *seq <= tail);
                }
            }
        }
    }

    /// Nothing breaks any more: everybody comes to rest, and holds everything.
    fn settle(&mut self) {
        self.crash(Crash::Process);
        self.house.slow = None;
        // Whoever was put out or silenced comes back, so that all can be in all rooms.
        let others = ["bob", "cem", "dua"].map(|user| user.parse().unwrap()).into();
        self.house.change_club(What::Set(Role::Member, others));
        for _ in 0..400 {
            for _ in 0..3 {
                self.run_dry();
                for client in &mut self.clients {
                    if client.conn.is_none() {
                        client.connect(&mut self.house);
                    }
                    for room in 0..ROOMS.len() {
                        client.join(&mut self.house, room, false);
                        client.push(&mut self.house, room, false);
                    }
                }
            }
            self.house.tick(200);
            self.house.check_limits();
            if self.is_settled() {
                break;
            }
        }
        assert!(self.is_settled() && self.house.club.is_quiet(), "it never comes to rest");
        let agree = self.house.club.records_agree(&self.house.store, CLUB_NUMBER);
        self.house.count(if agree { "records of members agree" } else { "records of members are missing" });
        assert_eq!((self.house.pending(), self.house.pulls()), (0, 0), "requests and pulls under way at rest");
        self.check_logs();
        self.leave_all();
    }

    fn run_dry(&mut self) {
        let house = &mut self.house;
        loop {
            let mut moved = false;
            while house.deliver_one() || house.store_step() || house.reader_step() {
                moved = true;
            }
            moved |= house.flush(0) | house.flush(1);
            for conn in house.conns() {
                moved |= house.link_turn(conn);
            }
            for client in &mut self.clients {
                moved |= client.read(house, &mut self.memory, usize::MAX);
            }
            if !moved {
                return;
            }
        }
    }

    fn is_settled(&self) -> bool {
        let at_tail = |client: &Client| {
            let settled = |view: &client::View| {
                let room = self.house.rooms.values().find(|room| room.state.room() == view.number);
                view.standing == Standing::In && room.is_some_and(|room| room.state.tail() == view.position)
            };
            client.views.iter().all(settled)
        };
        self.clients.iter().all(|client| !client.is_busy() && at_tail(client))
    }

    /// What the store holds, and what the clients hold of it.
    fn check_logs(&mut self) {
        for (at, name) in ROOMS.iter().enumerate().filter(|(_, name)| durability_of(name) != Durability::Memory) {
            let number = self.clients[0].views[at].number;
            let tail = self.house.store.extent(&name.parse().unwrap()).map_or(0, |(_, tail)| tail);
            let frames: Vec<_> = (1..=tail).map(|seq| self.house.store.first_frame(number, seq).unwrap()).collect();
            let (mut newest, mut time, mut count, mut changed) = (BTreeMap::new(), 0, 0, false);
            for (frame, seq) in frames.iter().zip(1..) {
                with_deliver(frame, |deliver| {
                    assert_eq!(deliver.seq, seq);
                    if deliver.kind == RecordKind::MEMBERS {
                        return assert!(deliver.time >= time && deliver.count == count, "{name}: {seq}");
                    }
                    let said = said(deliver.kind, deliver.sender, name, deliver.nonce);
                    assert_eq!(deliver.payload, said.as_bytes());
                    changed |= deliver.kind.is_change();
                    assert!(deliver.time >= time, "{name}: time goes back at {seq}");
                    let before = newest.insert(deliver.sender.to_owned(), deliver.nonce);
                    assert!(before < Some(deliver.nonce), "{name}: {} out of order or twice at {seq}", deliver.sender);
                    assert!(deliver.count == count || deliver.count == count + 1, "{name}: the count jumps at {seq}");
                    (time, count) = (deliver.time, deliver.count);
                });
            }
            if changed {
                self.house.count("a change");
            }
            for client in &self.clients {
                let view = &client.views[at];
                for (nonce, (_, seq)) in &view.acked {
                    let stored = frames.get(usize::try_from(*seq).unwrap() - 1).map(|frame| {
                        with_deliver(frame, |deliver| *deliver.sender == *client.key.user && deliver.nonce == *nonce)
                    });
                    assert_eq!(stored, Some(true), "{name}: {}'s {nonce} was acknowledged at {seq}", client.key.user);
                }
                for (seq, frame) in &view.held {
                    let stored = self.house.store.holds(number, *seq, frame);
                    assert!(stored, "{name}: {} holds another {seq}", client.key.user);
                }
            }
        }
    }

    fn leave_all(&mut self) {
        let tables = |house: &House| -> Vec<(u32, usize, usize)> {
            house
                .rooms
                .values()
                .map(|room| (room.state.subscribers(), room.state.devices(), room.state.reading()))
                .collect()
        };
        let all = u32::try_from(self.clients.len()).unwrap();
        for (subscribers, devices, reading) in tables(&self.house) {
            assert!(
                subscribers == all && devices >= self.clients.len() && reading == 0,
                "the tables of a room at rest"
            );
        }
        let (leavers, others) = self.clients.split_at_mut(2);
        for client in leavers {
            (0..ROOMS.len()).for_each(|room| client.leave(&mut self.house, room));
        }
        others.iter_mut().for_each(|client| client.hang_up(&mut self.house));
        self.run_dry();
        assert_eq!(self.house.connections(), 2);
        for room in self.house.rooms.values() {
            let state = &room.state;
            assert_eq!(state.subscribers(), 0, "subscribers of an empty room");
            assert!(state.devices() <= 2, "{} devices of an empty room", state.devices());
            assert!(!self.house.relays_know(state.room()), "a relay knows an empty room");
        }
        self.clients.iter_mut().for_each(|client| client.hang_up(&mut self.house));
        self.run_dry();
        assert_eq!((self.house.connections(), self.house.pending()), (0, 0));
    }
}

/// Runs a seed; `Err` if it fails.
fn run(seed: u64, plant: Option<Plant>, log: Log) -> Result<World, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, plant, log);
        (0..STEPS).for_each(|_| world.step());
        world.settle();
        world
    }));
    outcome.map_err(|panic| match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (_, Some(text)) => (*text).to_owned(),
        _ => "a panic".to_owned(),
    })
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn seeded_talks_keep_the_contract() {
    let seeds = match number("PARLOR_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PARLOR_SIM_SEEDS").unwrap_or(2_000),
    };
    let (began, all) = (Instant::now(), seeds.end - seeds.start);
    let mut counts = BTreeMap::new();
    let mut steps = 0;
    for seed in seeds {
        match run(seed, None, None) {
            Ok(world) => {
                steps += world.steps;
                for (what, times) in world.house.counts {
                    *counts.entry(what).or_insert(0) += times;
                }
            }
            Err(why) => {
                let log = Arc::new(Mutex::new(Vec::new()));
                let again = run(seed, None, Some(log.clone())).err();
                let log = log.lock();
                for line in
                    &log[log.len().saturating_sub(usize::try_from(number("PARLOR_SIM_LOG").unwrap_or(80)).unwrap())..]
                {
                    println!("{line:.400}");
                }
                assert_eq!(again.as_ref(), Some(&why), "a seed repeats itself");
                panic!("PARLOR_SIM_SEED={seed} fails: {why}");
            }
        }
    }
    println!("{all} seeds, {steps} steps of chance, {:.1} s: {counts:#?}", began.elapsed().as_secs_f32());
    if all >= 1_000 {
        let seen: BTreeSet<&str> = counts.keys().copied().collect();
        let missing: Vec<_> = MUST_HAPPEN.iter().filter(|what| !seen.contains(**what)).collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}

/// What a run of many seeds has to meet to mean anything.
const MUST_HAPPEN: &[&str] = &[
    "busy reads",
    "channel crash",
    "closed: goodbye",
    "closed: lease",
    "session replaced",
    "closed: slow reader",
    "engine crash",
    "failing sync",
    "gap: expired at a join",
    "gap: expired while joined",
    "gap: new epoch at a join",
    "gap: new epoch while joined",
    "gap: trimmed at a join",
    "gap: trimmed while joined",
    "hang up",
    "long silence",
    "many fetches",
    "loss of power",
    "records lost",
    "a change",
    "refused: a change",
    "sent in parts",
    "refused: busy",
    "refused: held back",
    "refused: rate limited",
    "refused: outcome unknown",
    "refused: room unavailable",
    "refused: store unavailable",
    "socket full",
    "members changed",
    "put out",
    "gap: not yours at a join",
    "refused: not a member who may",
    "records of members agree",
    "swept",
    "trim",
    "wall clock set",
];

#[track_caller]
fn is_found(plant: Plant, within: u64) {
    let found = (0..within).find_map(|seed| run(seed, Some(plant), None).err().map(|why| (seed, why)));
    let (seed, why) = found.unwrap_or_else(|| panic!("{plant:?} is not found within {within} seeds"));
    println!("{plant:?} is found by seed {seed}: {why}");
}

#[test]
fn planted_bugs_are_found() {
    is_found(Plant::CursorOffByOne, 10);
    is_found(Plant::RepeatedBatch, 10);
    is_found(Plant::LostBatch, 10);
    is_found(Plant::LostPage, 10);
    is_found(Plant::DroppedGap, 10);
    is_found(Plant::Unfenced, 3_000);
    is_found(Plant::AckBeforeCommit, 10);
    is_found(Plant::ResumeFromServerCursor, 20);
}

#[test]
fn planted_bugs_about_members_are_found() {
    is_found(Plant::DeafToMembers, 100);
    is_found(Plant::NobodyPutOut, 100);
    is_found(Plant::PastShown, 100);
}
