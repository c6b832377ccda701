//! The actors themselves, on arbiters of their own, between a store in memory and sockets in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod following;
mod panics;
mod presence;
mod resuming;
mod sleeping;

use std::{
    backtrace::Backtrace,
    cell::Cell,
    collections::VecDeque,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use actix_rt::{Arbiter, System};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use parlor_actors::{
    context::Shared,
    fleet::Fleet,
    limits::Limits,
    outbound::{Outbound, Wire},
    pools::Pools,
    port::{Clock, Now, RoomOptions},
    relay::link::Hello,
    router::Router,
    session::{
        heartbeat::BeatIntervals,
        inbound::{Inbound, Stop},
    },
    supervisor::state::{sessions::SessionPolicy, sleeping::Census},
    testkit::{MemStore, Served, TestClock, with_deliver},
    tiers::{SendRate, Tiers},
};
use parlor_protocol::{
    Body, Code, Extensions, Header, Kind, List, Nonce, RoomNumber, Seq, Token,
    frame::HEADER_BYTES,
    message::{
        Ack, Close, ContentType, DeviceClass, Durability, Error, Heartbeat, Join, JoinFrom, Joined, Network, Publish,
        RecordKind,
    },
};

/// Nothing here takes that long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// An engine's actors on two arbiters.
struct Engine {
    fleet: Fleet,
    store: Arc<MemStore>,
    clock: Arc<Fragile>,
    served: Option<Served>,
    system: System,
    thread: Option<JoinHandle<()>>,
}

/// A clock that can make a session's actor panic.
struct Fragile {
    clock: Arc<TestClock>,
    breaks_a_session: AtomicBool,
}

impl Clock for Fragile {
    fn now(&self) -> Now {
        if self.breaks_a_session.load(SeqCst) && Backtrace::force_capture().to_string().contains("session::") {
            self.breaks_a_session.store(false, SeqCst);
            panic!("a planted panic");
        }
        self.clock.now()
    }
}

impl Engine {
    fn start(durability: Durability, serves: bool) -> Self {
        Self::start_with(durability, serves, Limits::default(), 1_000)
    }

    /// One whose clients beat so often.
    fn start_with(durability: Durability, serves: bool, limits: Limits, wifi_ms: u32) -> Self {
        let store = MemStore::new(1, 1_000);
        let clock = Arc::new(Fragile { clock: TestClock::at(1_000_000), breaks_a_session: AtomicBool::new(false) });
        let beats = BeatIntervals { wifi_ms, least_ms: 100, grace_least_ms: 10, ..BeatIntervals::default() };
        let shared = Arc::new(Shared {
            store: store.clone(),
            clock: clock.clone(),
            uploads: limits.uploads(),
            pools: Pools::new(&limits),
            router: Router::new(&limits, None),
            limits: Arc::new(limits),
            beats: beats.into(),
            tiers: Arc::new(Tiers::sending(SendRate::OFF)),
            rates: Arc::default(),
            word: Arc::default(),
            session_policy: SessionPolicy::default(),
            create_at_join: Some(RoomOptions { durability, ..RoomOptions::default() }),
        });
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let system = System::new();
            system.block_on(async {
                let more = Arbiter::new();
                let arbiters = vec![Arbiter::current(), more.handle()];
                tell.send((System::current(), Fleet::start(arbiters, shared))).unwrap();
            });
            system.run().unwrap();
        });
        let (system, fleet) = told.recv().unwrap();
        let served = serves.then(|| store.serve());
        Self { fleet, store, clock, served, system, thread: Some(thread) }
    }

    fn connect(&self, user: &str, arbiter: usize) -> Client {
        let (mut client, welcome) = self.hello(user, arbiter, [0; 16], None);
        assert_eq!(welcome.kind, Kind::Welcome);
        client.request = 0;
        client
    }

    /// A client that says hello, maybe to take a session up at this attempt; and what it is told.
    fn hello(&self, user: &str, arbiter: usize, token: [u8; 16], resume: Option<([u8; 16], u64)>) -> (Client, Frame) {
        self.hello_over(Socket::default(), user, arbiter, token, resume)
    }

    fn hello_over(
        &self,
        socket: Socket,
        user: &str,
        arbiter: usize,
        token: [u8; 16],
        resume: Option<([u8; 16], u64)>,
    ) -> (Client, Frame) {
        let socket = Arc::new(socket);
        let far = Far(socket.clone());
        let hello = Hello {
            request: 0,
            version: 1,
            user: user.parse().unwrap(),
            device: "phone".parse().unwrap(),
            device_class: DeviceClass::Mobile,
            network: Network::Wifi,
            token: Token(token),
            resume: resume.map(|(token, _)| Token(token)),
            attempt: resume.map_or(1, |(_, attempt)| attempt),
        };
        self.fleet.run_on(arbiter, move |local| {
            let far = Rc::new(far);
            local.connect(hello, Rc::new(Written(far.clone())), Box::new(Read(far)));
        });
        let mut client = Client { socket, partial: Vec::new(), request: 0, room: RoomNumber(0) };
        let answer = client.next();
        (client, answer)
    }

    /// Runs the engine's drain to its end, on a thread.
    fn drain(&self) -> JoinHandle<()> {
        let fleet = self.fleet.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(fleet.drain(PATIENCE, 5..5));
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.served = None;
        self.system.stop();
        // A thread that hangs is what a test has failed of.
        if let Some(thread) = self.thread.take().filter(|_| !std::thread::panicking()) {
            let _ = thread.join();
        }
    }
}

/// A connection's two ends.
#[derive(Default)]
struct Socket {
    ends: Mutex<Ends>,
    changed: Condvar,
    /// Its client cannot be gone unnoticed.
    near: bool,
}

#[derive(Default)]
struct Ends {
    up: VecDeque<Bytes>,
    down: Vec<u8>,
    /// Whether the client takes nothing.
    full: bool,
    hung_up: bool,
    /// Frames that come for ever.
    flood: Option<Bytes>,
    half_closed: bool,
    ended: bool,
    waker: Option<Waker>,
}

/// The server's end, which ends the connection when it is dropped.
struct Far(Arc<Socket>);

impl Drop for Far {
    fn drop(&mut self) {
        self.0.ends.lock().ended = true;
        self.0.changed.notify_all();
    }
}

/// The half of it that is written to.
struct Written(Rc<Far>);

impl Wire for Written {
    fn poll_write(&self, cx: &mut Context<'_>, waiting: &mut Outbound) -> Poll<std::io::Result<()>> {
        let mut ends = self.0.0.ends.lock();
        if ends.full {
            ends.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        waiting.write_with(|slices| {
            slices.iter().for_each(|slice| ends.down.extend(&slice[..]));
            self.0.0.changed.notify_all();
            Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
        })
    }

    fn may_go_unnoticed(&self) -> bool {
        !self.0.0.near
    }
}

/// The half of it that is read.
struct Read(Rc<Far>);

impl Inbound for Read {
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Stop>> {
        let mut ends = self.0.0.ends.lock();
        if let Some(frames) = &ends.flood {
            return Poll::Ready(Ok(frames.clone()));
        }
        if !ends.up.is_empty() {
            return Poll::Ready(Ok(ends.up.drain(..).collect::<Vec<_>>().concat().into()));
        }
        if ends.hung_up {
            return Poll::Ready(Err(Stop::Gone));
        }
        ends.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut ends = self.0.0.ends.lock();
        ends.up.clear();
        ends.waker = Some(cx.waker().clone());
        if ends.hung_up { Poll::Ready(()) } else { Poll::Pending }
    }

    fn half_close(self: Box<Self>) {
        self.0.0.ends.lock().half_closed = true;
    }
}

impl Socket {
    fn change(&self, change: impl FnOnce(&mut Ends)) {
        let mut ends = self.ends.lock();
        change(&mut ends);
        if let Some(waker) = ends.waker.take() {
            waker.wake();
        }
    }
}

/// A client that blocks.
struct Client {
    socket: Arc<Socket>,
    partial: Vec<u8>,
    request: u32,
    room: RoomNumber,
}

struct Frame {
    kind: Kind,
    request: u32,
    bytes: Bytes,
}

impl Frame {
    fn body<'a, B: Body<'a>>(&'a self) -> B {
        parlor_protocol::decode(&self.bytes[HEADER_BYTES..]).unwrap()
    }
}

impl Client {
    fn send<'a, B: Body<'a>>(&mut self, body: &B) -> u32 {
        self.request += 1;
        let frame = parlor_protocol::to_bytes(self.request, body);
        self.socket.change(|ends| ends.up.push_back(frame));
        self.request
    }

    /// Sends frames together.
    fn send_at_once(&mut self, send: impl FnOnce(&mut Client)) {
        let mut alone = Client { socket: Arc::default(), partial: Vec::new(), request: self.request, room: self.room };
        send(&mut alone);
        self.request = alone.request;
        let frames: Vec<Bytes> = alone.socket.ends.lock().up.drain(..).collect();
        self.socket.change(|ends| ends.up.push_back(frames.concat().into()));
    }

    fn publish(&mut self, nonce: Nonce) -> u32 {
        let payload = format!("message {nonce}");
        self.send(&Publish {
            room: self.room,
            nonce,
            kind: RecordKind::MESSAGE,
            refers_to: 0,
            lifetime_ms: None,
            flags: 0,
            content_type: ContentType::TEXT,
            payload: payload.as_bytes(),
            extensions: Extensions::default(),
        })
    }

    /// The next frame; `None` if the connection has ended.
    fn poll_next(&mut self) -> Option<Frame> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(header) = self.partial.first_chunk() {
                let header = Header::from_bytes(header);
                let size = HEADER_BYTES + header.len as usize;
                if self.partial.len() >= size {
                    let bytes: Bytes = self.partial.drain(..size).collect::<Vec<_>>().into();
                    return Some(Frame { kind: Kind::from_wire(header.kind).unwrap(), request: header.request, bytes });
                }
            }
            let mut ends = self.socket.ends.lock();
            if ends.down.is_empty() {
                if ends.ended {
                    return None;
                }
                let timed_out = self.socket.changed.wait_until(&mut ends, deadline).timed_out();
                assert!(!timed_out, "nothing comes");
            }
            self.partial.append(&mut ends.down);
        }
    }

    #[track_caller]
    fn next(&mut self) -> Frame {
        self.poll_next().expect("the connection has ended")
    }

    fn join(&mut self, from: JoinFrom) -> Seq {
        let request = self.send(&Join { room: "room", from, extensions: Extensions::default() });
        let answer = self.next();
        assert_eq!((answer.kind, answer.request), (Kind::Joined, request));
        let joined: Joined<'_> = answer.body();
        self.room = joined.room;
        joined.cursor
    }

    /// Reads so many records, which follow `after`; other frames are returned.
    fn deliveries(&mut self, after: Seq, many: u64) -> (Vec<Nonce>, Vec<Frame>) {
        let (mut nonces, mut others) = (Vec::new(), Vec::new());
        while (nonces.len() as u64) < many {
            let frame = self.next();
            if frame.kind == Kind::Deliver {
                nonces.push(with_deliver(&frame.bytes, |deliver| {
                    assert_eq!(deliver.seq, after + 1 + nonces.len() as u64, "a hole or a repeat");
                    assert_eq!(deliver.payload, format!("message {}", deliver.nonce).as_bytes());
                    deliver.nonce
                }));
            } else {
                others.push(frame);
            }
        }
        (nonces, others)
    }

    /// Sends until it is stored; the deliveries that come meanwhile go to `others`.
    fn insist(&mut self, nonce: Nonce, others: &mut Vec<Frame>) -> (Seq, bool) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let request = self.publish(nonce);
            loop {
                let frame = self.next();
                if frame.request != request {
                    others.push(frame);
                } else if frame.kind == Kind::Ack {
                    let ack: Ack<'_> = frame.body();
                    return (ack.seq, ack.duplicate);
                } else {
                    let error: Error<'_> = frame.body();
                    assert!(matches!(error.code, Code::OutcomeUnknown | Code::RoomUnavailable), "{}", error.code);
                    break;
                }
            }
        }
        panic!("it is never stored");
    }

    /// Reads up to the close and the end behind it; what came before.
    fn until_closed(&mut self, code: Code) -> Vec<Frame> {
        let mut before = Vec::new();
        loop {
            let frame = self.next();
            if frame.kind == Kind::Close {
                let close: Close<'_> = frame.body();
                assert_eq!(close.code, code);
                assert!(self.poll_next().is_none(), "nothing follows a close");
                assert!(self.socket.ends.lock().half_closed, "the client can read it");
                return before;
            }
            before.push(frame);
        }
    }
}

#[track_caller]
fn wait_for(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[track_caller]
fn wait_for_census(engine: &Engine, what: &str, is: impl Fn(Census) -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    wait_for(what, || is(runtime.block_on(engine.fleet.census())));
}

#[test]
fn what_is_said_on_one_arbiter_is_heard_on_both() {
    for durability in [Durability::Memory, Durability::Buffered, Durability::Synced] {
        let engine = Engine::start(durability, true);
        let (mut ann, mut bob) = (engine.connect("ann", 0), engine.connect("bob", 1));
        assert_eq!((ann.join(JoinFrom::Tail), bob.join(JoinFrom::Tail)), (0, 0));
        for nonce in 1..=200 {
            ann.publish(nonce);
        }
        let (nonces, acks) = ann.deliveries(0, 200);
        assert_eq!(nonces, (1..=200).collect::<Vec<_>>());
        assert!(acks.iter().all(|frame| frame.kind == Kind::Ack && frame.body::<Ack<'_>>().durability == durability));
        assert_eq!(bob.deliveries(0, 200).0, nonces);
        // Who comes later reads what he missed.
        let mut cem = engine.connect("cem", 1);
        assert_eq!(cem.join(JoinFrom::Newest(50)), 150);
        assert_eq!(cem.deliveries(150, 50).0, nonces[150..]);
    }
}

#[test]
fn a_room_whose_channel_panics_goes_on_without_gap_or_repeat() {
    let engine = Engine::start(Durability::Synced, true);
    let (mut ann, mut bob) = (engine.connect("ann", 0), engine.connect("bob", 1));
    ann.join(JoinFrom::Tail);
    bob.join(JoinFrom::Tail);
    let mut others = Vec::new();
    // Four deaths are below what makes a room rest.
    for round in 0..4 {
        let nonce = 2 * round + 1;
        assert_eq!(ann.insist(nonce, &mut others), (nonce, false));
        engine.store.faults(|faults| faults.overstate_next_append = true);
        assert_eq!(ann.insist(nonce + 1, &mut others), (nonce + 1, false), "what the dead one took is not stored");
        // What the dead one stored is known to its successor.
        assert_eq!(ann.insist(nonce, &mut others), (nonce, true));
    }
    assert_eq!(bob.deliveries(0, 8).0, (1..=8).collect::<Vec<_>>());
    let seqs = |frame: &Frame| with_deliver(&frame.bytes, |deliver| deliver.seq);
    let mut heard: Vec<Seq> = others.iter().filter(|frame| frame.kind == Kind::Deliver).map(seqs).collect();
    while heard.len() < 8 {
        heard.push(seqs(&ann.next()));
    }
    assert_eq!(heard, (1..=8).collect::<Vec<_>>());
    assert_eq!(engine.store.frames(&"room".parse().unwrap()).len(), 8);
}

#[test]
fn a_session_ends_with_its_lease() {
    let engine = Engine::start(Durability::Synced, true);
    let mut ann = engine.connect("ann", 0);
    let router = &engine.fleet.shared().router;
    wait_for("she is online", || router.sessions("ann").len() == 1);
    // Three grants of a second, and a tenth of grace each.
    engine.clock.clock.advance(3_300);
    assert!(ann.until_closed(Code::LeaseExpired).is_empty());
    wait_for("she is offline", || router.users_online() == 0);
}

#[test]
fn the_deadline_of_a_connection_goes_with_it() {
    let engine = Engine::start(Durability::Synced, true);
    let deadlines = || {
        let (tell, told) = std::sync::mpsc::channel();
        engine.fleet.run_on(0, move |local| tell.send((local.connections(), local.deadlines())).unwrap());
        told.recv().unwrap()
    };
    let clients = ["ann", "bob", "cem"].map(|user| engine.connect(user, 0));
    assert_eq!(deadlines(), (3, 3));
    clients[1].socket.change(|ends| ends.hung_up = true);
    wait_for("his connection is gone", || deadlines().0 == 2);
    assert_eq!(deadlines(), (2, 2));
}

#[test]
fn a_device_that_connects_again_replaces_its_older_session() {
    let engine = Engine::start(Durability::Synced, true);
    let mut first = engine.connect("ann", 0);
    let second = engine.connect("ann", 1);
    first.until_closed(Code::Replaced);
    let router = &engine.fleet.shared().router;
    wait_for("one of them is left", || router.sessions("ann").len() == 1);
    second.socket.change(|ends| ends.hung_up = true);
    wait_for("her connection is gone", || router.conns("ann").is_empty());
    assert_eq!(router.users_online(), 1, "she may come back until her lease ends");
    engine.clock.clock.advance(3_300);
    wait_for("she is offline", || router.users_online() == 0);
}

#[test]
fn a_drain_answers_everything_accepted() {
    let engine = Engine::start(Durability::Synced, false);
    let (mut ann, mut bob) = (engine.connect("ann", 0), engine.connect("bob", 1));
    let joins: Vec<u32> = [&mut ann, &mut bob]
        .map(|client| client.send(&Join { room: "room", from: JoinFrom::Tail, extensions: Extensions::default() }))
        .into();
    wait_for("the room is created", || {
        engine.store.run();
        [&ann, &bob].iter().all(|client| !client.socket.ends.lock().down.is_empty())
    });
    for (client, request) in [&mut ann, &mut bob].into_iter().zip(joins) {
        let joined = client.next();
        assert_eq!((joined.kind, joined.request), (Kind::Joined, request));
        client.room = joined.body::<Joined<'_>>().room;
    }
    // More than a session may have unanswered, and one that only listens does not read.
    let many = 150;
    bob.socket.change(|ends| ends.full = true);
    ann.send_at_once(|ann| {
        for nonce in 1..=many {
            ann.publish(nonce);
        }
    });
    wait_for("she is heard", || engine.store.queued() > 0);
    let drained = engine.drain();
    let served = engine.store.serve();
    let before = ann.until_closed(Code::GoingAway);
    let acks = before.iter().filter(|frame| frame.kind == Kind::Ack).count() as u64;
    let deliveries = before.iter().filter(|frame| frame.kind == Kind::Deliver).count() as u64;
    assert_eq!((acks, deliveries), (many, many));
    bob.socket.change(|ends| ends.full = false);
    let before = bob.until_closed(Code::GoingAway);
    assert!(before.iter().all(|frame| frame.kind == Kind::Deliver));
    drained.join().unwrap();
    drop(served);
}

#[test]
fn a_device_whose_sessions_keep_panicking_has_to_wait_longer_each_time() {
    let engine = Engine::start(Durability::Synced, true);
    let Limits { restarts_max, rest_ms, .. } = *engine.fleet.shared().limits;
    let (token, attempt) = ([1; 16], Cell::new(1));
    // Her client comes back with its token each time.
    let comes = |at| {
        let resume = (attempt.get() > 1).then(|| (token, attempt.get()));
        attempt.set(attempt.get() + 1);
        engine.hello("ann", at, token, resume)
    };
    let fails = || {
        let (mut ann, welcome) = comes(0);
        assert_eq!(welcome.kind, Kind::Welcome);
        ann.join(JoinFrom::Tail);
        engine.clock.breaks_a_session.store(true, SeqCst);
        ann.publish(1);
        ann.until_closed(Code::Internal);
    };
    (0..=restarts_max).for_each(|_| fails());
    wait_for_census(&engine, "they are counted", |census| census.sessions_failed == u64::from(restarts_max) + 1);
    let put_off = |at: usize| {
        let (_, answer) = comes(at);
        assert_eq!(answer.kind, Kind::Close);
        let Close { code, retry_after_ms, .. } = answer.body();
        (code, u64::from(retry_after_ms))
    };
    assert_eq!(put_off(1), (Code::SessionsFail, rest_ms));
    assert_eq!(engine.fleet.shared().router.sessions("ann").len(), 1, "what she may take up later is kept");
    engine.connect("bob", 0).join(JoinFrom::Tail);
    engine.clock.clock.advance(rest_ms);
    (0..=restarts_max).for_each(|_| fails());
    wait_for_census(&engine, "they are counted", |census| census.sessions_failed == 2 * (u64::from(restarts_max) + 1));
    assert_eq!(put_off(0), (Code::SessionsFail, 2 * rest_ms));
    engine.clock.clock.advance(2 * rest_ms);
    comes(1).0.join(JoinFrom::Tail);
}

#[test]
fn a_client_that_never_stops_sending_does_not_keep_its_neighbours_waiting() {
    let engine = Engine::start(Durability::Synced, true);
    let (ann, mut bob) = (engine.connect("ann", 0), engine.connect("bob", 0));
    // Of a module that there is not, so that nothing answers it and nothing holds it back.
    let unknown = Header { len: 0, kind: 0x8000, flags: 0, request: 0 };
    ann.socket.change(|ends| ends.flood = Some(unknown.to_bytes().to_vec().into()));
    bob.join(JoinFrom::Tail);
    assert_eq!(bob.insist(1, &mut Vec::new()), (1, false));
    ann.socket.change(|ends| (ends.flood, ends.hung_up) = (None, true));
    let router = &engine.fleet.shared().router;
    wait_for("her connection is gone", || router.conns("ann").is_empty());
}

#[test]
fn a_session_reads_no_more_while_too_many_of_its_requests_are_unanswered() {
    let mut engine = Engine::start(Durability::Synced, true);
    let (mut ann, mut bob) = (engine.connect("ann", 0), engine.connect("bob", 0));
    ann.join(JoinFrom::Tail);
    bob.join(JoinFrom::Tail);
    engine.served = None;
    let max = u64::from(Limits::default().unanswered_requests_max);
    ann.send_at_once(|ann| {
        for nonce in 1..=max + 1 {
            ann.publish(nonce);
        }
    });
    wait_for("as many as may be are asked", || engine.store.queued() > 0);
    ann.publish(max + 2);
    // Her neighbour's later turn comes and goes.
    let beat = bob.send(&Heartbeat { network: None, positions: List::default(), extensions: Extensions::default() });
    assert_eq!(bob.next().request, beat);
    assert_eq!(ann.socket.ends.lock().up.len(), 1, "it is not read");
    engine.served = Some(engine.store.serve());
    assert_eq!(ann.deliveries(0, max + 2).0, (1..=max + 2).collect::<Vec<_>>());
}
