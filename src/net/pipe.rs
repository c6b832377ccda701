//! A connection within the process: frames in, frames out, shared and not copied.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker, ready},
    thread::{self, Thread},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

mod near;
mod queue;

pub use near::Near;
use queue::{Abandoned, Queue};

/// A pipe takes chunks, each way, while fewer bytes than this wait in it.
const PIPE_BYTES: usize = 256 << 10;

/// Both directions.
struct Both {
    /// To the engine.
    up: Queue,
    /// To the host.
    down: Queue,
}

/// A pipe, and the engine's end of it.
#[must_use]
pub fn pair() -> (Pipe, Near) {
    let both = Arc::new(Both { up: Queue::new(PIPE_BYTES), down: Queue::new(PIPE_BYTES) });
    let (sender, receiver) = (Sender(both.clone()), Receiver { both: both.clone(), rest: Bytes::new() });
    (Pipe { sender, receiver }, Near(both))
}

/// The host's end of a connection within the process, from [`Engine::connect`](crate::engine::Engine::connect).
///
/// It speaks the wire protocol from the hello to the close, as a socket does, in chunks of whole frames instead of
/// bytes: what the engine sends to many subscribers is one buffer that all of them share. Everything that is refused,
/// closed or timed out on a socket is here, too, with two differences that follow from the shared process:
///
/// * A silent client keeps its session: there is no lease, since a host cannot vanish without dropping its pipe. Beats
///   are answered if they are sent.
/// * The connection does not count towards `net.connections_max`, which is about strangers.
///
/// Dropping either half ends the session. What was sent before is still carried out.
///
/// Each half works from any thread and any runtime, and waits in three ways: in async code (`send`, `recv`), by blocking
/// the thread (`send_blocking`, `recv_blocking`), or not at all (`try_send`, `try_recv`). A pipe is also a stream of
/// bytes, which the typed client runs on: [`Client::over`](crate::client::Client::over).
///
/// A host that does not read lags like a slow client: its pipe takes no more than about 256 KiB, then the engine holds
/// `outbound_bytes_max` for it, then its rooms are caught up when it reads again, and after `slow_reader_ms` without any
/// reading it is closed.
///
/// ```
/// use parlor::{config::EngineConfig, engine::Engine};
/// use parlor::protocol::{Extensions, Frame, Kind, decode, frame::answer_body_max, message::*, split, to_bytes};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let engine = Engine::start(EngineConfig::new(folder.path()))?;
/// let mut pipe = engine.connect();
/// let hello = Hello {
///     magic: *b"PRLR", version_min: 1, version_max: 1, features: 0,
///     user: "bot", device: "host", device_class: DeviceClass::Bot, network: Network::Wired,
///     credentials: &[], resume: None, attempt: 1, extensions: Extensions::default(),
/// };
/// pipe.sender.send_blocking(to_bytes(1, &hello))?;
/// let frames = pipe.receiver.recv_blocking().ok_or("the engine is gone")?;
/// let Some(Frame { header, body }) = split(&frames, answer_body_max)? else { return Err("no frame".into()) };
/// assert_eq!(header.kind, Kind::Welcome as u16);
/// println!("welcome in version {}", decode::<Welcome<'_>>(body)?.version);
/// # Ok(())
/// # }
/// ```
pub struct Pipe {
    /// To the engine.
    pub sender: Sender,
    /// From the engine.
    pub receiver: Receiver,
}

/// The half of a [`Pipe`] that takes requests.
pub struct Sender(Arc<Both>);

/// The half of a [`Pipe`] that brings answers and deliveries.
pub struct Receiver {
    both: Arc<Both>,
    /// What a reader of bytes left of a chunk.
    rest: Bytes,
}

/// The engine has ended the connection; the last frame that it sent says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine has closed the connection: its last frame says why")]
pub struct Closed;

/// Why frames were not taken; they come back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError {
    /// The engine has not taken what was sent before.
    #[error("the engine has not taken what was sent before: send again later")]
    Full(Bytes),
    /// As [`Closed`].
    #[error("{Closed}")]
    Closed(Bytes),
}

/// Why there are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TryRecvError {
    /// None wait now.
    #[error("nothing waits now: receive again later")]
    Empty,
    /// As [`Closed`]; everything has been received.
    #[error("{Closed}")]
    Closed,
}

impl Sender {
    /// Sends one or more frames, if the pipe takes them now: all of the chunk, whatever its length, or nothing.
    ///
    /// A chunk of many frames costs less than many of one. A long one is not copied, and stays in memory until the
    /// engine has handled it.
    ///
    /// # Errors
    /// If the pipe is full or closed.
    pub fn try_send(&mut self, frames: Bytes) -> Result<(), TrySendError> {
        let mut frames = Some(frames).filter(|frames| !frames.is_empty());
        let pushed = self.0.up.push(None, || frames.take());
        match (pushed, frames) {
            (Err(Abandoned), frames) => Err(TrySendError::Closed(frames.unwrap_or_default())),
            (Ok(_), Some(frames)) => Err(TrySendError::Full(frames)),
            (Ok(_), None) => Ok(()),
        }
    }

    /// Waits until the pipe takes the frames; see [`try_send`](Self::try_send). Dropped before, nothing is sent.
    ///
    /// # Errors
    /// If the pipe is closed.
    pub async fn send(&mut self, frames: Bytes) -> Result<(), Closed> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        self.try_send(frames).map_err(|_| Closed)
    }

    /// As [`send`](Self::send), and blocks the thread meanwhile.
    ///
    /// # Errors
    /// If the pipe is closed.
    pub fn send_blocking(&mut self, frames: Bytes) -> Result<(), Closed> {
        block_on(self.send(frames))
    }

    /// Waits until [`try_send`](Self::try_send) takes frames.
    ///
    /// # Errors
    /// If the pipe is closed.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        self.0.up.poll_room(cx).map_err(|Abandoned| Closed)
    }
}

impl Receiver {
    /// The next frames, if some wait: a chunk of one or more whole ones. Its bytes are shared with other subscribers,
    /// and stay in memory while it is kept.
    ///
    /// # Errors
    /// If none wait, or there are no more.
    pub fn try_recv(&mut self) -> Result<Bytes, TryRecvError> {
        match self.pop(None) {
            Poll::Ready(Some(frames)) => Ok(frames),
            Poll::Ready(None) => Err(TryRecvError::Closed),
            Poll::Pending => Err(TryRecvError::Empty),
        }
    }

    /// Waits for the next frames; see [`try_recv`](Self::try_recv). `None` when the connection has ended. Dropped
    /// before, nothing is lost.
    pub async fn recv(&mut self) -> Option<Bytes> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`recv`](Self::recv), and blocks the thread meanwhile.
    pub fn recv_blocking(&mut self) -> Option<Bytes> {
        match self.try_recv() {
            Err(TryRecvError::Empty) => block_on(self.recv()),
            Err(TryRecvError::Closed) => None,
            Ok(frames) => Some(frames),
        }
    }

    /// As [`recv`](Self::recv), for whoever polls by himself.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.pop(Some(cx.waker()))
    }

    fn pop(&mut self, waker: Option<&Waker>) -> Poll<Option<Bytes>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(std::mem::take(&mut self.rest)));
        }
        self.both.down.poll_pop(waker)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.up.finish();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.both.down.abandon();
        self.both.up.finish();
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let receiver = &mut self.receiver;
        while buffer.remaining() > 0 {
            match receiver.poll_recv(cx) {
                Poll::Ready(Some(mut frames)) => {
                    let taken = frames.len().min(buffer.remaining());
                    buffer.put_slice(&frames[..taken]);
                    frames.advance(taken);
                    receiver.rest = frames;
                }
                Poll::Pending if buffer.filled().is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, Closed);
        ready!(self.sender.poll_ready(cx)).map_err(|Closed| gone())?;
        let taken = bytes.len().min(PIPE_BYTES);
        self.sender.try_send(Bytes::copy_from_slice(&bytes[..taken])).map_err(|_| gone())?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sender.0.up.finish();
        Poll::Ready(Ok(()))
    }
}

/// Runs a future on this thread, which sleeps while it waits.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    thread_local! {
        static WAKER: Waker = Arc::new(Unpark(thread::current())).into();
    }
    let mut future = pin!(future);
    WAKER.with(|waker| {
        let mut cx = Context::from_waker(waker);
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                return value;
            }
            thread::park();
        }
    })
}

#[cfg(test)]
mod tests;
