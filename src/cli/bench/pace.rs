//! Says when messages are due, at even times, whatever becomes of those before.
//!
//! A thread of its own: the runtime's timers count in milliseconds, which would be part of every latency.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::sync::mpsc::UnboundedSender;

use super::meter::{Meter, latency_histogram};

/// The longest sleep, so that a stop is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// When the message of this number is due, in nanoseconds since the start.
pub(crate) fn due(number: u64, rate: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time within weeks, in nanoseconds")]
    let nanos = (number as f64 * 1e9 / rate) as u64;
    nanos
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Paced {
    /// Messages that were due.
    pub(crate) due: u64,
    /// How late they were handed out in the measured time, in nanoseconds: that much of each latency is our own.
    pub(crate) late: Histogram<u64>,
}

/// Tells the publishers in turn what is due, until `end` or until `stop`.
pub(crate) fn run(
    meter: &Meter,
    rate: f64,
    end: u64,
    stop: &Arc<AtomicBool>,
    publishers: &[UnboundedSender<u64>],
) -> Paced {
    let mut paced = Paced { due: 0, late: latency_histogram() };
    for (number, publisher) in (0..).zip(publishers.iter().cycle()) {
        let due = due(number, rate);
        if due >= end {
            break;
        }
        let mut now = meter.now();
        while now < due && !stop.load(Relaxed) {
            thread::sleep(Duration::from_nanos(due - now).min(SLEEP_MAX));
            now = meter.now();
        }
        if stop.load(Relaxed) {
            break;
        }
        paced.due += 1;
        if meter.measures(due) {
            paced.late.saturating_record(now.saturating_sub(due));
        }
        // A publisher that is gone has said why.
        let _ = publisher.send(due);
    }
    paced
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn messages_are_due_at_even_times_and_in_turn() {
        let meter = Meter::start(1_000_000);
        let (first, mut of_first) = unbounded_channel();
        let (second, mut of_second) = unbounded_channel();
        let paced = run(&meter, 1_000.0, 5_000_000, &Arc::default(), &[first, second]);
        assert!(meter.now() >= 4_000_000, "it waited for the last");
        assert_eq!((paced.due, paced.late.len()), (5, 4));
        let take = |from: &mut tokio::sync::mpsc::UnboundedReceiver<u64>| {
            std::iter::from_fn(|| from.try_recv().ok()).collect::<Vec<_>>()
        };
        assert_eq!(take(&mut of_first), [0, 2_000_000, 4_000_000]);
        assert_eq!(take(&mut of_second), [1_000_000, 3_000_000]);
    }
}
