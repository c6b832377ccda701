//! Draws the model: the talk, a status line, the input line.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Position, Rect},
    style::{Color, Modifier, Style},
    text::{Line as Row, Span},
    widgets::Paragraph,
};

use super::{
    model::{Link, Model},
    scroll::Size,
};

const PROMPT: &str = "> ";

/// The size of the talk on a screen of this size.
pub(crate) fn talk_size(screen: Rect) -> Size {
    let [talk, ..] = areas(screen);
    Size { width: talk.width.into(), height: talk.height.into() }
}

/// Draws everything. The model must have been given the talk's size.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let [talk, status, input] = areas(frame.area());
    let rows = model.rows();
    // A short talk stands at the bottom, next to the input.
    let height = u16::try_from(rows.len()).unwrap_or(u16::MAX).min(talk.height);
    let bottom = Rect { y: talk.bottom() - height, height, ..talk };
    frame.render_widget(Paragraph::new(rows), bottom);
    frame
        .render_widget(Paragraph::new(status_line(model)).style(Style::new().add_modifier(Modifier::REVERSED)), status);
    let width = usize::from(input.width).saturating_sub(PROMPT.len());
    let (text, column) = model.input.window(width);
    frame.render_widget(Paragraph::new(Row::from(vec![Span::raw(PROMPT), Span::raw(text)])), input);
    let column = u16::try_from(PROMPT.len() + column).unwrap_or(u16::MAX);
    frame.set_cursor_position(Position { x: input.x.saturating_add(column), y: input.y });
}

fn areas(screen: Rect) -> [Rect; 3] {
    Layout::vertical([Constraint::Min(0), Constraint::Length(1), Constraint::Length(1)]).areas(screen)
}

fn status_line(model: &Model) -> Row<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    // The reason comes last: it is long, and what is cut off is the end.
    let (link, why) = match &model.link {
        Link::Connected => (Span::styled("connected", Style::new().fg(Color::Green)), None),
        Link::Reconnecting(why) => (Span::styled("reconnecting…", Style::new().fg(Color::Yellow)), Some(why)),
        Link::Over(why) => (Span::styled("over, Ctrl-C leaves", Style::new().fg(Color::Red)), Some(why)),
    };
    let mut spans =
        vec![Span::styled(format!(" {}", model.room), bold), Span::raw(format!(" · {} · ", model.server)), link];
    if let Some(here) = model.here {
        spans.push(Span::raw(format!(" · {here} here")));
    }
    if let Some(typing) = model.typing.text() {
        spans.push(Span::raw(format!(" · {typing}")));
    }
    if model.unsent() > 0 {
        spans.push(Span::styled(format!(" · {} unsent", model.unsent()), bold));
    }
    if model.leaving {
        spans.push(Span::styled(" · leaving, Ctrl-C again to leave at once", bold));
    }
    if model.fetching {
        spans.push(Span::raw(" · fetching older messages…"));
    } else if !model.scroll.follows() {
        spans.push(Span::raw(" · newer below (Esc)"));
    }
    spans.extend(why.map(|why| Span::raw(format!(" · {why}"))));
    Row::from(spans)
}

#[cfg(test)]
mod tests {
    use parlor::client::RecordKind;
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::cli::chat::{clock::Clock, record};

    fn screen(model: &mut Model, width: u16, height: u16) -> (Vec<String>, Position) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        model.resize(talk_size(Rect::new(0, 0, width, height)));
        terminal.draw(|frame| draw(frame, model)).unwrap();
        let cursor = terminal.get_cursor_position().unwrap();
        let cells = terminal.backend().buffer().content();
        let rows = cells
            .chunks(width.into())
            .map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned());
        (rows.collect(), cursor)
    }

    fn model() -> Model {
        let mut model = Model::new("ann", "lobby", "here:1", None, Clock::utc());
        let message = |seq, sender, text| record::Record { time: 1_785_886_440_000, ..record::said(seq, sender, text) };
        model.on_record(message(1, "bob", "does a gnome client exist?"));
        model.on_record(message(2, "ann", "I can't recommend one offhand; try a search for such"));
        model.on_record(record::change(3, RecordKind::REACTION, 1, "eve", "👍"));
        model
    }

    #[test]
    fn a_chat_looks_like_this() {
        let mut model = model();
        for c in "yes 添".chars() {
            model.input.insert(c);
        }
        model.here = Some(3);
        let (rows, cursor) = screen(&mut model, 60, 8);
        assert_eq!(
            rows,
            [
                "",
                "",
                "──── Tuesday, 4 August 2026 ────────────────────────────────",
                "23:34            bob does a gnome client exist? 👍  1 #1",
                "23:34 ✓          ann I can't recommend one offhand; try a",
                "                     search for such #2",
                " lobby · here:1 · connected · 3 here",
                "> yes 添",
            ]
        );
        assert_eq!(cursor, Position { x: 8, y: 7 });
    }

    #[test]
    fn the_status_line_tells_of_a_lost_connection_and_of_what_is_unsent() {
        let mut model = model();
        model.input.insert('x');
        model.submit();
        model.here = Some(2);
        model.on_link(Link::Reconnecting("reset".to_owned()));
        model.on_typing("eve", std::time::Duration::ZERO);
        let (rows, _) = screen(&mut model, 70, 8);
        assert_eq!(rows[5], "      …          ann x");
        assert_eq!(rows[6], " lobby · here:1 · reconnecting… · eve types… · 1 unsent · reset");
    }

    #[test]
    fn any_size_can_be_drawn() {
        let mut model = model();
        for (width, height) in [(1, 1), (1, 3), (2, 2), (3, 9), (10, 4), (59, 3), (300, 100)] {
            screen(&mut model, width, height);
        }
    }
}
