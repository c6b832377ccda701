//! Promises of a room against small models: thousands of random histories each, with crashes between any two steps.
//!
//! Each file is a promise: first the model, which looks everything up in plain lists, then chance, which drives a real
//! channel on a store in memory and asks the model what every answer should be. `PARLOR_MODEL_SEEDS=n` runs so many
//! histories, `PARLOR_MODEL_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
#![allow(clippy::cast_possible_truncation, reason = "histories are short, and so are their lists")]
#![allow(unreachable_pub, reason = "the modules of a test are its own")]

mod dedupe;
mod paging;
mod past;
mod rings;
mod room;
mod trimming;

use std::collections::BTreeMap;

/// How often each thing happened.
pub type Counts = BTreeMap<String, u64>;

/// Prints the seed of a history that fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("PARLOR_MODEL_SEED={} fails", self.0);
        }
    }
}

/// Runs histories of as many seeds, and fails if something that they are for never happened.
pub fn run(seeds: u64, history: impl Fn(u64) -> Counts, must_happen: &[&str]) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let one = number("PARLOR_MODEL_SEED");
    let seeds = one.map_or(0..number("PARLOR_MODEL_SEEDS").unwrap_or(seeds), |seed| seed..seed + 1);
    let (all, mut counts) = (seeds.end - seeds.start, Counts::new());
    for seed in seeds {
        let shown = Seed(seed);
        for (what, times) in history(seed) {
            *counts.entry(what).or_default() += times;
        }
        drop(shown);
    }
    println!("{all} histories: {counts:#?}");
    let missing: Vec<_> = must_happen.iter().filter(|what| !counts.contains_key(**what)).collect();
    assert!(all < 1_000 || missing.is_empty(), "never happened: {missing:?}");
}
