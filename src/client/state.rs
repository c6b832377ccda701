//! The client as a pure machine: no tokio, no clock, no I/O. Time is a parameter.
//!
//! Grammar: call `handle_*` with what happened; then [`poll`](State::poll) until it returns `None` and run each effect
//! in order; then send [`output`](State::output) and wait until [`timeout`](State::timeout) at the latest, which
//! `handle_timeout` answers. `handle_start` (or `handle_over`) comes first, and nothing after [`Effect::Ended`] or
//! [`Effect::Failed`].
//!
//! This file holds the connection that stands. `connecting.rs` makes it and comes back to it; `rooms.rs` goes on with what happens in
//! rooms.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use bytes::BytesMut;
use parlor_protocol::{
    Body, Code, DeviceTag, Extensions, List, RoomNumber, Token, encode,
    frame::PAYLOAD_BYTES_MAX,
    message::{self, Limits, ROOMS_PER_SESSION_MAX},
    version::VERSION,
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
    servers::Servers,
    upload::Upload,
    watching::Watching,
    wire::{Incoming, Messages},
};

/// See the module.
pub(super) struct State {
    pub(super) config: Config,
    pub(super) rng: Rng,
    pub(super) backoff: Backoff,
    /// When the last round of attempts began.
    pub(super) dialed_at: Duration,
    pub(super) phase: Phase,
    /// The first connect: until when.
    pub(super) first: Option<Duration>,
    /// Whether there is a way to come back: not over a stream that was handed in.
    pub(super) reconnects: bool,
    pub(super) servers: Servers,
    pub(super) token: Option<Token>,
    pub(super) attempt: u64,
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
    pub(super) watching: Watching,
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
    pub(super) out: BytesMut,
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
            watching: Watching::default(),
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
                [room, self.follow.timeout(), self.watching.timeout()].into_iter().flatten().chain([beat]).min()
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

    pub(super) fn server(&self) -> String {
        self.servers.name()
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
        self.watch_again();
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
        self.watch_when_due(now);
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

    pub(super) fn hang_up(&mut self) {
        self.out = BytesMut::new();
        self.effects.push_back(Effect::HangUp);
    }

    pub(super) fn end(&mut self, code: Code, message: &str) {
        self.hang_up();
        self.end_rooms(code, message);
        self.phase = Phase::Ended;
        self.effects.push_back(Effect::Ended(code, message.to_owned()));
    }
}
