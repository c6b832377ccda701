//! The devices that a channel remembers: those attached, and those whose records are not committed yet.

use std::collections::{HashMap, hash_map::Entry};

use foldhash::fast::RandomState;
use parlor_protocol::{Nonce, Seq, message::Role};

use super::{absent::Absent, window::Window};
use crate::{
    members::rights::{Act, Kind, may},
    pools::Share,
    port::{Answer, DeviceKey, Mark},
};

/// What a channel knows of its devices.
///
/// A window is loaded when a device joins. When it is neither attached nor has records on their way the store has all of
/// it, and it may be dropped: that is done once many others have left since, as a client whose connection broke is soon
/// back. In a room without a store the windows that are kept are all there is.
#[derive(Debug)]
pub struct Devices<Waiting> {
    /// Boxed, so that the table has little to copy and to leave behind when it grows.
    devices: HashMap<DeviceKey, Box<Device<Waiting>>, RandomState>,
    absent: Absent<DeviceKey>,
    in_memory: bool,
}

/// What a device's user is in the room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// His role; `None` for a stranger.
    pub role: Option<Role>,
    /// Where the past is hidden: the first seq that he may read.
    pub since: Seq,
    /// How many countable records a stranger found when he came.
    pub count: u64,
    /// Subscribers of the device are being put out, whatever he may do now: what they asked for meanwhile is not done.
    pub out: bool,
}

impl Rights {
    /// Whether a subscriber may do that in such a room.
    #[must_use]
    pub fn may(self, kind: Kind, act: Act) -> bool {
        !self.out && may(kind, self.role, act)
    }

    /// How far the room was when a stranger came; nothing for a member.
    #[must_use]
    pub fn met(self) -> Mark {
        match self.role {
            None => Mark { seq: self.since.saturating_sub(1), count: self.count },
            Some(_) => Mark::default(),
        }
    }
}

/// One device.
#[derive(Debug)]
pub struct Device<Waiting> {
    /// Its answers; `None` until they are loaded.
    pub window: Option<Window>,
    loading: bool,
    /// What its user may do; `None` until that is loaded.
    pub rights: Option<Rights>,
    loading_rights: bool,
    /// Its user is a member as far as the relays know, for whom the channel before this one may have said so.
    pub was_member: bool,
    /// How far the room was when its user came as a stranger, to the channel before this one.
    pub met: Option<Mark>,
    /// A rebuilt room waits for its rights before it takes up the subscribers of the one before.
    pub adopted: bool,
    /// The lowest nonce that was refused for now, and until when later ones are held back.
    pub held: Option<(Nonce, u64)>,
    /// Records on their way to the store.
    pending: u32,
    attached: u32,
    /// It is absent since it was given this ticket.
    ticket: Option<u64>,
    waiting: Vec<Waiting>,
}

impl<Waiting> Devices<Waiting> {
    /// No device. `in_memory` says that there is no store; of those that left `absent_max` are kept, and no more than
    /// `share` may have.
    #[must_use]
    pub fn new(in_memory: bool, absent_max: usize, share: Share) -> Self {
        Self { devices: HashMap::default(), absent: Absent::new(absent_max, share), in_memory }
    }

    /// A subscriber of this device is there. True if its window has to be loaded.
    #[must_use]
    pub fn attach(&mut self, key: &DeviceKey) -> bool {
        self.attach_unloaded(key);
        self.wants_load(key)
    }

    /// A subscriber of this device is there, for which nothing is loaded yet.
    pub fn attach_unloaded(&mut self, key: &DeviceKey) {
        match self.devices.entry(key.clone()) {
            Entry::Occupied(mut entry) => {
                let device = entry.get_mut();
                device.attached += 1;
                device.ticket = None;
            }
            Entry::Vacant(entry) => {
                // Where there is no store, an unknown device has no answers.
                let window = self.in_memory.then(Window::default);
                entry.insert(Box::new(Device {
                    window,
                    loading: false,
                    rights: None,
                    loading_rights: false,
                    was_member: false,
                    met: None,
                    adopted: false,
                    held: None,
                    pending: 0,
                    attached: 1,
                    ticket: None,
                    waiting: Vec::new(),
                }));
            }
        }
    }

    /// A subscriber of the channel before this one is there. `member` says whether its user was a member then: if he is none
    /// any more, he was removed while nobody could tell, and it is put out. If he was none, the room was so far when he came.
    pub fn returns(&mut self, key: &DeviceKey, member: bool, met: Mark) {
        self.attach_unloaded(key);
        if let Some(device) = self.devices.get_mut(key) {
            device.was_member |= member;
            if !member {
                device.met = Some(device.met.map_or(met, |known| known.min(met)));
            }
            if let Some(rights) = device.rights {
                device.learn(rights);
            }
        }
    }

    /// True if the device's window has to be loaded, which is then under way.
    #[must_use]
    pub fn wants_load(&mut self, key: &DeviceKey) -> bool {
        match self.devices.get_mut(key) {
            Some(device) if device.window.is_none() => !std::mem::replace(&mut device.loading, true),
            _ => false,
        }
    }

    /// Settles what a device's user may do, if that is `known`; otherwise true if it has to be loaded, which is then under
    /// way.
    #[must_use]
    pub fn wants_rights(&mut self, key: &DeviceKey, known: Option<Rights>) -> bool {
        match self.devices.get_mut(key) {
            Some(device) if device.rights.is_none() => {
                if let Some(rights) = known {
                    device.learn(rights);
                }
                known.is_none() && !std::mem::replace(&mut device.loading_rights, true)
            }
            _ => false,
        }
    }

    /// Takes in what the store says of a device's user, unless a change told it better meanwhile; returns what waited for
    /// it.
    pub fn rights_loaded(&mut self, key: &DeviceKey, rights: Rights) -> Vec<Waiting> {
        let Some(device) = self.devices.get_mut(key) else { return Vec::new() };
        device.loading_rights = false;
        device.learn(device.rights.unwrap_or(rights));
        let waiting = device.take_waiting();
        self.forget_if_idle(key);
        waiting
    }

    /// The rights of a device could not be loaded: returns what waited for them.
    pub fn rights_not_loaded(&mut self, key: &DeviceKey) -> Vec<Waiting> {
        let Some(device) = self.devices.get_mut(key) else { return Vec::new() };
        device.loading_rights = false;
        let waiting = std::mem::take(&mut device.waiting);
        self.forget_if_idle(key);
        waiting
    }

    /// Every device that is remembered, to look at.
    pub fn iter(&self) -> impl Iterator<Item = (&DeviceKey, &Device<Waiting>)> {
        self.devices.iter().map(|(key, device)| (key, device.as_ref()))
    }

    /// Every device that is remembered.
    pub fn each(&mut self) -> impl Iterator<Item = (&DeviceKey, &mut Device<Waiting>)> {
        self.devices.iter_mut().map(|(key, device)| (key, device.as_mut()))
    }

    /// Leaves `waiting` with a device until its window and its rights are loaded, or gives it back if they are.
    pub fn wait(&mut self, key: &DeviceKey, waiting: Waiting) -> Option<Waiting> {
        match self.devices.get_mut(key) {
            Some(device) if !device.is_ready() => {
                device.waiting.push(waiting);
                None
            }
            _ => Some(waiting),
        }
    }

    /// Takes in the answers that the store has; returns what waited for them.
    pub fn loaded(&mut self, key: &DeviceKey, answers: Vec<(u8, Answer)>) -> Vec<Waiting> {
        let Some(device) = self.devices.get_mut(key) else { return Vec::new() };
        device.loading = false;
        if device.window.is_none() {
            device.window = Some(Window::from_slots(answers));
        }
        let waiting = device.take_waiting();
        self.forget_if_idle(key);
        waiting
    }

    /// A load failed: returns what waited for it.
    pub fn not_loaded(&mut self, key: &DeviceKey) -> Vec<Waiting> {
        let Some(device) = self.devices.get_mut(key) else { return Vec::new() };
        device.loading = false;
        let waiting = std::mem::take(&mut device.waiting);
        self.forget_if_idle(key);
        waiting
    }

    /// A record of this device was given its seq: the slot that its answer takes. `None` if the device is not ready.
    pub fn accept(&mut self, key: &DeviceKey, answer: Answer, slots_max: usize) -> Option<u8> {
        let device = self.devices.get_mut(key)?;
        let slot = device.window.as_mut()?.insert(answer, slots_max);
        device.pending += 1;
        // It may have left while the record waited for what it changes: it is not to be forgotten now.
        device.ticket = None;
        Some(slot)
    }

    /// A subscriber of this device is gone.
    pub fn detach(&mut self, key: &DeviceKey) {
        if let Some(device) = self.devices.get_mut(key) {
            debug_assert!(device.attached > 0, "a device leaves as often as it came");
            device.attached = device.attached.saturating_sub(1);
            if device.attached == 0 {
                (device.was_member, device.met) = (false, None);
                if let Some(rights) = &mut device.rights {
                    rights.out = false;
                }
            }
            self.forget_if_idle(key);
        }
    }

    /// A record of this device is committed.
    pub fn committed(&mut self, key: &DeviceKey) {
        if let Some(device) = self.devices.get_mut(key) {
            device.pending -= 1;
            self.forget_if_idle(key);
        }
    }

    /// The newest answer of a device, if its window is here.
    #[must_use]
    pub fn newest(&self, key: &DeviceKey) -> Option<&Answer> {
        self.devices.get(key)?.window.as_ref()?.newest()
    }

    /// The device, if it is attached or has records on their way.
    pub fn device(&mut self, key: &DeviceKey) -> Option<&mut Device<Waiting>> {
        self.devices.get_mut(key).map(Box::as_mut)
    }

    /// The same, to look at.
    #[must_use]
    pub fn get(&self, key: &DeviceKey) -> Option<&Device<Waiting>> {
        self.devices.get(key).map(Box::as_ref)
    }

    /// Whether something is loaded for one of them, or on its way to the store.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let busy = |device: &Device<Waiting>| {
            device.pending > 0 || device.loading || device.loading_rights || !device.waiting.is_empty()
        };
        self.devices.values().any(|device| busy(device))
    }

    /// How many are remembered.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    fn forget_if_idle(&mut self, key: &DeviceKey) {
        // While its window is loaded it stays, so that no second load begins: the first might be answered last, when the
        // store has long had more.
        let Some(device) = self.devices.get_mut(key).filter(|device| !device.is_needed()) else { return };
        // Without a store, what is not known anywhere else is remembered, and there is nothing to know of who said nothing.
        let worth = if self.in_memory { device.has_sent() } else { device.is_ready() };
        if !worth {
            self.devices.remove(key);
            return;
        }
        device.ticket = Some(self.absent.push(key.clone()));
        self.forget_oldest();
    }

    /// Forgets those who left first, if there are too many.
    pub fn forget_oldest(&mut self) {
        while let Some((oldest, ticket)) = self.absent.pop() {
            if self.devices.get(&oldest).is_some_and(|device| device.ticket == Some(ticket)) {
                self.devices.remove(&oldest);
            }
        }
    }
}

impl<Waiting> Device<Waiting> {
    /// It is known what its user may do.
    fn learn(&mut self, rights: Rights) {
        let removed = self.was_member && rights.role.is_none();
        self.rights = Some(Rights { out: rights.out || removed, ..rights });
    }

    /// Whether its user came as a stranger, is a member, and is noted as one by this.
    #[must_use]
    pub fn note_member(&mut self) -> bool {
        let member = self.rights.and_then(|rights| rights.role).is_some_and(|role| role != Role::Banned);
        member && self.is_let_in() && !std::mem::replace(&mut self.was_member, true)
    }

    /// Whether a subscriber of it is there.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.attached > 0
    }

    /// Whether a subscriber of it is there that does not wait to be let in.
    #[must_use]
    pub fn is_let_in(&self) -> bool {
        self.attached as usize > self.waiting.len()
    }

    /// Whether one subscriber of it is there.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.attached == 1
    }

    fn has_sent(&self) -> bool {
        self.window.as_ref().is_some_and(|window| window.newest().is_some())
    }

    /// Whether all that it needs is loaded.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.window.is_some() && self.rights.is_some()
    }

    fn is_needed(&self) -> bool {
        self.attached > 0 || self.pending > 0 || self.loading || self.loading_rights
    }

    fn take_waiting(&mut self) -> Vec<Waiting> {
        if self.is_ready() { std::mem::take(&mut self.waiting) } else { Vec::new() }
    }

    /// A send was refused for now: later ones are held back until it comes again, or until then.
    pub fn hold(&mut self, nonce: Nonce, now: u64, until: u64) {
        if self.held.is_none_or(|(held, until)| nonce <= held || until <= now) {
            self.held = Some((nonce, until));
        }
    }

    /// A send that was answered: if later ones were held back for it, they are no longer.
    pub fn release(&mut self, nonce: Nonce) {
        self.held.take_if(|(held, _)| *held == nonce);
    }
}

#[cfg(test)]
mod tests;
