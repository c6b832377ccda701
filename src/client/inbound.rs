//! What one room has received: the position, records held back behind a hole, and how the hole is filled.
//!
//! The position is the client's word for "I hold, or was told a gap for, everything up to here". Live records that jump
//! ahead of it are held back, within limits, while pages are fetched from behind the position; records that find no
//! place are fetched again.

use std::collections::BTreeMap;

use parlor_protocol::{Epoch, Seq, message::GapReason};

use super::event::{Event, Gap, Message, Page, Stats};

/// The most records and bytes of payload held back behind a hole.
const HELD_RECORDS_MAX: usize = 1_024;
const HELD_BYTES_MAX: usize = 1 << 20;

/// Where events go, each with the position behind it.
pub(super) struct Sink<'a> {
    pub(super) events: &'a mut dyn FnMut(Event, (Epoch, Seq)),
    pub(super) stats: &'a mut Stats,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Inbound {
    epoch: Epoch,
    position: Seq,
    /// Whether the server has not been told of the position.
    pub(super) unreported: bool,
    /// The epoch and cursor of a join that answered a position of another epoch: a gap should follow before records do.
    turned: Option<(Epoch, Seq)>,
    held: BTreeMap<Seq, Message>,
    held_bytes: usize,
    /// The highest seq seen; above the position there is a hole.
    seen: Seq,
    filling: bool,
    /// Nothing came yet behind the first join: a gap that ends at the position says what the join asked for in vain.
    fresh: bool,
}

impl Inbound {
    pub(super) fn new(epoch: Epoch, position: Seq) -> Self {
        Self {
            epoch,
            position,
            unreported: false,
            turned: None,
            held: BTreeMap::new(),
            held_bytes: 0,
            seen: position,
            filling: false,
            fresh: true,
        }
    }

    /// The epoch and position.
    pub(super) fn position(&self) -> (Epoch, Seq) {
        (self.epoch, self.position)
    }

    /// The epoch of what the server says now: that of the position, unless a join told of a new one and its gap has not come.
    pub(super) fn epoch(&self) -> Epoch {
        self.turned.map_or(self.epoch, |(epoch, _)| epoch)
    }

    /// The room was joined from the position: the server sends everything behind it anew.
    pub(super) fn on_joined(&mut self, epoch: Epoch, cursor: Seq) {
        self.forget_held();
        self.unreported = false;
        self.turned = (epoch != self.epoch).then_some((epoch, cursor));
    }

    /// The server chose by itself to deliver from behind this seq: what is before it and not held has to be fetched.
    pub(super) fn on_begun(&mut self, epoch: Epoch, cursor: Seq) {
        if epoch == self.epoch {
            self.seen = self.seen.max(cursor);
        }
    }

    /// The connection is lost, and with it a fetch.
    pub(super) fn on_lost(&mut self) {
        self.filling = false;
        self.unreported = true;
    }

    /// A record came of itself.
    pub(super) fn on_record(&mut self, message: Message, sink: &mut Sink<'_>) {
        self.fresh = false;
        if let Some((epoch, cursor)) = self.turned {
            // The server did not say so itself; never a silent hole.
            let gap = Gap { epoch, from: cursor.saturating_add(1), to: cursor, why: GapReason::NEW_EPOCH };
            self.on_gap(gap, sink);
        }
        if message.seq <= self.position || self.held.contains_key(&message.seq) {
            sink.stats.duplicates += 1;
        } else if message.seq == self.position + 1 {
            sink.stats.late += u64::from(self.has_hole());
            self.advance(message, sink);
            self.drain(sink);
        } else {
            if !self.has_hole() {
                sink.stats.holes += 1;
            }
            self.seen = self.seen.max(message.seq);
            self.hold(message);
        }
    }

    /// The server said that records will not come.
    pub(super) fn on_gap(&mut self, gap: Gap, sink: &mut Sink<'_>) {
        self.turned = None;
        let fresh = std::mem::take(&mut self.fresh);
        if gap.epoch != self.epoch || gap.why == GapReason::NEW_EPOCH || gap.why == GapReason::ABOVE_TAIL {
            // What was held is of a past that is over.
            (self.epoch, self.position) = (gap.epoch, gap.to);
            self.forget_held();
            self.tell(gap, sink);
        } else if gap.from > self.position.saturating_add(1) {
            // A hole before the gap: the pages that fill it tell of the gap too.
            if !self.has_hole() {
                sink.stats.holes += 1;
            }
            self.seen = self.seen.max(gap.to);
        } else if gap.to > self.position {
            self.pass(gap, sink);
            self.drain(sink);
        } else if fresh && (gap.from..=gap.to).contains(&self.position) {
            self.tell(gap, sink);
        }
    }

    /// Where to fetch from, if there is a hole that no fetch is filling.
    pub(super) fn wants_fill(&self) -> Option<Seq> {
        (self.has_hole() && !self.filling).then_some(self.position.saturating_add(1))
    }

    /// A fetch from there is under way.
    pub(super) fn on_fill_sent(&mut self) {
        self.filling = true;
    }

    /// Whether a fetch is under way.
    pub(super) fn is_filling(&self) -> bool {
        self.filling
    }

    /// The fetch was refused for now.
    pub(super) fn on_fill_put_off(&mut self) {
        self.filling = false;
    }

    /// The fetch was answered.
    pub(super) fn on_fill(&mut self, page: Page, sink: &mut Sink<'_>) {
        self.filling = false;
        if page.epoch != self.epoch {
            // The hole is of an epoch that is over; a gap says where the new one begins.
            self.forget_held();
            return;
        }
        let before = self.position;
        let mut gaps = page.gaps.iter().peekable();
        for message in page.messages {
            while let Some(gap) = gaps.next_if(|gap| gap.from < message.seq) {
                self.pass(Gap { epoch: page.epoch, from: gap.from, to: gap.to, why: gap.why }, sink);
            }
            if message.seq > self.position {
                self.lose_up_to(message.seq - 1, sink);
                self.advance(message, sink);
            }
        }
        for gap in gaps {
            self.pass(Gap { epoch: page.epoch, from: gap.from, to: gap.to, why: gap.why }, sink);
        }
        self.drain(sink);
        if self.position == before {
            self.on_fill_refused(sink);
        }
    }

    /// What is missing cannot be had: says so and goes on with what is held.
    pub(super) fn on_fill_refused(&mut self, sink: &mut Sink<'_>) {
        self.filling = false;
        let next = self.held.first_key_value().map_or(self.seen, |(seq, _)| seq - 1);
        self.lose_up_to(next, sink);
        self.drain(sink);
    }

    /// The room was left at `cursor`, and nothing more can be fetched.
    pub(super) fn give_up(&mut self, cursor: Seq, sink: &mut Sink<'_>) {
        while self.has_hole() {
            self.on_fill_refused(sink);
        }
        self.lose_up_to(cursor, sink);
    }

    fn has_hole(&self) -> bool {
        self.position < self.seen
    }

    fn advance(&mut self, message: Message, sink: &mut Sink<'_>) {
        self.moved_to(message.seq);
        sink.stats.messages += 1;
        (sink.events)(Event::Message(message), self.position());
    }

    /// Goes past a gap that begins at or before the next record.
    fn pass(&mut self, gap: Gap, sink: &mut Sink<'_>) {
        if gap.to > self.position {
            let from = gap.from.max(self.position + 1);
            self.lose_up_to(from - 1, sink);
            self.moved_to(gap.to);
            self.tell(Gap { from, ..gap }, sink);
        }
    }

    fn lose_up_to(&mut self, to: Seq, sink: &mut Sink<'_>) {
        if to > self.position {
            let gap = Gap { epoch: self.epoch, from: self.position + 1, to, why: GapReason::LOST };
            self.moved_to(to);
            self.tell(gap, sink);
        }
    }

    fn tell(&mut self, gap: Gap, sink: &mut Sink<'_>) {
        self.unreported = true;
        sink.stats.gaps += 1;
        (sink.events)(Event::Gap(gap), self.position());
    }

    fn moved_to(&mut self, seq: Seq) {
        debug_assert!(seq > self.position, "a position only rises within an epoch");
        self.position = seq;
        self.seen = self.seen.max(seq);
        self.unreported = true;
    }

    fn hold(&mut self, message: Message) {
        let bytes = self.held_bytes + message.payload.len();
        if self.held.len() < HELD_RECORDS_MAX && bytes <= HELD_BYTES_MAX {
            self.held_bytes = bytes;
            self.held.insert(message.seq, message);
        }
    }

    fn drain(&mut self, sink: &mut Sink<'_>) {
        while let Some(entry) = self.held.first_entry() {
            if *entry.key() > self.position.saturating_add(1) {
                break;
            }
            let message = entry.remove();
            self.held_bytes -= message.payload.len();
            if message.seq > self.position {
                self.advance(message, sink);
            }
        }
    }

    fn forget_held(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
        self.seen = self.position;
        self.turned = None;
    }
}
