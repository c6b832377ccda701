//! One table of deadlines for all sessions of an arbiter.

use std::collections::BTreeSet;

/// Deadlines, one of each connection at most. A deadline that moved on is noticed when it comes: whoever is woken says when
/// next, so that the frames of a busy session cost the table nothing.
#[derive(Debug, Default)]
pub struct Timers {
    due: BTreeSet<(u64, u32)>,
    /// By slot, when it is woken; `u64::MAX` for never.
    armed: Vec<u64>,
}

impl Timers {
    /// Wakes `slot` at `at`, or before, if that was said already. `u64::MAX` is never.
    pub fn arm(&mut self, at: u64, slot: u32) {
        let index = slot as usize;
        if self.armed.len() <= index {
            self.armed.resize(index + 1, u64::MAX);
        }
        if at < self.armed[index] {
            self.disarm(slot);
            self.armed[index] = at;
            self.due.insert((at, slot));
        }
    }

    /// Whoever has the slot is gone.
    pub fn disarm(&mut self, slot: u32) {
        if let Some(armed) = self.armed.get_mut(slot as usize) {
            self.due.remove(&(std::mem::replace(armed, u64::MAX), slot));
        }
    }

    /// How many are to be woken.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.due.len()
    }

    /// Takes everybody whose deadline has come.
    pub fn expire(&mut self, now: u64) -> Vec<u32> {
        if self.due.first().is_none_or(|(at, _)| *at > now) {
            return Vec::new();
        }
        let later = self.due.split_off(&(now + 1, 0));
        let expired = std::mem::replace(&mut self.due, later).into_iter().map(|(_, slot)| slot).collect::<Vec<_>>();
        expired.iter().for_each(|slot| self.armed[*slot as usize] = u64::MAX);
        expired
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

    #[test]
    fn who_is_armed_again_and_again_is_there_once_and_comes_first_when_he_should_first() {
        let mut timers = Timers::default();
        for at in [30, 10, 20] {
            timers.arm(at, 1);
        }
        assert_eq!(timers.waiting(), 1);
        assert_eq!((timers.expire(10), timers.expire(99)), (vec![1], vec![]));
        timers.arm(40, 1);
        timers.arm(u64::MAX, 1);
        assert_eq!(timers.expire(40), [1]);
        timers.arm(u64::MAX, 1);
        assert_eq!(timers.waiting(), 0, "it is never woken");
    }

    #[test]
    fn nothing_is_left_of_who_is_gone() {
        let mut timers = Timers::default();
        timers.arm(10, 1);
        timers.arm(10, 2);
        timers.disarm(1);
        timers.disarm(7);
        assert_eq!(timers.waiting(), 1);
        timers.arm(20, 1);
        assert_eq!((timers.expire(10), timers.expire(20)), (vec![2], vec![1]));
    }
}
