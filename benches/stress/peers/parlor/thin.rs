//! The two frames that a server sends in bulk, read by hand: only what the benchmark looks at, and no more checks than
//! it takes to walk over the rest. The layouts are those of `PROTOCOL.md`.

/// What the benchmark looks at in a `Deliver`.
#[derive(Debug)]
pub(super) struct Delivered<'a> {
    pub(super) room: u64,
    pub(super) seq: u64,
    pub(super) sender: &'a [u8],
    pub(super) payload: &'a [u8],
}

/// Reads a `Deliver`'s body.
pub(super) fn deliver(body: &[u8]) -> Option<Delivered<'_>> {
    let mut fields = Fields(body);
    let (room, seq) = (fields.number()?, fields.number()?);
    fields.skip()?; // time
    let sender = fields.bytes()?;
    for _ in 0..7 {
        fields.skip()?; // device_tag, nonce, kind, refers_to, expires, count, content_type
    }
    let payload = fields.bytes()?;
    (fields.0 == [0]).then_some(Delivered { room, seq, sender, payload })
}

/// Reads an `Ack`'s room and nonce.
pub(super) fn ack(body: &[u8]) -> Option<(u64, u64)> {
    let mut fields = Fields(body);
    Some((fields.number()?, fields.number()?))
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    #[inline]
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

    #[inline]
    fn skip(&mut self) -> Option<()> {
        let width = match *self.0.first()? {
            0..=250 => 1,
            251 => 3,
            252 => 5,
            253 => 9,
            _ => return None,
        };
        self.0 = self.0.get(width..)?;
        Some(())
    }

    #[inline]
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }
}
