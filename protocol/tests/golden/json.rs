//! JSON that keeps the order of fields, and every message as JSON.
//!
//! Numbers of 64 bits are decimal strings, since many languages read JSON's numbers as floats; bytes are hex.

use std::fmt::{self, Write};

use parlor_protocol::{
    Body, Code, DecodeError, DeviceTag, Epoch, Extensions, Kind, List, RoomNumber, Token, decode, message::*, to_bytes,
};

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(u32),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
    /// Written as JSON already.
    Raw(&'static str),
}

/// On one line.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{}", serde_json::Value::from(text.as_str())),
            Self::Raw(text) => f.write_str(text),
            Self::List(items) => {
                f.write_char('[')?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
                }
                f.write_char(']')
            }
            Self::Object(entries) => {
                f.write_char('{')?;
                for (at, (name, value)) in entries.iter().enumerate() {
                    write!(f, "{}\"{name}\": {value}", if at == 0 { "" } else { ", " })?;
                }
                f.write_char('}')
            }
        }
    }
}

impl Json {
    /// The same value for comparison with a parsed file.
    pub(crate) fn parsed(&self) -> serde_json::Value {
        serde_json::from_str(&self.to_string()).unwrap()
    }

    /// An entry of an object.
    #[track_caller]
    pub(crate) fn entry(&self, name: &str) -> &Self {
        let Self::Object(entries) = self else { panic!("{self} is not an object") };
        &entries.iter().find(|(key, _)| *key == name).unwrap_or_else(|| panic!("{self} has no {name:?}")).1
    }
}

pub(crate) fn text(text: impl ToString) -> Json {
    Json::Text(text.to_string())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap();
        out
    })
}

#[track_caller]
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).ok();
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    bytes.filter(|_| digits.len().is_multiple_of(2)).unwrap_or_else(|| panic!("{text:?} is not hex"))
}

/// What can be shown as JSON.
pub(crate) trait Fields {
    fn json(&self) -> Json;
}

macro_rules! plain {
    ($($type:ty: $value:ident => $json:expr;)*) => {
        $(impl Fields for $type {
            fn json(&self) -> Json {
                let $value = self;
                $json
            }
        })*
    };
}

plain! {
    bool: value => Json::Bool(*value);
    u16: value => Json::Number(u32::from(*value));
    u32: value => Json::Number(*value);
    u64: value => text(value);
    RoomNumber: value => text(value);
    Epoch: value => text(value);
    DeviceTag: value => text(value.0);
    &str: value => text(value);
    &[u8]: value => text(hex(value));
    [u8; 4]: value => text(hex(value));
    Token: value => text(hex(&value.0));
    Code: value => numbered(value.name(), value.0);
    RecordKind: value => {
        numbered(["MESSAGE", "EDIT", "RECALL", "REACTION", "MEMBERS"].get(usize::from(value.0)).copied(), value.0)
    };
    ContentType: value => numbered(["OPAQUE", "TEXT"].get(usize::from(value.0)).copied(), value.0);
    GapReason: value => numbered(
        ["EXPIRED", "TRIMMED", "LOST", "NEW_EPOCH", "ABOVE_TAIL", "NOT_YOURS"].get(usize::from(value.0)).copied(),
        value.0,
    );
    Network: value => named(value, *value as u32);
    DeviceClass: value => named(value, *value as u32);
    Durability: value => named(value, *value as u32);
    Direction: value => named(value, *value as u32);
    Access: value => named(value, *value as u32);
    Past: value => named(value, *value as u32);
    Announce: value => named(value, *value as u32);
    Role: value => named(value, *value as u32);
}

/// A number whose name may not be known.
fn numbered(name: Option<&str>, number: u16) -> Json {
    Json::Object(vec![("name", name.map_or(Json::Null, text)), ("number", number.json())])
}

/// A variant of an enum.
fn named(variant: &impl fmt::Debug, number: u32) -> Json {
    Json::Object(vec![("name", text(format!("{variant:?}"))), ("number", number.json())])
}

impl Fields for JoinFrom {
    fn json(&self) -> Json {
        let (name, number, rest) = match self {
            Self::Tail => ("Tail", 0, vec![]),
            Self::Newest(records) => ("Newest", 1, vec![("records", records.json())]),
            Self::Seq(seq) => ("Seq", 2, vec![("seq", seq.json())]),
            Self::Position(epoch, seq) => ("Position", 3, vec![("epoch", epoch.json()), ("seq", seq.json())]),
        };
        Json::Object([("name", text(name)), ("number", Json::Number(number))].into_iter().chain(rest).collect())
    }
}

impl Fields for SignalTo<'_> {
    fn json(&self) -> Json {
        let (name, number, field) = match self {
            Self::Room(room) => ("Room", 0, ("room", room.json())),
            Self::User(user) => ("User", 1, ("user", user.json())),
        };
        Json::Object(vec![("name", text(name)), ("number", Json::Number(number)), field])
    }
}

impl<T: Fields> Fields for Option<T> {
    fn json(&self) -> Json {
        self.as_ref().map_or(Json::Null, Fields::json)
    }
}

impl<T: Fields, const MAX: usize> Fields for List<T, MAX> {
    fn json(&self) -> Json {
        Json::List(self.0.iter().map(Fields::json).collect())
    }
}

impl Fields for Extensions<'_> {
    fn json(&self) -> Json {
        let entry = |(tag, bytes): &(u32, &[u8])| Json::Object(vec![("tag", tag.json()), ("bytes", bytes.json())]);
        Json::List(self.0.iter().map(entry).collect())
    }
}

macro_rules! fields {
    // The pattern has no `..`: a field that is missing here does not compile.
    ($($name:ident $(<$life:lifetime>)? { $($field:ident),* $(,)? })*) => {
        $(impl $(<$life>)? Fields for $name $(<$life>)? {
            fn json(&self) -> Json {
                let Self { $($field),* } = self;
                Json::Object(vec![$((stringify!($field), $field.json())),*])
            }
        })*
    };
}

fields! {
    Limits { payload_bytes_max, rooms_max, unanswered_requests_max, page_records_max, page_bytes_max, text_bytes_max }
    Module<'a> { name, kind_first, kind_last }
    Position { room, epoch, seq }
    PageGap { from, to, why }
    Hello<'a> {
        magic, version_min, version_max, features, user, device, device_class, network, credentials, resume, attempt,
        extensions,
    }
    Welcome<'a> {
        version, features, server_time, grant_ms, token, resumed, device_tag, limits, modules, extensions,
    }
    Goodbye<'a> { extensions }
    Close<'a> { code, retry_after_ms, message, extensions }
    Resume<'a> { positions, extensions }
    Error<'a> { code, retry_after_ms, message, extensions }
    Join<'a> { room, from, extensions }
    Joined<'a> { room, epoch, tail, first, cursor, count, read, unread, durability, newest_nonce, extensions }
    Follow<'a> { positions, newest, extensions }
    Attached<'a> {
        name, room, epoch, tail, first, cursor, count, read, unread, durability, newest_nonce, extensions,
    }
    Leave<'a> { room, extensions }
    Left<'a> { room, cursor, extensions }
    Publish<'a> {
        room, nonce, kind, refers_to, lifetime_ms, flags, content_type, payload, extensions,
    }
    Ack<'a> { room, nonce, seq, time, durability, duplicate, extensions }
    Deliver<'a> {
        room, seq, time, sender, device_tag, nonce, kind, refers_to, expires, count, content_type, payload, extensions,
    }
    Gap<'a> { room, epoch, from, to, why, extensions }
    Fetch<'a> { room, start, direction, limit, extensions }
    Page<'a> { room, epoch, tail, next, gaps, records, extensions }
    Heartbeat<'a> { network, positions, extensions }
    HeartbeatAck<'a> { server_time, grant_ms, extensions }
    Mark<'a> { room, read, extensions }
    Marked<'a> { room, read, unread, extensions }
    FetchReaders<'a> { room, seq, extensions }
    Reader<'a> { user, read, delivered }
    Readers<'a> { room, readers, extensions }
    Signal<'a> { to, key, payload, extensions }
    Signaled<'a> { room, sender, device_tag, key, payload, extensions }
    Part<'a> {
        room, nonce, number, parts, total_bytes, kind, refers_to, lifetime_ms, flags, content_type, payload, extensions,
    }
    PartTaken<'a> { room, nonce, missing, extensions }
    RoomOptions {
        durability, access, past, announce, lifetime_ms, records_max, bytes_max, payload_bytes_max,
        messages_per_second_max,
    }
    MemberEntry<'a> { user, role, added }
    RoomEntry<'a> { name, room, epoch, role, tail, count, unread, time, newest }
    Activity { time, room }
    CreateRoom<'a> { room, options, members, extensions }
    Done<'a> { extensions }
    ConfigureRoom<'a> { room, options, extensions }
    Detached<'a> { room, cursor, code, message, extensions }
    DeleteRoom<'a> { room, extensions }
    RoomInfo<'a> { name, room, epoch, options, tail, count, members, role, extensions }
    DescribeRoom<'a> { room, extensions }
    Members<'a> { members, next, extensions }
    SetMembers<'a> { room, role, users, extensions }
    Rooms<'a> { rooms, next, extensions }
    RemoveMembers<'a> { room, users, extensions }
    ListMembers<'a> { room, after, limit, extensions }
    ListRooms<'a> { before, limit, extensions }
    OpenDirect<'a> { user, extensions }
    QueryPresence<'a> { users, extensions }
    DevicePresence<'a> { device, device_class, network, connected }
    UserPresence<'a> { user, online, since, devices }
    Presence<'a> { users, extensions }
    WatchPresence<'a> { add, remove, extensions }
    WatchRoom<'a> { room, watch, extensions }
    RoomPresence<'a> { room, all, named, count, came, went, extensions }
}

/// A body as its fields, and encoded again as a frame.
pub(crate) fn read(kind: Kind, request: u32, body: &[u8]) -> Result<(Json, Vec<u8>), DecodeError> {
    fn read_as<'a, B: Body<'a> + Fields>(request: u32, body: &'a [u8]) -> Result<(Json, Vec<u8>), DecodeError> {
        let message: B = decode(body)?;
        Ok((message.json(), to_bytes(request, &message).to_vec()))
    }
    macro_rules! dispatch {
        ($($name:ident)*) => {
            match kind {
                $(Kind::$name => read_as::<$name<'_>>(request, body),)*
            }
        };
    }
    dispatch!(Hello Welcome Goodbye Close Resume Follow Attached Error Join Joined Leave Left Publish Ack Deliver Gap Fetch Page Heartbeat
        HeartbeatAck Part PartTaken Mark Marked FetchReaders Readers Signal Signaled
        CreateRoom Done ConfigureRoom Detached DeleteRoom RoomInfo DescribeRoom Members SetMembers Rooms
        RemoveMembers ListMembers ListRooms OpenDirect
        QueryPresence Presence WatchPresence WatchRoom RoomPresence)
}
