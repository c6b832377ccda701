//! Bars: a row per peer, as long as the median, with whiskers from the least to the most.

use std::io;

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    number::human,
    run::{Row, Summary},
};

/// Text. [`STYLE`] turns it light on a dark page; the bars' colours suit both.
const INK: RGBColor = RGBColor(0x1f, 0x23, 0x28);

/// Parlor's bars.
const OWN: RGBColor = RGBColor(0xd9, 0x5f, 0x0e);

/// The others'.
const OTHER: RGBColor = RGBColor(0x7f, 0x9c, 0xb8);

/// Whiskers, and the line where all bars begin.
const LINE: RGBColor = RGBColor(0x3d, 0x44, 0x4d);

/// What failed.
const FAILED: RGBColor = RGBColor(0xd1, 0x24, 0x2f);

/// Ink and lines on a dark page.
pub(super) const STYLE: &str = "text[fill=\"#1F2328\"]{fill:#e6edf3}polyline[stroke=\"#3D444D\"]{stroke:#d0d7de}";

/// Pixels of a row, of a caption, and of the names.
pub(super) const ROW: i32 = 22;
pub(super) const CAPTION: i32 = 26;
const NAMES: i32 = 104;

/// Room for a value behind the longest bar or whisker, in pixels.
const VALUE: i32 = 62;

const FONT: &str = "sans-serif";

/// A place to draw.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A peer's row.
pub(super) struct Bar<'a> {
    /// Whose.
    pub(super) name: &'a str,
    /// How long; `None` if there is nothing to show.
    pub(super) figure: Option<&'a Summary>,
    /// How many repetitions failed.
    pub(super) failed: usize,
}

impl<'a> Bar<'a> {
    /// What a peer has for a figure.
    pub(super) fn of(row: &'a Row, figure: &str) -> Self {
        Self { name: &row.peer, figure: row.figure(figure), failed: row.failures.len() }
    }

    /// Whether it is a build of Parlor.
    pub(super) fn is_own(&self) -> bool {
        self.name == "parlor" || self.name.starts_with("parlor-") || self.name.starts_with("parlor@")
    }
}

/// Draws a caption and a row per bar from the top of `area` down.
pub(super) fn draw(area: &Area<'_>, caption: &str, bars: &[Bar<'_>]) -> io::Result<()> {
    let (width, _) = area.dim_in_pixel();
    let width = i32::try_from(width).unwrap_or(i32::MAX);
    write(area, caption, (0, CAPTION / 2), HPos::Left, 14, true, INK)?;
    let longest = bars.iter().filter_map(|bar| bar.figure).map(|figure| figure.max).fold(0.0, f64::max);
    let room = f64::from((width - NAMES - VALUE).max(1));
    // Figures are at or above 0; where all are 0, no bar has a length.
    let pixels = |value: f64| {
        let share = if longest > 0.0 { (value / longest).clamp(0.0, 1.0) } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, reason = "at most the chart's width")]
        let bar = (room * share).round() as i32;
        NAMES + bar
    };
    for (index, bar) in (0..).zip(bars) {
        let top = CAPTION + index * ROW;
        let middle = top + ROW / 2;
        write(area, bar.name, (NAMES - 8, middle), HPos::Right, 13, bar.is_own(), INK)?;
        let mut at = NAMES + 6;
        if let Some(figure) = bar.figure {
            let colour = if bar.is_own() { OWN } else { OTHER };
            let corners = [(NAMES, top + 4), (pixels(figure.median), top + ROW - 4)];
            area.draw(&Rectangle::new(corners, colour.filled())).map_err(io::Error::other)?;
            if figure.values.len() > 1 {
                whiskers(area, pixels(figure.min), pixels(figure.max), middle)?;
            }
            at = pixels(figure.max) + 6;
            let value = human(figure.median);
            write(area, &value, (at, middle), HPos::Left, 13, bar.is_own(), INK)?;
            at += 9 * i32::try_from(value.len()).unwrap_or(0);
        }
        match (bar.failed, bar.figure) {
            (0, Some(_)) => {}
            (0, None) => write(area, "not measured", (at, middle), HPos::Left, 12, false, INK)?,
            (count, _) => write(area, &format!("{count} failed"), (at, middle), HPos::Left, 12, true, FAILED)?,
        }
    }
    let bottom = CAPTION + ROW * i32::try_from(bars.len()).unwrap_or(0);
    line(area, [(NAMES, CAPTION), (NAMES, bottom)])
}

/// A text that begins, or ends, at a place.
pub(super) fn note(area: &Area<'_>, text: &str, at: (i32, i32), size: i32, bold: bool) -> io::Result<()> {
    write(area, text, at, HPos::Left, size, bold, INK)
}

fn whiskers(area: &Area<'_>, from: i32, to: i32, middle: i32) -> io::Result<()> {
    line(area, [(from, middle), (to, middle)])?;
    line(area, [(from, middle - 4), (from, middle + 4)])?;
    line(area, [(to, middle - 4), (to, middle + 4)])
}

fn line(area: &Area<'_>, points: [(i32, i32); 2]) -> io::Result<()> {
    area.draw(&PathElement::new(points, LINE)).map_err(io::Error::other)
}

fn write(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    side: HPos,
    size: i32,
    bold: bool,
    colour: RGBColor,
) -> io::Result<()> {
    // The backend divides by this to get from the height of a font to its size.
    let size = f64::from(size) * 1.24;
    let weight = if bold { FontStyle::Bold } else { FontStyle::Normal };
    let style = TextStyle::from((FONT, size, weight).into_font()).color(&colour).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style)).map_err(io::Error::other)
}

/// An SVG of that size, drawn by `draw`, that says `label` to who cannot see it and has `head` in it before all else.
pub(super) fn svg(
    size: (u32, u32),
    label: &str,
    head: &str,
    draw: impl FnOnce(&Area<'_>) -> io::Result<()>,
) -> io::Result<String> {
    let mut drawn = String::new();
    {
        let area = SVGBackend::with_string(&mut drawn, size).into_drawing_area();
        draw(&area)?;
        area.present().map_err(io::Error::other)?;
    }
    let label = super::html::escape(label);
    let opening = format!("<svg role=\"img\" aria-label=\"{label}\" ");
    let drawn = drawn.replacen("<svg ", &opening, 1);
    Ok(drawn.replacen(">\n", &format!(">\n{head}"), 1))
}
