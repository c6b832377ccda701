//! Sleep: whether a room is idle, how it goes to sleep, and how one that was asleep begins.
//!
//! The channel is asked; if nobody has touched the room for long and nothing is under way, it says so, and has every relay
//! let it go. What relays sent before comes before they say that they have, so when all have said it the channel knows
//! whether the room was touched meanwhile, and either is asleep or stays.
//!
//! A room that is woken had subscribers, and their relays have them still. Until each relay has told of its own, everything
//! else waits, so that it finds the room as it was. Nothing is loaded for a subscriber before it asks for something.

use std::{
    collections::{HashMap, VecDeque},
    mem::take,
};

use parlor_protocol::{Code, message::Durability};

use super::{BUSY_RETRY_MS, Effect, Input, State};
use crate::{
    arbiters::Arbiters,
    channel::refill::Refill,
    members::{Changed, rights::Act},
    message::Returning,
    port::{DeviceKey, Mark, Now},
};

/// While memory is short, a room sleeps after this part of the time: as often as it is asked.
const EARLY: u64 = 4;

/// What a channel is told about its room's sleep.
#[derive(Debug)]
pub enum Sleep {
    /// The supervisor asks whether the room is idle.
    Ask,
    /// A relay has let the channel go: nothing follows from this arbiter unless the room stays awake.
    LetGo(u16),
    /// The room was asleep and had subscribers on these arbiters. Each tells of them. The first input of all.
    Expect(Arbiters),
    /// A relay's subscribers of before the sleep. What they may do has not changed, or is told as a change.
    Woken {
        /// Which arbiter.
        arbiter: u16,
        /// One entry for each subscriber.
        devices: Vec<Returning>,
    },
}

/// What a channel says about its room's sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// The room is idle: the relays may let the channel go.
    Idle,
    /// The room was touched meanwhile, and stays awake.
    Awake,
    /// The room is asleep, and has subscribers on these arbiters. Ends the channel.
    Asleep(Arbiters),
}

/// Where a room stands between awake and asleep.
#[derive(Debug, Default)]
pub(super) struct Sleeping {
    /// When somebody last wanted something, on the monotonic clock.
    touched: Option<u64>,
    falling: Option<Falling>,
    /// Arbiters that have not told of their subscribers…
    expected: Arbiters,
    /// …and what waits for that.
    gate: VecDeque<Input>,
    /// Whether the room was asleep before.
    woken: bool,
    /// What devices asked for that were there before the room slept, and are not loaded yet.
    late: HashMap<DeviceKey, Vec<Input>>,
}

#[derive(Debug)]
struct Falling {
    /// Relays that have not let go.
    holding: Arbiters,
    /// Whether the room was touched since it was found idle.
    stirred: bool,
}

impl State {
    pub(super) fn on_sleep(&mut self, now: Now, sleep: Sleep) {
        match sleep {
            Sleep::Ask => self.on_ask_idle(now),
            Sleep::LetGo(arbiter) => self.on_let_go(arbiter),
            Sleep::Expect(arbiters) => (self.sleep.expected, self.sleep.woken) = (arbiters, true),
            Sleep::Woken { arbiter, devices } => {
                for Returning { device, member, met } in devices {
                    self.subscribers[usize::from(arbiter)] += 1;
                    self.users.attach(&device.user, device.tag);
                    self.devices.returns(&device, member, met);
                }
                self.people.adopting.push(arbiter);
                self.finish_adoptions();
                self.arrived(now, arbiter);
            }
        }
    }

    /// Whether an input may be taken now: it is given back, or kept until it may.
    pub(super) fn enter(&mut self, now: Now, input: Input) -> Option<Input> {
        if touches(&input) {
            self.sleep.touched = Some(now.mono_ms);
            if let Some(falling) = &mut self.sleep.falling {
                falling.stirred = true;
            }
            if self.is_waking() && !matches!(input, Input::Adopt { .. }) {
                self.sleep.gate.push_back(input);
                return None;
            }
            if self.sleep.woken {
                return self.enter_woken(now, input);
            }
        }
        Some(input)
    }

    /// An arbiter has told of its subscribers; when all have, what waited for that goes on.
    pub(super) fn arrived(&mut self, now: Now, arbiter: u16) {
        self.sleep.expected.remove(arbiter);
        if !self.is_waking() {
            for input in take(&mut self.sleep.gate) {
                self.handle(now, input);
            }
            self.announce(now);
        }
    }

    /// Whether arbiters have yet to tell who was there before the room slept.
    pub(super) fn is_waking(&self) -> bool {
        !self.sleep.expected.is_empty()
    }

    /// A device of a woken room is loaded when it first asks for something.
    fn enter_woken(&mut self, now: Now, input: Input) -> Option<Input> {
        let key = match &input {
            Input::Publish(publish) => &publish.device,
            Input::Fetch(fetch) => &fetch.device,
            Input::Signal(signal) if signal.conn.is_some() => &signal.device,
            // It must not overtake what the device asked before.
            Input::Detached { device, .. } if self.sleep.late.contains_key(device) => device,
            Input::Changed { change, .. } => {
                if matches!(**change, Changed::Configured(..)) {
                    self.know_all();
                }
                return Some(input);
            }
            _ => return Some(input),
        };
        if !self.sleep.late.contains_key(key) {
            if self.devices.get(key).is_none_or(|device| device.is_ready()) {
                return Some(input);
            }
            let key = key.clone();
            if self.devices.wants_load(&key) {
                self.effects.push_back(Effect::LoadAnswers(key.clone()));
            }
            self.want_rights(&key);
            if self.devices.get(&key).is_none_or(|device| device.is_ready()) {
                return Some(input);
            }
            self.sleep.late.insert(key, vec![input]);
            return None;
        }
        let key = key.clone();
        let waits = self.sleep.late.entry(key).or_default();
        if waits.len() < self.limits.parked_per_device_max || matches!(input, Input::Detached { .. }) {
            waits.push(input);
        } else {
            self.refuse_late(now, input);
        }
        None
    }

    /// A part of a device was loaded, or could not be: what waited for it goes on.
    pub(super) fn device_came(&mut self, now: Now, key: &DeviceKey, failed: bool) {
        if !self.sleep.woken {
            return;
        }
        let kind = self.people.kind;
        let may_not_stay = self.devices.get(key).is_some_and(|device| {
            device.is_attached() && device.rights.is_some_and(|rights| !rights.may(kind, Act::Join))
        });
        if may_not_stay {
            self.expel();
        }
        let ready = self.devices.get(key).is_none_or(|device| device.is_ready());
        if !ready && !failed {
            return;
        }
        for input in self.sleep.late.remove(key).unwrap_or_default() {
            if ready || matches!(input, Input::Detached { .. }) {
                self.handle(now, input);
            } else {
                self.refuse_late(now, input);
            }
        }
    }

    fn refuse_late(&mut self, now: Now, input: Input) {
        match input {
            Input::Publish(publish) => self.refuse_for_now(now, &publish, "the store is busy"),
            Input::Fetch(fetch) => {
                self.refuse(fetch.conn, fetch.request, Code::Busy, BUSY_RETRY_MS, "the store is busy");
            }
            // A signal may be lost.
            _ => {}
        }
    }

    /// The room's own rules change: what each subscriber's user may do has to be known.
    fn know_all(&mut self) {
        let unknown = self.devices.each().filter(|(_, device)| device.is_attached() && device.rights.is_none());
        let unknown: Vec<DeviceKey> = unknown.map(|(key, _)| key.clone()).collect();
        unknown.iter().for_each(|device| self.adopt(device));
    }

    fn on_ask_idle(&mut self, now: Now) {
        self.look_at_shares();
        self.trim_hiding();
        let touched = *self.sleep.touched.get_or_insert(now.mono_ms);
        if now.mono_ms < touched.saturating_add(self.idle_ms()) || !self.may_sleep() || self.is_busy() {
            return;
        }
        self.note_sent();
        if self.users.dirty() > 0 {
            // It is asked again when they are saved.
            return self.save_now();
        }
        let holding = Arbiters::first(self.subscribers.len());
        // It may be falling asleep already, and have been touched since: a relay that let go before does not know by whom.
        self.sleep.falling.get_or_insert(Falling { holding, stirred: false });
        self.effects.push_back(Effect::Sleep(Rest::Idle));
    }

    fn on_let_go(&mut self, arbiter: u16) {
        let Some(falling) = &mut self.sleep.falling else { return };
        falling.holding.remove(arbiter);
        if !falling.holding.is_empty() {
            return;
        }
        let stays = falling.stirred || self.is_busy() || self.users.dirty() > 0;
        self.sleep.falling = None;
        let mut subscribed = Arbiters::default();
        for (arbiter, count) in (0..).zip(&self.subscribers) {
            if *count > 0 {
                subscribed.insert(arbiter);
            }
        }
        let rest = if stays { Rest::Awake } else { Rest::Asleep(subscribed) };
        self.effects.push_back(Effect::Sleep(rest));
    }

    /// How long nobody has to have touched the room. A `memory` room would lose what it has.
    fn idle_ms(&self) -> u64 {
        let early = self.options.durability != Durability::Memory && self.pools.are_short();
        if early { self.limits.room_idle_ms / EARLY } else { self.limits.room_idle_ms }
    }

    /// Whether the room would be the same after a sleep.
    fn may_sleep(&self) -> bool {
        // The records of a memory room are nowhere else, and a store that has failed may not be able to load the room.
        let in_memory = self.options.durability == Durability::Memory;
        self.failed.is_none() && !(in_memory && self.subscribers() > 0)
    }

    /// Whether something is under way, whose end must not be missed. Marks that are not saved are looked at apart.
    fn is_busy(&self) -> bool {
        let records = self.turn_ending
            || !self.turn_records.is_empty()
            || !self.uncommitted.is_empty()
            || !self.waiting.is_empty()
            || !self.repeats.is_empty();
        let reads = self.reads.len() > 0
            || !self.counting.is_empty()
            || self.parked.len() > 0
            || matches!(self.refill, Refill::UnderWay(_));
        // Who watches it is told who comes, and what changed of its members is still to be recorded.
        let owes = self.gathering.is_some() || self.announces();
        let store = owes || self.held.asked || self.erasures.are_under_way() || self.saves.are_under_way();
        let wakes = self.is_waking() || !self.sleep.late.is_empty() || self.people.are_being_taken_up();
        records || reads || store || wakes || self.devices.is_busy() || self.users.is_busy()
    }

    /// What subscribers' users sent last is known from their devices' answers, which are forgotten here: it is saved.
    fn note_sent(&mut self) {
        let attached = self.devices.each().filter(|(_, device)| device.is_attached());
        let newest = attached.filter_map(|(key, device)| Some((key, device.window.as_ref()?.newest()?)));
        let sent: Vec<_> =
            newest.map(|(key, newest)| (key.user.clone(), Mark { seq: newest.seq, count: newest.count })).collect();
        for (user, mark) in sent {
            self.users.sent(&user, mark);
        }
    }
}

/// Whether somebody wants something of the room, or it changes.
fn touches(input: &Input) -> bool {
    match input {
        Input::Join(_)
        | Input::Publish(_)
        | Input::Fetch(_)
        | Input::Mark(_)
        | Input::FetchReaders(_)
        | Input::Ask(_)
        | Input::Signal(_)
        | Input::Delivered { .. }
        | Input::Pull { .. }
        | Input::Erase(_)
        | Input::EraseInMemory(_)
        | Input::Presence(_)
        | Input::Detached { .. }
        | Input::Adopt { .. }
        | Input::Changed { .. } => true,
        Input::Marks { .. }
        | Input::RoomMarks { .. }
        | Input::SaveMarks
        | Input::MarksSaved(_)
        | Input::EndOfTurn
        | Input::Committed(_)
        | Input::Failed(_)
        | Input::Answers { .. }
        | Input::Rights { .. }
        | Input::End
        | Input::Read { .. }
        | Input::Swept { .. }
        | Input::Trimmed(_)
        | Input::Target { .. }
        | Input::Sleep(_) => false,
    }
}
