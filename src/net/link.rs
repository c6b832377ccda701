//! A connection, from its first byte to its last, on one arbiter's thread.
//!
//! A task of its own reads the hello and checks it. From then on the session reads, through `Frames`, which finds whole
//! frames and checks their headers. Another task half-closes, in the end.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use parlor_actors::{
    outbound::Outbound,
    relay::{Local, link::Hello},
    session::inbound::{Inbound, Stop},
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

/// Waits for a hello and begins a session; without one, closes the connection.
pub async fn serve<S: Socket>(local: Local, gate: Gate, socket: S) {
    let limits = gate.limits.clone();
    let mut partial = BytesMut::new();
    let greeted = timeout(Duration::from_millis(limits.hello_ms), greet(&socket, &mut partial, &gate)).await;
    match greeted.unwrap_or(Err(Some((0, (Code::TooSlow, "no hello came in time".into()))))) {
        Ok(hello) => {
            let socket = Rc::new(socket);
            local.connect(hello, socket.clone(), Box::new(Frames::behind(partial, socket, limits)));
        }
        Err(None) => {}
        Err(Some((request, (code, message)))) => {
            tracing::debug!(%code, message, "a connection was closed before its hello was taken");
            let close = Close { code, retry_after_ms: 0, message: &message, extensions: Extensions::default() };
            refuse(&socket, request, &close, limits.linger_ms).await;
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
            if has_hung_up(socket, partial).await {
                return Err(None);
            }
            give_back(partial);
            return Ok(checked);
        }
        if poll_fn(|cx| socket.poll_read(cx, |chunk| partial.extend_from_slice(chunk.bytes()))).await.is_err() {
            return Err(None);
        }
    }
}

/// Whether the client has hung up behind its hello, as far as can be seen at once: a session of nobody would take the place of the
/// one that he has on his next connection.
async fn has_hung_up<S: Socket>(socket: &S, partial: &mut BytesMut) -> bool {
    poll_fn(|cx| {
        let read = socket.poll_read(cx, |chunk| partial.extend_from_slice(chunk.bytes()));
        Poll::Ready(matches!(read, Poll::Ready(Err(_))))
    })
    .await
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
struct Frames<S> {
    socket: Rc<S>,
    limits: Arc<NetLimits>,
    /// Bytes that are not handed over yet.
    partial: BytesMut,
    /// There may be whole frames among them.
    unseen: bool,
    /// Runs while a frame has begun and not ended.
    began: Option<Pin<Box<Sleep>>>,
    /// What is wrong with what follows the frames that were handed over last.
    broken: Option<Box<FrameError>>,
}

impl<S: Socket> Frames<S> {
    /// `partial` came with the hello.
    fn behind(partial: BytesMut, socket: Rc<S>, limits: Arc<NetLimits>) -> Self {
        let unseen = !partial.is_empty();
        Self { socket, limits, partial, unseen, began: None, broken: None }
    }

    /// Ready when a frame was begun and not finished in time.
    fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.partial.is_empty() {
            return Poll::Pending;
        }
        let frame_ms = self.limits.frame_ms;
        let began = self.began.get_or_insert_with(|| Box::pin(sleep(Duration::from_millis(frame_ms))));
        began.as_mut().poll(cx)
    }
}

impl<S: Socket> Inbound for Frames<S> {
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Stop>> {
        if let Some(broken) = self.broken.take() {
            let (code, message) = hello::closing(&broken, false);
            tracing::debug!(%code, message, "a connection is closed for what it sent");
            return Poll::Ready(Err(Stop::Broken(code, code.name().unwrap_or_default())));
        }
        let (partial, max) = (&mut self.partial, self.limits.payload_bytes_max);
        let found = if std::mem::take(&mut self.unseen) {
            find_more(partial, max)
        } else {
            match self.socket.poll_read(cx, |chunk| find(partial, &chunk, max)) {
                Poll::Ready(Ok(found)) => found,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Stop::Gone)),
                Poll::Pending => {
                    ready!(self.poll_too_slow(cx));
                    let message = "a frame was begun and not finished in time";
                    return Poll::Ready(Err(Stop::Broken(Code::TooSlow, message)));
                }
            }
        };
        self.broken = found.broken.map(Box::new);
        if !found.whole.is_empty() {
            self.began = None;
        }
        Poll::Ready(Ok(found.whole))
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while ready!(self.socket.poll_read(cx, |_| ())).is_ok() {}
        Poll::Ready(())
    }

    fn half_close(self: Box<Self>) {
        actix_rt::spawn(half_close(self.socket, self.limits.linger_ms));
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

#[cfg(test)]
mod tests {
    use parlor_protocol::{message, to_bytes};
    use tokio::io::AsyncWriteExt as _;

    use super::{super::socket::Stream, *};

    #[tokio::test]
    async fn nobody_is_let_in_who_has_hung_up_behind_his_hello() {
        let gate = Gate { limits: Arc::default(), authenticate: None, open: Arc::default() };
        let hello = message::Hello {
            magic: *b"PRLR",
            version_min: 1,
            version_max: 1,
            features: 0,
            user: "ann",
            device: "phone",
            device_class: message::DeviceClass::Mobile,
            network: message::Network::Wifi,
            credentials: &[],
            resume: None,
            attempt: 1,
            extensions: Extensions::default(),
        };
        for hangs_up in [true, false] {
            let (mut client, server) = tokio::io::duplex(1_024);
            client.write_all(&to_bytes(1, &hello)).await.unwrap();
            let client = (!hangs_up).then_some(client);
            let greeted = greet(&Stream::new(server), &mut BytesMut::new(), &gate).await;
            assert_eq!(greeted.is_ok(), client.is_some());
        }
    }
}
