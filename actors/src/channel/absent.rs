//! Those who left a room and are remembered for a while: clients whose connections broke come back, often all at once.

use std::collections::VecDeque;

/// A queue of those who left, the oldest first. Whoever is in it notes the ticket that he was given, and forgets it when
/// he comes back.
#[derive(Debug)]
pub struct Absent<K> {
    queue: VecDeque<(K, u64)>,
    tickets: u64,
    max: usize,
}

impl<K> Absent<K> {
    /// Nobody; at most `max`.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { queue: VecDeque::new(), tickets: 0, max }
    }

    /// Somebody leaves. Returns his ticket.
    #[must_use]
    pub fn push(&mut self, key: K) -> u64 {
        self.tickets += 1;
        self.queue.push_back((key, self.tickets));
        self.tickets
    }

    /// Who has to be forgotten, if he still has this ticket, since too many have left after him.
    pub fn pop(&mut self) -> Option<(K, u64)> {
        if self.queue.len() > self.max { self.queue.pop_front() } else { None }
    }
}
