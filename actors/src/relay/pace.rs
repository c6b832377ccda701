//! When an arbiter's turn ends: what its channels have appended goes to the writer at once, but right behind a long pass of
//! writes a little later. Who was just written to answers in that time, and so the next pass, which costs as much however little it
//! carries, carries more.

use std::{
    cell::Cell,
    sync::Arc,
    time::{Duration, Instant},
};

use super::Local;
use crate::handover::Handover;

/// What is appended right behind a pass waits for this part of what that took…
const PART: u32 = 16;

/// …unless that is less than this, which a timer of milliseconds cannot keep, so that only long passes are waited behind…
const WAIT_LEAST: Duration = Duration::from_micros(500);

/// …and no longer than this.
const WAIT_MAX: Duration = Duration::from_millis(2);

/// The last long pass.
#[derive(Default)]
pub(super) struct Pace {
    /// Until when appends wait.
    gathers: Cell<Option<Instant>>,
}

impl Pace {
    /// A pass has taken so long.
    fn passed(&self, began: Instant, ended: Instant) {
        let wait = (ended - began) / PART;
        if wait >= WAIT_LEAST {
            self.gathers.set(Some(ended + wait.min(WAIT_MAX)));
        }
    }

    /// How long what is appended now is to wait.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let wait = self.gathers.get()?.checked_duration_since(now).filter(|wait| !wait.is_zero());
        if wait.is_none() {
            self.gathers.set(None);
        }
        wait
    }
}

impl Local {
    /// Runs a pass over connections that have something to write.
    pub(super) fn pass(&self, run: impl FnOnce()) {
        let began = Instant::now();
        run();
        self.0.pace.passed(began, Instant::now());
    }

    /// Hands over what the arbiter's channels have appended.
    pub(super) fn hand_over(&self, handover: Arc<Handover>) {
        let store = self.0.shared.store.clone();
        match self.0.pace.wait(Instant::now()) {
            None => handover.hand_over(&*store),
            Some(wait) => {
                actix_rt::spawn(async move {
                    actix_rt::time::sleep(wait).await;
                    handover.hand_over(&*store);
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_long_pass_waits_for_a_part_of_it() {
        let (pace, start) = (Pace::default(), Instant::now());
        let at = |micros: u64| start + Duration::from_micros(micros);
        assert_eq!(pace.wait(start), None, "nothing was written yet");
        pace.passed(at(0), at(7_999));
        assert_eq!(pace.wait(at(7_999)), None, "that was a short one");
        pace.passed(at(0), at(16_000));
        assert_eq!(pace.wait(at(16_000)), Some(Duration::from_micros(1_000)));
        assert_eq!(pace.wait(at(16_900)), Some(Duration::from_micros(100)));
        assert_eq!(pace.wait(at(17_000)), None);
        assert_eq!(pace.wait(at(16_900)), None, "once it is over it is forgotten");
        pace.passed(at(0), at(1_000_000));
        assert_eq!(pace.wait(at(1_000_000)), Some(WAIT_MAX));
    }
}
