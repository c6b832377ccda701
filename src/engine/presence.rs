//! Who is online and who is in a room, for the host.

use parlor_actors::router::PresenceChange;
pub use parlor_actors::router::{DeviceStatus, Status};
use parlor_protocol::Name;
use tokio::sync::broadcast::{self, error::RecvError};

use super::{Engine, RoomError};

/// What a host hears of presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresenceNews {
    /// A session of a user began or ended, its connection broke or came back, or its network changed.
    Changed {
        /// Whose.
        user: Name,
        /// How many sessions he has now, those included whose connection broke; 0 if he is offline.
        sessions: usize,
    },
    /// The host did not keep up, and so many changes are gone: ask for the users that matter.
    Missed(u64),
}

/// Brings a host every change of presence, one by one.
pub struct PresenceWatch(broadcast::Receiver<PresenceChange>);

impl PresenceWatch {
    /// The next change; `None` once the engine is gone. On any runtime.
    pub async fn next(&mut self) -> Option<PresenceNews> {
        match self.0.recv().await {
            Ok(PresenceChange { user, sessions }) => Some(PresenceNews::Changed { user, sessions }),
            Err(RecvError::Lagged(missed)) => Some(PresenceNews::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Engine {
    /// What others see of a user: whether he is online, since when, on which devices. [`sessions`](Self::sessions) says
    /// more. Waits for nobody.
    #[must_use]
    pub fn presence(&self, user: &str) -> Status {
        self.fleet.shared().router.status(user)
    }

    /// The same of many users, in their order.
    #[must_use]
    pub fn presence_of(&self, users: &[&str]) -> Vec<Status> {
        users.iter().map(|user| self.presence(user)).collect()
    }

    /// How many sessions there are, those included whose connections broke and that may come back.
    #[must_use]
    pub fn sessions_online(&self) -> usize {
        self.fleet.shared().router.sessions_online()
    }

    /// Hears of every change of presence from now on, as it happens and of all users. As many wait for the host as
    /// `presence_changes_waiting_max` says; then the oldest make room, and the host is told how many.
    #[must_use]
    pub fn watch_presence(&self) -> PresenceWatch {
        PresenceWatch(self.fleet.shared().router.changes())
    }

    /// How many users are in a room: those with a session that has joined it. Wakes the room.
    ///
    /// # Errors
    /// If the room cannot have that name, or there is none, or the engine refuses for now.
    pub async fn room_presence(&self, room: &str) -> Result<usize, RoomError> {
        Ok(self.fleet.count_present(Name::parse(room)?).await?)
    }
}
