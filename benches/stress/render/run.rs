//! The schema of a result's JSON, for writing and for reading. `benches/README.md` states it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Raised when a field changes its meaning or goes away.
pub(crate) const SCHEMA: u32 = 1;

/// A run of one scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// [`SCHEMA`].
    pub(crate) schema: u32,
    /// Parlor's version.
    pub(crate) parlor: String,
    /// Which scenario.
    pub(crate) scenario: String,
    /// Its load in words.
    pub(crate) title: String,
    /// The scenario's options.
    pub(crate) load: serde_json::Value,
    /// How servers were to store.
    pub(crate) storage: String,
    /// Threads of Parlor's; its own default if `None`.
    pub(crate) arbiters: Option<usize>,
    /// Seconds before each measurement.
    pub(crate) warm_seconds: f64,
    /// Seconds of each measurement.
    pub(crate) seconds: f64,
    /// How often each peer was to be measured.
    pub(crate) repetitions: usize,
    /// When the run ended, in Unix seconds.
    pub(crate) measured_at: u64,
    /// Where.
    pub(crate) machine: Machine,
    /// What came of each peer.
    pub(crate) peers: Vec<Row>,
}

/// The machine of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Machine {
    /// How many CPUs it has.
    pub(crate) cpus: usize,
    /// Which.
    pub(crate) model: Option<String>,
    /// The kernel's version.
    pub(crate) kernel: Option<String>,
}

/// What came of one peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) peer: String,
    /// Why it did not run.
    pub(crate) skipped: Option<String>,
    /// Why repetitions failed.
    pub(crate) failures: Vec<String>,
    /// The figures of the others.
    pub(crate) figures: Vec<Summary>,
}

/// One figure over all repetitions.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Summary {
    /// What it is, with its unit.
    pub(crate) name: String,
    /// The middle one; between the two in the middle if there is an even number.
    pub(crate) median: f64,
    /// The least.
    pub(crate) min: f64,
    /// The most.
    pub(crate) max: f64,
    /// All, in the order in which they were measured.
    pub(crate) values: Vec<f64>,
}

impl Run {
    /// The names of its figures, in the order in which peers name them.
    pub(crate) fn figure_names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for figure in self.peers.iter().flat_map(|row| &row.figures) {
            if !names.contains(&figure.name.as_str()) {
                names.push(&figure.name);
            }
        }
        names
    }

    /// What it was measured with, in words.
    pub(crate) fn conditions(&self) -> String {
        let Machine { cpus, model, kernel } = &self.machine;
        let model = model.as_deref().unwrap_or("unknown model");
        let kernel = kernel.as_deref().map_or(String::new(), |kernel| format!(", Linux {kernel}"));
        let arbiters = self.arbiters.map_or(String::new(), |count| format!(", {count} arbiters"));
        let Self { parlor, storage, warm_seconds, seconds, repetitions, .. } = self;
        let when = i64::try_from(self.measured_at).ok().and_then(|at| jiff::Timestamp::from_second(at).ok());
        let when = when.map_or(String::new(), |when| format!(", {when}"));
        format!(
            "Parlor {parlor}, storage {storage}{arbiters}; {repetitions} repetitions of {seconds} s after {warm_seconds} s; \
             {cpus} CPUs, {model}{kernel}{when}"
        )
    }
}

impl Row {
    /// A figure by name.
    pub(crate) fn figure(&self, name: &str) -> Option<&Summary> {
        self.figures.iter().find(|figure| figure.name == name)
    }
}

/// Reads results: files, and all `*.json` of folders, by name.
///
/// # Errors
/// If there is none, or one is no result of this harness.
pub(crate) fn read(paths: &[PathBuf]) -> io::Result<Vec<Run>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
            let mut found: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
            found.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
            found.sort();
            files.extend(found);
        } else {
            files.push(path.clone());
        }
    }
    if files.is_empty() {
        return Err(io::Error::other("there are no results here: a scenario writes one with --json FILE"));
    }
    files.iter().map(|file| read_one(file)).collect()
}

fn read_one(file: &Path) -> io::Result<Run> {
    let wrong = |what: String| io::Error::other(format!("{}: {what}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| wrong(format!("this is not JSON: {error}")))?;
    if let Some(schema) = value.get("schema").and_then(serde_json::Value::as_u64)
        && schema != u64::from(SCHEMA)
    {
        return Err(wrong(format!("this has schema {schema}, and {SCHEMA} is what is read here: measure again")));
    }
    serde_json::from_value(value).map_err(|error| wrong(format!("this is no result of a scenario: {error}")))
}
