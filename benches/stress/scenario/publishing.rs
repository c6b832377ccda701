//! Publishers whose messages are acknowledged once they are stored: at full speed, each with a window of messages in
//! flight, for a while or up to a number.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{
    CONCURRENCY, CONNECT_LIMIT, not_offered,
    payload::{Noise, Place},
    sessions,
};
use crate::{
    client::Client,
    options::Common,
    peers::{Event, Peer, Role, Session},
    server::Server,
    stats::{Meter, Spent, latency_histogram},
};

/// How long nothing may be acknowledged while something is in flight.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// Publishers that run.
pub(super) struct Publishing<S> {
    client: Client<S>,
    /// When the messages in flight of each connection were published. Acks come in that order.
    sent: Vec<VecDeque<Instant>>,
    /// What has still to come to each connection that receives what it publishes.
    due: Vec<VecDeque<Place>>,
    /// Whether it comes in the order of the publishes: of several rooms each has an order of its own.
    in_order: Vec<bool>,
    published: u64,
    stored: u64,
    delivered: u64,
    progress: Instant,
    noise: Noise,
    /// From publish to ack.
    pub(super) latency: Histogram<u64>,
}

impl<S: Session> Publishing<S> {
    /// So many publishers, each on a connection of its own.
    pub(super) fn connect<P: Peer<Session = S>>(peer: &P, server: &Server, publishers: u32) -> io::Result<Self> {
        let sessions = sessions(peer, 0..publishers, |_| Role::Publisher)?;
        Client::connect(server.addr, sessions, CONCURRENCY, CONNECT_LIMIT).map(Self::new)
    }

    /// Connections that are ready to publish.
    pub(super) fn new(client: Client<S>) -> Self {
        Self {
            sent: vec![VecDeque::new(); client.conns.len()],
            due: vec![VecDeque::new(); client.conns.len()],
            in_order: client.conns.iter().map(|conn| conn.session.positions().len() <= 1).collect(),
            client,
            published: 0,
            stored: 0,
            delivered: 0,
            progress: Instant::now(),
            noise: Noise::new(),
            latency: latency_histogram(),
        }
    }

    /// Publishes for as long as the user wants, measures, and waits for the last ack. `latency` is of the measured time.
    pub(super) fn measure(&mut self, window: usize, server: &Server, common: &Common) -> io::Result<Stored> {
        self.during(window, Duration::from_secs_f64(common.warm))?;
        self.latency.reset();
        let meter = Meter::begin(server)?;
        self.during(window, Duration::from_secs_f64(common.secs))?;
        let spent = meter.end(server)?;
        let messages = self.latency.len() as f64;
        // What was on its way at the end belongs to it: a server that stalls there would else look like a fast one.
        self.upto(window, self.published)?;
        let latency = std::mem::replace(&mut self.latency, latency_histogram());
        if self.client.conns.iter().any(|conn| conn.session.delivers()) {
            self.all_delivered()?;
        }
        Ok(Stored { messages, spent, latency })
    }

    /// Stores so many more messages. Returns how many per second.
    pub(super) fn store(&mut self, messages: u64, window: usize) -> io::Result<f64> {
        let start = Instant::now();
        self.upto(window, self.published + messages)?;
        Ok(messages as f64 / start.elapsed().as_secs_f64())
    }

    /// Waits until all that was published has also come to its publisher, for peers where it does, and hands back the
    /// connections.
    pub(super) fn received(mut self) -> io::Result<Client<S>> {
        self.all_delivered()?;
        Ok(self.client)
    }

    fn all_delivered(&mut self) -> io::Result<()> {
        while self.delivered < self.published {
            self.turn(0, 0)?;
        }
        Ok(())
    }

    fn during(&mut self, window: usize, duration: Duration) -> io::Result<()> {
        let end = Instant::now() + duration;
        self.top_up_all(window, u64::MAX)?;
        while Instant::now() < end {
            self.turn(window, u64::MAX)?;
        }
        Ok(())
    }

    fn upto(&mut self, window: usize, total: u64) -> io::Result<()> {
        self.top_up_all(window, total)?;
        while self.stored < total {
            self.turn(window, total)?;
        }
        Ok(())
    }

    fn top_up_all(&mut self, window: usize, total: u64) -> io::Result<()> {
        self.progress = Instant::now();
        (0..self.sent.len()).try_for_each(|index| self.top_up(index, window, total))
    }

    /// Fills a connection's window, as far as there may be so many messages.
    fn top_up(&mut self, index: usize, window: usize, total: u64) -> io::Result<()> {
        let (conn, sent) = (&mut self.client.conns[index], &mut self.sent[index]);
        let now = Instant::now();
        while sent.len() < window && self.published < total {
            conn.publish(self.noise.next());
            if conn.session.delivers() {
                self.due[index].push_back(self.noise.place());
            }
            sent.push_back(now);
            self.published += 1;
        }
        conn.flush()
    }

    fn turn(&mut self, window: usize, total: u64) -> io::Result<()> {
        let Self { client, sent, due, in_order, stored, delivered, latency, progress, noise, .. } = self;
        // The clock is read once for each connection that is ready.
        let mut read = (usize::MAX, Instant::now());
        client.turn(Duration::from_millis(100), |index, event| {
            if read.0 != index {
                read = (index, Instant::now());
                *progress = read.1;
            }
            match event {
                Event::Stored => {
                    let sent = sent[index].pop_front().ok_or_else(|| io::Error::other("an ack for nothing"))?;
                    latency.saturating_record((read.1 - sent).as_nanos() as u64);
                    *stored += 1;
                }
                Event::Delivery { payload, .. } => {
                    let among = if in_order[index] { 1 } else { due[index].len() };
                    let found = due[index].iter().take(among).position(|place| noise.at(*place) == payload);
                    let found = found.and_then(|at| due[index].remove(at));
                    found.ok_or_else(|| io::Error::other("a message that is not what was published"))?;
                    *delivered += 1;
                }
                _ => {}
            }
            Ok(())
        })?;
        for ready in 0..self.client.ready.len() {
            self.top_up(self.client.ready[ready], window, total)?;
        }
        if self.progress.elapsed() > STALL_LIMIT {
            let Self { published, stored, delivered, .. } = self;
            let what = format!("{stored} stored and {delivered} delivered of {published}");
            return Err(io::Error::other(format!("nothing came for {STALL_LIMIT:?}, with {what}")));
        }
        Ok(())
    }
}

/// What was stored in a measured time.
pub(super) struct Stored {
    /// How many were acknowledged in it.
    messages: f64,
    /// What it cost.
    pub(super) spent: Spent,
    /// From publish to ack, also of those that were in flight at its end.
    pub(super) latency: Histogram<u64>,
}

impl Stored {
    /// How many.
    pub(super) fn messages(&self) -> f64 {
        self.messages
    }
}

/// Prepares the peer; the connection has to stay open.
pub(super) fn setup<P: Peer>(peer: &P, server: &Server) -> io::Result<Client<P::Session>> {
    let session = peer.session(u32::MAX >> 15, Role::Setup).ok_or_else(not_offered)?;
    Client::connect(server.addr, [session], 1, Duration::from_secs(10))
}
