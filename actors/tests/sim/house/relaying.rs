//! The shell of a relay.

use parlor_actors::{
    channel,
    port::{Outcome, Store},
    relay,
};
use parlor_protocol::{Code, RoomNumber};

use super::{House, ToRelay, ToSession, arbiter_number};

impl House {
    pub(super) fn relay_turn(&mut self, at: usize) -> bool {
        let arbiter = &mut self.arbiters[at];
        let Some(message) = arbiter.mailbox.pop_front() else { return false };
        match message {
            ToRelay::News { room, news, channel } => {
                if let Some(log) = &self.log {
                    log.lock().push(format!("relay {at} hears of room {room}: {news:?}"));
                }
                if let Some(channel) = channel {
                    arbiter.channels.insert(room, channel);
                }
                arbiter.state.on_news(room, news);
            }
            ToRelay::Down(room) => {
                if let Some(log) = &self.log {
                    log.lock().push(format!("relay {at}: room {room} is down"));
                }
                arbiter.state.on_channel_down(room);
            }
            ToRelay::Up(room, channel) => {
                if let Some(log) = &self.log {
                    log.lock().push(format!("relay {at}: room {room} has channel {channel}"));
                }
                arbiter.state.on_channel_down(room);
                self.run_relay(arbiter_number(at));
                let arbiter = &mut self.arbiters[at];
                let (number, mut devices) = (arbiter.state.arbiter(), arbiter.state.devices_in(room));
                if devices.is_empty() {
                    arbiter.channels.remove(&room);
                } else {
                    arbiter.channels.insert(room, channel);
                    self.plant_returning(&mut devices);
                    self.tell(channel, channel::state::Input::Adopt { arbiter: number, devices });
                    self.presence_rebuilt(at, room);
                }
            }
            ToRelay::LetGo(room, channel) => self.let_go(at, room, channel),
            ToRelay::Awake(room, channel) => self.stay_awake(at, room, channel),
            ToRelay::Asleep(room) => arbiter.state.on_asleep(room),
            ToRelay::Woken(woken) => self.woken(at, woken),
            ToRelay::NotWoken(room) => arbiter.state.on_not_woken(room),
            ToRelay::RoomPresence { room, watch, to, told } => self.on_room_presence(at, room, watch, to, &told),
            ToRelay::Unheard { room, conn, request } => {
                let (code, message) = (Code::RoomUnavailable, "the room is being rebuilt");
                arbiter.state.refuse_in(conn, request, room, code, 100, message);
            }
            ToRelay::HandOver => self.store.append(std::mem::take(&mut arbiter.appends)),
            ToRelay::Settled => {
                for Outcome { room, generation, stored } in std::mem::take(&mut arbiter.settled) {
                    let current = self.arbiters[at].home.get(&room).filter(|(current, _)| *current == generation);
                    let Some((_, id)) = current.copied() else { continue };
                    let input = match stored {
                        Ok(commit) => channel::state::Input::Committed(commit.upto),
                        Err(error) => channel::state::Input::Failed(error),
                    };
                    self.tell(id, input);
                }
            }
        }
        self.run_relay(arbiter_number(at));
        true
    }

    pub(super) fn run_relay(&mut self, number: u16) {
        use relay::state::Effect;
        let at = usize::from(number);
        let mut left = Vec::new();
        while let Some(effect) = self.arbiters[at].state.poll() {
            match effect {
                Effect::Wake(room) => self.wake(room),
                Effect::Forgot(room) => self.forget(room, number),
                Effect::Pull { room, conn, after } => {
                    self.tell_room(at, room, channel::state::Input::Pull { conn, after });
                }
                Effect::Detached { room, device } => {
                    self.tell_room(at, room, channel::state::Input::Detached { arbiter: number, device });
                    left.push(room);
                }
                Effect::Delivered { room, user, seq } => {
                    self.count("position passed on");
                    self.tell_room(at, room, channel::state::Input::Delivered { user, seq });
                }
                Effect::JoinEnded { conn, request, asked, room } => {
                    self.mail(conn, ToSession::JoinEnded { request, asked, room });
                }
                Effect::Answered(conn) => {
                    if let Some(line) = self.line_of(conn) {
                        line.answered();
                    }
                }
                Effect::Lost { conn, stands } => {
                    self.note_lost(conn, stands.room);
                    self.unwatch_room(conn, stands.room);
                    self.mail(conn, ToSession::Lost(stands));
                }
                Effect::Finish(conn) => {
                    if let Some(line) = self.line_of(conn) {
                        line.finish();
                    }
                }
                Effect::Kill(conn) => {
                    if let Some(line) = self.line_of(conn) {
                        line.kill();
                    }
                }
            }
        }
        for room in left {
            if !self.arbiters[at].state.knows(room) {
                self.arbiters[at].channels.remove(&room);
            }
        }
    }

    pub(super) fn tell_room(&mut self, at: usize, room: RoomNumber, input: channel::state::Input) {
        let Some(input) = self.pass(at, room, input) else { return };
        if let Some(channel) = self.arbiters[at].channels.get(&room) {
            self.tell(*channel, input);
        }
    }
}
