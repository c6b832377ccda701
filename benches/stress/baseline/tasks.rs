//! A task pair per connection, a queue per member, vectored writes.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use super::complete_frames;

type Rooms = Arc<Mutex<HashMap<u32, Arc<Mutex<Vec<mpsc::UnboundedSender<Bytes>>>>>>>;

/// Serves until the process is stopped.
pub(super) fn serve(port: u16) -> io::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_io().build()?.block_on(accept(port))
}

async fn accept(port: u16) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(super::listen(port)?)?;
    let rooms = Rooms::default();
    loop {
        let (sock, _) = listener.accept().await?;
        let rooms = rooms.clone();
        tokio::spawn(async move {
            sock.set_nodelay(true)?;
            let (mut reader, writer) = sock.into_split();
            let id = reader.read_u32_le().await?;
            let room = rooms.lock().expect("no panics").entry(id).or_default().clone();
            let (queue, outgoing) = mpsc::unbounded_channel();
            _ = queue.send(Bytes::from_static(&[0; 4]));
            room.lock().expect("no panics").push(queue);
            tokio::spawn(write_queue(writer, outgoing));
            let mut rx = BytesMut::new();
            loop {
                if reader.read_buf(&mut rx).await? == 0 {
                    return io::Result::Ok(());
                }
                let frames = rx.split_to(complete_frames(&rx)).freeze();
                if !frames.is_empty() {
                    room.lock().expect("no panics").retain(|member| member.send(frames.clone()).is_ok());
                }
            }
        });
    }
}

async fn write_queue(
    mut sock: tokio::net::tcp::OwnedWriteHalf,
    mut outgoing: mpsc::UnboundedReceiver<Bytes>,
) -> io::Result<()> {
    const AT_ONCE: usize = 64;
    let mut chunks = Vec::new();
    while outgoing.recv_many(&mut chunks, AT_ONCE).await > 0 {
        let mut slices: Vec<_> = chunks.iter().map(|chunk| io::IoSlice::new(chunk)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            let sent = sock.write_vectored(rest).await?;
            io::IoSlice::advance_slices(&mut rest, sent);
        }
        drop(slices);
        chunks.clear();
    }
    Ok(())
}
