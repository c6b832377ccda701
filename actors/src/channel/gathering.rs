//! Who is in a room, as those who watch that were told, and what of it changed since. Kept while somebody watches.
//!
//! In: the methods that begin with `on_`, then [`leaving`](Gathering::leaving) and [`settle`](Gathering::settle) when the
//! time that [`wants_timer`](Gathering::wants_timer) asks for has come. Whether a user is here says who asks; nothing is
//! counted twice.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use foldhash::fast::RandomState;
use parlor_protocol::{DeviceTag, Name};

use crate::{message::Conn, port::DeviceKey};

/// What a channel is told about presence.
#[derive(Debug)]
pub enum Input {
    /// A session wants to be told.
    Watch {
        /// Its connection.
        conn: Conn,
        /// Its request.
        request: u32,
        /// Its device.
        device: DeviceKey,
    },
    /// An arbiter has sessions that have to be told all of it.
    Again {
        /// Which arbiter.
        arbiter: u16,
    },
    /// An arbiter has nobody who is told, if this is the newest number that it was given.
    Unwatch {
        /// Which arbiter.
        arbiter: u16,
        /// Which number.
        watch: u32,
    },
    /// The time that [`Effect::In`] named has come.
    Due,
    /// The answer to [`Effect::AskAway`]: the devices whose sessions may come back.
    Away(Vec<DeviceKey>),
    /// The host asks how many users are here.
    Count(HostCount),
}

/// What a channel wants done about presence.
#[derive(Debug)]
pub enum Effect {
    /// Give it [`Input::Due`] after so many milliseconds.
    In(u64),
    /// Find out which of these have a session without a connection, then say [`Input::Away`].
    AskAway(Vec<DeviceKey>),
    /// Tell an arbiter's sessions.
    Tell(Tell),
    /// Tell the host.
    Host(HostCount, usize),
}

/// What an arbiter's sessions are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tell {
    /// Which arbiter.
    pub arbiter: u16,
    /// The number of its newest question.
    pub watch: u32,
    /// Whom there.
    pub to: To,
    /// What.
    pub told: Arc<Told>,
}

/// Which of an arbiter's sessions are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The one that asked, with this request.
    Asker(Conn, u32),
    /// All that asked.
    Everybody,
    /// Those that could not be told all changes.
    PassedOver,
}

/// Who is in a room, or what changed of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether it is all of it.
    pub all: bool,
    /// Whether users are named.
    pub named: bool,
    /// How many users are there.
    pub count: u32,
    /// Who is there, or has come.
    pub came: Vec<Name>,
    /// Who has gone.
    pub went: Vec<Name>,
}

/// Where the host waits for the number of users in a room.
pub struct HostCount(Box<dyn FnOnce(usize) + Send>);

impl HostCount {
    /// Calls this, once.
    pub fn new(reply: impl FnOnce(usize) + Send + 'static) -> Self {
        Self(Box::new(reply))
    }

    /// Answers.
    pub fn give(self, count: usize) {
        (self.0)(count);
    }
}

impl fmt::Debug for HostCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostCount")
    }
}

/// Who is in a room, as was told.
#[derive(Debug)]
pub struct Gathering {
    window_ms: u64,
    named_max: usize,
    named: bool,
    /// How many users there were when that was told last.
    count: usize,
    /// The users, as was told.
    present: HashSet<Name, RandomState>,
    /// Those of whom that may not be so any more.
    changed: HashSet<Name, RandomState>,
    /// Devices that are gone, by their users, each with since when they cannot come back.
    gone: HashMap<Name, Vec<(DeviceTag, u64)>, RandomState>,
    arbiters: Vec<Arbiter>,
    watches: u32,
    timed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Arbiter {
    /// The number of its newest question, if somebody there is told.
    watch: Option<u32>,
    /// Some there have to be told all of it.
    again: bool,
}

impl Gathering {
    /// These users are in a room with so many members. Changes are gathered for `window_ms`.
    #[must_use]
    pub fn new(
        arbiters: usize,
        window_ms: u64,
        named_max: u32,
        members: u64,
        present: HashSet<Name, RandomState>,
    ) -> Self {
        let named_max = named_max as usize;
        let named = present.len() <= named_max && members <= named_max as u64;
        Self {
            window_ms,
            named_max,
            named,
            count: present.len(),
            present,
            changed: HashSet::default(),
            gone: HashMap::default(),
            arbiters: vec![Arbiter::default(); arbiters],
            watches: 0,
            timed: false,
        }
    }

    /// How many users are here, as was told.
    #[must_use]
    pub fn count(&self) -> usize {
        self.present.len()
    }

    /// Whether nobody is told any more.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.arbiters.iter().all(|arbiter| arbiter.watch.is_none())
    }

    /// A session asks: what it is told.
    pub fn on_watch(&mut self, conn: Conn, request: u32) -> Option<Tell> {
        let watch = self.number(conn.arbiter)?;
        Some(Tell { arbiter: conn.arbiter, watch, to: To::Asker(conn, request), told: Arc::new(self.all()) })
    }

    /// An arbiter asks for those that could not be told; they are told when the time has come.
    pub fn on_again(&mut self, arbiter: u16) {
        if self.number(arbiter).is_some() {
            self.arbiters[usize::from(arbiter)].again = true;
        }
    }

    fn number(&mut self, arbiter: u16) -> Option<u32> {
        self.watches = self.watches.wrapping_add(1);
        let known = self.arbiters.get_mut(usize::from(arbiter))?;
        known.watch = Some(self.watches);
        known.watch
    }

    /// Nobody on an arbiter is told any more; with a number, if that is its newest.
    pub fn on_unwatch(&mut self, arbiter: u16, watch: Option<u32>) {
        if let Some(known) = self.arbiters.get_mut(usize::from(arbiter))
            && (watch.is_none() || known.watch == watch)
        {
            *known = Arbiter::default();
        }
    }

    /// A user may have come or gone.
    pub fn on_changed(&mut self, user: &Name) {
        self.changed.insert(user.clone());
    }

    /// A device of a user is gone; its session may come back.
    pub fn on_detached(&mut self, now: u64, device: &DeviceKey) {
        self.on_changed(&device.user);
        let devices = self.gone.entry(device.user.clone()).or_default();
        match devices.iter_mut().find(|(tag, _)| *tag == device.tag) {
            Some((_, since)) => *since = now,
            None => devices.push((device.tag, now)),
        }
    }

    /// How long to wait for the next [`settle`](Self::settle), if there is something to do and nobody waits yet.
    pub fn wants_timer(&mut self) -> Option<u64> {
        let wants = self.is_idle() || !self.changed.is_empty() || self.arbiters.iter().any(|arbiter| arbiter.again);
        (wants && !std::mem::replace(&mut self.timed, true)).then_some(self.window_ms)
    }

    /// The devices of users who seem to have gone: whether their sessions may come back has to be found out.
    #[must_use]
    pub fn leaving(&self, is_here: impl Fn(&Name) -> bool) -> Vec<DeviceKey> {
        let left = self.changed.iter().filter(|user| self.present.contains(*user) && !is_here(user));
        let devices = left.filter_map(|user| Some((user, self.gone.get(user)?)));
        let key = |user: &Name, tag: DeviceTag| DeviceKey { user: user.clone(), tag };
        devices.flat_map(|(user, devices)| devices.iter().map(move |(tag, _)| key(user, *tag))).collect()
    }

    /// The time has come: what is told. The sessions of `away` may come back. Whoever could come back until a window ago
    /// has still time to join again.
    pub fn settle(&mut self, now: u64, away: &[DeviceKey], is_here: impl Fn(&Name) -> bool, members: u64) -> Vec<Tell> {
        self.timed = false;
        for device in away {
            // It may have a connection just after this, and join again just before the end of the next window.
            self.on_detached(now + self.window_ms, device);
        }
        let (mut came, mut went) = (Vec::new(), Vec::new());
        for user in std::mem::take(&mut self.changed) {
            if is_here(&user) {
                self.gone.remove(&user);
                if self.present.insert(user.clone()) {
                    came.push(user);
                }
            } else if self.present.contains(&user) && self.may_come_back(now, &user) {
                self.changed.insert(user);
            } else {
                self.gone.remove(&user);
                if self.present.remove(&user) {
                    went.push(user);
                }
            }
        }
        let count_before = std::mem::replace(&mut self.count, self.present.len());
        let named = self.names(members);
        let named_before = std::mem::replace(&mut self.named, named);
        let all = Arc::new(self.all());
        let told = match (named_before, self.named) {
            (true, true) if came.is_empty() && went.is_empty() => None,
            (true, true) => Some(Arc::new(Told { all: false, came, went, ..self.counted() })),
            (false, false) if self.count == count_before => None,
            _ => Some(all.clone()),
        };
        let mut out = Vec::new();
        for (arbiter, known) in (0..).zip(&mut self.arbiters) {
            let Some(watch) = known.watch else { continue };
            out.extend(told.clone().map(|told| Tell { arbiter, watch, to: To::Everybody, told }));
            if std::mem::take(&mut known.again) {
                out.push(Tell { arbiter, watch, to: To::PassedOver, told: all.clone() });
            }
        }
        out
    }

    fn may_come_back(&mut self, now: u64, user: &Name) -> bool {
        let window = self.window_ms;
        let Some(devices) = self.gone.get_mut(user) else { return false };
        devices.retain(|(_, since)| now < since + window);
        !devices.is_empty()
    }

    /// Whether users are named: not in a large room, nor in one that was large and has not shrunk by a quarter.
    fn names(&self, members: u64) -> bool {
        let max = if self.named { self.named_max } else { self.named_max - self.named_max / 4 };
        self.present.len() <= max && members <= self.named_max as u64
    }

    fn counted(&self) -> Told {
        let count = u32::try_from(self.present.len()).unwrap_or(u32::MAX);
        Told { all: true, named: self.named, count, came: Vec::new(), went: Vec::new() }
    }

    fn all(&self) -> Told {
        let came = if self.named { self.present.iter().cloned().collect() } else { Vec::new() };
        Told { came, ..self.counted() }
    }
}

#[cfg(test)]
mod tests;
