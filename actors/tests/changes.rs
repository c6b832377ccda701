//! Changes of the past against a model: thousands of random histories of one room, hot and cold, with crashes between any
//! two steps. Whatever a page shows is what the log says, replayed by a reader who knows nothing of rings and stores.
//!
//! `PARLOR_CHANGES_SEED=n` replays one seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use parlor_actors::{
    channel::state::{Effect, Erase, Input, Setting, Sleep, State, Told},
    limits::Limits,
    message::{Batch, Conn, Fetch, FromChannel, Join, Publish},
    pools::{Pools, Share},
    port::{Append, Commits, DeviceKey, Generation, Load, Marks, Now, Outcome, RoomOptions, Store, StoreError},
    testkit::{Chance, Crash, MemStore, with_deliver},
    tiers::{SendRate, TierNumber, Tiers},
};
use parlor_protocol::{
    Code, DeviceTag, Epoch, Header, Kind, Name, Seq,
    frame::HEADER_BYTES,
    message::{Deliver, Direction, Durability, JoinFrom, Page, RecordKind, TombstoneReason},
};

const USERS: [&str; 3] = ["ann", "bob", "cem"];
const REACTIONS: [&str; 4] = ["+", "-", "👍", "!"];

fn limits() -> Limits {
    Limits {
        ring_records_max: 8,
        ring_bytes_max: 900,
        rings_bytes_max: 20_000,
        page_records: 4,
        page_records_max: 9,
        reads_per_room_max: 3,
        hold_back_ms: 1,
        parked_per_room_max: 4,
        parked_per_device_max: 3,
        edit_window_ms: 3_000,
        recall_window_ms: 1_000,
        reactions_per_record_max: 3,
        ..Limits::default()
    }
}

/// A record as a reader sees it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Shown {
    sender: String,
    kind: u16,
    count: u64,
    payload: Vec<u8>,
    tombstone: Option<TombstoneReason>,
    revision: Seq,
    edited: Seq,
    reactions: Vec<(String, u32)>,
}

fn shown(deliver: &Deliver<'_>) -> Shown {
    let changed = deliver.changed();
    Shown {
        sender: deliver.sender.into(),
        kind: deliver.kind.0,
        count: deliver.count,
        payload: deliver.payload.to_vec(),
        tombstone: changed.tombstone,
        revision: changed.revision,
        edited: changed.edited,
        reactions: changed.reactions.iter().map(|(name, count)| ((*name).into(), *count)).collect(),
    }
}

/// What the log says: its records as they were first stored, replayed.
fn replay(log: &[Bytes], first: Seq) -> BTreeMap<Seq, Shown> {
    let limits = limits();
    let mut records: BTreeMap<Seq, Shown> = BTreeMap::new();
    let mut times = BTreeMap::new();
    let mut who: BTreeMap<Seq, Vec<(String, Vec<String>)>> = BTreeMap::new();
    let mut count = 0;
    for (frame, seq) in log.iter().zip(first..) {
        with_deliver(frame, |deliver| {
            assert_eq!(deliver.seq, seq);
            let message = deliver.kind == RecordKind::MESSAGE;
            if seq > first {
                assert_eq!(deliver.count, count + u64::from(message), "changes do not count");
            }
            count = deliver.count;
            times.insert(seq, deliver.time);
            let mut record = shown(deliver);
            assert_eq!((record.revision, record.tombstone), (0, None), "a record begins unchanged");
            if message {
                records.insert(seq, record);
                return;
            }
            let user = record.sender.clone();
            record.kind = deliver.kind.0;
            records.insert(seq, record);
            let at = deliver.refers_to;
            let Some(mut target) = records.get(&at).cloned() else { return };
            assert!(target.kind == 0 && target.tombstone.is_none(), "{seq} changes {at}, which is {target:?}");
            let age = deliver.time - times[&at];
            target.revision = seq;
            match deliver.kind {
                RecordKind::REACTION => {
                    let reaction = std::str::from_utf8(deliver.payload).unwrap();
                    let who = who.entry(at).or_default();
                    let all: usize = who.iter().map(|(_, users)| users.len()).sum();
                    if deliver.changed().removes {
                        let (_, users) = who.iter_mut().find(|(known, _)| known == reaction).expect("it is there");
                        users.remove(users.iter().position(|known| *known == user).expect("one's own"));
                        who.retain(|(_, users)| !users.is_empty());
                    } else {
                        assert!(all < limits.reactions_per_record_max);
                        match who.iter_mut().find(|(known, _)| known == reaction) {
                            Some((_, users)) => {
                                assert!(!users.contains(&user), "{user} reacts twice to {at}");
                                users.push(user);
                            }
                            None => who.push((reaction.into(), vec![user])),
                        }
                    }
                    target.reactions =
                        who.iter().map(|(name, users)| (name.clone(), u32::try_from(users.len()).unwrap())).collect();
                }
                kind => {
                    assert_eq!(target.sender, user, "{seq} changes another's {at}");
                    let gone = |why| Shown {
                        payload: Vec::new(),
                        tombstone: Some(why),
                        revision: seq,
                        edited: 0,
                        reactions: Vec::new(),
                        ..Shown::default()
                    };
                    if let Some(edit) = records.get_mut(&target.edited) {
                        let Shown { sender, kind, count, .. } = edit.clone();
                        *edit = Shown { sender, kind, count, ..gone(TombstoneReason::REPLACED) };
                    }
                    if kind == RecordKind::EDIT {
                        assert!(age <= limits.edit_window_ms, "{seq} edits {at} too late");
                        target.payload = deliver.payload.to_vec();
                        target.edited = seq;
                    } else {
                        let erased = deliver.device_tag == DeviceTag(0);
                        assert!(erased || age <= limits.recall_window_ms, "{seq} recalls {at} too late");
                        let Shown { sender, kind, count, .. } = target.clone();
                        let why = if erased { TombstoneReason::ERASED } else { TombstoneReason::RECALLED };
                        target = Shown { sender, kind, count, ..gone(why) };
                    }
                }
            }
            records.insert(at, target);
        });
    }
    records
}

/// What the store's threads said.
enum Said {
    Settled(Outcome),
    Input(Generation, Input),
    Erased(bool),
}

#[derive(Clone, Default)]
struct Ears(Arc<Mutex<Vec<Said>>>);

impl Commits for Ears {
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>) {
        self.0.lock().extend(outcomes.into_iter().map(Said::Settled));
    }
}

struct World {
    name: Name,
    durability: Durability,
    /// How many records the room keeps; 0 for all.
    records_max: u64,
    store: Arc<MemStore>,
    chance: Chance,
    state: State,
    pools: Pools,
    /// What the rings of other rooms have.
    others: Share,
    now: Now,
    ears: Ears,
    /// Every record told, from `log_first` on.
    log: Vec<Bytes>,
    log_first: Seq,
    nonces: BTreeMap<&'static str, u64>,
    last: BTreeMap<&'static str, Publish>,
    request: u32,
    /// Joins to be made again.
    again: Vec<u32>,
    fetches: BTreeMap<u32, Fetch>,
    /// What a change that was asked for at rest is to be answered.
    expected: BTreeMap<u32, Option<Code>>,
    counts: BTreeMap<String, u64>,
}

fn key(user: &str) -> DeviceKey {
    DeviceKey { user: user.parse().unwrap(), tag: DeviceTag(1) }
}

const CONN: Conn = Conn { arbiter: 0, slot: 1, serial: 1 };

fn build(store: &Arc<MemStore>, name: &Name, durability: Durability, records_max: u64, pools: &Pools) -> State {
    let create = RoomOptions { durability, records_max, ..RoomOptions::default() };
    let loaded = Arc::new(Mutex::new(None));
    let answer = loaded.clone();
    let load = Load { name: name.clone(), create: Some(create) };
    store.load(load, Box::new(move |loaded| *answer.lock() = Some(loaded.unwrap())));
    while store.step(usize::MAX) {}
    let loaded = loaded.lock().take().unwrap();
    let setting = Setting {
        pools: pools.clone(),
        limits: Arc::new(limits()),
        budget: store.budget().clone(),
        tiers: Arc::new(Tiers::sending(SendRate::OFF)),
        rates: Arc::default(),
        word: Arc::default(),
    };
    State::new(loaded, 1, setting)
}

impl World {
    fn new(seed: u64) -> Self {
        let store = MemStore::new(seed, 12);
        let mut chance = Chance::new(seed ^ 0x5eed);
        let name: Name = "room".parse().unwrap();
        let durability =
            chance.pick(&[Durability::Synced, Durability::Buffered, Durability::Synced, Durability::Memory]);
        let kept: u64 = chance.pick(&[0, 0, 6, 20]);
        let records_max = if durability == Durability::Memory { 0 } else { kept };
        // What falls off a room in memory is gone.
        let in_memory = durability == Durability::Memory;
        let pools = Pools::new(&if in_memory { Limits::default() } else { limits() });
        let state = build(&store, &name, durability, records_max, &pools);
        let mut world = Self {
            name,
            durability,
            records_max,
            store,
            chance,
            state,
            others: pools.ring_bytes.share(),
            pools,
            now: Now { unix_ms: 1_000, mono_ms: 0 },
            ears: Ears::default(),
            log: Vec::new(),
            log_first: 1,
            nonces: BTreeMap::new(),
            last: BTreeMap::new(),
            request: 0,
            again: Vec::new(),
            fetches: BTreeMap::new(),
            expected: BTreeMap::new(),
            counts: BTreeMap::new(),
        };
        world.join();
        world
    }

    fn join(&mut self) {
        for at in 0..USERS.len() {
            self.join_one(u32::MAX - u32::try_from(at).unwrap());
        }
    }

    /// The request of a join says whose it is.
    fn join_one(&mut self, request: u32) {
        let user = USERS[usize::try_from(u32::MAX - request).unwrap()];
        self.handle(Input::Join(Join { conn: CONN, request, device: key(user), from: JoinFrom::Tail, follows: false }));
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    fn handle(&mut self, input: Input) {
        self.state.handle(self.now, input);
        let to = self.state.generation();
        while let Some(effect) = self.state.poll() {
            match effect {
                Effect::Relay { news, .. } => self.on_news(news),
                Effect::Append(turn) => {
                    let append = Append {
                        room: self.state.room(),
                        generation: self.state.generation(),
                        epoch: self.state.epoch(),
                        durability: self.state.durability(),
                        first: turn.first,
                        frames: turn.frames,
                        records: turn.records,
                        rewrites: turn.rewrites,
                        place: turn.place,
                        commits: Arc::new(self.ears.clone()),
                    };
                    self.store.append(vec![append]);
                }
                Effect::Read(new) => {
                    self.count(if new.read.records_max > 4 { "large read" } else { "read" });
                    let ears = self.ears.clone();
                    let tell = move |records| ears.0.lock().push(Said::Input(to, Input::Read { id: new.id, records }));
                    self.store.read(new.read, Box::new(tell));
                }
                Effect::ReadTarget { id, seq } => {
                    self.count("read of a target");
                    let ears = self.ears.clone();
                    let tell = move |target| ears.0.lock().push(Said::Input(to, Input::Target { id, target }));
                    self.store.target(self.state.room(), seq, Box::new(tell));
                }
                Effect::LoadAnswers(device) => {
                    let (ears, asked) = (self.ears.clone(), device.clone());
                    let tell = move |answers| ears.0.lock().push(Said::Input(to, Input::Answers { device, answers }));
                    self.store.answers(self.state.room(), asked, Box::new(tell));
                }
                Effect::LoadMarks(user) => {
                    let (ears, name) = (self.ears.clone(), user.clone());
                    let tell = move |marks: Result<Vec<Marks>, StoreError>| {
                        let marks = marks.map(|marks| marks[0]);
                        ears.0.lock().push(Said::Input(to, Input::Marks { user, marks }));
                    };
                    self.store.marks(name, vec![self.state.room()], Box::new(tell));
                }
                Effect::SaveMarks(save) => {
                    let ears = self.ears.clone();
                    let tell = move |stored| ears.0.lock().push(Said::Input(to, Input::MarksSaved(stored)));
                    self.store.save_marks(save, Box::new(tell));
                }
                Effect::SaveMarksIn(_) => {} // What was sent is saved with the next one.
                Effect::LoadRoomMarks(..) | Effect::TellUser { .. } | Effect::TellHost(..) => {
                    unreachable!("nobody asks for marks here")
                }
                Effect::Trim(trim) => {
                    let ears = self.ears.clone();
                    let tell = move |trimmed| ears.0.lock().push(Said::Input(to, Input::Trimmed(trimmed)));
                    self.store.trim(trim, Box::new(tell));
                }
                Effect::LoadRights(_) | Effect::Told(_) | Effect::Presence(_) => panic!("nobody is a member here"),
                Effect::Sleep(_) => panic!("nobody asks whether the room is idle"),
                Effect::EndTurn => {}
                Effect::Stop => panic!("the store refuses an append"),
            }
        }
    }

    fn listen(&mut self) {
        for request in std::mem::take(&mut self.again) {
            self.join_one(request);
        }
        let heard = std::mem::take(&mut *self.ears.0.lock());
        for said in heard {
            match said {
                Said::Input(to, input) if to == self.state.generation() => self.handle(input),
                Said::Input(..) => {}
                Said::Settled(outcome) if outcome.generation == self.state.generation() => {
                    self.handle(Input::Committed(outcome.stored.unwrap().upto));
                }
                Said::Settled(_) => {}
                Said::Erased(done) => self.count(if done { "erased" } else { "not erased" }),
            }
        }
    }

    fn on_news(&mut self, news: FromChannel) {
        match news {
            FromChannel::Detach { .. } | FromChannel::Members(_) | FromChannel::Hide(_) => {
                panic!("nobody is put out here")
            }
            FromChannel::Committed { batch, stored, .. } => {
                if let Some(Batch { first, frames, .. }) = batch {
                    self.hear_up_to(first - 1);
                    assert_eq!(first, self.log_first + self.log.len() as u64);
                    self.log.extend(split(&frames));
                }
                for stored in stored {
                    if stored.duplicate {
                        self.count("duplicate");
                    } else if let Some(want) = self.expected.remove(&stored.request) {
                        assert_eq!(want, None, "a change that was to be refused is stored at {}", stored.seq);
                    }
                }
            }
            FromChannel::Refused { request, code, message, .. } => {
                self.count(format!("refused: {code}"));
                if request > u32::MAX / 2 {
                    // Its answers could not be loaded.
                    return self.again.push(request);
                }
                self.fetches.remove(&request);
                if let Some(want) = self.expected.remove(&request)
                    && !matches!(code, Code::Busy | Code::HeldBack | Code::RoomUnavailable | Code::NotJoined)
                {
                    assert_eq!(want, Some(code), "request {request}: {message}");
                }
            }
            FromChannel::Answer { request, frame, .. } => self.on_page(request, &frame),
            FromChannel::Attach(_) | FromChannel::Pulled { .. } | FromChannel::Adopted { .. } => {}
            FromChannel::Signal(_) | FromChannel::SignalRefused { .. } | FromChannel::Notice { .. } => {
                unreachable!("nobody signals or marks here")
            }
        }
    }

    /// What is committed while nobody has joined is told to nobody.
    fn hear_up_to(&mut self, seq: Seq) {
        while self.durability != Durability::Memory && (self.log.len() as u64) < seq {
            let next = self.log.len() as u64 + 1;
            self.log.push(self.store.first_frame(self.state.room(), next).unwrap());
        }
    }

    /// A page shows what the log says, up to what is committed when it is answered.
    fn on_page(&mut self, request: u32, frame: &[u8]) {
        assert_eq!(Header::from_bytes(frame.first_chunk().unwrap()).kind, Kind::Page as u16);
        let page: Page<'_> = parlor_protocol::decode(&frame[HEADER_BYTES..]).unwrap();
        let fetch = self.fetches.remove(&request).unwrap();
        self.hear_up_to(self.state.tail());
        let model = replay(&self.log, self.log_first);
        let records = split(&Bytes::copy_from_slice(page.records));
        let mut seqs = Vec::new();
        for frame in &records {
            with_deliver(frame, |deliver| {
                let want = model.get(&deliver.seq);
                assert_eq!(Some(&shown(deliver)), want, "seq {} in a page", deliver.seq);
                seqs.push(deliver.seq);
            });
        }
        // Nothing outlives what it changes; and what is hidden is gone, or changes what is.
        let first = self.first_readable();
        for seq in &seqs {
            assert!(!self.is_orphan(*seq, first), "{seq} is read, and what it changes is below {first}");
        }
        for gap in &page.gaps.0 {
            for seq in gap.from..=gap.to {
                assert!(seq < first || self.is_orphan(seq, first), "{gap:?}, but {seq} can be read from {first} on");
                self.counts
                    .entry(if seq < first { "gap" } else { "orphan" }.into())
                    .and_modify(|n| *n += 1)
                    .or_insert(1);
            }
            seqs.extend(gap.from..=gap.to);
        }
        seqs.sort_unstable();
        assert!(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seqs:?} has a hole");
        // A page ends where it says, and says so whoever else asked for it.
        if let (Some(last), Direction::Forward) = (seqs.last(), fetch.direction) {
            assert_eq!(page.next, (*last < page.tail).then_some(last + 1), "{fetch:?}");
        }
        self.count("page");
    }

    fn publish(&mut self, user: &'static str, kind: RecordKind, refers_to: Seq, remove: bool, payload: String) {
        let nonce = self.nonces.entry(user).or_insert(0);
        *nonce += 1;
        self.request += 1;
        let publish = Publish {
            conn: CONN,
            request: self.request,
            device: key(user),
            tier: TierNumber(0),
            nonce: *nonce,
            kind,
            refers_to,
            epoch: Epoch(0),
            lifetime_ms: None,
            silent: false,
            remove,
            content_type: 1,
            payload: payload.into(),
        };
        if std::env::var("PARLOR_CHANGES_SEED").is_ok() {
            let Publish { request, kind, refers_to, remove, payload, .. } = &publish;
            println!(
                "{request}: {user} {kind:?} of {refers_to} {remove} {payload:?}, expected {:?}",
                self.expected.get(request)
            );
        }
        self.last.insert(user, publish.clone());
        self.handle(Input::Publish(publish));
    }

    fn change(&mut self) {
        let user = self.chance.pick(&USERS);
        let tail = self.log_first + self.log.len() as u64;
        let near = self.chance.one_in(2);
        let target = if near { tail.saturating_sub(self.chance.any() % 6) } else { self.chance.any() % (tail + 2) };
        let kind =
            self.chance.pick(&[RecordKind::EDIT, RecordKind::RECALL, RecordKind::REACTION, RecordKind::REACTION]);
        let remove = kind == RecordKind::REACTION && self.chance.one_in(3);
        let payload = match kind {
            RecordKind::EDIT => "e".repeat(self.chance.below(40)),
            RecordKind::RECALL => String::new(),
            _ => self.chance.pick(&REACTIONS).into(),
        };
        let alone = self.chance.one_in(3);
        if alone {
            self.rest();
            let want = self.verdict(user, kind, target, remove, &payload);
            self.expected.insert(self.request + 1, want);
        }
        self.publish(user, kind, target, remove, payload);
        if alone {
            self.rest();
        }
    }

    /// What the model says to a change, when nothing is on its way.
    fn verdict(&self, user: &str, kind: RecordKind, at: Seq, remove: bool, reaction: &str) -> Option<Code> {
        let model = replay(&self.log, self.log_first);
        let readable = self.first_readable();
        let Some(target) = model.get(&at).filter(|_| at >= readable && !self.is_orphan(at, readable)) else {
            return Some(Code::TargetGone);
        };
        if target.kind != 0 || target.tombstone.is_some() {
            return Some(Code::NotChangeable);
        }
        let frame = &self.log[usize::try_from(at - self.log_first).unwrap()];
        let newest = self.log.last().map_or(0, |frame| with_deliver(frame, |deliver| deliver.time));
        let age = self.now.unix_ms.max(newest) - with_deliver(frame, |deliver| deliver.time);
        let limits = limits();
        match kind {
            RecordKind::REACTION => {
                let mut has = false;
                for frame in &self.log {
                    with_deliver(frame, |deliver| {
                        let same = deliver.refers_to == at && deliver.kind == kind && deliver.sender == user;
                        if same && deliver.payload == reaction.as_bytes() {
                            has = !deliver.changed().removes;
                        }
                    });
                }
                let all: u32 = target.reactions.iter().map(|(_, count)| count).sum();
                let full = all as usize >= limits.reactions_per_record_max;
                match (remove, has) {
                    (true, false) | (false, true) => Some(Code::NoEffect),
                    (false, false) if full => Some(Code::TooManyReactions),
                    _ => None,
                }
            }
            _ if target.sender != user => Some(Code::Forbidden),
            RecordKind::EDIT => (age > limits.edit_window_ms).then_some(Code::TooLate),
            _ => (age > limits.recall_window_ms).then_some(Code::TooLate),
        }
    }

    /// The oldest seq that may be read, as far as everybody has heard.
    fn first_readable(&self) -> Seq {
        if self.durability == Durability::Memory {
            return self.log.len().saturating_sub(limits().ring_records_max) as u64 + self.log_first;
        }
        let kept = if self.records_max == 0 { 1 } else { (self.log.len() as u64 + 1).saturating_sub(self.records_max) };
        self.store.extent(&self.name).map_or(1, |(first, _)| first).max(kept)
    }

    /// Whether a record changes one that is gone.
    fn is_orphan(&self, seq: Seq, first: Seq) -> bool {
        let frame = seq.checked_sub(self.log_first).and_then(|at| self.log.get(usize::try_from(at).unwrap()));
        frame.is_some_and(|frame| {
            with_deliver(frame, |deliver| deliver.kind != RecordKind::MESSAGE && deliver.refers_to < first)
        })
    }

    fn fetch(&mut self) {
        let tail = self.state.tail();
        let start = Some(self.chance.any() % (tail + 2)).filter(|_| !self.chance.one_in(4));
        let direction = self.chance.pick(&[Direction::Forward, Direction::Backward]);
        let limit = u32::try_from(self.chance.below(10)).unwrap();
        self.request += 1;
        let fetch = Fetch { conn: CONN, request: self.request, device: key(USERS[0]), start, direction, limit };
        self.fetches.insert(self.request, fetch.clone());
        self.handle(Input::Fetch(fetch));
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..22 => {
                let (user, len) = (self.chance.pick(&USERS), self.chance.below(60));
                self.publish(user, RecordKind::MESSAGE, 0, false, "m".repeat(len));
            }
            22..50 => self.change(),
            50..53 => {
                let user = self.chance.pick(&USERS);
                if let Some(publish) = self.last.get(user).cloned() {
                    self.handle(Input::Publish(publish));
                }
            }
            53 => {
                let (seq, ears) = (self.chance.any() % (self.state.tail() + 2), self.ears.clone());
                let told = Told::new(move |outcome| ears.0.lock().push(Said::Erased(outcome.is_ok())));
                self.handle(Input::Erase(Erase { seq, whose: None, told }));
            }
            54..63 => self.handle(Input::EndOfTurn),
            63..73 => drop(self.store.step(2)),
            73..83 => drop(self.store.step_reader()),
            83..92 => self.fetch(),
            92..97 => {
                let ms = self.chance.pick(&[1, 50, 400]);
                self.now.unix_ms += ms;
                self.now.mono_ms += ms;
            }
            97 => {
                let busy = self.chance.pick(&[0, 0, 3]);
                self.store.faults(|faults| faults.busy_read_one_in = busy);
            }
            98 if self.durability != Durability::Memory && self.chance.one_in(3) => {
                // A channel hears of it when it is rebuilt.
                let first = 1 + self.chance.any() % (self.state.tail() + 1);
                self.rest();
                self.store.forget_below(&self.name, first.min(self.state.tail()));
                self.reload(None);
            }
            _ if self.chance.one_in(2) => {
                let crash = self.chance.pick(&[None, Some(Crash::Process), Some(Crash::Power)]);
                self.reload(crash);
            }
            _ if self.durability != Durability::Memory => self.press(),
            _ => {}
        }
        self.listen();
        assert!(self.state.parked() <= limits().parked_per_room_max, "parked publishes");
        assert!(self.state.reading() <= limits().reads_per_room_max, "reads");
    }

    /// The rings of other rooms have more or less, and the room is asked whether it is idle.
    fn press(&mut self) {
        let (before, max) = (self.state.ring_bytes(), self.pools.ring_bytes.max());
        self.others.set(max - self.chance.pick(&[0, 200, 3_200, 8_000, 16_000, max, max]));
        self.handle(Input::Sleep(Sleep::Ask));
        if self.state.ring_bytes() < before {
            self.count("fell off for others".to_owned());
        }
    }

    /// The channel dies, alone or with its process, and another one goes on from the store.
    fn reload(&mut self, crash: Option<Crash>) {
        self.count(format!("reload: {crash:?}"));
        if let Some(crash) = crash {
            self.store.crash(crash);
        }
        self.state = build(&self.store, &self.name, self.durability, self.records_max, &self.pools);
        self.ears.0.lock().clear();
        self.fetches.clear();
        self.again.clear();
        self.expected.clear();
        let tail = self.state.tail();
        if self.durability == Durability::Memory {
            (self.log, self.log_first) = (Vec::new(), tail + 1);
        } else {
            self.log.truncate(usize::try_from(tail).unwrap());
            self.hear_up_to(tail);
        }
        self.join();
    }

    /// Everything on its way arrives.
    fn rest(&mut self) {
        self.store.faults(|faults| faults.busy_read_one_in = 0);
        loop {
            self.handle(Input::EndOfTurn);
            let moved = self.store.step(usize::MAX) | self.store.step_reader() | !self.again.is_empty();
            self.listen();
            if !moved {
                break;
            }
        }
        self.hear_up_to(self.state.tail());
        assert_eq!((self.state.parked(), self.state.reading(), self.state.changing()), (0, 0, 0), "at rest");
        assert!(self.fetches.is_empty() && self.expected.is_empty(), "everything is answered");
    }

    /// The store and the ring, and every page of both, say the same.
    fn check_all(&mut self) {
        self.rest();
        let model = replay(&self.log, self.log_first);
        if self.durability != Durability::Memory {
            for (seq, want) in &model {
                let frame = self.store.frame(self.state.room(), *seq).unwrap();
                let (first, _) = self.store.extent(&self.name).unwrap();
                if *seq >= first {
                    assert_eq!(with_deliver(&frame, shown), *want, "seq {seq} in the store");
                }
            }
        }
        for direction in [Direction::Forward, Direction::Backward] {
            for start in self.log_first..=self.state.tail() {
                self.request += 1;
                let fetch = Fetch {
                    conn: CONN,
                    request: self.request,
                    device: key(USERS[0]),
                    start: Some(start),
                    direction,
                    limit: 3,
                };
                self.fetches.insert(self.request, fetch.clone());
                self.handle(Input::Fetch(fetch));
                self.rest();
            }
        }
    }
}

fn split(frames: &Bytes) -> Vec<Bytes> {
    let mut rest = frames.clone();
    let mut all = Vec::new();
    while let Some(header) = rest.first_chunk() {
        let size = HEADER_BYTES + Header::from_bytes(header).len as usize;
        all.push(rest.split_to(size));
    }
    all
}

#[test]
fn random_histories_read_as_the_log_says() {
    let seed = std::env::var("PARLOR_CHANGES_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = seed.map_or(0..2_000, |seed: u64| seed..seed + 1);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for seed in seeds {
        println!("PARLOR_CHANGES_SEED={seed}");
        let mut world = World::new(seed);
        let steps = 60 + world.chance.below(200);
        (0..steps).for_each(|_| world.step());
        world.check_all();
        let before = world.state.tail();
        world.reload(Some(Crash::Process));
        world.check_all();
        assert!(world.durability == Durability::Memory || world.state.tail() == before);
        for frame in world.log.clone() {
            let kind = with_deliver(&frame, |deliver| deliver.kind);
            world.count(format!("{kind:?}"));
        }
        for (what, times) in world.counts {
            *counts.entry(what).or_default() += times;
        }
    }
    println!("{counts:#?}");
    if seed.is_none() {
        for what in [
            "RecordKind(1)",
            "RecordKind(2)",
            "RecordKind(3)",
            "duplicate",
            "read of a target",
            "page",
            "orphan",
            "large read",
            "fell off for others",
            "refused: TargetGone (2010)",
            "refused: NotChangeable (2011)",
            "refused: TooLate (2012)",
            "refused: NoEffect (2013)",
            "refused: TooManyReactions (2014)",
            "refused: Forbidden (2008)",
            "refused: Busy (1000)",
            "refused: HeldBack (1004)",
            "erased",
            "not erased",
            "reload: None",
            "reload: Some(Power)",
        ] {
            assert!(counts.contains_key(what), "{what} never happened");
        }
    }
}
