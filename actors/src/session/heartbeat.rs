//! How often a client beats: a pure function of its network and its last beats.
//!
//! Each beat's ack grants the next interval. A client that misses beats is asked to beat more often, so that its death
//! is noticed sooner while its line is bad, and less often again once it keeps its word.

use std::sync::Arc;

use parlor_protocol::message::Network;

/// Intervals between beats, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeatIntervals {
    /// Through a cable.
    pub wired_ms: u32,
    /// Through a wireless local network.
    pub wifi_ms: u32,
    /// Through 3G, 4G or 5G: each beat wakes the radio, and the carrier's translation tables live longer.
    pub mobile_ms: u32,
    /// Through 2G.
    pub mobile_2g_ms: u32,
    /// Not known through what.
    pub unknown_ms: u32,
    /// Never more often than this.
    pub least_ms: u32,
    /// How long behind its grant a beat is still in time, in hundredths of the grant…
    pub grace_percent: u32,
    /// …and at least so long.
    pub grace_least_ms: u32,
    /// By how much the interval is divided for a client that missed one of the last beats…
    pub divisor_one_missed: u32,
    /// …or more of them.
    pub divisor_more_missed: u32,
    /// Grants, each with its grace, that may pass without any frame before the lease ends.
    pub grants_per_lease: u32,
}

impl Default for BeatIntervals {
    fn default() -> Self {
        Self {
            wired_ms: 10_000,
            wifi_ms: 30_000,
            mobile_ms: 90_000,
            mobile_2g_ms: 240_000,
            unknown_ms: 30_000,
            least_ms: 5_000,
            grace_percent: 10,
            grace_least_ms: 2_000,
            divisor_one_missed: 2,
            divisor_more_missed: 4,
            grants_per_lease: 3,
        }
    }
}

/// Intervals whose misses count.
const INTERVALS_KEPT: usize = 3;

/// A session's beats.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    intervals: Arc<BeatIntervals>,
    network: Network,
    /// When the newest beat came.
    newest: u64,
    /// What it was granted.
    grant_ms: u32,
    /// How many beats were missed in each of the last intervals, the newest first.
    missed: [u32; INTERVALS_KEPT],
}

impl Heartbeat {
    /// A session that begins now; the hello counts as a beat.
    #[must_use]
    pub fn new(intervals: impl Into<Arc<BeatIntervals>>, network: Network, now_mono: u64) -> Self {
        let intervals = intervals.into();
        let grant_ms = intervals.base(network);
        Self { intervals, network, newest: now_mono, grant_ms, missed: [0; INTERVALS_KEPT] }
    }

    /// One on the same network that begins then, and has missed nothing.
    #[must_use]
    pub fn anew(&self, now_mono: u64) -> Self {
        Self::new(self.intervals.clone(), self.network, now_mono)
    }

    /// A beat came: the next grant, in milliseconds.
    pub fn on_beat(&mut self, network: Option<Network>, now_mono: u64) -> u32 {
        self.network = network.unwrap_or(self.network);
        let missed = self.intervals.missed(self.grant_ms, now_mono - self.newest);
        self.missed.rotate_right(1);
        self.missed[0] = u32::try_from(missed).unwrap_or(u32::MAX);
        let missed = self.missed.iter().map(|missed| u64::from(*missed)).sum();
        self.newest = now_mono;
        self.grant_ms = self.intervals.granted(self.network, missed);
        self.grant_ms
    }

    /// What the client is connected through.
    #[must_use]
    pub fn network(&self) -> Network {
        self.network
    }

    /// The grant in force, in milliseconds.
    #[must_use]
    pub fn grant_ms(&self) -> u32 {
        self.grant_ms
    }

    /// How long the session lives behind its client's last frame, in milliseconds.
    #[must_use]
    pub fn lease_ms(&self) -> u64 {
        let grant = self.grant_ms();
        u64::from(self.intervals.grants_per_lease) * u64::from(grant.saturating_add(self.intervals.grace(grant)))
    }
}

impl BeatIntervals {
    /// The interval of a client that misses nothing.
    #[must_use]
    pub fn base(&self, network: Network) -> u32 {
        match network {
            Network::Wired => self.wired_ms,
            Network::Wifi => self.wifi_ms,
            Network::Mobile3g | Network::Mobile4g | Network::Mobile5g => self.mobile_ms,
            Network::Mobile2g => self.mobile_2g_ms,
            Network::Unknown => self.unknown_ms,
        }
    }

    /// The next grant of a client that missed so many of its last three intervals.
    #[must_use]
    pub fn granted(&self, network: Network, missed: u64) -> u32 {
        let base = self.base(network);
        let share = match missed {
            0 => base,
            1 => base / self.divisor_one_missed.max(1),
            _ => base / self.divisor_more_missed.max(1),
        };
        share.max(self.least_ms.min(base))
    }

    /// How many beats a silence of `elapsed` milliseconds has missed.
    #[must_use]
    pub fn missed(&self, grant: u32, elapsed: u64) -> u64 {
        // A beat exactly at the end of its grace is in time.
        elapsed.saturating_sub(u64::from(self.grace(grant)) + 1) / u64::from(grant.max(1))
    }

    /// How long behind its grant a beat is still in time.
    #[must_use]
    pub fn grace(&self, grant: u32) -> u32 {
        let grace = u64::from(grant) * u64::from(self.grace_percent) / 100;
        u32::try_from(grace).unwrap_or(u32::MAX).max(self.grace_least_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(network: Network, missed: u64, want: u32) {
        assert_eq!(BeatIntervals::default().granted(network, missed), want, "{network:?}, {missed} missed");
    }

    #[test]
    fn the_grant_follows_the_network_and_the_misses() {
        for (network, base) in [
            (Network::Wired, 10_000),
            (Network::Wifi, 30_000),
            (Network::Mobile3g, 90_000),
            (Network::Mobile4g, 90_000),
            (Network::Mobile5g, 90_000),
            (Network::Mobile2g, 240_000),
            (Network::Unknown, 30_000),
        ] {
            check(network, 0, base);
            check(network, 1, base / 2);
            check(network, 2, (base / 4).max(5_000));
            check(network, 9, (base / 4).max(5_000));
        }
    }

    #[test]
    fn a_silence_of_n_grants_is_n_misses() {
        let intervals = BeatIntervals::default();
        for (elapsed, want) in
            [(0, 0), (30_000, 0), (32_999, 0), (33_000, 0), (33_001, 1), (63_000, 1), (63_001, 2), (93_001, 3)]
        {
            assert_eq!(intervals.missed(30_000, elapsed), want, "{elapsed} ms");
        }
        assert_eq!(intervals.missed(5_000, 6_999), 0, "the grace is at least 2 s");
    }

    #[test]
    fn each_figure_of_the_rule_is_configuration() {
        let intervals = BeatIntervals {
            grace_percent: 50,
            grace_least_ms: 100,
            divisor_one_missed: 3,
            divisor_more_missed: 10,
            grants_per_lease: 2,
            ..BeatIntervals::default()
        };
        let granted = |missed| intervals.granted(Network::Mobile2g, missed);
        assert_eq!([0, 1, 2, 3].map(granted), [240_000, 80_000, 24_000, 24_000]);
        assert_eq!(
            [(1_000, 1_500), (1_000, 1_501), (150, 250)].map(|(grant, at)| intervals.missed(grant, at)),
            [0, 1, 0]
        );
        let heartbeat = Heartbeat::new(intervals, Network::Wired, 0);
        assert_eq!(heartbeat.lease_ms(), 2 * 15_000);
    }

    /// How many beats are missed in each interval, oldest first, and what is granted behind each.
    #[track_caller]
    fn check_beats(network: Network, missed: &[u64], want: &[u32]) -> Heartbeat {
        let intervals = BeatIntervals::default();
        let mut heartbeat = Heartbeat::new(intervals.clone(), network, 0);
        let mut now = 0;
        let mut granted = Vec::new();
        for missed in missed {
            let grant = heartbeat.grant_ms();
            // In time to the last millisecond: one more would be one more missed.
            now += u64::from(grant) * (missed + 1) + u64::from(intervals.grace(grant));
            granted.push(heartbeat.on_beat(None, now));
        }
        assert_eq!(granted, want, "{network:?} {missed:?}");
        heartbeat
    }

    #[test]
    fn the_last_three_intervals_count_and_no_other() {
        let (base, half, quarter) = (30_000, 15_000, 7_500);
        for (missed, want) in [
            (&[0, 0, 0, 0][..], &[base, base, base, base][..]),
            (&[1, 0, 0, 0], &[half, half, half, base]),
            (&[2, 0, 0, 0], &[quarter, quarter, quarter, base]),
            (&[1, 1, 0, 0, 0], &[half, quarter, quarter, half, base]),
            (&[1, 0, 1, 0, 0, 0], &[half, half, quarter, half, half, base]),
            (&[1, 0, 0, 1], &[half, half, half, half]),
            (&[9, 0, 0, 0], &[quarter, quarter, quarter, base]),
        ] {
            check_beats(Network::Wifi, missed, want);
        }
        check_beats(Network::Wired, &[1, 1], &[5_000, 5_000]);
        check_beats(Network::Mobile2g, &[1, 1], &[120_000, 60_000]);
    }

    #[test]
    fn a_network_that_changes_on_the_fly_changes_the_base_and_forgives_nothing() {
        let mut heartbeat = check_beats(Network::Wifi, &[1], &[15_000]);
        let now = heartbeat.newest;
        // What was missed was judged by the grant that was in force.
        assert_eq!(heartbeat.on_beat(Some(Network::Mobile2g), now + 17_000), 120_000);
        assert_eq!(heartbeat.network(), Network::Mobile2g);
        assert_eq!(heartbeat.lease_ms(), 3 * (120_000 + 12_000));
        assert_eq!(heartbeat.on_beat(None, now + 17_000 + 132_000), 120_000);
        assert_eq!(heartbeat.on_beat(Some(Network::Wired), now + 149_000 + 132_001), 5_000, "one more was missed");
    }

    #[test]
    fn a_client_that_recovers_is_granted_its_base_again() {
        let mut heartbeat = Heartbeat::new(BeatIntervals::default(), Network::Wifi, 0);
        assert_eq!((heartbeat.grant_ms(), heartbeat.lease_ms()), (30_000, 99_000));
        assert_eq!(heartbeat.on_beat(None, 30_000), 30_000);
        assert_eq!(heartbeat.on_beat(None, 70_000), 15_000, "one missed");
        assert_eq!(heartbeat.on_beat(None, 105_000), 7_500, "three missed");
        assert_eq!(heartbeat.on_beat(None, 112_000), 7_500, "still among the last three intervals");
        assert_eq!(heartbeat.on_beat(None, 119_000), 7_500);
        assert_eq!(heartbeat.on_beat(None, 126_000), 30_000);
        assert_eq!(heartbeat.on_beat(Some(Network::Wired), 150_000), 10_000, "the network changed");
    }
}
