//! Checks what one client receives from its join to its leave. Pure.

use std::collections::BTreeMap;

use parlor_protocol::Seq;

/// What streams came to, over all that were added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Records that came.
    pub(crate) delivered: u64,
    /// Records that should have come.
    pub(crate) owed: u64,
    /// Records that came once more.
    pub(crate) duplicates: u64,
    /// Seqs that did not come, whether the server said so or not.
    pub(crate) gaps: u64,
    /// Records that came after a later one.
    pub(crate) out_of_order: u64,
    /// Messages that were sent again since no ack came.
    pub(crate) resends: u64,
}

impl Totals {
    /// Adds another stream's.
    pub(crate) fn add(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.owed += other.owed;
        self.duplicates += other.duplicates;
        self.gaps += other.gaps;
        self.out_of_order += other.out_of_order;
        self.resends += other.resends;
    }
}

/// One client's stream: every [`record`](Self::record) and [`gap`](Self::gap) as it comes, then the [`end`](Self::end).
#[derive(Debug)]
pub(crate) struct Stream {
    tail: Seq,
    last: Seq,
    /// What was passed over and has not come yet, as first and last seq.
    holes: BTreeMap<Seq, Seq>,
    totals: Totals,
    first_fault: Option<String>,
}

impl Stream {
    /// Begins behind `tail`, which the join's answer names.
    pub(crate) fn new(tail: Seq) -> Self {
        Self { tail, last: tail, holes: BTreeMap::new(), totals: Totals::default(), first_fault: None }
    }

    /// The highest seq that came or was told to be missing.
    pub(crate) fn last(&self) -> Seq {
        self.last
    }

    /// A record came.
    pub(crate) fn record(&mut self, seq: Seq) {
        self.totals.delivered += 1;
        if seq > self.last {
            if seq > self.last + 1 {
                self.fault(|last| format!("{seq} came right after {last}"));
                self.holes.insert(self.last + 1, seq - 1);
            }
            self.last = seq;
        } else if self.fill(seq) {
            self.totals.out_of_order += 1;
            self.fault(|last| format!("{seq} came after {last}"));
        } else {
            self.totals.duplicates += 1;
            self.fault(|last| format!("{seq} came once more, after {last}"));
        }
    }

    /// The server said that `from` to `to` will not come; `from == to + 1` if only the position changes.
    pub(crate) fn gap(&mut self, from: Seq, to: Seq, why: &str) {
        self.totals.gaps += (to + 1).saturating_sub(from).max(1);
        self.fault(|last| format!("a gap from {from} to {to} ({why}) after {last}"));
        if from > to {
            self.last = to;
        } else if to > self.last {
            if from > self.last + 1 {
                self.holes.insert(self.last + 1, from - 1);
            }
            self.last = to;
        }
    }

    /// Nothing more will come; everything up to `upto` should have. Returns the totals and what went wrong first.
    pub(crate) fn end(mut self, upto: Seq) -> (Totals, Option<String>) {
        self.totals.owed = upto.saturating_sub(self.tail);
        if upto > self.last {
            self.fault(|last| format!("{last} was the last, {upto} was to be"));
            self.holes.insert(self.last + 1, upto);
        }
        self.totals.gaps += self.holes.iter().map(|(first, last)| last - first + 1).sum::<u64>();
        if self.totals.delivered != self.totals.owed {
            let Totals { delivered, owed, .. } = self.totals;
            self.fault(|_| format!("{delivered} records came, {owed} were to come"));
        }
        (self.totals, self.first_fault)
    }

    /// Takes `seq` out of the hole that it is in, if any.
    fn fill(&mut self, seq: Seq) -> bool {
        let Some((&first, &last)) = self.holes.range(..=seq).next_back() else { return false };
        if last < seq {
            return false;
        }
        self.holes.remove(&first);
        if first < seq {
            self.holes.insert(first, seq - 1);
        }
        if seq < last {
            self.holes.insert(seq + 1, last);
        }
        true
    }

    fn fault(&mut self, text: impl FnOnce(Seq) -> String) {
        let last = self.last;
        self.first_fault.get_or_insert_with(|| text(last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a stream that begins behind 10. `want` is owed, delivered, duplicates, gaps, out of order.
    #[track_caller]
    fn check(records: &[Seq], upto: Seq, want: [u64; 5], fault: Option<&str>) {
        let mut stream = Stream::new(10);
        for &seq in records {
            stream.record(seq);
        }
        let (t, first) = stream.end(upto);
        assert_eq!([t.owed, t.delivered, t.duplicates, t.gaps, t.out_of_order], want, "{records:?}");
        assert_eq!(first.as_deref(), fault, "{records:?}");
    }

    #[test]
    fn every_fault_of_a_stream_is_found() {
        check(&[], 10, [0; 5], None);
        check(&[11, 12, 13], 13, [3, 3, 0, 0, 0], None);
        check(&[11, 12, 12, 13], 13, [3, 4, 1, 0, 0], Some("12 came once more, after 12"));
        check(&[11, 13], 13, [3, 2, 0, 1, 0], Some("13 came right after 11"));
        check(&[11, 13, 12, 14], 14, [4, 4, 0, 0, 1], Some("13 came right after 11"));
        check(&[11], 13, [3, 1, 0, 2, 0], Some("11 was the last, 13 was to be"));
        check(&[11, 12], 11, [1, 2, 0, 0, 0], Some("2 records came, 1 were to come"));
        check(&[10, 11], 11, [1, 2, 1, 0, 0], Some("10 came once more, after 10"));
        check(&[15, 13, 13], 15, [5, 3, 1, 3, 1], Some("15 came right after 10"));
    }

    #[test]
    fn an_announced_gap_counts_its_seqs_once() {
        let mut stream = Stream::new(0);
        stream.record(1);
        stream.gap(2, 4, "Expired");
        stream.record(5);
        stream.gap(6, 5, "NewEpoch");
        let (totals, first) = stream.end(5);
        assert_eq!(totals, Totals { delivered: 2, owed: 5, gaps: 4, ..Totals::default() });
        assert_eq!(first.as_deref(), Some("a gap from 2 to 4 (Expired) after 1"));
    }
}
