//! `parlor bench` over real sockets: exact counts of a sound server, and each fault of an unsound one by its name.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod common;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use common::{Raw, engine, loopback, soon};
use parlor::client::{Durability, JoinFrom};
use parlor_protocol::{
    Code, Kind, decode,
    frame::{answer_body_max, request_body_max},
    message, split, to_bytes,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
};

/// 2 rooms of 5 members, one of which publishes; 200 messages, 100 in each room.
const LOAD: &[&str] = &["--clients", "10", "--rooms", "2", "--rate", "200", "--seconds", "1", "--warm", "0"];

fn command(server: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parlor"));
    command.args(["bench", "--server", &server.to_string()]).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// What a run said, its exit code and its JSON; `Null` if there is none.
struct Ran {
    output: Output,
    json: Value,
}

async fn bench(server: SocketAddr, arguments: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("out.json");
    let output = soon("the run", command(server, arguments).arg("--json").arg(&json).output()).await.unwrap();
    let json = std::fs::read(json).map_or(Value::Null, |json| serde_json::from_slice(&json).unwrap());
    Ran { output, json }
}

impl Ran {
    fn text(&self) -> String {
        let Output { stdout, stderr, .. } = &self.output;
        format!("{}{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr))
    }

    #[track_caller]
    fn check(&self, code: i32, says: &str) {
        assert_eq!(self.output.status.code(), Some(code), "{}", self.text());
        assert!(self.text().contains(says), "does not say {says:?}: {}", self.text());
    }

    #[track_caller]
    fn check_counts(&self, counts: &[(&str, u64)]) {
        for &(name, count) in counts {
            assert_eq!(self.json[name], count, "{name}: {}", self.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_run_is_complete_to_the_last_message() {
    let data = tempfile::tempdir().unwrap();
    let (engine, address) = engine(data.path(), |_| {});
    let ran = bench(address, LOAD).await;
    ran.check(0, "complete          yes (1000 of 1000 owed deliveries came)");
    ran.check_counts(&[("sent", 200), ("acked", 200), ("owed", 1_000), ("delivered", 1_000), ("unsent", 0)]);
    ran.check_counts(&[("retried", 0), ("reconnects", 0), ("unanswered", 0), ("rate_limited", 0)]);
    assert_eq!((&ran.json["complete"], &ran.json["durability"]), (&true.into(), &"synced".into()));
    for latency in ["ack_ms", "delivery_ms"] {
        let [p50, p99, max] = ["p50", "p99", "max"].map(|name| ran.json[latency][name].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{latency}: {}", ran.text());
    }
    check_documented(&ran.json);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_full_speed_the_window_is_the_limit() {
    let data = tempfile::tempdir().unwrap();
    let (engine, address) = engine(data.path(), |_| {});
    let load = ["--clients", "4", "--publishers", "100%", "--window", "2", "--payload", "32-600", "--seconds", "0.5"];
    let ran = bench(address, &load).await;
    ran.check(0, "4 publish: as fast as acks allow with 2 in flight each, 32-600 bytes each");
    let count = |name: &str| ran.json[name].as_u64().unwrap();
    assert!(count("acked") > 8, "{}", ran.text());
    assert_eq!((count("sent"), count("delivered")), (count("acked"), 4 * count("acked")), "{}", ran.text());
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_early_with_the_summary() {
    let data = tempfile::tempdir().unwrap();
    let (engine, address) = engine(data.path(), |_| {});
    let mut spectator = Raw::welcomed(address, "spectator", "d").await;
    spectator.join("early-r0", JoinFrom::Tail).await;
    let arguments = ["--clients", "3", "--rate", "50", "--seconds", "600", "--warm", "0", "--prefix", "early"];
    let child = command(address, &arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Some of the measured time has to be over.
    for _ in 0..5 {
        while soon("a message", spectator.next()).await.unwrap().kind() != Kind::Deliver {}
    }
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ran = Ran { output: soon("the end", child.wait_with_output()).await.unwrap(), json: Value::Null };
    ran.check(0, "interrupted");
    ran.check(0, "complete          yes");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_was_too_slow_for_is_in_the_latencies() {
    let data = tempfile::tempdir().unwrap();
    let (engine, address) = engine(data.path(), |config| config.room_defaults.durability = Durability::Memory);
    // One publisher with one message in flight comes nowhere near.
    let load = ["--clients", "3", "--rate", "300000", "--window", "1", "--seconds", "1", "--warm", "0"];
    let ran = bench(address, &load).await;
    ran.check(3, "due but never sent");
    ran.check(3, "complete          yes");
    let count = |name: &str| ran.json[name].as_u64().unwrap();
    assert_eq!(count("sent") + count("unsent"), 300_000, "{}", ran.text());
    assert!(count("unsent") > 150_000, "{}", ran.text());
    for latency in ["ack_ms", "delivery_ms"] {
        let p50 = ran.json[latency]["p50"].as_f64().unwrap();
        assert!(p50 > 1_000.0, "most were not sent within the second that is left for them: {}", ran.text());
    }
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_is_said_at_once() {
    let free = TcpListener::bind(loopback()).await.unwrap().local_addr().unwrap();
    let began = Instant::now();
    bench(free, LOAD).await.check(3, &format!("no connection to {free}"));
    assert!(began.elapsed() < Duration::from_secs(5));

    let silent = TcpListener::bind(loopback()).await.unwrap();
    let (silent_address, began) = (silent.local_addr().unwrap(), Instant::now());
    bench(silent_address, LOAD).await.check(3, &format!("{silent_address} did not say welcome"));
    assert!(began.elapsed() < Duration::from_secs(8));

    let data = tempfile::tempdir().unwrap();
    let (engine, address) = engine(data.path(), |config| {
        config.net.connections_max = 4;
        config.limits.text_bytes_max = 4_000;
    });
    bench(address, LOAD).await.check(3, "of 10 cannot take part: ");
    bench(address, &["--durability", "memory"]).await.check(3, "stores synced, not memory");
    bench(address, &["--clients", "3", "--rooms", "4"]).await.check(2, "3 clients cannot be spread over 4 rooms");
    bench(address, &["--payload", "3"]).await.check(2, "32 to 65536 bytes");
    bench(address, &["--clients", "2", "--payload", "9000", "--seconds", "1", "--warm", "0"])
        .await
        .check(3, "at most 4000 are allowed");
    let nowhere = data.path().join("none/out.json");
    let output = soon("the refusal", command(address, LOAD).arg("--json").arg(&nowhere).output()).await.unwrap();
    Ran { output, json: Value::Null }.check(3, &format!("cannot write {}", nowhere.display()));
    engine.shutdown().await;
}

/// What a proxy does to one connection, at the message of a number.
#[derive(Clone, Copy)]
enum Fault {
    /// Keeps a delivery.
    LeaveOut,
    /// Keeps a delivery, and refuses to give it to who asks.
    Lose,
    /// Passes a delivery on twice.
    Repeat,
    /// Passes a delivery on behind the next.
    Swap,
    /// Changes a byte of a message.
    Corrupt,
    /// Says that a message is another user's.
    Misattribute,
    /// Refuses a publish because of its rate.
    Limit,
}

const RETRY_AFTER_MS: u32 = 300;

/// Stands before a server. Breaks the connection of this number, in the order in which they come, at this delivery or
/// publish; client 0 comes first.
async fn proxy(server: SocketAddr, fault: Fault, connection: usize, at: usize) -> SocketAddr {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(server).await.unwrap();
            // Frames go out whole; to hold them back would be a fault of its own.
            client.set_nodelay(true).unwrap();
            server.set_nodelay(true).unwrap();
            let fault = (number == connection).then_some(fault);
            tokio::spawn(pass(client, server, fault, at));
        }
    });
    address
}

/// Passes frames both ways until one side ends.
async fn pass(client: TcpStream, server: TcpStream, fault: Option<Fault>, at: usize) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    let (mut deliveries, mut publishes, mut kept) = (0, 0, None);
    loop {
        tokio::select! {
            frame = next(&mut from_client, &mut asked, true) => {
                let Some((kind, request, frame)) = frame else { return };
                publishes += usize::from(kind == Kind::Publish);
                let (code, retry_after_ms) = match fault {
                    Some(Fault::Limit) if kind == Kind::Publish && publishes == at => (Code::RateLimited, RETRY_AFTER_MS),
                    Some(Fault::Lose) if kind == Kind::Fetch => (Code::Forbidden, 0),
                    _ => {
                        if to_server.write_all(&frame).await.is_err() { return }
                        continue;
                    }
                };
                let error = message::Error { code, retry_after_ms, message: "the proxy says so", extensions: common::ext() };
                if to_client.write_all(&to_bytes(request, &error)).await.is_err() { return }
            }
            frame = next(&mut from_server, &mut answered, false) => {
                let Some((kind, request, frame)) = frame else { return };
                deliveries += usize::from(kind == Kind::Deliver);
                let mut out = vec![frame];
                if kind == Kind::Deliver && deliveries == at {
                    match fault {
                        Some(Fault::LeaveOut | Fault::Lose) => out.clear(),
                        Some(Fault::Repeat) => out.push(out[0].clone()),
                        Some(Fault::Swap) => kept = out.pop(),
                        Some(Fault::Corrupt | Fault::Misattribute) => out = vec![spoilt(request, &out[0], fault)],
                        _ => {}
                    }
                } else if kind == Kind::Deliver {
                    out.extend(kept.take());
                }
                if to_client.write_all(&out.concat()).await.is_err() { return }
            }
        }
    }
}

fn spoilt(request: u32, frame: &[u8], fault: Option<Fault>) -> Vec<u8> {
    let mut deliver: message::Deliver<'_> = decode(&frame[parlor_protocol::frame::HEADER_BYTES..]).unwrap();
    let mut payload = deliver.payload.to_vec();
    if let Some(Fault::Misattribute) = fault {
        deliver.sender = "mallory";
    } else {
        *payload.last_mut().unwrap() ^= 1;
    }
    deliver.payload = &payload;
    to_bytes(request, &deliver).to_vec()
}

/// The next whole frame. Nothing is lost if this is dropped.
async fn next(
    from: &mut (impl AsyncReadExt + Unpin),
    input: &mut Vec<u8>,
    asked: bool,
) -> Option<(Kind, u32, Vec<u8>)> {
    loop {
        let frame = split(input, |header| match Kind::from_wire(header.kind) {
            Some(Kind::Hello) => Ok(1 << 16),
            _ if asked => request_body_max(header, 1 << 16),
            _ => answer_body_max(header),
        });
        if let Some(frame) = frame.unwrap() {
            let (kind, request) = (Kind::from_wire(frame.header.kind).unwrap(), frame.header.request);
            let rest = input.split_off(frame.size());
            return Some((kind, request, std::mem::replace(input, rest)));
        }
        if from.read_buf(input).await.ok()? == 0 {
            return None;
        }
    }
}

/// Runs the load against a server behind a proxy that breaks a listener's connection.
async fn behind(fault: Fault, connection: usize, at: usize, load: &[&str]) -> Ran {
    let data = tempfile::tempdir().unwrap();
    // The device's speed is not what is tried here.
    let (engine, address) = engine(data.path(), |config| config.room_defaults.durability = Durability::Memory);
    let ran = bench(proxy(address, fault, connection, at).await, load).await;
    engine.shutdown().await;
    ran
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_found_and_named() {
    for (fault, at, name, words) in [
        (Fault::LeaveOut, 20, "left_out", "1 left out at first"),
        (Fault::Lose, 20, "lost", "1 lost"),
        (Fault::LeaveOut, 100, "lost", "lost 1 acknowledged messages"),
        (Fault::Repeat, 20, "repeated", "1 repeated"),
        (Fault::Swap, 20, "out_of_order", "1 out of order"),
        (Fault::Corrupt, 20, "corrupt", "1 corrupt"),
        (Fault::Misattribute, 20, "corrupt", "1 corrupt"),
    ] {
        let ran = behind(fault, 5, at, LOAD).await;
        ran.check(1, words);
        ran.check(1, "complete          NO: ");
        assert_eq!((&ran.json["complete"], &ran.json["acked"]), (&false.into(), &200.into()), "{}", ran.text());
        assert!(ran.json["wrong"][name].as_u64().unwrap() > 0, "{name}: {}", ran.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_is_obeyed_and_told() {
    let load = ["--clients", "2", "--rate", "100", "--seconds", "1", "--warm", "0", "--window", "1"];
    let ran = behind(Fault::Limit, 0, 10, &load).await;
    ran.check(0, "1 sends off: rates and latencies say what it allows");
    ran.check_counts(&[("sent", 100), ("acked", 100), ("retried", 1), ("rate_limited", 1)]);
    let waited = ran.json["ack_ms"]["max"].as_f64().unwrap();
    assert!(waited >= f64::from(RETRY_AFTER_MS), "latency counts from the time due: {}", ran.text());
}

/// The fields that a table of `benches/README.md` names in its first column.
fn documented(section: &str) -> BTreeSet<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let text = readme.split(section).nth(1).unwrap_or_else(|| panic!("benches/README.md has no {section:?}"));
    let rows = text.lines().skip_while(|line| !line.starts_with('|')).skip(2).take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2).map(str::to_owned)).collect()
}

#[track_caller]
fn check_documented(json: &Value) {
    let mut fields = BTreeSet::new();
    for (name, value) in json.as_object().unwrap() {
        fields.insert(name.clone());
        let within = value.as_object().into_iter().flatten();
        // By code, not by field.
        fields.extend(within.filter(|_| name != "refused").map(|(field, _)| format!("{name}.{field}")));
    }
    assert_eq!(documented("### JSON of `parlor bench`"), fields);
}
