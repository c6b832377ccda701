//! What a change makes of the record that it refers to: whether it may, and what is left. Pure.

use bytes::Bytes;
use parlor_protocol::{
    Changed, Code, Extensions, Seq, UnixMillis, decode,
    frame::HEADER_BYTES,
    message::{CHANGED_BYTES_MAX, ContentType, Deliver, REACTIONS_PER_RECORD_MAX, RecordKind, TombstoneReason},
    to_bytes,
};

use super::notes::Notes;
use crate::{
    limits::Limits,
    message::Publish,
    port::{Rewrite, Target},
};

/// Why a change is refused, for good.
pub type Refusal = (Code, &'static str);

/// A change that may be made.
#[derive(Debug)]
pub struct Change {
    /// The record, as the change before leaves it.
    pub target: Target,
    /// The edit that this change replaces or takes back: its seq and its frame.
    pub previous: Option<(Seq, Bytes)>,
    /// The message whose reaction an erased record is, with its seq: it loses that.
    pub reacted: Option<(Seq, Target)>,
    /// When the target expires; 0 for never.
    pub expires: UnixMillis,
    /// Why the target is a tombstone afterwards, if it is.
    pub leaves: TombstoneReason,
}

impl Change {
    /// What the rewritten records take, at most.
    #[must_use]
    pub fn bytes(&self, publish: &Publish) -> usize {
        let previous = self.previous.as_ref().map_or(0, |(_, frame)| frame.len() + CHANGED_BYTES_MAX);
        let reacted = self.reacted.as_ref();
        let reacted = reacted.map_or(0, |(_, it)| it.frame.len() + it.notes.len() + CHANGED_BYTES_MAX);
        let target = self.target.frame.len() + self.target.notes.len() + CHANGED_BYTES_MAX;
        target + publish.payload.len() + publish.device.user.len() + 8 + previous + reacted
    }

    /// What a record that it rewrites was before.
    #[must_use]
    pub fn before(&self, seq: Seq) -> &Bytes {
        match (&self.previous, &self.reacted) {
            (Some((previous, frame)), _) if *previous == seq => frame,
            (_, Some((reacted, target))) if *reacted == seq => &target.frame,
            _ => &self.target.frame,
        }
    }
}

/// The message in a frame of a room's log.
#[must_use]
pub fn deliver_of(frame: &[u8]) -> Option<Deliver<'_>> {
    decode(frame.get(HEADER_BYTES..)?).ok()
}

/// Whether a change may be made to a record. `may_recall` says whether the sender of the change may take this one back.
///
/// # Errors
/// Why not.
pub fn check(
    publish: &Publish,
    deliver: &Deliver<'_>,
    notes: &[u8],
    unix_ms: UnixMillis,
    limits: &Limits,
    may_recall: impl FnOnce(&str, u64) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    if deliver.expires != 0 && deliver.expires <= unix_ms {
        return Err((Code::TargetGone, "the message that it refers to has expired"));
    }
    if !deliver.is_changeable() {
        return Err((Code::NotChangeable, "what it refers to is a change itself, or was taken back"));
    }
    let age = unix_ms.saturating_sub(deliver.time);
    match publish.kind {
        RecordKind::EDIT if *publish.device.user != *deliver.sender => {
            Err((Code::Forbidden, "only its sender may edit a message"))
        }
        RecordKind::EDIT if age > limits.edit_window_ms => {
            Err((Code::TooLate, "the time in which the message could be edited is over"))
        }
        RecordKind::EDIT => Ok(()),
        RecordKind::RECALL => may_recall(deliver.sender, age),
        _ => check_reaction(publish, notes, limits),
    }
}

fn check_reaction(publish: &Publish, notes: &[u8], limits: &Limits) -> Result<(), Refusal> {
    let Some(notes) = Notes::parse(notes) else {
        return Err((Code::NotChangeable, "who has reacted to the message cannot be read"));
    };
    let (user, reaction) = (&*publish.device.user, reaction_of(publish));
    match (publish.remove, notes.has(reaction, user)) {
        (false, true) => return Err((Code::NoEffect, "the user has reacted so already")),
        (true, false) => return Err((Code::NoEffect, "the user has no such reaction to take back")),
        (true, true) => return Ok(()),
        (false, false) => {}
    }
    let different = notes.users(reaction).is_none() && notes.reactions.len() >= REACTIONS_PER_RECORD_MAX;
    let bytes = notes.bytes() + reaction.len() + user.len() + 4;
    if different || notes.len() >= limits.reactions_per_record_max || bytes > limits.reaction_notes_bytes_max {
        return Err((Code::TooManyReactions, "the message has as many reactions as it may"));
    }
    Ok(())
}

/// The records that a change rewrites, once it has its seq. [`check`] has allowed it.
#[must_use]
pub fn rewrites(change: &Change, publish: &Publish, revision: Seq) -> Vec<Rewrite> {
    let Some(mut deliver) = deliver_of(&change.target.frame) else {
        debug_assert!(false, "a target was decoded before");
        return Vec::new();
    };
    let mut changed = Changed { revision, ..Changed::of(&std::mem::take(&mut deliver.extensions)) };
    let mut notes = change.target.notes.clone();
    let mut parsed = Notes::parse(&change.target.notes).unwrap_or_default();
    match publish.kind {
        RecordKind::EDIT => {
            changed.edited = revision;
            deliver.content_type = ContentType(publish.content_type);
            deliver.payload = &publish.payload;
        }
        RecordKind::RECALL => {
            changed = Changed { silent: changed.silent, ..gone(revision, change.leaves) };
            empty(&mut deliver);
            notes = Bytes::new();
        }
        _ => {
            let (reaction, user) = (reaction_of(publish), &*publish.device.user);
            if publish.remove {
                parsed.remove(reaction, user);
            } else {
                parsed.add(reaction, user);
            }
            notes = parsed.encode().into();
            changed.reactions = counts(&parsed);
        }
    }
    let mut all = vec![rewrite(deliver, &changed, notes)];
    if let Some((_, frame)) = &change.previous
        && let Some(mut edit) = deliver_of(frame)
    {
        empty(&mut edit);
        all.push(rewrite(edit, &gone(revision, TombstoneReason::REPLACED), Bytes::new()));
    }
    if let Some((_, message)) = &change.reacted {
        all.extend(without_reaction(message, &change.target.frame, revision));
    }
    all
}

/// A message without the reaction that a record gave it.
fn without_reaction(message: &Target, reaction: &[u8], revision: Seq) -> Option<Rewrite> {
    let (mut deliver, reaction) = (deliver_of(&message.frame)?, deliver_of(reaction)?);
    let mut changed = Changed { revision, ..Changed::of(&std::mem::take(&mut deliver.extensions)) };
    let mut notes = Notes::parse(&message.notes)?;
    notes.remove(std::str::from_utf8(reaction.payload).ok()?, reaction.sender);
    let stored = notes.encode().into();
    changed.reactions = counts(&notes);
    Some(rewrite(deliver, &changed, stored))
}

/// How many users have each reaction.
fn counts<'a>(notes: &Notes<'a>) -> Vec<(&'a str, u32)> {
    // At most as many as the limit of reactions.
    let count = |users: &Vec<&str>| u32::try_from(users.len()).unwrap_or(u32::MAX);
    notes.reactions.iter().map(|(reaction, users)| (*reaction, count(users))).collect()
}

/// Whether a record that reacts to a message is among what the message's notes tell.
#[must_use]
pub fn has_reaction(message: &Target, reaction: &Deliver<'_>) -> bool {
    let known = std::str::from_utf8(reaction.payload).ok().zip(Notes::parse(&message.notes));
    known.is_some_and(|(text, notes)| notes.has(text, reaction.sender))
}

/// The reaction that a publish says; the session has found it to be text.
fn reaction_of(publish: &Publish) -> &str {
    std::str::from_utf8(&publish.payload).unwrap_or_default()
}

fn gone<'a>(revision: Seq, why: TombstoneReason) -> Changed<'a> {
    Changed { revision, tombstone: Some(why), ..Changed::default() }
}

fn empty(deliver: &mut Deliver<'_>) {
    deliver.content_type = ContentType::OPAQUE;
    deliver.payload = b"";
}

fn rewrite(mut deliver: Deliver<'_>, changed: &Changed<'_>, notes: Bytes) -> Rewrite {
    let (seq, revision) = (deliver.seq, changed.revision);
    deliver.extensions = Extensions::default();
    let frame = changed.with_extensions(|extensions| to_bytes(0, &Deliver { extensions, ..deliver }));
    Rewrite { seq, revision, frame, notes }
}
