//! A room's newest records in memory.

use bytes::Bytes;
use parlor_actors::{
    channel::ring::{PageLimit, Ring},
    limits::Limits,
};
use parlor_protocol::{RoomNumber, message::Direction};

use super::{NOW, codec};

/// A ring that is full, so that every record that is added pushes one off.
pub(crate) struct Full {
    ring: Ring,
    limits: Limits,
    frame: Bytes,
}

impl Full {
    pub(crate) fn new() -> Self {
        let limits = Limits::default();
        let ring = Ring::new(1, limits.ring_records_max, limits.ring_bytes_max);
        let mut full = Self { ring, limits, frame: codec::batch(RoomNumber(7), 1, 1) };
        while full.ring.first() == 1 {
            full.push();
        }
        full
    }

    pub(crate) fn push(&mut self) {
        self.ring.push(0, &self.frame);
    }

    /// Reads the usual page, from the newest record back. Returns its runs.
    pub(crate) fn page(&self) -> usize {
        let limit = PageLimit { records: self.limits.page_records, bytes: self.limits.page_bytes_max };
        let (start, end) = (self.ring.last(), self.ring.first());
        self.ring.read(start, end, Direction::Backward, limit, NOW.unix_ms).runs.len()
    }
}
