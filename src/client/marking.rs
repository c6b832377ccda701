//! Read cursors of joined rooms, and signals, between the application and the server.

use std::time::Duration;

use bytes::Bytes;
use parlor_protocol::{
    Advice, Extensions, Name, Seq, encode,
    message::{self, SignalTo},
};

use super::{
    effect::{Effect, Now, Pending, RoomKey},
    inbound::Inbound,
    reading::Standing,
    room::Stage,
    signal::Signal,
    state::State,
    wire::WireError,
};

/// Above so many bytes that wait for the socket, signals are dropped: they are only worth something now.
const WAITING_BYTES_MAX: usize = 64 << 10;

/// The shortest wait before a refused mark is tried again.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Whom a signal of the application is for.
pub(super) enum Target {
    Room(RoomKey),
    User(Name),
}

impl State {
    /// The application has read a room up to here.
    pub(super) fn handle_mark(&mut self, now: Now, key: RoomKey, seq: Seq) {
        if let Some(room) = self.rooms.get_mut(&key) {
            room.marker.want(seq);
            self.settle(now, key);
        }
    }

    /// Sends the mark of a joined room that is due; `at_once` if there is no later.
    pub(super) fn settle_mark(&mut self, now: Now, key: RoomKey, at_once: bool) {
        let Some(room) = self.rooms.get_mut(&key).filter(|room| room.stage == Stage::In) else { return };
        let position = room.inbound.as_ref().map_or(0, |inbound| inbound.position().1);
        let Some(read) = room.marker.next(now.at, position, at_once || room.leaving) else { return };
        let mark = message::Mark { room: room.number, read, extensions: Extensions::default() };
        self.ask(&mark, Pending::Mark(key));
    }

    /// Sends all marks that wait for their time: there is none left.
    pub(super) fn send_marks(&mut self, now: Now) {
        for key in self.rooms.keys().copied().collect::<Vec<_>>() {
            self.settle_mark(now, key, true);
        }
    }

    /// A cursor stands there: in answer to a mark, or since it moved on another device.
    pub(super) fn on_marked(&mut self, now: Now, request: u32, marked: &message::Marked<'_>) {
        let standing = Standing::of(marked);
        if let Some(Pending::Mark(key)) = self.answered(request) {
            if let Some(room) = self.rooms.get_mut(&key) {
                room.marker.answered();
                room.marker.on_read(standing.read);
                self.effects.push_back(Effect::Marked(key, standing));
                self.settle(now, key);
            }
        } else if let Some(key) = self.numbers.get(&marked.room).copied() {
            self.on_standing(key, standing);
        }
    }

    /// The cursor stands there. The application is told if it moved.
    pub(super) fn on_standing(&mut self, key: RoomKey, standing: Standing) {
        if self.rooms.get_mut(&key).is_some_and(|room| room.marker.on_read(standing.read)) {
            self.effects.push_back(Effect::Marked(key, standing));
        }
    }

    /// A mark was refused.
    pub(super) fn on_mark_refused(&mut self, now: Now, key: RoomKey, error: &message::Error<'_>) {
        if let Some(room) = self.rooms.get_mut(&key) {
            if error.code.advice() == Advice::RetryLater {
                let wait = Duration::from_millis(u64::from(error.retry_after_ms)).max(RETRY_MIN);
                room.marker.put_off(Some(now.at.saturating_add(wait)));
            } else {
                room.marker.answered();
            }
            self.settle(now, key);
        }
    }

    /// The application signals. What cannot go out now never does.
    pub(super) fn handle_signal(&mut self, to: &Target, key: u32, payload: &Bytes) {
        if !self.is_online() || self.output().len() > WAITING_BYTES_MAX {
            return;
        }
        let to = match to {
            Target::User(user) => SignalTo::User(user),
            Target::Room(room) => match self.rooms.get(room) {
                Some(room) if room.stage == Stage::In => SignalTo::Room(room.number),
                _ => return,
            },
        };
        // Request 0: nothing answers it.
        encode(0, &message::Signal { to, key, payload, extensions: Extensions::default() }, self.output());
    }

    /// Somebody signals.
    pub(super) fn on_signaled(&mut self, signaled: &message::Signaled<'_>) -> Result<(), WireError> {
        let key = match signaled.room {
            // Of a room that was left meanwhile: nobody's.
            Some(number) if !self.numbers.contains_key(&number) => return Ok(()),
            Some(number) => self.numbers.get(&number).copied(),
            None => None,
        };
        let sender = self.messages.sender(signaled.sender)?;
        let &message::Signaled { device_tag, key: about, payload, .. } = signaled;
        let signal = Signal { sender, device_tag, key: about, payload: Bytes::copy_from_slice(payload) };
        self.effects.push_back(Effect::Signal(key, signal));
        Ok(())
    }

    /// Whether a mark of a room may go out or waits for its time.
    pub(super) fn is_mark_due(&self, key: RoomKey) -> bool {
        self.rooms.get(&key).is_some_and(|room| {
            let position = room.inbound.as_ref().map(Inbound::position);
            position.is_some_and(|(_, position)| room.marker.is_due(position))
        })
    }
}
