//! One room under chance: a real channel on a store in memory, that goes one step at a time and dies between two.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use parlor_actors::{
    channel::state::{Effect, Input, Setting, Sleep, State},
    limits::Limits,
    members::{Asker, Changed, RoomChange, What},
    message::{Conn, FromChannel, Publish},
    pools::{Pools, Share},
    port::{
        Append, Commits, DeviceKey, Generation, Load, Loaded, Marks, Now, Outcome, RoomOptions, Store, StoreError,
        Sweep,
    },
    testkit::{Chance, Crash, MemStore},
    tiers::{TierNumber, Tiers},
};
use parlor_protocol::{DeviceTag, Epoch, message::RecordKind};

use crate::Counts;

pub const CONN: Conn = Conn { arbiter: 0, slot: 1, serial: 1 };

/// What the channel is told next, oldest first.
type Inbox = Arc<Mutex<VecDeque<Input>>>;

struct Ears(Inbox);

impl Commits for Ears {
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>) {
        self.0.lock().extend(outcomes.into_iter().map(|outcome| match outcome.stored {
            Ok(commit) => Input::Committed(commit.upto),
            Err(error) => Input::Failed(error),
        }));
    }
}

/// A room.
pub struct Room {
    pub chance: Chance,
    pub store: Arc<MemStore>,
    pub state: State,
    pub now: Now,
    pub counts: Counts,
    /// What the channel told its relays and nobody took.
    pub told: VecDeque<FromChannel>,
    /// The devices whose answers are being loaded.
    pub loading: BTreeSet<(String, u64)>,
    inbox: Inbox,
    /// What the rooms of an engine have together.
    pools: Pools,
    /// What other rooms' rings have of it.
    others: Share,
    options: RoomOptions,
    limits: Arc<Limits>,
    tiers: Arc<Tiers>,
    changes: u64,
}

impl Room {
    pub fn new(seed: u64, options: RoomOptions, limits: Limits, tiers: Tiers) -> Self {
        let pools = Pools::new(&limits);
        Self::beside(&pools, seed, options, limits, tiers)
    }

    /// One room of several.
    pub fn beside(pools: &Pools, seed: u64, options: RoomOptions, limits: Limits, tiers: Tiers) -> Self {
        let (limits, tiers) = (Arc::new(limits), Arc::new(tiers));
        let store = MemStore::new(seed, limits.writer_records_max);
        let state = load(&store, options, &limits, &tiers, pools);
        Self {
            chance: Chance::new(seed ^ 0x5eed),
            store,
            state,
            now: Now { unix_ms: 1_000_000, mono_ms: 0 },
            counts: BTreeMap::new(),
            told: VecDeque::new(),
            loading: BTreeSet::new(),
            inbox: Inbox::default(),
            pools: pools.clone(),
            others: pools.ring_bytes.share(),
            options,
            limits,
            tiers,
            changes: 0,
        }
    }

    pub fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    /// Hands the channel something, and does what it wants done.
    pub fn give(&mut self, input: Input) {
        if let Input::Answers { device, .. } = &input {
            self.loading.remove(&(device.user.to_string(), device.tag.0));
        }
        self.state.handle(self.now, input);
        while let Some(effect) = self.state.poll() {
            self.run(effect);
        }
    }

    fn run(&mut self, effect: Effect) {
        let (inbox, room) = (self.inbox.clone(), self.state.room());
        let tell = move |input| inbox.lock().push_back(input);
        match effect {
            Effect::Relay { news, .. } => self.told.push_back(news),
            Effect::EndTurn => tell(Input::EndOfTurn),
            Effect::Append(turn) => self.store.append(vec![Append {
                room,
                generation: self.state.generation(),
                epoch: self.state.epoch(),
                durability: self.state.durability(),
                first: turn.first,
                frames: turn.frames,
                records: turn.records,
                rewrites: turn.rewrites,
                place: turn.place,
                commits: Arc::new(Ears(self.inbox.clone())),
            }]),
            Effect::Read(new) => {
                let reply = move |records| tell(Input::Read { id: new.id, records });
                self.store.read(new.read, Box::new(reply));
            }
            Effect::LoadAnswers(device) => {
                self.loading.insert((device.user.to_string(), device.tag.0));
                let asked = device.clone();
                let reply = move |answers| tell(Input::Answers { device, answers });
                self.store.answers(room, asked, Box::new(reply));
            }
            Effect::LoadRights(device) => {
                let user = device.user.clone();
                let reply = move |member| tell(Input::Rights { device, member });
                self.store.member(room, user, Box::new(reply));
            }
            Effect::LoadMarks(user) => {
                let name = user.clone();
                let reply = move |marks: Result<Vec<Marks>, StoreError>| {
                    tell(Input::Marks { user, marks: marks.map(|marks| marks[0]) });
                };
                self.store.marks(name, vec![room], Box::new(reply));
            }
            Effect::SaveMarks(save) => {
                self.store.save_marks(save, Box::new(move |saved| tell(Input::MarksSaved(saved))));
            }
            Effect::Trim(trim) => self.store.trim(trim, Box::new(move |trimmed| tell(Input::Trimmed(trimmed)))),
            Effect::Told(_) | Effect::SaveMarksIn(_) => {}
            Effect::Stop => panic!("the store refuses what the only channel wants"),
            other => panic!("nobody asks for {other:?} here"),
        }
    }

    /// The next message in the channel's mailbox.
    pub fn next(&mut self) -> Option<Input> {
        self.inbox.lock().pop_front()
    }

    /// A change of the room or its members, as the host makes it: stored, then told.
    pub fn change(&mut self, what: What) -> Changed {
        let (found, into) = lend();
        let (by, at) = (Asker::Host, self.now.unix_ms);
        let change = RoomChange { name: "room".parse().unwrap(), by, at, members_max: 100, what };
        self.store.change(change, Box::new(move |changed| *into.lock() = Some(changed.unwrap().unwrap())));
        while self.store.step(usize::MAX) {}
        let changed: Changed = found.lock().take().unwrap();
        self.changes += 1;
        let change = Arc::new(changed.clone());
        // The channel hears first of the commits before it.
        self.inbox.lock().push_back(Input::Changed { id: self.changes, change });
        changed
    }

    /// The store forgets what has expired.
    pub fn sweep(&mut self) {
        let (inbox, room) = (self.inbox.clone(), self.state.room());
        let sweep = Sweep { now: self.now, records_max: 1 + self.limits.sweep_records_max, dedupe_horizon_ms: 0 };
        let reply = move |swept: Result<parlor_actors::port::Swept, StoreError>| {
            for (of, first, gone_count) in swept.map(|swept| swept.rooms).unwrap_or_default() {
                assert_eq!(of, room);
                inbox.lock().push_back(Input::Swept { first, gone_count });
            }
        };
        self.store.sweep(sweep, Box::new(reply));
    }

    /// The rings of other rooms grow or shrink, and this one hears of it when it is asked whether it is idle.
    pub fn press(&mut self) {
        let max = self.pools.ring_bytes.max();
        let left = self.chance.pick(&[0, 200, 3_200, 8_000, 16_000, max, max]).min(max);
        self.others.set(max - left);
        self.count(format!("left for rings: {left}"));
        let before = self.state.ring_bytes();
        if self.chance.one_in(2) {
            self.give(Input::Sleep(Sleep::Ask));
        }
        if self.state.ring_bytes() < before {
            self.count("fell off for others");
        }
    }

    pub fn pass(&mut self, ms: u64) {
        self.now.unix_ms += ms;
        self.now.mono_ms += ms;
    }

    /// The channel dies, alone or with its process, and another one goes on from what the store has.
    pub fn die(&mut self, crash: Option<Crash>) {
        self.count(format!("death: {crash:?}"));
        if let Some(crash) = crash {
            self.store.crash(crash);
        }
        self.state = load(&self.store, self.options, &self.limits, &self.tiers, &self.pools);
        // What the dead one asked for is told to nobody.
        self.inbox = Inbox::default();
        self.told.clear();
        self.loading.clear();
    }
}

/// A place for an answer.
type Place<T> = Arc<Mutex<Option<T>>>;

fn lend<T>() -> (Place<T>, Place<T>) {
    let place = Arc::new(Mutex::new(None));
    (place.clone(), place)
}

fn load(store: &Arc<MemStore>, options: RoomOptions, limits: &Arc<Limits>, tiers: &Arc<Tiers>, pools: &Pools) -> State {
    let (found, into) = lend();
    let load = Load { name: "room".parse().unwrap(), create: Some(options) };
    store.load(load, Box::new(move |loaded| *into.lock() = Some(loaded.unwrap())));
    while store.step(usize::MAX) {}
    let loaded: Loaded = found.lock().take().unwrap();
    assert_ne!(loaded.generation, Generation(0));
    let (limits, tiers, budget) = (limits.clone(), tiers.clone(), store.budget().clone());
    let (rates, word, pools) = (Arc::default(), Arc::default(), pools.clone());
    State::new(loaded, 1, Setting { limits, budget, tiers, rates, pools, word })
}

pub fn key(user: &str, tag: u64) -> DeviceKey {
    DeviceKey { user: user.parse().unwrap(), tag: DeviceTag(tag) }
}

/// A message without anything special.
pub fn publish(device: DeviceKey, request: u32, nonce: u64, payload: impl Into<bytes::Bytes>) -> Publish {
    Publish {
        conn: CONN,
        request,
        device,
        tier: TierNumber(0),
        nonce,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        epoch: Epoch(0),
        lifetime_ms: None,
        silent: false,
        remove: false,
        content_type: 1,
        payload: payload.into(),
    }
}
