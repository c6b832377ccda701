//! What a room keeps of a record besides its frame: who has reacted to it, and how.

/// Who has which reaction to a record, in the order of the reactions' first use.
///
/// Stored as `version u8 = 1 | (reaction: length u8, bytes | users u16 | (user: length u8, bytes)*)*`, numbers
/// big-endian; as nothing at all if nobody has reacted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes<'a> {
    /// Each reaction and the users that have it, in the order of their reacting.
    pub reactions: Vec<(&'a str, Vec<&'a str>)>,
}

const VERSION: u8 = 1;

impl<'a> Notes<'a> {
    /// Reads notes; `None` if they break a rule.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut notes = Self::default();
        let Some((version, rest)) = bytes.split_first() else { return Some(notes) };
        if *version != VERSION {
            return None;
        }
        let mut fields = Fields(rest);
        while !fields.0.is_empty() {
            let reaction = fields.text()?;
            let users = fields.u16()?;
            let users = (0..users).map(|_| fields.text()).collect::<Option<Vec<_>>>()?;
            notes.reactions.push((reaction, users));
        }
        Some(notes)
    }

    /// The notes as they are stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        if self.reactions.is_empty() {
            return Vec::new();
        }
        let mut out = vec![VERSION];
        for (reaction, users) in &self.reactions {
            put_text(reaction, &mut out);
            // At most as many as the limit, which `bytes` keeps far below.
            out.extend(u16::try_from(users.len()).unwrap_or(u16::MAX).to_be_bytes());
            users.iter().for_each(|user| put_text(user, &mut out));
        }
        out
    }

    /// How many bytes they take when stored, at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of = |(reaction, users): &(&str, Vec<&str>)| {
            3 + reaction.len() + users.iter().map(|user| 1 + user.len()).sum::<usize>()
        };
        1 + self.reactions.iter().map(of).sum::<usize>()
    }

    /// Whether a user has a reaction.
    #[must_use]
    pub fn has(&self, reaction: &str, user: &str) -> bool {
        self.users(reaction).is_some_and(|users| users.contains(&user))
    }

    /// Who has a reaction, if anybody.
    #[must_use]
    pub fn users(&self, reaction: &str) -> Option<&[&'a str]> {
        self.reactions.iter().find(|(known, _)| *known == reaction).map(|(_, users)| &users[..])
    }

    /// How many reactions of all users there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.reactions.iter().map(|(_, users)| users.len()).sum()
    }

    /// Whether nobody has reacted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reactions.is_empty()
    }

    /// A user reacts, who has not reacted so.
    pub fn add(&mut self, reaction: &'a str, user: &'a str) {
        match self.reactions.iter_mut().find(|(known, _)| *known == reaction) {
            Some((_, users)) => users.push(user),
            None => self.reactions.push((reaction, vec![user])),
        }
    }

    /// A user takes a reaction back.
    pub fn remove(&mut self, reaction: &str, user: &str) {
        for (_, users) in self.reactions.iter_mut().filter(|(known, _)| *known == reaction) {
            users.retain(|known| *known != user);
        }
        self.reactions.retain(|(_, users)| !users.is_empty());
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    // Names and reactions have at most 64 bytes.
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend(text.as_bytes());
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = usize::from(*self.take(1)?.first()?);
        std::str::from_utf8(self.take(len)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_read_as_written_and_no_cut_panics() {
        let mut notes = Notes::default();
        assert_eq!((notes.encode(), Notes::parse(b"")), (vec![], Some(Notes::default())));
        notes.add("👍", "ann");
        notes.add("x", "bob");
        notes.add("👍", "bob");
        let bytes = notes.encode();
        assert_eq!(bytes, b"\x01\x04\xf0\x9f\x91\x8d\x00\x02\x03ann\x03bob\x01x\x00\x01\x03bob");
        assert_eq!((Notes::parse(&bytes), bytes.len()), (Some(notes.clone()), notes.bytes()));
        assert_eq!(notes.len(), 3);
        for cut in 0..bytes.len() {
            assert_ne!(Notes::parse(&bytes[..cut]), Some(notes.clone()), "cut at {cut}");
        }
        assert_eq!(Notes::parse(b"\x02"), None);
    }

    #[test]
    fn a_reaction_that_nobody_has_is_gone() {
        let mut notes = Notes::default();
        notes.add("x", "ann");
        notes.add("y", "ann");
        notes.remove("x", "bob");
        assert!(notes.has("x", "ann"));
        notes.remove("x", "ann");
        assert_eq!(notes.reactions, [("y", vec!["ann"])]);
    }
}
