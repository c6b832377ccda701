//! Connections without sockets: what a queue of frames costs by itself.

use std::{
    io,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use parlor_actors::outbound::{Outbound, Wire};
use parlor_protocol::RoomNumber;

use super::codec;

/// A far end that takes all that it is shown, as a socket with room in its buffer.
pub(crate) struct Socket;

impl Wire for Socket {
    fn poll_write(&self, _: &mut Context<'_>, waiting: &mut Outbound) -> Poll<io::Result<()>> {
        waiting.write_with(|slices| Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum())))
    }
}

/// A far end that shares chunks, as a pipe within the process.
pub(crate) struct Pipe;

impl Wire for Pipe {
    fn poll_write(&self, _: &mut Context<'_>, waiting: &mut Outbound) -> Poll<io::Result<()>> {
        std::hint::black_box(waiting.pop());
        Poll::Ready(Ok(()))
    }
}

/// Writes what waits.
pub(crate) fn drain(waiting: &mut Outbound, wire: &dyn Wire) {
    let written = waiting.poll_drain(wire, &mut Context::from_waker(Waker::noop()));
    assert!(matches!(written, Poll::Ready(Ok(()))) && waiting.bytes() == 0, "this wire takes all");
}

/// An ack and a record that another one said, in one write.
pub(crate) fn answer_and_deliver(waiting: &mut Outbound, record: &Bytes, wire: &dyn Wire) {
    waiting.encode(7, &codec::ack(RoomNumber(7), 1_000));
    waiting.push(record.clone());
    drain(waiting, wire);
}

/// One batch to all of these connections.
pub(crate) fn fan_out(connections: &mut [Outbound], batch: &Bytes, wire: &dyn Wire) {
    for waiting in connections {
        waiting.push(batch.clone());
        drain(waiting, wire);
    }
}

/// So many connections for which nothing waits.
pub(crate) fn connections(count: usize) -> Vec<Outbound> {
    std::iter::repeat_with(Outbound::default).take(count).collect()
}
