//! What all rooms of an engine have together, and how much of it each may have.
//!
//! A share may be a sixteenth of what the others leave. So there is always some left for a room that begins to fill its own,
//! all that go on filling theirs end up with the same, and together they have no more than there is. Nobody takes from
//! another: what is too much goes when its own room looks, which it does when something is committed there, when its share
//! has grown, and when it is asked whether it is idle.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use crate::limits::Limits;

/// A share may be one part in so many of what the others leave.
const PARTS: usize = 16;

/// Something of which all rooms together may have only so much.
#[derive(Debug)]
pub struct Pool {
    max: usize,
    used: AtomicUsize,
    cuts: AtomicU64,
}

impl Pool {
    /// A pool of which nobody has anything.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, used: AtomicUsize::new(0), cuts: AtomicU64::new(0) })
    }

    /// A share that has nothing yet.
    #[must_use]
    pub fn share(self: &Arc<Self>) -> Share {
        Share { pool: self.clone(), held: 0 }
    }

    /// How much all shares have.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// How much there is.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// How often somebody had to let go of something.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Relaxed)
    }

    /// Whether less than a quarter is left.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.used() > self.max - self.max / 4
    }
}

/// What one room has of a [`Pool`]; given back when dropped, also by a panic.
///
/// Whoever has more says so first, with [`set`](Self::set), and looks then at what is the [`most`](Self::most) that he may
/// have: of two that grow at once the later one sees both.
#[derive(Debug)]
pub struct Share {
    pool: Arc<Pool>,
    held: usize,
}

impl Share {
    /// It has so much now.
    pub fn set(&mut self, held: usize) {
        if held > self.held {
            self.pool.used.fetch_add(held - self.held, Relaxed);
        } else if held < self.held {
            self.pool.used.fetch_sub(self.held - held, Relaxed);
        }
        self.held = held;
    }

    /// How much it has.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// It has to let go of something now.
    pub fn cut(&self) {
        self.pool.cuts.fetch_add(1, Relaxed);
    }

    /// How much it may have, as the others are now.
    #[must_use]
    pub fn most(&self) -> usize {
        self.left() / PARTS
    }

    /// Whether so much, instead of what it has, is within what there is: more than its part, which is for those that cannot
    /// have less.
    #[must_use]
    pub fn fits(&self, held: usize) -> bool {
        held <= self.left()
    }

    /// What the others leave.
    fn left(&self) -> usize {
        self.pool.max.saturating_sub(self.pool.used().saturating_sub(self.held))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// The pools of an engine.
#[derive(Clone, Debug)]
pub struct Pools {
    /// Bytes of the rooms' rings.
    pub ring_bytes: Arc<Pool>,
    /// Those who left a room and are remembered there: devices, and users.
    pub absent: Arc<Pool>,
}

impl Pools {
    /// As large as the limits say.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self { ring_bytes: Pool::new(limits.rings_bytes_max), absent: Pool::new(limits.absent_max) }
    }

    /// Whether little is left of one of them.
    #[must_use]
    pub fn are_short(&self) -> bool {
        self.ring_bytes.is_short() || self.absent.is_short()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has so much more, as far as it may.
    fn grow(share: &mut Share, more: usize) {
        share.set(share.held() + more);
        let most = share.most();
        share.set(share.held().min(most));
    }

    #[test]
    fn together_they_have_no_more_than_there_is_and_those_that_grow_have_the_same() {
        let pool = Pool::new(100_000);
        let mut shares: Vec<Share> = (0..1_000).map(|_| pool.share()).collect();
        for _ in 0..200 {
            for share in &mut shares {
                grow(share, 50);
                assert!(pool.used() <= pool.max(), "{} are used", pool.used());
            }
        }
        let held: Vec<usize> = shares.iter().map(Share::held).collect();
        let fair = pool.max() / (shares.len() + PARTS - 1);
        assert!(held.iter().all(|held| held.abs_diff(fair) <= 1), "{fair} would be fair: {held:?}");
        assert!(pool.is_short());
        drop(shares);
        assert_eq!((pool.used(), pool.is_short()), (0, false));
    }

    #[test]
    fn one_that_came_too_late_gets_its_part_as_the_others_look() {
        let pool = Pool::new(1_600);
        let mut first: Vec<Share> = (0..200).map(|_| pool.share()).collect();
        first.iter_mut().for_each(|share| grow(share, 1_000));
        let mut late = pool.share();
        grow(&mut late, 1_000);
        assert!(late.held() < 2, "{} are left", late.held());
        for _ in 0..20 {
            grow(&mut late, 1_000);
            first.iter_mut().for_each(|share| grow(share, 1_000));
        }
        assert!(late.held().abs_diff(1_600 / (201 + PARTS - 1)) <= 1, "{}", late.held());
    }

    #[test]
    fn what_cannot_be_less_takes_what_is_left_and_no_more() {
        let pool = Pool::new(160);
        let (mut one, mut other) = (pool.share(), pool.share());
        one.set(100);
        assert_eq!((other.most(), other.fits(60), other.fits(61)), (3, true, false));
        other.set(60);
        // It may have what it has, and the other may not have more.
        assert_eq!((other.fits(60), one.fits(100), one.fits(101)), (true, true, false));
        one.set(0);
        assert!(other.fits(160));
    }
}
