//! The shell of the supervisor.

use std::collections::VecDeque;

use parlor_actors::{
    channel,
    message::Conn,
    port::{DeviceKey, Load, Loaded, Now, Store},
    router::Presence,
    supervisor::{
        self,
        state::sessions::{Opening, Told},
    },
};
use parlor_protocol::{
    Token,
    message::{DeviceClass, Network},
};

use super::{ARBITERS, ChannelId, House, Room, Said, ToRelay, ToSession, ToSupervisor, Waiter, home};
use crate::Plant;

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
            ToSupervisor::Opened { device, conn } => Input::Opened(opening(device, conn, self.now())),
            ToSupervisor::Closed { user, conn } => Input::Closed { user, conn, parked: None },
            ToSupervisor::Sweep => Input::Sweep,
            ToSupervisor::Swept(swept) => Input::Swept(swept),
        });
        true
    }

    pub(super) fn supervise(&mut self, input: supervisor::state::Input<ChannelId, Conn, Waiter>) {
        use supervisor::state::{Effect, Input};
        let now = self.now();
        self.supervisor.handle(now, input);
        while let Some(effect) = self.supervisor.poll() {
            match effect {
                Effect::Sleep(_) => unreachable!("no room is put to sleep here"),
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
                    let handle = self.next_channel;
                    self.log(|| format!("channel {handle} is built from {loaded:?}"));
                    let (limits, budget) = (self.limits.clone(), self.store.budget().clone());
                    let (tiers, rates) = (self.tiers.clone(), self.rates.clone());
                    let setting = channel::state::Setting { limits, budget, tiers, rates };
                    let state = channel::state::State::new(loaded, usize::from(ARBITERS), setting);
                    self.rooms.insert(handle, Room { state, mailbox: VecDeque::new() });
                    self.arbiters[home(room)].home.insert(room, (generation, handle));
                    self.supervisor.handle(now, Input::Built { name, room, generation, handle });
                }
                Effect::Resolved { waiter: Waiter::Session { conn, request }, room } => {
                    self.mail(conn, ToSession::Resolved { request, resumes: None, room });
                }
                Effect::Down(room) => self.each_relay(|| ToRelay::Down(room)),
                Effect::Up(room, channel) => self.each_relay(|| ToRelay::Up(room, channel)),
                Effect::Session(Told::End(conn, code)) => {
                    self.count("session replaced");
                    self.mail(conn, ToSession::End(code));
                }
                // Nobody asks here who is online.
                Effect::Session(_) => {}
                Effect::Kicked(..) => unreachable!("nobody is put out here"),
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
                Effect::Resolved { waiter: Waiter::Host(_), .. } | Effect::Changed { .. } => {
                    unreachable!("only the host changes rooms here, and wants no other")
                }
                Effect::End(_) | Effect::Gone(_) => unreachable!("nobody deletes a room here"),
            }
        }
        self.listen();
    }

    pub(super) fn each_relay(&mut self, message: impl Fn() -> ToRelay) {
        self.arbiters.iter_mut().for_each(|arbiter| arbiter.mailbox.push_back(message()));
    }

    pub(super) fn mail(&mut self, conn: Conn, message: ToSession) {
        if let Some(line) = self.line_of(conn).filter(|line| !line.stopped) {
            line.mailbox.push_back(message);
        }
    }
}

/// A session begins.
fn opening(device: DeviceKey, conn: Conn, now: Now) -> Opening<Conn> {
    let presence = Presence {
        device: "device".parse().unwrap(),
        device_tag: device.tag,
        device_class: DeviceClass::Other,
        network: Network::Wifi,
        since: now.unix_ms,
        conn,
        connected: true,
        beats: [0; 4],
    };
    let presence = presence.into();
    Opening { user: device.user, presence, token: Token([0; 16]), resume: None, attempt: 1, session: conn }
}
