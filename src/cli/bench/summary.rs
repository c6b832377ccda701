//! What a run says at its end, for people and as JSON. `benches/README.md` states the JSON's schema.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    check::Wrong,
    meter::{Counts, Latencies},
    verdict::Verdict,
};

/// Raised when a field changes its meaning or goes away.
pub(crate) const SCHEMA: u32 = 1;

/// A latency in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Quantiles {
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Quantiles {
    /// Of nanoseconds; `None` of nothing.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let ms = |nanos: u64| (nanos as f64 / 1e3).round() / 1e3;
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        let all = Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: ms(histogram.max()) };
        (!histogram.is_empty()).then_some(all)
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p99, p999, max } = self;
        write!(f, "p50 {p50:.2} ms   p99 {p99:.2} ms   p99.9 {p999:.2} ms   max {max:.2} ms")
    }
}

/// The load as it was asked for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LoadAsked {
    pub(crate) clients: usize,
    pub(crate) rooms: usize,
    pub(crate) publishers: usize,
    /// `None`: as fast as the acks allowed.
    pub(crate) rate: Option<f64>,
    pub(crate) window: u32,
    pub(crate) payload_least: usize,
    pub(crate) payload_most: usize,
    pub(crate) warm_seconds: f64,
    pub(crate) seconds: f64,
}

/// What the measured time was like.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    /// What was counted in it.
    pub(crate) counts: Counts,
    pub(crate) latencies: Latencies,
    /// CPU seconds of this process.
    pub(crate) cpu: f64,
    /// How late the load generator itself was.
    pub(crate) late: Option<Histogram<u64>>,
}

/// See the module.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    schema: u32,
    parlor: &'static str,
    server: String,
    prefix: String,
    durability: &'static str,
    load: LoadAsked,
    interrupted: bool,
    complete: bool,
    measured_seconds: f64,
    publishes_per_second: f64,
    deliveries_per_second: f64,
    ack_ms: Option<Quantiles>,
    delivery_ms: Option<Quantiles>,
    generator_late_ms: Option<Quantiles>,
    generator_cpu_percent: f64,
    sent: u64,
    acked: u64,
    refused: std::collections::BTreeMap<String, u64>,
    retried: u64,
    rate_limited: u64,
    unanswered: u64,
    unsent: u64,
    owed: u64,
    delivered: u64,
    wrong: Wrong,
    reconnects: u64,
    unfinished: u64,
}

/// Where and what was run.
pub(crate) struct Place {
    pub(crate) server: String,
    pub(crate) prefix: String,
    pub(crate) durability: &'static str,
    pub(crate) load: LoadAsked,
    pub(crate) interrupted: bool,
}

impl Summary {
    /// Sums up.
    pub(crate) fn new(place: Place, measured: &Measured, verdict: &Verdict) -> Self {
        let Place { server, prefix, durability, load, interrupted } = place;
        let per_second = |count: u64| if measured.seconds > 0.0 { count as f64 / measured.seconds } else { 0.0 };
        let cpu = if measured.seconds > 0.0 { 100.0 * measured.cpu / measured.seconds } else { 0.0 };
        Self {
            schema: SCHEMA,
            parlor: env!("CARGO_PKG_VERSION"),
            server,
            prefix,
            durability,
            load,
            interrupted,
            complete: verdict.is_sound() && verdict.unfinished == 0,
            measured_seconds: measured.seconds,
            publishes_per_second: per_second(measured.counts.acked),
            deliveries_per_second: per_second(measured.counts.delivered),
            ack_ms: Quantiles::of(&measured.latencies.ack),
            delivery_ms: Quantiles::of(&measured.latencies.delivery),
            generator_late_ms: measured.late.as_ref().and_then(Quantiles::of),
            generator_cpu_percent: cpu,
            sent: verdict.sent,
            acked: verdict.acked,
            refused: verdict.refused.clone(),
            retried: verdict.retried,
            rate_limited: verdict.rate_limited,
            unanswered: verdict.unanswered,
            unsent: verdict.unsent,
            owed: verdict.owed,
            delivered: verdict.delivered,
            wrong: verdict.wrong,
            reconnects: verdict.reconnects,
            unfinished: verdict.unfinished,
        }
    }

    fn load_in_words(&self) -> String {
        let LoadAsked { clients, rooms, publishers, rate, window, payload_least, payload_most, .. } = &self.load;
        let rate = rate.map_or_else(
            || format!("as fast as acks allow with {window} in flight each"),
            |rate| format!("{rate} messages/s, at most {window} in flight each"),
        );
        let bytes = if payload_least == payload_most {
            payload_least.to_string()
        } else {
            format!("{payload_least}-{payload_most}")
        };
        let s = if *rooms == 1 { "" } else { "s" };
        format!("{clients} clients in {rooms} room{s}, {publishers} publish: {rate}, {bytes} bytes each")
    }

    fn wrong_in_words(&self) -> String {
        let Wrong { lost, repeated, out_of_order, left_out, corrupt } = self.wrong;
        let kinds = [
            (lost, "lost"),
            (repeated, "repeated"),
            (out_of_order, "out of order"),
            (left_out, "left out at first"),
            (corrupt, "corrupt"),
        ];
        let told: Vec<String> =
            kinds.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}")).collect();
        match (told.is_empty(), self.unfinished) {
            (true, 0) => "yes".to_owned(),
            (true, clients) => format!("UNKNOWN: {clients} clients could not leave"),
            (false, _) => format!("NO: {}", told.join(", ")),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, text: String| writeln!(f, "{name:<17} {text}");
        row("server", format!("{}, rooms store {}, names begin with {}", self.server, self.durability, self.prefix))?;
        row("load", self.load_in_words())?;
        let end = if self.interrupted { ", interrupted" } else { "" };
        row("measured", format!("{:.1} s after {} s of warm-up{end}", self.measured_seconds, self.load.warm_seconds))?;
        row("complete", format!("{} ({} of {} owed deliveries came)", self.wrong_in_words(), self.came(), self.owed))?;
        row("messages", format!("sent {}, acknowledged {}, sent again {}", self.sent, self.acked, self.retried))?;
        if !self.refused.is_empty() {
            let codes: Vec<String> = self.refused.iter().map(|(code, count)| format!("{count} {code}")).collect();
            row("refused", codes.join(", "))?;
        }
        if self.unanswered + self.unsent > 0 {
            let Self { unanswered, unsent, .. } = self;
            row(
                "not settled",
                format!("{unanswered} unanswered, {unsent} due but never sent: in the latencies as up to the end"),
            )?;
        }
        row("publishes", format!("{:.0}/s", self.publishes_per_second))?;
        row("deliveries", format!("{:.0}/s", self.deliveries_per_second))?;
        let quantiles = |quantiles: Option<Quantiles>| quantiles.map_or("none".to_owned(), |some| some.to_string());
        row("ack latency", quantiles(self.ack_ms))?;
        row("delivery latency", quantiles(self.delivery_ms))?;
        if let Some(late) = self.generator_late_ms {
            row("of it our own", format!("{late} (how late this process was with what was due)"))?;
        }
        row("reconnects", self.reconnects.to_string())?;
        row("this process", format!("{:.0} % of one CPU", self.generator_cpu_percent))?;
        if self.rate_limited > 0 {
            writeln!(
                f,
                "The server's rate limit put {} sends off: rates and latencies say what it allows, not what the server can do.",
                self.rate_limited
            )?;
        }
        Ok(())
    }
}

impl Summary {
    fn came(&self) -> u64 {
        self.owed.saturating_sub(self.wrong.lost)
    }
}
