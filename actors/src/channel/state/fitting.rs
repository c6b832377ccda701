//! How a room keeps to its share of what all rooms may have: of the memory for rings, and of those who left and are
//! remembered.
//!
//! What does not fit falls off the ring, oldest first. Of a stored room all of it may: batches are pushed as they were
//! committed, and whoever lags reads from the store. A `memory` room keeps its newest record, tells what falls off as
//! trimmed, and takes no message for which there is no room even so.

use parlor_protocol::message::Durability;

use super::{RECORD_OVERHEAD_BYTES, State, trimming::Why};
use crate::channel::refill::Refill;

impl State {
    /// After every input: what the room has now is told, and if it has more, or something was `committed`, what is too
    /// much of it falls off.
    pub(super) fn settle_ring(&mut self, committed: bool) {
        let held = self.ring_bytes();
        if committed || held > self.share.held() {
            self.fit();
        } else if held < self.share.held() {
            self.ring.release();
            self.share.set(held);
        }
    }

    /// The room is looked at from time to time: others may have come, or gone.
    pub(super) fn look_at_shares(&mut self) {
        self.fit();
        if matches!(self.refill, Refill::Again) && !self.pools.ring_bytes.is_short() {
            self.refill = Refill::Idle;
        }
        self.devices.forget_oldest();
        self.users.forget_oldest();
    }

    /// Whether a room in memory takes a message that costs so many bytes, though everything older has to go for it.
    pub(super) fn takes(&self, cost: usize) -> bool {
        self.share.fits(self.coming_bytes() + cost + RECORD_OVERHEAD_BYTES)
    }

    /// What is on its way to the ring of a room in memory. In any other room the writer's budget has it.
    pub(super) fn coming_bytes(&self) -> usize {
        if self.options.durability != Durability::Memory {
            return 0;
        }
        let rewritten = self.turn_rewrites.iter().map(|rewrite| rewrite.frame.len() + rewrite.notes.len());
        self.turn.len() + rewritten.sum::<usize>()
    }

    fn fit(&mut self) {
        self.share.set(self.ring_bytes());
        let most = self.share.most();
        if self.share.held() <= most {
            return;
        }
        self.share.cut();
        let coming = self.coming_bytes();
        let first = self.ring.first_within(most.saturating_sub(coming));
        if self.options.durability == Durability::Memory {
            // The newest stays, unless a newer one is about to be committed.
            let newest = if coming > 0 { self.extent.tail + 1 } else { self.extent.tail };
            self.forget_below(first.min(newest), Why::Trimmed);
        } else {
            self.ring.drop_below(first);
            if matches!(self.refill, Refill::Done) {
                self.refill = Refill::Again;
            }
        }
        self.ring.release();
        self.share.set(self.ring_bytes());
    }
}
