//! The supervisor, without a runtime: which rooms run, who waits for them, which sessions there are.
//!
//! In: [`handle`](State::handle). Out: [`poll`](State::poll), until it says `None`. `H` is a handle of a room's channel,
//! `S` one of a session, `W` whoever waits for a room.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parlor_protocol::{Code, DeviceTag, Name, RoomNumber, Seq};

use changes::Telling;

use crate::{
    limits::Limits,
    members::{Changed, RoomChange, direct::is_direct},
    message::Conn,
    port::{Generation, Loaded, Now, RoomOptions, StoreError, Sweep, Swept},
    restart::Intensity,
    session::parked::Parked,
};
use sessions::{Opening, SessionPolicy, Sessions, Told, Which};

pub use crate::members::Refusal;

const UNKNOWN: Refusal = (Code::UnknownRoom, "there is no such room, and joining does not create it here");

/// What a supervisor is told.
#[derive(Debug)]
pub enum Input<H, S, W> {
    /// Somebody wants a room.
    Resolve {
        /// Its name.
        name: Name,
        /// How to create it if there is none.
        create: Option<RoomOptions>,
        /// Who wants it.
        waiter: W,
    },
    /// The store's answer to a load.
    Loaded {
        /// The room's name.
        name: Name,
        /// The room.
        loaded: Result<Loaded, StoreError>,
    },
    /// A channel runs.
    Built {
        /// The room's name.
        name: Name,
        /// Its number.
        room: RoomNumber,
        /// The channel's generation.
        generation: Generation,
        /// The channel.
        handle: H,
    },
    /// A channel died.
    Died {
        /// Of which room.
        room: RoomNumber,
        /// Which one.
        generation: Generation,
    },
    /// A session began, or goes on.
    Opened(Opening<S>),
    /// A session's connection is gone.
    Closed {
        /// Whose.
        user: Name,
        /// Its connection.
        conn: Conn,
        /// What is left of it, if it may go on.
        parked: Option<Box<Parked>>,
    },
    /// A session wants to hear of rooms that its user is added to.
    Follow {
        /// Whose.
        user: Name,
        /// Its connection.
        conn: Conn,
    },
    /// The host puts sessions out.
    Kick {
        /// Whose.
        user: Name,
        /// Which of his.
        which: Which,
        /// Why, for a person.
        reason: Arc<str>,
        /// Who is told how many there were.
        waiter: W,
    },
    /// Somebody wants a room changed.
    Change {
        /// How.
        change: RoomChange,
        /// Who is told.
        waiter: Option<W>,
    },
    /// The store's answer to a change.
    Changed {
        /// The change.
        change: RoomChange,
        /// Who is told.
        waiter: Option<W>,
        /// What became of it.
        outcome: Result<Result<Changed, Refusal>, StoreError>,
    },
    /// A channel goes by a change.
    Told(u64),
    /// Some time passed.
    Tick,
    /// About the sleep of rooms.
    Sleep(Said),
    /// A session panicked.
    SessionFailed {
        /// Whose.
        user: Name,
        /// On which device.
        device: DeviceTag,
    },
    /// It is time for a sweep.
    Sweep,
    /// What the sweep did.
    Swept(Result<Swept, StoreError>),
    /// The engine ends.
    Drain,
}

/// What a supervisor wants done.
#[derive(Debug)]
pub enum Effect<H, S, W> {
    /// Load a room from the store.
    Load {
        /// Its name.
        name: Name,
        /// How to create it if there is none.
        create: Option<RoomOptions>,
    },
    /// Build a channel, then say [`Input::Built`].
    Build(Loaded),
    /// Answer whoever waited for a room.
    Resolved {
        /// Who.
        waiter: W,
        /// The room, or why not.
        room: Result<(RoomNumber, H), Refusal>,
    },
    /// Tell all relays that the room's channel is gone.
    Down(RoomNumber),
    /// Tell all relays who runs the room now.
    Up(RoomNumber, H),
    /// Do something about the sleep of rooms.
    Sleep(Bed<H>),
    /// Do something about sessions.
    Session(Told<S>),
    /// Tell the host how many sessions it has put out.
    Kicked(W, usize),
    /// Ask the store to sweep, then say [`Input::Swept`].
    Sweep(Sweep),
    /// Say [`Input::Sweep`] after so many milliseconds.
    SweepIn(u64),
    /// Tell a channel that a sweep took everything below this seq, and the count of the newest of that.
    Swept(H, Seq, u64),
    /// Have the store change a room, then say [`Input::Changed`].
    Change {
        /// How.
        change: RoomChange,
        /// Who is told.
        waiter: Option<W>,
    },
    /// Tell a channel of a change; it answers with [`Input::Told`].
    Tell {
        /// The channel.
        handle: H,
        /// The change's number.
        id: u64,
        /// The change.
        change: Arc<Changed>,
    },
    /// Tell whoever wanted a change what became of it.
    Changed {
        /// Who.
        waiter: W,
        /// What.
        outcome: Result<Changed, Refusal>,
    },
    /// End the channel of a room that was deleted.
    End(H),
    /// Tell all relays that a room is no more.
    Gone(RoomNumber),
}

#[derive(Debug)]
struct Room<H, W> {
    status: Status<H, W>,
    /// Known once it was loaded.
    number: Option<RoomNumber>,
    restarts: Intensity,
    /// Changes that the channel under way is told when it is there.
    untold: Vec<u64>,
    /// The room was deleted, and its channel is about to end; who is told then.
    ending: Option<Option<W>>,
}

#[derive(Debug)]
enum Status<H, W> {
    /// Each with how it would create the room.
    Loading {
        waiting: Vec<(W, Option<RoomOptions>)>,
    },
    Running {
        generation: Generation,
        handle: H,
    },
    /// Its relays let the channel go, which says then whether it ends.
    Falling {
        generation: Generation,
        handle: H,
        /// As while it is loaded.
        waiting: Vec<(W, Option<RoomOptions>)>,
        /// A subscriber wants something.
        wanted: bool,
    },
    Resting {
        until: u64,
    },
}

/// All rooms that are loaded and all sessions.
#[derive(Debug)]
pub struct State<H, S, W> {
    limits: Arc<Limits>,
    rooms: HashMap<Name, Room<H, W>>,
    names: HashMap<RoomNumber, Name>,
    sessions: Sessions<S>,
    resting: Vec<Name>,
    sleepers: Sleepers,
    sweeping: Sweeping,
    telling: HashMap<u64, Telling<W>>,
    /// How many changes channels were told.
    changes: u64,
    /// Rooms of which something is left to clear away, as the store was busy.
    purges: Vec<RoomChange>,
    effects: VecDeque<Effect<H, S, W>>,
    /// Channels that died.
    pub deaths: u64,
    failing: Failing,
}

impl<H: Clone, S: Clone, W> State<H, S, W> {
    /// No room, no session.
    #[must_use]
    pub fn new(limits: Arc<Limits>, policy: SessionPolicy) -> Self {
        Self {
            sessions: Sessions::new(limits.clone(), policy),
            limits,
            rooms: HashMap::new(),
            names: HashMap::new(),
            resting: Vec::new(),
            sleepers: Sleepers::default(),
            sweeping: Sweeping::default(),
            telling: HashMap::new(),
            changes: 0,
            purges: Vec::new(),
            effects: VecDeque::new(),
            deaths: 0,
            failing: Failing::default(),
        }
    }

    /// How many rooms are loaded.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// All sessions.
    #[must_use]
    pub fn sessions(&self) -> &Sessions<S> {
        &self.sessions
    }

    /// How many changes wait for a channel to go by them.
    #[must_use]
    pub fn telling(&self) -> usize {
        self.telling.len()
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Effect<H, S, W>> {
        self.effects.pop_front()
    }

    /// Takes one input in.
    pub fn handle(&mut self, now: Now, input: Input<H, S, W>) {
        match input {
            Input::Resolve { name, create, waiter } => self.on_resolve(name, create, waiter),
            Input::Loaded { name, loaded } => self.on_loaded(now, name, loaded),
            Input::Built { name, room, generation, handle } => self.on_built(&name, room, generation, handle),
            Input::Died { room, generation } => self.on_died(now, room, generation),
            Input::Opened(opening) => self.on_opened(now, opening),
            Input::Closed { user, conn, parked } => self.sessions.on_closed(&user, conn, parked),
            Input::Follow { user, conn } => self.sessions.on_follow(&user, conn),
            Input::Kick { user, which, reason, waiter } => {
                let kicked = self.sessions.on_kick(&user, which, &reason);
                self.effects.push_back(Effect::Kicked(waiter, kicked));
            }
            Input::Change { change, waiter } => self.on_change(change, waiter),
            Input::Changed { change, waiter, outcome } => self.on_changed(change, waiter, outcome),
            Input::Told(id) => self.on_told(id),
            Input::Tick => {
                self.purge_on();
                self.on_tick(now);
                self.sessions.on_tick(now.mono_ms);
            }
            Input::Sleep(said) => self.on_said(now, said),
            Input::SessionFailed { user, device } => self.on_session_failed(now, user, device),
            Input::Sweep => self.on_sweep(now),
            Input::Swept(swept) => self.on_swept(swept),
            Input::Drain => self.on_drain(),
        }
        while let Some(told) = self.sessions.poll() {
            self.effects.push_back(Effect::Session(told));
        }
    }

    fn on_opened(&mut self, now: Now, opening: Opening<S>) {
        let device = opening.presence.device_tag();
        match self.failing.rests(now.mono_ms, &opening.user, device) {
            Some(rest_ms) => self.effects.push_back(Effect::Session(Told::PutOff(opening.session, rest_ms))),
            None => self.sessions.on_opened(opening),
        }
    }

    fn on_session_failed(&mut self, now: Now, user: Name, device: DeviceTag) {
        if let Some(rest_ms) = self.failing.failed(&self.limits, now.mono_ms, user.clone(), device) {
            tracing::error!(%user, rest_ms, "a device's sessions failed too often, and it has to wait");
        }
    }

    fn on_resolve(&mut self, name: Name, create: Option<RoomOptions>, waiter: W) {
        // Joining makes no room of two.
        let create = create.filter(|_| !is_direct(&name));
        if let Some(room) = self.rooms.get_mut(&name) {
            match &mut room.status {
                Status::Running { handle, .. } => {
                    // A handle whose channel has just died is noticed by whoever uses it, and by `Down`.
                    let room = room.number.map(|number| (number, handle.clone()));
                    let room = room.ok_or((Code::RoomUnavailable, "the room is being loaded"));
                    self.effects.push_back(Effect::Resolved { waiter, room });
                }
                Status::Loading { waiting } | Status::Falling { waiting, .. }
                    if waiting.len() < self.limits.waiters_per_room_max =>
                {
                    waiting.push((waiter, create));
                }
                Status::Loading { .. } | Status::Falling { .. } => {
                    self.refuse(waiter, (Code::Busy, "too many wait for this room"))
                }
                Status::Resting { .. } => {
                    self.refuse(waiter, (Code::RoomUnavailable, "the room keeps failing and rests"))
                }
            }
            return;
        }
        if self.rooms.len() >= self.limits.rooms_loaded_max {
            return self.refuse(waiter, (Code::Busy, "too many rooms are loaded"));
        }
        let status = Status::Loading { waiting: vec![(waiter, create)] };
        let room = Room { status, number: None, restarts: Intensity::default(), untold: Vec::new(), ending: None };
        self.rooms.insert(name.clone(), room);
        self.effects.push_back(Effect::Load { name, create });
    }

    fn on_loaded(&mut self, now: Now, name: Name, loaded: Result<Loaded, StoreError>) {
        let error = match loaded {
            Ok(loaded) => return self.effects.push_back(Effect::Build(loaded)),
            Err(error) => error,
        };
        let Some(room) = self.rooms.get_mut(&name) else { return };
        let mut waiting = match &mut room.status {
            Status::Loading { waiting } => std::mem::take(waiting),
            Status::Running { .. } | Status::Falling { .. } | Status::Resting { .. } => Vec::new(),
        };
        let untold = std::mem::take(&mut room.untold);
        // The load was made for the first, who did not want the room created; others behind him may.
        if error == StoreError::UnknownRoom
            && matches!(waiting.first(), Some((_, None)))
            && let Some((_, create)) = waiting.iter().find(|(_, create)| create.is_some())
        {
            self.effects.push_back(Effect::Load { name, create: *create });
            let creators;
            (creators, waiting) = waiting.into_iter().partition(|(_, create)| create.is_some());
            room.status = Status::Loading { waiting: creators };
            room.untold = untold;
            for (waiter, _) in waiting {
                self.refuse(waiter, UNKNOWN);
            }
            return;
        }
        if room.number.is_some() {
            // Its subscribers are still there, so it is tried again.
            tracing::error!(room = %name, %error, "a room could not be rebuilt; it will be tried again");
            room.status = Status::Resting { until: now.mono_ms + self.limits.rest_ms };
            self.resting.push(name.clone());
        } else {
            self.rooms.remove(&name);
            self.not_woken(&name, !untold.is_empty());
        }
        let refusal = match error {
            StoreError::Busy => (Code::Busy, "the store is busy"),
            StoreError::UnknownRoom => UNKNOWN,
            error => {
                tracing::error!(room = %name, %error, "a room could not be loaded");
                (Code::StoreUnavailable, "the store could not load the room")
            }
        };
        for (waiter, _) in waiting {
            self.refuse(waiter, refusal);
        }
        self.settle_untold(untold);
    }

    fn on_built(&mut self, name: &Name, number: RoomNumber, generation: Generation, handle: H) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        self.names.insert(number, name.clone());
        let rebuilt = room.number.replace(number).is_some();
        let running = Status::Running { generation, handle: handle.clone() };
        if rebuilt {
            self.effects.push_back(Effect::Up(number, handle.clone()));
        }
        let before = std::mem::replace(&mut room.status, running);
        if self.limits.room_idle_ms > 0 {
            self.sleepers.runs(number, generation);
        }
        self.wake(name, number, &handle);
        self.tell_untold(name, &handle);
        if let Status::Loading { waiting } = before {
            let resolved = |(waiter, _)| Effect::Resolved { waiter, room: Ok((number, handle.clone())) };
            self.effects.extend(waiting.into_iter().map(resolved));
        }
    }

    fn on_died(&mut self, now: Now, number: RoomNumber, died: Generation) {
        let Some(name) = self.names.get(&number) else { return };
        let Some(room) = self.rooms.get_mut(name) else { return };
        let waiting = match &mut room.status {
            Status::Running { generation, .. } if *generation == died => Vec::new(),
            Status::Falling { generation, waiting, .. } if *generation == died => std::mem::take(waiting),
            _ => return,
        };
        if let Some(waiter) = room.ending.take() {
            let name = name.clone();
            self.rooms.remove(&name);
            self.gone(number, waiter);
            return self.resolve_again(&name, waiting);
        }
        self.deaths += 1;
        tracing::error!(room = %name, "the room's channel died and is rebuilt from the store");
        self.effects.push_back(Effect::Down(number));
        if room.restarts.allows(now.mono_ms, self.limits.restarts_max, self.limits.restart_window_ms) {
            room.status = Status::Loading { waiting };
            self.effects.push_back(Effect::Load { name: name.clone(), create: None });
        } else {
            let rest_ms = room.restarts.rest_ms(self.limits.rest_ms);
            tracing::error!(room = %name, rest_ms, "the room died too often and rests");
            room.status = Status::Resting { until: now.mono_ms + rest_ms };
            self.resting.push(name.clone());
            for (waiter, _) in waiting {
                self.refuse(waiter, (Code::RoomUnavailable, "the room keeps failing and rests"));
            }
        }
        self.settle_tellings(number);
    }

    fn on_tick(&mut self, now: Now) {
        for name in std::mem::take(&mut self.resting) {
            match self.rooms.get_mut(&name) {
                Some(room) if matches!(room.status, Status::Resting { until } if until <= now.mono_ms) => {
                    room.status = Status::Loading { waiting: Vec::new() };
                    self.effects.push_back(Effect::Load { name, create: None });
                }
                Some(_) => self.resting.push(name),
                None => {}
            }
        }
    }

    fn refuse(&mut self, waiter: W, refusal: Refusal) {
        self.effects.push_back(Effect::Resolved { waiter, room: Err(refusal) });
    }
}

use failing::Failing;
use sleeping::{Bed, Said, Sleepers};
use sweeping::Sweeping;

mod changes;
mod failing;
pub mod sessions;
pub mod sleeping;
mod sweeping;
#[cfg(test)]
mod tests;
