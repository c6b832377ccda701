//! The sleep of rooms: what the shells of the supervisor, the relays and the channels do about it.

use std::collections::VecDeque;

use parlor_actors::{
    arbiters::Arbiters,
    channel::state::{Input, Rest, Sleep},
    message::Join,
    supervisor::state::{
        self,
        sleeping::{Bed, Said, walk_interval_ms},
    },
};
use parlor_protocol::{Name, RoomNumber, Seq};

use super::{ARBITERS, ChannelId, House, Plant, ToRelay, arbiter_number, supervising::ToSupervisor};

/// A room that slept, and whoever runs it now.
#[derive(Clone, Copy)]
pub struct Woken {
    room: RoomNumber,
    channel: ChannelId,
    expected: Arbiters,
    trusted: bool,
}

impl House {
    /// Time passed: the supervisor asks some rooms whether they are idle.
    pub(super) fn walk(&mut self) {
        if walk_interval_ms(&self.limits).is_some() {
            self.supervise(state::Input::Sleep(Said::Walk));
        }
    }

    /// The supervisor wants something done about the sleep of rooms.
    pub(super) fn lay(&mut self, bed: Bed<ChannelId>) {
        match bed {
            Bed::Ask(channel) => self.tell(channel, Input::Sleep(Sleep::Ask)),
            Bed::LetGo(room, channel) => self.each_relay(|| ToRelay::LetGo(room, channel)),
            Bed::Awake(room, channel) => self.each_relay(|| ToRelay::Awake(room, channel)),
            Bed::Asleep(room) => {
                self.count("room sleeps with subscribers");
                self.each_relay(|| ToRelay::Asleep(room));
            }
            Bed::NotWoken(room) => {
                self.count("room not woken");
                self.each_relay(|| ToRelay::NotWoken(room));
            }
            Bed::Woken { room, handle: channel, expected, trusted } => {
                self.count("room woken");
                if !trusted {
                    self.count("room woken that missed a change");
                }
                self.tell(channel, Input::Sleep(Sleep::Expect(expected)));
                self.each_relay(|| ToRelay::Woken(Woken { room, channel, expected, trusted }));
            }
        }
    }

    // A channel.

    pub(super) fn rest(&mut self, id: ChannelId, rest: Rest) {
        let Some(room) = self.rooms.get(&id) else { return };
        let (number, generation) = (room.state.room(), room.state.generation());
        self.log(|| format!("channel {id} of room {number} says {rest:?}"));
        match rest {
            Rest::Idle => {
                self.falling.insert(number);
            }
            Rest::Awake | Rest::Asleep(_) => {
                self.falling.remove(&number);
            }
        }
        self.count(match rest {
            Rest::Idle => "room found idle",
            Rest::Awake => "room stays awake",
            Rest::Asleep(_) => "room sleeps",
        });
        let said = Said::Rest { room: number, generation, rest };
        self.office.push_back(ToSupervisor::Sleep(said));
        if matches!(rest, Rest::Asleep(_)) {
            self.kill_channel(id);
        }
    }

    /// A join goes to a channel that the supervisor has named, and tells its relay if that has ended.
    pub(super) fn knock(&mut self, room: RoomNumber, channel: ChannelId, join: Join) {
        if self.falling.contains(&room) {
            self.count("join of a room on its way to sleep");
        }
        if self.rooms.contains_key(&channel) {
            self.tell(channel, Input::Join(join));
        } else {
            self.unheard(room, &join);
        }
    }

    /// A channel has ended, with these unheard.
    pub(super) fn drop_mailbox(&mut self, room: RoomNumber, mailbox: VecDeque<Input>) {
        for input in mailbox {
            if let Input::Join(join) = input {
                self.unheard(room, &join);
            }
        }
    }

    fn unheard(&mut self, room: RoomNumber, &Join { conn, request, .. }: &Join) {
        self.count("join unheard");
        self.arbiters[usize::from(conn.arbiter)].mailbox.push_back(ToRelay::Unheard { room, conn, request });
    }

    // A relay.

    /// Whether an input may go to its room's channel now: it is given back, or waits for the room to be awake.
    pub(super) fn pass(&mut self, at: usize, room: RoomNumber, input: Input) -> Option<Input> {
        let input = self.arbiters[at].state.pass(room, input);
        if input.is_none() {
            let falls = self.falling.contains(&room);
            self.count(if falls { "message to a room on its way to sleep" } else { "message to a room that sleeps" });
        }
        input
    }

    pub(super) fn wake(&mut self, room: RoomNumber) {
        if self.plant != Some(Plant::Oversleep) {
            self.office.push_back(ToSupervisor::Sleep(Said::Wake(room)));
        }
    }

    pub(super) fn forget(&mut self, room: RoomNumber, arbiter: u16) {
        self.count("room forgotten in its sleep");
        self.office.push_back(ToSupervisor::Sleep(Said::Forgot { room, arbiter }));
    }

    pub(super) fn let_go(&mut self, at: usize, room: RoomNumber, channel: ChannelId) {
        let hasty = self.plant == Some(Plant::LateSenders);
        let arbiter = &mut self.arbiters[at];
        arbiter.state.on_let_go(room);
        arbiter.channels.remove(&room);
        let number = arbiter.state.arbiter();
        for other in (0..ARBITERS).filter(|other| hasty || *other == number) {
            self.tell(channel, Input::Sleep(Sleep::LetGo(other)));
        }
    }

    pub(super) fn stay_awake(&mut self, at: usize, room: RoomNumber, channel: ChannelId) {
        let Some(waiting) = self.arbiters[at].state.on_awake(room) else { return };
        waiting.into_iter().for_each(|input| self.tell(channel, input));
        if self.arbiters[at].state.knows(room) {
            self.arbiters[at].channels.insert(room, channel);
        }
    }

    pub(super) fn woken(&mut self, at: usize, Woken { room, channel, expected, trusted }: Woken) {
        let arbiter = arbiter_number(at);
        let woken = self.arbiters[at].state.on_woken(room);
        if woken.is_none() && !expected.contains(arbiter) {
            return;
        }
        let (mut devices, mut waiting) = woken.unwrap_or_default();
        self.plant_returning(&mut devices);
        match self.plant {
            Some(Plant::SubscribersOverslept) => devices.clear(),
            Some(Plant::WaitersOverslept) => waiting.clear(),
            _ => {}
        }
        let told =
            if trusted { Input::Sleep(Sleep::Woken { arbiter, devices }) } else { Input::Adopt { arbiter, devices } };
        self.tell(channel, told);
        waiting.into_iter().for_each(|input| self.tell(channel, input));
        if self.arbiters[at].state.knows(room) {
            self.arbiters[at].channels.insert(room, channel);
        }
    }

    // What the invariants look at.

    /// How many rooms sleep and have subscribers.
    pub fn asleep(&self) -> usize {
        self.supervisor.census().asleep
    }

    /// The newest seq of a room that runs, or of one that sleeps.
    pub fn tail(&self, name: &Name, number: RoomNumber) -> Option<Seq> {
        let room = self.rooms.values().find(|room| room.state.room() == number);
        let sleeps = || self.supervisor.sleeps(name).then(|| self.store.extent(name).map_or(0, |(_, tail)| tail));
        room.map(|room| room.state.tail()).or_else(sleeps)
    }

    /// No room that sleeps has a channel, none has two, and none has one that the supervisor does not know.
    pub(super) fn check_sleepers(&self) {
        let mut numbers: Vec<RoomNumber> = self.rooms.values().map(|room| room.state.room()).collect();
        numbers.sort_unstable();
        assert!(numbers.is_sorted_by(|a, b| a < b), "a room has two channels: {numbers:?}");
        assert!(numbers.len() <= self.supervisor.rooms(), "a channel that the supervisor does not know");
        let sleeper = self.rooms.values().find(|room| self.supervisor.sleeps(room.state.name()));
        assert!(sleeper.is_none(), "a room sleeps and has a channel: {}", sleeper.unwrap().state.name());
    }
}
