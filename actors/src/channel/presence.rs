//! What a channel wants done about who is in its room.

use actix::Context;

use super::{
    Channel,
    gathering::{Effect, Input, Tell},
    state,
};
use crate::{port::DeviceKey, relay::ToRelay};

impl Channel {
    pub(super) fn presence(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::In(ms) => Self::input_in(ms, || state::Input::Presence(Input::Due), ctx),
            Effect::AskAway(mut devices) => {
                let router = &self.shared.router;
                devices.retain(|DeviceKey { user, tag }| router.is_away(user, *tag));
                let now = self.shared.clock.now();
                // What follows from it is run by whoever runs this.
                self.state.handle(now, state::Input::Presence(Input::Away(devices)));
            }
            Effect::Tell(Tell { arbiter, watch, to, told }) => {
                // The way that records go, so that nothing overtakes a join or a leave.
                if let Some(relay) = self.relays.get(usize::from(arbiter)) {
                    relay.do_send(ToRelay::RoomPresence { room: self.state.room(), watch, to, told });
                }
            }
            Effect::Host(reply, count) => reply.give(count),
        }
    }
}
