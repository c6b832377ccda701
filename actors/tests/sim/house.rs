//! The engine's pure states, and between them what the shells do: mailboxes, tables of addresses, sockets.
//!
//! Each function mirrors one of a shell (`relay/mod.rs`, `session/mod.rs`, …) line by line. Nothing here runs by itself:
//! chance picks which actor handles its next message.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use parking_lot::Mutex;
use parlor_actors::{
    channel::{self, state::Turn},
    limits::Limits,
    message::{Conn, FromChannel},
    outbound::{Outbound, Wire},
    port::{
        Append, Clock, Commits, DeviceKey, Generation, Load, Loaded, Marks, Now, Outcome, RoomOptions, Store,
        StoreError, Swept,
    },
    rates::Rates,
    relay,
    router::Presence,
    session::{
        self,
        heartbeat::{BeatIntervals, Heartbeat},
        timers::Timers,
    },
    supervisor::{
        self,
        state::{
            Refusal,
            sessions::{Opening, SessionPolicy, Told},
        },
    },
    testkit::{Chance, MemStore, TestClock},
    tiers::{SendRate, Tiers},
};
use parlor_protocol::{
    Code, Extensions, Header, List, Name, RoomNumber, Seq, Token,
    frame::HEADER_BYTES,
    message::{DeviceClass, Durability, Error, HeartbeatAck, Network, PartTaken},
};

use crate::Plant;

pub const ARBITERS: u16 = 2;

/// Address of a channel: never used twice.
pub type ChannelId = u64;

#[derive(Clone, Debug)]
pub struct Waiter {
    conn: Conn,
    request: u32,
}

pub enum ToSupervisor {
    Resolve { name: Name, create: Option<RoomOptions>, waiter: Waiter },
    Loaded { name: Name, loaded: Result<Loaded, StoreError> },
    Died { room: RoomNumber, generation: Generation },
    Opened { device: DeviceKey, conn: Conn },
    Closed { user: Name, conn: Conn },
    Sweep,
    Swept(Result<Swept, StoreError>),
}

pub enum ToRelay {
    News { room: RoomNumber, news: FromChannel, channel: Option<ChannelId> },
    Down(RoomNumber),
    Up(RoomNumber, ChannelId),
    HandOver,
    Settled,
}

enum ToSession {
    Frames(Bytes),
    Resume,
    JoinEnded { request: u32, asked: Option<RoomNumber>, room: Option<(RoomNumber, Name)> },
    Resolved { request: u32, resumes: Option<RoomNumber>, room: Result<(RoomNumber, ChannelId), Refusal> },
    Timer,
    End(Code),
    Disconnected,
}

/// What the store's threads said.
enum Said {
    ToSupervisor(ToSupervisor),
    ToChannel(ChannelId, channel::state::Input),
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
}

/// A connection: its session, its link and its socket.
pub struct Line {
    session: session::state::State,
    mailbox: VecDeque<ToSession>,
    backlog: VecDeque<Bytes>,
    resolved: Option<ChannelId>,
    device: DeviceKey,
    busy: bool,
    held: bool,
    blocked: bool,
    finish: bool,
    kill: bool,
    /// The session's actor has stopped.
    stopped: bool,
    /// The link is dropped.
    dropped: bool,
    /// The client has closed its end.
    pub hung_up: bool,
    /// What the client sent and nobody read.
    pub up: VecDeque<Bytes>,
    /// What the socket took and the client did not read.
    pub down: Vec<u8>,
    /// What the socket takes.
    narrow: usize,
}

pub struct House {
    tiers: Arc<Tiers>,
    rates: Arc<Rates>,
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
    supervisor: supervisor::state::State<ChannelId, Conn, Waiter>,
    office: VecDeque<ToSupervisor>,
    arbiters: Vec<Arbiter>,
    pub rooms: BTreeMap<ChannelId, Room>,
    next_channel: ChannelId,
    /// Channels whose marks are saved at the next tick.
    saves_due: Vec<ChannelId>,
    lines: Vec<(Conn, Line)>,
    /// Cursors of connections when they ended, for a planted bug.
    pub last_cursors: BTreeMap<(String, u64), Seq>,
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

/// Takes what there is room for.
struct Narrow<'a> {
    taken: RefCell<&'a mut Vec<u8>>,
    room: usize,
}

impl Wire for Narrow<'_> {
    fn poll_write(&self, _: &mut Context<'_>, waiting: &mut Outbound) -> Poll<std::io::Result<()>> {
        let mut taken = self.taken.borrow_mut();
        waiting.write_with(|slices| {
            let before = taken.len();
            for slice in slices {
                let n = slice.len().min(self.room.saturating_sub(taken.len()));
                taken.extend(&slice[..n]);
            }
            let n = taken.len() - before;
            if n == 0 { Poll::Pending } else { Poll::Ready(Ok(n)) }
        })
    }
}

/// What every fourth seed lets a user send: slow enough to be met, fast enough to get somewhere.
const SLOW: SendRate = SendRate { interval_ms: 150, burst: 3 };

pub fn limits() -> Limits {
    Limits {
        payload_bytes_max: 200,
        rooms_per_session_max: 3,
        unanswered_requests_max: 6,
        outbound_bytes_max: 1_500,
        outbound_low_bytes: 300,
        ring_records_max: 6,
        ring_bytes_max: 700,
        page_records: 3,
        page_records_max: 5,
        page_bytes_max: 400,
        answers_per_device_max: 8,
        absent_devices_per_room_max: 2,
        reads_per_room_max: 3,
        rooms_loaded_max: 3,
        waiters_per_room_max: 8,
        writer_records_max: 6,
        connections_per_turn_max: 2,
        // Longer than any client here takes to send again: what is given up is tested elsewhere.
        hold_back_ms: 10_000_000,
        slow_reader_ms: 3_000,
        close_linger_ms: 500,
        room_rest_ms: 500,
        restarts_max: 3,
        restart_window_ms: 1_000,
        ..Limits::default()
    }
}

impl House {
    pub fn new(seed: u64, plant: Option<Plant>, log: Option<Arc<Mutex<Vec<String>>>>) -> Self {
        let limits = Arc::new(limits());
        let store = MemStore::new(seed, limits.writer_records_max);
        store.faults(|faults| {
            faults.unfenced = plant == Some(Plant::Unfenced);
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
            saves_due: Vec::new(),
            lines: Vec::new(),
            last_cursors: BTreeMap::new(),
            tiers: Arc::new(Tiers::sending(if seed % 4 == 1 { SLOW } else { SendRate::OFF })),
            rates: Arc::default(),
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

    // Sockets, as clients see them.

    /// A client connects and is welcome.
    pub fn connect(&mut self, arbiter: u16, device: DeviceKey) -> Conn {
        let now = self.now();
        let conn = self.arbiters[usize::from(arbiter)].state.on_connect(device.clone());
        let heartbeat = Heartbeat::new(beats(), Network::Wifi, now.mono_ms);
        let session = session::state::State::new(
            conn,
            device.clone(),
            parlor_actors::tiers::TierNumber(0),
            heartbeat,
            &self.limits,
            self.limits.uploads(),
            now,
        );
        self.arbiters[usize::from(arbiter)].timers.arm(session.deadline(), conn.slot);
        self.office.push_back(ToSupervisor::Opened { device: device.clone(), conn });
        let narrow = self.chance.pick(&[40, 300, 2_000, 20_000]);
        let line = Line {
            session,
            mailbox: VecDeque::new(),
            backlog: VecDeque::new(),
            resolved: None,
            device,
            busy: false,
            held: false,
            blocked: false,
            finish: false,
            kill: false,
            stopped: false,
            dropped: false,
            hung_up: false,
            up: VecDeque::new(),
            down: Vec::new(),
            narrow,
        };
        self.lines.push((conn, line));
        conn
    }

    /// The client's end of a connection; `None` if the server has ended it and nothing is left to read.
    pub fn line(&mut self, conn: Conn) -> Option<&mut Line> {
        let (_, line) = self.lines.iter_mut().find(|(known, _)| *known == conn)?;
        (!line.dropped || !line.down.is_empty()).then_some(line)
    }

    fn line_of(&mut self, conn: Conn) -> Option<&mut Line> {
        self.lines.iter_mut().find(|(known, _)| *known == conn).map(|(_, line)| line)
    }

    /// Nothing that is on its way to or from the socket arrives.
    pub fn drop_line(&mut self, conn: Conn) {
        let Some(line) = self.line_of(conn).filter(|line| !line.dropped) else { return };
        line.dropped = true;
        line.mailbox.push_back(ToSession::Disconnected);
        let user = line.device.user.to_string();
        if self.plant == Some(Plant::ResumeFromServerCursor) {
            for room in (1..4).map(RoomNumber) {
                if let Some(cursor) = self.arbiters[usize::from(conn.arbiter)].state.on_leave(conn, room) {
                    self.last_cursors.insert((user.clone(), room.0), cursor);
                }
            }
        }
        self.arbiters[usize::from(conn.arbiter)].state.on_disconnect(conn);
        self.run_relay(conn.arbiter);
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
        self.listen();
        stepped
    }

    pub fn reader_step(&mut self) -> bool {
        let stepped = self.store.step_reader();
        self.listen();
        stepped
    }

    /// A relay's end of turn: writes to some connections. False if none had anything.
    pub fn flush(&mut self, arbiter: u16) -> bool {
        let max = self.limits.connections_per_turn_max;
        let dirty = self.arbiters[usize::from(arbiter)].state.take_dirty(max);
        for conn in &dirty {
            if self.line_of(*conn).is_some_and(|line| !line.blocked && !line.dropped) {
                self.write(*conn);
            }
        }
        !dirty.is_empty()
    }

    /// A link's turn: writes what was blocked, reads what is there, ends.
    pub fn link_turn(&mut self, conn: Conn) -> bool {
        let Some(line) = self.line_of(conn).filter(|line| !line.dropped) else { return false };
        let blocked = line.blocked;
        if blocked && line.down.len() < line.narrow {
            line.blocked = false;
            self.write(conn);
        }
        let waiting = self.outbound_bytes(conn);
        let many = 1 + self.chance.below(3);
        let Some(line) = self.line_of(conn) else { return false };
        if line.kill || line.hung_up && line.up.is_empty() || line.finish && waiting == 0 {
            self.drop_line(conn);
            return true;
        }
        if line.hung_up {
            // What the client does not read any more is lost.
            line.down.clear();
        }
        if line.busy || line.finish || line.up.is_empty() {
            return false;
        }
        let many = many.min(line.up.len());
        let frames: Vec<u8> = line.up.drain(..many).collect::<Vec<_>>().concat();
        line.busy = true;
        line.mailbox.push_back(ToSession::Frames(frames.into()));
        true
    }

    pub fn conns(&self) -> Vec<Conn> {
        self.lines.iter().filter(|(_, line)| !line.dropped).map(|(conn, _)| *conn).collect()
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
                    line.mailbox.push_back(ToSession::Timer);
                }
            }
            self.run_relay(arbiter);
        }
        for id in std::mem::take(&mut self.saves_due) {
            self.count("marks due");
            self.tell(id, channel::state::Input::SaveMarks);
        }
        self.supervise(supervisor::state::Input::Tick);
        self.lines.retain(|(_, line)| !(line.dropped && line.down.is_empty() && line.stopped));
    }

    /// A channel's actor panics.
    pub fn kill_channel(&mut self, id: ChannelId) {
        if let Some(room) = self.rooms.remove(&id) {
            let (number, generation) = (room.state.room(), room.state.generation());
            let channels = &mut self.arbiters[home(number)].home;
            if channels.get(&number).is_some_and(|(current, _)| *current == generation) {
                channels.remove(&number);
            }
            self.office.push_back(ToSupervisor::Died { room: number, generation });
        }
    }

    /// The process is gone; its sockets are closed, and the next process begins.
    pub fn kill_engine(&mut self) {
        self.lines.clear();
        self.rooms.clear();
        self.office.clear();
        self.ears.lock().clear();
        self.arbiters = arbiters(&self.limits);
        self.supervisor = supervisor::state::State::new(self.limits.clone(), SessionPolicy::default());
    }

    // What the invariants look at.

    pub fn outbound_bytes(&mut self, conn: Conn) -> usize {
        let state = &mut self.arbiters[usize::from(conn.arbiter)].state;
        state.outbound(conn).map_or(0, |outbound| outbound.bytes())
    }

    pub fn pending(&self) -> usize {
        self.arbiters.iter().map(|arbiter| arbiter.state.pending()).sum()
    }

    pub fn pulls(&self) -> usize {
        self.arbiters.iter().map(|arbiter| arbiter.state.pulls()).sum()
    }

    pub fn connections(&self) -> usize {
        self.arbiters.iter().map(|arbiter| arbiter.state.connections()).sum()
    }

    pub fn relays_know(&self, room: RoomNumber) -> bool {
        self.arbiters.iter().any(|arbiter| arbiter.state.knows(room) || arbiter.channels.contains_key(&room))
    }

    pub fn check_limits(&mut self) {
        assert!(self.store.budget().records() <= self.limits.writer_records_max, "the writer's queue");
        let limits = self.limits.clone();
        for conn in self.conns() {
            let pending = self.arbiters[usize::from(conn.arbiter)].state.pending_of(conn);
            assert!(pending <= limits.unanswered_requests_max as usize, "unanswered requests: {pending}");
            // Beyond what is pushed: answers to what was asked, and pages that were pulled.
            let page = limits.page_bytes_max as usize + 100;
            let max = limits.outbound_bytes_max + (limits.unanswered_requests_max as usize + 4) * page;
            let waits = self.outbound_bytes(conn);
            assert!(waits <= max, "{waits} bytes wait for a connection, {max} may");
        }
        for room in self.rooms.values() {
            assert!(room.state.reading() <= limits.reads_per_room_max, "reads of a room");
        }
    }

    // Shells.

    fn listen(&mut self) {
        let heard = std::mem::take(&mut *self.ears.lock());
        for said in heard {
            match said {
                Said::ToSupervisor(message) => self.office.push_back(message),
                Said::ToChannel(id, input) => self.tell(id, input),
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

    fn supervisor_turn(&mut self) -> bool {
        use supervisor::state::Input;
        let Some(message) = self.office.pop_front() else { return false };
        self.supervise(match message {
            ToSupervisor::Resolve { name, create, waiter } => Input::Resolve { name, create, waiter },
            ToSupervisor::Loaded { name, loaded } => Input::Loaded { name, loaded },
            ToSupervisor::Died { room, generation } => Input::Died { room, generation },
            ToSupervisor::Opened { device, conn } => Input::Opened(opening(device, conn, self.now())),
            ToSupervisor::Closed { user, conn } => Input::Closed { user, conn, parked: None },
            ToSupervisor::Sweep => Input::Sweep,
            ToSupervisor::Swept(swept) => Input::Swept(swept),
        });
        true
    }

    fn supervise(&mut self, input: supervisor::state::Input<ChannelId, Conn, Waiter>) {
        use supervisor::state::{Effect, Input};
        let now = self.now();
        self.supervisor.handle(now, input);
        while let Some(effect) = self.supervisor.poll() {
            match effect {
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
                Effect::Resolved { waiter: Waiter { conn, request }, room } => {
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
                Effect::Sleep(_) => unreachable!("no room sleeps here"),
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
                Effect::Change { .. }
                | Effect::Tell { .. }
                | Effect::Changed { .. }
                | Effect::End(_)
                | Effect::Gone(_) => {
                    unreachable!("nobody changes a room here")
                }
            }
        }
        self.listen();
    }

    fn each_relay(&mut self, message: impl Fn() -> ToRelay) {
        self.arbiters.iter_mut().for_each(|arbiter| arbiter.mailbox.push_back(message()));
    }

    fn mail(&mut self, conn: Conn, message: ToSession) {
        if let Some(line) = self.line_of(conn).filter(|line| !line.stopped) {
            line.mailbox.push_back(message);
        }
    }

    fn channel_turn(&mut self, id: ChannelId) -> bool {
        let now = self.now();
        let Some(room) = self.rooms.get_mut(&id) else { return false };
        let Some(input) = room.mailbox.pop_front() else { return false };
        if let Some(log) = &self.log {
            log.lock().push(format!("channel {id} handles {input:?}"));
        }
        room.state.handle(now, input);
        self.run_channel(id);
        true
    }

    fn run_channel(&mut self, id: ChannelId) {
        use channel::state::{Effect, Input};
        let mut stops = false;
        while let Some(room) = self.rooms.get_mut(&id)
            && let Some(effect) = room.state.poll()
        {
            let number = room.state.room();
            let ears = self.ears.clone();
            match effect {
                Effect::Relay { arbiter, news } => self.news(id, number, arbiter, news),
                Effect::Append(Turn { first, frames, records, rewrites, place }) => {
                    let state = &room.state;
                    let append = Append {
                        room: number,
                        generation: state.generation(),
                        epoch: state.epoch(),
                        durability: state.durability(),
                        first,
                        frames,
                        records,
                        rewrites,
                        place,
                        commits: Arc::new(Hears { ears, arbiter: home(number) }),
                    };
                    let arbiter = &mut self.arbiters[home(number)];
                    if arbiter.appends.is_empty() {
                        arbiter.mailbox.push_back(ToRelay::HandOver);
                    }
                    arbiter.appends.push(append);
                }
                Effect::Stop => stops = true,
                Effect::EndTurn => room.mailbox.push_back(Input::EndOfTurn),
                Effect::Read(new) => {
                    let reply = move |records| {
                        ears.lock().push(Said::ToChannel(id, Input::Read { id: new.id, records }));
                    };
                    self.store.read(new.read, Box::new(reply));
                }
                Effect::LoadMarks(user) => {
                    let name = user.clone();
                    let reply = move |marks: Result<Vec<Marks>, StoreError>| {
                        let marks = marks.map(|marks| marks[0]);
                        ears.lock().push(Said::ToChannel(id, Input::Marks { user, marks }));
                    };
                    self.store.marks(name, vec![number], Box::new(reply));
                }
                Effect::LoadRoomMarks(fetch, users_max) => {
                    let reply = move |found| ears.lock().push(Said::ToChannel(id, Input::RoomMarks { fetch, found }));
                    self.store.room_marks(number, users_max, Box::new(reply));
                }
                Effect::SaveMarksIn(_) => self.saves_due.push(id),
                Effect::SaveMarks(save) => {
                    let reply = move |stored| ears.lock().push(Said::ToChannel(id, Input::MarksSaved(stored)));
                    self.store.save_marks(save, Box::new(reply));
                }
                Effect::TellUser { user, except, frame } => {
                    let is_his = |(conn, line): &&(Conn, Line)| line.device.user == user && Some(*conn) != except;
                    let conns: Vec<Conn> = self.lines.iter().filter(is_his).map(|(conn, _)| *conn).collect();
                    for conn in conns {
                        let news = FromChannel::Notice { conns: vec![conn], frame: frame.clone() };
                        self.news(id, number, conn.arbiter, news);
                    }
                }
                Effect::TellHost(reply, standing) => reply.give(standing),
                Effect::ReadTarget { id: read, seq } => {
                    let reply = move |target| {
                        ears.lock().push(Said::ToChannel(id, Input::Target { id: read, target }));
                    };
                    self.store.target(number, seq, Box::new(reply));
                }
                Effect::LoadAnswers(device) => {
                    let key = device.clone();
                    let reply = move |answers| {
                        ears.lock().push(Said::ToChannel(id, Input::Answers { device, answers }));
                    };
                    self.store.answers(number, key, Box::new(reply));
                }
                Effect::Trim(trim) => {
                    let reply = move |trimmed| ears.lock().push(Said::ToChannel(id, Input::Trimmed(trimmed)));
                    self.store.trim(trim, Box::new(reply));
                }
                Effect::LoadRights(_) | Effect::Told(_) => unreachable!("nobody is a member here"),
                Effect::Sleep(_) => unreachable!("no room sleeps here"),
            }
        }
        if stops {
            self.kill_channel(id);
        }
        self.listen();
    }

    /// A channel speaks to a relay: the place where planted bugs get in.
    fn news(&mut self, id: ChannelId, room: RoomNumber, arbiter: u16, mut news: FromChannel) {
        let mut again = None;
        let cursors = &mut self.last_cursors;
        match (&mut news, self.plant) {
            (FromChannel::Attach(attach), Some(Plant::ResumeFromServerCursor)) => {
                let cursor = cursors.remove(&(attach.device.user.to_string(), room.0)).unwrap_or_default();
                attach.cursor = attach.cursor.max(cursor.min(attach.tail));
            }
            (FromChannel::Attach(attach), Some(Plant::CursorOffByOne)) if attach.cursor < attach.tail => {
                attach.cursor += 1;
            }
            (FromChannel::Committed { batch: Some(batch), durability, .. }, Some(Plant::RepeatedBatch))
                if self.chance.one_in(20) =>
            {
                let (batch, durability) = (Some(batch.clone()), *durability);
                again = Some(FromChannel::Committed { batch, durability, stored: Vec::new() });
            }
            (FromChannel::Committed { batch, .. }, Some(Plant::LostBatch)) if self.chance.one_in(20) => *batch = None,
            (FromChannel::Pulled { page: Some((last, frames)), .. }, Some(Plant::LostPage))
                if self.chance.one_in(5) =>
            {
                let _ = last;
                *frames = Bytes::new();
            }
            _ => {}
        }
        let channel = matches!(news, FromChannel::Attach(_)).then_some(id);
        let mailbox = &mut self.arbiters[usize::from(arbiter)].mailbox;
        mailbox.push_back(ToRelay::News { room, news, channel });
        if let Some(news) = again {
            mailbox.push_back(ToRelay::News { room, news, channel: None });
        }
    }

    fn relay_turn(&mut self, at: usize) -> bool {
        let arbiter = &mut self.arbiters[at];
        let Some(message) = arbiter.mailbox.pop_front() else { return false };
        match message {
            ToRelay::News { room, news, channel } => {
                if let Some(log) = &self.log {
                    log.lock().push(format!("relay {at} hears of room {room}: {news:?}"));
                }
                if let Some(channel) = channel {
                    arbiter.channels.insert(room, channel);
                }
                arbiter.state.on_news(room, news);
            }
            ToRelay::Down(room) => {
                if let Some(log) = &self.log {
                    log.lock().push(format!("relay {at}: room {room} is down"));
                }
                arbiter.state.on_channel_down(room);
            }
            ToRelay::Up(room, channel) => {
                if let Some(log) = &self.log {
                    log.lock().push(format!("relay {at}: room {room} has channel {channel}"));
                }
                arbiter.state.on_channel_down(room);
                self.run_relay(arbiter_number(at));
                let arbiter = &mut self.arbiters[at];
                let (number, devices) = (arbiter.state.arbiter(), arbiter.state.devices_in(room));
                if devices.is_empty() {
                    arbiter.channels.remove(&room);
                } else {
                    arbiter.channels.insert(room, channel);
                    self.tell(channel, channel::state::Input::Adopt { arbiter: number, devices });
                }
            }
            ToRelay::HandOver => self.store.append(std::mem::take(&mut arbiter.appends)),
            ToRelay::Settled => {
                for Outcome { room, generation, stored } in std::mem::take(&mut arbiter.settled) {
                    let current = self.arbiters[at].home.get(&room).filter(|(current, _)| *current == generation);
                    let Some((_, id)) = current.copied() else { continue };
                    let input = match stored {
                        Ok(commit) => channel::state::Input::Committed(commit.upto),
                        Err(error) => channel::state::Input::Failed(error),
                    };
                    self.tell(id, input);
                }
            }
        }
        self.run_relay(arbiter_number(at));
        true
    }

    fn run_relay(&mut self, number: u16) {
        use relay::state::Effect;
        let at = usize::from(number);
        while let Some(effect) = self.arbiters[at].state.poll() {
            match effect {
                Effect::Pull { room, conn, after } => {
                    self.tell_room(at, room, channel::state::Input::Pull { conn, after });
                }
                Effect::Detached { room, device } => {
                    self.tell_room(at, room, channel::state::Input::Detached { arbiter: number, device });
                    if !self.arbiters[at].state.knows(room) {
                        self.arbiters[at].channels.remove(&room);
                    }
                }
                Effect::Delivered { room, user, seq } => {
                    self.count("position passed on");
                    self.tell_room(at, room, channel::state::Input::Delivered { user, seq });
                }
                Effect::JoinEnded { conn, request, asked, room } => {
                    self.mail(conn, ToSession::JoinEnded { request, asked, room });
                }
                Effect::Answered(conn) => {
                    if let Some(line) = self.line_of(conn).filter(|line| line.held) {
                        line.held = false;
                        line.mailbox.push_back(ToSession::Resume);
                    }
                }
                Effect::Lost { .. } => unreachable!("nobody is put out here"),
                Effect::Wake(_) | Effect::Forgot(_) => unreachable!("no room sleeps here"),
                Effect::Finish(conn) => {
                    if let Some(line) = self.line_of(conn) {
                        line.finish = true;
                    }
                }
                Effect::Kill(conn) => {
                    if let Some(line) = self.line_of(conn) {
                        line.kill = true;
                    }
                }
            }
        }
    }

    fn tell_room(&mut self, at: usize, room: RoomNumber, input: channel::state::Input) {
        if let Some(channel) = self.arbiters[at].channels.get(&room) {
            self.tell(*channel, input);
        }
    }

    fn write(&mut self, conn: Conn) {
        let now = self.now().mono_ms;
        let Some((_, line)) = self.lines.iter_mut().find(|(known, _)| *known == conn) else { return };
        let state = &mut self.arbiters[usize::from(conn.arbiter)].state;
        let Some(outbound) = state.outbound(conn) else { return };
        let before = outbound.bytes();
        let wire = Narrow { taken: RefCell::new(&mut line.down), room: line.narrow };
        let pending = outbound.poll_drain(&wire, &mut Context::from_waker(Waker::noop())).is_pending();
        let progressed = outbound.bytes() < before;
        line.blocked = pending;
        state.on_written(conn, progressed, now);
        if pending {
            self.count("socket full");
        }
        self.run_relay(conn.arbiter);
    }

    fn session_turn(&mut self, conn: Conn) -> bool {
        use session::state::Input;
        let Some(line) = self.line_of(conn).filter(|line| !line.stopped) else { return false };
        let Some(message) = line.mailbox.pop_front() else { return false };
        match message {
            ToSession::Frames(frames) => {
                line.backlog.push_back(frames);
                self.work(conn);
            }
            ToSession::Resume => self.work(conn),
            ToSession::JoinEnded { request, asked, room } => {
                self.input(conn, Input::JoinEnded { request, asked, room });
            }
            ToSession::Resolved { request, resumes, room } => {
                let room = room.map(|(room, channel)| {
                    line.resolved = Some(channel);
                    room
                });
                self.input(conn, Input::Resolved { request, resumes, room });
            }
            ToSession::Timer => {
                let owes = self.owes(conn);
                self.input(conn, Input::Timer { owes });
                let at_once = self.now().mono_ms + 1;
                if let Some(line) = self.line_of(conn) {
                    let deadline = line.session.deadline().max(at_once);
                    self.arbiters[usize::from(conn.arbiter)].timers.arm(deadline, conn.slot);
                }
            }
            ToSession::End(code) => self.input(conn, Input::End(code)),
            ToSession::Disconnected => {
                line.stopped = true;
                let user = line.device.user.clone();
                self.office.push_back(ToSupervisor::Closed { user, conn });
            }
        }
        true
    }

    fn work(&mut self, conn: Conn) {
        loop {
            let may_ask = self.arbiters[usize::from(conn.arbiter)].state.may_ask(conn);
            let Some(line) = self.line_of(conn) else { return };
            let Some(frames) = line.backlog.front_mut() else { break };
            if !may_ask {
                (line.held, line.busy) = (true, true);
                return;
            }
            let Some(header) = frames.first_chunk() else {
                line.backlog.pop_front();
                continue;
            };
            let Header { len, kind, request, .. } = Header::from_bytes(header);
            let mut frame = frames.split_to(HEADER_BYTES + len as usize);
            let body = frame.split_off(HEADER_BYTES);
            let reused = self.arbiters[usize::from(conn.arbiter)].state.is_pending(conn, request);
            self.input(conn, session::state::Input::Frame { kind, request, reused, body });
        }
        if let Some(line) = self.line_of(conn) {
            (line.held, line.busy) = (false, false);
        }
    }

    fn input(&mut self, conn: Conn, input: session::state::Input) {
        use session::state::Effect;
        let (now, at) = (self.now(), usize::from(conn.arbiter));
        let Some(line) = self.line_of(conn) else { return };
        line.session.handle(now, input);
        loop {
            let Some(line) = self.line_of(conn) else { return };
            let Some(effect) = line.session.poll() else { break };
            let (resolved, deadline) = (line.resolved, line.session.deadline());
            let state = &mut self.arbiters[at].state;
            match effect {
                Effect::Error { request, code, message } => {
                    let extensions = Extensions::default();
                    state.on_send(conn, request, &Error { code, retry_after_ms: 0, message: &message, extensions });
                }
                Effect::Begin(pending) => state.begin(conn, pending),
                Effect::Resolve { request, name, .. } => {
                    let durability = durability_of(&name);
                    let records_max = if durability == Durability::Memory { 4 } else { 0 };
                    let create = Some(RoomOptions { durability, records_max, ..RoomOptions::default() });
                    let waiter = Waiter { conn, request };
                    self.office.push_back(ToSupervisor::Resolve { name, create, waiter });
                }
                Effect::Join(room, join) => {
                    let Some(channel) = resolved else { continue };
                    let request = join.request;
                    state.on_resolved(conn, request, room);
                    if self.rooms.contains_key(&channel) {
                        self.tell(channel, channel::state::Input::Join(join));
                    } else {
                        self.refuse(conn, request, Code::RoomUnavailable, "the room is being rebuilt");
                    }
                }
                Effect::NotResumed { .. } | Effect::HandOver => unreachable!("nobody takes a session up here"),
                Effect::Refuse { request, code, message, .. } => self.refuse(conn, request, code, message),
                Effect::Channel { request, room, input } => {
                    if !state.may_pass(conn, request) {
                        state.refuse(conn, request, Code::HeldBack, 100, "an earlier send was refused");
                        self.run_relay(conn.arbiter);
                        continue;
                    }
                    let channel = self.arbiters[at].channels.get(&room).copied();
                    match channel.filter(|channel| self.rooms.contains_key(channel)) {
                        Some(channel) => self.tell(channel, input),
                        None => self.refuse(conn, request, Code::RoomUnavailable, "the room is being rebuilt"),
                    }
                }
                Effect::SignalUser { .. } | Effect::SignalDropped => unreachable!("nobody signals here"),
                Effect::PartTaken { request, room, nonce, missing } => {
                    let (missing, extensions) = (List(missing), Extensions::default());
                    state.on_send(conn, request, &PartTaken { room, nonce, missing, extensions });
                }
                Effect::Arm => {
                    self.arbiters[at].timers.arm(deadline, conn.slot);
                }
                Effect::Change { .. } | Effect::Look { .. } | Effect::Answer { .. } => {
                    unreachable!("nobody asks about rooms here")
                }
                Effect::Leave { request, room } => state.on_left(conn, request, room),
                Effect::BeatAck { request, grant_ms, positions } => {
                    let extensions = Extensions::default();
                    state.on_send(conn, request, &HeartbeatAck { server_time: now.unix_ms, grant_ms, extensions });
                    state.on_beat(conn, &positions);
                }
                Effect::Close { code, message, goodbye } => {
                    state.on_close(conn, code, &message, goodbye);
                    if let Some(line) = self.line_of(conn) {
                        line.backlog.clear();
                    }
                }
            }
            self.run_relay(conn.arbiter);
        }
        if let Some(line) = self.line_of(conn) {
            line.resolved = None;
        }
    }

    /// Whether a session owes its client answers, for which it has stopped reading.
    fn owes(&mut self, conn: Conn) -> bool {
        let pending = self.arbiters[usize::from(conn.arbiter)].state.pending_of(conn);
        pending > 0 || self.line_of(conn).is_some_and(|line| !line.backlog.is_empty())
    }

    fn refuse(&mut self, conn: Conn, request: u32, code: Code, message: &str) {
        self.arbiters[usize::from(conn.arbiter)].state.refuse(conn, request, code, 100, message);
    }
}

/// A room's name begins with what an ack means in it.
pub fn durability_of(name: &str) -> Durability {
    match name.as_bytes()[0] {
        b'm' => Durability::Memory,
        b'b' => Durability::Buffered,
        _ => Durability::Synced,
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

fn beats() -> BeatIntervals {
    BeatIntervals { wifi_ms: 3_000, least_ms: 1_000, grace_least_ms: 200, ..BeatIntervals::default() }
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
    };
    Opening { user: device.user, presence, token: Token([0; 16]), resume: None, attempt: 1, session: conn }
}
