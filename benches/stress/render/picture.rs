//! One picture of what matters most: Parlor beside others in the fan-outs, and in durable publishing.

use std::io;

use super::{
    chart::{self, Bar, CAPTION, ROW},
    run::Run,
};

/// Fan-outs, by the name of their shape.
const SHAPES: [(&str, &str); 3] =
    [("w1a", "1 room of 1,000"), ("w1b", "100 rooms of 50"), ("w1c", "1,000 rooms of 10")];

/// How many publish durably, each with one message in flight.
const PUBLISHERS: [u64; 3] = [1, 16, 256];

/// Who is in the picture. Others may have been measured; the report has them.
const FANOUT_PEERS: [&str; 5] = ["parlor", "redis", "nats", "rumqttd", "raw-tokio"];
const DURABLE_PEERS: [&str; 4] = ["parlor", "redis", "nats", "raw-sync"];

const DELIVERIES: &str = "deliveries/s";
const FANOUT_CPU: &str = "server CPU s per M deliveries";
const ACKED: &str = "acked msgs/s";

/// Pixels.
const MARGIN: i32 = 20;
const PANEL: i32 = 300;
const GAP: i32 = 16;
const HEAD: i32 = 52;
const HEADING: i32 = 30;
const NOTE: i32 = 18;

/// Charts beside each other.
struct Line<'a> {
    heading: &'static str,
    panels: Vec<Panel<'a>>,
}

/// One chart.
struct Panel<'a> {
    caption: String,
    bars: Vec<Bar<'a>>,
}

/// Draws the picture.
///
/// # Errors
/// If the runs have nothing for it.
pub(crate) fn picture(runs: &[Run]) -> io::Result<String> {
    let mut lines = vec![
        Line { heading: "Fan-out: deliveries a second (more is better)", panels: fanouts(runs, DELIVERIES) },
        Line {
            heading: "Fan-out: server CPU seconds per million deliveries (less is better)",
            panels: fanouts(runs, FANOUT_CPU),
        },
        Line { heading: "Durable publishing: acknowledged messages a second (more is better)", panels: durables(runs) },
    ];
    lines.retain(|line| !line.panels.is_empty());
    let Some(first) = runs.iter().find(|run| shape(run).is_some() || publishers(run).is_some()) else {
        return Err(io::Error::other("the picture needs results of fanout w1a, w1b, w1c or of durable at synced"));
    };
    let notes = [
        format!("{}.", first.conditions()),
        "Medians; whiskers from the least to the most. In the fan-outs Parlor stores every message, synced, and the others \
         store nothing."
            .to_owned(),
        "In durable publishing all sync before they acknowledge: redis with appendfsync always, nats (from 2.10 on) with \
         JetStream's sync_interval always."
            .to_owned(),
        "raw-* are baselines of the machine without a protocol: raw-tokio stores nothing, raw-sync syncs a file.".to_owned(),
    ];
    let width = 2 * MARGIN + 3 * PANEL + 2 * GAP;
    let notes_height = NOTE * i32::try_from(notes.len()).unwrap_or(0);
    let total = HEAD + lines.iter().map(Line::height).sum::<i32>() + notes_height + MARGIN;
    let dark = chart::STYLE;
    let head = format!(
        "<style>.page{{fill:#fff}}@media (prefers-color-scheme:dark){{.page{{fill:#0d1117}}{dark}}}</style>\n\
         <rect class=\"page\" width=\"100%\" height=\"100%\"/>\n"
    );
    let label = "Parlor beside other systems: deliveries, server CPU per million deliveries, and durable publishes";
    chart::svg((width.unsigned_abs(), total.unsigned_abs()), label, &head, |area| {
        chart::note(area, "Parlor beside other systems on one machine", (MARGIN, HEAD / 2), 20, true)?;
        let mut top = HEAD;
        for line in &lines {
            chart::note(area, line.heading, (MARGIN, top + HEADING / 2), 15, true)?;
            for (column, panel) in (0..).zip(&line.panels) {
                let left = MARGIN + column * (PANEL + GAP);
                let place = area.clone().shrink((left, top + HEADING), (PANEL, line.height()));
                chart::draw(&place, &panel.caption, &panel.bars)?;
            }
            top += line.height();
        }
        for (index, text) in (0..).zip(&notes) {
            chart::note(area, text, (MARGIN, top + NOTE / 2 + index * NOTE), 12, false)?;
        }
        Ok(())
    })
}

impl Line<'_> {
    fn height(&self) -> i32 {
        let most = self.panels.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
        HEADING + CAPTION + ROW * i32::try_from(most).unwrap_or(0) + GAP
    }
}

fn fanouts<'a>(runs: &'a [Run], figure: &str) -> Vec<Panel<'a>> {
    let panel = |(name, caption): (&str, &str)| {
        let run = runs.iter().find(|run| shape(run) == Some(name))?;
        Some(Panel { caption: caption.to_owned(), bars: bars(run, &FANOUT_PEERS, figure) })
    };
    SHAPES.into_iter().filter_map(panel).collect()
}

fn durables(runs: &[Run]) -> Vec<Panel<'_>> {
    let panel = |count: u64| {
        let run = runs.iter().find(|run| publishers(run) == Some(count))?;
        let s = if count == 1 { "" } else { "s" };
        Some(Panel { caption: format!("{count} publisher{s}"), bars: bars(run, &DURABLE_PEERS, ACKED) })
    };
    PUBLISHERS.into_iter().filter_map(panel).collect()
}

/// The peers that were to run, in the picture's order; those that were skipped show as not measured.
fn bars<'a>(run: &'a Run, peers: &[&str], figure: &str) -> Vec<Bar<'a>> {
    let rows = peers.iter().filter_map(|peer| run.peers.iter().find(|row| row.peer == *peer));
    rows.map(|row| Bar::of(row, figure)).collect()
}

/// The name of a fan-out's shape, if nothing of it was changed.
fn shape(run: &Run) -> Option<&str> {
    let unchanged = ["rooms", "members", "pubs", "window", "rate"]
        .iter()
        .all(|name| run.load.get(name).is_none_or(serde_json::Value::is_null));
    let fits = run.scenario == "fanout" && run.storage == "synced" && unchanged;
    fits.then(|| run.load.get("shape")?.as_str()).flatten()
}

/// How many publish durably, if each has one message in flight.
fn publishers(run: &Run) -> Option<u64> {
    let number = |name: &str| run.load.get(name)?.as_u64();
    let fits = run.scenario == "durable" && run.storage == "synced" && number("window") == Some(1);
    fits.then(|| number("publishers")).flatten()
}
