//! Counts and latencies over all clients, while they come.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use hdrhistogram::Histogram;

/// Clients share this many places to count in, so that threads seldom wait for each other.
const SHARDS: usize = 16;

/// A microsecond to an hour, in nanoseconds.
const LATENCY_BOUNDS: (u64, u64) = (1_000, 3_600_000_000_000);

/// Significant decimal digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// Counts up to a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages sent.
    pub(crate) sent: u64,
    /// Messages acknowledged.
    pub(crate) acked: u64,
    /// Messages that came to members.
    pub(crate) delivered: u64,
}

/// Of nanoseconds, empty.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    let (least, most) = LATENCY_BOUNDS;
    #[expect(clippy::expect_used, reason = "the bounds are constants that a histogram takes")]
    Histogram::new_with_bounds(least, most, LATENCY_DIGITS).expect("these bounds are valid")
}

/// Latencies of acks and deliveries, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    /// From due to acknowledged.
    pub(crate) ack: Histogram<u64>,
    /// From due to received, for each member.
    pub(crate) delivery: Histogram<u64>,
}

impl Latencies {
    fn new() -> Self {
        Self { ack: latency_histogram(), delivery: latency_histogram() }
    }

    fn add(&mut self, other: &Self) {
        // Histograms with the same bounds take each other's values.
        let _ = self.ack.add(&other.ack);
        let _ = self.delivery.add(&other.delivery);
    }

    fn reset(&mut self) {
        self.ack.reset();
        self.delivery.reset();
    }
}

struct Shard {
    counts: Counts,
    measured: Latencies,
    recent: Latencies,
}

/// See the module. Times are nanoseconds since the start of the load.
pub(crate) struct Meter {
    start: Instant,
    warm: u64,
    shards: Vec<Mutex<Shard>>,
}

impl Meter {
    /// The load starts now; what is due from `warm` on is measured.
    pub(crate) fn start(warm: u64) -> Self {
        let shard = || Shard { counts: Counts::default(), measured: Latencies::new(), recent: Latencies::new() };
        Self { start: Instant::now(), warm, shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect() }
    }

    /// The time.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether what is due then is measured.
    pub(crate) fn measures(&self, due: u64) -> bool {
        due >= self.warm
    }

    /// A client sent this many.
    pub(crate) fn sent(&self, client: usize, count: u64) {
        self.shard(client).counts.sent += count;
    }

    /// A message that was due then is acknowledged now.
    pub(crate) fn acked(&self, client: usize, due: u64) {
        let latency = self.now().saturating_sub(due);
        let mut shard = self.shard(client);
        shard.counts.acked += 1;
        shard.recent.ack.saturating_record(latency);
        if self.measures(due) {
            shard.measured.ack.saturating_record(latency);
        }
    }

    /// A message that was due then is not acknowledged, and will not be: it took at least until now. The same goes for its
    /// deliveries to so many members, if it was never sent.
    pub(crate) fn given_up(&self, client: usize, due: u64, unsent_to: u64) {
        let latency = self.now().saturating_sub(due);
        if self.measures(due) {
            let mut shard = self.shard(client);
            shard.measured.ack.saturating_record(latency);
            shard.measured.delivery.saturating_record_n(latency, unsent_to);
        }
    }

    /// Messages came to a client, each as the time that it was due and the time that it came.
    pub(crate) fn delivered(&self, client: usize, messages: &[(u64, u64)]) {
        let mut shard = self.shard(client);
        shard.counts.delivered += messages.len() as u64;
        for &(due, came) in messages {
            let latency = came.saturating_sub(due);
            shard.recent.delivery.saturating_record(latency);
            if self.measures(due) {
                shard.measured.delivery.saturating_record(latency);
            }
        }
    }

    /// All counts up to now.
    pub(crate) fn counts(&self) -> Counts {
        let mut all = Counts::default();
        for shard in &self.shards {
            let Counts { sent, acked, delivered } = lock(shard).counts;
            all.sent += sent;
            all.acked += acked;
            all.delivered += delivered;
        }
        all
    }

    /// The latencies since the last call.
    pub(crate) fn take_recent(&self) -> Latencies {
        let mut all = Latencies::new();
        for shard in &self.shards {
            let mut shard = lock(shard);
            all.add(&shard.recent);
            shard.recent.reset();
        }
        all
    }

    /// The latencies of all that was due in the measured time.
    pub(crate) fn measured(&self) -> Latencies {
        let mut all = Latencies::new();
        self.shards.iter().for_each(|shard| all.add(&lock(shard).measured));
        all
    }

    fn shard(&self, client: usize) -> MutexGuard<'_, Shard> {
        lock(&self.shards[client % SHARDS])
    }
}

/// Counts stay usable if a thread panicked between two of them.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_due_before_the_measured_time_is_counted_and_not_measured() {
        let meter = Meter::start(1_000_000);
        meter.sent(3, 2);
        meter.delivered(3, &[(0, 5_000_000), (1_000_000, 3_000_000)]);
        meter.delivered(4, &[(2_000_000, 3_000_000)]);
        meter.acked(3, 0);
        assert_eq!(meter.counts(), Counts { sent: 2, acked: 1, delivered: 3 });
        let measured = meter.measured();
        assert_eq!((measured.delivery.len(), measured.ack.len()), (2, 0));
        assert_eq!(measured.delivery.max() / 10_000, 200, "two milliseconds, to three digits");
        assert_eq!(meter.take_recent().delivery.len(), 3);
        assert_eq!(meter.take_recent().delivery.len(), 0);
    }

    #[test]
    fn what_is_given_up_took_as_long_as_it_was_waited_for() {
        let meter = Meter::start(1);
        meter.given_up(0, 0, 5);
        std::thread::sleep(std::time::Duration::from_millis(20));
        meter.given_up(0, 1, 5);
        meter.given_up(1, 1, 0);
        let measured = meter.measured();
        assert_eq!((measured.ack.len(), measured.delivery.len()), (2, 5));
        assert!(measured.ack.min() >= 19_900_000 && measured.delivery.min() >= 19_900_000);
    }
}
