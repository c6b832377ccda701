//! Whether the wall clock can be believed when something is to be deleted for ever.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parlor_protocol::UnixMillis;

use crate::port::Now;

/// How far the wall clock may be off, in milliseconds.
pub const JUMP_MAX_MS: u64 = 600_000;

/// Compares the wall clock with the one that only goes forward, from one look to the next.
///
/// A wall clock that was set by more than [`JUMP_MAX_MS`] is not believed until it is back where it was, by the other
/// clock, or until somebody who knows says that it is right.
#[derive(Debug)]
pub struct WallGuard {
    known: Known,
}

/// What is known of the wall clock.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// It was at least here in an earlier run.
    AtLeast(UnixMillis),
    /// It was below that when this run began: it should be at least this…
    Behind(Now),
    /// It was believed when it was this.
    At(Now),
}

impl WallGuard {
    /// A guard for a run that begins. `seen` is what the wall clock showed in an earlier one; 0 if there was none.
    #[must_use]
    pub fn new(seen: UnixMillis) -> Self {
        Self { known: Known::AtLeast(seen) }
    }

    /// `None` if the wall clock is believed; otherwise by how many milliseconds it is ahead, or behind if negative.
    pub fn look(&mut self, now: Now) -> Option<i64> {
        let (then, backward_only) = match self.known {
            Known::AtLeast(unix_ms) => (Now { unix_ms, mono_ms: now.mono_ms }, true),
            Known::Behind(then) => (then, true),
            Known::At(then) => (then, false),
        };
        let expected = then.unix_ms.saturating_add(now.mono_ms.saturating_sub(then.mono_ms));
        let ahead = now.unix_ms > expected;
        let off = now.unix_ms.abs_diff(expected);
        if off <= JUMP_MAX_MS || (ahead && backward_only) {
            self.known = Known::At(now);
            return None;
        }
        if backward_only {
            self.known = Known::Behind(then);
        }
        let off = i64::try_from(off).unwrap_or(i64::MAX);
        Some(if ahead { off } else { -off })
    }

    /// Somebody who knows says that the wall clock is right, whatever it shows at the next look.
    pub fn trust(&mut self) {
        self.known = Known::AtLeast(0);
    }
}

/// The word of somebody who knows that the wall clock is right, for all guards that look here.
#[derive(Debug, Default)]
pub struct Word(AtomicU64);

impl Word {
    /// Says that the wall clock is right.
    pub fn give(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// How often that was said.
    #[must_use]
    pub fn given(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: u64 = 60_000;
    const HOUR: u64 = 60 * MIN;

    /// Looks at (wall, other) clocks in minutes, one after the other; `want` is how many minutes off each is.
    #[track_caller]
    fn check(seen: u64, looks: &[(u64, u64)], want: &[Option<i64>]) {
        let mut guard = WallGuard::new(seen * MIN);
        let look = |(wall, mono): &(u64, u64)| guard.look(Now { unix_ms: wall * MIN, mono_ms: mono * MIN });
        let got: Vec<_> = looks.iter().map(look).map(|off| off.map(|off| off / 60_000)).collect();
        assert_eq!(got, want, "{looks:?}");
    }

    #[test]
    fn a_clock_that_jumps_is_not_believed_until_it_is_back() {
        check(0, &[(100, 0), (101, 1), (161, 61)], &[None, None, None]);
        // Ten minutes are borne, in either direction, and taken for right.
        check(0, &[(100, 0), (111, 1), (122, 2)], &[None, None, None]);
        check(0, &[(100, 0), (91, 1), (82, 2)], &[None, None, None]);
        check(0, &[(100, 0), (112, 1)], &[None, Some(11)]);
        check(0, &[(100, 0), (90, 1)], &[None, Some(-11)]);
        // Off for as long as it takes, and back by the other clock.
        check(0, &[(100, 0), (200, 1), (201, 2), (110, 10)], &[None, Some(99), Some(99), None]);
        check(0, &[(100, 0), (50, 1), (51, 2), (103, 3)], &[None, Some(-51), Some(-51), None]);
        // A pause of the machine looks the same.
        check(0, &[(100, 0), (400, 1)], &[None, Some(299)]);
    }

    #[test]
    fn a_run_that_begins_before_an_earlier_one_ended_is_not_believed() {
        check(0, &[(0, 5)], &[None]);
        check(100, &[(90, 5)], &[None]);
        check(100, &[(100_000, 5)], &[None]);
        check(100, &[(89, 5), (90, 6), (91, 7)], &[Some(-11), Some(-11), Some(-11)]);
        // Set right meanwhile: nobody knows how long the machine stood still.
        check(100, &[(10, 5), (90_000, 6), (90_001, 7)], &[Some(-90), None, None]);
        check(100, &[(10, 5), (91, 6)], &[Some(-90), None]);
        check(100, &[(10, 5), (90_000, 6), (10, 7)], &[Some(-90), None, Some(-89_991)]);
    }

    #[test]
    fn who_knows_says_that_it_is_right() {
        let at = |unix_ms, mono_ms| Now { unix_ms, mono_ms };
        let mut guard = WallGuard::new(0);
        assert_eq!(guard.look(at(9 * HOUR, 0)), None);
        assert_eq!(guard.look(at(2 * HOUR, 0)), Some(-7 * 3_600_000));
        guard.trust();
        assert_eq!(guard.look(at(2 * HOUR, 1)), None);
        assert_eq!(guard.look(at(4 * HOUR, 1)), Some(2 * 3_600_000));
    }
}
