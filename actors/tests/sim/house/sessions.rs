//! The shell of a session.

use parlor_actors::{channel, message::Conn, port::RoomOptions, session};
use parlor_protocol::{
    Code, Extensions, Header, List,
    frame::HEADER_BYTES,
    message::{Durability, Error, HeartbeatAck, PartTaken},
};

use super::{House, ToSession, ToSupervisor, Waiter, durability_of};

impl House {
    pub(super) fn session_turn(&mut self, conn: Conn) -> bool {
        use session::state::Input;
        let Some(line) = self.line_of(conn).filter(|line| !line.stopped) else { return false };
        let Some(message) = line.mailbox.pop_front() else { return false };
        match message {
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
                self.input(conn, Input::Resolved { request, resumes, room });
            }
            ToSession::Lost(room) => self.input(conn, Input::Lost(room)),
            ToSession::Timer => {
                let owes = self.owes(conn);
                self.input(conn, Input::Timer { owes });
                let at_once = self.now().mono_ms + 1;
                if let Some(line) = self.line_of(conn) {
                    let deadline = line.session.deadline().max(at_once);
                    self.arbiters[usize::from(conn.arbiter)].timers.arm(deadline, conn.slot);
                }
            }
            ToSession::End(code) => self.input(conn, Input::End(code)),
            ToSession::Disconnected => {
                line.stopped = true;
                let user = line.device.user.clone();
                self.office.push_back(ToSupervisor::Closed { user, conn });
            }
        }
        true
    }

    pub(super) fn work(&mut self, conn: Conn) {
        loop {
            let may_ask = self.arbiters[usize::from(conn.arbiter)].state.may_ask(conn);
            let Some(line) = self.line_of(conn) else { return };
            let Some(frames) = line.backlog.front_mut() else { break };
            if !may_ask {
                (line.held, line.busy) = (true, true);
                return;
            }
            let Some(header) = frames.first_chunk() else {
                line.backlog.pop_front();
                continue;
            };
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
            let (resolved, deadline) = (line.resolved, line.session.deadline());
            let state = &mut self.arbiters[at].state;
            match effect {
                Effect::Error { request, code, message } => {
                    let extensions = Extensions::default();
                    state.on_send(conn, request, &Error { code, retry_after_ms: 0, message: &message, extensions });
                }
                Effect::Begin(pending) => state.begin(conn, pending),
                Effect::Resolve { request, name, .. } => {
                    let durability = durability_of(&name);
                    let records_max = if durability == Durability::Memory { 4 } else { 0 };
                    let create = Some(RoomOptions { durability, records_max, ..RoomOptions::default() });
                    let waiter = Waiter::Session { conn, request };
                    self.office.push_back(ToSupervisor::Resolve { name, create, waiter });
                }
                Effect::Join(room, join) => {
                    let Some(channel) = resolved else { continue };
                    let request = join.request;
                    state.on_resolved(conn, request, room);
                    if self.rooms.contains_key(&channel) {
                        self.tell(channel, channel::state::Input::Join(join));
                    } else {
                        self.refuse(conn, request, Code::RoomUnavailable, "the room is being rebuilt");
                    }
                }
                Effect::Presence { .. } => unreachable!("nobody asks who is online here"),
                Effect::NotResumed { .. } | Effect::HandOver | Effect::Follow => {
                    unreachable!("nobody takes a session up here")
                }
                Effect::Refuse { request, code, message, .. } => self.refuse(conn, request, code, message),
                Effect::Channel { request, room, input } => {
                    if !state.may_pass(conn, request) {
                        state.refuse(conn, request, Code::HeldBack, 100, "an earlier send was refused");
                        self.run_relay(conn.arbiter);
                        continue;
                    }
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
                Effect::Change { .. } | Effect::Look { .. } | Effect::Answer { .. } => {
                    unreachable!("nobody asks about rooms here")
                }
                Effect::Leave { request, room } => state.on_left(conn, request, room),
                Effect::BeatAck { request, grant_ms, positions } => {
                    let extensions = Extensions::default();
                    state.on_send(conn, request, &HeartbeatAck { server_time: now.unix_ms, grant_ms, extensions });
                    state.on_beat(conn, &positions);
                }
                Effect::Close { code, message, goodbye } => {
                    state.on_close(conn, code, &message, goodbye);
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

    /// Whether a session owes its client answers, for which it has stopped reading.
    pub(super) fn owes(&mut self, conn: Conn) -> bool {
        let pending = self.arbiters[usize::from(conn.arbiter)].state.pending_of(conn);
        pending > 0 || self.line_of(conn).is_some_and(|line| !line.backlog.is_empty())
    }

    pub(super) fn refuse(&mut self, conn: Conn, request: u32, code: Code, message: &str) {
        self.arbiters[usize::from(conn.arbiter)].state.refuse(conn, request, code, 100, message);
    }
}
