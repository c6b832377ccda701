//! What a run found, as a Markdown table and as JSON. `benches/README.md` states the JSON's schema.

use std::{fmt::Write as _, fs, io, thread::available_parallelism};

use serde::Serialize;

use crate::{
    options::Common,
    peers::Storage,
    scenario::Scenario,
    stats::{Figure, Summary, human, summarize},
};

/// Raised when a field changes its meaning or goes away.
const SCHEMA: u32 = 1;

/// What came of one peer.
pub(crate) struct Outcome {
    /// Its name.
    pub(crate) peer: String,
    /// Why it did not run.
    pub(crate) skipped: Option<String>,
    /// Why repetitions failed.
    pub(crate) failures: Vec<String>,
    /// The figures of the others.
    pub(crate) repetitions: Vec<Vec<Figure>>,
}

impl Outcome {
    /// Nothing yet.
    pub(crate) fn new(peer: String) -> Self {
        Self { peer, skipped: None, failures: Vec::new(), repetitions: Vec::new() }
    }
}

/// A run of one scenario.
#[derive(Serialize)]
pub(crate) struct Report<'a, S> {
    schema: u32,
    parlor: &'static str,
    scenario: &'static str,
    title: String,
    load: &'a S,
    storage: Storage,
    arbiters: Option<usize>,
    warm_seconds: f64,
    seconds: f64,
    machine: Machine,
    peers: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Machine {
    cpus: usize,
    model: Option<String>,
    kernel: Option<String>,
}

#[derive(Serialize)]
struct Row<'a> {
    peer: &'a str,
    skipped: Option<&'a str>,
    failures: &'a [String],
    figures: Vec<Summary>,
}

impl<'a, S: Scenario + Serialize> Report<'a, S> {
    /// Sums up.
    pub(crate) fn new(load: &'a S, common: &Common, outcomes: &'a [Outcome]) -> Self {
        let row = |outcome: &'a Outcome| Row {
            peer: &outcome.peer,
            skipped: outcome.skipped.as_deref(),
            failures: &outcome.failures,
            figures: summarize(&outcome.repetitions),
        };
        Self {
            schema: SCHEMA,
            parlor: env!("CARGO_PKG_VERSION"),
            scenario: S::NAME,
            title: load.title(),
            load,
            storage: common.storage,
            arbiters: common.arbiters,
            warm_seconds: common.warm,
            seconds: common.secs,
            machine: Machine::this(),
            peers: outcomes.iter().map(row).collect(),
        }
    }

    /// The whole of it, for programs.
    pub(crate) fn json(&self) -> io::Result<String> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }

    /// A table: a row per peer, a column per figure, `median (min–max)`.
    pub(crate) fn markdown(&self) -> String {
        let storage = format!("{:?}", self.storage).to_lowercase();
        let mut out = format!("### {}: {} (storage {storage})\n\n", self.scenario, self.title);
        let columns: Vec<_> =
            self.peers.iter().find(|row| !row.figures.is_empty()).map_or(Vec::new(), |row| names(&row.figures));
        // Writing to a string cannot fail.
        let _ = writeln!(out, "| peer | {} |\n|---|{}", columns.join(" | "), "---|".repeat(columns.len()));
        for row in &self.peers {
            let cells = match (&row.skipped, &row.figures[..]) {
                (Some(why), _) => format!("skipped: {why}"),
                (None, []) => row.failures.first().map_or(String::new(), |why| format!("failed: {}", first_line(why))),
                (None, figures) => figures.iter().map(cell).collect::<Vec<_>>().join(" | "),
            };
            let short = if row.failures.is_empty() || row.figures.is_empty() {
                String::new()
            } else {
                format!(" ({} failed)", row.failures.len())
            };
            let _ = writeln!(out, "| {}{short} | {cells} |", row.peer);
        }
        out
    }
}

fn names(figures: &[Summary]) -> Vec<&'static str> {
    figures.iter().map(|figure| figure.name).collect()
}

fn cell(figure: &Summary) -> String {
    if figure.values.len() == 1 {
        return human(figure.median);
    }
    format!("{} ({}–{})", human(figure.median), human(figure.min), human(figure.max))
}

fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or_default()
}

impl Machine {
    fn this() -> Self {
        let model = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned());
        Self { cpus: available_parallelism().map_or(1, usize::from), model, kernel }
    }
}
