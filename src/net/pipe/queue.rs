//! One direction of a pipe: chunks in order, bounded in bytes, one writer and one reader, on any threads.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use parking_lot::Mutex;

/// A queue that takes chunks while fewer bytes than its limit wait, as a socket's buffer would.
pub(super) struct Queue {
    bytes_max: usize,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    /// The writer writes nothing more.
    finished: bool,
    /// The reader reads nothing more.
    abandoned: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The queue's reader is gone.
pub(super) struct Abandoned;

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, inside: Mutex::default() }
    }

    /// Puts chunks in for as long as there is room and `next` has some; true if it has had all. Registers the writer to
    /// be woken where there is no room.
    pub(super) fn push(
        &self,
        waker: Option<&Waker>,
        mut next: impl FnMut() -> Option<Bytes>,
    ) -> Result<bool, Abandoned> {
        let mut inside = self.inside.lock();
        if inside.abandoned || inside.finished {
            return Err(Abandoned);
        }
        let before = inside.bytes;
        let all = loop {
            if inside.bytes >= self.bytes_max {
                if let Some(waker) = waker {
                    register(&mut inside.writer, waker);
                }
                break false;
            }
            let Some(chunk) = next() else { break true };
            inside.bytes += chunk.len();
            inside.chunks.push_back(chunk);
        };
        let reader = if inside.bytes > before { inside.reader.take() } else { None };
        drop(inside);
        wake(reader);
        Ok(all)
    }

    /// Waits until there is room.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<(), Abandoned>> {
        let mut inside = self.inside.lock();
        if inside.abandoned || inside.finished {
            return Poll::Ready(Err(Abandoned));
        }
        if inside.bytes < self.bytes_max {
            return Poll::Ready(Ok(()));
        }
        register(&mut inside.writer, cx.waker());
        Poll::Pending
    }

    /// Takes the first chunk; `None` at the end. Without a waker, `Pending` registers nobody.
    pub(super) fn poll_pop(&self, waker: Option<&Waker>) -> Poll<Option<Bytes>> {
        let mut inside = self.inside.lock();
        let Some(chunk) = inside.chunks.pop_front() else {
            if inside.finished {
                return Poll::Ready(None);
            }
            if let Some(waker) = waker {
                register(&mut inside.reader, waker);
            }
            return Poll::Pending;
        };
        inside.bytes -= chunk.len();
        if inside.chunks.is_empty() {
            // An idle pipe owns no buffer.
            inside.chunks = VecDeque::new();
        }
        let writer = if inside.bytes < self.bytes_max { inside.writer.take() } else { None };
        drop(inside);
        wake(writer);
        Poll::Ready(Some(chunk))
    }

    /// Takes the first chunk if it is at most so long.
    pub(super) fn pop_short(&self, bytes_max: usize) -> Option<Bytes> {
        let is_short = self.inside.lock().chunks.front().is_some_and(|chunk| chunk.len() <= bytes_max);
        // There is one reader, so it is still the first.
        if is_short && let Poll::Ready(chunk) = self.poll_pop(None) { chunk } else { None }
    }

    /// The writer is done: what waits can still be read.
    pub(super) fn finish(&self) {
        let reader = {
            let mut inside = self.inside.lock();
            inside.finished = true;
            inside.reader.take()
        };
        wake(reader);
    }

    /// The reader is gone: what waits is dropped.
    pub(super) fn abandon(&self) {
        let (writer, _chunks) = {
            let mut inside = self.inside.lock();
            inside.abandoned = true;
            inside.bytes = 0;
            (inside.writer.take(), std::mem::take(&mut inside.chunks))
        };
        wake(writer);
    }
}

fn register(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(known) => known.clone_from(waker),
        None => *place = Some(waker.clone()),
    }
}

/// Without the lock: whoever is woken may come at once.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
