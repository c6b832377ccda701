//! Makes what others wrote harmless to a terminal.

use std::borrow::Cow;

use parlor_protocol::message::ContentType;

/// What stands for a character that must not reach a terminal and has no picture of its own.
const REPLACEMENT: char = '\u{fffd}';

/// The text of a payload as a terminal may see it; what is no text is described.
pub(crate) fn payload(content_type: ContentType, payload: &[u8]) -> String {
    if content_type == ContentType::TEXT {
        text(&String::from_utf8_lossy(payload)).into_owned()
    } else {
        format!("[{} bytes of content type {}]", payload.len(), content_type.0)
    }
}

/// `text` without anything that a terminal would obey: escape sequences begin with a control character, and characters
/// that turn the direction of writing can make a name or a link read as another. They show as pictures, so that one sees
/// that they were there; line breaks and tabs become blanks, since a message is one line.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| harmless(c) == Some(c)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| harmless(c).unwrap_or(REPLACEMENT)).collect())
}

fn harmless(c: char) -> Option<char> {
    match c {
        '\t' | '\n' | '\r' | '\u{2028}' | '\u{2029}' => Some(' '),
        // The block of Control Pictures has the C0 controls in their order.
        '\0'..'\x20' => char::from_u32(0x2400 + u32::from(c)),
        '\x7f' => Some('\u{2421}'),
        '\u{80}'..='\u{9f}' => None,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => None,
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(dirty: &str, clean: &str) {
        assert_eq!(text(dirty), clean, "{dirty:?}");
        assert_eq!(payload(ContentType::TEXT, dirty.as_bytes()), clean);
        assert!(!text(dirty).contains(char::is_control));
    }

    #[test]
    fn nothing_that_a_terminal_obeys_passes() {
        check("plain, 添加, 👩‍👩‍👧", "plain, 添加, 👩‍👩‍👧");
        check("", "");
        check("\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇");
        check("\u{9b}31m", "\u{fffd}31m");
        check("\x02bold\x0f\x7f", "␂bold␏␡");
        check("one\r\ntwo\tthree\u{2028}four", "one  two three four");
        check("user\u{202e}txt.exe", "user\u{fffd}txt.exe");
    }

    #[test]
    fn what_is_no_text_is_described() {
        assert_eq!(payload(ContentType::TEXT, b"caf\xe9"), "caf\u{fffd}");
        assert_eq!(payload(ContentType::OPAQUE, b"\x1b[2J"), "[4 bytes of content type 0]");
    }
}
