//! Receipts: how far users are, kept and saved; what is unread.

use std::fmt;

use parlor_protocol::{
    Code, DeviceTag, Extensions, Name, Seq,
    message::{self, Direction},
};

use super::{BUSY_RETRY_MS, Effect, State, readers::Asked};
use crate::{
    channel::marks::unread,
    members::rights::{Act, may},
    message::{Conn, FromChannel, Join, MarkRead},
    port::{DeviceKey, Mark, Marks, Read, Records, Run, SaveMarks, StoreError},
};

/// How long marks that changed wait for others before they are saved together.
const SAVE_AFTER_MS: u64 = 1_000;

/// Marks of so many users are not left to wait.
const DIRTY_USERS_MAX: usize = 256;

/// The most users of one entry for the store.
const USERS_PER_SAVE_MAX: usize = 1_024;

/// How a user stands in a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// He has read everything up to here.
    pub read: Seq,
    /// How many countable records he has not read.
    pub unread: u64,
}

/// Where the host waits for an answer.
pub struct HostReply(Box<dyn FnOnce(Result<Standing, StoreError>) + Send>);

impl HostReply {
    /// Calls this, once.
    pub fn new(reply: impl FnOnce(Result<Standing, StoreError>) + Send + 'static) -> Self {
        Self(Box::new(reply))
    }

    /// Answers.
    pub fn give(self, standing: Result<Standing, StoreError>) {
        (self.0)(standing);
    }
}

impl fmt::Debug for HostReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostReply")
    }
}

/// The host asks how a user stands, and may have read for him before.
#[derive(Debug)]
pub struct Ask {
    /// Which user.
    pub user: Name,
    /// He has read everything up to here.
    pub read: Option<Seq>,
    /// Who asks.
    pub reply: HostReply,
}

/// What waits for a user's marks.
#[derive(Debug)]
pub(super) enum Arrival {
    Join(Join),
    /// A mark of a rebuilt room's subscriber.
    Mark(MarkRead),
    Ask(Ask),
}

/// A count that is looked for in the store.
#[derive(Debug)]
pub(super) struct Counting {
    user: Name,
    /// Where.
    seq: Seq,
    /// The tail when the read began, where it ends; 0 if none did.
    tail: Seq,
    told: Told,
}

/// Who hears of a mark.
#[derive(Debug)]
enum Told {
    /// Nobody: it says what was delivered.
    Nobody,
    Session(Conn, u32),
    Host(HostReply),
}

/// How marks get to the store.
#[derive(Debug, Default)]
pub(super) struct Saves {
    /// A timer runs.
    armed: bool,
    /// Somebody left: save when the turn ends.
    due: bool,
    /// Whose marks are being saved.
    under_way: Option<Vec<Name>>,
    /// Who asked who has read, and is not answered.
    pub(super) asked: Vec<Asked>,
}

impl Saves {
    /// Whether the store is being told or asked something.
    pub(super) fn are_under_way(&self) -> bool {
        self.due || self.under_way.is_some() || !self.asked.is_empty()
    }
}

impl State {
    /// A subscriber's user is there; his marks are loaded if they are not here.
    pub(super) fn attach_user(&mut self, device: &DeviceKey) {
        self.users.attach(&device.user, device.tag);
        self.load_marks(&device.user);
    }

    fn load_marks(&mut self, user: &Name) {
        if self.users.wants_load(user) {
            self.effects.push_back(Effect::LoadMarks(user.clone()));
        }
    }

    /// A subscriber's user is gone. Comes before its device goes, which knows what he sent.
    pub(super) fn detach_user(&mut self, device: &DeviceKey) {
        let (kind, rights) = (self.people.kind, self.rights_of(device));
        let out = rights.is_some_and(|rights| !may(kind, rights.role, Act::Join));
        if !out && rights.is_some_and(|rights| rights.out) {
            // He was removed, and may come back; what he sent is the room's.
            self.users.let_in(&device.user);
        }
        if let Some(newest) = self.devices.newest(device).filter(|_| !out) {
            self.users.sent(&device.user, Mark { seq: newest.seq, count: newest.count });
        }
        self.users.detach(&device.user, device.tag);
        if self.users.dirty() > 0 {
            self.saves.due = true;
            if !self.turn_ending {
                self.turn_ending = true;
                self.effects.push_back(Effect::EndTurn);
            }
        }
    }

    /// A join's device is known: it waits for its user's marks, if those are not here.
    pub(super) fn on_device_ready(&mut self, join: Join) {
        let user = join.device.user.clone();
        // Failed with an earlier join, perhaps.
        self.load_marks(&user);
        if let Some(arrival) = self.users.wait(&user, Arrival::Join(join)) {
            self.on_arrival(arrival);
        }
    }

    fn on_arrival(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Join(join) => self.answer_join(join),
            Arrival::Mark(MarkRead { conn, request, device, read }) => {
                self.mark(device.user, read, Told::Session(conn, request));
            }
            Arrival::Ask(Ask { user, read, reply }) => self.mark(user, read.unwrap_or_default(), Told::Host(reply)),
        }
    }

    pub(super) fn on_marks(&mut self, user: &Name, marks: Result<Marks, StoreError>) {
        let error = match marks {
            Ok(marks) => {
                let marks = self.within(marks);
                for arrival in self.users.loaded(user, &marks) {
                    self.on_arrival(arrival);
                }
                return self.users.settle(user);
            }
            Err(error) => error,
        };
        tracing::warn!(room = %self.name, %user, %error, "a user's marks could not be loaded");
        for arrival in self.users.not_loaded(user) {
            match arrival {
                Arrival::Join(join) => {
                    self.detach_user(&join.device);
                    self.devices.detach(&join.device);
                    self.refuse(join.conn, join.request, Code::Busy, BUSY_RETRY_MS, "the store is busy");
                }
                Arrival::Mark(MarkRead { conn, request, .. }) => {
                    self.refuse(conn, request, Code::Busy, BUSY_RETRY_MS, "the store is busy");
                }
                Arrival::Ask(ask) => self.effects.push_back(Effect::TellHost(ask.reply, Err(error.clone()))),
            }
        }
        self.users.settle(user);
    }

    /// Marks never stand above the tail: what they spoke of there was never stored, or lost.
    pub(super) fn within(&self, marks: Marks) -> Marks {
        let tail = Mark { seq: self.extent.tail, count: self.committed_count };
        let within = |mark: Mark| if mark.seq > tail.seq { tail } else { mark };
        // A record of his own may be on its way.
        let sent = if marks.sent.seq > self.given { tail } else { marks.sent };
        Marks { read: within(marks.read), delivered: within(marks.delivered), sent, since: within(marks.since) }
    }

    /// How a user stands whose marks are here.
    pub(super) fn standing(&self, user: &Name) -> Standing {
        let mut marks = self.users.marks(user).copied().unwrap_or_default();
        for tag in self.users.attached(user) {
            let device = DeviceKey { user: user.clone(), tag: *tag };
            if let Some(newest) = self.devices.newest(&device) {
                marks.sent = marks.sent.max(Mark { seq: newest.seq, count: newest.count });
            }
        }
        let unread = unread(self.committed_count, &marks, self.since(user), self.gone());
        Standing { read: marks.read.seq, unread }
    }

    /// The place before a member was added: what is older is not unread for him.
    fn since(&self, user: &Name) -> Mark {
        let stored = self.users.marks(user).map(|marks| marks.since).unwrap_or_default();
        stored.max(self.people.added(user))
    }

    /// The newest record that is gone on purpose.
    fn gone(&self) -> Mark {
        let first = self.extent.first;
        // What follows from those that are not gone, while nobody has said it: each of them counts at most once.
        let records = (self.extent.tail + 1).saturating_sub(first);
        let oldest = self.ring.count(first).unwrap_or_default().saturating_sub(1);
        let least = self.committed_count.saturating_sub(records).max(oldest);
        // A sweep may have met records whose commit is still on its way here.
        let count = self.gone_count.max(least).min(self.committed_count);
        Mark { seq: first.saturating_sub(1), count }
    }

    pub(super) fn on_mark(&mut self, mark: MarkRead) {
        let user = mark.device.user.clone();
        if !self.users.attached(&user).contains(&mark.device.tag) {
            return self.refuse(mark.conn, mark.request, Code::NotJoined, 0, "the session has left this room");
        }
        if self.rights_of(&mark.device).is_some_and(|rights| !rights.may(self.people.kind, Act::Join)) {
            return self.refuse(mark.conn, mark.request, Code::Forbidden, 0, "the user may not read this room");
        }
        self.load_marks(&user);
        if let Some(arrival) = self.users.wait(&user, Arrival::Mark(mark)) {
            self.on_arrival(arrival);
        }
    }

    pub(super) fn on_ask(&mut self, ask: Ask) {
        let user = ask.user.clone();
        self.load_marks(&user);
        if let Some(arrival) = self.users.wait(&user, Arrival::Ask(ask)) {
            self.on_arrival(arrival);
            self.users.settle(&user);
        }
    }

    /// A client has joined from a position: it had received everything up to there.
    pub(super) fn on_came_back(&mut self, user: Name, seq: Seq) {
        let knows = self.users.marks(&user).is_some_and(|marks| marks.delivered.seq >= seq);
        if knows || self.count_at(seq).is_some() || !self.refill_brings(seq) {
            return self.on_delivered(user, seq);
        }
        // It is about to be brought what it missed. What is read for that has the count as well, for all who come back.
        if self.came_back.len() < self.limits.refill_waiters_per_room_max {
            self.came_back.push((user, seq));
        }
    }

    /// One of a user's devices has received everything up to here.
    pub(super) fn on_delivered(&mut self, user: Name, seq: Seq) {
        let seq = seq.min(self.extent.tail);
        if self.users.marks(&user).is_some_and(|marks| marks.delivered.seq < seq) {
            self.find_count(Counting { user, seq, tail: 0, told: Told::Nobody });
        }
    }

    fn mark(&mut self, user: Name, read: Seq, told: Told) {
        let seq = read.min(self.extent.tail);
        if self.users.marks(&user).is_some_and(|marks| marks.read.seq < seq) {
            self.find_count(Counting { user, seq, tail: 0, told });
        } else {
            self.tell(&user, told);
        }
    }

    /// Finds out the count at a seq: it is here, or it is read.
    fn find_count(&mut self, counting: Counting) {
        match self.count_at(counting.seq) {
            Some(count) => self.on_counted(counting, count),
            None => {
                self.users.pin(&counting.user);
                let (from, tail) = (counting.seq, self.extent.tail);
                self.read_count(Counting { tail, ..counting }, from);
            }
        }
    }

    fn count_at(&self, seq: Seq) -> Option<u64> {
        if seq == self.extent.tail {
            Some(self.committed_count)
        } else if seq < self.extent.first {
            Some(self.gone().count)
        } else {
            self.ring.count(seq)
        }
    }

    /// Reads the oldest record from `from` on.
    fn read_count(&mut self, counting: Counting, from: Seq) {
        let tail = self.extent.tail;
        let read = Read {
            room: self.room,
            start: from,
            end: tail,
            direction: Direction::Forward,
            records_max: 1,
            bytes_max: 1,
            now: 0, // What expired has a count as well.
        };
        match self.reads.count(read, self.limits.reads_per_room_max) {
            Ok(read) => {
                self.counting.push((read.id, Counting { tail, ..counting }));
                self.effects.push_back(Effect::Read(read));
            }
            Err(error) => self.on_not_counted(counting, error),
        }
    }

    pub(super) fn on_count_read(&mut self, id: u64, records: Result<Records, StoreError>) {
        let Some(at) = self.counting.iter().position(|(read, _)| *read == id) else { return };
        let (_, counting) = self.counting.swap_remove(at);
        let records = match records {
            Ok(records) => records,
            Err(error) => return self.on_not_counted(counting, error),
        };
        let (seq, tail) = (counting.seq, counting.tail);
        match records.runs.iter().find_map(oldest) {
            Some((first, count)) if first == seq => self.on_counted(counting, count),
            // Those between are gone, and what cannot be read counts as read.
            Some((_, count)) => self.on_counted(counting, count.saturating_sub(1)),
            None => match (records.next, self.count_at(tail)) {
                (Some(next), _) => self.read_count(counting, next),
                (None, Some(count)) => self.on_counted(counting, count),
                (None, None) => self.read_count(counting, tail + 1),
            },
        }
    }

    fn on_counted(&mut self, Counting { user, seq, tail, told }: Counting, count: u64) {
        let mark = Mark { seq, count };
        let read = if matches!(told, Told::Nobody) { Mark::default() } else { mark };
        let before = self.users.marks(&user).map(|marks| marks.read);
        // Who has read it has received it.
        if self.users.raise(&user, &Marks { read, delivered: mark, ..Marks::default() }) {
            self.save_soon();
            if self.users.marks(&user).map(|marks| marks.read) != before {
                self.tell_others(&user, &told);
            }
        }
        self.tell(&user, told);
        self.end_count(&user, tail);
    }

    fn on_not_counted(&mut self, Counting { user, tail, told, .. }: Counting, error: StoreError) {
        match told {
            Told::Nobody => {} // The next beat that moves says more.
            Told::Session(conn, request) => {
                self.refuse(conn, request, Code::Busy, BUSY_RETRY_MS, "the record could not be read now");
            }
            Told::Host(reply) => self.effects.push_back(Effect::TellHost(reply, Err(error))),
        }
        self.end_count(&user, tail);
    }

    fn end_count(&mut self, user: &Name, tail: Seq) {
        if tail > 0 {
            self.users.unpin(user);
            self.users.settle(user);
        }
    }

    fn tell(&mut self, user: &Name, told: Told) {
        match told {
            Told::Nobody => {}
            Told::Session(conn, request) => {
                let frame = self.marked(user, request);
                self.relay(conn.arbiter, FromChannel::Answer { conn, request, frame });
            }
            Told::Host(reply) => {
                let standing = self.standing(user);
                self.effects.push_back(Effect::TellHost(reply, Ok(standing)));
            }
        }
    }

    /// The cursor moved: the user's other sessions hear of it.
    fn tell_others(&mut self, user: &Name, told: &Told) {
        let except = if let Told::Session(conn, _) = told { Some(*conn) } else { None };
        if self.users.attached(user).len() > usize::from(except.is_some()) {
            let frame = self.marked(user, 0);
            self.effects.push_back(Effect::TellUser { user: user.clone(), except, frame });
        }
    }

    fn marked(&self, user: &Name, request: u32) -> bytes::Bytes {
        let Standing { read, unread } = self.standing(user);
        let marked = message::Marked { room: self.room, read, unread, extensions: Extensions::default() };
        parlor_protocol::to_bytes(request, &marked)
    }

    /// Has marks saved that need not wait for others.
    pub(super) fn save_now(&mut self) {
        for user in self.users.not_yet_loaded() {
            self.load_marks(&user);
        }
        self.save_marks();
        self.arm_save();
    }

    fn save_soon(&mut self) {
        if self.users.dirty() >= DIRTY_USERS_MAX {
            self.save_marks();
        }
        self.arm_save();
    }

    pub(super) fn arm_save(&mut self) {
        // What is being saved ends, and is looked at then.
        let waits = self.saves.under_way.is_none() && self.users.dirty() > 0;
        if (waits || self.announces()) && !std::mem::replace(&mut self.saves.armed, true) {
            self.effects.push_back(Effect::SaveMarksIn(SAVE_AFTER_MS));
        }
    }

    pub(super) fn on_save_due(&mut self) {
        self.saves.armed = false;
        self.save_now();
    }

    /// The turn ends: what those who left in it leave behind is saved.
    pub(super) fn save_if_due(&mut self) {
        if std::mem::take(&mut self.saves.due) {
            self.save_marks();
            self.arm_save();
        }
    }

    /// Has marks saved, unless others are being saved.
    fn save_marks(&mut self) {
        if self.saves.under_way.is_none()
            && let Some(save) = self.take_marks(USERS_PER_SAVE_MAX)
        {
            self.saves.under_way = Some(save.marks.iter().map(|(user, _)| user.clone()).collect());
            self.effects.push_back(Effect::SaveMarks(save));
        }
    }

    pub(super) fn on_marks_saved(&mut self, stored: Result<(), StoreError>) {
        let users = self.saves.under_way.take().unwrap_or_default();
        // A store that takes nothing more gets nothing more: marks are not worth the memory.
        self.users.saved(&users, stored != Err(StoreError::Busy));
        match stored {
            Ok(()) | Err(StoreError::Busy) => {}
            // Another channel has the room, or the writer has forgotten this one: as with an append.
            Err(StoreError::Superseded(_)) => self.effects.push_back(Effect::Stop),
            Err(error) => tracing::warn!(room = %self.name, %error, "marks were not saved"),
        }
        self.arm_save();
    }

    /// What the store has not been told when the channel ends; `None` if it has all.
    pub(in crate::channel) fn last_marks(&mut self) -> Option<SaveMarks> {
        self.take_marks(usize::MAX)
    }

    fn take_marks(&mut self, users_max: usize) -> Option<SaveMarks> {
        let (devices, tail) = (&self.devices, self.extent.tail);
        // With his answers it may be forgotten, and then it must stand here.
        let sent = |user: &Name, tags: &[DeviceTag]| {
            let newest = tags.iter().filter_map(|tag| devices.newest(&DeviceKey { user: user.clone(), tag: *tag }));
            let newest = newest.filter(|newest| newest.seq <= tail).max_by_key(|newest| newest.seq);
            newest.map_or(Mark::default(), |newest| Mark { seq: newest.seq, count: newest.count })
        };
        let marks = self.users.take_dirty(tail, users_max, sent);
        let (room, generation, heard) = (self.room, self.generation, self.people.heard);
        (!marks.is_empty()).then_some(SaveMarks { room, generation, heard, marks })
    }
}

/// The oldest record of a run, with its count.
fn oldest(run: &Run) -> Option<(Seq, u64)> {
    let Run::Frames { first, frames, .. } = run else { return None };
    let header = parlor_protocol::Header::from_bytes(frames.first_chunk()?);
    let start = parlor_protocol::frame::HEADER_BYTES;
    let count = parlor_protocol::peek::count(frames.get(start..start + header.len as usize)?).ok()?;
    Some((*first, count))
}
