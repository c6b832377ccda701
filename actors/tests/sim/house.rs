//! The engine's pure states, and between them what the shells do: mailboxes, tables of addresses, sockets.
//!
//! Each function mirrors one of a shell (`relay/mod.rs`, `session/mod.rs`, …) line by line. Nothing here runs by itself:
//! chance picks which actor handles its next message.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use parlor_actors::{
    channel::{
        self,
        gathering::{To, Told},
    },
    limits::Limits,
    message::{Conn, FromChannel},
    pools::Pools,
    port::{Append, Budget, Clock, Commits, Generation, Now, Outcome},
    rates::Rates,
    relay::{self, onlookers::Onlookers},
    session::timers::Timers,
    supervisor::{self, state::sessions::SessionPolicy},
    testkit::{Chance, MemStore, TestClock},
    tiers::{SendRate, Tiers},
};
use parlor_protocol::RoomNumber;

use crate::club::Club;

use lines::Line;
pub use planting::{Plant, Planted};
use presence::Attendance;
pub use sessions::Hello;
use sessions::ToSession;
pub use setting::durability_of;
use setting::{SLOW, club_options, limits};
use sleeping::Woken;
use supervising::ToSupervisor;

mod changes;
mod channels;
mod guests;
mod kicking;
mod lines;
mod looking;
mod planting;
mod presence;
mod relaying;
mod sessions;
mod setting;
mod sleeping;
mod supervising;
mod watching;

pub const ARBITERS: u16 = 2;

/// The number of the room with members, which is made first.
pub const CLUB_NUMBER: RoomNumber = RoomNumber(1);

/// Address of a channel: never used twice.
pub type ChannelId = u64;

pub enum ToRelay {
    News { room: RoomNumber, news: FromChannel, channel: Option<ChannelId> },
    Down(RoomNumber),
    Up(RoomNumber, ChannelId),
    LetGo(RoomNumber, ChannelId),
    Awake(RoomNumber, ChannelId),
    Asleep(RoomNumber),
    Woken(Woken),
    NotWoken(RoomNumber),
    RoomPresence { room: RoomNumber, watch: u32, to: To, told: Arc<Told> },
    Unheard { room: RoomNumber, conn: Conn, request: u32 },
    HandOver,
    Settled,
}

/// What the store's threads said.
enum Said {
    ToSupervisor(ToSupervisor),
    ToChannel(ChannelId, channel::state::Input),
    ToSession(Conn, ToSession),
    Settled(usize, Vec<Outcome>),
}

type Ears = Arc<Mutex<Vec<Said>>>;

pub struct Room {
    pub state: channel::state::State,
    mailbox: VecDeque<channel::state::Input>,
}

struct Arbiter {
    state: relay::state::State,
    mailbox: VecDeque<ToRelay>,
    channels: BTreeMap<RoomNumber, ChannelId>,
    /// The channels that run here.
    home: BTreeMap<RoomNumber, (Generation, ChannelId)>,
    /// Appended, and not handed over yet.
    appends: Vec<Append>,
    /// Settled, and not told yet.
    settled: Vec<Outcome>,
    timers: Timers,
    onlookers: Onlookers,
}

pub struct House {
    tiers: Arc<Tiers>,
    rates: Arc<Rates>,
    pub pools: Pools,
    uploads: Arc<Budget>,
    pub limits: Arc<Limits>,
    pub store: Arc<MemStore>,
    pub clock: Arc<TestClock>,
    pub chance: Chance,
    pub plant: Option<Plant>,
    pub log: Option<Arc<Mutex<Vec<String>>>>,
    pub counts: BTreeMap<&'static str, u64>,
    /// Whom chance passes over most of the time: 0 the supervisor, then the arbiters, the channels, the sessions.
    pub slow: Option<usize>,
    ears: Ears,
    supervisor: supervisor::state::State<ChannelId, Conn, supervising::Waiter>,
    office: VecDeque<ToSupervisor>,
    arbiters: Vec<Arbiter>,
    pub rooms: BTreeMap<ChannelId, Room>,
    next_channel: ChannelId,
    /// Rooms that were found idle, whose channels have not said how that ended.
    falling: BTreeSet<RoomNumber>,
    /// Channels whose marks are saved at the next tick.
    saves_due: Vec<ChannelId>,
    /// Channels that tell who came and went, each with when, on the monotonic clock.
    presence_due: Vec<(u64, ChannelId)>,
    lines: Vec<(Conn, Line)>,
    pub club: Club,
    attendance: Attendance,
    /// Connections of sessions that failed and may be taken up: their rooms are forgotten.
    pub failed: BTreeSet<Conn>,
    pub planted: Planted,
}

struct Hears {
    ears: Ears,
    arbiter: usize,
}

impl Commits for Hears {
    fn settled(self: Arc<Self>, outcomes: Vec<Outcome>) {
        self.ears.lock().push(Said::Settled(self.arbiter, outcomes));
    }
}

impl House {
    pub fn new(seed: u64, plant: Option<Plant>, log: Option<Arc<Mutex<Vec<String>>>>) -> Self {
        let limits = Arc::new(limits(seed));
        let store = MemStore::new(seed, limits.writer_records_max);
        store.faults(|faults| {
            faults.unfenced = plant == Some(Plant::UnfencedRebuild);
            faults.tells_early = plant == Some(Plant::AckBeforeCommit);
        });
        Self {
            store,
            clock: TestClock::at(1_000_000),
            chance: Chance::new(seed),
            plant,
            log,
            counts: BTreeMap::new(),
            slow: None,
            ears: Ears::default(),
            supervisor: supervisor::state::State::new(limits.clone(), SessionPolicy::default()),
            office: VecDeque::new(),
            arbiters: arbiters(&limits),
            rooms: BTreeMap::new(),
            next_channel: 0,
            falling: BTreeSet::new(),
            saves_due: Vec::new(),
            presence_due: Vec::new(),
            lines: Vec::new(),
            club: Club::new(club_options(seed)),
            attendance: Attendance::default(),
            failed: BTreeSet::new(),
            planted: Planted::default(),
            tiers: Arc::new(Tiers::sending(if seed % 4 == 1 { SLOW } else { SendRate::OFF })),
            rates: Arc::default(),
            pools: Pools::new(&limits),
            uploads: limits.uploads(),
            limits,
        }
    }

    pub fn log(&self, line: impl FnOnce() -> String) {
        if let Some(log) = &self.log {
            log.lock().push(line());
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// The supervisor's timer says that it is time to sweep.
    pub fn sweep(&mut self) {
        self.office.push_back(ToSupervisor::Sweep);
    }

    // One step of somebody.

    /// Somebody handles a message; false if there is none.
    pub fn deliver_one(&mut self) -> bool {
        let arbiters = self.arbiters.len();
        let (rooms, lines) = (self.rooms.len(), self.lines.len());
        let all = 1 + arbiters + rooms + lines;
        let start = self.chance.below(all);
        for at in (start..all).chain(0..start) {
            let kind = if at <= arbiters { at } else { arbiters + 1 + usize::from(at > arbiters + rooms) };
            if self.slow == Some(kind) && !self.chance.one_in(50) {
                continue;
            }
            let handled = if at == 0 {
                self.supervisor_turn()
            } else if at <= arbiters {
                self.relay_turn(at - 1)
            } else if at <= arbiters + rooms {
                let id = *self.rooms.keys().nth(at - 1 - arbiters).unwrap();
                self.channel_turn(id)
            } else {
                self.session_turn(self.lines[at - 1 - arbiters - rooms].0)
            };
            if handled {
                return true;
            }
        }
        false
    }

    pub fn store_step(&mut self) -> bool {
        let entries = 1 + self.chance.below(4);
        let stepped = self.store.step(entries);
        self.club.observe(&self.store, CLUB_NUMBER);
        self.listen();
        stepped
    }

    pub fn reader_step(&mut self) -> bool {
        let stepped = self.store.step_reader();
        self.listen();
        stepped
    }

    /// Time passes.
    pub fn tick(&mut self, ms: u64) {
        self.clock.advance(ms);
        let now = self.now();
        for arbiter in 0..ARBITERS {
            let at = usize::from(arbiter);
            self.arbiters[at].state.on_tick(now.mono_ms);
            for slot in self.arbiters[at].timers.expire(now.mono_ms) {
                let on = |conn: &Conn| conn.arbiter == arbiter && conn.slot == slot;
                if let Some((_, line)) = self.lines.iter_mut().find(|(conn, line)| on(conn) && !line.dropped) {
                    line.tell(ToSession::Timer);
                }
            }
            self.run_relay(arbiter);
        }
        self.check_timers();
        for id in std::mem::take(&mut self.saves_due) {
            self.count("marks due");
            self.tell(id, channel::state::Input::SaveMarks);
        }
        self.supervise(supervisor::state::Input::Tick);
        self.walk();
        self.presence_tick();
        self.lines.retain(|(_, line)| !line.is_over());
    }

    /// A channel's actor panics, or ends.
    pub fn kill_channel(&mut self, id: ChannelId) {
        if let Some(Room { state, mailbox }) = self.rooms.remove(&id) {
            let (number, generation) = (state.room(), state.generation());
            if self.falling.remove(&number) {
                self.count("channel crash on its way to sleep");
            }
            let channels = &mut self.arbiters[home(number)].home;
            if channels.get(&number).is_some_and(|(current, _)| *current == generation) {
                channels.remove(&number);
            }
            self.office.push_back(ToSupervisor::Died { room: number, generation });
            self.drop_mailbox(number, mailbox);
        }
    }

    /// The process is gone; its sockets are closed, and the next process begins.
    pub fn kill_engine(&mut self) {
        self.lines.clear();
        self.attendance = Attendance::default();
        self.failed.clear();
        self.rooms.clear();
        self.falling.clear();
        self.office.clear();
        self.ears.lock().clear();
        self.arbiters = arbiters(&self.limits);
        self.supervisor = supervisor::state::State::new(self.limits.clone(), SessionPolicy::default());
    }

    fn listen(&mut self) {
        let heard = std::mem::take(&mut *self.ears.lock());
        for said in heard {
            match said {
                Said::ToSupervisor(message) => self.office.push_back(message),
                Said::ToChannel(id, input) => self.tell(id, input),
                Said::ToSession(conn, message) => self.mail(conn, message),
                Said::Settled(at, mut outcomes) => {
                    let arbiter = &mut self.arbiters[at];
                    if arbiter.settled.is_empty() {
                        arbiter.mailbox.push_back(ToRelay::Settled);
                    }
                    arbiter.settled.append(&mut outcomes);
                }
            }
        }
    }

    fn tell(&mut self, id: ChannelId, input: channel::state::Input) {
        if let Some(room) = self.rooms.get_mut(&id) {
            room.mailbox.push_back(input);
        }
    }
}

fn arbiters(limits: &Arc<Limits>) -> Vec<Arbiter> {
    let arbiter = |number| Arbiter {
        state: relay::state::State::new(number, limits.clone()),
        mailbox: VecDeque::new(),
        channels: BTreeMap::new(),
        home: BTreeMap::new(),
        appends: Vec::new(),
        settled: Vec::new(),
        timers: Timers::default(),
        onlookers: Onlookers::default(),
    };
    (0..ARBITERS).map(arbiter).collect()
}

/// The arbiter that a room's channel runs on.
fn home(room: RoomNumber) -> usize {
    usize::try_from(room.0).unwrap() % usize::from(ARBITERS)
}

fn arbiter_number(at: usize) -> u16 {
    u16::try_from(at).unwrap()
}
