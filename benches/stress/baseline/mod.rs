//! Baselines of the machine: no protocol, no history, no sessions. They show what a shape of threads can reach.
//!
//! A connection sends its room id (`u32`, little-endian), gets an empty frame back, and from then on every frame (`u32`
//! length, bytes) that it sends is copied as it is to all members of its room.

mod epoll;
mod hub;
mod local;
mod tasks;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use socket2::{Domain, Socket, Type};

/// Which baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// One epoll thread that writes to the sockets itself.
    #[value(name = "raw-mio")]
    Mio,
    /// A task and a queue per connection, on several threads.
    #[value(name = "raw-tokio")]
    Tokio,
    /// One thread, tasks for reading; rooms' shared batches are written at the end of a turn.
    #[value(name = "raw-local")]
    Local,
    /// `Local` behind a thread that appends each turn to a file before it is delivered.
    #[value(name = "raw-store")]
    Store,
    /// `Store` that also calls `fdatasync`.
    #[value(name = "raw-sync")]
    Sync,
}

impl Kind {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mio => "raw-mio",
            Self::Tokio => "raw-tokio",
            Self::Local => "raw-local",
            Self::Store => "raw-store",
            Self::Sync => "raw-sync",
        }
    }
}

/// Serves until the process is stopped.
pub(crate) fn serve(kind: Kind, port: u16) -> io::Result<()> {
    match kind {
        Kind::Mio => epoll::serve(port),
        Kind::Tokio => tasks::serve(port),
        Kind::Local => local::serve(port, local::Stored::Not),
        Kind::Store => local::serve(port, local::Stored::Written),
        Kind::Sync => local::serve(port, local::Stored::Synced),
    }
}

/// Listens like the servers do: thousands may come at once.
fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4_096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The length of the complete frames at the start of `input`.
fn complete_frames(input: &[u8]) -> usize {
    let mut at = 0;
    while let Some(header) = input[at..].first_chunk() {
        let end = at + 4 + u32::from_le_bytes(*header) as usize;
        if end > input.len() {
            break;
        }
        at = end;
    }
    at
}
