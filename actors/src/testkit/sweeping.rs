//! How a [`MemStore`](super::MemStore) forgets: like a real store, but by looking at everything.

use parlor_protocol::Seq;

use super::{Inside, Room, index};
use crate::port::{StoreError, Sweep, Swept, Trim, Trimmed};

impl Inside {
    pub(super) fn sweep(&mut self, sweep: Sweep) -> Swept {
        let mut swept = Swept::default();
        let mut left = sweep.records_max;
        for room in self.rooms.values_mut() {
            let first = room.first;
            while room.first <= room.tail() && room.records[index(room.first)].is_expired(sweep.now.unix_ms) {
                if left == 0 {
                    swept.more = true;
                    break;
                }
                left -= 1;
                room.first += 1;
            }
            if room.first > first {
                swept.rooms.push((room.number, room.first, room.gone_count()));
            }
        }
        swept
    }

    pub(super) fn trim(&mut self, trim: Trim) -> Result<Trimmed, StoreError> {
        let room = self.names.get(&trim.room).and_then(|name| self.rooms.get_mut(name));
        let room = room.filter(|room| room.writer == Some(trim.generation));
        let room = room.ok_or(StoreError::Superseded(trim.generation))?;
        let mut first = trim.first.min(room.tail()).max(room.first);
        while trim.bytes_max > 0 && first < room.tail() && room.bytes_from(first) > trim.bytes_max {
            first += 1;
        }
        if first > room.first {
            (room.first, room.trimmed) = (first, first);
        }
        let bytes_before = room.counted.saturating_sub(room.bytes_from(room.first));
        Ok(Trimmed { first: room.first, trimmed: room.trimmed, gone_count: room.gone_count(), bytes_before })
    }
}

impl Room {
    /// The bytes of all frames from a seq on, as they are now.
    pub(super) fn bytes_from(&self, seq: Seq) -> u64 {
        self.records[index(seq)..].iter().map(|kept| kept.frame().len() as u64).sum()
    }
}
