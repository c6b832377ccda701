//! Frames to messages, and records to what the application gets. The only file that knows how bytes become either.

use bytes::Bytes;
use parlor_protocol::{
    DecodeError, Frame, FrameError, Kind, Name, NameError, decode,
    frame::answer_body_max,
    message::{
        Ack, Attached, Close, Deliver, Detached, Done, Error, Gap, HeartbeatAck, Joined, Left, Marked, Members, Page,
        PartTaken, Presence, Readers, RoomInfo, RoomPresence, Rooms, Signaled, Welcome,
    },
    split,
};

use super::{
    change::Changes,
    event::{self, Message},
};

/// What a server sends.
#[derive(Debug)]
pub(super) enum Incoming<'a> {
    Welcome(Welcome<'a>),
    Close(Close<'a>),
    Error(Error<'a>),
    Joined(Joined<'a>),
    Left(Left<'a>),
    Attached(Attached<'a>),
    Detached(Detached<'a>),
    Ack(Ack<'a>),
    PartTaken(PartTaken<'a>),
    Deliver(Deliver<'a>),
    Gap(Gap<'a>),
    Page(Page<'a>),
    HeartbeatAck(HeartbeatAck<'a>),
    Marked(Marked<'a>),
    Signaled(Signaled<'a>),
    Readers(Readers<'a>),
    Done,
    RoomInfo(RoomInfo<'a>),
    Members(Members<'a>),
    Rooms(Rooms<'a>),
    Presence(Presence<'a>),
    RoomPresence(RoomPresence<'a>),
}

/// Bytes that no server of this protocol sends.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("not a name where one should be: {0}")]
    Name(#[from] NameError),
    #[error("a page ends within a record, or holds something else")]
    Page,
}

/// Reads a frame's body; `None` for kinds of modules, which a client without them skips.
pub(super) fn read<'a>(frame: &Frame<'a>) -> Result<Option<Incoming<'a>>, WireError> {
    let Frame { header, body } = *frame;
    Ok(Some(match Kind::from_wire(header.kind) {
        Some(Kind::Welcome) => Incoming::Welcome(decode(body)?),
        Some(Kind::Close) => Incoming::Close(decode(body)?),
        Some(Kind::Error) => Incoming::Error(decode(body)?),
        Some(Kind::Joined) => Incoming::Joined(decode(body)?),
        Some(Kind::Left) => Incoming::Left(decode(body)?),
        Some(Kind::Attached) => Incoming::Attached(decode(body)?),
        Some(Kind::Detached) => Incoming::Detached(decode(body)?),
        Some(Kind::Ack) => Incoming::Ack(decode(body)?),
        Some(Kind::PartTaken) => Incoming::PartTaken(decode(body)?),
        Some(Kind::Deliver) => Incoming::Deliver(decode(body)?),
        Some(Kind::Gap) => Incoming::Gap(decode(body)?),
        Some(Kind::Page) => Incoming::Page(decode(body)?),
        Some(Kind::HeartbeatAck) => Incoming::HeartbeatAck(decode(body)?),
        Some(Kind::Marked) => Incoming::Marked(decode(body)?),
        Some(Kind::Signaled) => Incoming::Signaled(decode(body)?),
        Some(Kind::Readers) => Incoming::Readers(decode(body)?),
        Some(Kind::Done) => decode::<Done<'_>>(body).map(|_| Incoming::Done)?,
        Some(Kind::RoomInfo) => Incoming::RoomInfo(decode(body)?),
        Some(Kind::Members) => Incoming::Members(decode(body)?),
        Some(Kind::Rooms) => Incoming::Rooms(decode(body)?),
        Some(Kind::Presence) => Incoming::Presence(decode(body)?),
        Some(Kind::RoomPresence) => Incoming::RoomPresence(decode(body)?),
        // `answer_body_max` lets nothing else pass than what modules send.
        _ => return Ok(None),
    }))
}

/// Calls `each` for every record of a page, oldest first.
pub(super) fn records<'a>(
    mut bytes: &'a [u8],
    mut each: impl FnMut(Deliver<'a>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    while !bytes.is_empty() {
        let frame = split(bytes, answer_body_max)?.ok_or(WireError::Page)?;
        if frame.header.kind != Kind::Deliver as u16 {
            return Err(WireError::Page);
        }
        each(decode(frame.body)?)?;
        bytes = &bytes[frame.size()..];
    }
    Ok(())
}

/// Makes messages, and remembers the names of the last few senders, so that a talk of few costs no name per message.
#[derive(Debug, Default)]
pub(super) struct Messages {
    senders: Vec<Name>,
    replace: usize,
}

/// How many names are worth comparing before making a new one.
const SENDERS_MAX: usize = 8;

impl Messages {
    pub(super) fn message(&mut self, record: &Deliver<'_>, own: bool) -> Result<Message, WireError> {
        Ok(Message {
            seq: record.seq,
            time: record.time,
            sender: self.sender(record.sender)?,
            device_tag: record.device_tag,
            nonce: record.nonce,
            kind: record.kind,
            refers_to: record.refers_to,
            expires: record.expires,
            count: record.count,
            content_type: record.content_type,
            payload: Bytes::copy_from_slice(record.payload),
            own,
            changes: Changes::of(record),
        })
    }

    /// The page as the application gets it.
    pub(super) fn page(
        &mut self,
        page: &Page<'_>,
        own: impl Fn(&Deliver<'_>) -> bool,
    ) -> Result<event::Page, WireError> {
        let mut messages = Vec::new();
        records(page.records, |record| {
            messages.push(self.message(&record, own(&record))?);
            Ok(())
        })?;
        let gaps = page.gaps.0.clone();
        Ok(event::Page { messages, gaps, next: page.next, tail: page.tail, epoch: page.epoch })
    }

    pub(super) fn sender(&mut self, name: &str) -> Result<Name, NameError> {
        if let Some(known) = self.senders.iter().find(|known| &***known == name) {
            return Ok(known.clone());
        }
        let new = Name::parse(name)?;
        if self.senders.len() < SENDERS_MAX {
            self.senders.push(new.clone());
        } else {
            self.senders[self.replace] = new.clone();
            self.replace = (self.replace + 1) % SENDERS_MAX;
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_ends_within_a_record_is_refused() {
        assert!(matches!(records(&[1, 2, 3], |_| Ok(())), Err(WireError::Page)));
        records(&[], |_| panic!("there is none")).unwrap();
    }

    #[test]
    fn names_are_shared_and_their_number_is_bounded() {
        let mut messages = Messages::default();
        for round in 0..3 {
            for sender in 0..20 {
                let name = format!("user{sender}");
                assert_eq!(&*messages.sender(&name).unwrap(), &name, "round {round}");
            }
        }
        assert_eq!(messages.senders.len(), SENDERS_MAX);
        assert!(messages.sender("").is_err());
    }
}
