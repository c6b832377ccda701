//! TCP: accepts connections and spreads them over the arbiters.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parlor_actors::fleet::Fleet;
use parlor_protocol::{Code, Extensions, message::Close};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{Gate, link};

/// How long to wait when the system refuses to accept, for want of descriptors mostly.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Connections beyond the limit that may be told so at a time; further ones are dropped without a word.
const REFUSED_MAX: usize = 1_024;

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
    let refused = Arc::new(AtomicUsize::new(0));
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
        let (gate, refused) = (gate.clone(), refused.clone());
        fleet.run_on(next, move |local| {
            let local = local.clone();
            actix_rt::spawn(async move {
                match TcpStream::from_std(stream) {
                    Ok(stream) => serve(local, gate, refused, stream).await,
                    Err(error) => tracing::warn!(%error, "an accepted connection does not work"),
                }
            });
        });
        next += 1;
    }
}

async fn serve(local: parlor_actors::relay::Local, gate: Gate, refused: Arc<AtomicUsize>, stream: TcpStream) {
    // Frames leave whole and at once; the relay has put together what belongs together.
    if stream.set_nodelay(true).is_err() {
        return; // The client is gone already.
    }
    let (mut reader, mut writer) = stream.into_split();
    let Some(_counted) = Counted::below(gate.limits.connections_max, &gate.open) else {
        // Not counted with the others: those who are told to come back later must not take the places of those who do.
        let Some(_counted) = Counted::below(REFUSED_MAX, &refused) else { return };
        let close = Close {
            code: Code::TooManyConnections,
            retry_after_ms: gate.limits.retry_after_ms,
            message: "the server has as many connections as it may",
            extensions: Extensions::default(),
        };
        link::refuse(&mut reader, &mut writer, 0, &close, gate.limits.linger_ms).await;
        return;
    };
    link::serve(local, gate, reader, writer).await;
}

/// Counts a connection while it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// `None` if there are `max` already.
    fn below(max: usize, counter: &Arc<AtomicUsize>) -> Option<Self> {
        let counted = counter.fetch_update(Relaxed, Relaxed, |count| (count < max).then_some(count + 1));
        counted.is_ok().then(|| Self(counter.clone()))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
