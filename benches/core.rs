//! Time of the parts that every message passes: the codec, a room's state, the window of answers.
//!
//! `cargo bench --bench core` runs all of it; see `benches/README.md`.
#![allow(clippy::expect_used, missing_docs, reason = "a bench may panic, and criterion makes public items")]

use std::{hint::black_box, sync::Arc};

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use parlor_actors::{
    channel::state::{Effect, Input, State},
    limits::Limits,
    message::{Conn, Join, Publish},
    port::{Budget, DeviceKey, EpochStart, Generation, Loaded, Now},
};
use parlor_protocol::{
    DeviceTag, Epoch, Extensions, RoomNumber,
    frame::HEADER_BYTES,
    message::{ContentType, Deliver, Durability, JoinFrom, RecordKind},
};

const PAYLOAD: &[u8] = &[b'x'; 128];

fn deliver(seq: u64) -> Deliver<'static> {
    Deliver {
        room: RoomNumber(7),
        seq,
        time: 1_790_000_000_000,
        sender: "somebody",
        device_tag: DeviceTag(0x1234_5678_9abc_def0),
        nonce: 1_790_000_000_000_000,
        kind: RecordKind::MESSAGE,
        refers_to: 0,
        expires: 0,
        count: seq,
        content_type: ContentType::TEXT,
        payload: PAYLOAD,
        extensions: Extensions::default(),
    }
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(1));
    let mut out = BytesMut::with_capacity(512);
    group.bench_function("encode a deliver of 128 bytes", |bencher| {
        bencher.iter(|| {
            out.clear();
            parlor_protocol::encode(0, black_box(&deliver(1_000)), &mut out);
        });
    });
    let frame = parlor_protocol::to_bytes(0, &deliver(1_000));
    group.bench_function("decode a deliver of 128 bytes", |bencher| {
        bencher
            .iter(|| parlor_protocol::decode::<Deliver<'_>>(black_box(&frame[HEADER_BYTES..])).map(|found| found.seq));
    });
    group.finish();
}

/// A room with one subscriber, who also speaks: what 256 messages cost from publish to batch, without a store.
fn room(criterion: &mut Criterion) {
    const MESSAGES: u64 = 256;
    let limits = Arc::new(Limits::default());
    let loaded = Loaded {
        room: RoomNumber(7),
        name: "bench".parse().expect("a name"),
        durability: Durability::Memory,
        generation: Generation(1),
        epochs: vec![EpochStart { epoch: Epoch(1), first: 1 }],
        first: 1,
        tail: 0,
        count: 0,
        time: 0,
    };
    let budget = Budget::new(limits.writer_records_max, limits.writer_bytes_max);
    let mut state = State::new(loaded, 1, limits, budget);
    let conn = Conn { arbiter: 0, slot: 0, serial: 1 };
    let device = DeviceKey { user: "somebody".parse().expect("a name"), tag: DeviceTag(1) };
    let now = Now { unix_ms: 1_790_000_000_000, mono_ms: 1 };
    state.handle(now, Input::Join(Join { conn, request: 1, device: device.clone(), from: JoinFrom::Tail }));
    let mut nonce = 0;
    let mut group = criterion.benchmark_group("room");
    group.throughput(Throughput::Elements(MESSAGES));
    group.bench_function("publish 256 in one turn", |bencher| {
        bencher.iter(|| {
            for _ in 0..MESSAGES {
                nonce += 1;
                state.handle(
                    now,
                    Input::Publish(Publish {
                        conn,
                        request: 1,
                        device: device.clone(),
                        nonce,
                        silent: false,
                        content_type: 1,
                        payload: Bytes::from_static(PAYLOAD),
                    }),
                );
            }
            state.handle(now, Input::EndOfTurn);
            let mut relayed = 0;
            while let Some(effect) = state.poll() {
                relayed += u32::from(matches!(effect, Effect::Relay { .. }));
            }
            relayed
        });
    });
    group.finish();
}

criterion_group!(benches, codec, room);
criterion_main!(benches);
