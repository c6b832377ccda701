//! Stands between the clients of a replay and their server, and passes everything on but what a [`Dropper`] keeps.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::dropper::Dropper;

const READ_BYTES: usize = 16 << 10;

/// A proxy within this process. It ends when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    dropped: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts it before `server` (`host:port`).
    pub(crate) async fn start(server: String, share: f64, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, dropped) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let accepting = tokio::spawn(accept(listener, server, Dropper::new(share, seed), dropped.clone()));
        Ok(Self { address, dropped, accepting })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many acks were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server: String, pattern: Dropper, dropped: Arc<AtomicU64>) {
    for number in 0.. {
        // A connection that was not made is the client's to make again.
        let Ok((client, _)) = listener.accept().await else { continue };
        let (server, dropper, dropped) = (server.clone(), pattern.of_connection(number), dropped.clone());
        tokio::spawn(async move {
            // Whichever way it ends, both sides see an end.
            let _ = pass(client, server, dropper, &dropped).await;
        });
    }
}

async fn pass(client: TcpStream, server: String, mut dropper: Dropper, dropped: &AtomicU64) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut asked, mut answered) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
    let mut client_speaks = true;
    loop {
        tokio::select! {
            read = from_client.read(&mut asked), if client_speaks => match read? {
                0 => {
                    client_speaks = false;
                    to_server.shutdown().await?;
                }
                read => {
                    dropper.ask(&asked[..read]).map_err(io::Error::other)?;
                    to_server.write_all(&asked[..read]).await?;
                }
            },
            read = from_server.read(&mut answered) => match read? {
                0 => return to_client.shutdown().await,
                read => dropper.answer(&answered[..read]),
            },
        }
        let before = dropper.dropped;
        let passing = dropper.passing().map_err(io::Error::other)?;
        dropped.fetch_add(dropper.dropped - before, Relaxed);
        if !passing.is_empty() {
            to_client.write_all(&passing).await?;
        }
    }
}
