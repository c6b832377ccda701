//! `parlor replay`: IRC logs as real traffic, and a check of everything that comes of it.
//!
//! [`irc`] reads lines, [`plan`] makes steps of them, [`cast`] plays them with a [`member`] per client, [`stream`] checks
//! what each receives, [`dropper`] loses acks on the way if it is to, [`compare`] what the rooms hold in the end, [`report`] says it.

mod cast;
mod compare;
mod dropper;
mod irc;
mod member;
mod plan;
mod proxy;
mod report;
mod rooms;
mod stream;

use std::{
    collections::HashSet,
    fs,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use futures_util::future;
use indicatif::{ProgressBar, ProgressStyle};
use parlor_protocol::{DeviceTag, Name, Seq};

use self::{
    cast::{RoomOutcome, Stage},
    compare::Sent,
    member::Part,
    plan::{Planner, RoomPlan},
    proxy::Proxy,
    report::Report,
};
use super::{args::Replay, descriptors, faults::Faults, own_engine::OwnEngine};

/// Open files besides the clients' connections: standard streams, the runtime's, libraries'.
const FILES_BESIDES: usize = 64;

/// Open files of an engine besides its connections: its store's.
const FILES_OF_ENGINE: usize = 1_024;

/// Replays, checks, reports.
pub(crate) async fn run(args: Replay) -> anyhow::Result<ExitCode> {
    let plans = plans(&args)?;
    check_descriptors(&plans, &args)?;
    let engine = match args.server {
        Some(_) => None,
        None => Some(OwnEngine::start()?),
    };
    let outcome = tokio::select! {
        outcome = replay(&args, &plans, engine.as_ref()) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    let (report, faults) = outcome?;
    eprint!("{faults}");
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(if report.is_sound() && faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads the logs.
fn plans(args: &Replay) -> anyhow::Result<Vec<Arc<RoomPlan>>> {
    let mut planner = Planner::new(args.room.clone());
    let (mut plans, mut rooms) = (vec![], HashSet::new());
    for file in &args.files {
        let name = file.display().to_string();
        let bytes = fs::read(file).with_context(|| format!("cannot read {name}"))?;
        let content =
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        if args.room_per_file {
            let room = room_of(file)?;
            if !rooms.insert(room.clone()) {
                bail!("two of the files make the room {room}: rename one");
            }
            let mut planner = Planner::new(room);
            planner.log(&name, &content)?;
            plans.push(Arc::new(planner.finish()));
        } else {
            planner.log(&name, &content)?;
        }
    }
    if !args.room_per_file {
        plans.push(Arc::new(planner.finish()));
    }
    Ok(plans)
}

/// The room of a file: its name without the ending.
fn room_of(file: &Path) -> anyhow::Result<Name> {
    let stem = file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy();
    Ok(irc::name_of(&stem)?)
}

/// One connection per client that is there at once, and its other end as well if the engine is in this process.
fn check_descriptors(plans: &[Arc<RoomPlan>], args: &Replay) -> anyhow::Result<()> {
    let clients: usize = plans.iter().map(|plan| plan.clients_at_once + args.readers).sum();
    let needed = if args.server.is_some() { clients } else { 2 * clients + FILES_OF_ENGINE } + FILES_BESIDES;
    let needed = needed + if args.drop_acks.is_some() { 2 * clients } else { 0 };
    descriptors::ensure(
        needed as u64,
        &format!("a replay with {clients} clients at once"),
        "replay fewer files at a time",
    )
}

async fn replay(
    args: &Replay,
    plans: &[Arc<RoomPlan>],
    engine: Option<&OwnEngine>,
) -> anyhow::Result<(Report, Faults)> {
    let server = match (&args.server, engine) {
        (Some(server), _) => server.clone(),
        (None, Some(engine)) => engine.addr().to_string(),
        (None, None) => bail!("there is neither a server nor an engine"),
    };
    let mut report = Report {
        files: args.files.len() as u64,
        rooms: plans.len() as u64,
        clients: total(plans, |plan| plan.clients.len()),
        messages: total(plans, |plan| plan.messages.len()),
        skipped: total(plans, |plan| plan.skipped),
        ..Report::default()
    };
    announce(&report, args, plans, &server);
    let run = run_id();
    let scout = |device: &str, room: &Name| -> anyhow::Result<Part> {
        let (user, device) = ("parlor-replay".parse()?, cast::device(&format!("{run}-{device}"), 0)?);
        let ack_timeout = args.ack_timeout();
        Ok(Part { server: server.clone(), user, device, room: room.clone(), ack_timeout })
    };
    let Some(first) = plans.first() else { bail!("there is nothing to replay") };
    let tails = rooms::tails(&scout("scout", &first.room)?, plans.iter().map(|plan| &plan.room)).await?;

    let bar = progress_bar(report.messages);
    let begin = Instant::now();
    let proxy = match args.drop_acks {
        Some(share) => Some(Proxy::start(server.clone(), share.0, args.seed).await?),
        None => None,
    };
    let stage = Stage::new(
        proxy.as_ref().map_or_else(|| server.clone(), |proxy| proxy.address().to_string()),
        run.clone(),
        bar.clone(),
        args.speed.map(|speed| speed.0),
        args.ack_timeout(),
    );
    let stage = Arc::new(stage);
    // A task for each room, so that they use all cores.
    let playing = plans
        .iter()
        .enumerate()
        .map(|(number, plan)| tokio::spawn(stage.clone().play(plan.clone(), number, args.readers)));
    let outcomes = future::try_join_all(playing).await?.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    report.seconds = (begin.elapsed().as_secs_f64() * 1_000.0).round() / 1_000.0;
    bar.finish_and_clear();
    report.acks_dropped = proxy.as_ref().map(Proxy::dropped);

    let mut faults = Faults::default();
    for (number, ((plan, outcome), base)) in plans.iter().zip(outcomes).zip(tails).enumerate() {
        report.acked += outcome.acks.iter().flatten().count() as u64;
        report.add_streams(outcome.totals);
        if args.verify {
            verify(&scout("verifier", &plan.room)?, plan, &outcome, base, cast::device(&run, number)?, &mut report)
                .await
                .map(|found| faults.append(found))
                .with_context(|| format!("cannot read {} back", plan.room))?;
        }
        faults.append(outcome.faults);
    }
    Ok((report, faults))
}

/// Reads a room back and adds what comes of the comparison to `report`.
async fn verify(
    verifier: &Part,
    plan: &RoomPlan,
    outcome: &RoomOutcome,
    base: Seq,
    device: Name,
    report: &mut Report,
) -> anyhow::Result<Faults> {
    let back = rooms::read_back(verifier, base).await?;
    let tags: Vec<_> = plan.clients.iter().map(|user| DeviceTag::of(user, &device)).collect();
    let sent: Vec<_> = plan
        .messages
        .iter()
        .zip(&outcome.acks)
        .map(|(message, acked)| Sent {
            sender: &plan.clients[message.client],
            tag: tags[message.client],
            payload: message.text.as_bytes(),
            acked: *acked,
        })
        .collect();
    let mut faults = Faults::at(&plan.room);
    let origin = |number: usize| plan.messages[number].origin.to_string();
    report.add_room(compare::compare(&sent, &back, origin, &mut faults));
    Ok(faults)
}

fn total(plans: &[Arc<RoomPlan>], of: impl Fn(&RoomPlan) -> usize) -> u64 {
    plans.iter().map(|plan| of(plan) as u64).sum()
}

fn announce(report: &Report, args: &Replay, plans: &[Arc<RoomPlan>], server: &str) {
    let Report { files, rooms, clients, messages, .. } = report;
    if args.server.is_none() {
        eprintln!(
            "An engine of this process on a temporary folder serves {server}; its limit on the send rate is off."
        );
    }
    eprintln!(
        "Replaying {messages} messages of {files} files to {rooms} rooms by {clients} clients and {} readers each; at \
         most {} messages unacknowledged.",
        args.readers,
        cast::UNACKED_MAX
    );
    if let Some(share) = args.drop_acks {
        eprintln!("{:.1} % of the acks do not arrive; which ones, seed {} says.", 100.0 * share.0, args.seed);
    }
    if let Some(speed) = args.speed {
        eprintln!("That takes {} s at this speed.", cast::duration(plans, speed.0).as_secs());
    }
}

/// On the standard error; nothing shows where that is no terminal.
fn progress_bar(messages: u64) -> ProgressBar {
    let bar = ProgressBar::new(messages);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} messages, {per_sec}, {eta} to go") {
        bar.set_style(style);
    }
    bar
}

/// Differs from run to run, so that no client of this one is taken for a device of another.
fn run_id() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let hash = xxhash_rust::xxh3::xxh3_64(format!("{now} {}", std::process::id()).as_bytes());
    format!("{:08x}", hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_room() {
        let room = |path: &str| room_of(Path::new(path)).unwrap();
        assert_eq!(&*room("logs/2004-12-25.train-c.log"), "2004-12-25.train-c");
        assert_eq!(&*room("lobby"), "lobby");
        assert_eq!(room(&format!("{}.log", "x".repeat(80))).len(), 64);
    }

    #[test]
    fn the_longest_device_is_a_name() {
        let run = run_id();
        assert_eq!(run.len(), 8);
        cast::device(&format!("{run}-verifier"), usize::MAX).unwrap();
    }
}
