//! Which server to go to: addresses in order of preference, and a race among the first of them. Pure: the time is a
//! parameter.
//!
//! The rule. A name stands for all its addresses, and is looked up anew for each round of attempts; until
//! then those of the last time serve. A round starts with the
//! address that worked last, unless another is known to be twice as near; then it goes by the measured time to connect, then by
//! the order in which they were named; one that
//! failed since the last welcome comes behind those that did not. An attempt begins 100 ms after the one before it, or at
//! once when that fails (RFC 8305), with four at most under way; where nothing has worked yet they begin together, so that the
//! nearest wins. The first connection that is made wins and says hello; the
//! others are dropped before they say anything, so that no session is begun twice. A server that asked for time is passed
//! over until then, at all the addresses of its name.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

/// How long an attempt has before the next one begins beside it.
const STAGGER: Duration = Duration::from_millis(100);

/// The most attempts under way at once.
const ATTEMPTS_MAX: usize = 4;

/// The most addresses taken of one name.
const ADDRESSES_PER_NAME_MAX: usize = 16;

/// Names an attempt to connect; never used twice.
pub(super) type Attempt = u32;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Look this server's name up; answer with `handle_resolved`.
    Resolve(usize, String),
    /// Connect; answer with `handle_connected` or `handle_unreachable`.
    Connect(Attempt, SocketAddr),
    /// The attempt took too long.
    GiveUp(Attempt),
}

/// An address of a server.
#[derive(Debug)]
struct Target {
    server: usize,
    address: SocketAddr,
    /// How long a connection took, or took at least.
    connect: Option<Duration>,
    /// It took so long.
    measured: bool,
    /// Failures since the last welcome of any server.
    failures: u32,
    not_before: Duration,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Servers {
    names: Vec<String>,
    patience: Duration,
    targets: Vec<Target>,
    /// The one that worked last.
    last: Option<SocketAddr>,
    /// The one that is connected.
    current: Option<SocketAddr>,
    /// The round: names that are looked up, until when, what was tried, what is under way since when, and when more may be.
    resolving: Vec<usize>,
    resolve_until: Duration,
    tried: Vec<SocketAddr>,
    under_way: Vec<(Attempt, SocketAddr, Duration)>,
    next_start: Duration,
    attempts: Attempt,
    error: Option<(String, io::Error)>,
    steps: VecDeque<Step>,
}

impl Servers {
    /// Of these `host:port`, of which an attempt may take so long. `prefer` is the address that worked in an earlier run.
    pub(super) fn new(names: Vec<String>, patience: Duration, prefer: Option<SocketAddr>) -> Self {
        Self {
            names,
            patience,
            targets: Vec::new(),
            last: prefer,
            current: None,
            resolving: Vec::new(),
            resolve_until: Duration::ZERO,
            tried: Vec::new(),
            under_way: Vec::new(),
            next_start: Duration::ZERO,
            attempts: 0,
            error: None,
            steps: VecDeque::new(),
        }
    }

    /// Begins a round of attempts.
    pub(super) fn begin(&mut self, now: Duration) {
        self.forget_round();
        (self.current, self.next_start, self.resolve_until) = (None, now, now.saturating_add(self.patience));
        for server in 0..self.names.len() {
            match self.names[server].parse() {
                Ok(address) => self.know(server, &[address]),
                Err(_) => {
                    self.resolving.push(server);
                    self.steps.push_back(Step::Resolve(server, self.names[server].clone()));
                }
            }
        }
        self.go_on(now);
    }

    /// A name was looked up.
    pub(super) fn handle_resolved(&mut self, now: Duration, server: usize, found: io::Result<Vec<SocketAddr>>) {
        if !self.resolving.contains(&server) {
            return;
        }
        self.resolving.retain(|resolving| *resolving != server);
        match found {
            Ok(addresses) if !addresses.is_empty() => self.know(server, &addresses),
            Ok(_) => {
                self.error = Some((self.names[server].clone(), io::Error::other("the name has no address")));
            }
            Err(error) => self.error = Some((self.names[server].clone(), error)),
        }
        self.go_on(now);
    }

    /// An attempt won. Returns whether it was one of those under way.
    pub(super) fn handle_connected(&mut self, now: Duration, attempt: Attempt) -> bool {
        let Some(&(_, winner, _)) = self.under_way.iter().find(|(of, ..)| *of == attempt) else { return false };
        for (_, address, since) in std::mem::take(&mut self.under_way) {
            let took = now.saturating_sub(since);
            if let Some(target) = self.targets.iter_mut().find(|target| target.address == address) {
                let wins = address == winner;
                target.connect = Some(match target.connect {
                    Some(old) if wins && target.measured => (3 * old + took) / 4,
                    // It would have taken longer than that.
                    Some(old) if !wins => old.max(took),
                    _ => took,
                });
                target.measured |= wins;
            }
        }
        self.forget_round();
        self.current = Some(winner);
        true
    }

    /// An attempt failed.
    pub(super) fn handle_unreachable(&mut self, now: Duration, attempt: Attempt, error: io::Error) {
        let Some(at) = self.under_way.iter().position(|(of, ..)| *of == attempt) else { return };
        let (_, address, _) = self.under_way.remove(at);
        self.failed(address);
        self.error = Some((self.name_of(address), error));
        self.next_start = now;
        self.go_on(now);
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Duration) {
        let patience = self.patience;
        let timed_out = |name| {
            let what = format!("no answer within {} ms", patience.as_millis());
            (name, io::Error::new(io::ErrorKind::TimedOut, what))
        };
        while let Some(at) = self.under_way.iter().position(|(.., since)| since.saturating_add(patience) <= now) {
            let (attempt, address, _) = self.under_way.remove(at);
            self.steps.push_back(Step::GiveUp(attempt));
            self.failed(address);
            self.error = Some(timed_out(self.name_of(address)));
        }
        if self.resolve_until <= now
            && let Some(server) = self.resolving.first().copied()
        {
            self.error = Some(timed_out(self.names[server].clone()));
            self.resolving.clear();
        }
        self.go_on(now);
    }

    /// What to do next.
    pub(super) fn poll(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// Why the round has failed, if it has: all was tried.
    pub(super) fn is_over(&mut self) -> Option<(String, io::Error)> {
        if !self.under_way.is_empty() || !self.resolving.is_empty() || self.current.is_some() {
            return None;
        }
        let none = || (self.names.first().cloned().unwrap_or_default(), io::Error::other("no server may be tried yet"));
        Some(self.error.take().unwrap_or_else(none))
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) in a round.
    pub(super) fn timeout(&self, now_or_before: Duration) -> Duration {
        let ends = self.under_way.iter().map(|(.., since)| since.saturating_add(self.patience)).min();
        let resolve = (!self.resolving.is_empty()).then_some(self.resolve_until);
        let may_start = self.under_way.len() < ATTEMPTS_MAX && self.best(now_or_before).is_some();
        let start = may_start.then_some(self.next_start);
        [ends, resolve, start].into_iter().flatten().min().unwrap_or(Duration::MAX)
    }

    /// The connected server said welcome.
    pub(super) fn on_welcome(&mut self) {
        self.last = self.current;
        self.targets.iter_mut().for_each(|target| target.failures = 0);
    }

    /// The connected server was lost before it said welcome.
    pub(super) fn on_failed(&mut self) {
        if let Some(address) = self.current.take() {
            self.failed(address);
        }
    }

    /// The connected server asked not to be tried before this time.
    pub(super) fn on_put_off(&mut self, until: Duration) {
        let current = self.current;
        let server = self.targets.iter().find(|target| Some(target.address) == current).map(|target| target.server);
        // Whoever answers at another address of the name may be the same, and has asked all its clients.
        for target in self.targets.iter_mut().filter(|target| Some(target.server) == server) {
            target.not_before = until;
        }
    }

    /// From when on there is a server that may be tried.
    pub(super) fn ready_at(&self, now: Duration) -> Duration {
        let unknown = (0..self.names.len()).any(|server| self.targets.iter().all(|target| target.server != server));
        let known = self.targets.iter().map(|target| target.not_before).min().unwrap_or(now);
        if unknown { now } else { known.max(now) }
    }

    /// Whether there is one that has not failed since the last welcome, and may be tried.
    pub(super) fn has_fresh(&self, now: Duration) -> bool {
        self.targets.iter().any(|target| target.failures == 0 && target.not_before <= now)
    }

    /// The server that is connected, as it was named.
    pub(super) fn name(&self) -> String {
        self.current.map_or_else(|| self.names.first().cloned().unwrap_or_default(), |current| self.name_of(current))
    }

    /// The address that said welcome last.
    pub(super) fn last(&self) -> Option<SocketAddr> {
        self.last
    }

    fn name_of(&self, address: SocketAddr) -> String {
        let server = self.targets.iter().find(|target| target.address == address).map(|target| target.server);
        server.and_then(|server| self.names.get(server)).cloned().unwrap_or_else(|| address.to_string())
    }

    fn failed(&mut self, address: SocketAddr) {
        for target in self.targets.iter_mut().filter(|target| target.address == address) {
            target.failures = target.failures.saturating_add(1);
        }
    }

    fn forget_round(&mut self) {
        self.resolving.clear();
        self.tried.clear();
        self.under_way.clear();
        self.steps.clear();
        self.error = None;
    }

    /// These are the addresses of a server now.
    fn know(&mut self, server: usize, addresses: &[SocketAddr]) {
        self.targets.retain(|target| target.server != server || addresses.contains(&target.address));
        for &address in addresses.iter().take(ADDRESSES_PER_NAME_MAX) {
            if self.targets.iter().all(|target| target.address != address) {
                let not_before = Duration::ZERO;
                self.targets.push(Target { server, address, connect: None, measured: false, failures: 0, not_before });
            }
        }
        // Stable: a name's addresses stay in the order in which it has them.
        self.targets.sort_by_key(|target| target.server);
    }

    /// Starts what may be started.
    fn go_on(&mut self, now: Duration) {
        while self.current.is_none()
            && self.under_way.len() < ATTEMPTS_MAX
            && (self.next_start <= now || self.under_way.is_empty())
            && let Some(address) = self.best(now)
        {
            self.attempts = self.attempts.wrapping_add(1);
            self.tried.push(address);
            self.under_way.push((self.attempts, address, now));
            // At first nobody knows which is near.
            let races = self.last.is_none() && self.targets.iter().all(|target| target.connect.is_none());
            self.next_start = if races { now } else { now.saturating_add(STAGGER) };
            self.steps.push_back(Step::Connect(self.attempts, address));
        }
    }

    /// The best that was not tried in this round.
    fn best(&self, now: Duration) -> Option<SocketAddr> {
        let may = |target: &&Target| target.not_before <= now && !self.tried.contains(&target.address);
        let connect = |target: &Target| target.connect.unwrap_or(Duration::MAX);
        let last = self.targets.iter().find(|target| Some(target.address) == self.last).map(connect);
        let is_nearer = |target: &Target| target.measured && last.is_some_and(|last| connect(target) < last / 2);
        let rank = |target: &&Target| {
            let place = if is_nearer(target) { 0 } else { 1 + u8::from(Some(target.address) != self.last) };
            (target.failures, place, connect(target))
        };
        self.targets.iter().filter(may).min_by_key(rank).map(|target| target.address)
    }
}
