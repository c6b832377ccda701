//! A record as far as a receiver of very many looks at it: read by hand, without making anything of the other fields.
//!
//! Takes what [`decode`] takes, and nothing else: whatever is not plain is given to it.

use crate::{
    codec::decode,
    error::DecodeError,
    frame::BODY_BYTES_MAX,
    id::{RoomNumber, Seq},
    message::Deliver,
};

/// Where a record belongs, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance<'a> {
    /// Which room.
    pub room: RoomNumber,
    /// The record's number.
    pub seq: Seq,
    /// What is said; may be empty.
    pub payload: &'a [u8],
}

/// Reads room, seq and payload from the body of a `Deliver`, several times as fast as all of it.
///
/// # Errors
/// As [`decode`] for the same bytes.
#[inline]
pub fn deliver(body: &[u8]) -> Result<Glance<'_>, DecodeError> {
    match plain(body) {
        Some(glance) => Ok(glance),
        None => whole(body),
    }
}

/// Reads the count from the body of a `Deliver`.
///
/// # Errors
/// As [`decode`] for the same bytes.
pub fn count(body: &[u8]) -> Result<u64, DecodeError> {
    decode(body).map(|Deliver { count, .. }| count)
}

/// Reads from the body of a `Deliver` how many countable records the room held before it.
///
/// # Errors
/// As [`decode`] for the same bytes.
pub fn count_before(body: &[u8]) -> Result<u64, DecodeError> {
    decode(body).map(|deliver: Deliver<'_>| deliver.count_before())
}

/// Which record a change changes, from the body of a `Deliver`; `None` of what is no change, or does not read.
#[must_use]
pub fn changes(body: &[u8]) -> Option<Seq> {
    let mut fields = Fields(body);
    fields.skip()?; // room
    fields.skip()?; // seq
    fields.skip()?; // time
    fields.bytes()?; // sender
    fields.skip()?; // device_tag
    fields.skip()?; // nonce
    if fields.0.first() == Some(&0) {
        return None; // A message.
    }
    let Deliver { kind, refers_to, .. } = decode(body).ok()?;
    kind.is_change().then_some(refers_to)
}

#[cold]
fn whole(body: &[u8]) -> Result<Glance<'_>, DecodeError> {
    let Deliver { room, seq, payload, .. } = decode(body)?;
    Ok(Glance { room, seq, payload })
}

/// Reads a body without extensions whose sender is ASCII and whose 16-bit fields are short; `None` for any other.
#[inline]
fn plain(body: &[u8]) -> Option<Glance<'_>> {
    if body.len() > BODY_BYTES_MAX as usize {
        return None;
    }
    let mut fields = Fields(body);
    let (room, seq) = (RoomNumber(fields.number()?), fields.number()?);
    fields.skip()?; // time
    if !fields.bytes()?.is_ascii() {
        return None;
    }
    fields.skip()?; // device_tag
    fields.skip()?; // nonce
    if let [0, 0, 0, rest @ ..] = fields.0 {
        fields.0 = rest; // A message that changes nothing and stays: most are.
    } else {
        fields.skip_16()?; // kind
        fields.skip()?; // refers_to
        fields.skip()?; // expires
    }
    fields.skip()?; // count
    fields.skip_16()?; // content_type
    let payload = fields.bytes()?;
    // No extensions, and nothing behind them.
    (fields.0 == [0]).then_some(Glance { room, seq, payload })
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// A number of up to 64 bits.
    #[inline(always)]
    fn number(&mut self) -> Option<u64> {
        let (&first, rest) = self.0.split_first()?;
        let (value, rest) = match first {
            0..=250 => (u64::from(first), rest),
            251 => rest.split_first_chunk().map(|(raw, rest)| (u64::from(u16::from_le_bytes(*raw)), rest))?,
            252 => rest.split_first_chunk().map(|(raw, rest)| (u64::from(u32::from_le_bytes(*raw)), rest))?,
            253 => rest.split_first_chunk().map(|(raw, rest)| (u64::from_le_bytes(*raw), rest))?,
            _ => return None,
        };
        self.0 = rest;
        Some(value)
    }

    /// Passes over a number of up to 64 bits. Written as branches, which a processor foretells, where a table of widths
    /// would have each field wait for the one before it.
    #[inline(always)]
    fn skip(&mut self) -> Option<()> {
        self.0 = match self.0 {
            [0..=250, rest @ ..] => rest,
            [253, _, _, _, _, _, _, _, _, rest @ ..] => rest,
            [252, _, _, _, _, rest @ ..] => rest,
            [251, _, _, rest @ ..] => rest,
            _ => return None,
        };
        Some(())
    }

    /// Passes over a number of up to 16 bits.
    #[inline(always)]
    fn skip_16(&mut self) -> Option<()> {
        self.0 = match self.0 {
            [0..=250, rest @ ..] => rest,
            [251, _, _, rest @ ..] => rest,
            _ => return None,
        };
        Some(())
    }

    #[inline(always)]
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }
}
