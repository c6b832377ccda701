//! Time of the parts that every message passes: the codec, a room's state, what waits for a connection, the store.
//!
//! `cargo bench --bench core` runs all of it; see `benches/README.md`. `instructions.rs` counts what the same parts
//! execute.
#![allow(clippy::expect_used, missing_docs, reason = "a bench may panic, and criterion makes public items")]

mod parts;
/// Not among the parts: what RocksDB executes for a commit depends on what its other threads do, so it is timed only.
#[path = "parts/store.rs"]
mod store;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use parlor_actors::outbound::{Outbound, Wire};
use parlor_protocol::{RoomNumber, message::Durability};

use parts::{codec, relay, ring, room, wire};

const ROOM: RoomNumber = RoomNumber(7);

/// How many hear a batch where it is fanned out…
const SUBSCRIBERS: usize = 1_000;
/// …and how many records it has.
const RECORDS: u64 = 64;

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(1));
    let mut out = BytesMut::with_capacity(512);
    group.bench_function("encode a deliver of 128 bytes", |bencher| {
        bencher.iter(|| {
            out.clear();
            codec::encode(black_box(&codec::deliver(ROOM, 1_000)), &mut out);
        });
    });
    let deliver = parlor_protocol::to_bytes(0, &codec::deliver(ROOM, 1_000));
    group.bench_function("decode a deliver of 128 bytes", |bencher| {
        bencher.iter(|| codec::decode_deliver(black_box(&deliver)));
    });
    let publish = parlor_protocol::to_bytes(1, &codec::publish(ROOM, 1_000));
    group.bench_function("decode a publish of 128 bytes", |bencher| {
        bencher.iter(|| codec::decode_publish(black_box(&publish)));
    });
    group.finish();
}

fn publishing(criterion: &mut Criterion) {
    let mut room = room::Room::new();
    let mut group = criterion.benchmark_group("room");
    group.throughput(Throughput::Elements(room::MESSAGES));
    group.bench_function("publish 256 in one turn", |bencher| bencher.iter(|| room.turn()));
    group.finish();
}

fn keeping(criterion: &mut Criterion) {
    let mut ring = ring::Full::new();
    let mut group = criterion.benchmark_group("ring");
    group.bench_function("push a record, and one falls off", |bencher| bencher.iter(|| ring.push()));
    group.bench_function("read the usual page", |bencher| bencher.iter(|| ring.page()));
    group.finish();
}

fn delivering(criterion: &mut Criterion) {
    let mut audience = relay::Audience::new(SUBSCRIBERS, RECORDS);
    let mut group = criterion.benchmark_group("relay");
    group.throughput(Throughput::Elements(SUBSCRIBERS as u64));
    group.bench_function("hand a batch to 1,000 subscribers", |bencher| {
        bencher.iter_custom(|times| {
            let mut taken = Duration::ZERO;
            for _ in 0..times {
                let began = Instant::now();
                audience.hear();
                taken += began.elapsed();
                audience.write(&wire::Socket);
            }
            taken
        });
    });
    group.bench_function("write it to their sockets", |bencher| {
        bencher.iter_custom(|times| {
            let mut taken = Duration::ZERO;
            for _ in 0..times {
                audience.hear();
                let began = Instant::now();
                audience.write(&wire::Socket);
                taken += began.elapsed();
            }
            taken
        });
    });
    group.finish();
}

fn writing(criterion: &mut Criterion) {
    let (record, batch) = (codec::batch(ROOM, 1, 1), codec::batch(ROOM, 1, RECORDS));
    let mut group = criterion.benchmark_group("outbound");
    let mut waiting = Outbound::default();
    group.throughput(Throughput::Elements(1));
    group.bench_function("an ack and a record in one write", |bencher| {
        bencher.iter(|| wire::answer_and_deliver(&mut waiting, &record, &wire::Socket));
    });
    let mut connections = wire::connections(SUBSCRIBERS);
    group.throughput(Throughput::Elements(SUBSCRIBERS as u64));
    for (name, far) in [("sockets", &wire::Socket as &dyn Wire), ("pipes", &wire::Pipe)] {
        group.bench_function(BenchmarkId::new("a batch of 64 to 1,000", name), |bencher| {
            bencher.iter(|| wire::fan_out(&mut connections, &batch, far));
        });
    }
    group.finish();
}

fn storing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store");
    for count in [1, 16, 256] {
        let mut rooms = store::Rooms::new(count, Durability::Buffered);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("append a record to each room, buffered", count), |bencher| {
            bencher.iter_custom(|times| {
                let mut taken = Duration::ZERO;
                for _ in 0..times {
                    let turn = rooms.turn();
                    let began = Instant::now();
                    rooms.append(turn);
                    taken += began.elapsed();
                }
                taken
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = encoding, publishing, keeping, delivering, writing, storing
}
criterion_main!(benches);
