//! The session actor: one connection's client. Decides nothing: [`state`] does.

use std::{rc::Rc, sync::Arc};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use bytes::{Buf as _, Bytes};
use parlor_protocol::{
    Advice, Code, Extensions, Header, List, Name, RoomNumber,
    frame::HEADER_BYTES,
    message::{Detached, Error, HeartbeatAck, JoinFrom, Limits as WireLimits, PartTaken, Position, Welcome},
};

use crate::{
    channel::Channel,
    members::{Asker, Changed, Refusal, RoomChange, Seen, asking, direct},
    message::Conn,
    panics,
    port::{DeviceKey, Now},
    relay::{
        Local,
        link::{Hello, Link},
    },
    router::Entry,
    supervisor::{ToSupervisor, Waiter, state::sessions::Opening},
};
use heartbeat::Heartbeat;
use inbound::{Driver, Inbound};
use parked::Parked;
use state::{Effect, Input, State, Wanted};

pub mod heartbeat;
pub mod inbound;
pub mod parked;
pub mod state;
pub mod timers;
pub mod upload;

/// A session's actor.
pub struct Session {
    state: State,
    local: Local,
    conn: Conn,
    device: DeviceKey,
    /// What only its beginning needs; taken then.
    opening: Option<Box<Hello>>,
    /// The session as others see it.
    entry: Arc<Entry>,
    /// The supervisor knows of it, and has to be told when its connection is gone.
    known: bool,
    link: Rc<Link>,
    /// What its client sends; `None` once that has ended.
    inbound: Option<Box<dyn Inbound>>,
    /// Whole frames that are not handled yet. More are read when there are none.
    backlog: Bytes,
    /// Channels of joins that the state is being told of.
    resolved: Option<Addr<Channel>>,
}

/// What a session is told by other actors.
pub(crate) enum ToSession {
    /// It begins, after it asked to take another one up: with what is left of that, or as a new one.
    Begin(Option<Box<Parked>>),
    /// A join was answered.
    JoinEnded { request: u32, asked: Option<RoomNumber>, room: Result<(RoomNumber, Name), Code> },
    /// The supervisor's answer.
    Resolved { request: u32, resumes: Option<RoomNumber>, room: Result<(RoomNumber, Addr<Channel>), Refusal> },
    /// A change that its client wanted was made, or refused.
    Changed { request: u32, outcome: Result<Changed, Refusal> },
    /// A question of its client's was answered, or refused.
    Seen { request: u32, seen: Result<Seen, Refusal> },
    /// Its user was added to a room, where delivery begins so.
    Added { room: RoomNumber, name: Name, from: JoinFrom },
    /// A room put it out, where its client stands there.
    Lost(Position),
    /// Its deadline may have come.
    Timer,
    /// It has to go, for another session.
    End(Code),
    /// Its device's sessions kept failing: it may come back after so many milliseconds.
    PutOff(u64),
    /// The host puts it out, for this reason.
    Kick(Arc<str>),
}

impl Message for ToSession {
    type Result = ();
}

impl Session {
    pub(crate) fn new(
        local: Local,
        conn: Conn,
        link: Rc<Link>,
        inbound: Box<dyn Inbound>,
        device: DeviceKey,
        (opening, entry): (Hello, Arc<Entry>),
        now: Now,
    ) -> Self {
        let shared = local.shared();
        let heartbeat = Heartbeat::new(shared.beats.clone(), opening.network, now.mono_ms);
        let (tier, uploads) = (shared.tiers.of(&device.user), shared.uploads.clone());
        let mut state = State::new(conn, device.clone(), tier, heartbeat, &shared.limits, uploads, now);
        state.let_create(shared.create_at_join.is_some());
        state.let_be_silent(!link.wire.may_go_unnoticed());
        Self {
            state,
            local,
            conn,
            device,
            opening: Some(Box::new(opening)),
            entry,
            known: false,
            link,
            inbound: Some(inbound),
            backlog: Bytes::new(),
            resolved: None,
        }
    }

    /// Does something of the session's; if that panics, it is told with its cause, and the session ends.
    fn guarded<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> T {
        panics::caught(|| run(&mut *self)).unwrap_or_else(|panic| {
            let (user, code, cause) = (&self.device.user, Code::Internal, panics::text(&*panic));
            tracing::error!(%user, %code, cause, "a session's actor panicked");
            let (user, device) = (user.clone(), self.device.tag);
            self.local.supervisor().do_send(ToSupervisor::SessionFailed { user, device });
            std::panic::resume_unwind(panic)
        })
    }

    fn now(&self) -> Now {
        self.local.shared().clock.now()
    }

    fn input(&mut self, input: Input, ctx: &mut Context<Self>) {
        self.state.handle(self.now(), input);
        self.run(ctx);
    }

    /// Handles frames until they end, or too many wait for answers or too many answers for the client.
    fn work(&mut self, ctx: &mut Context<Self>) {
        // One look at the clock for all of them.
        let now = self.now();
        while let Some(header) = self.backlog.first_chunk() {
            if !self.local.takes(self.conn) {
                break; // Closed meanwhile: what is carried out now could not be answered.
            }
            if !self.local.may_ask(self.conn) {
                return self.link.hold(true);
            }
            let Header { len, kind, request, .. } = Header::from_bytes(header);
            // There are whole frames only.
            let mut body = self.backlog.split_to(HEADER_BYTES + len as usize);
            body.advance(HEADER_BYTES);
            let reused = self.local.is_pending(self.conn, request);
            self.state.handle(now, Input::Frame { kind, request, reused, body });
            self.run(ctx);
        }
        self.backlog = Bytes::new();
        self.link.hold(false);
    }

    fn run(&mut self, ctx: &mut Context<Self>) {
        let conn = self.conn;
        while let Some(effect) = self.state.poll() {
            match effect {
                Effect::Error { request, code, message } => {
                    let extensions = Extensions::default();
                    self.local.send(conn, request, &Error { code, retry_after_ms: 0, message: &message, extensions });
                }
                Effect::Begin(pending) => self.local.begin(conn, pending),
                Effect::Resolve { request, resumes, name } => {
                    let create = self.local.shared().create_at_join.filter(|_| resumes.is_none());
                    let waiter = Waiter::Session { session: ctx.address(), request, resumes };
                    self.local.supervisor().do_send(ToSupervisor::Resolve { name, create, waiter });
                }
                Effect::Join(room, join) => {
                    if let Some(channel) = &self.resolved {
                        self.local.join(room, channel, join);
                    }
                }
                Effect::Refuse { request, room, code, message } => {
                    let retry_after_ms = if code.advice() == Advice::RetryLater { 100 } else { 0 };
                    match room {
                        Some(room) => self.local.refuse_in(conn, request, room, code, retry_after_ms, message),
                        None => self.local.refuse(conn, request, code, retry_after_ms, message),
                    }
                }
                Effect::NotResumed { request, position: Position { room, seq: cursor, .. }, code, message } => {
                    let extensions = Extensions::default();
                    self.local.send(conn, request, &Detached { room, cursor, code, message, extensions });
                }
                Effect::HandOver => self.say_gone(true),
                Effect::Follow => {
                    let user = self.device.user.clone();
                    self.local.supervisor().do_send(ToSupervisor::Follow { user, conn });
                }
                Effect::Channel { request, room, input } => self.local.to_channel(conn, request, room, input),
                Effect::SignalUser { user, signal } => self.local.signal_user(&user, &signal),
                Effect::SignalDropped => self.local.signal_dropped(),
                Effect::PartTaken { request, room, nonce, missing } => {
                    let (missing, extensions) = (List(missing), Extensions::default());
                    self.local.send(conn, request, &PartTaken { room, nonce, missing, extensions });
                }
                Effect::Arm => self.local.arm(conn, self.state.deadline()),
                Effect::Leave { request, room } => self.local.leave(conn, request, room),
                Effect::Change { request, wanted } => {
                    let change = self.change(wanted);
                    let waiter = Some(Waiter::Session { session: ctx.address(), request, resumes: None });
                    self.local.supervisor().do_send(ToSupervisor::Change { change, waiter });
                }
                Effect::Look { request, look } => {
                    let session = ctx.address();
                    let reply = move |seen| session.do_send(ToSession::Seen { request, seen });
                    asking::look(&self.local.shared().store, look, reply);
                }
                Effect::Answer { request, frame } => self.local.answer(conn, request, frame),
                Effect::Presence { request, asked } => {
                    self.local.ask_presence(conn, &self.device.user, request, asked);
                }
                Effect::BeatAck { request, grant_ms, positions } => self.answer_beat(request, grant_ms, &positions),
                Effect::Close { code, message, retry_after_ms, goodbye } => {
                    self.backlog.clear();
                    self.local.close(conn, code, &message, retry_after_ms, goodbye);
                }
            }
        }
    }

    fn change(&self, wanted: Wanted) -> RoomChange {
        let shared = self.local.shared();
        let (name, what) = match wanted {
            Wanted::Room(name, what) => (name, what),
            Wanted::Direct(other) => direct::open(&self.device.user, &other, shared.create_at_join.unwrap_or_default()),
        };
        let by = Asker::User(self.device.user.clone());
        RoomChange { name, by, at: self.now().unix_ms, members_max: shared.limits.members_per_room_max, what }
    }

    fn answer_beat(&self, request: u32, grant_ms: u32, positions: &[Position]) {
        let server_time = self.now().unix_ms;
        if self.entry.beat(server_time, Some(self.state.network())) {
            self.local.presence_changed(&self.device.user);
        }
        self.local.send(self.conn, request, &HeartbeatAck { server_time, grant_ms, extensions: Extensions::default() });
        self.local.beat(self.conn, positions);
    }

    /// Begins: with what is left of a session that is taken up, or as a new one.
    fn begin(&mut self, parked: Option<Box<Parked>>, ctx: &mut Context<Self>) {
        let Some(mut hello) = self.opening.take() else { return };
        let resumed = parked.is_some();
        if let (Some(parked), Some(token)) = (parked, hello.resume) {
            self.state.take_up(self.now(), hello.network, *parked);
            hello.token = token;
        }
        self.welcome(&hello, resumed);
        self.read(ctx);
    }

    fn end(&mut self, input: Input, ctx: &mut Context<Self>) {
        if self.opening.is_some() {
            self.read(ctx); // It has not begun, but its close has to be written.
        }
        self.input(input, ctx);
    }

    /// From here on it reads its connection, and writes what its relay cannot.
    fn read(&mut self, ctx: &mut Context<Self>) {
        self.local.arm(self.conn, self.state.deadline());
        ctx.spawn(Driver);
    }

    /// Whether it owes its client answers, for which it may have stopped reading.
    fn owes(&self) -> bool {
        !self.backlog.is_empty() || self.local.owes(self.conn, self.state.follow_request())
    }

    /// Tells the supervisor, once, that its connection is gone or does not count any more, and what is left of it.
    fn say_gone(&mut self, hands_over: bool) {
        if std::mem::replace(&mut self.known, false) {
            let parked = if self.opening.is_some() {
                None // It had not begun.
            } else if std::thread::panicking() {
                self.state.park_failed(&self.local.shared().limits)
            } else if hands_over || self.link.wire.may_go_unnoticed() {
                if self.owes() {
                    self.state.waited_for(self.now());
                }
                self.state.park()
            } else {
                None // A connection whose end cannot go unnoticed was ended on purpose.
            };
            let parked = parked.map(Box::new);
            let (user, conn, rests) = (self.device.user.clone(), self.conn, parked.is_some());
            self.local.supervisor().do_send(ToSupervisor::Closed { user, conn, parked });
            if rests {
                // Here, too: its rooms hear that it is gone before the supervisor may have come to it.
                self.entry.connect(false);
            }
        }
    }

    fn welcome(&self, hello: &Hello, resumed: bool) {
        let limits = &self.local.shared().limits;
        let welcome = Welcome {
            version: hello.version,
            features: 0,
            server_time: self.now().unix_ms,
            grant_ms: self.state.grant_ms(),
            token: hello.token,
            resumed,
            device_tag: self.device.tag,
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
        self.local.send(self.conn, hello.request, &welcome);
    }
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let Some(&Hello { token, resume, attempt, .. }) = self.opening.as_deref() else { return };
        let (user, presence, session) = (self.device.user.clone(), self.entry.clone(), ctx.address());
        let opening = Opening { user, presence, token, resume, attempt, session };
        self.local.supervisor().do_send(ToSupervisor::Opened(Box::new(opening)));
        self.known = true;
        if resume.is_none() {
            self.guarded(|session| session.begin(None, ctx));
        }
    }
}

impl Handler<ToSession> for Session {
    type Result = ();

    fn handle(&mut self, message: ToSession, ctx: &mut Context<Self>) {
        self.guarded(|session| session.told(message, ctx));
    }
}

impl Session {
    fn told(&mut self, message: ToSession, ctx: &mut Context<Self>) {
        match message {
            ToSession::Begin(parked) => self.begin(parked, ctx),
            ToSession::JoinEnded { request, asked, room } => {
                self.input(Input::JoinEnded { request, asked, room }, ctx);
            }
            ToSession::Resolved { request, resumes, room } => {
                let room = room.map(|(room, channel)| {
                    self.resolved = Some(channel);
                    room
                });
                self.input(Input::Resolved { request, resumes, room }, ctx);
                self.resolved = None;
            }
            ToSession::Changed { request, outcome } => self.input(Input::Changed { request, outcome }, ctx),
            ToSession::Seen { request, seen } => self.input(Input::Seen { request, seen }, ctx),
            ToSession::Added { room, name, from } => self.input(Input::Added { room, name, from }, ctx),
            ToSession::Lost(stands) => self.input(Input::Lost(stands), ctx),
            ToSession::Timer => {
                let owes = self.owes();
                self.input(Input::Timer { owes }, ctx);
                let at_once = self.now().mono_ms + 1;
                self.local.arm(self.conn, self.state.deadline().max(at_once));
            }
            ToSession::End(code) => self.end(Input::End(code), ctx),
            ToSession::PutOff(rest_ms) => self.end(Input::PutOff(rest_ms), ctx),
            ToSession::Kick(reason) => self.end(Input::Kick(reason), ctx),
        }
        self.state.rest();
    }
}

impl Drop for Session {
    /// Whatever the session ends of. Runs while unwinding: must not panic.
    fn drop(&mut self) {
        let conn = self.conn;
        self.say_gone(false);
        if std::thread::panicking() {
            // What the relay does about it could fail, too, so each step is on its own.
            let (local, link, inbound) = (self.local.clone(), self.link.clone(), self.inbound.take());
            actix_rt::spawn(async move {
                local.close_failed(conn, &link);
                if let Some(inbound) = inbound {
                    inbound.half_close();
                }
            });
            let local = self.local.clone();
            actix_rt::spawn(async move { local.disconnect(conn) });
        } else {
            self.local.disconnect(conn);
        }
    }
}
