//! MQTT 3.1.1 brokers: mosquitto and rumqttd. A room is a topic; messages go at QoS 0.

use std::{io, process::Command};

use bytes::BytesMut;

use super::{
    Event, Peer, Place, Role, Storage, absent,
    steps::{Codec, Step, Stepped},
    write_config,
};

/// Which broker.
pub(crate) enum Mqtt {
    /// Eclipse mosquitto.
    Mosquitto,
    /// rumqttd.
    Rumqttd,
}

/// Appends one packet: first byte, remaining length (below 16 KiB), then the body's parts.
fn packet(first: u8, parts: &[&[u8]], out: &mut BytesMut) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    if len < 128 {
        out.extend_from_slice(&[first, len as u8]);
    } else {
        out.extend_from_slice(&[first, len as u8 | 0x80, (len >> 7) as u8]);
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

impl Mqtt {
    fn program(&self) -> (&'static str, &'static str) {
        match self {
            Self::Mosquitto => ("MOSQUITTO", "mosquitto"),
            Self::Rumqttd => ("RUMQTTD", "rumqttd"),
        }
    }
}

impl Peer for Mqtt {
    type Session = Stepped<MqttCodec>;

    fn missing(&self, _storage: Storage) -> Option<String> {
        let (variable, name) = self.program();
        absent(variable, name)
    }

    fn server(&self, place: &Place<'_>) -> io::Result<Command> {
        let port = place.port;
        let config = match self {
            // `max_queued_messages 0` and `max_inflight_messages 0` lift the limits at which it drops.
            Self::Mosquitto => format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence false\nmax_queued_messages 0\n\
                 max_inflight_messages 0\nset_tcp_nodelay true\nlog_type error\n"
            ),
            Self::Rumqttd => format!(
                "id = 0\n[router]\nid = 0\nmax_connections = 19000\nmax_outgoing_packet_count = 200\n\
                 max_segment_size = 104857600\nmax_segment_count = 10\n\
                 [v4.1]\nname = \"v4-1\"\nlisten = \"127.0.0.1:{port}\"\nnext_connection_delay_ms = 0\n\
                 [v4.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 20480\n\
                 max_inflight_count = 500\ndynamic_filters = true\n"
            ),
        };
        let (variable, name) = self.program();
        // rumqttd knows its configuration's language by the file's ending.
        let file = if matches!(self, Self::Rumqttd) { "broker.toml" } else { "broker.conf" };
        let mut command = super::command(variable, name)?;
        command.arg("-c").arg(write_config(place.dir, file, &config)?);
        Ok(command)
    }

    fn session(&self, id: u32, role: Role) -> Option<Self::Session> {
        // Brokers do not acknowledge after storing, and keep no history.
        let (room, count) = match role {
            Role::Member { room } | Role::Newest { room, messages: 0 } => (room, 1),
            Role::Rooms { first, count } => (first, count),
            _ => return None,
        };
        let topic = |room: u32| string(&format!("r/{room}"));
        let (mut connect, mut subscribe, mut subscribed) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
        let keep_alive = 3_600u16.to_be_bytes();
        packet(0x10, &[&string("MQTT"), &[4, 2], &keep_alive, &string(&format!("c{id}"))], &mut connect);
        let filters: Vec<u8> = (room..room + count).flat_map(|room| [topic(room), vec![0]].concat()).collect();
        packet(0x82, &[&[0, 1], &filters], &mut subscribe);
        packet(0x90, &[&[0, 1], &vec![0; count as usize]], &mut subscribed);
        let steps = [Step::new(connect, [0x20, 2, 0, 0]), Step::new(subscribe, subscribed)];
        Some(Stepped::new(steps, MqttCodec { topic: topic(room) }))
    }
}

/// MQTT's packets.
pub(crate) struct MqttCodec {
    topic: Vec<u8>,
}

impl Codec for MqttCodec {
    fn decode<'a>(&mut self, input: &'a [u8], _out: &mut BytesMut) -> io::Result<Option<(usize, Event<'a>)>> {
        let (mut len, mut at) = (0usize, 1);
        loop {
            let Some(byte) = input.get(at) else { return Ok(None) };
            len |= usize::from(byte & 0x7f) << (7 * (at - 1));
            at += 1;
            if *byte < 0x80 {
                break;
            }
        }
        let Some(body) = input[at..].get(..len) else { return Ok(None) };
        let event = match input[0] >> 4 {
            // Behind its topic: at QoS 0 it has no number.
            3 => {
                let topic = body.first_chunk().map_or(usize::MAX, |len| usize::from(u16::from_be_bytes(*len)));
                let payload = topic.checked_add(2).and_then(|at| body.get(at..));
                let payload = payload.ok_or_else(|| io::Error::other("a message without a topic"))?;
                Event::Delivery { payload, sender: None }
            }
            13 => Event::Beat,
            _ => Event::Other,
        };
        Ok(Some((at + len, event)))
    }

    fn publish(&mut self, payload: &[u8], out: &mut BytesMut) {
        packet(0x30, &[&self.topic, payload], out);
    }

    fn beat(&mut self, out: &mut BytesMut) -> bool {
        packet(0xc0, &[], out);
        true
    }
}
