//! Who is in the room, for those who watch it.

use std::collections::HashSet;

use parlor_protocol::{Code, Name};

use super::{Effect, State};
use crate::{
    channel::{
        devices::Device,
        gathering::{self, Gathering, Input},
    },
    members::rights::{Act, Kind},
    message::Join,
    port::{DeviceKey, Now},
};

impl State {
    pub(super) fn on_presence(&mut self, now: Now, input: Input) {
        match input {
            Input::Watch { conn, request, device } => {
                if !self.users.attached(&device.user).contains(&device.tag) {
                    return self.refuse(conn, request, Code::NotJoined, 0, "the session has left this room");
                }
                let tell = self.gather().on_watch(conn, request);
                self.effects.extend(tell.map(gathering::Effect::Tell).map(Effect::Presence));
            }
            Input::Again { arbiter } => {
                self.gather().on_again(arbiter);
            }
            Input::Unwatch { arbiter, watch } => {
                if let Some(gathering) = &mut self.gathering {
                    gathering.on_unwatch(arbiter, Some(watch));
                }
            }
            Input::Due => {
                let Some(gathering) = self.gathering.take() else { return };
                let leaving = gathering.leaving(|user| self.is_here(user));
                self.gathering = Some(gathering);
                // Also if there are none: the answer is what goes on.
                return self.effects.push_back(Effect::Presence(gathering::Effect::AskAway(leaving)));
            }
            Input::Away(away) => self.settle_presence(now, &away),
            Input::Count(reply) => {
                let count = self
                    .gathering
                    .as_ref()
                    .map_or_else(|| self.present().collect::<HashSet<_>>().len(), |known| known.count());
                return self.effects.push_back(Effect::Presence(gathering::Effect::Host(reply, count)));
            }
        }
        self.time_presence();
    }

    /// A user may have come.
    pub(super) fn stir(&mut self, user: &Name) {
        if let Some(gathering) = &mut self.gathering {
            gathering.on_changed(user);
            self.time_presence();
        }
    }

    /// A subscriber is gone.
    pub(super) fn stir_detached(&mut self, now: Now, arbiter: u16, device: &DeviceKey) {
        if let Some(gathering) = &mut self.gathering {
            gathering.on_detached(now.mono_ms, device);
            if self.subscribers[usize::from(arbiter)] == 0 {
                gathering.on_unwatch(arbiter, None);
            }
            self.time_presence();
        }
    }

    fn gather(&mut self) -> &mut Gathering {
        let gathering = self.gathering.take().unwrap_or_else(|| {
            let present = self.present().cloned().collect();
            let (arbiters, members, limits) = (self.subscribers.len(), self.people.known(), &self.limits);
            let (window_ms, named_max) = (limits.presence_window_ms, limits.presence_room_named_max);
            Box::new(Gathering::new(arbiters, window_ms, named_max, members, present))
        });
        self.gathering.insert(gathering)
    }

    fn settle_presence(&mut self, now: Now, away: &[DeviceKey]) {
        let Some(mut gathering) = self.gathering.take() else { return };
        let members = self.people.known();
        let told = gathering.settle(now.mono_ms, away, |user| self.is_here(user), members);
        self.effects.extend(told.into_iter().map(gathering::Effect::Tell).map(Effect::Presence));
        if !gathering.is_idle() {
            self.gathering = Some(gathering);
        }
    }

    fn time_presence(&mut self) {
        if let Some(ms) = self.gathering.as_mut().and_then(|gathering| gathering.wants_timer()) {
            self.effects.push_back(Effect::Presence(gathering::Effect::In(ms)));
        }
    }

    fn is_here(&self, user: &Name) -> bool {
        self.users.attached(user).iter().any(|tag| {
            let device = DeviceKey { user: user.clone(), tag: *tag };
            self.devices.get(&device).is_some_and(|device| is_in(self.people.kind, device))
        })
    }

    /// The users who are here, some of them twice.
    fn present(&self) -> impl Iterator<Item = &Name> {
        let kind = self.people.kind;
        self.devices.iter().filter(move |(_, device)| is_in(kind, device)).map(|(key, _)| &key.user)
    }
}

/// Whether a subscriber of a device is in the room, and not about to be refused. One that was in the room before its channel
/// was rebuilt, or before the room slept, is, until the contrary is known.
fn is_in(kind: Kind, device: &Device<Join>) -> bool {
    device.is_attached() && device.rights.map_or(device.is_let_in(), |rights| rights.may(kind, Act::Join))
}
