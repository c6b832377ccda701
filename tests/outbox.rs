//! The outbox on disk: a chat that is killed between a send and its ack says it once all the same.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod common;

use std::{
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
};

use common::{client, config, engine, loopback, soon, until};
use parlor::client::{Client, Event, FileOutbox, JoinFrom, Outgoing, PublishError, SyncPolicy};
use parlor_protocol::{Kind, decode, message, split};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

/// What becomes of the first publish.
#[derive(Clone, Copy, Debug, PartialEq)]
enum First {
    /// It arrives, and nothing comes back any more.
    Arrives,
    /// It does not arrive either.
    IsLost,
}

/// Stands before a server until the first publish, whose nonce it tells. From there on it passes nothing more.
async fn silent_from_the_first_publish(server: SocketAddr, first: First) -> (SocketAddr, mpsc::UnboundedReceiver<u64>) {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(server).await.unwrap();
        let (mut asked, mut answered) = (bytes::BytesMut::new(), bytes::BytesMut::new());
        loop {
            tokio::select! {
                read = client.read_buf(&mut asked) => {
                    if read.unwrap_or(0) == 0 {
                        return;
                    }
                    while let Some(frame) = split(&asked, |_| Ok(1 << 20)).unwrap() {
                        let publish = (frame.header.kind == Kind::Publish as u16)
                            .then(|| decode::<message::Publish<'_>>(frame.body).unwrap().nonce);
                        let frame = asked.split_to(frame.size());
                        if publish.is_none() || first == First::Arrives {
                            server.write_all(&frame).await.unwrap();
                        }
                        if let Some(nonce) = publish {
                            tell.send(nonce).unwrap();
                            // Both ends stay open, and nobody listens.
                            return std::future::pending().await;
                        }
                    }
                }
                _ = server.read_buf(&mut answered) => client.write_all(&answered.split()).await.unwrap(),
            }
        }
    });
    (address, told)
}

fn chat(server: SocketAddr, outbox: &Path) -> (Child, ChildStdin) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parlor"));
    command.args(["chat", "tea", "--as", "ann", "--device", "laptop", "--server", &server.to_string(), "--outbox"]);
    let mut child = command.arg(outbox).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let stdin = child.stdin.take().unwrap();
    (child, stdin)
}

async fn check_killed(first: First) {
    let (data, outbox) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (engine, address) = engine(data.path(), |_| {});
    let ear = client(address, "ear").await;
    let (_room, mut heard) = ear.join("tea", JoinFrom::Tail).await.unwrap();

    let (proxy, mut told) = silent_from_the_first_publish(address, first).await;
    let (mut child, mut stdin) = chat(proxy, outbox.path());
    stdin.write_all(b"once\n").unwrap();
    let nonce = soon("the publish", told.recv()).await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();

    let (mut child, mut stdin) = chat(address, outbox.path());
    stdin.write_all(b"and more\n").unwrap();
    drop(stdin);
    for (seq, text) in [(1, "once"), (2, "and more")] {
        match soon("a message", heard.next()).await {
            Some(Event::Message(message)) => {
                assert_eq!((message.seq, message.text()), (seq, Some(text)), "{first:?}");
                assert_eq!(message.nonce == nonce, seq == 1, "{first:?}: it goes out under the nonce that it had");
            }
            other => panic!("{first:?}: {other:?}"),
        }
    }
    until("the chat's end", async || child.try_wait().unwrap().is_some()).await;
    // Nothing is left of it, so a third start says nothing.
    let (ann, device) = ("ann".parse().unwrap(), "laptop".parse().unwrap());
    let left = FileOutbox::open(outbox.path(), &ann, &device, SyncPolicy::Each).unwrap();
    assert!(left.is_empty(), "{first:?}: {left:?}");
    assert_eq!(heard.try_next(), None);
    ear.close().await;
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_killed_between_a_send_and_its_ack_says_it_once() {
    check_killed(First::Arrives).await;
    check_killed(First::IsLost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_while_the_server_was_away_goes_out_after_a_restart_in_order() {
    let (data, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (engine, address) = engine(data.path(), |_| {});
    let open = || {
        let (user, device) = ("ann".parse().unwrap(), "default".parse().unwrap());
        FileOutbox::open(folder.path(), &user, &device, SyncPolicy::System)
    };
    let connect = async |outbox| {
        let mut config = config(address, "ann");
        config.outbox = Some(Arc::new(Mutex::new(outbox)));
        Client::connect(config).await.unwrap()
    };
    let ann = connect(open().unwrap()).await;
    let (room, _events) = ann.join("tea", JoinFrom::Tail).await.unwrap();
    room.publish("0").await.unwrap();
    engine.shutdown().await;
    until("the loss is seen", async || ann.stats().connections == 1).await;
    let sending: Vec<_> = (1..=20).map(|n| room.send(Outgoing::text(n.to_string()))).collect();
    // The program ends while nobody is there to take them.
    ann.close().await;
    for sending in sending {
        assert!(matches!(sending.await, Err(PublishError::Closed { .. })));
    }
    drop(room);
    drop(_events);
    let mut left = open();
    until("the first client has let go", async || {
        left = open();
        left.is_ok()
    })
    .await;
    let left = left.unwrap();
    assert_eq!(left.len(), 20);

    let (engine, address) = common::engine(data.path(), |_| {});
    let mut config = config(address, "ann");
    config.outbox = Some(Arc::new(Mutex::new(left)));
    let ann = Client::connect(config).await.unwrap();
    let (room, mut events) = ann.join("tea", JoinFrom::Seq(1)).await.unwrap();
    room.publish("21").await.unwrap();
    for n in 0..=21 {
        match soon("a message", events.next()).await {
            Some(Event::Message(message)) => assert_eq!(message.text(), Some(&*n.to_string())),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(events.try_next(), None);
    ann.close().await;
    engine.shutdown().await;
}
