//! Unread against a model that counts records one by one: a channel on a store in memory, under chance and crashes.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use super::*;
use crate::{
    port::{Append, Commits, Load, Outcome, Store},
    testkit::{Chance, Crash, MemStore},
};

const USERS: [&str; 3] = ["ann", "bob", "cid"];

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
    /// Who sent each record that was given a seq, and whether it counts.
    records: Vec<(&'static str, bool)>,
    /// How far each user has read, as he was told.
    read: BTreeMap<&'static str, Seq>,
    /// What of that is certainly saved.
    saved: BTreeMap<&'static str, Seq>,
    /// Whose cursors may have gone back since they were told.
    doubted: BTreeSet<&'static str>,
    attached: BTreeSet<(&'static str, u64)>,
    nonces: BTreeMap<(&'static str, u64), Nonce>,
    checks: u64,
    colds: u64,
}

fn device(user: &str, tag: u64) -> DeviceKey {
    DeviceKey { user: user.parse().unwrap(), tag: DeviceTag(tag) }
}

fn load(store: &Arc<MemStore>) -> State {
    let found = Arc::new(Mutex::new(None));
    let into = found.clone();
    let options = RoomOptions { durability: Durability::Buffered, ..RoomOptions::default() };
    let load = Load { name: "room".parse().unwrap(), create: Some(options) };
    store.load(load, Box::new(move |loaded| *into.lock() = Some(loaded)));
    store.run();
    let loaded = found.lock().take().unwrap().unwrap();
    let limits = Arc::new(Limits { ring_records_max: 3, ..Limits::default() });
    State::new(
        loaded,
        1,
        Setting {
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
        let state = load(&store);
        Self {
            chance: Chance::new(seed),
            store,
            state,
            inbox: Inbox::default(),
            records: Vec::new(),
            read: BTreeMap::new(),
            saved: BTreeMap::new(),
            doubted: BTreeSet::new(),
            attached: BTreeSet::new(),
            nonces: BTreeMap::new(),
            checks: 0,
            colds: 0,
        }
    }

    fn handle(&mut self, input: Input) {
        let now = Now { unix_ms: UNIX, mono_ms: 0 };
        self.state.handle(now, input);
        while let Some(effect) = self.state.poll() {
            let inbox = self.inbox.clone();
            match effect {
                Effect::Append(Turn { first, frames, records, rewrites, place }) => {
                    let (room, generation, epoch) = (self.state.room(), self.state.generation(), self.state.epoch());
                    let (durability, commits) = (Durability::Buffered, Arc::new(Ears(inbox)));
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
                    self.colds += 1;
                    let reply = move |records| inbox.lock().push_back(Input::Read { id, records });
                    self.store.read(read, Box::new(reply));
                }
                Effect::LoadAnswers(device) => {
                    let key = device.clone();
                    let reply = move |answers| inbox.lock().push_back(Input::Answers { device, answers });
                    self.store.answers(self.state.room(), key, Box::new(reply));
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
                Effect::Stop => unreachable!("the store is not broken here"),
                _ => {}
            }
        }
    }

    /// A user is told where he stands: it must be what one who counts finds.
    fn told(&mut self, user: &'static str, read: Seq, unread: u64) {
        let known = self.read.insert(user, read).unwrap_or_default();
        assert!(read >= self.saved.get(user).copied().unwrap_or_default(), "{user}'s saved cursor went back to {read}");
        if !self.doubted.remove(user) {
            assert!(read >= known, "{user}'s cursor went back from {known} to {read}");
        }
        let own = |(at, (sender, _)): (usize, &(&str, bool))| (*sender == user).then_some(at as u64 + 1);
        let sent = self.records.iter().enumerate().filter_map(own).max().unwrap_or_default();
        let seen = read.max(sent).max(self.state.extent.first - 1);
        let tail = self.state.tail();
        let counts = |seq: &Seq| self.records[usize::try_from(*seq).unwrap() - 1].1;
        let want = (seen + 1..=tail).filter(counts).count() as u64;
        assert_eq!(unread, want, "{user} has read {read} and sent {sent} of {tail}");
        self.checks += 1;
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
        self.state = load(&self.store);
        // What was not stored was not acked, and its senders would send it again.
        self.records.truncate(usize::try_from(self.state.tail()).unwrap());
        self.attached.clear();
        self.doubted = USERS.into_iter().collect();
        self.nonces.values_mut().for_each(|nonce| *nonce += 1_000);
    }

    fn step(&mut self) {
        let at = self.chance.below(USERS.len());
        let (user, tag) = (USERS[at], 1 + self.chance.below(2) as u64);
        let is_in = self.attached.contains(&(user, tag));
        match self.chance.below(100) {
            0..30 if is_in => {
                let silent = self.chance.one_in(4);
                let nonce = self.nonces.entry((user, tag)).or_default();
                *nonce += 1;
                let (device, nonce) = (device(user, tag), *nonce);
                let publish = Publish { device, silent, ..publish(user, 0, 100, nonce, "x") };
                let before = self.state.given;
                // Noted first: it may be committed and told at once.
                self.records.push((user, !silent));
                self.handle(Input::Publish(publish));
                if self.state.given == before {
                    self.records.pop(); // Not ready, or the queue was full.
                }
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
            }
            63..64 => {
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
            66..80 => drop(self.store.step(2)),
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
    let (mut checks, mut colds) = (0, 0);
    for seed in 0..3_000 {
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.step();
        }
        world.settle();
        (checks, colds) = (checks + world.checks, colds + world.colds);
    }
    assert!(checks > 20_000 && colds > 1_000, "{checks} checks, {colds} cold reads");
}
