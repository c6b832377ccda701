//! `parlor replay` on an engine of its own: real conversations, whole.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use parlor::{
    config::EngineConfig,
    engine::Engine,
    tiers::{SendRate, Tiers},
};

fn replay(arguments: &[&str], files: &[PathBuf]) -> (Output, serde_json::Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_parlor")).arg("replay").args(arguments).args(files).output().unwrap();
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    let last = stdout.lines().last().unwrap_or_default();
    let report = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output, report)
}

#[track_caller]
fn check_whole(output: &Output, report: &serde_json::Value, messages: u64) {
    assert!(output.status.success(), "{report} {}", String::from_utf8_lossy(&output.stderr));
    for key in ["messages", "acked", "stored"] {
        assert_eq!(report[key], messages, "{key} in {report}");
    }
    for key in ["duplicates", "gaps", "out_of_order", "lost", "mismatched"] {
        assert_eq!(report[key], 0, "{key} in {report}");
    }
    assert_eq!(report["delivered"], report["owed"], "{report}");
}

#[test]
fn a_small_talk_is_replayed_whole() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("talk.log");
    let text = "\
=== ann has joined #x
[10:00] <ann> hello
[10:00] <bob> speaks before he joins
[10:01] <zcat[1] > a nick with a blank
[10:01]  * ann waves
=== ann is now known as ann_away
[10:02] <ann_away> \u{1}odd\u{7f} \u{6dfb}\u{52a0}
[10:02] <bob>
=== bob has left #x [\"bye\"]
[10:03] <bob> back again
";
    std::fs::write(&log, text).unwrap();
    let (output, report) = replay(&["--room-per-file", "--readers", "2", "--verify", "--json"], &[log]);
    check_whole(&output, &report, 6);
    assert_eq!((&report["clients"], &report["skipped"]), (&4.into(), &1.into()), "{report}");
    assert!(report["delivered"].as_u64().unwrap() >= 2 * 6, "two readers sat there from the beginning: {report}");
}

#[test]
fn lost_acks_make_clients_retry_and_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("talk.log");
    let line = |number: usize| {
        format!("[10:{:02}] <{}> line {number}\n", number / 20, ["ann", "bob", "cem", "dua"][number % 4])
    };
    std::fs::write(&log, (0..400).map(line).collect::<String>()).unwrap();
    let faulty = ["--drop-acks", "0.1", "--ack-timeout-ms", "100", "--readers", "2", "--verify", "--json"];
    let (output, report) = replay(&faulty, &[log]);
    check_whole(&output, &report, 400);
    let (dropped, resends) = (report["acks_dropped"].as_u64().unwrap(), report["resends"].as_u64().unwrap());
    assert!((15..=80).contains(&dropped) && resends > 0, "{report}");
}

#[test]
fn what_expires_while_it_is_talked_is_said_to_be_and_nothing_else_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("talk.log");
    let line = |number: usize| {
        format!("[10:{:02}] <{}> line {number}\n", number / 20, ["ann", "bob", "cem", "dua"][number % 4])
    };
    std::fs::write(&log, (0..400).map(line).collect::<String>()).unwrap();
    // Twenty minutes in four seconds, in a store that sweeps meanwhile (what it deletes: `tests/sweep.rs`).
    let brief = ["--lifetime-ms", "500", "--speed", "300"];
    let faulty = ["--drop-acks", "0.1", "--ack-timeout-ms", "100", "--readers", "2", "--verify", "--json"];
    let (output, report) = replay(&[&brief[..], &faulty[..]].concat(), &[log]);
    assert!(output.status.success(), "{report} {}", String::from_utf8_lossy(&output.stderr));
    for key in ["duplicates", "gaps", "out_of_order", "lost", "mismatched"] {
        assert_eq!(report[key], 0, "{key} in {report}");
    }
    let count = |key: &str| report[key].as_u64().unwrap();
    assert_eq!((count("acked"), count("stored") + count("expired")), (400, 400), "{report}");
    assert!(count("expired") > 200 && count("acks_dropped") > 0, "{report}");
}

#[test]
fn a_server_that_limits_the_rate_is_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("talk.log");
    let line = |number: usize| format!("[10:00] <{}> line {number}\n", ["ann", "bob"][number % 2]);
    std::fs::write(&log, (0..80).map(line).collect::<String>()).unwrap();
    let mut config = EngineConfig::new(folder.path().join("data"));
    config.tiers = Tiers::sending(SendRate { interval_ms: 20, burst: 3 });
    let engine = Engine::start(config).unwrap();
    let server = engine.listen(([127, 0, 0, 1], 0).into()).unwrap().to_string();
    let (output, report) = replay(&["--server", &server, "--verify", "--json"], &[log]);
    check_whole(&output, &report, 80);
    assert!(report["seconds"].as_f64().unwrap() >= 37.0 * 0.02, "each said 40, 3 of them at once: {report}");
}

#[test]
fn real_conversations_survive_lost_acks() {
    let Some(files) = logs() else { return };
    // The smaller ones: each lost ack costs its nick a wait.
    let mut files: Vec<_> = files.into_iter().map(|file| (std::fs::metadata(&file).unwrap().len(), file)).collect();
    files.sort();
    let files: Vec<_> = files.into_iter().map(|(_, file)| file).take(4).collect();
    let faulty = ["--room-per-file", "--drop-acks", "0.1", "--ack-timeout-ms", "200", "--verify", "--json"];
    let (output, report) = replay(&faulty, &files);
    check_whole(&output, &report, report["messages"].as_u64().unwrap());
    assert!(report["acks_dropped"].as_u64().unwrap() > 0 && report["resends"].as_u64().unwrap() > 0, "{report}");
}

/// The logs of real conversations, if they are here.
fn logs() -> Option<Vec<PathBuf>> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ubuntu-irc");
    let folder = std::env::var_os("PARLOR_IRC_LOGS").map_or(default, PathBuf::from);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("SKIPPED: no IRC logs in {}; PARLOR_IRC_LOGS names another folder", folder.display());
        return None;
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    Some(files)
}

#[test]
fn real_conversations_are_replayed_whole() {
    let Some(files) = logs() else { return };
    let (output, report) = replay(&["--room-per-file", "--readers", "3", "--verify", "--json"], &files);
    check_whole(&output, &report, 39_213);
    assert_eq!(report["rooms"], files.len(), "{report}");
}

#[test]
fn a_server_that_is_not_there_is_told_within_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("talk.log");
    std::fs::write(&log, "[10:00] <ann> hello\n").unwrap();
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let began = std::time::Instant::now();
    let output =
        Command::new(env!("CARGO_BIN_EXE_parlor")).args(["replay", "--server", &address]).arg(&log).output().unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains(&address) && errors.contains("`parlor serve` starts one"), "{errors}");
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "after {:?}", began.elapsed());
}
