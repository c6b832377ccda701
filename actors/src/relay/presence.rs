//! The arbiter's part of presence: what its sessions ask, and what they are told. Decides nothing: [`watching`] and
//! [`onlookers`] do.
//!
//! [`watching`]: super::watching
//! [`onlookers`]: super::onlookers

use std::cell::RefCell;

use actix::Addr;
use bytes::Bytes;
use parlor_protocol::{
    Code, Extensions, List, Name, RoomNumber,
    message::{Done, Error, Presence, RoomPresence, UserPresence},
    to_bytes,
};

use super::{
    Local, Relay, ToRelay,
    onlookers::Onlookers,
    watching::{Seen, Watching},
};
use crate::{
    channel::{
        gathering::{self, To, Told},
        state::Input,
    },
    limits::Limits,
    message::Conn,
    router::{Router, Status},
    session::state::Asked,
};

/// Clients are asked to wait this long when too many users are watched.
const BUSY_RETRY_MS: u32 = 10_000;

/// Who of an arbiter's sessions is told what of presence.
pub(super) struct Watchers {
    users: RefCell<Watching>,
    rooms: RefCell<Onlookers>,
}

impl Watchers {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { users: RefCell::new(Watching::new(limits.presence_window_ms)), rooms: RefCell::default() }
    }
}

/// Tells whoever watches a user that something about him changed.
pub(crate) fn tell(router: &Router, relays: &[Addr<Relay>], user: &Name) {
    for arbiter in router.changed(user).numbers() {
        if let Some(relay) = relays.get(usize::from(arbiter)) {
            relay.do_send(ToRelay::Presence(user.clone()));
        }
    }
}

impl Local {
    /// A session's client asks about presence. `by` is its user.
    pub(crate) fn ask_presence(&self, conn: Conn, by: &Name, request: u32, asked: Asked) {
        match asked {
            Asked::Query(users) => {
                let seen: Vec<Status> = users.iter().map(|user| self.seen_by(by, user)).collect();
                self.tell_users(conn, request, &users, &seen);
            }
            Asked::Watch { add, remove } => {
                if let Err((code, retry_after_ms, message)) = self.watch_users(conn, by, request, add, &remove) {
                    let extensions = Extensions::default();
                    self.send(conn, request, &Error { code, retry_after_ms, message: &message, extensions });
                }
            }
            Asked::LeaveRoom(room) => {
                self.unwatch_room(conn, room);
                self.send(conn, request, &Done::default());
            }
        }
    }

    fn watch_users(
        &self,
        conn: Conn,
        by: &Name,
        request: u32,
        add: Vec<Name>,
        remove: &[Name],
    ) -> Result<(), (Code, u32, String)> {
        let (router, limits) = (&self.shared().router, &self.shared().limits);
        let visible: Vec<Name> = add.iter().filter(|user| router.may_see(by, user)).cloned().collect();
        let (all, new) = self.0.watchers.users.borrow().would_watch(conn, &visible, remove);
        let max = limits.presence_users_per_session_max;
        if all > max {
            let message = format!("a session may watch {max} users, these would be {all}: remove some first");
            return Err((Code::TooManyWatched, 0, message));
        }
        if !router.take_watches(new, limits.presence_watches_max) {
            return Err((Code::Busy, BUSY_RETRY_MS, "too many users are watched, over all sessions: try later".into()));
        }
        remove.iter().for_each(|user| self.unwatch_user(conn, user));
        let (now, arbiter) = (self.shared().clock.now().mono_ms, self.0.state.borrow().arbiter());
        let mut counted = 0;
        for user in &visible {
            // First, so that no change goes unheard between the look and this.
            router.watch(user, arbiter);
            let seen = seen(router, &router.status(user));
            counted += usize::from(self.0.watchers.users.borrow_mut().on_watch(now, conn, by, user, seen));
        }
        debug_assert_eq!(counted, new, "as many as there was made room for");
        let seen: Vec<Status> = add.iter().map(|user| self.seen_by(by, user)).collect();
        self.tell_users(conn, request, &add, &seen);
        Ok(())
    }

    fn unwatch_user(&self, conn: Conn, user: &Name) {
        let (router, arbiter) = (&self.shared().router, self.0.state.borrow().arbiter());
        if let Some(last) = self.0.watchers.users.borrow_mut().on_unwatch(conn, user) {
            router.give_watches(1);
            if last {
                router.unwatch(user, arbiter);
            }
        }
    }

    fn seen_by(&self, by: &Name, user: &Name) -> Status {
        let router = &self.shared().router;
        if router.may_see(by, user) { router.status(user) } else { Status::default() }
    }

    fn tell_users(&self, conn: Conn, request: u32, users: &[Name], seen: &[Status]) {
        let told: Vec<UserPresence<'_>> = users.iter().zip(seen).map(|(user, seen)| seen.told(user)).collect();
        self.send(conn, request, &Presence { users: List(told), extensions: Extensions::default() });
    }

    /// A user changed whom somebody here watches.
    pub(super) fn on_presence(&self, user: &Name) {
        let router = &self.shared().router;
        let (now, seen) = (self.shared().clock.now().mono_ms, seen(router, &router.status(user)));
        self.0.watchers.users.borrow_mut().on_seen(now, user, seen);
    }

    /// Something about the user of a session here changed.
    pub(crate) fn presence_changed(&self, user: &Name) {
        if let Some(relays) = self.0.relays.get() {
            tell(&self.shared().router, relays, user);
        }
    }

    fn takes_presence(&self, conn: Conn) -> bool {
        self.waiting(conn) <= self.shared().limits.presence_outbound_bytes_max
    }

    /// Time passed: tells what has to be told.
    pub(super) fn presence_tick(&self, now: u64) {
        let router = &self.shared().router;
        let due = self.0.watchers.users.borrow_mut().due(now, |conn| self.takes_presence(conn));
        for conn in due {
            let (mut looked, by) = (Vec::new(), self.0.watchers.users.borrow().user(conn).cloned());
            let Some(by) = by else { continue };
            let users = self.0.watchers.users.borrow_mut().take(now, conn, |user| {
                let status = router.status(user);
                let seen = seen(router, &status);
                looked.push((user.clone(), status));
                seen
            });
            looked.retain(|(user, _)| users.contains(user));
            let (users, mut seen): (Vec<Name>, Vec<Status>) = looked.into_iter().unzip();
            for (user, status) in users.iter().zip(&mut seen) {
                if !router.may_see(&by, user) {
                    // The host hides him since.
                    *status = Status::default();
                    self.unwatch_user(conn, user);
                }
            }
            if !users.is_empty() {
                self.tell_users(conn, 0, &users, &seen);
            }
        }
        let rooms = self.0.watchers.rooms.borrow_mut().due(|conn| self.takes_presence(conn));
        rooms.into_iter().for_each(|room| self.ask_again(room));
    }

    fn ask_again(&self, room: RoomNumber) {
        let arbiter = self.0.state.borrow().arbiter();
        self.tell(room, Input::Presence(gathering::Input::Again { arbiter }));
    }

    /// A room has a new channel, which knows its subscribers here.
    pub(super) fn presence_rebuilt(&self, room: RoomNumber) {
        if self.0.watchers.rooms.borrow_mut().on_rebuilt(room) {
            self.ask_again(room);
        }
    }

    /// A channel tells who is in its room.
    pub(super) fn on_room_presence(&self, room: RoomNumber, watch: u32, to: To, told: &Told) {
        if let To::Asker(conn, request) = to {
            // It may have left since, or have been told that the room is being rebuilt.
            if !self.is_pending(conn, request) || !self.0.state.borrow().is_attached(conn, room) {
                self.with(|state| state.not_watched(conn, request, room));
                return self.unwatched(room, watch);
            }
        }
        let takes = |conn| self.takes_presence(conn);
        let conns = self.0.watchers.rooms.borrow_mut().on_told(room, watch, to, told.all, takes);
        let mut shared = None;
        for conn in conns {
            let frame = self.room_frame(conn, to, room, told, &mut shared);
            match to {
                To::Asker(conn, request) => self.answer(conn, request, frame),
                To::Everybody | To::PassedOver => self.with(|state| state.on_frame(conn, frame)),
            }
        }
    }

    /// The frame for a session: one for all where nobody is hidden from anybody.
    fn room_frame(&self, conn: Conn, to: To, room: RoomNumber, told: &Told, shared: &mut Option<Bytes>) -> Bytes {
        let router = &self.shared().router;
        let request = if let To::Asker(_, request) = to { request } else { 0 };
        let all = |_: &Name| true;
        if router.hides_nobody() {
            return shared.get_or_insert_with(|| encode(request, room, told, all)).clone();
        }
        let by = self.0.state.borrow().user_of(conn);
        encode(request, room, told, |user| by.as_ref().is_some_and(|by| router.may_see(by, user)))
    }

    /// A session is told no more of a room.
    pub(super) fn unwatch_room(&self, conn: Conn, room: RoomNumber) {
        let last = self.0.watchers.rooms.borrow_mut().on_left(conn, room);
        if let Some(watch) = last {
            self.unwatched(room, watch);
        }
    }

    fn unwatched(&self, room: RoomNumber, watch: u32) {
        let arbiter = self.0.state.borrow().arbiter();
        self.tell(room, Input::Presence(gathering::Input::Unwatch { arbiter, watch }));
    }

    /// A connection is gone: nothing is kept of what it watched. Before its rooms are left.
    pub(super) fn unwatch_all(&self, conn: Conn) {
        let (router, arbiter) = (&self.shared().router, self.0.state.borrow().arbiter());
        let (count, last) = self.0.watchers.users.borrow_mut().on_gone(conn);
        router.give_watches(count);
        last.iter().for_each(|user| router.unwatch(user, arbiter));
        let rooms = self.0.watchers.rooms.borrow_mut().on_gone(conn);
        rooms.into_iter().for_each(|(room, watch)| self.unwatched(room, watch));
    }
}

fn seen(router: &Router, status: &Status) -> Seen {
    Seen { digest: router.digest(status), online: status.is_online() }
}

fn encode(request: u32, room: RoomNumber, told: &Told, sees: impl Fn(&Name) -> bool) -> Bytes {
    fn names(users: &[Name], sees: impl Fn(&Name) -> bool) -> Vec<&str> {
        users.iter().filter(|user| sees(user)).map(|user| &**user).collect()
    }
    let Told { all, named, count, came, went } = told;
    to_bytes(
        request,
        &RoomPresence {
            room,
            all: *all,
            named: *named,
            count: *count,
            came: List(names(came, &sees)),
            went: List(names(went, &sees)),
            extensions: Extensions::default(),
        },
    )
}
