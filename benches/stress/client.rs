//! The load generator's connections: one epoll loop over all of them, so that a client costs nearly the same whatever
//! the peer. Client libraries would not: on two cores they would be what is measured.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::peers::{Event, Session};

/// What all connections read into.
const SCRATCH_BYTES: usize = 256 << 10;

/// One connection.
pub(crate) struct Conn<S> {
    sock: TcpStream,
    /// Its protocol.
    pub(crate) session: S,
    /// Received bytes that end in an incomplete frame.
    rx: Vec<u8>,
    tx: BytesMut,
}

impl<S: Session> Conn<S> {
    /// Publishes to the connection's room, at the next [`flush`](Self::flush).
    pub(crate) fn publish(&mut self, payload: &[u8]) {
        self.session.publish(payload, &mut self.tx);
    }

    /// Asks for stored messages, at the next [`flush`](Self::flush).
    pub(crate) fn read_on(&mut self, records: u64) {
        self.session.read_on(records, &mut self.tx);
    }

    /// Says that the client is still there, at the next [`flush`](Self::flush). False if the protocol has no such word.
    pub(crate) fn beat(&mut self) -> bool {
        self.session.beat(&mut self.tx)
    }

    /// Writes as much of what waits as the socket takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.tx.is_empty() {
            match self.sock.write(&self.tx) {
                Ok(sent) => self.tx.advance(sent),
                Err(error) if not_now(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads and decodes all that there is, hands each event to `handle`, and sends what the protocol requires in return.
    fn receive(&mut self, scratch: &mut [u8], mut handle: impl FnMut(Event<'_>) -> io::Result<()>) -> io::Result<()> {
        loop {
            match self.sock.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.decode(&scratch[..read], &mut handle)?;
                    if read < scratch.len() {
                        break;
                    }
                }
                Err(error) if not_now(&error) => break,
                Err(error) => return Err(error),
            }
        }
        self.flush()
    }

    /// Most chunks end with a frame: only a rest is copied.
    fn decode(&mut self, chunk: &[u8], handle: &mut impl FnMut(Event<'_>) -> io::Result<()>) -> io::Result<()> {
        let carried = !self.rx.is_empty();
        let mut joined = std::mem::take(&mut self.rx);
        if carried {
            joined.extend_from_slice(chunk);
        }
        let input = if carried { &joined[..] } else { chunk };
        let mut at = 0;
        while let Some((used, event)) = self.session.decode(&input[at..], &mut self.tx)? {
            handle(event)?;
            at += used;
        }
        if carried {
            joined.drain(..at);
        } else {
            joined.extend_from_slice(&chunk[at..]);
        }
        self.rx = joined;
        Ok(())
    }
}

fn not_now(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}

/// Connections, and the poll that they are registered with; a token is an index.
pub(crate) struct Client<S> {
    /// The connections.
    pub(crate) conns: Vec<Conn<S>>,
    /// What they read into.
    scratch: Vec<u8>,
    /// The connections that were ready in the last [`turn`](Self::turn).
    pub(crate) ready: Vec<usize>,
    poll: Poll,
    events: Events,
}

impl<S: Session> Client<S> {
    /// No connections yet.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            conns: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            ready: Vec::new(),
            poll: Poll::new()?,
            events: Events::with_capacity(1_024),
        })
    }

    /// Opens one connection for each session, at most `concurrency` of them at a time, until all are ready.
    pub(crate) fn connect(
        addr: SocketAddr,
        sessions: impl IntoIterator<Item = S>,
        concurrency: usize,
        limit: Duration,
    ) -> io::Result<Self> {
        let mut sessions = sessions.into_iter().fuse();
        let mut client = Self::new()?;
        let deadline = Instant::now() + limit;
        let mut pending = 0;
        loop {
            while pending < concurrency
                && let Some(session) = sessions.next()
            {
                pending += usize::from(!client.open(addr, session)?);
            }
            if pending == 0 {
                return Ok(client);
            }
            if Instant::now() > deadline {
                let done = client.conns.len() - pending;
                return Err(io::Error::other(format!("only {done} connections became ready in {limit:?}")));
            }
            client.turn(Duration::from_millis(100), |_, event| {
                pending -= usize::from(matches!(event, Event::Ready));
                Ok(())
            })?;
        }
    }

    /// Begins to connect. True if the connection needs no handshake.
    pub(crate) fn open(&mut self, addr: SocketAddr, mut session: S) -> io::Result<bool> {
        let mut sock = TcpStream::connect(addr)?;
        sock.set_nodelay(true)?;
        let token = Token(self.conns.len());
        self.poll.registry().register(&mut sock, token, Interest::READABLE | Interest::WRITABLE)?;
        let mut tx = BytesMut::new();
        let ready = session.start(&mut tx);
        self.conns.push(Conn { sock, session, rx: Vec::new(), tx });
        Ok(ready)
    }

    /// Waits until connections are ready, reads all that they have, and hands every event to `handle` with its
    /// connection's index.
    ///
    /// # Errors
    /// The first that a connection or `handle` has; what came behind it is lost.
    #[inline]
    pub(crate) fn turn(
        &mut self,
        timeout: Duration,
        mut handle: impl FnMut(usize, Event<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.ready.clear();
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => self.ready.extend(self.events.iter().map(|event| event.token().0)),
        }
        for &index in &self.ready {
            let conn = &mut self.conns[index];
            conn.receive(&mut self.scratch, |event| handle(index, event))
                .map_err(|error| io::Error::new(error.kind(), format!("connection {index}: {error}")))?;
        }
        Ok(())
    }
}
