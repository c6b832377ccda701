//! TCP: accepts connections and spreads them over the arbiters.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use parlor_actors::{
    fleet::Fleet,
    outbound::{Outbound, Wire},
    relay::Local,
};
use parlor_protocol::{Code, Extensions, message::Close};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{
    Gate, NetLimits, link,
    socket::{Chunk, Socket, Stream},
};

/// How long to wait when the system refuses to accept, for want of descriptors mostly.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Clients that may wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 4_096;

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
    let listener = bind(address)?;
    listener.set_nonblocking(true)?;
    let local = listener.local_addr()?;
    let accepting = fleet.clone();
    fleet.run_on(0, move |_| {
        actix_rt::spawn(accept(listener, accepting, gate, stop));
    });
    Ok(local)
}

/// As `TcpListener::bind`, which lets 128 clients wait to be accepted: of a storm of thousands, most would come again only
/// after their first second without an answer.
fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    #[cfg(unix)] // Elsewhere it would let another process take the same port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
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
        fleet.run_on(next, move |local| serve(local, &gate, &refused, stream));
        next += 1;
    }
}

/// An accepted connection and its place among them.
struct Accepted {
    socket: Stream<TcpStream>,
    _counted: Counted,
}

impl Wire for Accepted {
    fn poll_write(&self, cx: &mut Context<'_>, waiting: &mut Outbound) -> Poll<io::Result<()>> {
        self.socket.poll_write(cx, waiting)
    }
}

impl Socket for Accepted {
    fn poll_read<T>(&self, cx: &mut Context<'_>, take: impl FnOnce(Chunk<'_>) -> T) -> Poll<io::Result<T>> {
        self.socket.poll_read(cx, take)
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_shutdown(cx)
    }
}

fn serve(local: &Local, gate: &Gate, refused: &Arc<AtomicUsize>, stream: std::net::TcpStream) {
    // Frames leave whole and at once; the relay has put together what belongs together.
    let stream = match stream.set_nodelay(true).and_then(|()| TcpStream::from_std(stream)) {
        Ok(stream) => Stream::new(stream),
        // The client is gone already, mostly.
        Err(error) => return tracing::debug!(%error, "an accepted connection does not work"),
    };
    if let Some(counted) = Counted::below(gate.limits.connections_max, &gate.open) {
        actix_rt::spawn(link::serve(local.clone(), gate.clone(), Accepted { socket: stream, _counted: counted }));
    } else if let Some(counted) = Counted::below(REFUSED_MAX, refused) {
        // Not counted with the others: those who are told to come back later must not take the places of those who do.
        actix_rt::spawn(refuse(Accepted { socket: stream, _counted: counted }, gate.limits.clone()));
    }
}

async fn refuse(socket: Accepted, limits: Arc<NetLimits>) {
    let close = Close {
        code: Code::TooManyConnections,
        retry_after_ms: limits.retry_after_ms,
        message: "the server has as many connections as it may",
        extensions: Extensions::default(),
    };
    link::refuse(&socket, 0, &close, limits.linger_ms).await;
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
