//! **Pages joined together are the past.** Forward and backward, out of memory or out of the store, each page goes on where
//! the last one ended, and says of every seq either the record or truly why not. A page holds what its limits allow and at
//! least one. Nobody is shown what was said before he was added. A join tells what its position has lost.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use parlor_actors::{
    channel::state::Input,
    limits::Limits,
    members::What,
    message::{Batch, Fetch, FromChannel},
    port::RoomOptions,
    testkit::Crash,
    tiers::{SendRate, Tiers},
};
use parlor_protocol::{
    Code, Epoch, Header, Kind, Seq,
    frame::HEADER_BYTES,
    message::{Announce, Direction, Durability, Gap, JoinFrom, Past as WhoReads, Role},
};

use crate::{
    Counts,
    past::{Past, Said, Told, frames},
    room::{CONN, Room, key, publish},
};

mod joining;
mod walking;

/// Ann is a member from the beginning, bob comes and goes as one, cid never is one.
const USERS: [&str; 3] = ["ann", "bob", "cid"];

struct World {
    room: Room,
    options: RoomOptions,
    limits: Limits,
    past: Past,
    /// What epochs of before held when they ended.
    before: Vec<(Epoch, Vec<Bytes>)>,
    /// The first seq that each may read.
    since: BTreeMap<&'static str, Seq>,
    here: BTreeSet<&'static str>,
    nonce: u64,
    request: u32,
    asked: BTreeMap<u32, Asked>,
    joins: BTreeMap<u32, (&'static str, JoinFrom)>,
    /// By cursor, with the tail when they were asked for.
    pulls: Vec<(Seq, Seq)>,
    /// What was asked for last.
    wanted: (Option<Seq>, Direction, u32),
    /// The page that was answered last.
    newest_page: Option<Told>,
}

/// A page that was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    user: &'static str,
    start: Option<Seq>,
    direction: Direction,
    limit: u32,
    at: u64,
    tail: Seq,
    kept_from: Seq,
    since: Seq,
    /// The tail when the page was first asked for of those that wait: they are read at once.
    read_to: Seq,
}

fn limits(large: bool) -> Limits {
    let small = Limits {
        ring_records_max: 8,
        ring_bytes_max: 900,
        page_records: 3,
        page_records_max: 5,
        page_bytes_max: 400,
        reads_per_room_max: 3,
        writer_records_max: 1_000,
        ..Limits::default()
    };
    if large { Limits { ring_records_max: 60, writer_records_max: 1_000, ..Limits::default() } } else { small }
}

impl World {
    fn new(seed: u64) -> Self {
        let large = seed.is_multiple_of(50);
        let options = RoomOptions {
            durability: [Durability::Synced, Durability::Buffered, Durability::Memory][seed as usize % 3],
            past: if seed % 5 < 3 { WhoReads::SinceAdded } else { WhoReads::All },
            records_max: if seed % 7 < 3 { 3 + seed % 90 } else { 0 },
            lifetime_ms: if seed % 4 == 1 { 200 } else { 0 },
            announce: Announce::Never,
            ..RoomOptions::default()
        };
        // What falls off a room in memory is gone: see rings.rs.
        let stored = options.durability != Durability::Memory;
        let rings_bytes_max = if stored && !large { 20_000 } else { limits(large).rings_bytes_max };
        let limits = Limits { rings_bytes_max, ..limits(large) };
        let room = Room::new(seed, options, limits.clone(), Tiers::sending(SendRate::OFF));
        let mut world = Self {
            room,
            options,
            limits,
            past: Past::default(),
            before: Vec::new(),
            since: [("ann", 1)].into(),
            here: BTreeSet::new(),
            nonce: 0,
            request: 0,
            asked: BTreeMap::new(),
            joins: BTreeMap::new(),
            pulls: Vec::new(),
            wanted: (None, Direction::Forward, 0),
            newest_page: None,
        };
        world.room.change(What::Set(Role::Member, vec!["ann".parse().unwrap()]));
        world.rest();
        world.join("ann", JoinFrom::Tail);
        world.rest();
        if large {
            (0..300).for_each(|_| world.say());
            world.rest();
        }
        world
    }

    fn is_memory(&self) -> bool {
        self.options.durability == Durability::Memory
    }

    fn hides(&self) -> bool {
        self.options.past == WhoReads::SinceAdded
    }

    /// The first seq that a user may read.
    fn since(&self, user: &str) -> Seq {
        if self.hides() { self.since.get(user).copied().unwrap_or(Seq::MAX) } else { 0 }
    }

    /// What is kept: of a room in memory no more than its ring.
    fn kept(&self) -> RoomOptions {
        if !self.is_memory() {
            return self.options;
        }
        let both = |option: u64, ring: usize| if option == 0 { ring as u64 } else { option.min(ring as u64) };
        let records_max = both(self.options.records_max, self.limits.ring_records_max);
        RoomOptions { records_max, bytes_max: self.limits.ring_bytes_max as u64, ..self.options }
    }

    fn say(&mut self) {
        self.nonce += 1;
        let large = self.limits.page_records > 3;
        let long = self.room.chance.pick(if large { &[60, 3_000, 64 << 10] } else { &[20, 90, 500] });
        let lifetime = self.room.chance.pick(&[None, None, Some(50), Some(400)]);
        let mut said = self.nonce.to_string();
        said.push_str(&"x".repeat(self.room.chance.below(long)));
        let mut publish = publish(key("ann", 1), 0, self.nonce, said);
        publish.lifetime_ms = lifetime;
        self.room.give(Input::Publish(publish));
        self.hear();
    }

    fn hear(&mut self) {
        while let Some(news) = self.room.told.pop_front() {
            match news {
                FromChannel::Committed { batch: Some(Batch { first, frames: all, .. }), .. } => {
                    assert_eq!(first, self.past.tail() + 1);
                    let kept = self.kept();
                    frames(&all).into_iter().for_each(|frame| self.past.commit(frame, &kept));
                    assert_eq!(self.past.tail(), self.room.state.tail());
                }
                FromChannel::Attach(attach) => self.on_joined(&attach),
                FromChannel::Answer { request, frame, .. } => self.on_page(request, &frame),
                FromChannel::Pulled { conns, after, page } => {
                    for _ in conns {
                        let at = self.pulls.iter().position(|(cursor, _)| *cursor == after).unwrap();
                        self.pulls.remove(at);
                    }
                    self.on_pulled(after, page);
                }
                FromChannel::Refused { request, code, .. } => self.on_refused(request, code),
                FromChannel::Detach { users, .. } => {
                    for user in users.iter().filter_map(|user| self.here.take(&**user)) {
                        self.room.give(Input::Detached { arbiter: 0, device: key(user, 1) });
                        self.room.count("put out");
                    }
                }
                _ => {}
            }
        }
    }

    fn on_refused(&mut self, request: u32, code: Code) {
        if request == 0 {
            return self.room.count("a send refused");
        }
        // Whoever left and comes again while a page of his waits is unknown for a moment.
        assert!(matches!(code, Code::Busy | Code::RoomUnavailable), "{code}");
        self.asked.remove(&request);
        if let Some((user, _)) = self.joins.remove(&request) {
            self.here.remove(user);
        }
        self.room.count("busy");
    }

    fn ask(&mut self, user: &'static str, start: Option<Seq>, direction: Direction, limit: u32) {
        self.request += 1;
        let (at, tail, kept_from) = (self.room.now.unix_ms, self.past.tail(), self.past.kept_from);
        let since = self.since(user).min(tail + 1);
        let read_to = self.read_to(start, direction, limit);
        let asked = Asked { user, start, direction, limit, at, tail, kept_from, since, read_to };
        self.asked.insert(self.request, asked);
        let (conn, request, device) = (CONN, self.request, key(user, 1));
        self.room.give(Input::Fetch(Fetch { conn, request, device, start, direction, limit }));
        self.hear();
    }

    fn limit(&self, limit: u32) -> u32 {
        if limit == 0 { self.limits.page_records } else { limit.min(self.limits.page_records_max) }
    }

    /// How far a page goes that others may wait for.
    fn read_to(&self, start: Option<Seq>, direction: Direction, limit: u32) -> Seq {
        let of = |start: Option<Seq>| start.map(|start| start.max(1));
        let is_start = |other: Option<Seq>| start.is_none() || other.is_none() || of(start) == of(other);
        let same = |asked: &&Asked| {
            is_start(asked.start) && asked.direction == direction && self.limit(asked.limit) == self.limit(limit)
        };
        let asked = self.asked.values().filter(same).map(|asked| asked.read_to);
        let pulled = self.pulls.iter().filter(|(after, _)| {
            let pages = self.limit(limit) == self.limits.page_records_max && direction == Direction::Forward;
            pages && is_start(Some(after + 1))
        });
        asked.chain(pulled.map(|(_, tail)| *tail)).min().unwrap_or(self.past.tail())
    }

    fn on_page(&mut self, request: u32, frame: &Bytes) {
        let asked = self.asked.remove(&request).unwrap();
        let Asked { user, start, direction, limit, at, tail, kept_from, since, read_to } = asked;
        let told = Told::of(frame);
        told.check_next(direction);
        assert!((tail..=self.past.tail()).contains(&told.tail));
        let now = self.room.now.unix_ms;
        for (seq, said) in &told.all {
            match said {
                Said::Shown(frame) => {
                    assert_eq!(*frame, self.past.records[*seq as usize - 1].frame, "seq {seq}");
                    let hidden = *seq < since || *seq < kept_from || self.past.is_expired(*seq, at);
                    assert!(!hidden, "{user} is shown {seq}, since {since}: {asked:?}");
                }
                Said::Gap(why) => {
                    // He may have come again meanwhile.
                    let since = since.max(self.since(user).min(self.past.tail() + 1));
                    let is_true = self.past.is_true(*seq, *why, since, now);
                    assert!(is_true, "{why:?} {seq} for {user}, since {since}: {asked:?}");
                    self.room.count(format!("{why:?}"));
                }
            }
        }
        // It begins where it is to…
        if let Some((low, high)) = told.seqs() {
            match direction {
                Direction::Forward => assert!(start.is_none_or(|start| start.max(1) == low), "{asked:?}: {told:?}"),
                Direction::Backward => {
                    assert_eq!(high, start.unwrap_or(told.tail).min(told.tail), "{asked:?}: {told:?}")
                }
            }
        }
        // …and holds no more than it may, and no less than it could.
        let limit = self.limit(limit) as usize;
        let bytes_max = self.limits.page_bytes_max as usize;
        assert!(told.shown <= limit && (told.bytes <= bytes_max || told.shown == 1), "{asked:?}: {told:?}");
        if let Some(next) = told.next {
            let more = told.bytes + self.past.size(next) as usize;
            let gap = told.all.iter().any(|(_, said)| matches!(said, Said::Gap(_)));
            // It may have been read before, when the tail was there: for somebody else, or while this one waited.
            let before = direction == Direction::Forward && (read_to + 1..=told.tail).contains(&next);
            assert!(told.all.len() == limit || more > bytes_max || gap || before, "{asked:?}: {told:?}");
            self.room.count(match (told.shown == limit, more > bytes_max) {
                (true, _) => "full page",
                (_, true) => "page of all bytes",
                _ if before && !gap => "page that ends at the tail of before",
                _ => "page that ends with a gap",
            });
        }
        self.room.count(if told.bytes > bytes_max { "page of one long record" } else { "page" });
        self.newest_page = Some(told);
    }

    /// A stream for a subscriber whose cursor is `after`.
    fn on_pulled(&mut self, after: Seq, page: Option<(Seq, Bytes)>) {
        let Some((last, stream)) = page else { return self.room.count("pull refused") };
        let mut at = after;
        for frame in frames(&stream) {
            let body = &frame[HEADER_BYTES..];
            if Header::from_bytes(frame.first_chunk().unwrap()).kind == Kind::Gap as u16 {
                let gap: Gap<'_> = parlor_protocol::decode(body).unwrap();
                assert_eq!(gap.from, at + 1);
                at = gap.to;
                for seq in gap.from..=gap.to {
                    assert!(self.past.is_true(seq, gap.why, 0, self.room.now.unix_ms), "{gap:?}: {seq}");
                }
            } else {
                at += 1;
                assert_eq!(frame, self.past.records[at as usize - 1].frame);
            }
        }
        assert_eq!(at, last);
        assert!(last > after || after == self.past.tail(), "a pull below the tail brings something");
        self.room.count("pull");
    }

    /// Bob becomes a member, or is one no more.
    fn add_or_remove_bob(&mut self) {
        self.rest();
        let bob = vec!["bob".parse().unwrap()];
        let next = self.past.tail() + 1;
        if self.since.remove("bob member").is_some() {
            self.room.change(What::Remove(bob));
        } else {
            self.room.change(What::Set(Role::Member, bob));
            self.since.insert("bob member", next);
        }
        self.since.insert("bob", next);
        self.rest();
        self.room.count("members changed");
    }

    fn turn(&mut self) -> bool {
        let input = self.room.next();
        let some = input.is_some();
        if let Some(Input::Rights { device, member: Ok(None) }) = &input {
            // Of the past nothing is a stranger's: what he may read begins when he comes.
            let user = USERS.iter().find(|user| ***user == *device.user).unwrap();
            self.since.insert(user, self.past.tail() + 1);
        }
        input.into_iter().for_each(|input| self.room.give(input));
        self.hear();
        some
    }

    fn rest(&mut self) {
        self.room.store.faults(|faults| faults.busy_read_one_in = 0);
        while self.turn() || self.room.store.step(usize::MAX) || self.room.store.step_reader() {}
        assert!(self.asked.is_empty() && self.joins.is_empty() && self.pulls.is_empty(), "everything is answered");
    }

    fn die(&mut self, crash: Option<Crash>) {
        let held = (self.room.state.epoch(), self.past.records.iter().map(|record| record.frame.clone()).collect());
        self.room.die(crash);
        if self.room.state.epoch() != held.0 {
            self.before.push(held);
            self.room.count("new epoch");
        }
        let tail = self.room.state.tail();
        let kept = self.kept();
        self.past.lose_behind(tail);
        self.past.dropped_below = self.past.dropped_below.min(tail + 1);
        let stored = self.room.store.frames(&"room".parse().unwrap());
        stored.into_iter().skip(self.past.records.len()).for_each(|frame| self.past.commit(frame, &kept));
        self.past.keep(&kept);
        // What was lost is given again, and is new to all.
        self.since.values_mut().for_each(|since| *since = (*since).min(tail + 1));
        self.nonce += 1_000;
        self.here.clear();
        self.asked.clear();
        self.joins.clear();
        self.pulls.clear();
        self.join("ann", JoinFrom::Tail);
        while !self.here.contains("ann") || !self.joins.is_empty() {
            if self.joins.is_empty() {
                self.join("ann", JoinFrom::Tail);
            }
            let _ = self.turn() || self.room.store.step_reader();
        }
    }

    fn step(&mut self) {
        let user = self.room.chance.pick(&USERS);
        let is_in = self.here.contains(user) && self.joins.values().all(|(joining, _)| *joining != user);
        let near = self.room.chance.any() % (self.past.tail() + 3);
        let start = Some(near).filter(|_| !self.room.chance.one_in(5));
        let direction = self.room.chance.pick(&[Direction::Forward, Direction::Backward]);
        match self.room.chance.below(1_000) {
            0..250 => self.say(),
            250..400 if is_in => {
                let limit = self.room.chance.pick(&[0, 1, 2, 4, 7, 1_000]);
                // The same page again may be read once for both.
                if !self.room.chance.one_in(3) {
                    self.wanted = (start, direction, limit);
                }
                let (start, direction, limit) = self.wanted;
                self.ask(user, start, direction, limit);
            }
            400..430 => {
                let (after, tail) = (near.min(self.past.tail()), self.past.tail());
                self.pulls.push((after, tail));
                self.room.give(Input::Pull { conn: CONN, after });
                self.hear();
            }
            430..480 if user != "ann" && self.joins.is_empty() => {
                let from = self.from(near);
                self.join(user, from);
            }
            480..640 => drop(self.turn()),
            640..720 => drop(self.room.store.step(2)),
            720..860 => drop(self.room.store.step_reader()),
            860..900 => {
                let ms = self.room.chance.pick(&[1, 20, 100]);
                self.room.pass(ms);
            }
            900..915 => self.room.sweep(),
            915..930 => {
                let busy = self.room.chance.pick(&[0, 0, 3]);
                self.room.store.faults(|faults| faults.busy_read_one_in = busy);
            }
            930..940 => self.add_or_remove_bob(),
            940..948 => {
                let crash = self.room.chance.pick(&[None, Some(Crash::Process), Some(Crash::Power)]);
                self.die(crash);
            }
            948..958 => self.walk(),
            958..980 if !self.is_memory() => self.room.press(),
            _ => {}
        }
    }
}

fn history(seed: u64) -> Counts {
    let mut world = World::new(seed);
    let steps = 50 + world.room.chance.below(300);
    (0..steps).for_each(|_| world.step());
    world.walk();
    world.die(Some(Crash::Process));
    world.rest();
    (0..4).for_each(|_| world.walk());
    world.room.counts
}

#[test]
fn pages_joined_together_are_the_past() {
    let must_happen = [
        "page",
        "full page",
        "fell off for others",
        "page of all bytes",
        "page that ends at the tail of before",
        "page of one long record",
        "pull",
        "busy",
        "Expired",
        "Trimmed",
        "NotYours",
        "join",
        "join: NewEpoch",
        "join: AboveTail",
        "join: NotYours",
        "join: Trimmed",
        "join: Expired",
        "members changed",
        "new epoch",
        "walk Forward",
        "walk Backward",
        "death: None",
        "death: Some(Power)",
    ];
    crate::run(2_000, history, &must_happen);
}
