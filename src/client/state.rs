//! The client as a pure machine: no tokio, no clock, no I/O. Time is a parameter.
//!
//! Grammar: call `handle_*` with what happened; then [`poll`](State::poll) until it returns `None` and run each effect
//! in order; then send [`output`](State::output) and wait until [`timeout`](State::timeout) at the latest, which
//! `handle_timeout` answers. `handle_start` (or `handle_over`) comes first, and nothing after [`Effect::Ended`] or
//! [`Effect::Failed`].
//!
//! This file holds the connection: dialing, greeting, heartbeats, coming back. `rooms.rs` goes on with what happens in
//! rooms.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io,
    net::SocketAddr,
    time::Duration,
};

use bytes::BytesMut;
use parlor_protocol::{
    Advice, Body, Code, DeviceTag, Extensions, List, RoomNumber, Token, encode,
    frame::PAYLOAD_BYTES_MAX,
    message::{self, Limits, ROOMS_PER_SESSION_MAX},
    version::{MAGIC, VERSION},
};

use super::{
    backoff::{Backoff, Rng},
    config::Config,
    effect::{Effect, Now, Pending, Phase, RoomKey, RoomKeys},
    error::{ConnectError, comes_back},
    event::Stats,
    following::Follow,
    heartbeat::{Heartbeat, base},
    question::Ask,
    room::{Room, Stage},
    servers::{Attempt, Servers, Step},
    upload::Upload,
    wire::{Incoming, Messages},
};

/// A connection that lasted this long was a good one: the next loss starts with the shortest back-off.
const STABLE: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct State {
    pub(super) config: Config,
    pub(super) rng: Rng,
    backoff: Backoff,
    /// When the last round of attempts began.
    dialed_at: Duration,
    pub(super) phase: Phase,
    /// The first connect: until when.
    first: Option<Duration>,
    /// Whether there is a way to come back: not over a stream that was handed in.
    reconnects: bool,
    servers: Servers,
    token: Option<Token>,
    attempt: u64,
    pub(super) tag: DeviceTag,
    pub(super) limits: Limits,
    pub(super) heartbeat: Heartbeat,
    pub(super) reading: bool,
    /// Whether messages are kept outside, until they are acked.
    pub(super) keeps: bool,
    request: u32,
    pub(super) requests: HashMap<u32, Pending>,
    /// How many of the requests are publishes.
    pub(super) publishing: usize,
    /// Questions that are not about a joined room, and how many of them are under way.
    pub(super) asks: VecDeque<Ask>,
    pub(super) asking: usize,
    pub(super) rooms: BTreeMap<RoomKey, Room>,
    /// The rooms that the session has, or had when its connection was lost, by the numbers that frames carry.
    pub(super) numbers: BTreeMap<RoomNumber, RoomKey>,
    /// The request that took the session's rooms up again on this connection.
    pub(super) resuming: Option<u32>,
    pub(super) follow: Follow,
    pub(super) keys: RoomKeys,
    /// The network, while the server does not know of it.
    pub(super) untold: Option<message::Network>,
    pub(super) timers: BTreeSet<(Duration, RoomKey)>,
    /// Rooms that would publish if fewer publishes of others were under way, in turn.
    pub(super) starved: VecDeque<RoomKey>,
    /// The one of them whose turn it is, for one publish.
    pub(super) turn: Option<RoomKey>,
    /// The long message that is being sent: one at a time.
    pub(super) upload: Option<Upload>,
    /// Rooms that wait to send a long one, in turn.
    pub(super) uploads_waiting: VecDeque<RoomKey>,
    pub(super) messages: Messages,
    pub(super) stats: Stats,
    pub(super) effects: VecDeque<Effect>,
    out: BytesMut,
}

impl State {
    pub(super) fn new(config: Config, keys: RoomKeys, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            backoff: Backoff::new(config.backoff_min, config.backoff_max),
            dialed_at: Duration::ZERO,
            phase: Phase::Waiting { until: Duration::MAX },
            first: None,
            reconnects: true,
            servers: Servers::new(config.servers.clone(), config.connect_timeout, config.prefer),
            token: None,
            attempt: 0,
            tag: DeviceTag::of(&config.user, &config.device),
            limits: Limits {
                payload_bytes_max: PAYLOAD_BYTES_MAX,
                rooms_max: 0,
                unanswered_requests_max: 0,
                page_records_max: 0,
                page_bytes_max: 0,
                text_bytes_max: 0,
            },
            heartbeat: Heartbeat::new(Duration::ZERO, 0, &mut rng),
            reading: true,
            keeps: config.outbox.is_some(),
            request: 0,
            requests: HashMap::new(),
            publishing: 0,
            asks: VecDeque::new(),
            asking: 0,
            rooms: BTreeMap::new(),
            numbers: BTreeMap::new(),
            resuming: None,
            follow: Follow::default(),
            keys,
            untold: None,
            timers: BTreeSet::new(),
            starved: VecDeque::new(),
            turn: None,
            upload: None,
            uploads_waiting: VecDeque::new(),
            messages: Messages::default(),
            stats: Stats::default(),
            effects: VecDeque::new(),
            out: BytesMut::new(),
            config,
            rng,
        }
    }

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

    /// The connection ended, or failed, or brought what cannot be read.
    pub(super) fn handle_lost(&mut self, now: Now, reason: String, unreadable: bool) {
        let server = self.server();
        match self.phase {
            Phase::Greeting { .. } | Phase::Online { .. } if unreadable => {
                self.lost(now, ConnectError::Protocol { server, what: reason });
            }
            Phase::Greeting { .. } | Phase::Online { .. } => self.lost(now, ConnectError::Lost { server, reason }),
            Phase::Closing { .. } => self.end(Code::Goodbye, "the client was closed"),
            Phase::Waiting { .. } | Phase::Dialing | Phase::Ended => {}
        }
    }

    /// The driver stops or starts reading, since the application takes events too slowly or takes them again.
    pub(super) fn handle_reading(&mut self, now: Now, reading: bool) {
        if reading && !self.reading {
            // Silence meant nothing while nobody listened.
            self.heartbeat.on_frame(now.at);
            for room in self.rooms.values_mut() {
                room.outbox.put_off(now.at.saturating_add(self.config.ack_timeout));
            }
            self.settle_all(now);
        }
        self.reading = reading;
    }

    /// A frame came, with the number of the request that it answers.
    pub(super) fn handle_frame(&mut self, now: Now, request: u32, frame: Incoming<'_>) {
        self.heartbeat.on_frame(now.at);
        match (self.phase, frame) {
            (Phase::Greeting { .. } | Phase::Online { .. } | Phase::Closing { .. }, Incoming::Close(close)) => {
                self.on_close(now, &close);
            }
            (Phase::Greeting { .. }, Incoming::Welcome(welcome)) => self.on_welcome(now, &welcome),
            (Phase::Greeting { .. }, frame) => {
                self.handle_lost(now, format!("expected a welcome, got {frame:?}"), true);
            }
            (Phase::Online { .. }, Incoming::Welcome(_)) => self.handle_lost(now, "a second welcome".into(), true),
            (Phase::Online { .. }, Incoming::HeartbeatAck(ack)) => {
                let round_trip = self.heartbeat.on_ack(now.at, ack.grant_ms, &mut self.rng);
                self.stats.round_trip = round_trip.or(self.stats.round_trip);
            }
            (Phase::Online { .. }, frame) => self.on_room_frame(now, request, frame),
            // Behind a goodbye only the close is of interest, and what was stored before it.
            (Phase::Closing { .. }, frame @ Incoming::Ack(_)) => self.on_room_frame(now, request, frame),
            _ => {}
        }
    }

    /// The device is connected through another network now: told with the next beat, which is sent at once where such a
    /// network is heard more often.
    pub(super) fn handle_network(&mut self, now: Now, network: message::Network) {
        let old = std::mem::replace(&mut self.config.network, network);
        if old != network && self.is_online() {
            self.untold = Some(network);
            if base(network) < base(old) {
                self.heartbeat.hasten(now.at);
            }
        }
    }

    /// Says goodbye. The end follows once the server has closed, or after a while.
    pub(super) fn handle_close(&mut self, now: Now) {
        match self.phase {
            Phase::Online { .. } => {
                self.send_marks(now);
                self.phase = Phase::Closing { deadline: now.at.saturating_add(self.config.close_timeout) };
                encode(0, &message::Goodbye::default(), &mut self.out);
            }
            Phase::Closing { .. } | Phase::Ended => {}
            _ => self.end(Code::Goodbye, "the client was closed"),
        }
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Now) {
        match self.phase {
            Phase::Waiting { until } if until <= now.at => self.dial(now),
            Phase::Dialing => {
                self.servers.handle_timeout(now.at);
                self.dialing(now);
            }
            Phase::Greeting { deadline } if deadline <= now.at => {
                let (server, within) = (self.server(), self.config.connect_timeout);
                self.lost(now, ConnectError::HandshakeTimeout { server, within });
            }
            Phase::Closing { deadline } if deadline <= now.at => self.end(Code::Goodbye, "the client was closed"),
            Phase::Online { .. } => self.on_online_timeout(now),
            _ => {}
        }
    }

    /// The next effect.
    pub(super) fn poll(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front();
        if effect.is_none() && self.effects.capacity() > 64 {
            self.effects = VecDeque::new(); // A page came by; an idle client keeps nothing of it.
        }
        effect
    }

    /// What to send. The driver takes off its front what was sent.
    pub(super) fn output(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// When to call `handle_timeout`, if nothing happens before.
    pub(super) fn timeout(&self) -> Option<Duration> {
        match self.phase {
            Phase::Dialing => Some(self.servers.timeout(self.dialed_at)),
            Phase::Waiting { until: at } | Phase::Greeting { deadline: at } | Phase::Closing { deadline: at } => {
                Some(at)
            }
            Phase::Online { .. } => {
                let beat = self.heartbeat.timeout(self.reading);
                let room = self.timers.first().filter(|_| self.reading).map(|(at, _)| *at);
                [room, self.follow.timeout()].into_iter().flatten().chain([beat]).min()
            }
            Phase::Ended => None,
        }
    }

    /// What was counted.
    pub(super) fn stats(&self) -> Stats {
        self.stats
    }

    /// Whether records matter now. If not, the driver reads on even if the application does not.
    pub(super) fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online { .. })
    }

    /// Queues a request; returns its number.
    pub(super) fn ask<'a>(&mut self, body: &impl Body<'a>, pending: Pending) -> u32 {
        let request = self.write(|request, out| encode(request, body, out));
        self.publishing += usize::from(matches!(pending, Pending::Publish(..)));
        self.requests.insert(request, pending);
        request
    }

    /// Has a request written under the next number.
    pub(super) fn write(&mut self, body: impl FnOnce(u32, &mut BytesMut)) -> u32 {
        // 0 stands for what nobody asked for.
        self.request = self.request.checked_add(1).unwrap_or(1);
        body(self.request, &mut self.out);
        self.request
    }

    /// The answer to this request is here, or is not waited for any longer.
    pub(super) fn answered(&mut self, request: u32) -> Option<Pending> {
        let pending = self.requests.remove(&request)?;
        self.publishing -= usize::from(matches!(pending, Pending::Publish(..)));
        Some(pending)
    }

    fn server(&self) -> String {
        self.servers.name()
    }

    fn dial(&mut self, now: Now) {
        self.phase = Phase::Dialing;
        self.dialed_at = now.at;
        self.servers.begin(now.at);
        self.dialing(now);
    }

    /// Does what the choice of a server asks for, until all have failed.
    fn dialing(&mut self, now: Now) {
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

    fn on_welcome(&mut self, now: Now, welcome: &message::Welcome<'_>) {
        if welcome.version != VERSION {
            return self.handle_lost(now, format!("it chose version {}", welcome.version), true);
        }
        let resumed = welcome.resumed && self.token.is_some();
        self.token = Some(welcome.token);
        self.tag = welcome.device_tag;
        self.limits = welcome.limits;
        self.heartbeat = Heartbeat::new(now.at, welcome.grant_ms, &mut self.rng);
        self.phase = Phase::Online { since: now.at };
        self.stats.connections += 1;
        self.servers.on_welcome();
        self.effects.push_back(Effect::Welcomed(self.servers.last()));
        if self.first.take().is_some() {
            self.effects.push_back(Effect::Ready(self.tag));
        }
        // Said in the hello.
        self.untold = None;
        let follows = self.begin_to_follow();
        if resumed {
            self.on_resumed();
        } else {
            self.on_new_session();
        }
        self.settle_all(now);
        self.send_follow(follows);
        self.settle_asks();
    }

    fn on_close(&mut self, now: Now, close: &message::Close<'_>) {
        let server = self.server();
        let retry_after = Duration::from_millis(u64::from(close.retry_after_ms));
        let (code, message) = (close.code, close.message.to_owned());
        if let Phase::Closing { .. } = self.phase {
            self.end(code, &message);
        } else if self.first.is_some() || comes_back(code) {
            self.lost(now, ConnectError::Refused { server, code, message, retry_after });
        } else {
            self.end(code, &message);
        }
    }

    fn on_online_timeout(&mut self, now: Now) {
        if self.reading && self.heartbeat.dead_at() <= now.at {
            let reason = "no frame came for three granted intervals".into();
            return self.handle_lost(now, reason, false);
        }
        if self.heartbeat.due(now.at, &mut self.rng) {
            self.beat();
        }
        self.follow_again(now);
        while let Some((_, key)) = self.timers.first().copied().filter(|(at, _)| self.reading && *at <= now.at) {
            self.on_room_timeout(now, key);
        }
    }

    fn beat(&mut self) {
        let mut positions = Vec::new();
        for room in self.rooms.values_mut().filter(|room| room.stage == Stage::In) {
            let Some(inbound) = room.inbound.as_mut().filter(|inbound| inbound.unreported) else { continue };
            if positions.len() == ROOMS_PER_SESSION_MAX {
                break;
            }
            inbound.unreported = false;
            let (epoch, seq) = inbound.position();
            positions.push(message::Position { room: room.number, epoch, seq });
        }
        let network = self.untold.take();
        let beat = message::Heartbeat { network, positions: List(positions), extensions: Extensions::default() };
        encode(0, &beat, &mut self.out);
    }

    /// The connection, or the attempt at one, is lost: comes back, gives up, or ends.
    fn lost(&mut self, now: Now, why: ConnectError) {
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

    fn hang_up(&mut self) {
        self.out = BytesMut::new();
        self.effects.push_back(Effect::HangUp);
    }

    fn end(&mut self, code: Code, message: &str) {
        self.hang_up();
        self.end_rooms(code, message);
        self.phase = Phase::Ended;
        self.effects.push_back(Effect::Ended(code, message.to_owned()));
    }
}
