//! Receipts: how far users are, kept and saved; what is unread.

use std::fmt;

use parlor_protocol::{Code, DeviceTag, Extensions, Name, Seq, message};

use super::{
    BUSY_RETRY_MS, Effect, State,
    counting::{Counting, Waiter},
    readers::Asked,
};
use crate::{
    channel::marks::unread,
    members::rights::{Act, may},
    message::{Conn, FromChannel, Join, MarkRead},
    port::{DeviceKey, Mark, Marks, SaveMarks, StoreError},
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

/// Who hears of a mark.
#[derive(Debug)]
pub(super) enum Told {
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

impl Arrival {
    pub(super) fn user(&self) -> &Name {
        match self {
            Self::Join(join) => &join.device.user,
            Self::Mark(mark) => &mark.device.user,
            Self::Ask(ask) => &ask.user,
        }
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
        if let Some(Waiter::Arrival(arrival)) = self.wait_for_gone(Waiter::Arrival(arrival)) {
            self.let_in(arrival);
        }
    }

    pub(super) fn let_in(&mut self, arrival: Arrival) {
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
        let tail = self.within_tail(Mark { seq: Seq::MAX, count: 0 });
        let within = |mark: Mark| self.within_tail(mark);
        // A record of his own may be on its way.
        let sent = if marks.sent.seq > self.given { tail } else { marks.sent };
        Marks { read: within(marks.read), delivered: within(marks.delivered), sent, since: within(marks.since) }
    }

    pub(super) fn within_tail(&self, mark: Mark) -> Mark {
        let tail = Mark { seq: self.extent.tail, count: self.committed_count };
        if mark.seq > tail.seq { tail } else { mark }
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
        stored.max(self.people.added(user)).max(self.met(user))
    }

    /// The place before a stranger came to a room that hides its past.
    fn met(&self, user: &Name) -> Mark {
        if !self.people.hides_past {
            return Mark::default();
        }
        let devices = self.users.attached(user).iter().map(|tag| DeviceKey { user: user.clone(), tag: *tag });
        let known = devices.filter_map(|device| self.devices.get(&device));
        let met = known.filter_map(|device| match device.rights {
            Some(rights) => rights.role.is_none().then(|| rights.met()),
            // As far as its relay knows.
            None => device.met.filter(|_| !device.was_member),
        });
        let met = met.min();
        self.within_tail(met.unwrap_or_default())
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

    pub(super) fn tell(&mut self, user: &Name, told: Told) {
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
    pub(super) fn tell_others(&mut self, user: &Name, told: &Told) {
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

    pub(super) fn save_soon(&mut self) {
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
