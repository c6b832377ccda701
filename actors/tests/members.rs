//! Changes of members against what the log says of them and against who is told to have read: thousands of random
//! histories of one room, with crashes between any two steps.
//!
//! `PARLOR_MEMBERS_SEED=n` replays one seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use parlor_actors::{
    channel::state::{Effect, Input, Setting, State},
    limits::Limits,
    members::{Asker, Changed, Look, RoomChange, Seen, What},
    message::{Conn, FetchReaders, FromChannel, Join, MarkRead, Publish},
    pools::Pools,
    port::{Append, Commits, DeviceKey, Load, Marks, Now, Outcome, Place, RoomOptions, Store},
    testkit::{Chance, Crash, MemStore, with_deliver},
    tiers::{SendRate, TierNumber, Tiers},
};
use parlor_protocol::{
    Code, DeviceTag, Epoch, Header, Kind, Name, Seq,
    frame::HEADER_BYTES,
    message::{Access, Announce, Durability, JoinFrom, Readers, RecordKind, Role, decode_member_changes},
};

const USERS: [&str; 5] = ["ann", "bob", "cem", "dee", "eve"];
const ROLES: [Option<Role>; 5] =
    [None, Some(Role::Member), Some(Role::Muted), Some(Role::Moderator), Some(Role::Banned)];

fn key(user: &str) -> DeviceKey {
    DeviceKey {
        user: user.parse().unwrap(),
        tag: DeviceTag(USERS.iter().position(|name| *name == user).unwrap() as u64 + 1),
    }
}

fn conn(user: &str) -> Conn {
    Conn { arbiter: 0, slot: 0, serial: key(user).tag.0 }
}

enum Said {
    Input(Input),
    Settled(Outcome),
    Changed(Changed),
    Loaded(parlor_actors::port::Loaded),
}

#[derive(Clone, Default)]
struct Ears(Arc<Mutex<Vec<Said>>>);

impl Ears {
    fn tell(&self, said: Said) {
        self.0.lock().push(said);
    }
}

impl Commits for Ears {
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>) {
        outcomes.into_iter().for_each(|outcome| self.tell(Said::Settled(outcome)));
    }
}

struct World {
    store: Arc<MemStore>,
    chance: Chance,
    now: Now,
    /// The room, if it is loaded.
    state: Option<State>,
    ears: Ears,
    /// Changes that the store has made and the channel has not heard of.
    untold: Vec<Changed>,
    attached: BTreeSet<&'static str>,
    joining: BTreeSet<&'static str>,
    loading: bool,
    /// Who has marked since he was last put out of the room's people.
    marked: BTreeSet<String>,
    /// How many channels there were.
    channels: u64,
    /// The end of a turn, or the time to save, is due.
    ends: bool,
    saves: bool,
    /// What others put into the writer's queue.
    crowd: Vec<Place>,
    nonce: u64,
    access: Access,
    /// The answers to requests for readers.
    readers: Option<Vec<String>>,
    counts: BTreeMap<&'static str, u64>,
}

fn name() -> Name {
    "room".parse().unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let durability = chance.pick(&[Durability::Synced, Durability::Buffered]);
        let access = chance.pick(&[Access::Open, Access::Members]);
        let mut world = Self {
            store: MemStore::new(seed, 3),
            chance,
            now: Now { unix_ms: 1_000, mono_ms: 0 },
            state: None,
            ears: Ears::default(),
            untold: Vec::new(),
            attached: BTreeSet::new(),
            joining: BTreeSet::new(),
            loading: false,
            marked: BTreeSet::new(),
            channels: 0,
            ends: false,
            saves: false,
            crowd: Vec::new(),
            nonce: 0,
            access,
            readers: None,
            counts: BTreeMap::new(),
        };
        let options = RoomOptions { durability, access, announce: Announce::Always, ..RoomOptions::default() };
        world.ask(What::Create { options, members: Vec::new(), or_find: false });
        world.store.run();
        world.ears = Ears::default();
        world
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn ask(&mut self, what: What) {
        let change = RoomChange { name: name(), by: Asker::Host, at: self.now.unix_ms, members_max: 100, what };
        let ears = self.ears.clone();
        self.store.change(change, Box::new(move |changed| ears.tell(Said::Changed(changed.unwrap().unwrap()))));
    }

    /// Loads the room, as somebody needs it.
    fn load(&mut self) {
        if std::mem::replace(&mut self.loading, true) {
            return;
        }
        let ears = self.ears.clone();
        let tell = move |loaded: Result<_, _>| ears.tell(Said::Loaded(loaded.unwrap()));
        self.store.load(Load { name: name(), create: None }, Box::new(tell));
    }

    fn handle(&mut self, input: Input) {
        let Some(mut state) = self.state.take() else { return };
        state.handle(self.now, input);
        let mut stops = false;
        while let Some(effect) = state.poll() {
            let ears = self.ears.clone();
            match effect {
                Effect::Relay { news, .. } => self.on_news(news),
                Effect::Append(turn) => self.store.append(vec![Append {
                    room: state.room(),
                    generation: state.generation(),
                    epoch: state.epoch(),
                    durability: state.durability(),
                    first: turn.first,
                    frames: turn.frames,
                    records: turn.records,
                    rewrites: turn.rewrites,
                    place: turn.place,
                    commits: Arc::new(ears),
                }]),
                Effect::LoadAnswers(device) => {
                    let asked = device.clone();
                    let tell = move |answers| ears.tell(Said::Input(Input::Answers { device, answers }));
                    self.store.answers(state.room(), asked, Box::new(tell));
                }
                Effect::LoadRights(device) => {
                    let user = device.user.clone();
                    let tell = move |member| ears.tell(Said::Input(Input::Rights { device, member }));
                    self.store.member(state.room(), user, Box::new(tell));
                }
                Effect::LoadMarks(user) => {
                    let asked = user.clone();
                    let tell = move |marks: Result<Vec<_>, _>| {
                        ears.tell(Said::Input(Input::Marks { user, marks: marks.map(|marks| marks[0]) }));
                    };
                    self.store.marks(asked, vec![state.room()], Box::new(tell));
                }
                Effect::SaveMarks(save) => {
                    let tell = move |stored| ears.tell(Said::Input(Input::MarksSaved(stored)));
                    self.store.save_marks(save, Box::new(tell));
                }
                Effect::LoadRoomMarks(fetch, max) => {
                    let tell = move |found| ears.tell(Said::Input(Input::RoomMarks { fetch, found }));
                    self.store.room_marks(state.room(), max, Box::new(tell));
                }
                Effect::Read(new) => {
                    let tell = move |records| ears.tell(Said::Input(Input::Read { id: new.id, records }));
                    self.store.read(new.read, Box::new(tell));
                }
                Effect::SaveMarksIn(_) => self.saves = true,
                Effect::EndTurn => self.ends = true,
                Effect::Told(_) => self.count("told"),
                Effect::TellUser { .. } => {}
                Effect::Stop => stops = true,
                Effect::Presence(_)
                | Effect::Sleep(_)
                | Effect::ReadTarget { .. }
                | Effect::TellHost(..)
                | Effect::Trim(_) => {
                    unreachable!("nobody asks")
                }
            }
        }
        self.state = Some(state);
        if stops {
            // Another load fenced it.
            self.gone();
        }
    }

    fn gone(&mut self) {
        self.state = None;
        (self.ends, self.saves) = (false, false);
        self.attached.clear();
        self.joining.clear();
        self.loading = false;
        self.channels += 1;
        self.ears = Ears::default();
    }

    fn on_news(&mut self, news: FromChannel) {
        match news {
            FromChannel::Attach(attach) => {
                self.count("joined");
                let user = USERS.into_iter().find(|user| **user == *attach.device.user).unwrap();
                self.joining.remove(user);
                self.attached.insert(user);
            }
            FromChannel::Detach { users, .. } => {
                for user in users.iter() {
                    // The relay tells the channel later.
                    if self.attached.take(&**user).is_some() {
                        self.count("put out");
                        self.ears.tell(Said::Input(Input::Detached { arbiter: 0, device: key(user) }));
                    }
                }
            }
            FromChannel::Answer { frame, .. }
                if Header::from_bytes(frame.first_chunk().unwrap()).kind == Kind::Readers as u16 =>
            {
                let readers: Readers<'_> = parlor_protocol::decode(&frame[HEADER_BYTES..]).unwrap();
                self.readers = Some(readers.readers.0.iter().map(|reader| reader.user.to_owned()).collect());
            }
            FromChannel::Refused { conn: refused, request, code, .. } => {
                if request == 1 {
                    self.joining.retain(|user| conn(user) != refused);
                }
                self.count(if code == Code::Forbidden { "forbidden" } else { "refused" });
            }
            _ => {}
        }
    }

    fn listen(&mut self) {
        let heard: Vec<Said> = std::mem::take(&mut *self.ears.0.lock());
        let channel = self.channels;
        for said in heard {
            if self.channels != channel {
                // Said to a channel that is gone.
                return;
            }
            match said {
                Said::Input(input) => self.handle(input),
                Said::Settled(Outcome { stored: Ok(commit), .. }) => self.handle(Input::Committed(commit.upto)),
                Said::Settled(Outcome { stored: Err(error), .. }) => self.handle(Input::Failed(error)),
                Said::Changed(changed) => self.untold.push(changed),
                Said::Loaded(loaded) => {
                    if !loaded.announcements.is_empty() {
                        self.count("left to the successor");
                    }
                    let setting = Setting {
                        pools: Pools::new(&Limits::default()),
                        limits: Arc::new(Limits::default()),
                        budget: self.store.budget().clone(),
                        tiers: Arc::new(Tiers::sending(SendRate::OFF)),
                        rates: Arc::default(),
                        word: Arc::default(),
                    };
                    self.state = Some(State::new(loaded, 1, setting));
                }
            }
        }
    }

    /// Tells the channel of the changes, in their order; without a channel the store has said it.
    fn tell(&mut self) {
        for changed in std::mem::take(&mut self.untold) {
            if let Changed::Members(change) = &changed {
                for one in &change.users {
                    if one.after.is_none_or(|after| after.role == Role::Banned) {
                        self.marked.remove(&*one.user);
                    }
                }
            }
            let change = Arc::new(changed);
            let there = self.attached.clone();
            self.handle(Input::Changed { id: 1, change: change.clone() });
            self.check_put_out(&change, &there);
        }
    }

    /// Who is gone is in the room no more, from when the change counts.
    fn check_put_out(&mut self, change: &Changed, there: &BTreeSet<&'static str>) {
        let Changed::Members(change) = change else { return };
        for one in change.users.iter().filter(|one| one.after.is_none_or(|after| after.role == Role::Banned)) {
            // Nobody puts out again who was put out before, and came back as a stranger.
            let belonged = one.before.is_some_and(|before| before.role != Role::Banned);
            let stays = belonged && self.attached.contains(&*one.user);
            assert!(!stays, "{} was removed and stays", one.user);
            if there.contains(&*one.user) && one.after.is_none() && self.access == Access::Open {
                self.count("removed from an open room");
            }
        }
    }

    fn step(&mut self) {
        self.now.unix_ms += 1;
        self.now.mono_ms += 1;
        let user = self.chance.pick(&USERS);
        match self.chance.below(24) {
            0..=2 => {
                let role = self.chance.pick(&ROLES);
                let users = vec![user.parse().unwrap(), self.chance.pick(&USERS).parse().unwrap()];
                self.ask(role.map_or(What::Remove(users.clone()), |role| What::Set(role, users)));
            }
            3 if self.state.is_none() => self.load(),
            4..=7 => drop(self.store.step(1)),
            8..=11 => drop(self.store.step_reader()),
            12..=14 => self.listen(),
            15 => self.tell(),
            16 if std::mem::take(&mut self.ends) => self.handle(Input::EndOfTurn),
            17 if std::mem::take(&mut self.saves) => self.handle(Input::SaveMarks),
            18 if self.state.is_some() && !self.attached.contains(user) && self.joining.insert(user) => {
                let join =
                    Join { conn: conn(user), request: 1, device: key(user), from: JoinFrom::Tail, follows: false };
                self.handle(Input::Join(join));
            }
            19 if self.attached.contains(user) => {
                self.nonce += 1;
                self.handle(Input::Publish(publish(user, self.nonce)));
            }
            20 if self.attached.contains(user) => {
                let read = Seq::MAX;
                self.marked.insert(user.into());
                self.handle(Input::Mark(MarkRead { conn: conn(user), request: 2, device: key(user), read }));
            }
            21 if self.attached.remove(user) => {
                self.handle(Input::Detached { arbiter: 0, device: key(user) });
            }
            22 => match self.crowd.pop() {
                Some(place) => drop(place),
                None => self.crowd.extend((0..3).map_while(|_| self.store.budget().take(1))),
            },
            23 if self.chance.one_in(4) => self.crash(),
            _ => {}
        }
    }

    fn crash(&mut self) {
        self.count("crash");
        self.gone();
        self.untold.clear();
        self.crowd.clear();
        let crash = self.chance.pick(&[Crash::Process, Crash::Power]);
        self.store.crash(crash);
    }

    /// Everything that is under way comes to its end.
    fn settle(&mut self) {
        self.crowd.clear();
        if self.state.is_none() {
            self.store.run();
            self.listen();
        }
        if self.state.is_none() {
            self.load();
        }
        for _ in 0..40 {
            self.store.run();
            self.listen();
            self.tell();
            if std::mem::take(&mut self.ends) {
                self.handle(Input::EndOfTurn);
            }
            if std::mem::take(&mut self.saves) {
                self.handle(Input::SaveMarks);
            }
            // Anything makes the room go on.
            self.handle(Input::SaveMarks);
            if self.state.is_none() {
                self.load();
            }
        }
    }

    fn members(&mut self) -> BTreeMap<String, Role> {
        let found = Arc::new(Mutex::new(BTreeMap::new()));
        let answer = found.clone();
        let look = Look::Members { name: name(), by: Asker::Host, after: None, limit: 99 };
        let reply = move |seen: Result<Result<Seen, _>, _>| match seen.unwrap().unwrap() {
            Seen::Members(all, false) => {
                answer.lock().extend(all.into_iter().map(|(user, member)| (user.to_string(), member.role)));
            }
            other => panic!("{other:?}"),
        };
        self.store.look(look, Box::new(reply));
        self.store.run();
        found.lock().clone()
    }

    /// Nothing is stored of how far somebody was who is no member any more.
    fn check_marks(&mut self, seed: u64, members: &BTreeMap<String, Role>) {
        let Some(room) = self.state.as_ref().map(State::room) else { return };
        for user in USERS {
            let found = Arc::new(Mutex::new(Marks::default()));
            let answer = found.clone();
            let reply = move |marks: Result<Vec<Marks>, _>| *answer.lock() = marks.unwrap()[0];
            self.store.marks(user.parse().unwrap(), vec![room], Box::new(reply));
            self.store.run();
            let marks = *found.lock();
            if marks.read.seq > 0 || marks.delivered.seq > 0 {
                self.count("stored");
                assert!(self.marked.contains(user), "seed {seed}: {user} has old marks: {marks:?}");
                assert_ne!(members.get(user), Some(&Role::Banned), "seed {seed}: {user} has marks: {marks:?}");
            }
        }
    }

    /// Members, log and readers say the same.
    fn check(&mut self, seed: u64) {
        self.settle();
        let members = self.members();
        let (mut said, mut numbers) = (BTreeMap::new(), Vec::new());
        for frame in self.store.frames(&name()) {
            with_deliver(&frame, |deliver| {
                if deliver.kind == RecordKind::MEMBERS {
                    numbers.push(deliver.nonce);
                    for (user, role) in decode_member_changes(deliver.payload).unwrap() {
                        said.insert(user.to_owned(), role);
                    }
                }
            });
        }
        let said: BTreeMap<String, Role> = said.into_iter().filter_map(|(user, role)| Some((user, role?))).collect();
        assert_eq!(said, members, "seed {seed}: the log (left) and the members");
        assert!(numbers.is_sorted_by(|a, b| a < b), "seed {seed}: each change is recorded once, in order: {numbers:?}");
        if !numbers.is_empty() {
            self.count("recorded");
        }
        self.check_marks(seed, &members);
        let fetch = FetchReaders { conn: conn("ann"), request: 3, seq: 0 };
        self.readers = None;
        self.handle(Input::FetchReaders(fetch));
        self.settle();
        let readers = self.readers.take().expect("an answer");
        for user in &readers {
            let allowed = match members.get(user) {
                Some(role) => *role != Role::Banned,
                None => self.access == Access::Open,
            };
            assert!(allowed, "seed {seed}: {user} is named, of {members:?}");
        }
        if !readers.is_empty() {
            self.count("named");
        }
    }
}

fn publish(user: &str, nonce: u64) -> Publish {
    Publish {
        conn: conn(user),
        request: 4,
        device: key(user),
        tier: TierNumber(0),
        nonce,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        epoch: Epoch(0),
        lifetime_ms: None,
        silent: false,
        remove: false,
        content_type: 1,
        payload: bytes::Bytes::from_static(b"x"),
    }
}

#[test]
fn whatever_dies_members_log_and_readers_say_the_same() {
    let one: Option<u64> = std::env::var("PARLOR_MEMBERS_SEED").ok().map(|seed| seed.parse().unwrap());
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in one.map_or(0..2_000, |seed| seed..seed + 1) {
        let mut world = World::new(seed);
        for _ in 0..4 {
            for _ in 0..150 {
                world.step();
            }
            world.check(seed);
        }
        for (what, count) in world.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    if one.is_none() {
        let happens = [
            ["told", "joined", "put out", "forbidden", "crash"],
            ["left to the successor", "recorded", "named", "stored", "removed from an open room"],
        ];
        for what in happens.concat() {
            assert!(counts.get(what).is_some_and(|count| *count > 100), "{what} hardly happens: {counts:?}");
        }
    }
}
