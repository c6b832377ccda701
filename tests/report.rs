//! The report of the stress harness: from results to a page and a picture.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../benches/stress/render/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the harness uses the rest")]
mod render;

use std::{collections::BTreeSet, fs, path::PathBuf};

use render::Run;
use serde_json::{Value, json};

fn figure(name: &str, values: &[f64]) -> Value {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (min, median, max) = (sorted[0], sorted[values.len() / 2], sorted[values.len() - 1]);
    json!({ "name": name, "median": median, "min": min, "max": max, "values": values })
}

fn row(peer: &str, skipped: Option<&str>, failures: &[&str], figures: &[Value]) -> Value {
    json!({ "peer": peer, "skipped": skipped, "failures": failures, "figures": figures })
}

fn result(scenario: &str, load: &Value, peers: &[Value]) -> Value {
    json!({
        "schema": 1, "parlor": "9.8.7", "scenario": scenario, "title": "2 rooms × 3 members", "load": load,
        "storage": "synced", "arbiters": null, "warm_seconds": 1.0, "seconds": 3.0, "repetitions": 3,
        "measured_at": 1_700_000_000, "machine": { "cpus": 2, "model": "Tin <b>Can</b>", "kernel": null }, "peers": peers,
    })
}

/// One peer of each fate, with a name that would break out of a page.
fn fanout() -> Value {
    let peers = [
        row("parlor", None, &[], &[figure("deliveries/s", &[2e6, 1.9e6, 2.31e6]), figure("server CPU %", &[77.0])]),
        row("<script>", None, &["it \"died\" & went\nlog"], &[figure("deliveries/s", &[1.25e6, 1.2e6])]),
        row("redis", Some("redis-server is not <installed>"), &[], &[]),
        row("nats", None, &["member 3 lost 7", "again"], &[]),
    ];
    result("fanout", &json!({ "shape": "w1a", "rooms": null, "rate": null }), &peers)
}

fn runs(values: &[Value]) -> Vec<Run> {
    values.iter().map(|value| serde_json::from_value(value.clone()).unwrap()).collect()
}

#[track_caller]
fn check_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn a_page_shows_values_skips_failures_and_conditions() {
    let page = render::html(&runs(&[fanout()])).unwrap();
    check_has(&page, &["2.00M", "(1.90M–2.31M)", "1.25M", "<th>deliveries/s</th>", "<th>server CPU %</th>", "77.0"]);
    check_has(&page, &["skipped: redis-server is not &lt;installed&gt;", "failed: member 3 lost 7", "(2 failed)"]);
    check_has(
        &page,
        &["it &quot;died&quot; &amp; went\nlog", "Parlor 9.8.7, storage synced; 3 repetitions of 3 s after 1 s"],
    );
    check_has(&page, &["2 CPUs, Tin &lt;b&gt;Can&lt;/b&gt;, 2023-11-14T22:13:20Z", "Options: shape w1a"]);
    assert_eq!(page.matches("<svg ").count(), 1, "shares of CPU have no chart");
    assert_eq!(page.matches("<polyline").count(), 2 * 3 + 1, "whiskers of two peers, and the line where bars begin");
}

#[test]
fn a_page_needs_nothing_else_and_runs_nothing() {
    let page = render::html(&runs(&[fanout()])).unwrap();
    for word in ["<script", "<link", "<img", "@import", "url(", "href"] {
        assert!(!page.contains(word), "{word}");
    }
    assert_eq!(page.matches("http").count(), page.matches("http://www.w3.org/2000/svg").count());
}

#[test]
fn bars_are_as_long_as_their_values() {
    let peers = [
        row("parlor", None, &[], &[figure("deliveries/s", &[400.0])]),
        row("redis", None, &[], &[figure("deliveries/s", &[100.0])]),
    ];
    let page = render::html(&runs(&[result("fanout", &json!({}), &peers)])).unwrap();
    let widths: Vec<f64> = page
        .split("<rect ")
        .skip(1)
        .map(|rect| rect.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(widths.len(), 2, "{page}");
    assert!((widths[0] / widths[1] - 4.0).abs() < 0.1, "{widths:?}");
}

#[test]
fn the_picture_shows_what_was_measured() {
    let durable = [row("parlor", None, &[], &[figure("acked msgs/s", &[61_700.0])])];
    let durable = result("durable", &json!({ "publishers": 256, "window": 1 }), &durable);
    let picture = render::picture(&runs(&[fanout(), durable])).unwrap();
    check_has(
        &picture,
        &["1 room of 1,000", "deliveries a second (more is better)", "2.00M", "2 failed", "not measured"],
    );
    check_has(&picture, &["256 publishers", "61.7k", "Parlor 9.8.7", "aria-label"]);
    assert!(!picture.contains("<script"), "peers outside the picture's list have no place in it");
    let other = result("fanout", &json!({ "shape": "w1a", "members": 7 }), &[]);
    assert!(render::picture(&runs(&[other])).is_err(), "a shape that was changed is another");
}

#[test]
fn results_are_read_from_files_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    #[track_caller]
    fn check_wrong(path: PathBuf, says: &str) {
        let error = render::read(&[path]).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    check_wrong(folder.path().to_owned(), "there are no results here");
    write("b.json", &fanout().to_string());
    write("a.json", &result("idle", &json!({}), &[]).to_string());
    write("page.html", "");
    let names: Vec<String> =
        render::read(&[folder.path().to_owned()]).unwrap().into_iter().map(|run| run.scenario).collect();
    assert_eq!(names, ["idle", "fanout"], "by name");
    check_wrong(write("c.json", "{"), "c.json: this is not JSON");
    check_wrong(write("c.json", "{\"schema\": 2}"), "this has schema 2, and 1 is what is read here");
    check_wrong(write("c.json", "{\"schema\": 1}"), "this is no result of a scenario: missing field");
}

/// The fields of the rows of a table: `a`, `b` in the first column; of `peers[].figures` and the like, those in the second.
fn documented(section: &str) -> BTreeSet<String> {
    let readme = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/README.md")).unwrap();
    let text = readme.split(section).nth(1).unwrap_or_else(|| panic!("benches/README.md has no {section:?}"));
    let rows = text.lines().skip_while(|line| !line.starts_with('|')).skip(2).take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| {
        let first = row.split('|').nth(1).unwrap();
        first.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    })
    .collect()
}

/// Every field of an object, `a.b` for those of an object within and `a[].b` for those of objects in a list.
fn written(value: &Value, path: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                out.insert(path.clone());
                written(value, &path, out);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| written(item, &format!("{path}[]"), out)),
        _ => {}
    }
}

#[test]
fn the_schema_of_a_scenario_is_documented() {
    let run = runs(&[fanout()]).remove(0);
    let mut fields = BTreeSet::new();
    written(&serde_json::to_value(run).unwrap(), "", &mut fields);
    // What stands in `load` is the scenario's options.
    fields.retain(|field| !field.starts_with("load."));
    assert_eq!(documented("### JSON of a scenario"), fields);
}
