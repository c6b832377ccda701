//! The client in `examples/python`, which was written from `PROTOCOL.md` alone, against the engine and the Rust client.
//!
//! Where there is no `python3`, these tests say so and do nothing.
#![cfg(all(feature = "engine", feature = "client"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use parlor::{
    client::{Client, Config, Event, JoinFrom},
    config::EngineConfig,
    engine::Engine,
};
use tokio::{process::Command, time::timeout};

/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes one nonce again and again, with the codec of the client, and asserts the answers.
const RETRIES: &str = r#"
import socket, sys
from parlor_client import encode, next_frame

class Connection:
    def __init__(self, server):
        host, port = server.split(":")
        self.sock, self.inbox, self.request = socket.create_connection((host, int(port)), 20), bytearray(), 0
        self.sock.settimeout(20)
        self.ask("Hello", magic=b"PRLR", version_min=1, version_max=1, features=0, user="dora", device="pad",
                 device_class="Bot", network="Unknown", credentials=b"", resume=None, attempt=1)
        self.room = self.ask("Join", room="retries", **{"from": ("Tail",)})[1]

    def ask(self, name, **fields):
        self.request += 1
        self.sock.sendall(encode(name, self.request, **fields))
        while True:
            frame = next_frame(self.inbox)
            if frame is None:
                data = self.sock.recv(65536)
                assert data, "the connection ended"
                self.inbox += data
            elif frame[1] == self.request:
                return frame[0], frame[2]

    def publish(self, nonce, payload):
        return self.ask("Publish", room=self.room["room"], nonce=nonce, kind=0, refers_to=0, lifetime_ms=None, flags=0,
                        content_type=1, payload=payload)

first = Connection(sys.argv[1])
assert first.room["newest_nonce"] is None, first.room
kind, ack = first.publish(5, b"once")
assert (kind, ack["nonce"], ack["duplicate"]) == ("Ack", 5, False), ack
again = {**ack, "duplicate": True}
assert first.publish(5, b"once") == ("Ack", again)
first.sock.close()
second = Connection(sys.argv[1])
assert second.room["newest_nonce"] == 5, second.room
assert second.publish(5, b"once") == ("Ack", again)
kind, error = second.publish(5, b"twice")
assert (kind, error["code"]) == ("Error", 2004), error
kind, error = second.publish(4, b"late")
assert (kind, error["code"]) == ("Error", 2005), error
"#;

/// `python3` with the examples in its path; none if it is not installed.
fn python() -> Option<Command> {
    let mut command = Command::new("python3");
    let works = std::process::Command::new("python3").arg("--version").output().is_ok_and(|out| out.status.success());
    if !works {
        println!("skipped: there is no python3");
        return None;
    }
    command
        .env("PYTHONPATH", examples())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUTF8", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Some(command)
}

fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/python")
}

/// Runs to the end; returns what was printed.
async fn run(mut command: Command) -> String {
    let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
    stdout
}

fn engine() -> (Engine, SocketAddr, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    let mut config = EngineConfig::new(data.path());
    config.tiers = parlor::tiers::Tiers::sending(parlor::tiers::SendRate::OFF);
    let engine = Engine::start(config).unwrap();
    let address = engine.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    (engine, address, data)
}

/// The sender and the text of the next messages.
async fn receive(events: &mut parlor::client::Events, count: usize) -> Vec<(String, String)> {
    let mut messages = Vec::new();
    while messages.len() < count {
        match timeout(PATIENCE, events.next()).await.unwrap().unwrap() {
            Event::Message(message) => messages.push((message.sender.to_string(), message.text().unwrap().to_owned())),
            Event::Gap(gap) => panic!("a gap: {gap:?}"),
            _ => {}
        }
    }
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn the_codec_agrees_with_the_vectors() {
    let Some(mut command) = python() else { return };
    command.arg(examples().join("check_vectors.py"));
    print!("{}", run(command).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_python_clients_and_a_rust_client_talk() {
    const SENDERS: [&str; 3] = ["ann", "Zoë", "rust"];
    // With a control character, which must not reach a terminal, and one beyond 16 bits.
    const TEXTS: [&str; 3] = ["hello", "b\u{7}ell", "tea 🍵"];
    let (Some(mut ann), Some(mut zoe)) = (python(), python()) else { return };
    let (engine, address, _data) = engine();
    for (command, name) in [(&mut ann, SENDERS[0]), (&mut zoe, SENDERS[1])] {
        command.arg(examples().join("parlor_client.py")).args(["tea", "--as", name, "--server", &address.to_string()]);
        command.args(TEXTS.iter().flat_map(|text| ["--send", text])).args(["--expect", "9", "--timeout", "50"]);
    }
    let config = Config::new(address.to_string(), SENDERS[2].parse().unwrap());
    let client = timeout(PATIENCE, Client::connect(config)).await.unwrap().unwrap();
    // Everybody joins with the newest 20 of 9 messages, so nobody has to be there before the others.
    let (room, mut events) = timeout(PATIENCE, client.join("tea", JoinFrom::Newest(20))).await.unwrap().unwrap();
    let talk = async {
        for text in TEXTS {
            timeout(PATIENCE, room.publish(text)).await.unwrap().unwrap();
        }
        receive(&mut events, SENDERS.len() * TEXTS.len()).await
    };
    let (ann, zoe, messages) = tokio::join!(run(ann), run(zoe), talk);

    for sender in SENDERS {
        let said: Vec<&str> = messages.iter().filter(|(from, _)| from == sender).map(|(_, text)| &**text).collect();
        assert_eq!(said, TEXTS, "{sender}");
    }
    let printed: Vec<String> =
        messages.iter().map(|(sender, text)| format!("<{sender}> {}", text.replace('\u{7}', "\u{fffd}"))).collect();
    for (name, lines) in [("ann", ann), ("Zoë", zoe)] {
        // The time in front is the machine's: HH:MM and a space.
        let lines: Vec<&str> = lines.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(lines, printed, "{name}");
    }
    timeout(PATIENCE, client.close()).await.unwrap();
    timeout(PATIENCE, engine.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_nonce_is_one_message() {
    let Some(mut command) = python() else { return };
    let (engine, address, _data) = engine();
    command.args(["-c", RETRIES, &address.to_string()]);
    run(command).await;

    let config = Config::new(address.to_string(), "rust".parse().unwrap());
    let client = timeout(PATIENCE, Client::connect(config)).await.unwrap().unwrap();
    let (room, mut events) = timeout(PATIENCE, client.join("retries", JoinFrom::Newest(20))).await.unwrap().unwrap();
    timeout(PATIENCE, room.publish("and no more")).await.unwrap().unwrap();
    let want = [("dora".to_owned(), "once".to_owned()), ("rust".to_owned(), "and no more".to_owned())];
    assert_eq!(receive(&mut events, 2).await, want);
    timeout(PATIENCE, client.close()).await.unwrap();
    timeout(PATIENCE, engine.shutdown()).await.unwrap();
}
