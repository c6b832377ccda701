//! A record as a person reads it. Pure.

use parlor::client;
use parlor_protocol::message::TombstoneReason;

use super::requests::word;
use crate::cli::sanitize;

/// A record of the room.
pub(crate) type Record = client::Message;

/// What a message says now.
pub(crate) fn text(record: &Record) -> String {
    match record.changes.tombstone {
        Some(TombstoneReason::ERASED) => "(erased)".to_owned(),
        Some(_) => "(recalled)".to_owned(),
        None => sanitize::payload(record.content_type, &record.payload),
    }
}

/// What became of a message: `(edited) 👍 2`.
pub(crate) fn tags(record: &Record) -> String {
    let edited = (record.changes.edited > 0).then(|| "(edited)".to_owned());
    let reactions =
        record.changes.reactions.iter().map(|(reaction, count)| format!("{} {count}", sanitize::text(reaction)));
    edited.into_iter().chain(reactions).collect::<Vec<_>>().join(" ")
}

/// What happened, if it is neither a message nor a change.
pub(crate) fn event(record: &Record) -> Option<String> {
    let changes = record.member_changes()?;
    let named = changes.iter().map(|(user, role)| format!("{user} ({})", word(*role))).collect::<Vec<_>>();
    Some(sanitize::text(&format!("{} changed members: {}", record.sender, named.join(", "))).into_owned())
}

#[cfg(test)]
pub(crate) use tests::{change, said};

#[cfg(test)]
mod tests {
    use parlor::client::{Changes, ContentType, RecordKind, Role};
    use parlor_protocol::{DeviceTag, Seq, message::encode_member_changes};

    use super::*;

    /// A message.
    pub(crate) fn said(seq: Seq, sender: &str, text: &str) -> Record {
        Record {
            seq,
            time: seq * 1_000,
            sender: sender.parse().unwrap(),
            device_tag: DeviceTag(1),
            nonce: seq,
            kind: RecordKind::MESSAGE,
            refers_to: 0,
            expires: 0,
            count: seq,
            content_type: ContentType::TEXT,
            payload: text.to_owned().into(),
            own: false,
            changes: Changes::default(),
        }
    }

    /// A change.
    pub(crate) fn change(seq: Seq, kind: RecordKind, refers_to: Seq, sender: &str, text: &str) -> Record {
        Record { kind, refers_to, ..said(seq, sender, text) }
    }

    #[test]
    fn a_message_is_shown_as_it_is_now() {
        let mut record = said(1, "ann", "one\x1b");
        assert_eq!((text(&record).as_str(), tags(&record).as_str()), ("one␛", ""));
        record.apply(&change(2, RecordKind::EDIT, 1, "ann", "two"));
        record.apply(&change(3, RecordKind::REACTION, 1, "bob", "👍"));
        record.apply(&change(4, RecordKind::REACTION, 1, "eve", "👍"));
        record.apply(&change(5, RecordKind::REACTION, 1, "eve", "\x07"));
        assert_eq!((text(&record).as_str(), tags(&record).as_str()), ("two", "(edited) 👍 2 ␇ 1"));
        record.apply(&change(6, RecordKind::RECALL, 1, "ann", ""));
        assert_eq!((text(&record).as_str(), tags(&record).as_str()), ("(recalled)", ""));
    }

    #[test]
    fn members_come_and_go() {
        let payload = encode_member_changes([("bob", Some(Role::Member)), ("eve", None)].into_iter());
        let record = Record { kind: RecordKind::MEMBERS, payload: payload.into(), ..said(1, "ann", "") };
        assert_eq!(event(&record).unwrap(), "ann changed members: bob (member), eve (gone)");
        assert_eq!(event(&said(1, "ann", "hi")), None);
    }
}
