//! Publishes and receives in a fan-out, at full speed or at a pace.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{fanout::Load, flight::Flight};
use crate::{
    client::Client,
    peers::{Event, Session},
};

/// How long the messages in flight may take to arrive after the last was published.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// A fan-out that runs.
pub(super) struct Run<S> {
    /// Its messages.
    pub(super) flight: Flight,
    client: Client<S>,
    start: Instant,
    /// When the pace began, and the publishes that it has asked for so far.
    paced: Option<Duration>,
    due: u64,
    touched: Vec<usize>,
}

impl<S: Session> Run<S> {
    /// Nothing is published yet. Times are counted from `start`.
    pub(super) fn new(load: &Load, client: Client<S>, start: Instant) -> Self {
        Self { flight: Flight::new(load), client, start, paced: None, due: 0, touched: Vec::new() }
    }

    /// Nanoseconds since the start.
    pub(super) fn now(&self) -> u64 {
        nanos(self.start)
    }

    /// Publishes and receives for so long.
    pub(super) fn go_on(&mut self, load: &Load, duration: Duration) -> io::Result<()> {
        let end = self.start.elapsed() + duration;
        loop {
            let now = self.start.elapsed();
            if now >= end {
                return Ok(());
            }
            if load.rate > 0.0 {
                self.publish_due(load, now);
            } else {
                self.publish_ready();
            }
            self.flush()?;
            self.receive(Duration::from_millis(if load.rate > 0.0 { 1 } else { 20 }))?;
        }
    }

    /// Every publisher publishes so many messages, or as many as its window takes, and all of them come to all.
    pub(super) fn publish_each(&mut self, messages: usize) -> io::Result<()> {
        for publisher in 0..self.flight.publishers() {
            let stamp = self.now();
            for _ in 0..messages.min(self.flight.free(publisher)) {
                self.publish(publisher, stamp);
            }
        }
        self.flush()?;
        self.drain()
    }

    fn flush(&mut self) -> io::Result<()> {
        let Self { touched, client, .. } = self;
        touched.drain(..).try_for_each(|conn| client.conns[conn].flush())
    }

    /// Takes the messages that are due from the publishers in turn; a full window skips one.
    fn publish_due(&mut self, load: &Load, now: Duration) {
        let paced = *self.paced.get_or_insert(now);
        let due = ((now - paced).as_secs_f64() * load.rate) as u64;
        for index in std::mem::replace(&mut self.due, due)..due {
            let publisher = index as usize % self.flight.publishers();
            if self.flight.free(publisher) == 0 {
                self.flight.skipped += 1;
                continue;
            }
            let stamp = self.now();
            self.publish(publisher, stamp);
        }
    }

    /// Fills the windows of all publishers that have room in theirs.
    fn publish_ready(&mut self) {
        for publisher in self.flight.take_ready() {
            let stamp = self.now();
            for _ in 0..self.flight.free(publisher) {
                self.publish(publisher, stamp);
            }
        }
    }

    fn publish(&mut self, publisher: usize, stamp: u64) {
        let (conn, payload) = self.flight.publish(publisher, stamp);
        self.client.conns[conn].publish(&payload);
        if self.touched.last() != Some(&conn) {
            self.touched.push(conn);
        }
    }

    fn receive(&mut self, timeout: Duration) -> io::Result<()> {
        let (client, flight, start) = (&mut self.client, &mut self.flight, self.start);
        // The clock is read once for each connection that is ready.
        let mut read = (usize::MAX, 0);
        client.turn(timeout, |index, event| {
            let Event::Delivery { payload, sender } = event else { return Ok(()) };
            if read.0 != index {
                read = (index, nanos(start));
            }
            flight.delivered(index, payload, sender, read.1)
        })
    }

    /// Waits until all that was published has come to all.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + DRAIN_LIMIT;
        while self.flight.in_flight() > 0 {
            self.receive(Duration::from_millis(20))?;
            if Instant::now() > deadline {
                let lost = self.flight.in_flight();
                return Err(io::Error::other(format!("{lost} messages did not come to all in {DRAIN_LIMIT:?}")));
            }
        }
        Ok(())
    }
}

/// Nanoseconds since `start`.
pub(super) fn nanos(start: Instant) -> u64 {
    start.elapsed().as_nanos() as u64
}
