//! Counts: how many countable records there are up to some place. It is known, or looked for in the store.

use parlor_protocol::{Code, Header, Name, Seq, frame::HEADER_BYTES, message::Direction, peek};

use super::{
    BUSY_RETRY_MS, Effect, State,
    receipts::{Arrival, Told},
};
use crate::port::{Mark, Marks, Read, Records, Run, StoreError};

/// Where more is gone after each read, so many have to do.
const GONE_READS_MAX: u32 = 4;

/// A count that is looked for in the store.
#[derive(Debug)]
pub(super) struct Counting {
    pub(super) user: Name,
    /// Where.
    pub(super) seq: Seq,
    /// The tail when the read began, where it ends; 0 if none did.
    pub(super) tail: Seq,
    pub(super) told: Told,
}

/// What is known of the count of what is gone on purpose.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// The highest place of which it is known.
    known: Mark,
    /// The read that looks for that of the room's beginning, and where it ends…
    reading: Option<(u64, Seq)>,
    /// …how many there were for those who wait…
    tries: u32,
    /// …and who waits for it.
    waiting: Vec<Waiter>,
}

/// Who waits for the count of what is gone.
#[derive(Debug)]
pub(super) enum Waiter {
    Arrival(Arrival),
    /// A user is told where he stands, and his other sessions if he `moved`.
    Tell {
        user: Name,
        told: Told,
        moved: bool,
    },
}

impl Waiter {
    fn user(&self) -> &Name {
        match self {
            Self::Arrival(arrival) => arrival.user(),
            Self::Tell { user, .. } => user,
        }
    }
}

/// The oldest record of some.
#[derive(Clone, Copy, Debug)]
struct Oldest {
    seq: Seq,
    count: u64,
    /// How many countable records there were before it.
    before: u64,
}

impl State {
    /// What lies below `first` is gone, or is about to be, and has this count.
    pub(super) fn learn_gone(&mut self, first: Seq, count: u64) {
        let seq = first.saturating_sub(1);
        if seq >= self.gone.known.seq {
            self.gone.known = Mark { seq, count: count.max(self.gone.known.count) };
        }
    }

    /// The newest record that is gone on purpose. Where its count is not known, the least that it may be.
    pub(super) fn gone(&self) -> Mark {
        Mark { seq: self.extent.first.saturating_sub(1), count: self.gone_counts().0 }
    }

    /// The least and the most that the count of the newest record may be that is gone: each record counts at most once.
    fn gone_counts(&self) -> (u64, u64) {
        let (first, known) = (self.extent.first, self.gone.known);
        let (next, before) = self.oldest_known();
        let (between, beyond) = (next.saturating_sub(first), first.saturating_sub(1).saturating_sub(known.seq));
        // A sweep may have met records whose commit is still on its way here.
        let least = before.saturating_sub(between).max(known.count).min(self.committed_count);
        let most = before.min(known.count.saturating_add(beyond)).min(self.committed_count);
        (least, most.max(least))
    }

    /// The oldest record in memory, or the place behind the tail, and how many countable records there were before it.
    fn oldest_known(&self) -> (Seq, u64) {
        let first = self.ring.first();
        self.ring.count_before(first).map_or((self.extent.tail + 1, self.committed_count), |before| (first, before))
    }

    /// Who is told how a user stands waits until the count of what is gone is known. It is read once for all of them; where
    /// it cannot be, the least that it may be has to do.
    pub(super) fn wait_for_gone(&mut self, waiter: Waiter) -> Option<Waiter> {
        if self.gone_is_known() || self.gone.waiting.len() >= self.limits.waiters_per_room_max {
            return Some(waiter);
        }
        if self.gone.reading.is_none() {
            self.gone.tries = 0;
            self.read_gone(self.extent.first);
        }
        if self.gone.reading.is_none() {
            return Some(waiter);
        }
        self.users.pin(waiter.user());
        self.gone.waiting.push(waiter);
        None
    }

    fn gone_is_known(&self) -> bool {
        let (least, most) = self.gone_counts();
        least == most
    }

    /// Looks for the oldest record from `from` on, up to where memory knows more.
    fn read_gone(&mut self, from: Seq) {
        let end = self.oldest_known().0.saturating_sub(1);
        self.gone.reading = self.read_one(from, end).ok().map(|id| (id, end));
    }

    fn on_gone_read(&mut self, end: Seq, records: Result<Records, StoreError>) {
        self.gone.reading = None;
        match records {
            Ok(records) => {
                let (next, before) = self.oldest_known();
                match (records.runs.iter().find_map(oldest), records.next) {
                    // Those between are gone.
                    (Some(Oldest { seq, before, .. }), _) => self.learn_gone(seq, before),
                    (None, Some(next)) => self.read_gone(next),
                    // What has fallen out of memory since was not looked at.
                    (None, None) if next > end + 1 => self.read_gone(end + 1),
                    (None, None) => self.learn_gone(next, before),
                }
                // More may be gone since.
                self.gone.tries += 1;
                if self.gone.reading.is_none() && !self.gone_is_known() && self.gone.tries < GONE_READS_MAX {
                    self.read_gone(self.extent.first);
                }
            }
            Err(error) => tracing::debug!(room = %self.name, %error, "the count of what is gone could not be read"),
        }
        if self.gone.reading.is_some() {
            return;
        }
        for waiter in std::mem::take(&mut self.gone.waiting) {
            let user = waiter.user().clone();
            self.users.unpin(&user);
            self.gone_known(waiter);
            self.users.settle(&user);
        }
    }

    fn gone_known(&mut self, waiter: Waiter) {
        match waiter {
            Waiter::Arrival(arrival) => self.let_in(arrival),
            Waiter::Tell { user, told, moved } => {
                if moved {
                    self.tell_others(&user, &told);
                }
                self.tell(&user, told);
            }
        }
    }

    /// Finds out the count at a seq: it is here, or it is read.
    pub(super) fn find_count(&mut self, counting: Counting) {
        match self.count_at(counting.seq) {
            Some(count) => self.on_counted(counting, count),
            None => {
                self.users.pin(&counting.user);
                let (from, tail) = (counting.seq, self.extent.tail);
                self.read_count(Counting { tail, ..counting }, from);
            }
        }
    }

    pub(super) fn count_at(&self, seq: Seq) -> Option<u64> {
        if seq == self.extent.tail {
            Some(self.committed_count)
        } else if seq < self.extent.first {
            Some(self.gone().count)
        } else {
            self.ring.count(seq)
        }
    }

    /// Reads the oldest record from `from` on.
    fn read_count(&mut self, counting: Counting, from: Seq) {
        let tail = self.extent.tail;
        match self.read_one(from, tail) {
            Ok(id) => self.counting.push((id, Counting { tail, ..counting })),
            Err(error) => self.on_not_counted(counting, error),
        }
    }

    /// Reads the oldest record from `start` to `end`; the number of the read.
    fn read_one(&mut self, start: Seq, end: Seq) -> Result<u64, StoreError> {
        let read = Read {
            room: self.room,
            start,
            end,
            direction: Direction::Forward,
            records_max: 1,
            bytes_max: 1,
            now: 0, // What expired has a count as well.
        };
        let read = self.reads.count(read, self.limits.reads_per_room_max)?;
        let id = read.id;
        self.effects.push_back(Effect::Read(read));
        Ok(id)
    }

    pub(super) fn on_count_read(&mut self, id: u64, records: Result<Records, StoreError>) {
        if let Some((_, end)) = self.gone.reading.filter(|(reading, _)| *reading == id) {
            return self.on_gone_read(end, records);
        }
        let Some(at) = self.counting.iter().position(|(read, _)| *read == id) else { return };
        let (_, counting) = self.counting.swap_remove(at);
        let records = match records {
            Ok(records) => records,
            Err(error) => return self.on_not_counted(counting, error),
        };
        let (seq, tail) = (counting.seq, counting.tail);
        match records.runs.iter().find_map(oldest) {
            Some(Oldest { seq: first, count, .. }) if first == seq => self.on_counted(counting, count),
            // Those between are gone, and what cannot be read counts as read.
            Some(Oldest { before, .. }) => self.on_counted(counting, before),
            None => match (records.next, self.count_at(tail)) {
                (Some(next), _) => self.read_count(counting, next),
                (None, Some(count)) => self.on_counted(counting, count),
                (None, None) => self.read_count(counting, tail + 1),
            },
        }
    }

    fn on_counted(&mut self, Counting { user, seq, tail, told }: Counting, count: u64) {
        let mark = Mark { seq, count };
        let read = if matches!(told, Told::Nobody) { Mark::default() } else { mark };
        let before = self.users.marks(&user).map(|marks| marks.read);
        // Who has read it has received it.
        let mut moved = false;
        if self.users.raise(&user, &Marks { read, delivered: mark, ..Marks::default() }) {
            self.save_soon();
            moved = self.users.marks(&user).map(|marks| marks.read) != before;
        }
        let tells = moved || !matches!(told, Told::Nobody);
        if tells && let Some(waiter) = self.wait_for_gone(Waiter::Tell { user: user.clone(), told, moved }) {
            self.gone_known(waiter);
        }
        self.end_count(&user, tail);
    }

    fn on_not_counted(&mut self, Counting { user, tail, told, .. }: Counting, error: StoreError) {
        match told {
            Told::Nobody => {} // The next beat that moves says more.
            Told::Session(conn, request) => {
                self.refuse(conn, request, Code::Busy, BUSY_RETRY_MS, "the record could not be read now");
            }
            Told::Host(reply) => self.effects.push_back(Effect::TellHost(reply, Err(error))),
        }
        self.end_count(&user, tail);
    }

    fn end_count(&mut self, user: &Name, tail: Seq) {
        if tail > 0 {
            self.users.unpin(user);
            self.users.settle(user);
        }
    }
}

fn oldest(run: &Run) -> Option<Oldest> {
    let Run::Frames { first, frames, .. } = run else { return None };
    let header = Header::from_bytes(frames.first_chunk()?);
    let body = frames.get(HEADER_BYTES..HEADER_BYTES + header.len as usize)?;
    Some(Oldest { seq: *first, count: peek::count(body).ok()?, before: peek::count_before(body).ok()? })
}
