//! Crash proof of life: a server that is killed in the middle of real traffic, more than once, loses nothing that it
//! acked and repeats nothing.
//!
//! The traffic is `parlor replay`: every nick a client with its own connection, which reconnects, finishes, and checks
//! what it received; at the end every room is read back and compared. The kills come when the room has grown so far, not
//! after a time, so that they hit the middle on any machine.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use parlor::client::{Client, Config, Event, JoinFrom};
use tokio::time::timeout;

const PARLOR: &str = env!("CARGO_BIN_EXE_parlor");

/// Generous: a noisy machine is not a failure.
const PATIENCE: Duration = Duration::from_secs(300);

/// A server in a process of its own. Killed, not asked, when dropped.
struct Server {
    process: Child,
    address: SocketAddr,
    data: PathBuf,
    config: Option<PathBuf>,
}

impl Server {
    fn start(address: SocketAddr, data: &Path, config: Option<&Path>) -> Self {
        let mut command = Command::new(PARLOR);
        command.args(["serve", "--send-rate", "off"]).arg("--listen").arg(address.to_string()).arg("--data").arg(data);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        // It says where it listens once it does.
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains(&address.to_string()), "the server said: {line:?}");
        Self { process, address, data: data.into(), config: config.map(Into::into) }
    }

    /// SIGKILL, and a new process on the same data.
    fn crash(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        *self = Self::start(self.address, &self.data.clone(), self.config.clone().as_deref());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address that was free a moment ago, for a server that has to come back to it.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A log of `lines` messages by 40 nicks who come, go and rename themselves.
fn write_log(path: &Path, lines: usize) {
    let mut log = String::new();
    for line in 0..lines {
        let nick = line * 7 % 40;
        match line % 50 {
            11 => writeln!(log, "=== nick{nick} has left #test []").unwrap(),
            23 => writeln!(log, "=== nick{nick} has joined #test").unwrap(),
            37 => writeln!(log, "=== nick{nick} is now known as nick{nick}_{line}").unwrap(),
            _ => {}
        }
        writeln!(log, "[10:{:02}] <nick{nick}> line {line}, and a few words more", line / 60 % 60).unwrap();
    }
    std::fs::write(path, log).unwrap();
}

/// Watches a room from its first record, and crashes the server whenever the room has grown to one of `at`.
async fn crash_at(server: &mut Server, room: &str, at: &[u64]) {
    let mut config = Config::new(server.address.to_string(), "watcher".parse().unwrap());
    config.connect_patience = PATIENCE;
    let client = Client::connect(config).await.unwrap();
    let (_room, mut events) = client.join(room, JoinFrom::Seq(1)).await.unwrap();
    let mut crashes = at.iter().peekable();
    let mut expected = 1;
    while crashes.peek().is_some() {
        match timeout(PATIENCE, events.next()).await.expect("the room stopped growing").unwrap() {
            Event::Message(message) => {
                assert_eq!(message.seq, expected, "the watcher sees every record once and in order, across crashes");
                expected += 1;
                if crashes.next_if(|at| message.seq >= **at).is_some() {
                    server.crash();
                }
            }
            Event::Gap(gap) => panic!("a gap: {gap:?}"),
            Event::Disconnected { .. }
            | Event::Reconnected
            | Event::Marked(_)
            | Event::Presence(_)
            | Event::Signal(_) => {}
            Event::Closed { code, message } => panic!("closed: {code} {message}"),
        }
    }
}

async fn replay_across_crashes(config: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("talk.log");
    write_log(&log, 4_000);
    let config = config.map(|text| {
        let path = folder.path().join("parlor.toml");
        std::fs::write(&path, text).unwrap();
        path
    });
    let mut server = Server::start(free_address(), &folder.path().join("data"), config.as_deref());
    let mut replay = Command::new(PARLOR)
        .args(["replay", "--room-per-file", "--readers", "3", "--verify", "--json"])
        .args(["--server", &server.address.to_string()])
        .arg(&log)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    crash_at(&mut server, "talk", &[500, 1_500, 2_500, 3_200]).await;
    let finished = tokio::task::spawn_blocking(move || {
        let lines = BufReader::new(replay.stdout.take().unwrap()).lines().map_while(Result::ok).collect::<Vec<_>>();
        (replay.wait().unwrap(), lines)
    });
    let (status, lines) = timeout(PATIENCE, finished).await.expect("the replay does not end").unwrap();
    let report: serde_json::Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert!(status.success(), "{report}");
    for (key, want) in
        [("messages", 4_000), ("acked", 4_000), ("stored", 4_000), ("duplicates", 0), ("gaps", 0), ("lost", 0)]
    {
        assert_eq!(report[key], want, "{key} in {report}");
    }
    assert_eq!(report["delivered"], report["owed"], "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_survives_four_kills_of_a_synced_server() {
    replay_across_crashes(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_survives_four_kills_of_a_buffered_server() {
    // The operating system outlives the process, and with it what `buffered` promises.
    replay_across_crashes(Some("[rooms]\ndurability = \"buffered\"\n")).await;
}
