//! Server times as a person reads them.

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use parlor_protocol::UnixMillis;

/// Tells times of a time zone.
#[derive(Clone, Debug)]
pub(crate) struct Clock(TimeZone);

impl Clock {
    /// The time zone of this machine; UTC if that is not known.
    pub(crate) fn local() -> Self {
        Self(TimeZone::try_system().unwrap_or(TimeZone::UTC))
    }

    #[cfg(test)]
    pub(crate) fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// `HH:MM`.
    pub(crate) fn minute(&self, time: UnixMillis) -> String {
        let time = self.0.to_datetime(timestamp(time));
        format!("{:02}:{:02}", time.hour(), time.minute())
    }

    /// The day.
    pub(crate) fn day(&self, time: UnixMillis) -> Date {
        self.0.to_datetime(timestamp(time)).date()
    }
}

/// A server may send any number; one that is no time is the latest there is.
fn timestamp(time: UnixMillis) -> Timestamp {
    i64::try_from(time).ok().and_then(|time| Timestamp::from_millisecond(time).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_their_zone() {
        let zone = Clock(TimeZone::fixed(jiff::tz::offset(2)));
        let time = 1_785_886_440_000;
        assert_eq!((zone.minute(time).as_str(), zone.day(time).to_string().as_str()), ("01:34", "2026-08-05"));
        assert_eq!((Clock::utc().minute(time).as_str(), Clock::utc().day(time).day()), ("23:34", 4));
        assert_eq!(zone.day(u64::MAX).year(), 9999);
    }
}
