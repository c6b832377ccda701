//! Checks what one member of a room receives. Pure.

use std::collections::BTreeSet;

use parlor_protocol::Seq;
use xxhash_rust::xxh3::xxh3_64;

use super::payload::Stamp;

/// What went wrong, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Wrong {
    /// Acknowledged messages that a member was owed and did not get.
    pub(crate) lost: u64,
    /// Messages that came more than once.
    pub(crate) repeated: u64,
    /// Messages that came after later ones.
    pub(crate) out_of_order: u64,
    /// Times that the server left messages out, and the client had to fetch them.
    pub(crate) left_out: u64,
    /// Messages whose bytes, sender, room or seq are not those of what was sent.
    pub(crate) corrupt: u64,
}

impl Wrong {
    /// Adds another's.
    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.out_of_order += other.out_of_order;
        self.left_out += other.left_out;
        self.corrupt += other.corrupt;
    }

    /// Whether nothing is.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What a publisher sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// How many; their numbers are those below.
    pub(crate) count: u32,
    /// The numbers of those that were not acknowledged: they may have come or not.
    pub(crate) unacked: BTreeSet<u32>,
}

impl Sent {
    /// How many were acknowledged.
    pub(crate) fn acked(&self) -> u64 {
        u64::from(self.count) - self.unacked.len() as u64
    }
}

/// One member's stream: every [`message`](Self::message) as it comes, then [`missing`](Self::missing) for each publisher.
#[derive(Debug)]
pub(crate) struct Stream {
    last: Seq,
    /// The next number of each publisher of the room, by seat.
    next: Vec<u32>,
    /// Numbers that were passed over, with the publisher's seat.
    skipped: BTreeSet<(usize, u32)>,
    received: u64,
    digest: u64,
    wrong: Wrong,
}

impl Stream {
    /// Begins behind `tail`, in a room with that many publishers.
    pub(crate) fn new(tail: Seq, publishers: usize) -> Self {
        Self {
            last: tail,
            next: vec![0; publishers],
            skipped: BTreeSet::new(),
            received: 0,
            digest: 0,
            wrong: Wrong::default(),
        }
    }

    /// A message came: of the publisher on `seat`, or none that this room could have. Says what is wrong with it.
    pub(crate) fn message(&mut self, seq: Seq, from: Option<(usize, Stamp)>) -> Option<String> {
        self.received += 1;
        let before = self.last;
        self.last = before.max(seq);
        let Some((seat, stamp, next)) = from.and_then(|(seat, stamp)| Some((seat, stamp, self.next.get_mut(seat)?)))
        else {
            self.wrong.corrupt += 1;
            return Some(format!("seq {seq} is corrupt: its bytes, sender or room are not those of what was sent"));
        };
        let number = stamp.number;
        let expected = *next;
        if number >= expected {
            *next = number.saturating_add(1);
            self.skipped.extend((expected..number).map(|number| (seat, number)));
        } else if !self.skipped.remove(&(seat, number)) {
            self.wrong.repeated += 1;
            return Some(format!("message {number} of client {} came once more, as seq {seq}", stamp.client));
        }
        self.digest = digest(self.digest, seq, stamp);
        if number < expected || seq <= before {
            self.wrong.out_of_order += 1;
            return Some(format!("seq {seq}, message {number} of client {}, came after later ones", stamp.client));
        }
        None
    }

    /// What is true of the stream whatever the messages said.
    pub(crate) fn note(&mut self, wrong: Wrong) {
        self.wrong.add(wrong);
    }

    /// The highest seq that came.
    pub(crate) fn last(&self) -> Seq {
        self.last
    }

    /// No message up to here will come any more.
    pub(crate) fn pass(&mut self, to: Seq) {
        self.last = self.last.max(to);
    }

    /// How many messages came.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Two members that received the same messages under the same seqs have the same.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// What was wrong so far.
    pub(crate) fn wrong(&self) -> Wrong {
        self.wrong
    }

    /// Nothing more will come. How many of a publisher's acknowledged messages did not.
    pub(crate) fn missing(&mut self, seat: usize, sent: &Sent) -> u64 {
        let seen = self.next.get(seat).copied().unwrap_or(0);
        let passed = self.skipped.range((seat, 0)..=(seat, u32::MAX)).map(|(_, number)| *number);
        let lost = passed.chain(seen..sent.count).filter(|number| !sent.unacked.contains(number)).count() as u64;
        self.wrong.lost += lost;
        lost
    }
}

fn digest(before: u64, seq: Seq, stamp: Stamp) -> u64 {
    let mut words = [0; 32];
    words[..8].copy_from_slice(&before.to_be_bytes());
    words[8..16].copy_from_slice(&seq.to_be_bytes());
    words[16..20].copy_from_slice(&stamp.client.to_be_bytes());
    words[20..24].copy_from_slice(&stamp.number.to_be_bytes());
    xxh3_64(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a stream behind 10 of two publishers, who sent 3 and 2 messages, the second one's number 1 without an ack.
    /// `want` is lost, repeated, out of order, corrupt.
    #[track_caller]
    fn check(messages: &[(Seq, Option<(usize, u32)>)], want: [u64; 4]) {
        let mut stream = Stream::new(10, 2);
        let mut told = 0;
        for &(seq, from) in messages {
            let from = from.map(|(seat, number)| (seat, Stamp { client: 0, number, due: 0 }));
            told += u64::from(stream.message(seq, from).is_some());
        }
        stream.missing(0, &Sent { count: 3, unacked: BTreeSet::new() });
        stream.missing(1, &Sent { count: 2, unacked: BTreeSet::from([1]) });
        let Wrong { lost, repeated, out_of_order, corrupt, .. } = stream.wrong();
        assert_eq!([lost, repeated, out_of_order, corrupt], want, "{messages:?}");
        assert_eq!(told, repeated + out_of_order + corrupt, "each is told: {messages:?}");
    }

    #[test]
    fn every_fault_of_a_stream_is_found() {
        let [a0, a1, a2, b0, b1] = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)].map(Some);
        check(&[(11, a0), (12, a1), (13, b0), (14, a2)], [0, 0, 0, 0]);
        check(&[(11, a0), (12, b0), (13, a1), (14, b1), (15, a2)], [0, 0, 0, 0]);
        check(&[(11, a0), (12, a2), (13, b0)], [1, 0, 0, 0]);
        check(&[(11, a0)], [3, 0, 0, 0]);
        check(&[(11, a0), (12, a1), (13, a1), (14, b0), (15, a2)], [0, 1, 0, 0]);
        check(&[(11, a1), (12, a0), (13, b0), (14, a2)], [0, 0, 1, 0]);
        check(&[(11, a0), (13, a1), (12, b0), (14, a2)], [0, 0, 1, 0]);
        check(&[(11, a0), (12, None), (13, b0), (14, a2)], [1, 0, 0, 1]);
        check(&[(11, a0), (12, a1), (13, b0), (14, a2), (15, Some((2, 0)))], [0, 0, 0, 1]);
    }

    #[test]
    fn members_that_hold_something_else_differ() {
        let stamp = |number| Some((0, Stamp { client: 0, number, due: 0 }));
        let stream = |seqs: [Seq; 2]| {
            let mut stream = Stream::new(0, 1);
            stream.message(seqs[0], stamp(0));
            stream.message(seqs[1], stamp(1));
            stream.digest()
        };
        assert_eq!(stream([1, 2]), stream([1, 2]));
        assert_ne!(stream([1, 2]), stream([1, 3]));
    }
}
