//! When the store is asked to sweep: again and again, one sweep at a time, until the engine drains.

use super::{Effect, State, Status};
use crate::port::{Now, StoreError, Sweep, Swept};

/// Where the sweeping stands.
#[derive(Debug, Default)]
pub(super) struct Sweeping {
    /// Whether an answer is awaited.
    asked: bool,
    /// Whether no more sweeps begin.
    over: bool,
    /// Whether the last sweep was refused, so that a failure is logged once.
    failing: bool,
}

impl Sweeping {
    /// Whether the engine ends.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }
}

impl<H: Clone, S: Clone, W> State<H, S, W> {
    /// The time of a sweep has come.
    pub(super) fn on_sweep(&mut self, now: Now) {
        if self.sweeping.over || std::mem::replace(&mut self.sweeping.asked, true) {
            return;
        }
        let limits = &self.limits;
        let (records_max, dedupe_horizon_ms) = (limits.sweep_records_max, limits.dedupe_horizon_ms);
        self.effects.push_back(Effect::Sweep(Sweep { now, records_max, dedupe_horizon_ms }));
    }

    /// The store has swept.
    pub(super) fn on_swept(&mut self, swept: Result<Swept, StoreError>) {
        self.sweeping.asked = false;
        let failing = swept.is_err();
        let Swept { rooms, more, .. } = swept.unwrap_or_else(|error| {
            if !self.sweeping.failing {
                tracing::error!(%error, "what has expired cannot be deleted; it will be tried again");
            }
            Swept::default()
        });
        self.sweeping.failing = failing;
        for (number, first, gone_count) in rooms {
            let room = self.names.get(&number).and_then(|name| self.rooms.get(name));
            // A room that does not run hears of it when it is loaded.
            if let Some(Status::Running { handle, .. } | Status::Falling { handle, .. }) = room.map(|room| &room.status)
            {
                self.effects.push_back(Effect::Swept(handle.clone(), first, gone_count));
            }
        }
        if !self.sweeping.over {
            let pause = if more { self.limits.sweep_pause_ms } else { self.limits.sweep_interval_ms };
            self.effects.push_back(Effect::SweepIn(pause));
        }
    }

    /// The engine ends: no more sweeps.
    pub(super) fn on_drain(&mut self) {
        self.sweeping.over = true;
    }
}
