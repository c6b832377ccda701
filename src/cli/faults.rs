//! What went wrong, the first few in words.

use std::fmt;

use crate::cli::sanitize;

/// How many are told in words; the rest is counted.
const TOLD_MAX: usize = 10;

/// Faults in the order in which they were found.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    told: Vec<String>,
    count: usize,
    /// Said before each that is added: where it is.
    place: String,
}

impl Faults {
    /// None yet, and all that follow are at `place`.
    pub(crate) fn at(place: impl fmt::Display) -> Self {
        Self { place: format!("{place}: "), ..Self::default() }
    }

    /// Adds one.
    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < TOLD_MAX {
            // Some of it may be a server's own words.
            self.told.push(sanitize::text(&format!("{}{}", self.place, text())).into_owned());
        }
    }

    /// Adds another's behind one's own.
    pub(crate) fn append(&mut self, other: Self) {
        self.count += other.count;
        self.told.extend(other.told);
        self.told.truncate(TOLD_MAX);
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for told in &self.told {
            writeln!(f, "{told}")?;
        }
        match self.count - self.told.len() {
            0 => Ok(()),
            more => writeln!(f, "… and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_told_and_all_are_counted() {
        let mut faults = Faults::at("lobby");
        assert!(faults.is_empty());
        for number in 0..8 {
            faults.note(|| format!("fault {number}"));
        }
        let mut other = Faults::at("den");
        for number in 0..7 {
            other.note(|| format!("fault {number}"));
        }
        faults.append(other);
        let text = faults.to_string();
        assert!(text.starts_with("lobby: fault 0\n"), "{text}");
        assert!(text.ends_with("den: fault 1\n… and 5 more\n"), "{text}");
    }
}
