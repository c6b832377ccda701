//! The line that is being typed, and those typed before. Pure.

use std::collections::VecDeque;

use ratatui::{style::Style, text::Span};

/// How many typed lines are remembered.
const PAST_MAX: usize = 200;

/// The longest line, in bytes; servers take less.
const LINE_BYTES_MAX: usize = 64 << 10;

/// A line editor. Its cursor stands between graphemes, since that is what a person sees as one character.
#[derive(Debug, Default)]
pub(crate) struct Input {
    text: String,
    /// In bytes.
    cursor: usize,
    past: VecDeque<String>,
    /// Which of the past is shown, and the new line that it hides.
    recalled: Option<(usize, String)>,
}

impl Input {
    /// What is typed.
    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether nothing is typed.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether a command is typed.
    pub(crate) fn is_command(&self) -> bool {
        self.text.starts_with('/') && !self.text.starts_with("//")
    }

    /// Takes the line and remembers it.
    pub(crate) fn take(&mut self) -> String {
        let text = std::mem::take(&mut self.text);
        self.cursor = 0;
        self.recalled = None;
        if !text.trim().is_empty() && self.past.back() != Some(&text) {
            if self.past.len() == PAST_MAX {
                self.past.pop_front();
            }
            self.past.push_back(text.clone());
        }
        text
    }

    /// Types a character. Control characters are nothing that one can type.
    pub(crate) fn insert(&mut self, c: char) {
        if !c.is_control() && self.text.len() + c.len_utf8() <= LINE_BYTES_MAX {
            self.text.insert(self.cursor, c);
            self.cursor += c.len_utf8();
        }
    }

    /// Deletes to the left.
    pub(crate) fn backspace(&mut self) {
        self.delete_from(self.before());
    }

    /// Deletes to the right.
    pub(crate) fn delete(&mut self) {
        let end = self.after();
        self.text.drain(self.cursor..end);
    }

    /// Deletes everything to the left.
    pub(crate) fn delete_to_start(&mut self) {
        self.delete_from(0);
    }

    /// Deletes everything to the right.
    pub(crate) fn delete_to_end(&mut self) {
        self.text.truncate(self.cursor);
    }

    /// Deletes the word to the left, with the blanks behind it.
    pub(crate) fn delete_word(&mut self) {
        let kept = self.text[..self.cursor].trim_end();
        let start =
            kept.rfind(char::is_whitespace).map_or(0, |at| at + kept[at..].chars().next().map_or(0, char::len_utf8));
        self.delete_from(start);
    }

    fn delete_from(&mut self, start: usize) {
        self.text.drain(start..self.cursor);
        self.cursor = start;
    }

    /// Moves the cursor.
    pub(crate) fn left(&mut self) {
        self.cursor = self.before();
    }

    /// Moves the cursor.
    pub(crate) fn right(&mut self) {
        self.cursor = self.after();
    }

    /// Moves the cursor to the start.
    pub(crate) fn home(&mut self) {
        self.cursor = 0;
    }

    /// Moves the cursor to the end.
    pub(crate) fn end(&mut self) {
        self.cursor = self.text.len();
    }

    /// Brings back the line before.
    pub(crate) fn older(&mut self) {
        let at = self.recalled.as_ref().map_or(self.past.len(), |(at, _)| *at);
        if let Some(line) = at.checked_sub(1).and_then(|at| self.past.get(at)) {
            let hidden = std::mem::replace(&mut self.text, line.clone());
            let new = self.recalled.take().map_or(hidden, |(_, new)| new);
            self.recalled = Some((at - 1, new));
            self.end();
        }
    }

    /// Goes back towards the new line.
    pub(crate) fn newer(&mut self) {
        let Some((at, new)) = self.recalled.take() else { return };
        match self.past.get(at + 1) {
            Some(line) => {
                self.text.clone_from(line);
                self.recalled = Some((at + 1, new));
            }
            None => self.text = new,
        }
        self.end();
    }

    /// The stretch of the line around the cursor that fits `width` columns, and the cursor's column in it.
    pub(crate) fn window(&self, width: usize) -> (&str, usize) {
        // One column is the cursor's own, behind the text.
        let room = width.saturating_sub(1);
        let (mut start, mut column) = (self.cursor, 0);
        for (bytes, columns) in graphemes(&self.text[..self.cursor]).into_iter().rev() {
            if column + columns > room {
                break;
            }
            start -= bytes;
            column += columns;
        }
        let (mut end, mut columns) = (self.cursor, column);
        for (bytes, more) in graphemes(&self.text[self.cursor..]) {
            if columns + more > width {
                break;
            }
            end += bytes;
            columns += more;
        }
        (&self.text[start..end], column)
    }

    fn before(&self) -> usize {
        self.cursor - graphemes(&self.text[..self.cursor]).last().map_or(0, |(bytes, _)| *bytes)
    }

    fn after(&self) -> usize {
        self.cursor + graphemes(&self.text[self.cursor..]).first().map_or(0, |(bytes, _)| *bytes)
    }
}

/// The graphemes of a text without control characters, as bytes and columns.
pub(crate) fn graphemes(text: &str) -> Vec<(usize, usize)> {
    Span::raw(text)
        .styled_graphemes(Style::new())
        .map(|grapheme| (grapheme.symbol.len(), Span::raw(grapheme.symbol).width()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types `text` and then does what the letters of `keys` stand for; `|` in `want` is the cursor.
    #[track_caller]
    fn check(text: &str, keys: &str, want: &str) {
        let mut input = Input::default();
        text.chars().for_each(|c| input.insert(c));
        for key in keys.chars() {
            match key {
                '<' => input.left(),
                '>' => input.right(),
                'H' => input.home(),
                'E' => input.end(),
                'b' => input.backspace(),
                'd' => input.delete(),
                'u' => input.delete_to_start(),
                'k' => input.delete_to_end(),
                'w' => input.delete_word(),
                other => panic!("{other}"),
            }
        }
        let (before, after) = input.text.split_at(input.cursor);
        assert_eq!(format!("{before}|{after}"), want, "{text:?} {keys}");
    }

    #[test]
    fn keys_edit_the_line() {
        check("abc", "", "abc|");
        check("abc", "<<<<", "|abc");
        check("abc", "<<>", "ab|c");
        check("abc", "<b", "a|c");
        check("abc", "<<d", "a|c");
        check("abc", "Hbd", "|bc");
        check("abc", "EdHu>k", "a|");
        check("abc", "<u", "|c");
        check("one two  ", "w", "one |");
        check("one two  ", "ww", "|");
        check("one\u{3000}two", "w", "one\u{3000}|");
        check("a👩‍👩‍👧e\u{301}", "b", "a👩‍👩‍👧|");
        check("a👩‍👩‍👧e\u{301}", "<<d", "a|e\u{301}");
        check("a\x1b\u{9b}b", "", "ab|");
    }

    #[test]
    fn typed_lines_come_back() {
        let mut input = Input::default();
        let type_in = |input: &mut Input, text: &str| text.chars().for_each(|c| input.insert(c));
        for line in ["one", "two", "two", " "] {
            type_in(&mut input, line);
            input.take();
        }
        type_in(&mut input, "new");
        let mut seen = vec![];
        for step in [-1, -1, -1, 1, 1, 1, -1] {
            if step < 0 {
                input.older()
            } else {
                input.newer()
            }
            seen.push(input.text().to_owned());
        }
        assert_eq!(seen, ["two", "one", "one", "two", "new", "new", "two"]);
        assert_eq!(input.take(), "two");
        assert!(input.is_empty());
    }

    #[test]
    fn a_long_line_shows_around_its_cursor() {
        let mut input = Input::default();
        "添加abcdef".chars().for_each(|c| input.insert(c));
        assert_eq!(input.window(20), ("添加abcdef", 10));
        assert_eq!(input.window(6), ("bcdef", 5));
        input.home();
        assert_eq!(input.window(6), ("添加ab", 0));
        assert_eq!(input.window(3), ("添", 0));
        input.right();
        assert_eq!(input.window(3), ("添", 2));
        assert_eq!(input.window(0), ("", 0));
    }
}
