//! When to send a heartbeat, and when a silent server is a dead one.

use std::time::Duration;

use super::backoff::Rng;

/// Times of one connection. All times are since the client's start.
#[derive(Debug)]
pub(super) struct Heartbeat {
    grant: Duration,
    next: Duration,
    heard: Duration,
    sent: Option<Duration>,
}

impl Heartbeat {
    /// The connection was welcomed.
    pub(super) fn new(now: Duration, grant_ms: u32, rng: &mut Rng) -> Self {
        let mut beat = Self { grant: Duration::ZERO, next: now, heard: now, sent: None };
        beat.grant(now, grant_ms, rng);
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
        self.sent.take().map(|sent| now.saturating_sub(sent))
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
    fn a_grant_of_nothing_does_not_spin() {
        let mut rng = Rng::new(3);
        let beat = Heartbeat::new(ms(5), 0, &mut rng);
        assert!(beat.timeout(true) >= ms(12));
    }
}
