//! Edits, recalls and reactions: from the record that they refer to, wherever it is, to what is left of it.
//!
//! A change is a publish like any other, with one step more: what it refers to is found before it is given its seq. If
//! that is neither in the ring nor on its way, the publish is parked until the store has been asked, and what its device
//! sends meanwhile waits behind it.

use bytes::Bytes;
use parlor_protocol::{
    Code, Seq,
    message::{Durability, RecordKind, TombstoneReason},
};

use super::{BUSY_RETRY_MS, Effect, State, publishing::length};
use crate::{
    channel::{
        change::{self, Change, Refusal, deliver_of},
        history::Purpose,
        orphans, parked,
    },
    members::rights::Act,
    message::Publish,
    port::{DeviceKey, Now, Rewrite, StoreError, Target},
};

/// What a publish needs before it is given a seq.
#[derive(Debug)]
pub(super) enum Prepared {
    /// Nothing: it changes no record.
    Message,
    /// What it changes is here.
    Change(Change),
    /// This record has to be read first.
    Read(Seq),
    /// It cannot be done.
    Refused(Refusal),
}

/// Where a record is.
pub(super) enum Found {
    Here(Target),
    Gone,
    InStore,
}

const GONE: Refusal = (Code::TargetGone, "the message that it refers to is not there, or no longer");

impl State {
    /// Finds what a publish changes, and whether it may.
    pub(super) fn prepare(&self, publish: &Publish, now: Now) -> Prepared {
        if publish.kind == RecordKind::MESSAGE {
            return Prepared::Message;
        }
        if publish.epoch.0 != 0 && !self.extent.has_kept(publish.epoch, publish.refers_to) {
            // What has this seq now is not what was meant.
            return Prepared::Refused(GONE);
        }
        let hidden = self.rights_of(&publish.device).and_then(|rights| self.seen_by(rights));
        if hidden.is_some_and(|seen| publish.refers_to < seen.first) {
            // What a user may not read is not there for him.
            return Prepared::Refused(GONE);
        }
        let target = match self.find(publish.refers_to) {
            Found::Here(target) => target,
            Found::Gone => return Prepared::Refused(GONE),
            Found::InStore => return Prepared::Read(publish.refers_to),
        };
        let Some(deliver) = deliver_of(&target.frame) else {
            tracing::error!(room = %self.name, seq = publish.refers_to, "a record to be changed does not read");
            return Prepared::Refused(GONE);
        };
        if orphans::is_orphan(&deliver, self.extent.first) {
            return Prepared::Refused(GONE);
        }
        // Time within the room never goes back, so a clock that was set back makes no message younger.
        let unix_ms = now.unix_ms.max(self.time);
        let may_recall = |sender: &str, age| self.may_recall(&publish.device, sender, age);
        let allowed = change::check(publish, &deliver, &target.notes, unix_ms, &self.limits, may_recall);
        if let Err(refusal) = allowed {
            return Prepared::Refused(refusal);
        }
        let (edited, expires) = (deliver.changed().edited, deliver.expires);
        let replaces = matches!(publish.kind, RecordKind::EDIT | RecordKind::RECALL) && edited != 0;
        let previous = match replaces.then(|| self.find_edit(publish.refers_to, edited)) {
            Some(Found::Here(edit)) => Some((edited, edit.frame)),
            Some(Found::InStore) => return Prepared::Read(edited),
            Some(Found::Gone) | None => None,
        };
        Prepared::Change(Change { target, previous, reacted: None, expires, leaves: TombstoneReason::RECALLED })
    }

    /// Whether a device may take back what `sender` said so long ago.
    fn may_recall(&self, device: &DeviceKey, sender: &str, age_ms: u64) -> Result<(), Refusal> {
        if self.is_moderator(device) {
            return Ok(());
        }
        if *device.user != *sender {
            return Err((Code::Forbidden, "only its sender and moderators may recall a message"));
        }
        if age_ms > self.limits.recall_window_ms {
            return Err((Code::TooLate, "the time in which the message could be recalled is over"));
        }
        Ok(())
    }

    /// Whether a device's user moderates the room.
    fn is_moderator(&self, device: &DeviceKey) -> bool {
        self.rights_of(device).is_some_and(|rights| rights.may(self.people.kind, Act::Moderate))
    }

    pub(super) fn find(&self, seq: Seq) -> Found {
        if !(self.extent.first..=self.extent.tail).contains(&seq) {
            return Found::Gone;
        }
        if let Some(target) = self.versions.newest(seq) {
            return Found::Here(target.clone());
        }
        if let Some(frame) = self.ring.frame(seq) {
            if let Some(notes) = self.ring.notes(seq) {
                return Found::Here(Target { frame, notes });
            }
            // One that was refilled says that others reacted, and not who.
            if deliver_of(&frame).is_none_or(|deliver| deliver.changed().reactions.is_empty()) {
                return Found::Here(Target { frame, notes: Bytes::new() });
            }
        }
        match self.loaded.get(&seq) {
            Some(Some(target)) => Found::Here(target.clone()),
            Some(None) => Found::Gone,
            None if self.options.durability == Durability::Memory => Found::Gone,
            None => Found::InStore,
        }
    }

    /// Finds the edit that is in a message; it may not be committed yet.
    pub(super) fn find_edit(&self, seq: Seq, edit: Seq) -> Found {
        match self.versions.edit(seq, edit) {
            Some(frame) => Found::Here(Target { frame, notes: Bytes::new() }),
            None => self.find(edit),
        }
    }

    /// A change was given its seq and its frame.
    pub(super) fn rewrite(&mut self, change: &Change, publish: &Publish, seq: Seq, frame: Bytes) {
        let edit = (publish.kind == RecordKind::EDIT).then_some(frame);
        for rewrite in change::rewrites(change, publish, seq) {
            self.turn_grown += length(&rewrite.frame) - length(change.before(rewrite.seq));
            let edit = edit.clone().filter(|_| rewrite.seq == publish.refers_to);
            self.versions.on_given(change.before(rewrite.seq), &rewrite, edit);
            self.turn_rewrites.push(rewrite);
        }
    }

    /// Changes are committed: from here on they are visible.
    pub(super) fn commit_rewrites(&mut self, rewrites: Vec<Rewrite>) {
        for rewrite in rewrites {
            self.versions.on_committed(&rewrite, self.reads.newest());
            self.ring.rewrite(rewrite.seq, rewrite.frame, rewrite.notes);
        }
        self.versions.forget(self.reads.oldest());
    }

    /// A publish waits behind those of its device that wait.
    pub(super) fn park_behind(&mut self, now: Now, publish: Publish) {
        let (room_max, device_max) = (self.limits.parked_per_room_max, self.limits.parked_per_device_max);
        if let Err(publish) = self.parked.push(publish, room_max, device_max) {
            self.refuse_for_now(now, &publish, "too many wait for a message that is to be changed");
        }
    }

    /// A change waits for a record to be read.
    pub(super) fn park(&mut self, now: Now, publish: Publish, seq: Seq) {
        let loaded = std::mem::take(&mut self.loaded);
        if self.parked.len() >= self.limits.parked_per_room_max {
            return self.refuse_for_now(now, &publish, "too many wait for messages that are to be changed");
        }
        match self.reads.target(seq, self.limits.reads_per_room_max) {
            Ok(id) => {
                self.parked.begin(publish, seq, loaded);
                self.effects.extend(id.map(|id| Effect::ReadTarget { id, seq }));
            }
            Err(_) => self.refuse_for_now(now, &publish, "too many reads of this room"),
        }
    }

    pub(super) fn on_target(&mut self, now: Now, id: u64, target: Result<Option<Target>, StoreError>) {
        let Some(Purpose::Target(seq)) = self.reads.done(id) else { return };
        if let Err(error) = &target {
            tracing::warn!(room = %self.name, seq, %error, "a record to be changed could not be read");
        }
        let target = target.ok();
        for (publishes, loaded) in self.parked.take(seq, target.as_ref()) {
            self.loaded = loaded;
            for (at, publish) in publishes.into_iter().enumerate() {
                if at == 0 && target.is_none() {
                    self.refuse_for_now(now, &publish, "the message to be changed could not be read now");
                } else {
                    self.on_publish(now, publish);
                }
                self.loaded = parked::Loaded::default();
            }
        }
        self.erase_read(now, seq, target.as_ref());
        self.versions.forget(self.reads.oldest());
    }

    /// Refuses a publish, and holds back what its device sends behind it.
    pub(super) fn refuse_for_now(&mut self, now: Now, publish: &Publish, message: &'static str) {
        let until = now.mono_ms + self.limits.hold_back_ms;
        if let Some(device) = self.devices.device(&publish.device) {
            device.hold(publish.nonce, now.mono_ms, until);
        }
        self.refuse(publish.conn, publish.request, Code::Busy, BUSY_RETRY_MS, message);
    }
}
