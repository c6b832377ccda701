//! From lines to rows: the names' column, wrapped text, a rule where a day begins. Pure.

use parlor_protocol::UnixMillis;
use ratatui::{
    style::{Color, Modifier, Style},
    text::{Line as Row, Span},
};

use super::{
    clock::Clock,
    input::graphemes,
    model::{Body, Line, Mark},
};

/// Screens narrower than this have no column for the names.
const WIDE: usize = 60;

/// How wide the names' column is.
const NAME_COLUMNS: usize = 12;

/// Text is never wrapped to less than this.
const TEXT_COLUMNS_MIN: usize = 8;

/// Colours that can be read on light and on dark.
const COLORS: [Color; 12] = [
    Color::Indexed(33),
    Color::Indexed(35),
    Color::Indexed(37),
    Color::Indexed(64),
    Color::Indexed(97),
    Color::Indexed(125),
    Color::Indexed(130),
    Color::Indexed(136),
    Color::Indexed(161),
    Color::Indexed(166),
    Color::Indexed(170),
    Color::Indexed(71),
];

/// The rows of a line; `before` is the time of the line above.
pub(crate) fn rows(line: &Line, before: Option<UnixMillis>, clock: &Clock, width: usize) -> Vec<Row<'static>> {
    let mut rows = vec![];
    if let Some(time) = line.time
        && before.is_none_or(|before| clock.day(before) != clock.day(time))
    {
        rows.push(day(&clock.day(time).strftime("%A, %-d %B %Y").to_string(), width));
    }
    let time = line.time.map_or_else(|| " ".repeat(5), |time| clock.minute(time));
    match &line.body {
        Body::Note(text) => {
            let style = Style::new().add_modifier(Modifier::DIM | Modifier::ITALIC);
            wrapped(&mut rows, vec![Span::styled("-- ", style)], text, style, width, None);
        }
        Body::Said { sender, text, tags, mark } => {
            let (sign, sign_style) = sign(mark);
            let mut head = vec![
                Span::styled(format!("{time} "), Style::new().add_modifier(Modifier::DIM)),
                Span::styled(format!("{sign} "), sign_style),
            ];
            if width >= WIDE {
                head.push(Span::styled(column(sender), name_style(sender, mark)));
                head.push(Span::raw(" "));
            } else {
                head.push(Span::styled(sender.clone(), name_style(sender, mark)));
                head.push(Span::raw(": "));
            }
            let style = if *mark == Mark::Sending { Style::new().add_modifier(Modifier::DIM) } else { Style::new() };
            // By this number commands name it.
            let number = line.seq().map(|seq| format!("#{seq}"));
            let tail = [Some(tags.clone()).filter(|tags| !tags.is_empty()), number];
            let tail = tail.into_iter().flatten().collect::<Vec<_>>().join(" ");
            wrapped(&mut rows, head, text, style, width, Some(tail));
            if let Mark::Refused(why) = mark {
                let head = vec![Span::raw(" ".repeat(8)), Span::styled("not stored: ", sign_style)];
                wrapped(&mut rows, head, why, sign_style, width, None);
            }
        }
    }
    rows
}

/// The colour of a sender: the same at every time, on every machine.
pub(crate) fn color(name: &str) -> Color {
    let hash = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
    COLORS[usize::try_from(hash % COLORS.len() as u64).unwrap_or_default()]
}

fn name_style(name: &str, mark: &Mark) -> Style {
    let style = Style::new().fg(color(name));
    if *mark == Mark::None { style } else { style.add_modifier(Modifier::BOLD) }
}

fn sign(mark: &Mark) -> (char, Style) {
    match mark {
        Mark::None => (' ', Style::new()),
        Mark::Sending => ('…', Style::new().fg(Color::Yellow)),
        Mark::Stored => ('✓', Style::new().fg(Color::Green)),
        Mark::Refused(_) => ('!', Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)),
    }
}

/// `name` at the right of its column; cut if it is longer.
fn column(name: &str) -> String {
    let columns = Span::raw(name).width();
    if columns <= NAME_COLUMNS {
        return " ".repeat(NAME_COLUMNS - columns) + name;
    }
    let cut = cut(name, NAME_COLUMNS - 1);
    let blanks = NAME_COLUMNS - 1 - Span::raw(cut).width();
    " ".repeat(blanks) + cut + "…"
}

/// As much of `text` as fits `columns`.
fn cut(text: &str, columns: usize) -> &str {
    let (mut end, mut used) = (0, 0);
    for (bytes, width) in graphemes(text) {
        if used + width > columns {
            break;
        }
        end += bytes;
        used += width;
    }
    &text[..end]
}

fn day(name: &str, width: usize) -> Row<'static> {
    let rule = width.saturating_sub(Span::raw(name).width() + 6);
    Row::styled(format!("──── {name} {}", "─".repeat(rule)), Style::new().add_modifier(Modifier::DIM))
}

/// `text` behind `head`, its further rows below its own beginning, and a dim `tail` behind it.
fn wrapped(
    rows: &mut Vec<Row<'static>>,
    head: Vec<Span<'static>>,
    text: &str,
    style: Style,
    width: usize,
    tail: Option<String>,
) {
    let used: usize = head.iter().map(Span::width).sum();
    // A name too long for a narrow screen has a row of its own.
    let (indent, own_row) = if used + TEXT_COLUMNS_MIN <= width { (used, false) } else { (2, true) };
    let mut head = Some(head);
    if own_row {
        rows.extend(head.take().map(Row::from));
    }
    for part in wrap(text, width.saturating_sub(indent).max(TEXT_COLUMNS_MIN)) {
        let mut row = head.take().unwrap_or_else(|| vec![Span::raw(" ".repeat(indent))]);
        row.push(Span::styled(part.to_owned(), style));
        rows.push(Row::from(row));
    }
    let Some(tail) = tail.filter(|tail| !tail.is_empty()) else { return };
    let dim = Style::new().add_modifier(Modifier::DIM);
    let columns = Span::raw(tail.as_str()).width() + 1;
    match rows.last_mut() {
        Some(row) if row.width() + columns <= width => {
            row.push_span(Span::raw(" "));
            row.push_span(Span::styled(tail, dim));
        }
        _ => {
            for part in wrap(&tail, width.saturating_sub(indent).max(TEXT_COLUMNS_MIN)) {
                rows.push(Row::from(vec![Span::raw(" ".repeat(indent)), Span::styled(part.to_owned(), dim)]));
            }
        }
    }
}

/// `text` in parts of at most `columns`, broken at blanks where there are some. At least one part.
fn wrap(text: &str, columns: usize) -> Vec<&str> {
    let mut parts = vec![];
    let (mut start, mut at, mut used) = (0, 0, 0);
    // Behind the last blank of this part, and the columns up to there.
    let mut blank = None;
    for (bytes, width) in graphemes(text) {
        let is_blank = text[at..].starts_with(' ');
        // Blanks may hang over the edge, where nobody sees them.
        if used + width > columns && at > start && !is_blank {
            let (to, before) = blank.take().unwrap_or((at, used));
            parts.push(text[start..to].trim_end());
            (start, used) = (to, used - before);
        }
        at += bytes;
        used += width;
        if is_blank {
            blank = Some((at, used));
        }
    }
    parts.push(text[start..].trim_end());
    parts
}

#[cfg(test)]
mod tests;
