//! What the codecs of text protocols share.

/// The first line of `input` without its line end, and the offset after it.
pub(super) fn crlf_line(input: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr::memchr(b'\n', input)?;
    Some((&input[..end.saturating_sub(1)], end + 1))
}

/// Reads a decimal number; the caller knows that there are only digits.
pub(super) fn decimal(digits: &[u8]) -> usize {
    digits.iter().fold(0, |value, digit| value * 10 + usize::from(digit.wrapping_sub(b'0')))
}
