//! How a room forgets: what it is to keep, and what the store's sweep took away.
//!
//! What a room with `records_max` may no longer show is unreadable at once, here. The store deletes it later and more of it
//! at a time, and is asked when an eighth too much has come together. Bytes are counted here and measured there: the store
//! knows where its frames begin.

use std::sync::Arc;

use parlor_protocol::{Code, Seq, message::Durability};

use super::{Effect, State, Told};
use crate::{
    channel::change::Refusal,
    port::{Now, StoreError, Trim, Trimmed},
    wall::{WallGuard, Word},
};

/// The store is not asked to delete fewer records than this…
const RECORDS_LEAST: u64 = 64;
/// …or bytes.
const BYTES_LEAST: u64 = 16 << 10;

/// What the store has of a room, as far as the channel knows.
#[derive(Debug)]
pub(super) struct Held {
    /// The oldest seq that it may have.
    pub(super) first: Seq,
    /// What is gone below this was cut off, as the last trim said, and did not only expire.
    trimmed: Seq,
    /// The bytes of all frames before that one, and up to and with the newest committed.
    pub(super) bytes_before: u64,
    pub(super) bytes_upto: u64,
    /// Whether it is being asked to delete.
    pub(super) asked: bool,
    /// Whether there was too much to delete when it was being asked already.
    again: bool,
    /// Whether it is to be asked to delete all that is shown no longer…
    hides: bool,
    /// …and whether it is being asked for that.
    hiding: bool,
    /// Who is told why nothing is there to be erased, once the store has deleted everything below a seq.
    awaited: Vec<(Seq, Told, Refusal)>,
}

impl Held {
    pub(super) fn new(first: Seq, bytes_before: u64, bytes_upto: u64) -> Self {
        Self {
            first,
            trimmed: 1,
            bytes_before,
            bytes_upto,
            asked: false,
            again: false,
            hides: false,
            hiding: false,
            awaited: Vec::new(),
        }
    }
}

/// The wall clock, as a room looks at it that no store has.
#[derive(Debug)]
pub(super) struct Wall {
    guard: WallGuard,
    word: Arc<Word>,
    /// How often somebody had said that it is right.
    heard: u64,
    /// It was not believed at the last look, which was said.
    off: bool,
}

impl Wall {
    pub(super) fn new(word: Arc<Word>) -> Self {
        Self { guard: WallGuard::new(0), heard: word.given(), word, off: false }
    }

    /// Whether it is good enough to delete by.
    fn is_believed(&mut self, now: Now) -> bool {
        let given = self.word.given();
        if std::mem::replace(&mut self.heard, given) != given {
            self.guard.trust();
        }
        let off = self.guard.look(now);
        if let Some(off_ms) = off
            && !self.off
        {
            tracing::error!(off_ms, "the wall clock has jumped: rooms in memory forget nothing that expires meanwhile");
        }
        self.off = off.is_some();
        off.is_none()
    }
}

/// Why records are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Their lifetime is over.
    Expired,
    /// The room keeps only so many.
    Trimmed,
}

impl State {
    /// The frames have so many bytes more by a commit, or fewer: what is too much now is forgotten. A record that the store
    /// had swept when its rewrite came was counted here and not there, until the room is loaded again.
    pub(super) fn keep(&mut self, bytes: i64) {
        let (records_max, bytes_max) = (self.options.records_max, self.options.bytes_max);
        if self.options.durability == Durability::Memory {
            self.ring.keep(records_max, bytes_max);
            // What falls off the ring is nowhere else.
            return self.forget_below(self.ring.first(), Why::Trimmed);
        }
        self.held.bytes_upto = self.held.bytes_upto.saturating_add_signed(bytes);
        if records_max > 0 {
            self.forget_below((self.extent.tail + 1).saturating_sub(records_max), Why::Trimmed);
        }
        // The store may have cut off, or swept, what was still on its way here.
        self.forget_below(self.held.trimmed, Why::Trimmed);
        self.forget_below(self.held.first, Why::Expired);
        self.trim_hiding();
        if self.holds_too_much() {
            self.held.again = self.held.asked;
            self.trim_now();
        }
    }

    /// Whether what the store has and may delete is worth asking it to.
    fn holds_too_much(&self) -> bool {
        let (records_max, bytes_max) = (self.options.records_max, self.options.bytes_max);
        let records = self.extent.first.saturating_sub(self.held.first);
        let too_many = records_max > 0 && records >= (records_max / 8).max(RECORDS_LEAST);
        let held = self.held.bytes_upto.saturating_sub(self.held.bytes_before);
        let too_large = bytes_max > 0 && held.saturating_sub(bytes_max) > (bytes_max / 8).max(BYTES_LEAST);
        too_many || too_large
    }

    /// Has the store delete what can be read no longer, unless it is doing so.
    pub(super) fn trim_now(&mut self) {
        let stored = self.options.durability != Durability::Memory;
        if stored && !std::mem::replace(&mut self.held.asked, true) {
            let (room, generation, first) = (self.room, self.generation, self.extent.first);
            let bytes_max = self.options.bytes_max;
            self.effects.push_back(Effect::Trim(Trim { room, generation, first, bytes_max }));
        }
    }

    /// Has the store delete what the room shows no longer, however little that is, and say where it has cut the room itself.
    pub(super) fn trim_hidden(&mut self) {
        self.held.hides = true;
        self.trim_hiding();
    }

    pub(super) fn trim_hiding(&mut self) {
        if self.held.hides && !self.held.asked {
            self.held.hides = false;
            self.trim_now();
            self.held.hiding = true;
        }
    }

    /// Tells that something is not there to be erased when nothing of what is gone is stored any more.
    pub(super) fn trim_and_tell(&mut self, told: Told, refusal: Refusal) {
        if self.options.durability == Durability::Memory {
            return told.tell(Err(refusal));
        }
        if self.held.awaited.len() >= self.limits.parked_per_room_max {
            return told.tell(Err((Code::Busy, "too much waits in this room")));
        }
        self.held.awaited.push((self.extent.first, told, refusal));
        self.trim_now();
    }

    /// The store has deleted everything below `first`, or could not.
    fn tell_awaiting(&mut self, first: Option<Seq>) {
        for (below, told, refusal) in std::mem::take(&mut self.held.awaited) {
            match first {
                Some(first) if first >= below => told.tell(Err(refusal)),
                // It was asked to before more was gone.
                Some(_) => {
                    self.held.awaited.push((below, told, refusal));
                    self.trim_now();
                }
                None => told.tell(Err((Code::Busy, "the store could not delete what is gone"))),
            }
        }
    }

    /// The store's answer to [`Effect::Trim`].
    pub(super) fn on_trimmed(&mut self, trimmed: Result<Trimmed, StoreError>) {
        self.held.asked = false;
        let hiding = std::mem::take(&mut self.held.hiding);
        self.tell_awaiting(trimmed.as_ref().map(|trimmed| trimmed.first).ok());
        match trimmed {
            Ok(Trimmed { first, trimmed, gone_count, bytes_before }) => {
                self.learn_gone(first, gone_count);
                (self.held.first, self.held.bytes_before) = (first, bytes_before);
                self.held.trimmed = trimmed;
                self.forget_below(trimmed, Why::Trimmed);
                // The rest was swept, which may be told later, or was told before.
                self.forget_below(first, Why::Expired);
                self.extent.trimmed = self.extent.trimmed.max(trimmed.min(self.extent.first));
                // The room may be quiet from now on. Only once for what came meanwhile: the store may count otherwise.
                if std::mem::take(&mut self.held.again) && self.holds_too_much() {
                    self.trim_now();
                }
            }
            // The next commit asks again. A room that was succeeded has no next.
            Err(error) => {
                self.held.hides |= hiding;
                return tracing::debug!(room = %self.name, %error, "old records could not be deleted now");
            }
        }
        self.trim_hiding();
    }

    /// A sweep took everything below `first`; the newest of that has this count.
    pub(super) fn on_swept(&mut self, first: Seq, gone_count: u64) {
        self.learn_gone(first, gone_count);
        self.held.first = self.held.first.max(first);
        self.forget_below(first, Why::Expired);
    }

    /// Nobody sweeps a room that no store has: it lets go of what has expired by itself, before it looks at anything else.
    /// Like a store it deletes nothing while the wall clock cannot be believed.
    pub(super) fn sweep_ring(&mut self, now: Now) {
        if self.options.durability == Durability::Memory && self.wall.is_believed(now) {
            self.forget_below(self.ring.first_unexpired(now.unix_ms), Why::Expired);
        }
    }

    pub(super) fn forget_below(&mut self, first: Seq, why: Why) {
        // The store may have swept what it has not yet told of.
        let first = first.min(self.extent.tail + 1);
        if first <= self.extent.first {
            return;
        }
        self.extent.first = first;
        if why == Why::Trimmed {
            self.extent.trimmed = first;
        }
        self.ring.drop_below(first);
    }
}
