//! The messages in flight in a fan-out, and who has received them: nothing may be lost, repeated or reordered.

use std::io;

use hdrhistogram::Histogram;

use super::fanout::Load;
use crate::{peers::PAYLOAD, stats::latency_histogram};

struct Publisher {
    conn: usize,
    /// The number of the next message.
    next: u64,
    /// All below this came to all members.
    done: u64,
    /// Stands in `ready`.
    queued: bool,
}

/// The messages in flight. A payload carries time, publisher and number, in letters.
pub(super) struct Flight {
    members: usize,
    window: usize,
    publishers: Vec<Publisher>,
    ready: Vec<usize>,
    /// Members that each message in flight has still to come to: `window` slots per publisher.
    remaining: Vec<u32>,
    /// The number that each member expects next from each publisher of its room.
    expected: Vec<u64>,
    pubs: usize,
    /// From publish to delivery.
    pub(super) latency: Histogram<u64>,
    /// Messages received, over all members.
    pub(super) deliveries: u64,
    /// Messages that came to all members.
    pub(super) completed: u64,
    /// Messages that were due while the publisher's window was full.
    pub(super) skipped: u64,
}

impl Flight {
    pub(super) fn new(load: &Load) -> Self {
        let publishers: Vec<Publisher> = (0..load.rooms * load.pubs)
            .map(|index| {
                let conn = index / load.pubs * load.members + index % load.pubs;
                Publisher { conn, next: 0, done: 0, queued: true }
            })
            .collect();
        Self {
            members: load.members,
            window: load.window,
            ready: (0..publishers.len()).collect(),
            remaining: vec![0; publishers.len() * load.window],
            expected: vec![0; load.rooms * load.members * load.pubs],
            pubs: load.pubs,
            publishers,
            latency: latency_histogram(),
            deliveries: 0,
            completed: 0,
            skipped: 0,
        }
    }

    pub(super) fn begin_measuring(&mut self) {
        self.latency.reset();
        (self.deliveries, self.completed, self.skipped) = (0, 0, 0);
    }

    pub(super) fn publishers(&self) -> usize {
        self.publishers.len()
    }

    /// How many more messages the publisher may have in flight.
    pub(super) fn free(&self, publisher: usize) -> usize {
        let publisher = &self.publishers[publisher];
        self.window - (publisher.next - publisher.done) as usize
    }

    /// Messages that did not come to all members yet.
    pub(super) fn in_flight(&self) -> u64 {
        self.publishers.iter().map(|publisher| publisher.next - publisher.done).sum()
    }

    /// The publishers whose windows got room since the last call.
    pub(super) fn take_ready(&mut self) -> Vec<usize> {
        let ready = std::mem::take(&mut self.ready);
        ready.iter().for_each(|&index| self.publishers[index].queued = false);
        ready
    }

    /// The next message of a publisher, and the connection that is to send it.
    pub(super) fn publish(&mut self, index: usize, stamp: u64) -> (usize, [u8; PAYLOAD]) {
        let publisher = &mut self.publishers[index];
        let mut payload = [b'x'; PAYLOAD];
        encode(stamp, &mut payload[..16]);
        encode(index as u64, &mut payload[16..24]);
        encode(publisher.next, &mut payload[24..40]);
        let slot = index * self.window + publisher.next as usize % self.window;
        self.remaining[slot] = self.members as u32;
        publisher.next += 1;
        (publisher.conn, payload)
    }

    /// A message came to a member.
    ///
    /// # Errors
    /// If it is not the one that the member had to get next from that publisher.
    #[inline]
    pub(super) fn delivered(&mut self, conn: usize, payload: &[u8], sender: Option<u32>, now: u64) -> io::Result<()> {
        self.deliveries += 1;
        self.latency.saturating_record(now.saturating_sub(decode(&payload[..16])));
        let index = decode(&payload[16..24]) as usize;
        let number = decode(&payload[24..40]);
        let publisher = &mut self.publishers[index];
        let expected = &mut self.expected[conn * self.pubs + index % self.pubs];
        let same_room = publisher.conn / self.members == conn / self.members;
        if !same_room || *expected != number || sender.is_some_and(|sender| sender as usize != publisher.conn) {
            return Err(io::Error::other(format!(
                "member {conn} got message {number} of publisher {index}, sent as {sender:?}, and had to get {expected}"
            )));
        }
        *expected += 1;
        let remaining = &mut self.remaining[index * self.window + number as usize % self.window];
        *remaining -= 1;
        if *remaining == 0 {
            publisher.done += 1;
            self.completed += 1;
            if !publisher.queued {
                publisher.queued = true;
                self.ready.push(index);
            }
        }
        Ok(())
    }
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
