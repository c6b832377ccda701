//! Runs a scenario against its peers, in turn, and reports.

use std::io;

use crate::{
    baseline::Kind,
    options::Common,
    peers::{Ejabberd, Mqtt, Nats, Parlor, Peer, Raw, Redis, Storage},
    render::human,
    report::{self, Outcome},
    scenario::Scenario,
    server::tidy,
    stats::{Figure, OTHERS},
};

/// How often a repetition is tried for a quiet moment of the machine.
const TRIES: usize = 5;

/// Measures each peer `reps` times, turn by turn, and reports the lot.
pub(crate) fn run<S: Scenario + serde::Serialize>(mut scenario: S, mut common: Common) -> io::Result<()> {
    scenario.complete(&mut common);
    if let Some(why) = scenario.refused() {
        return Err(io::Error::other(why));
    }
    report::check(&common)?;
    tidy(&common);
    let names = match &common.peers[..] {
        [] => S::PEERS.iter().map(|name| (*name).to_owned()).collect(),
        names => names.to_vec(),
    };
    if let Some(name) = names.iter().find(|name| !is_known(name)) {
        return Err(io::Error::other(format!("no peer is called {name:?}; there are {}", KNOWN.join(", "))));
    }
    let mut outcomes: Vec<Outcome> = names.into_iter().map(Outcome::new).collect();
    for repetition in 1..=common.reps {
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.skipped.is_none()) {
            match by_name(&outcome.peer, &scenario, &common)? {
                Measured::Skipped(why) => {
                    eprintln!("{}: skipped, {why}", outcome.peer);
                    outcome.skipped = Some(why);
                }
                Measured::Failed(error) => {
                    eprintln!("{} {repetition} failed: {error}", outcome.peer);
                    outcome.failures.push(error.to_string());
                }
                Measured::Done(figures) => {
                    let text: Vec<_> = figures.iter().map(|figure| human(figure.value)).collect();
                    eprintln!("{} {repetition}: {}", outcome.peer, text.join(" | "));
                    outcome.repetitions.push(figures);
                }
            }
        }
    }
    let failed: usize = outcomes.iter().map(|outcome| outcome.failures.len()).sum();
    let found = report::sum_up(&scenario, &common, &outcomes)?;
    println!("{}", report::markdown(&found));
    report::keep(&found, &common)?;
    if failed > 0 { Err(io::Error::other(format!("{failed} repetitions failed"))) } else { Ok(()) }
}

/// All peers.
const KNOWN: [&str; 12] = [
    "parlor",
    "raw-mio",
    "raw-tokio",
    "raw-local",
    "raw-store",
    "raw-sync",
    "raw-scan",
    "redis",
    "nats",
    "mosquitto",
    "rumqttd",
    "ejabberd",
];

/// What may stand behind a peer's name.
const LEVELS: [(&str, Storage); 3] =
    [("-memory", Storage::Memory), ("-buffered", Storage::Buffered), ("-synced", Storage::Synced)];

/// Whether a peer has this name, alone, with a level or, if it is Parlor, with a program. Asked before anything is measured.
fn is_known(name: &str) -> bool {
    let (name, program) = name.split_once('@').map_or((name, None), |(name, path)| (name, Some(path)));
    let (name, _) = levelled(name).unwrap_or((name, Storage::Memory));
    KNOWN.contains(&name) && (program.is_none() || name == "parlor")
}

fn levelled(name: &str) -> Option<(&str, Storage)> {
    LEVELS.iter().find_map(|(suffix, storage)| Some((name.strip_suffix(suffix)?, *storage)))
}

enum Measured {
    Skipped(String),
    Failed(io::Error),
    Done(Vec<Figure>),
}

fn by_name<S: Scenario>(name: &str, scenario: &S, common: &Common) -> io::Result<Measured> {
    if let Some(done) = scenario.in_process(name, common) {
        return Ok(done.map_or_else(Measured::Failed, Measured::Done));
    }
    let (name, program) = match name.split_once('@') {
        Some((name @ ("parlor" | "parlor-memory" | "parlor-buffered" | "parlor-synced"), path)) => {
            (name, Some(path.into()))
        }
        _ => (name, None),
    };
    let (name, wanted) = levelled(name).unwrap_or((name, common.storage));
    let (own, others) = (scenario.storage(wanted, true), scenario.storage(wanted, false));
    Ok(match name {
        "parlor" => measure(&Parlor { storage: own, program }, scenario, own, common),
        "raw-mio" => measure(&Raw(Kind::Mio), scenario, others, common),
        "raw-tokio" => measure(&Raw(Kind::Tokio), scenario, others, common),
        "raw-local" => measure(&Raw(Kind::Local), scenario, others, common),
        "raw-store" => measure(&Raw(Kind::Store), scenario, others, common),
        "raw-sync" => measure(&Raw(Kind::Sync), scenario, others, common),
        "redis" => measure(&Redis, scenario, others, common),
        "nats" => measure(&Nats, scenario, others, common),
        "mosquitto" => measure(&Mqtt::Mosquitto, scenario, others, common),
        "rumqttd" => measure(&Mqtt::Rumqttd, scenario, others, common),
        "ejabberd" => measure(&Ejabberd, scenario, others, common),
        _ => return Err(io::Error::other(format!("no peer is called {name:?}"))),
    })
}

fn measure<S: Scenario, P: Peer>(peer: &P, scenario: &S, storage: Storage, common: &Common) -> Measured {
    if let Some(why) = scenario.lacks().or_else(|| peer.missing(storage)) {
        return Measured::Skipped(why);
    }
    if !scenario.offered(peer) {
        return Measured::Skipped("it does not offer this".to_owned());
    }
    let mut quietest: Option<(f64, Vec<Figure>)> = None;
    for _ in 0..TRIES {
        let figures = match scenario.measure(peer, storage, common) {
            Ok(figures) => figures,
            Err(error) => return Measured::Failed(error),
        };
        let others = figures.iter().find(|figure| figure.name == OTHERS).map_or(0.0, |figure| figure.value);
        let quiet = common.quiet.is_none_or(|most| others <= most);
        if quietest.as_ref().is_none_or(|(least, _)| others < *least) {
            quietest = Some((others, figures));
        }
        if quiet {
            break;
        }
    }
    quietest.map_or_else(|| Measured::Failed(io::Error::other("never tried")), |(_, figures)| Measured::Done(figures))
}
