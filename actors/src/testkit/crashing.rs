//! What a [`MemStore`](super::MemStore) has left after a crash.

use super::{Crash, Entry, Faults, Inside, Room, index};

impl Inside {
    pub(super) fn crash(&mut self, crash: Crash) {
        let queued = self.queue.len();
        let stored = self.chance.below(queued + 1);
        for entry in self.queue.drain(..stored).collect::<Vec<_>>() {
            if let Entry::Append(append) = entry
                && !self.poisoned
            {
                // A refusal concerns nobody any more.
                let _ = self.append(append);
            }
        }
        if crash == Crash::Power {
            self.losses += 1;
            for room in self.rooms.values_mut() {
                let kept = room.synced + self.chance.below(room.records.len() - room.synced + 1);
                room.lose(kept);
            }
        }
        for room in self.rooms.values_mut() {
            // Opening syncs what is found.
            room.synced = room.records.len();
            room.first = room.first.min(room.tail() + 1);
            room.trimmed = room.trimmed.min(room.first);
            room.writer = None;
        }
        self.poisoned = false;
        self.faults = Faults::default();
    }
}

impl Room {
    /// The records behind these are lost, and what they rewrote is as it was.
    pub(super) fn lose(&mut self, kept: usize) {
        self.records.truncate(kept);
        for record in &mut self.records {
            record.rewrites.retain(|rewrite| index(rewrite.revision) < kept);
        }
    }
}
