//! A set of arbiters.

/// The most arbiters that an engine has.
pub const ARBITERS_MAX: usize = 64;

/// Some of an engine's arbiters, by their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arbiters(u64);

impl Arbiters {
    /// The first `count` of them.
    #[must_use]
    pub fn first(count: usize) -> Self {
        let mut all = Self::default();
        (0..).take(count).for_each(|arbiter| all.insert(arbiter));
        all
    }

    /// Adds one.
    pub fn insert(&mut self, arbiter: u16) {
        debug_assert!(usize::from(arbiter) < ARBITERS_MAX, "there are no more");
        self.0 |= 1 << (arbiter % 64);
    }

    /// Takes one out.
    pub fn remove(&mut self, arbiter: u16) {
        self.0 &= !(1 << (arbiter % 64));
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn contains(self, arbiter: u16) -> bool {
        self.0 & (1 << (arbiter % 64)) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arbiters_come_and_go() {
        let mut some = Arbiters::first(2);
        assert!(some.contains(0) && some.contains(1) && !some.contains(2));
        some.insert(63);
        some.remove(0);
        some.remove(1);
        assert!(some.contains(63) && !some.is_empty());
        some.remove(63);
        assert!(some.is_empty());
        assert!((0..64).all(|arbiter| Arbiters::first(ARBITERS_MAX).contains(arbiter)));
    }
}
