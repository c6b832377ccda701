//! Messages that can be told apart: each carries its time, its publisher and its number there, in letters, so that every
//! wire format can carry it.

use std::{collections::HashMap, io};

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

/// What follows what a message says.
const FILLING: [u8; PAYLOAD - SAID] = [b'x'; PAYLOAD - SAID];
const SAID: usize = 56;

/// Reads a message.
///
/// # Errors
/// If it was not written so.
#[inline]
pub(super) fn read(payload: &[u8]) -> io::Result<Message> {
    if payload.len() != PAYLOAD || payload[SAID..] != FILLING {
        return Err(io::Error::other(format!("{} bytes that are no message: {payload:?}", payload.len())));
    }
    Ok(Message {
        stamp: decode(&payload[..16]),
        publisher: decode(&payload[16..24]) as usize,
        number: decode(&payload[24..40]),
    })
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

/// Bytes of [`Noise`], no multiple of its step: it takes very many payloads until one comes again.
const NOISE_BYTES: usize = 1 << 20;

/// Which payload of [`Noise`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(usize);

/// Payloads that say nothing and hardly compress: random characters, so that what is stored takes the room that it should.
pub(super) struct Noise {
    letters: Vec<u8>,
    at: usize,
}

impl Noise {
    /// The same ones in every run.
    pub(super) fn new() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut letter = || {
            // Xorshift: the quality does not matter, only that nothing repeats.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            b'A' + (state >> 40 & 63) as u8 % 58
        };
        Self { letters: (0..NOISE_BYTES + PAYLOAD).map(|_| letter()).collect(), at: 0 }
    }

    /// The next payload.
    pub(super) fn next(&mut self) -> &[u8] {
        const STEP: usize = PAYLOAD + 1;
        self.at = (self.at + STEP) % NOISE_BYTES;
        self.at(self.place())
    }

    /// Which was the last.
    pub(super) fn place(&self) -> Place {
        Place(self.at)
    }

    /// Where each payload is, by what it begins with.
    pub(super) fn index(&self) -> Index<'_> {
        let starts = (0..NOISE_BYTES).map(|at| (start(&self.letters[at..]), at)).collect();
        Index { noise: self, starts }
    }

    /// A payload once more.
    pub(super) fn at(&self, Place(at): Place) -> &[u8] {
        &self.letters[at..at + PAYLOAD]
    }
}

/// Finds payloads of [`Noise`].
pub(super) struct Index<'a> {
    noise: &'a Noise,
    starts: HashMap<[u8; 16], usize>,
}

impl Index<'_> {
    /// Whether this is one of them.
    pub(super) fn has(&self, payload: &[u8]) -> bool {
        payload.len() == PAYLOAD
            && self.starts.get(&start(payload)).is_some_and(|at| self.noise.at(Place(*at)) == payload)
    }
}

fn start(payload: &[u8]) -> [u8; 16] {
    payload.first_chunk().copied().unwrap_or_default()
}
