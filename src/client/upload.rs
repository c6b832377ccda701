//! A long message on its way up: which parts are sent, which are missing.
//!
//! All parts are sent, a few at a time; answers say what the server lacks. It may have some already, of a try before, and
//! may have forgotten others. So what it says last is what counts.

use std::{collections::VecDeque, ops::Range};

use parlor_protocol::{Nonce, message::MISSING_MAX};

use super::effect::RoomKey;

/// The most parts in flight.
const PARTS_IN_FLIGHT_MAX: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) key: RoomKey,
    pub(super) nonce: Nonce,
    total: usize,
    part_bytes: usize,
    /// Parts to be sent.
    waiting: VecDeque<u32>,
    /// Requests and numbers of the parts that are not answered.
    in_flight: Vec<(u32, u32)>,
    /// What the server lacks, as its last answer said.
    missing: Option<Vec<u32>>,
    /// It may have some already: one part goes first, to learn which.
    asks: bool,
}

impl Upload {
    /// A message of `total` bytes in parts of at most `part_bytes`. Both are above 0. `tried` if parts went out before, maybe
    /// over another connection: the server may still have them.
    pub(super) fn new(key: RoomKey, nonce: Nonce, total: usize, part_bytes: usize, tried: bool) -> Self {
        let (waiting, in_flight) = (VecDeque::new(), Vec::new());
        let mut upload = Self { key, nonce, total, part_bytes, waiting, in_flight, missing: None, asks: tried };
        upload.waiting = (0..upload.parts()).collect();
        upload
    }

    pub(super) fn is(&self, key: RoomKey, nonce: Nonce) -> bool {
        (self.key, self.nonce) == (key, nonce)
    }

    /// How many parts there are.
    pub(super) fn parts(&self) -> u32 {
        u32::try_from(self.total.div_ceil(self.part_bytes)).unwrap_or(u32::MAX)
    }

    /// Where a part stands within the payload.
    pub(super) fn range(&self, number: u32) -> Range<usize> {
        let start = number as usize * self.part_bytes;
        start..(start + self.part_bytes).min(self.total)
    }

    /// The next part to go out, if one may now. Follow with [`sent`](Self::sent).
    pub(super) fn next(&self, window: usize) -> Option<u32> {
        let window = if self.asks { 1 } else { window.clamp(1, PARTS_IN_FLIGHT_MAX) };
        (self.in_flight.len() < window).then(|| self.waiting.front().copied()).flatten()
    }

    /// The one from [`next`](Self::next) went out.
    pub(super) fn sent(&mut self, request: u32) {
        self.in_flight.extend(self.waiting.pop_front().map(|number| (request, number)));
    }

    /// A part was answered: others are missing.
    pub(super) fn taken(&mut self, request: u32, missing: Vec<u32>) {
        self.in_flight.retain(|(of, _)| *of != request);
        self.asks = false;
        // Of many, only the lowest are named: nothing is said of those behind.
        let named = if missing.len() < MISSING_MAX { u32::MAX } else { missing.last().copied().unwrap_or(u32::MAX) };
        self.waiting.retain(|number| *number > named || missing.contains(number));
        if self.waiting.is_empty() && self.in_flight.is_empty() {
            // All were answered, and still some are missing: the server has forgotten them.
            self.waiting.extend(&missing);
        }
        self.missing = Some(missing);
    }

    /// No answer came: sends what is missing as far as is known, all otherwise. Returns the requests that are not waited
    /// for any longer.
    pub(super) fn again(&mut self) -> Vec<u32> {
        self.waiting = match &self.missing {
            Some(missing) if missing.len() < MISSING_MAX => missing.iter().copied().collect(),
            _ => (0..self.parts()).collect(),
        };
        self.give_up()
    }

    /// The requests that are not waited for any longer.
    pub(super) fn give_up(&mut self) -> Vec<u32> {
        self.in_flight.drain(..).map(|(request, _)| request).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends all that may go out now; request numbers are part numbers + 100.
    fn pump(upload: &mut Upload) -> Vec<u32> {
        let mut sent = Vec::new();
        while let Some(number) = upload.next(4) {
            upload.sent(number + 100);
            sent.push(number);
        }
        sent
    }

    #[test]
    fn parts_cover_the_payload() {
        for (total, parts) in [(1, 1), (10, 1), (11, 2), (20, 2), (95, 10)] {
            let upload = Upload::new(0, 1, total, 10, false);
            assert_eq!(upload.parts(), parts);
            let ranges: Vec<_> = (0..parts).map(|number| upload.range(number)).collect();
            assert_eq!(ranges.iter().map(ExactSizeIterator::len).sum::<usize>(), total);
            assert!(ranges.iter().all(|range| (1..=10).contains(&range.len())));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }

    #[test]
    fn a_few_are_in_flight_and_answers_bring_more() {
        let mut upload = Upload::new(0, 1, 60, 10, false);
        assert_eq!(pump(&mut upload), [0, 1, 2, 3]);
        upload.taken(100, vec![1, 2, 3, 4, 5]);
        assert_eq!(pump(&mut upload), [4]);
        // The server has 5 of a try before.
        upload.taken(101, vec![2, 3, 4]);
        assert!(pump(&mut upload).is_empty());
    }

    #[test]
    fn of_one_that_was_begun_before_a_single_part_tells_what_is_missing() {
        let mut upload = Upload::new(0, 1, 60, 10, true);
        assert_eq!(pump(&mut upload), [0]);
        upload.taken(100, vec![4, 5]);
        assert_eq!(pump(&mut upload), [4, 5]);
    }

    #[test]
    fn what_was_forgotten_is_sent_again() {
        let mut upload = Upload::new(0, 1, 30, 10, false);
        assert_eq!(pump(&mut upload), [0, 1, 2]);
        upload.taken(100, vec![1, 2]);
        upload.taken(101, vec![0, 2]);
        upload.taken(102, vec![0, 1]);
        assert_eq!(pump(&mut upload), [0, 1]);
    }

    #[test]
    fn after_a_silence_what_is_missing_goes_out_again() {
        let mut upload = Upload::new(0, 1, 60, 10, false);
        pump(&mut upload);
        assert_eq!(upload.again(), [100, 101, 102, 103]);
        assert_eq!(pump(&mut upload), [0, 1, 2, 3], "nothing is known");
        upload.taken(100, vec![3, 4, 5]);
        assert_eq!(upload.again(), [101, 102, 103]);
        assert_eq!(pump(&mut upload), [3, 4, 5]);
    }

    #[test]
    fn of_many_only_the_lowest_are_named() {
        let mut upload = Upload::new(0, 1, 2_000, 10, false);
        pump(&mut upload);
        upload.taken(100, (1..=64).collect());
        assert_eq!(upload.waiting.back(), Some(&199), "nothing was said of those above 64");
    }
}
