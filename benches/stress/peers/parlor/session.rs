//! One connection to Parlor: says hello, joins, publishes, and holds the server to what the protocol promises.

use std::{collections::HashMap, io};

use bytes::BytesMut;
use parlor_protocol::{
    Body, Code, Extensions, Header, Kind, List, RoomNumber,
    frame::HEADER_BYTES,
    message::{
        Ack, Close, ContentType, Deliver, DeviceClass, Durability, Error, Heartbeat, HeartbeatAck, Hello, Join,
        JoinFrom, Joined, Network, Publish, RecordKind, Welcome,
    },
    version::{MAGIC, VERSION},
};

use super::thin;
use crate::peers::{Event, Position, Role, Session};

/// One frame in so many is checked against the full decoder.
const FULL_CHECK_EVERY: u64 = 1_024;

/// With several rooms, so many messages go to one before the next has its turn.
const MESSAGES_PER_TURN: u64 = 20;

/// A room that the session is attached to, or will be.
#[derive(Clone, Copy, Debug, Default)]
struct Attached {
    number: u64,
    epoch: u64,
    /// The last seq that came.
    seq: u64,
    /// The nonce that was used last, and the one that was acknowledged last.
    nonce: u64,
    acked: u64,
}

/// One user on one device, in the rooms of its role.
pub(crate) struct ParlorSession {
    id: u32,
    role: Role,
    /// The rooms to join, until they are asked for.
    names: Vec<String>,
    from: JoinFrom,
    durability: Durability,
    greeted: bool,
    rooms: Vec<Attached>,
    /// Where a room stands in `rooms`, if there are several.
    places: HashMap<u64, usize>,
    /// The request that asked for the first room, and how many of the joins were answered.
    first_join: u32,
    joined: usize,
    /// The room that is published to next.
    turn: usize,
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
    /// A client that has said nothing yet. It joins the rooms called `names`, which have to be of `durability`.
    pub(super) fn new(id: u32, role: Role, names: Vec<String>, from: JoinFrom, durability: Durability) -> Self {
        Self {
            id,
            role,
            rooms: vec![Attached::default(); names.len()],
            names,
            from,
            durability,
            greeted: false,
            places: HashMap::new(),
            first_join: 0,
            joined: 0,
            turn: 0,
            requests: 0,
            frames: 0,
        }
    }

    fn request<'a, B: Body<'a>>(&mut self, body: &B, out: &mut BytesMut) {
        self.requests += 1;
        parlor_protocol::encode(self.requests, body, out);
    }

    fn join(&mut self, out: &mut BytesMut) {
        self.first_join = self.requests + 1;
        for name in std::mem::take(&mut self.names) {
            self.request(&Join { room: &name, from: self.from, extensions: Extensions::default() }, out);
        }
    }

    #[inline]
    fn room(&mut self, number: u64) -> Option<&mut Attached> {
        match &mut self.rooms[..] {
            [only] => (only.number == number).then_some(only),
            rooms => rooms.get_mut(*self.places.get(&number)?),
        }
    }

    fn joined(&mut self, request: u32, body: &[u8]) -> io::Result<Event<'static>> {
        let joined: Joined<'_> = full(body)?;
        if joined.durability != self.durability {
            return Err(broken(format_args!("joined a room that is {:?}", joined.durability)));
        }
        let place = request.wrapping_sub(self.first_join) as usize;
        let room = self.rooms.get_mut(place).filter(|room| room.number == 0);
        let room = room.ok_or_else(|| broken(format_args!("joined a room that nobody asked for: {joined:?}")))?;
        let nonce = joined.newest_nonce.unwrap_or(0);
        *room = Attached { number: joined.room.0, epoch: joined.epoch.0, seq: joined.cursor, nonce, acked: nonce };
        if let Role::Back { position, .. } = self.role
            && (position.epoch, position.seq) != (room.epoch, room.seq)
        {
            return Err(broken(format_args!("came back at {position:?} and joined as {joined:?}")));
        }
        if self.rooms.len() > 1 {
            self.places.insert(joined.room.0, place);
        }
        self.joined += 1;
        // A reader was ready before it joined: joining is its request for all that is stored.
        let ready = self.joined == self.rooms.len() && !matches!(self.role, Role::Reader);
        Ok(if ready { Event::Ready } else { Event::Other })
    }

    fn delivered<'a>(&mut self, body: &'a [u8]) -> io::Result<Event<'a>> {
        let found = thin::deliver(body).ok_or_else(|| broken("a deliver that cannot be read"))?;
        match self.room(found.room) {
            Some(room) if found.seq == room.seq + 1 => room.seq = found.seq,
            room => return Err(broken(format_args!("seq {} of room {} came behind {room:?}", found.seq, found.room))),
        }
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
        let (number, nonce) = thin::ack(body).ok_or_else(|| broken("an ack that cannot be read"))?;
        match self.room(number) {
            Some(room) if nonce == room.acked + 1 && nonce <= room.nonce => room.acked = nonce,
            room => {
                return Err(broken(format_args!("nonce {nonce} of room {number} was acknowledged behind {room:?}")));
            }
        }
        if nonce % FULL_CHECK_EVERY == 1 {
            let ack: Ack<'_> = full(body)?;
            if ack.duplicate || ack.durability != self.durability {
                return Err(broken(format_args!("not what was asked for: {ack:?}")));
            }
        }
        Ok(Event::Stored)
    }

    fn rare(&mut self, header: Header, body: &[u8], out: &mut BytesMut) -> io::Result<Event<'static>> {
        match (Kind::from_wire(header.kind), self.greeted) {
            (Some(Kind::Welcome), false) => {
                full::<Welcome<'_>>(body)?;
                self.greeted = true;
                if self.names.is_empty() || matches!(self.role, Role::Reader) {
                    return Ok(Event::Ready);
                }
                self.join(out);
                Ok(Event::Other)
            }
            (Some(Kind::Joined), true) => self.joined(header.request, body),
            (Some(Kind::HeartbeatAck), true) => full::<HeartbeatAck<'_>>(body).map(|_| Event::Beat),
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
    fn delivers(&self) -> bool {
        true
    }

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
        let header = Header::from_bytes(header);
        let end = HEADER_BYTES + header.len as usize;
        let Some(body) = input.get(HEADER_BYTES..end) else { return Ok(None) };
        const DELIVER: u16 = Kind::Deliver as u16;
        const ACK: u16 = Kind::Ack as u16;
        let event = match header.kind {
            DELIVER => self.delivered(body)?,
            ACK => self.stored(body)?,
            _ => self.rare(header, body, out)?,
        };
        Ok(Some((end, event)))
    }

    fn publish(&mut self, payload: &[u8], out: &mut BytesMut) {
        let count = self.rooms.len();
        let room = &mut self.rooms[self.turn];
        room.nonce += 1;
        if room.nonce.is_multiple_of(MESSAGES_PER_TURN) {
            self.turn = (self.turn + 1) % count;
        }
        let (room, nonce) = (RoomNumber(room.number), room.nonce);
        let publish = Publish {
            room,
            nonce,
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

    fn beat(&mut self, out: &mut BytesMut) -> bool {
        self.request(&Heartbeat { network: None, positions: List::default(), extensions: Extensions::default() }, out);
        true
    }

    fn positions(&self) -> Vec<Position> {
        self.rooms.iter().map(|room| Position { epoch: room.epoch, seq: room.seq }).collect()
    }
}
