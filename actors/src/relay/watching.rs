//! Who of an arbiter's sessions is told of which users, and what each of them was not told yet.
//!
//! In: [`on_watch`](Watching::on_watch), [`on_seen`](Watching::on_seen) for every look at a user, and the ends. Out:
//! [`due`](Watching::due), then [`take`](Watching::take) for each.
//!
//! What a watcher is told is what the user is at that moment, so that the newest state wins and nothing is queued: kept
//! are the names of users that changed since, and a digest of what the watcher knows of each. What is again as it was is
//! not told.

use std::collections::{HashMap, HashSet, VecDeque};

use foldhash::fast::RandomState;
use parlor_protocol::Name;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::message::Conn;

/// The watchers of one arbiter. Times are on the monotonic clock.
#[derive(Debug)]
pub struct Watching {
    window_ms: u64,
    users: HashMap<Name, Watched, RandomState>,
    watchers: FxHashMap<Conn, Watcher>,
    /// Those who have to be told something, by when.
    queue: VecDeque<(u64, Conn)>,
    /// Those whose time has come and whose connection has much waiting.
    slow: Vec<Conn>,
}

/// A user who is watched.
#[derive(Debug)]
struct Watched {
    /// What was seen of him last.
    digest: u64,
    /// When that became so.
    since: u64,
    watchers: FxHashSet<Conn>,
}

#[derive(Debug)]
struct Watcher {
    /// Whose session.
    user: Name,
    users: HashSet<Name, RandomState>,
    /// Users that changed, each with what the watcher knows of him.
    untold: HashMap<Name, u64, RandomState>,
}

/// What is seen of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// A digest of his status.
    pub digest: u64,
    /// Whether he is online.
    pub online: bool,
}

impl Watching {
    /// Nobody watches. Each watcher is told at most once in `window_ms`.
    #[must_use]
    pub fn new(window_ms: u64) -> Self {
        Self {
            window_ms,
            users: HashMap::default(),
            watchers: FxHashMap::default(),
            queue: VecDeque::new(),
            slow: Vec::new(),
        }
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.watchers.is_empty()
    }

    /// Whose session a watcher is.
    #[must_use]
    pub fn user(&self, conn: Conn) -> Option<&Name> {
        self.watchers.get(&conn).map(|watcher| &watcher.user)
    }

    /// How many users a session would watch, and how many of them it does not yet, were these added and those removed.
    #[must_use]
    pub fn would_watch(&self, conn: Conn, add: &[Name], remove: &[Name]) -> (usize, usize) {
        let known = self.watchers.get(&conn).map(|watcher| &watcher.users);
        let removed: HashSet<&Name> = remove.iter().collect();
        let removed_known = removed.iter().filter(|user| known.is_some_and(|known| known.contains(**user))).count();
        let stays = |user: &Name| known.is_some_and(|known| known.contains(user)) && !removed.contains(user);
        let new = add.iter().filter(|user| !stays(user)).collect::<HashSet<_>>().len();
        (known.map_or(0, HashSet::len) - removed_known + new, new)
    }

    /// A session of `by` watches a user from now on, and is told what was seen of him. True if it did not before.
    pub fn on_watch(&mut self, now: u64, conn: Conn, by: &Name, user: &Name, seen: Seen) -> bool {
        self.on_seen(now, user, seen);
        let fresh = Watched { digest: seen.digest, since: now, watchers: FxHashSet::default() };
        self.users.entry(user.clone()).or_insert(fresh).watchers.insert(conn);
        let watcher = self.watchers.entry(conn).or_insert_with(|| Watcher {
            user: by.clone(),
            users: HashSet::default(),
            untold: HashMap::default(),
        });
        watcher.untold.remove(user);
        watcher.users.insert(user.clone())
    }

    /// A session watches a user no more; `None` if it did not. True if nobody does.
    pub fn on_unwatch(&mut self, conn: Conn, user: &Name) -> Option<bool> {
        let watcher = self.watchers.get_mut(&conn)?;
        if !watcher.users.remove(user) {
            return None;
        }
        watcher.untold.remove(user);
        if watcher.users.is_empty() {
            self.watchers.remove(&conn);
        }
        Some(self.forget(conn, user))
    }

    /// A session's connection is gone: how many users it watched, and those of them whom nobody watches any more.
    pub fn on_gone(&mut self, conn: Conn) -> (usize, Vec<Name>) {
        let Some(watcher) = self.watchers.remove(&conn) else { return (0, Vec::new()) };
        let count = watcher.users.len();
        let last = watcher.users.into_iter().filter(|user| self.forget(conn, user));
        (count, last.collect())
    }

    fn forget(&mut self, conn: Conn, user: &Name) -> bool {
        let Some(watched) = self.users.get_mut(user) else { return false };
        watched.watchers.remove(&conn);
        let last = watched.watchers.is_empty();
        if last {
            self.users.remove(user);
        }
        last
    }

    /// Somebody looked at a user: who watches him is to be told if he is not as he was.
    pub fn on_seen(&mut self, now: u64, user: &Name, seen: Seen) {
        let Some(watched) = self.users.get_mut(user).filter(|watched| watched.digest != seen.digest) else { return };
        let before = std::mem::replace(&mut watched.digest, seen.digest);
        watched.since = now;
        for conn in &watched.watchers {
            let Some(watcher) = self.watchers.get_mut(conn) else { continue };
            if watcher.untold.is_empty() {
                self.queue.push_back((now + self.window_ms, *conn));
            }
            watcher.untold.entry(user.clone()).or_insert(before);
        }
    }

    /// The watchers that are to be told something now, and whose connections take it. For the others it waits.
    pub fn due(&mut self, now: u64, takes: impl Fn(Conn) -> bool) -> Vec<Conn> {
        let mut due = std::mem::take(&mut self.slow);
        while let Some((_, conn)) = self.queue.pop_front_if(|(at, _)| *at <= now) {
            due.push(conn);
        }
        let is_there = |conn: &Conn| self.watchers.get(conn).is_some_and(|watcher| !watcher.untold.is_empty());
        due.retain(is_there);
        let (ready, slow) = due.into_iter().partition(|conn| takes(*conn));
        self.slow = slow;
        ready
    }

    /// The users that a watcher is to be told of now. `look` says what can be seen of each, which he is told.
    ///
    /// Somebody who went offline just now may be back at once: that is told later, if it is still so.
    pub fn take(&mut self, now: u64, conn: Conn, mut look: impl FnMut(&Name) -> Seen) -> Vec<Name> {
        let Some(watcher) = self.watchers.get_mut(&conn) else { return Vec::new() };
        let untold = std::mem::take(&mut watcher.untold);
        let (mut told, mut later) = (Vec::new(), HashMap::default());
        for (user, known) in untold {
            let seen = look(&user);
            self.on_seen(now, &user, seen);
            let since = self.users.get(&user).map_or(now, |watched| watched.since);
            if seen.digest == known {
                continue;
            }
            if !seen.online && now < since + self.window_ms {
                later.insert(user, known);
            } else {
                told.push(user);
            }
        }
        // What was seen just now would be told twice.
        let queued = self.watchers.get(&conn).is_some_and(|watcher| !watcher.untold.is_empty());
        if let Some(watcher) = self.watchers.get_mut(&conn) {
            if !later.is_empty() && !queued {
                self.queue.push_back((now + self.window_ms, conn));
            }
            watcher.untold = later;
        }
        told
    }
}

#[cfg(test)]
mod tests;
