//! Those who left a room and are remembered for a while: clients whose connections broke come back, often all at once.

use std::collections::VecDeque;

use crate::pools::Share;

/// A queue of those who left, the oldest first. Whoever is in it notes the ticket that he was given, and forgets it when
/// he comes back.
#[derive(Debug)]
pub struct Absent<K> {
    queue: VecDeque<(K, u64)>,
    tickets: u64,
    max: usize,
    /// What the queue has of those of all rooms.
    share: Share,
}

impl<K> Absent<K> {
    /// Nobody; at most `max`, and no more than its `share` may have.
    #[must_use]
    pub fn new(max: usize, share: Share) -> Self {
        Self { queue: VecDeque::new(), tickets: 0, max, share }
    }

    /// Somebody leaves. Returns his ticket.
    #[must_use]
    pub fn push(&mut self, key: K) -> u64 {
        self.tickets += 1;
        self.queue.push_back((key, self.tickets));
        self.share.set(self.queue.len());
        self.tickets
    }

    /// Who has to be forgotten, if he still has this ticket, since too many have left after him, here or in other rooms.
    pub fn pop(&mut self) -> Option<(K, u64)> {
        if self.queue.len() <= self.max.min(self.share.most()) {
            return None;
        }
        let oldest = self.queue.pop_front();
        self.share.set(self.queue.len());
        if self.queue.capacity() > 4 * self.queue.len().max(16) {
            self.queue.shrink_to(2 * self.queue.len());
        }
        oldest
    }
}
