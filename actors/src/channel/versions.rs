//! Records with changes on their way: what they are to readers, and what they are to the next change.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use parlor_protocol::{Header, Seq, frame::HEADER_BYTES};

use crate::port::{Records, Rewrite, Run, Target};

/// The records that changes have been given to lately.
///
/// A change is visible once it is committed, and the store may show it sooner, or, to a read that began before, later. So
/// what a read brings of these records is replaced by what is committed. A record is kept here while a change of it is not
/// committed, and while a read is under way that may have missed the last one.
#[derive(Debug, Default)]
pub struct Versions {
    held: BTreeMap<Seq, Version>,
}

#[derive(Debug)]
struct Version {
    /// What readers may see.
    committed: Bytes,
    /// What the newest change leaves.
    newest: Target,
    /// The newest edit given: its seq and its frame.
    edit: Option<(Seq, Bytes)>,
    /// Changes that are not committed.
    pending: u32,
    /// The newest read that began before the last commit.
    missed_by: u64,
}

impl Versions {
    /// What the newest change leaves of a record, if it is held here.
    #[must_use]
    pub fn newest(&self, seq: Seq) -> Option<&Target> {
        self.held.get(&seq).map(|version| &version.newest)
    }

    /// The frame of an edit of a record, if that was the newest given lately.
    #[must_use]
    pub fn edit(&self, seq: Seq, edit: Seq) -> Option<Bytes> {
        let (held, frame) = self.held.get(&seq)?.edit.as_ref()?;
        (*held == edit).then(|| frame.clone())
    }

    /// A change was given its seq, by which a record that now is `before` is rewritten.
    pub fn on_given(&mut self, before: &Bytes, rewrite: &Rewrite, edit: Option<Bytes>) {
        let newest = Target { frame: rewrite.frame.clone(), notes: rewrite.notes.clone() };
        let version = self.held.entry(rewrite.seq).or_insert_with(|| Version {
            committed: before.clone(),
            newest: newest.clone(),
            edit: None,
            pending: 0,
            missed_by: 0,
        });
        version.pending += 1;
        version.newest = newest;
        if let Some(frame) = edit {
            version.edit = Some((rewrite.revision, frame));
        }
    }

    /// A change is committed, while reads up to `newest_read` have begun.
    pub fn on_committed(&mut self, rewrite: &Rewrite, newest_read: u64) {
        if let Some(version) = self.held.get_mut(&rewrite.seq) {
            version.committed = rewrite.frame.clone();
            version.pending = version.pending.saturating_sub(1);
            version.missed_by = newest_read;
        }
    }

    /// Lets go of what no read under way can have missed; `oldest_read` is the oldest of those.
    pub fn forget(&mut self, oldest_read: Option<u64>) {
        if !self.held.is_empty() {
            let missed = |version: &Version| oldest_read.is_some_and(|oldest| oldest <= version.missed_by);
            self.held.retain(|_, version| version.pending > 0 || missed(version));
        }
    }

    /// Puts what is committed into what a read brought.
    pub fn put_into(&self, records: &mut Records) {
        if self.held.is_empty() {
            return;
        }
        for run in &mut records.runs {
            let Run::Frames { first, last, frames } = run else { continue };
            if self.held.range(*first..=*last).next().is_none() {
                continue;
            }
            let mut whole = BytesMut::with_capacity(frames.len());
            let mut rest = &frames[..];
            for seq in *first..=*last {
                let Some(header) = rest.first_chunk() else { break };
                let size = (HEADER_BYTES + Header::from_bytes(header).len as usize).min(rest.len());
                let (frame, behind) = rest.split_at(size);
                whole.extend_from_slice(self.held.get(&seq).map_or(frame, |version| &version.committed));
                rest = behind;
            }
            *frames = whole.freeze();
        }
    }

    /// How many records are held.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.held.len()
    }
}
