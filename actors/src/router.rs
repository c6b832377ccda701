//! Who is online, on which devices, since when.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use parking_lot::RwLock;
use parlor_protocol::{
    DeviceTag, Name, UnixMillis,
    message::{DeviceClass, Network},
};

use crate::message::Conn;

const SHARDS: usize = 16;

/// One session, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The session's device.
    pub device: Name,
    /// The device's tag.
    pub device_tag: DeviceTag,
    /// What kind of device.
    pub device_class: DeviceClass,
    /// What it is connected through.
    pub network: Network,
    /// Since when.
    pub since: UnixMillis,
    /// Its connection, or the last one that it had.
    pub conn: Conn,
    /// Whether that stands. Where it broke, the session may come back until its lease ends.
    pub connected: bool,
}

/// The router map: the supervisor writes it, anybody reads it, from any thread, without waiting for an actor.
#[derive(Debug, Default)]
pub struct Router {
    hasher: RandomState,
    shards: [RwLock<HashMap<Name, Vec<Presence>>>; SHARDS],
}

impl Router {
    /// The sessions of a user; none if he is offline.
    #[must_use]
    pub fn sessions(&self, user: &str) -> Vec<Presence> {
        self.shard(user).read().get(user).cloned().unwrap_or_default()
    }

    /// The connections of a user's sessions.
    #[must_use]
    pub fn conns(&self, user: &str) -> Vec<Conn> {
        let shard = self.shard(user).read();
        let sessions = shard.get(user).map_or(&[][..], Vec::as_slice);
        sessions.iter().filter(|presence| presence.connected).map(|presence| presence.conn).collect()
    }

    /// How many users are online.
    #[must_use]
    pub fn users_online(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// A session began.
    pub(crate) fn insert(&self, user: Name, presence: Presence) {
        let mut shard = self.shard(&user).write();
        // Most users have one.
        shard.entry(user).or_insert_with(|| Vec::with_capacity(1)).push(presence);
    }

    /// A session goes on over another connection than `before`.
    pub(crate) fn replace(&self, user: &Name, before: Conn, presence: Presence) {
        self.change(user, before, |known| *known = presence);
    }

    /// A session's connection broke.
    pub(crate) fn rest(&self, user: &Name, conn: Conn) {
        self.change(user, conn, |known| known.connected = false);
    }

    fn change(&self, user: &Name, conn: Conn, change: impl FnOnce(&mut Presence)) {
        let mut shard = self.shard(user).write();
        let mut sessions = shard.get_mut(user).into_iter().flatten();
        if let Some(known) = sessions.find(|presence| presence.conn == conn) {
            change(known);
        }
    }

    /// A session ended.
    pub(crate) fn remove(&self, user: &Name, conn: Conn) {
        let mut shard = self.shard(user).write();
        if let Some(sessions) = shard.get_mut(user) {
            sessions.retain(|presence| presence.conn != conn);
            if sessions.is_empty() {
                shard.remove(user);
            }
        }
    }

    fn shard(&self, user: &str) -> &RwLock<HashMap<Name, Vec<Presence>>> {
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash do")]
        &self.shards[self.hasher.hash_one(user) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_online_while_one_of_his_sessions_is() {
        let router = Router::default();
        let ann: Name = "ann".parse().unwrap();
        let session = |serial| Presence {
            device: "phone".parse().unwrap(),
            device_tag: DeviceTag(1),
            device_class: DeviceClass::Mobile,
            network: Network::Wifi,
            since: 5,
            conn: Conn { arbiter: 0, slot: 0, serial },
            connected: true,
        };
        router.insert(ann.clone(), session(1));
        router.insert(ann.clone(), session(2));
        assert_eq!((router.sessions("ann").len(), router.users_online()), (2, 1));
        router.remove(&ann, session(1).conn);
        assert_eq!(router.sessions("ann"), [session(2)]);
        router.rest(&ann, session(2).conn);
        assert_eq!((router.conns("ann").len(), router.users_online()), (0, 1), "it may come back");
        router.replace(&ann, session(2).conn, session(3));
        assert_eq!(router.conns("ann"), [session(3).conn]);
        router.replace(&ann, session(3).conn, session(2));
        router.remove(&ann, session(2).conn);
        assert_eq!((router.sessions("ann").len(), router.users_online()), (0, 0));
    }
}
