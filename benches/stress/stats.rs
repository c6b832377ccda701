//! Figures: latencies, counters of CPU, and what several repetitions say together.

use std::{io, time::Instant};

use hdrhistogram::Histogram;

use crate::server::{Server, machine_cpu_seconds, own_cpu_seconds};

/// The figure that says how busy the machine was with something else, in percent of one CPU.
pub(crate) const OTHERS: &str = "others' CPU %";

/// Nanoseconds up to a minute, to two significant digits.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(100, 60_000_000_000, 2).expect("these bounds are valid")
}

/// p50, p99 and p99.9 in milliseconds.
pub(crate) fn quantiles_ms(histogram: &Histogram<u64>) -> [f64; 3] {
    [0.5, 0.99, 0.999].map(|quantile| histogram.value_at_quantile(quantile) as f64 / 1e6)
}

/// CPU of server and load generator from a moment on.
pub(crate) struct Meter {
    began: Instant,
    server: f64,
    own: f64,
    machine: f64,
}

/// What a [`Meter`] measured.
pub(crate) struct Spent {
    /// How long it was.
    pub(crate) seconds: f64,
    /// CPU seconds of the server.
    pub(crate) server: f64,
    own: f64,
    others: f64,
}

impl Spent {
    /// The columns with which a table ends: who had the CPUs, in percent of one.
    pub(crate) fn shares(&self) -> [Figure; 3] {
        let percent = |name, cpu: f64| figure(name, 100.0 * cpu / self.seconds);
        [percent("server CPU %", self.server), percent("load generator CPU %", self.own), percent(OTHERS, self.others)]
    }
}

impl Meter {
    /// Begins to measure.
    pub(crate) fn begin(server: &Server) -> io::Result<Self> {
        let (machine, began) = (machine_cpu_seconds()?, Instant::now());
        Ok(Self { began, server: server.cpu_seconds()?, own: own_cpu_seconds()?, machine })
    }

    /// What was spent since the beginning.
    pub(crate) fn end(&self, server: &Server) -> io::Result<Spent> {
        let seconds = self.began.elapsed().as_secs_f64();
        let (server, own) = (server.cpu_seconds()? - self.server, own_cpu_seconds()? - self.own);
        let others = (machine_cpu_seconds()? - self.machine - server - own).max(0.0);
        Ok(Spent { seconds, server, own, others })
    }
}

/// One figure of one repetition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// What it is, with its unit.
    pub(crate) name: &'static str,
    /// How much.
    pub(crate) value: f64,
}

/// Puts a name on a value.
pub(crate) fn figure(name: &'static str, value: f64) -> Figure {
    Figure { name, value }
}

/// The middle one; of an even number between the two in the middle, as the upper one alone is the greatest of two. There is at
/// least one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2])
}
