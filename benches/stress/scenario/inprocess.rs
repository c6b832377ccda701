//! Through the public API, without a socket: an engine in this process, subscribers on pipes, everything on one CPU.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, available_parallelism},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use clap::Args;
use parlor::{
    config::EngineConfig,
    engine::{Engine, Pipe, TryRecvError},
    protocol::{
        Body, Code, Extensions, Kind, RoomNumber, decode, encode,
        frame::answer_body_max,
        message::{
            Ack, Close, ContentType, DeviceClass, Durability, Error, Hello, Join, JoinFrom, Joined, Network, Publish,
            RecordKind, Welcome,
        },
        peek, split, to_bytes,
    },
    tiers::{SendRate, Tiers},
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

use super::Scenario;
use crate::{
    options::{Common, at_least_one, window},
    peers::{PAYLOAD, Peer, Storage},
    server::{machine_cpu_seconds, own_cpu_seconds, temporary},
    stats::{Figure, OTHERS, figure},
};

/// The requests of hello and join; publishes have those above.
const HELLO: u32 = 1;
const JOIN: u32 = 2;

/// The load.
#[derive(Clone, Debug, Args, Serialize)]
#[group(skip)]
pub(crate) struct InProcess {
    /// How many subscribers the room has; the first of them publishes.
    #[arg(long, default_value_t = 1, value_parser = at_least_one::<u32>)]
    members: u32,
    /// Publishes that wait for their acks, at most.
    #[arg(long, default_value_t = 1_024, value_parser = window::<u32>)]
    window: u32,
}

impl Scenario for InProcess {
    const NAME: &'static str = "inprocess";
    const PEERS: &'static [&'static str] = &["parlor"];

    fn complete(&mut self, common: &mut Common) {
        // There is no server to be another program, or of another kind.
        if common.peers.iter().any(|name| name != "parlor") {
            eprintln!("inprocess is about Parlor alone: --peers is left out of account");
        }
        common.peers.clear();
        (common.storage, common.arbiters) = (Storage::Memory, Some(1));
    }

    fn title(&self) -> String {
        let Self { members, window } = self;
        format!("within one process on one CPU, 1 room × {members}, {window} publishes in flight, {PAYLOAD} bytes")
    }

    fn storage(&self, _: Storage, _: bool) -> Storage {
        Storage::Memory
    }

    fn offered<P: Peer>(&self, _: &P) -> bool {
        true
    }

    fn measure<P: Peer>(&self, _: &P, _: Storage, common: &Common) -> io::Result<Vec<Figure>> {
        stay_on_one_cpu()?;
        let data = temporary(common)?;
        let mut config = EngineConfig::new(data.path());
        config.arbiters = 1;
        config.tiers = Tiers::sending(SendRate::OFF);
        config.room_defaults.durability = Durability::Memory;
        config.limits.unanswered_requests_max = self.window;
        let engine = Engine::start(config).map_err(io::Error::other)?;
        let mut room = Talk::begin(&engine, self)?;
        room.run(Duration::from_secs_f64(common.warm))?;
        let before = room.delivered();
        let (cpu, machine, began) = (own_cpu_seconds()?, machine_cpu_seconds()?, Instant::now());
        room.run(Duration::from_secs_f64(common.secs))?;
        let seconds = began.elapsed().as_secs_f64();
        let cpu = own_cpu_seconds()? - cpu;
        let others = (machine_cpu_seconds()? - machine - cpu).max(0.0);
        let delivered = (room.delivered() - before) as f64;
        Ok(vec![
            figure("deliveries/s", delivered / seconds),
            figure("publishes/s", delivered / f64::from(self.members) / seconds),
            figure("CPU s per M deliveries", 1e6 * cpu / delivered),
            figure("CPU %", 100.0 * cpu / seconds),
            figure(OTHERS, 100.0 * others / seconds),
        ])
    }
}

/// Keeps this thread, and all that it starts, on one CPU.
fn stay_on_one_cpu() -> io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)).unwrap_or_default();
    let mut one = CpuSet::new();
    one.set(last);
    sched_setaffinity(None, &one)?;
    assert_eq!(available_parallelism()?.get(), 1, "the system keeps the promise");
    Ok(())
}

/// How long nothing may come of what is waited for.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// Ends the program if nothing comes any more: who waits for what was lost waits for ever.
fn guard(received: &Arc<AtomicU64>) {
    let received = Arc::downgrade(received);
    let mut last = (0, Instant::now());
    thread::spawn(move || {
        while let Some(now) = received.upgrade().map(|received| received.load(Relaxed)) {
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > SILENCE_LIMIT {
                eprintln!("inprocess failed: nothing came for {SILENCE_LIMIT:?}, though not all has");
                std::process::exit(1);
            }
            thread::sleep(Duration::from_millis(500));
        }
    });
}

/// A room in which one publishes and all listen.
struct Talk {
    members: Vec<Member>,
    /// Rises as long as something comes, to whomever.
    received: Arc<AtomicU64>,
    room: RoomNumber,
    window: u64,
    published: u64,
    acked: u64,
    /// The sum of all bytes published.
    sum: u64,
    payload: [u8; PAYLOAD],
}

/// A subscriber that has every record up to `seq`, whose payloads' bytes add up to `sum`.
struct Member {
    pipe: Pipe,
    seq: u64,
    sum: u64,
}

impl Talk {
    fn begin(engine: &Engine, load: &InProcess) -> io::Result<Self> {
        let mut members = Vec::new();
        let mut room = RoomNumber(0);
        for id in 0..load.members.max(1) {
            let (member, joined) = Member::join(engine, id)?;
            members.push(member);
            room = joined;
        }
        let mut payload = [0; PAYLOAD];
        (0..).zip(&mut payload).for_each(|(at, byte)| *byte = b'a' + at % 26);
        let received = Arc::default();
        guard(&received);
        Ok(Self { members, received, room, window: u64::from(load.window), published: 0, acked: 0, sum: 0, payload })
    }

    /// Publishes for so long, and until everybody has everything.
    fn run(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        let mut publishing = true;
        loop {
            publishing = publishing && Instant::now() < end;
            if publishing {
                self.publish()?;
            }
            let mut any = false;
            for (index, member) in self.members.iter_mut().enumerate() {
                loop {
                    match member.pipe.receiver.try_recv() {
                        Ok(frames) => self.acked += member.take(self.room, &frames)?,
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Closed) => return Err(lost(index, "the engine closed the connection")),
                    }
                    any = true;
                }
            }
            if !publishing && self.acked == self.published && self.members.iter().all(|member| member.seq == self.acked)
            {
                return self.members.iter().enumerate().try_for_each(|(index, member)| {
                    if member.sum == self.sum { Ok(()) } else { Err(lost(index, "bytes are not those published")) }
                });
            }
            self.received.fetch_add(1, Relaxed);
            if !any {
                // Whoever lacks something waits for it; the engine has the CPU meanwhile.
                let behind = self.members.iter().position(|member| member.seq < self.published).unwrap_or_default();
                let member = &mut self.members[behind];
                let frames = member.pipe.receiver.recv_blocking();
                let frames = frames.ok_or_else(|| lost(behind, "the engine closed the connection"))?;
                self.acked += member.take(self.room, &frames)?;
            }
        }
    }

    /// Publishes what the window takes, as one chunk.
    fn publish(&mut self) -> io::Result<()> {
        let mut frames = BytesMut::new();
        while self.published - self.acked < self.window {
            self.published += 1;
            self.payload[..8].copy_from_slice(&self.published.to_le_bytes());
            self.sum += sum(&self.payload);
            let publish = Publish {
                room: self.room,
                nonce: self.published,
                kind: RecordKind::MESSAGE,
                refers_to: 0,
                lifetime_ms: None,
                flags: 0,
                content_type: ContentType::OPAQUE,
                payload: &self.payload,
                extensions: Extensions::default(),
            };
            encode(JOIN + self.published as u32, &publish, &mut frames);
        }
        self.members[0].pipe.sender.send_blocking(frames.freeze()).map_err(io::Error::other)
    }

    fn delivered(&self) -> u64 {
        self.members.iter().map(|member| member.seq).sum()
    }
}

impl Member {
    fn join(engine: &Engine, id: u32) -> io::Result<(Self, RoomNumber)> {
        let hello = Hello {
            magic: *b"PRLR",
            version_min: 1,
            version_max: 1,
            features: 0,
            user: &format!("user{id}"),
            device: "bench",
            device_class: DeviceClass::Bot,
            network: Network::Wired,
            credentials: &[],
            resume: None,
            attempt: 1,
            extensions: Extensions::default(),
        };
        let mut member = Self { pipe: engine.connect(), seq: 0, sum: 0 };
        member.ask(HELLO, &hello, |body| decode::<Welcome<'_>>(body).map(|_| ()))?;
        let join = Join { room: "bench", from: JoinFrom::Tail, extensions: Extensions::default() };
        let room = member.ask(JOIN, &join, |body| decode::<Joined<'_>>(body).map(|joined| joined.room))?;
        Ok((member, room))
    }

    fn ask<'a, B: Body<'a>, T, E: std::error::Error + Send + Sync + 'static>(
        &mut self,
        request: u32,
        body: &B,
        read: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> io::Result<T> {
        self.pipe.sender.send_blocking(to_bytes(request, body)).map_err(io::Error::other)?;
        let gone = || io::Error::other("the engine closed the connection");
        let frames: Bytes = self.pipe.receiver.recv_blocking().ok_or_else(gone)?;
        let found = split(&frames, answer_body_max).map_err(io::Error::other)?.ok_or_else(gone)?;
        read(found.body).map_err(io::Error::other)
    }

    /// Checks whole frames; how many acks are among them.
    fn take(&mut self, room: RoomNumber, mut frames: &[u8]) -> io::Result<u64> {
        let mut acks = 0;
        while let Some(found) = split(frames, answer_body_max).map_err(io::Error::other)? {
            if found.header.kind == Kind::Deliver as u16 {
                let record = peek::deliver(found.body).map_err(io::Error::other)?;
                if record.room != room || record.seq != self.seq + 1 {
                    return Err(io::Error::other(format!("{record:?} follows seq {}", self.seq)));
                }
                self.seq += 1;
                self.sum += sum(record.payload);
            } else {
                acks += self.answer(found.header.kind, found.body)?;
            }
            frames = &frames[found.size()..];
        }
        if frames.is_empty() { Ok(acks) } else { Err(io::Error::other("a chunk ends within a frame")) }
    }

    fn answer(&mut self, kind: u16, body: &[u8]) -> io::Result<u64> {
        let refused = |code: Code, message: &str| io::Error::other(format!("{message} ({code})"));
        match Kind::from_wire(kind) {
            Some(Kind::Ack) => {
                let ack: Ack<'_> = decode(body).map_err(io::Error::other)?;
                // One device publishes, so its nonces are the seqs.
                if ack.nonce == ack.seq && !ack.duplicate && ack.durability == Durability::Memory {
                    Ok(1)
                } else {
                    Err(io::Error::other(format!("{ack:?}")))
                }
            }
            Some(Kind::Error) => {
                let error: Error<'_> = decode(body).map_err(io::Error::other)?;
                Err(refused(error.code, error.message))
            }
            Some(Kind::Close) => {
                let close: Close<'_> = decode(body).map_err(io::Error::other)?;
                Err(refused(close.code, close.message))
            }
            _ => Err(io::Error::other(format!("a frame of kind {kind:#06x}"))),
        }
    }
}

fn lost(member: usize, what: &str) -> io::Error {
    io::Error::other(format!("member {member}: {what}"))
}

/// The sum of all bytes.
fn sum(bytes: &[u8]) -> u64 {
    // 256 of them fit 16 bits, of which a vector holds many.
    let part = |part: &[u8]| u64::from(part.iter().map(|byte| u16::from(*byte)).sum::<u16>());
    bytes.chunks(256).map(part).sum()
}
