//! Sessions that outlive their connection: what is kept when it ends, and how their client goes on over the next one.

use parlor_protocol::{
    Advice, Code, DecodeError,
    message::{self, JoinFrom, Network, Position},
};

use super::{Effect, Joining, State};
use crate::{
    limits::Limits,
    port::Now,
    relay::state::{Asks, Pending},
    session::parked::Parked,
};

/// Of a room that came another way before its client said that it goes on with it.
const ANEW: &str = "the room was joined anew before, or is about to be";

impl State {
    /// Goes on with what is left of a session: its client said hello again. Its rooms wait for [`Resume`](message::Resume).
    pub fn take_up(&mut self, now: Now, network: Network, parked: Parked) {
        let Parked { rooms, upload, mut heartbeat, signals, .. } = parked;
        heartbeat.on_beat(Some(network), now.mono_ms);
        (self.left_behind, self.heartbeat, self.signals) = (rooms, heartbeat, signals);
        // The session's timer is set behind this.
        self.upload_timed = upload.is_some();
        self.upload = upload;
    }

    /// What is kept of the session when its connection ends; nothing if it is over.
    pub fn park(&mut self) -> Option<Parked> {
        if std::mem::replace(&mut self.over, true) {
            return None;
        }
        let mut rooms = std::mem::take(&mut self.rooms);
        // It is about to be attached to these again, which its client has not heard.
        let returning = self.joining.drain(..).filter_map(|joining| Some((joining.resumes?, joining.name)));
        rooms.extend(returning);
        rooms.sort_unstable_by_key(|(room, _)| *room);
        rooms.dedup_by_key(|(room, _)| *room);
        let mut left_behind = std::mem::take(&mut self.left_behind);
        left_behind.retain(|(room, _)| rooms.binary_search_by_key(room, |(known, _)| *known).is_err());
        // Not more than a session may have, if its clients never say which they go on with.
        left_behind.truncate((self.rooms_max as usize).saturating_sub(rooms.len()));
        rooms.append(&mut left_behind);
        // What it still hears would attach this connection to rooms that are another one's now.
        self.following = None;
        rooms.shrink_to_fit();
        let upload = self.upload.take();
        Some(Parked {
            rooms,
            upload,
            heartbeat: self.heartbeat.clone(),
            signals: self.signals,
            last_frame: self.last_frame,
        })
    }

    /// What is kept of the session when its actor failed: that it may be taken up, and nothing of what it knew, which may be
    /// what it failed of. For a connection whose end cannot go unnoticed there is nothing. Must not panic.
    pub fn park_failed(&mut self, limits: &Limits) -> Option<Parked> {
        let ended = std::mem::replace(&mut self.over, true) || !self.leased;
        (!ended).then(|| Parked::idle(self.heartbeat.anew(self.last_frame), limits, self.last_frame))
    }

    /// The connection is closed with this code. Where that tells the client to come back at once, the session waits for it.
    pub fn on_closed(&mut self, code: Code) {
        let waits = match code {
            Code::LeaseExpired => false,
            // It goes on elsewhere, with what is handed over.
            Code::Superseded => true,
            code => matches!(code.advice(), Advice::ReconnectNow | Advice::ReconnectLater),
        };
        self.over |= !waits;
    }

    pub(super) fn on_resume(&mut self, request: u32, body: &[u8]) -> Result<(), DecodeError> {
        let resume: message::Resume<'_> = parlor_protocol::decode(body)?;
        let mut left_behind = std::mem::take(&mut self.left_behind);
        for position in resume.positions.0 {
            let Position { room, epoch, seq } = position;
            let not = |code, message| Effect::NotResumed { request, position, code, message };
            if self.is_joined(room) || self.joining.iter().any(|joining| joining.resumes == Some(room)) {
                self.effects.push_back(not(Code::AlreadyJoined, ANEW));
                continue;
            }
            let Some(at) = left_behind.iter().position(|(number, _)| *number == room) else {
                self.effects.push_back(not(Code::NotJoined, "the session was not in that room: join it by its name"));
                continue;
            };
            let (_, name) = left_behind.swap_remove(at);
            if self.has(&name) {
                self.effects.push_back(not(Code::AlreadyJoined, ANEW));
            } else if self.rooms.len() + self.joining.len() >= self.rooms_max as usize {
                self.effects.push_back(not(Code::TooManyRooms, "the session has joined as many rooms as it may"));
            } else {
                let from = JoinFrom::Position(epoch, seq);
                self.joining.push(Joining { request, resumes: Some(room), name: name.clone(), from, follows: false });
                let pending = Pending { request, room: Some(room), asks: Asks::Resume(seq) };
                self.effects.push_back(Effect::Begin(pending));
                self.effects.push_back(Effect::Resolve { request, resumes: Some(room), name });
            }
        }
        // Places of which it did not make use are free.
        self.attach_waiting(0);
        Ok(())
    }
}
