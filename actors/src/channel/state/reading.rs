//! Pulls and fetches, and the reads of the store that they share.

use bytes::Bytes;
use parlor_protocol::{Code, Seq};

use super::{BUSY_RETRY_MS, Effect, State, rights::not_yours};
use crate::{
    channel::{
        expiring::expire,
        history::{self, Fetched, Purpose, Source, named, source_of_fetch, source_of_pull, to_page, to_stream},
        orphans,
        refill::{self, Refill},
    },
    members::rights::Act,
    message::{Conn, Fetch, FromChannel},
    port::{Now, Read, Records, StoreError},
};

impl State {
    pub(super) fn on_pull(&mut self, now: Now, conn: Conn, after: Seq) {
        self.serve_pulls(now, vec![conn], after);
    }

    /// Serves subscribers with the same cursor.
    fn serve_pulls(&mut self, now: Now, conns: Vec<Conn>, after: Seq) {
        match source_of_pull(self.room, &self.extent, &self.ring, after, &self.limits, now.unix_ms) {
            Source::Hot(mut records) => {
                orphans::hide(&mut records, &self.extent);
                self.answer_pull(conns, after, &records);
            }
            Source::Cold(read, lowest) => {
                for conn in conns {
                    if let Some(waiters) = self.refilling(now, lowest) {
                        waiters.pull(conn, after);
                        continue;
                    }
                    match self.reads.pull(conn, read, self.limits.reads_per_room_max) {
                        Ok(read) => self.effects.extend(read.map(Effect::Read)),
                        Err(_) => {
                            self.relay(conn.arbiter, FromChannel::Pulled { conns: vec![conn], after, page: None })
                        }
                    }
                }
            }
        }
    }

    pub(super) fn on_fetch(&mut self, now: Now, fetch: Fetch) {
        let Fetch { conn, request, ref device, start, direction, limit } = fetch;
        let Some(rights) = self.rights_of(device) else {
            return self.refuse(conn, request, Code::RoomUnavailable, BUSY_RETRY_MS, "the room is being rebuilt");
        };
        if !rights.may(self.people.kind, Act::Join) {
            return self.refuse(conn, request, Code::Forbidden, 0, "the user may not read this room");
        }
        let (wanted, tail) = ((start, direction, limit), self.extent.tail);
        let hidden = self.seen_by(rights);
        let extent = hidden.as_ref().unwrap_or(&self.extent);
        let mut source = source_of_fetch(self.room, extent, &self.ring, wanted, &self.limits, now.unix_ms);
        if let Source::Hot(records) = &mut source {
            orphans::hide(records, &self.extent);
            if let Some(seen) = &hidden {
                not_yours(records, seen.first);
            }
        }
        match source {
            Source::Hot(records) => self.answer_fetch(Fetched { conn, request, tail }, &records, records.next),
            Source::Cold(read, lowest) => {
                if let Some(waiters) = self.refilling(now, lowest) {
                    return waiters.fetch(fetch);
                }
                match self.reads.fetch(Fetched { conn, request, tail }, read, self.limits.reads_per_room_max) {
                    Ok(read) => self.effects.extend(read.map(Effect::Read)),
                    Err(_) => self.refuse(conn, request, Code::Busy, BUSY_RETRY_MS, "too many reads of this room"),
                }
            }
        }
    }

    /// Those who wait for the ring to be refilled, if that will bring what is wanted, down to `lowest`. The first one to
    /// want it has it read.
    fn refilling(&mut self, now: Now, lowest: Seq) -> Option<&mut refill::Waiters> {
        // While memory is short, what was read would soon fall off.
        if matches!(self.refill, Refill::Done | Refill::Again) || self.pools.ring_bytes.is_short() {
            return None;
        }
        let most = self.share.most();
        let read: Read = refill::read_of(self.room, &self.extent, &self.ring, most, now.unix_ms)?;
        if lowest < read.end {
            return None;
        }
        if matches!(self.refill, Refill::Idle) {
            let new = self.reads.refill(read, self.limits.reads_per_room_max).ok()?;
            self.effects.push_back(Effect::Read(new));
            self.refill = Refill::UnderWay(refill::Waiters::default());
        }
        match &mut self.refill {
            Refill::UnderWay(waiters) if waiters.len < self.limits.refill_waiters_per_room_max => Some(waiters),
            _ => None,
        }
    }

    /// Whether the read that refills the ring is yet to come back, and to bring this record.
    pub(super) fn refill_brings(&self, seq: Seq) -> bool {
        let comes = match self.refill {
            Refill::UnderWay(_) => true,
            Refill::Idle => !self.pools.ring_bytes.is_short(),
            Refill::Done | Refill::Again => false,
        };
        let read = || refill::read_of(self.room, &self.extent, &self.ring, self.share.most(), 0);
        comes && read().is_some_and(|read| read.end <= seq)
    }

    pub(super) fn on_read(&mut self, now: Now, id: u64, records: Result<Records, StoreError>) {
        let Some(purpose) = self.reads.done(id) else { return };
        let records = records.map(|mut records| {
            self.versions.put_into(&mut records);
            named(&self.extent, records)
        });
        self.versions.forget(self.reads.oldest());
        match (purpose, records) {
            (Purpose::Count, records) => self.on_count_read(id, records),
            (Purpose::Page(waiters), Ok(mut records)) => {
                orphans::hide(&mut records, &self.extent);
                // Whoever came later must not be shown what expired before that.
                let (began, newest) = waiters.times;
                if newest > began {
                    expire(&mut records, newest);
                }
                self.answer_page(waiters, &records);
            }
            (Purpose::Page(waiters), Err(error)) => {
                tracing::warn!(room = %self.name, %error, "a page could not be read");
                self.fail_page(waiters);
            }
            (Purpose::Refill, records) => self.on_refilled(now, records),
            (Purpose::Target(_), _) => debug_assert!(false, "a record to be changed comes as a target"),
        }
    }

    fn answer_page(&mut self, waiters: history::Waiters, records: &Records) {
        for fetched in &waiters.fetches {
            self.answer_fetch(*fetched, records, waiters.next(records, fetched.tail));
        }
        if !waiters.pulls.is_empty() {
            self.answer_pull(waiters.pulls, waiters.start - 1, records);
        }
    }

    fn fail_page(&mut self, waiters: history::Waiters) {
        for Fetched { conn, request, .. } in waiters.fetches {
            self.refuse(conn, request, Code::Busy, BUSY_RETRY_MS, "the page could not be read now");
        }
        let after = waiters.start.saturating_sub(1);
        self.relay_each(waiters.pulls, |conns| FromChannel::Pulled { conns, after, page: None });
    }

    /// The ring's part of the past came back.
    fn on_refilled(&mut self, now: Now, records: Result<Records, StoreError>) {
        let Refill::UnderWay(waiters) = std::mem::replace(&mut self.refill, Refill::Done) else { return };
        let came_back = std::mem::take(&mut self.came_back);
        match records {
            Ok(records) => {
                refill::put_in_front(&mut self.ring, &self.extent, &records);
                // A sweep may have passed meanwhile.
                self.ring.drop_below(self.extent.first);
                for (after, conns) in waiters.pulls {
                    self.serve_pulls(now, conns, after);
                }
                waiters.fetches.into_iter().for_each(|fetch| self.on_fetch(now, fetch));
                came_back.into_iter().for_each(|(user, seq)| self.on_delivered(user, seq));
            }
            Err(error) => {
                tracing::warn!(room = %self.name, %error, "the newest records could not be read");
                // Whoever comes next tries again.
                self.refill = Refill::Idle;
                for (after, conns) in waiters.pulls {
                    self.relay_each(conns, |conns| FromChannel::Pulled { conns, after, page: None });
                }
                for Fetch { conn, request, .. } in waiters.fetches {
                    self.refuse(conn, request, Code::Busy, BUSY_RETRY_MS, "the page could not be read now");
                }
            }
        }
    }

    pub(super) fn answer_pull(&mut self, conns: Vec<Conn>, after: Seq, records: &Records) {
        // A pull from the tail has nothing to bring, and says so: the subscriber is live again.
        let page = to_stream(self.room, &self.extent, records).or(Some((after, Bytes::new())));
        self.relay_each(conns, |conns| FromChannel::Pulled { conns, after, page: page.clone() });
    }

    pub(super) fn answer_fetch(&mut self, fetched: Fetched, records: &Records, next: Option<Seq>) {
        let Fetched { conn, request, tail } = fetched;
        let frame = to_page(self.room, self.extent.epoch(), tail, records, next, request);
        self.relay(conn.arbiter, FromChannel::Answer { conn, request, frame });
    }

    pub(super) fn relay_each(&mut self, conns: Vec<Conn>, news: impl Fn(Vec<Conn>) -> FromChannel) {
        for arbiter in 0..self.subscribers.len() {
            let here: Vec<Conn> = conns.iter().filter(|conn| usize::from(conn.arbiter) == arbiter).copied().collect();
            if let Some(first) = here.first() {
                self.relay(first.arbiter, news(here));
            }
        }
    }
}
