//! A connection, as its relay and its session share it: what it is written to, what wakes its session, how it ends.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    task::{Context as TaskContext, Poll, Waker},
};

use actix::{Actor, AsyncContext, WeakAddr};
use parlor_protocol::{
    Code, Name, Token,
    message::{DeviceClass, Network},
};

use super::Local;
use crate::{
    message::Conn,
    outbound::Wire,
    port::DeviceKey,
    router::Presence,
    session::{Session, ToSession, inbound::Inbound},
};

/// When a client that came during a shutdown may come again.
const COME_BACK_MS: u32 = 500;

/// What a client said of itself in its hello, checked.
#[derive(Clone, Debug)]
pub struct Hello {
    /// The hello's request number.
    pub request: u32,
    /// The version to speak.
    pub version: u16,
    /// Who it is.
    pub user: Name,
    /// On which device.
    pub device: Name,
    /// What kind of device.
    pub device_class: DeviceClass,
    /// What it is connected through.
    pub network: Network,
    /// The session's token, if it is a new one.
    pub token: Token,
    /// The token of the session that it wants to take up again.
    pub resume: Option<Token>,
    /// Of several attempts to do so, the highest wins.
    pub attempt: u64,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// When its last frame, which waits already, is written.
    Finished,
    /// At once.
    Killed,
}

/// A connection that has said hello. Its relay and its session are on one thread.
pub(crate) struct Link {
    pub(super) serial: u64,
    pub(crate) wire: Rc<dyn Wire>,
    /// Weak, since an address that keeps a mailbox open owns two more allocations.
    session: WeakAddr<Session>,
    /// Wakes the session to look at what follows.
    waker: RefCell<Option<Waker>>,
    /// The wire takes no more for now: the session writes when it does.
    blocked: Cell<bool>,
    /// The session has frames that wait for answers to others.
    held: Cell<bool>,
    end: Cell<Option<End>>,
}

impl Link {
    fn new(serial: u64, wire: Rc<dyn Wire>, session: WeakAddr<Session>) -> Self {
        Self {
            serial,
            wire,
            session,
            waker: RefCell::default(),
            blocked: Cell::new(false),
            held: Cell::new(false),
            end: Cell::new(None),
        }
    }

    /// Tells the session, if it still runs.
    pub(super) fn tell(&self, message: ToSession) {
        if let Some(session) = self.session.upgrade() {
            session.do_send(message);
        }
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    pub(super) fn block(&self) {
        self.blocked.set(true);
        self.wake();
    }

    pub(super) fn finish(&self) {
        self.end.set(self.end.get().or(Some(End::Finished)));
        self.wake();
    }

    pub(super) fn kill(&self) {
        self.end.set(Some(End::Killed));
        self.wake();
    }

    /// Nothing waits any more; the session cares only if that was the last of it.
    pub(super) fn written(&self) {
        if self.end.get().is_some() {
            self.wake();
        }
    }

    /// Something was answered.
    pub(super) fn answered(&self) {
        if self.held.get() {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Registers the session's task to be woken when an answer below changes.
    pub(crate) fn register(&self, cx: &TaskContext<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Whether, and how, the connection has to end.
    pub(crate) fn end(&self) -> Option<End> {
        self.end.get()
    }

    /// Whether the session has frames that wait for answers to others.
    pub(crate) fn is_held(&self) -> bool {
        self.held.get()
    }

    /// The session has handled what it read; `held` if not all of it.
    pub(crate) fn hold(&self, held: bool) {
        self.held.set(held);
    }
}

impl Local {
    /// Begins a session for a client that has said hello; its welcome is on its way. The session reads what follows from
    /// `inbound`, and lives until that ends.
    pub fn connect(&self, hello: Hello, wire: Rc<dyn Wire>, inbound: Box<dyn Inbound>) {
        let tag = parlor_protocol::DeviceTag::of(&hello.user, &hello.device);
        let device = DeviceKey { user: hello.user.clone(), tag };
        let conn = self.0.state.borrow_mut().on_connect(device.clone());
        let now = self.0.shared.clock.now();
        let presence = Presence {
            device: hello.device.clone(),
            device_tag: tag,
            device_class: hello.device_class,
            network: hello.network,
            since: now.unix_ms,
            conn,
            connected: true,
            beats: [now.unix_ms, 0, 0, 0],
        };
        Session::create(|ctx| {
            let link = Rc::new(Link::new(conn.serial, wire, ctx.address().downgrade()));
            self.set_link(conn, Some(link.clone()));
            Session::new(self.clone(), conn, link, inbound, device, (hello, presence.into()), now)
        });
        if self.draining() {
            // Whoever is still in the door when the engine shuts down is told so, and not left waiting.
            self.with(|state| state.close(conn, 0, Code::GoingAway, "the server shuts down", COME_BACK_MS));
        }
    }

    /// Goes on writing if the wire was full.
    ///
    /// # Errors
    /// If the wire failed.
    pub(crate) fn poll_unblock(&self, conn: Conn, link: &Link, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        if !link.is_blocked() {
            return Poll::Ready(Ok(()));
        }
        let now = self.shared().clock.now().mono_ms;
        let written = self.poll_write(conn, &*link.wire, cx, now);
        if written.is_ready() {
            link.blocked.set(false);
        }
        written
    }

    /// A connection's session failed: its client is told to come back at once, if the wire takes that now.
    pub(crate) fn close_failed(&self, conn: Conn, link: &Link) {
        self.close(conn, Code::Internal, "the session failed on the server: connect again", 0, None);
        let now = self.shared().clock.now().mono_ms;
        // The connection ends, whether that was written or not.
        let _ = self.poll_write(conn, &*link.wire, &mut TaskContext::from_waker(Waker::noop()), now);
    }

    /// How many bytes wait for the connection to take them.
    pub(crate) fn waiting(&self, conn: Conn) -> usize {
        self.0.state.borrow_mut().outbound(conn).map_or(0, |outbound| outbound.bytes())
    }

    /// The connection is gone, and its session with it.
    pub(crate) fn disconnect(&self, conn: Conn) {
        self.set_link(conn, None);
        self.0.timers.borrow_mut().disarm(conn.slot);
        self.unwatch_all(conn);
        self.with(|state| state.on_disconnect(conn));
    }
}
