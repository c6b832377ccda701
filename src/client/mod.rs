//! The async client: rooms over one connection that comes back on its own.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use parlor::client::{Client, Config, Event, JoinFrom};
//!
//! let client = Client::connect(Config::new("127.0.0.1:7400", "ann".parse()?)).await?;
//! let (room, mut events) = client.join("lobby", JoinFrom::Newest(20)).await?;
//! room.publish("hello").await?;
//! while let Some(event) = events.next().await {
//!     if let Event::Message(message) = event {
//!         println!("{}: {}", message.sender, message.text().unwrap_or("(no text)"));
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Rooms are made and looked after by name, whether joined or not:
//!
//! ```no_run
//! # async fn example(client: parlor::client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use parlor::client::{Access, JoinFrom, RequestError, Role, RoomOptions};
//!
//! let options = RoomOptions { access: Access::Members, ..RoomOptions::default() };
//! match client.create_room("tea", options, &["bob"]).await {
//!     Ok(room) => println!("{} has {} members", room.name, room.members),
//!     // The connection broke before the answer: look before you ask again.
//!     Err(RequestError::OutcomeUnknown) => println!("{:?}", client.room_info("tea").await?.role),
//!     Err(error) => return Err(error.into()),
//! }
//! client.set_members("tea", Role::Moderator, &["bob"]).await?;
//! for room in client.rooms(None, 0).await?.rooms {
//!     println!("{}: {} unread", room.name, room.unread);
//! }
//! let (room, _events) = client.join("tea", JoinFrom::Newest(1)).await?;
//! room.mark_read(room.joined().tail)?;
//! # Ok(())
//! # }
//! ```
//!
//! What it promises: an ack means stored; a send that is retried is one message; every record comes once and in order,
//! or an [`Event::Gap`] says that it will not. While disconnected, sends wait and the client tries to come back for as
//! long as a handle lives. When the last [`Client`], [`Room`], [`Events`] and [`Sending`] is dropped, it says goodbye.
//!
//! Inside: machines without I/O decide everything (`state.rs` and `connecting.rs` the connection, `servers.rs` where to; `rooms.rs`, `attaching.rs`, `following.rs`, `publishing.rs`,
//! `uploading.rs`, `receiving.rs`, `marking.rs`, `watching.rs` and `asking.rs` the rooms and what is asked; `question.rs` lists that; `outbox.rs` is one room's sends, `marker.rs` its read cursor, `upload.rs` a long text's parts, `inbound.rs` a
//! room's receipts); `driver.rs` is the one task that owns the socket, `dialing.rs` its attempts at one, `keeper.rs` its hand on an outbox on disk.

mod asking;
mod attached;
mod attaching;
mod backoff;
mod change;
mod config;
mod connecting;
mod dialing;
mod directory;
mod driver;
mod effect;
mod error;
mod event;
mod following;
mod heartbeat;
mod inbound;
mod keeper;
mod marker;
mod marking;
mod outbox;
mod outbox_file;
mod outbox_store;
mod presence;
mod publishing;
mod question;
mod reading;
mod receiving;
mod room;
mod rooms;
mod servers;
mod shared;
mod signal;
mod state;
#[cfg(test)]
mod tests;
mod upload;
mod uploading;
mod waiting;
mod watching;
mod wire;

use std::{
    future::{Future, poll_fn},
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use parlor_protocol::{DeviceTag, Epoch, Name, Seq};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};

pub use attached::AttachedRooms;
pub use change::{Change, Changes};
pub use config::Config;
pub use directory::{Member, Members, RoomDetails, RoomEntry, Rooms};
pub use error::{ConnectError, PublishError, RequestError};
pub use event::{Acked, Event, Gap, Message, Outgoing, Page, RoomInfo, Stats};
pub use outbox_file::{FileOutbox, SyncPolicy};
pub use outbox_store::OutboxStore;
pub use parlor_protocol::message::{
    Access, Activity, Announce, ContentType, DeviceClass, Direction, Durability, GapReason, JoinFrom, Network, PageGap,
    Past, RecordKind, Role, RoomOptions, TombstoneReason,
};
pub use presence::{DevicePresence, RoomPresence, UserPresence, WatchedUsers};
pub use reading::{Reader, Standing};
pub use signal::{Signal, Signals};

use dialing::Stream;
use driver::Driver;
use effect::RoomKey;
use keeper::Keeper;
use question::{Answer, Question};
use shared::{Command, EventQueue, Permit, Reply, SendOutcome, Shared};
use state::State;

/// A connection to an engine, and the rooms joined over it. Cheap to clone; all clones are one client.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// Dropped with the last thing that the application has of a client.
struct Handle {
    shared: Arc<Shared>,
    user: Name,
    tag: DeviceTag,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _ = self.shared.command(Command::Quit);
    }
}

impl Client {
    /// Connects to the first server that takes it. Call within a tokio runtime with I/O and time; the client's task
    /// runs there.
    ///
    /// # Errors
    /// If no server took it within [`Config::connect_patience`]; the last server's reason is told.
    pub async fn connect(config: Config) -> Result<Self, ConnectError> {
        config.check(true)?;
        Self::start(None, config).await
    }

    /// Connects over a stream that is there already, as to an engine in the same process. Once the stream is lost, the
    /// client is closed: there is no way to come back.
    ///
    /// # Errors
    /// If the other side does not welcome it.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        config: Config,
    ) -> Result<Self, ConnectError> {
        config.check(false)?;
        Self::start(Some(Box::new(stream)), config).await
    }

    async fn start(stream: Option<Box<dyn Stream>>, mut config: Config) -> Result<Self, ConnectError> {
        let keeper = Keeper::new(config.outbox.clone());
        if stream.is_some() {
            config.servers = vec!["the engine".to_owned()];
        }
        let shared = Arc::new(Shared::new(config.events_max, config.outbox_messages_max, config.requests_max));
        let (user, tag) = (config.user.clone(), DeviceTag::of(&config.user, &config.device));
        // From here on a drop of this future says goodbye.
        let mut handle = Handle { shared: shared.clone(), user, tag };
        let (ready, is_ready) = oneshot::channel();
        let seed = RandomState::new().hash_one(&*config.user);
        let state = State::new(config, shared.room_keys.clone(), seed);
        tokio::spawn(Driver::new(state, shared, keeper, stream, ready));
        handle.tag = is_ready.await.unwrap_or(Err(ConnectError::Stopped))?;
        Ok(Self { handle: Arc::new(handle) })
    }

    /// Joins a room; its events begin where `from` says.
    ///
    /// # Errors
    /// If `room` is not a name, the server refuses, or this client has joined it already. A room that is being left is
    /// joined again after that.
    pub async fn join(&self, room: &str, from: JoinFrom) -> Result<(Room, Events), RequestError> {
        let name = Name::parse(room)?;
        let (reply, answer) = self.handle.reply()?;
        let events = Arc::new(EventQueue::default());
        let key = self.handle.shared.room_keys.next();
        let join = Command::Join { key, name: name.clone(), from, events: events.clone(), reply };
        self.handle.command(join)?;
        // From here on a drop of this future leaves the room.
        let membership = Arc::new(Membership { handle: self.handle.clone(), key });
        let joined = answer.await.unwrap_or_else(|_| Err(self.handle.closed()))?;
        let room = Room {
            inner: Arc::new(RoomInner { membership: membership.clone(), name, joined, events: events.clone() }),
        };
        Ok((room, Events { membership, queue: events }))
    }

    /// Who speaks.
    #[must_use]
    pub fn user(&self) -> &Name {
        &self.handle.user
    }

    /// The tag that this client's records carry.
    #[must_use]
    pub fn device_tag(&self) -> DeviceTag {
        self.handle.tag
    }

    /// The address of the server that said welcome last; `None` over a stream that was handed in. Kept and put into
    /// [`Config::prefer`], it is where the next run of the program begins.
    #[must_use]
    pub fn server(&self) -> Option<SocketAddr> {
        *shared::lock(&self.handle.shared.server)
    }

    /// The device is connected through another network now, which sets how often the server hears from it: told with the
    /// next heartbeat, or at once if heartbeats are to come more often.
    ///
    /// # Errors
    /// If the client is closed.
    pub fn set_network(&self, network: Network) -> Result<(), RequestError> {
        self.handle.command(Command::Network(network))
    }

    /// What was counted up to now, over all rooms.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.handle.shared.stats()
    }

    /// Says goodbye and waits until the server has closed, [`Config::close_timeout`] at most. Sends that were not acked
    /// fail; all events end.
    pub async fn close(self) {
        let (done, is_done) = oneshot::channel();
        if self.handle.shared.command(Command::Close(done)).is_ok() {
            // Ends as an error, when the driver drops its end.
            let _ = is_done.await;
        }
    }
}

impl Handle {
    fn command(&self, command: Command) -> Result<(), RequestError> {
        self.shared.command(command).map_err(|(code, message)| RequestError::Closed { code, message })
    }

    fn reply<T>(&self) -> Result<(Reply<T>, oneshot::Receiver<T>), RequestError> {
        let permit = Permit::take(&self.shared.requests, self.shared.requests_max);
        let permit = permit.ok_or(RequestError::TooManyRequests)?;
        let (sender, receiver) = oneshot::channel();
        Ok((Reply { sender, _permit: permit }, receiver))
    }

    /// Asks, about a joined room if one is named, and waits for the answer, which has the one type that the question takes.
    async fn ask<T: TryFrom<Answer>>(&self, room: Option<RoomKey>, question: Question) -> Result<T, RequestError> {
        let (reply, answer) = self.reply()?;
        self.command(Command::Ask { room, question, reply })?;
        let answer = answer.await.unwrap_or_else(|_| Err(self.closed()))?;
        // The state lets no answer pass that the question does not take.
        T::try_from(answer).map_err(|_| self.closed())
    }

    fn closed(&self) -> RequestError {
        let (code, message) = self.shared.why_closed();
        RequestError::Closed { code, message }
    }
}

/// Dropped with the last thing that the application has of a room.
struct Membership {
    handle: Arc<Handle>,
    key: RoomKey,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let _ = self.handle.shared.command(Command::Abandon(self.key));
    }
}

/// A room that was joined. Cheap to clone. When all clones and the [`Events`] are dropped, the room is left, after what
/// was sent to it is answered.
#[derive(Clone)]
pub struct Room {
    inner: Arc<RoomInner>,
}

struct RoomInner {
    membership: Arc<Membership>,
    name: Name,
    joined: RoomInfo,
    events: Arc<EventQueue>,
}

impl Room {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.inner.name
    }

    /// The room as it was when it was joined.
    #[must_use]
    pub fn joined(&self) -> RoomInfo {
        self.inner.joined
    }

    /// Up to where the client holds the room, or was told a gap for it. Events up to here may still wait in [`Events`]:
    /// an application that wants to go on from here after a restart keeps the seq of the last event that it took.
    #[must_use]
    pub fn position(&self) -> (Epoch, Seq) {
        self.inner.events.position()
    }

    /// Sends a text and waits until it is stored.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(&self, text: &str) -> Result<Acked, PublishError> {
        self.send(Outgoing::text(text)).await
    }

    /// Queues a message at once, in the order of the calls. The future resolves when it is stored or given up;
    /// dropping it does not unsend.
    pub fn send(&self, message: Outgoing) -> Sending {
        let Membership { handle, key } = &*self.inner.membership;
        let shared = &handle.shared;
        let Some(permit) = Permit::take(&shared.sends, shared.sends_max) else {
            return Sending(Outcome::Failed(Some(PublishError::OutboxFull)));
        };
        let (sender, receiver) = oneshot::channel();
        let reply = Reply { sender, _permit: permit };
        match shared.command(Command::Send { key: *key, outgoing: message, reply }) {
            Ok(()) => Sending(Outcome::Waiting(receiver, handle.clone())),
            Err((code, message)) => Sending(Outcome::Failed(Some(PublishError::Closed { code, message }))),
        }
    }

    /// Reads a page of history: `limit` records (0 for the server's usual page) from `start` on, or from the oldest
    /// (forward) or newest (backward). While disconnected it waits.
    ///
    /// # Errors
    /// If the server refuses, the room was left or the client is closed.
    pub async fn fetch(&self, start: Option<Seq>, direction: Direction, limit: u32) -> Result<Page, RequestError> {
        let Membership { handle, key } = &*self.inner.membership;
        handle.ask(Some(*key), Question::Page { start, direction, limit }).await
    }

    /// Leaves the room, once everything sent to it before is answered. The [`Events`] end after the last one owed.
    /// Returns the cursor: everything up to it was sent.
    ///
    /// # Errors
    /// If the room was left already, the server refuses or the client is closed.
    pub async fn leave(&self) -> Result<Seq, RequestError> {
        let Membership { handle, key } = &*self.inner.membership;
        let (reply, answer) = handle.reply()?;
        handle.command(Command::Leave { key: *key, reply })?;
        answer.await.unwrap_or_else(|_| Err(handle.closed()))
    }
}

/// A message on its way. Resolves when it is stored or given up.
#[must_use = "the message is sent all the same, but only this tells whether it was stored"]
pub struct Sending(Outcome);

enum Outcome {
    Waiting(oneshot::Receiver<SendOutcome>, Arc<Handle>),
    Failed(Option<PublishError>),
}

impl Future for Sending {
    type Output = Result<Acked, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Outcome::Waiting(receiver, handle) => Pin::new(receiver).poll(cx).map(|outcome| {
                outcome.unwrap_or_else(|_| {
                    let (code, message) = handle.shared.why_closed();
                    Err(PublishError::Closed { code, message })
                })
            }),
            // Asked again after it was ready: a future may then stay silent.
            Outcome::Failed(error) => error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
}

/// What happens in a room. Take events steadily: when [`Config::events_max`] of them wait, over all rooms, the client
/// stops reading its connection until half of them are taken. When this is dropped, events are no longer kept.
pub struct Events {
    membership: Arc<Membership>,
    queue: Arc<EventQueue>,
}

impl Events {
    /// The next event; `None` after the last one. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next event if one is there.
    pub fn try_next(&mut self) -> Option<Event> {
        self.queue.try_next(&self.membership.handle.shared)
    }

    /// [`next`](Self::next) for hand-written futures.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.queue.poll_next(cx, &self.membership.handle.shared)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.queue.deafen(&self.membership.handle.shared);
    }
}

macro_rules! debug {
    ($($name:ident: $self:ident => $value:expr),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&$self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($name)).field($value).finish()
            }
        }
    )*};
}

debug! {
    Client: self => &self.handle.user,
    Room: self => &self.inner.name,
    Events: self => &self.membership.key,
    Signals: self => &"for the user",
    AttachedRooms: self => &"of the user",
    WatchedUsers: self => &"by the user",
    Sending: self => &matches!(self.0, Outcome::Waiting(..))
}
