//! The shell of a session.

use parlor_actors::{
    members::{Refusal, Seen, asking},
    message::Conn,
    port::{RoomOptions, Store},
    router::Presence,
    session::{self, heartbeat::Heartbeat, parked::Parked},
    supervisor::state::sessions::Opening,
};
use parlor_protocol::{
    Advice, Code, Extensions, Header, List, Name, RoomNumber, Token,
    frame::HEADER_BYTES,
    message::{
        Detached, DeviceClass, Durability, Error, HeartbeatAck, JoinFrom, Limits as WireLimits, Network, PartTaken,
        Position, Welcome,
    },
};

use super::{
    ChannelId, House, Plant, Said, durability_of,
    setting::beats,
    supervising::{ToSupervisor, Waiter},
};

/// What a client says first, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    pub request: u32,
    pub resume: Option<Token>,
    pub attempt: u64,
}

pub enum ToSession {
    /// Its actor runs.
    Started,
    Begin(Option<Box<Parked>>),
    Frames(bytes::Bytes),
    Resume,
    JoinEnded {
        request: u32,
        asked: Option<RoomNumber>,
        room: Result<(RoomNumber, Name), Code>,
    },
    Resolved {
        request: u32,
        resumes: Option<RoomNumber>,
        room: Result<(RoomNumber, ChannelId), Refusal>,
    },
    Seen {
        request: u32,
        seen: Result<Seen, Refusal>,
    },
    Added {
        room: RoomNumber,
        name: Name,
        from: JoinFrom,
    },
    Lost(Position),
    Timer,
    End(Code),
    Kick(std::sync::Arc<str>),
}

impl House {
    pub(super) fn session_turn(&mut self, conn: Conn) -> bool {
        use session::state::Input;
        let Some(line) = self.line_of(conn) else { return false };
        let Some(message) = line.next_message() else { return false };
        match message {
            ToSession::Started => self.start(conn),
            ToSession::Begin(parked) => self.begin(conn, parked),
            ToSession::Frames(frames) => {
                line.backlog.push_back(frames);
                self.work(conn);
            }
            ToSession::Resume => self.work(conn),
            ToSession::JoinEnded { request, asked, room } => {
                self.input(conn, Input::JoinEnded { request, asked, room });
            }
            ToSession::Resolved { request, resumes, room } => {
                let room = room.map(|(room, channel)| {
                    line.resolved = Some(channel);
                    room
                });
                if let Some(room) = resumes {
                    self.plant_resumption(conn, request, room);
                }
                self.input(conn, Input::Resolved { request, resumes, room });
            }
            ToSession::Seen { request, seen } => self.input(conn, Input::Seen { request, seen }),
            ToSession::Added { room, name, from } => self.input(conn, Input::Added { room, name, from }),
            ToSession::Lost(stands) => self.input(conn, Input::Lost(stands)),
            ToSession::Timer => {
                let owes = self.owes(conn);
                self.input(conn, Input::Timer { owes });
                let at_once = self.now().mono_ms + 1;
                if let Some(line) = self.line_of(conn) {
                    let deadline = line.session.deadline().max(at_once);
                    self.arbiters[usize::from(conn.arbiter)].timers.arm(deadline, conn.slot);
                }
            }
            ToSession::End(code) => self.end(conn, Input::End(code)),
            ToSession::Kick(reason) => self.end(conn, Input::Kick(reason)),
        }
        true
    }

    fn start(&mut self, conn: Conn) {
        let now = self.now();
        let Some(line) = self.line_of(conn) else { return };
        let Some(Hello { resume, attempt, .. }) = line.opening else { return };
        line.known = true;
        let presence = Presence {
            device: "device".parse().unwrap(),
            device_tag: line.device.tag,
            device_class: DeviceClass::Other,
            network: Network::Wifi,
            since: now.unix_ms,
            conn,
            connected: true,
            beats: [0; 4],
        };
        let (user, token) = (line.device.user.clone(), line.token);
        let opening = Opening { user, presence: presence.into(), token, resume, attempt, session: conn };
        self.office.push_back(ToSupervisor::Opened(Box::new(opening)));
        if resume.is_none() {
            self.begin(conn, None);
        }
    }

    /// Begins: with what is left of a session that is taken up, or as a new one.
    fn begin(&mut self, conn: Conn, parked: Option<Box<Parked>>) {
        let now = self.now();
        let Some(line) = self.line_of(conn) else { return };
        let Some(hello) = line.opening.take() else { return };
        let resumed = parked.is_some();
        if let (Some(parked), Some(token)) = (parked, hello.resume) {
            line.session.take_up(now, Network::Wifi, *parked);
            line.token = token;
        }
        self.check_alone(conn);
        self.welcome(conn, &hello, resumed);
        self.drive(conn);
    }

    fn end(&mut self, conn: Conn, input: session::state::Input) {
        if self.line_of(conn).is_some_and(|line| line.opening.is_some()) {
            self.drive(conn); // It has not begun, but its close has to be written.
        }
        self.input(conn, input);
    }

    /// From here on it reads its connection, and writes what its relay cannot.
    fn drive(&mut self, conn: Conn) {
        let Some(line) = self.line_of(conn) else { return };
        line.driven = true;
        let deadline = line.session.deadline();
        self.arbiters[usize::from(conn.arbiter)].timers.arm(deadline, conn.slot);
    }

    /// Tells the supervisor, once, that its connection is gone or does not count any more, and what is left of it.
    pub(super) fn say_gone(&mut self, conn: Conn, fails: bool) {
        let limits = self.limits.clone();
        let forgets = self.plant == Some(Plant::RoomsForgotten);
        let (now, owes) = (self.now(), self.owes(conn));
        let Some(line) = self.line_of(conn) else { return };
        if std::mem::replace(&mut line.known, false) {
            let mut parked = if line.opening.is_some() {
                None
            } else if fails {
                line.session.park_failed(&limits).map(Box::new)
            } else {
                if owes {
                    line.session.waited_for(now);
                }
                line.session.park().map(Box::new)
            };
            if forgets && let Some(parked) = &mut parked {
                let heartbeat = Heartbeat::new(beats(), Network::Wifi, now.mono_ms);
                **parked = Parked::idle(heartbeat, &limits, now.mono_ms);
            }
            let user = line.device.user.clone();
            if parked.is_some() {
                self.attendance.breaks(conn);
                if fails {
                    self.failed.insert(conn);
                }
            }
            self.office.push_back(ToSupervisor::Closed { user, conn, parked });
        }
    }

    /// No other connection serves the session that goes on over this one.
    fn check_alone(&self, conn: Conn) {
        let (_, own) = self.lines.iter().find(|(other, _)| *other == conn).unwrap();
        let same = |(other, line): &&(Conn, super::Line)| {
            *other != conn && line.known && line.opening.is_none() && line.token == own.token
        };
        let beside = self.lines.iter().find(same).map(|(other, _)| other);
        assert_eq!(beside, None, "a session has two connections, of which one is {conn:?}");
    }

    fn welcome(&mut self, conn: Conn, hello: &Hello, resumed: bool) {
        let limits = self.limits.clone();
        let server_time = self.now().unix_ms;
        let Some(line) = self.line_of(conn) else { return };
        let welcome = Welcome {
            version: 1,
            features: 0,
            server_time,
            grant_ms: line.session.grant_ms(),
            token: line.token,
            resumed,
            device_tag: line.device.tag,
            limits: WireLimits {
                payload_bytes_max: limits.payload_bytes_max,
                rooms_max: limits.rooms_per_session_max,
                unanswered_requests_max: limits.unanswered_requests_max,
                page_records_max: limits.page_records_max,
                page_bytes_max: limits.page_bytes_max,
                text_bytes_max: limits.text_bytes_max,
            },
            modules: List::default(),
            extensions: Extensions::default(),
        };
        self.arbiters[usize::from(conn.arbiter)].state.on_send(conn, hello.request, &welcome);
        self.run_relay(conn.arbiter);
    }

    pub(super) fn work(&mut self, conn: Conn) {
        loop {
            let state = &mut self.arbiters[usize::from(conn.arbiter)].state;
            let (takes, may_ask) = (state.takes(conn), state.may_ask(conn));
            let Some(line) = self.line_of(conn) else { return };
            let Some(frames) = line.backlog.front_mut() else { break };
            let Some(header) = frames.first_chunk() else {
                line.backlog.pop_front();
                continue;
            };
            if !takes {
                line.backlog.clear(); // Closed meanwhile: what is carried out now could not be answered.
                break;
            }
            if !may_ask {
                (line.held, line.busy) = (true, true);
                return;
            }
            let Header { len, kind, request, .. } = Header::from_bytes(header);
            let mut frame = frames.split_to(HEADER_BYTES + len as usize);
            let body = frame.split_off(HEADER_BYTES);
            let reused = self.arbiters[usize::from(conn.arbiter)].state.is_pending(conn, request);
            self.input(conn, session::state::Input::Frame { kind, request, reused, body });
        }
        if let Some(line) = self.line_of(conn) {
            (line.held, line.busy) = (false, false);
        }
    }

    pub(super) fn input(&mut self, conn: Conn, input: session::state::Input) {
        use session::state::Effect;
        let (now, at) = (self.now(), usize::from(conn.arbiter));
        let Some(line) = self.line_of(conn) else { return };
        line.session.handle(now, input);
        loop {
            let Some(line) = self.line_of(conn) else { return };
            let Some(effect) = line.session.poll() else { break };
            let (resolved, deadline, user) = (line.resolved, line.session.deadline(), line.device.user.clone());
            let state = &mut self.arbiters[at].state;
            match effect {
                Effect::Error { request, code, message } => {
                    let extensions = Extensions::default();
                    state.on_send(conn, request, &Error { code, retry_after_ms: 0, message: &message, extensions });
                }
                Effect::Begin(pending) => state.begin(conn, pending),
                Effect::Resolve { request, resumes, name } => {
                    let durability = durability_of(&name);
                    let records_max = if durability == Durability::Memory { 4 } else { 0 };
                    let create = Some(RoomOptions { durability, records_max, ..RoomOptions::default() });
                    let create = create.filter(|_| resumes.is_none());
                    let waiter = Waiter::Session { conn, request, resumes };
                    self.office.push_back(ToSupervisor::Resolve { name, create, waiter });
                }
                Effect::Join(room, join) => {
                    let Some(channel) = resolved else { continue };
                    let request = join.request;
                    state.on_resolved(conn, request, room);
                    self.knock(room, channel, join);
                }
                Effect::Presence { request, asked } => self.ask_presence(conn, request, asked),
                Effect::NotResumed { request, position: Position { room, seq: cursor, .. }, code, message } => {
                    let extensions = Extensions::default();
                    state.on_send(conn, request, &Detached { room, cursor, code, message, extensions });
                }
                Effect::HandOver => {
                    self.say_gone(conn, false);
                    if self.plant == Some(Plant::TwoAtOnce)
                        && let Some(line) = self.line_of(conn)
                    {
                        line.known = true;
                    }
                }
                Effect::Follow => {
                    self.office.push_back(ToSupervisor::Follow { user, conn });
                }
                Effect::Look { request, look } => {
                    let ears = self.ears.clone();
                    let reply = move |seen| ears.lock().push(Said::ToSession(conn, ToSession::Seen { request, seen }));
                    let store: std::sync::Arc<dyn Store> = self.store.clone();
                    asking::look(&store, look, reply);
                    self.listen();
                }
                Effect::Answer { request, frame } => state.on_answer(conn, request, frame),
                Effect::Refuse { request, room, code, message } => {
                    let retry_after_ms = if code.advice() == Advice::RetryLater { 100 } else { 0 };
                    match room {
                        Some(room) => state.refuse_in(conn, request, room, code, retry_after_ms, message),
                        None => state.refuse(conn, request, code, retry_after_ms, message),
                    }
                }
                Effect::Channel { request, room, input } => {
                    if let Err((code, retry_after_ms, message)) = state.may_pass(conn, request, room) {
                        state.refuse(conn, request, code, retry_after_ms, message);
                        self.run_relay(conn.arbiter);
                        continue;
                    }
                    let Some(input) = self.pass(at, room, input) else {
                        self.run_relay(conn.arbiter);
                        continue;
                    };
                    let channel = self.arbiters[at].channels.get(&room).copied();
                    match channel.filter(|channel| self.rooms.contains_key(channel)) {
                        Some(channel) => self.tell(channel, input),
                        None => self.refuse(conn, request, Code::RoomUnavailable, "the room is being rebuilt"),
                    }
                }
                Effect::SignalUser { .. } | Effect::SignalDropped => unreachable!("nobody signals here"),
                Effect::PartTaken { request, room, nonce, missing } => {
                    let (missing, extensions) = (List(missing), Extensions::default());
                    state.on_send(conn, request, &PartTaken { room, nonce, missing, extensions });
                }
                Effect::Arm => {
                    self.arbiters[at].timers.arm(deadline, conn.slot);
                }
                Effect::Change { .. } => unreachable!("the host alone changes rooms here"),
                Effect::Leave { request, room } => {
                    self.unwatch_room(conn, room);
                    self.arbiters[at].state.on_left(conn, request, room);
                }
                Effect::BeatAck { request, grant_ms, positions } => {
                    let extensions = Extensions::default();
                    state.on_send(conn, request, &HeartbeatAck { server_time: now.unix_ms, grant_ms, extensions });
                    state.on_beat(conn, &positions);
                }
                Effect::Close { code, message, retry_after_ms, goodbye } => {
                    state.on_close(conn, code, &message, retry_after_ms, goodbye);
                    if let Some(line) = self.line_of(conn) {
                        line.backlog.clear();
                    }
                }
            }
            self.run_relay(conn.arbiter);
        }
        if let Some(line) = self.line_of(conn) {
            line.resolved = None;
        }
    }

    /// Whether a session owes its client answers, for which it may have stopped reading.
    pub(super) fn owes(&mut self, conn: Conn) -> bool {
        let Some(line) = self.line_of(conn) else { return false };
        let (held, follow) = (!line.backlog.is_empty(), line.session.follow_request());
        held || self.arbiters[usize::from(conn.arbiter)].state.owes(conn, follow)
    }

    pub(super) fn refuse(&mut self, conn: Conn, request: u32, code: Code, message: &str) {
        self.arbiters[usize::from(conn.arbiter)].state.refuse(conn, request, code, 100, message);
    }
}
