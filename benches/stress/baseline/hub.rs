//! Rooms and connections of one thread: what is published in a turn, and writes that queue only what a socket refuses.

use std::{
    cell::RefCell,
    collections::HashMap,
    future::poll_fn,
    io::{self, ErrorKind},
    mem,
    pin::Pin,
    rc::Rc,
    task::Poll,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::Notify,
    task::yield_now,
};

/// What all connections read into.
const SCRATCH_BYTES: usize = 256 << 10;

/// Frames by room.
pub(super) type Batch = Vec<(u32, Vec<u8>)>;

/// A connection's writing half.
pub(super) struct Conn {
    pub(super) sock: OwnedWriteHalf,
    /// What the socket refused.
    pub(super) queued: RefCell<Vec<u8>>,
    pub(super) blocked: Notify,
}

#[derive(Default)]
pub(super) struct Room {
    pub(super) members: Vec<Rc<Conn>>,
    /// Frames of this turn.
    batch: Vec<u8>,
}

/// All that the thread owns.
#[derive(Default)]
pub(super) struct Hub {
    pub(super) rooms: RefCell<HashMap<u32, Room>>,
    active: RefCell<Vec<u32>>,
    dirty: Notify,
    scratch: RefCell<Vec<u8>>,
}

impl Hub {
    /// Nobody is here yet.
    pub(super) fn new() -> Self {
        Self { scratch: RefCell::new(vec![0; SCRATCH_BYTES]), ..Self::default() }
    }

    /// The next turn: every room that became active, with its batch.
    pub(super) async fn turn(&self) -> Batch {
        self.dirty.notified().await;
        yield_now().await;
        let mut rooms = self.rooms.borrow_mut();
        let active = mem::take(&mut *self.active.borrow_mut());
        active.into_iter().map(|id| (id, mem::take(&mut rooms.get_mut(&id).expect("active").batch))).collect()
    }

    pub(super) fn deliver(&self, room: u32, frames: &[u8]) {
        for member in self.rooms.borrow().get(&room).map_or(&[][..], |room| &room.members) {
            member.write(frames);
        }
    }

    pub(super) fn publish(&self, room: u32, frames: impl Iterator<Item = u8>) {
        let mut rooms = self.rooms.borrow_mut();
        let batch = &mut rooms.entry(room).or_default().batch;
        if batch.is_empty() {
            self.active.borrow_mut().push(room);
            self.dirty.notify_one();
        }
        batch.extend(frames);
    }
}

impl Conn {
    pub(super) fn write(&self, mut frames: &[u8]) {
        let mut queued = self.queued.borrow_mut();
        while queued.is_empty() && !frames.is_empty() {
            match self.sock.try_write(frames) {
                Ok(n) => frames = &frames[n..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked.notify_one();
                    break;
                }
                Err(_) => return,
            }
        }
        queued.extend_from_slice(frames);
    }

    pub(super) async fn drain(&self) -> io::Result<()> {
        while !self.queued.borrow().is_empty() {
            self.sock.writable().await?;
            let mut queued = self.queued.borrow_mut();
            match self.sock.try_write(&queued) {
                Ok(n) => drop(queued.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Appends what the socket has to `received`; 0 at its end or on an error.
pub(super) async fn read(hub: &Hub, reader: &mut OwnedReadHalf, received: &mut Vec<u8>) -> usize {
    poll_fn(|cx| {
        let mut scratch = hub.scratch.borrow_mut();
        let mut buf = ReadBuf::new(&mut scratch);
        match Pin::new(&mut *reader).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) => {
                received.extend_from_slice(buf.filled());
                Poll::Ready(buf.filled().len())
            }
            Poll::Ready(Err(_)) => Poll::Ready(0),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
