//! The connection's beginning and end: attempts, the hello, and when to try again. `servers.rs` says where.

use std::{io, net::SocketAddr, time::Duration};

use parlor_protocol::{
    Advice, Code, Extensions, encode, message,
    version::{MAGIC, VERSION},
};

use super::{
    effect::{Effect, Now, Phase},
    error::{ConnectError, comes_back},
    servers::{Attempt, Step},
    state::State,
};

/// A connection that lasted this long was a good one: the next loss starts with the shortest back-off.
const STABLE: Duration = Duration::from_secs(60);

impl State {
    /// Starts with the first server.
    pub(super) fn handle_start(&mut self, now: Now) {
        let deadline = now.at.saturating_add(self.config.connect_patience);
        self.first = Some(deadline);
        self.dial(now);
    }

    /// Starts on a connection that is there already. There is no way back to it once it is lost.
    pub(super) fn handle_over(&mut self, now: Now) {
        self.first = Some(now.at);
        self.reconnects = false;
        self.greet(now);
    }

    /// A connection that was dialed is made.
    pub(super) fn handle_connected(&mut self, now: Now, attempt: Attempt) {
        if matches!(self.phase, Phase::Dialing) && self.servers.handle_connected(now.at, attempt) {
            self.greet(now);
        }
    }

    fn greet(&mut self, now: Now) {
        self.attempt += 1;
        self.phase = Phase::Greeting { deadline: now.at.saturating_add(self.config.connect_timeout) };
        let hello = message::Hello {
            magic: MAGIC,
            version_min: VERSION,
            version_max: VERSION,
            features: 0,
            user: &self.config.user,
            device: &self.config.device,
            device_class: self.config.device_class,
            network: self.config.network,
            credentials: &self.config.credentials,
            resume: self.token,
            attempt: self.attempt,
            extensions: Extensions::default(),
        };
        encode(0, &hello, &mut self.out);
    }

    /// A connection that was dialed cannot be made.
    pub(super) fn handle_unreachable(&mut self, now: Now, attempt: Attempt, error: io::Error) {
        if let Phase::Dialing = self.phase {
            self.servers.handle_unreachable(now.at, attempt, error);
            self.dialing(now);
        }
    }

    /// A server's name was looked up.
    pub(super) fn handle_resolved(&mut self, now: Now, server: usize, found: io::Result<Vec<SocketAddr>>) {
        if let Phase::Dialing = self.phase {
            self.servers.handle_resolved(now.at, server, found);
            self.dialing(now);
        }
    }

    pub(super) fn dial(&mut self, now: Now) {
        self.phase = Phase::Dialing;
        self.dialed_at = now.at;
        self.servers.begin(now.at);
        self.dialing(now);
    }

    /// Does what the choice of a server asks for, until all have failed.
    pub(super) fn dialing(&mut self, now: Now) {
        while let Some(step) = self.servers.poll() {
            self.effects.push_back(match step {
                Step::Resolve(server, name) => Effect::Resolve(server, name),
                Step::Connect(attempt, address) => Effect::Dial(attempt, address),
                Step::GiveUp(attempt) => Effect::GiveUp(attempt),
            });
        }
        if let Some((server, source)) = self.servers.is_over() {
            self.lost(now, ConnectError::Unreachable { server, source });
        }
    }

    /// The connection, or the attempt at one, is lost: comes back, gives up, or ends.
    pub(super) fn lost(&mut self, now: Now, why: ConnectError) {
        self.hang_up();
        let mut retry_after = Duration::ZERO;
        if let ConnectError::Refused { code, retry_after: after, .. } = &why
            && code.advice() != Advice::ReconnectNow
        {
            retry_after = *after;
            // That one; another may be tried at once.
            self.servers.on_put_off(now.at.saturating_add(*after));
        }
        let phase = std::mem::replace(&mut self.phase, Phase::Waiting { until: now.at });
        if let Phase::Online { since } = phase {
            if now.at.saturating_sub(since) >= STABLE {
                self.backoff.reset();
            }
            self.on_connection_lost(now, &why.to_string());
        } else {
            // The last good one stays first; one that did not work makes room for the next.
            self.servers.on_failed();
        }
        if !self.reconnects && self.first.is_none() {
            return self.end(Code::GoingAway, &why.to_string());
        }
        let ready_at = if self.reconnects { self.servers.ready_at(now.at) } else { now.at.saturating_add(retry_after) };
        let Some(deadline) = self.first else {
            let wait = self.backoff.next(&mut self.rng);
            self.phase = Phase::Waiting { until: ready_at.saturating_add(wait) };
            return;
        };
        let refused = matches!(&why, ConnectError::Refused { code, .. } if !comes_back(*code));
        if !refused && self.reconnects && self.servers.has_fresh(now.at) {
            return self.dial(now);
        }
        let wait = self.backoff.next(&mut self.rng);
        if refused || !self.reconnects || ready_at >= deadline {
            self.phase = Phase::Ended;
            self.effects.push_back(Effect::Failed(why));
        } else {
            // The last attempt is made when patience ends, however long the wait that was drawn.
            self.phase = Phase::Waiting { until: ready_at.saturating_add(wait).min(deadline) };
        }
    }
}
