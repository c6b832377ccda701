//! A connection as its link sees it: what to read, what to write, when to end.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    task::{Context as TaskContext, Poll, Waker},
};

use actix::{Actor, Addr};
use bytes::Bytes;
use parlor_protocol::{
    Code, Name, Token,
    message::{DeviceClass, Network},
};

use super::{LinkEntry, Local};
use crate::{
    message::Conn,
    outbound::Wire,
    port::DeviceKey,
    router::Presence,
    session::{Session, ToSession},
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
    /// The new session's token.
    pub token: Token,
}

/// Flags between a connection's link, its session and the relay, all on one thread.
#[derive(Debug, Default)]
pub(super) struct Signals {
    waker: RefCell<Option<Waker>>,
    /// The socket takes no more for now; the link writes when it does.
    blocked: Cell<bool>,
    /// The session has frames that it has not handled yet.
    busy: Cell<bool>,
    /// The link has something for the session when that is no longer busy.
    awaited: Cell<bool>,
    /// The session has frames that wait for answers to others.
    held: Cell<bool>,
    finish: Cell<bool>,
    kill: Cell<bool>,
}

impl Signals {
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.get()
    }

    pub(super) fn block(&self) {
        self.blocked.set(true);
        self.wake();
    }

    pub(super) fn finish(&self) {
        self.finish.set(true);
        self.wake();
    }

    pub(super) fn kill(&self) {
        self.kill.set(true);
        self.wake();
    }

    /// Nothing waits any more; the link cares only if that was the last of it.
    pub(super) fn written(&self) {
        if self.finish.get() {
            self.wake();
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Whether the session waits for answers before it handles more; it does no longer when this returns.
    pub(super) fn wants_turn(&self) -> bool {
        self.held.replace(false)
    }
}

/// A connection that has said hello. Dropping it ends the session.
pub struct Link {
    local: Local,
    conn: Conn,
    wire: Rc<dyn Wire>,
    signals: Rc<Signals>,
    session: Addr<Session>,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its last frame is written: half-close it and let the client read that.
    Finished,
    /// At once.
    Killed,
}

impl Local {
    /// Begins a session for a client that has said hello; its welcome is on its way.
    #[must_use]
    pub fn connect(&self, hello: Hello, wire: Rc<dyn Wire>) -> Link {
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
        };
        let signals = Rc::new(Signals::default());
        let handle = SessionSignals { signals: signals.clone() };
        let session = Session::new(self.clone(), conn, device, presence, hello, handle, now).start();
        let entry =
            LinkEntry { serial: conn.serial, wire: wire.clone(), signals: signals.clone(), session: session.clone() };
        self.set_link(conn, Some(entry));
        if self.draining() {
            // Whoever is still in the door when the engine shuts down is told so, and not left waiting.
            self.with(|state| state.close(conn, 0, Code::GoingAway, "the server shuts down", COME_BACK_MS));
        }
        Link { local: self.clone(), conn, wire, signals, session }
    }
}

/// A session's side of the flags.
pub(crate) struct SessionSignals {
    signals: Rc<Signals>,
}

impl SessionSignals {
    /// The session handles nothing more: its connection has to end.
    pub(crate) fn died(&self) {
        self.signals.kill();
    }

    /// The session has handled what it was given; `held` if not all of it.
    pub(crate) fn turn_ends(&self, held: bool) {
        self.signals.held.set(held);
        self.signals.busy.set(held);
        if !held && self.signals.awaited.replace(false) {
            self.signals.wake();
        }
    }
}

impl Link {
    /// Registers the link's task to be woken when one of the answers below changes.
    pub fn register(&self, cx: &TaskContext<'_>) {
        let mut waker = self.signals.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Whether, and how, the connection has to end.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        if self.signals.kill.get() || !self.session.connected() {
            Some(End::Killed)
        } else if self.signals.finish.get() && self.waiting() == 0 {
            Some(End::Finished)
        } else {
            None
        }
    }

    /// Whether more may be read: the session has handled what came before, and the engine does not shut down. If not,
    /// only [`await_turn`](Self::await_turn) has the link woken when it may.
    #[must_use]
    pub fn reads(&self) -> bool {
        !self.signals.busy.get() && !self.signals.finish.get() && !self.local.draining()
    }

    /// Wants to be woken when the session has handled what came before.
    pub fn await_turn(&self) {
        self.signals.awaited.set(true);
    }

    /// Whether the last frame is on its way, so that nothing more is read.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.signals.finish.get()
    }

    /// Hands whole frames to the session.
    pub fn receive(&self, frames: Bytes) {
        self.signals.busy.set(true);
        self.session.do_send(ToSession::Frames(frames));
    }

    /// Ends the connection with a close frame.
    pub fn close(&self, code: Code, message: &'static str) {
        self.local.close(self.conn, code, message, None);
    }

    /// Goes on writing if the socket was full.
    ///
    /// # Errors
    /// If the socket failed.
    pub fn poll_unblock(&self, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        if !self.signals.blocked.get() {
            return Poll::Ready(Ok(()));
        }
        let now = self.local.shared().clock.now().mono_ms;
        let written = self.local.poll_write(self.conn, &*self.wire, cx, now);
        if written.is_ready() {
            self.signals.blocked.set(false);
        }
        written
    }

    fn waiting(&self) -> usize {
        self.local.0.state.borrow_mut().outbound(self.conn).map_or(0, |outbound| outbound.bytes())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.local.set_link(self.conn, None);
        self.session.do_send(ToSession::Disconnected);
        self.local.with(|state| state.on_disconnect(self.conn));
    }
}
