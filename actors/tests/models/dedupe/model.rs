//! What a room owes its devices, in the plainest words.

use std::collections::BTreeMap;

use parlor_protocol::{Code, Nonce, Seq};

pub const HOLD_BACK_MS: u64 = 100;

/// Who sends: a user and a device.
pub type Who = (&'static str, u64);

/// What has been taken, and from whom: everything, in a list.
#[derive(Default)]
pub struct Model {
    pub window: usize,
    /// One for each seq, from 1 on.
    pub log: Vec<Taken>,
    pub devices: BTreeMap<Who, Device>,
    pub failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taken {
    pub who: Who,
    pub nonce: Nonce,
    pub content: u8,
    pub time: u64,
}

/// A device that is there.
#[derive(Clone, Default)]
pub struct Device {
    pub attached: bool,
    /// Up to which seq nothing of its is known any more; `None` until its answers are loaded.
    pub forgotten: Option<Seq>,
    /// The lowest send that was refused for now, and until when those behind it wait for it.
    pub held: Option<(Nonce, u64)>,
}

/// What a send is to be answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    Stored(Seq),
    Repeat(Seq),
    Refused(Code),
}

impl Model {
    /// What is known of a device: its last answers, oldest first.
    pub fn known(&self, who: Who, forgotten: Seq) -> Vec<(Seq, Taken)> {
        let all = (1..).zip(&self.log).filter(|(_, taken)| taken.who == who).map(|(seq, taken)| (seq, *taken));
        let all: Vec<_> = all.collect();
        let last = all.len().saturating_sub(self.window);
        all[last..].iter().filter(|(seq, _)| *seq > forgotten).copied().collect()
    }

    pub fn publish(&mut self, who: Who, nonce: Nonce, content: u8, now: (u64, u64), queue_is_full: bool) -> Verdict {
        let (unix, mono) = now;
        let known = self.devices.get(&who).map(|device| device.forgotten.map(|seq| self.known(who, seq)));
        let Some(known) = known else { return Verdict::Refused(Code::NotJoined) };
        let device = self.devices.get_mut(&who).unwrap();
        let hold = |device: &mut Device| {
            if device.held.is_none_or(|(held, until)| nonce <= held || until <= mono) {
                device.held = Some((nonce, mono + HOLD_BACK_MS));
            }
        };
        let Some(known) = known else {
            hold(device);
            return Verdict::Refused(Code::RoomUnavailable);
        };
        if known.last().is_some_and(|(_, newest)| nonce <= newest.nonce) {
            device.held.take_if(|(held, _)| *held == nonce);
            return match known.iter().find(|(_, taken)| taken.nonce == nonce) {
                Some((seq, taken)) if taken.content == content => Verdict::Repeat(*seq),
                Some(_) => Verdict::Refused(Code::NonceConflict),
                None => Verdict::Refused(Code::NonceTooOld),
            };
        }
        if device.held.is_some_and(|(held, until)| held < nonce && mono < until) {
            return Verdict::Refused(Code::HeldBack);
        }
        device.held.take_if(|(held, _)| *held <= nonce);
        if self.failed {
            return Verdict::Refused(Code::StoreUnavailable);
        }
        if queue_is_full {
            hold(device);
            return Verdict::Refused(Code::Busy);
        }
        let time = self.log.last().map_or(unix, |newest| newest.time.max(unix));
        self.log.push(Taken { who, nonce, content, time });
        Verdict::Stored(self.log.len() as Seq)
    }
}
