//! What a session needs of a connection's far end, and how a stream of bytes gives it.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use parlor_actors::outbound::{Outbound, Wire};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The buffer that all connections of a thread are read into.
const SCRATCH_BYTES: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// A connection's far end. The session reads and the relay writes, both on one thread.
pub trait Socket: Wire + 'static {
    /// Reads what there is.
    ///
    /// # Errors
    /// If the far end is gone, also at the end of what it sent.
    fn poll_read<T>(&self, cx: &mut Context<'_>, take: impl FnOnce(Chunk<'_>) -> T) -> Poll<io::Result<T>>;

    /// Says that nothing more will be written.
    ///
    /// # Errors
    /// If the far end is gone.
    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// What was read at once.
pub enum Chunk<'a> {
    /// In a buffer of the thread.
    Lent(&'a [u8]),
    /// In a buffer of its own, which may be kept.
    Given(Bytes),
}

impl Chunk<'_> {
    /// What was read.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Given(bytes) => bytes,
        }
    }

    /// The first `len` bytes, to be kept.
    #[must_use]
    pub fn first(&self, len: usize) -> Bytes {
        match self {
            Self::Lent(bytes) => Bytes::copy_from_slice(&bytes[..len]),
            Self::Given(bytes) => bytes.slice(..len),
        }
    }
}

/// A stream of bytes. An idle one owns no buffer.
pub struct Stream<S>(RefCell<S>);

impl<S> Stream<S> {
    /// A connection over this stream.
    pub fn new(stream: S) -> Self {
        Self(RefCell::new(stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Socket for Stream<S> {
    fn poll_read<T>(&self, cx: &mut Context<'_>, take: impl FnOnce(Chunk<'_>) -> T) -> Poll<io::Result<T>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            Poll::Ready(Ok(take(Chunk::Lent(buffer.filled()))))
        })
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}

impl<S: AsyncWrite + Unpin> Wire for Stream<S> {
    fn poll_write(&self, cx: &mut Context<'_>, waiting: &mut Outbound) -> Poll<io::Result<()>> {
        let mut stream = self.0.borrow_mut();
        waiting.write_with(|slices| match slices {
            // Mostly there is one, and the kernel has less to do for it.
            [one] => Pin::new(&mut *stream).poll_write(cx, one),
            many => Pin::new(&mut *stream).poll_write_vectored(cx, many),
        })
    }
}
