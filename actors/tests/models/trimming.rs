//! **A room forgets what it is to forget, and nothing else.** A record's expiry is fixed when it is stored, by the shortest of
//! room, tier and message. Expired is unreadable at once, swept or not; so is what a room with `records_max` keeps no
//! longer. What a room keeps stays readable through sweeps, trims, changes of its options and deaths, and the store
//! holds little more than that. A room that no store has forgets by itself what a sweep would take.

use std::collections::BTreeMap;

use bytes::Bytes;
use parlor_actors::{
    channel::state::Input,
    limits::Limits,
    members::What,
    message::{Batch, Fetch, FromChannel, Join},
    port::RoomOptions,
    testkit::{Crash, with_deliver},
    tiers::{SendRate, Tier, TierNumber, Tiers},
};
use parlor_protocol::{
    Seq,
    frame::HEADER_BYTES,
    message::{Direction, Durability, JoinFrom, Joined},
};

use crate::{
    Counts,
    past::{Past, Said, Told, frames},
    room::{CONN, Room, key, publish},
};

/// What a room holds in memory; one that no store has keeps no more.
const RING_RECORDS: u64 = 8;
/// How long records of each tier live at most.
const TIERS: [u64; 2] = [0, 250];
/// How much more than it keeps a room may have in its store.
const RECORDS_SLACK: u64 = 64;
const BYTES_SLACK: u64 = 16 << 10;

struct World {
    room: Room,
    options: RoomOptions,
    past: Past,
    /// The expiry that each record is to have, by its nonce.
    expires: BTreeMap<u64, u64>,
    /// Pages that were asked for: when, and what was kept then.
    asked: BTreeMap<u32, (u64, Seq)>,
    nonce: u64,
    request: u32,
    swept_to: Seq,
    /// The store has deleted everything below, and some of that may never be told.
    deleted_below: Seq,
    /// What the last one who joined was told.
    joined: Option<Standing>,
}

/// What a room says of itself to one who joins.
#[derive(Clone, Copy)]
struct Standing {
    first: Seq,
    tail: Seq,
    unread: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let options = RoomOptions {
            durability: [Durability::Synced, Durability::Buffered, Durability::Memory][seed as usize % 3],
            lifetime_ms: [0, 400][seed as usize % 5 / 4],
            records_max: [0, 0, 4, 70][seed as usize / 2 % 4],
            bytes_max: [0, 9_000][seed as usize / 8 % 2],
            ..RoomOptions::default()
        };
        let tier = |lifetime_ms: u64| Tier { name: lifetime_ms.to_string(), lifetime_ms, send: SendRate::OFF };
        let tiers = Tiers::new(tier(TIERS[0]), vec![tier(TIERS[1])], None);
        let limits = Limits {
            ring_records_max: RING_RECORDS as usize,
            rings_bytes_max: if options.durability == Durability::Memory { 1 << 20 } else { 20_000 },
            sweep_records_max: 5,
            page_records_max: 20,
            ..Limits::default()
        };
        let mut world = Self {
            room: Room::new(seed, options, limits, tiers),
            options,
            past: Past::default(),
            expires: BTreeMap::new(),
            asked: BTreeMap::new(),
            nonce: 0,
            request: 0,
            swept_to: 1,
            deleted_below: 1,
            joined: None,
        };
        world.join();
        world
    }

    fn join(&mut self) {
        self.join_as("ann");
    }

    fn join_as(&mut self, user: &str) -> Standing {
        self.joined = None;
        let (conn, device) = (CONN, key(user, 1));
        self.room.give(Input::Join(Join { conn, request: 0, device, from: JoinFrom::Tail, follows: false }));
        self.hear();
        self.rest();
        self.joined.unwrap()
    }

    /// Somebody who has read nothing and said nothing looks in: what he is told is gone is gone by some rule, and everything
    /// else is unread for him.
    fn look_in(&mut self) {
        self.rest();
        let Standing { first, tail, unread } = self.join_as("bob");
        self.room.give(Input::Detached { arbiter: 0, device: key("bob", 1) });
        let now = self.room.now.unix_ms;
        let gone = |seq: Seq| seq < self.past.dropped_below || self.past.is_expired(seq, now);
        assert!((1..first).all(gone), "{first} is said to be the first of {tail}, which is too late");
        assert!(first >= self.past.kept_from, "{first} is said to be the first of {tail}, which is too early");
        assert_eq!(unread, tail + 1 - first, "of {first} to {tail}");
        if self.is_in_memory() {
            assert!(first > tail || !self.past.is_expired(first, now), "{first} has expired, and is there");
            self.room.count(if first > tail && tail > 0 { "empty in memory" } else { "looked into memory" });
        }
    }

    fn is_in_memory(&self) -> bool {
        self.options.durability == Durability::Memory
    }

    /// What the room is to keep.
    fn kept(&self) -> RoomOptions {
        let RoomOptions { records_max, .. } = self.options;
        let few = records_max > 0 && records_max < RING_RECORDS;
        let records_max = if self.is_in_memory() && !few { RING_RECORDS } else { records_max };
        RoomOptions { records_max, ..self.options }
    }

    fn say(&mut self) {
        self.nonce += 1;
        let tier = self.room.chance.below(TIERS.len());
        let lifetime = self.room.chance.pick(&[None, None, None, Some(0), Some(90), Some(300), Some(1_000)]);
        let payload = "x".repeat(self.room.chance.pick(&[1, 30, 700]));
        let mut publish = publish(key("ann", 1), 1, self.nonce, payload);
        (publish.tier, publish.lifetime_ms) = (TierNumber(tier as u8), lifetime);
        let shortest = [self.options.lifetime_ms, TIERS[tier], lifetime.unwrap_or(0)].into_iter().filter(|ms| *ms > 0);
        let expires = shortest.min().map_or(0, |ms| self.room.now.unix_ms + ms);
        self.expires.insert(self.nonce, expires);
        self.room.give(Input::Publish(publish));
        self.hear();
    }

    fn commit(&mut self, frame: Bytes) {
        with_deliver(&frame, |it| assert_eq!(it.expires, self.expires[&it.nonce], "the expiry of {}", it.seq));
        self.past.commit(frame, &self.kept());
        let seq = self.past.tail();
        assert!(seq == 1 || self.past.kept_from <= seq, "the newest is kept");
    }

    fn hear(&mut self) {
        while let Some(news) = self.room.told.pop_front() {
            match news {
                FromChannel::Committed { batch: Some(Batch { frames: all, .. }), .. } => {
                    frames(&all).into_iter().for_each(|frame| self.commit(frame));
                }
                FromChannel::Attach(attach) => {
                    let Joined { first, tail, unread, .. } =
                        parlor_protocol::decode(&attach.answer[HEADER_BYTES..]).unwrap();
                    self.joined = Some(Standing { first, tail, unread });
                }
                FromChannel::Answer { request, frame, .. } => self.on_page(request, &frame),
                FromChannel::Refused { code, .. } => self.room.count(format!("refused: {code}")),
                _ => {}
            }
        }
    }

    fn ask(&mut self) {
        self.request += 1;
        self.asked.insert(self.request, (self.room.now.unix_ms, self.past.kept_from));
        let start = Some(1 + self.room.chance.any() % (self.past.tail() + 1));
        let direction = self.room.chance.pick(&[Direction::Forward, Direction::Backward]);
        let (conn, request, device) = (CONN, self.request, key("ann", 1));
        self.room.give(Input::Fetch(Fetch { conn, request, device, start, direction, limit: 20 }));
        self.hear();
    }

    /// What is shown was readable when it was asked for, and what is not is gone now by some rule.
    fn on_page(&mut self, request: u32, frame: &Bytes) {
        let (at, kept_from) = self.asked.remove(&request).unwrap();
        for (seq, said) in Told::of(frame).all {
            match said {
                Said::Shown(frame) => {
                    assert_eq!(frame, self.past.records[seq as usize - 1].frame);
                    assert!(seq >= kept_from && !self.past.is_expired(seq, at), "{seq} is shown");
                    self.room.count("shown");
                }
                Said::Gap(why) => {
                    assert!(self.past.is_true(seq, why, 0, self.room.now.unix_ms), "{seq} is said to be {why:?}");
                    let swept = if seq < self.swept_to { " and swept" } else { "" };
                    self.room.count(format!("{why:?}{swept}"));
                }
            }
        }
    }

    fn configure(&mut self) {
        self.rest();
        let chance = &mut self.room.chance;
        self.options.lifetime_ms = chance.pick(&[0, 200, 900]);
        self.options.records_max = chance.pick(&[0, 0, 2, 10, 90]);
        self.options.bytes_max = chance.pick(&[0, 0, 500, 20_000]);
        self.room.change(What::Configure(self.options));
        self.rest();
        self.past.keep(&self.kept());
        self.room.count("configured");
    }

    fn turn(&mut self) -> bool {
        let Some(input) = self.room.next() else { return false };
        match &input {
            Input::Trimmed(Ok(_)) => self.room.count("trimmed"),
            Input::Swept { .. } => self.room.count("swept"),
            _ => {}
        }
        self.room.give(input);
        self.hear();
        true
    }

    fn rest(&mut self) {
        while self.turn() || self.room.store.step(usize::MAX) || self.room.store.step_reader() {}
        assert!(self.asked.is_empty());
    }

    fn die(&mut self, crash: Option<Crash>) {
        self.room.die(crash);
        self.asked.clear();
        let (tail, options) = (self.room.state.tail(), self.kept());
        self.past.lose_behind(tail);
        self.past.dropped_below = self.past.dropped_below.min(tail + 1);
        let stored = self.room.store.frames(&"room".parse().unwrap());
        stored.into_iter().skip(self.past.records.len()).for_each(|frame| self.commit(frame));
        self.past.keep(&options);
        // What was deleted stays gone, though a loss of power may take what pushed it out, told or not.
        self.past.dropped_below = self.past.dropped_below.max(self.deleted_below.min(self.past.tail() + 1));
        self.swept_to = self.swept_to.min(tail + 1);
        self.nonce += 1_000;
        self.join();
    }

    /// What the store has deleted is gone by some rule, and at rest it has not kept much that is.
    fn check_store(&mut self, swept: bool) {
        let Some((first, tail)) = self.room.store.extent(&"room".parse().unwrap()) else { return };
        let now = self.room.now.unix_ms;
        let told = (1..first.min(self.past.tail() + 1)).all(|seq| self.past.is_dropped(seq, now));
        if !told {
            // What is stored and not told yet has pushed out others.
            let mut stored = self.past.clone();
            let frames = self.room.store.frames(&"room".parse().unwrap());
            frames.into_iter().skip(self.past.records.len()).for_each(|frame| stored.commit(frame, &self.options));
            let gone = (1..first).all(|seq| stored.is_dropped(seq, now));
            assert!(gone, "the store begins at {first}, which is too late");
            self.past.dropped_below = self.past.dropped_below.max(first.min(self.past.tail() + 1));
        }
        self.deleted_below = first;
        self.swept_to = first.min(self.past.tail() + 1);
        if !swept || tail == 0 {
            return;
        }
        let held = (first..=tail).map(|seq| self.past.size(seq));
        let (records, bytes) = (held.clone().count() as u64, held.sum::<u64>());
        let RoomOptions { records_max, bytes_max, .. } = self.options;
        assert!(first > tail || !self.past.is_expired(first, now), "{first} has expired and is there after a sweep");
        let many = records_max > 0 && records > records_max + RECORDS_SLACK.max(records_max / 8);
        let much = bytes_max > 0 && bytes > bytes_max + BYTES_SLACK.max(bytes_max / 8);
        assert!(!many && !much, "{records} records and {bytes} bytes are held: {:?}", self.options);
        self.room.count("swept at rest");
    }

    fn step(&mut self) {
        match self.room.chance.below(1_000) {
            0..450 => self.say(),
            450..550 => self.ask(),
            550..690 => drop(self.turn()),
            690..760 => drop(self.room.store.step(3)),
            760..850 => drop(self.room.store.step_reader()),
            850..930 => {
                let ms = self.room.chance.pick(&[1, 1, 1, 10, 10, 10, 10, 60, 60, 60, 60, 500]);
                self.room.pass(ms);
            }
            930..960 => self.room.sweep(),
            960..975 => self.configure(),
            975..982 => {
                let crash = self.room.chance.pick(&[None, Some(Crash::Process), Some(Crash::Power)]);
                self.die(crash);
            }
            982..992 => self.sweep_all(),
            992..996 if !self.is_in_memory() => self.room.press(),
            _ => self.look_in(),
        }
        self.check_store(false);
    }

    fn sweep_all(&mut self) {
        self.rest();
        let mut before = 0;
        while before != self.swept_to {
            before = self.swept_to;
            self.room.sweep();
            self.rest();
            self.check_store(false);
        }
        self.check_store(true);
        self.look_in();
    }
}

fn history(seed: u64) -> Counts {
    let mut world = World::new(seed);
    let steps = 100 + world.room.chance.below(400);
    (0..steps).for_each(|_| world.step());
    world.sweep_all();
    world.die(Some(Crash::Process));
    (0..5).for_each(|_| world.ask());
    world.rest();
    world.sweep_all();
    world.room.counts
}

#[test]
fn a_room_forgets_what_it_is_to_forget_and_nothing_else() {
    let must_happen = [
        "shown",
        "Expired",
        "Expired and swept",
        "Trimmed",
        "Trimmed and swept",
        "trimmed",
        "swept",
        "swept at rest",
        "fell off for others",
        "looked into memory",
        "empty in memory",
        "configured",
        "death: None",
        "death: Some(Process)",
        "death: Some(Power)",
    ];
    crate::run(2_000, history, &must_happen);
}
