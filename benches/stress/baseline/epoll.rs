//! One epoll thread: per wake-up, each member of an active room gets one write.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read, Write},
};

use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};

use super::complete_frames;

struct Member {
    sock: TcpStream,
    room: Option<u32>,
    rx: Vec<u8>,
    /// What the socket did not take yet.
    tx: Vec<u8>,
}

#[derive(Default)]
struct Room {
    members: Vec<usize>,
    /// Frames received since the last fan-out.
    batch: Vec<u8>,
}

impl Member {
    fn write(&mut self, mut data: &[u8]) {
        while self.tx.is_empty() && !data.is_empty() {
            match self.sock.write(data) {
                Ok(n) => data = &data[n..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return,
            }
        }
        self.tx.extend_from_slice(data);
    }

    fn flush(&mut self) {
        let pending = std::mem::take(&mut self.tx);
        self.write(&pending);
    }
}

/// Serves until the process is stopped.
pub(super) fn serve(port: u16) -> io::Result<()> {
    const LISTENER: Token = Token(usize::MAX);
    let both = Interest::READABLE | Interest::WRITABLE;
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut listener = TcpListener::from_std(super::listen(port)?);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut members: Vec<Option<Member>> = Vec::new();
    let mut rooms: HashMap<u32, Room> = HashMap::new();
    let mut active: Vec<u32> = Vec::new();
    let mut scratch = vec![0; 256 << 10];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut sock, _)) = listener.accept() {
                    sock.set_nodelay(true)?;
                    poll.registry().register(&mut sock, Token(members.len()), both)?;
                    members.push(Some(Member { sock, room: None, rx: Vec::new(), tx: Vec::new() }));
                }
                continue;
            }
            let index = event.token().0;
            let Some(member) = &mut members[index] else { continue };
            if event.is_writable() && !member.tx.is_empty() {
                member.flush();
            }
            if !event.is_readable() {
                continue;
            }
            let open = loop {
                match member.sock.read(&mut scratch) {
                    Ok(0) => break false,
                    Ok(n) => {
                        member.rx.extend_from_slice(&scratch[..n]);
                        if n < scratch.len() {
                            break true;
                        }
                    }
                    Err(error) => break error.kind() == ErrorKind::WouldBlock,
                }
            };
            if member.room.is_none()
                && let Some(id) = member.rx.first_chunk()
            {
                let id = u32::from_le_bytes(*id);
                member.rx.drain(..4);
                member.room = Some(id);
                member.write(&[0; 4]);
                rooms.entry(id).or_default().members.push(index);
            }
            if let Some(id) = member.room {
                let room = rooms.entry(id).or_default();
                let end = complete_frames(&member.rx);
                if end > 0 && room.batch.is_empty() {
                    active.push(id);
                }
                room.batch.extend(member.rx.drain(..end));
                if !open {
                    room.members.retain(|other| *other != index);
                }
            }
            if !open {
                members[index] = None;
            } else if member.rx.is_empty() {
                member.rx = Vec::new();
            }
        }
        for id in active.drain(..) {
            let room = rooms.entry(id).or_default();
            for &index in &room.members {
                if let Some(member) = &mut members[index] {
                    member.write(&room.batch);
                }
            }
            room.batch.clear();
        }
    }
}
