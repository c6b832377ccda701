//! Signals: passed on to the subscribers, not kept.

use parlor_protocol::Code;

use super::State;
use crate::{
    members::rights::Act,
    message::{FromChannel, Signal},
    port::DeviceKey,
};

impl State {
    pub(super) fn on_signal(&mut self, signal: Signal) {
        if let Some(conn) = signal.conn
            && let Err((code, message)) = self.may_signal(&signal.device)
        {
            let request = signal.request;
            return self.relay(conn.arbiter, FromChannel::SignalRefused { conn, request, code, message });
        }
        for at in 0..self.subscribers.len() {
            if self.subscribers[at] > 0
                && let Ok(arbiter) = u16::try_from(at)
            {
                self.relay(arbiter, FromChannel::Signal(signal.clone()));
            }
        }
    }

    /// Whether a session may signal to the room.
    fn may_signal(&self, device: &DeviceKey) -> Result<(), (Code, &'static str)> {
        if !self.users.attached(&device.user).contains(&device.tag) {
            return Err((Code::NotJoined, "the session has left this room"));
        }
        let rights = self.rights_of(device).unwrap_or_default();
        if rights.may(self.people.kind, Act::Speak) {
            Ok(())
        } else {
            Err((Code::Forbidden, "the user may not signal in this room"))
        }
    }
}
