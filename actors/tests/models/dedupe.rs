//! **A retried send is one message.** The repeat of a nonce gets the first answer; other content under it is a conflict;
//! what is below a device's newest and not among its last answers is too old; what follows a send that was refused for
//! now is held back. Whatever was acknowledged as stored is known again after a death.

use std::collections::{BTreeMap, BTreeSet};

use parlor_actors::{
    channel::state::Input,
    limits::Limits,
    message::{FromChannel, Join, Returning, Stored},
    port::{Mark, RoomOptions, Store},
    testkit::{Crash, with_deliver},
    tiers::{SendRate, Tiers},
};
use parlor_protocol::{
    Code, Nonce, Seq,
    message::{Durability, JoinFrom},
};

use crate::{
    Counts,
    room::{CONN, Room, key, publish},
};

mod model;

use model::{Device, HOLD_BACK_MS, Model, Taken, Verdict, Who};

const ALL: [Who; 4] = [("ann", 1), ("ann", 2), ("bob", 1), ("cid", 1)];
const ABSENT_MAX: usize = 2;

struct World {
    room: Room,
    durability: Durability,
    model: Model,
    request: u32,
    /// Whose join is under way.
    joining: Option<Who>,
    /// The sends that are not answered, and what they are to be answered.
    asked: BTreeMap<u32, (Nonce, Verdict)>,
    /// The newest seq whose ack somebody got.
    acked: Seq,
    /// The nonces that each device has used, with the content of each.
    used: BTreeMap<Who, Vec<(Nonce, u8)>>,
    /// Whoever ceased to be there or to have something on its way, the last one last…
    left: Vec<Who>,
    /// …and who is like that now.
    idle: BTreeSet<Who>,
    /// A turn of the store's writer has failed or will.
    broken: bool,
    /// Up to which seq answers are forgotten in the store.
    forgotten: Seq,
}

fn limits(large: bool) -> Limits {
    Limits {
        answers_per_device_max: if large { 128 } else { 4 },
        absent_devices_per_room_max: ABSENT_MAX,
        writer_records_max: 6,
        hold_back_ms: HOLD_BACK_MS,
        ..Limits::default()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let limits = limits(seed.is_multiple_of(10));
        let durability =
            [Durability::Synced, Durability::Buffered, Durability::Memory, Durability::Synced][seed as usize % 4];
        let model = Model { window: limits.answers_per_device_max, ..Model::default() };
        let options = RoomOptions { durability, ..RoomOptions::default() };
        let room = Room::new(seed, options, limits, Tiers::sending(SendRate::OFF));
        Self {
            room,
            durability,
            model,
            request: 0,
            joining: None,
            asked: BTreeMap::new(),
            acked: 0,
            used: BTreeMap::new(),
            left: Vec::new(),
            idle: BTreeSet::new(),
            broken: false,
            forgotten: 0,
        }
    }

    /// Whether it is a history long enough for windows of 128 answers.
    fn is_long(&self) -> bool {
        self.model.window > 4
    }

    fn in_memory(&self) -> bool {
        self.durability == Durability::Memory
    }

    /// Sends something, and looks whether it is refused as it is to be.
    fn send(&mut self, who: Who, nonce: Nonce, content: u8) {
        self.request += 1;
        let (request, now) = (self.request, (self.room.now.unix_ms, self.room.now.mono_ms));
        let full = !self.in_memory() && self.room.store.budget().records() >= limits(false).writer_records_max;
        let verdict = self.model.publish(who, nonce, content, now, full);
        self.asked.insert(request, (nonce, verdict));
        let device = key(who.0, who.1);
        self.room.give(Input::Publish(publish(device, request, nonce, vec![content; 3])));
        self.hear();
        if matches!(verdict, Verdict::Refused(_)) {
            assert!(!self.asked.contains_key(&request), "{who:?} {nonce} is to be {verdict:?}");
        }
        self.room.count(match verdict {
            Verdict::Stored(_) => "stored".into(),
            Verdict::Repeat(seq) if seq > self.room.state.tail() => "repeat of what is on its way".into(),
            Verdict::Repeat(_) => "repeat".into(),
            Verdict::Refused(code) => format!("{code:?}").split(' ').next().unwrap().to_owned(),
        });
    }

    /// Compares what the channel answers with what it should.
    fn hear(&mut self) {
        while let Some(news) = self.room.told.pop_front() {
            match news {
                FromChannel::Committed { stored, .. } => stored.iter().for_each(|stored| self.on_stored(stored)),
                FromChannel::Refused { request, code, .. } if request > 0 => {
                    let (nonce, verdict) = self.asked.remove(&request).unwrap();
                    if code == Code::OutcomeUnknown {
                        assert!(self.model.failed && !matches!(verdict, Verdict::Refused(_)));
                        self.room.count("OutcomeUnknown");
                    } else {
                        assert_eq!(Verdict::Refused(code), verdict, "nonce {nonce}");
                    }
                }
                FromChannel::Attach(_) => self.joining = None,
                FromChannel::Refused { .. } => {
                    let who = self.joining.take().unwrap();
                    self.model.devices.get_mut(&who).unwrap().attached = false;
                    self.room.count("join refused");
                }
                _ => {}
            }
        }
    }

    fn on_stored(&mut self, stored: &Stored) {
        let (nonce, verdict) = self.asked.remove(&stored.request).unwrap();
        let told = if stored.duplicate { Verdict::Repeat(stored.seq) } else { Verdict::Stored(stored.seq) };
        assert_eq!((told, stored.nonce), (verdict, nonce));
        let taken = self.model.log[stored.seq as usize - 1];
        if self.model.log.iter().filter(|it| it.who == taken.who).count() > 128 {
            self.room.count("stored behind 128 others of its device");
        }
        assert_eq!((taken.nonce, taken.time), (stored.nonce, stored.time), "the answer is the first one");
        self.acked = self.acked.max(stored.seq);
    }

    /// The channel handles a message; false if there is none.
    fn turn(&mut self) -> bool {
        let Some(input) = self.room.next() else { return false };
        match &input {
            Input::Answers { device, answers: Ok(_) } => {
                if let Some(device) = self.model.devices.get_mut(&whose(&device.user, device.tag.0)) {
                    device.forgotten.get_or_insert(self.forgotten);
                }
            }
            Input::Failed(_) => self.model.failed = true,
            _ => {}
        }
        self.room.give(input);
        self.hear();
        self.forget_the_idle();
        true
    }

    /// Devices that are not there and have nothing on its way are forgotten, all but the last ones; those at once of which
    /// nothing was known yet.
    fn forget_the_idle(&mut self) {
        let pending: Vec<Who> =
            self.model.log[self.room.state.tail() as usize..].iter().map(|taken| taken.who).collect();
        let loading = &self.room.loading;
        let idle = |who: &Who, device: &Device| {
            !device.attached && !pending.contains(who) && !loading.contains(&(who.0.to_owned(), who.1))
        };
        let in_memory = self.in_memory();
        let unknown: Vec<Who> = (self.model.devices.iter())
            .filter(|(who, device)| match device.forgotten {
                // Without a store, whoever has sent nothing is nobody.
                Some(seq) => in_memory && self.model.known(**who, seq).is_empty(),
                None => true,
            })
            .map(|(who, _)| *who)
            .collect();
        let devices = &mut self.model.devices;
        devices.retain(|who, device| !idle(who, device) || !unknown.contains(who));
        let now: BTreeSet<Who> =
            devices.iter().filter(|(who, device)| idle(who, device)).map(|(who, _)| *who).collect();
        let mut new: Vec<Who> = now.difference(&self.idle).copied().collect();
        new.sort_by_key(|who| self.model.log.iter().rposition(|taken| taken.who == *who));
        self.left.extend(new);
        self.idle = now;
        let last = &self.left[self.left.len().saturating_sub(ABSENT_MAX)..];
        devices.retain(|who, device| !idle(who, device) || last.contains(who));
    }

    fn join(&mut self, who: Who) {
        let forgotten = self.in_memory().then_some(self.model.log.len() as Seq);
        let device = self.model.devices.entry(who).or_default();
        device.attached = true;
        // Without a store there is nothing to be loaded, and nothing is known, unless it is remembered.
        device.forgotten = device.forgotten.or(forgotten);
        self.joining = Some(who);
        self.idle.remove(&who);
        let device = key(who.0, who.1);
        self.room.give(Input::Join(Join { conn: CONN, request: 0, device, from: JoinFrom::Tail, follows: false }));
        self.hear();
    }

    fn leave(&mut self, who: Who) {
        self.model.devices.get_mut(&who).unwrap().attached = false;
        self.room.give(Input::Detached { arbiter: 0, device: key(who.0, who.1) });
        self.hear();
        self.forget_the_idle();
    }

    fn is_here(&self, who: Who) -> bool {
        self.model.devices.get(&who).is_some_and(|device| device.attached)
    }

    /// Whether the channel knows nothing of a device, not even one that is about to join.
    fn is_gone(&self, who: Who) -> bool {
        !self.model.devices.contains_key(&who) && !self.room.loading.contains(&(who.0.to_owned(), who.1))
    }

    fn rest(&mut self) {
        while self.turn() || self.room.store.step(usize::MAX) || self.room.store.step_reader() {}
        assert!(self.asked.is_empty(), "not answered: {:?}", self.asked);
    }

    fn die(&mut self, crash: Option<Crash>) {
        self.room.die(crash);
        let tail = self.room.state.tail();
        let lasts = self.durability == Durability::Synced
            || self.durability == Durability::Buffered && crash != Some(Crash::Power);
        assert!(!lasts || tail >= self.acked, "{} was acknowledged, the tail is {tail}", self.acked);
        self.room.count(if tail < self.model.log.len() as Seq { "lost" } else { "kept" });
        self.model.log.truncate(tail as usize);
        self.acked = self.acked.min(tail);
        self.check_log();
        self.model.devices.clear();
        self.model.failed = false;
        self.forgotten = self.forgotten.min(tail);
        (self.broken, self.idle) = (self.broken && crash.is_none(), BTreeSet::new());
        self.left.clear();
        self.joining = None;
        self.asked.clear();
        if self.room.chance.one_in(2) {
            // Some sessions outlive it, and their relay presents them to the successor.
            let devices = ALL.into_iter().filter(|_| self.room.chance.one_in(2)).collect::<Vec<_>>();
            for who in &devices {
                let forgotten = self.in_memory().then_some(0);
                self.model.devices.insert(*who, Device { attached: true, forgotten, held: None });
            }
            let returning =
                |who: (&str, u64)| Returning { device: key(who.0, who.1), member: false, met: Mark::default() };
            let devices = devices.into_iter().map(returning).collect();
            self.room.give(Input::Adopt { arbiter: 0, devices });
            self.room.count("adopted");
        }
    }

    /// The store has what was taken, as it was taken.
    fn check_log(&self) {
        let frames = self.room.store.frames(&"room".parse().unwrap());
        let stored = frames.iter().map(|frame| {
            with_deliver(frame, |it| {
                let who = whose(it.sender, it.device_tag.0);
                Taken { who, nonce: it.nonce, content: it.payload[0], time: it.time }
            })
        });
        let stored: Vec<Taken> = stored.collect();
        assert!(self.in_memory() || stored == self.model.log, "{stored:?}\n{:?}", self.model.log);
    }

    fn step(&mut self) {
        let who = self.room.chance.pick(&ALL);
        if self.broken && self.room.chance.one_in(30) {
            return self.die(Some(Crash::Process));
        }
        match self.room.chance.below(1_000) {
            0..380 if self.is_here(who) => self.send_something(who),
            0..15 if self.is_gone(who) => self.send_something(who),
            380..460 if !self.is_here(who) && self.joining.is_none() => self.join(who),
            460..480 if self.is_here(who) && self.joining != Some(who) => self.leave(who),
            480..700 => drop(self.turn()),
            700..800 => drop(self.room.store.step(2)),
            800..900 => drop(self.room.store.step_reader()),
            900..950 => {
                let ms = self.room.chance.pick(&[1, 30, 200]);
                self.room.pass(ms);
            }
            950..960 => {
                let busy = self.room.chance.pick(&[0, 0, 2]);
                self.room.store.faults(|faults| faults.busy_read_one_in = busy);
            }
            960..963 if !self.is_long() || self.room.chance.one_in(9) => {
                self.broken = true;
                self.room.store.faults(|faults| faults.fail_next_turn = true);
            }
            963..966 if !self.in_memory() => self.forget(),
            966..968 if !self.is_long() || self.room.chance.one_in(9) => {
                let crash = self.room.chance.pick(&[None, Some(Crash::Process), Some(Crash::Power)]);
                // A store that takes no more writes loads no room: it has to be opened again.
                self.die(crash.or(self.broken.then_some(Crash::Process)));
            }
            _ => {}
        }
    }

    fn send_something(&mut self, who: Who) {
        let used = self.used.entry(who).or_default();
        let newest = used.last().map_or(0, |(nonce, _)| *nonce);
        let chance = &mut self.room.chance;
        let content = 1 + chance.below(3) as u8;
        let recent = used.len().saturating_sub(if chance.one_in(4) { used.len() } else { 9 });
        let (nonce, content) = match chance.below(10) {
            0..6 => (newest + 1 + chance.any() % 3, content),
            6..8 if !used.is_empty() => used[recent + chance.below(used.len() - recent)],
            8 if !used.is_empty() => (used[recent + chance.below(used.len() - recent)].0, content),
            _ => (chance.any() % (newest + 2), content),
        };
        if nonce > newest {
            used.push((nonce, content));
        }
        self.send(who, nonce, content);
    }

    /// The horizon passes everything that is stored, or most of it.
    fn forget(&mut self) {
        self.rest();
        let before = self.room.now.unix_ms.saturating_sub(self.room.chance.pick(&[0, 100, 1_000]));
        self.room.store.forget_answers(&"room".parse().unwrap(), before);
        let forgotten = self.model.log.iter().take_while(|taken| taken.time < before).count() as Seq;
        self.forgotten = self.forgotten.max(forgotten);
        self.room.count("forgotten");
    }
}

fn whose(user: &str, tag: u64) -> Who {
    *ALL.iter().find(|(name, number)| *name == user && *number == tag).unwrap()
}

fn history(seed: u64) -> Counts {
    let mut world = World::new(seed);
    let steps = if seed.is_multiple_of(10) { 3_000 } else { 100 + world.room.chance.below(300) };
    (0..steps).for_each(|_| world.step());
    world.die(Some(Crash::Process));
    world.rest();
    world.check_log();
    world.room.counts
}

#[test]
fn a_retried_send_is_one_message() {
    let must_happen = [
        "stored",
        "repeat",
        "repeat of what is on its way",
        "stored behind 128 others of its device",
        "NonceConflict",
        "NonceTooOld",
        "HeldBack",
        "Busy",
        "NotJoined",
        "RoomUnavailable",
        "StoreUnavailable",
        "OutcomeUnknown",
        "join refused",
        "adopted",
        "forgotten",
        "lost",
        "death: None",
        "death: Some(Process)",
        "death: Some(Power)",
    ];
    crate::run(3_000, history, &must_happen);
}
