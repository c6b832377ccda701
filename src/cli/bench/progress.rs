//! A line that says how it goes. Nothing shows where the standard error is no terminal.

use std::{sync::Arc, time::Duration};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{task::JoinHandle, time::interval};

use super::member::Stage;

/// How often the line changes.
const EVERY: Duration = Duration::from_millis(500);

/// The line.
pub(crate) struct Progress {
    bar: ProgressBar,
    task: JoinHandle<()>,
}

impl Progress {
    /// Begins to tell how a load of so many seconds goes.
    pub(crate) fn start(stage: Arc<Stage>, seconds: f64) -> Self {
        let bar = ProgressBar::new(Duration::from_secs_f64(seconds.max(1.0)).as_secs());
        if let Ok(style) = ProgressStyle::with_template("{bar:20} {msg}") {
            bar.set_style(style);
        }
        let task = tokio::spawn(tell(stage, bar.clone()));
        Self { bar, task }
    }

    /// Says something else from now on.
    pub(crate) fn say(&self, text: &'static str) {
        self.task.abort();
        self.bar.set_message(text);
    }

    /// Removes the line.
    pub(crate) fn end(self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

async fn tell(stage: Arc<Stage>, bar: ProgressBar) {
    let mut every = interval(EVERY);
    let (mut at, mut before) = (stage.meter.now(), stage.meter.counts());
    every.tick().await;
    loop {
        every.tick().await;
        let (now, counts, recent) = (stage.meter.now(), stage.meter.counts(), stage.meter.take_recent());
        let seconds = now.saturating_sub(at) as f64 / 1e9;
        let rate = |after: u64, before: u64| (after - before) as f64 / seconds.max(0.001);
        bar.set_position(now / 1_000_000_000);
        bar.set_message(format!(
            "{:.0} publishes/s, {:.0} deliveries/s, p99 of acks {}, of deliveries {}",
            rate(counts.acked, before.acked),
            rate(counts.delivered, before.delivered),
            p99(&recent.ack),
            p99(&recent.delivery)
        ));
        (at, before) = (now, counts);
    }
}

fn p99(histogram: &Histogram<u64>) -> String {
    if histogram.is_empty() {
        return "-".to_owned();
    }
    format!("{:.1} ms", histogram.value_at_quantile(0.99) as f64 / 1e6)
}
