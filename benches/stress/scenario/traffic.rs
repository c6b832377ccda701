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
    /// Publishes that the pace has asked for so far.
    due: u64,
    touched: Vec<usize>,
}

impl<S: Session> Run<S> {
    /// Nothing is published yet.
    pub(super) fn new(load: &Load, client: Client<S>) -> Self {
        Self { flight: Flight::new(load), client, start: Instant::now(), due: 0, touched: Vec::new() }
    }

    fn now(&self) -> u64 {
        nanos(self.start)
    }

    /// Publishes and receives until `end` after the start.
    pub(super) fn until(&mut self, load: &Load, end: Duration) -> io::Result<()> {
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
            for conn in self.touched.drain(..) {
                self.client.conns[conn].flush()?;
            }
            self.receive(Duration::from_millis(if load.rate > 0.0 { 1 } else { 20 }))?;
        }
    }

    /// Takes the messages that are due from the publishers in turn; a full window skips one.
    fn publish_due(&mut self, load: &Load, now: Duration) {
        let due = (now.as_secs_f64() * load.rate) as u64;
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
        client.wait(timeout)?;
        for &index in &client.ready {
            let mut now = None;
            let mut wrong = None;
            client.conns[index].receive(&mut client.scratch, |event| {
                if let Event::Delivery { payload, sender } = event {
                    let now = *now.get_or_insert_with(|| nanos(start));
                    if let Err(error) = flight.delivered(index, payload, sender, now) {
                        wrong.get_or_insert(error);
                    }
                }
            })?;
            if let Some(error) = wrong {
                return Err(error);
            }
        }
        Ok(())
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

fn nanos(start: Instant) -> u64 {
    start.elapsed().as_nanos() as u64
}
