//! IRC logs, line by line. Pure.

use parlor_protocol::{Name, NameError, id::NAME_BYTES_MAX};

/// How many minutes a day has.
pub(crate) const MINUTES_PER_DAY: u16 = 24 * 60;

/// What a line of a log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// `[HH:MM] <nick> text`.
    Said {
        /// Minutes since midnight.
        minute: u16,
        /// Who.
        nick: &'a str,
        /// What; may be empty.
        text: &'a str,
    },
    /// `=== nick has joined #channel`.
    Joined {
        /// Who.
        nick: &'a str,
    },
    /// `=== nick has left #channel`, with or without a reason behind it.
    Left {
        /// Who.
        nick: &'a str,
    },
    /// `=== old is now known as new`.
    Renamed {
        /// The nick before.
        old: &'a str,
        /// The nick from here on.
        new: &'a str,
    },
    /// Anything else: actions, notices, topics.
    Other,
}

/// Reads one line, without its line end.
pub(crate) fn parse(line: &str) -> Line<'_> {
    match line.strip_prefix("===") {
        Some(notice) => parse_notice(notice),
        None => parse_said(line).unwrap_or(Line::Other),
    }
}

fn parse_said(line: &str) -> Option<Line<'_>> {
    let (clock, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let (hours, minutes) = clock.split_once(':')?;
    let minute = two_digits(hours, 24)? * 60 + two_digits(minutes, 60)?;
    let (nick, text) = rest.strip_prefix('<')?.split_once('>')?;
    // One blank parts the nick from the text; any further one is the text's own.
    Some(Line::Said { minute, nick: nick.trim(), text: text.strip_prefix(' ').unwrap_or(text) })
}

fn two_digits(text: &str, below: u16) -> Option<u16> {
    let number = match text.as_bytes() {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => u16::from(tens - b'0') * 10 + u16::from(ones - b'0'),
        _ => return None,
    };
    (number < below).then_some(number)
}

/// A notice, an action or whatever else follows `===`. Actions may read nearly like notices ("has joined the dark side"),
/// so a notice must name a channel.
fn parse_notice(notice: &str) -> Line<'_> {
    if let Some((nick, channel)) = notice.split_once(" has joined #")
        && !nick.trim().is_empty()
        && !channel.trim_end().contains(' ')
    {
        return Line::Joined { nick: nick.trim() };
    }
    if let Some((nick, channel)) = notice.split_once(" has left #")
        && !nick.trim().is_empty()
        && channel.trim_end().split_once(' ').is_none_or(|(_, reason)| reason.trim_start().starts_with('['))
    {
        return Line::Left { nick: nick.trim() };
    }
    if let Some((old, new)) = notice.split_once(" is now known as ")
        && !old.trim().is_empty()
        && !new.trim().is_empty()
    {
        return Line::Renamed { old: old.trim(), new: new.trim() };
    }
    Line::Other
}

/// `text` as a name of Parlor: itself if it is one, else one made from it, the same at every time.
///
/// # Errors
/// Never in practice: what is made is short and printable.
pub(crate) fn name_of(text: &str) -> Result<Name, NameError> {
    Name::parse(text).or_else(|_| {
        let hash = format!("~{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
        let mut made: String = text.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
        made.truncate(made.floor_char_boundary(NAME_BYTES_MAX - hash.len()));
        Name::parse(&(made + &hash))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, want: Line<'_>) {
        assert_eq!(parse(line), want, "{line:?}");
    }

    fn said<'a>(minute: u16, nick: &'a str, text: &'a str) -> Line<'a> {
        Line::Said { minute, nick, text }
    }

    #[test]
    fn messages() {
        check("[09:14] <crimsun> no: -k7* works", said(554, "crimsun", "no: -k7* works"));
        check("[00:00] <a> x", said(0, "a", "x"));
        check("[23:59] <a> x", said(1439, "a", "x"));
        check("[11:14] <zcat[1] > jadewolf: hi", said(674, "zcat[1]", "jadewolf: hi"));
        check("[02:18] <[Nige] > hi all", said(138, "[Nige]", "hi all"));
        check("[00:16] <star[2] > Jack> I have", said(16, "star[2]", "Jack> I have"));
        check("[09:15] <|QuaD-> totem xine", said(555, "|QuaD-", "totem xine"));
        check("[09:43] <drcode>", said(583, "drcode", ""));
        check("[09:43] <drcode> ", said(583, "drcode", ""));
        check("[09:43] <drcode>   two more ", said(583, "drcode", "  two more "));
        check("[09:43] <a> \x02bold\x0f", said(583, "a", "\x02bold\x0f"));
        check("[09:43] <> nobody", said(583, "", "nobody"));
    }

    #[test]
    fn joins_leaves_and_renames() {
        check("=== L0sT  has joined #ubuntu", Line::Joined { nick: "L0sT" });
        check("=== [gijoe]   has joined #Ubuntu", Line::Joined { nick: "[gijoe]" });
        check("=== [cc] smart [n=x]  has joined #ubuntu ", Line::Joined { nick: "[cc] smart [n=x]" });
        check("=== sivang  has left #ubuntu [\"Leaving\"]", Line::Left { nick: "sivang" });
        check("=== alka  has left #ubuntu [] ", Line::Left { nick: "alka" });
        check("=== alka has left #ubuntu", Line::Left { nick: "alka" });
        check("=== sid77 is now known as sid77_", Line::Renamed { old: "sid77", new: "sid77_" });
    }

    #[test]
    fn other_lines_are_told_apart() {
        for line in [
            "",
            "===",
            "=== sid77 hi",
            "=== ann has joined the dark side",
            "=== ann has joined #debian instead",
            "=== ann has left #ubuntu for good",
            "===  has joined #ubuntu",
            "=== mode/#ubuntu [+o ann]  by ChanServ",
            "[17:13]  * eagle-101 wonders",
            "[05:12] -spam:#ubuntu- hi",
            "[24:00] <a> x",
            "[12:60] <a> x",
            "[1:00] <a> x",
            "[+1:00] <a> x",
            "[12:00] <a",
            "[12:00]<a> x",
            "12:00 <a> x",
        ] {
            check(line, Line::Other);
        }
    }

    #[test]
    fn every_nick_becomes_a_name() {
        assert_eq!(&*name_of("zcat[1]").unwrap(), "zcat[1]");
        for odd in ["", "a\x02b", &"ä".repeat(40), &"x".repeat(65)] {
            let made = name_of(odd).unwrap();
            assert_eq!(made, name_of(odd).unwrap(), "the same each time");
            assert!(made.contains('~'), "{made}");
        }
        assert_ne!(name_of(&"x".repeat(65)).unwrap(), name_of(&"x".repeat(66)).unwrap());
        assert!(name_of("a\x02b").unwrap().starts_with("a_b~"));
    }
}
