//! The engine: started and stopped by its host, used through handles from any thread.

use std::{
    io,
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use actix_rt::{Arbiter, ArbiterHandle, System};
use parking_lot::Mutex;
use parlor_actors::{
    context::Shared,
    fleet::Fleet,
    message::Signal,
    pools::Pools,
    port::{Clock, DeviceKey, Now},
    rates::Rates,
    router::Router,
    supervisor::state::sessions::Which,
};
use parlor_protocol::{
    Code, DeviceTag, Extensions, Name, NameError, RoomNumber, Seq,
    message::{self, SIGNAL_BYTES_MAX},
    to_bytes,
};
use tokio::sync::{oneshot, watch};

pub use parlor_actors::{
    channel::state::Standing, port::RoomOptions, router::Presence, supervisor::state::sleeping::Census,
};

pub use self::presence::{PresenceNews, PresenceWatch};
pub use crate::storage::StoreReads;

pub use crate::net::pipe::{Closed, Pipe, Receiver, Sender, TryRecvError, TrySendError};
use crate::{
    config::{ConfigError, EngineConfig},
    net::{Gate, link, pipe, tcp},
    storage::{OpenError, RocksStore, StoreConfig},
};

pub mod erasing;
pub mod presence;
pub mod rooms;

/// Clients are asked to come back not sooner than this, at a shutdown.
const COME_BACK_MS: u32 = 500;

/// The longest reason of a kick, so that the close frame keeps its limit.
const REASON_CHARS_MAX: usize = 512;

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// A thread cannot be started.
    #[error("the engine's threads cannot be started: {0}")]
    Threads(#[from] io::Error),
}

/// Why a room cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// It cannot have that name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The engine refuses.
    #[error("{message} ({code})")]
    Refused {
        /// Why; its range says whether to try again.
        code: Code,
        /// The same for a person.
        message: &'static str,
    },
}

/// Which sessions of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionsOf<'a> {
    /// All of them.
    User,
    /// Those of the device of this name.
    Device(&'a str),
    /// One that [`Engine::sessions`] told.
    Session(&'a Presence),
}

/// Whom a signal of the host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalTo<'a> {
    /// All sessions that have joined the room of this name.
    Room(&'a str),
    /// All sessions of this user.
    User(&'a str),
}

/// Why a signal is not sent.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// Its payload is too long.
    #[error("the signal has {bytes} bytes, at most {SIGNAL_BYTES_MAX} are allowed")]
    TooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// A name is none, or the room cannot be had.
    #[error(transparent)]
    Room(#[from] RoomError),
}

/// A chat engine in this process.
///
/// It runs on threads of its own, whatever runtime the host has. Start it, let clients in with [`listen`](Self::listen)
/// or [`connect`](Self::connect), end it with [`shutdown`](Self::shutdown); dropping it ends it at once, without waiting
/// for clients to read their last frames, and loses nothing that was acked.
pub struct Engine {
    fleet: Arc<Fleet>,
    store: Arc<RocksStore>,
    gate: Gate,
    /// Pipes so far: they are spread over the arbiters.
    connected: AtomicUsize,
    stop: watch::Sender<bool>,
    threads: Mutex<Option<Threads>>,
    patience: Duration,
    come_back_ms: Range<u32>,
}

struct Threads {
    stop: oneshot::Sender<()>,
    system: JoinHandle<()>,
}

impl Engine {
    /// Opens the store, starts the threads and the actors. Nothing listens yet.
    ///
    /// # Errors
    /// If the configuration is wrong, the store cannot be opened (another process may have it), or no thread started.
    pub fn start(config: EngineConfig) -> Result<Self, StartError> {
        config.check()?;
        let store = Arc::new(RocksStore::open(StoreConfig {
            writer_records_max: config.limits.writer_records_max,
            writer_bytes_max: config.limits.writer_bytes_max,
            ..StoreConfig::new(config.data.clone())
        })?);
        let (threads, arbiters) = Threads::start(config.arbiters)?;
        let shared = Arc::new(Shared {
            store: store.clone(),
            clock: Arc::new(SystemClock { start: Instant::now() }),
            limits: Arc::new(config.limits.clone()),
            beats: Arc::new(config.beats),
            tiers: Arc::new(config.tiers),
            uploads: config.limits.uploads(),
            pools: Pools::new(&config.limits),
            rates: Arc::new(Rates::new(config.limits.rated_users_max)),
            word: Arc::default(),
            session_policy: config.sessions,
            create_at_join: config.create_at_join.then_some(config.room_defaults),
            router: Router::new(&config.limits, config.may_see),
        });
        let net = crate::net::NetLimits { payload_bytes_max: config.limits.payload_bytes_max, ..config.net };
        let gate =
            Gate { limits: Arc::new(net), authenticate: config.authenticate, open: Arc::new(AtomicUsize::new(0)) };
        Ok(Self {
            fleet: Arc::new(Fleet::start(arbiters, shared)),
            store,
            gate,
            connected: AtomicUsize::new(0),
            stop: watch::Sender::new(false),
            threads: Mutex::new(Some(threads)),
            patience: Duration::from_millis(config.shutdown_patience_ms),
            come_back_ms: COME_BACK_MS..COME_BACK_MS.saturating_add(config.come_back_spread_ms),
        })
    }

    /// Lets clients in over TCP; returns the address, with the port that was chosen if it was 0.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub fn listen(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        tcp::listen(address, self.fleet.clone(), self.gate.clone(), self.stop.subscribe())
    }

    /// A connection within this process, without a socket: a [`Pipe`] of whole frames, which the typed client runs on as
    /// well. Waits for nobody; the session begins with the hello that is sent.
    #[must_use]
    pub fn connect(&self) -> Pipe {
        let (pipe, near) = pipe::pair();
        let gate = self.gate.clone();
        self.fleet.run_on(self.connected.fetch_add(1, Relaxed), move |local| {
            actix_rt::spawn(link::serve(local.clone(), gate, near));
        });
        pipe
    }

    /// Creates a room, or finds it if there is one of that name (which keeps the options that it was created with).
    ///
    /// # Errors
    /// If it cannot have that name, or the engine refuses for now.
    pub async fn create_room(&self, name: &str, options: RoomOptions) -> Result<RoomNumber, RoomError> {
        let room = self.fleet.room(rooms::room_name(name)?, Some(options)).await;
        room.map_err(|(code, message)| RoomError::Refused { code, message })
    }

    /// How many countable records of a room a user has not read. Wakes the room.
    ///
    /// # Errors
    /// If the room cannot have that name, or there is none, or the engine refuses for now.
    pub async fn unread(&self, user: &str, room: &str) -> Result<Standing, RoomError> {
        let standing = self.fleet.standing(Name::parse(room)?, Name::parse(user)?, None).await;
        standing.map_err(|(code, message)| RoomError::Refused { code, message })
    }

    /// A user has read a room up to a seq: moves his read cursor, never back, and tells his sessions in the room.
    ///
    /// # Errors
    /// As for [`unread`](Self::unread).
    pub async fn mark_read(&self, user: &str, room: &str, read: Seq) -> Result<Standing, RoomError> {
        let standing = self.fleet.standing(Name::parse(room)?, Name::parse(user)?, Some(read)).await;
        standing.map_err(|(code, message)| RoomError::Refused { code, message })
    }

    /// Brings a signal to all sessions in a room, or of a user, in the name of `sender`. It is not stored, and may be
    /// lost; of those that wait for a client, only the newest of each sender and key is kept.
    ///
    /// # Errors
    /// If the payload is longer than 512 bytes, a name is none, or there is no such room.
    pub async fn signal(&self, to: SignalTo<'_>, sender: &str, key: u32, payload: &[u8]) -> Result<(), SignalError> {
        if payload.len() > SIGNAL_BYTES_MAX {
            return Err(SignalError::TooLarge { bytes: payload.len() });
        }
        let user = Name::parse(sender).map_err(RoomError::Name)?;
        let device = DeviceKey { user, tag: DeviceTag::default() };
        let make = |room| {
            let (sender, device_tag, extensions) = (sender, device.tag, Extensions::default());
            let frame = to_bytes(0, &message::Signaled { room, sender, device_tag, key, payload, extensions });
            Signal { conn: None, request: 0, device: device.clone(), key, frame }
        };
        match to {
            SignalTo::User(user) => {
                self.fleet.signal_user(&Name::parse(user).map_err(RoomError::Name)?, &make(None));
                Ok(())
            }
            SignalTo::Room(room) => {
                let name = Name::parse(room).map_err(RoomError::Name)?;
                let refused = |(code, message)| RoomError::Refused { code, message };
                let number = self.fleet.room(name.clone(), None).await.map_err(refused)?;
                Ok(self.fleet.signal_room(name, make(Some(number))).await.map_err(refused)?)
            }
        }
    }

    /// The sessions of a user; none if he is offline. Waits for nobody.
    #[must_use]
    pub fn sessions(&self, user: &str) -> Vec<Presence> {
        self.fleet.shared().router.sessions(user)
    }

    /// Puts sessions of a user out, for a reason that their clients are told with [`Code::Kicked`], which tells them not to
    /// come back by themselves; returns how many there were. They cannot be taken up again. Who is to stay out has to be
    /// refused by the host's authentication, or banned from its rooms.
    ///
    /// # Errors
    /// If a name is none.
    pub async fn kick(&self, user: &str, which: SessionsOf<'_>, reason: &str) -> Result<usize, NameError> {
        let user = Name::parse(user)?;
        let which = match which {
            SessionsOf::User => Which::All,
            SessionsOf::Device(device) => Which::Device(DeviceTag::of(&user, &Name::parse(device)?)),
            SessionsOf::Session(presence) => Which::Session(presence.conn),
        };
        let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
        Ok(self.fleet.kick(user, which, &reason).await)
    }

    /// How many connections over TCP are open, those included that have not said hello yet or are about to end.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.gate.open.load(Relaxed)
    }

    /// How many users are online, those included whose connections broke and whose sessions may come back.
    #[must_use]
    pub fn users_online(&self) -> usize {
        self.fleet.shared().router.users_online()
    }

    /// How many rooms are loaded and how many sleep, and how often rooms fell asleep, were woken and had to be rebuilt.
    pub async fn census(&self) -> Census {
        self.fleet.census().await
    }

    /// How many bytes the newest records of all rooms take in memory now, of `limits.rings_bytes_max`. Waits for nobody.
    #[must_use]
    pub fn ring_bytes(&self) -> usize {
        self.fleet.shared().pools.ring_bytes.used()
    }

    /// How many devices and users rooms remember that have left, of `limits.absent_max`. Waits for nobody.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.fleet.shared().pools.absent.used()
    }

    /// How often the store has read something since the engine started, by what was asked for. Waits for nobody.
    #[must_use]
    pub fn store_reads(&self) -> StoreReads {
        self.store.reads()
    }

    /// Why the store takes no more writes, if a write or a sync failed. Publishes are refused from then on, with a code
    /// that says to try later; history can still be read. Only a new engine on the same data writes again.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<str>> {
        self.store.poisoned()
    }

    /// By how many milliseconds the wall clock is off, negative if it is behind, while nothing that expired is deleted for
    /// that reason: it has jumped by more than ten minutes, or shows an earlier time than when the store was last swept.
    /// Deletion goes on by itself when the clock is back where it should be.
    #[must_use]
    pub fn sweep_paused(&self) -> Option<i64> {
        self.store.sweep_paused()
    }

    /// Says that the wall clock is right, so that what has expired by it is deleted from the next sweep on.
    pub fn resume_sweep(&self) {
        self.store.resume_sweep();
        self.fleet.shared().word.give();
    }

    /// Lets nobody in any more, stores and answers everything accepted, tells the clients to come back, and closes the
    /// store. Every later call does nothing.
    pub async fn shutdown(&self) {
        let Some(threads) = self.threads.lock().take() else { return };
        self.stop.send_replace(true);
        self.fleet.drain(self.patience, self.come_back_ms.clone()).await;
        let (done, closed) = oneshot::channel();
        let store = self.store.clone();
        // Joining threads and closing the store block; the host's runtime must not.
        std::thread::spawn(move || {
            threads.join();
            close(&store);
            let _ = done.send(());
        });
        // An error means that the thread panicked, which the panic's own message tells.
        let _ = closed.await;
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(threads) = self.threads.get_mut().take() {
            threads.join();
            close(&self.store);
        }
    }
}

fn close(store: &RocksStore) {
    if let Err(error) = store.close() {
        tracing::error!(%error, "the store did not close cleanly");
    }
}

impl Threads {
    /// Starts a thread with an actix system, and further arbiters within it.
    fn start(arbiters: usize) -> io::Result<(Self, Vec<ArbiterHandle>)> {
        let (stop, stopped) = oneshot::channel();
        let (started, handles) = std::sync::mpsc::channel();
        let run = move || {
            System::new().block_on(async move {
                let more: Vec<Arbiter> = (1..arbiters).map(|_| Arbiter::new()).collect();
                let mut all = vec![Arbiter::current()];
                all.extend(more.iter().map(Arbiter::handle));
                if started.send(all).is_err() {
                    return;
                }
                // The engine is dropped or shut down: either way this is the end.
                let _ = stopped.await;
                for arbiter in more {
                    arbiter.stop();
                    if arbiter.join().is_err() {
                        tracing::error!("an arbiter's thread panicked");
                    }
                }
            });
        };
        let system = std::thread::Builder::new().name("parlor".into()).spawn(run)?;
        let handles = handles.recv().map_err(|_| io::Error::other("the engine's thread died at its start"))?;
        Ok((Self { stop, system }, handles))
    }

    fn join(self) {
        // The thread waits for this, or is gone already.
        let _ = self.stop.send(());
        if self.system.join().is_err() {
            tracing::error!("the engine's thread panicked");
        }
    }
}

/// The machine's clocks.
struct SystemClock {
    start: Instant,
}

impl Clock for SystemClock {
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds fit 64 bits for half a billion years")]
    fn now(&self) -> Now {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { unix_ms: since_epoch.as_millis() as u64, mono_ms: self.start.elapsed().as_millis() as u64 }
    }
}
