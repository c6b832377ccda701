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

/// Shared frames up to this are copied behind a frame of the connection's own, so that both leave in one plain write.
const COPIED_BYTES_MAX: usize = 1_024;

/// Room for a frame of the connection's own and what is copied behind it, mostly.
const OPEN_BYTES: usize = 512;

/// A connection's far end, as far as writing goes.
pub trait Wire {
    /// Takes from the front of `waiting` what it can, something at least: a stream of bytes through
    /// [`Outbound::write_with`], a wire that shares chunks through [`Outbound::pop`]. `Pending` if it takes nothing now.
    ///
    /// # Errors
    /// If the far end is gone.
    fn poll_write(&self, cx: &mut Context<'_>, waiting: &mut Outbound) -> Poll<io::Result<()>>;

    /// Whether the client may be gone without this wire's noticing, so that its session needs a lease.
    fn may_go_unnoticed(&self) -> bool {
        true
    }
}

/// A queue of frames. Owns no memory while it is empty, and mostly none while it holds one chunk of others.
///
/// In: [`push`](Self::push) for frames that others hold too, [`encode`](Self::encode) for this connection's own.
/// Out: [`poll_drain`](Self::poll_drain), which asks the wire to [`pop`](Self::pop) or to
/// [`write_with`](Self::write_with).
#[derive(Debug, Default)]
pub struct Outbound {
    first: Bytes,
    rest: Option<Box<Rest>>,
    bytes: usize,
}

/// What waits behind the first chunk.
#[derive(Debug, Default)]
struct Rest {
    chunks: VecDeque<Bytes>,
    /// The newest frames, still growing.
    open: BytesMut,
}

impl Outbound {
    /// How many bytes wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues whole frames that are shared with other connections: they are not copied, unless that is cheaper.
    pub fn push(&mut self, frames: Bytes) {
        let before = self.bytes;
        self.bytes += frames.len();
        match &mut self.rest {
            None if before == 0 => self.first = frames,
            _ if frames.is_empty() => {}
            rest => {
                let rest = rest.get_or_insert_default();
                if !rest.open.is_empty() && frames.len() <= COPIED_BYTES_MAX {
                    rest.open.extend_from_slice(&frames);
                    return;
                }
                rest.seal();
                rest.chunks.push_back(frames);
            }
        }
    }

    /// Queues a frame of this connection's own.
    pub fn encode<'a, B: Body<'a>>(&mut self, request: u32, body: &B) {
        let open = &mut self.rest.get_or_insert_default().open;
        let before = open.len();
        if open.capacity() == 0 {
            open.reserve(OPEN_BYTES);
        }
        parlor_protocol::encode(request, body, open);
        self.bytes += open.len() - before;
    }

    /// Writes until nothing waits, or the wire takes no more (`Pending`), or fails.
    pub fn poll_drain(&mut self, wire: &dyn Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.bytes > 0 {
            let before = self.bytes;
            ready!(wire.poll_write(cx, self))?;
            if self.bytes == before {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the first chunk: whole frames, unless [`write_with`](Self::write_with) took a part of it.
    pub fn pop(&mut self) -> Option<Bytes> {
        self.settle();
        let first = std::mem::take(&mut self.first);
        self.bytes -= first.len();
        (!first.is_empty()).then_some(first)
    }

    /// Shows `write` the first chunks and drops what it says it took.
    ///
    /// # Errors
    /// As `write`; also if that took nothing.
    pub fn write_with(
        &mut self,
        write: impl FnOnce(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        if let Some(rest) = self.rest.as_mut().filter(|rest| self.first.is_empty() && rest.chunks.is_empty()) {
            // An answer and what it came with, mostly: written from where they were put.
            let written = ready!(write(&[IoSlice::new(&rest.open)]))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.bytes -= written;
            rest.open.advance(written);
            if self.bytes == 0 {
                self.rest = None;
            }
            return Poll::Ready(Ok(()));
        }
        self.settle();
        let written = match &self.rest {
            None => write(&[IoSlice::new(&self.first)]),
            Some(rest) => {
                let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
                let mut used = 0;
                for (slice, chunk) in slices.iter_mut().zip(std::iter::once(&self.first).chain(&rest.chunks)) {
                    *slice = IoSlice::new(chunk);
                    used += 1;
                }
                write(&slices[..used])
            }
        };
        match ready!(written)? {
            0 => Poll::Ready(Err(ErrorKind::WriteZero.into())),
            written => {
                self.advance(written);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Lets the first chunk be the first of all, and gives back what is empty.
    fn settle(&mut self) {
        let Some(rest) = &mut self.rest else { return };
        if self.first.is_empty() && rest.chunks.is_empty() {
            self.first = std::mem::take(&mut rest.open).freeze();
        } else {
            rest.seal();
            if self.first.is_empty() {
                self.first = rest.chunks.pop_front().unwrap_or_default();
            }
        }
        if rest.chunks.is_empty() {
            self.rest = None;
        }
    }

    fn advance(&mut self, mut written: usize) {
        debug_assert!(written <= self.bytes, "a socket takes no more than it is given");
        self.bytes -= written;
        while written >= self.first.len() && !self.first.is_empty() {
            written -= self.first.len();
            self.first = Bytes::new();
            self.settle();
        }
        self.first.advance(written);
    }
}

impl Rest {
    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.open).freeze());
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
        fn poll_write(&self, _: &mut Context<'_>, waiting: &mut Outbound) -> Poll<io::Result<()>> {
            let mut room = self.room.borrow_mut();
            let before = *room;
            if before == 0 {
                return Poll::Pending;
            }
            waiting.write_with(|slices| {
                for slice in slices {
                    let n = slice.len().min(*room);
                    self.taken.borrow_mut().extend(&slice[..n]);
                    *room -= n;
                }
                Poll::Ready(Ok(before - *room))
            })
        }
    }

    /// Takes one chunk, then blocks once.
    #[derive(Default)]
    struct Sharing {
        blocks: RefCell<bool>,
        taken: RefCell<Vec<Bytes>>,
    }

    impl Wire for Sharing {
        fn poll_write(&self, _: &mut Context<'_>, waiting: &mut Outbound) -> Poll<io::Result<()>> {
            if self.blocks.replace_with(|blocks| !*blocks) {
                return Poll::Pending;
            }
            self.taken.borrow_mut().extend(waiting.pop());
            Poll::Ready(Ok(()))
        }
    }

    const REFUSED: Error<'_> =
        Error { code: Code::Busy, retry_after_ms: 1, message: "", extensions: Extensions(Vec::new()) };

    fn filled() -> (Outbound, [Bytes; 3]) {
        let mut outbound = Outbound::default();
        outbound.push(Bytes::new());
        outbound.push(Bytes::from_static(b"first"));
        outbound.encode(7, &REFUSED);
        outbound.encode(8, &REFUSED);
        outbound.push(Bytes::new());
        outbound.push(Bytes::from_static(b"short, so that it is copied"));
        let last = Bytes::from(vec![b'l'; COPIED_BYTES_MAX + 1]);
        outbound.push(last.clone());
        let own = [parlor_protocol::to_bytes(7, &REFUSED), parlor_protocol::to_bytes(8, &REFUSED)].concat();
        let own = [&own[..], b"short, so that it is copied"].concat();
        let want = [Bytes::from_static(b"first"), own.into(), last];
        assert_eq!(outbound.bytes(), want.iter().map(Bytes::len).sum());
        (outbound, want)
    }

    #[test]
    fn frames_leave_in_order_whatever_the_socket_takes() {
        for room in [1, 3, 7, 1000] {
            let wire = Narrow { room: RefCell::new(0), taken: RefCell::default() };
            let (mut outbound, want) = filled();
            let mut cx = Context::from_waker(Waker::noop());
            while outbound.poll_drain(&wire, &mut cx).is_pending() {
                *wire.room.borrow_mut() = room;
            }
            assert_eq!(*wire.taken.borrow(), want.concat());
            assert_eq!(outbound.bytes(), 0);
            assert!(outbound.rest.is_none() && outbound.first.is_empty(), "an idle connection owns no buffer");
            outbound.encode(9, &REFUSED);
            assert_eq!(outbound.pop(), Some(parlor_protocol::to_bytes(9, &REFUSED)));
            assert_eq!((outbound.pop(), outbound.bytes()), (None, 0));
        }
    }

    #[test]
    fn a_wire_that_shares_gets_the_chunks_as_they_are() {
        let (mut outbound, want) = filled();
        let wire = Sharing::default();
        let mut cx = Context::from_waker(Waker::noop());
        while outbound.poll_drain(&wire, &mut cx).is_pending() {}
        let taken = wire.taken.borrow();
        assert_eq!(*taken, want);
        assert_eq!(taken[0].as_ptr(), want[0].as_ptr(), "shared, not copied");
        assert!(outbound.rest.is_none());
    }

    #[test]
    fn a_wire_that_takes_nothing_and_does_not_say_so_is_broken() {
        struct Idle;
        impl Wire for Idle {
            fn poll_write(&self, _: &mut Context<'_>, _: &mut Outbound) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        let (mut outbound, _) = filled();
        let drained = outbound.poll_drain(&Idle, &mut Context::from_waker(Waker::noop()));
        assert!(matches!(drained, Poll::Ready(Err(error)) if error.kind() == ErrorKind::WriteZero));
    }
}
