//! One session, without a runtime: what its client may ask, and whether it lives.
//!
//! In: [`handle`](State::handle). Out: [`poll`](State::poll), until it says `None`. Answers that rooms give do not pass
//! here: a relay hands them to the connection.

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use bytes::Bytes;
use parlor_protocol::{
    Code, DecodeError, Kind, Name, RoomNumber, Seq, change,
    message::{self, JoinFrom, PUBLISH_REMOVE, PUBLISH_SILENT, Position, RecordKind},
};

use super::{heartbeat::Heartbeat, upload::Upload};
use crate::{
    channel,
    limits::Limits,
    message::{Conn, Fetch, Join, Publish},
    port::{Budget, DeviceKey, Now},
    relay::state::{Asks, Pending},
    tiers::TierNumber,
};
pub use presence::Asked;
pub use rooms::Wanted;
pub use speech::{Effect, Input};

pub(in crate::session) use self::receipts::SignalPace;
use following::Following;

/// A join that is not answered.
#[derive(Debug)]
struct Joining {
    request: u32,
    /// The room, if its client asked for none by name: it was there before, or its user is a member.
    resumes: Option<RoomNumber>,
    name: Name,
    from: JoinFrom,
    /// The server wants it for a session that follows.
    follows: bool,
}

impl Joining {
    /// Whether an answer to this request, about this room if it is about several, is for it.
    fn is(&self, request: u32, room: Option<RoomNumber>) -> bool {
        self.request == request && (self.resumes.is_none() || self.resumes == room)
    }

    /// Whether its client did not ask for it. It is told under the number 0, which a client's request may have, too.
    fn is_unasked(&self) -> bool {
        self.follows && self.request == 0
    }

    /// Where its client says that it stands.
    fn position(&self) -> Option<Position> {
        match (self.resumes, self.from) {
            (Some(room), JoinFrom::Position(epoch, seq)) if self.request > 0 => Some(Position { room, epoch, seq }),
            _ => None,
        }
    }
}

/// A session. Most of them do nothing most of the time, so that it owns little then; see [`rest`](Self::rest).
#[derive(Debug)]
pub struct State {
    conn: Conn,
    device: DeviceKey,
    tier: TierNumber,
    payload_bytes_max: u32,
    text_bytes_max: u32,
    rooms_max: u32,
    upload_ms: u64,
    /// Whether its client is told who is online.
    presence: bool,
    /// Whether its client may create rooms.
    creates: bool,
    heartbeat: Heartbeat,
    /// Whether its client may be gone unnoticed, so that it ends with its lease.
    leased: bool,
    /// When the client's last frame came, on the monotonic clock.
    last_frame: u64,
    signals: SignalPace,
    /// In the order of their numbers.
    rooms: Vec<(RoomNumber, Name)>,
    joining: Vec<Joining>,
    /// The rooms that it was in over an earlier connection, until its client says which it goes on with.
    left_behind: Vec<(RoomNumber, Name)>,
    /// Rooms of its user that it is being attached to.
    following: Option<Box<Following>>,
    /// It ended for good: nothing of it is kept.
    over: bool,
    /// A long message of which some parts are there.
    upload: Option<Box<Upload>>,
    /// Whether the timer is set for it.
    upload_timed: bool,
    /// What the parts of all sessions may take.
    uploads: Arc<Budget>,
    effects: VecDeque<Effect>,
}

impl State {
    /// A session whose client has just said hello.
    #[must_use]
    pub fn new(
        conn: Conn,
        device: DeviceKey,
        tier: TierNumber,
        heartbeat: Heartbeat,
        limits: &Limits,
        uploads: Arc<Budget>,
        now: Now,
    ) -> Self {
        Self {
            conn,
            device,
            tier,
            payload_bytes_max: limits.payload_bytes_max,
            text_bytes_max: limits.text_bytes_max,
            upload_ms: limits.upload_ms,
            presence: limits.presence,
            upload: None,
            upload_timed: false,
            uploads,
            rooms_max: limits.rooms_per_session_max,
            creates: false,
            heartbeat,
            leased: true,
            last_frame: now.mono_ms,
            signals: SignalPace::new(limits),
            rooms: Vec::new(),
            joining: Vec::new(),
            left_behind: Vec::new(),
            following: None,
            over: false,
            effects: VecDeque::new(),
        }
    }

    /// Lets its client create rooms, or not; it may not before this.
    pub fn let_create(&mut self, creates: bool) {
        self.creates = creates;
    }

    /// Lets its client be silent for as long as it likes, or not; it may not before this. For a connection whose end does
    /// not go unnoticed.
    pub fn let_be_silent(&mut self, silent: bool) {
        self.leased = !silent;
    }

    /// When it has to be looked at: it ends unless its client has sent a frame by then, forgets parts of which no more
    /// came, or tries a room again. On the monotonic clock; `u64::MAX` for never.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        let upload = self.upload.as_ref().map_or(u64::MAX, |upload| upload.expires);
        let retry = self.following.as_ref().map_or(u64::MAX, |following| following.retry_at());
        self.lease_ends().min(upload).min(retry)
    }

    fn lease_ends(&self) -> u64 {
        if self.leased { self.last_frame + self.heartbeat.lease_ms() } else { u64::MAX }
    }

    /// Its client has waited for the server until now: it is not silent, as its frames are not read.
    pub fn waited_for(&mut self, now: Now) {
        self.last_frame = now.mono_ms;
    }

    /// What the client is connected through.
    #[must_use]
    pub fn network(&self) -> message::Network {
        self.heartbeat.network()
    }

    /// The grant in force, in milliseconds.
    #[must_use]
    pub fn grant_ms(&self) -> u32 {
        self.heartbeat.grant_ms()
    }

    /// Takes one input in.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Frame { kind, request, reused, body } => {
                self.last_frame = now.mono_ms;
                let joins = |joining: &Joining| joining.request == request && !joining.is_unasked();
                if reused || self.joining.iter().any(joins) {
                    // Two answers under one number could not be told apart, by nobody.
                    return self.close(
                        Code::MalformedFrame,
                        "a request has the number of one that is not answered",
                        None,
                    );
                }
                self.on_frame(now, kind, request, &body);
            }
            Input::Resolved { request, resumes, room } => self.on_resolved(request, resumes, room),
            Input::JoinEnded { request, asked, room } => self.on_join_ended(now, request, asked, room),
            Input::Changed { request, outcome } => self.on_changed(request, outcome),
            Input::Seen { request, seen } => self.on_seen(request, seen),
            Input::Added { room, name, from } => self.on_added(room, name, from),
            Input::Lost(stands) => self.on_lost(stands),
            Input::Timer { owes } => {
                self.expire_upload(now, owes);
                self.follow_on(now);
                if owes {
                    self.waited_for(now);
                } else if now.mono_ms >= self.lease_ends() {
                    self.close(Code::LeaseExpired, "nothing was heard for three granted intervals", None);
                }
            }
            Input::End(Code::Superseded) => {
                self.effects.push_back(Effect::HandOver);
                self.close(Code::Superseded, "the session goes on over another connection", None);
            }
            Input::End(code) => self.close(code, "the user connected again", None),
            Input::PutOff(rest_ms) => {
                let message = "the server's part for this device failed again and again";
                self.close_for(Code::SessionsFail, message, rest_ms.try_into().unwrap_or(u32::MAX), None);
            }
            Input::Kick(reason) => self.close(Code::Kicked, reason.to_string(), None),
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Gives back what only work needs, when there is none.
    pub fn rest(&mut self) {
        if self.effects.is_empty() {
            self.effects = VecDeque::new();
        }
    }

    fn is_joined(&self, room: RoomNumber) -> bool {
        self.rooms.binary_search_by_key(&room, |(number, _)| *number).is_ok()
    }

    /// Whether a room of this name is joined, or being joined.
    fn has(&self, name: &Name) -> bool {
        self.rooms.iter().any(|(_, joined)| joined == name) || self.joining.iter().any(|joining| joining.name == *name)
    }

    fn on_frame(&mut self, now: Now, kind: u16, request: u32, body: &Bytes) {
        let Some(kind) = Kind::from_wire(kind) else {
            return; // A module's kind that no module here takes.
        };
        let handled = match kind {
            Kind::Join => self.on_join(request, body),
            Kind::Follow => self.on_follow(request, body),
            Kind::Resume => self.on_resume(request, body),
            Kind::Leave => self.on_leave(request, body),
            Kind::Publish => self.on_publish(request, body),
            Kind::Part => self.on_part(now, request, body),
            Kind::Fetch => self.on_fetch(request, body),
            Kind::Mark => self.on_mark(request, body),
            Kind::FetchReaders => self.on_fetch_readers(request, body),
            Kind::Signal => self.on_signal(now, request, body),
            Kind::QueryPresence => self.on_query_presence(request, body),
            Kind::WatchPresence => self.on_watch_presence(request, body),
            Kind::WatchRoom => self.on_watch_room(request, body),
            Kind::Heartbeat => self.on_heartbeat(now, request, body),
            Kind::Goodbye => parlor_protocol::decode::<message::Goodbye<'_>>(body).map(|_| {
                self.close(Code::Goodbye, "goodbye", Some(request));
            }),
            Kind::Hello => {
                self.close(Code::HelloExpected, "one hello is enough", None);
                Ok(())
            }
            // The link lets nothing pass that clients do not send.
            kind => self.on_room_frame(now, kind, request, body).unwrap_or(Ok(())),
        };
        if let Err(error) = handled {
            tracing::debug!(user = %self.device.user, %error, "a frame does not decode");
            self.close(Code::MalformedFrame, "a frame's body does not decode", None);
        }
    }

    fn on_join(&mut self, request: u32, body: &Bytes) -> Result<(), DecodeError> {
        let join: message::Join<'_> = parlor_protocol::decode(body)?;
        let name = match Name::parse(join.room) {
            Ok(name) => name,
            Err(error) => {
                self.error(request, Code::InvalidName, error.to_string());
                return Ok(());
            }
        };
        if self.rooms.len() + self.joining.len() >= self.rooms_max as usize {
            self.error(request, Code::TooManyRooms, format!("a session may join {} rooms", self.rooms_max));
        } else if self.has(&name) {
            self.error(request, Code::AlreadyJoined, format!("room {name:?} is joined already"));
        } else {
            let (name, from) = (name.clone(), join.from);
            self.joining.push(Joining { request, resumes: None, name: name.clone(), from, follows: false });
            self.effects.push_back(Effect::Begin(Pending { request, room: None, asks: Asks::Join }));
            self.effects.push_back(Effect::Resolve { request, resumes: None, name });
        }
        Ok(())
    }

    fn on_resolved(
        &mut self,
        request: u32,
        resumes: Option<RoomNumber>,
        room: Result<RoomNumber, (Code, &'static str)>,
    ) {
        let Some(joining) = self.joining.iter().find(|joining| joining.is(request, resumes)) else { return };
        let room = match (room, resumes) {
            (Ok(room), Some(before)) if room != before => {
                Err((Code::RoomDeleted, "the room was deleted and made again"))
            }
            (room, _) => room,
        };
        self.effects.push_back(match room {
            Ok(room) => {
                let (conn, device, from, follows) = (self.conn, self.device.clone(), joining.from, joining.follows);
                Effect::Join(room, Join { conn, request, device, from, follows })
            }
            Err((code, message)) => Effect::Refuse { request, room: resumes, code, message },
        });
    }

    fn on_join_ended(
        &mut self,
        now: Now,
        request: u32,
        asked: Option<RoomNumber>,
        room: Result<(RoomNumber, Name), Code>,
    ) {
        let Some(at) = self.joining.iter().position(|joining| joining.is(request, asked)) else { return };
        let joining = self.joining.swap_remove(at);
        if self.joining.is_empty() {
            self.joining = Vec::new();
        }
        let name = room.is_err().then(|| joining.name.clone());
        let told = joining.position();
        self.follow_ended(now, joining, room.as_ref().err().copied());
        if let Some(name) = name {
            self.attach_again(&name, told);
        }
        let Ok((room, name)) = room else { return };
        self.stands_no_more(room);
        self.left_behind.retain(|(behind, _)| *behind != room);
        if self.rooms.is_empty() {
            self.rooms.reserve_exact(1); // Mostly it stays at one.
        }
        match self.rooms.binary_search_by_key(&room, |(number, _)| *number) {
            Ok(at) => self.rooms[at].1 = name,
            Err(at) => self.rooms.insert(at, (room, name)),
        }
    }

    fn on_leave(&mut self, request: u32, body: &Bytes) -> Result<(), DecodeError> {
        let leave: message::Leave<'_> = parlor_protocol::decode(body)?;
        match self.rooms.binary_search_by_key(&leave.room, |(number, _)| *number) {
            Ok(at) => {
                self.rooms.remove(at);
                self.upload.take_if(|upload| upload.room() == leave.room);
                self.follow_no_more(leave.room);
                self.effects.push_back(Effect::Leave { request, room: leave.room });
            }
            Err(_) => self.not_joined(request, leave.room),
        }
        Ok(())
    }

    fn on_publish(&mut self, request: u32, body: &Bytes) -> Result<(), DecodeError> {
        let publish: message::Publish<'_> = parlor_protocol::decode(body)?;
        let room = publish.room;
        let max = self.payload_bytes_max;
        if !self.is_joined(room) {
            self.not_joined(request, room);
        } else if publish.payload.len() > max as usize {
            let text = format!("the payload has {} bytes, at most {max} are allowed", publish.payload.len());
            self.error(request, Code::TooLarge, text);
        } else if let Err(wrong) = is_whole(publish.kind, publish.refers_to, publish.flags, publish.payload) {
            self.error(request, Code::Unsupported, wrong.into());
        } else {
            let message = Publish {
                conn: self.conn,
                request,
                device: self.device.clone(),
                tier: self.tier,
                nonce: publish.nonce,
                kind: publish.kind,
                refers_to: publish.refers_to,
                epoch: change::epoch(&publish.extensions).unwrap_or_default(),
                lifetime_ms: publish.lifetime_ms,
                silent: publish.flags & PUBLISH_SILENT != 0,
                remove: publish.flags & PUBLISH_REMOVE != 0,
                content_type: publish.content_type.0,
                payload: body.slice_ref(publish.payload),
            };
            self.publish(room, message);
        }
        Ok(())
    }

    /// Hands a message to its room, which answers it.
    fn publish(&mut self, room: RoomNumber, message: Publish) {
        let Publish { request, nonce, .. } = message;
        self.effects.push_back(Effect::Begin(Pending { request, room: Some(room), asks: Asks::Publish(nonce) }));
        self.effects.push_back(Effect::Channel { request, room, input: channel::state::Input::Publish(message) });
    }

    fn on_fetch(&mut self, request: u32, body: &Bytes) -> Result<(), DecodeError> {
        let fetch: message::Fetch<'_> = parlor_protocol::decode(body)?;
        if self.is_joined(fetch.room) {
            let message::Fetch { room, start, direction, limit, .. } = fetch;
            let device = self.device.clone();
            let fetch = Fetch { conn: self.conn, request, device, start, direction, limit };
            self.effects.push_back(Effect::Begin(Pending { request, room: Some(room), asks: Asks::Fetch }));
            self.effects.push_back(Effect::Channel { request, room, input: channel::state::Input::Fetch(fetch) });
        } else {
            self.not_joined(request, fetch.room);
        }
        Ok(())
    }

    fn on_heartbeat(&mut self, now: Now, request: u32, body: &Bytes) -> Result<(), DecodeError> {
        let beat: message::Heartbeat<'_> = parlor_protocol::decode(body)?;
        let deadline = self.deadline();
        let grant_ms = self.heartbeat.on_beat(beat.network, now.mono_ms);
        let positions = beat.positions.0;
        self.effects.push_back(Effect::BeatAck { request, grant_ms, positions });
        if self.deadline() < deadline {
            // A shorter grant is a shorter lease, and the timer is set to the end of the longer one.
            self.effects.push_back(Effect::Arm);
        }
        Ok(())
    }

    fn not_joined(&mut self, request: u32, room: RoomNumber) {
        self.error(request, Code::NotJoined, format!("room number {room} is not joined"));
    }

    fn error(&mut self, request: u32, code: Code, message: String) {
        self.effects.push_back(Effect::Error { request, code, message });
    }

    fn close(&mut self, code: Code, message: impl Into<Cow<'static, str>>, goodbye: Option<u32>) {
        self.close_for(code, message, 0, goodbye);
    }

    fn close_for(
        &mut self,
        code: Code,
        message: impl Into<Cow<'static, str>>,
        retry_after_ms: u32,
        goodbye: Option<u32>,
    ) {
        self.on_closed(code);
        self.effects.push_back(Effect::Close { code, message: message.into(), retry_after_ms, goodbye });
    }
}

mod following;
mod presence;
mod receipts;
mod resuming;
mod rooms;
mod speech;
mod uploading;

/// Whether a publish is a message or a change as the protocol has them.
fn is_whole(kind: RecordKind, refers_to: Seq, flags: u32, payload: &[u8]) -> Result<(), &'static str> {
    if flags & !(PUBLISH_SILENT | PUBLISH_REMOVE) != 0 {
        return Err("flags other than 1 and 2 are not offered");
    }
    if flags & PUBLISH_REMOVE != 0 && kind != RecordKind::REACTION {
        return Err("flag 2 belongs to reactions (kind 3)");
    }
    match kind {
        RecordKind::MESSAGE if refers_to != 0 => Err("a message (kind 0) refers to nothing: refers_to must be 0"),
        RecordKind::MESSAGE => Ok(()),
        kind if !kind.is_change() => Err("only messages, edits, recalls and reactions (kinds 0 to 3) can be published"),
        _ if refers_to == 0 => Err("a change needs the seq of a message in refers_to"),
        RecordKind::RECALL if !payload.is_empty() => Err("a recall (kind 2) has an empty payload"),
        RecordKind::REACTION if change::reaction(payload).is_none() => {
            Err("a reaction (kind 3) is UTF-8 of 1 to 32 bytes")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
