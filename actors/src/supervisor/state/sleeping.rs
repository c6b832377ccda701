//! Rooms that nobody touches: found, put to sleep, woken.
//!
//! All running rooms are asked in turn whether they are idle. One that is has its channel let go by all relays, while
//! whoever wants the room waits here, and the channel says how that ended: it stays, or the room is asleep. Then a room
//! with subscribers is kept in mind, since these have to be told of its next channel; any other is forgotten.

use std::{
    collections::{HashMap, VecDeque},
    mem::take,
};

use parlor_protocol::{Name, RoomNumber};

use super::{Effect, Room, State, Status};
use crate::{
    arbiters::Arbiters,
    channel::state::Rest,
    limits::Limits,
    port::{Generation, Now},
    restart::Intensity,
};

/// The longest time between two steps of the walk over the rooms.
const STEP_MS_MAX: u64 = 500;

/// Each room is asked so many times while it is idle for long enough.
const ASKS: u64 = 4;

/// What a supervisor is told about the sleep of rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is time to ask some rooms.
    Walk,
    /// What a channel says of its room.
    Rest {
        /// Which room.
        room: RoomNumber,
        /// Which channel of it.
        generation: Generation,
        /// What it says.
        rest: Rest,
    },
    /// A relay's subscriber wants something of a room that sleeps.
    Wake(RoomNumber),
    /// A relay has no subscribers of a room that sleeps any more.
    Forgot {
        /// Which room.
        room: RoomNumber,
        /// Which relay.
        arbiter: u16,
    },
}

/// What a supervisor wants done about the sleep of rooms.
#[derive(Debug)]
pub enum Bed<H> {
    /// Ask a channel whether its room is idle.
    Ask(H),
    /// Have all relays let a channel go.
    LetGo(RoomNumber, H),
    /// Tell all relays that a channel that they let go stays.
    Awake(RoomNumber, H),
    /// Tell all relays that a channel that they let go has ended.
    Asleep(RoomNumber),
    /// Tell a channel whom to expect, then all relays who runs a room now that slept.
    Woken {
        /// Which room.
        room: RoomNumber,
        /// Its channel.
        handle: H,
        /// The arbiters that had subscribers when it fell asleep.
        expected: Arbiters,
        /// Whether the channel is told all that changed meanwhile.
        trusted: bool,
    },
    /// Tell all relays that a room that sleeps cannot be woken now.
    NotWoken(RoomNumber),
}

/// How many rooms there are, and what has become of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Rooms that are loaded, or about to be.
    pub loaded: usize,
    /// Rooms that sleep and have subscribers.
    pub asleep: usize,
    /// How often a room was put to sleep.
    pub sleeps: u64,
    /// How often a room with subscribers was woken.
    pub wakes: u64,
    /// Channels that died.
    pub deaths: u64,
    /// Sessions that panicked.
    pub sessions_failed: u64,
}

/// Rooms that sleep, and the walk over those that do not.
#[derive(Debug, Default)]
pub(super) struct Sleepers {
    /// By name: those with subscribers.
    asleep: HashMap<Name, Sleeper>,
    /// Channels that run, and some that did, in the order in which they are asked.
    pub(super) round: VecDeque<(RoomNumber, Generation)>,
    /// When the last step was made, on the monotonic clock.
    stepped: Option<u64>,
    /// What the last steps owe, in rooms times milliseconds.
    owed: u64,
    pub(super) sleeps: u64,
    pub(super) wakes: u64,
}

#[derive(Debug)]
struct Sleeper {
    number: RoomNumber,
    subscribed: Arbiters,
    /// Something changed of which its next channel is not told.
    changed: bool,
}

/// How often to say [`Said::Walk`]; `None` for never.
#[must_use]
pub fn walk_interval_ms(limits: &Limits) -> Option<u64> {
    (limits.room_idle_ms > 0).then(|| (limits.room_idle_ms / ASKS).clamp(1, STEP_MS_MAX))
}

impl Sleepers {
    pub(super) fn len(&self) -> usize {
        self.asleep.len()
    }

    /// A channel runs: it is asked from now on.
    pub(super) fn runs(&mut self, room: RoomNumber, generation: Generation) {
        self.round.push_back((room, generation));
    }

    pub(super) fn forget(&mut self, name: &Name) {
        self.asleep.remove(name);
    }

    pub(super) fn number(&self, name: &Name) -> Option<RoomNumber> {
        self.asleep.get(name).map(|sleeper| sleeper.number)
    }

    /// A room changed that sleeps, and no channel will be told.
    pub(super) fn changed(&mut self, name: &Name) {
        if let Some(sleeper) = self.asleep.get_mut(name) {
            sleeper.changed = true;
        }
    }

    /// How many rooms to ask now, so that each is asked often enough.
    fn step(&mut self, now_mono: u64, idle_ms: u64) -> usize {
        let since = now_mono.saturating_sub(self.stepped.replace(now_mono).unwrap_or(now_mono));
        let count = self.round.len() as u64;
        // What is owed is never more than one round.
        self.owed = self.owed.saturating_add(count.saturating_mul(since).saturating_mul(ASKS));
        let due = (self.owed / idle_ms.max(1)).min(count);
        self.owed = if due == count { 0 } else { self.owed % idle_ms.max(1) };
        usize::try_from(due).unwrap_or(usize::MAX)
    }
}

impl<H: Clone, S: Clone, W> State<H, S, W> {
    /// How many rooms there are, and what has become of others.
    #[must_use]
    pub fn census(&self) -> Census {
        Census {
            loaded: self.rooms.len(),
            asleep: self.sleepers.len(),
            sleeps: self.sleepers.sleeps,
            wakes: self.sleepers.wakes,
            deaths: self.deaths,
            sessions_failed: self.failing.count,
        }
    }

    /// Whether a room sleeps and has subscribers.
    #[must_use]
    pub fn sleeps(&self, name: &Name) -> bool {
        self.sleepers.number(name).is_some()
    }

    pub(super) fn on_said(&mut self, now: Now, said: Said) {
        match said {
            Said::Walk => self.on_walk(now),
            Said::Rest { room, generation, rest } => self.on_rest(room, generation, rest),
            Said::Wake(room) => self.on_wake(room),
            Said::Forgot { room, arbiter } => self.on_forgot(room, arbiter),
        }
    }

    fn on_walk(&mut self, now: Now) {
        if self.sweeping.is_over() {
            return; // The engine ends.
        }
        for _ in 0..self.sleepers.step(now.mono_ms, self.limits.room_idle_ms) {
            let Some((number, current)) = self.sleepers.round.pop_front() else { return };
            let room = self.names.get(&number).and_then(|name| self.rooms.get(name));
            match room.map(|room| &room.status) {
                Some(Status::Running { generation, handle }) if *generation == current => {
                    self.effects.push_back(Effect::Sleep(Bed::Ask(handle.clone())));
                }
                Some(Status::Falling { generation, .. }) if *generation == current => {}
                // It is no more.
                _ => continue,
            }
            self.sleepers.round.push_back((number, current));
        }
    }

    fn on_rest(&mut self, number: RoomNumber, told: Generation, rest: Rest) {
        let Some(name) = self.names.get(&number).cloned() else { return };
        let Some(room) = self.rooms.get_mut(&name) else { return };
        match (&mut room.status, rest) {
            (Status::Running { generation, handle }, Rest::Idle) if *generation == told && room.ending.is_none() => {
                let handle = handle.clone();
                self.effects.push_back(Effect::Sleep(Bed::LetGo(number, handle.clone())));
                room.status = Status::Falling { generation: told, handle, waiting: Vec::new(), wanted: false };
            }
            (Status::Falling { generation, handle, waiting, .. }, Rest::Awake) if *generation == told => {
                let (handle, waiting) = (handle.clone(), take(waiting));
                room.status = Status::Running { generation: told, handle: handle.clone() };
                self.effects.push_back(Effect::Sleep(Bed::Awake(number, handle.clone())));
                self.tell_untold(&name, &handle);
                let resolved = |(waiter, _)| Effect::Resolved { waiter, room: Ok((number, handle.clone())) };
                self.effects.extend(waiting.into_iter().map(resolved));
            }
            (Status::Falling { generation, .. }, Rest::Asleep(subscribed)) if *generation == told => {
                self.on_asleep(name, number, subscribed);
            }
            _ => {}
        }
    }

    /// A room's channel has ended, since nobody wanted anything of it.
    fn on_asleep(&mut self, name: Name, number: RoomNumber, subscribed: Arbiters) {
        let Some(room) = self.rooms.remove(&name) else { return };
        let Status::Falling { waiting, wanted, .. } = room.status else { return };
        if let Some(waiter) = room.ending {
            self.gone(number, waiter);
            return self.resolve_again(&name, waiting);
        }
        self.sleepers.sleeps += 1;
        if subscribed.is_empty() {
            self.names.remove(&number);
        } else {
            self.effects.push_back(Effect::Sleep(Bed::Asleep(number)));
            self.sleepers.asleep.insert(name.clone(), Sleeper { number, subscribed, changed: false });
        }
        if wanted || !waiting.is_empty() || !room.untold.is_empty() {
            let create = waiting.first().and_then(|(_, create)| *create);
            let status = Status::Loading { waiting };
            // That it was rebuilt lately is still so.
            let room = Room { status, number: None, restarts: room.restarts, untold: room.untold, ending: None };
            self.rooms.insert(name.clone(), room);
            self.effects.push_back(Effect::Load { name, create });
        }
    }

    fn on_wake(&mut self, number: RoomNumber) {
        let Some(name) = self.names.get(&number).cloned() else { return };
        match self.rooms.get_mut(&name).map(|room| &mut room.status) {
            Some(Status::Falling { wanted, .. }) => *wanted = true,
            // The relays hear of it when it is there.
            Some(Status::Loading { .. } | Status::Running { .. }) => {}
            Some(Status::Resting { .. }) => self.effects.push_back(Effect::Sleep(Bed::NotWoken(number))),
            None => {
                let sleeps = self.sleepers.number(&name) == Some(number);
                if sleeps && !self.load(name) {
                    self.effects.push_back(Effect::Sleep(Bed::NotWoken(number)));
                }
            }
        }
    }

    fn on_forgot(&mut self, number: RoomNumber, arbiter: u16) {
        let Some(name) = self.names.get(&number) else { return };
        let Some(sleeper) = self.sleepers.asleep.get_mut(name).filter(|sleeper| sleeper.number == number) else {
            return;
        };
        sleeper.subscribed.remove(arbiter);
        if sleeper.subscribed.is_empty() {
            self.sleepers.asleep.remove(name);
            if !self.rooms.contains_key(name) {
                self.names.remove(&number);
            }
        }
    }

    /// Loads a room for which nobody waits here; false if too many are loaded.
    pub(super) fn load(&mut self, name: Name) -> bool {
        let may = self.rooms.len() < self.limits.rooms_loaded_max;
        if may {
            let status = Status::Loading { waiting: Vec::new() };
            let room = Room { status, number: None, restarts: Intensity::default(), untold: Vec::new(), ending: None };
            self.rooms.insert(name.clone(), room);
            self.effects.push_back(Effect::Load { name, create: None });
        }
        may
    }

    /// A room is loaded: those who were there before it slept are told.
    pub(super) fn wake(&mut self, name: &Name, number: RoomNumber, handle: &H) {
        if self.sleepers.number(name) != Some(number) {
            return;
        }
        let Some(Sleeper { subscribed, changed, .. }) = self.sleepers.asleep.remove(name) else { return };
        self.sleepers.wakes += 1;
        let handle = handle.clone();
        let woken = Bed::Woken { room: number, handle, expected: subscribed, trusted: !changed };
        self.effects.push_back(Effect::Sleep(woken));
    }

    /// A room could not be loaded: those who were there before it slept are told, and it sleeps on.
    pub(super) fn not_woken(&mut self, name: &Name, untold: bool) {
        if let Some(sleeper) = self.sleepers.asleep.get_mut(name) {
            sleeper.changed |= untold;
            let number = sleeper.number;
            self.effects.push_back(Effect::Sleep(Bed::NotWoken(number)));
        }
    }
}
