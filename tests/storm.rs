//! Two thousand clients on real sockets that all lose their connections at once, come back at once, and hold every message
//! once and in order. What that costs the store is counted: for each room, and not for each client, where a session is
//! taken up; and behind a restart no more for each client than what his device alone can tell.
#![cfg(all(feature = "engine", feature = "client", feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic, its helpers too")]

mod common;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use common::{Got, Raw, client, engine, ext, hello, join, soon, until};
use parlor::{
    client::{Access, Announce, Client, JoinFrom, Outgoing, Role},
    engine::{Engine, PresenceNews, PresenceWatch, RoomOptions, StoreReads},
};
use parlor_protocol::{
    Advice, Epoch, Kind, List, RoomNumber, Seq, Token,
    message::{Close, Deliver, Detached, Error, Joined, Network, Position, Resume, Welcome},
    to_bytes,
};
use tempfile::TempDir;
use tokio::task::JoinSet;

const CLIENTS: usize = 2_000;
const ROOMS: usize = 20;
const ROOMS_EACH: usize = 3;

/// What all reads of a room may come to, however many clients are in it.
const READS_PER_ROOM_MAX: u64 = 2;

fn room_name(room: usize) -> String {
    format!("room {room}")
}

/// Every other room is for its members alone.
fn has_members(room: usize) -> bool {
    room % 2 == 1
}

fn rooms_of(client: usize) -> impl Iterator<Item = usize> {
    (0..ROOMS_EACH).map(move |at| (client + at * 7) % ROOMS)
}

fn text(room: usize, seq: Seq) -> String {
    format!("message {seq} of room {room}")
}

/// A room as one client holds it.
struct Held {
    at: usize,
    number: RoomNumber,
    epoch: Epoch,
    seq: Seq,
    attached: bool,
}

/// A client: what it keeps of its session, and its connection, if it has one.
struct Device {
    user: String,
    raw: Option<Raw>,
    token: Option<Token>,
    attempt: u64,
    rooms: Vec<Held>,
    /// What the server was too busy for and was asked again.
    put_off: usize,
}

impl Device {
    fn new(number: usize) -> Self {
        let held = |at| Held { at, number: RoomNumber(0), epoch: Epoch(0), seq: 0, attached: false };
        let rooms = rooms_of(number).map(held).collect();
        Self { user: format!("user {number}"), raw: None, token: None, attempt: 0, rooms, put_off: 0 }
    }

    /// Connects, with its session's token if it has one; returns whether the session goes on.
    async fn connect(&mut self, address: SocketAddr) -> bool {
        let mut raw = Raw::connect(address).await;
        self.attempt += 1;
        // Its lease is long, however busy the machine is.
        let (resume, attempt, network) = (self.token, self.attempt, Network::Mobile2g);
        let hello = parlor_protocol::message::Hello { resume, attempt, network, ..hello(&self.user, "phone") };
        let got = raw.ask(1, &hello).await;
        let welcome: Welcome<'_> = got.read();
        assert!(!welcome.resumed || Some(welcome.token) == self.token, "a session keeps its token");
        self.token = Some(welcome.token);
        self.raw = Some(raw);
        welcome.resumed
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.raw.as_mut().unwrap().send(bytes).await;
    }

    /// Joins one of its rooms: from where it stands, or for the first time.
    async fn join(&mut self, of: usize) {
        let Held { at, epoch, seq, .. } = self.rooms[of];
        let from = if epoch == Epoch(0) { JoinFrom::Tail } else { JoinFrom::Position(epoch, seq) };
        self.send(&to_bytes(100 + u32::try_from(of).unwrap(), &join(&room_name(at), from))).await;
    }

    async fn join_all(&mut self) {
        for of in 0..self.rooms.len() {
            self.join(of).await;
        }
    }

    /// Takes up its rooms, all in one frame.
    async fn resume(&mut self) {
        let positions = self.rooms.iter().map(|held| Position { room: held.number, epoch: held.epoch, seq: held.seq });
        let resume = Resume { positions: List(positions.collect()), extensions: ext() };
        self.send(&to_bytes(2, &resume)).await;
    }

    /// Reads until it is in all its rooms and holds them up to `upto`.
    async fn hold(&mut self, upto: Seq) {
        while self.rooms.iter().any(|held| !held.attached || held.seq < upto) {
            let got = self.raw.as_mut().unwrap().next().await.expect("the connection stands");
            self.take(&got).await;
        }
        assert!(self.rooms.iter().all(|held| held.seq == upto), "nothing was sent that nobody said");
    }

    async fn take(&mut self, got: &Got) {
        match got.kind() {
            Kind::Joined => {
                let joined: Joined<'_> = got.read();
                let held = match got.header.request {
                    2 => self.rooms.iter_mut().find(|held| held.number == joined.room).unwrap(),
                    request => &mut self.rooms[request as usize - 100],
                };
                assert!(!std::mem::replace(&mut held.attached, true), "attached once");
                if held.epoch == Epoch(0) {
                    (held.number, held.epoch, held.seq) = (joined.room, joined.epoch, joined.cursor);
                }
                let goes_on = (joined.room, joined.epoch, joined.cursor) == (held.number, held.epoch, held.seq);
                assert!(goes_on, "{}: {joined:?}", self.user);
            }
            Kind::Deliver => {
                let deliver: Deliver<'_> = got.read();
                let held = self.rooms.iter_mut().find(|held| held.number == deliver.room).unwrap();
                assert!(held.attached, "nothing comes before the room goes on");
                assert_eq!(deliver.seq, held.seq + 1, "{}: once, and in order", self.user);
                assert_eq!(deliver.payload, text(held.at, deliver.seq).as_bytes());
                held.seq = deliver.seq;
            }
            Kind::Error => {
                let error: Error<'_> = got.read();
                assert_eq!(error.code.advice(), Advice::RetryLater, "{}: {error:?}", self.user);
                self.join_later(got.header.request as usize - 100, error.retry_after_ms).await;
            }
            Kind::Detached => {
                let detached: Detached<'_> = got.read();
                assert_eq!(detached.code.advice(), Advice::RetryLater, "{}: {detached:?}", self.user);
                let of = self.rooms.iter().position(|held| held.number == detached.room).unwrap();
                self.join_later(of, 50).await;
            }
            Kind::Close => panic!("{}: {:?}", self.user, got.read::<Close<'_>>()),
            other => panic!("{}: {other:?}", self.user),
        }
    }

    /// The server is too busy: as it asks, again after a while.
    async fn join_later(&mut self, of: usize, ms: u32) {
        self.put_off += 1;
        tokio::time::sleep(Duration::from_millis(u64::from(ms))).await;
        self.join(of).await;
    }

    /// Its connection ends at once and without a word: what was on its way is lost.
    fn cut(&mut self) {
        let raw = self.raw.take().unwrap();
        raw.stream.set_zero_linger().unwrap();
        self.rooms.iter_mut().for_each(|held| held.attached = false);
    }
}

/// Has all of them do the same at the same time.
async fn all<F>(devices: Vec<Device>, each: impl Fn(Device) -> F) -> Vec<Device>
where
    F: Future<Output = Device> + Send + 'static,
{
    let mut tasks: JoinSet<Device> = devices.into_iter().map(each).collect();
    let mut back = Vec::with_capacity(tasks.len());
    while let Some(device) = tasks.join_next().await {
        back.push(device.unwrap());
    }
    back
}

/// Speaks in all rooms, each of whose messages tells its seq.
struct Speaker {
    rooms: Vec<(parlor::client::Room, parlor::client::Events)>,
    said: Seq,
    _client: Client,
}

impl Speaker {
    async fn new(address: SocketAddr, said: Seq) -> Self {
        let speaker = client(address, "speaker").await;
        let mut rooms = Vec::new();
        for room in 0..ROOMS {
            rooms.push(soon("a join", speaker.join(&room_name(room), JoinFrom::Tail)).await.unwrap());
        }
        Self { rooms, said, _client: speaker }
    }

    /// Says so many in each room, and waits until they are stored.
    async fn say(&mut self, count: u64) {
        let mut sendings = Vec::new();
        for seq in self.said + 1..=self.said + count {
            for (at, (room, _)) in self.rooms.iter().enumerate() {
                sendings.push((seq, room.send(Outgoing::text(text(at, seq)))));
            }
        }
        for (seq, sending) in sendings {
            assert_eq!(soon("an ack", sending).await.unwrap().seq, seq);
        }
        for (_, events) in &mut self.rooms {
            while events.try_next().is_some() {}
        }
        self.said += count;
    }
}

/// Who is online and since when, as others see it.
fn seen(engine: &Engine, devices: &[Device]) -> BTreeMap<String, Vec<u64>> {
    let since = |user: &str| engine.sessions(user).iter().map(|session| session.since).collect();
    devices.iter().map(|device| (device.user.clone(), since(&device.user))).collect()
}

/// Reads what the host is told of presence until all of these have lost a connection and have one again. None of them may
/// have gone.
async fn nobody_went(host: &mut PresenceWatch, devices: &[Device]) {
    let mut changes: BTreeMap<&str, usize> = devices.iter().map(|device| (&*device.user, 0)).collect();
    let mut waiting = devices.len();
    while waiting > 0 {
        match soon("a change of presence", host.next()).await.unwrap() {
            PresenceNews::Changed { user, sessions } => {
                let Some(changes) = changes.get_mut(&*user) else { continue };
                assert_eq!(sessions, 1, "{user} comes back before he has gone");
                *changes += 1;
                waiting -= usize::from(*changes == 2);
            }
            PresenceNews::Missed(missed) => panic!("{missed} changes were missed"),
        }
    }
}

fn start(data: &TempDir) -> (Engine, SocketAddr) {
    engine(data.path(), |config| {
        config.arbiters = 2;
        config.limits.presence_changes_waiting_max = 1 << 16;
    })
}

/// All of them lose their connections, and nothing is said before the server knows.
async fn cut_all(engine: &Engine, devices: &mut [Device]) {
    devices.iter_mut().for_each(Device::cut);
    until("the server has lost them all", async || engine.connections() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_clients_that_come_back_at_once_cost_the_store_what_their_rooms_do() {
    // Both ends of every connection are here.
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let data = TempDir::new().unwrap();
    let (engine, address) = start(&data);
    for room in 0..ROOMS {
        let users: Vec<String> = (0..CLIENTS)
            .filter(|client| rooms_of(*client).any(|of| of == room))
            .map(|number| format!("user {number}"))
            .collect();
        let mut members: Vec<(&str, Role)> = users.iter().map(|user| (&**user, Role::Member)).collect();
        members.push(("speaker", Role::Owner));
        let options = RoomOptions { announce: Announce::Never, ..RoomOptions::default() };
        if has_members(room) {
            let options = RoomOptions { access: Access::Members, ..options };
            engine.create_room_with(&room_name(room), options, &members).await.unwrap();
        } else {
            engine.create_room(&room_name(room), options).await.unwrap();
        }
    }
    let mut speaker = Speaker::new(address, 0).await;
    let devices = (0..CLIENTS).map(Device::new).collect();
    let mut devices = all(devices, move |mut device: Device| async move {
        assert!(!device.connect(address).await);
        device.join_all().await;
        device.hold(0).await;
        device
    })
    .await;
    speaker.say(5).await;
    devices = all(devices, |mut device: Device| async move {
        device.hold(5).await;
        device
    })
    .await;

    // All connections are lost, and come back within their leases.
    let (since, mut host) = (seen(&engine, &devices), engine.watch_presence());
    let before = engine.store_reads();
    cut_all(&engine, &mut devices).await;
    assert_eq!(engine.sessions_online(), CLIENTS + 1, "their sessions live on");
    speaker.say(30).await;
    let back = all(devices, move |mut device: Device| async move {
        assert!(device.connect(address).await, "its session goes on");
        device.resume().await;
        device.hold(45).await;
        device
    });
    // The last are said while they come.
    (devices, ()) = tokio::join!(back, speaker.say(10));
    let reads = engine.store_reads().since(&before);
    println!("taken up: {reads:?}, {} put off", put_off(&devices));
    assert!(reads.total() <= READS_PER_ROOM_MAX * ROOMS as u64, "{reads:?}");
    nobody_went(&mut host, &devices).await;
    assert_eq!(seen(&engine, &devices), since, "others saw all of them all the time");

    // The server is stopped while they are away, and knows nothing of their sessions when it is back.
    cut_all(&engine, &mut devices).await;
    speaker.say(20).await;
    drop(speaker);
    soon("the engine ends", engine.shutdown()).await;
    let (engine, address) = start(&data);
    let mut devices = all(devices, move |mut device: Device| async move {
        assert!(!device.connect(address).await, "nobody knows its session");
        device.join_all().await;
        device.hold(65).await;
        device
    })
    .await;
    let reads = engine.store_reads();
    println!("joined anew: {reads:?}, {} put off", put_off(&devices));
    check_joined_anew(&reads, put_off(&devices) as u64);

    // From here on their sessions are known again.
    let mut speaker = Speaker::new(address, 65).await;
    let before = engine.store_reads();
    cut_all(&engine, &mut devices).await;
    speaker.say(5).await;
    devices = all(devices, move |mut device: Device| async move {
        assert!(device.connect(address).await, "its session goes on");
        device.resume().await;
        device.hold(70).await;
        device
    })
    .await;
    let reads = engine.store_reads().since(&before);
    println!("taken up again: {reads:?}, {} put off", put_off(&devices));
    assert!(reads.total() <= READS_PER_ROOM_MAX * ROOMS as u64, "{reads:?}");
    soon("the engine ends", engine.shutdown()).await;
}

/// Behind a restart each room is loaded once, and its newest records are read once for all. What a device was answered, and
/// how far its user is, is read once for each device in each room; and what he may do, where the room has members. Who was
/// `put_off` may have had all of it read again.
fn check_joined_anew(reads: &StoreReads, put_off: u64) {
    let (rooms, joins) = (ROOMS as u64, (CLIENTS * ROOMS_EACH) as u64);
    let joins_of_members = (0..CLIENTS).flat_map(rooms_of).filter(|room| has_members(*room)).count() as u64;
    assert_eq!(reads.loads, rooms, "{reads:?}");
    assert!(reads.pages <= READS_PER_ROOM_MAX * rooms, "{reads:?}");
    for (read, joins) in [(reads.answers, joins), (reads.marks, joins), (reads.rights, joins_of_members)] {
        assert!((joins..=joins + put_off).contains(&read), "{reads:?}");
    }
    assert_eq!(reads.targets + reads.room_marks + reads.looks + reads.searches, 0, "{reads:?}");
}

fn put_off(devices: &[Device]) -> usize {
    devices.iter().map(|device| device.put_off).sum()
}
