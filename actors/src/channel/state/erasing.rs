//! Erasing on the host's behalf: a recall that nobody has to be allowed, and of which the host is told.
//!
//! A message is erased with the newest edit of it; of those before nothing is left. Of all that one user said, reactions are
//! erased as well: the message that he reacted to loses them in the same moment.

use std::fmt;

use parlor_protocol::{
    Code, DeviceTag, Epoch, Name, RoomNumber, Seq,
    message::{Durability, RecordKind, TombstoneReason},
};

use super::{Effect, RECORD_OVERHEAD_BYTES, State, changing::Found};
use crate::{
    channel::{
        change::{self, Change, Refusal, deliver_of},
        orphans,
        parked::Loaded,
    },
    message::{Conn, Publish},
    port::{Answer, DeviceKey, Now},
    tiers::TierNumber,
};

/// What was erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erased {
    /// In which room.
    pub room: RoomNumber,
    /// The seq of the message: what was said in it is replaced…
    pub first: Seq,
    /// …and that of the newest edit of it: what was said in edits up to there is, too.
    pub last: Seq,
}

/// How the host is told. Dropped if the channel dies first.
pub struct Tell<T>(Box<dyn FnOnce(T) + Send>);

/// Tells what became of an erasure.
pub type Told = Tell<Result<Erased, Refusal>>;

impl<T> Tell<T> {
    /// Calls this.
    pub fn new(tell: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(tell))
    }

    /// Tells.
    pub fn tell(self, outcome: T) {
        (self.0)(outcome);
    }
}

impl<T> fmt::Debug for Tell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

/// A message to erase.
#[derive(Debug)]
pub struct Erase {
    /// Which.
    pub seq: Seq,
    /// Whose it must be, if all that he said is erased: reactions too. `None` for a message of anybody.
    pub whose: Option<Name>,
    /// Who is told.
    pub told: Told,
}

/// Everything of a user's to erase that is in no store: what a memory room holds.
#[derive(Debug)]
pub struct EraseInMemory {
    /// Whose.
    pub user: Name,
    /// Who is told how many records that were.
    pub told: Tell<u64>,
}

/// What has to be done next to erase a message.
enum Step {
    /// Nothing but to wait for the commit of this seq: it is a tombstone, by that change.
    Done(Seq),
    /// Read this record.
    Read(Seq),
    /// Make this change of what this user said, up to the edit with this seq.
    Make(Box<Change>, Name, Seq),
}

/// Erasures that are not committed.
#[derive(Debug, Default)]
pub(super) struct Erasures {
    /// Waiting for a record to be read: which, and what was read before.
    reading: Vec<(Seq, Loaded, Erase)>,
    /// Waiting for the commit of their records.
    given: Vec<(Seq, Erased, Told)>,
}

impl Erasures {
    /// Whether somebody waits for one.
    pub(super) fn are_under_way(&self) -> bool {
        !self.reading.is_empty() || !self.given.is_empty()
    }
}

impl State {
    pub(super) fn on_erase(&mut self, now: Now, erase: Erase) {
        match self.prepare_erase(erase.seq, erase.whose.as_ref()) {
            // What can be read no longer may still be stored.
            Err(refusal) if erase.whose.is_some() && refusal.0 == Code::TargetGone => {
                self.trim_and_tell(erase.told, refusal);
            }
            Err(refusal) => erase.told.tell(Err(refusal)),
            Ok(Step::Done(last)) => {
                let erased = Erased { room: self.room, first: erase.seq, last };
                if last > self.extent.tail {
                    // The store may not have the tombstone yet.
                    self.erasures.given.push((last, erased, erase.told));
                } else {
                    erase.told.tell(Ok(erased));
                }
            }
            Ok(Step::Read(seq)) => self.read_to_erase(seq, erase),
            Ok(Step::Make(change, sender, last)) => self.record_erasure(now, erase, &change, sender, last),
        }
    }

    /// What has to be done next to erase a message.
    fn prepare_erase(&self, seq: Seq, whose: Option<&Name>) -> Result<Step, Refusal> {
        if self.failed.is_some() {
            return Err((Code::StoreUnavailable, "the store takes no more writes"));
        }
        let target = match self.find(seq) {
            Found::Here(target) => target,
            Found::Gone => return Err((Code::TargetGone, "the message is not there, or no longer")),
            Found::InStore => return Ok(Step::Read(seq)),
        };
        let unreadable = (Code::TargetGone, "the message cannot be read");
        let deliver = deliver_of(&target.frame).ok_or(unreadable)?;
        let changed = deliver.changed();
        if orphans::is_orphan(&deliver, self.extent.first) || whose.is_some_and(|user| **user != *deliver.sender) {
            return Err((Code::TargetGone, "it is not there any more, or another's"));
        }
        let reaction = whose.is_some() && deliver.kind == RecordKind::REACTION;
        if deliver.kind != RecordKind::MESSAGE && !reaction {
            return Err((Code::NotChangeable, "only messages can be erased, and their edits with them"));
        }
        if changed.tombstone.is_some() {
            return Ok(Step::Done(changed.revision));
        }
        let (edited, expires) = (changed.edited, deliver.expires);
        let reacted = match (reaction && !changed.removes).then(|| self.find(deliver.refers_to)) {
            Some(Found::Here(message)) => {
                change::has_reaction(&message, &deliver).then_some((deliver.refers_to, message))
            }
            Some(Found::InStore) => return Ok(Step::Read(deliver.refers_to)),
            Some(Found::Gone) | None => None,
        };
        let previous = match (edited != 0).then(|| self.find_edit(seq, edited)) {
            Some(Found::Here(edit)) => Some((edited, edit.frame)),
            Some(Found::InStore) => return Ok(Step::Read(edited)),
            Some(Found::Gone) | None => None,
        };
        let sender = Name::parse(deliver.sender).map_err(|_| unreadable)?;
        let change = Change { target, previous, reacted, expires, leaves: TombstoneReason::ERASED };
        Ok(Step::Make(Box::new(change), sender, edited.max(seq)))
    }

    /// Erases what a user said in a room that no store has.
    pub(super) fn on_erase_in_memory(&mut self, now: Now, erase: EraseInMemory) {
        let mut erased = 0;
        if self.options.durability == Durability::Memory {
            for seq in self.extent.first..=self.extent.tail {
                let frame = self.ring.frame(seq);
                let his = frame.as_deref().and_then(deliver_of).is_some_and(|it| *it.sender == *erase.user);
                if his && let Ok(Step::Make(change, sender, last)) = self.prepare_erase(seq, Some(&erase.user)) {
                    let one = Erase { seq, whose: None, told: Tell::new(|_| {}) };
                    self.record_erasure(now, one, &change, sender, last);
                    erased += 1;
                }
            }
        }
        erase.told.tell(erased);
    }

    fn read_to_erase(&mut self, seq: Seq, erase: Erase) {
        let busy = (Code::Busy, "too much waits in this room");
        let loaded = std::mem::take(&mut self.loaded);
        if self.erasures.reading.len() >= self.limits.parked_per_room_max {
            return erase.told.tell(Err(busy));
        }
        match self.reads.target(seq, self.limits.reads_per_room_max) {
            Ok(id) => {
                self.effects.extend(id.map(|id| Effect::ReadTarget { id, seq }));
                self.erasures.reading.push((seq, loaded, erase));
            }
            Err(_) => erase.told.tell(Err(busy)),
        }
    }

    /// A record was read, or could not be: erasures that waited for it go on.
    pub(super) fn erase_read(&mut self, now: Now, seq: Seq, target: Option<&Option<crate::port::Target>>) {
        let waiting: Vec<_> = self.erasures.reading.extract_if(.., |(waits, ..)| *waits == seq).collect();
        for (_, mut loaded, erase) in waiting {
            match target {
                Some(target) => {
                    loaded.insert(seq, target.clone());
                    self.loaded = loaded;
                    self.on_erase(now, erase);
                    self.loaded = Loaded::default();
                }
                None => erase.told.tell(Err((Code::Busy, "the message could not be read now"))),
            }
        }
    }

    /// Puts a recall into the log, as of the message's sender on a device that he does not have.
    fn record_erasure(&mut self, now: Now, erase: Erase, change: &Change, sender: Name, last: Seq) {
        let publish = Publish {
            conn: Conn { arbiter: 0, slot: u32::MAX, serial: u64::MAX },
            request: 0,
            device: DeviceKey { user: sender, tag: DeviceTag(0) },
            tier: TierNumber(0),
            nonce: 0,
            kind: RecordKind::RECALL,
            refers_to: erase.seq,
            epoch: Epoch(0),
            lifetime_ms: None,
            silent: true,
            remove: false,
            content_type: 0,
            payload: bytes::Bytes::new(),
        };
        let place = match self.options.durability {
            Durability::Memory => self.budget.none(),
            Durability::Buffered | Durability::Synced => {
                match self.budget.take(RECORD_OVERHEAD_BYTES + change.bytes(&publish)) {
                    Some(place) => place,
                    None => return erase.told.tell(Err((Code::Busy, "the store's queue is full"))),
                }
            }
        };
        let (seq, time) = (self.given + 1, self.time.max(now.unix_ms));
        let answer = Answer { nonce: 0, seq, time, content_hash: 0, count: self.given_count };
        self.erasures.given.push((seq, Erased { room: self.room, first: erase.seq, last }, erase.told));
        self.record(&publish, answer, 0, change.expires, place, Some(change));
        self.turn_goes_on();
    }

    /// Everything up to here is committed.
    pub(super) fn erased(&mut self, upto: Seq) {
        if self.erasures.given.is_empty() {
            return;
        }
        for (_, erased, told) in self.erasures.given.extract_if(.., |(seq, ..)| *seq <= upto) {
            told.tell(Ok(erased));
        }
    }

    /// Nothing more will be committed.
    pub(super) fn not_erased(&mut self) {
        for (_, _, told) in self.erasures.given.drain(..) {
            told.tell(Err((Code::OutcomeUnknown, "the store failed: it may be erased or not")));
        }
    }
}
