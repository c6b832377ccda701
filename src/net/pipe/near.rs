//! The engine's end of a pipe.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use parlor_actors::outbound::{Outbound, Wire};

use super::Both;
use crate::net::socket::{Chunk, Socket};

/// Chunks up to this length are put together before the session sees them…
const SHORT_BYTES: usize = 4 << 10;

/// …until they have this length.
const JOINED_BYTES: usize = 16 << 10;

/// A connection's far end, as the engine sees it.
pub struct Near(pub(super) Arc<Both>);

impl Wire for Near {
    /// Takes whole chunks: the frames of a batch are the same bytes in every pipe.
    fn poll_write(&self, cx: &mut Context<'_>, waiting: &mut Outbound) -> Poll<io::Result<()>> {
        let before = waiting.bytes();
        match self.0.down.push(Some(cx.waker()), || waiting.pop()) {
            Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Ok(false) if waiting.bytes() == before => Poll::Pending,
            Ok(_) => Poll::Ready(Ok(())),
        }
    }

    /// A host drops its end, or its process is gone and the engine with it.
    fn may_go_unnoticed(&self) -> bool {
        false
    }
}

impl Socket for Near {
    fn poll_read<T>(&self, cx: &mut Context<'_>, take: impl FnOnce(Chunk<'_>) -> T) -> Poll<io::Result<T>> {
        let Some(first) = ready!(self.0.up.poll_pop(Some(cx.waker()))) else {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        };
        let chunk = if first.len() > SHORT_BYTES {
            first
        } else if let Some(second) = self.0.up.pop_short(SHORT_BYTES) {
            let mut joined = BytesMut::with_capacity(JOINED_BYTES + SHORT_BYTES);
            joined.extend_from_slice(&first);
            joined.extend_from_slice(&second);
            while joined.len() < JOINED_BYTES
                && let Some(more) = self.0.up.pop_short(SHORT_BYTES)
            {
                joined.extend_from_slice(&more);
            }
            joined.freeze()
        } else {
            first
        };
        Poll::Ready(Ok(take(Chunk::Given(chunk))))
    }

    fn poll_shutdown(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.down.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        self.0.up.abandon();
        self.0.down.finish();
    }
}
