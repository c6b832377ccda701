//! Which rows of the talk are on the screen. Pure.
//!
//! Only what is shown is ever laid out, so a long history costs nothing: one walks from the lowest row that is shown
//! upwards.

use ratatui::text::Line as Row;

use super::{
    layout,
    model::{Action, Model},
};

/// The size of the talk on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// In columns.
    pub(crate) width: usize,
    /// In rows.
    pub(crate) height: usize,
}

/// The lowest row that is shown: the newest there is, or the row of this number of the line with this key. New lines and
/// older ones do not move what one reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scroll(Option<(i64, usize)>);

impl Scroll {
    /// Whether the newest line is shown.
    pub(crate) fn follows(self) -> bool {
        self.0.is_none()
    }
}

/// A row: the line's place, and the row's number in it.
type At = (usize, usize);

impl Model {
    /// The talk has this size from here on.
    pub(crate) fn resize(&mut self, size: Size) {
        self.size = size;
    }

    /// The rows that are shown, from the top.
    pub(crate) fn rows(&self) -> Vec<Row<'static>> {
        let mut rows = Vec::new();
        let Some((bottom, row)) = self.bottom() else { return rows };
        for at in (0..=bottom).rev() {
            let line = self.line_rows(at);
            let shown = if at == bottom { row + 1 } else { line.len() };
            rows.extend(line.into_iter().take(shown).rev());
            if rows.len() >= self.size.height {
                break;
            }
        }
        rows.truncate(self.size.height);
        rows.reverse();
        rows
    }

    /// A page, less one row to find one's place again.
    pub(super) fn page(&self) -> usize {
        self.size.height.saturating_sub(1).max(1)
    }

    pub(super) fn scroll_up(&mut self, rows: usize) -> Option<Action> {
        let bottom = self.bottom()?;
        let (up, _) = self.up(bottom, rows);
        // The screen stays full.
        let (top, missing) = self.up(up, self.size.height.saturating_sub(1));
        let (lowest, beyond) = self.down(up, missing);
        self.stop_at(lowest, beyond > 0);
        if top == (0, 0) { self.want_older() } else { None }
    }

    pub(super) fn scroll_down(&mut self, rows: usize) {
        if let Some(bottom) = self.bottom() {
            let (lowest, beyond) = self.down(bottom, rows);
            self.stop_at(lowest, beyond > 0);
        }
    }

    pub(super) fn scroll_to_end(&mut self) {
        self.scroll = Scroll::default();
    }

    fn stop_at(&mut self, (place, row): At, at_end: bool) {
        let newest = place + 1 == self.len() && row + 1 == self.line_rows(place).len();
        self.scroll = match self.line(place) {
            Some(line) if !at_end && !newest => Scroll(Some((line.key, row))),
            _ => Scroll::default(),
        };
    }

    /// The lowest row that is shown.
    fn bottom(&self) -> Option<At> {
        let last = self.len().checked_sub(1)?;
        let (place, row) = self.scroll.0.map_or((last, usize::MAX), |(key, row)| (self.place(key), row));
        Some((place, row.min(self.line_rows(place).len().saturating_sub(1))))
    }

    /// So many rows higher, and how many there were not.
    fn up(&self, (mut place, row): At, rows: usize) -> (At, usize) {
        let (mut row, mut rows) = (row, rows);
        while rows > row {
            if place == 0 {
                return ((0, 0), rows - row);
            }
            rows -= row + 1;
            place -= 1;
            row = self.line_rows(place).len().saturating_sub(1);
        }
        ((place, row - rows), 0)
    }

    /// So many rows lower, and how many there were not.
    fn down(&self, (mut place, row): At, rows: usize) -> (At, usize) {
        let mut row = row + rows;
        loop {
            let height = self.line_rows(place).len();
            if row < height {
                return ((place, row), 0);
            }
            if place + 1 >= self.len() {
                return ((place, height.saturating_sub(1)), row + 1 - height);
            }
            row -= height;
            place += 1;
        }
    }

    fn line_rows(&self, at: usize) -> Vec<Row<'static>> {
        let Some(line) = self.line(at) else { return vec![] };
        // The nearest line above with a time; notes have none.
        let before = (0..at).rev().find_map(|at| self.line(at)?.time);
        layout::rows(line, before, &self.clock, self.size.width)
    }
}
