//! The channel actor: one room. Decides nothing: [`state`] does.

use std::{cell::Cell, collections::VecDeque, sync::Arc, time::Duration};

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message};
use bytes::Bytes;
use parlor_protocol::RoomNumber;

use crate::{
    context::Shared,
    handover::Handover,
    message::{Conn, FromChannel},
    panics,
    port::{Append, Generation, Loaded, Marks, Now, StoreError},
    relay::{Relay, RoomNews},
    supervisor::{Supervisor, ToSupervisor, state::sleeping::Said},
    turns::Turns,
};
use ending::TurnEnd;
use state::{Effect, Input, Rest, Setting, State, Turn};

pub(crate) use knock::Knock;

pub mod absent;
pub mod change;
pub mod devices;
mod ending;
pub mod expiring;
pub mod gathering;
pub mod history;
mod knock;
pub mod marks;
pub mod notes;
pub mod orphans;
pub mod parked;
pub mod position;
mod presence;
pub mod refill;
pub mod ring;
pub mod state;
pub mod versions;
pub mod window;

thread_local! {
    /// What a channel wants done while it is run: one queue for all channels of the thread, which stays near, instead of one of
    /// each that is far whenever it is needed.
    static EFFECTS: Cell<VecDeque<Effect>> = const { Cell::new(VecDeque::new()) };
}

/// A room's actor.
pub struct Channel {
    state: State,
    /// The time of this turn, once it was asked for.
    now: Option<Now>,
    /// Something waits for the end of this turn.
    turn_ends: bool,
    shared: Arc<Shared>,
    relays: Arc<[Addr<Relay>]>,
    handover: Arc<Handover>,
    turns: Turns,
    /// Last, so that the supervisor hears of a death when everything else is gone.
    guard: DeathGuard,
}

impl Channel {
    pub(crate) fn new(
        loaded: Loaded,
        shared: Arc<Shared>,
        relays: Arc<[Addr<Relay>]>,
        handover: Arc<Handover>,
        supervisor: Addr<Supervisor>,
    ) -> Self {
        let (room, generation) = (loaded.room, loaded.generation);
        let guard = DeathGuard { supervisor, handover: handover.clone(), room, generation };
        let setting = Setting {
            limits: shared.limits.clone(),
            budget: shared.store.budget().clone(),
            tiers: shared.tiers.clone(),
            rates: shared.rates.clone(),
            pools: shared.pools.clone(),
            word: shared.word.clone(),
        };
        let state = State::new(loaded, relays.len(), setting);
        Self { state, now: None, turn_ends: false, shared, relays, handover, turns: Turns::default(), guard }
    }

    fn input(&mut self, input: Input, ctx: &mut Context<Self>) {
        // One look at the clock for all of a turn.
        let now = *self.now.get_or_insert_with(|| self.shared.clock.now());
        let done = panics::caught(|| {
            self.state.lend(EFFECTS.take());
            self.state.handle(now, input);
            self.run(ctx);
            EFFECTS.set(self.state.give_back());
        });
        if let Err(panic) = done {
            tracing::error!(room = %self.state.name(), cause = panics::text(&*panic), "a room's channel panicked");
            std::panic::resume_unwind(panic);
        }
    }

    /// Takes in what came as a message.
    fn told(&mut self, input: Input, ctx: &mut Context<Self>) {
        self.input(input, ctx);
        if self.turns.count(ctx) {
            self.now = None;
        }
    }

    fn run(&mut self, ctx: &mut Context<Self>) {
        while let Some(effect) = self.state.poll() {
            match effect {
                Effect::Relay { arbiter, news } => self.tell_relay(arbiter, news, ctx),
                Effect::Append(turn) => self.append(turn),
                Effect::Stop => ctx.stop(),
                Effect::EndTurn => self.turn_ends = true,
                Effect::Read(new) => {
                    let channel = ctx.address();
                    let reply = move |records| channel.do_send(Input::Read { id: new.id, records });
                    self.shared.store.read(new.read, Box::new(reply));
                }
                Effect::LoadMarks(user) => {
                    let (channel, name) = (ctx.address(), user.clone());
                    let reply = move |marks: Result<Vec<Marks>, StoreError>| {
                        let marks = marks.map(|marks| marks.first().copied().unwrap_or_default());
                        channel.do_send(Input::Marks { user, marks });
                    };
                    self.shared.store.marks(name, vec![self.state.room()], Box::new(reply));
                }
                Effect::LoadRoomMarks(fetch, users_max) => {
                    let channel = ctx.address();
                    let reply = move |found| channel.do_send(Input::RoomMarks { fetch, found });
                    self.shared.store.room_marks(self.state.room(), users_max, Box::new(reply));
                }
                Effect::SaveMarksIn(ms) => Self::input_in(ms, || Input::SaveMarks, ctx),
                Effect::SaveMarks(save) => {
                    let channel = ctx.address();
                    let reply = move |stored| channel.do_send(Input::MarksSaved(stored));
                    self.shared.store.save_marks(save, Box::new(reply));
                }
                Effect::TellUser { user, except, frame } => self.tell_user(&user, except, &frame, ctx),
                Effect::TellHost(reply, standing) => reply.give(standing),
                Effect::Trim(trim) => {
                    let channel = ctx.address();
                    let reply = move |trimmed| channel.do_send(Input::Trimmed(trimmed));
                    self.shared.store.trim(trim, Box::new(reply));
                }
                Effect::ReadTarget { id, seq } => {
                    let channel = ctx.address();
                    let reply = move |target| channel.do_send(Input::Target { id, target });
                    self.shared.store.target(self.state.room(), seq, Box::new(reply));
                }
                Effect::LoadAnswers(device) => {
                    let (channel, key) = (ctx.address(), device.clone());
                    let reply = move |answers| channel.do_send(Input::Answers { device, answers });
                    self.shared.store.answers(self.state.room(), key, Box::new(reply));
                }
                Effect::LoadRights(device) => {
                    let (channel, user) = (ctx.address(), device.user.clone());
                    let reply = move |member| channel.do_send(Input::Rights { device, member });
                    self.shared.store.member(self.state.room(), user, Box::new(reply));
                }
                Effect::Presence(effect) => self.presence(effect, ctx),
                Effect::Sleep(rest) => self.rest(rest, ctx),
                Effect::Told(id) => self.guard.supervisor.do_send(ToSupervisor::Told { id }),
            }
        }
    }

    /// Takes an input in after a while: as a message, so that its turn has an end.
    fn input_in(ms: u64, input: impl FnOnce() -> Input + 'static, ctx: &mut Context<Self>) {
        ctx.run_later(Duration::from_millis(ms), |_, ctx| ctx.address().do_send(input()));
    }

    fn rest(&self, rest: Rest, ctx: &mut Context<Self>) {
        let (room, generation) = (self.state.room(), self.state.generation());
        let said = Said::Rest { room, generation, rest };
        self.guard.supervisor.do_send(ToSupervisor::Sleep(said));
        if matches!(rest, Rest::Asleep(_)) {
            ctx.stop();
        }
    }

    fn tell_relay(&self, arbiter: u16, news: FromChannel, ctx: &mut Context<Self>) {
        // A relay that meets the room for the first time learns with whom to talk about it.
        let channel = matches!(news, FromChannel::Attach(_)).then(|| ctx.address());
        if let Some(relay) = self.relays.get(usize::from(arbiter)) {
            relay.do_send(RoomNews { room: self.state.room(), news, channel });
        }
    }

    fn tell_user(&self, user: &str, except: Option<Conn>, frame: &Bytes, ctx: &mut Context<Self>) {
        let mut conns = self.shared.router.conns(user);
        conns.retain(|conn| Some(*conn) != except);
        conns.sort_unstable_by_key(|conn| conn.arbiter);
        for conns in conns.chunk_by(|a, b| a.arbiter == b.arbiter) {
            let notice = FromChannel::Notice { conns: conns.to_vec(), frame: frame.clone() };
            self.tell_relay(conns[0].arbiter, notice, ctx);
        }
    }

    fn append(&self, turn: Turn) {
        let append = Append {
            room: self.state.room(),
            generation: self.state.generation(),
            epoch: self.state.epoch(),
            durability: self.state.durability(),
            first: turn.first,
            frames: turn.frames,
            records: turn.records,
            rewrites: turn.rewrites,
            place: turn.place,
            commits: self.handover.clone(),
        };
        self.handover.append(append, &*self.shared.store);
    }
}

impl Actor for Channel {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.handover.enter(self.state.room(), self.state.generation(), ctx.address());
        ctx.spawn(TurnEnd);
    }
}

impl Drop for Channel {
    /// What the store has not been told of users. Not while unwinding: the state may be of any shape then.
    fn drop(&mut self) {
        if !std::thread::panicking()
            && let Some(save) = self.state.last_marks()
        {
            self.shared.store.save_marks(save, Box::new(|_| {}));
        }
    }
}

impl Message for Input {
    type Result = ();
}

impl Handler<Input> for Channel {
    type Result = ();

    fn handle(&mut self, input: Input, ctx: &mut Context<Self>) {
        self.told(input, ctx);
    }
}

/// Tells the others that the channel is gone, whatever it died of. Runs while unwinding: must not panic.
struct DeathGuard {
    supervisor: Addr<Supervisor>,
    handover: Arc<Handover>,
    room: RoomNumber,
    generation: Generation,
}

impl Drop for DeathGuard {
    fn drop(&mut self) {
        self.handover.exit(self.room, self.generation);
        self.supervisor.do_send(ToSupervisor::Died { room: self.room, generation: self.generation });
    }
}
