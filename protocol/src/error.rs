//! What can be wrong with bytes, in the order in which it is found out.

use crate::{frame::Kind, id::NAME_BYTES_MAX};

/// A stream of bytes that is not a stream of frames. The connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header claims a body longer than its kind may have here.
    #[error("frame of kind {kind:#06x} claims a body of {len} bytes, at most {max} are allowed")]
    TooLarge {
        /// The header's kind.
        kind: u16,
        /// The body's length by the header.
        len: u32,
        /// The longest body allowed for this kind at this point of the connection.
        max: u32,
    },
    /// A kind below `0x8000` that this version does not know, or one that travels the other way.
    #[error("frame of kind {kind:#06x} is not one that this side receives")]
    UnknownKind {
        /// The header's kind.
        kind: u16,
    },
    /// A flag of the upper byte, which must be understood, is set.
    #[error("frame of kind {kind:#06x} has flags {flags:#06x}, of which the upper byte must be 0 in version 1")]
    UnknownFlags {
        /// The header's kind.
        kind: u16,
        /// The header's flags.
        flags: u16,
    },
}

/// A body that is not what its kind says. The connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The fields do not fit the bytes.
    #[error("body of {kind:?} does not decode: {what}")]
    Malformed {
        /// The frame's kind.
        kind: Kind,
        /// What the decoder stumbled over.
        what: String,
    },
    /// Bytes are left over behind the last field.
    #[error("body of {kind:?} has {extra} bytes behind its last field")]
    TrailingBytes {
        /// The frame's kind.
        kind: Kind,
        /// How many bytes are left over.
        extra: usize,
    },
    /// An extension with an odd tag, which must be understood, is not known here.
    #[error("body of {kind:?} has the extension {tag}, which is odd, must be understood, and is unknown here")]
    UnknownExtension {
        /// The frame's kind.
        kind: Kind,
        /// The extension's tag.
        tag: u32,
    },
}

/// Text that is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No text at all.
    #[error("a name must not be empty: 1 to {NAME_BYTES_MAX} bytes of UTF-8 are allowed")]
    Empty,
    /// Too much text.
    #[error("the name has {bytes} bytes: 1 to {NAME_BYTES_MAX} bytes of UTF-8 are allowed")]
    TooLong {
        /// The text's length.
        bytes: usize,
    },
    /// A character such as a line feed.
    #[error("the name has a control character at byte {at}: none is allowed")]
    ControlCharacter {
        /// Where it begins.
        at: usize,
    },
}
