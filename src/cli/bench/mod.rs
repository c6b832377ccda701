//! `parlor bench`: a load test of a server, wherever it is, that checks every stream.
//!
//! [`crowd`] brings the clients in, a [`member`] each publishes and receives, [`pace`] says when, [`check`] finds what is
//! wrong with a stream, [`verdict`] adds up, [`summary`] says it.

mod check;
mod crowd;
mod member;
mod meter;
pub(crate) mod options;
mod pace;
mod payload;
mod progress;
mod summary;
mod verdict;

use std::{
    fs::OpenOptions,
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    signal::ctrl_c,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use self::{
    crowd::Seat,
    member::{Duty, Outcome, Phase, Stage},
    meter::{Counts, Meter},
    options::{Bench, Cast},
    pace::Paced,
    payload::Payloads,
    progress::Progress,
    summary::{LoadAsked, Measured, Place, Summary},
    verdict::verdict,
};
use super::{descriptors, explain};

/// Something was lost, repeated, out of order or corrupt.
const UNSOUND: u8 = 1;

/// The options cannot work.
const WRONG_OPTIONS: u8 = 2;

/// The load could not be run, or not to its end.
const NOT_RUN: u8 = 3;

/// Open files besides the clients' connections: standard streams, the runtime's, libraries'.
const FILES_BESIDES: u64 = 64;

/// How long publishers may take after the end to send what was due before it.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(1);

/// How often it is looked whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long acks may take to come after the last publish.
const SETTLE_LIMIT: Duration = Duration::from_secs(40);

/// Loads, checks, reports.
pub(crate) async fn run(args: Bench) -> anyhow::Result<ExitCode> {
    let run = run_number();
    let prefix = args.prefix.as_deref().map_or_else(|| format!("bench-{:08x}", run >> 32), str::to_owned);
    let cast = match Cast::new(&args, &prefix) {
        Ok(cast) => Arc::new(cast),
        Err(error) => {
            eprintln!("parlor: {}", explain(&error));
            return Ok(ExitCode::from(WRONG_OPTIONS));
        }
    };
    match load(&args, cast, prefix, run).await {
        Ok(code) => Ok(code),
        Err(error) => {
            eprintln!("parlor: {}", explain(&error));
            Ok(ExitCode::from(NOT_RUN))
        }
    }
}

async fn load(args: &Bench, cast: Arc<Cast>, prefix: String, run: u64) -> anyhow::Result<ExitCode> {
    let clients = cast.users.len();
    if let Some(path) = &args.json {
        ensure_writable(path)?;
    }
    descriptors::ensure(
        clients as u64 + FILES_BESIDES,
        &format!("a load of {clients} clients"),
        "take fewer --clients, or several processes",
    )?;
    let seats = tokio::select! {
        seats = crowd::gather(args, &cast, &prefix) => seats?,
        _ = ctrl_c() => bail!("interrupted before the load began"),
    };
    let durability = seats.first().map_or("", |seat| crowd::word(seat.room.joined().durability));
    let (measured, outcomes, interrupted) = tokio::select! {
        ran = Run::start(args, &cast, seats, run).finish(args) => ran?,
        () = interrupted_twice() => bail!("interrupted twice: there is no summary"),
    };
    let load = LoadAsked {
        clients,
        rooms: cast.rooms,
        publishers: (0..clients).filter(|client| cast.publishes(*client)).count(),
        rate: (args.rate.0 > 0.0).then_some(args.rate.0),
        window: args.window,
        payload_least: args.payload.least,
        payload_most: args.payload.most,
        warm_seconds: args.warm.0,
        seconds: args.seconds.0,
    };
    let verdict = verdict(&cast, outcomes);
    let summary = Summary::new(
        Place { server: args.server.join(", "), prefix, durability, load, interrupted },
        &measured,
        &verdict,
    );
    eprint!("{}", verdict.faults);
    print!("{summary}");
    if let Some(path) = &args.json {
        let text = format!("{}\n", serde_json::to_string_pretty(&summary)?);
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    // An interrupt ends a load early, but not before anything was measured.
    let to_its_end = verdict.unfinished == 0 && verdict.acked > 0 && verdict.unsent == 0 && measured.seconds > 0.0;
    Ok(match (verdict.is_sound(), to_its_end) {
        (false, _) => ExitCode::from(UNSOUND),
        (true, false) => ExitCode::from(NOT_RUN),
        (true, true) => ExitCode::SUCCESS,
    })
}

/// A load that runs.
struct Run {
    stage: Arc<Stage>,
    phase: watch::Sender<Phase>,
    /// Nothing more comes when all publishers have settled.
    settled: mpsc::Receiver<()>,
    members: JoinSet<Outcome>,
    pacer: Option<tokio::task::JoinHandle<Paced>>,
    stop: Arc<AtomicBool>,
}

impl Run {
    fn start(args: &Bench, cast: &Arc<Cast>, seats: Vec<Seat>, run: u64) -> Self {
        let (phase, phases) = watch::channel(Phase::Load);
        let mut tails: Vec<AtomicU64> = Vec::new();
        tails.resize_with(cast.rooms, AtomicU64::default);
        let stage = Arc::new(Stage {
            cast: cast.clone(),
            payloads: Payloads::new(run, args.payload),
            meter: Meter::start(nanos(args.warm.0)),
            window: args.window as usize,
            phase: phases,
            tails,
        });
        let (settling, settled) = mpsc::channel(1);
        let (mut members, mut paced) = (JoinSet::new(), Vec::new());
        for seat in seats {
            let duty = if !cast.publishes(seat.client) {
                Duty::Listen
            } else if args.rate.0 > 0.0 {
                let (due, dues) = mpsc::unbounded_channel();
                paced.push(due);
                Duty::Paced(dues)
            } else {
                Duty::Flood
            };
            members.spawn(member::play(stage.clone(), seat, duty, settling.clone()));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let pacer = (!paced.is_empty()).then(|| {
            let (stage, stop) = (stage.clone(), stop.clone());
            let (rate, end) = (args.rate.0, nanos(args.warm.0 + args.seconds.0));
            tokio::task::spawn_blocking(move || pace::run(&stage.meter, rate, end, &stop, &paced))
        });
        Self { stage, phase, settled, members, pacer, stop }
    }

    async fn finish(mut self, args: &Bench) -> anyhow::Result<(Measured, Vec<Outcome>, bool)> {
        let progress = Progress::start(self.stage.clone(), args.warm.0 + args.seconds.0);
        let mut interrupted = tokio::select! {
            () = sleep(Duration::from_secs_f64(args.warm.0)) => false,
            _ = ctrl_c() => true,
        };
        let (from, before, cpu) = (self.stage.meter.now(), self.stage.meter.counts(), cpu_seconds());
        if !interrupted {
            interrupted = tokio::select! {
                () = sleep(Duration::from_secs_f64(args.seconds.0)) => false,
                _ = ctrl_c() => true,
            };
        }
        let (to, after, cpu) = (self.stage.meter.now(), self.stage.meter.counts(), cpu_seconds() - cpu);
        let late = self.catch_up(interrupted).await?;
        progress.say("waiting for the last acks");
        self.phase.send_replace(Phase::Settle);
        // What is not answered by then is told as that.
        let _ = timeout(SETTLE_LIMIT, self.settled.recv()).await;
        progress.say("waiting for the last deliveries");
        self.phase.send_replace(Phase::Leave);
        let mut outcomes = self.members.join_all().await;
        outcomes.sort_by_key(|outcome| outcome.client);
        progress.end();
        let counts = Counts {
            sent: after.sent - before.sent,
            acked: after.acked - before.acked,
            delivered: after.delivered - before.delivered,
        };
        let seconds = (to - from) as f64 / 1e9;
        // An interrupt in the warm-up leaves a moment that says nothing.
        let seconds = if seconds < 0.01 { 0.0 } else { seconds };
        let measured = Measured { seconds, counts, latencies: self.stage.meter.measured(), cpu, late };
        Ok((measured, outcomes, interrupted))
    }
}

impl Run {
    /// Lets the publishers send what was due last. Returns how late that was handed to them.
    async fn catch_up(&mut self, interrupted: bool) -> anyhow::Result<Option<hdrhistogram::Histogram<u64>>> {
        self.stop.store(interrupted, Relaxed);
        let Some(pacer) = self.pacer.take() else { return Ok(None) };
        let Paced { due, late } = pacer.await?;
        let all_sent = async {
            while self.stage.meter.counts().sent < due {
                sleep(LOOK_EVERY).await;
            }
        };
        // What is not sent by then is told as that.
        let _ = timeout(CATCH_UP_LIMIT, all_sent).await;
        Ok(Some(late))
    }
}

/// Asked before the load, which may take long. If that is not run, nothing is left.
fn ensure_writable(path: &Path) -> anyhow::Result<()> {
    let existed = path.exists();
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.with_context(|| format!("cannot write {}", path.display()))?;
    if !existed {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// The first Ctrl-C ends the load; the second one all.
async fn interrupted_twice() {
    for _ in 0..2 {
        if ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn nanos(seconds: f64) -> u64 {
    u64::try_from(Duration::from_secs_f64(seconds).as_nanos()).unwrap_or(u64::MAX)
}

/// CPU seconds of this process so far.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Differs from run to run, so that no message of another is taken for one of this.
fn run_number() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    xxhash_rust::xxh3::xxh3_64(format!("{now} {}", std::process::id()).as_bytes())
}
