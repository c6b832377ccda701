//! The task that owns the socket. It carries bytes, commands and time to the state and runs the effects; it decides
//! nothing but when to read.

use std::{
    collections::HashMap,
    future::Future,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{Arc, atomic::Ordering::SeqCst},
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf, BytesMut};
use parlor_protocol::{Code, DeviceTag, Name, Nonce, frame::answer_body_max, split};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    attached::Arrival,
    dialing::{Dialed, Dialing, Stream},
    effect::{Effect, Now, RoomKey},
    error::{ConnectError, RequestError},
    event::RoomInfo,
    keeper::Keeper,
    question::Ask,
    shared::{Command, EventQueue, Shared, lock},
    state::State,
    waiting::{Waiter, Waiters},
    wire::{self, WireError},
};

/// Read at once, into a buffer that is on the stack only while reading: an idle client owns none.
const READ_BYTES: usize = 16 << 10;

/// After this many rounds the driver lets other tasks run, even if it has more to do.
const ROUNDS_MAX: usize = 16;

enum Link {
    Down,
    Up(Box<dyn Stream>),
}

/// See the module. A future that ends with the client.
pub(super) struct Driver {
    state: State,
    shared: Arc<Shared>,
    keeper: Keeper,
    started: Instant,
    link: Link,
    dialing: Dialing,
    /// Bytes that were read and are not a whole frame yet, or wait until the application takes events.
    input: BytesMut,
    flushed: bool,
    /// The connection takes no more bytes. What it still brings (a `Close`, say) is read all the same.
    deaf: bool,
    paused: bool,
    commands: Vec<Command>,
    waiters: Waiters,
    events: HashMap<RoomKey, Arc<EventQueue>>,
    sleep: Option<Pin<Box<Sleep>>>,
    ready: Option<oneshot::Sender<Result<DeviceTag, ConnectError>>>,
    closing: Vec<oneshot::Sender<()>>,
    done: bool,
}

impl Driver {
    /// A driver that dials, or one over a stream that is there already.
    pub(super) fn new(
        state: State,
        shared: Arc<Shared>,
        keeper: Keeper,
        stream: Option<Box<dyn Stream>>,
        ready: oneshot::Sender<Result<DeviceTag, ConnectError>>,
    ) -> Self {
        let mut driver = Self {
            state,
            shared,
            keeper,
            started: Instant::now(),
            link: Link::Down,
            dialing: Dialing::default(),
            input: BytesMut::new(),
            flushed: true,
            deaf: false,
            paused: false,
            commands: Vec::new(),
            waiters: Waiters::default(),
            events: HashMap::new(),
            sleep: None,
            ready: Some(ready),
            closing: Vec::new(),
            done: false,
        };
        let now = driver.now();
        match stream {
            Some(stream) => {
                driver.link = Link::Up(stream);
                driver.state.handle_over(now);
            }
            None => driver.state.handle_start(now),
        }
        driver.run_effects();
        driver
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { at: self.started.elapsed(), unix_us: u64::try_from(unix.as_micros()).unwrap_or(0) }
    }

    /// One round; returns whether anything happened.
    fn round(&mut self, cx: &mut Context<'_>) -> bool {
        // Everything happens, whatever happened before it.
        self.take_commands(cx) | self.dial(cx) | self.write(cx) | self.read(cx) | self.pass_time(cx)
    }

    fn take_commands(&mut self, cx: &Context<'_>) -> bool {
        let mut commands = std::mem::take(&mut self.commands);
        self.shared.take_commands(&mut commands, cx);
        let any = !commands.is_empty();
        if any {
            let now = self.now();
            for command in commands.drain(..) {
                self.on_command(now, command);
            }
            self.run_effects();
        }
        if commands.capacity() <= 64 {
            self.commands = commands;
        }
        any
    }

    fn on_command(&mut self, now: Now, command: Command) {
        match command {
            Command::Join { key, name, from, events, reply } => {
                let kept = match self.keeper.load(key, &name) {
                    Ok(kept) => kept,
                    Err(error) => {
                        events.end();
                        // Nobody waits if the join was dropped.
                        let _ = reply.sender.send(Err(RequestError::Outbox(error.to_string())));
                        return;
                    }
                };
                self.events.insert(key, events);
                let ticket = self.waiters.add(Waiter::Join(reply));
                self.state.handle_join(now, key, ticket, name, from);
                self.state.handle_restored(now, key, kept);
            }
            Command::Send { key, outgoing, reply } => {
                let ticket = self.waiters.add(Waiter::Send(reply));
                self.state.handle_send(now, key, ticket, outgoing);
            }
            Command::Ask { room, question, reply } => {
                let ticket = self.waiters.add(Waiter::Ask(reply));
                self.state.handle_ask(now, Ask { ticket, room, question });
            }
            Command::Mark(key) => {
                if let Some(events) = self.events.get(&key) {
                    self.state.handle_mark(now, key, events.take_mark());
                }
            }
            Command::Signal { to, key, payload, .. } => self.state.handle_signal(&to, key, &payload),
            Command::Network(network) => self.state.handle_network(now, network),
            Command::Leave { key, reply } => {
                let ticket = self.waiters.add(Waiter::Leave(reply));
                self.state.handle_leave(now, key, Some(ticket));
            }
            Command::Abandon(key) => {
                if let Some(events) = self.events.get(&key) {
                    // Also where a join was dropped before it had brought anybody who listens.
                    events.deafen(&self.shared);
                }
                self.state.handle_leave(now, key, None);
            }
            Command::Close(done) => {
                self.closing.push(done);
                self.state.handle_close(now);
            }
            Command::Quit => self.state.handle_close(now),
        }
    }

    fn dial(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(dialed) = self.dialing.poll(cx) else { return false };
        let now = self.now();
        match dialed {
            Dialed::Resolved(server, found) => self.state.handle_resolved(now, server, found),
            Dialed::Connected(attempt, stream) => {
                self.link = Link::Up(stream);
                self.state.handle_connected(now, attempt);
            }
            Dialed::Failed(attempt, error) => self.state.handle_unreachable(now, attempt, error),
        }
        self.run_effects();
        true
    }

    fn write(&mut self, cx: &mut Context<'_>) -> bool {
        let Link::Up(stream) = &mut self.link else { return false };
        let output = self.state.output();
        let mut any = false;
        while !output.is_empty() && !self.deaf {
            match Pin::new(&mut *stream).poll_write(cx, output) {
                Poll::Ready(Ok(written)) if written > 0 => {
                    output.advance(written);
                    (any, self.flushed) = (true, false);
                }
                Poll::Ready(_) => self.deaf = true,
                Poll::Pending => break,
            }
        }
        if self.deaf {
            output.clear();
        } else if !self.flushed {
            self.flushed = Pin::new(stream).poll_flush(cx).is_ready();
        }
        if output.is_empty() && output.capacity() > 0 {
            *output = BytesMut::new();
        }
        any
    }

    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = self.parse();
        if !self.may_read() {
            return any;
        }
        let Link::Up(stream) = &mut self.link else { return any };
        let mut scratch = [MaybeUninit::<u8>::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut scratch);
        let lost = match Pin::new(stream).poll_read(cx, &mut buffer) {
            Poll::Pending => return any,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => None,
            Poll::Ready(Ok(())) => Some("the server ended it without a word".to_owned()),
            Poll::Ready(Err(error)) => Some(error.to_string()),
        };
        any = true;
        if let Some(reason) = lost {
            let now = self.now();
            self.state.handle_lost(now, reason, false);
            self.run_effects();
        } else {
            self.input.extend_from_slice(buffer.filled());
            self.parse();
        }
        any
    }

    /// Hands whole frames to the state, for as long as the application has room for what they bring.
    fn parse(&mut self) -> bool {
        let mut any = false;
        let now = self.now();
        while !self.input.is_empty() && self.may_read() {
            let frame = match split(&self.input, answer_body_max) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    self.unreadable(now, &error.into());
                    return true;
                }
            };
            let size = frame.size();
            match wire::read(&frame) {
                Ok(Some(incoming)) => self.state.handle_frame(now, frame.header.request, incoming),
                Ok(None) => {}
                Err(error) => {
                    self.unreadable(now, &error);
                    return true;
                }
            }
            self.input.advance(size);
            self.run_effects();
            any = true;
        }
        if self.input.is_empty() && self.input.capacity() > 0 {
            self.input = BytesMut::new();
        }
        any
    }

    fn unreadable(&mut self, now: Now, error: &WireError) {
        self.state.handle_lost(now, error.to_string(), true);
        self.run_effects();
    }

    /// Whether the application has room for more, or what comes now is not for it.
    fn may_read(&mut self) -> bool {
        let max = self.shared.events_max.max(1);
        let queued = self.shared.queued.load(SeqCst);
        if self.paused && queued <= max / 2 {
            self.pause(false);
        } else if !self.paused && queued >= max {
            self.pause(true);
            // Whoever took events before the flag was up has not woken anybody.
            if self.shared.queued.load(SeqCst) <= max / 2 {
                self.pause(false);
            }
        }
        !self.paused || !self.state.is_online()
    }

    fn pause(&mut self, paused: bool) {
        self.paused = paused;
        self.shared.paused.store(paused, SeqCst);
        let now = self.now();
        self.state.handle_reading(now, !paused);
    }

    fn pass_time(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(at) = self.state.timeout() else { return false };
        // A far time stands for never; the timer must be able to add it.
        let at = self.started + at.min(Duration::from_secs(86_400 * 365));
        match &mut self.sleep {
            // One that fires too early costs a look; one that is moved with every publish costs more.
            Some(sleep) if sleep.deadline() <= at && !sleep.is_elapsed() => {}
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(sleep_until(at))),
        }
        let Some(sleep) = &mut self.sleep else { return false };
        if sleep.as_mut().poll(cx).is_pending() {
            return false;
        }
        let now = self.now();
        self.state.handle_timeout(now);
        self.run_effects();
        true
    }

    fn run_effects(&mut self) {
        // Before the events that they count: whoever has an event finds it counted.
        self.shared.publish_stats(self.state.stats());
        while let Some(effect) = self.state.poll() {
            match effect {
                Effect::Resolve(server, name) => self.dialing.resolve(server, name),
                Effect::Dial(attempt, address) => self.dialing.connect(attempt, address),
                Effect::GiveUp(attempt) => self.dialing.give_up(attempt),
                Effect::Welcomed(server) => *lock(&self.shared.server) = server,
                Effect::HangUp => {
                    self.link = Link::Down;
                    self.dialing.clear();
                    self.input.clear();
                    (self.flushed, self.deaf) = (true, false);
                }
                Effect::Ready(tag) => {
                    if let Some(ready) = self.ready.take() {
                        // Nobody waits if the connect was dropped; then every handle is, and `Quit` follows.
                        let _ = ready.send(Ok(tag));
                    }
                }
                Effect::Failed(error) => {
                    if let Some(ready) = self.ready.take() {
                        let _ = ready.send(Err(error));
                    }
                    self.done = true;
                }
                Effect::Event(room, event, position) => {
                    if let Some(events) = self.events.get(&room) {
                        events.push(event, position, &self.shared);
                    }
                }
                Effect::Marked(room, standing) => {
                    if let Some(events) = self.events.get(&room) {
                        events.push_standing(standing);
                    }
                }
                Effect::Presence(user) => self.shared.watched.push(user),
                Effect::Told(users) => self.shared.watched.forget(&users),
                Effect::RoomPresence(room, presence) => {
                    if let Some(events) = self.events.get(&room) {
                        events.push_presence(presence);
                    }
                }
                Effect::Signal(None, signal) => self.shared.push_signal(signal),
                Effect::Signal(Some(room), signal) => {
                    if let Some(events) = self.events.get(&room) {
                        events.push_signal(signal);
                    }
                }
                Effect::Keep(room, nonce, message) => {
                    let kept = self.keeper.keep(room, nonce, &message);
                    self.on_kept(room, nonce, kept);
                }
                Effect::Renumber(room, from, to) => {
                    let kept = self.keeper.renumber(room, from, to);
                    self.on_kept(room, to, kept);
                }
                Effect::Forget(room, nonce) => {
                    if let Err(error) = self.keeper.forget(room, nonce) {
                        tracing::error!(%error, nonce, "a message that is done with is still in the outbox");
                        self.state.handle_not_forgotten();
                    }
                }
                Effect::Stalled(ticket) => {
                    self.waiters.stall(ticket);
                }
                Effect::EventsEnd(room) => {
                    self.keeper.leave(room);
                    if let Some(events) = self.events.remove(&room) {
                        if self.shared.attached.forget(room) {
                            // Over before the application had taken it.
                            events.deafen(&self.shared);
                        }
                        events.end();
                    }
                }
                Effect::Attached(room, name, info) => self.on_attached(room, name, info),
                Effect::Ended(code, message) => {
                    self.shared.close(code, &message);
                    self.done = true;
                }
                Effect::Joined(ticket, room, info) => {
                    if let Some(events) = self.events.get(&room) {
                        events.start(self.state.position(room).unwrap_or((info.epoch, info.cursor)));
                    }
                    self.waiters.answer(ticket, effect);
                }
                Effect::Answered(ticket, _)
                | Effect::Left(ticket, _)
                | Effect::Refused(ticket, _)
                | Effect::Sent(ticket, _) => self.waiters.answer(ticket, effect),
            }
        }
    }

    /// A room that nobody joined: it gets its events and what is kept for it, and goes to the application.
    fn on_attached(&mut self, room: RoomKey, name: Name, info: RoomInfo) {
        let now = self.now();
        let events = Arc::new(EventQueue::default());
        events.start(self.state.position(room).unwrap_or((info.epoch, info.cursor)));
        match self.keeper.load(room, &name) {
            Ok(kept) => {
                self.events.insert(room, events.clone());
                self.shared.attached.push(Arrival { room, name, info, events });
                self.state.handle_restored(now, room, kept);
            }
            Err(error) => {
                // As with a join: what is sent to it would overtake what is kept.
                tracing::error!(room = &*name, %error, "a room is left, since the outbox cannot be read");
                self.state.handle_leave(now, room, None);
            }
        }
    }

    fn on_kept(&mut self, room: RoomKey, nonce: Nonce, kept: io::Result<()>) {
        let now = self.now();
        match kept {
            Ok(()) => self.state.handle_kept(now, room, nonce),
            Err(error) => self.state.handle_not_kept(now, room, nonce, error.to_string()),
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = self.get_mut();
        for _ in 0..ROUNDS_MAX {
            let any = driver.round(cx);
            if driver.done {
                return Poll::Ready(());
            }
            if !any {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Driver {
    /// Also when the runtime drops the task: nobody waits for ever.
    fn drop(&mut self) {
        self.shared.close(Code::GoingAway, "the client's task was stopped");
        for events in self.events.values() {
            events.end();
        }
    }
}
