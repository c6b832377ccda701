//! Where a client goes on in a room whose epochs it may not know.

use parlor_protocol::{
    Epoch, Seq,
    message::{GapReason, JoinFrom},
};

use crate::port::EpochStart;

/// A room's readable range.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Its epochs, oldest first; never empty.
    pub epochs: Vec<EpochStart>,
    /// The oldest readable seq.
    pub first: Seq,
    /// What is gone below this seq is gone because the room keeps only so much; what is gone above it has expired.
    pub trimmed: Seq,
    /// The newest committed seq.
    pub tail: Seq,
}

/// Where delivery begins, and what the client has to be told first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Delivery begins behind this seq.
    pub cursor: Seq,
    /// `from`, `to` and the reason of a gap that ends at the cursor.
    pub gap: Option<(Seq, Seq, GapReason)>,
}

impl Extent {
    /// The current epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epochs.last().map(|current| current.epoch).unwrap_or_default()
    }

    /// Why records from `from` on cannot be read any more: they expired, unless at least one of them was trimmed.
    #[must_use]
    pub fn why_gone(&self, from: Seq) -> GapReason {
        if from < self.trimmed { GapReason::TRIMMED } else { GapReason::EXPIRED }
    }

    /// Where a join begins.
    #[must_use]
    pub fn start(&self, from: JoinFrom) -> Start {
        match from {
            JoinFrom::Tail => self.behind(self.tail),
            JoinFrom::Newest(n) => self.behind(self.tail.saturating_sub(u64::from(n)).max(self.first - 1)),
            JoinFrom::Seq(seq) => self.behind(seq.saturating_sub(1)),
            JoinFrom::Position(epoch, seq) => self.resume(epoch, seq),
        }
    }

    /// Where the holder of a position goes on.
    #[must_use]
    pub fn resume(&self, epoch: Epoch, seq: Seq) -> Start {
        if epoch == self.epoch() {
            return self.behind(seq);
        }
        let kept = self.kept(epoch, seq);
        let cursor = kept.min(self.tail).max(self.first - 1);
        Start { cursor, gap: Some((cursor.min(kept) + 1, cursor, GapReason::NEW_EPOCH)) }
    }

    /// Whether what had this seq in an epoch has it still, if it is there at all.
    #[must_use]
    pub fn has_kept(&self, epoch: Epoch, seq: Seq) -> bool {
        self.kept(epoch, seq) == seq
    }

    /// Up to where a client that holds an epoch's records up to `seq` holds the room's.
    fn kept(&self, epoch: Epoch, seq: Seq) -> Seq {
        // Each later epoch may have begun below what the client holds of its own: those records are no longer the
        // room's. A client from an epoch that nobody remembers begins anew.
        match self.epochs.iter().position(|known| known.epoch == epoch) {
            Some(at) => self.epochs[at + 1..].iter().map(|later| later.first - 1).fold(seq, Seq::min),
            None => 0,
        }
    }

    fn behind(&self, seq: Seq) -> Start {
        if seq > self.tail {
            let gap = (self.tail + 1, self.tail, GapReason::ABOVE_TAIL);
            return Start { cursor: self.tail, gap: Some(gap) };
        }
        let cursor = seq.max(self.first - 1);
        Start { cursor, gap: (seq < cursor).then(|| (seq + 1, cursor, self.why_gone(seq + 1))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(from: JoinFrom, cursor: Seq, gap: Option<(Seq, Seq, GapReason)>) {
        let start = |epoch, first| EpochStart { epoch: Epoch(epoch), first };
        let room = Extent { epochs: vec![start(3, 1), start(7, 41), start(9, 31)], first: 11, trimmed: 8, tail: 50 };
        assert_eq!(room.start(from), Start { cursor, gap }, "{from:?}");
    }

    #[test]
    fn a_join_begins_where_it_says() {
        check(JoinFrom::Tail, 50, None);
        check(JoinFrom::Newest(0), 50, None);
        check(JoinFrom::Newest(10), 40, None);
        check(JoinFrom::Newest(u32::MAX), 10, None);
        check(JoinFrom::Seq(20), 19, None);
        check(JoinFrom::Seq(51), 50, None);
        check(JoinFrom::Seq(52), 50, Some((51, 50, GapReason::ABOVE_TAIL)));
        check(JoinFrom::Seq(0), 10, Some((1, 10, GapReason::TRIMMED)));
        check(JoinFrom::Seq(11), 10, None);
        check(JoinFrom::Seq(u64::MAX), 50, Some((51, 50, GapReason::ABOVE_TAIL)));
    }

    #[test]
    fn a_position_of_this_epoch_goes_on_behind_itself() {
        check(JoinFrom::Position(Epoch(9), 20), 20, None);
        check(JoinFrom::Position(Epoch(9), 50), 50, None);
        check(JoinFrom::Position(Epoch(9), 51), 50, Some((51, 50, GapReason::ABOVE_TAIL)));
        check(JoinFrom::Position(Epoch(9), 3), 10, Some((4, 10, GapReason::TRIMMED)));
        check(JoinFrom::Position(Epoch(9), 6), 10, Some((7, 10, GapReason::TRIMMED)));
        check(JoinFrom::Position(Epoch(9), 7), 10, Some((8, 10, GapReason::EXPIRED)));
    }

    #[test]
    fn a_position_of_an_earlier_epoch_falls_back_to_what_is_shared() {
        check(JoinFrom::Position(Epoch(7), 45), 30, Some((31, 30, GapReason::NEW_EPOCH)));
        check(JoinFrom::Position(Epoch(7), 25), 25, Some((26, 25, GapReason::NEW_EPOCH)));
        check(JoinFrom::Position(Epoch(3), 60), 30, Some((31, 30, GapReason::NEW_EPOCH)));
        check(JoinFrom::Position(Epoch(3), 5), 10, Some((6, 10, GapReason::NEW_EPOCH)));
        check(JoinFrom::Position(Epoch(4), 45), 10, Some((1, 10, GapReason::NEW_EPOCH)));
    }
}
