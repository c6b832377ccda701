//! What a record says of the changes that were made to it, as extensions of its `Deliver`.
//!
//! A change (an edit, a recall, a reaction) is a record of its own, and the record that it refers to is rewritten in the
//! same moment. So whoever reads a page sees each record as it is now, with the seq of its newest change as its
//! *revision*, and leaves out the changes up to that one.

use bytes::BytesMut;

use crate::{
    codec::{Extensions, List, put_value, value},
    id::{Epoch, Seq},
    message::{
        Deliver, REACTION_BYTES_MAX, REACTIONS_PER_RECORD_MAX, RecordKind, TAG_EDITED, TAG_EPOCH, TAG_REACTIONS,
        TAG_REMOVES, TAG_REVISION, TAG_SILENT, TAG_TOMBSTONE, TombstoneReason,
    },
};

/// What a record's extensions say of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed<'a> {
    /// The seq of the newest change made to it; 0 for none.
    pub revision: Seq,
    /// Why nothing is left of it but its place.
    pub tombstone: Option<TombstoneReason>,
    /// Each reaction with the number of users that have it.
    pub reactions: Vec<(&'a str, u32)>,
    /// Whether it is a reaction record that takes the reaction back.
    pub removes: bool,
    /// The seq of the newest edit in it; 0 for none.
    pub edited: Seq,
    /// Whether it is a silent message, which the count leaves out.
    pub silent: bool,
}

impl<'a> Changed<'a> {
    /// Reads what is known of a record's extensions. What does not read as it should is passed over, like an unknown tag.
    #[must_use]
    pub fn of(extensions: &Extensions<'a>) -> Self {
        let mut changed = Self::default();
        for (tag, bytes) in &extensions.0 {
            match *tag {
                TAG_REVISION => changed.revision = value(bytes).unwrap_or_default(),
                TAG_TOMBSTONE => changed.tombstone = value(bytes),
                TAG_REACTIONS => {
                    let list: Option<List<(&'a str, u32), REACTIONS_PER_RECORD_MAX>> = value(bytes);
                    changed.reactions = list.unwrap_or_default().0;
                }
                TAG_REMOVES => changed.removes = true,
                TAG_EDITED => changed.edited = value(bytes).unwrap_or_default(),
                TAG_SILENT => changed.silent = true,
                _ => {}
            }
        }
        changed
    }

    /// Calls `with` with the extensions that say this.
    pub fn with_extensions<T>(&self, with: impl FnOnce(Extensions<'_>) -> T) -> T {
        let mut bytes = BytesMut::new();
        let mut tags = Vec::new();
        let mut tag = |tag, bytes: &BytesMut| tags.push((tag, bytes.len()));
        if self.revision != 0 {
            put_value(&self.revision, &mut bytes);
            tag(TAG_REVISION, &bytes);
        }
        if let Some(why) = self.tombstone {
            put_value(&why, &mut bytes);
            tag(TAG_TOMBSTONE, &bytes);
        }
        if !self.reactions.is_empty() {
            put_value(&List::<_, REACTIONS_PER_RECORD_MAX>(self.reactions.clone()), &mut bytes);
            tag(TAG_REACTIONS, &bytes);
        }
        if self.removes {
            tag(TAG_REMOVES, &bytes);
        }
        if self.edited != 0 {
            put_value(&self.edited, &mut bytes);
            tag(TAG_EDITED, &bytes);
        }
        if self.silent {
            tag(TAG_SILENT, &bytes);
        }
        let mut start = 0;
        let slices = tags.into_iter().map(|(tag, end)| (tag, &bytes[std::mem::replace(&mut start, end)..end]));
        with(Extensions(slices.collect()))
    }
}

/// In which epoch the record stands that a `Publish` or a `Part` with these extensions changes; `None` if it does not say.
#[must_use]
pub fn epoch(extensions: &Extensions<'_>) -> Option<Epoch> {
    extensions.0.iter().find(|(tag, _)| *tag == TAG_EPOCH).and_then(|(_, bytes)| value(bytes)).map(Epoch)
}

/// Calls `with` with the extensions that say this.
pub fn with_epoch<T>(epoch: Option<Epoch>, with: impl FnOnce(Extensions<'_>) -> T) -> T {
    let mut bytes = BytesMut::new();
    if let Some(Epoch(epoch)) = epoch {
        put_value(&epoch, &mut bytes);
    }
    with(Extensions(if epoch.is_some() { vec![(TAG_EPOCH, &bytes[..])] } else { Vec::new() }))
}

impl RecordKind {
    /// Whether a client may publish it to change a record.
    #[must_use]
    pub fn is_change(self) -> bool {
        matches!(self, Self::EDIT | Self::RECALL | Self::REACTION)
    }
}

impl Deliver<'_> {
    /// What its extensions say of changes.
    #[must_use]
    pub fn changed(&self) -> Changed<'_> {
        Changed::of(&self.extensions)
    }

    /// Whether it raised the room's count.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.kind == RecordKind::MESSAGE && !self.extensions.0.iter().any(|(tag, _)| *tag == TAG_SILENT)
    }

    /// How many countable records the room held before it.
    #[must_use]
    pub fn count_before(&self) -> u64 {
        self.count.saturating_sub(u64::from(self.counts()))
    }

    /// Whether a change may refer to it: a message of which something is left.
    #[must_use]
    pub fn is_changeable(&self) -> bool {
        self.kind == RecordKind::MESSAGE && self.changed().tombstone.is_none()
    }
}

/// Whether bytes are a reaction: UTF-8 of 1 to [`REACTION_BYTES_MAX`] bytes.
#[must_use]
pub fn reaction(payload: &[u8]) -> Option<&str> {
    let fits = (1..=REACTION_BYTES_MAX).contains(&payload.len());
    std::str::from_utf8(payload).ok().filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::CHANGED_BYTES_MAX;

    #[test]
    fn extensions_read_as_written() {
        for changed in [
            Changed::default(),
            Changed { revision: 300, edited: 299, ..Changed::default() },
            Changed { revision: 7, tombstone: Some(TombstoneReason::RECALLED), ..Changed::default() },
            Changed { removes: true, ..Changed::default() },
            Changed { edited: 3, silent: true, ..Changed::default() },
            Changed { revision: u64::MAX, reactions: vec![("👍", 3), ("x", u32::MAX)], ..Changed::default() },
        ] {
            changed.with_extensions(|extensions| assert_eq!(Changed::of(&extensions), changed));
        }
    }

    #[test]
    fn the_largest_changed_record_fits_its_frame() {
        let names: Vec<String> = (0..16).map(|n| format!("{n:032}")).collect();
        let reactions = names.iter().map(|name| (name.as_str(), u32::MAX)).collect();
        let tombstone = Some(TombstoneReason(u16::MAX));
        let changed =
            Changed { revision: u64::MAX, tombstone, reactions, removes: true, edited: u64::MAX, silent: true };
        let bytes = changed.with_extensions(|extensions| {
            extensions.0.iter().map(|(_, value)| 1 + if value.len() > 250 { 3 } else { 1 } + value.len()).sum::<usize>()
        });
        assert!(bytes <= CHANGED_BYTES_MAX, "{bytes}");
        // What else a `Deliver` has besides its payload, each at its longest.
        let rest = 9 * 8 + 65 + 3 + 3 + 5 + 1;
        assert!(bytes + rest <= 1_024, "{bytes}");
    }

    #[test]
    fn what_does_not_read_is_passed_over() {
        let junk =
            Extensions(vec![(TAG_REVISION, b"\xfe"), (TAG_TOMBSTONE, b""), (TAG_REACTIONS, b"\x11"), (14, b"x")]);
        assert_eq!(Changed::of(&junk), Changed::default());
    }

    #[test]
    fn the_epoch_of_what_is_changed_reads_as_written() {
        for wanted in [None, Some(Epoch(0)), Some(Epoch(3)), Some(Epoch(u64::MAX))] {
            with_epoch(wanted, |extensions| assert_eq!(epoch(&extensions), wanted));
        }
        assert_eq!(epoch(&Extensions(vec![(TAG_EPOCH, b"\x03\x04")])), None);
    }

    #[test]
    fn a_reaction_is_a_short_text() {
        assert_eq!(reaction("👍".as_bytes()), Some("👍"));
        assert_eq!((reaction(b""), reaction(b"\xff"), reaction(&[b'x'; 33])), (None, None, None));
    }
}
