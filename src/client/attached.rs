//! The rooms of a user that a client is in without having joined them, on their way to the application.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use parlor_protocol::Name;
use tokio::sync::Notify;

use super::{
    Client, Events, Handle, Membership, Room, RoomInner,
    effect::RoomKey,
    event::RoomInfo,
    shared::{EventQueue, lock},
};

/// A room that the application has not taken yet.
pub(super) struct Arrival {
    pub(super) room: RoomKey,
    pub(super) name: Name,
    pub(super) info: RoomInfo,
    pub(super) events: Arc<EventQueue>,
}

/// Rooms that wait for the application: no more than the client is in.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    rooms: VecDeque<Arrival>,
    ended: bool,
}

impl Queue {
    pub(super) fn push(&self, arrival: Arrival) {
        lock(&self.inner).rooms.push_back(arrival);
        self.changed.notify_one();
    }

    /// A room is over. Whether the application had not taken it: then it never gets to know of it.
    pub(super) fn forget(&self, room: RoomKey) -> bool {
        let mut waiting = lock(&self.inner);
        let before = waiting.rooms.len();
        waiting.rooms.retain(|arrival| arrival.room != room);
        waiting.rooms.len() < before
    }

    /// No room follows.
    pub(super) fn end(&self) {
        lock(&self.inner).ended = true;
        self.changed.notify_waiters();
    }

    async fn next(&self) -> Option<Arrival> {
        loop {
            // Asked for before looking, so that no change is missed between the two.
            let changed = self.changed.notified();
            {
                let mut waiting = lock(&self.inner);
                match waiting.rooms.pop_front() {
                    Some(arrival) => return Some(arrival),
                    None if waiting.ended => return None,
                    None => {}
                }
            }
            changed.await;
        }
    }
}

impl Client {
    /// The rooms that this client is in because its user is a member of them: see [`Config::follow`](super::Config::follow).
    /// All that there are at first, in no order, and later each that he is added to, or that somebody opens with him. A room
    /// comes once for as long as the client is in it, whatever becomes of the connection. Take them steadily, as their events
    /// count like others. Several callers share the rooms: each comes to one of them.
    ///
    /// A room that is attached counts as joined: [`join`](Self::join) refuses it.
    /// Dropping the room and its events leaves it, until the user is added again or the client [joins](Self::join) it. When
    /// the user is removed, its events end with [`Event::Closed`](super::Event::Closed).
    ///
    /// An inbox:
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use parlor::client::{Client, Config, Event};
    ///
    /// let mut config = Config::new("127.0.0.1:7400", "ann".parse()?);
    /// config.follow = Some(20);
    /// let client = Client::connect(config).await?;
    /// let mut rooms = client.attached();
    /// while let Some((room, mut events)) = rooms.next().await {
    ///     println!("{}: {} unread", room.name(), room.joined().unread);
    ///     tokio::spawn(async move {
    ///         while let Some(event) = events.next().await {
    ///             if let Event::Message(message) = event {
    ///                 println!("{}: {}: {}", room.name(), message.sender, message.text().unwrap_or("(no text)"));
    ///             }
    ///         }
    ///     });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn attached(&self) -> AttachedRooms {
        AttachedRooms { handle: self.handle.clone() }
    }
}

/// The rooms of [`Client::attached`].
pub struct AttachedRooms {
    handle: Arc<Handle>,
}

impl AttachedRooms {
    /// The next room, with its events; `None` once the client is closed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<(Room, Events)> {
        let Arrival { room: key, name, info: joined, events } = self.handle.shared.attached.next().await?;
        let membership = Arc::new(Membership { handle: self.handle.clone(), key });
        let inner = RoomInner { membership: membership.clone(), name, joined, events: events.clone() };
        Some((Room { inner: Arc::new(inner) }, Events { membership, queue: events }))
    }
}
