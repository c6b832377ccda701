//! Rooms that sleep: their subscribers stay, and what one of them wants waits for the room to be woken.
//!
//! First the relay lets the channel go: from then on nothing goes there, and what would waits here. Either the channel
//! stays awake and gets it all, in order; or the room is asleep, and the first thing that somebody wants wakes it. The
//! channel that runs it then is told of the subscribers, and gets what waited behind that.

use std::collections::VecDeque;

use parlor_protocol::{Code, Extensions, Name, RoomNumber, Seq, message::Error};
use rustc_hash::FxHashMap;

use super::{Effect, State};
use crate::{
    channel::{gathering, state::Input},
    message::{FromChannel, Returning},
};

const NOT_WOKEN: &str = "the room cannot be woken now";

/// A room whose channel was let go.
#[derive(Debug, Default)]
pub(super) struct Nap {
    /// Whether the channel has ended.
    asleep: bool,
    /// Whether the supervisor was asked to wake it.
    asked: bool,
    waiting: VecDeque<Input>,
    /// How far users are who have received more: the next channel is told, and nobody is woken for it.
    delivered: FxHashMap<Name, Seq>,
}

impl Nap {
    /// What waited, and how far users are.
    fn take(&mut self) -> VecDeque<Input> {
        let mut delivered: Vec<(Name, Seq)> = self.delivered.drain().collect();
        delivered.sort_unstable(); // So that a simulation repeats itself.
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.extend(delivered.into_iter().map(|(user, seq)| Input::Delivered { user, seq }));
        waiting
    }
}

impl State {
    /// Whether an input may go to a room's channel: it is given back, or waits until the room is awake.
    /// [`Effect::Wake`] says when the supervisor has to be asked for that.
    pub fn pass(&mut self, room: RoomNumber, input: Input) -> Option<Input> {
        if self.naps.is_empty() {
            return Some(input);
        }
        let Some(nap) = self.naps.get_mut(&room) else { return Some(input) };
        if matches!(input, Input::Detached { .. }) {
            if nap.asleep {
                // There is no channel that knows of it.
                self.forget_nap(room);
            } else {
                nap.waiting.push_back(input);
            }
            return None;
        }
        if let Input::Delivered { user, seq } = input {
            // One for which there is no place is told by the beat or the join behind the next record.
            if nap.delivered.len() < self.limits.waiters_per_room_max || nap.delivered.contains_key(&user) {
                let known = nap.delivered.entry(user).or_default();
                *known = seq.max(*known);
            }
            return None;
        }
        if nap.waiting.len() >= self.limits.waiters_per_room_max {
            self.refuse_input(room, input, "too many wait for this room");
            return None;
        }
        nap.waiting.push_back(input);
        if !std::mem::replace(&mut nap.asked, true) {
            self.effects.push_back(Effect::Wake(room));
        }
        None
    }

    /// Nothing goes to the room's channel from now on.
    pub fn on_let_go(&mut self, room: RoomNumber) {
        if self.knows(room) {
            self.naps.insert(room, Nap::default());
        }
    }

    /// The channel that was let go goes on. Returns what waited for it; `None` if the room is of no interest here.
    pub fn on_awake(&mut self, room: RoomNumber) -> Option<VecDeque<Input>> {
        let nap = self.naps.remove(&room);
        let waiting = nap.map(|mut nap| nap.take());
        waiting.or_else(|| self.knows(room).then(VecDeque::new))
    }

    /// The channel that was let go has ended, and the room sleeps.
    pub fn on_asleep(&mut self, room: RoomNumber) {
        let Some(nap) = self.naps.get_mut(&room) else { return };
        nap.asleep = true;
        nap.waiting.retain(|input| !matches!(input, Input::Detached { .. }));
        nap.waiting.shrink_to_fit();
        if let Some(entry) = self.rooms.get_mut(&room) {
            // What a later channel commits before it has taken up the subscribers is nothing that they know.
            entry.orphaned = true;
        }
        self.forget_nap(room);
    }

    /// A room that slept has a channel. Returns the subscribers, and what waited and follows behind them;
    /// `None` if there are none here.
    pub fn on_woken(&mut self, room: RoomNumber) -> Option<(Vec<Returning>, VecDeque<Input>)> {
        let mut nap = self.naps.remove(&room)?;
        self.stop_pulls(room);
        // Who lags pulls anew once he is taken up.
        nap.waiting.retain(|input| !matches!(input, Input::Pull { .. }));
        Some((self.devices_in(room), nap.take()))
    }

    /// A room that slept cannot be woken now: what waited is refused, and the next who wants something tries again.
    pub fn on_not_woken(&mut self, room: RoomNumber) {
        let Some(nap) = self.naps.get_mut(&room) else { return };
        nap.asked = false;
        for input in std::mem::take(&mut nap.waiting) {
            self.refuse_input(room, input, NOT_WOKEN);
        }
    }

    /// The room's channel died, or the room was deleted: whoever waits is answered as all others are.
    pub(super) fn end_nap(&mut self, room: RoomNumber) {
        self.naps.remove(&room);
    }

    /// A room that sleeps is forgotten with its last subscriber.
    fn forget_nap(&mut self, room: RoomNumber) {
        if !self.knows(room)
            && let Some(nap) = self.naps.remove(&room)
        {
            // Those who left may wait for an answer all the same.
            nap.waiting.into_iter().for_each(|input| self.refuse_input(room, input, NOT_WOKEN));
            self.effects.push_back(Effect::Forgot(room));
        }
    }

    fn refuse_input(&mut self, room: RoomNumber, input: Input, message: &'static str) {
        let code = Code::RoomUnavailable;
        let (conn, request) = match input {
            Input::Publish(publish) => (publish.conn, publish.request),
            Input::Fetch(fetch) => (fetch.conn, fetch.request),
            Input::Mark(mark) => (mark.conn, mark.request),
            Input::FetchReaders(fetch) => (fetch.conn, fetch.request),
            Input::Presence(gathering::Input::Watch { conn, request, .. }) => (conn, request),
            Input::Signal(signal) => {
                if let Some(conn) = signal.conn.filter(|_| signal.request != 0) {
                    let (retry_after_ms, extensions) = (100, Extensions::default());
                    self.on_send(conn, signal.request, &Error { code, retry_after_ms, message, extensions });
                }
                return;
            }
            // It is tried again.
            Input::Pull { conn, after } => {
                return self.on_news(room, FromChannel::Pulled { conns: vec![conn], after, page: None });
            }
            _ => return,
        };
        self.refuse_in(conn, request, room, code, 100, message);
    }
}
