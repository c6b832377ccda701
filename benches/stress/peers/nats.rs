//! nats-server: core subjects for fan-out, one JetStream file-storage stream for stored messages.

use std::{io, process::Command};

use bytes::BytesMut;

use super::{
    Event, PAYLOAD, Peer, Place, Role, Storage, absent,
    steps::{Codec, Step, Stepped},
    text::{crlf_line, decimal},
    write_config,
};

/// NATS.
pub(crate) struct Nats;

const CONNECT: &str = "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n";
const STREAM: &str = r#"{"name":"S","subjects":["d.0"],"storage":"file","retention":"limits"}"#;
const CONSUMER: &str = r#"{"stream_name":"S","config":{"name":"C","durable_name":"C","deliver_policy":"all","ack_policy":"none","max_waiting":10}}"#;

/// Major and minor version of the server, which says `nats-server: v2.10.1`.
fn version() -> Option<(u32, u32)> {
    let said = super::command("NATS", "nats-server").ok()?.arg("--version").output().ok()?.stdout;
    let said = String::from_utf8(said).ok()?;
    let mut numbers = said.trim().rsplit_once('v')?.1.split('.').map_while(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// Connects and subscribes.
fn hello(subscriptions: &str) -> Vec<Step> {
    let request = format!("{CONNECT}{subscriptions}PING\r\n");
    vec![Step::new("", b"\r\n"), Step::new(request, b"PONG\r\n")]
}

/// A request to JetStream's own API.
fn request(subject: &str, body: &str) -> Step {
    Step::new(format!("PUB {subject} _INBOX.s {}\r\n{body}\r\n", body.len()), b"\"config\":")
}

impl Peer for Nats {
    type Session = Stepped<NatsCodec>;

    fn missing(&self, storage: Storage) -> Option<String> {
        absent("NATS", "nats-server").or_else(|| {
            let too_old = storage == Storage::Synced && version() < Some((2, 10));
            too_old.then(|| "nats-server syncs before it acknowledges from 2.10 on only".to_owned())
        })
    }

    fn server(&self, place: &Place<'_>) -> io::Result<Command> {
        let sync = if place.storage == Storage::Synced { "sync_interval: always" } else { "" };
        let (store, port) = (place.dir.join("js"), place.port);
        let jetstream = match place.storage {
            Storage::Memory => String::new(),
            _ => format!("jetstream {{ store_dir: {store:?}\n max_file_store: 50GB\n {sync} }}\n"),
        };
        let config = format!("listen: \"127.0.0.1:{port}\"\nmax_connections: 100000\nmax_pending: 256MB\n{jetstream}");
        let mut command = super::command("NATS", "nats-server")?;
        command.arg("-c").arg(write_config(place.dir, "nats.conf", &config)?);
        Ok(command)
    }

    fn session(&self, id: u32, role: Role) -> Option<Self::Session> {
        let (steps, publish) = match role {
            Role::Member { room } | Role::Newest { room, messages: 0 } => {
                (hello(&format!("SUB r.{room} 1\r\n")), format!("PUB r.{room}"))
            }
            Role::Rooms { first, count } => {
                let subscribe = |room: u32| format!("SUB r.{room} {}\r\n", room - first + 1);
                (hello(&(first..first + count).map(subscribe).collect::<String>()), format!("PUB r.{first}"))
            }
            Role::Setup => {
                let mut steps = hello("SUB _INBOX.s 1\r\n");
                steps.push(request("$JS.API.STREAM.CREATE.S", STREAM));
                (steps, String::new())
            }
            Role::Publisher => (hello(&format!("SUB _INBOX.p{id} 2\r\n")), format!("PUB d.0 _INBOX.p{id}")),
            Role::Reader => {
                let mut steps = hello("SUB _INBOX.s 1\r\nSUB _INBOX.r 2\r\n");
                steps.push(request("$JS.API.CONSUMER.CREATE.S.C", CONSUMER));
                (steps, String::new())
            }
            Role::Newest { .. } | Role::Back { .. } => return None,
        };
        Some(Stepped::new(steps, NatsCodec { publish }))
    }
}

/// NATS' text protocol.
pub(crate) struct NatsCodec {
    /// The line in front of a payload, up to its length.
    publish: String,
}

impl Codec for NatsCodec {
    fn decode<'a>(&mut self, input: &'a [u8], out: &mut BytesMut) -> io::Result<Option<(usize, Event<'a>)>> {
        let Some((line, start)) = crlf_line(input) else { return Ok(None) };
        let refused = |text: &[u8]| io::Error::other(String::from_utf8_lossy(text).into_owned());
        match line {
            [b'M' | b'H', ..] => {
                let Some(space) = memchr::memrchr(b' ', line) else { return Err(refused(line)) };
                let len = decimal(&line[space + 1..]);
                let Some(body) = input[start..].get(..len + 2) else { return Ok(None) };
                let body = &body[..len];
                // Subjects of rooms carry nothing else; those of JetStream also its answers.
                let event = if line.starts_with(b"MSG r.") || len == PAYLOAD && line[0] == b'M' {
                    Event::Delivery { payload: body, sender: None }
                } else if line[0] == b'H' || memchr::memmem::find(body, b"\"error\"").is_some() {
                    return Err(refused(body));
                } else {
                    Event::Stored
                };
                Ok(Some((start + len + 2, event)))
            }
            b"PING" => {
                out.extend_from_slice(b"PONG\r\n");
                Ok(Some((start, Event::Other)))
            }
            b"PONG" => Ok(Some((start, Event::Beat))),
            [b'-', ..] => Err(refused(line)),
            _ => Ok(Some((start, Event::Other))),
        }
    }

    fn publish(&mut self, payload: &[u8], out: &mut BytesMut) {
        out.extend_from_slice(self.publish.as_bytes());
        out.extend_from_slice(format!(" {}\r\n", payload.len()).as_bytes());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn read_on(&mut self, records: u64, out: &mut BytesMut) {
        let body = format!("{{\"batch\":{records}}}");
        let line = format!("PUB $JS.API.CONSUMER.MSG.NEXT.S.C _INBOX.r {}\r\n{body}\r\n", body.len());
        out.extend_from_slice(line.as_bytes());
    }

    fn beat(&mut self, out: &mut BytesMut) -> bool {
        out.extend_from_slice(b"PING\r\n");
        true
    }
}
