//! `parlor chat` in a pipe: what it writes, what its commands do, and that it ends.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod common;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use common::{client, engine, soon};
use parlor::client::{Durability, Event, JoinFrom};
use tempfile::TempDir;

/// Shorter than the minute that a pipe waits while nothing comes, with room for a busy machine.
const SOON: Duration = Duration::from_secs(45);

fn chat(server: SocketAddr, name: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parlor"));
    command.args(["chat", "tea", "--as", name, "--server", &server.to_string()]).args(arguments).env("TZ", "UTC");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs a chat with this input to its end.
async fn say(server: SocketAddr, name: &str, arguments: &[&str], input: &str) -> Output {
    let (mut child, input) = (chat(server, name, arguments), input.to_owned());
    let run = tokio::task::spawn_blocking(move || {
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    soon("the chat's end", run).await.unwrap()
}

/// The lines of an output without the times in them.
fn lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let timeless = |line: &str| {
        let words = line.split(' ').filter(|word| !(word.len() == 5 && word.as_bytes()[2] == b':'));
        words.collect::<Vec<_>>().join(" ")
    };
    text.lines().map(timeless).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_change_what_was_said_and_everybody_sees_it() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |_| {});
    let input = "hi\n/edit ho\n//edit is a command\n/react 1 👍\nnever mind\n/recall\n/who 1\n";
    let said = say(address, "ann", &["--commands", "--numbers"], input).await;
    assert!(said.status.success(), "{said:?}");
    let want = [
        "1 <ann> hi",
        "2 * ann edited 1: ho",
        "3 <ann> /edit is a command",
        "4 * ann reacted to 1: 👍",
        "5 <ann> never mind",
        "6 * ann recalled 5",
    ];
    let mut seen = lines(&said.stdout);
    seen.retain(|line| !line.starts_with("* 1 was read by"));
    assert_eq!(seen, want);
    // Who comes later sees what is left of it.
    let later = say(address, "bob", &[], "").await;
    let want = [
        "<ann> ho (edited) 👍 1",
        "* ann edited 1: ho",
        "<ann> /edit is a command",
        "* ann reacted to 1: 👍",
        "<ann> (recalled)",
        "* ann recalled 5",
    ];
    assert_eq!(lines(&later.stdout), want);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_here_is_told() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |_| {});
    let bob = client(address, "bob").await;
    let _tea = soon("a join", bob.join("tea", JoinFrom::Tail)).await.unwrap();
    let said = say(address, "ann", &["--commands"], "/online\n").await;
    assert_eq!(lines(&said.stdout), ["* 2 here: ann, bob"]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_commands_a_line_with_a_slash_is_said() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |_| {});
    let said = say(address, "ann", &[], "/quit\n/etc is full\n").await;
    assert!(said.status.success(), "{said:?}");
    assert_eq!(lines(&said.stdout), ["<ann> /quit", "<ann> /etc is full"]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_make_rooms_and_talk_to_people() {
    let data = TempDir::new().unwrap();
    let (engine, address) = engine(data.path(), |_| {});
    let bob = client(address, "bob").await;
    let made = say(address, "ann", &["--commands"], "/create tea time members\n/dm bob are you there?\n/rooms\n").await;
    assert!(made.status.success(), "{made:?}");
    let seen = lines(&made.stdout);
    assert!(seen[0].starts_with("* room tea time is yours"), "{seen:?}");
    assert_eq!(seen[1], "* said to bob");
    assert!(seen.iter().any(|line| line.ends_with("<ann> are you there?")), "{seen:?}");
    assert!(seen.contains(&"* tea time: owner, 0 unread".to_owned()), "{seen:?}");
    let room = bob.rooms(None, 0).await.unwrap().rooms.remove(0);
    assert_eq!((room.unread, room.newest.unwrap().text()), (1, Some("are you there?")));
    // What may not be done, or is no command, is said, and the exit code tells.
    let refused = say(address, "ann", &["--commands"], "/kick bob\n/dance\n").await;
    assert_eq!(refused.status.code(), Some(1));
    let errors = lines(&refused.stderr);
    assert!(errors[0].starts_with("not done: ") && errors[0].contains("Forbidden"), "{errors:?}");
    assert!(errors[1].contains("/help"), "{errors:?}");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_does_not_wait_for_what_an_old_epoch_took_with_it() {
    let data = TempDir::new().unwrap();
    let memory = |config: &mut parlor::config::EngineConfig| config.room_defaults.durability = Durability::Memory;
    let (first, address) = engine(data.path(), memory);
    let ann = client(address, "ann").await;
    let (room, mut events) = ann.join("tea", JoinFrom::Tail).await.unwrap();
    for number in 0..20 {
        room.publish(&number.to_string()).await.unwrap();
        soon("its delivery", events.next()).await.unwrap();
    }
    let mut child = chat(address, "bob", &[]);
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut read = || out.next().unwrap().unwrap();
    (0..20).for_each(|_| drop(read()));
    first.shutdown().await;
    let mut config = parlor::config::EngineConfig::new(data.path());
    memory(&mut config);
    let second = parlor::engine::Engine::start(config).unwrap();
    second.listen(address).unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    while errors.next().unwrap().unwrap() != "connected again" {}
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hi\n").unwrap();
    drop(stdin);
    let began = Instant::now();
    assert!(tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap().success());
    assert!(began.elapsed() < SOON, "it ended after {:?}", began.elapsed());
    assert!(read().ends_with("<bob> hi"));
    assert!(matches!(soon("an event", events.next()).await, Some(Event::Disconnected { .. })));
    second.shutdown().await;
}
