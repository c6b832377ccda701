//! A link: one connection, from its first byte to its last, on one arbiter's thread.
//!
//! It reads into a buffer that all links of the thread share, so that an idle connection owns none; it finds whole
//! frames, checks their headers, and hands them to the session. What is written, the relay writes; the link steps in
//! only where the socket was full.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use parlor_actors::{
    outbound::Wire,
    relay::{
        Local,
        link::{End, Link},
    },
};
use parlor_protocol::{Code, Extensions, Frame, FrameError, frame, message::Close, split};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Sleep, sleep, timeout},
};

use super::{
    Gate,
    hello::{self, Closing},
};

/// The buffer that all links of a thread read into.
const SCRATCH_BYTES: usize = 64 << 10;

/// What a client may still send to a closed connection before it is cut off.
const LINGER_BYTES_MAX: usize = 256 << 10;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// Serves one connection until it ends.
pub async fn serve<R, W>(local: Local, gate: Gate, mut reader: R, mut writer: W)
where
    R: AsyncRead + Unpin + 'static,
    W: AsyncWrite + Unpin + 'static,
{
    let limits = gate.limits.clone();
    let mut partial = BytesMut::new();
    // Boxed, as is the end: an idle connection's task holds neither.
    let greeting = Box::pin(timeout(Duration::from_millis(limits.hello_ms), greet(&mut reader, &mut partial, &gate)));
    let greeted = greeting.await;
    let greeted = greeted.unwrap_or(Err(Some((0, (Code::TooSlow, "no hello came in time".into())))));
    let hello = match greeted {
        Ok(hello) => hello,
        Err(None) => return,
        Err(Some((request, (code, message)))) => {
            tracing::debug!(%code, message, "a connection was closed before its hello was taken");
            let close = Close { code, retry_after_ms: 0, message: &message, extensions: Extensions::default() };
            Box::pin(refuse(&mut reader, &mut writer, request, &close, limits.linger_ms)).await;
            return;
        }
    };
    let wire = Rc::new(StreamWire(RefCell::new(writer)));
    let link = local.connect(hello, wire.clone());
    let mut inbound = Inbound { reader, partial, began: None, broken: None, gate };
    let end = poll_fn(|cx| inbound.poll(&link, cx)).await;
    drop(link);
    if end == Some(End::Finished) {
        let shutdown = poll_fn(|cx| Pin::new(&mut *wire.0.borrow_mut()).poll_shutdown(cx));
        let bye = async {
            if shutdown.await.is_ok() {
                discard(&mut inbound.reader).await;
            }
        };
        // Whoever does not read its close in time has had its chance.
        let _ = Box::pin(timeout(Duration::from_millis(limits.linger_ms), bye)).await;
    }
}

/// Closes a connection that has no session. `request` is that of the hello it answers, or 0.
pub async fn refuse<R, W>(reader: &mut R, writer: &mut W, request: u32, close: &Close<'_>, linger_ms: u64)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let close = parlor_protocol::to_bytes(request, close);
    let bye = async {
        writer.write_all(&close).await?;
        writer.shutdown().await?;
        discard(reader).await;
        io::Result::Ok(())
    };
    // A client that is gone, or does not read, needs no close.
    let _ = timeout(Duration::from_millis(linger_ms), bye).await;
}

/// Reads until a hello is whole, and checks it. What follows it stays in `partial`. `Err(None)`: the client is gone; otherwise the
/// hello's request, or 0, and what is wrong.
async fn greet<R>(
    reader: &mut R,
    partial: &mut BytesMut,
    gate: &Gate,
) -> Result<parlor_actors::relay::link::Hello, Option<(u32, Closing)>>
where
    R: AsyncRead + Unpin,
{
    loop {
        let found = split(partial, hello::body_max).map_err(|error| Some((0, hello::closing(&error, true))))?;
        if let Some(found) = found {
            let (size, request) = (found.size(), found.header.request);
            let checked = hello::check(&found, gate).map_err(|closing| Some((request, closing)))?;
            let _ = partial.split_to(size);
            if partial.is_empty() {
                *partial = BytesMut::new();
            }
            return Ok(checked);
        }
        if poll_fn(|cx| poll_read(reader, cx, |bytes| partial.extend_from_slice(bytes))).await.is_err() {
            return Err(None);
        }
    }
}

/// Throws away what still comes, so that closing does not reset the connection under the client's reader.
async fn discard<R: AsyncRead + Unpin>(reader: &mut R) {
    let mut left = LINGER_BYTES_MAX;
    let mut buffer = [0; 1_024];
    while let Ok(read @ 1..) = reader.read(&mut buffer).await
        && left > read
    {
        left -= read;
    }
}

/// Reads what there is into the thread's buffer. `Err` at the end of the stream, too.
fn poll_read<R, T>(reader: &mut R, cx: &mut Context<'_>, take: impl FnOnce(&[u8]) -> T) -> Poll<io::Result<T>>
where
    R: AsyncRead + Unpin,
{
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(reader).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Poll::Ready(Ok(take(buffer.filled())))
    })
}

/// The reading half of a connection that has said hello.
struct Inbound<R> {
    reader: R,
    /// Bytes that are not handed over yet.
    partial: BytesMut,
    /// Runs while a frame has begun and not ended.
    began: Option<Pin<Box<Sleep>>>,
    /// What is wrong with what follows the frames that were handed over last.
    broken: Option<Closing>,
    gate: Gate,
}

impl<R: AsyncRead + Unpin> Inbound<R> {
    /// Runs the connection; ready when it has to end, `None` if the client is gone.
    fn poll(&mut self, link: &Link, cx: &mut Context<'_>) -> Poll<Option<End>> {
        link.register(cx);
        if let Poll::Ready(Err(_)) = link.poll_unblock(cx) {
            return Poll::Ready(None);
        }
        loop {
            if let Some(end) = link.end() {
                return Poll::Ready(Some(end));
            }
            if let Some(began) = &mut self.began
                && began.as_mut().poll(cx).is_ready()
            {
                self.began = None;
                link.close(Code::TooSlow, "a frame was begun and not finished in time");
                return Poll::Pending;
            }
            if !link.reads() {
                // A closed connection reads nothing, but has to notice that its client is gone.
                return if link.closed() { self.poll_gone(cx) } else { Poll::Pending };
            }
            if let Some((code, message)) = self.broken.take() {
                tracing::debug!(%code, message, "a connection is closed for what it sent");
                link.close(code, code.name().unwrap_or_default());
                return Poll::Pending;
            }
            if self.hand_over(link) {
                continue;
            }
            let partial = &mut self.partial;
            match poll_read(&mut self.reader, cx, |bytes| partial.extend_from_slice(bytes)) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Pending => {
                    self.watch_partial();
                    // Once more at once if there is a clock to start.
                    if let Some(began) = &mut self.began
                        && began.as_mut().poll(cx).is_ready()
                    {
                        continue;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Hands the whole frames to the session; false if there are none.
    fn hand_over(&mut self, link: &Link) -> bool {
        let (whole, broken) = whole_frames(&self.partial, self.gate.limits.payload_bytes_max);
        self.broken = broken.map(|error| hello::closing(&error, false));
        if whole == 0 {
            return self.broken.is_some();
        }
        self.began = None;
        let frames = self.partial.split_to(whole);
        // Copied out, so that what the session keeps does not keep the buffer.
        link.receive(Bytes::copy_from_slice(&frames));
        if self.partial.is_empty() {
            self.partial = BytesMut::new();
        }
        true
    }

    fn watch_partial(&mut self) {
        if self.partial.is_empty() {
            self.began = None;
        } else if self.began.is_none() {
            self.began = Some(Box::pin(sleep(Duration::from_millis(self.gate.limits.frame_ms))));
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        loop {
            match poll_read(&mut self.reader, cx, |_| ()) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// How many bytes of `input` are whole frames, and what is wrong with what follows them.
fn whole_frames(input: &[u8], payload_bytes_max: u32) -> (usize, Option<FrameError>) {
    let mut whole = 0;
    loop {
        match split(&input[whole..], |header| frame::request_body_max(header, payload_bytes_max)) {
            Ok(Some(found)) => whole += Frame::size(&found),
            Ok(None) => return (whole, None),
            Err(error) => return (whole, Some(error)),
        }
    }
}

/// A stream's writing half.
struct StreamWire<W>(RefCell<W>);

impl<W: AsyncWrite + Unpin> Wire for StreamWire<W> {
    fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut writer = self.0.borrow_mut();
        match slices {
            // Mostly there is one, and the kernel has less to do for it.
            [one] => Pin::new(&mut *writer).poll_write(cx, one),
            many => Pin::new(&mut *writer).poll_write_vectored(cx, many),
        }
    }
}
