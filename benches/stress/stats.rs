//! Figures: latencies, counters of CPU, and what several repetitions say together.

use std::{io, time::Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

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

/// One figure over all repetitions.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    /// What it is, with its unit.
    pub(crate) name: &'static str,
    /// The middle one; the upper of the two middle ones if there is an even number.
    pub(crate) median: f64,
    /// The least.
    pub(crate) min: f64,
    /// The most.
    pub(crate) max: f64,
    /// All, in the order in which they were measured.
    pub(crate) values: Vec<f64>,
}

/// Sums up repetitions with the same figures.
pub(crate) fn summarize(repetitions: &[Vec<Figure>]) -> Vec<Summary> {
    let Some(first) = repetitions.first() else { return Vec::new() };
    let column = |(index, figure): (usize, &Figure)| {
        let values: Vec<f64> = repetitions.iter().map(|figures| figures[index].value).collect();
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, median, max) = (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
        Summary { name: figure.name, median, min, max, values }
    };
    first.iter().enumerate().map(column).collect()
}

/// Three significant digits; thousands as `k`, millions as `M`.
pub(crate) fn human(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let decimals = match scaled.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        0.0 => 0,
        _ => 3,
    };
    format!("{scaled:.decimals$}{unit}")
}
