//! A room's state: from publishes to a batch and acks, without a store.

use std::sync::Arc;

use bytes::Bytes;
use parlor_actors::{
    channel::state::{Effect, Input, Setting, State},
    limits::Limits,
    message::{Conn, FromChannel, Join, Publish},
    pools::Pools,
    port::{Budget, DeviceKey, EpochStart, Generation, Loaded, RoomOptions},
    tiers::{SendRate, TierNumber, Tiers},
};
use parlor_protocol::{
    DeviceTag, Epoch, RoomNumber,
    message::{Durability, JoinFrom, RecordKind},
};

use super::{NOW, PAYLOAD};

/// Messages of one turn.
pub(crate) const MESSAGES: u64 = 256;

/// A `memory` room with one subscriber, who also speaks. Its ring is full, and it knows the subscriber's last answers.
pub(crate) struct Room {
    state: State,
    conn: Conn,
    device: DeviceKey,
    nonce: u64,
}

impl Room {
    pub(crate) fn new() -> Self {
        let limits = Arc::new(Limits::default());
        let loaded = Loaded {
            room: RoomNumber(7),
            name: "bench".parse().expect("a name"),
            options: RoomOptions { durability: Durability::Memory, ..RoomOptions::default() },
            generation: Generation(1),
            epochs: vec![EpochStart { epoch: Epoch(1), first: 1 }],
            first: 1,
            tail: 0,
            count: 0,
            gone_count: 0,
            time: 0,
            trimmed: 1,
            bytes_before: 0,
            bytes_upto: 0,
            known: 0,
            change: 0,
            announcements: Vec::new(),
        };
        let turns = limits.ring_records_max as u64 / MESSAGES + 1;
        let budget = Budget::new(limits.writer_records_max, limits.writer_bytes_max);
        let tiers = Arc::new(Tiers::sending(SendRate::OFF));
        let pools = Pools::new(&limits);
        let mut state = State::new(
            loaded,
            1,
            Setting { limits, budget, tiers, rates: Arc::default(), pools, word: Arc::default() },
        );
        let conn = Conn { arbiter: 0, slot: 0, serial: 1 };
        let device = DeviceKey { user: "somebody".parse().expect("a name"), tag: DeviceTag(1) };
        state.handle(
            NOW,
            Input::Join(Join { conn, request: 1, device: device.clone(), from: JoinFrom::Tail, follows: false }),
        );
        let mut room = Self { state, conn, device, nonce: 0 };
        for _ in 0..turns {
            assert_eq!(room.turn(), MESSAGES, "all are acknowledged");
        }
        room
    }

    /// What one turn of 256 messages takes, up to the batch and the acks. Returns the number of acks.
    pub(crate) fn turn(&mut self) -> u64 {
        for _ in 0..MESSAGES {
            self.nonce += 1;
            let publish = Publish {
                conn: self.conn,
                request: 1,
                device: self.device.clone(),
                tier: TierNumber(0),
                nonce: self.nonce,
                kind: RecordKind::MESSAGE,
                refers_to: 0,
                epoch: Epoch(0),
                lifetime_ms: None,
                silent: false,
                remove: false,
                content_type: 1,
                payload: Bytes::from_static(PAYLOAD),
            };
            self.state.handle(NOW, Input::Publish(publish));
        }
        self.state.handle(NOW, Input::EndOfTurn);
        let mut acks = 0;
        while let Some(effect) = self.state.poll() {
            if let Effect::Relay { news: FromChannel::Committed { batch: Some(_), stored, .. }, .. } = effect {
                acks += stored.len() as u64;
            }
        }
        acks
    }
}
