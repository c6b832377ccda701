//! One client of a replay: a task of its own that takes its cues in order, sends without waiting for the ack before, and
//! checks everything that it receives.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use indicatif::ProgressBar;
use parlor::client::{Acked, Client, Config, Event, Events, Outgoing, PublishError, Room, Stats};
use parlor_protocol::{
    Name, Nonce, Seq,
    message::{DeviceClass, GapReason, JoinFrom},
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot, watch},
    time::timeout,
};

use super::stream::{Stream, Totals};
use crate::cli::faults::Faults;

/// How long a client waits for what it is still owed while nothing comes at all.
const STALL: Duration = Duration::from_secs(60);

/// How long a message is sent again and again on one connection: thousands of clients share a machine with their server
/// here, and a late ack is no lost one.
const ACK_PATIENCE: Duration = Duration::from_secs(120);

/// How long a connection is tried for before its client gives up: servers may be down for a while.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);

/// How long the first connection of all is tried for: nobody is there who might come back.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);

/// The longest wait between two attempts to come back, well below [`STALL`].
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What a client is to do.
pub(crate) enum Cue {
    /// Join the room. Both are held until that is done.
    Join(OwnedSemaphorePermit, oneshot::Sender<()>),
    /// Say the message of this number.
    Say(usize, Outgoing, Ticket),
    /// Leave the room, and disconnect if it is the last thing to do.
    Leave { last: bool },
}

/// How far the messages of a room are.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    settled: AtomicUsize,
    newest: AtomicU64,
    changed: Notify,
}

impl Tally {
    /// Waits until `messages` were acknowledged or given up. Returns the highest seq of their acks.
    pub(crate) async fn all_settled(&self, messages: usize) -> Seq {
        loop {
            let changed = self.changed.notified();
            if self.settled.load(Ordering::Acquire) >= messages {
                return self.newest.load(Ordering::Acquire);
            }
            changed.await;
        }
    }
}

/// A message's place among those that are not acknowledged. Dropping it frees the place, whatever became of the message.
pub(crate) struct Ticket {
    _permit: OwnedSemaphorePermit,
    tally: Arc<Tally>,
    bar: ProgressBar,
}

impl Ticket {
    /// For a message of the room of `tally`, shown on `bar` when it is settled.
    pub(crate) fn new(permit: OwnedSemaphorePermit, tally: Arc<Tally>, bar: ProgressBar) -> Self {
        Self { _permit: permit, tally, bar }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.tally.settled.fetch_add(1, Ordering::AcqRel);
        // There is one waiter, the room's director; a permit is kept for it if it does not wait yet.
        self.tally.changed.notify_one();
        self.bar.inc(1);
    }
}

/// What a client came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// By message number: the seq and nonce of its ack.
    pub(crate) acks: Vec<(usize, Seq, Nonce)>,
    /// By message number: why it was not acknowledged.
    pub(crate) failures: Vec<(usize, String)>,
    /// What it received.
    pub(crate) totals: Totals,
    /// What else went wrong.
    pub(crate) faults: Faults,
}

/// Who a client is and where it goes.
#[derive(Clone)]
pub(crate) struct Part {
    /// `host:port`.
    pub(crate) server: String,
    /// The user.
    pub(crate) user: Name,
    /// The device: one of this run and room, so that no other connection pushes it out.
    pub(crate) device: Name,
    /// The room.
    pub(crate) room: Name,
    /// How long a message waits for its ack before it is sent again.
    pub(crate) ack_timeout: Duration,
}

impl Part {
    /// Connects, the first of all: a server that is not there is told within seconds.
    pub(crate) async fn connect_first(&self) -> anyhow::Result<Client> {
        let mut config = self.config();
        config.connect_patience = FIRST_PATIENCE;
        config.connect_timeout = Duration::from_secs(5);
        Ok(Client::connect(config).await?)
    }

    /// Connects. Servers may be down for a while.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(self.config()).await?)
    }

    fn config(&self) -> Config {
        let mut config = Config::new(self.server.clone(), self.user.clone());
        config.device = self.device.clone();
        config.device_class = DeviceClass::Bot;
        config.connect_patience = CONNECT_PATIENCE;
        config.ack_timeout = self.ack_timeout;
        config.ack_retries = (ACK_PATIENCE.as_millis() / self.ack_timeout.as_millis().max(1)).clamp(1, 1_000) as u32;
        // And share its memory: thousands of full queues would be gigabytes.
        config.events_max = 256;
        config.connect_timeout = Duration::from_secs(15);
        config.backoff_max = BACKOFF_MAX;
        config
    }

    /// Connects, if it has not, and joins behind the tail.
    async fn join(&self, client: &mut Option<Client>) -> anyhow::Result<(Room, Events)> {
        let client = match client {
            Some(client) => client,
            None => client.insert(self.connect().await?),
        };
        client.join(&self.room, JoinFrom::Tail).await.context("cannot join")
    }
}

/// A time in the room.
struct Stay {
    room: Room,
    incoming: Incoming,
}

/// The receiving half of a [`Stay`].
struct Incoming {
    events: Events,
    stream: Stream,
    over: bool,
}

impl Incoming {
    /// Takes the next event; waits for ever once there are no more.
    async fn next(&mut self, faults: &mut Faults) {
        if self.over {
            std::future::pending::<()>().await;
        }
        match self.events.next().await {
            Some(Event::Message(message)) => self.stream.record(message.seq),
            Some(Event::Gap(gap)) if gap.why == GapReason::EXPIRED => self.stream.expired(gap.from, gap.to),
            Some(Event::Gap(gap)) => self.stream.gap(gap.from, gap.to, &format!("{:?}", gap.why)),
            Some(Event::Closed { code, message }) => {
                self.over = true;
                faults.note(|| format!("closed: {code}: {message}"));
            }
            Some(
                Event::Disconnected { .. }
                | Event::Reconnected
                | Event::Marked(_)
                | Event::Presence(_)
                | Event::Signal(_),
            ) => {}
            None => self.over = true,
        }
    }

    /// Takes events until `enough`, the last event, or a long silence.
    async fn drain(&mut self, enough: impl Fn(&Stream) -> bool, faults: &mut Faults) {
        while !self.over && !enough(&self.stream) {
            if timeout(STALL, self.next(faults)).await.is_err() {
                let last = self.stream.last();
                faults.note(|| format!("nothing came for {} s after {last}", STALL.as_secs()));
                return;
            }
        }
    }
}

type Settled = (usize, Result<Acked, PublishError>);

/// A client at work.
struct Member {
    part: Part,
    client: Option<Client>,
    stay: Option<Stay>,
    sending: FuturesUnordered<BoxFuture<'static, Settled>>,
    outcome: Outcome,
}

/// Plays a part: takes cues until there are no more, waits for the room's `end` (its last seq) and for everything up to
/// it, leaves, and closes its connection.
pub(crate) async fn play(
    part: Part,
    mut cues: mpsc::UnboundedReceiver<Cue>,
    mut end: watch::Receiver<Option<Seq>>,
) -> Outcome {
    let outcome = Outcome { faults: Faults::at(format!("{} in {}", part.user, part.room)), ..Outcome::default() };
    let mut member = Member { part, client: None, stay: None, sending: FuturesUnordered::new(), outcome };
    while let Some(cue) = member.attend(cues.recv()).await {
        member.perform(cue).await;
    }
    member.settle().await;
    if member.stay.is_some() {
        // An error means that the director is gone: then nobody wants to know the outcome either.
        let end = member.attend(end.wait_for(Option::is_some)).await.ok().and_then(|end| *end);
        member.leave(end).await;
    }
    member.hang_up().await;
    member.outcome
}

impl Member {
    /// Waits for `other`, and takes acks and events meanwhile.
    async fn attend<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                output = &mut other => return output,
                Some(settled) = self.sending.next(), if !self.sending.is_empty() => self.on_settled(settled),
                () = next_event(&mut self.stay, &mut self.outcome.faults) => {}
            }
        }
    }

    async fn perform(&mut self, cue: Cue) {
        match cue {
            Cue::Join(_permit, _joined) => match self.part.join(&mut self.client).await {
                Ok((room, events)) => {
                    let stream = Stream::new(room.joined().tail);
                    self.stay = Some(Stay { room, incoming: Incoming { events, stream, over: false } });
                }
                Err(error) => self.outcome.faults.note(|| crate::cli::explain(&error)),
            },
            Cue::Say(message, outgoing, ticket) => self.say(message, outgoing, ticket),
            Cue::Leave { last } => {
                self.settle().await;
                self.leave(None).await;
                if last {
                    self.hang_up().await;
                }
            }
        }
    }

    fn say(&mut self, message: usize, outgoing: Outgoing, ticket: Ticket) {
        let Some(stay) = &self.stay else {
            self.outcome.failures.push((message, "not sent, its nick is not in the room".to_owned()));
            return;
        };
        let sending = stay.room.send(outgoing);
        self.sending.push(Box::pin(async move {
            let outcome = sending.await;
            // Before the place is free: who waits for all places then knows the newest seq.
            if let Ok(acked) = &outcome {
                ticket.tally.newest.fetch_max(acked.seq, Ordering::AcqRel);
            }
            drop(ticket);
            (message, outcome)
        }));
    }

    fn on_settled(&mut self, (message, outcome): Settled) {
        match outcome {
            Ok(acked) => self.outcome.acks.push((message, acked.seq, acked.nonce)),
            Err(error) => self.outcome.failures.push((message, error.to_string())),
        }
    }

    /// Waits for all acks.
    async fn settle(&mut self) {
        while !self.sending.is_empty() {
            tokio::select! {
                Some(settled) = self.sending.next() => self.on_settled(settled),
                () = next_event(&mut self.stay, &mut self.outcome.faults) => {}
            }
        }
    }

    /// Leaves, behind `end` if there is one, and closes the account of this stay.
    async fn leave(&mut self, end: Option<Seq>) {
        let Some(Stay { room, mut incoming }) = self.stay.take() else { return };
        let faults = &mut self.outcome.faults;
        if let Some(end) = end {
            incoming.drain(|stream| stream.last() >= end, faults).await;
        }
        let mut leaving = pin!(room.leave());
        // The answer stands behind events on the same connection, so those must be taken for it to come.
        let left = loop {
            let came = timeout(STALL, async {
                tokio::select! {
                    left = &mut leaving => Some(left),
                    () = incoming.next(faults) => None,
                }
            });
            match came.await {
                Ok(Some(left)) => break left.map_err(|error| error.to_string()),
                Ok(None) => {}
                Err(_) => break Err(format!("no answer within {} s", STALL.as_secs())),
            }
        };
        let cursor = match left {
            Ok(cursor) => Some(cursor),
            Err(why) => {
                faults.note(|| format!("cannot leave: {why}"));
                None
            }
        };
        if cursor.is_some() {
            incoming.drain(|_| false, faults).await;
        }
        // Without an answer nobody knows what is owed, except at the end; the fault above tells of it.
        let owed = cursor.max(end).unwrap_or(incoming.stream.last());
        let (totals, first_fault) = incoming.stream.end(owed);
        self.outcome.totals.add(totals);
        if let Some(fault) = first_fault {
            faults.note(|| fault);
        }
    }
}

impl Member {
    /// Closes the connection. The client library mends what a server does wrong, and counts it: it drops what comes twice
    /// and fetches what was left out.
    async fn hang_up(&mut self) {
        let Some(client) = self.client.take() else { return };
        let Stats { duplicates, holes, resends, .. } = client.stats();
        self.outcome.totals.resends += resends;
        self.outcome.totals.duplicates += duplicates;
        self.outcome.totals.out_of_order += holes;
        if duplicates + holes > 0 {
            self.outcome.faults.note(|| format!("{duplicates} records came twice, {holes} before earlier ones"));
        }
        client.close().await;
    }
}

async fn next_event(stay: &mut Option<Stay>, faults: &mut Faults) {
    match stay {
        Some(stay) => stay.incoming.next(faults).await,
        None => std::future::pending().await,
    }
}
