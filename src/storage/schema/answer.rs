//! What devices were answered, by which a retried send is told from a new one.

use parlor_actors::port::{Answer, DeviceKey};
use parlor_protocol::{RoomNumber, UnixMillis};

use super::{Fields, Wrong, user_prefix};

/// What the keys of a device's answers in a room begin with; the slot follows.
pub(in crate::storage) fn answers_prefix(room: RoomNumber, device: &DeviceKey) -> Vec<u8> {
    let mut key = user_prefix(room, &device.user);
    key.extend(device.tag.0.to_be_bytes());
    key
}
/// What all keys of one device's answers begin with: what [`answers_prefix`] makes. `None` if it is no such key.
pub(in crate::storage) fn answers_prefix_of(key: &[u8]) -> Option<&[u8]> {
    let user = usize::from(*key.get(8)?);
    key.get(..8 + 1 + user + 8)
}

const ANSWER_VERSION: u8 = 2;

/// `version u8 = 2 | nonce u64 | seq u64 | time u64 | content_hash u64 | count u64`; version 1 ends with `content_hash`.
pub(in crate::storage) fn encode_answer(answer: &Answer) -> [u8; 41] {
    let mut out = [ANSWER_VERSION; 41];
    let numbers = [answer.nonce, answer.seq, answer.time, answer.content_hash, answer.count];
    for (field, number) in out[1..].chunks_exact_mut(8).zip(numbers) {
        field.copy_from_slice(&number.to_be_bytes());
    }
    out
}

pub(in crate::storage) fn decode_answer(value: &[u8]) -> Result<Answer, Wrong> {
    let mut fields = Fields(value);
    let version = fields.u8()?;
    if !(1..=ANSWER_VERSION).contains(&version) {
        return Err(format!("version {version} of the value, where 1 to {ANSWER_VERSION} are known"));
    }
    let (nonce, seq, time, content_hash) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
    let count = if version >= 2 { fields.u64()? } else { 0 };
    fields.end()?;
    Ok(Answer { nonce, seq, time, content_hash, count })
}

/// When an answer was given, for compactions.
pub(in crate::storage) fn answer_time(value: &[u8]) -> Option<UnixMillis> {
    decode_answer(value).ok().map(|answer| answer.time)
}

#[cfg(test)]
mod tests {
    use parlor_protocol::DeviceTag;

    use super::*;

    #[test]
    fn an_answer_reads_as_written() {
        let answer = Answer { nonce: 1, seq: 2, time: 3, content_hash: u64::MAX, count: 9 };
        let bytes = encode_answer(&answer);
        let first_version = [&[1], &bytes[1..33]].concat();
        assert_eq!(decode_answer(&first_version), Ok(Answer { count: 0, ..answer }));
        assert_eq!(decode_answer(&bytes), Ok(answer));
        assert_eq!(answer_time(&bytes), Some(3));
        for cut in 0..bytes.len() {
            assert!(decode_answer(&bytes[..cut]).is_err());
        }
        assert!(decode_answer(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn no_users_answers_lie_among_anothers() {
        let prefix = |user: &str, tag| {
            answers_prefix(RoomNumber(1), &DeviceKey { user: user.parse().unwrap(), tag: DeviceTag(tag) })
        };
        let (short, long) = (prefix("a", 0x6161_6161_6161_6161), prefix("aaaaaaaaa", 1));
        assert!(!long.starts_with(&short) && !short.starts_with(&long));
        for prefix in [short, long] {
            assert_eq!(answers_prefix_of(&[prefix.as_slice(), &[127]].concat()), Some(&*prefix));
            assert_eq!(answers_prefix_of(&prefix), Some(&*prefix));
            assert_eq!(answers_prefix_of(&prefix[..prefix.len() - 1]), None);
        }
        assert_eq!(answers_prefix_of(&[0; 8]), None);
    }
}
