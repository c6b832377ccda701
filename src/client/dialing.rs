//! Attempts at a connection that are under way: names looked up, sockets connected. Decides nothing; `servers.rs` does.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
};

use super::servers::Attempt;

/// A connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What has come of one of them.
pub(super) enum Dialed {
    Resolved(usize, io::Result<Vec<SocketAddr>>),
    Connected(Attempt, Box<dyn Stream>),
    Failed(Attempt, io::Error),
}

type Work = Pin<Box<dyn Future<Output = Dialed> + Send>>;

/// See the module. Few at a time, so all are looked at.
#[derive(Default)]
pub(super) struct Dialing {
    /// The attempt that it is, if it is none to look a name up.
    under_way: Vec<(Option<Attempt>, Work)>,
}

impl Dialing {
    pub(super) fn resolve(&mut self, server: usize, name: String) {
        let work = async move { Dialed::Resolved(server, lookup_host(name).await.map(Iterator::collect)) };
        self.under_way.push((None, Box::pin(work)));
    }

    pub(super) fn connect(&mut self, attempt: Attempt, address: SocketAddr) {
        let work = async move {
            match connect(address).await {
                Ok(stream) => Dialed::Connected(attempt, Box::new(stream)),
                Err(error) => Dialed::Failed(attempt, error),
            }
        };
        self.under_way.push((Some(attempt), Box::pin(work)));
    }

    pub(super) fn give_up(&mut self, attempt: Attempt) {
        self.under_way.retain(|(of, _)| *of != Some(attempt));
    }

    pub(super) fn clear(&mut self) {
        self.under_way = Vec::new();
    }

    /// One that is done. The first connection ends all others.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<Dialed> {
        for at in 0..self.under_way.len() {
            if let Poll::Ready(dialed) = self.under_way[at].1.as_mut().poll(cx) {
                drop(self.under_way.swap_remove(at));
                if let Dialed::Connected(..) = dialed {
                    self.clear();
                }
                return Some(dialed);
            }
        }
        None
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Frames are written whole; waiting for more to say would only delay them.
    stream.set_nodelay(true)?;
    Ok(stream)
}
