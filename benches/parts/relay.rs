//! An arbiter's deliveries: from one batch to the sockets of a room's subscribers.

use std::sync::Arc;

use bytes::Bytes;
use parlor_actors::{
    limits::Limits,
    message::{Attach, Batch, FromChannel},
    outbound::Wire,
    port::DeviceKey,
    relay::state::{Asks, Pending, State},
};
use parlor_protocol::{DeviceTag, Epoch, RoomNumber, Seq, message::Durability};

use super::{NOW, codec, wire};

const ROOM: RoomNumber = RoomNumber(7);

/// A room's subscribers, all of them live, each on a connection of its own.
pub(crate) struct Audience {
    state: State,
    subscribers: usize,
    per_turn: usize,
    tail: Seq,
    frames: Bytes,
    records: u64,
}

impl Audience {
    /// So many subscribers, who will hear batches of so many records.
    pub(crate) fn new(subscribers: usize, records: u64) -> Self {
        let limits = Arc::new(Limits::default());
        let per_turn = limits.connections_per_turn_max;
        let mut state = State::new(0, limits);
        for number in 0..subscribers {
            let device =
                DeviceKey { user: format!("user-{number}").parse().expect("a name"), tag: DeviceTag(number as u64) };
            let conn = state.on_connect(device.clone());
            state.begin(conn, Pending { request: 1, room: Some(ROOM), asks: Asks::Join });
            let attach = Attach {
                member: true,
                met: parlor_actors::port::Mark::default(),
                conn,
                request: 1,
                device,
                name: "bench".parse().expect("a name"),
                epoch: Epoch(1),
                tail: 0,
                cursor: 0,
                answer: Bytes::from_static(b"joined"),
            };
            state.on_news(ROOM, FromChannel::Attach(attach));
        }
        let mut audience =
            Self { state, subscribers, per_turn, tail: 0, frames: codec::batch(ROOM, 1, records), records };
        audience.write(&wire::Socket);
        audience.hear();
        audience.write(&wire::Socket);
        audience
    }

    /// A batch comes from the room's channel and waits for every subscriber. The relay never looks into the frames, so
    /// they are the same each time.
    pub(crate) fn hear(&mut self) {
        let batch = Batch { first: self.tail + 1, last: self.tail + self.records, frames: self.frames.clone() };
        self.tail = batch.last;
        let news = FromChannel::Committed { batch: Some(batch), durability: Durability::Synced, stored: Vec::new() };
        self.state.on_news(ROOM, news);
    }

    /// What waits is written, as at the end of a turn. Returns to how many connections.
    pub(crate) fn write(&mut self, wire: &dyn Wire) -> usize {
        let mut written = 0;
        loop {
            let dirty = self.state.take_dirty(self.per_turn);
            if dirty.is_empty() {
                break;
            }
            for conn in dirty {
                wire::drain(self.state.outbound(conn).expect("it is connected"), wire);
                self.state.on_written(conn, true, NOW.mono_ms);
                written += 1;
            }
            while let Some(effect) = self.state.poll() {
                std::hint::black_box(effect);
            }
        }
        assert_eq!(written, self.subscribers, "every subscriber hears it");
        written
    }
}
