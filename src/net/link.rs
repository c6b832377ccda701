//! A link: one connection, from its first byte to its last, on one arbiter's thread.
//!
//! It finds whole frames in what it reads, checks their headers, and hands them to the session. What is written, the
//! relay writes; the link steps in only where the socket was full.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use parlor_actors::{
    outbound::Outbound,
    relay::{
        Local,
        link::{End, Hello, Link},
    },
};
use parlor_protocol::{Code, Extensions, Frame, FrameError, frame, message::Close, split};
use tokio::time::{Sleep, sleep, timeout};

use super::{
    Gate, NetLimits,
    hello::{self, Closing},
    socket::{Chunk, Socket},
};

/// What a client may still send to a closed connection before it is cut off.
const LINGER_BYTES_MAX: usize = 256 << 10;

/// Serves one connection until it ends. What its beginning and its end need is not held meanwhile: most connections are
/// idle most of the time.
pub fn serve<S: Socket>(local: Local, gate: Gate, socket: S) -> impl Future<Output = ()> + 'static {
    let mut stage = Stage::Greeting(Box::pin(begin(local, gate, Rc::new(socket))));
    poll_fn(move |cx| {
        loop {
            match &mut stage {
                Stage::Greeting(greeting) => match std::task::ready!(greeting.as_mut().poll(cx)) {
                    Some(open) => stage = Stage::Open(open),
                    None => return Poll::Ready(()),
                },
                Stage::Open(open) => {
                    let end = std::task::ready!(open.inbound.poll(&open.link, cx));
                    let Inbound { socket, limits, .. } = &open.inbound;
                    if end != Some(End::Finished) {
                        return Poll::Ready(());
                    }
                    stage = Stage::Ending(Box::pin(half_close(socket.clone(), limits.linger_ms)));
                }
                Stage::Ending(ending) => return ending.as_mut().poll(cx),
            }
        }
    })
}

/// How far a connection is.
enum Stage<S> {
    Greeting(Pin<Box<dyn Future<Output = Option<Open<S>>>>>),
    Open(Open<S>),
    Ending(Pin<Box<dyn Future<Output = ()>>>),
}

/// A connection with a session.
struct Open<S> {
    link: Link,
    inbound: Inbound<S>,
}

/// Waits for a hello and begins a session; `None` if there was none to begin.
async fn begin<S: Socket>(local: Local, gate: Gate, socket: Rc<S>) -> Option<Open<S>> {
    let limits = gate.limits.clone();
    let mut partial = BytesMut::new();
    let greeted = timeout(Duration::from_millis(limits.hello_ms), greet(&*socket, &mut partial, &gate)).await;
    match greeted.unwrap_or(Err(Some((0, (Code::TooSlow, "no hello came in time".into()))))) {
        Ok(hello) => {
            let link = local.connect(hello, socket.clone());
            let unseen = !partial.is_empty();
            Some(Open { link, inbound: Inbound { socket, limits, partial, unseen, began: None, broken: None } })
        }
        Err(None) => None,
        Err(Some((request, (code, message)))) => {
            tracing::debug!(%code, message, "a connection was closed before its hello was taken");
            let close = Close { code, retry_after_ms: 0, message: &message, extensions: Extensions::default() };
            refuse(&*socket, request, &close, limits.linger_ms).await;
            None
        }
    }
}

/// Closes a connection that has no session. `request` is that of the hello it answers, or 0.
pub async fn refuse<S: Socket>(socket: &S, request: u32, close: &Close<'_>, linger_ms: u64) {
    let mut last = Outbound::default();
    last.encode(request, close);
    let bye = async {
        poll_fn(|cx| last.poll_drain(socket, cx)).await?;
        poll_fn(|cx| socket.poll_shutdown(cx)).await?;
        discard(socket).await;
        io::Result::Ok(())
    };
    // A client that is gone, or does not read, needs no close.
    let _ = timeout(Duration::from_millis(linger_ms), bye).await;
}

/// Ends a connection whose last frame is written.
async fn half_close<S: Socket>(socket: Rc<S>, linger_ms: u64) {
    let bye = async {
        if poll_fn(|cx| socket.poll_shutdown(cx)).await.is_ok() {
            discard(&*socket).await;
        }
    };
    // Whoever does not read its close in time has had its chance.
    let _ = timeout(Duration::from_millis(linger_ms), bye).await;
}

/// Reads until a hello is whole, and checks it. What follows it stays in `partial`. `Err(None)`: the client is gone;
/// otherwise the hello's request, or 0, and what is wrong.
async fn greet<S: Socket>(socket: &S, partial: &mut BytesMut, gate: &Gate) -> Result<Hello, Option<(u32, Closing)>> {
    loop {
        let found = split(partial, hello::body_max).map_err(|error| Some((0, hello::closing(&error, true))))?;
        if let Some(found) = found {
            let (size, request) = (found.size(), found.header.request);
            let checked = hello::check(&found, gate).map_err(|closing| Some((request, closing)))?;
            let _ = partial.split_to(size);
            give_back(partial);
            return Ok(checked);
        }
        if poll_fn(|cx| socket.poll_read(cx, |chunk| partial.extend_from_slice(chunk.bytes()))).await.is_err() {
            return Err(None);
        }
    }
}

/// Throws away what still comes, so that closing does not reset the connection under the client's reader.
async fn discard<S: Socket>(socket: &S) {
    let mut left = LINGER_BYTES_MAX;
    while let Ok(read) = poll_fn(|cx| socket.poll_read(cx, |chunk| chunk.bytes().len())).await
        && left > read
    {
        left -= read;
    }
}

/// The reading half of a connection that has said hello.
struct Inbound<S> {
    socket: Rc<S>,
    limits: Arc<NetLimits>,
    /// Bytes that are not handed over yet.
    partial: BytesMut,
    /// There may be whole frames among them.
    unseen: bool,
    /// Runs while a frame has begun and not ended.
    began: Option<Pin<Box<Sleep>>>,
    /// What is wrong with what follows the frames that were handed over last.
    broken: Option<Box<Closing>>,
}

impl<S: Socket> Inbound<S> {
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
                if link.closed() {
                    // It reads nothing, but has to notice that its client is gone.
                    return self.poll_gone(cx);
                }
                // Mostly there is nothing more, and the socket wakes this task before the session has to.
                let left = self.unseen || self.broken.is_some() || !self.partial.is_empty();
                if left || self.socket.poll_readable(cx).is_ready() {
                    link.await_turn();
                }
                return Poll::Pending;
            }
            if let Some(broken) = self.broken.take() {
                let (code, message) = *broken;
                tracing::debug!(%code, message, "a connection is closed for what it sent");
                link.close(code, code.name().unwrap_or_default());
                return Poll::Pending;
            }
            let found = if std::mem::take(&mut self.unseen) {
                find_more(&mut self.partial, self.limits.payload_bytes_max)
            } else {
                let (partial, max) = (&mut self.partial, self.limits.payload_bytes_max);
                match self.socket.poll_read(cx, |chunk| find(partial, &chunk, max)) {
                    Poll::Ready(Ok(found)) => found,
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
            };
            self.broken = found.broken.map(|error| Box::new(hello::closing(&error, false)));
            if !found.whole.is_empty() {
                self.began = None;
                link.receive(found.whole);
            }
        }
    }

    fn watch_partial(&mut self) {
        if self.partial.is_empty() {
            self.began = None;
        } else if self.began.is_none() {
            self.began = Some(Box::pin(sleep(Duration::from_millis(self.limits.frame_ms))));
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        loop {
            match self.socket.poll_read(cx, |_| ()) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// What was found in the bytes that were read.
struct Found {
    /// Whole frames, without the buffer that they were read into.
    whole: Bytes,
    /// What is wrong with what follows them.
    broken: Option<FrameError>,
}

/// Finds the whole frames of `partial` and `chunk` behind it; the rest stays in `partial`.
fn find(partial: &mut BytesMut, chunk: &Chunk<'_>, payload_bytes_max: u32) -> Found {
    if !partial.is_empty() {
        partial.extend_from_slice(chunk.bytes());
        return find_more(partial, payload_bytes_max);
    }
    let (whole, broken) = whole_frames(chunk.bytes(), payload_bytes_max);
    partial.extend_from_slice(&chunk.bytes()[whole..]);
    Found { whole: chunk.first(whole), broken }
}

/// Finds the whole frames of `partial`.
fn find_more(partial: &mut BytesMut, payload_bytes_max: u32) -> Found {
    let (whole, broken) = whole_frames(partial, payload_bytes_max);
    // Copied out, so that what the session keeps does not keep the buffer.
    let frames = Bytes::copy_from_slice(&partial.split_to(whole));
    give_back(partial);
    Found { whole: frames, broken }
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

/// An idle connection owns no buffer.
fn give_back(buffer: &mut BytesMut) {
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
}
