//! The keys of the index by time: which rooms have records whose lifetime ends when.
//!
//! An entry stands for all records of a room that expire in the same stretch of time, and lies at its end. So whoever
//! handles what lies at or before some moment has met every record that expired more than the longest stretch before it.

use parlor_protocol::{RoomNumber, UnixMillis};

/// The shortest stretch of time, in milliseconds…
const WIDTH_LEAST_MS: u64 = 1 << 10;
/// …and the longest: 70 minutes.
pub(in crate::storage) const WIDTH_MOST_MS: u64 = 1 << 22;

/// The end of the stretch that a record's expiry lies in. It is about a 64th of the lifetime long, so that a room writes
/// few entries while one lifetime passes, and what expired is deleted soon.
pub(in crate::storage) fn bucket(expires: UnixMillis, lifetime_ms: u64) -> UnixMillis {
    // Powers of two, so that messages of nearly the same lifetime share entries.
    let width = 1 << (lifetime_ms / 64).clamp(WIDTH_LEAST_MS, WIDTH_MOST_MS).ilog2();
    expires.checked_next_multiple_of(width).unwrap_or(UnixMillis::MAX)
}

/// The key of an entry.
pub(in crate::storage) fn due_key(bucket: UnixMillis, room: RoomNumber) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&bucket.to_be_bytes());
    key[8..].copy_from_slice(&room.0.to_be_bytes());
    key
}

/// The bucket and the room of an entry's key; `None` if it is no such key.
pub(in crate::storage) fn read_due_key(key: &[u8]) -> Option<(UnixMillis, RoomNumber)> {
    let (bucket, room) = key.split_first_chunk()?;
    Some((u64::from_be_bytes(*bucket), RoomNumber(u64::from_be_bytes(room.try_into().ok()?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lies_at_or_behind_the_expiry_by_less_than_its_width() {
        let day = 86_400_000;
        for (lifetime, width) in [
            (1, 1 << 10),
            (64 << 10, 1 << 10),
            (128 << 10, 1 << 11),
            (day, 1 << 20),
            (30 * day, WIDTH_MOST_MS),
            (u64::MAX, WIDTH_MOST_MS),
        ] {
            for expires in [1, width - 1, width, width + 1, 1_700_000_000_123] {
                let bucket = bucket(expires, lifetime);
                assert!(bucket >= expires && bucket - expires < width, "{expires} {lifetime}: {bucket}");
                assert_eq!(bucket % width, 0);
            }
        }
        assert_eq!(bucket(u64::MAX, 1), u64::MAX);
    }

    #[test]
    fn keys_sort_by_time_and_read_as_written() {
        let keys = [(1, 300), (255, 1), (256, 1), (256, 2), (u64::MAX, 0)];
        let keys = keys.map(|(bucket, room)| due_key(bucket, RoomNumber(room)));
        assert!(keys.is_sorted());
        assert_eq!(read_due_key(&keys[0]), Some((1, RoomNumber(300))));
        assert_eq!(read_due_key(&keys[0][1..]), None);
        assert_eq!(read_due_key(&[0; 17]), None);
    }
}
