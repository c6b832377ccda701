//! Changes of messages, as the application sees them: sent like any message, applied by revision.

use bytes::Bytes;
use parlor_protocol::{
    Epoch, Seq,
    message::{ContentType, Deliver, RecordKind, Role, TombstoneReason, decode_member_changes},
};

use super::{
    Room, Sending,
    event::{Message, Outgoing},
};

/// What a record says of the changes made to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The seq of the newest change that is in it; 0 for none.
    pub revision: Seq,
    /// The seq of the newest edit that is in it; 0 for none.
    pub edited: Seq,
    /// Why nothing is left of it but its place.
    pub tombstone: Option<TombstoneReason>,
    /// Each reaction, and how many users have it.
    pub reactions: Vec<(String, u32)>,
    /// Whether it is a reaction that is taken back.
    pub removes: bool,
    /// Whether it is a silent message, which the count leaves out.
    pub silent: bool,
}

impl Changes {
    pub(super) fn of(record: &Deliver<'_>) -> Self {
        let changed = record.changed();
        Self {
            revision: changed.revision,
            edited: changed.edited,
            tombstone: changed.tombstone,
            reactions: changed.reactions.iter().map(|(reaction, count)| ((*reaction).to_owned(), *count)).collect(),
            removes: changed.removes,
            silent: changed.silent,
        }
    }
}

/// What a send changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// An edit, a recall or a reaction.
    pub kind: RecordKind,
    /// The seq of the message.
    pub refers_to: Seq,
    /// Whether a reaction is taken back.
    pub remove: bool,
    /// In which epoch that message stands: another may have its seq in a later one. Of `None` the client makes the one that
    /// it has the room in.
    pub epoch: Option<Epoch>,
}

impl Message {
    /// Whether it changes another message, which [`apply`](Self::apply) does.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.kind.is_change()
    }

    /// Whom a record of kind [`MEMBERS`](RecordKind::MEMBERS) is about, and what each is now; `None` for any other record.
    #[must_use]
    pub fn member_changes(&self) -> Option<Vec<(&str, Option<Role>)>> {
        (self.kind == RecordKind::MEMBERS).then(|| decode_member_changes(&self.payload)).flatten()
    }

    /// Applies a change to the message that it refers to, unless it is in it already. Whether anything changed.
    ///
    /// Changes come as records of their own and inside the messages that they were made to, in any order: given all of
    /// a room's changes in the order in which they come, a message held is what it is in the room.
    pub fn apply(&mut self, change: &Self) -> bool {
        if !change.is_change() || change.refers_to != self.seq || change.seq <= self.changes.revision {
            return false;
        }
        self.changes.revision = change.seq;
        if change.changes.tombstone.is_some() || self.changes.tombstone.is_some() {
            return false;
        }
        match change.kind {
            RecordKind::EDIT => {
                self.changes.edited = change.seq;
                self.content_type = change.content_type;
                self.payload = change.payload.clone();
            }
            RecordKind::RECALL => {
                let (revision, tombstone) = (change.seq, Some(TombstoneReason::RECALLED));
                self.changes = Changes { revision, tombstone, ..Changes::default() };
                self.content_type = ContentType::OPAQUE;
                self.payload = Bytes::new();
            }
            _ => self.react(change),
        }
        true
    }

    /// Takes a message that came again, in a page for instance, if there are changes in it that are not in this one.
    pub fn renew(&mut self, again: Self) -> bool {
        let newer = again.seq == self.seq && again.changes.revision > self.changes.revision;
        if newer {
            *self = again;
        }
        newer
    }

    fn react(&mut self, change: &Self) {
        let reaction = String::from_utf8_lossy(&change.payload);
        let reactions = &mut self.changes.reactions;
        match reactions.iter().position(|(known, _)| *known == reaction) {
            Some(at) if change.changes.removes => {
                reactions[at].1 = reactions[at].1.saturating_sub(1);
                reactions.retain(|(_, count)| *count > 0);
            }
            Some(at) => reactions[at].1 = reactions[at].1.saturating_add(1),
            None if change.changes.removes => {}
            None => reactions.push((reaction.into_owned(), 1)),
        }
    }
}

impl Outgoing {
    /// Another text for a message of one's own.
    #[must_use]
    pub fn edit(seq: Seq, text: impl Into<String>) -> Self {
        Self { change: change(RecordKind::EDIT, seq, false), ..Self::text(text) }
    }

    /// Takes a message back.
    #[must_use]
    pub fn recall(seq: Seq) -> Self {
        Self { change: change(RecordKind::RECALL, seq, false), ..Self::bytes(Bytes::new()) }
    }

    /// A reaction to a message: a text of 1 to 32 bytes.
    #[must_use]
    pub fn react(seq: Seq, reaction: impl Into<String>) -> Self {
        Self { change: change(RecordKind::REACTION, seq, false), ..Self::text(reaction) }
    }

    /// Takes a reaction back.
    #[must_use]
    pub fn unreact(seq: Seq, reaction: impl Into<String>) -> Self {
        Self { change: change(RecordKind::REACTION, seq, true), ..Self::text(reaction) }
    }
}

impl Room {
    /// Puts another text in place of a message of one's own. Edits, recalls and reactions are sends like any other: they
    /// resolve when they are stored, and every subscriber gets them as records, which [`Message::apply`] takes.
    pub fn edit(&self, seq: Seq, text: impl Into<String>) -> Sending {
        self.send(Outgoing::edit(seq, text))
    }

    /// Takes a message back: one's own for some minutes, as a moderator any.
    pub fn recall(&self, seq: Seq) -> Sending {
        self.send(Outgoing::recall(seq))
    }

    /// Reacts to a message, with a text of 1 to 32 bytes.
    pub fn react(&self, seq: Seq, reaction: impl Into<String>) -> Sending {
        self.send(Outgoing::react(seq, reaction))
    }

    /// Takes a reaction back.
    pub fn unreact(&self, seq: Seq, reaction: impl Into<String>) -> Sending {
        self.send(Outgoing::unreact(seq, reaction))
    }
}

#[expect(clippy::unnecessary_wraps, reason = "fills a field")]
fn change(kind: RecordKind, refers_to: Seq, remove: bool) -> Option<Change> {
    Some(Change { kind, refers_to, remove, epoch: None })
}

#[cfg(test)]
mod tests {
    use parlor_protocol::DeviceTag;

    use super::*;

    fn message(seq: Seq, payload: &'static str) -> Message {
        Message {
            seq,
            time: 1,
            sender: "ann".parse().unwrap(),
            device_tag: DeviceTag(1),
            nonce: seq,
            kind: RecordKind::MESSAGE,
            refers_to: 0,
            expires: 0,
            count: seq,
            content_type: ContentType::TEXT,
            payload: Bytes::from_static(payload.as_bytes()),
            own: false,
            changes: Changes::default(),
        }
    }

    fn change(seq: Seq, kind: RecordKind, payload: &'static str) -> Message {
        Message { kind, refers_to: 1, ..message(seq, payload) }
    }

    fn log() -> Vec<Message> {
        let mut removes = change(6, RecordKind::REACTION, "+");
        removes.changes.removes = true;
        vec![
            change(2, RecordKind::REACTION, "+"),
            change(3, RecordKind::EDIT, "two"),
            change(4, RecordKind::REACTION, "-"),
            change(5, RecordKind::REACTION, "+"),
            removes,
            change(7, RecordKind::EDIT, "three"),
        ]
    }

    #[test]
    fn a_message_is_the_same_wherever_it_is_met() {
        // The room after each change, for a client that was there from the beginning.
        let mut states = vec![message(1, "one")];
        for change in log() {
            let mut next = states.last().unwrap().clone();
            assert!(next.apply(&change));
            states.push(next);
        }
        let last = states.last().unwrap().clone();
        assert_eq!(last.changes.reactions, [("+".to_owned(), 1), ("-".to_owned(), 1)]);
        assert_eq!((&last.payload[..], last.changes.edited, last.changes.revision), (&b"three"[..], 7, 7));
        // One that reads it after any of the changes, and is then given all of them once more.
        for from in states.clone() {
            let mut met = from;
            for change in log() {
                met.apply(&change);
            }
            assert_eq!(met, last);
            // Read again in an older page it stays, in a newer one it is renewed.
            assert!(!met.renew(states[2].clone()));
            assert_eq!(met, last);
        }
        let mut old = states[1].clone();
        assert!(old.renew(states[4].clone()) && old == states[4]);
    }

    #[test]
    fn nothing_is_left_of_what_was_recalled_and_what_was_replaced_changes_nothing() {
        let mut held = message(1, "one");
        let mut replaced = change(2, RecordKind::EDIT, "");
        replaced.changes.tombstone = Some(TombstoneReason::REPLACED);
        assert!(!held.apply(&replaced));
        assert_eq!(&held.payload[..], b"one");
        assert!(!held.apply(&change(3, RecordKind::MESSAGE, "x")), "no change");
        assert!(!held.apply(&Message { refers_to: 9, ..change(3, RecordKind::EDIT, "x") }), "another's");
        assert!(held.apply(&change(4, RecordKind::RECALL, "")));
        assert!(held.payload.is_empty() && held.changes.tombstone.is_some());
        assert!(!held.apply(&change(5, RecordKind::EDIT, "x")));
        assert!(held.payload.is_empty());
    }
}
