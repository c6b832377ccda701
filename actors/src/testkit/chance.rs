//! Chance by seed, and a clock that can be set.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use crate::port::{Clock, Now};

/// Chance that a seed repeats: splitmix64.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    #[expect(clippy::cast_possible_truncation, reason = "any bits do")]
    pub fn below(&mut self, n: usize) -> usize {
        (self.any() % n as u64) as usize
    }

    /// True once in `n` times; never if `n` is 0.
    pub fn one_in(&mut self, n: usize) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// One of `items`, which are not none.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// A clock that stands still until it is set.
#[derive(Debug, Default)]
pub struct TestClock {
    unix_ms: AtomicU64,
    mono_ms: AtomicU64,
}

impl TestClock {
    /// A clock that stands at this wall time, its other hand at 0.
    #[must_use]
    pub fn at(unix_ms: u64) -> Arc<Self> {
        Arc::new(Self { unix_ms: AtomicU64::new(unix_ms), mono_ms: AtomicU64::new(0) })
    }

    /// Time passes.
    pub fn advance(&self, ms: u64) {
        self.mono_ms.fetch_add(ms, SeqCst);
        self.unix_ms.fetch_add(ms, SeqCst);
    }

    /// Somebody sets the wall clock.
    pub fn set_wall(&self, unix_ms: u64) {
        self.unix_ms.store(unix_ms, SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Now {
        Now { unix_ms: self.unix_ms.load(SeqCst), mono_ms: self.mono_ms.load(SeqCst) }
    }
}
