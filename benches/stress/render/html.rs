//! The report: one file that needs nothing else, for the screen, light or dark, and for paper.

use std::{fmt::Write as _, io};

use super::{
    chart::{self, Bar, CAPTION, ROW},
    number::human,
    run::{Row, Run, Summary},
};

/// Pixels of a chart.
const WIDTH: u32 = 480;

/// Figures that have no chart: who had the CPUs, and what says little beside its neighbours. The table has them all.
const TABLE_ONLY: [&str; 8] = ["%", "p99.9", "skipped", "fill", "before", "max", "messages said", "fdatasync"];

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1f2328;--page:#fff;--line:#d0d7de;--own:#fff1e5;--red:#d1242f}
body{font:15px/1.5 sans-serif;color:var(--ink);background:var(--page);max-width:1080px;margin:2em auto;padding:0 1em}
h1{font-size:1.6em}h2{font-size:1.25em;margin:2.2em 0 .2em;border-top:1px solid var(--line);padding-top:1em}
.conditions{opacity:.8;margin:.2em 0 1em}.charts{display:flex;flex-wrap:wrap;gap:14px 40px}
.wide{overflow-x:auto}table{border-collapse:collapse;margin:1em 0;font-size:13px}
th,td{border:1px solid var(--line);padding:3px 8px;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}td.words{text-align:left;white-space:normal}
tr.own{background:var(--own)}tr.own td:first-child{font-weight:bold}.failed{color:var(--red)}small{opacity:.75}
details{margin:.4em 0}pre{white-space:pre-wrap;font-size:12px}svg{max-width:100%;height:auto}";

const DARK: &str = ":root{--ink:#e6edf3;--page:#0d1117;--line:#3d444d;--own:#3a2312;--red:#ff7b72}";

const PRINT: &str = "body{max-width:none;margin:0}section{break-inside:avoid}h2{break-after:avoid}";

/// A page of all runs.
///
/// # Errors
/// If a chart cannot be drawn.
pub(crate) fn html(runs: &[Run]) -> io::Result<String> {
    let dark = chart::STYLE;
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Parlor under load</title>\n\
         <style>\n{STYLE}\n@media screen and (prefers-color-scheme:dark){{{DARK}{dark}}}\n@media print{{{PRINT}}}\n</style>\n\
         </head>\n<body>\n<h1>Parlor under load</h1>\n\
         <p>Bars are medians over the repetitions, whiskers go from the least to the most. Compare within one run only: \
         peers took turns in it. Server CPU per million stays comparable on a busy machine, rates do not.</p>\n"
    );
    for run in runs {
        section(&mut out, run)?;
    }
    out.push_str("</body>\n</html>\n");
    Ok(out)
}

fn section(out: &mut String, run: &Run) -> io::Result<()> {
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<section>\n<h2>{}: {}</h2>\n<p class=\"conditions\">{}<br>Options: {}</p>\n<div class=\"charts\">\n",
        escape(&run.scenario),
        escape(&run.title),
        escape(&run.conditions()),
        escape(&options(&run.load))
    );
    let ran: Vec<&Row> = run.peers.iter().filter(|row| row.skipped.is_none()).collect();
    for name in run.figure_names() {
        let shown = !TABLE_ONLY.iter().any(|word| name.contains(word));
        let says_something = ran.iter().filter_map(|row| row.figure(name)).any(|figure| figure.max > 0.0);
        if shown && says_something {
            let bars: Vec<Bar<'_>> = ran.iter().map(|row| Bar::of(row, name)).collect();
            let height = CAPTION.unsigned_abs() + ROW.unsigned_abs() * u32::try_from(bars.len()).unwrap_or(0) + 4;
            let caption = format!("{name} ({} is better)", if more_is_better(name) { "more" } else { "less" });
            out.push_str(&chart::svg((WIDTH, height), &caption, "", |area| chart::draw(area, &caption, &bars))?);
        }
    }
    out.push_str("</div>\n");
    table(out, run);
    words(out, run);
    out.push_str("</section>\n");
    Ok(())
}

fn more_is_better(figure: &str) -> bool {
    // Behind a comma stands in which of two measurements.
    figure.split(',').next().is_some_and(|what| what.ends_with("/s"))
}

/// What was given, as on the command line.
fn options(load: &serde_json::Value) -> String {
    let Some(load) = load.as_object() else { return load.to_string() };
    let given = load.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| match value {
        serde_json::Value::String(text) => format!("{name} {text}"),
        value => format!("{name} {value}"),
    });
    let given: Vec<String> = given.collect();
    if given.is_empty() { "none".to_owned() } else { given.join(", ") }
}

fn table(out: &mut String, run: &Run) {
    let names = run.figure_names();
    out.push_str("<div class=\"wide\"><table>\n<tr><th>peer</th>");
    names.iter().for_each(|name| {
        let _ = write!(out, "<th>{}</th>", escape(name));
    });
    out.push_str("</tr>\n");
    for row in &run.peers {
        let own = if Bar::of(row, "").is_own() { " class=\"own\"" } else { "" };
        let failed = match row.failures.len() {
            0 => String::new(),
            count => format!(" <span class=\"failed\">({count} failed)</span>"),
        };
        let _ = write!(out, "<tr{own}><td>{}{failed}</td>", escape(&row.peer));
        let columns = names.len().max(1);
        if let Some(why) = &row.skipped {
            let _ = write!(out, "<td class=\"words\" colspan=\"{columns}\">skipped: {}</td>", escape(why));
        } else if row.figures.is_empty() {
            let why = row.failures.first().and_then(|why| why.trim().lines().next()).unwrap_or("nothing was measured");
            let _ = write!(out, "<td class=\"words failed\" colspan=\"{columns}\">failed: {}</td>", escape(why));
        } else {
            for name in &names {
                let _ = write!(out, "<td>{}</td>", row.figure(name).map_or(String::new(), cell));
            }
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

fn cell(figure: &Summary) -> String {
    match figure.values.len() {
        1 => human(figure.median),
        _ => format!("{} <small>({}–{})</small>", human(figure.median), human(figure.min), human(figure.max)),
    }
}

/// All failures in full.
fn words(out: &mut String, run: &Run) {
    for row in run.peers.iter().filter(|row| !row.failures.is_empty()) {
        let _ = writeln!(
            out,
            "<details open><summary class=\"failed\">{}: {} failed</summary><pre>{}</pre></details>",
            escape(&row.peer),
            row.failures.len(),
            escape(&row.failures.join("\n"))
        );
    }
}

/// `text` as HTML and XML may hold it.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
