//! All actors of one engine, started and stopped together.

use std::{ops::Range, sync::Arc, time::Duration};

use actix::{Actor, Addr};
use actix_rt::ArbiterHandle;
use parlor_protocol::{Code, Name, RoomNumber, Seq};
use tokio::sync::oneshot;

use crate::{
    arbiters::ARBITERS_MAX,
    channel::{
        Channel,
        gathering::{self, HostCount},
        state::{Ask, Erase, EraseInMemory, Erased, HostReply, Input, Standing, Tell, Told},
    },
    context::Shared,
    members::{Changed, Look, Refusal, RoomChange, Seen, asking},
    message::Signal,
    port::RoomOptions,
    relay::{Local, Relay, ToRelay},
    supervisor::{
        Supervisor, ToSupervisor, Waiter,
        state::{sessions::Which, sleeping::Census},
    },
};

const SHUT_DOWN: Refusal = (Code::GoingAway, "the engine is shut down");

/// The actors of one engine. Handles work from any thread.
#[derive(Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
    supervisor: Addr<Supervisor>,
    relays: Arc<[Addr<Relay>]>,
}

/// An erasure under way.
#[derive(Debug)]
pub struct Erasure(oneshot::Receiver<Result<Erased, Refusal>>);

impl Erasure {
    /// Waits for it.
    ///
    /// # Errors
    /// Why it is not erased, now or ever.
    pub async fn outcome(self) -> Result<Erased, Refusal> {
        let died = (Code::OutcomeUnknown, "the room is being rebuilt: it may be erased or not");
        self.0.await.unwrap_or(Err(died))
    }
}

impl Fleet {
    /// Starts a supervisor on the first arbiter and a relay on each.
    ///
    /// # Panics
    /// If there is no arbiter, or more than [`ARBITERS_MAX`].
    #[must_use]
    pub fn start(arbiters: Vec<ArbiterHandle>, shared: Arc<Shared>) -> Self {
        assert!((1..=ARBITERS_MAX).contains(&arbiters.len()), "an engine has 1 to {ARBITERS_MAX} arbiters");
        let supervisor = {
            let (shared, handles) = (shared.clone(), arbiters.clone());
            Supervisor::start_in_arbiter(&arbiters[0], move |_| Supervisor::new(shared, handles))
        };
        let relay = |(number, arbiter): (u16, &ArbiterHandle)| {
            let (shared, supervisor) = (shared.clone(), supervisor.clone());
            Relay::start_in_arbiter(arbiter, move |_| Relay::new(number, shared, supervisor))
        };
        let relays: Arc<[Addr<Relay>]> = (0..).zip(&arbiters).map(relay).collect();
        supervisor.do_send(ToSupervisor::Relays(relays.clone()));
        relays.iter().for_each(|relay| relay.do_send(ToRelay::Relays(relays.clone())));
        Self { shared, supervisor, relays }
    }

    /// What the actors share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How many arbiters there are.
    #[must_use]
    pub fn arbiters(&self) -> usize {
        self.relays.len()
    }

    /// Runs something on an arbiter's thread, such as the beginning of a new connection.
    pub fn run_on(&self, arbiter: usize, run: impl FnOnce(&Local) + Send + 'static) {
        self.relays[arbiter % self.relays.len()].do_send(ToRelay::Run(Box::new(run)));
    }

    /// Loads a room, and creates it if there is none and `create` says how.
    ///
    /// # Errors
    /// Why there is no such room now.
    pub async fn room(&self, name: Name, create: Option<RoomOptions>) -> Result<RoomNumber, Refusal> {
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter::Host(Box::new(move |room| {
            // The host may have stopped waiting; then nobody is to be told.
            let _ = answer.send(room);
        }));
        self.supervisor.do_send(ToSupervisor::Resolve { name, create, waiter });
        answered.await.unwrap_or(Err(SHUT_DOWN))
    }

    /// Erases a message: it is a tombstone when this is answered, and what was said is gone from the store's tables.
    ///
    /// # Errors
    /// Why it cannot be erased, now or ever.
    pub async fn erase(&self, name: Name, seq: Seq) -> Result<(), Refusal> {
        let Erased { room, first, last } = self.begin_erasure(name, seq, None).outcome().await?;
        let (answer, purged) = oneshot::channel();
        self.shared.store.purge(room, first, last, Box::new(move |outcome| drop(answer.send(outcome))));
        match purged.await {
            Ok(Ok(())) => Ok(()),
            failed => {
                tracing::error!(%room, seq, ?failed, "what was erased may still lie in the store's files");
                Err((Code::Busy, "the message is a tombstone, and may still lie in the store's files: erase it again"))
            }
        }
    }

    /// Has a record made a tombstone; with `whose` also a reaction, if it is that user's. What it said may still lie in the
    /// store's files afterwards.
    #[must_use]
    pub fn begin_erasure(&self, name: Name, seq: Seq, whose: Option<Name>) -> Erasure {
        let (answer, answered) = oneshot::channel();
        let told = Told::new(move |outcome| {
            // The host may have stopped waiting.
            let _ = answer.send(outcome);
        });
        let waiter = Waiter::Erase(Erase { seq, whose, told });
        self.supervisor.do_send(ToSupervisor::Resolve { name, create: None, waiter });
        Erasure(answered)
    }

    /// Erases what a user said in rooms that no store has; returns how many records that were.
    ///
    /// # Errors
    /// If the engine is shut down.
    pub async fn erase_in_memory(&self, user: &Name) -> Result<u64, Refusal> {
        let (answer, answered) = oneshot::channel();
        let reply = move |channels| drop(answer.send(channels));
        self.supervisor.do_send(ToSupervisor::Channels(Box::new(reply)));
        let channels: Vec<Addr<Channel>> = answered.await.map_err(|_| SHUT_DOWN)?;
        let mut all = Vec::with_capacity(channels.len());
        for channel in channels {
            let (answer, answered) = oneshot::channel();
            let told = Tell::new(move |erased| {
                // As above.
                let _ = answer.send(erased);
            });
            channel.do_send(Input::EraseInMemory(EraseInMemory { user: user.clone(), told }));
            all.push(answered);
        }
        let mut erased = 0;
        for answered in all {
            // What a channel held that died is gone.
            erased += answered.await.unwrap_or_default();
        }
        Ok(erased)
    }

    /// Changes a room; answered when the change counts everywhere.
    ///
    /// # Errors
    /// Why it is not changed.
    pub async fn change(&self, change: RoomChange) -> Result<Changed, Refusal> {
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter::HostChange(Box::new(move |changed| {
            // As above.
            let _ = answer.send(changed);
        }));
        self.supervisor.do_send(ToSupervisor::Change { change, waiter: Some(waiter) });
        answered.await.unwrap_or(Err(SHUT_DOWN))
    }

    /// How many rooms there are, and what has become of others; all 0 if the engine is shut down.
    pub async fn census(&self) -> Census {
        let (answer, answered) = oneshot::channel();
        let reply = move |census| {
            // As above.
            let _ = answer.send(census);
        };
        self.supervisor.do_send(ToSupervisor::Count(Box::new(reply)));
        answered.await.unwrap_or_default()
    }

    /// Looks at rooms, without waking one.
    ///
    /// # Errors
    /// Why it cannot be seen.
    pub async fn look(&self, look: Look) -> Result<Seen, Refusal> {
        let (answer, answered) = oneshot::channel();
        asking::look(&self.shared.store, look, move |seen| {
            // As above.
            let _ = answer.send(seen);
        });
        answered.await.unwrap_or(Err(SHUT_DOWN))
    }

    /// How a user stands in a room, after he has read everything up to `read`, if that is said.
    ///
    /// # Errors
    /// Why that cannot be told now.
    pub async fn standing(&self, room: Name, user: Name, read: Option<Seq>) -> Result<Standing, Refusal> {
        let (answer, answered) = oneshot::channel();
        let ask = move |channel: Result<Addr<Channel>, Refusal>| match channel {
            Ok(channel) => {
                let reply = HostReply::new(move |standing| {
                    // The host may have stopped waiting; then nobody is to be told.
                    let _ = answer.send(standing.map_err(|_| (Code::Busy, "the store is busy")));
                });
                channel.do_send(Input::Ask(Ask { user, read, reply }));
            }
            Err(refusal) => drop(answer.send(Err(refusal))),
        };
        self.ask_channel(room, ask);
        answered.await.unwrap_or(Err((Code::RoomUnavailable, "the room is being rebuilt, or the engine is shut down")))
    }

    /// Brings a signal of the host's to the subscribers of a room that runs or can be loaded.
    ///
    /// # Errors
    /// If there is no such room now.
    pub async fn signal_room(&self, room: Name, signal: Signal) -> Result<(), Refusal> {
        let (answer, answered) = oneshot::channel();
        let tell = move |channel: Result<Addr<Channel>, Refusal>| {
            let told = channel.map(|channel| channel.do_send(Input::Signal(signal)));
            let _ = answer.send(told);
        };
        self.ask_channel(room, tell);
        answered.await.unwrap_or(Err(SHUT_DOWN))
    }

    /// Brings a signal of the host's to all sessions of a user.
    pub fn signal_user(&self, user: &Name, signal: &Signal) {
        let user = user.clone();
        let signal = signal.clone();
        self.run_on(0, move |local| local.signal_user(&user, &signal));
    }

    /// How many users are in a room that runs or can be loaded.
    ///
    /// # Errors
    /// Why that cannot be told now.
    pub async fn count_present(&self, room: Name) -> Result<usize, Refusal> {
        let (answer, answered) = oneshot::channel();
        let ask = move |channel: Result<Addr<Channel>, Refusal>| match channel {
            Ok(channel) => {
                let reply = HostCount::new(move |count| {
                    // The host may have stopped waiting; then nobody is to be told.
                    let _ = answer.send(Ok(count));
                });
                channel.do_send(Input::Presence(gathering::Input::Count(reply)));
            }
            Err(refusal) => drop(answer.send(Err(refusal))),
        };
        self.ask_channel(room, ask);
        answered.await.unwrap_or(Err((Code::RoomUnavailable, "the room is being rebuilt, or the engine is shut down")))
    }

    fn ask_channel(&self, name: Name, reply: impl FnOnce(Result<Addr<Channel>, Refusal>) + Send + 'static) {
        let waiter = Waiter::Channel(Box::new(reply));
        self.supervisor.do_send(ToSupervisor::Resolve { name, create: None, waiter });
    }

    /// Puts sessions of a user out; returns how many there were.
    pub async fn kick(&self, user: Name, which: Which, reason: &str) -> usize {
        let (answer, kicked) = oneshot::channel();
        let waiter = Waiter::HostKick(Box::new(move |count| {
            // As above.
            let _ = answer.send(count);
        }));
        self.supervisor.do_send(ToSupervisor::Kick { user, which, reason: reason.into(), waiter });
        kicked.await.unwrap_or(0)
    }

    /// Reads nothing more, answers everything accepted, closes all connections, which are told to come back within
    /// `come_back_ms`. Waits `patience` for each of the last two.
    pub async fn drain(&self, patience: Duration, come_back_ms: Range<u32>) {
        self.supervisor.do_send(ToSupervisor::Drain);
        let drains: Vec<_> = self
            .relays
            .iter()
            .map(|relay| {
                let (done, drained) = oneshot::channel();
                let come_back_ms = come_back_ms.clone();
                relay.do_send(ToRelay::Drain { patience, come_back_ms, done });
                drained
            })
            .collect();
        for drained in drains {
            // A relay that is gone has nothing left to drain.
            let _ = drained.await;
        }
    }
}
