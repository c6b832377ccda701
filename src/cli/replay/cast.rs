//! Plays the plans: gives every client its cues in the order of the log, within bounds, and gathers what came of it.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use futures_util::future;
use indicatif::ProgressBar;
use parlor::client::Outgoing;
use parlor_protocol::{Name, NameError, Nonce, Seq};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    member::{self, Cue, Part, Tally, Ticket},
    plan::{Action, RoomPlan, Step},
    stream::Totals,
};
use crate::cli::faults::Faults;

/// The most messages that wait for their acks, over all rooms.
pub(crate) const UNACKED_MAX: usize = 256;

/// The most clients that connect or join at once: more would only overflow the server's backlog of connections.
const JOINING_MAX: usize = 64;

/// What all rooms share.
pub(crate) struct Stage {
    server: String,
    /// Tells the devices of this run from those of others.
    run: String,
    unacked: Arc<Semaphore>,
    joining: Arc<Semaphore>,
    bar: ProgressBar,
    begin: Instant,
    speed: Option<f64>,
    ack_timeout: Duration,
}

/// What a room came to.
#[derive(Debug)]
pub(crate) struct RoomOutcome {
    /// By message number: the seq and nonce of its ack.
    pub(crate) acks: Vec<Option<(Seq, Nonce)>>,
    /// What its clients and readers received.
    pub(crate) totals: Totals,
    /// What went wrong.
    pub(crate) faults: Faults,
}

impl Stage {
    /// A stage on `server`. With a `speed`, steps happen at their times divided by it.
    pub(crate) fn new(
        server: String,
        run: String,
        bar: ProgressBar,
        speed: Option<f64>,
        ack_timeout: Duration,
    ) -> Self {
        let (unacked, joining) = (Arc::new(Semaphore::new(UNACKED_MAX)), Arc::new(Semaphore::new(JOINING_MAX)));
        Self { server, run, unacked, joining, bar, begin: Instant::now(), speed, ack_timeout }
    }

    /// The part of `user` in `room`, which is the room of this number.
    pub(crate) fn part(&self, user: &Name, number: usize, room: &Name) -> Result<Part, NameError> {
        let device = device(&self.run, number)?;
        let (server, ack_timeout) = (self.server.clone(), self.ack_timeout);
        Ok(Part { server, user: user.clone(), device, room: room.clone(), ack_timeout })
    }

    /// Plays the plan of the room of this number, with so many readers.
    ///
    /// # Errors
    /// Only if the replay itself is broken; what goes wrong with a client is in the outcome.
    pub(crate) async fn play(
        self: Arc<Self>,
        plan: Arc<RoomPlan>,
        number: usize,
        readers: usize,
    ) -> anyhow::Result<RoomOutcome> {
        let (end, _) = watch::channel(None);
        let mut company = Company {
            stage: self.clone(),
            number,
            plan: plan.clone(),
            tally: Arc::default(),
            end,
            clients: JoinSet::new(),
        };
        let audience = company.seat_readers(readers).await?;
        let mut cues: Vec<Option<mpsc::UnboundedSender<Cue>>> = vec![None; plan.clients.len()];
        for step in &plan.steps {
            self.pace(step).await;
            let cue = self.cue(&plan, step, &company.tally).await?;
            let client = match &mut cues[step.client] {
                Some(client) => client,
                none => none.insert(company.hire(self.part(&plan.clients[step.client], number, &plan.room)?)),
            };
            client.send(cue).ok().with_context(|| format!("{} stopped early", plan.clients[step.client]))?;
            if matches!(step.action, Action::Leave { last: true }) {
                cues[step.client] = None;
            }
        }
        let newest = company.tally.all_settled(plan.messages.len()).await;
        drop((cues, audience));
        company.end.send_replace(Some(newest));
        company.gather().await
    }

    async fn pace(&self, step: &Step) {
        if let Some(speed) = self.speed {
            sleep_until(self.begin + step.at.div_f64(speed)).await;
        }
    }

    /// Makes a step's cue when there is a place for it.
    async fn cue(&self, plan: &RoomPlan, step: &Step, tally: &Arc<Tally>) -> anyhow::Result<Cue> {
        Ok(match step.action {
            Action::Join => Cue::Join(self.joining.clone().acquire_owned().await?, oneshot::channel().0),
            Action::Leave { last } => Cue::Leave { last },
            Action::Say(message) => {
                let permit = self.unacked.clone().acquire_owned().await?;
                let ticket = Ticket::new(permit, tally.clone(), self.bar.clone());
                Cue::Say(message, Outgoing::text(&*plan.messages[message].text), ticket)
            }
        })
    }
}

/// The clients of one room.
struct Company {
    stage: Arc<Stage>,
    number: usize,
    plan: Arc<RoomPlan>,
    tally: Arc<Tally>,
    end: watch::Sender<Option<Seq>>,
    clients: JoinSet<member::Outcome>,
}

impl Company {
    fn hire(&mut self, part: Part) -> mpsc::UnboundedSender<Cue> {
        // Unbounded in name only: a cue takes a place among the unacknowledged or the joining, and leaves alternate with
        // joins.
        let (cues, receiver) = mpsc::unbounded_channel();
        self.clients.spawn(member::play(part, receiver, self.end.subscribe()));
        cues
    }

    /// Seats the readers and waits until all of them have joined. They stay until their cues end.
    async fn seat_readers(&mut self, readers: usize) -> anyhow::Result<Vec<mpsc::UnboundedSender<Cue>>> {
        let (mut audience, mut seated) = (vec![], vec![]);
        for reader in 1..=readers {
            let user: Name = format!("reader-{reader}").parse()?;
            let mut part = self.stage.part(&user, self.number, &self.plan.room)?;
            // A nick may be called like a reader, and then is another device of the same user.
            part.device = device(&format!("{}-reader", self.stage.run), self.number)?;
            let cues = self.hire(part);
            let (joined, on_joined) = oneshot::channel();
            let permit = self.stage.joining.clone().acquire_owned().await?;
            cues.send(Cue::Join(permit, joined)).ok().context("a reader stopped early")?;
            audience.push(cues);
            seated.push(on_joined);
        }
        // Each resolves by the drop of its sender.
        future::join_all(seated).await;
        Ok(audience)
    }

    async fn gather(mut self) -> anyhow::Result<RoomOutcome> {
        let mut room = RoomOutcome {
            acks: vec![None; self.plan.messages.len()],
            totals: Totals::default(),
            faults: Faults::default(),
        };
        while let Some(outcome) = self.clients.join_next().await {
            let outcome = outcome.context("a client of the replay failed")?;
            for (message, seq, nonce) in outcome.acks {
                room.acks[message] = Some((seq, nonce));
            }
            for (message, error) in outcome.failures {
                room.faults.note(|| format!("{}: {error}", self.plan.messages[message].origin));
            }
            room.totals.add(outcome.totals);
            room.faults.append(outcome.faults);
        }
        Ok(room)
    }
}

/// The device of all clients of a room: they are different users.
pub(crate) fn device(run: &str, room: usize) -> Result<Name, NameError> {
    Name::parse(&format!("replay-{run}-{room}"))
}

/// How long the slowest of `plans` takes at `speed`.
pub(crate) fn duration(plans: &[Arc<RoomPlan>], speed: f64) -> Duration {
    let longest = plans.iter().filter_map(|plan| plan.steps.last()).map(|step| step.at).max().unwrap_or_default();
    longest.div_f64(speed)
}
