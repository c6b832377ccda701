//! What the application's handles and the driver share: commands one way, events the other, and counts that bound both.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use parlor_protocol::{
    Code, Epoch, Name, Seq,
    message::{JoinFrom, Network},
};
use tokio::sync::{broadcast, oneshot};

use super::{
    attached::Queue as AttachedQueue,
    effect::{RoomKey, RoomKeys},
    error::{PublishError, RequestError},
    event::{Acked, Event, Outgoing, RoomInfo, Stats},
    marking::Target,
    presence::{Queue as WatchedQueue, RoomPresence},
    question::{Answer, Question},
    reading::Standing,
    signal::Signal,
};

/// The most signals that wait for the application, of one room or for the user.
const SIGNALS_MAX: usize = 64;

/// What the application wants.
pub(super) enum Command {
    Join {
        key: RoomKey,
        name: Name,
        from: JoinFrom,
        events: Arc<EventQueue>,
        reply: Reply<JoinOutcome>,
    },
    Send {
        key: RoomKey,
        outgoing: Outgoing,
        reply: Reply<SendOutcome>,
    },
    Ask {
        room: Option<RoomKey>,
        question: Question,
        reply: Reply<AskOutcome>,
    },
    Leave {
        key: RoomKey,
        reply: Reply<LeaveOutcome>,
    },
    /// There is a new read mark in this room's events.
    Mark(RoomKey),
    Signal {
        to: Target,
        key: u32,
        payload: Bytes,
        _permit: Permit,
    },
    /// The device is connected through another network.
    Network(Network),
    /// Every handle of this room was dropped.
    Abandon(RoomKey),
    /// Say goodbye; the sender is dropped when that is done.
    Close(oneshot::Sender<()>),
    /// Every handle of the client was dropped.
    Quit,
}

pub(super) type JoinOutcome = Result<RoomInfo, RequestError>;
pub(super) type SendOutcome = Result<Acked, PublishError>;
pub(super) type AskOutcome = Result<Answer, RequestError>;
pub(super) type LeaveOutcome = Result<Seq, RequestError>;

/// Where an answer goes, and the place that its request takes meanwhile.
pub(super) struct Reply<T> {
    pub(super) sender: oneshot::Sender<T>,
    pub(super) _permit: Permit,
}

/// A place among a bounded number; free again when dropped.
pub(super) struct Permit(Arc<AtomicUsize>);

impl Permit {
    pub(super) fn take(places: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        places.fetch_update(SeqCst, SeqCst, |taken| (taken < max).then_some(taken + 1)).ok()?;
        Some(Self(places.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[derive(Default)]
struct Inbox {
    commands: Vec<Command>,
    driver: Option<Waker>,
    closed: Option<(Code, String)>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    /// Events that wait for the application, over all rooms.
    pub(super) queued: AtomicUsize,
    /// Whether the driver waits until there are fewer.
    pub(super) paused: AtomicBool,
    pub(super) sends: Arc<AtomicUsize>,
    pub(super) requests: Arc<AtomicUsize>,
    /// Signals that wait for the driver.
    pub(super) signaling: Arc<AtomicUsize>,
    /// Signals for the user; gone once the client is closed.
    signals: Mutex<Option<broadcast::Sender<Signal>>>,
    stats: Mutex<Stats>,
    /// The server that said welcome last.
    pub(super) server: Mutex<Option<SocketAddr>>,
    pub(super) room_keys: RoomKeys,
    /// Rooms that nobody joined.
    pub(super) attached: AttachedQueue,
    /// Watched users that changed.
    pub(super) watched: WatchedQueue,
    pub(super) events_max: usize,
    pub(super) sends_max: usize,
    pub(super) requests_max: usize,
}

impl Shared {
    pub(super) fn new(events_max: usize, sends_max: usize, requests_max: usize) -> Self {
        let signals = Mutex::new(Some(broadcast::Sender::new(SIGNALS_MAX)));
        Self { events_max, sends_max, requests_max, signals, ..Self::default() }
    }

    /// Hands a command to the driver; if the client is closed, says why.
    pub(super) fn command(&self, command: Command) -> Result<(), (Code, String)> {
        let driver = {
            let mut inbox = lock(&self.inbox);
            if let Some(closed) = &inbox.closed {
                // The command is dropped behind the lock's back: it may hold what wants the lock.
                return Err(closed.clone());
            }
            inbox.commands.push(command);
            inbox.driver.take()
        };
        driver.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// The driver's end: moves all commands to `into`, or remembers whom to wake.
    pub(super) fn take_commands(&self, into: &mut Vec<Command>, cx: &Context<'_>) {
        let mut inbox = lock(&self.inbox);
        std::mem::swap(&mut inbox.commands, into);
        match &mut inbox.driver {
            Some(driver) => driver.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// No command is taken from here on. The first reason stays.
    pub(super) fn close(&self, code: Code, message: &str) {
        let commands = {
            let mut inbox = lock(&self.inbox);
            inbox.closed.get_or_insert_with(|| (code, message.to_owned()));
            std::mem::take(&mut inbox.commands)
        };
        drop(commands);
        lock(&self.signals).take();
        self.attached.end();
        self.watched.end();
    }

    /// The signals for the user from now on; at their end already if the client is closed.
    pub(super) fn signals(&self) -> broadcast::Receiver<Signal> {
        let ended = || broadcast::Sender::new(1).subscribe();
        lock(&self.signals).as_ref().map_or_else(ended, broadcast::Sender::subscribe)
    }

    /// Somebody signals to the user.
    pub(super) fn push_signal(&self, signal: Signal) {
        if let Some(signals) = &*lock(&self.signals) {
            // That nobody listens is no error.
            let _ = signals.send(signal);
        }
    }

    /// Why the client is closed, for a request that was dropped by a driver that is no more.
    pub(super) fn why_closed(&self) -> (Code, String) {
        lock(&self.inbox).closed.clone().unwrap_or_else(|| (Code::GoingAway, "the client's task was stopped".into()))
    }

    pub(super) fn stats(&self) -> Stats {
        *lock(&self.stats)
    }

    pub(super) fn publish_stats(&self, stats: Stats) {
        *lock(&self.stats) = stats;
    }

    fn taken(&self, events: usize) {
        let queued = self.queued.fetch_sub(events, SeqCst) - events;
        if queued <= self.events_max / 2 && self.paused.load(SeqCst) {
            let driver = lock(&self.inbox).driver.take();
            driver.into_iter().for_each(Waker::wake);
        }
    }
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    /// Behind the events, not counted among them, and bounded by themselves.
    standing: Option<Standing>,
    presence: Option<RoomPresence>,
    signals: VecDeque<Signal>,
    /// Up to where the application has read, and whether the driver is about to look.
    mark: Seq,
    mark_told: bool,
    position: (Epoch, Seq),
    ended: bool,
    /// Nobody listens: nothing is kept.
    deaf: bool,
    listener: Option<Waker>,
}

/// The events of one room on their way to the application.
#[derive(Default)]
pub(super) struct EventQueue(Mutex<Queue>);

impl EventQueue {
    /// The room is joined at this position.
    pub(super) fn start(&self, position: (Epoch, Seq)) {
        lock(&self.0).position = position;
    }

    pub(super) fn position(&self) -> (Epoch, Seq) {
        lock(&self.0).position
    }

    pub(super) fn push(&self, event: Event, position: (Epoch, Seq), shared: &Shared) {
        let listener = {
            let mut queue = lock(&self.0);
            queue.position = position;
            if queue.deaf {
                return;
            }
            if let Event::Closed { .. } = event {
                // Nothing comes behind it.
                queue.clear_aside();
            }
            // An application that takes nothing while the client comes and goes does not pile up what it missed.
            if let Event::Disconnected { .. } = event
                && queue.ends_with_a_return()
            {
                let len = queue.events.len() - 2;
                queue.events.truncate(len);
                shared.queued.fetch_sub(2, SeqCst);
            }
            queue.events.push_back(event);
            shared.queued.fetch_add(1, SeqCst);
            queue.listener.take()
        };
        listener.into_iter().for_each(Waker::wake);
    }

    /// Where the user's read cursor stands; an older word that still waits means nothing any more.
    pub(super) fn push_standing(&self, standing: Standing) {
        self.push_aside(|queue| queue.standing = Some(standing));
    }

    /// Who is in the room; what still waits of that and this are one change.
    pub(super) fn push_presence(&self, presence: RoomPresence) {
        self.push_aside(|queue| match &mut queue.presence {
            Some(waiting) => waiting.merge(presence),
            none => *none = Some(presence),
        });
    }

    /// Somebody signals: the newest of each sender and key waits, and of too many the newest.
    pub(super) fn push_signal(&self, signal: Signal) {
        self.push_aside(|queue| {
            let of = |it: &Signal| (it.sender.clone(), it.device_tag, it.key);
            queue.signals.retain(|other| of(other) != of(&signal));
            if queue.signals.len() == SIGNALS_MAX {
                queue.signals.pop_front();
            }
            queue.signals.push_back(signal);
        });
    }

    fn push_aside(&self, push: impl FnOnce(&mut Queue)) {
        let listener = {
            let mut queue = lock(&self.0);
            if queue.deaf {
                return;
            }
            push(&mut queue);
            queue.listener.take()
        };
        listener.into_iter().for_each(Waker::wake);
    }

    /// The application has read up to here. Whether the driver has to be told to look.
    pub(super) fn want_mark(&self, seq: Seq) -> bool {
        let mut queue = lock(&self.0);
        queue.mark = queue.mark.max(seq);
        !std::mem::replace(&mut queue.mark_told, true)
    }

    /// Up to where the application has read.
    pub(super) fn take_mark(&self) -> Seq {
        let mut queue = lock(&self.0);
        queue.mark_told = false;
        std::mem::take(&mut queue.mark)
    }

    pub(super) fn end(&self) {
        let listener = {
            let mut queue = lock(&self.0);
            queue.ended = true;
            queue.listener.take()
        };
        listener.into_iter().for_each(Waker::wake);
    }

    pub(super) fn poll_next(&self, cx: &Context<'_>, shared: &Shared) -> Poll<Option<Event>> {
        let mut queue = lock(&self.0);
        if let Some((event, counted)) = queue.pop() {
            drop(queue);
            shared.taken(counted);
            return Poll::Ready(Some(event));
        }
        if queue.ended {
            return Poll::Ready(None);
        }
        match &mut queue.listener {
            Some(listener) => listener.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    pub(super) fn try_next(&self, shared: &Shared) -> Option<Event> {
        let (event, counted) = lock(&self.0).pop()?;
        shared.taken(counted);
        Some(event)
    }

    /// The application dropped its end.
    pub(super) fn deafen(&self, shared: &Shared) {
        let events = {
            let mut queue = lock(&self.0);
            queue.deaf = true;
            queue.clear_aside();
            std::mem::take(&mut queue.events)
        };
        shared.taken(events.len());
    }
}

impl Queue {
    fn clear_aside(&mut self) {
        (self.standing, self.presence, self.signals) = (None, None, VecDeque::new());
    }

    fn ends_with_a_return(&self) -> bool {
        let mut last = self.events.iter().rev();
        matches!((last.next(), last.next()), (Some(Event::Reconnected), Some(Event::Disconnected { .. })))
    }

    /// The next event, and how many of those that are counted it is.
    fn pop(&mut self) -> Option<(Event, usize)> {
        let event = self.events.pop_front();
        if self.events.is_empty() && self.events.capacity() > 64 {
            self.events = VecDeque::new(); // An idle client owns little.
        }
        if let Some(event) = event {
            return Some((event, 1));
        }
        if let Some(standing) = self.standing.take() {
            return Some((Event::Marked(standing), 0));
        }
        if let Some(presence) = self.presence.take() {
            return Some((Event::Presence(presence), 0));
        }
        self.signals.pop_front().map(|signal| (Event::Signal(signal), 0))
    }
}

/// A panic elsewhere leaves these as usable as they were: every change is whole before anything can panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
