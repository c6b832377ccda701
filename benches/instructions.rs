//! What the parts that every message passes execute and allocate, counted by valgrind.
//!
//! `cargo bench --bench instructions` runs all of it; see `benches/README.md`. `core.rs` takes the time of the same parts.
#![allow(clippy::expect_used, missing_docs, unreachable_pub, reason = "a bench may panic; gungraun makes public items")]

mod parts;

use std::process::{Command, Stdio};

/// The version of `gungraun-runner` that the library wants, which is its own.
const RUNNER: &str = "0.20.0";

fn main() {
    match obstacle() {
        None => counted::run(),
        Some(what) => println!("instruction counts are skipped: {what}"),
    }
}

/// Why nothing can be counted here.
fn obstacle() -> Option<String> {
    // The runner calls this program again, within valgrind.
    if std::env::args().nth(1).is_some_and(|first| first == "--gungraun-run") {
        return None;
    }
    let answer = |program: &str| {
        let output = Command::new(program).arg("--version").stderr(Stdio::null()).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if answer("valgrind").is_none() {
        return Some("there is no valgrind on the search path: install the package valgrind".into());
    }
    let install = format!("cargo install gungraun-runner --version {RUNNER} --locked");
    match answer("gungraun-runner") {
        None => Some(format!("there is no gungraun-runner on the search path: {install}")),
        Some(found) if !found.ends_with(RUNNER) => {
            Some(format!("{found} is installed, and {RUNNER} is needed: {install}"))
        }
        Some(_) => None,
    }
}

/// What is counted. Everything has happened once before, in the set-up, so that buffers have the size that they keep.
mod counted {
    use std::hint::black_box;

    use bytes::{Bytes, BytesMut};
    use gungraun::{
        Callgrind, Dhat, DhatMetric, EventKind, LibraryBenchmarkConfig, OutputFormat, library_benchmark,
        library_benchmark_group,
    };
    use parlor_actors::outbound::{Outbound, Wire};
    use parlor_protocol::{RoomNumber, Seq, message::Deliver};

    use super::parts::{codec, relay, ring, room, wire};

    const ROOM: RoomNumber = RoomNumber(7);

    /// How many hear a batch where it is fanned out…
    const SUBSCRIBERS: usize = 1_000;
    /// …and how many records it has.
    const RECORDS: u64 = 64;

    #[library_benchmark]
    #[bench::of_128_bytes(codec::deliver(ROOM, 1_000), BytesMut::with_capacity(512))]
    fn encode_deliver(deliver: Deliver<'static>, mut out: BytesMut) -> BytesMut {
        codec::encode(black_box(&deliver), &mut out);
        out
    }

    #[library_benchmark]
    #[bench::of_128_bytes(parlor_protocol::to_bytes(0, &codec::deliver(ROOM, 1_000)))]
    fn decode_deliver(frame: Bytes) -> (Option<(Seq, usize)>, Bytes) {
        (codec::decode_deliver(black_box(&frame)), frame)
    }

    #[library_benchmark]
    #[bench::of_128_bytes(parlor_protocol::to_bytes(1, &codec::publish(ROOM, 1_000)))]
    fn decode_publish(frame: Bytes) -> (Option<(u64, usize)>, Bytes) {
        (codec::decode_publish(black_box(&frame)), frame)
    }

    library_benchmark_group!(name = codec_of_a_message, benchmarks = [encode_deliver, decode_deliver, decode_publish]);

    #[library_benchmark]
    #[bench::of_256(room::Room::new())]
    fn publish_a_turn(mut room: room::Room) -> (u64, room::Room) {
        (room.turn(), room)
    }

    #[library_benchmark]
    #[bench::full(ring::Full::new())]
    fn push_a_record(mut ring: ring::Full) -> ring::Full {
        ring.push();
        ring
    }

    #[library_benchmark]
    #[bench::full(ring::Full::new())]
    fn read_a_page(ring: ring::Full) -> (usize, ring::Full) {
        (ring.page(), ring)
    }

    library_benchmark_group!(name = state_of_a_room, benchmarks = [publish_a_turn, push_a_record, read_a_page]);

    fn heard() -> relay::Audience {
        let mut audience = relay::Audience::new(SUBSCRIBERS, RECORDS);
        audience.hear();
        audience
    }

    #[library_benchmark]
    #[bench::to_1000(relay::Audience::new(SUBSCRIBERS, RECORDS))]
    fn hand_out_a_batch(mut audience: relay::Audience) -> relay::Audience {
        audience.hear();
        audience
    }

    #[library_benchmark]
    #[bench::to_1000(heard())]
    fn write_a_batch(mut audience: relay::Audience) -> (usize, relay::Audience) {
        (audience.write(&wire::Socket), audience)
    }

    #[library_benchmark]
    #[bench::at_once(answered(), codec::batch(ROOM, 1, 1))]
    fn answer_and_deliver(mut waiting: Outbound, record: Bytes) -> (Outbound, Bytes) {
        wire::answer_and_deliver(&mut waiting, &record, &wire::Socket);
        (waiting, record)
    }

    /// A connection that has had an ack and a record before.
    fn answered() -> Outbound {
        let mut waiting = Outbound::default();
        wire::answer_and_deliver(&mut waiting, &codec::batch(ROOM, 1, 1), &wire::Socket);
        waiting
    }

    #[library_benchmark]
    #[bench::to_1000_sockets(&wire::Socket, connections(), codec::batch(ROOM, 1, RECORDS))]
    #[bench::to_1000_pipes(&wire::Pipe, connections(), codec::batch(ROOM, 1, RECORDS))]
    fn fan_out(wire: &dyn Wire, mut connections: Vec<Outbound>, batch: Bytes) -> (Vec<Outbound>, Bytes) {
        wire::fan_out(&mut connections, &batch, wire);
        (connections, batch)
    }

    /// Connections that have had something before, from one buffer.
    fn connections() -> Vec<Outbound> {
        let mut connections = wire::connections(SUBSCRIBERS);
        wire::fan_out(&mut connections, &codec::batch(ROOM, 1, 1), &wire::Socket);
        connections
    }

    library_benchmark_group!(
        name = deliveries,
        benchmarks = [hand_out_a_batch, write_a_batch, fan_out, answer_and_deliver]
    );

    fn config() -> LibraryBenchmarkConfig {
        let mut callgrind = Callgrind::with_args(["--cache-sim=no"]);
        callgrind.format([EventKind::Ir]);
        let mut dhat = Dhat::default();
        dhat.format([DhatMetric::TotalBlocks, DhatMetric::TotalBytes]);
        let mut config = LibraryBenchmarkConfig::default();
        config.tool(callgrind).tool(dhat).output_format(OutputFormat::default().truncate_description(Some(0)).clone());
        config
    }

    gungraun::main!(
        config = config();
        library_benchmark_groups = codec_of_a_message, state_of_a_room, deliveries
    );

    /// Counts it all, or what the arguments say.
    pub(super) fn run() {
        main();
    }
}
