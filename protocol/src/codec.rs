//! Bodies to bytes and back. The only file that names the encoder, so that a successor has one place to go.
//!
//! Decoding borrows: texts and payloads are slices of the frame, so that no length that a stranger claims reserves
//! memory. The two containers of the protocol, [`List`] and [`Extensions`], have limits of their own and grow as items
//! are read, never ahead of them. Nothing here recurses.

pub(crate) use bincode::{BorrowDecode, Encode};
use bincode::{
    config,
    de::BorrowDecoder,
    enc::{Encoder, write::Writer},
    error::{DecodeError as Inner, EncodeError},
};
use bytes::{Bytes, BytesMut};

use crate::{
    error::DecodeError,
    frame::{BODY_BYTES_MAX, HEADER_BYTES, Header, Kind},
};

/// The most extensions a body may carry.
pub const EXTENSIONS_MAX: usize = 16;

/// What the decoder may claim for one body. Bodies borrow, so this bounds lengths read from the wire, not memory.
const CLAIM_BYTES_MAX: usize = 4 * BODY_BYTES_MAX as usize;

/// What most bodies take, apart from texts and payloads.
const BODY_BYTES_USUAL: usize = 64;

/// A message that travels as a frame's body.
pub trait Body<'a>: Encode + BorrowDecode<'a, ()> {
    /// The kind of the frame that carries it.
    const KIND: Kind;

    /// Its last field.
    fn extensions(&self) -> &Extensions<'a>;
}

/// Appends a frame with this message to `out`.
///
/// `request` is the number that a client chose for its request, echoed in the answer; 0 for what nobody asked for.
///
/// # Panics
/// Never for bodies below 4 GiB, which all are: every part of a body has a limit.
pub fn encode<'a, B: Body<'a>>(request: u32, body: &B, out: &mut BytesMut) {
    let start = out.len();
    // Once for most bodies, and not for each field; who knows that one is larger makes room before.
    out.reserve(HEADER_BYTES + BODY_BYTES_USUAL);
    out.extend_from_slice(&[0; HEADER_BYTES]);
    let encoded = bincode::encode_into_writer(body, Sink(out), config::standard());
    debug_assert!(encoded.is_ok(), "a buffer that grows refuses nothing");
    #[expect(clippy::cast_possible_truncation, reason = "every part of a body has a limit far below 4 GiB")]
    let len = (out.len() - start - HEADER_BYTES) as u32;
    let header = Header { len, kind: B::KIND as u16, flags: 0, request };
    out[start..start + HEADER_BYTES].copy_from_slice(&header.to_bytes());
}

/// A frame with this message, as bytes of its own.
#[must_use]
pub fn to_bytes<'a, B: Body<'a>>(request: u32, body: &B) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    encode(request, body, &mut out);
    out.freeze()
}

/// Reads a message from a frame's body. Texts and payloads borrow from it.
///
/// # Errors
/// If the bytes are not such a message, or do not end with it, or demand an extension that is not known.
pub fn decode<'a, B: Body<'a>>(body: &'a [u8]) -> Result<B, DecodeError> {
    let kind = B::KIND;
    let config = config::standard().with_limit::<CLAIM_BYTES_MAX>();
    let (message, used) = bincode::borrow_decode_from_slice::<B, _>(body, config)
        .map_err(|error| DecodeError::Malformed { kind, what: error.to_string() })?;
    if used != body.len() {
        return Err(DecodeError::TrailingBytes { kind, extra: body.len() - used });
    }
    // Version 1 knows even extensions only, so every odd tag is an unknown one.
    match message.extensions().0.iter().find(|(tag, _)| tag % 2 == 1) {
        Some(&(tag, _)) => Err(DecodeError::UnknownExtension { kind, tag }),
        None => Ok(message),
    }
}

/// Appends one value, as it stands in a body.
pub(crate) fn put_value<T: Encode>(value: &T, out: &mut BytesMut) {
    let written = bincode::encode_into_writer(value, Sink(out), config::standard());
    debug_assert!(written.is_ok(), "a buffer that grows refuses nothing");
}

/// Reads bytes that are one value and nothing else.
pub(crate) fn value<'a, T: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Option<T> {
    let config = config::standard().with_limit::<CLAIM_BYTES_MAX>();
    let (value, used) = bincode::borrow_decode_from_slice(bytes, config).ok()?;
    (used == bytes.len()).then_some(value)
}

struct Sink<'a>(&'a mut BytesMut);

impl Writer for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// A body's last field: what later versions add, as tags and bytes.
///
/// A receiver skips unknown even tags and refuses unknown odd ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions<'a>(pub Vec<(u32, &'a [u8])>);

impl Encode for Extensions<'_> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        debug_assert!(self.0.len() <= EXTENSIONS_MAX, "extensions that no receiver would take");
        (self.0.len() as u64).encode(encoder)?;
        self.0.iter().try_for_each(|entry| entry.encode(encoder))
    }
}

impl<'de, C> BorrowDecode<'de, C> for Extensions<'de> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, Inner> {
        items::<(u32, &'de [u8]), D>(decoder, EXTENSIONS_MAX).map(Self)
    }
}

/// A list of at most `MAX` items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T, const MAX: usize>(pub Vec<T>);

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Encode, const MAX: usize> Encode for List<T, MAX> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        debug_assert!(self.0.len() <= MAX, "a list that no receiver would take");
        (self.0.len() as u64).encode(encoder)?;
        self.0.iter().try_for_each(|item| item.encode(encoder))
    }
}

impl<'de, C, T: BorrowDecode<'de, C>, const MAX: usize> BorrowDecode<'de, C> for List<T, MAX> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, Inner> {
        items::<T, D>(decoder, MAX).map(Self)
    }
}

fn items<'de, T, D>(decoder: &mut D, max: usize) -> Result<Vec<T>, Inner>
where
    D: BorrowDecoder<'de>,
    T: BorrowDecode<'de, D::Context>,
{
    let len = <u64 as bincode::Decode<D::Context>>::decode(decoder)?;
    if len > max as u64 {
        return Err(Inner::OtherString(format!("a list claims {len} items, at most {max} are allowed")));
    }
    let mut items = Vec::new();
    for _ in 0..len {
        // What an item takes in memory is not what it takes on the wire; only the latter was claimed.
        items.push(T::borrow_decode(decoder)?);
    }
    Ok(items)
}
