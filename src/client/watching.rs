//! Watching users and rooms, between the application and the server. Watching belongs to a connection; what the
//! application watches is asked for again on each new one, and the answer tells what was missed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use parlor_protocol::{
    Advice, Extensions, List, Name, encode,
    message::{self, PRESENCE_USERS_MAX},
};

use super::{
    effect::{Effect, Now, Pending, RoomKey},
    presence::{RoomPresence, UserPresence},
    question::{Answer, Ask, Question},
    rooms::RETRY_MIN,
    state::State,
    wire::WireError,
};

/// The users that the application watches.
#[derive(Debug, Default)]
pub(super) struct Watching {
    /// What it was told of each last.
    users: BTreeMap<Name, UserPresence>,
    /// The requests that watch them again on this connection.
    requests: BTreeSet<u32>,
    /// When they are sent again, since one was refused for now.
    retry_at: Option<Duration>,
}

/// Whether the application watches who is in a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum RoomWatch {
    /// It does not.
    #[default]
    Off,
    /// The server has to be asked again, but not before this time.
    Due(Option<Duration>),
    /// It is being asked again.
    Asked,
    /// The server tells.
    On,
}

impl RoomWatch {
    /// Whether to ask now.
    fn is_due(self, now: Duration) -> bool {
        matches!(self, Self::Due(at) if at.is_none_or(|at| at <= now))
    }

    /// When to ask again.
    pub(super) fn timeout(self) -> Option<Duration> {
        if let Self::Due(at) = self { at } else { None }
    }

    /// The server does not tell on the next connection.
    pub(super) fn on_connection_lost(&mut self) {
        if *self != Self::Off {
            *self = Self::Due(None);
        }
    }
}

impl Watching {
    pub(super) fn is_answered_by(&self, request: u32) -> bool {
        self.requests.contains(&request)
    }

    pub(super) fn on_connection_lost(&mut self) {
        self.requests.clear();
        self.retry_at = None;
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.retry_at
    }
}

impl State {
    /// Watches all users again, on a new connection or since that was refused for now.
    pub(super) fn watch_again(&mut self) {
        let names: Vec<Name> = self.watching.users.keys().cloned().collect();
        for names in names.chunks(PRESENCE_USERS_MAX) {
            let (add, extensions) = (List(names.iter().map(|name| &**name).collect()), Extensions::default());
            let watch = message::WatchPresence { add, remove: List::default(), extensions };
            let request = self.write(|request, out| encode(request, &watch, out));
            self.watching.requests.insert(request);
        }
    }

    /// Time has passed.
    pub(super) fn watch_when_due(&mut self, now: Now) {
        if self.watching.retry_at.take_if(|at| *at <= now.at).is_some() {
            self.watch_again();
        }
    }

    /// What the application asked is answered: what it watches from here on. What still waits for it is older than that.
    pub(super) fn on_watch_answered(&mut self, ask: &Ask, answer: &Answer) {
        match (&ask.question, answer) {
            (Question::WatchUsers { remove, .. }, Answer::Users(users)) => {
                let mut told: Vec<Name> = remove.clone();
                told.iter().for_each(|user| drop(self.watching.users.remove(user)));
                for user in users {
                    told.push(user.user.clone());
                    self.watching.users.insert(user.user.clone(), user.clone());
                }
                self.effects.push_back(Effect::Told(told));
            }
            (Question::WatchRoom, Answer::InRoom(presence)) => {
                if let Some(key) = self.watches(ask.room, RoomWatch::On) {
                    // Whoever follows the events needs nothing else, and what waits there is replaced.
                    self.effects.push_back(Effect::RoomPresence(key, presence.clone()));
                }
            }
            (Question::UnwatchRoom, _) => drop(self.watches(ask.room, RoomWatch::Off)),
            _ => {}
        }
    }

    fn watches(&mut self, key: Option<RoomKey>, watch: RoomWatch) -> Option<RoomKey> {
        let key = key?;
        self.rooms.get_mut(&key)?.watch = watch;
        Some(key)
    }

    /// Users changed, or are watched again: the application is told of those that are not as it knows them.
    pub(super) fn on_presence(&mut self, request: u32, presence: &message::Presence<'_>) -> Result<(), WireError> {
        self.watching.requests.remove(&request);
        for user in UserPresence::all_of(presence)? {
            if let Some(known) = self.watching.users.get_mut(&user.user).filter(|known| **known != user) {
                known.clone_from(&user);
                self.effects.push_back(Effect::Presence(user));
            }
        }
        Ok(())
    }

    /// Users are not watched again, for now or at all.
    pub(super) fn on_watch_refused(&mut self, now: Now, request: u32, error: &message::Error<'_>) {
        self.watching.requests.remove(&request);
        if error.code.advice() == Advice::RetryLater {
            let wait = Duration::from_millis(u64::from(error.retry_after_ms)).max(10 * RETRY_MIN);
            self.watching.retry_at = Some(now.at.saturating_add(wait + self.rng.up_to(wait)));
        } else {
            let (code, message) = (error.code, error.message);
            tracing::warn!(%code, message, "the server does not tell of the users that were watched");
        }
    }

    /// Asks again to be told who is in a room, if it is time.
    pub(super) fn settle_watch(&mut self, now: Now, key: RoomKey) {
        let Some(room) = self.rooms.get_mut(&key).filter(|room| !room.leaving && room.watch.is_due(now.at)) else {
            return;
        };
        room.watch = RoomWatch::Asked;
        let watch = message::WatchRoom { room: room.number, watch: true, extensions: Extensions::default() };
        self.ask(&watch, Pending::Watch(key));
    }

    /// Somebody came to a room or went, or it is watched again.
    pub(super) fn on_room_presence(
        &mut self,
        request: u32,
        presence: &message::RoomPresence<'_>,
    ) -> Result<(), WireError> {
        let again = matches!(self.answered(request), Some(Pending::Watch(_)));
        let Some(key) = self.numbers.get(&presence.room).copied() else { return Ok(()) };
        let Some(room) = self.rooms.get_mut(&key) else { return Ok(()) };
        if again && room.watch == RoomWatch::Asked {
            room.watch = RoomWatch::On;
        }
        // One that is not watched any more was told before the server knew.
        if room.watch == RoomWatch::On {
            self.effects.push_back(Effect::RoomPresence(key, RoomPresence::of(presence)?));
        }
        Ok(())
    }

    /// A room is not watched again, for now or at all.
    pub(super) fn on_room_watch_refused(&mut self, now: Now, key: RoomKey, error: &message::Error<'_>) {
        let wait = Duration::from_millis(u64::from(error.retry_after_ms)).max(10 * RETRY_MIN);
        let retry_at = now.at.saturating_add(wait + self.rng.up_to(wait));
        let Some(room) = self.rooms.get_mut(&key).filter(|room| room.watch == RoomWatch::Asked) else { return };
        if error.code.advice() == Advice::RetryLater {
            room.watch = RoomWatch::Due(Some(retry_at));
        } else {
            room.watch = RoomWatch::Off;
            let (code, message) = (error.code, error.message);
            tracing::warn!(room = &*room.name, %code, message, "the server does not tell who is in a room");
        }
        self.settle(now, key);
    }
}
