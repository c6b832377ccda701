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
    message::{ContentType, Deliver, Durability, Gap, Joined, RecordKind},
};
use xxhash_rust::xxh3::Xxh3;

use super::{
    devices::Devices,
    history::{NewRead, Purpose, Reads, Source, source_of_fetch, source_of_pull, to_page, to_stream},
    position::Extent,
    ring::Ring,
    window::Known,
};
use crate::{
    limits::Limits,
    message::{Attach, Batch, Conn, Fetch, FromChannel, Join, Publish, Stored},
    port::{Answer, AppendRecord, Budget, DeviceKey, Generation, Loaded, Now, Place, Records, StoreError},
};

/// What a record costs the writer's budget besides its frame, in bytes.
const RECORD_OVERHEAD_BYTES: usize = 128;

/// Clients are asked to wait this long when a queue is full.
const BUSY_RETRY_MS: u32 = 100;

/// What a channel is told.
#[derive(Debug)]
pub enum Input {
    /// A session wants in.
    Join(Join),
    /// A session says something.
    Publish(Publish),
    /// A session reads the past.
    Fetch(Fetch),
    /// A subscriber with this cursor can take more.
    Pull {
        /// Which.
        conn: Conn,
        /// Its cursor.
        after: Seq,
    },
    /// A subscriber is gone.
    Detached {
        /// From which arbiter.
        arbiter: u16,
        /// Its device.
        device: DeviceKey,
    },
    /// An arbiter's subscribers of the channel before this one.
    Adopt {
        /// Which arbiter.
        arbiter: u16,
        /// Their devices, one for each subscriber.
        devices: Vec<DeviceKey>,
    },
    /// Everything that was in the mailbox has been handled.
    EndOfTurn,
    /// The store has everything up to here.
    Committed(Seq),
    /// The store has nothing more and takes nothing more.
    Failed(StoreError),
    /// The store's answers of a device.
    Answers {
        /// Which device.
        device: DeviceKey,
        /// What it was answered.
        answers: Result<Vec<Answer>, StoreError>,
    },
    /// A read came back.
    Read {
        /// Which.
        id: u64,
        /// What it found.
        records: Result<Records, StoreError>,
    },
}

/// What a channel wants done.
#[derive(Debug)]
pub enum Effect {
    /// Tell the relay of an arbiter.
    Relay {
        /// Which arbiter.
        arbiter: u16,
        /// What.
        news: FromChannel,
    },
    /// Append to the store.
    Append(Turn),
    /// Read from the store.
    Read(NewRead),
    /// Load a device's answers.
    LoadAnswers(DeviceKey),
    /// Send [`Input::EndOfTurn`] behind what is in the mailbox now.
    EndTurn,
}

/// Records accepted in one turn: consecutive, and one entry for the store.
#[derive(Debug)]
pub struct Turn {
    /// The first one's seq.
    pub first: Seq,
    /// Their frames.
    pub frames: Bytes,
    /// One entry for each.
    pub records: Vec<AppendRecord>,
    /// Their places in the writer's queue.
    pub place: Place,
}

/// An appended turn that is not committed yet.
#[derive(Debug)]
struct Chunk {
    first: Seq,
    frames: Bytes,
    /// The room's count with the last record.
    count: u64,
    /// Each record's end within the frames, and its expiry.
    records: Vec<(u32, UnixMillis)>,
}

/// A publish whose ack waits for a commit.
#[derive(Debug)]
struct Waiting {
    stored: Stored,
    device: DeviceKey,
}

/// A room.
#[derive(Debug)]
pub struct State {
    room: RoomNumber,
    name: Name,
    durability: Durability,
    generation: Generation,
    extent: Extent,
    /// The newest seq given; `extent.tail` is the newest committed.
    given: Seq,
    time: UnixMillis,
    given_count: u64,
    committed_count: u64,
    limits: Arc<Limits>,
    budget: Arc<Budget>,
    ring: Ring,
    devices: Devices<Join>,
    reads: Reads,
    /// Subscribers on each arbiter.
    subscribers: Vec<u32>,
    turn: BytesMut,
    turn_records: Vec<AppendRecord>,
    turn_place: Place,
    turn_ending: bool,
    uncommitted: VecDeque<Chunk>,
    /// In the order of their seqs.
    waiting: VecDeque<Waiting>,
    /// Repeats of publishes that are not committed yet.
    repeats: Vec<Stored>,
    failed: Option<StoreError>,
    effects: VecDeque<Effect>,
}

impl State {
    /// A room as the store loaded it, without subscribers.
    #[must_use]
    pub fn new(loaded: Loaded, arbiters: usize, limits: Arc<Limits>, budget: Arc<Budget>) -> Self {
        let in_memory = loaded.durability == Durability::Memory;
        Self {
            room: loaded.room,
            name: loaded.name,
            durability: loaded.durability,
            generation: loaded.generation,
            extent: Extent { epochs: loaded.epochs, first: loaded.first, tail: loaded.tail },
            given: loaded.tail,
            time: loaded.time,
            given_count: loaded.count,
            committed_count: loaded.count,
            ring: Ring::new(loaded.tail + 1, limits.ring_records_max, limits.ring_bytes_max),
            devices: Devices::new(in_memory.then_some(limits.absent_devices_per_room_max)),
            reads: Reads::default(),
            subscribers: vec![0; arbiters],
            turn: BytesMut::new(),
            turn_records: Vec::new(),
            turn_place: budget.none(),
            turn_ending: false,
            uncommitted: VecDeque::new(),
            waiting: VecDeque::new(),
            repeats: Vec::new(),
            failed: None,
            effects: VecDeque::new(),
            limits,
            budget,
        }
    }

    /// The room's number.
    #[must_use]
    pub fn room(&self) -> RoomNumber {
        self.room
    }

    /// What an ack means in the room.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.durability
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

    /// Takes one input in.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Join(join) => self.on_join(join),
            Input::Publish(publish) => self.on_publish(now, publish),
            Input::Fetch(fetch) => self.on_fetch(now, fetch),
            Input::Pull { conn, after } => self.on_pull(now, conn, after),
            Input::Detached { arbiter, device } => self.on_detached(arbiter, &device),
            Input::Adopt { arbiter, devices } => self.on_adopt(arbiter, devices),
            Input::EndOfTurn => self.on_end_of_turn(),
            Input::Committed(upto) => self.on_committed(upto),
            Input::Failed(error) => self.on_failed(error),
            Input::Answers { device, answers } => self.on_answers(&device, answers),
            Input::Read { id, records } => self.on_read(id, records),
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn on_join(&mut self, join: Join) {
        if self.devices.attach(&join.device) {
            self.effects.push_back(Effect::LoadAnswers(join.device.clone()));
        }
        let device = join.device.clone();
        if let Some(join) = self.devices.wait(&device, join) {
            self.answer_join(join);
        }
    }

    fn on_answers(&mut self, device: &DeviceKey, answers: Result<Vec<Answer>, StoreError>) {
        match answers {
            Ok(answers) => {
                for join in self.devices.loaded(device, answers) {
                    self.answer_join(join);
                }
            }
            Err(error) => {
                tracing::warn!(room = %self.name, user = %device.user, %error, "a device's answers could not be loaded");
                for join in self.devices.not_loaded(device) {
                    self.devices.detach(&join.device);
                    self.refuse(join.conn, join.request, Code::Busy, BUSY_RETRY_MS, "the store is busy");
                }
            }
        }
    }

    fn answer_join(&mut self, join: Join) {
        let newest_nonce = self.devices.device(&join.device).and_then(|device| device.window.as_ref()?.newest_nonce());
        let start = self.extent.start(join.from);
        let (room, epoch, tail) = (self.room, self.extent.epoch(), self.extent.tail);
        let joined = Joined {
            room,
            epoch,
            tail,
            first: self.extent.first,
            cursor: start.cursor,
            count: self.committed_count,
            durability: self.durability,
            newest_nonce,
            extensions: Extensions::default(),
        };
        let mut answer = BytesMut::new();
        parlor_protocol::encode(join.request, &joined, &mut answer);
        if let Some((from, to, why)) = start.gap {
            parlor_protocol::encode(
                0,
                &Gap { room, epoch, from, to, why, extensions: Extensions::default() },
                &mut answer,
            );
        }
        self.subscribers[usize::from(join.conn.arbiter)] += 1;
        let (name, cursor, answer) = (self.name.clone(), start.cursor, answer.freeze());
        let Join { conn, request, device, .. } = join;
        self.relay(
            conn.arbiter,
            FromChannel::Attach(Attach { conn, request, device, name, epoch, tail, cursor, answer }),
        );
    }

    fn on_detached(&mut self, arbiter: u16, device: &DeviceKey) {
        let subscribers = &mut self.subscribers[usize::from(arbiter)];
        debug_assert!(*subscribers > 0, "a subscriber leaves once");
        *subscribers = subscribers.saturating_sub(1);
        self.devices.detach(device);
    }

    fn on_adopt(&mut self, arbiter: u16, devices: Vec<DeviceKey>) {
        for device in devices {
            self.subscribers[usize::from(arbiter)] += 1;
            if self.devices.attach(&device) {
                self.effects.push_back(Effect::LoadAnswers(device));
            }
        }
        let Extent { epochs, first, tail } = self.extent.clone();
        self.relay(arbiter, FromChannel::Adopted { epochs, first, tail });
    }

    fn on_publish(&mut self, now: Now, publish: Publish) {
        let (conn, request, nonce) = (publish.conn, publish.request, publish.nonce);
        let hold_until = now.mono_ms + self.limits.hold_back_ms;
        let hash = content_hash(&publish);
        let Some(device) = self.devices.device(&publish.device) else {
            // Its session left meanwhile.
            return self.refuse(conn, request, Code::NotJoined, 0, "the session has left this room");
        };
        let Some(window) = &device.window else {
            // A rebuilt room, or the load failed before. What comes when it is loaded must not overtake this one.
            device.hold(nonce, now.mono_ms, hold_until);
            if self.devices.wants_load(&publish.device) {
                self.effects.push_back(Effect::LoadAnswers(publish.device));
            }
            return self.refuse(conn, request, Code::RoomUnavailable, BUSY_RETRY_MS, "the room is being rebuilt");
        };
        let known = window.look_up(nonce, hash);
        if known != Known::New {
            device.release(nonce);
        }
        match known {
            Known::New => {}
            Known::Repeat(Answer { seq, time, .. }) => {
                let stored = Stored { conn, request, nonce, seq, time, duplicate: true };
                return self.repeat(stored);
            }
            Known::Conflict => {
                return self.refuse(conn, request, Code::NonceConflict, 0, "this nonce was used for other content");
            }
            Known::TooOld => {
                return self.refuse(
                    conn,
                    request,
                    Code::NonceTooOld,
                    0,
                    "a nonce must be above all that were used before",
                );
            }
        }
        // An earlier send was refused for now: this one must not overtake it.
        if let Some((held, until)) = device.held
            && held < nonce
            && now.mono_ms < until
        {
            return self.refuse(
                conn,
                request,
                Code::HeldBack,
                BUSY_RETRY_MS,
                "an earlier send was refused: send again in order",
            );
        }
        device.held = None;
        if self.failed.is_some() {
            return self.refuse(conn, request, Code::StoreUnavailable, 1_000, "the store takes no more writes");
        }
        let cost = publish.payload.len() + RECORD_OVERHEAD_BYTES;
        let place = match self.durability {
            Durability::Memory => self.budget.none(),
            Durability::Buffered | Durability::Synced => match self.budget.take(cost) {
                Some(place) => place,
                None => {
                    device.hold(nonce, now.mono_ms, hold_until);
                    return self.refuse(conn, request, Code::Busy, BUSY_RETRY_MS, "the store's queue is full");
                }
            },
        };
        self.accept(now, publish, hash, place);
    }

    /// Gives the message its seq. From here on only the store's failure can undo it.
    fn accept(&mut self, now: Now, publish: Publish, content_hash: u64, place: Place) {
        let Publish { conn, request, device, nonce, .. } = publish;
        let (seq, time) = (self.given + 1, self.time.max(now.unix_ms));
        let answer = Answer { nonce, seq, time, content_hash };
        let Some(slot) = self.devices.accept(&device, answer, self.limits.answers_per_device_max) else {
            debug_assert!(false, "on_publish found the device with its window");
            return;
        };
        (self.given, self.time) = (seq, time);
        self.given_count += u64::from(!publish.silent);
        let deliver = Deliver {
            room: self.room,
            seq,
            time,
            sender: &device.user,
            device_tag: device.tag,
            nonce,
            kind: RecordKind::MESSAGE,
            refers_to: 0,
            expires: 0,
            count: self.given_count,
            content_type: ContentType(publish.content_type),
            payload: &publish.payload,
            extensions: Extensions::default(),
        };
        parlor_protocol::encode(0, &deliver, &mut self.turn);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a turn is bounded by the writer's budget, far below 4 GiB"
        )]
        let end = self.turn.len() as u32;
        self.turn_records.push(AppendRecord { end, expires: 0, device: device.clone(), slot, answer });
        self.turn_place.merge(place);
        self.waiting
            .push_back(Waiting { stored: Stored { conn, request, nonce, seq, time, duplicate: false }, device });
        if !self.turn_ending {
            self.turn_ending = true;
            self.effects.push_back(Effect::EndTurn);
        }
    }

    fn repeat(&mut self, stored: Stored) {
        if stored.seq <= self.extent.tail {
            let (arbiter, durability) = (stored.conn.arbiter, self.durability);
            self.relay(arbiter, FromChannel::Committed { batch: None, durability, stored: vec![stored] });
        } else if self.failed.is_some() {
            self.refuse(
                stored.conn,
                stored.request,
                Code::OutcomeUnknown,
                1_000,
                "the store failed: it may be stored or not",
            );
        } else {
            self.repeats.push(stored);
        }
    }

    fn on_end_of_turn(&mut self) {
        self.turn_ending = false;
        if self.turn_records.is_empty() {
            return;
        }
        let first = self.given + 1 - self.turn_records.len() as u64;
        let frames = self.turn.split().freeze();
        self.turn = BytesMut::new();
        let records = std::mem::take(&mut self.turn_records);
        let place = std::mem::replace(&mut self.turn_place, self.budget.none());
        let ends = records.iter().map(|record| (record.end, record.expires)).collect();
        self.uncommitted.push_back(Chunk { first, frames: frames.clone(), count: self.given_count, records: ends });
        if self.durability == Durability::Memory {
            self.on_committed(self.given);
        } else if let Some(error) = self.failed.clone() {
            // The store failed between the publish and the end of its turn.
            self.on_failed(error);
        } else {
            self.effects.push_back(Effect::Append(Turn { first, frames, records, place }));
        }
    }

    fn on_committed(&mut self, upto: Seq) {
        if self.failed.is_some() || upto <= self.extent.tail {
            return;
        }
        assert!(upto <= self.given, "the store committed seq {upto} of room {}, which was not given", self.room);
        let first = self.extent.tail + 1;
        let mut parts = Vec::new();
        while self.uncommitted.front().is_some_and(|chunk| chunk.first <= upto)
            && let Some(chunk) = self.uncommitted.pop_front()
        {
            let mut start = 0;
            for (end, expires) in &chunk.records {
                self.ring.push(*expires, chunk.frames.slice(start..*end as usize));
                start = *end as usize;
            }
            self.committed_count = chunk.count;
            parts.push(chunk.frames);
        }
        debug_assert_eq!(self.ring.last(), upto, "a turn is committed as a whole");
        self.extent.tail = upto;
        if self.durability == Durability::Memory {
            // What falls off the ring is nowhere else.
            self.extent.first = self.ring.first();
        }
        let frames = if let [one] = &parts[..] { one.clone() } else { Bytes::from(parts.concat()) };
        self.tell_committed(&Batch { first, last: upto, frames });
    }

    fn tell_committed(&mut self, batch: &Batch) {
        let mut stored: Vec<Vec<Stored>> = vec![Vec::new(); self.subscribers.len()];
        while self.waiting.front().is_some_and(|waiting| waiting.stored.seq <= batch.last)
            && let Some(Waiting { stored: answer, device }) = self.waiting.pop_front()
        {
            self.devices.committed(&device);
            stored[usize::from(answer.conn.arbiter)].push(answer);
        }
        for repeat in self.repeats.extract_if(.., |repeat| repeat.seq <= batch.last) {
            stored[usize::from(repeat.conn.arbiter)].push(repeat);
        }
        for (arbiter, stored) in (0..).zip(stored) {
            let subscribed = self.subscribers[usize::from(arbiter)] > 0;
            if subscribed || !stored.is_empty() {
                let (batch, durability) = (subscribed.then(|| batch.clone()), self.durability);
                self.relay(arbiter, FromChannel::Committed { batch, durability, stored });
            }
        }
    }

    fn on_failed(&mut self, error: StoreError) {
        tracing::error!(room = %self.name, %error, "the room's records can no longer be stored");
        self.failed = Some(error);
        self.uncommitted.clear();
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|waiting| waiting.stored);
        for stored in waiting.chain(std::mem::take(&mut self.repeats)) {
            self.refuse(
                stored.conn,
                stored.request,
                Code::OutcomeUnknown,
                1_000,
                "the store failed: it may be stored or not",
            );
        }
    }

    fn on_pull(&mut self, now: Now, conn: Conn, after: Seq) {
        match source_of_pull(self.room, &self.extent, &self.ring, after, &self.limits, now.unix_ms) {
            Source::Hot(records) => self.answer_pull(vec![conn], after, &records),
            Source::Cold(read) => match self.reads.pull(conn, after, read, self.limits.reads_per_room_max) {
                Ok(read) => self.effects.extend(read.map(Effect::Read)),
                Err(_) => self.relay(conn.arbiter, FromChannel::Pulled { conns: vec![conn], after, page: None }),
            },
        }
    }

    fn on_fetch(&mut self, now: Now, fetch: Fetch) {
        let Fetch { conn, request, start, direction, limit } = fetch;
        let wanted = (start, direction, limit);
        match source_of_fetch(self.room, &self.extent, &self.ring, wanted, &self.limits, now.unix_ms) {
            Source::Hot(records) => self.answer_fetch(conn, request, self.extent.tail, &records),
            Source::Cold(read) => {
                match self.reads.fetch(conn, request, self.extent.tail, read, self.limits.reads_per_room_max) {
                    Ok(read) => self.effects.push_back(Effect::Read(read)),
                    Err(_) => self.refuse(conn, request, Code::Busy, BUSY_RETRY_MS, "too many reads of this room"),
                }
            }
        }
    }

    fn on_read(&mut self, id: u64, records: Result<Records, StoreError>) {
        let Some(purpose) = self.reads.done(id) else { return };
        match (purpose, records) {
            (Purpose::Pull { after, conns }, Ok(records)) => self.answer_pull(conns, after, &records),
            (Purpose::Fetch { conn, request, tail }, Ok(records)) => self.answer_fetch(conn, request, tail, &records),
            (Purpose::Pull { after, conns }, Err(error)) => {
                tracing::warn!(room = %self.name, %error, "a page for lagging subscribers could not be read");
                self.relay_each(conns, |conns| FromChannel::Pulled { conns, after, page: None });
            }
            (Purpose::Fetch { conn, request, .. }, Err(error)) => {
                tracing::warn!(room = %self.name, %error, "a page could not be read");
                self.refuse(conn, request, Code::Busy, BUSY_RETRY_MS, "the page could not be read now");
            }
        }
    }

    fn answer_pull(&mut self, conns: Vec<Conn>, after: Seq, records: &Records) {
        // A pull from the tail has nothing to bring, and says so: the subscriber is live again.
        let page = to_stream(self.room, &self.extent, records).or(Some((after, Bytes::new())));
        self.relay_each(conns, |conns| FromChannel::Pulled { conns, after, page: page.clone() });
    }

    fn answer_fetch(&mut self, conn: Conn, request: u32, tail: Seq, records: &Records) {
        let frame = to_page(self.room, self.extent.epoch(), tail, records, request);
        self.relay(conn.arbiter, FromChannel::Answer { conn, request, frame });
    }

    fn relay_each(&mut self, conns: Vec<Conn>, news: impl Fn(Vec<Conn>) -> FromChannel) {
        for arbiter in 0..self.subscribers.len() {
            let here: Vec<Conn> = conns.iter().filter(|conn| usize::from(conn.arbiter) == arbiter).copied().collect();
            if let Some(first) = here.first() {
                self.relay(first.arbiter, news(here));
            }
        }
    }

    fn refuse(&mut self, conn: Conn, request: u32, code: Code, retry_after_ms: u32, message: &'static str) {
        self.relay(conn.arbiter, FromChannel::Refused { conn, request, code, retry_after_ms, message });
    }

    fn relay(&mut self, arbiter: u16, news: FromChannel) {
        self.effects.push_back(Effect::Relay { arbiter, news });
    }
}

/// Tells a repeat of a publish from a conflict: all that a publish says besides room and nonce, decoded. Stored, so it
/// must not change.
fn content_hash(publish: &Publish) -> u64 {
    const REFERS_TO: Seq = 0;
    const LIFETIME_MS: u64 = 0;
    let mut hash = Xxh3::new();
    hash.update(&RecordKind::MESSAGE.0.to_le_bytes());
    hash.update(&REFERS_TO.to_le_bytes());
    hash.update(&LIFETIME_MS.to_le_bytes());
    hash.update(&[u8::from(publish.silent)]);
    hash.update(&publish.content_type.to_le_bytes());
    hash.update(&publish.payload);
    hash.digest()
}

#[cfg(test)]
mod tests;
