//! ejabberd: XMPP multi-user chat over plain TCP with anonymous logins.

use std::{fmt::Write as _, io, process::Command};

use bytes::BytesMut;
use memchr::memmem;

use super::{
    Event, PAYLOAD, Peer, Place, Role, Storage, absent, program,
    steps::{Codec, Step, Stepped},
    write_config,
};

/// ejabberd.
pub(crate) struct Ejabberd;

const STREAM: &str = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams'>";
const AUTH: &str = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>";
const BIND: &str = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
const CONFIG: &str = "hosts: [localhost]
loglevel: error
host_config:
  localhost:
    auth_method: [anonymous]
    anonymous_protocol: sasl_anon
    allow_multiple_connections: true
access_rules:
  all_ok: [allow: all]
max_fsm_queue: 1000000
modules:
  mod_muc:
    access: all_ok
    access_create: all_ok
    access_persistent: all_ok
    history_size: 0
    max_users: 20000
    min_message_interval: 0
    min_presence_interval: 0
    default_room_options:
      max_users: 20000
      presence_broadcast: []
      persistent: false
      logging: false
";

/// Where the package keeps ejabberd's code: its `ejabberdctl` script says.
fn erlang_libraries() -> io::Result<String> {
    let script = program("EJABBERDCTL", "ejabberdctl").ok_or_else(|| io::Error::other("no ejabberdctl"))?;
    let script = std::fs::read_to_string(script)?;
    let path = script.lines().find_map(|line| line.strip_prefix("ERL_LIBS='")?.split('\'').next());
    path.map(str::to_owned).ok_or_else(|| io::Error::other("ejabberdctl names no ERL_LIBS"))
}

impl Peer for Ejabberd {
    type Session = Stepped<XmppCodec>;

    /// A body would have to be escaped.
    const ANY_SIZE: bool = false;

    fn missing(&self, _storage: Storage) -> Option<String> {
        absent("EJABBERDCTL", "ejabberdctl")
    }

    fn server(&self, place: &Place<'_>) -> io::Result<Command> {
        let dir = place.dir;
        let config = format!(
            "{CONFIG}listen:\n  - port: {}\n    ip: \"127.0.0.1\"\n    module: ejabberd_c2s\n    starttls: false\n    \
             zlib: false\n    backlog: 4096\n    shaper: none\n",
            place.port
        );
        let config = write_config(dir, "ejabberd.yml", &config)?;
        let mut command = super::command("ERL", "erl")?;
        // No node name: no distribution, so no epmd daemon to leave behind.
        command
            .args(["-noinput", "+K", "true", "+P", "500000", "-mnesia", "dir"])
            .arg(format!("{:?}", dir.join("mnesia")))
            .args(["-s", "ejabberd"])
            .env("ERL_LIBS", erlang_libraries()?)
            .env("EJABBERD_CONFIG_PATH", config)
            .env("EJABBERD_LOG_PATH", dir.join("ejabberd.log"))
            .env("ERL_CRASH_DUMP", "/dev/null")
            .env("HOME", dir)
            .current_dir(dir);
        Ok(command)
    }

    fn session(&self, id: u32, role: Role) -> Option<Self::Session> {
        let (Role::Member { room } | Role::Newest { room, messages: 0 }) = role else { return None };
        let room = format!("r{room}@conference.localhost");
        let presence = format!("<presence to='{room}/n{id}'><x xmlns='http://jabber.org/protocol/muc'/></presence>");
        let steps = [
            Step::new(format!("<?xml version='1.0'?>{STREAM}"), b"</stream:features>"),
            Step::new(AUTH, b"<success"),
            Step::new(STREAM, b"</stream:features>"),
            Step::new(BIND, b"</iq>"),
            Step::new(presence, b"<subject"),
        ];
        Some(Stepped::new(steps, XmppCodec { room }))
    }
}

/// XMPP, as far as messages go.
pub(crate) struct XmppCodec {
    room: String,
}

impl Codec for XmppCodec {
    /// Skips to the next `</message>`: everything before it is one message stanza, possibly behind others that the
    /// benchmark does not need.
    fn decode<'a>(&mut self, input: &'a [u8], _out: &mut BytesMut) -> io::Result<Option<(usize, Event<'a>)>> {
        const END: &[u8] = b"</message>";
        let Some(end) = memmem::find(input, END) else { return Ok(None) };
        let stanza = &input[..end];
        if memmem::find(stanza, b"type='error'").is_some() {
            return Err(io::Error::other(String::from_utf8_lossy(stanza).into_owned()));
        }
        let event = match memmem::find(stanza, b"<body>").and_then(|body| stanza[body + 6..].get(..PAYLOAD)) {
            Some(payload) => Event::Delivery { payload, sender: None },
            None => Event::Other,
        };
        Ok(Some((end + END.len(), event)))
    }

    fn publish(&mut self, payload: &[u8], out: &mut BytesMut) {
        // Writing to a buffer that grows cannot fail.
        let _ = write!(out, "<message to='{}' type='groupchat'><body>", self.room);
        out.extend_from_slice(payload);
        out.extend_from_slice(b"</body></message>");
    }
}
