//! Who is typing: signals out while one types, names in until they are silent. Pure.

use std::time::Duration;

/// The key of the signals that say so. Their payload is empty.
pub(crate) const TYPING_KEY: u32 = 1;

/// The time between two signals of one who types.
const AGAIN: Duration = Duration::from_secs(3);

/// Who is silent for so long does not type any more.
const FORGOTTEN: Duration = Duration::from_secs(7);

/// How many are remembered.
const WHO_MAX: usize = 16;

/// See the module. All times are since the chat's start.
#[derive(Debug, Default)]
pub(crate) struct Typing {
    who: Vec<(String, Duration)>,
    told: Option<Duration>,
}

impl Typing {
    /// The user has typed something. Whether to tell the others.
    pub(crate) fn on_key(&mut self, now: Duration) -> bool {
        let tell = self.told.is_none_or(|told| now.saturating_sub(told) >= AGAIN);
        if tell {
            self.told = Some(now);
        }
        tell
    }

    /// The user has sent what he typed: what he types next is told at once.
    pub(crate) fn on_sent(&mut self) {
        self.told = None;
    }

    /// Somebody types.
    pub(crate) fn on_signal(&mut self, user: &str, now: Duration) {
        self.on_message(user);
        if self.who.len() < WHO_MAX {
            self.who.push((user.to_owned(), now + FORGOTTEN));
        }
    }

    /// Somebody has said it.
    pub(crate) fn on_message(&mut self, user: &str) {
        self.who.retain(|(other, _)| other != user);
    }

    /// Time has passed.
    pub(crate) fn on_time(&mut self, now: Duration) {
        self.who.retain(|(_, until)| now < *until);
    }

    /// When somebody is to be forgotten.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.who.iter().map(|(_, until)| *until).min()
    }

    /// Who types, as a person reads it.
    pub(crate) fn text(&self) -> Option<String> {
        match &self.who[..] {
            [] => None,
            [(one, _)] => Some(format!("{one} types…")),
            [(one, _), (two, _)] => Some(format!("{one} and {two} type…")),
            many => Some(format!("{} people type…", many.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn typing_is_told_every_few_seconds() {
        let mut typing = Typing::default();
        let told: Vec<_> = (0..9).filter(|second| typing.on_key(*second * S)).collect();
        assert_eq!(told, [0, 3, 6]);
        typing.on_sent();
        assert!(typing.on_key(9 * S));
    }

    #[test]
    fn who_types_is_shown_until_he_has_said_it_or_is_silent() {
        let mut typing = Typing::default();
        typing.on_signal("bob", S);
        typing.on_signal("eve", 2 * S);
        typing.on_signal("bob", 3 * S);
        assert_eq!(typing.text().unwrap(), "eve and bob type…");
        assert_eq!(typing.timeout(), Some(9 * S));
        typing.on_time(9 * S);
        assert_eq!(typing.text().unwrap(), "bob types…");
        typing.on_message("bob");
        assert_eq!((typing.text(), typing.timeout()), (None, None));
        (0..99).for_each(|user| typing.on_signal(&format!("user{user}"), S));
        assert_eq!(typing.text().unwrap(), "16 people type…");
    }
}
