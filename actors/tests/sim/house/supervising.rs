//! The shell of the supervisor.

use std::collections::VecDeque;

use parlor_actors::{
    channel,
    members::{Changed, RoomChange},
    message::Conn,
    port::{Generation, Load, Loaded, RoomOptions, Store, StoreError, Swept},
    session::parked::Parked,
    supervisor::{
        self,
        state::{
            Refusal,
            sessions::{Opening, Told, Which},
            sleeping,
        },
    },
};
use parlor_protocol::{Code, Name, RoomNumber};

use super::{ARBITERS, CLUB_NUMBER, ChannelId, House, Plant, Room, Said, ToRelay, ToSession, home, presence::Expected};

#[derive(Clone, Debug)]
pub enum Waiter {
    /// A session's request, and the room that it had before.
    Session { conn: Conn, request: u32, resumes: Option<RoomNumber> },
    /// The host's change of the club's members, by its number.
    Host(u64),
    /// The host, who puts sessions out.
    Kick,
}

pub enum ToSupervisor {
    Resolve { name: Name, create: Option<RoomOptions>, waiter: Waiter },
    Loaded { name: Name, loaded: Result<Loaded, StoreError> },
    Died { room: RoomNumber, generation: Generation },
    Change { change: RoomChange, waiter: Option<Waiter> },
    Changed { change: RoomChange, waiter: Option<Waiter>, outcome: Result<Result<Changed, Refusal>, StoreError> },
    Told(u64),
    Opened(Box<Opening<Conn>>),
    Closed { user: Name, conn: Conn, parked: Option<Box<Parked>> },
    Follow { user: Name, conn: Conn },
    Kick { user: Name, which: Which },
    Sweep,
    Swept(Result<Swept, StoreError>),
    Sleep(sleeping::Said),
}

impl House {
    pub(super) fn supervisor_turn(&mut self) -> bool {
        use supervisor::state::Input;
        let Some(message) = self.office.pop_front() else { return false };
        self.supervise(match message {
            ToSupervisor::Resolve { name, create, waiter } => Input::Resolve { name, create, waiter },
            ToSupervisor::Loaded { name, loaded } => Input::Loaded { name, loaded },
            ToSupervisor::Died { room, generation } => Input::Died { room, generation },
            ToSupervisor::Change { change, waiter } => Input::Change { change, waiter },
            ToSupervisor::Changed { change, waiter, outcome } => Input::Changed { change, waiter, outcome },
            ToSupervisor::Told(id) => Input::Told(id),
            ToSupervisor::Opened(opening) => Input::Opened(*opening),
            ToSupervisor::Closed { user, conn, parked } => Input::Closed { user, conn, parked },
            ToSupervisor::Follow { user, conn } => Input::Follow { user, conn },
            ToSupervisor::Kick { user, which } => {
                Input::Kick { user, which, reason: "the host says so".into(), waiter: Waiter::Kick }
            }
            ToSupervisor::Sweep => Input::Sweep,
            ToSupervisor::Swept(swept) => Input::Swept(swept),
            ToSupervisor::Sleep(said) => Input::Sleep(said),
        });
        true
    }

    pub(super) fn supervise(&mut self, input: supervisor::state::Input<ChannelId, Conn, Waiter>) {
        use supervisor::state::{Effect, Input};
        let now = self.now();
        let expected = match &input {
            Input::Opened(opening) => self.attendance.opened(opening),
            Input::Closed { .. } => Expected::Closed,
            Input::Tick => Expected::Tick,
            Input::Kick { user: of, which, .. } => Expected::Kicked(self.attendance.of(|user, device, conn| {
                user == of
                    && match *which {
                        Which::All => true,
                        Which::Device(kicked) => device == kicked,
                        Which::Session(kicked) => conn == kicked,
                    }
            })),
            _ => Expected::Nothing,
        };
        if matches!(expected, Expected::Replaced(_)) {
            self.count("comes back replaced");
        }
        if matches!(expected, Expected::Tick) && self.plant == Some(Plant::EndlessLease) {
            return;
        }
        self.supervisor.handle(now, input);
        while let Some(effect) = self.supervisor.poll() {
            match effect {
                Effect::Sleep(bed) => self.lay(bed),
                Effect::Load { name, create } => {
                    let (ears, to_load) = (self.ears.clone(), name.clone());
                    let reply =
                        move |loaded| ears.lock().push(Said::ToSupervisor(ToSupervisor::Loaded { name, loaded }));
                    self.store.load(Load { name: to_load, create }, Box::new(reply));
                }
                Effect::Build(loaded) => {
                    let Loaded { room, ref name, generation, .. } = loaded;
                    let name = name.clone();
                    self.next_channel += 1;
                    if room == CLUB_NUMBER {
                        self.club.begins_anew();
                    }
                    let handle = self.next_channel;
                    self.log(|| format!("channel {handle} is built from {loaded:?}"));
                    let (limits, budget) = (self.limits.clone(), self.store.budget().clone());
                    let (tiers, rates, pools) = (self.tiers.clone(), self.rates.clone(), self.pools.clone());
                    let word = std::sync::Arc::default();
                    let setting = channel::state::Setting { limits, budget, tiers, rates, pools, word };
                    let state = channel::state::State::new(loaded, usize::from(ARBITERS), setting);
                    self.rooms.insert(handle, Room { state, mailbox: VecDeque::new() });
                    self.arbiters[home(room)].home.insert(room, (generation, handle));
                    self.supervisor.handle(now, Input::Built { name, room, generation, handle });
                }
                Effect::Resolved { waiter: Waiter::Session { conn, request, resumes }, room } => {
                    self.mail(conn, ToSession::Resolved { request, resumes, room });
                }
                Effect::Down(room) => self.each_relay(|| ToRelay::Down(room)),
                Effect::Up(room, channel) => self.each_relay(|| ToRelay::Up(room, channel)),
                Effect::Session(told) => self.on_told(told),
                Effect::Kicked(waiter, sessions) => self.on_kicked(&waiter, sessions),
                Effect::Sweep(sweep) => {
                    let ears = self.ears.clone();
                    let reply = move |swept| ears.lock().push(Said::ToSupervisor(ToSupervisor::Swept(swept)));
                    self.store.sweep(sweep, Box::new(reply));
                }
                // Chance says when.
                Effect::SweepIn(_) => {}
                Effect::Swept(channel, first, gone_count) => {
                    self.count("swept");
                    self.log(|| format!("channel {channel} is told that what is below {first} expired"));
                    self.tell(channel, channel::state::Input::Swept { first, gone_count });
                }
                Effect::Change { change, waiter } => {
                    let (ears, wanted) = (self.ears.clone(), change.clone());
                    let reply = move |outcome| {
                        ears.lock().push(Said::ToSupervisor(ToSupervisor::Changed { change, waiter, outcome }));
                    };
                    self.store.change(wanted, Box::new(reply));
                }
                Effect::Tell { id, .. } if self.plant == Some(Plant::DeafToMembers) => {
                    self.office.push_back(ToSupervisor::Told(id));
                }
                Effect::Tell { handle, id, change } => {
                    if self.rooms.contains_key(&handle) {
                        self.tell(handle, channel::state::Input::Changed { id, change });
                    }
                }
                Effect::Changed { waiter: Waiter::Host(number), outcome } => self.on_changed(number, &outcome),
                Effect::Resolved { .. } | Effect::Changed { .. } => {
                    unreachable!("only the host changes rooms here, and wants no other")
                }
                Effect::End(_) | Effect::Gone(_) => unreachable!("nobody deletes a room here"),
            }
        }
        self.attendance.check(&expected, now.mono_ms);
        self.listen();
    }

    /// Does something about sessions, and has everybody see it.
    fn on_told(&mut self, mut told: Told<Conn>) {
        let now = self.now().mono_ms;
        match (&mut told, self.plant) {
            (Told::Added(..), Some(Plant::DeafFollower)) => return,
            (Told::End(_, code), Some(Plant::ToldReplaced)) => *code = Code::Replaced,
            (Told::Move(user, before, presence), Some(Plant::Flicker)) => {
                let (exit, enter) = (Told::Exit(user.clone(), *before), Told::Enter(user.clone(), presence.clone()));
                self.attendance.hear(&exit, now);
                told = enter;
            }
            _ => {}
        }
        self.attendance.hear(&told, now);
        match told {
            Told::Begin(conn, parked) => {
                self.count(if parked.is_some() { "session goes on" } else { "session not found" });
                self.mail(conn, ToSession::Begin(parked));
            }
            Told::End(conn, code) => {
                self.count(if code == Code::Superseded { "session superseded" } else { "session replaced" });
                self.mail(conn, ToSession::End(code));
            }
            Told::PutOff(..) => unreachable!("the supervisor is not told what sessions end of"),
            Told::Kick(conn, reason) => self.mail(conn, ToSession::Kick(reason)),
            Told::Added(conn, room, name, from) => {
                self.count("follower told");
                self.mail(conn, ToSession::Added { room, name, from });
            }
            Told::Enter(..) => self.count("session enters"),
            Told::Move(..) => self.count("session moves"),
            Told::Rest(..) => self.count("session rests"),
            Told::Exit(..) => self.count("session exits"),
        }
    }

    pub(super) fn each_relay(&mut self, message: impl Fn() -> ToRelay) {
        self.arbiters.iter_mut().for_each(|arbiter| arbiter.mailbox.push_back(message()));
    }

    pub(super) fn mail(&mut self, conn: Conn, message: ToSession) {
        if let Some(line) = self.line_of(conn) {
            line.tell(message);
        }
    }
}
