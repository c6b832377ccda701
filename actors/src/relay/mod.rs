//! The relay actor: one for each arbiter. Decides nothing: [`state`] does.
//!
//! The arbiter's sessions share the relay's insides through [`Local`], on their one thread and without
//! messages; channels, which may be on other arbiters, send it `RoomNews`.

use std::{
    cell::{OnceCell, RefCell},
    ops::Range,
    rc::Rc,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
    time::Duration,
};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use bytes::Bytes;
use parlor_protocol::{Body, Code, Name, RoomNumber, message::Position};
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, oneshot};

use crate::{
    arbiters::Arbiters,
    channel::{
        self, Channel, Knock,
        gathering::{To, Told},
        state::Sleep,
    },
    context::Shared,
    handover::Handover,
    message::{Conn, FromChannel, Signal},
    outbound::Wire,
    session::{ToSession, timers::Timers},
    supervisor::{Supervisor, ToSupervisor, state::sleeping::Said},
    turns::Turns,
};
use link::Link;
use state::{Effect, Pending, State};

pub mod link;
pub mod onlookers;
pub(crate) mod presence;
pub mod state;
pub mod watching;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(200);

/// How often a shutdown looks whether everything is answered.
const DRAIN_POLL: Duration = Duration::from_millis(5);

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
}

/// What a channel says, with its address where the relay may not know it yet.
pub(crate) struct RoomNews {
    pub(crate) room: RoomNumber,
    pub(crate) news: FromChannel,
    pub(crate) channel: Option<Addr<Channel>>,
}

impl Message for RoomNews {
    type Result = ();
}

/// A room that slept, and whoever runs it now.
pub(crate) struct Woken<H> {
    pub(crate) room: RoomNumber,
    pub(crate) channel: H,
    /// The arbiters whose subscribers the channel waits for.
    pub(crate) expected: Arbiters,
    /// Whether it is told all that changed meanwhile.
    pub(crate) trusted: bool,
}

/// What others say to a relay.
pub(crate) enum ToRelay {
    /// All relays, by their arbiters' numbers: the first message of all.
    Relays(Arc<[Addr<Relay>]>),
    /// A signal for some connections of the arbiter.
    Signal(Vec<Conn>, Signal),
    /// Something about a user changed whom somebody here watches.
    Presence(Name),
    /// Who is in a room, for those who watch it.
    RoomPresence { room: RoomNumber, watch: u32, to: To, told: Arc<Told> },
    /// A room's channel died.
    Down(RoomNumber),
    /// A room was deleted, and its channel has ended.
    Gone(RoomNumber),
    /// A room has a new channel.
    Up(RoomNumber, Addr<Channel>),
    /// Send nothing more to a room's channel, and tell it so.
    LetGo(RoomNumber, Addr<Channel>),
    /// A channel that was let go goes on.
    Awake(RoomNumber, Addr<Channel>),
    /// A channel that was let go has ended: its room sleeps.
    Asleep(RoomNumber),
    /// A room that slept has a channel.
    Woken(Woken<Addr<Channel>>),
    /// A room that sleeps cannot be woken now.
    NotWoken(RoomNumber),
    /// A join came to a channel that had ended.
    Unheard { room: RoomNumber, conn: Conn, request: u32 },
    /// The end of a turn in which channels appended.
    HandOver(Arc<Handover>),
    /// Appends of the arbiter's channels are settled.
    Settled(Arc<Handover>),
    /// Run this on the arbiter's thread.
    Run(Box<dyn FnOnce(&Local) + Send>),
    /// Take nothing more, answer everything, then close all connections.
    Drain { patience: Duration, come_back_ms: Range<u32>, done: oneshot::Sender<()> },
}

impl Message for ToRelay {
    type Result = ();
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
            ToRelay::HandOver(handover) => handover.hand_over(&*self.local.shared().store),
            ToRelay::Settled(handover) => handover.tell(),
            ToRelay::Run(run) => run(&self.local),
            ToRelay::Drain { patience, come_back_ms, done } => {
                actix_rt::spawn(drain(self.local.clone(), patience, come_back_ms, done));
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

    // What follows is for the arbiter's sessions.

    pub(crate) fn send<'a, B: Body<'a>>(&self, conn: Conn, request: u32, body: &B) {
        self.with(|state| state.on_send(conn, request, body));
    }

    pub(crate) fn begin(&self, conn: Conn, pending: Pending) {
        self.0.state.borrow_mut().begin(conn, pending);
    }

    pub(crate) fn may_ask(&self, conn: Conn) -> bool {
        self.0.state.borrow_mut().may_ask(conn)
    }

    pub(crate) fn is_pending(&self, conn: Conn, request: u32) -> bool {
        self.0.state.borrow().is_pending(conn, request)
    }

    pub(crate) fn owes(&self, conn: Conn, follow: Option<u32>) -> bool {
        self.0.state.borrow().owes(conn, follow)
    }

    pub(crate) fn takes(&self, conn: Conn) -> bool {
        self.0.state.borrow().takes(conn)
    }

    pub(crate) fn refuse(&self, conn: Conn, request: u32, code: Code, retry_after_ms: u32, message: &str) {
        self.with(|state| state.refuse(conn, request, code, retry_after_ms, message));
    }

    pub(crate) fn refuse_in(
        &self,
        conn: Conn,
        request: u32,
        room: RoomNumber,
        code: Code,
        retry_after_ms: u32,
        message: &str,
    ) {
        self.with(|state| state.refuse_in(conn, request, room, code, retry_after_ms, message));
    }

    pub(crate) fn answer(&self, conn: Conn, request: u32, frame: Bytes) {
        self.with(|state| state.on_answer(conn, request, frame));
    }

    pub(crate) fn join(&self, room: RoomNumber, channel: &Addr<Channel>, join: crate::message::Join) {
        let (conn, request) = (join.conn, join.request);
        self.0.state.borrow_mut().on_resolved(conn, request, room);
        // Told by the message itself if the channel has ended, or does before it has it.
        let relay = self.0.relays.get().and_then(|relays| relays.get(usize::from(conn.arbiter)));
        match relay {
            Some(relay) => channel.do_send(Knock::new(room, join, relay.clone())),
            None => self.refuse_in(conn, request, room, Code::RoomUnavailable, 100, "the engine begins"),
        }
    }

    pub(crate) fn to_channel(&self, conn: Conn, request: u32, room: RoomNumber, input: channel::state::Input) {
        if !self.0.state.borrow_mut().may_pass(conn, request) {
            return self.refuse(conn, request, Code::HeldBack, 100, "an earlier send was refused: send again in order");
        }
        let Some(input) = self.0.state.borrow_mut().pass(room, input) else { return self.run() };
        let channel = self.0.channels.borrow().get(&room).filter(|channel| channel.connected()).cloned();
        match channel {
            Some(channel) => channel.do_send(input),
            None => self.refuse(conn, request, Code::RoomUnavailable, 100, "the room is being rebuilt"),
        }
    }

    pub(crate) fn leave(&self, conn: Conn, request: u32, room: RoomNumber) {
        self.unwatch_room(conn, room);
        self.with(|state| state.on_left(conn, request, room));
    }

    pub(crate) fn beat(&self, conn: Conn, positions: &[Position]) {
        self.with(|state| state.on_beat(conn, positions));
    }

    pub(crate) fn close(&self, conn: Conn, code: Code, message: &str, retry_after_ms: u32, goodbye: Option<u32>) {
        self.with(|state| state.on_close(conn, code, message, retry_after_ms, goodbye));
    }

    /// Brings a signal to all sessions of a user.
    pub(crate) fn signal_user(&self, user: &str, signal: &Signal) {
        let mut conns = self.0.shared.router.conns(user);
        conns.sort_unstable_by_key(|conn| conn.arbiter);
        let own = self.0.state.borrow().arbiter();
        for conns in conns.chunk_by(|a, b| a.arbiter == b.arbiter) {
            let arbiter = conns[0].arbiter;
            if arbiter == own {
                self.with(|state| state.on_signal_to(conns, signal));
            } else if let Some(relay) = self.0.relays.get().and_then(|relays| relays.get(usize::from(arbiter))) {
                relay.do_send(ToRelay::Signal(conns.to_vec(), signal.clone()));
            }
        }
    }

    pub(crate) fn signal_dropped(&self) {
        self.0.state.borrow_mut().on_signal_dropped();
    }

    /// How many signals the arbiter has dropped.
    #[must_use]
    pub fn signals_dropped(&self) -> u64 {
        self.0.state.borrow().signals_dropped()
    }

    /// Wakes the session at `at`, or before.
    pub(crate) fn arm(&self, conn: Conn, at: u64) {
        if self.link(conn).is_some() {
            self.0.timers.borrow_mut().arm(at, conn.slot);
        }
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
                for conn in dirty {
                    local.write(conn, now);
                }
            }
        }
    })
    .await;
}

/// When each of `count` clients may come back: one a millisecond, or as many as it takes for all to be told a time within
/// `come_back_ms`.
fn spread(count: usize, come_back_ms: &Range<u32>) -> impl Iterator<Item = u32> {
    let (start, window) = (come_back_ms.start, u64::from(come_back_ms.end.saturating_sub(come_back_ms.start)));
    let (count, window) = (count.max(1) as u64, window.min(count as u64));
    #[expect(clippy::cast_possible_truncation, reason = "less than the window, which fits")]
    (0..count).map(move |at| start + (at * window / count) as u32)
}

async fn drain(local: Local, patience: Duration, come_back_ms: Range<u32>, done: oneshot::Sender<()>) {
    local.0.draining.set(true);
    let wait_for = async |idle: fn(&Local) -> bool| {
        let waiting = async {
            while !idle(&local) {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        tokio::time::timeout(patience, waiting).await
    };
    if wait_for(Local::is_idle).await.is_err() {
        tracing::warn!("the shutdown did not wait for all answers");
    }
    local.with(|state| {
        let conns = state.all();
        let times = spread(conns.len(), &come_back_ms);
        for (conn, retry_after_ms) in conns.into_iter().zip(times) {
            state.close(conn, 0, Code::GoingAway, "the server shuts down", retry_after_ms);
        }
    });
    if wait_for(|local| local.connections() == 0).await.is_err() {
        tracing::warn!("the shutdown did not wait for all connections to read their last frames");
    }
    // The receiver is gone if the engine did not wait; then nobody is to be told.
    let _ = done.send(());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_come_back_one_by_one() {
        let times = |count, range| spread(count, &range).collect::<Vec<u32>>();
        assert_eq!(times(3, 500..30_000), [500, 501, 502]);
        assert_eq!(times(4, 500..502), [500, 500, 501, 501]);
        assert_eq!(times(2, 500..500), [500, 500]);
        assert_eq!(spread(100_000, &(500..30_500)).max(), Some(30_499));
        assert_eq!(times(0, 500..600), [500]);
    }
}
