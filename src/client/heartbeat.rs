//! When to send a heartbeat, and when a silent server is a dead one.

use std::time::Duration;

use parlor_protocol::message::Network;

use super::backoff::Rng;

/// Times of one connection. All times are since the client's start.
#[derive(Debug)]
pub(super) struct Heartbeat {
    grant: Duration,
    next: Duration,
    heard: Duration,
    sent: Option<Duration>,
    /// The next one is wanted as soon as this one is answered.
    soon: bool,
}

/// The interval that servers grant over such a network, if they are not told otherwise, in seconds.
pub(super) fn base(network: Network) -> u32 {
    match network {
        Network::Wired => 10,
        Network::Wifi | Network::Unknown => 30,
        Network::Mobile3g | Network::Mobile4g | Network::Mobile5g => 90,
        Network::Mobile2g => 240,
    }
}

impl Heartbeat {
    /// The connection was welcomed. The first beat comes at any time of the grant, so that the beats of clients that all came
    /// back at once do not.
    pub(super) fn new(now: Duration, grant_ms: u32, rng: &mut Rng) -> Self {
        let mut beat = Self { grant: Duration::ZERO, next: now, heard: now, sent: None, soon: false };
        beat.grant(now, grant_ms, rng);
        beat.next = now + rng.between(beat.grant / 10, beat.grant * 9 / 10);
        beat
    }

    fn grant(&mut self, now: Duration, grant_ms: u32, rng: &mut Rng) {
        // A grant of nothing would have the two of them do nothing else.
        self.grant = Duration::from_millis(u64::from(grant_ms.max(10)));
        self.schedule(now, rng);
    }

    fn schedule(&mut self, now: Duration, rng: &mut Rng) {
        self.next = now + rng.between(self.grant * 7 / 10, self.grant * 9 / 10);
    }

    /// Any frame came: the server lives.
    pub(super) fn on_frame(&mut self, now: Duration) {
        self.heard = now;
    }

    /// The beat was answered; returns how long that took.
    pub(super) fn on_ack(&mut self, now: Duration, grant_ms: u32, rng: &mut Rng) -> Option<Duration> {
        self.grant(now, grant_ms, rng);
        if std::mem::take(&mut self.soon) {
            self.next = now;
        }
        self.sent.take().map(|sent| now.saturating_sub(sent))
    }

    /// The server should be told something soon: now, or once it has answered the beat under way.
    pub(super) fn hasten(&mut self, now: Duration) {
        if self.sent.is_none() {
            self.next = now;
        } else {
            self.soon = true;
        }
    }

    /// Whether to send a beat now. The next one is scheduled, in case that this one is not answered.
    pub(super) fn due(&mut self, now: Duration, rng: &mut Rng) -> bool {
        if now < self.next {
            return false;
        }
        self.sent = Some(now);
        self.schedule(now, rng);
        true
    }

    /// When a server that stays silent is taken for dead: three grants and their grace, as it does with us.
    pub(super) fn dead_at(&self) -> Duration {
        let grace = (self.grant / 10).max(Duration::from_secs(2));
        self.heard + 3 * (self.grant + grace)
    }

    /// When to look again; `reading` is false while the application holds the client up, when silence means nothing.
    pub(super) fn timeout(&self, reading: bool) -> Duration {
        if reading { self.next.min(self.dead_at()) } else { self.next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn beats_come_at_70_to_90_percent_of_each_grant() {
        let mut rng = Rng::new(3);
        let mut beat = Heartbeat::new(ms(0), 30_000, &mut rng);
        let mut now = ms(0);
        // The first comes early in its grant or late.
        let firsts: Vec<_> = (0..100).map(|_| Heartbeat::new(ms(0), 30_000, &mut rng).timeout(true)).collect();
        assert!(firsts.iter().all(|first| (ms(3_000)..=ms(27_000)).contains(first)), "{firsts:?}");
        assert!(firsts.iter().any(|first| *first < ms(6_000)) && firsts.iter().any(|first| *first > ms(24_000)));
        for grant in [30_000, 15_000, 7_500, 30_000] {
            let next = beat.timeout(true);
            assert!(!beat.due(next - ms(1), &mut rng));
            assert!(beat.due(next, &mut rng));
            now = next + ms(40);
            beat.on_frame(now);
            assert_eq!(beat.on_ack(now, grant, &mut rng), Some(ms(40)));
            let wait = beat.timeout(true) - now;
            let grant = u64::from(grant);
            assert!((ms(grant * 7 / 10)..=ms(grant * 9 / 10)).contains(&wait), "{wait:?} of {grant}");
        }
        assert_eq!(beat.dead_at(), now + ms(3 * 33_000));
    }

    #[test]
    fn an_unanswered_beat_is_followed_by_another_until_the_server_is_dead() {
        let mut rng = Rng::new(3);
        let mut beat = Heartbeat::new(ms(0), 1_000, &mut rng);
        let mut beats = 0;
        while beat.timeout(true) < beat.dead_at() {
            assert!(beat.due(beat.timeout(true), &mut rng));
            beats += 1;
        }
        assert_eq!(beat.dead_at(), ms(9_000), "the grace is two seconds at least");
        assert!(beats >= 9);
    }

    #[test]
    fn a_beat_that_is_wanted_soon_waits_for_the_answer_to_the_one_under_way() {
        let mut rng = Rng::new(3);
        let mut beat = Heartbeat::new(ms(0), 90_000, &mut rng);
        beat.hasten(ms(5));
        assert!(beat.due(ms(5), &mut rng));
        beat.hasten(ms(6));
        assert!(!beat.due(ms(6), &mut rng));
        beat.on_ack(ms(9), 10_000, &mut rng);
        assert!(beat.due(ms(9), &mut rng));
        beat.on_ack(ms(10), 10_000, &mut rng);
        assert!(!beat.due(ms(10), &mut rng), "once");
    }

    #[test]
    fn a_grant_of_nothing_does_not_spin() {
        let mut rng = Rng::new(3);
        let beat = Heartbeat::new(ms(5), 0, &mut rng);
        assert!(beat.timeout(true) >= ms(6));
    }
}
