//! How long to wait before trying again: exponential, with full jitter, so that a crowd does not come back at once.

use std::time::Duration;

/// Random numbers for jitter. A small generator of its own (splitmix64): nothing here is a secret, and a seed replays a
/// test.
#[derive(Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to `max`.
    pub(super) fn up_to(&mut self, max: Duration) -> Duration {
        self.between(Duration::ZERO, max)
    }

    /// From `min` up to `max`, in whole microseconds.
    pub(super) fn between(&mut self, min: Duration, max: Duration) -> Duration {
        let span = u64::try_from(max.saturating_sub(min).as_micros()).unwrap_or(u64::MAX - 1);
        min + Duration::from_micros(self.next() % span.saturating_add(1))
    }
}

/// Waits that double.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), attempts: 0 }
    }

    /// How long to wait before the next attempt.
    pub(super) fn next(&mut self, rng: &mut Rng) -> Duration {
        let ceiling = self.min.saturating_mul(1 << self.attempts.min(20)).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        rng.up_to(ceiling)
    }

    /// After success.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum() {
        let mut rng = Rng::new(7);
        let ms = Duration::from_millis;
        for round in 0..100 {
            let mut backoff = Backoff::new(ms(100), ms(10_000));
            for ceiling in [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
                let wait = backoff.next(&mut rng);
                assert!(wait <= ms(ceiling), "round {round}: {wait:?} is more than {ceiling} ms");
            }
            backoff.reset();
            assert!(backoff.next(&mut rng) <= ms(100));
        }
    }

    #[test]
    fn jitter_spreads_over_the_whole_span() {
        let mut rng = Rng::new(1);
        let (min, max) = (Duration::from_millis(70), Duration::from_millis(90));
        let waits: Vec<_> = (0..1_000).map(|_| rng.between(min, max)).collect();
        assert!(waits.iter().all(|wait| (min..=max).contains(wait)));
        assert!(waits.iter().any(|wait| *wait < Duration::from_millis(73)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_millis(87)));
        assert_eq!(rng.between(max, min), max, "an empty span is its lower end");
    }
}
