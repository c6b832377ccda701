//! One room, without a runtime: assigns seqs, keeps the ring, answers devices.
//!
//! In: [`handle`](State::handle). Out: [`poll`](State::poll), until it says `None`. A record goes through four steps, and
//! the state holds it in one place at each: *accepted* into the turn (it has its seq and its frame), *appended* when the
//! turn ends (the store has it), *committed* when the store says so (the ring has it, acks and batches are out), and off
//! the ring at last. Nothing before the third step is visible to anybody.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use parlor_protocol::{
    Code, Extensions, Name, RoomNumber, Seq, UnixMillis,
    message::{Attached, Durability, Gap, JoinFrom, Joined},
};

use self::erasing::Erasures;
pub use self::erasing::{Erase, EraseInMemory, Erased, Tell, Told};
use super::{
    devices::Devices,
    gathering::Gathering,
    history::Reads,
    marks::Users,
    parked::{self, Parked},
    position::Extent,
    refill::Refill,
    ring::Ring,
    versions::Versions,
};
use crate::{
    limits::Limits,
    members::rights::{Act, may},
    message::{Attach, Conn, FromChannel, Join, Returning, Stored},
    pools::{Pools, Share},
    port::{Answer, AppendRecord, Budget, DeviceKey, Generation, Loaded, Now, Place, Rewrite, RoomOptions, StoreError},
    rates::{Bucket, Rates},
    tiers::Tiers,
    wall::Word,
};

use rights::People;

/// What a record costs the writer's budget besides its frame, in bytes.
const RECORD_OVERHEAD_BYTES: usize = 128;

/// The most records of one turn: under a flood the mailbox is never empty.
const RECORDS_PER_TURN_MAX: usize = 256;

/// Clients are asked to wait this long when a queue is full.
const BUSY_RETRY_MS: u32 = 100;

const BEING_PUT_OUT: &str = "the user's device is being put out of this room";

use self::receipts::{Arrival, Saves};
pub use self::receipts::{Ask, HostReply, Standing};
pub use self::sleeping::{Rest, Sleep};
pub use self::speech::{Effect, Input, Turn};

/// An appended turn that is not committed yet.
#[derive(Debug)]
struct Chunk {
    first: Seq,
    frames: Bytes,
    /// The room's count with the last record.
    count: u64,
    /// Each record's end within the frames, and its expiry.
    records: Vec<(u32, UnixMillis)>,
    /// What they rewrite.
    rewrites: Vec<Rewrite>,
    /// By how many bytes that makes frames longer.
    grown: i64,
}

/// A publish whose ack waits for a commit.
#[derive(Debug)]
struct Waiting {
    stored: Stored,
    device: DeviceKey,
}

/// What all rooms of an engine share.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What may be held.
    pub limits: Arc<Limits>,
    /// What may wait for the store's writer.
    pub budget: Arc<Budget>,
    /// What users of each tier may do.
    pub tiers: Arc<Tiers>,
    /// How much of that each user has left to send.
    pub rates: Arc<Rates>,
    /// What rooms have together.
    pub pools: Pools,
    /// Who says that the wall clock is right.
    pub word: Arc<Word>,
}

/// A room. In the order in which it lies in memory: what every message touches comes first and together, since of one message
/// to the next of the same room nothing stays near where there are many rooms.
#[derive(Debug)]
#[repr(C)]
pub struct State {
    room: RoomNumber,
    generation: Generation,
    /// The newest seq given; `extent.tail` is the newest committed.
    given: Seq,
    time: UnixMillis,
    given_count: u64,
    committed_count: u64,
    /// What the room takes from all its users together.
    bucket: Bucket,
    turn_grown: i64,
    turn_ending: bool,
    options: RoomOptions,
    failed: Option<StoreError>,
    extent: Extent,
    limits: Arc<Limits>,
    budget: Arc<Budget>,
    tiers: Arc<Tiers>,
    rates: Arc<Rates>,
    /// What the ring has of those of all rooms.
    share: Share,
    turn: BytesMut,
    turn_records: Vec<AppendRecord>,
    turn_rewrites: Vec<Rewrite>,
    turn_place: Place,
    effects: VecDeque<Effect>,
    uncommitted: VecDeque<Chunk>,
    /// In the order of their seqs.
    waiting: VecDeque<Waiting>,
    /// Repeats of publishes that are not committed yet.
    repeats: Vec<Stored>,
    /// Subscribers on each arbiter.
    subscribers: Vec<u32>,
    ring: Ring,
    devices: Devices<Join>,
    people: People,
    sleep: Sleeping,
    held: Held,
    parked: Parked,
    versions: Versions,
    erasures: Erasures,
    // What most messages do not touch.
    refill: Refill,
    /// Whether the wall clock is believed, where no store looks at it.
    wall: Wall,
    users: Users<Arrival>,
    saves: Saves,
    gone: Gone,
    reads: Reads,
    counting: Vec<(u64, Counting)>,
    /// Positions from which clients came back before the ring was refilled.
    came_back: Vec<(Name, Seq)>,
    /// What was read for the publish that is being taken.
    loaded: parked::Loaded,
    /// Who is here, while somebody watches that.
    gathering: Option<Box<Gathering>>,
    pools: Pools,
    name: Name,
}

impl State {
    /// A room as the store loaded it, without subscribers.
    #[must_use]
    pub fn new(loaded: Loaded, arbiters: usize, setting: Setting) -> Self {
        let Setting { limits, budget, tiers, rates, pools, word } = setting;
        let people = People::new(&loaded);
        let in_memory = loaded.options.durability == Durability::Memory;
        let Loaded { first, trimmed, tail, .. } = loaded;
        let mut state = Self {
            room: loaded.room,
            name: loaded.name,
            options: loaded.options,
            generation: loaded.generation,
            extent: Extent { epochs: loaded.epochs, first, trimmed, tail },
            given: loaded.tail,
            time: loaded.time,
            given_count: loaded.count,
            committed_count: loaded.count,
            ring: Ring::new(tail + 1, limits.ring_records_max, limits.ring_bytes_max),
            share: pools.ring_bytes.share(),
            devices: Devices::new(in_memory, limits.absent_devices_per_room_max, pools.absent.share()),
            users: Users::new(in_memory, limits.absent_devices_per_room_max, pools.absent.share()),
            pools,
            saves: Saves::default(),
            gone: Gone::default(),
            counting: Vec::new(),
            came_back: Vec::new(),
            reads: Reads::default(),
            held: Held::new(first, loaded.bytes_before, loaded.bytes_upto),
            wall: Wall::new(word),
            refill: Refill::default(),
            versions: Versions::default(),
            parked: Parked::default(),
            erasures: Erasures::default(),
            loaded: parked::Loaded::default(),
            people,
            gathering: None,
            sleep: Sleeping::default(),
            subscribers: vec![0; arbiters],
            turn: BytesMut::new(),
            turn_records: Vec::new(),
            turn_rewrites: Vec::new(),
            turn_grown: 0,
            turn_place: budget.none(),
            turn_ending: false,
            uncommitted: VecDeque::new(),
            waiting: VecDeque::new(),
            repeats: Vec::new(),
            failed: None,
            effects: VecDeque::new(),
            limits,
            budget,
            tiers,
            rates,
            bucket: Bucket::default(),
        };
        if !in_memory {
            state.keep(0);
        }
        state.learn_gone(state.extent.first, loaded.gone_count);
        state
    }

    /// The room's number.
    #[must_use]
    pub fn room(&self) -> RoomNumber {
        self.room
    }

    /// The room's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What an ack means in the room.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.options.durability
    }

    /// The generation that the room's appends carry.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The room's epoch.
    #[must_use]
    pub fn epoch(&self) -> parlor_protocol::Epoch {
        self.extent.epoch()
    }

    /// The newest committed seq.
    #[must_use]
    pub fn tail(&self) -> Seq {
        self.extent.tail
    }

    /// How many appends the store has not settled yet.
    #[must_use]
    pub fn appending(&self) -> usize {
        self.uncommitted.len()
    }

    /// How many subscribers there are, over all arbiters.
    #[must_use]
    pub fn subscribers(&self) -> u32 {
        self.subscribers.iter().sum()
    }

    /// How many devices are remembered.
    #[must_use]
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// How many reads of the store are under way.
    #[must_use]
    pub fn reading(&self) -> usize {
        self.reads.len()
    }

    /// How many publishes wait for records that changes refer to.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// How many records are kept because of changes on their way.
    #[must_use]
    pub fn changing(&self) -> usize {
        self.versions.len()
    }

    /// What the room has of the memory for rings, in bytes.
    #[must_use]
    pub fn ring_bytes(&self) -> usize {
        self.ring.held_bytes() + self.coming_bytes()
    }

    /// Takes one input in.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.sweep_ring(now);
        let Some(input) = self.enter(now, input) else { return };
        let tail = self.extent.tail;
        self.take_in(now, input);
        self.settle_ring(self.extent.tail != tail);
    }

    fn take_in(&mut self, now: Now, input: Input) {
        if self.announces() && !matches!(input, Input::Sleep(Sleep::Expect(_))) {
            self.announce(now);
        }
        match input {
            Input::Join(join) => self.on_join(join),
            Input::Publish(publish) => self.on_publish(now, publish),
            Input::Mark(mark) => self.on_mark(mark),
            Input::FetchReaders(fetch) => self.on_fetch_readers(fetch),
            Input::Ask(ask) => self.on_ask(ask),
            Input::Signal(signal) => self.on_signal(signal),
            Input::Delivered { user, seq } => self.on_delivered(user, seq),
            Input::Marks { user, marks } => self.on_marks(&user, marks),
            Input::RoomMarks { fetch, found } => self.on_room_marks(fetch, found),
            Input::SaveMarks => self.on_save_due(),
            Input::MarksSaved(stored) => self.on_marks_saved(stored),
            Input::Fetch(fetch) => self.on_fetch(now, fetch),
            Input::Pull { conn, after } => self.on_pull(now, conn, after),
            Input::Erase(erase) => self.on_erase(now, erase),
            Input::EraseInMemory(erase) => self.on_erase_in_memory(now, erase),
            Input::Detached { arbiter, device } => {
                self.on_detached(arbiter, &device);
                self.stir_detached(now, arbiter, &device);
            }
            Input::Presence(input) => self.on_presence(now, input),
            Input::Adopt { arbiter, devices } => {
                self.on_adopt(arbiter, devices);
                self.arrived(now, arbiter);
            }
            Input::EndOfTurn => self.on_end_of_turn(),
            Input::Committed(upto) => self.on_committed(upto),
            Input::Failed(error) => self.on_failed(error),
            Input::Answers { device, answers } => {
                let failed = answers.is_err();
                self.on_answers(&device, answers);
                self.device_came(now, &device, failed);
            }
            Input::Read { id, records } => self.on_read(now, id, records),
            Input::Target { id, target } => self.on_target(now, id, target),
            Input::Swept { first, gone_count } => self.on_swept(first, gone_count),
            Input::Trimmed(trimmed) => self.on_trimmed(trimmed),
            Input::Rights { device, member } => {
                let failed = member.is_err();
                self.on_rights(&device, member);
                self.device_came(now, &device, failed);
            }
            Input::Changed { id, change } => self.on_changed(now, id, &change),
            Input::End => self.effects.push_back(Effect::Stop),
            Input::Sleep(sleep) => self.on_sleep(now, sleep),
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Lets it use a queue of its shell's for what it wants done, instead of one of its own.
    pub fn lend(&mut self, empty: VecDeque<Effect>) {
        debug_assert!(empty.is_empty() && self.effects.is_empty(), "all effects were carried out");
        self.effects = empty;
    }

    /// Gives back what was [lent](Self::lend), when it has been polled until it was empty.
    pub fn give_back(&mut self) -> VecDeque<Effect> {
        debug_assert!(self.effects.is_empty(), "all effects were carried out");
        std::mem::take(&mut self.effects)
    }

    fn on_join(&mut self, join: Join) {
        if self.is_being_put_out(&join.device.user) {
            return self.refuse(join.conn, join.request, Code::Busy, BUSY_RETRY_MS, BEING_PUT_OUT);
        }
        if self.devices.attach(&join.device) {
            self.effects.push_back(Effect::LoadAnswers(join.device.clone()));
        }
        self.meet_again(&join.device);
        self.want_rights(&join.device);
        self.attach_user(&join.device);
        let device = join.device.clone();
        if let Some(join) = self.devices.wait(&device, join) {
            self.on_device_ready(join);
        }
    }

    fn on_answers(&mut self, device: &DeviceKey, answers: Result<Vec<(u8, Answer)>, StoreError>) {
        match answers {
            Ok(answers) => {
                for join in self.devices.loaded(device, answers) {
                    self.on_device_ready(join);
                }
            }
            Err(error) => {
                tracing::warn!(room = %self.name, user = %device.user, %error, "a device's answers could not be loaded");
                for join in self.devices.not_loaded(device) {
                    self.detach_user(&join.device);
                    self.devices.detach(&join.device);
                    self.refuse(join.conn, join.request, Code::Busy, BUSY_RETRY_MS, "the store is busy");
                }
            }
        }
    }

    fn answer_join(&mut self, join: Join) {
        let rights = self.rights_of(&join.device).unwrap_or_default();
        // Who follows is attached as a member, or not at all.
        if !may(self.people.kind, rights.role, Act::Join) || (join.follows && rights.role.is_none()) {
            self.detach_user(&join.device);
            self.devices.detach(&join.device);
            return self.refuse(join.conn, join.request, Code::Forbidden, 0, "the user may not join this room");
        }
        if self.is_being_put_out(&join.device.user) {
            // With what he was before he was put out.
            self.detach_user(&join.device);
            self.devices.detach(&join.device);
            return self.refuse(join.conn, join.request, Code::Busy, BUSY_RETRY_MS, BEING_PUT_OUT);
        }
        self.users.let_in(&join.device.user);
        let was_added = join.follows && join.request == 0;
        if self.is_ahead(rights) || was_added && self.is_untold(rights) {
            self.detach_user(&join.device);
            self.devices.detach(&join.device);
            let message = "what was said before the user was added is on its way";
            return self.refuse(join.conn, join.request, Code::Busy, BUSY_RETRY_MS, message);
        }
        let newest_nonce = self.devices.device(&join.device).and_then(|device| device.window.as_ref()?.newest_nonce());
        let (start, first) = self.start(join.from, rights);
        let (room, epoch, tail) = (self.room, self.extent.epoch(), self.extent.tail);
        if matches!(join.from, JoinFrom::Position(..)) && start.gap.is_none() {
            self.on_came_back(join.device.user.clone(), start.cursor);
        }
        let Standing { read, unread } = self.standing(&join.device.user);
        let joined = Joined {
            room,
            epoch,
            tail,
            first,
            cursor: start.cursor,
            count: self.committed_count,
            read,
            unread,
            durability: self.options.durability,
            newest_nonce,
            extensions: Extensions::default(),
        };
        let mut answer = BytesMut::new();
        if join.follows {
            parlor_protocol::encode(join.request, &attached(&self.name, joined), &mut answer);
        } else {
            parlor_protocol::encode(join.request, &joined, &mut answer);
        }
        if let Some((from, to, why)) = start.gap {
            parlor_protocol::encode(
                0,
                &Gap { room, epoch, from, to, why, extensions: Extensions::default() },
                &mut answer,
            );
        }
        self.subscribers[usize::from(join.conn.arbiter)] += 1;
        self.stir(&join.device.user);
        let (name, cursor, answer) = (self.name.clone(), start.cursor, answer.freeze());
        let (member, met) = (rights.role.is_some(), rights.met());
        if let Some(device) = self.devices.device(&join.device) {
            device.was_member |= member;
        }
        let Join { conn, request, device, .. } = join;
        self.relay(
            conn.arbiter,
            FromChannel::Attach(Attach { conn, request, device, member, met, name, epoch, tail, cursor, answer }),
        );
    }

    fn on_detached(&mut self, arbiter: u16, device: &DeviceKey) {
        let subscribers = &mut self.subscribers[usize::from(arbiter)];
        debug_assert!(*subscribers > 0, "a subscriber leaves once");
        *subscribers = subscribers.saturating_sub(1);
        self.detach_user(device);
        self.devices.detach(device);
    }

    fn on_adopt(&mut self, arbiter: u16, devices: Vec<Returning>) {
        for Returning { device, member, met } in devices {
            self.subscribers[usize::from(arbiter)] += 1;
            self.attach_user(&device);
            self.stir(&device.user);
            self.devices.returns(&device, member, met);
            if self.devices.wants_load(&device) {
                self.effects.push_back(Effect::LoadAnswers(device.clone()));
            }
            self.adopt(&device);
        }
        self.people.adopting.push(arbiter);
        self.finish_adoptions();
    }

    fn refuse(&mut self, conn: Conn, request: u32, code: Code, retry_after_ms: u32, message: &'static str) {
        self.relay(conn.arbiter, FromChannel::Refused { conn, request, code, retry_after_ms, message });
    }

    fn relay(&mut self, arbiter: u16, news: FromChannel) {
        self.effects.push_back(Effect::Relay { arbiter, news });
    }
}

use counting::{Counting, Gone};
use sleeping::Sleeping;
use trimming::{Held, Wall};

mod announcing;
mod changing;
mod counting;
mod erasing;
mod fitting;
mod hiding;
mod presence;
mod publishing;
mod readers;
mod reading;
mod receipts;
mod rights;
mod signals;
mod sleeping;
mod speech;

/// The same as told to a client that may not have heard of the room.
fn attached<'a>(name: &'a str, joined: Joined<'a>) -> Attached<'a> {
    let Joined { room, epoch, tail, first, cursor, count, read, unread, durability, newest_nonce, extensions } = joined;
    Attached { name, room, epoch, tail, first, cursor, count, read, unread, durability, newest_nonce, extensions }
}

#[cfg(test)]
mod tests;
mod trimming;
