//! Many clients that come at once.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{CONNECT_LIMIT, follow::Follow, traffic::nanos};
use crate::{
    client::Client,
    peers::{Position, Session},
    stats::latency_histogram,
};

/// After so many new connections, answers are looked for; none is waited for.
const OPENED_PER_TURN: usize = 64;

/// Clients that came, or are coming.
pub(super) struct Storm<S> {
    client: Client<S>,
    /// What they receive.
    pub(super) follow: Follow,
    /// What all times are counted from.
    start: Instant,
    opened: Vec<u64>,
    there: Vec<bool>,
    missing: usize,
    /// How long each took.
    pub(super) took: Histogram<u64>,
}

impl<S: Session> Storm<S> {
    /// Connects all `sessions`, without waiting for any, and then waits until every member is there as `there` has it.
    pub(super) fn come(
        addr: SocketAddr,
        sessions: Vec<S>,
        follow: Follow,
        start: Instant,
        there: impl Fn(&Follow, usize) -> bool,
    ) -> io::Result<Self> {
        let count = sessions.len();
        let mut storm = Self {
            client: Client::new()?,
            follow,
            start,
            opened: Vec::with_capacity(count),
            there: vec![false; count],
            missing: count,
            took: latency_histogram(),
        };
        for (index, session) in sessions.into_iter().enumerate() {
            storm.opened.push(nanos(start));
            storm.client.open(addr, session)?;
            if index % OPENED_PER_TURN == 0 {
                storm.turn(Duration::ZERO, &there)?;
            }
        }
        storm.wait(&there)?;
        Ok(storm)
    }

    /// Waits until every member has all that was `published` in its room.
    pub(super) fn catch_up(&mut self, published: &[u64]) -> io::Result<()> {
        let has_all = |follow: &Follow, index| follow.has_all(index, published);
        self.there = (0..self.there.len()).map(|index| has_all(&self.follow, index)).collect();
        self.missing = self.there.iter().filter(|there| !**there).count();
        self.wait(&has_all)
    }

    /// Cuts all connections, and says where each was.
    pub(super) fn cut(self) -> io::Result<Vec<Position>> {
        let positions: Option<Vec<_>> =
            self.client.conns.iter().map(|conn| conn.session.positions().first().copied()).collect();
        positions.ok_or_else(|| io::Error::other("a member without a position"))
    }

    fn wait(&mut self, there: &impl Fn(&Follow, usize) -> bool) -> io::Result<()> {
        let deadline = Instant::now() + CONNECT_LIMIT;
        while self.missing > 0 {
            self.turn(Duration::from_millis(100), there)?;
            if Instant::now() > deadline {
                let Self { missing, opened, .. } = self;
                let (all, why) = (opened.len(), format!("were not there after {CONNECT_LIMIT:?}"));
                return Err(io::Error::other(format!("{missing} of {all} {why}")));
            }
        }
        Ok(())
    }

    fn turn(&mut self, timeout: Duration, there: &impl Fn(&Follow, usize) -> bool) -> io::Result<()> {
        let Self { client, follow, start, opened, there: arrived, missing, took } = self;
        client.turn(timeout, |index, event| {
            let now = nanos(*start);
            follow.on(index, &event, now)?;
            if !arrived[index] && there(follow, index) {
                arrived[index] = true;
                *missing -= 1;
                took.saturating_record(now - opened[index]);
            }
            Ok(())
        })
    }
}
