//! Parlor's wire protocol, version 1: frames, messages, codes. A pure codec: no I/O, no clock, no async.
//!
//! Every frame is a header of 12 bytes, little-endian and written by hand, and a body:
//!
//! ```text
//!  0        4      6       8          12                12 + len
//!  +--------+------+-------+----------+-----------------+
//!  | len    | kind | flags | request  | body            |
//!  | u32    | u16  | u16   | u32      | len bytes       |
//!  +--------+------+-------+----------+-----------------+
//! ```
//!
//! The body's fields follow one another in the encoding that `PROTOCOL.md` states byte by byte (varints, strings,
//! options, lists, enums); its last field is always a list of [`Extensions`]. `protocol/vectors/*.json` holds every
//! kind of frame as hex beside its fields.
//!
//! The layers, each in its own file: [`frame`] finds frames in a stream of bytes, [`codec`] turns bodies into messages
//! and back, [`message`] holds the messages, [`peek`] reads records in bulk, [`change`]
//! what was changed in them, [`code`] the errors and closes, [`id`] the names and numbers.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod change;
pub mod code;
pub mod codec;
pub mod error;
pub mod frame;
pub mod id;
pub mod message;
pub mod peek;
pub mod version;

pub use change::Changed;
pub use code::{Advice, Code};
pub use codec::{Body, Extensions, List, decode, encode, to_bytes};
pub use error::{DecodeError, FrameError, NameError};
pub use frame::{Frame, Header, Kind, split};
pub use id::{DeviceTag, Epoch, Name, Nonce, RoomNumber, Seq, Token, UnixMillis};
