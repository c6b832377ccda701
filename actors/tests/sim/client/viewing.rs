//! A room as a client sees it, checked with each frame against what it holds and what the store has.

use bytes::Bytes;
use parlor_actors::{message::Conn, port::DeviceKey, testkit::with_deliver};
use parlor_protocol::{
    Epoch, Header, Name, Nonce, RoomNumber, Seq,
    frame::HEADER_BYTES,
    message::{Ack, Deliver, Direction, Durability, Gap, GapReason, JoinFrom, Joined, Page},
};

use super::{Memory, Standing, View};
use crate::house::{CLUB_NUMBER, House, durability_of};

impl View {
    pub(super) fn is_in(&self) -> bool {
        matches!(self.standing, Standing::In | Standing::Leaving)
    }

    pub(super) fn leave(&mut self) {
        self.standing = Standing::Out;
        (self.sure, self.told) = (false, false);
        self.stalled = false;
        self.sent = 0;
        self.present = None;
    }

    pub(super) fn on_joined(&mut self, joined: &Joined<'_>, from: JoinFrom) {
        assert_eq!(self.standing, Standing::Joining);
        assert_eq!(joined.durability, durability_of(&self.name));
        let Joined { cursor, tail, first, epoch, .. } = *joined;
        assert!(first - 1 <= cursor && cursor <= tail, "{joined:?}");
        let resumes = self.known && from == JoinFrom::Position(self.epoch, self.position);
        let exact = match from {
            JoinFrom::Position(of, seq) => of == epoch && seq == cursor,
            JoinFrom::Tail => cursor == tail,
            JoinFrom::Newest(n) => cursor == tail.saturating_sub(u64::from(n)).max(first - 1),
            JoinFrom::Seq(seq) => cursor == seq.saturating_sub(1),
        };
        self.owed = (!exact).then_some((from, epoch, cursor));
        if !resumes {
            self.held.clear();
            (self.position, self.epoch) = (cursor, epoch);
        }
        assert!(exact || !matches!(from, JoinFrom::Tail | JoinFrom::Newest(_)), "{joined:?} for {from:?}");
        (self.standing, self.number, self.known, self.sure) = (Standing::In, joined.room, true, true);
        self.told = false;
    }

    pub(super) fn on_gap(&mut self, house: &mut House, gap: &Gap<'_>) {
        let Gap { epoch, from, to, why, .. } = *gap;
        let first = house.store.extent(&self.name).map_or(1, |(first, _)| first);
        let gap_from = std::mem::take(&mut self.gap_from);
        let (owes_gap, was_added) = (std::mem::take(&mut self.owes_gap), std::mem::take(&mut self.was_added));
        match (self.owed.take(), why) {
            // He may have been added and put out again between two looks at the table.
            (None, _) if owes_gap || was_added && to == self.position => {
                let known = gap_from.contains(&from) || why == GapReason::NOT_YOURS && was_added;
                assert!(known && (epoch, to) == (self.epoch, self.position), "{gap:?}");
                house.count("gap: as it was added");
            }
            (Some((asked, of, cursor)), _) => {
                assert_eq!((epoch, to), (of, cursor), "the gap behind a join ends at the cursor");
                match (asked, why) {
                    (JoinFrom::Position(held, position), GapReason::NEW_EPOCH) => {
                        assert!(held != epoch && from <= position + 1 && from <= to + 1, "{gap:?}");
                        self.disown(from);
                        house.count("gap: new epoch at a join");
                    }
                    (JoinFrom::Position(_, position), GapReason::TRIMMED) => {
                        assert_eq!(from, position + 1);
                        house.count("gap: trimmed at a join");
                    }
                    (JoinFrom::Position(_, position), GapReason::EXPIRED) => {
                        assert_eq!(from, position + 1);
                        house.count("gap: expired at a join");
                    }
                    (JoinFrom::Position(_, position), GapReason::NOT_YOURS) => {
                        assert_eq!((gap.room, from), (CLUB_NUMBER, position + 1));
                        house.count("gap: not yours at a join");
                    }
                    (JoinFrom::Seq(seq), GapReason::NOT_YOURS) => assert_eq!(from, seq.max(1)),
                    (JoinFrom::Seq(seq), GapReason::TRIMMED | GapReason::EXPIRED) => assert_eq!(from, seq.max(1)),
                    (JoinFrom::Seq(seq), GapReason::ABOVE_TAIL) => assert!(seq > to + 1 && from == to + 1),
                    _ => panic!("{gap:?} behind a join from {asked:?}"),
                }
            }
            (None, GapReason::NEW_EPOCH) => {
                assert!(epoch != self.epoch && from <= self.position + 1 && from <= to + 1, "{gap:?}");
                self.disown(from);
                house.count("gap: new epoch while joined");
            }
            (None, GapReason::TRIMMED) => {
                assert_eq!((epoch, from), (self.epoch, self.position + 1), "{gap:?}");
                assert!(to >= from);
                house.count("gap: trimmed while joined");
            }
            (None, GapReason::EXPIRED) => {
                assert_eq!((epoch, from), (self.epoch, self.position + 1), "{gap:?}");
                assert!(to >= from);
                house.count("gap: expired while joined");
            }
            (None, GapReason::NOT_YOURS) => {
                assert_eq!((gap.room, epoch, from), (CLUB_NUMBER, self.epoch, self.position + 1), "{gap:?}");
                assert!(to >= from);
                house.count("gap: not yours while joined");
            }
            (None, _) => panic!("{gap:?} out of nothing"),
        }
        if why == GapReason::EXPIRED && durability_of(&self.name) != Durability::Memory {
            for seq in from..=to {
                let expires =
                    house.store.frame(gap.room, seq).map(|frame| with_deliver(&frame, |record| record.expires));
                // What somebody trimmed behind the channel's back counts as expired when a sweep passes it. So does a
                // change of that.
                let trimmed = house.store.trimmed(&self.name);
                let orphan = house.store.frame(gap.room, seq).is_some_and(|frame| {
                    with_deliver(&frame, |record| record.kind.is_change() && record.refers_to < trimmed)
                });
                let lives = expires.is_some_and(|expires| expires == 0) && seq >= trimmed && !orphan;
                assert!(!lives, "{gap:?}, but {seq} lives for ever");
            }
        }
        if why == GapReason::TRIMMED && durability_of(&self.name) != Durability::Memory {
            assert!(to < first, "{gap:?} tells of records that are there, from {first} on");
        }
        (self.epoch, self.position) = (epoch, to);
    }

    /// What is held from here on is no longer the room's.
    pub(super) fn disown(&mut self, from: Seq) {
        self.held.split_off(&from);
        // Nor are changes from here on, also those of records before: they would be fetched anew.
        self.held.retain(|_, frame| with_deliver(frame, |deliver| deliver.changed().revision < from));
    }

    pub(super) fn on_deliver(&mut self, house: &mut House, memory: &mut Memory, me: &DeviceKey, frame: &Bytes) {
        assert!(self.owed.is_none() && !self.owes_gap, "a join's gap is told first");
        with_deliver(frame, |deliver| {
            assert_eq!(deliver.seq, self.position + 1, "{}: a hole or a repeat", self.name);
            check_stored(house, memory, &self.name, self.epoch, deliver.room, deliver.seq, frame);
            check_shown(house, self.place, me, deliver.room, deliver.seq);
            if (deliver.sender, deliver.device_tag) == (&*me.user, me.tag)
                && let Some((epoch, seq)) = self.acked.get(&deliver.nonce)
                && *epoch == self.epoch
            {
                assert_eq!(*seq, deliver.seq, "a message is delivered where its ack says");
            }
            self.position = deliver.seq;
            self.gap_from.clear();
            self.was_added = false;
            self.held.insert(deliver.seq, frame.clone());
        });
    }

    pub(super) fn on_ack(&mut self, ack: &Ack<'_>, nonce: Nonce) {
        assert_eq!((ack.nonce, ack.room, ack.durability), (nonce, self.number, durability_of(&self.name)));
        // A `memory` room that was rebuilt has forgotten what it acknowledged, and takes a retry for new.
        if ack.durability != Durability::Memory
            && let Some((_, seq)) = self.acked.insert(nonce, (self.epoch, ack.seq))
        {
            assert_eq!(seq, ack.seq, "a retried send is one message");
        }
        self.outbox.retain(|message| message.nonce != nonce);
    }

    pub(super) fn on_page(
        &mut self,
        house: &mut House,
        memory: &mut Memory,
        me: &DeviceKey,
        page: &Page<'_>,
        (start, direction): (Option<Seq>, Direction),
    ) {
        let mut covered: Vec<(Seq, Seq)> = page.gaps.0.iter().map(|gap| (gap.from, gap.to)).collect();
        let mut records = page.records;
        while let Some(header) = records.first_chunk() {
            let size = HEADER_BYTES + Header::from_bytes(header).len as usize;
            let (frame, rest) = records.split_at(size);
            let seq = with_deliver(frame, |deliver| deliver.seq);
            check_stored(house, memory, &self.name, page.epoch, page.room, seq, &Bytes::copy_from_slice(frame));
            check_shown(house, self.place, me, page.room, seq);
            covered.push((seq, seq));
            records = rest;
        }
        covered.sort_unstable();
        for pair in covered.windows(2) {
            assert_eq!(pair[0].1 + 1, pair[1].0, "a page has no holes");
        }
        assert!(covered.len() <= house.limits.page_records_max as usize + 1, "a page's limit");
        let (Some((low, _)), Some((_, high))) = (covered.first(), covered.last()) else {
            assert_eq!(page.next, None, "an empty page is the last");
            return;
        };
        assert!(*high <= page.tail, "a page ends at the tail");
        match direction {
            Direction::Forward => {
                assert!(start.is_none_or(|start| start.max(1) == *low), "{start:?} begins at {low}");
                assert_eq!(page.next, (*high < page.tail).then_some(high + 1));
            }
            Direction::Backward => {
                assert_eq!(*high, start.unwrap_or(page.tail).min(page.tail));
                assert!(page.next.is_none_or(|next| next == low - 1));
            }
        }
    }
}

/// What reaches a client is stored, as it is; of `memory` rooms, whoever gets a record gets the same.
fn check_stored(
    house: &House,
    memory: &mut Memory,
    name: &Name,
    epoch: Epoch,
    room: RoomNumber,
    seq: Seq,
    frame: &Bytes,
) {
    if durability_of(name) == Durability::Memory {
        let known = memory.entry((room, epoch, seq)).or_insert_with(|| frame.clone());
        let same = |a: &Deliver<'_>, b: &Deliver<'_>| {
            let revised = a.changed().revision != b.changed().revision;
            (a.seq, a.sender, a.nonce, a.kind, a.count) == (b.seq, b.sender, b.nonce, b.kind, b.count)
                && (revised || a == b)
        };
        let same = with_deliver(known, |known| with_deliver(frame, |deliver| same(known, deliver)));
        assert!(same, "{name}: two records under seq {seq}");
    } else {
        assert!(house.store.holds(room, seq, frame), "{name}: seq {seq} is not stored");
    }
}

/// Of the club, what reaches a client is for its user.
fn check_shown(house: &House, place: Option<(Conn, u32)>, me: &DeviceKey, room: RoomNumber, seq: Seq) {
    if room == CLUB_NUMBER {
        house.club.check_shown(place.unwrap(), &me.user, seq);
    }
}
