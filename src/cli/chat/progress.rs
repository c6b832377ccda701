//! How far a piped chat is with what it waits for: everything up to the newest of its own lines. Pure.

use parlor_protocol::{Epoch, Seq};

/// What is written, and what is to be written before the end. Acks and records reach the chat by different ways, so either
/// may be the first to tell of a new epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Written, or told to be missing, up to here.
    seen: (Epoch, Seq),
    /// To be written before the end.
    awaited: (Epoch, Seq),
}

impl Progress {
    /// A room of this epoch, joined behind `cursor`, whose newest record is `tail`.
    pub(crate) fn new(epoch: Epoch, cursor: Seq, tail: Seq) -> Self {
        Self { seen: (epoch, cursor), awaited: (epoch, tail) }
    }

    /// A record came.
    pub(crate) fn on_record(&mut self, seq: Seq) {
        self.seen.1 = seq;
    }

    /// Records up to `to` will not come, and what follows is of `epoch`.
    pub(crate) fn on_gap(&mut self, epoch: Epoch, to: Seq) {
        if self.awaited.0 != epoch {
            // What was awaited of an epoch that is over comes no more.
            self.awaited = (epoch, 0);
        }
        self.seen = (epoch, to);
    }

    /// A line is stored there.
    pub(crate) fn on_acked(&mut self, epoch: Epoch, seq: Seq) {
        if self.awaited.0 == epoch {
            self.awaited.1 = self.awaited.1.max(seq);
        } else {
            self.awaited = (epoch, seq);
        }
    }

    /// Whether nothing is missing any more.
    pub(crate) fn is_done(&self) -> bool {
        self.seen.0 == self.awaited.0 && self.seen.1 >= self.awaited.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Epoch = Epoch(3);
    const NEW: Epoch = Epoch(4);

    #[test]
    fn everything_up_to_the_newest_own_line_is_awaited() {
        let mut progress = Progress::new(OLD, 10, 12);
        progress.on_acked(OLD, 14);
        progress.on_acked(OLD, 13);
        for seq in 11..14 {
            progress.on_record(seq);
            assert!(!progress.is_done(), "at {seq}");
        }
        progress.on_gap(OLD, 14);
        assert!(progress.is_done());
        assert!(Progress::new(OLD, 12, 12).is_done());
    }

    #[test]
    fn what_a_new_epoch_took_is_not_awaited() {
        let mut progress = Progress::new(OLD, 500, 500);
        progress.on_acked(OLD, 510);
        progress.on_gap(NEW, 0);
        assert!(progress.is_done(), "nothing of the old epoch comes any more");
        progress.on_acked(NEW, 1);
        assert!(!progress.is_done());
        progress.on_record(1);
        assert!(progress.is_done());
    }

    #[test]
    fn an_ack_may_tell_of_a_new_epoch_before_its_gap_does() {
        let mut progress = Progress::new(OLD, 500, 510);
        progress.on_acked(NEW, 2);
        assert!(!progress.is_done(), "500 of the old epoch is not 2 of the new one");
        progress.on_gap(NEW, 0);
        progress.on_record(1);
        assert!(!progress.is_done());
        progress.on_record(2);
        assert!(progress.is_done());
    }
}
