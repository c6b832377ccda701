//! What a run found: put together, and as a Markdown table.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    thread::available_parallelism,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use serde::Serialize;

use crate::{
    options::Common,
    render::{self, Machine, Row, Run, SCHEMA, Summary, human},
    scenario::Scenario,
    stats::{Figure, median},
};

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

/// Which results to show, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct Show {
    /// Results as `--json` wrote them, or folders of them.
    #[arg(required = true, value_name = "DIR_OR_FILES")]
    from: Vec<PathBuf>,
    /// Write a page with charts and tables of all.
    #[arg(long, value_name = "FILE", required_unless_present = "svg")]
    html: Option<PathBuf>,
    /// Write a picture of the fan-outs and of durable publishing at `synced`.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Shows results of earlier runs.
pub(crate) fn show(show: &Show) -> io::Result<()> {
    let runs = render::read(&show.from)?;
    if let Some(file) = &show.html {
        fs::write(file, render::html(&runs)?)?;
    }
    if let Some(file) = &show.svg {
        fs::write(file, render::picture(&runs)?)?;
    }
    Ok(())
}

/// Sums up a run.
pub(crate) fn sum_up<S: Scenario + Serialize>(load: &S, common: &Common, outcomes: &[Outcome]) -> io::Result<Run> {
    let row = |outcome: &Outcome| Row {
        peer: outcome.peer.clone(),
        skipped: outcome.skipped.clone(),
        failures: outcome.failures.clone(),
        figures: summarize(&outcome.repetitions),
    };
    Ok(Run {
        schema: SCHEMA,
        parlor: env!("CARGO_PKG_VERSION").to_owned(),
        scenario: S::NAME.to_owned(),
        title: load.title(),
        load: serde_json::to_value(load)?,
        storage: format!("{:?}", common.storage).to_lowercase(),
        arbiters: common.arbiters,
        warm_seconds: common.warm,
        seconds: common.secs,
        repetitions: common.reps,
        measured_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        machine: this_machine(),
        peers: outcomes.iter().map(row).collect(),
    })
}

/// Whether what the user wants to keep can be written: asked before the load, which may take long.
pub(crate) fn check(common: &Common) -> io::Result<()> {
    for path in [&common.json, &common.html].into_iter().flatten() {
        let existed = path.exists();
        fs::OpenOptions::new().create(true).append(true).open(path).map_err(|error| unwritten(path, &error))?;
        if !existed {
            fs::remove_file(path)?; // If nothing is measured, nothing is left.
        }
    }
    Ok(())
}

/// Writes what the user wants to keep.
pub(crate) fn keep(run: &Run, common: &Common) -> io::Result<()> {
    let write = |path: &Path, text: String| fs::write(path, text).map_err(|error| unwritten(path, &error));
    if let Some(path) = &common.json {
        write(path, format!("{}\n", serde_json::to_string_pretty(run)?))?;
    }
    if let Some(path) = &common.html {
        write(path, render::html(std::slice::from_ref(run))?)?;
    }
    Ok(())
}

fn unwritten(path: &Path, error: &io::Error) -> io::Error {
    io::Error::other(format!("cannot write {}: {error}", path.display()))
}

/// A table: a row per peer, a column per figure, `median (min–max)`.
pub(crate) fn markdown(run: &Run) -> String {
    let mut out = format!("### {}: {} (storage {})\n\n", run.scenario, run.title, run.storage);
    let columns = run.figure_names();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "| peer | {} |\n|---|{}", columns.join(" | "), "---|".repeat(columns.len()));
    for row in &run.peers {
        let cells = match (&row.skipped, &row.figures[..]) {
            (Some(why), _) => format!("skipped: {why}"),
            (None, []) => row.failures.first().map_or(String::new(), |why| format!("failed: {}", first_line(why))),
            (None, _) => {
                columns.iter().map(|name| row.figure(name).map_or(String::new(), cell)).collect::<Vec<_>>().join(" | ")
            }
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

/// Sums up repetitions with the same figures.
fn summarize(repetitions: &[Vec<Figure>]) -> Vec<Summary> {
    let Some(first) = repetitions.first() else { return Vec::new() };
    let column = |(index, figure): (usize, &Figure)| {
        let values: Vec<f64> = repetitions.iter().map(|figures| figures[index].value).collect();
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Summary { name: figure.name.to_owned(), median: median(&values), min, max, values }
    };
    first.iter().enumerate().map(column).collect()
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

fn this_machine() -> Machine {
    let model = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned());
    Machine { cpus: available_parallelism().map_or(1, usize::from), model, kernel }
}
