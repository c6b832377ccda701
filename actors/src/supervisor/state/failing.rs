//! Devices whose sessions failed lately. A client comes back by itself; one whose sessions fail again and again has to wait
//! before it may, so that what makes them fail does not keep the engine busy.

use std::collections::HashMap;

use parlor_protocol::{DeviceTag, Name};

use crate::{limits::Limits, restart::Intensity};

/// Devices whose sessions failed, and when each of them may come back.
#[derive(Debug, Default)]
pub(super) struct Failing {
    devices: HashMap<(Name, DeviceTag), Failed>,
    /// How many sessions failed.
    pub(super) count: u64,
}

#[derive(Debug, Default)]
struct Failed {
    restarts: Intensity,
    last: u64,
    until: u64,
}

impl Failing {
    /// A session of this device failed; returns how long the device has to rest, if it has to.
    pub(super) fn failed(&mut self, limits: &Limits, now_mono: u64, user: Name, device: DeviceTag) -> Option<u64> {
        self.count += 1;
        let key = (user, device);
        if self.devices.len() >= limits.failing_devices_max && !self.devices.contains_key(&key) {
            // The one that has been calm for longest.
            let calm = self.devices.iter().min_by_key(|(_, failed)| failed.last.max(failed.until));
            if let Some(calm) = calm.map(|(key, _)| key.clone()) {
                self.devices.remove(&calm);
            }
        }
        let failed = self.devices.entry(key).or_default();
        failed.last = now_mono;
        if failed.restarts.allows(now_mono, limits.restarts_max, limits.restart_window_ms) {
            return None;
        }
        let rest = failed.restarts.rest_ms(limits.rest_ms);
        failed.until = now_mono.saturating_add(rest);
        Some(rest)
    }

    /// How long a device has yet to rest; `None` if it may come.
    pub(super) fn rests(&self, now_mono: u64, user: &Name, device: DeviceTag) -> Option<u64> {
        if self.devices.is_empty() {
            return None;
        }
        let failed = self.devices.get(&(user.clone(), device))?;
        failed.until.checked_sub(now_mono).filter(|rest| *rest > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(at: usize) -> Name {
        format!("user {at}").parse().unwrap()
    }

    #[test]
    fn a_device_whose_sessions_keep_failing_rests_longer_each_time_and_no_other() {
        let limits = Limits { restarts_max: 2, restart_window_ms: 1_000, rest_ms: 500, ..Limits::default() };
        let (mut failing, tag) = (Failing::default(), DeviceTag(1));
        let mut fails = |now| failing.failed(&limits, now, name(1), tag);
        assert_eq!([0, 1, 2].map(&mut fails), [None, None, Some(500)]);
        assert_eq!([502, 503, 504].map(&mut fails), [None, None, Some(1_000)]);
        assert_eq!((failing.count, failing.rests(504, &name(1), tag)), (6, Some(1_000)));
        assert_eq!((failing.rests(1_503, &name(1), tag), failing.rests(1_504, &name(1), tag)), (Some(1), None));
        assert_eq!(failing.rests(504, &name(1), DeviceTag(2)), None);
        assert_eq!(failing.rests(504, &name(2), tag), None);
    }

    #[test]
    fn no_more_devices_are_remembered_than_allowed_and_those_that_rest_longest_stay() {
        let limits = Limits { failing_devices_max: 2, restarts_max: 0, rest_ms: 500, ..Limits::default() };
        let mut failing = Failing::default();
        for (now, user) in [(0, 1), (1, 2), (2, 1), (3, 3)] {
            failing.failed(&limits, now, name(user), DeviceTag(1));
        }
        let rest = [1, 2, 3].map(|user| failing.rests(3, &name(user), DeviceTag(1)));
        assert_eq!((failing.devices.len(), rest), (2, [Some(999), None, Some(500)]));
    }
}
