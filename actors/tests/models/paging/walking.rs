//! From anywhere to the end, page by page.

use parlor_protocol::{
    Seq,
    message::{Direction, GapReason},
};

use super::{USERS, World};
use crate::past::{Said, Told};

impl World {
    /// At rest, from anywhere to the end, page by page: together they are what may be read there, and nothing is left out.
    pub(super) fn walk(&mut self) {
        self.rest();
        let user = self.room.chance.pick(&USERS);
        if !self.here.contains(user) {
            return;
        }
        let direction = self.room.chance.pick(&[Direction::Forward, Direction::Backward]);
        let (tail, limit) = (self.past.tail(), self.room.chance.pick(&[0, 1, 4, 1_000]));
        let begin = 1 + self.room.chance.any() % (tail + 1);
        let (mut start, mut all) = (begin, Vec::new());
        loop {
            self.ask(user, Some(start), direction, limit);
            let told = self.answer();
            all.extend(told.all);
            let Some(next) = told.next else { break };
            start = next;
        }
        all.sort_by_key(|(seq, _)| *seq);
        let seqs: Vec<Seq> = all.iter().map(|(seq, _)| *seq).collect();
        if direction == Direction::Forward {
            assert_eq!(seqs, (begin..=tail).collect::<Vec<_>>(), "{direction:?} from {begin}");
        } else {
            let low = seqs.first().copied().unwrap_or(1);
            assert_eq!(seqs, (low..=begin.min(tail)).collect::<Vec<_>>(), "{direction:?} from {begin}");
            let (since, now) = (self.since(user), self.room.now.unix_ms);
            let below = (1..low).all(|seq| seq < since || self.past.is_true(seq, GapReason::TRIMMED, 0, now));
            assert!(below, "what is below {low} is left out");
        }
        for (seq, said) in &all {
            let gone = self.past.is_gone(*seq, self.room.now.unix_ms) || *seq < self.since(user);
            assert!(!gone || !matches!(said, Said::Shown(_)), "{seq} is shown");
        }
        self.room.count(format!("walk {direction:?}"));
    }

    /// The answer to the only page that was asked for.
    pub(super) fn answer(&mut self) -> Told {
        while self.asked.contains_key(&self.request) {
            let _ = self.turn() || self.room.store.step_reader();
        }
        self.newest_page.take().unwrap()
    }
}
