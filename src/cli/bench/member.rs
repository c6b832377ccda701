//! One client under load: publishes if it is its part to, and checks all that comes.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use parlor::client::{Acked, Client, Event, Message, Outgoing, PublishError, Stats};
use parlor_protocol::Seq;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    check::{Sent, Stream, Wrong},
    crowd::Seat,
    meter::Meter,
    options::Cast,
    payload::{Payloads, Stamp},
};
use crate::cli::faults::Faults;

/// How long a member waits for what it is still owed while nothing comes at all.
const STALL: Duration = Duration::from_secs(10);

/// A publisher whose messages are refused for good so often in a row stops.
const REFUSALS_MAX: u32 = 100;

/// Events that are taken before acks and dues have their turn.
const BATCH_MAX: usize = 256;

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Publish.
    Load,
    /// Publish no more; wait for the acks.
    Settle,
    /// All acks came, or will not. Wait for what is owed and leave.
    Leave,
}

/// What all clients share.
pub(crate) struct Stage {
    pub(crate) cast: Arc<Cast>,
    pub(crate) payloads: Payloads,
    pub(crate) meter: Meter,
    pub(crate) window: usize,
    pub(crate) phase: watch::Receiver<Phase>,
    /// The highest acknowledged seq of each room.
    pub(crate) tails: Vec<AtomicU64>,
}

/// What a client came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) client: usize,
    pub(crate) stream: Stream,
    pub(crate) sent: Sent,
    /// Messages that were due and not sent, because the window was full up to the end.
    pub(crate) unsent: u64,
    /// Messages refused for good, by code.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Messages whose outcome is unknown.
    pub(crate) unanswered: u64,
    /// Whether it left the room at the end and was told up to where it had been sent everything.
    pub(crate) left: bool,
    pub(crate) stats: Stats,
    pub(crate) faults: Faults,
}

/// How a publisher comes to know what is due.
pub(crate) enum Duty {
    /// It only listens.
    Listen,
    /// At these times.
    Paced(mpsc::UnboundedReceiver<u64>),
    /// As fast as the acks allow.
    Flood,
}

type Settled = (Stamp, Result<Acked, PublishError>);

struct Member {
    stage: Arc<Stage>,
    seat: Seat,
    duty: Duty,
    backlog: VecDeque<u64>,
    in_flight: FuturesUnordered<BoxFuture<'static, Settled>>,
    /// When those were due, by number.
    unanswered: BTreeMap<u32, u64>,
    /// By number: the seq that a delivery or an ack named first, until the other comes.
    own: HashMap<u32, Seq>,
    refusals: u32,
    over: bool,
    came: Vec<(u64, u64)>,
    outcome: Outcome,
}

/// Plays to the end. `settled` is dropped when all that was published is answered.
pub(crate) async fn play(stage: Arc<Stage>, seat: Seat, duty: Duty, settled: mpsc::Sender<()>) -> Outcome {
    let room = stage.cast.room(seat.client);
    let stream = Stream::new(seat.room.joined().tail, stage.cast.publishers(room));
    let outcome = Outcome {
        client: seat.client,
        stream,
        sent: Sent::default(),
        unsent: 0,
        refused: BTreeMap::new(),
        unanswered: 0,
        left: false,
        stats: Stats::default(),
        faults: Faults::at(format!("{} in {}", seat.connection.user(), seat.room.name())),
    };
    let mut member = Member {
        stage,
        seat,
        duty,
        backlog: VecDeque::new(),
        in_flight: FuturesUnordered::new(),
        unanswered: BTreeMap::new(),
        own: HashMap::new(),
        refusals: 0,
        over: false,
        came: Vec::new(),
        outcome,
    };
    member.work(settled).await;
    member.leave().await;
    member.hang_up().await
}

impl Member {
    async fn work(&mut self, settled: mpsc::Sender<()>) {
        let mut settled = Some(settled);
        let mut phase = self.stage.phase.clone();
        loop {
            let now = *phase.borrow_and_update();
            if now == Phase::Load {
                self.publish();
            } else if self.in_flight.is_empty() {
                settled = None;
            }
            if now == Phase::Leave {
                break;
            }
            tokio::select! {
                event = self.seat.events.next(), if !self.over => self.take(event),
                Some(settled) = self.in_flight.next(), if !self.in_flight.is_empty() => self.on_settled(settled),
                Some(due) = next_due(&mut self.duty) => self.backlog.push_back(due),
                changed = phase.changed() => if changed.is_err() { break },
            }
        }
        drop(settled);
        if let Duty::Paced(dues) = &mut self.duty {
            self.backlog.extend(std::iter::from_fn(|| dues.try_recv().ok()));
        }
        self.outcome.unsent = self.backlog.len() as u64;
        self.outcome.unanswered += self.in_flight.len() as u64;
        self.in_flight.clear();
        self.give_up();
    }

    /// What was not sent or not answered is in the latencies, too: the worst of them, or a stall would be in none.
    fn give_up(&self) {
        let (cast, meter, client) = (&self.stage.cast, &self.stage.meter, self.seat.client);
        let members = cast.members(cast.room(client)) as u64;
        self.backlog.iter().for_each(|due| meter.given_up(client, *due, members));
        self.unanswered.values().for_each(|due| meter.given_up(client, *due, 0));
    }

    /// Sends what is due, as far as the window allows.
    fn publish(&mut self) {
        let before = self.outcome.sent.count;
        while self.in_flight.len() < self.stage.window && self.refusals < REFUSALS_MAX && !self.over {
            let due = match &mut self.duty {
                Duty::Listen => break,
                Duty::Paced(_) => self.backlog.pop_front(),
                Duty::Flood => Some(self.stage.meter.now()),
            };
            let Some(due) = due else { break };
            let client = u32::try_from(self.seat.client).unwrap_or(u32::MAX);
            let stamp = Stamp { client, number: self.outcome.sent.count, due };
            let sending = self.seat.room.send(Outgoing::bytes(self.stage.payloads.write(stamp)));
            self.in_flight.push(Box::pin(async move { (stamp, sending.await) }));
            // Without an ack until there is one.
            self.outcome.sent.unacked.insert(stamp.number);
            self.unanswered.insert(stamp.number, due);
            self.outcome.sent.count += 1;
        }
        let sent = self.outcome.sent.count - before;
        if sent > 0 {
            self.stage.meter.sent(self.seat.client, sent.into());
        }
    }

    fn on_settled(&mut self, (stamp, result): Settled) {
        let unknown = matches!(&result, Err(error) if !matches!(error, PublishError::Refused { .. }));
        if !unknown {
            self.unanswered.remove(&stamp.number);
        }
        match result {
            Ok(acked) => {
                self.refusals = 0;
                self.outcome.sent.unacked.remove(&stamp.number);
                self.stage.meter.acked(self.seat.client, stamp.due);
                let tail = &self.stage.tails[self.stage.cast.room(self.seat.client)];
                tail.fetch_max(acked.seq, Ordering::AcqRel);
                self.compare_own(stamp.number, acked.seq);
            }
            Err(PublishError::Refused { code, message }) => {
                self.refusals += 1;
                if self.refusals == REFUSALS_MAX {
                    self.outcome.faults.note(|| format!("stops, every message is refused: {code}: {message}"));
                }
                *self.outcome.refused.entry(code.to_string()).or_default() += 1;
            }
            Err(_) => self.outcome.unanswered += 1,
        }
    }

    /// An ack and a delivery have to name the same seq for a message.
    fn compare_own(&mut self, number: u32, seq: Seq) {
        if let Some(other) = self.own.remove(&number) {
            if other != seq {
                self.outcome.stream.note(Wrong { corrupt: 1, ..Wrong::default() });
                self.outcome.faults.note(|| format!("own message {number} is seq {seq}, and also seq {other}"));
            }
        } else {
            self.own.insert(number, seq);
        }
    }

    /// Takes an event and those that wait behind it.
    fn take(&mut self, event: Option<Event>) {
        let mut next = Some(event);
        for _ in 0..BATCH_MAX {
            match next.take() {
                Some(Some(event)) => self.on_event(event),
                Some(None) => self.over = true,
                None => break,
            }
            next = self.seat.events.try_next().map(Some);
        }
        if let Some(Some(event)) = next {
            self.on_event(event);
        }
        self.stage.meter.delivered(self.seat.client, &self.came);
        self.came.clear();
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Message(message) => self.on_message(&message),
            Event::Gap(gap) => {
                self.outcome.stream.pass(gap.to);
                let why = gap.why;
                self.outcome.faults.note(|| format!("the server has no seq {} to {} ({why:?})", gap.from, gap.to));
            }
            Event::Closed { code, message } => {
                self.over = true;
                self.outcome.faults.note(|| format!("closed: {code}: {message}"));
            }
            Event::Disconnected { .. }
            | Event::Reconnected
            | Event::Marked(_)
            | Event::Presence(_)
            | Event::Signal(_) => {}
        }
    }

    fn on_message(&mut self, message: &Message) {
        let now = self.stage.meter.now();
        let stamp = self.stage.payloads.read(&message.payload);
        let cast = &self.stage.cast;
        let from = stamp.and_then(|stamp| {
            let client = stamp.client as usize;
            let known = cast.users.get(client)? == &message.sender;
            let here = cast.room(client) == cast.room(self.seat.client);
            (known && here).then(|| (cast.seat(client), stamp))
        });
        if let Some(wrong) = self.outcome.stream.message(message.seq, from) {
            self.outcome.faults.note(|| wrong);
        }
        if let Some(stamp) = stamp {
            self.came.push((stamp.due, now));
            if message.own {
                self.compare_own(stamp.number, message.seq);
            }
        }
    }

    /// Waits for everything up to the room's tail, and leaves the room: behind the answer nothing comes any more.
    async fn leave(&mut self) {
        let tail = self.stage.tails[self.stage.cast.room(self.seat.client)].load(Ordering::Acquire);
        while !self.over && self.outcome.stream.last() < tail {
            match timeout(STALL, self.seat.events.next()).await {
                Ok(event) => self.take(event),
                Err(_) => {
                    let last = self.outcome.stream.last();
                    let secs = STALL.as_secs();
                    self.outcome.faults.note(|| format!("nothing came for {secs} s after seq {last} of {tail}"));
                    break;
                }
            }
        }
        let room = self.seat.room.clone();
        let mut leaving = pin!(room.leave().fuse());
        // The answer stands behind events on the same connection, so those must be taken for it to come.
        loop {
            let came = timeout(STALL, async {
                tokio::select! {
                    left = &mut leaving => Err(left),
                    event = self.seat.events.next(), if !self.over => Ok(event),
                }
            });
            match came.await {
                Ok(Ok(event)) => self.take(event),
                Ok(Err(left)) => {
                    self.outcome.left = left.is_ok();
                    if let Err(error) = left {
                        self.outcome.faults.note(|| format!("cannot leave: {error}"));
                    }
                    break;
                }
                Err(_) => {
                    self.outcome.faults.note(|| format!("no answer to the leave within {} s", STALL.as_secs()));
                    return;
                }
            }
        }
        while self.outcome.left && !self.over {
            match timeout(STALL, self.seat.events.next()).await {
                Ok(event) => self.take(event),
                Err(_) => return,
            }
        }
    }

    /// Closes the connection. The client library mends what a server does wrong, and counts it: it drops what comes
    /// twice, puts in order, and fetches what was left out.
    async fn hang_up(self) -> Outcome {
        let Self { seat, mut outcome, .. } = self;
        let Seat { connection, room, events, .. } = seat;
        let stats = connection.stats();
        let Stats { duplicates, holes, late, .. } = stats;
        let left_out = holes.saturating_sub(late);
        outcome.stream.note(Wrong { repeated: duplicates, out_of_order: late, left_out, ..Wrong::default() });
        if duplicates + holes > 0 {
            outcome.faults.note(|| {
                format!("{duplicates} messages repeated, {late} out of order, {left_out} times some left out")
            });
        }
        outcome.stats = stats;
        drop((room, events));
        Client::close(connection).await;
        outcome
    }
}

async fn next_due(duty: &mut Duty) -> Option<u64> {
    match duty {
        Duty::Paced(dues) => dues.recv().await,
        Duty::Listen | Duty::Flood => None,
    }
}
