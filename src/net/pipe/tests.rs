use std::{cell::Cell, sync::atomic::AtomicUsize, sync::atomic::Ordering::SeqCst};

use parlor_actors::outbound::{Outbound, Wire};

use super::*;
use crate::net::socket::Socket;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn counted() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count::default());
    (count.clone(), count.into())
}

fn chunk(len: usize) -> Bytes {
    Bytes::from(vec![b'x'; len])
}

fn read(near: &Near, waker: &Waker) -> Poll<io::Result<Vec<u8>>> {
    near.poll_read(&mut Context::from_waker(waker), |chunk| chunk.bytes().to_vec())
}

#[test]
fn chunks_are_taken_until_so_many_bytes_wait_and_the_sender_is_woken_when_there_is_room() {
    let (mut pipe, near) = pair();
    let (woken, waker) = counted();
    let mut cx = Context::from_waker(&waker);
    pipe.sender.try_send(chunk(PIPE_BYTES - 1)).unwrap();
    assert!(pipe.sender.poll_ready(&mut cx).is_ready());
    pipe.sender.try_send(chunk(10 * PIPE_BYTES)).unwrap();
    assert_eq!(pipe.sender.try_send(chunk(1)), Err(TrySendError::Full(chunk(1))));
    assert!(pipe.sender.poll_ready(&mut cx).is_pending());
    let len = |read: Poll<io::Result<Vec<u8>>>| match read {
        Poll::Ready(Ok(bytes)) => bytes.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(len(read(&near, Waker::noop())), PIPE_BYTES - 1);
    assert_eq!(woken.0.load(SeqCst), 0, "still full");
    assert_eq!(len(read(&near, Waker::noop())), 10 * PIPE_BYTES);
    assert_eq!(woken.0.load(SeqCst), 1);
    assert!(pipe.sender.poll_ready(&mut cx).is_ready());
}

#[test]
fn short_chunks_reach_the_session_together_and_long_ones_uncopied() {
    let (mut pipe, near) = pair();
    let long = chunk(100_000);
    for frames in [&b"a"[..], b"b", b"", b"c"] {
        pipe.sender.try_send(Bytes::from_static(frames)).unwrap();
    }
    pipe.sender.try_send(long.clone()).unwrap();
    let (woken, waker) = counted();
    assert!(matches!(read(&near, &waker), Poll::Ready(Ok(bytes)) if bytes == b"abc"));
    let same = Cell::new(false);
    let read_long = near.poll_read(&mut Context::from_waker(&waker), |chunk| {
        same.set(chunk.first(9).as_ptr() == long.as_ptr());
    });
    assert!(read_long.is_ready() && same.get());
    assert!(read(&near, &waker).is_pending());
    pipe.sender.try_send(chunk(1)).unwrap();
    assert_eq!(woken.0.load(SeqCst), 1, "the link was woken");
    drop(pipe.sender);
    assert!(matches!(read(&near, &waker), Poll::Ready(Ok(bytes)) if bytes == b"x"), "sent before the drop");
    assert!(matches!(read(&near, &waker), Poll::Ready(Err(_))));
}

#[test]
fn the_engine_shares_its_chunks_and_stops_when_the_host_does_not_read() {
    let (mut pipe, near) = pair();
    let (woken, waker) = counted();
    let mut cx = Context::from_waker(&waker);
    let frames = chunk(PIPE_BYTES / 2);
    let mut outbound = Outbound::default();
    for _ in 0..5 {
        outbound.push(frames.clone());
    }
    assert!(outbound.poll_drain(&near, &mut cx).is_pending());
    assert_eq!(outbound.bytes(), 3 * frames.len());
    let got = pipe.receiver.try_recv().unwrap();
    assert_eq!(got.as_ptr(), frames.as_ptr(), "shared, not copied");
    assert_eq!(woken.0.load(SeqCst), 1);
    assert!(outbound.poll_drain(&near, &mut cx).is_pending());
    for _ in 0..2 {
        pipe.receiver.try_recv().unwrap();
    }
    assert_eq!(pipe.receiver.try_recv(), Err(TryRecvError::Empty));
    assert!(matches!(outbound.poll_drain(&near, &mut cx), Poll::Ready(Ok(()))));
    drop(near);
    for _ in 0..2 {
        pipe.receiver.try_recv().unwrap();
    }
    assert_eq!(pipe.receiver.try_recv(), Err(TryRecvError::Closed));
    assert_eq!(pipe.sender.try_send(chunk(1)), Err(TrySendError::Closed(chunk(1))));
}

#[test]
fn whoever_waits_is_woken_by_the_end() {
    let (pipe, near) = pair();
    let Pipe { mut sender, mut receiver } = pipe;
    let waits = thread::spawn(move || receiver.recv_blocking());
    sender.try_send(chunk(PIPE_BYTES)).unwrap();
    let sends = thread::spawn(move || sender.send_blocking(chunk(1)));
    drop(near);
    assert_eq!(waits.join().unwrap(), None);
    assert_eq!(sends.join().unwrap(), Err(Closed));

    let (pipe, near) = pair();
    let (woken, waker) = counted();
    assert!(read(&near, &waker).is_pending());
    drop(pipe.receiver);
    assert_eq!(woken.0.load(SeqCst), 1, "either half ends the connection");
    assert!(matches!(read(&near, &waker), Poll::Ready(Err(_))));
    let mut outbound = Outbound::default();
    outbound.push(chunk(1));
    assert!(matches!(near.poll_write(&mut Context::from_waker(&waker), &mut outbound), Poll::Ready(Err(_))));
}
