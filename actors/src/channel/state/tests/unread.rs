//! Unread against a model that counts records one by one: a channel on a store in memory, under chance and crashes. Records
//! expire and are swept, the room keeps few of them, users become members and are none any more, and a room that no store
//! has does all of that by itself. What the list of a user's rooms says is checked as well.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use parlor_protocol::message::Role;

use super::*;
use crate::{
    members::{Asker, Look, RoomChange, Seen, What},
    port::{Append, Commits, Load, Outcome, Store, Sweep, Swept},
    testkit::{Chance, Crash, MemStore},
};

const USERS: [&str; 3] = ["ann", "bob", "cid"];

/// What a room holds in memory.
const RING_RECORDS: u64 = 3;

type Inbox = Arc<Mutex<VecDeque<Input>>>;

struct Ears(Inbox);

impl Commits for Ears {
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            self.0.lock().push_back(match outcome.stored {
                Ok(commit) => Input::Committed(commit.upto),
                Err(error) => Input::Failed(error),
            });
        }
    }
}

/// A channel, its store, and what a naive reader of the log knows.
struct World {
    chance: Chance,
    store: Arc<MemStore>,
    state: State,
    inbox: Inbox,
    now: Now,
    options: RoomOptions,
    /// Every record that was given a seq.
    records: Vec<Record>,
    /// How far each user has read, as he was told.
    read: BTreeMap<&'static str, Seq>,
    /// What of that is certainly saved.
    saved: BTreeMap<&'static str, Seq>,
    /// Whose cursors may have gone back since they were told.
    doubted: BTreeSet<&'static str>,
    /// Members, and the tail when each was added.
    since: BTreeMap<&'static str, Seq>,
    attached: BTreeSet<(&'static str, u64)>,
    nonces: BTreeMap<(&'static str, u64), Nonce>,
    counts: BTreeMap<&'static str, u64>,
}

/// A record, as a naive reader of the log sees it.
struct Record {
    /// Whose it is; nobody's if the room itself has written it.
    sender: &'static str,
    counts: bool,
    expires: u64,
}

fn device(user: &str, tag: u64) -> DeviceKey {
    DeviceKey { user: user.parse().unwrap(), tag: DeviceTag(tag) }
}

fn load(store: &Arc<MemStore>, options: RoomOptions) -> State {
    let found = Arc::new(Mutex::new(None));
    let into = found.clone();
    let load = Load { name: "room".parse().unwrap(), create: Some(options) };
    store.load(load, Box::new(move |loaded| *into.lock() = Some(loaded)));
    store.run();
    let loaded = found.lock().take().unwrap().unwrap();
    let limits = Arc::new(Limits { ring_records_max: usize::try_from(RING_RECORDS).unwrap(), ..Limits::default() });
    State::new(
        loaded,
        1,
        Setting {
            pools: Pools::new(&limits),
            limits,
            budget: store.budget().clone(),
            tiers: Arc::new(Tiers::sending(SendRate::OFF)),
            rates: Arc::default(),
            word: Arc::default(),
        },
    )
}

impl World {
    fn new(seed: u64) -> Self {
        let store = MemStore::new(seed, 64);
        let turn = usize::try_from(seed).unwrap();
        let options = RoomOptions {
            durability: if seed.is_multiple_of(3) { Durability::Memory } else { Durability::Buffered },
            // Less than the ring holds, or more.
            records_max: [[0, 0, 2], [0, 6, 5]][usize::from(!turn.is_multiple_of(3))][turn / 3 % 3],
            lifetime_ms: [0, 50][turn / 9 % 2],
            ..RoomOptions::default()
        };
        let state = load(&store, options);
        Self {
            chance: Chance::new(seed),
            store,
            state,
            inbox: Inbox::default(),
            now: Now { unix_ms: UNIX, mono_ms: 0 },
            options,
            records: Vec::new(),
            read: BTreeMap::new(),
            saved: BTreeMap::new(),
            doubted: BTreeSet::new(),
            since: BTreeMap::new(),
            attached: BTreeSet::new(),
            nonces: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn is_in_memory(&self) -> bool {
        self.options.durability == Durability::Memory
    }

    fn handle(&mut self, input: Input) {
        let publish = if let Input::Publish(publish) = &input { Some(publish.clone()) } else { None };
        self.state.handle(self.now, input);
        self.learn(publish);
        while let Some(effect) = self.state.poll() {
            let inbox = self.inbox.clone();
            match effect {
                Effect::Append(Turn { first, frames, records, rewrites, place }) => {
                    let (room, generation, epoch) = (self.state.room(), self.state.generation(), self.state.epoch());
                    let (durability, commits) = (self.state.durability(), Arc::new(Ears(inbox)));
                    let append = Append {
                        room,
                        generation,
                        epoch,
                        durability,
                        first,
                        frames,
                        records,
                        rewrites,
                        place,
                        commits,
                    };
                    self.store.append(vec![append]);
                }
                Effect::Read(NewRead { id, read }) => {
                    *self.counts.entry("cold reads").or_default() += 1;
                    let reply = move |records| inbox.lock().push_back(Input::Read { id, records });
                    self.store.read(read, Box::new(reply));
                }
                Effect::LoadAnswers(device) => {
                    let key = device.clone();
                    let reply = move |answers| inbox.lock().push_back(Input::Answers { device, answers });
                    self.store.answers(self.state.room(), key, Box::new(reply));
                }
                Effect::LoadRights(device) => {
                    let user = device.user.clone();
                    let reply = move |member| inbox.lock().push_back(Input::Rights { device, member });
                    self.store.member(self.state.room(), user, Box::new(reply));
                }
                Effect::LoadMarks(user) => {
                    let name = user.clone();
                    let reply = move |marks: Result<Vec<Marks>, StoreError>| {
                        inbox.lock().push_back(Input::Marks { user, marks: marks.map(|marks| marks[0]) });
                    };
                    self.store.marks(name, vec![self.state.room()], Box::new(reply));
                }
                Effect::SaveMarks(save) => {
                    let reply = move |stored| inbox.lock().push_back(Input::MarksSaved(stored));
                    self.store.save_marks(save, Box::new(reply));
                }
                Effect::EndTurn => inbox.lock().push_back(Input::EndOfTurn),
                Effect::Relay { news: FromChannel::Attach(attach), .. } => {
                    // A gap may follow.
                    let header = Header::from_bytes(attach.answer.first_chunk().unwrap());
                    let joined: Joined<'_> = body(&attach.answer[..HEADER_BYTES + header.len as usize]);
                    let user = USERS.into_iter().find(|user| **user == *attach.device.user).unwrap();
                    self.told(user, joined.read, joined.unread);
                }
                Effect::Relay { news: FromChannel::Answer { request, frame, .. }, .. } => {
                    let Marked { read, unread, .. } = body(&frame);
                    self.told(USERS[request as usize], read, unread);
                }
                Effect::Relay { news: FromChannel::Detach { users, .. }, .. } => {
                    let put_out = |(user, _): &&(&str, u64)| users.iter().any(|name| **name == **user);
                    let put_out: Vec<_> = self.attached.iter().filter(put_out).copied().collect();
                    for (user, tag) in put_out {
                        self.attached.remove(&(user, tag));
                        inbox.lock().push_back(Input::Detached { arbiter: 0, device: device(user, tag) });
                    }
                }
                Effect::Stop => unreachable!("the store is not broken here"),
                _ => {}
            }
        }
    }

    /// Notes what was given a seq: what the room itself records comes before what somebody publishes.
    fn learn(&mut self, publish: Option<Publish>) {
        let accepted = publish.filter(|publish| {
            let newest = self.state.waiting.back();
            newest.is_some_and(|it| it.device == publish.device && it.stored.nonce == publish.nonce)
        });
        while (self.records.len() as u64) < self.state.given - u64::from(accepted.is_some()) {
            self.records.push(Record { sender: "", counts: false, expires: self.expiry(None) });
            self.count("records of members");
        }
        if let Some(publish) = accepted {
            let sender = USERS.into_iter().find(|user| **user == *publish.device.user).unwrap();
            let expires = self.expiry(publish.lifetime_ms);
            self.records.push(Record { sender, counts: !publish.silent, expires });
        }
    }

    fn expiry(&self, lifetime_ms: Option<u64>) -> u64 {
        let shortest =
            [self.options.lifetime_ms, lifetime_ms.unwrap_or_default()].into_iter().filter(|ms| *ms > 0).min();
        shortest.map_or(0, |ms| self.now.unix_ms + ms)
    }

    /// The oldest seq that a room without a store shows.
    fn first_in_memory(&self) -> Seq {
        let tail = self.state.tail();
        let kept = if self.options.records_max == 0 { RING_RECORDS } else { self.options.records_max };
        let is_gone = |seq: Seq| {
            let expires = self.records[usize::try_from(seq).unwrap() - 1].expires;
            seq + kept <= tail || (expires != 0 && expires <= self.now.unix_ms)
        };
        (1..=tail).find(|seq| !is_gone(*seq)).unwrap_or(tail + 1)
    }

    /// What one who counts finds unread for a user who has read up to `read`.
    fn unread(&self, user: &str, read: Seq) -> u64 {
        let own = |(at, record): (usize, &Record)| (record.sender == user).then_some(at as u64 + 1);
        let sent = self.records.iter().enumerate().filter_map(own).max().unwrap_or_default();
        let since = self.since.get(user).copied().unwrap_or_default();
        let seen = read.max(sent).max(since).max(self.state.extent.first - 1);
        let tail = self.state.tail();
        let counts = |seq: &Seq| self.records[usize::try_from(*seq).unwrap() - 1].counts;
        (seen + 1..=tail).filter(counts).count() as u64
    }

    /// A user is told where he stands: it must be what one who counts finds.
    fn told(&mut self, user: &'static str, read: Seq, unread: u64) {
        if self.is_in_memory() {
            assert_eq!(self.state.extent.first, self.first_in_memory(), "of {}", self.state.tail());
        }
        let known = self.read.insert(user, read).unwrap_or_default();
        assert!(read >= self.saved.get(user).copied().unwrap_or_default(), "{user}'s saved cursor went back to {read}");
        if !self.doubted.remove(user) {
            assert!(read >= known, "{user}'s cursor went back from {known} to {read}");
        }
        let want = self.unread(user, read);
        let (first, tail, since) = (self.state.extent.first, self.state.tail(), self.since.get(user).copied());
        assert_eq!(unread, want, "unread: {user} has read {read} of {first} to {tail}, member since {since:?}");
        self.count(if self.is_in_memory() { "checks in memory" } else { "checks" });
        if since.is_some_and(|since| since >= first && since >= read) {
            self.count("checks of members");
        }
    }

    /// The list of a user's rooms says what a join would, once all is saved.
    fn check_list(&mut self, user: &'static str) {
        let known = self.read.get(user).copied().filter(|_| self.since.contains_key(user) && !self.is_in_memory());
        let Some(read) = known.filter(|_| !self.doubted.contains(user)) else { return };
        let look = Look::RoomsOf { user: user.parse().unwrap(), before: None, limit: 9, now: self.now.unix_ms };
        let found = Arc::new(Mutex::new(None));
        let into = found.clone();
        self.store.look(look, Box::new(move |seen| *into.lock() = Some(seen.unwrap())));
        self.store.run();
        let Some(Ok(Seen::RoomsOf(rooms, false))) = found.lock().take() else { panic!("no list") };
        let listed: Vec<_> = rooms.iter().map(|room| room.unread).collect();
        assert_eq!(listed, [self.unread(user, read)], "{user} has read {read}");
        self.count("lists");
    }

    /// A user becomes a member, or is none any more and a stranger again.
    fn change_member(&mut self, user: &'static str) {
        self.settle();
        let (is_member, users) = (self.since.contains_key(user), vec![user.parse().unwrap()]);
        let removes = is_member && self.chance.one_in(2);
        let what = if removes { What::Remove(users) } else { What::Set(Role::Member, users) };
        let (name, at) = ("room".parse().unwrap(), self.now.unix_ms);
        let changed = Arc::new(Mutex::new(None));
        let into = changed.clone();
        let change = RoomChange { name, by: Asker::Host, at, members_max: 9, what };
        self.store.change(change, Box::new(move |changed| *into.lock() = Some(changed.unwrap().unwrap())));
        self.store.run();
        let change = changed.lock().take().unwrap();
        if removes {
            self.since.remove(user);
            // His cursor is deleted with the membership.
            self.read.remove(user);
            self.saved.remove(user);
        } else {
            self.since.entry(user).or_insert(self.state.tail());
        }
        self.handle(Input::Changed { id: 1, change: Arc::new(change) });
        self.settle();
    }

    fn sweep(&mut self) {
        self.settle();
        let inbox = self.inbox.clone();
        let told = move |swept: Result<Swept, StoreError>| {
            let rooms = swept.unwrap().rooms;
            inbox.lock().extend(rooms.into_iter().map(|(_, first, gone_count)| Input::Swept { first, gone_count }));
        };
        self.store.sweep(Sweep { now: self.now, records_max: 99, dedupe_horizon_ms: 0 }, Box::new(told));
        self.store.run();
        if !self.inbox.lock().is_empty() {
            self.count("sweeps");
        }
        self.settle();
    }

    /// Everything that is under way ends.
    fn settle(&mut self) {
        loop {
            self.store.run();
            let Some(input) = self.inbox.lock().pop_front() else { break };
            self.handle(input);
        }
    }

    /// A channel begins, on what the store has.
    fn reload(&mut self) {
        self.inbox.lock().clear();
        self.state = load(&self.store, self.options);
        // What was not stored was not acked, and its senders would send it again.
        self.records.truncate(usize::try_from(self.state.tail()).unwrap());
        self.attached.clear();
        self.doubted = USERS.into_iter().collect();
        self.nonces.values_mut().for_each(|nonce| *nonce += 1_000);
        if self.is_in_memory() {
            // Nobody else knew of it.
            self.read.clear();
            self.saved.clear();
            self.since.values_mut().for_each(|since| *since = 0);
        }
    }

    fn step(&mut self) {
        let at = self.chance.below(USERS.len());
        let (user, tag) = (USERS[at], 1 + self.chance.below(2) as u64);
        let is_in = self.attached.contains(&(user, tag));
        match self.chance.below(100) {
            0..30 if is_in => {
                let silent = self.chance.one_in(4);
                let lifetime_ms = self.chance.pick(&[None, None, Some(20), Some(60)]);
                let nonce = self.nonces.entry((user, tag)).or_default();
                *nonce += 1;
                let (device, nonce) = (device(user, tag), *nonce);
                let publish = Publish { device, silent, lifetime_ms, ..publish(user, 0, 100, nonce, "x") };
                self.handle(Input::Publish(publish));
            }
            0..30 => {
                self.attached.insert((user, tag));
                let from = JoinFrom::Position(self.state.epoch(), self.chance.below(9) as u64);
                let join = Join { conn: conn(0), request: 1, device: device(user, tag), from, follows: false };
                self.handle(Input::Join(join));
            }
            30..45 if is_in => {
                let read = self.chance.below(self.records.len() + 2) as u64;
                let mark =
                    MarkRead { conn: conn(0), request: u32::try_from(at).unwrap(), device: device(user, tag), read };
                self.handle(Input::Mark(mark));
            }
            45..50 if is_in => {
                let seq = self.chance.below(self.records.len() + 2) as u64;
                self.handle(Input::Delivered { user: user.parse().unwrap(), seq });
            }
            50..55 if is_in => {
                self.settle(); // A join on its way has nobody to detach yet.
                self.attached.remove(&(user, tag));
                self.handle(Input::Detached { arbiter: 0, device: device(user, tag) });
            }
            55..60 => self.handle(Input::SaveMarks),
            60..63 => {
                self.settle();
                self.handle(Input::SaveMarks);
                self.settle();
                let certain = self.read.iter().filter(|(user, _)| !self.doubted.contains(*user));
                self.saved.extend(certain.map(|(user, read)| (*user, *read)));
                self.check_list(user);
            }
            63..64 if !self.is_in_memory() => {
                self.settle();
                let first = self.chance.below(self.records.len() + 1) as u64 + 1;
                let (room, generation, inbox) = (self.state.room(), self.state.generation(), self.inbox.clone());
                let told = move |trimmed| inbox.lock().push_back(Input::Trimmed(trimmed));
                self.store.trim(Trim { room, generation, first, bytes_max: 0 }, Box::new(told));
                self.settle();
                if self.chance.one_in(2) {
                    self.store.crash(Crash::Process);
                    self.reload();
                }
            }
            64..66 => {
                self.store.crash(Crash::Process);
                self.reload();
            }
            66..69 => self.change_member(user),
            69..72 => self.sweep(),
            72..76 => {
                let ms = self.chance.pick(&[1, 30, 60]);
                self.now.unix_ms += ms;
                self.now.mono_ms += ms;
            }
            76..84 => drop(self.store.step(2)),
            _ => {
                self.store.step_reader();
                let input = self.inbox.lock().pop_front();
                input.into_iter().for_each(|input| self.handle(input));
            }
        }
    }
}

#[test]
fn unread_is_what_one_who_counts_finds() {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..3_000 {
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.step();
        }
        world.settle();
        for (what, times) in world.counts {
            *counts.entry(what).or_default() += times;
        }
    }
    println!("{counts:#?}");
    for (what, least) in [
        ("checks", 20_000),
        ("checks in memory", 5_000),
        ("checks of members", 1_000),
        ("cold reads", 1_000),
        ("lists", 1_000),
        ("records of members", 1_000),
        ("sweeps", 1_000),
    ] {
        assert!(counts.get(what).is_some_and(|times| *times > least), "{what}: {counts:?}");
    }
}
