//! How fast users may send: a bucket for each, shared by all his sessions, over all rooms and arbiters.
//!
//! A bucket is one number, as in GCRA: the time at which it will be full again. A message moves that time on by the
//! interval; one that would move it further than the burst allows is refused. A full bucket is a time that has passed, and
//! is forgotten: the table holds users who have spoken in the last few seconds, not all that ever did.

use std::{
    collections::HashMap,
    hash::BuildHasher as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use parlor_protocol::Name;

use crate::tiers::SendRate;

/// Arbiters and rooms that meet here at once rarely want the same part.
const SHARDS: usize = 16;

/// A part of the table with fewer buckets is not cleaned.
const CLEAN_LEAST: usize = 64;

/// A part that is full though it was cleaned is not cleaned again for so long.
const CLEAN_EVERY_US: u64 = 100_000;

/// A bucket of tokens that fills by time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When it is full again, in microseconds.
    full_at_us: u64,
}

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// One token in this many microseconds; 0 for any number.
    interval_us: u64,
    /// How many tokens a full bucket holds.
    burst: u64,
}

impl Pace {
    /// What a user of a tier may send.
    #[must_use]
    pub fn of_user(rate: SendRate) -> Self {
        Self { interval_us: u64::from(rate.interval_ms) * 1_000, burst: u64::from(rate.burst.max(1)) }
    }

    /// What a room takes: so many messages a second, at once or one by one; 0 for any number.
    #[must_use]
    pub fn of_room(messages_per_second_max: u32) -> Self {
        let burst = u64::from(messages_per_second_max);
        Self { interval_us: 1_000_000_u64.checked_div(burst).map_or(0, |interval| interval.max(1)), burst }
    }

    /// Whether there is no limit.
    #[must_use]
    pub fn is_off(self) -> bool {
        self.interval_us == 0
    }
}

impl Bucket {
    /// Takes a token.
    ///
    /// # Errors
    /// If there is none: in how many milliseconds there is one.
    pub fn take(&mut self, pace: Pace, mono_ms: u64) -> Result<(), u32> {
        self.look(pace, mono_ms)?;
        if !pace.is_off() {
            self.full_at_us = self.full_at_us.max(mono_ms.saturating_mul(1_000)).saturating_add(pace.interval_us);
        }
        Ok(())
    }

    /// Whether [`take`](Self::take) would get one.
    ///
    /// # Errors
    /// As there.
    pub fn look(&self, pace: Pace, mono_ms: u64) -> Result<(), u32> {
        let now = mono_ms.saturating_mul(1_000);
        let ahead = pace.interval_us.saturating_mul(pace.burst.saturating_sub(1));
        let wait_us = self.full_at_us.saturating_sub(now.saturating_add(ahead));
        if pace.is_off() || wait_us == 0 {
            Ok(())
        } else {
            Err(u32::try_from(wait_us.div_ceil(1_000)).unwrap_or(u32::MAX))
        }
    }
}

#[derive(Debug, Default)]
struct Shard {
    buckets: HashMap<Name, Bucket, RandomState>,
    /// At how many buckets the full ones are looked for.
    clean_at: usize,
    /// Not before this, if that found none.
    clean_after_us: u64,
}

/// The buckets of all users of an engine.
#[derive(Debug)]
pub struct Rates {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    /// The most buckets of a shard.
    buckets_max: usize,
    refused: AtomicU64,
}

impl Default for Rates {
    /// With room for a million users who speak within the same few seconds.
    fn default() -> Self {
        Self::new(1 << 20)
    }
}

impl Rates {
    /// A table of at most so many buckets that are not full.
    #[must_use]
    pub fn new(users_max: usize) -> Self {
        Self {
            shards: Default::default(),
            hasher: RandomState::default(),
            buckets_max: users_max.div_ceil(SHARDS).max(1),
            refused: AtomicU64::new(0),
        }
    }

    /// Takes a token of a user's bucket.
    ///
    /// # Errors
    /// If there is none, or no place in the table for a user who has none yet: when to come again, in milliseconds.
    pub fn take(&self, user: &Name, rate: SendRate, mono_ms: u64) -> Result<(), u32> {
        let pace = Pace::of_user(rate);
        if pace.is_off() {
            return Ok(());
        }
        #[expect(clippy::cast_possible_truncation, reason = "any part of a hash will do")]
        let shard = self.hasher.hash_one(user) as usize % SHARDS;
        let taken = self.shards[shard].lock().take(user, pace, mono_ms, self.buckets_max);
        self.refused.fetch_add(u64::from(taken.is_err()), Relaxed);
        taken
    }

    /// How many buckets are held.
    #[must_use]
    pub fn users(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().buckets.len()).sum()
    }

    /// How often there was no token.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

impl Shard {
    fn take(&mut self, user: &Name, pace: Pace, mono_ms: u64, buckets_max: usize) -> Result<(), u32> {
        if let Some(bucket) = self.buckets.get_mut(user) {
            return bucket.take(pace, mono_ms);
        }
        self.clean(mono_ms.saturating_mul(1_000), buckets_max);
        if self.buckets.len() >= buckets_max {
            return Err(u32::try_from(pace.interval_us / 1_000).unwrap_or(u32::MAX).max(1));
        }
        let mut bucket = Bucket::default();
        bucket.take(pace, mono_ms)?;
        self.buckets.insert(user.clone(), bucket);
        Ok(())
    }

    /// Forgets buckets that are full, when there are twice as many buckets as the last time left: so each costs a look or
    /// two, however long the table lives.
    fn clean(&mut self, now_us: u64, buckets_max: usize) {
        let due = self.buckets.len() >= self.clean_at.clamp(CLEAN_LEAST, buckets_max.max(CLEAN_LEAST));
        let full = self.buckets.len() >= buckets_max;
        if !(due || full) || now_us < self.clean_after_us {
            return;
        }
        self.buckets.retain(|_, bucket| bucket.full_at_us > now_us);
        self.clean_at = 2 * self.buckets.len();
        self.clean_after_us = if self.buckets.len() >= buckets_max { now_us + CLEAN_EVERY_US } else { 0 };
        if self.buckets.capacity() > 4 * self.clean_at.max(CLEAN_LEAST) {
            self.buckets.shrink_to(self.clean_at.max(CLEAN_LEAST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: SendRate = SendRate { interval_ms: 1_000, burst: 3 };

    fn name(number: usize) -> Name {
        format!("user{number}").parse().unwrap()
    }

    #[test]
    fn a_burst_then_one_in_an_interval() {
        let (mut bucket, pace) = (Bucket::default(), Pace::of_user(RATE));
        let mut take = |at| bucket.take(pace, at);
        assert_eq!([take(5_000), take(5_000), take(5_000)], [Ok(()); 3]);
        assert_eq!([take(5_000), take(5_999)], [Err(1_000), Err(1)], "what is refused costs nothing");
        assert_eq!([take(6_000), take(6_000)], [Ok(()), Err(1_000)]);
        assert_eq!([take(7_500), take(7_500)], [Ok(()), Err(500)]);
        // A long rest fills it, and no further.
        assert_eq!([take(99_000), take(99_000), take(99_000), take(99_000)], [Ok(()), Ok(()), Ok(()), Err(1_000)]);
    }

    #[test]
    fn whoever_waits_as_told_gets_a_token_and_not_a_millisecond_earlier() {
        for rate in [SendRate { interval_ms: 7, burst: 1 }, SendRate { interval_ms: 333, burst: 10 }, RATE] {
            let (mut bucket, mut now) = (Bucket::default(), 12_345);
            for _ in 0..100 {
                let Err(wait) = bucket.take(Pace::of_user(rate), now) else { continue };
                assert!(bucket.look(Pace::of_user(rate), now + u64::from(wait) - 1).is_err());
                now += u64::from(wait);
                assert_eq!(bucket.take(Pace::of_user(rate), now), Ok(()), "{rate:?}");
            }
        }
    }

    #[test]
    fn no_time_at_all_lets_more_than_the_rate_through() {
        // A model that counts: over any stretch, at most the burst and one for each interval.
        let (rates, ann, mut seed) = (Rates::default(), name(1), 7_u64);
        let mut taken: Vec<u64> = Vec::new();
        let mut now = 0;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            now += (seed >> 33) % 400;
            if rates.take(&ann, RATE, now).is_ok() {
                taken.push(now);
            }
        }
        for (at, from) in taken.iter().enumerate() {
            let most = |stretch: u64| 3 + stretch / 1_000;
            for (count, to) in (1..).zip(&taken[at..]).take(50) {
                assert!(count <= most(to - from), "{count} from {from} to {to}");
            }
        }
        assert!(taken.len() as u64 > now / 1_000 - 2, "and nothing less");
    }

    #[test]
    fn off_is_off_and_takes_no_place() {
        let rates = Rates::new(1);
        for _ in 0..1_000 {
            assert_eq!(rates.take(&name(1), SendRate::OFF, 0), Ok(()));
        }
        assert_eq!((rates.users(), rates.refused()), (0, 0));
        assert!(Pace::of_room(0).is_off());
    }

    #[test]
    fn a_room_takes_its_second_at_once_or_spread() {
        let (mut bucket, pace) = (Bucket::default(), Pace::of_room(4));
        for _ in 0..4 {
            assert_eq!(bucket.take(pace, 0), Ok(()));
        }
        assert_eq!(bucket.take(pace, 0), Err(250));
        assert_eq!((bucket.take(pace, 250), bucket.take(pace, 250)), (Ok(()), Err(250)));
        assert!(!Pace::of_room(u32::MAX).is_off(), "a high limit is a limit");
    }

    #[test]
    fn users_do_not_share_and_full_buckets_are_forgotten() {
        let rates = Rates::default();
        for second in 0..200 {
            for user in 0..100 {
                assert_eq!(rates.take(&name(second * 100 + user), RATE, second as u64 * 1_000), Ok(()));
            }
        }
        // 20,000 have spoken, and each bucket was full again after a second.
        assert!(rates.users() <= SHARDS * CLEAN_LEAST * 2, "{} are kept", rates.users());
        let capacity: usize = rates.shards.iter().map(|shard| shard.lock().buckets.capacity()).sum();
        assert!(capacity <= 8 * SHARDS * CLEAN_LEAST, "room for {capacity} is kept");
    }

    #[test]
    fn a_full_table_refuses_strangers_until_somebody_rests() {
        let rates = Rates::new(SHARDS);
        let got = (0..10_000).filter(|user| rates.take(&name(*user), RATE, 0).is_ok()).count();
        assert_eq!((got, rates.users()), (SHARDS, SHARDS), "one in each part");
        assert_eq!(rates.take(&name(20_000), RATE, 10), Err(1_000));
        assert_eq!(rates.take(&name(20_000), RATE, 1_000), Ok(()), "theirs are full again");
    }
}
