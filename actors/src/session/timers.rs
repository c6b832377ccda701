//! One table of deadlines for all sessions of an arbiter.

use std::collections::BTreeSet;

/// Deadlines, each of somebody. A deadline that moved on is noticed when it comes: whoever is woken says when next, so
/// that the frames of a busy session cost the table nothing.
#[derive(Debug, Default)]
pub struct Timers {
    due: BTreeSet<(u64, u32)>,
}

impl Timers {
    /// Wakes `slot` at `at`.
    pub fn arm(&mut self, at: u64, slot: u32) {
        self.due.insert((at, slot));
    }

    /// Takes everybody whose deadline has come.
    pub fn expire(&mut self, now: u64) -> Vec<u32> {
        if self.due.first().is_none_or(|(at, _)| *at > now) {
            return Vec::new();
        }
        let later = self.due.split_off(&(now + 1, 0));
        std::mem::replace(&mut self.due, later).into_iter().map(|(_, slot)| slot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_in_their_order_and_once() {
        let mut timers = Timers::default();
        for (at, slot) in [(30, 1), (10, 2), (20, 3), (20, 4)] {
            timers.arm(at, slot);
        }
        assert_eq!(timers.expire(9), Vec::<u32>::new());
        assert_eq!(timers.expire(20), [2, 3, 4]);
        assert_eq!(timers.expire(20), Vec::<u32>::new());
        assert_eq!(timers.expire(99), [1]);
    }
}
