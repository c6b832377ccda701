//! Frames: the header, the kinds, and how long a body may be.
//!
//! [`split`] finds the first frame of a buffer. An incomplete frame is not an error; a length that no frame of its kind
//! may have is one, and is found out from the header alone, before a byte of the body is read or stored.

use crate::error::FrameError;

/// The header's size in bytes.
pub const HEADER_BYTES: usize = 12;

/// The longest body of any frame, in bytes: a page of history.
pub const BODY_BYTES_MAX: u32 = 512 << 10;

/// The longest payload of a message, in bytes, that any server may allow.
pub const PAYLOAD_BYTES_MAX: u32 = 64 << 10;

/// What a `Publish` or `Deliver` needs besides its payload, in bytes, at most.
const ENVELOPE_BYTES_MAX: u32 = 1 << 10;

/// Kinds from here on belong to modules; a receiver skips those that it does not know.
pub const MODULE_KINDS: u16 = 0x8000;

/// A frame's first 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The body's length in bytes; the header does not count.
    pub len: u32,
    /// Which message the body holds.
    pub kind: u16,
    /// Lower byte: may be ignored when unknown. Upper byte: must be understood. Version 1 knows none.
    pub flags: u16,
    /// Chosen by the client, echoed by the answer; 0 in frames that the server sends unasked.
    pub request: u32,
}

impl Header {
    /// Reads a header; any 12 bytes are one.
    #[inline]
    #[must_use]
    pub fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [l0, l1, l2, l3, k0, k1, f0, f1, r0, r1, r2, r3] = *bytes;
        Self {
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            kind: u16::from_le_bytes([k0, k1]),
            flags: u16::from_le_bytes([f0, f1]),
            request: u32::from_le_bytes([r0, r1, r2, r3]),
        }
    }

    /// Writes the header.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let ([l0, l1, l2, l3], [k0, k1]) = (self.len.to_le_bytes(), self.kind.to_le_bytes());
        let ([f0, f1], [r0, r1, r2, r3]) = (self.flags.to_le_bytes(), self.request.to_le_bytes());
        [l0, l1, l2, l3, k0, k1, f0, f1, r0, r1, r2, r3]
    }
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal),* $(,)?) => {
        /// Which message a frame's body holds. Even kinds travel to the server, odd ones to the client.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Kind {
            $($(#[doc = $doc])* $name = $number,)*
        }

        impl Kind {
            /// Every kind of version 1.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The kind with this number, if version 1 knows it.
            #[inline]
            #[must_use]
            pub fn from_wire(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// Opens a connection.
    Hello = 0x0010,
    /// Answers `Hello`.
    Welcome = 0x0011,
    /// Ends a session.
    Goodbye = 0x0012,
    /// The server's last frame on a connection.
    Close = 0x0013,
    /// Attaches a session that was taken up again to its rooms.
    Resume = 0x0014,
    /// Answers any request that was refused.
    Error = 0x0015,
    /// Attaches the session to a room.
    Join = 0x0020,
    /// Answers `Join`.
    Joined = 0x0021,
    /// Detaches the session from a room.
    Leave = 0x0022,
    /// Answers `Leave`.
    Left = 0x0023,
    /// Attaches the session to all rooms of its user, those included that he is added to later.
    Follow = 0x0024,
    /// The session is attached to a room of its user.
    Attached = 0x0025,
    /// Moves the user's read cursor of a room.
    Mark = 0x0026,
    /// Answers `Mark`, and tells the user's other sessions.
    Marked = 0x0027,
    /// Asks who has read a record.
    FetchReaders = 0x0028,
    /// Answers `FetchReaders`.
    Readers = 0x0029,
    /// Sends a message to a room.
    Publish = 0x0030,
    /// Answers `Publish`: the message is stored.
    Ack = 0x0031,
    /// Brings a part of a long message.
    Part = 0x0032,
    /// A record of a room.
    Deliver = 0x0033,
    /// Records that will not come.
    Gap = 0x0035,
    /// Answers a `Part` that does not complete its message.
    PartTaken = 0x0037,
    /// Asks for a page of history.
    Fetch = 0x0040,
    /// Answers `Fetch`.
    Page = 0x0041,
    /// Keeps the session alive and acknowledges what was received.
    Heartbeat = 0x0050,
    /// Answers `Heartbeat` and grants the next interval.
    HeartbeatAck = 0x0051,
    /// Creates a room.
    CreateRoom = 0x0060,
    /// Answers what has nothing more to say.
    Done = 0x0061,
    /// Changes what a room is like.
    ConfigureRoom = 0x0062,
    /// The session is no longer attached to a room.
    Detached = 0x0063,
    /// Deletes a room.
    DeleteRoom = 0x0064,
    /// Answers `CreateRoom`, `DescribeRoom` and `OpenDirect`.
    RoomInfo = 0x0065,
    /// Asks what a room is like.
    DescribeRoom = 0x0066,
    /// Answers `ListMembers`.
    Members = 0x0067,
    /// Adds members, or changes their role.
    SetMembers = 0x0068,
    /// Answers `ListRooms`.
    Rooms = 0x0069,
    /// Removes members.
    RemoveMembers = 0x006a,
    /// Asks for a page of a room's members.
    ListMembers = 0x006c,
    /// Asks for a page of the asker's rooms.
    ListRooms = 0x006e,
    /// Finds or creates the room of two users.
    OpenDirect = 0x0070,
    /// Asks who of these users is online.
    QueryPresence = 0x0080,
    /// Answers `QueryPresence` and `WatchPresence`, and tells what changed of watched users.
    Presence = 0x0081,
    /// Changes which users the session is told of.
    WatchPresence = 0x0082,
    /// Has the session told who is in a room, or told no more.
    WatchRoom = 0x0084,
    /// Answers `WatchRoom`, and tells what changed.
    RoomPresence = 0x0085,
    /// Says something that is not kept.
    Signal = 0x0090,
    /// A signal of somebody.
    Signaled = 0x0091,
}

impl Kind {
    /// Whether clients send it (servers send the others).
    #[inline]
    #[must_use]
    pub fn is_request(self) -> bool {
        self as u16 & 1 == 0
    }

    /// The longest body of this kind, in bytes, where a message's payload may have `payload_bytes_max`.
    #[inline]
    #[must_use]
    pub fn body_bytes_max(self, payload_bytes_max: u32) -> u32 {
        match self {
            Self::Hello => 8 << 10,
            Self::Heartbeat | Self::Resume | Self::Follow => 64 << 10,
            Self::Readers => 128 << 10,
            Self::Publish | Self::Part | Self::Deliver => payload_bytes_max.min(PAYLOAD_BYTES_MAX) + ENVELOPE_BYTES_MAX,
            Self::CreateRoom | Self::SetMembers | Self::RemoveMembers => 72 << 10,
            Self::Members => 128 << 10,
            Self::QueryPresence => 72 << 10,
            Self::WatchPresence | Self::RoomPresence => 136 << 10,
            Self::Page | Self::Rooms | Self::Presence => BODY_BYTES_MAX,
            Self::Welcome | Self::Close | Self::Error | Self::Joined | Self::Attached => 4 << 10,
            _ => 1 << 10,
        }
    }
}

/// A whole frame at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Its body, `header.len` bytes.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of the buffer that the frame takes, header and body.
    #[inline]
    #[must_use]
    pub fn size(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }
}

/// Finds the frame at the start of `input`; `None` if more bytes are needed.
///
/// `body_bytes_max` names the longest body for a header's kind and thereby which kinds are expected at all; it is asked
/// as soon as the header is complete.
///
/// # Errors
/// If the header is one that `body_bytes_max` refuses, or its length is above what it allows.
#[inline]
pub fn split(
    input: &[u8],
    body_bytes_max: impl FnOnce(&Header) -> Result<u32, FrameError>,
) -> Result<Option<Frame<'_>>, FrameError> {
    let Some(header) = input.first_chunk() else { return Ok(None) };
    let header = Header::from_bytes(header);
    let max = body_bytes_max(&header)?;
    if header.len > max {
        return Err(FrameError::TooLarge { kind: header.kind, len: header.len, max });
    }
    let body = input[HEADER_BYTES..].get(..header.len as usize);
    Ok(body.map(|body| Frame { header, body }))
}

/// The longest body that a server reads behind `header` from a client that has said hello.
///
/// # Errors
/// If clients do not send such frames.
pub fn request_body_max(header: &Header, payload_bytes_max: u32) -> Result<u32, FrameError> {
    expected(header, |kind| kind.is_request() && kind != Kind::Hello, payload_bytes_max)
}

/// The longest body that a client reads behind `header`.
///
/// # Errors
/// If servers do not send such frames.
#[inline]
pub fn answer_body_max(header: &Header) -> Result<u32, FrameError> {
    expected(header, |kind| !kind.is_request(), PAYLOAD_BYTES_MAX)
}

#[inline]
fn expected(header: &Header, takes: impl Fn(Kind) -> bool, payload_bytes_max: u32) -> Result<u32, FrameError> {
    let Header { kind, flags, .. } = *header;
    if flags & 0xff00 != 0 {
        return Err(FrameError::UnknownFlags { kind, flags });
    }
    match Kind::from_wire(kind) {
        Some(known) if takes(known) => Ok(known.body_bytes_max(payload_bytes_max)),
        None if kind >= MODULE_KINDS => Ok(payload_bytes_max + ENVELOPE_BYTES_MAX),
        _ => Err(FrameError::UnknownKind { kind }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(len: u32, kind: u16, flags: u16) -> Header {
        Header { len, kind, flags, request: 0x0403_0201 }
    }

    #[test]
    fn a_header_is_little_endian() {
        let header = header(5, 0x0030, 1);
        assert_eq!(header.to_bytes(), [5, 0, 0, 0, 0x30, 0, 1, 0, 1, 2, 3, 4]);
        assert_eq!(Header::from_bytes(&header.to_bytes()), header);
    }

    #[test]
    fn a_frame_is_found_once_it_is_whole() {
        let mut input = header(3, 0x0030, 0).to_bytes().to_vec();
        input.extend(b"abcX");
        for cut in 0..HEADER_BYTES + 3 {
            assert_eq!(split(&input[..cut], |_| Ok(3)), Ok(None), "cut at {cut}");
        }
        let frame = split(&input, |_| Ok(3)).unwrap().unwrap();
        assert_eq!((frame.body, frame.size()), (&b"abc"[..], 15));
    }

    #[track_caller]
    fn check(header: Header, want: Result<u32, FrameError>) {
        assert_eq!(request_body_max(&header, 1_440), want);
    }

    #[test]
    fn a_server_takes_requests_and_unknown_module_kinds() {
        check(header(0, Kind::Publish as u16, 0), Ok(2_464));
        check(header(0, Kind::Publish as u16, 0x00ff), Ok(2_464));
        check(
            header(0, Kind::Publish as u16, 0x0100),
            Err(FrameError::UnknownFlags { kind: Kind::Publish as u16, flags: 0x0100 }),
        );
        check(header(0, 0x8000, 0), Ok(2_464));
        for kind in [0, 0x7fff, Kind::Hello as u16, Kind::Deliver as u16] {
            check(header(0, kind, 0), Err(FrameError::UnknownKind { kind }));
        }
    }

    #[test]
    fn a_length_is_refused_by_the_header_alone() {
        let input = header(u32::MAX, Kind::Publish as u16, 0).to_bytes();
        let want = FrameError::TooLarge { kind: Kind::Publish as u16, len: u32::MAX, max: 2_464 };
        assert_eq!(split(&input, |header| request_body_max(header, 1_440)), Err(want));
    }

    #[test]
    fn kinds_tell_their_direction() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_wire(*kind as u16), Some(*kind));
            assert!((*kind as u16) < MODULE_KINDS);
        }
        assert!(Kind::Publish.is_request() && !Kind::Deliver.is_request());
    }
}
