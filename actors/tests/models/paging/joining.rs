//! Where a join begins, and what it says of what its position has lost.

use parlor_actors::{
    channel::state::Input,
    message::{Attach, Join},
};
use parlor_protocol::{
    Epoch, Seq,
    frame::HEADER_BYTES,
    message::{Gap, GapReason, JoinFrom, Joined},
};

use super::World;
use crate::{
    past::frames,
    room::{CONN, key},
};

impl World {
    pub(super) fn join(&mut self, user: &'static str, from: JoinFrom) {
        if !self.here.insert(user) {
            self.room.give(Input::Detached { arbiter: 0, device: key(user, 1) });
        }
        let is_member = user == "ann" || user == "bob" && self.since.contains_key("bob member");
        if !is_member {
            // Of the past nothing is a stranger's: what he may read begins when he comes, or comes again.
            self.since.insert(user, self.past.tail() + 1);
        }
        self.request += 1;
        self.joins.insert(self.request, (user, from));
        let (conn, request, device) = (CONN, self.request, key(user, 1));
        self.room.give(Input::Join(Join { conn, request, device, from, follows: false }));
        self.hear();
    }

    pub(super) fn on_joined(&mut self, attach: &Attach) {
        let (user, from) = self.joins.remove(&attach.request).unwrap();
        let mut all = frames(&attach.answer).into_iter();
        let (joined, gap) = (all.next().unwrap(), all.next());
        let joined: Joined<'_> = parlor_protocol::decode(&joined[HEADER_BYTES..]).unwrap();
        let gap = gap.as_ref().map(|gap| parlor_protocol::decode::<Gap<'_>>(&gap[HEADER_BYTES..]).unwrap());
        let (first, tail, now) = (joined.first, self.past.tail(), self.room.now.unix_ms);
        let since = self.since(user).min(tail + 1);
        assert!(first >= since.max(self.past.kept_from) && joined.tail == tail, "{joined:?}");
        for seq in 1..first {
            let gone = seq < since || self.past.is_true(seq, GapReason::TRIMMED, since, now);
            assert!(gone, "{seq} may still be read, and {joined:?}");
        }
        // Behind which seq he wants to go on, and whether what he has behind that is no longer the room's.
        let (wanted, anew) = match from {
            JoinFrom::Tail => (tail, false),
            JoinFrom::Newest(n) => (tail.saturating_sub(u64::from(n)).max(first - 1), false),
            JoinFrom::Seq(seq) => (seq.saturating_sub(1), false),
            JoinFrom::Position(epoch, seq) if epoch == self.room.state.epoch() => (seq, false),
            JoinFrom::Position(epoch, seq) => (self.shared(epoch, seq), true),
        };
        let cursor = if wanted > tail { tail } else { wanted.max(first - 1) };
        assert_eq!(joined.cursor, cursor, "{from:?}: {joined:?}");
        let told = gap.map(|gap| (gap.from, gap.to, gap.why));
        if anew {
            assert_eq!(told, Some((wanted.min(cursor) + 1, cursor, GapReason::NEW_EPOCH)), "{from:?}");
        } else if wanted > tail {
            assert_eq!(told, Some((tail + 1, tail, GapReason::ABOVE_TAIL)), "{from:?}");
        } else if wanted < cursor {
            let (low, high, why) = told.unwrap();
            assert_eq!((low, high), (wanted + 1, cursor), "{from:?}");
            assert!(
                (low..=high).all(|seq| self.past.is_true(seq, why, since, now)),
                "{low} to {high} {why:?}, since {since}"
            );
        } else {
            assert_eq!(told, None, "{from:?}");
        }
        self.room.count(told.map_or("join".to_owned(), |(_, _, why)| format!("join: {why:?}")));
    }

    /// How much of what a client of an earlier epoch holds up to `seq` is still the room's.
    pub(super) fn shared(&self, epoch: Epoch, seq: Seq) -> Seq {
        let Some((_, held)) = self.before.iter().find(|(known, _)| *known == epoch) else { return 0 };
        let same = held.iter().zip(&self.past.records).take_while(|(held, now)| **held == now.frame).count() as Seq;
        if self.is_memory() { 0 } else { same.min(seq) }
    }

    pub(super) fn from(&mut self, near: Seq) -> JoinFrom {
        let epoch = match self.room.chance.below(4) {
            0 => Epoch(999),
            1 if !self.before.is_empty() => {
                let at = self.room.chance.below(self.before.len());
                let (epoch, held) = &self.before[at];
                // Nobody holds what nobody was told.
                return JoinFrom::Position(*epoch, near.min(held.len() as Seq));
            }
            _ => self.room.state.epoch(),
        };
        let any = [
            JoinFrom::Tail,
            JoinFrom::Newest(near as u32),
            JoinFrom::Seq(near),
            JoinFrom::Seq(u64::MAX),
            JoinFrom::Position(epoch, near),
        ];
        self.room.chance.pick(&any)
    }
}
