//! How often something may be rebuilt before it has to rest, and how long it rests then.

use std::collections::VecDeque;

/// A rest is doubled at most so many times.
const DOUBLINGS_MAX: u32 = 5;

/// The newest rebuilds of one thing.
#[derive(Debug, Default)]
pub struct Intensity {
    at: VecDeque<u64>,
    /// Rests without a calm time between them.
    rests: u32,
    /// How long the last rest was.
    rest_ms: u64,
    /// When it last had to be rebuilt.
    last: u64,
}

impl Intensity {
    /// Counts a rebuild at `now`; false if there were more than `max` within `window_ms`.
    pub fn allows(&mut self, now_mono: u64, max: u32, window_ms: u64) -> bool {
        // It rested, ran for longer than a window, and for as long as it had rested.
        let calm = now_mono.saturating_sub(self.last) >= self.rest_ms.saturating_mul(2).max(self.rest_ms + window_ms);
        if calm {
            self.rests = 0;
        }
        self.last = now_mono;
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

    /// How long it has to rest now: `first_ms`, and twice as long each time that it fails again without a calm time
    /// between.
    pub fn rest_ms(&mut self, first_ms: u64) -> u64 {
        self.rest_ms = first_ms.saturating_mul(1 << self.rests.min(DOUBLINGS_MAX));
        self.rests += 1;
        self.rest_ms
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

    #[test]
    fn rests_grow_until_a_calm_time() {
        let mut intensity = Intensity::default();
        let mut now = 10_000;
        let mut rest = |intensity: &mut Intensity, calm: u64| {
            now += calm;
            while intensity.allows(now, 1, 1_000) {
                now += 1;
            }
            let rest = intensity.rest_ms(500);
            now += rest;
            rest
        };
        assert_eq!([0; 7].map(|calm| rest(&mut intensity, calm)), [500, 1_000, 2_000, 4_000, 8_000, 16_000, 16_000]);
        assert_eq!(rest(&mut intensity, 15_999), 16_000, "it has not run for as long as it had rested");
        assert_eq!(rest(&mut intensity, 16_000), 500);
    }
}
