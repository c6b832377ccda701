//! The relay actor: one for each arbiter. Decides nothing: [`state`] does.
//!
//! The arbiter's sessions share the relay's insides through [`Local`], on their one thread and without
//! messages; channels, which may be on other arbiters, send it `RoomNews`.

use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
    time::Duration,
};

use actix::{Actor, Addr, AsyncContext, Context, Handler};
use parlor_protocol::{Code, RoomNumber};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use crate::{
    channel::{self, Channel, state::Sleep},
    context::Shared,
    message::Conn,
    outbound::Wire,
    session::{ToSession, timers::Timers},
    supervisor::{Supervisor, ToSupervisor, state::sleeping::Said},
    turns::Turns,
};
use link::Link;
use state::{Effect, State};

pub(crate) use speech::{RoomNews, ToRelay, Woken};

mod draining;
pub mod link;
pub mod onlookers;
mod pace;
pub(crate) mod presence;
mod serving;
mod speech;
pub mod state;
pub mod watching;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(200);

/// One arbiter's deliveries.
pub struct Relay {
    local: Local,
    turns: Turns,
}

/// The insides of an arbiter's relay, for what runs on its thread.
#[derive(Clone)]
pub struct Local(Rc<Inside>);

struct Inside {
    shared: Arc<Shared>,
    supervisor: Addr<Supervisor>,
    state: RefCell<State>,
    /// By slot.
    links: RefCell<Vec<Option<Rc<Link>>>>,
    channels: RefCell<FxHashMap<RoomNumber, Addr<Channel>>>,
    timers: RefCell<Timers>,
    /// Some connection has something to write.
    dirty: Notify,
    /// All relays of the engine: the first message that this one gets.
    relays: OnceCell<Arc<[Addr<Relay>]>>,
    draining: std::cell::Cell<bool>,
    /// Who is told of presence.
    watchers: presence::Watchers,
    pace: pace::Pace,
}

impl Relay {
    pub(crate) fn new(arbiter: u16, shared: Arc<Shared>, supervisor: Addr<Supervisor>) -> Self {
        let state = RefCell::new(State::new(arbiter, shared.limits.clone()));
        let watchers = presence::Watchers::new(&shared.limits);
        let inside = Inside {
            shared,
            supervisor,
            state,
            links: RefCell::default(),
            channels: RefCell::default(),
            timers: RefCell::default(),
            dirty: Notify::new(),
            relays: OnceCell::new(),
            draining: std::cell::Cell::new(false),
            watchers,
            pace: pace::Pace::default(),
        };
        Self { local: Local(Rc::new(inside)), turns: Turns::default() }
    }
}

impl Actor for Relay {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        actix_rt::spawn(flush_turns(self.local.clone()));
        ctx.run_interval(TICK, |relay, _| relay.local.tick());
    }
}

impl Handler<RoomNews> for Relay {
    type Result = ();

    fn handle(&mut self, RoomNews { room, news, channel }: RoomNews, ctx: &mut Context<Self>) {
        if let Some(channel) = channel {
            self.local.0.channels.borrow_mut().insert(room, channel);
        }
        self.local.with(|state| state.on_news(room, news));
        self.turns.count(ctx);
    }
}

impl Handler<ToRelay> for Relay {
    type Result = ();

    fn handle(&mut self, message: ToRelay, ctx: &mut Context<Self>) {
        match message {
            ToRelay::Relays(relays) => {
                // There is one such message.
                let _ = self.local.0.relays.set(relays);
            }
            ToRelay::Signal(conns, signal) => self.local.with(|state| state.on_signal_to(&conns, &signal)),
            ToRelay::Presence(user) => self.local.on_presence(&user),
            ToRelay::RoomPresence { room, watch, to, told } => self.local.on_room_presence(room, watch, to, &told),
            ToRelay::Down(room) => self.local.with(|state| state.on_channel_down(room)),
            ToRelay::Gone(room) => {
                self.local.with(|state| state.on_room_gone(room));
                self.local.0.channels.borrow_mut().remove(&room);
            }
            ToRelay::Up(room, channel) => self.local.up(room, channel),
            ToRelay::LetGo(room, channel) => self.local.let_go(room, &channel),
            ToRelay::Awake(room, channel) => self.local.awake(room, channel),
            ToRelay::Asleep(room) => self.local.with(|state| state.on_asleep(room)),
            ToRelay::Woken(woken) => self.local.woken(woken),
            ToRelay::NotWoken(room) => self.local.with(|state| state.on_not_woken(room)),
            ToRelay::Unheard { room, conn, request } => {
                self.local.refuse_in(conn, request, room, Code::RoomUnavailable, 100, "the room is being rebuilt");
            }
            ToRelay::HandOver(handover) => self.local.hand_over(handover),
            ToRelay::Settled(handover) => handover.tell(),
            ToRelay::Run(run) => run(&self.local),
            ToRelay::Drain { patience, come_back_ms, done } => {
                actix_rt::spawn(draining::drain(self.local.clone(), patience, come_back_ms, done));
            }
        }
        self.turns.count(ctx);
    }
}

impl Local {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    pub(crate) fn supervisor(&self) -> &Addr<Supervisor> {
        &self.0.supervisor
    }

    /// Whether the engine shuts down, so that nothing more is read.
    pub(crate) fn draining(&self) -> bool {
        self.0.draining.get()
    }

    /// How many connections the arbiter has.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.state.borrow().connections()
    }

    /// How many of them have a deadline.
    #[must_use]
    pub fn deadlines(&self) -> usize {
        self.0.timers.borrow().waiting()
    }

    /// Whether all that was read is answered: what waits for an answer, and what a session has not even asked yet.
    fn is_idle(&self) -> bool {
        let links = self.0.links.borrow();
        self.0.state.borrow().pending() == 0 && !links.iter().flatten().any(|link| link.is_held())
    }

    /// Changes the state and does what it wants done.
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.0.state.borrow_mut());
        self.run();
        if self.0.state.borrow().is_dirty() {
            self.0.dirty.notify_one();
        }
        result
    }

    fn run(&self) {
        // Several may leave at once, and the channel has to hear of each before its address is forgotten.
        let mut left = Vec::new();
        loop {
            // The borrow ends before the effect runs: an effect may wake who borrows again.
            let effect = self.0.state.borrow_mut().poll();
            match effect {
                None => break,
                Some(Effect::Pull { room, conn, after }) => {
                    self.tell(room, channel::state::Input::Pull { conn, after })
                }
                Some(Effect::Detached { room, device }) => {
                    let arbiter = self.0.state.borrow().arbiter();
                    self.tell(room, channel::state::Input::Detached { arbiter, device });
                    left.push(room);
                }
                Some(Effect::Delivered { room, user, seq }) => {
                    self.tell(room, channel::state::Input::Delivered { user, seq });
                }
                Some(Effect::Wake(room)) => self.0.supervisor.do_send(ToSupervisor::Sleep(Said::Wake(room))),
                Some(Effect::Forgot(room)) => {
                    let arbiter = self.0.state.borrow().arbiter();
                    self.0.supervisor.do_send(ToSupervisor::Sleep(Said::Forgot { room, arbiter }));
                }
                Some(Effect::JoinEnded { conn, request, asked, room }) => {
                    if let Some(link) = self.link(conn) {
                        link.tell(ToSession::JoinEnded { request, asked, room });
                    }
                }
                Some(Effect::Answered(conn)) => self.signal(conn, Link::answered),
                Some(Effect::Finish(conn)) => self.signal(conn, Link::finish),
                Some(Effect::Kill(conn)) => self.signal(conn, Link::kill),
                Some(Effect::Lost { conn, stands }) => {
                    self.unwatch_room(conn, stands.room);
                    if let Some(link) = self.link(conn) {
                        link.tell(ToSession::Lost(stands));
                    }
                }
            }
        }
        for room in left {
            if !self.0.state.borrow().knows(room) {
                self.0.channels.borrow_mut().remove(&room);
            }
        }
    }

    fn tell(&self, room: RoomNumber, input: channel::state::Input) {
        let Some(input) = self.0.state.borrow_mut().pass(room, input) else { return };
        if let Some(channel) = self.0.channels.borrow().get(&room) {
            channel.do_send(input);
        }
    }

    fn up(&self, room: RoomNumber, channel: Addr<Channel>) {
        // What was sent to the dead channel after `Down` is as lost as what was sent before.
        self.with(|state| state.on_channel_down(room));
        let (arbiter, devices) = {
            let state = self.0.state.borrow();
            (state.arbiter(), state.devices_in(room))
        };
        if devices.is_empty() {
            self.0.channels.borrow_mut().remove(&room);
        } else {
            self.0.channels.borrow_mut().insert(room, channel);
            self.tell(room, channel::state::Input::Adopt { arbiter, devices });
            self.presence_rebuilt(room);
        }
    }

    fn let_go(&self, room: RoomNumber, channel: &Addr<Channel>) {
        self.0.state.borrow_mut().on_let_go(room);
        self.0.channels.borrow_mut().remove(&room);
        let arbiter = self.0.state.borrow().arbiter();
        channel.do_send(channel::state::Input::Sleep(Sleep::LetGo(arbiter)));
    }

    fn awake(&self, room: RoomNumber, channel: Addr<Channel>) {
        let Some(waiting) = self.0.state.borrow_mut().on_awake(room) else { return };
        waiting.into_iter().for_each(|input| channel.do_send(input));
        if self.0.state.borrow().knows(room) {
            self.0.channels.borrow_mut().insert(room, channel);
        }
    }

    fn woken(&self, Woken { room, channel, expected, trusted }: Woken<Addr<Channel>>) {
        use channel::state::Input;
        let arbiter = self.0.state.borrow().arbiter();
        let woken = self.0.state.borrow_mut().on_woken(room);
        if woken.is_none() && !expected.contains(arbiter) {
            return;
        }
        let (devices, waiting) = woken.unwrap_or_default();
        let told =
            if trusted { Input::Sleep(Sleep::Woken { arbiter, devices }) } else { Input::Adopt { arbiter, devices } };
        channel.do_send(told);
        waiting.into_iter().for_each(|input| channel.do_send(input));
        if self.0.state.borrow().knows(room) {
            self.0.channels.borrow_mut().insert(room, channel);
        }
    }

    fn tick(&self) {
        let now = self.0.shared.clock.now().mono_ms;
        self.with(|state| state.on_tick(now));
        self.presence_tick(now);
        for slot in self.0.timers.borrow_mut().expire(now) {
            if let Some(Some(link)) = self.0.links.borrow().get(slot as usize) {
                link.tell(ToSession::Timer);
            }
        }
    }

    fn link(&self, conn: Conn) -> Option<Rc<Link>> {
        let links = self.0.links.borrow();
        links.get(conn.slot as usize)?.as_ref().filter(|link| link.serial == conn.serial).cloned()
    }

    fn set_link(&self, conn: Conn, link: Option<Rc<Link>>) {
        let mut links = self.0.links.borrow_mut();
        let slot = conn.slot as usize;
        if links.len() <= slot {
            links.resize_with(slot + 1, || None);
        }
        links[slot] = link;
    }

    fn signal(&self, conn: Conn, signal: impl FnOnce(&Link)) {
        if let Some(link) = self.link(conn) {
            signal(&link);
        }
    }

    /// Writes what waits for a connection, unless its session does so already.
    fn write(&self, conn: Conn, now_mono: u64) {
        let Some(link) = self.link(conn).filter(|link| !link.is_blocked()) else { return };
        let mut cx = TaskContext::from_waker(Waker::noop());
        match self.poll_write(conn, &*link.wire, &mut cx, now_mono) {
            Poll::Ready(Ok(())) => link.written(),
            // From here on the session writes, woken by its socket.
            Poll::Pending => link.block(),
            Poll::Ready(Err(_)) => link.kill(),
        }
    }

    /// Writes until nothing waits or the socket takes no more.
    fn poll_write(
        &self,
        conn: Conn,
        wire: &dyn Wire,
        cx: &mut TaskContext<'_>,
        now_mono: u64,
    ) -> Poll<std::io::Result<()>> {
        let outcome = {
            let mut state = self.0.state.borrow_mut();
            let Some(outbound) = state.outbound(conn) else { return Poll::Ready(Ok(())) };
            let before = outbound.bytes();
            let outcome = outbound.poll_drain(wire, cx);
            let progressed = outbound.bytes() < before;
            state.on_written(conn, progressed, now_mono);
            outcome
        };
        self.run();
        if self.0.state.borrow().is_dirty() {
            self.0.dirty.notify_one(); // Signals and notices that waited for this.
        }
        outcome
    }
}

/// At the end of each turn, visits every connection that has something to write, once, in bounded steps.
async fn flush_turns(local: Local) {
    let max = local.0.shared.limits.connections_per_turn_max;
    // Without this, tokio's budget for one task would refuse writes to sockets that have room.
    tokio::task::coop::unconstrained(async move {
        loop {
            local.0.dirty.notified().await;
            loop {
                // What else happens in this turn is written with it.
                tokio::task::yield_now().await;
                let dirty = local.0.state.borrow_mut().take_dirty(max);
                if dirty.is_empty() {
                    break;
                }
                // One look at the clock for all of them.
                let now = local.0.shared.clock.now().mono_ms;
                local.pass(|| dirty.iter().for_each(|conn| local.write(*conn, now)));
            }
        }
    })
    .await;
}
