//! What each key does. Pure.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Action, Model};

impl Model {
    /// A key was pressed.
    pub(crate) fn on_key(&mut self, key: KeyEvent) -> Option<Action> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && !key.modifiers.contains(KeyModifiers::ALT) {
            return self.on_control(key.code);
        }
        match key.code {
            KeyCode::Enter => return self.submit(),
            KeyCode::PageUp => return self.scroll_up(self.page()),
            KeyCode::PageDown => self.scroll_down(self.page()),
            KeyCode::Esc => self.scroll_to_end(),
            KeyCode::Char(c) => self.input.insert(c),
            KeyCode::Backspace => self.input.backspace(),
            KeyCode::Delete => self.input.delete(),
            KeyCode::Left => self.input.left(),
            KeyCode::Right => self.input.right(),
            KeyCode::Home => self.input.home(),
            KeyCode::End => self.input.end(),
            KeyCode::Up => self.input.older(),
            KeyCode::Down => self.input.newer(),
            _ => {}
        }
        None
    }

    fn on_control(&mut self, code: KeyCode) -> Option<Action> {
        match code {
            KeyCode::Char('c') => return Some(Action::Quit),
            KeyCode::Char('d') if self.input.is_empty() => return Some(Action::Quit),
            KeyCode::Char('d') => self.input.delete(),
            KeyCode::Char('a') => self.input.home(),
            KeyCode::Char('e') => self.input.end(),
            KeyCode::Char('h') => self.input.backspace(),
            KeyCode::Char('k') => self.input.delete_to_end(),
            KeyCode::Char('u') => self.input.delete_to_start(),
            KeyCode::Char('w') => self.input.delete_word(),
            _ => {}
        }
        None
    }
}
