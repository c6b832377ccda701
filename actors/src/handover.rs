//! One hand-over each way between an arbiter's channels and the store's writer.
//!
//! What the channels of an arbiter append in one turn goes to the writer together, and what a commit settles for them
//! comes back together: the writer makes larger groups, and each thread wakes the other once and not once per room.

use std::sync::Arc;

use actix::Addr;
use parking_lot::Mutex;
use parlor_protocol::RoomNumber;
use rustc_hash::FxHashMap;

use crate::{
    channel::{Channel, state::Input},
    port::{Append, Commits, Generation, Outcome, Store},
    relay::{Relay, ToRelay},
};

/// The most appends that are handed over together: the writer begins with the first of a long turn while the arbiter is
/// still busy with the rest. One more than the store may write without its thread, so that it is long turns whose appends go there.
const APPENDS_MAX: usize = 17;

/// Where an arbiter's channels and the writer meet. Its locks are held for moments.
pub(crate) struct Handover {
    relay: Addr<Relay>,
    /// Appended in this turn.
    appends: Mutex<Vec<Append>>,
    /// Settled, and not told yet.
    settled: Mutex<Vec<Outcome>>,
    /// The arbiter's channels.
    channels: Mutex<FxHashMap<RoomNumber, (Generation, Addr<Channel>)>>,
}

impl Handover {
    /// The one of this relay's arbiter.
    pub(crate) fn new(relay: Addr<Relay>) -> Arc<Self> {
        let (appends, settled, channels) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { relay, appends, settled, channels })
    }

    /// A channel of the arbiter has begun.
    pub(crate) fn enter(&self, room: RoomNumber, generation: Generation, channel: Addr<Channel>) {
        self.channels.lock().insert(room, (generation, channel));
    }

    /// A channel of the arbiter is gone.
    pub(crate) fn exit(&self, room: RoomNumber, generation: Generation) {
        let mut channels = self.channels.lock();
        if channels.get(&room).is_some_and(|(current, _)| *current == generation) {
            channels.remove(&room);
        }
    }

    /// The arbiter's channels.
    pub(crate) fn channels(&self) -> Vec<Addr<Channel>> {
        self.channels.lock().values().map(|(_, channel)| channel.clone()).collect()
    }

    /// Takes an append, to hand it over at the end of the arbiter's turn.
    pub(crate) fn append(self: &Arc<Self>, append: Append, store: &dyn Store) {
        let mut appends = self.appends.lock();
        appends.push(append);
        let count = appends.len();
        drop(appends);
        if count == APPENDS_MAX {
            self.hand_over(store);
        } else if count == 1 {
            // The relay's turn comes behind those of the channels that are about to run.
            self.relay.do_send(ToRelay::HandOver(self.clone()));
        }
    }

    /// The end of a turn: the store gets what was appended.
    pub(crate) fn hand_over(&self, store: &dyn Store) {
        let appends = std::mem::take(&mut *self.appends.lock());
        if !appends.is_empty() {
            store.append(appends);
        }
    }

    /// Tells the channels what is settled.
    pub(crate) fn tell(&self) {
        let settled = std::mem::take(&mut *self.settled.lock());
        let channels = self.channels.lock();
        for Outcome { room, generation, stored } in settled {
            // A channel that is gone needs no outcome: its successor read the store.
            let Some((_, channel)) = channels.get(&room).filter(|(current, _)| *current == generation) else {
                continue;
            };
            channel.do_send(match stored {
                Ok(commit) => Input::Committed(commit.upto),
                Err(error) => Input::Failed(error),
            });
        }
    }
}

impl Commits for Handover {
    fn settled(self: Arc<Self>, mut outcomes: Vec<Outcome>) {
        let mut settled = self.settled.lock();
        let first = settled.is_empty();
        settled.append(&mut outcomes);
        drop(settled);
        if first {
            self.relay.do_send(ToRelay::Settled(self.clone()));
        }
    }
}
