//! Frames that are not what a sender of version 1 writes: `malformed.json` are refused, `tolerated.json` are taken.

use parlor_protocol::{
    Code, DecodeError, FrameError, Kind, code, frame,
    id::Name,
    message::{CREDENTIALS_BYTES_MAX, Hello},
    version,
};

use crate::json::{self, hex};

/// Who reads the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A server, as the first bytes of a connection.
    NewServer,
    /// A server that has said welcome.
    Server,
    /// A client.
    Client,
}

impl Reader {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NewServer => "server, first frame",
            Self::Server => "server, after the hello",
            Self::Client => "client",
        }
    }

    /// What is wrong with `input`: a reason's name and the code with which a server closes.
    pub(crate) fn judge(self, input: &[u8]) -> Result<(), (&'static str, code::Code)> {
        let by_frame = |error| match error {
            FrameError::TooLarge { .. } => ("TooLarge", Code::FrameTooLarge),
            FrameError::UnknownKind { .. } if self == Self::NewServer => ("HelloExpected", Code::HelloExpected),
            FrameError::UnknownKind { kind } if kind == Kind::Hello as u16 && self == Self::Server => {
                ("HelloExpected", Code::HelloExpected)
            }
            FrameError::UnknownKind { .. } => ("UnknownKind", Code::UnknownKind),
            FrameError::UnknownFlags { .. } => ("UnknownFlags", Code::MalformedFrame),
        };
        let by_body = |error| match error {
            DecodeError::Malformed { .. } => ("Malformed", Code::MalformedFrame),
            DecodeError::TrailingBytes { .. } => ("TrailingBytes", Code::MalformedFrame),
            DecodeError::UnknownExtension { .. } => ("UnknownExtension", Code::MalformedFrame),
        };
        let frame = frame::split(input, |header| match self {
            Self::NewServer => first_body_max(header),
            Self::Server => frame::request_body_max(header, 1_440),
            Self::Client => frame::answer_body_max(header),
        });
        let Some(frame) = frame.map_err(by_frame)? else { return Err(("Incomplete", Code::TooSlow)) };
        let Some(kind) = Kind::from_wire(frame.header.kind) else { return Ok(()) };
        if self == Self::NewServer && !frame.body.starts_with(&version::MAGIC) {
            return Err(("BadMagic", Code::BadMagic));
        }
        json::read(kind, frame.header.request, frame.body).map_err(by_body)?;
        if self == Self::NewServer { judge_hello(frame.body) } else { Ok(()) }
    }
}

/// What a server does with the first header of a connection.
fn first_body_max(header: &frame::Header) -> Result<u32, FrameError> {
    let frame::Header { kind, flags, .. } = *header;
    match Kind::from_wire(kind) {
        Some(Kind::Hello) if flags & 0xff00 != 0 => Err(FrameError::UnknownFlags { kind, flags }),
        Some(Kind::Hello) => Ok(Kind::Hello.body_bytes_max(0)),
        _ => Err(FrameError::UnknownKind { kind }),
    }
}

fn judge_hello(body: &[u8]) -> Result<(), (&'static str, code::Code)> {
    let hello: Hello<'_> = parlor_protocol::decode(body).unwrap();
    if version::choose(hello.version_min, hello.version_max).is_none() {
        return Err(("UnsupportedVersion", Code::UnsupportedVersion));
    }
    let valid = Name::parse(hello.user).is_ok()
        && Name::parse(hello.device).is_ok()
        && hello.credentials.len() <= CREDENTIALS_BYTES_MAX;
    if valid { Ok(()) } else { Err(("InvalidHello", Code::InvalidHello)) }
}

fn header(len: u32, kind: u16, flags: u16, request: u32) -> Vec<u8> {
    frame::Header { len, kind, flags, request }.to_bytes().to_vec()
}

fn framed(kind: Kind, flags: u16, body: &[u8]) -> Vec<u8> {
    [header(u32::try_from(body.len()).unwrap(), kind as u16, flags, 1), body.to_vec()].concat()
}

/// A hello's body with these parts; the rest is as short as it can be.
fn hello(versions: [u8; 2], user: &[u8], credentials: &[u8]) -> Vec<u8> {
    let lengthed = |bytes: &[u8]| match u8::try_from(bytes.len()) {
        Ok(len) if len < 251 => [&[len], bytes].concat(),
        _ => [&[251][..], &u16::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat(),
    };
    [b"PRLR", &versions[..], &[0], &lengthed(user), &lengthed(b"phone"), &[0, 0], &lengthed(credentials), &[0, 1, 0]]
        .concat()
}

/// Bytes that must be refused: a name, who reads them, the bytes, and the reason's name.
pub(crate) fn malformed() -> Vec<(&'static str, Reader, Vec<u8>, &'static str)> {
    use Reader::{Client, NewServer, Server};
    let leave = [7, 0];
    let good = hello([1, 1], b"ann", b"");
    vec![
        ("an HTTP request", NewServer, b"GET / HTTP/1.1\r\n\r\n".to_vec(), "HelloExpected"),
        ("random bytes", NewServer, json::unhex("9f3c1be077d2a4518e06c9b37a1f"), "HelloExpected"),
        ("a join before the hello", NewServer, framed(Kind::Join, 0, b"\x03tea\x00\x00"), "HelloExpected"),
        ("a module's frame before the hello", NewServer, header(0, 0x8000, 0, 1), "HelloExpected"),
        ("a hello that claims 4 GiB", NewServer, header(u32::MAX, Kind::Hello as u16, 0, 1), "TooLarge"),
        ("a hello of 8,193 bytes", NewServer, header(8_193, Kind::Hello as u16, 0, 1), "TooLarge"),
        ("a hello with a flag that must be understood", NewServer, framed(Kind::Hello, 0x0100, &good), "UnknownFlags"),
        ("a hello without the magic", NewServer, framed(Kind::Hello, 0, &[b"MQTT", &good[4..]].concat()), "BadMagic"),
        ("a hello shorter than the magic", NewServer, framed(Kind::Hello, 0, b"PRL"), "BadMagic"),
        ("a hello that ends early", NewServer, framed(Kind::Hello, 0, &good[..9]), "Malformed"),
        (
            "a hello with a byte too many",
            NewServer,
            framed(Kind::Hello, 0, &[&good[..], &[0]].concat()),
            "TrailingBytes",
        ),
        (
            "a hello for versions 2 to 9",
            NewServer,
            framed(Kind::Hello, 0, &hello([2, 9], b"ann", b"")),
            "UnsupportedVersion",
        ),
        ("a hello without a user", NewServer, framed(Kind::Hello, 0, &hello([1, 1], b"", b"")), "InvalidHello"),
        (
            "a hello whose user has a line feed",
            NewServer,
            framed(Kind::Hello, 0, &hello([1, 1], b"a\nb", b"")),
            "InvalidHello",
        ),
        (
            "a hello whose user has 65 bytes",
            NewServer,
            framed(Kind::Hello, 0, &hello([1, 1], &[b'x'; 65], b"")),
            "InvalidHello",
        ),
        ("half a hello, then silence", NewServer, framed(Kind::Hello, 0, &good)[..20].to_vec(), "Incomplete"),
        ("half a header, then silence", NewServer, header(0, Kind::Hello as u16, 0, 1)[..6].to_vec(), "Incomplete"),
        ("a second hello", Server, framed(Kind::Hello, 0, &good), "HelloExpected"),
        ("a kind that nobody knows", Server, header(0, 0x7fff, 0, 1), "UnknownKind"),
        ("kind 0", Server, header(0, 0, 0, 1), "UnknownKind"),
        ("a kind that servers send", Server, framed(Kind::Left, 0, &[7, 0, 0]), "UnknownKind"),
        ("a flag that must be understood", Server, framed(Kind::Leave, 0x8000, &leave), "UnknownFlags"),
        ("a publish that claims 4 GiB", Server, header(u32::MAX, Kind::Publish as u16, 0, 1), "TooLarge"),
        (
            "a publish of 2,465 bytes where payloads have 1,440",
            Server,
            header(2_465, Kind::Publish as u16, 0, 1),
            "TooLarge",
        ),
        ("a module's frame of 2,465 bytes", Server, header(2_465, 0x8000, 0, 1), "TooLarge"),
        ("a leave of 1,025 bytes", Server, header(1_025, Kind::Leave as u16, 0, 1), "TooLarge"),
        ("a leave without a body", Server, framed(Kind::Leave, 0, b""), "Malformed"),
        ("a leave without its extensions", Server, framed(Kind::Leave, 0, &[7]), "Malformed"),
        ("a leave with a byte too many", Server, framed(Kind::Leave, 0, &[7, 0, 0]), "TrailingBytes"),
        ("a leave with an odd extension", Server, framed(Kind::Leave, 0, &[7, 1, 3, 1, b'x']), "UnknownExtension"),
        ("a join whose room is not UTF-8", Server, framed(Kind::Join, 0, b"\x02\xc3\x28\x00\x00"), "Malformed"),
        ("a join from a fifth place", Server, framed(Kind::Join, 0, b"\x03tea\x04\x00"), "Malformed"),
        (
            "a publish whose payload claims 2^64 - 1 bytes",
            Server,
            framed(Kind::Publish, 0, &[[7, 9, 0, 0, 0, 0, 1].as_slice(), &[0xfd], &[0xff; 8], b"hi"].concat()),
            "Malformed",
        ),
        (
            "a heartbeat that claims 2^64 - 1 positions",
            Server,
            framed(Kind::Heartbeat, 0, &[[0, 0xfd].as_slice(), &[0xff; 8]].concat()),
            "Malformed",
        ),
        ("half a frame, then silence", Server, framed(Kind::Leave, 0, &leave)[..13].to_vec(), "Incomplete"),
        ("a request sent to a client", Client, framed(Kind::Leave, 0, &leave), "UnknownKind"),
        ("a page that claims 524,289 bytes", Client, header(524_289, Kind::Page as u16, 0, 1), "TooLarge"),
        ("a left with a byte too many", Client, framed(Kind::Left, 0, &[7, 0, 0, 0]), "TrailingBytes"),
        ("a left with an odd extension", Client, framed(Kind::Left, 0, &[7, 0, 1, 1, 0]), "UnknownExtension"),
        (
            "a part taken that names 65 missing ones",
            Client,
            framed(Kind::PartTaken, 0, &[&[7, 9, 65][..], &[1; 65], &[0]].concat()),
            "Malformed",
        ),
        ("an ack whose bool is 2", Client, framed(Kind::Ack, 0, &[7, 9, 1, 0, 2, 2, 0]), "Malformed"),
    ]
}

/// A name, who reads the bytes, the bytes, and the frame to which they come down (`None`: something is skipped).
type Tolerated = (&'static str, Reader, Vec<u8>, Option<Vec<u8>>);

/// Frames that must be taken.
pub(crate) fn tolerated() -> Vec<Tolerated> {
    use Reader::{Client, Server};
    let leave = framed(Kind::Leave, 0, &[7, 0]);
    let long = [0xfd, 7, 0, 0, 0, 0, 0, 0, 0, 0];
    vec![
        ("flags of the lower byte are ignored", Server, framed(Kind::Leave, 0x00ff, &[7, 0]), Some(leave.clone())),
        ("a varint longer than it need be", Server, framed(Kind::Leave, 0, &long), Some(leave)),
        ("an even extension is skipped", Client, framed(Kind::Left, 0, &[7, 42, 1, 2, 1, b'x']), None),
        ("a module's frame is skipped by a server", Server, [header(3, 0x8000, 0, 1), b"abc".to_vec()].concat(), None),
        ("a module's frame is skipped by a client", Client, [header(3, 0xffff, 0, 0), b"abc".to_vec()].concat(), None),
    ]
}

/// A malformed vector's line for messages.
pub(crate) fn show(name: &str, input: &[u8]) -> String {
    format!("{name:?} ({})", hex(input))
}
