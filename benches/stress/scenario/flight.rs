//! The messages in flight in a fan-out, and who has received them: nothing may be lost, repeated or reordered.

use std::{io, ops::Range};

use hdrhistogram::Histogram;

use super::{
    fanout::Load,
    payload::{self, Message},
};
use crate::{peers::PAYLOAD, stats::latency_histogram};

struct Publisher {
    conn: usize,
    /// The number of the next message, and the time of the one before it.
    next: u64,
    stamp: u64,
    /// All below this came to all members.
    done: u64,
    /// Stands in `ready`.
    queued: bool,
}

/// The messages in flight. See [`payload`].
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
    /// From publish to delivery, of what was published in `counted`.
    pub(super) latency: Histogram<u64>,
    pub(super) counted: Range<u64>,
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
                Publisher { conn, next: 0, stamp: 0, done: 0, queued: true }
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
            counted: 0..u64::MAX,
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

    /// How many messages each publisher has published.
    pub(super) fn published(&self) -> Vec<u64> {
        self.publishers.iter().map(|publisher| publisher.next).collect()
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
        let before = std::mem::replace(&mut self.publishers[index].stamp, stamp);
        let (conn, number) = self.next(index);
        (conn, payload::write(Message { stamp, publisher: index, number }, before))
    }

    /// The number of the next message of a publisher, and the connection that is to send it; for messages that do not
    /// carry their number.
    pub(super) fn next(&mut self, index: usize) -> (usize, u64) {
        let publisher = &mut self.publishers[index];
        let number = publisher.next;
        self.remaining[index * self.window + number as usize % self.window] = self.members as u32;
        publisher.next += 1;
        (publisher.conn, number)
    }

    /// A message came to a member.
    ///
    /// # Errors
    /// If it is not the one that the member had to get next from that publisher.
    #[inline]
    pub(super) fn delivered(&mut self, conn: usize, payload: &[u8], sender: Option<u32>, now: u64) -> io::Result<()> {
        let Message { stamp, publisher, number } = payload::read(payload)?;
        if self.counted.contains(&stamp) {
            self.latency.saturating_record(now.saturating_sub(stamp));
        }
        self.received(conn, publisher, number, sender)
    }

    /// The number of the message that the member must get next from a publisher of its room.
    pub(super) fn expected(&self, conn: usize, index: usize) -> u64 {
        self.expected[conn * self.pubs + index % self.pubs]
    }

    /// Message `number` of publisher `index` came to a member.
    ///
    /// # Errors
    /// If it is not the one that the member had to get next from that publisher.
    #[inline]
    pub(super) fn received(&mut self, conn: usize, index: usize, number: u64, sender: Option<u32>) -> io::Result<()> {
        self.deliveries += 1;
        let Some(publisher) = self.publishers.get_mut(index) else {
            return Err(io::Error::other(format!("member {conn} got a message that nobody published")));
        };
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
