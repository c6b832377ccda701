//! How often something may be rebuilt before it has to rest.

use std::collections::VecDeque;

/// The newest rebuilds of one thing.
#[derive(Debug, Default)]
pub struct Intensity {
    at: VecDeque<u64>,
}

impl Intensity {
    /// Counts a rebuild at `now`; false if there were more than `max` within `window_ms`.
    pub fn allows(&mut self, now_mono: u64, max: u32, window_ms: u64) -> bool {
        self.at.push_back(now_mono);
        while self.at.front().is_some_and(|at| now_mono.saturating_sub(*at) >= window_ms) {
            self.at.pop_front();
        }
        let allowed = self.at.len() <= max as usize;
        if !allowed {
            self.at.clear();
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_due_after_too_many_rebuilds_in_a_window() {
        let mut intensity = Intensity::default();
        let outcomes = [0, 10, 20, 30, 1_000, 1_010, 1_020].map(|now| intensity.allows(now, 3, 1_000));
        assert_eq!(outcomes, [true, true, true, false, true, true, true]);
        assert!(intensity.allows(2_005, 3, 1_000), "the first three of the second second are out of the window");
    }
}
