//! What a device was answered, so that a retried send is one message.

use parlor_protocol::Nonce;

use crate::port::Answer;

/// A device's newest answers in one room, in slots that are overwritten in turn.
///
/// A device's nonces only rise, so an unknown nonce above the newest is new, and one below it can be told apart only
/// while its answer is here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// [`HOLE`] where nothing is known.
    slots: Vec<Answer>,
    /// The slot of the newest answer; meaningless while there is none.
    newest: usize,
}

/// A slot whose answer was forgotten: no record has this seq.
const HOLE: Answer = Answer { nonce: 0, seq: 0, time: 0, content_hash: 0, count: 0 };

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
    /// The window that the slots of the store make up. Those that are old may be missing.
    #[must_use]
    pub fn from_slots(found: Vec<(u8, Answer)>) -> Self {
        let len = found.iter().map(|(slot, _)| usize::from(*slot) + 1).max().unwrap_or_default();
        let mut slots = vec![HOLE; len];
        for (slot, answer) in found {
            slots[usize::from(slot)] = answer;
        }
        let newest = (0..slots.len()).max_by_key(|slot| slots[*slot].seq).unwrap_or_default();
        Self { slots, newest }
    }

    /// The newest answer.
    #[must_use]
    pub fn newest(&self) -> Option<&Answer> {
        self.slots.get(self.newest).filter(|answer| **answer != HOLE)
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
            Some(newest) if nonce <= newest => match self.find(nonce) {
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
        // Behind the newest, round and round: what lies there is the oldest, or a hole.
        let turn = self.slots.len().max(slots_max);
        self.newest = if self.newest_nonce().is_some() { (self.newest + 1) % turn } else { 0 };
        if self.newest >= self.slots.len() {
            self.slots.resize(self.newest + 1, HOLE);
        }
        self.slots[self.newest] = answer;
        #[expect(clippy::cast_possible_truncation, reason = "at most 128 slots")]
        let slot = self.newest as u8;
        slot
    }

    fn find(&self, nonce: Nonce) -> Option<&Answer> {
        self.slots.iter().find(|answer| answer.nonce == nonce && **answer != HOLE)
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

    fn slots(stored: &[Option<Answer>]) -> Vec<(u8, Answer)> {
        (0..).zip(stored).filter_map(|(slot, answer)| Some((slot, (*answer)?))).collect()
    }

    #[test]
    fn a_window_whose_old_answers_were_forgotten_takes_no_nonce_twice() {
        for seed in 0..500 {
            let mut chance = crate::testkit::Chance::new(seed);
            let mut stored: Vec<Option<Answer>> = vec![None; 4];
            let mut window = Window::default();
            let mut nonce = 0;
            for _ in 0..40 {
                nonce += 1 + chance.any() % 3;
                let slot = window.insert(answer(nonce), 4);
                let before = stored[usize::from(slot)].replace(answer(nonce));
                let oldest = stored.iter().flatten().map(|answer| answer.nonce).min();
                assert!(before.is_none_or(|before| oldest > Some(before.nonce)), "slots are overwritten in turn");
                if chance.one_in(3) {
                    // A compaction meets some of the old ones.
                    let horizon = nonce.saturating_sub(chance.any() % 8);
                    for kept in &mut stored {
                        kept.take_if(|answer| answer.nonce <= horizon && chance.one_in(2));
                    }
                }
                if chance.one_in(3) && stored.iter().flatten().any(|answer| answer.nonce == nonce) {
                    window = Window::from_slots(slots(&stored));
                    assert_eq!(window.newest_nonce(), Some(nonce));
                    for old in 0..=nonce {
                        let known = window.look_up(old, old + 1);
                        let kept = stored.iter().flatten().any(|answer| answer.nonce == old);
                        assert_eq!(known, if kept { Known::Repeat(answer(old)) } else { Known::TooOld }, "seed {seed}");
                    }
                }
            }
        }
        assert_eq!(Window::from_slots(Vec::new()), Window::default());
        let mut window = Window::from_slots(vec![(7, answer(5))]);
        assert_eq!((window.look_up(0, 0), window.insert(answer(6), 8)), (Known::TooOld, 0));
    }

    #[test]
    fn slots_are_overwritten_in_turn_also_after_a_reload() {
        let mut window = Window::default();
        let mut stored: Vec<Option<Answer>> = vec![None; 3];
        for nonce in 1..20 {
            let slot = window.insert(answer(nonce), 3);
            stored[slot as usize] = Some(answer(nonce));
            let reloaded = Window::from_slots(slots(&stored));
            assert_eq!(reloaded, window);
            for old in 1..=nonce {
                let want = if nonce - old < 3 { Known::Repeat(answer(old)) } else { Known::TooOld };
                assert_eq!(window.look_up(old, old + 1), want, "{old} after {nonce}");
            }
        }
    }
}
