//! Messages that can be told apart: each carries its time, its publisher and its number there, in letters, so that every
//! wire format can carry it.

use crate::peers::PAYLOAD;

/// What a message says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    /// When it was published.
    pub(super) stamp: u64,
    /// By which publisher.
    pub(super) publisher: usize,
    /// The publisher's how-manieth it is, from 0.
    pub(super) number: u64,
}

/// A message's bytes. They also say when the publisher's message before it was published.
pub(super) fn write(message: Message, before: u64) -> [u8; PAYLOAD] {
    let mut payload = [b'x'; PAYLOAD];
    encode(message.stamp, &mut payload[..16]);
    encode(message.publisher as u64, &mut payload[16..24]);
    encode(message.number, &mut payload[24..40]);
    encode(before, &mut payload[40..56]);
    payload
}

/// Reads a message.
#[inline]
pub(super) fn read(payload: &[u8]) -> Message {
    Message {
        stamp: decode(&payload[..16]),
        publisher: decode(&payload[16..24]) as usize,
        number: decode(&payload[24..40]),
    }
}

/// When the publisher's message before this one was published.
pub(super) fn before(payload: &[u8]) -> u64 {
    decode(&payload[40..56])
}

/// Writes the low bits of `value` as letters, four bits each.
fn encode(value: u64, out: &mut [u8]) {
    for (index, letter) in out.iter_mut().rev().enumerate() {
        *letter = b'a' + (value >> (4 * index) & 15) as u8;
    }
}

fn decode(letters: &[u8]) -> u64 {
    letters.iter().fold(0, |value, letter| value << 4 | u64::from(letter.wrapping_sub(b'a')))
}
