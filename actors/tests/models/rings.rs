//! **Rooms together hold no more than they may, and nobody misses anything for it.** Many rooms in which long messages are
//! said, on a pool of memory for rings that is far too small for them. What all rings hold stays within it after every
//! step. Everybody gets every record once and in order, pushed or pulled, out of memory or out of the store; of a room in
//! memory he gets it or is told that it was trimmed, and the newest is always there.

use bytes::Bytes;
use parlor_actors::{
    channel::state::{Input, Sleep},
    limits::Limits,
    message::{Batch, FromChannel, Join},
    pools::Pools,
    port::RoomOptions,
    testkit::{Chance, Crash, with_deliver},
    tiers::{SendRate, Tiers},
};
use parlor_protocol::{
    Code, Header, Kind, Seq,
    frame::HEADER_BYTES,
    message::{Durability, Gap, GapReason, JoinFrom},
};

use crate::{
    Counts,
    past::frames,
    room::{CONN, Room, key, publish},
};

const DURABILITIES: [Durability; 3] = [Durability::Synced, Durability::Buffered, Durability::Memory];

/// A room, what was committed there, and one who hears of it.
struct Place {
    room: Room,
    durability: Durability,
    /// The frames since `begins`.
    log: Vec<Bytes>,
    begins: Seq,
    /// What he has, or was told to be gone, is everything up to here.
    cursor: Seq,
    pulling: bool,
    nonce: u64,
    /// The message that was refused for now, which comes again.
    again: Option<Bytes>,
    joined: bool,
}

impl Place {
    fn new(pools: &Pools, limits: &Limits, seed: u64, durability: Durability) -> Self {
        let options = RoomOptions { durability, ..RoomOptions::default() };
        let room = Room::beside(pools, seed, options, limits.clone(), Tiers::sending(SendRate::OFF));
        let mut place = Self {
            room,
            durability,
            log: Vec::new(),
            begins: 1,
            cursor: 0,
            pulling: false,
            nonce: 1,
            again: None,
            joined: false,
        };
        place.join();
        place
    }

    fn join(&mut self) {
        self.joined = false;
        while !self.joined {
            let (conn, device, from) = (CONN, key("ann", 1), JoinFrom::Tail);
            self.room.give(Input::Join(Join { conn, request: 0, device, from, follows: false }));
            self.hear(false);
            while self.turn(false) || self.room.store.step(usize::MAX) || self.room.store.step_reader() {}
        }
    }

    fn say(&mut self, bytes: usize) {
        let payload = self.again.take().unwrap_or_else(|| vec![b'x'; bytes].into());
        self.again = Some(payload.clone());
        self.room.give(Input::Publish(publish(key("ann", 1), 1, self.nonce, payload)));
        self.hear(true);
    }

    /// What the relay does: it pushes what follows the cursor, if the connection takes it.
    fn hear(&mut self, takes: bool) {
        while let Some(news) = self.room.told.pop_front() {
            match news {
                FromChannel::Committed { batch, stored, .. } => {
                    if stored.iter().any(|stored| stored.nonce == self.nonce) {
                        self.nonce += 1;
                        self.again = None;
                    }
                    let Some(Batch { first, last, frames: all }) = batch else { continue };
                    assert_eq!(first, self.begins + self.log.len() as Seq, "batches follow one another");
                    self.log.extend(frames(&all));
                    if takes && self.cursor + 1 == first && !self.pulling {
                        self.room.count("pushed");
                        self.cursor = last;
                    }
                }
                FromChannel::Pulled { after, page, .. } => {
                    assert_eq!(after, self.cursor);
                    self.pulling = false;
                    if let Some((last, page)) = page {
                        frames(&page).iter().for_each(|frame| self.on_pulled(frame));
                        assert_eq!(self.cursor, last, "a page says how far it goes");
                    }
                }
                FromChannel::Refused { request: 1, code, .. } => {
                    assert!(matches!(code, Code::Busy | Code::RoomUnavailable), "{code}");
                    let in_memory = self.durability == Durability::Memory;
                    self.room.count(if in_memory { "no memory for a message" } else { "the writer is busy" });
                }
                FromChannel::Attach(_) => self.joined = true,
                _ => {}
            }
        }
    }

    fn on_pulled(&mut self, frame: &Bytes) {
        if Header::from_bytes(frame.first_chunk().unwrap()).kind == Kind::Gap as u16 {
            let gap: Gap<'_> = parlor_protocol::decode(&frame[HEADER_BYTES..]).unwrap();
            assert_eq!((gap.from, gap.why), (self.cursor + 1, GapReason::TRIMMED));
            assert!(self.durability == Durability::Memory && gap.to <= self.room.state.tail(), "{gap:?}");
            self.cursor = gap.to;
            return self.room.count("told to be trimmed");
        }
        self.cursor += 1;
        assert_eq!(with_deliver(frame, |it| it.seq), self.cursor, "in order, and once");
        assert_eq!(*frame, self.log[(self.cursor - self.begins) as usize]);
        self.room.count("pulled");
    }

    fn pull(&mut self) {
        if self.cursor < self.room.state.tail() && !std::mem::replace(&mut self.pulling, true) {
            self.room.give(Input::Pull { conn: CONN, after: self.cursor });
            self.hear(true);
        }
    }

    fn turn(&mut self, takes: bool) -> bool {
        let Some(input) = self.room.next() else { return false };
        self.room.give(input);
        self.hear(takes);
        true
    }

    fn rest(&mut self) {
        while self.turn(true) || self.room.store.step(usize::MAX) || self.room.store.step_reader() {}
        assert!(!self.pulling);
    }

    /// The room is rebuilt: one in memory begins anew.
    fn die(&mut self) {
        self.rest();
        self.room.die(Some(Crash::Process));
        let tail = self.room.state.tail();
        if self.durability == Durability::Memory {
            (self.begins, self.cursor) = (tail + 1, tail);
            self.log.clear();
        }
        (self.pulling, self.again) = (false, None);
        self.join();
        self.nonce += 1_000;
    }
}

fn history(seed: u64) -> Counts {
    let mut chance = Chance::new(seed ^ 0x0914);
    let long = chance.pick(&[100, 2_000, 64 << 10]);
    let limits = Limits {
        ring_bytes_max: 3 * long,
        // Of each room less than one long message fits, once all have spoken.
        rings_bytes_max: 17 * long / 4,
        page_records: 4,
        writer_records_max: 1_000,
        ..Limits::default()
    };
    let pools = Pools::new(&limits);
    let rooms = 6 + chance.below(30);
    let place = |at: usize| Place::new(&pools, &limits, seed + at as u64, DURABILITIES[at % 3]);
    let mut places: Vec<Place> = (0..rooms).map(place).collect();
    let mut counts = Counts::new();
    for _ in 0..200 + chance.below(400) {
        let place = &mut places[chance.below(rooms)];
        match chance.below(100) {
            0..45 => place.say(chance.pick(&[1, long / 8, long])),
            45..70 => drop(place.turn(!chance.one_in(3))),
            70..78 => drop(place.room.store.step(3)),
            78..86 => drop(place.room.store.step_reader()),
            86..93 => place.pull(),
            93..99 => place.room.give(Input::Sleep(Sleep::Ask)),
            _ if chance.one_in(4) => place.die(),
            _ => {}
        }
        let held: usize = places.iter().map(|place| place.room.state.ring_bytes()).sum();
        assert_eq!(held, pools.ring_bytes.used(), "each says what it holds");
        assert!(held <= limits.rings_bytes_max, "rings hold {held} bytes of {}", limits.rings_bytes_max);
        if pools.ring_bytes.is_short() {
            *counts.entry("memory is short".into()).or_default() += 1;
        }
    }
    for place in &mut places {
        place.rest();
        while place.cursor < place.room.state.tail() {
            place.pull();
            place.rest();
        }
        assert_eq!(place.cursor + 1, place.begins + place.log.len() as Seq, "he has all there is");
        let newest_is_there = place.log.is_empty() || place.room.state.ring_bytes() > 0;
        assert!(place.durability != Durability::Memory || newest_is_there);
        for (what, times) in std::mem::take(&mut place.room.counts) {
            *counts.entry(what).or_default() += times;
        }
    }
    drop(places);
    assert_eq!((pools.ring_bytes.used(), pools.absent.used()), (0, 0), "all is given back");
    counts
}

#[test]
fn rooms_together_hold_no_more_than_they_may_and_nobody_misses_anything() {
    let must_happen = [
        "memory is short",
        "no memory for a message",
        "pulled",
        "pushed",
        "told to be trimmed",
        "death: Some(Process)",
    ];
    crate::run(1_000, history, &must_happen);
}
