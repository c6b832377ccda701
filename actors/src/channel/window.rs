//! What a device was answered, so that a retried send is one message.

use parlor_protocol::Nonce;

use crate::port::Answer;

/// A device's newest answers in one room, in slots that are overwritten in turn.
///
/// A device's nonces only rise, so an unknown nonce above the newest is new, and one below it can be told apart only
/// while its answer is here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    slots: Vec<Answer>,
    /// The slot of the newest answer; meaningless while there is none.
    newest: usize,
}

/// What a nonce is to a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Not used yet.
    New,
    /// Answered before.
    Repeat(Answer),
    /// Answered before, for other content.
    Conflict,
    /// Below the window, or skipped.
    TooOld,
}

impl Window {
    /// The window that the slots of the store make up, in their order.
    #[must_use]
    pub fn from_slots(slots: Vec<Answer>) -> Self {
        let newest = (0..slots.len()).max_by_key(|slot| slots[*slot].seq).unwrap_or_default();
        Self { slots, newest }
    }

    /// The newest answer.
    #[must_use]
    pub fn newest(&self) -> Option<&Answer> {
        self.slots.get(self.newest)
    }

    /// The newest nonce answered.
    #[must_use]
    pub fn newest_nonce(&self) -> Option<Nonce> {
        self.newest().map(|answer| answer.nonce)
    }

    /// What `nonce` with this content is to the window.
    #[must_use]
    pub fn look_up(&self, nonce: Nonce, content_hash: u64) -> Known {
        match self.newest_nonce() {
            Some(newest) if nonce <= newest => match self.slots.iter().find(|answer| answer.nonce == nonce) {
                Some(answer) if answer.content_hash == content_hash => Known::Repeat(*answer),
                Some(_) => Known::Conflict,
                None => Known::TooOld,
            },
            _ => Known::New,
        }
    }

    /// Takes in the answer to a new nonce; returns the slot that it overwrites, which the store has to write.
    pub fn insert(&mut self, answer: Answer, slots_max: usize) -> u8 {
        debug_assert!(self.newest_nonce().is_none_or(|newest| newest < answer.nonce), "nonces rise");
        if self.slots.len() < slots_max {
            // Slots are filled in turn, so the newest is the last until all are used.
            self.slots.push(answer);
            self.newest = self.slots.len() - 1;
        } else {
            self.newest = (self.newest + 1) % self.slots.len();
            self.slots[self.newest] = answer;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 128 slots")]
        let slot = self.newest as u8;
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(nonce: Nonce) -> Answer {
        Answer { nonce, seq: nonce * 10, time: 1, content_hash: nonce + 1, count: nonce }
    }

    #[test]
    fn a_nonce_is_new_once() {
        let mut window = Window::default();
        assert_eq!(window.look_up(5, 6), Known::New);
        assert_eq!(window.insert(answer(5), 3), 0);
        assert_eq!(window.look_up(5, 6), Known::Repeat(answer(5)));
        assert_eq!(window.look_up(5, 7), Known::Conflict);
        assert_eq!(window.look_up(4, 5), Known::TooOld);
        assert_eq!(window.look_up(6, 7), Known::New);
    }

    #[test]
    fn slots_are_overwritten_in_turn_also_after_a_reload() {
        let mut window = Window::default();
        let mut stored: Vec<Option<Answer>> = vec![None; 3];
        for nonce in 1..20 {
            let slot = window.insert(answer(nonce), 3);
            stored[slot as usize] = Some(answer(nonce));
            let reloaded = Window::from_slots(stored.iter().flatten().copied().collect());
            assert_eq!(reloaded, window);
            for old in 1..=nonce {
                let want = if nonce - old < 3 { Known::Repeat(answer(old)) } else { Known::TooOld };
                assert_eq!(window.look_up(old, old + 1), want, "{old} after {nonce}");
            }
        }
    }
}
