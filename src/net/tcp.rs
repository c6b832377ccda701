//! TCP: accepts connections and spreads them over the arbiters.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use parlor_actors::fleet::Fleet;
use parlor_protocol::Code;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{Gate, link};

/// How long to wait when the system refuses to accept, for want of descriptors mostly.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Listens on `address`; returns where (its port, if that was 0). Accepts until `stop` changes.
///
/// # Errors
/// If the address cannot be listened on.
pub fn listen(
    address: SocketAddr,
    fleet: Arc<Fleet>,
    gate: Gate,
    stop: watch::Receiver<bool>,
) -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let local = listener.local_addr()?;
    let accepting = fleet.clone();
    fleet.run_on(0, move |_| {
        actix_rt::spawn(accept(listener, accepting, gate, stop));
    });
    Ok(local)
}

async fn accept(listener: std::net::TcpListener, fleet: Arc<Fleet>, gate: Gate, mut stop: watch::Receiver<bool>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the listener does not work"),
    };
    let mut next = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => return,
        };
        let stream = match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let gate = gate.clone();
        fleet.run_on(next, move |local| {
            let local = local.clone();
            actix_rt::spawn(async move {
                match TcpStream::from_std(stream) {
                    Ok(stream) => serve(local, gate, stream).await,
                    Err(error) => tracing::warn!(%error, "an accepted connection does not work"),
                }
            });
        });
        next += 1;
    }
}

async fn serve(local: parlor_actors::relay::Local, gate: Gate, stream: TcpStream) {
    // Frames leave whole and at once; the relay has put together what belongs together.
    if stream.set_nodelay(true).is_err() {
        return; // The client is gone already.
    }
    let (mut reader, mut writer) = stream.into_split();
    let counted = Counted::new(&gate);
    if counted.before >= gate.limits.connections_max {
        let limits = &gate.limits;
        let (code, text) = (Code::TooManyConnections, "the server has as many connections as it may");
        link::refuse(&mut reader, &mut writer, code, text, limits.retry_after_ms, limits.linger_ms).await;
        return;
    }
    link::serve(local, gate, reader, writer).await;
}

/// Counts a connection while it lives.
struct Counted {
    gate: Gate,
    before: usize,
}

impl Counted {
    fn new(gate: &Gate) -> Self {
        Self { before: gate.open.fetch_add(1, Relaxed), gate: gate.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Relaxed);
    }
}
