//! What a message of a load test says: which it is, when it was due, and bytes that can be foretold from that.

use xxhash_rust::xxh3::xxh3_64;

use super::options::Bytes;

/// Run (8 bytes), client (4), number (4), due time (8) and a hash of these (8), big-endian.
pub(crate) const HEADER_BYTES: usize = 32;

/// Where the hash begins.
const HASHED_BYTES: usize = 24;

/// How far the filling of one message may begin behind that of another. A prime, so that lengths do not repeat with it.
const PATTERN_SHIFTS: u64 = 4_093;

/// A message in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The client that sent it.
    pub(crate) client: u32,
    /// Its number among those of the client, from 0.
    pub(crate) number: u32,
    /// When it was due, in nanoseconds since the load's start.
    pub(crate) due: u64,
}

/// Writes and checks messages of one run.
#[derive(Debug)]
pub(crate) struct Payloads {
    run: u64,
    bytes: Bytes,
    pattern: Vec<u8>,
}

impl Payloads {
    /// For a run of this number.
    pub(crate) fn new(run: u64, bytes: Bytes) -> Self {
        let words = (bytes.most as u64 + PATTERN_SHIFTS).div_ceil(8);
        let pattern = (0..words).flat_map(|word| xxh3_64(&(run ^ word).to_be_bytes()).to_be_bytes()).collect();
        Self { run, bytes, pattern }
    }

    /// The bytes of a message.
    pub(crate) fn write(&self, stamp: Stamp) -> Vec<u8> {
        let header = self.header(stamp);
        let filling = self.filling(&header);
        let mut payload = Vec::with_capacity(HEADER_BYTES + filling.len());
        payload.extend_from_slice(&header);
        payload.extend_from_slice(filling);
        payload
    }

    /// Which message that is; `None` if no message of this run has these bytes.
    pub(crate) fn read(&self, payload: &[u8]) -> Option<Stamp> {
        let (header, filling) = payload.split_first_chunk::<HEADER_BYTES>()?;
        let number = |range: std::ops::Range<usize>| {
            header[range].iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte))
        };
        let (client, ordinal) = (u32::try_from(number(8..12)).ok()?, u32::try_from(number(12..16)).ok()?);
        let hash = number(HASHED_BYTES..HEADER_BYTES);
        let sound = hash == xxh3_64(&header[..HASHED_BYTES]) && number(0..8) == self.run;
        let same = sound && filling == self.filling(header);
        same.then(|| Stamp { client, number: ordinal, due: number(16..24) })
    }

    fn header(&self, Stamp { client, number, due }: Stamp) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[0..8].copy_from_slice(&self.run.to_be_bytes());
        header[8..12].copy_from_slice(&client.to_be_bytes());
        header[12..16].copy_from_slice(&number.to_be_bytes());
        header[16..24].copy_from_slice(&due.to_be_bytes());
        let hash = xxh3_64(&header[..HASHED_BYTES]);
        header[HASHED_BYTES..].copy_from_slice(&hash.to_be_bytes());
        header
    }

    /// What follows a header: how long it is and where in the pattern it begins depend on every bit of it.
    fn filling(&self, header: &[u8; HEADER_BYTES]) -> &[u8] {
        let hash = xxh3_64(header);
        let spread = (self.bytes.most - self.bytes.least) as u64 + 1;
        let at = |number: u64| usize::try_from(number).unwrap_or(0);
        let (start, more) = (at(hash % PATTERN_SHIFTS), at((hash >> 32) % spread));
        &self.pattern[start..start + self.bytes.least + more - HEADER_BYTES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let payloads = Payloads::new(7, Bytes { least: 32, most: 200 });
        for number in 0..200 {
            let stamp = Stamp { client: number % 5, number, due: u64::from(number) << 30 };
            let payload = payloads.write(stamp);
            assert!((32..=200).contains(&payload.len()));
            assert_eq!(payloads.read(&payload), Some(stamp));
            for at in 0..payload.len() {
                let mut spoilt = payload.clone();
                spoilt[at] ^= 1;
                assert_eq!(payloads.read(&spoilt), None, "bit 0 of byte {at} of {}", payload.len());
            }
            assert_eq!(payloads.read(&payload[..payload.len() - 1]), None);
        }
        assert_eq!(
            Payloads::new(8, payloads.bytes).read(&payloads.write(Stamp { client: 0, number: 0, due: 0 })),
            None
        );
    }
}
