//! One connection to Parlor: says hello, joins, publishes, and holds the server to what the protocol promises.

use std::io;

use bytes::BytesMut;
use parlor_protocol::{
    Body, Code, Extensions, Kind, RoomNumber,
    frame::HEADER_BYTES,
    message::{
        Ack, Close, ContentType, Deliver, DeviceClass, Durability, Error, Hello, Join, JoinFrom, Joined, Network,
        Publish, RecordKind, Welcome,
    },
    version::{MAGIC, VERSION},
};

use super::thin;
use crate::peers::{Event, Role, Session};

/// One frame in so many is checked against the full decoder.
const FULL_CHECK_EVERY: u64 = 1_024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    Joining,
    Joined,
}

/// One user on one device, in one room.
pub(crate) struct ParlorSession {
    id: u32,
    role: Role,
    /// The room to join; `None` for a connection that only stands by.
    name: Option<String>,
    from: JoinFrom,
    durability: Durability,
    state: State,
    room: RoomNumber,
    /// The last seq that came.
    seq: u64,
    /// The nonce that was used last, and the one that was acknowledged last.
    nonce: u64,
    acked: u64,
    requests: u32,
    frames: u64,
}

fn broken(what: impl std::fmt::Display) -> io::Error {
    io::Error::other(what.to_string())
}

fn full<'a, B: Body<'a>>(body: &'a [u8]) -> io::Result<B> {
    parlor_protocol::decode(body).map_err(broken)
}

impl ParlorSession {
    /// A client that has said nothing yet. It joins the room called `name`, if any, which has to be of `durability`.
    pub(super) fn new(id: u32, role: Role, name: Option<String>, from: JoinFrom, durability: Durability) -> Self {
        Self {
            id,
            role,
            name,
            from,
            durability,
            state: State::Greeting,
            room: RoomNumber(0),
            seq: 0,
            nonce: 0,
            acked: 0,
            requests: 0,
            frames: 0,
        }
    }

    fn request<'a, B: Body<'a>>(&mut self, body: &B, out: &mut BytesMut) {
        self.requests += 1;
        parlor_protocol::encode(self.requests, body, out);
    }

    fn join(&mut self, out: &mut BytesMut) {
        if let Some(name) = self.name.take() {
            self.state = State::Joining;
            self.request(&Join { room: &name, from: self.from, extensions: Extensions::default() }, out);
        }
    }

    fn joined(&mut self, body: &[u8]) -> io::Result<Event<'static>> {
        let joined: Joined<'_> = full(body)?;
        if joined.durability != self.durability {
            return Err(broken(format_args!("joined a room that is {:?}", joined.durability)));
        }
        (self.state, self.room, self.seq) = (State::Joined, joined.room, joined.cursor);
        // A reader was ready before it joined: joining is its request for all that is stored.
        Ok(if matches!(self.role, Role::Reader) { Event::Other } else { Event::Ready })
    }

    fn delivered<'a>(&mut self, body: &'a [u8]) -> io::Result<Event<'a>> {
        let found = thin::deliver(body).ok_or_else(|| broken("a deliver that cannot be read"))?;
        if found.room != self.room.0 || found.seq != self.seq + 1 {
            let what = format!("seq {} of room {} came behind {} of {}", found.seq, found.room, self.seq, self.room.0);
            return Err(broken(what));
        }
        self.seq = found.seq;
        let sender = number(found.sender).ok_or_else(|| broken("a sender that is no member"))?;
        self.frames += 1;
        if self.frames % FULL_CHECK_EVERY == 1 {
            let said: Deliver<'_> = full(body)?;
            let same = (said.room.0, said.seq, said.sender.as_bytes(), said.payload)
                == (found.room, found.seq, found.sender, found.payload);
            if !same || said.kind != RecordKind::MESSAGE {
                return Err(broken(format_args!("read by hand: {found:?}; in full: {said:?}")));
            }
        }
        Ok(Event::Delivery { payload: found.payload, sender: Some(sender) })
    }

    fn stored(&mut self, body: &[u8]) -> io::Result<Event<'static>> {
        let (room, nonce) = thin::ack(body).ok_or_else(|| broken("an ack that cannot be read"))?;
        if room != self.room.0 || nonce != self.acked + 1 || nonce > self.nonce {
            return Err(broken(format_args!("nonce {nonce} of room {room} was acknowledged behind {}", self.acked)));
        }
        self.acked = nonce;
        if nonce % FULL_CHECK_EVERY == 1 {
            let ack: Ack<'_> = full(body)?;
            if ack.duplicate || ack.durability != self.durability {
                return Err(broken(format_args!("not what was asked for: {ack:?}")));
            }
        }
        Ok(Event::Stored)
    }

    fn rare(&mut self, kind: u16, body: &[u8], out: &mut BytesMut) -> io::Result<Event<'static>> {
        match (Kind::from_wire(kind), self.state) {
            (Some(Kind::Welcome), State::Greeting) => {
                full::<Welcome<'_>>(body)?;
                if self.name.is_none() || matches!(self.role, Role::Reader) {
                    return Ok(Event::Ready);
                }
                self.join(out);
                Ok(Event::Other)
            }
            (Some(Kind::Joined), State::Joining) => self.joined(body),
            (Some(Kind::Error), _) => {
                let error: Error<'_> = full(body)?;
                Err(refusal(error.code, error.message))
            }
            (Some(Kind::Close), _) => {
                let close: Close<'_> = full(body)?;
                Err(refusal(close.code, close.message))
            }
            (kind, _) => Err(broken(format_args!("an unexpected frame: {kind:?}"))),
        }
    }
}

fn refusal(code: Code, message: &str) -> io::Error {
    broken(format_args!("{}: {message}", code.name().unwrap_or("refused")))
}

/// The number in a member's name.
fn number(name: &[u8]) -> Option<u32> {
    let digits = name.strip_prefix(b"m")?;
    digits.iter().try_fold(0u32, |value, digit| Some(value * 10 + u32::from(digit.checked_sub(b'0')?)))
}

impl Session for ParlorSession {
    fn start(&mut self, out: &mut BytesMut) -> bool {
        let user = format!("m{:05}", self.id);
        let device = if matches!(self.role, Role::Reader) { "reader" } else { "bench" };
        let hello = Hello {
            magic: MAGIC,
            version_min: VERSION,
            version_max: VERSION,
            features: 0,
            user: &user,
            device,
            device_class: DeviceClass::Bot,
            network: Network::Wired,
            credentials: &[],
            resume: None,
            attempt: 1,
            extensions: Extensions::default(),
        };
        self.request(&hello, out);
        false
    }

    #[inline]
    fn decode<'a>(&mut self, input: &'a [u8], out: &mut BytesMut) -> io::Result<Option<(usize, Event<'a>)>> {
        let Some(header) = input.first_chunk() else { return Ok(None) };
        let header = parlor_protocol::Header::from_bytes(header);
        let end = HEADER_BYTES + header.len as usize;
        let Some(body) = input.get(HEADER_BYTES..end) else { return Ok(None) };
        const DELIVER: u16 = Kind::Deliver as u16;
        const ACK: u16 = Kind::Ack as u16;
        let event = match header.kind {
            DELIVER => self.delivered(body)?,
            ACK => self.stored(body)?,
            kind => self.rare(kind, body, out)?,
        };
        Ok(Some((end, event)))
    }

    fn publish(&mut self, payload: &[u8], out: &mut BytesMut) {
        self.nonce += 1;
        let publish = Publish {
            room: self.room,
            nonce: self.nonce,
            kind: RecordKind::MESSAGE,
            refers_to: 0,
            lifetime_ms: None,
            flags: 0,
            content_type: ContentType::TEXT,
            payload,
            extensions: Extensions::default(),
        };
        self.request(&publish, out);
    }

    fn read_on(&mut self, _records: u64, out: &mut BytesMut) {
        self.join(out);
    }
}
