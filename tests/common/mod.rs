//! What the tests over real sockets share: engines, raw connections, a healthy neighbour, a server in a process of its
//! own.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::BytesMut;
use parlor::{
    client::{Client, Config, ContentType, Event, JoinFrom, RecordKind},
    config::EngineConfig,
    engine::Engine,
    tiers::{SendRate, Tiers},
};
use parlor_protocol::{
    Body, Code, Extensions, Header, Kind, RoomNumber, decode,
    message::{self, DeviceClass, Network},
    split, to_bytes,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Whatever takes longer than this never happens.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for what has to happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen within {PATIENCE:?}: {what}"),
    }
}

/// Looks again and again until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < PATIENCE, "not so within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// An engine on `data` that listens on a free port.
pub(crate) fn engine(data: &Path, change: impl FnOnce(&mut EngineConfig)) -> (Engine, SocketAddr) {
    let mut config = EngineConfig::new(data);
    config.tiers = Tiers::sending(SendRate::OFF); // Most tests flood.
    change(&mut config);
    let engine = Engine::start(config).unwrap();
    let address = engine.listen(loopback()).unwrap();
    (engine, address)
}

pub(crate) fn ext<'a>() -> Extensions<'a> {
    Extensions::default()
}

pub(crate) fn hello<'a>(user: &'a str, device: &'a str) -> message::Hello<'a> {
    message::Hello {
        magic: *b"PRLR",
        version_min: 1,
        version_max: 1,
        features: 0,
        user,
        device,
        device_class: DeviceClass::Bot,
        network: Network::Wired,
        credentials: &[],
        resume: None,
        attempt: 1,
        extensions: ext(),
    }
}

pub(crate) fn publish(room: RoomNumber, nonce: u64, payload: &[u8]) -> message::Publish<'_> {
    message::Publish {
        room,
        nonce,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        lifetime_ms: None,
        flags: 0,
        content_type: ContentType::TEXT,
        payload,
        extensions: ext(),
    }
}

pub(crate) fn join(room: &str, from: JoinFrom) -> message::Join<'_> {
    message::Join { room, from, extensions: ext() }
}

pub(crate) fn beat<'a>() -> message::Heartbeat<'a> {
    message::Heartbeat { network: None, positions: parlor_protocol::List::default(), extensions: ext() }
}

/// A frame with any header and any body.
pub(crate) fn frame(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let header = Header { len: u32::try_from(body.len()).unwrap(), kind, flags, request: 9 };
    [&header.to_bytes()[..], body].concat()
}

/// The header alone of a frame that claims `len` bytes.
pub(crate) fn claim(kind: Kind, len: u32) -> Vec<u8> {
    Header { len, kind: kind as u16, flags: 0, request: 9 }.to_bytes().to_vec()
}

/// A frame that the server sent.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) header: Header,
    pub(crate) body: Vec<u8>,
}

impl Got {
    #[track_caller]
    pub(crate) fn read<'a, B: Body<'a>>(&'a self) -> B {
        assert_eq!(self.kind(), B::KIND, "{:?}", self.refusal());
        decode(&self.body).unwrap()
    }

    pub(crate) fn kind(&self) -> Kind {
        Kind::from_wire(self.header.kind).unwrap()
    }

    /// The code of an `Error` or a `Close`.
    pub(crate) fn refusal(&self) -> Option<Code> {
        match self.kind() {
            Kind::Error => Some(decode::<message::Error<'_>>(&self.body).unwrap().code),
            Kind::Close => Some(decode::<message::Close<'_>>(&self.body).unwrap().code),
            _ => None,
        }
    }
}

/// A connection of raw bytes.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    input: BytesMut,
    /// Whether the server may end within a frame, as it does where it gives up writing.
    pub(crate) may_be_cut: bool,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(soon("a connection", TcpStream::connect(address)).await.unwrap())
    }

    /// With small buffers, so that not reading is soon noticed.
    pub(crate) async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 << 10).unwrap();
        Self::over(soon("a connection", socket.connect(address)).await.unwrap())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, input: BytesMut::new(), may_be_cut: false }
    }

    /// A connection that has said hello and was welcomed.
    pub(crate) async fn welcomed(address: SocketAddr, user: &str, device: &str) -> Self {
        let mut raw = Self::connect(address).await;
        raw.greet(user, device).await;
        raw
    }

    pub(crate) async fn greet(&mut self, user: &str, device: &str) {
        self.send(&to_bytes(1, &hello(user, device))).await;
        let got = self.next().await.expect("a welcome");
        assert_eq!(got.read::<message::Welcome<'_>>().version, 1);
        assert_eq!(got.header.request, 1);
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        soon("a write", self.stream.write_all(bytes)).await.unwrap();
    }

    /// Writes as far as the server takes it: it may close before it has read all.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) {
        let _ = soon("a write", self.stream.write_all(bytes)).await;
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Got> {
        loop {
            if let Some(got) = self.take() {
                return Some(got);
            }
            match soon("a frame or the end of the connection", self.stream.read_buf(&mut self.input)).await {
                Ok(1..) => {}
                Ok(0) => {
                    assert!(self.may_be_cut || self.input.is_empty(), "the server ended within a frame");
                    return None;
                }
                Err(_) => return None,
            }
        }
    }

    fn take(&mut self) -> Option<Got> {
        let found = split(&self.input, parlor_protocol::frame::answer_body_max).unwrap()?;
        let (size, got) = (found.size(), Got { header: found.header, body: found.body.to_vec() });
        let _ = self.input.split_to(size);
        Some(got)
    }

    /// The answer to this request; what comes before it is dropped.
    pub(crate) async fn answer(&mut self, request: u32) -> Got {
        loop {
            let got = self.next().await.expect("an answer");
            if got.header.request == request {
                return got;
            }
        }
    }

    pub(crate) async fn ask<'a, B: Body<'a>>(&mut self, request: u32, body: &B) -> Got {
        self.send(&to_bytes(request, body)).await;
        self.answer(request).await
    }

    pub(crate) async fn join(&mut self, room: &str, from: JoinFrom) -> RoomNumber {
        self.ask(2, &join(room, from)).await.read::<message::Joined<'_>>().room
    }

    /// Reads to the end of the connection. The close frame, if there was one, was its last.
    pub(crate) async fn end(&mut self) -> Option<Got> {
        let mut last = None;
        while let Some(got) = self.next().await {
            assert!(last.is_none(), "{got:?} follows a close");
            last = (got.kind() == Kind::Close).then_some(got);
        }
        last
    }
}

/// A client with the patience that a busy machine asks for.
pub(crate) fn config(address: SocketAddr, user: &str) -> Config {
    let mut config = Config::new(address.to_string(), user.parse().unwrap());
    config.ack_timeout = PATIENCE;
    config.connect_timeout = PATIENCE;
    config.connect_patience = PATIENCE;
    config.backoff_min = Duration::from_millis(20);
    config.backoff_max = Duration::from_millis(200);
    config
}

pub(crate) async fn client(address: SocketAddr, user: &str) -> Client {
    soon("a client", Client::connect(config(address, user))).await.unwrap()
}

/// A client that talks and listens all the time, and panics at the first thing that it should not see.
pub(crate) struct Neighbour {
    stop: Arc<AtomicBool>,
    rounds: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Neighbour {
    pub(crate) async fn move_in(address: SocketAddr) -> Self {
        let client = client(address, "neighbour").await;
        let stop = Arc::new(AtomicBool::new(false));
        let (done, rounds) = watch::channel(0);
        let task = tokio::spawn(Self::live(client, stop.clone(), done));
        Self { stop, rounds, task }
    }

    async fn live(client: Client, stop: Arc<AtomicBool>, done: watch::Sender<u64>) {
        let (room, mut events) = soon("the neighbour's join", client.join("next door", JoinFrom::Tail)).await.unwrap();
        let mut round = 0;
        while !stop.load(SeqCst) {
            round += 1;
            let text = format!("round {round}");
            let acked = soon("the neighbour's ack", room.publish(&text)).await.unwrap();
            assert!(!acked.duplicate);
            match soon("the neighbour's own message", events.next()).await {
                Some(Event::Message(message)) => {
                    assert_eq!((message.seq, message.text()), (acked.seq, Some(&*text)));
                    assert_eq!(message.seq, round);
                }
                other => panic!("the neighbour was told {other:?}"),
            }
            done.send_replace(round);
            tokio::time::sleep(Duration::from_millis(2)).await; // The machine is not his alone.
        }
        let stats = client.stats();
        let undisturbed = (stats.connections, stats.gaps, stats.holes, stats.duplicates, stats.resends, stats.refusals);
        assert_eq!(undisturbed, (1, 0, 0, 0, 0, 0));
        client.close().await;
    }

    /// A whole round, begun after this was called.
    pub(crate) async fn round(&mut self) {
        let two_more = *self.rounds.borrow() + 2;
        let reached = soon("a round of the neighbour", self.rounds.wait_for(|round| *round >= two_more)).await.is_ok();
        assert!(reached, "the neighbour is unhappy");
    }

    pub(crate) async fn move_out(mut self) {
        self.round().await;
        self.stop.store(true, SeqCst);
        soon("the neighbour's end", self.task).await.unwrap();
    }
}

/// `parlor serve` as a process of its own; killed with this.
pub(crate) struct Served {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
}

impl Served {
    pub(crate) fn start(data: &Path, config: Option<&Path>, listen: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_parlor"));
        command.args(["serve", "--send-rate", "off", "--listen", &listen.to_string(), "--data"]).arg(data);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).env_remove("PARLOR_LOG");
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said = line.strip_prefix("parlor listens on ").and_then(|rest| rest.split(' ').next());
        let address = said.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("the server said {line:?}"));
        Self { child, address }
    }

    /// Sends a signal by its short name.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    pub(crate) async fn exit(mut self) -> ExitStatus {
        let mut exit = None;
        until("the server's exit", async || {
            exit = self.child.try_wait().unwrap();
            exit.is_some()
        })
        .await;
        exit.unwrap()
    }

    /// The server's resident memory in bytes; `None` where the system does not tell.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Both fail if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a configuration file into `folder`.
pub(crate) fn config_file(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("parlor.toml");
    std::fs::write(&path, text).unwrap();
    path
}
