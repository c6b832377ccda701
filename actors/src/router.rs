//! Who is online, on which devices, since when, and who has to be told when that changes.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::RwLock;
use parlor_protocol::{DeviceTag, Name, UnixMillis};
use tokio::sync::broadcast;

use crate::{limits::Limits, message::Conn};

mod entry;
mod status;

pub use entry::{BEATS_KEPT, Entry, Presence};
pub use status::{DeviceStatus, MaySee, Status};

const SHARDS: usize = 16;

/// The map of who is online. The supervisor puts sessions in and takes them out, each session writes its own [`Entry`],
/// anybody reads, from any thread: nobody waits for an actor.
#[derive(Debug)]
pub struct Router {
    hasher: RandomState,
    shards: [RwLock<Shard>; SHARDS],
    /// How many users are watched, over all sessions.
    watches: AtomicUsize,
    may_see: Option<MaySee>,
    changes: broadcast::Sender<PresenceChange>,
}

#[derive(Debug, Default)]
struct Shard {
    users: HashMap<Name, User>,
    /// On which arbiters somebody watches a user, one bit for each.
    watched: HashMap<Name, u64>,
}

/// A user who is online.
#[derive(Debug)]
struct User {
    /// Since when, without a break.
    since: UnixMillis,
    /// In the order in which they began. Most users have one.
    sessions: Vec<Arc<Entry>>,
}

/// A session of a user began or ended, its connection broke or came back, or its network changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceChange {
    /// Whose.
    pub user: Name,
    /// How many sessions he has now, those included whose connection broke; 0 if he is offline.
    pub sessions: usize,
}

/// Arbiters, one bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arbiters(u64);

impl Arbiters {
    /// Their numbers, the lowest first.
    pub fn numbers(self) -> impl Iterator<Item = u16> {
        (0..64).filter(move |number| self.0 >> number & 1 == 1)
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new(&Limits::default(), None)
    }
}

impl Router {
    /// Nobody is online. `may_see` says who may see whom; without it all see all.
    #[must_use]
    pub fn new(limits: &Limits, may_see: Option<MaySee>) -> Self {
        let (changes, _) = broadcast::channel(limits.presence_changes_waiting_max.max(1));
        Self {
            hasher: RandomState::default(),
            shards: Default::default(),
            watches: AtomicUsize::default(),
            may_see,
            changes,
        }
    }

    /// The sessions of a user; none if he is offline.
    #[must_use]
    pub fn sessions(&self, user: &str) -> Vec<Presence> {
        let shard = self.shard(user).read();
        shard.sessions(user).iter().map(|entry| Presence::from(&**entry)).collect()
    }

    /// The connections of a user's sessions.
    #[must_use]
    pub fn conns(&self, user: &str) -> Vec<Conn> {
        let shard = self.shard(user).read();
        shard.sessions(user).iter().filter(|entry| entry.is_connected()).map(|entry| entry.conn()).collect()
    }

    /// A user as others see him.
    #[must_use]
    pub fn status(&self, user: &str) -> Status {
        let shard = self.shard(user).read();
        shard.users.get(user).map_or_else(Status::default, |user| Status::of(user.since, &user.sessions))
    }

    /// Whether `asker` may see `asked`, as the host says.
    #[must_use]
    pub fn may_see(&self, asker: &str, asked: &str) -> bool {
        self.may_see.as_ref().is_none_or(|may_see| may_see.allows(asker, asked))
    }

    /// Whether all may see all.
    #[must_use]
    pub fn hides_nobody(&self) -> bool {
        self.may_see.is_none()
    }

    /// Whether a session of this device is there without a connection, so that it may come back.
    #[must_use]
    pub fn is_away(&self, user: &str, device: DeviceTag) -> bool {
        let shard = self.shard(user).read();
        shard.sessions(user).iter().any(|entry| entry.device_tag() == device && !entry.is_connected())
    }

    /// How many users are online.
    #[must_use]
    pub fn users_online(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().users.len()).sum()
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions_online(&self) -> usize {
        let in_shard =
            |shard: &RwLock<Shard>| shard.read().users.values().map(|user| user.sessions.len()).sum::<usize>();
        self.shards.iter().map(in_shard).sum()
    }

    /// A hash of a user's status, to find out whether it changed.
    #[must_use]
    pub fn digest(&self, status: &Status) -> u64 {
        self.hasher.hash_one(status)
    }

    /// Hears of every change from now on. Who does not keep up is told how many he missed.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<PresenceChange> {
        self.changes.subscribe()
    }

    /// Somebody on this arbiter watches a user: who changes him tells that arbiter from now on.
    pub fn watch(&self, user: &Name, arbiter: u16) {
        *self.shard(user).write().watched.entry(user.clone()).or_default() |= bit(arbiter);
    }

    /// Nobody on this arbiter watches a user any more.
    pub fn unwatch(&self, user: &str, arbiter: u16) {
        let mut shard = self.shard(user).write();
        if let Some(watched) = shard.watched.get_mut(user) {
            *watched &= !bit(arbiter);
            if *watched == 0 {
                shard.watched.remove(user);
            }
        }
    }

    /// Makes room for so many watched users of one session, over all sessions at most `max`; false if there is none.
    #[must_use]
    pub fn take_watches(&self, count: usize, max: usize) -> bool {
        let take = |taken: usize| taken.checked_add(count).filter(|sum| *sum <= max);
        self.watches.fetch_update(Relaxed, Relaxed, take).is_ok()
    }

    /// Gives room back that was taken for watched users.
    pub fn give_watches(&self, count: usize) {
        self.watches.fetch_sub(count, Relaxed);
    }

    /// How many users are watched, over all sessions.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.watches.load(Relaxed)
    }

    /// Something about a user changed: the arbiters that have to be told. The host is told here.
    pub(crate) fn changed(&self, user: &Name) -> Arbiters {
        let (watched, sessions) = {
            let shard = self.shard(user).read();
            (shard.watched.get(user).copied().unwrap_or_default(), shard.sessions(user).len())
        };
        if self.changes.receiver_count() > 0 {
            // Nobody hears it if the last one has just stopped listening.
            let _ = self.changes.send(PresenceChange { user: user.clone(), sessions });
        }
        Arbiters(watched)
    }

    /// A session began.
    pub(crate) fn insert(&self, user: &Name, entry: Arc<Entry>) {
        let mut shard = self.shard(user).write();
        let since = entry.since();
        let known = shard.users.entry(user.clone());
        known.or_insert_with(|| User { since, sessions: Vec::with_capacity(1) }).sessions.push(entry);
    }

    /// A session goes on over another connection than `before`.
    pub(crate) fn replace(&self, user: &str, before: Conn, entry: Arc<Entry>) {
        self.change(user, before, |known| {
            entry.follow(known);
            *known = entry;
        });
    }

    /// A session's connection broke.
    pub(crate) fn rest(&self, user: &str, conn: Conn) {
        self.change(user, conn, |known| known.connect(false));
    }

    fn change(&self, user: &str, conn: Conn, change: impl FnOnce(&mut Arc<Entry>)) {
        let mut shard = self.shard(user).write();
        let mut sessions = shard.users.get_mut(user).into_iter().flat_map(|user| &mut user.sessions);
        if let Some(known) = sessions.find(|entry| entry.conn() == conn) {
            change(known);
        }
    }

    /// A session ended.
    pub(crate) fn remove(&self, user: &str, conn: Conn) {
        let mut shard = self.shard(user).write();
        if let Some(known) = shard.users.get_mut(user) {
            known.sessions.retain(|entry| entry.conn() != conn);
            if known.sessions.is_empty() {
                shard.users.remove(user);
            }
        }
    }

    fn shard(&self, user: &str) -> &RwLock<Shard> {
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash do")]
        &self.shards[self.hasher.hash_one(user) as usize % SHARDS]
    }
}

impl Shard {
    fn sessions(&self, user: &str) -> &[Arc<Entry>] {
        self.users.get(user).map_or(&[], |user| &user.sessions)
    }
}

fn bit(arbiter: u16) -> u64 {
    // An engine has at most 64 arbiters.
    1_u64.checked_shl(arbiter.into()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
