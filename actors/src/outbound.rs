//! What waits for one connection to take it: whole frames, in order, counted in bytes.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use parlor_protocol::Body;

/// Slices handed to the socket in one write.
const SLICES_PER_WRITE: usize = 64;

/// A connection's socket, as far as writing goes.
pub trait Wire {
    /// Writes what the socket takes of `slices`; see `AsyncWrite::poll_write_vectored`.
    fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;
}

/// A queue of frames. Owns no memory while it is empty.
///
/// In: [`push`](Self::push) for frames that others hold too, [`encode`](Self::encode) for this connection's own.
/// Out: [`poll_drain`](Self::poll_drain).
#[derive(Debug, Default)]
pub struct Outbound {
    chunks: VecDeque<Bytes>,
    /// The newest frames, still growing.
    open: BytesMut,
    bytes: usize,
}

impl Outbound {
    /// How many bytes wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues whole frames that are shared with other connections: they are not copied.
    pub fn push(&mut self, frames: Bytes) {
        if frames.is_empty() {
            return;
        }
        self.seal();
        self.bytes += frames.len();
        self.chunks.push_back(frames);
    }

    /// Queues a frame of this connection's own.
    pub fn encode<'a, B: Body<'a>>(&mut self, request: u32, body: &B) {
        let before = self.open.len();
        parlor_protocol::encode(request, body, &mut self.open);
        self.bytes += self.open.len() - before;
    }

    /// Writes until nothing waits, or the socket takes no more (`Pending`), or fails.
    pub fn poll_drain(&mut self, wire: &dyn Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.seal();
        while self.bytes > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
            let mut used = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slice = IoSlice::new(chunk);
                used += 1;
            }
            match ready!(wire.poll_write(cx, &slices[..used]))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                written => self.advance(written),
            }
        }
        self.chunks = VecDeque::new();
        Poll::Ready(Ok(()))
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.open).freeze());
        }
    }

    fn advance(&mut self, mut written: usize) {
        debug_assert!(written <= self.bytes, "a socket takes no more than it is given");
        self.bytes -= written;
        while let Some(front) = self.chunks.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, task::Waker};

    use parlor_protocol::{Code, Extensions, message::Error};

    use super::*;

    /// Takes `room` bytes, then blocks.
    struct Narrow {
        room: RefCell<usize>,
        taken: RefCell<Vec<u8>>,
    }

    impl Wire for Narrow {
        fn poll_write(&self, _: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
            let mut room = self.room.borrow_mut();
            let before = *room;
            for slice in slices {
                let n = slice.len().min(*room);
                self.taken.borrow_mut().extend(&slice[..n]);
                *room -= n;
            }
            if before == 0 { Poll::Pending } else { Poll::Ready(Ok(before - *room)) }
        }
    }

    #[test]
    fn frames_leave_in_order_whatever_the_socket_takes() {
        for room in [1, 3, 7, 1000] {
            let wire = Narrow { room: RefCell::new(0), taken: RefCell::default() };
            let mut outbound = Outbound::default();
            let error = Error { code: Code::Busy, retry_after_ms: 1, message: "", extensions: Extensions::default() };
            outbound.push(Bytes::from_static(b"first"));
            outbound.encode(7, &error);
            outbound.encode(8, &error);
            outbound.push(Bytes::from_static(b"last"));
            let want = [
                b"first",
                &parlor_protocol::to_bytes(7, &error)[..],
                &parlor_protocol::to_bytes(8, &error)[..],
                b"last",
            ]
            .concat();
            assert_eq!(outbound.bytes(), want.len());
            let mut cx = Context::from_waker(Waker::noop());
            while outbound.poll_drain(&wire, &mut cx).is_pending() {
                *wire.room.borrow_mut() = room;
            }
            assert_eq!(*wire.taken.borrow(), want);
            assert_eq!((outbound.bytes(), outbound.chunks.capacity()), (0, 0), "an idle connection owns no buffer");
        }
    }
}
