//! A past that is hidden while people are in the room.

use std::sync::Arc;

use parlor_protocol::{Code, Name};

use super::{BUSY_RETRY_MS, State};
use crate::{
    channel::{devices::Rights, history::Fetched},
    members::rights::Act,
    message::{FromChannel, Hidden},
};

impl State {
    /// Some may read less from now on: nothing more of what is hidden from these subscribers goes out to them. Those who
    /// lag behind are told of a gap up to where they may read.
    pub(super) fn hide(&mut self, whose: impl Fn(&Name, Rights) -> bool) {
        if !self.people.hides_past {
            return;
        }
        let (first, tail, kind) = (self.extent.first, self.extent.tail, self.people.kind);
        // Who may not be here at all is put out, and told that.
        let concerned = |user: &Name, rights: Rights| rights.may(kind, Act::Join) && whose(user, rights);
        let mut hidden = Vec::new();
        for (key, device) in self.devices.each() {
            if let Some(rights) = device.rights.filter(|rights| device.is_attached() && concerned(&key.user, *rights)) {
                let seen = rights.since.min(tail + 1);
                if seen > first {
                    hidden.push(Hidden { device: key.clone(), first: seen });
                }
            }
        }
        if hidden.is_empty() {
            return;
        }
        hidden.sort_unstable_by(|one, other| {
            (&one.device.user, one.device.tag.0).cmp(&(&other.device.user, other.device.tag.0))
        });
        let hidden: Arc<[Hidden]> = hidden.into();
        for arbiter in (0..).take(self.subscribers.len()) {
            if self.subscribers[usize::from(arbiter)] > 0 {
                self.relay(arbiter, FromChannel::Hide(hidden.clone()));
            }
        }
        // What is being read for pages may be theirs.
        for Fetched { conn, request, .. } in self.reads.give_up_fetches() {
            let message = "who may read what has changed while the page was read: ask again";
            self.refuse(conn, request, Code::Busy, BUSY_RETRY_MS, message);
        }
    }
}
