//! The supervisor actor: one for each engine. Decides nothing: [`state`] does.

use std::{sync::Arc, time::Duration};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use actix_rt::ArbiterHandle;
use parlor_protocol::{DeviceTag, Name, RoomNumber};

use crate::{
    channel::{self, Channel, state::Sleep},
    context::Shared,
    handover::Handover,
    members::{Changed, RoomChange},
    message::Conn,
    port::{Generation, Load, Loaded, RoomOptions, StoreError, Swept},
    relay::{self, Relay, ToRelay, Woken},
    session::{Session, ToSession, parked::Parked},
    turns::Turns,
};
use state::{
    Effect, Input, Refusal, State,
    sessions::{Opening, Told, Which},
    sleeping::{Bed, Census, Said, walk_interval_ms},
};

pub mod state;

/// How often resting rooms are looked at.
const TICK: Duration = Duration::from_millis(500);

/// The engine's supervisor.
pub struct Supervisor {
    state: State<Addr<Channel>, Addr<Session>, Waiter>,
    shared: Arc<Shared>,
    arbiters: Vec<ArbiterHandle>,
    relays: Arc<[Addr<Relay>]>,
    /// One for each arbiter.
    handovers: Vec<Arc<Handover>>,
    turns: Turns,
}

/// Who waits for a room.
pub(crate) enum Waiter {
    /// A session's join, or another request of it. `resumes` is the room that it was in before.
    Session { session: Addr<Session>, request: u32, resumes: Option<RoomNumber> },
    /// The host, which erases a message there.
    Erase(channel::state::Erase),
    /// The host.
    Host(Box<dyn FnOnce(Result<RoomNumber, Refusal>) + Send>),
    /// The host, who wants a room changed.
    HostChange(Box<dyn FnOnce(Result<Changed, Refusal>) + Send>),
    /// The host, which puts sessions out.
    HostKick(Box<dyn FnOnce(usize) + Send>),
    /// The host, for the room's channel.
    Channel(Box<dyn FnOnce(Result<Addr<Channel>, Refusal>) + Send>),
}

/// What the supervisor is told by others.
pub(crate) enum ToSupervisor {
    /// The relays, one for each arbiter: the first message of all.
    Relays(Arc<[Addr<Relay>]>),
    /// Somebody wants a room.
    Resolve { name: Name, create: Option<RoomOptions>, waiter: Waiter },
    /// The store's answer.
    Loaded { name: Name, loaded: Result<Loaded, StoreError> },
    /// A channel is gone.
    Died { room: RoomNumber, generation: Generation },
    /// A session wants to hear of rooms that its user is added to.
    Follow { user: Name, conn: Conn },
    /// The host puts sessions out.
    Kick { user: Name, which: Which, reason: Arc<str>, waiter: Waiter },
    /// Somebody wants a room changed.
    Change { change: RoomChange, waiter: Option<Waiter> },
    /// The store's answer to that.
    Changed { change: RoomChange, waiter: Option<Waiter>, outcome: Result<Result<Changed, Refusal>, StoreError> },
    /// A channel goes by a change.
    Told { id: u64 },
    /// A session began, or goes on.
    Opened(Box<Opening<Addr<Session>>>),
    /// A session's connection is gone.
    Closed { user: Name, conn: Conn, parked: Option<Box<Parked>> },
    /// Somebody wants all channels that run.
    Channels(Box<dyn FnOnce(Vec<Addr<Channel>>) + Send>),
    /// What the sweep did.
    Swept(Result<Swept, StoreError>),
    /// About the sleep of rooms.
    Sleep(Said),
    /// A session panicked.
    SessionFailed { user: Name, device: DeviceTag },
    /// The host wants to know how many rooms there are.
    Count(Box<dyn FnOnce(Census) + Send>),
    /// The engine ends.
    Drain,
}

impl Message for ToSupervisor {
    type Result = ();
}

impl Supervisor {
    pub(crate) fn new(shared: Arc<Shared>, arbiters: Vec<ArbiterHandle>) -> Self {
        let state = State::new(shared.limits.clone(), shared.session_policy);
        Self { state, shared, arbiters, relays: Arc::new([]), handovers: Vec::new(), turns: Turns::default() }
    }

    fn input(&mut self, input: Input<Addr<Channel>, Addr<Session>, Waiter>, ctx: &mut Context<Self>) {
        self.state.handle(self.shared.clock.now(), input);
        while let Some(effect) = self.state.poll() {
            match effect {
                Effect::Load { name, create } => {
                    let (supervisor, to_load) = (ctx.address(), name.clone());
                    let reply = move |loaded| supervisor.do_send(ToSupervisor::Loaded { name, loaded });
                    self.shared.store.load(Load { name: to_load, create }, Box::new(reply));
                }
                Effect::Build(loaded) => self.build(loaded, ctx),
                Effect::Resolved { waiter, room } => match waiter {
                    Waiter::Session { session, request, resumes } => {
                        session.do_send(ToSession::Resolved { request, resumes, room });
                    }
                    Waiter::Erase(erase) => match room {
                        Ok((_, channel)) => channel.do_send(channel::state::Input::Erase(erase)),
                        Err(refusal) => erase.told.tell(Err(refusal)),
                    },
                    Waiter::Host(reply) => reply(room.map(|(room, _)| room)),
                    Waiter::HostChange(_) | Waiter::HostKick(_) => {
                        debug_assert!(false, "who wants a change waits for no room");
                    }
                    Waiter::Channel(reply) => reply(room.map(|(_, channel)| channel)),
                },
                Effect::Change { change, waiter } => {
                    let (supervisor, wanted) = (ctx.address(), change.clone());
                    let reply = move |outcome| supervisor.do_send(ToSupervisor::Changed { change, waiter, outcome });
                    self.shared.store.change(wanted, Box::new(reply));
                }
                Effect::Tell { handle, id, change } => handle.do_send(channel::state::Input::Changed { id, change }),
                Effect::Changed { waiter, outcome } => match waiter {
                    Waiter::Session { session, request, .. } => {
                        session.do_send(ToSession::Changed { request, outcome });
                    }
                    Waiter::HostChange(reply) => reply(outcome),
                    Waiter::Host(_) | Waiter::HostKick(_) | Waiter::Erase(_) | Waiter::Channel(_) => {
                        debug_assert!(false, "who waits for a room wants no change");
                    }
                },
                Effect::End(handle) => handle.do_send(channel::state::Input::End),
                Effect::Gone(room) => self.relays.iter().for_each(|relay| relay.do_send(ToRelay::Gone(room))),
                Effect::Down(room) => self.relays.iter().for_each(|relay| relay.do_send(ToRelay::Down(room))),
                Effect::Up(room, channel) => {
                    self.relays.iter().for_each(|relay| relay.do_send(ToRelay::Up(room, channel.clone())));
                }
                Effect::Sleep(bed) => self.lay(bed),
                Effect::Session(told) => self.tell(told),
                Effect::Kicked(Waiter::HostKick(reply), kicked) => reply(kicked),
                Effect::Kicked(..) => debug_assert!(false, "the host alone puts sessions out"),
                Effect::Sweep(sweep) => {
                    let supervisor = ctx.address();
                    let reply = move |swept| supervisor.do_send(ToSupervisor::Swept(swept));
                    self.shared.store.sweep(sweep, Box::new(reply));
                }
                Effect::SweepIn(ms) => sweep_in(ms, ctx),
                Effect::Swept(channel, first, gone_count) => {
                    channel.do_send(channel::state::Input::Swept { first, gone_count });
                }
            }
        }
    }

    fn lay(&self, bed: Bed<Addr<Channel>>) {
        let relays = self.relays.iter();
        match bed {
            Bed::Ask(channel) => channel.do_send(channel::state::Input::Sleep(Sleep::Ask)),
            Bed::LetGo(room, channel) => relays.for_each(|relay| relay.do_send(ToRelay::LetGo(room, channel.clone()))),
            Bed::Awake(room, channel) => relays.for_each(|relay| relay.do_send(ToRelay::Awake(room, channel.clone()))),
            Bed::Asleep(room) => relays.for_each(|relay| relay.do_send(ToRelay::Asleep(room))),
            Bed::NotWoken(room) => relays.for_each(|relay| relay.do_send(ToRelay::NotWoken(room))),
            Bed::Woken { room, handle: channel, expected, trusted } => {
                channel.do_send(channel::state::Input::Sleep(Sleep::Expect(expected)));
                relays.for_each(|relay| {
                    let channel = channel.clone();
                    relay.do_send(ToRelay::Woken(Woken { room, channel, expected, trusted }));
                });
            }
        }
    }

    fn tell(&self, told: Told<Addr<Session>>) {
        let router = &self.shared.router;
        let user = match told {
            Told::Begin(session, parked) => return session.do_send(ToSession::Begin(parked)),
            Told::Kick(session, reason) => return session.do_send(ToSession::Kick(reason)),
            Told::Added(session, room, name, from) => return session.do_send(ToSession::Added { room, name, from }),
            Told::End(session, code) => return session.do_send(ToSession::End(code)),
            Told::PutOff(session, rest_ms) => return session.do_send(ToSession::PutOff(rest_ms)),
            Told::Enter(user, presence) => {
                router.insert(&user, presence);
                user
            }
            Told::Move(user, before, presence) => {
                router.replace(&user, before, presence);
                user
            }
            Told::Rest(user, conn) => {
                router.rest(&user, conn);
                user
            }
            Told::Exit(user, conn) => {
                router.remove(&user, conn);
                user
            }
        };
        relay::presence::tell(router, &self.relays, &user);
    }

    fn build(&mut self, loaded: Loaded, ctx: &mut Context<Self>) {
        let Loaded { room, ref name, generation, .. } = loaded;
        let name = name.clone();
        #[expect(clippy::cast_possible_truncation, reason = "any spread over the arbiters does")]
        let arbiter = room.0 as usize % self.arbiters.len();
        let (shared, relays, supervisor) = (self.shared.clone(), self.relays.clone(), ctx.address());
        let handover = self.handovers[arbiter].clone();
        let channel = move |_: &mut Context<Channel>| Channel::new(loaded, shared, relays, handover, supervisor);
        let handle = Channel::start_in_arbiter(&self.arbiters[arbiter], channel);
        self.state.handle(self.shared.clock.now(), Input::Built { name, room, generation, handle });
    }
}

fn sweep_in(ms: u64, ctx: &mut Context<Supervisor>) {
    ctx.run_later(Duration::from_millis(ms), |supervisor, ctx| supervisor.input(Input::Sweep, ctx));
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(TICK, |supervisor, ctx| supervisor.input(Input::Tick, ctx));
        sweep_in(self.shared.limits.sweep_interval_ms, ctx);
        if let Some(ms) = walk_interval_ms(&self.shared.limits) {
            let walk = |supervisor: &mut Self, ctx: &mut Context<Self>| supervisor.input(Input::Sleep(Said::Walk), ctx);
            ctx.run_interval(Duration::from_millis(ms), walk);
        }
    }
}

impl Handler<ToSupervisor> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: ToSupervisor, ctx: &mut Context<Self>) {
        match message {
            ToSupervisor::Relays(relays) => {
                self.handovers = relays.iter().cloned().map(Handover::new).collect();
                self.relays = relays;
            }
            ToSupervisor::Resolve { name, create, waiter } => self.input(Input::Resolve { name, create, waiter }, ctx),
            ToSupervisor::Loaded { name, loaded } => self.input(Input::Loaded { name, loaded }, ctx),
            ToSupervisor::Died { room, generation } => self.input(Input::Died { room, generation }, ctx),
            ToSupervisor::Follow { user, conn } => self.input(Input::Follow { user, conn }, ctx),
            ToSupervisor::Kick { user, which, reason, waiter } => {
                self.input(Input::Kick { user, which, reason, waiter }, ctx);
            }
            ToSupervisor::Change { change, waiter } => self.input(Input::Change { change, waiter }, ctx),
            ToSupervisor::Changed { change, waiter, outcome } => {
                self.input(Input::Changed { change, waiter, outcome }, ctx);
            }
            ToSupervisor::Told { id } => self.input(Input::Told(id), ctx),
            ToSupervisor::Opened(opening) => self.input(Input::Opened(*opening), ctx),
            ToSupervisor::Closed { user, conn, parked } => self.input(Input::Closed { user, conn, parked }, ctx),
            ToSupervisor::Channels(reply) => {
                reply(self.handovers.iter().flat_map(|handover| handover.channels()).collect());
            }
            ToSupervisor::Swept(swept) => self.input(Input::Swept(swept), ctx),
            ToSupervisor::Sleep(said) => self.input(Input::Sleep(said), ctx),
            ToSupervisor::SessionFailed { user, device } => self.input(Input::SessionFailed { user, device }, ctx),
            ToSupervisor::Count(reply) => reply(self.state.census()),
            ToSupervisor::Drain => self.input(Input::Drain, ctx),
        }
        self.turns.count(ctx);
    }
}
