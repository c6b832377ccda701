//! Pulls and fetches, and the reads of the store that they share.

use bytes::Bytes;
use parlor_protocol::{Code, Seq};

use super::{BUSY_RETRY_MS, Effect, State};
use crate::{
    channel::history::{Purpose, Source, source_of_fetch, source_of_pull, to_page, to_stream},
    message::{Conn, Fetch, FromChannel},
    port::{Now, Records, StoreError},
};

impl State {
    pub(super) fn on_pull(&mut self, now: Now, conn: Conn, after: Seq) {
        match source_of_pull(self.room, &self.extent, &self.ring, after, &self.limits, now.unix_ms) {
            Source::Hot(records) => self.answer_pull(vec![conn], after, &records),
            Source::Cold(read) => match self.reads.pull(conn, after, read, self.limits.reads_per_room_max) {
                Ok(read) => self.effects.extend(read.map(Effect::Read)),
                Err(_) => self.relay(conn.arbiter, FromChannel::Pulled { conns: vec![conn], after, page: None }),
            },
        }
    }

    pub(super) fn on_fetch(&mut self, now: Now, fetch: Fetch) {
        let Fetch { conn, request, start, direction, limit } = fetch;
        let wanted = (start, direction, limit);
        match source_of_fetch(self.room, &self.extent, &self.ring, wanted, &self.limits, now.unix_ms) {
            Source::Hot(records) => self.answer_fetch(conn, request, self.extent.tail, &records),
            Source::Cold(read) => {
                match self.reads.fetch(conn, request, self.extent.tail, read, self.limits.reads_per_room_max) {
                    Ok(read) => self.effects.push_back(Effect::Read(read)),
                    Err(_) => self.refuse(conn, request, Code::Busy, BUSY_RETRY_MS, "too many reads of this room"),
                }
            }
        }
    }

    pub(super) fn on_read(&mut self, id: u64, records: Result<Records, StoreError>) {
        let Some(purpose) = self.reads.done(id) else { return };
        match (purpose, records) {
            (Purpose::Count, records) => self.on_count_read(id, records),
            (Purpose::Pull { after, conns }, Ok(records)) => self.answer_pull(conns, after, &records),
            (Purpose::Fetch { conn, request, tail }, Ok(records)) => self.answer_fetch(conn, request, tail, &records),
            (Purpose::Pull { after, conns }, Err(error)) => {
                tracing::warn!(room = %self.name, %error, "a page for lagging subscribers could not be read");
                self.relay_each(conns, |conns| FromChannel::Pulled { conns, after, page: None });
            }
            (Purpose::Fetch { conn, request, .. }, Err(error)) => {
                tracing::warn!(room = %self.name, %error, "a page could not be read");
                self.refuse(conn, request, Code::Busy, BUSY_RETRY_MS, "the page could not be read now");
            }
        }
    }

    pub(super) fn answer_pull(&mut self, conns: Vec<Conn>, after: Seq, records: &Records) {
        // A pull from the tail has nothing to bring, and says so: the subscriber is live again.
        let page = to_stream(self.room, &self.extent, records).or(Some((after, Bytes::new())));
        self.relay_each(conns, |conns| FromChannel::Pulled { conns, after, page: page.clone() });
    }

    pub(super) fn answer_fetch(&mut self, conn: Conn, request: u32, tail: Seq, records: &Records) {
        let frame = to_page(self.room, self.extent.epoch(), tail, records, request);
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
