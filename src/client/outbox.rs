//! What one room still has to say: sends in order, from their call to their ack.
//!
//! `entries[..sent]` are in flight on this connection, the others wait. A refusal "for now" makes the refused one and all
//! behind it wait again (go back n); a lost connection makes all of them wait again. Nonces never change once sent.

use std::{collections::VecDeque, time::Duration};

use parlor_protocol::Nonce;

use super::{
    backoff::Rng,
    effect::{NOBODYS, Ticket},
    event::Outgoing,
};

/// The most publishes of one room in flight.
const WINDOW_MAX: usize = 32;

/// The shortest wait after a refusal, doubled with each that follows, and its limit.
const HOLD_MIN: Duration = Duration::from_millis(20);
const HOLD_MAX: Duration = Duration::from_secs(2);

/// A send.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) nonce: Nonce,
    pub(super) ticket: Ticket,
    pub(super) outgoing: Outgoing,
    /// The number of its latest request; a refusal of an older one means nothing any more.
    pub(super) request: u32,
    deadline: Duration,
    resends: u32,
    /// Whether it ever went out: then it may be stored, and keeps its nonce.
    sent_once: bool,
    /// Whether it may go out: not before it is kept, where messages are.
    ready: bool,
    /// Whether its sender was told that the server does not answer.
    told: bool,
}

impl Entry {
    fn new(nonce: Nonce, ticket: Ticket, outgoing: Outgoing) -> Self {
        Self {
            nonce,
            ticket,
            outgoing,
            request: 0,
            deadline: Duration::ZERO,
            resends: 0,
            sent_once: false,
            ready: true,
            told: false,
        }
    }

    /// Whether it ever went out, over whatever connection.
    pub(super) fn was_sent(&self) -> bool {
        self.sent_once
    }
}

/// What an ack that did not come in time leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Send this one again, in place of that request. Nothing went out behind it.
    Resend { nonce: Nonce, request: u32 },
    /// This one and all behind it wait, to go out again in their order; these requests are not waited for any longer. What
    /// the server refused for now, and was not heard, must not be overtaken by what is newer.
    Rewound { requests: Vec<u32> },
    /// Enough. This one and all behind it stay, and these senders are to be told; these requests are not waited for any
    /// longer.
    Stalled { nonce: Nonce, tickets: Vec<Ticket>, requests: Vec<u32> },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    entries: VecDeque<Entry>,
    sent: usize,
    nonce: Nonce,
    /// How many may be in flight: one after a refusal, one more with each ack.
    window: usize,
    hold_until: Option<Duration>,
    strikes: u32,
    /// Nothing goes out until there is reason to believe that the server answers again: a new connection, an ack, or
    /// somebody who tries.
    stalled: bool,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            sent: 0,
            nonce: 0,
            window: WINDOW_MAX,
            hold_until: None,
            strikes: 0,
            stalled: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether something waits to be sent.
    pub(super) fn has_waiting(&self) -> bool {
        self.sent < self.entries.len()
    }

    /// Takes a send. Its nonce is above every one before it, and near the clock so that a client without a memory does
    /// not begin below its own past.
    ///
    /// Where it has to be kept first, it goes out after [`kept`](Self::kept).
    pub(super) fn push(&mut self, ticket: Ticket, outgoing: Outgoing, unix_us: u64, keep: bool) -> Nonce {
        self.nonce = (self.nonce.saturating_add(1)).max(unix_us);
        self.stalled = false;
        let entry = Entry::new(self.nonce, ticket, outgoing);
        self.entries.push_back(Entry { ready: !keep, ..entry });
        self.nonce
    }

    /// Takes a message of an earlier run, before any other. It may have gone out then.
    pub(super) fn restore(&mut self, nonce: Nonce, outgoing: Outgoing) {
        debug_assert!(self.entries.back().is_none_or(|last| last.nonce < nonce), "in their order");
        self.nonce = self.nonce.max(nonce);
        self.entries.push_back(Entry { sent_once: true, told: true, ..Entry::new(nonce, NOBODYS, outgoing) });
    }

    /// The one with this nonce may go out.
    pub(super) fn kept(&mut self, nonce: Nonce) {
        if let Some(entry) = self.find(nonce).and_then(|at| self.entries.get_mut(at)) {
            entry.ready = true;
        }
    }

    /// The one with this nonce has to be kept before it goes out.
    pub(super) fn not_kept(&mut self, nonce: Nonce) {
        if let Some(entry) = self.find(nonce).and_then(|at| self.entries.get_mut(at)) {
            entry.ready = false;
        }
    }

    /// Whether the server did not answer, so that nothing goes out.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// The server knows this nonce: those that never went out must be above it.
    /// Returns the changes, from and to.
    pub(super) fn on_newest_nonce(&mut self, newest: Option<Nonce>) -> Vec<(Nonce, Nonce)> {
        let mut changes = Vec::new();
        self.nonce = self.nonce.max(newest.unwrap_or(0));
        let newest = newest.unwrap_or(0);
        let stale = |entry: &Entry| !entry.sent_once && entry.nonce <= newest;
        if self.entries.iter().any(stale) {
            for entry in self.entries.iter_mut().filter(|entry| !entry.sent_once) {
                self.nonce = self.nonce.saturating_add(1);
                changes.push((entry.nonce, self.nonce));
                entry.nonce = self.nonce;
            }
        }
        changes
    }

    /// The next one to go out, if one may now. Follow with [`sent`](Self::sent), or with [`take`](Self::take).
    pub(super) fn next(&mut self, now: Duration, window_max: usize) -> Option<&Entry> {
        self.release(now);
        if self.hold_until.is_some() || self.stalled {
            return None;
        }
        let window = self.window.min(window_max).max(1);
        (self.sent < window).then(|| self.entries.get(self.sent)).flatten().filter(|entry| entry.ready)
    }

    /// Time has passed: a hold that is over does not stand in the timers any longer.
    pub(super) fn release(&mut self, now: Duration) {
        self.hold_until = self.hold_until.filter(|until| now < *until);
    }

    /// The one from [`next`](Self::next) went out.
    pub(super) fn sent(&mut self, request: u32, deadline: Duration) {
        if let Some(entry) = self.entries.get_mut(self.sent) {
            self.sent += 1;
            (entry.request, entry.deadline, entry.sent_once) = (request, deadline, true);
        }
    }

    /// Whether something is not answered.
    pub(super) fn in_flight(&self) -> bool {
        self.sent > 0
    }

    /// The server is at work on the one with this nonce.
    pub(super) fn goes_on(&mut self, nonce: Nonce, deadline: Duration) {
        if let Some(entry) = self.find(nonce).and_then(|at| self.entries.get_mut(at)) {
            (entry.deadline, entry.resends) = (deadline, 0);
        }
    }

    /// The one with this nonce, in flight, went out again.
    pub(super) fn sent_again(&mut self, nonce: Nonce, request: u32, deadline: Duration) {
        if let Some(entry) = self.find(nonce).and_then(|at| self.entries.get_mut(at)) {
            (entry.request, entry.deadline) = (request, deadline);
            entry.resends += 1;
        }
    }

    /// A send in flight or waiting.
    pub(super) fn entry(&self, nonce: Nonce) -> Option<&Entry> {
        self.find(nonce).and_then(|at| self.entries.get(at))
    }

    /// Removes the send with this nonce: it is stored, or refused for good. Returns its request if it is in flight.
    pub(super) fn take(&mut self, nonce: Nonce) -> Option<(Entry, Option<u32>)> {
        let at = self.find(nonce)?;
        let entry = self.entries.remove(at)?;
        let in_flight = at < self.sent;
        if in_flight {
            self.sent -= 1;
        }
        self.shrink();
        let request = in_flight.then_some(entry.request);
        Some((entry, request))
    }

    /// Removes the send with this nonce, which is stored.
    pub(super) fn acked(&mut self, nonce: Nonce) -> Option<(Ticket, Option<u32>)> {
        let (entry, request) = self.take(nonce)?;
        self.stalled = false;
        if request.is_some() {
            // One that was in flight before a refusal says nothing of how things are now.
            self.strikes = 0;
            self.window = (self.window + 1).min(WINDOW_MAX);
        }
        Some((entry.ticket, request))
    }

    /// The send with this nonce was refused for now: it and all behind it wait. Returns the requests that were in
    /// flight and are not waited for any longer.
    pub(super) fn refused(&mut self, nonce: Nonce, now: Duration, retry_after: Duration, rng: &mut Rng) -> Vec<u32> {
        let Some(at) = self.find(nonce).filter(|at| *at < self.sent) else { return Vec::new() };
        let dropped = self.entries.range(at..self.sent).map(|entry| entry.request).collect();
        self.sent = at;
        self.window = 1;
        let floor = HOLD_MIN.saturating_mul(1 << self.strikes.min(10)).min(HOLD_MAX);
        self.strikes = self.strikes.saturating_add(1);
        self.hold_until = Some(now + retry_after.max(floor) + rng.up_to(floor));
        dropped
    }

    /// The connection is lost: everything waits to be sent again, with a fresh count of tries.
    pub(super) fn rewind(&mut self) {
        (self.sent, self.stalled) = (0, false);
        for entry in &mut self.entries {
            entry.resends = 0;
        }
    }

    /// The client did not read for a while: acks may have come in time all the same.
    pub(super) fn put_off(&mut self, deadline: Duration) {
        for entry in self.entries.range_mut(..self.sent) {
            entry.deadline = entry.deadline.max(deadline);
        }
    }

    /// One send whose ack is overdue. Call until `None`.
    pub(super) fn overdue(&mut self, now: Duration, retries: u32) -> Option<Overdue> {
        let at = self.entries.range(..self.sent).position(|entry| entry.deadline <= now)?;
        let entry = &self.entries[at];
        let (nonce, request) = (entry.nonce, entry.request);
        if entry.resends < retries && at + 1 == self.sent {
            return Some(Overdue::Resend { nonce, request });
        }
        let requests = self.entries.range(at..self.sent).map(|entry| entry.request).collect();
        if entry.resends < retries {
            self.entries[at].resends += 1;
            (self.sent, self.window) = (at, 1);
            return Some(Overdue::Rewound { requests });
        }
        (self.sent, self.window, self.stalled) = (at, 1, true);
        let mut tickets = Vec::new();
        for entry in self.entries.range_mut(at..) {
            entry.resends = 0;
            if !std::mem::replace(&mut entry.told, true) {
                tickets.push(entry.ticket);
            }
        }
        Some(Overdue::Stalled { nonce, tickets, requests })
    }

    /// When something is due.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let acks = self.entries.range(..self.sent).map(|entry| entry.deadline).min();
        let hold = self.hold_until.filter(|_| self.has_waiting() && !self.stalled);
        [acks, hold].into_iter().flatten().min()
    }

    /// Everything that was not acked, for the end.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Ticket> {
        self.sent = 0;
        std::mem::take(&mut self.entries).into_iter().map(|entry| entry.ticket)
    }

    fn find(&self, nonce: Nonce) -> Option<usize> {
        self.entries.binary_search_by_key(&nonce, |entry| entry.nonce).ok()
    }

    /// An idle room owns next to nothing.
    fn shrink(&mut self) {
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries = VecDeque::new();
        }
    }
}
