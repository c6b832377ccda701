//! redis-server: pub/sub over RESP3 for fan-out, one stream with an append-only file for stored messages.

use std::{io, process::Command};

use bytes::BytesMut;

use super::{
    Event, PAYLOAD, Peer, Place, Role, Storage, absent,
    steps::{Codec, Step, Stepped},
    text::{crlf_line, decimal},
    write_config,
};

/// Redis.
pub(crate) struct Redis;

fn command(parts: &[&[u8]], out: &mut BytesMut) {
    out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

impl Peer for Redis {
    type Session = Stepped<RedisCodec>;

    fn missing(&self, _storage: Storage) -> Option<String> {
        absent("REDIS", "redis-server")
    }

    fn server(&self, place: &Place<'_>) -> io::Result<Command> {
        let (dir, port) = (place.dir, place.port);
        let aof = match place.storage {
            Storage::Memory => "appendonly no",
            Storage::Buffered => "appendonly yes\nappendfsync everysec",
            Storage::Synced => "appendonly yes\nappendfsync always",
        };
        let config = format!(
            "bind 127.0.0.1\nport {port}\ndir {dir:?}\nsave \"\"\n{aof}\nauto-aof-rewrite-percentage 0\nmaxclients 19000\n\
             tcp-backlog 4096\nclient-output-buffer-limit pubsub 256mb 64mb 60\n"
        );
        let mut command = super::command("REDIS", "redis-server")?;
        command.arg(write_config(dir, "redis.conf", &config)?);
        Ok(command)
    }

    fn session(&self, _id: u32, role: Role) -> Option<Self::Session> {
        let (room, count) = match role {
            Role::Member { room } | Role::Newest { room, messages: 0 } => (room, 1),
            Role::Rooms { first, count } => (first, count),
            Role::Newest { .. } | Role::Back { .. } => return None,
            Role::Setup | Role::Publisher | Role::Reader => {
                return Some(Stepped::new([], RedisCodec { topic: None, last: Vec::new() }));
            }
        };
        let topics: Vec<String> = (room..room + count).map(|room| format!("r{room}")).collect();
        let parts: Vec<&[u8]> =
            [&b"SUBSCRIBE"[..]].into_iter().chain(topics.iter().map(|topic| topic.as_bytes())).collect();
        let mut subscribe = BytesMut::new();
        command(&parts, &mut subscribe);
        // The answer for each topic says how many there are by now.
        let subscribed = format!(":{count}\r\n");
        let steps = [Step::new("HELLO 3\r\n", b"modules\r\n*0\r\n"), Step::new(subscribe, subscribed)];
        Some(Stepped::new(steps, RedisCodec { topic: topics.into_iter().next(), last: Vec::new() }))
    }
}

/// What a push carries: its kind, its topic and the message. Returns their length and the message; `None` if it is
/// incomplete.
fn push(input: &[u8]) -> io::Result<Option<(usize, &[u8])>> {
    let (mut at, mut bulk) = (0, &input[..0]);
    for part in 0..3 {
        let Some((line, start)) = crlf_line(&input[at..]) else { return Ok(None) };
        let [b'$', digits @ ..] = line else { return Err(io::Error::other("a push that carries no message")) };
        let (start, len) = (at + start, decimal(digits));
        let Some(found) = input.get(start..start + len + 2) else { return Ok(None) };
        bulk = &found[..len];
        if part == 0 && bulk != b"message" {
            return Err(io::Error::other(format!("an unexpected push: {}", String::from_utf8_lossy(bulk))));
        }
        at = start + len + 2;
    }
    Ok(Some((at, bulk)))
}

/// RESP3, token by token.
pub(crate) struct RedisCodec {
    /// The channel to publish to; `None`: the stream.
    topic: Option<String>,
    /// The stream id that was read last.
    last: Vec<u8>,
}

impl Codec for RedisCodec {
    /// A push is a message of a topic. Of a stream, a bulk string of a payload's length is a message, and one that holds
    /// `-` is an id; the rest is noise.
    fn decode<'a>(&mut self, input: &'a [u8], _out: &mut BytesMut) -> io::Result<Option<(usize, Event<'a>)>> {
        let Some((line, start)) = crlf_line(input) else { return Ok(None) };
        match line {
            [b'>', ..] => {
                let Some((len, payload)) = push(&input[start..])? else { return Ok(None) };
                Ok(Some((start + len, Event::Delivery { payload, sender: None })))
            }
            [b'$', digits @ ..] => {
                let len = decimal(digits);
                let Some(bulk) = input[start..].get(..len + 2) else { return Ok(None) };
                let event = if len == PAYLOAD {
                    Event::Delivery { payload: &bulk[..len], sender: None }
                } else if bulk.contains(&b'-') {
                    self.last.clear();
                    self.last.extend_from_slice(&bulk[..len]);
                    Event::Stored
                } else {
                    Event::Other
                };
                Ok(Some((start + len + 2, event)))
            }
            b"+PONG" => Ok(Some((start, Event::Beat))),
            [b'-', ..] => Err(io::Error::other(String::from_utf8_lossy(line).into_owned())),
            _ => Ok(Some((start, Event::Other))),
        }
    }

    fn publish(&mut self, payload: &[u8], out: &mut BytesMut) {
        match &self.topic {
            Some(topic) => command(&[b"PUBLISH", topic.as_bytes(), payload], out),
            None => command(&[b"XADD", b"s", b"*", b"d", payload], out),
        }
    }

    fn read_on(&mut self, records: u64, out: &mut BytesMut) {
        let start = if self.last.is_empty() { b"-".to_vec() } else { [b"(", &self.last[..]].concat() };
        command(&[b"XRANGE", b"s", &start, b"+", b"COUNT", records.to_string().as_bytes()], out);
    }

    fn beat(&mut self, out: &mut BytesMut) -> bool {
        out.extend_from_slice(b"PING\r\n");
        true
    }
}
