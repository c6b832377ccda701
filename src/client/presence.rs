//! Who is online, and who is in a room: asked once, or watched.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use parlor_protocol::{
    Name, NameError, UnixMillis,
    message::{self, DeviceClass, Network},
};
use tokio::sync::Notify;

use super::{
    Client, Handle, Membership, Room, directory::names, error::RequestError, question::Question, shared::lock,
};

/// What others see of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPresence {
    /// Who.
    pub user: Name,
    /// Whether he has a session. Who may not be seen looks offline.
    pub online: bool,
    /// Since when he has had one without a break, in Unix milliseconds; 0 if he is offline.
    pub since: UnixMillis,
    /// The devices of his newest sessions, 6 at most.
    pub devices: Vec<DevicePresence>,
}

/// A device on which a user has a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePresence {
    /// Its name.
    pub device: Name,
    /// What kind of device.
    pub device_class: DeviceClass,
    /// What it is connected through.
    pub network: Network,
    /// Whether it has a connection. Without one the session may come back until its lease ends.
    pub connected: bool,
}

/// Who is in a room: all of it, or what changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomPresence {
    /// Whether this is all of it: then forget what you knew.
    pub all: bool,
    /// Whether users are named. In a room of more than 1,000 they are counted only.
    pub named: bool,
    /// How many users are there now, those included who may not be seen.
    pub count: u32,
    /// Who is there, or has come.
    pub came: Vec<Name>,
    /// Who has gone.
    pub went: Vec<Name>,
}

impl Client {
    /// Who of these users is online now, in their order; at most 1,000. While disconnected it waits.
    ///
    /// # Errors
    /// [`Code::Unsupported`](parlor_protocol::Code::Unsupported) if the server tells no presence; otherwise see
    /// [`RequestError`].
    pub async fn presence(&self, users: &[&str]) -> Result<Vec<UserPresence>, RequestError> {
        self.handle.ask(None, Question::Presence { users: names(users)? }).await
    }

    /// Watches these users, too: as they are now, in their order. What changes later comes from
    /// [`watched`](Self::watched), also across reconnects. At most 1,000 at once, and as many in all unless the host allows
    /// more.
    ///
    /// # Errors
    /// As [`presence`](Self::presence). If it is refused, nothing is changed.
    pub async fn watch_users(&self, users: &[&str]) -> Result<Vec<UserPresence>, RequestError> {
        self.handle.ask(None, Question::WatchUsers { add: names(users)?, remove: Vec::new() }).await
    }

    /// Watches these users no more.
    ///
    /// # Errors
    /// As [`presence`](Self::presence).
    pub async fn unwatch_users(&self, users: &[&str]) -> Result<(), RequestError> {
        let question = Question::WatchUsers { add: Vec::new(), remove: names(users)? };
        self.handle.ask(None, question).await.map(|_: Vec<UserPresence>| ())
    }

    /// The changes of users that are [watched](Self::watch_users). Several callers share them: each change comes to one of
    /// them.
    #[must_use]
    pub fn watched(&self) -> WatchedUsers {
        WatchedUsers { handle: self.handle.clone() }
    }
}

impl Room {
    /// Watches who is in the room: all who are there now. That, and what changes later, is
    /// [`Event::Presence`](super::Event::Presence) among the room's events, also across reconnects. While disconnected it
    /// waits.
    ///
    /// # Errors
    /// If the server refuses or tells no presence, the room was left or the client is closed.
    pub async fn watch_presence(&self) -> Result<RoomPresence, RequestError> {
        let Membership { handle, key } = &*self.inner.membership;
        handle.ask(Some(*key), Question::WatchRoom).await
    }

    /// Watches it no more.
    ///
    /// # Errors
    /// As [`watch_presence`](Self::watch_presence).
    pub async fn unwatch_presence(&self) -> Result<(), RequestError> {
        let Membership { handle, key } = &*self.inner.membership;
        handle.ask(Some(*key), Question::UnwatchRoom).await
    }
}

/// The changes of [`Client::watched`].
pub struct WatchedUsers {
    handle: Arc<Handle>,
}

impl WatchedUsers {
    /// The next user who changed, as he is now; `None` once the client is closed. Who takes them slowly gets the newest of
    /// each. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<UserPresence> {
        self.handle.shared.watched.next().await
    }
}

/// Users who changed, on their way to the application: each once, and no more than are watched.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    users: VecDeque<UserPresence>,
    ended: bool,
}

impl Queue {
    pub(super) fn push(&self, user: UserPresence) {
        {
            let mut waiting = lock(&self.inner);
            match waiting.users.iter_mut().find(|other| other.user == user.user) {
                Some(older) => *older = user,
                None => waiting.users.push_back(user),
            }
        }
        self.changed.notify_one();
    }

    /// What waits of these users is of before.
    pub(super) fn forget(&self, users: &[Name]) {
        lock(&self.inner).users.retain(|waiting| !users.contains(&waiting.user));
    }

    /// Nothing follows.
    pub(super) fn end(&self) {
        lock(&self.inner).ended = true;
        self.changed.notify_waiters();
    }

    async fn next(&self) -> Option<UserPresence> {
        loop {
            // Asked for before looking, so that no change is missed between the two.
            let changed = self.changed.notified();
            {
                let mut waiting = lock(&self.inner);
                match waiting.users.pop_front() {
                    Some(user) => return Some(user),
                    None if waiting.ended => return None,
                    None => {}
                }
            }
            changed.await;
        }
    }
}

impl UserPresence {
    pub(super) fn of(user: &message::UserPresence<'_>) -> Result<Self, NameError> {
        let device = |it: &message::DevicePresence<'_>| {
            let message::DevicePresence { device, device_class, network, connected } = *it;
            Ok(DevicePresence { device: Name::parse(device)?, device_class, network, connected })
        };
        let devices = user.devices.0.iter().map(device).collect::<Result<_, NameError>>()?;
        Ok(Self { user: Name::parse(user.user)?, online: user.online, since: user.since, devices })
    }

    pub(super) fn all_of(presence: &message::Presence<'_>) -> Result<Vec<Self>, NameError> {
        presence.users.0.iter().map(Self::of).collect()
    }
}

impl RoomPresence {
    pub(super) fn of(presence: &message::RoomPresence<'_>) -> Result<Self, NameError> {
        let names = |names: &[&str]| names.iter().map(|name| Name::parse(name)).collect::<Result<Vec<_>, _>>();
        let &message::RoomPresence { all, named, count, .. } = presence;
        Ok(Self { all, named, count, came: names(&presence.came.0)?, went: names(&presence.went.0)? })
    }

    /// Takes in what came after it, so that both are one change. Who came and went again, or the other way round, is left
    /// out.
    pub(super) fn merge(&mut self, newer: Self) {
        if newer.all {
            *self = newer;
            return;
        }
        (self.named, self.count) = (newer.named, newer.count);
        for user in newer.came {
            if !take(&mut self.went, &user) && !self.came.contains(&user) {
                self.came.push(user);
            }
        }
        for user in newer.went {
            if !take(&mut self.came, &user) && !self.all {
                self.went.push(user);
            }
        }
    }
}

fn take(users: &mut Vec<Name>, user: &Name) -> bool {
    users.iter().position(|other| other == user).map(|at| users.swap_remove(at)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(all: bool, count: u32, came: &[&str], went: &[&str]) -> RoomPresence {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        RoomPresence { all, named: true, count, came: names(came), went: names(went) }
    }

    #[test]
    fn changes_that_nobody_took_are_one() {
        let check = |mut older: RoomPresence, newer: RoomPresence, want: RoomPresence| {
            older.merge(newer);
            assert_eq!(older, want);
        };
        let (ann, bob): (&[&str], &[&str]) = (&["ann"], &["bob"]);
        check(change(false, 2, ann, &[]), change(false, 3, bob, &[]), change(false, 3, &["ann", "bob"], &[]));
        check(change(false, 2, ann, bob), change(false, 2, bob, ann), change(false, 2, &[], &[]));
        check(change(true, 2, &["ann", "bob"], &[]), change(false, 1, &[], ann), change(true, 1, bob, &[]));
        check(change(true, 1, ann, &[]), change(false, 1, &[], &["eve"]), change(true, 1, ann, &[]));
        check(change(false, 2, ann, &[]), change(true, 1, bob, &[]), change(true, 1, bob, &[]));
    }

    #[tokio::test]
    async fn of_a_user_only_the_newest_waits() {
        let queue = Queue::default();
        let user = |name: &str, since| UserPresence {
            user: name.parse().unwrap(),
            online: since > 0,
            since,
            devices: Vec::new(),
        };
        for it in [user("ann", 1), user("bob", 2), user("ann", 0), user("eve", 3)] {
            queue.push(it);
        }
        queue.forget(&["bob".parse().unwrap()]);
        queue.end();
        assert_eq!(queue.next().await, Some(user("ann", 0)));
        assert_eq!(queue.next().await, Some(user("eve", 3)));
        assert_eq!(queue.next().await, None);
    }
}
