//! Marks and signals of a session's client.

use bytes::Bytes;
use parlor_protocol::{
    Code, DecodeError, Extensions, Name,
    message::{self, SIGNAL_BYTES_MAX, SignalTo},
};

use super::{Effect, State};
use crate::{
    channel::state::Input,
    limits::Limits,
    message::{FetchReaders, MarkRead, Signal},
    port::Now,
    relay::state::{Asks, Pending},
};

/// How fast a session may signal: one number says all, the time at which a session that had always kept to the rate would
/// have sent its last signal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignalPace {
    /// In microseconds, on the monotonic clock.
    paid_until: u64,
    /// 0 for no signals at all.
    interval_us: u32,
    burst: u32,
    to_users: bool,
}

impl SignalPace {
    pub(in crate::session) fn new(limits: &Limits) -> Self {
        let interval_us = 1_000_000_u32.checked_div(limits.signals_per_second_max).unwrap_or_default();
        Self { paid_until: 0, interval_us, burst: limits.signals_burst_max, to_users: limits.signals_to_users }
    }

    fn allows(&mut self, now: Now) -> bool {
        let now_us = now.mono_ms.saturating_mul(1_000);
        let interval = u64::from(self.interval_us);
        let paid_until = self.paid_until.max(now_us) + interval;
        let allowed = paid_until - now_us <= interval * u64::from(self.burst);
        if allowed {
            self.paid_until = paid_until;
        }
        allowed
    }
}

impl State {
    pub(super) fn on_mark(&mut self, request: u32, body: &[u8]) -> Result<(), DecodeError> {
        let message::Mark { room, read, .. } = parlor_protocol::decode(body)?;
        if self.is_joined(room) {
            let mark = MarkRead { conn: self.conn, request, device: self.device.clone(), read };
            self.effects.push_back(Effect::Begin(Pending { request, room: Some(room), asks: Asks::Mark }));
            self.effects.push_back(Effect::Channel { request, room, input: Input::Mark(mark) });
        } else {
            self.not_joined(request, room);
        }
        Ok(())
    }

    pub(super) fn on_fetch_readers(&mut self, request: u32, body: &[u8]) -> Result<(), DecodeError> {
        let message::FetchReaders { room, seq, .. } = parlor_protocol::decode(body)?;
        if self.is_joined(room) {
            let fetch = FetchReaders { conn: self.conn, request, seq };
            self.effects.push_back(Effect::Begin(Pending { request, room: Some(room), asks: Asks::Fetch }));
            self.effects.push_back(Effect::Channel { request, room, input: Input::FetchReaders(fetch) });
        } else {
            self.not_joined(request, room);
        }
        Ok(())
    }

    pub(super) fn on_signal(&mut self, now: Now, request: u32, body: &[u8]) -> Result<(), DecodeError> {
        let signal: message::Signal<'_> = parlor_protocol::decode(body)?;
        if let Err((code, message)) = self.check_signal(&signal) {
            if request != 0 {
                self.error(request, code, message);
            }
            return Ok(());
        }
        if !self.signals.allows(now) {
            self.effects.push_back(Effect::SignalDropped);
            return Ok(());
        }
        let (room, key) = (if let SignalTo::Room(room) = signal.to { Some(room) } else { None }, signal.key);
        let signaled = message::Signaled {
            room,
            sender: &self.device.user,
            device_tag: self.device.tag,
            key,
            payload: signal.payload,
            extensions: Extensions::default(),
        };
        let frame: Bytes = parlor_protocol::to_bytes(0, &signaled);
        let news = Signal { conn: Some(self.conn), request, device: self.device.clone(), key, frame };
        match (signal.to, room) {
            (SignalTo::User(user), _) => {
                if let Ok(user) = Name::parse(user) {
                    self.effects.push_back(Effect::SignalUser { user, signal: news });
                }
            }
            (SignalTo::Room(room), _) => {
                self.effects.push_back(Effect::Channel { request, room, input: Input::Signal(news) });
            }
        }
        Ok(())
    }

    fn check_signal(&self, signal: &message::Signal<'_>) -> Result<(), (Code, String)> {
        if self.signals.interval_us == 0 {
            return Err((Code::Unsupported, "signals are not offered here".into()));
        }
        let bytes = signal.payload.len();
        if bytes > SIGNAL_BYTES_MAX {
            let text = format!("the signal has {bytes} bytes, at most {SIGNAL_BYTES_MAX} are allowed");
            return Err((Code::TooLarge, text));
        }
        match signal.to {
            SignalTo::Room(room) if self.is_joined(room) => Ok(()),
            SignalTo::Room(room) => Err((Code::NotJoined, format!("room number {room} is not joined"))),
            SignalTo::User(_) if !self.signals.to_users => {
                Err((Code::Forbidden, "signals go to rooms only here".into()))
            }
            SignalTo::User(user) => match Name::parse(user) {
                Ok(_) => Ok(()),
                Err(error) => Err((Code::InvalidName, error.to_string())),
            },
        }
    }
}
