//! A session's connection: what comes in is handled at once, within the bounds of a turn, and its end is the session's.

use std::{
    pin::Pin,
    task::{Context as TaskContext, Poll, ready},
};

use actix::{ActorContext, Context, fut::ActorFuture};
use bytes::Bytes;
use parlor_protocol::Code;

use super::Session;
use crate::relay::link::End;

/// How often a session reads before the arbiter's others have their turn. Mostly the second finds nothing more, and that
/// has the session woken when there is.
const READS_PER_TURN: usize = 2;

/// What a client sends behind its hello.
pub trait Inbound {
    /// Reads once, and returns the whole frames that there are now; none if what was read ends no frame. `Pending` if
    /// there is nothing: then the task is woken when there is.
    ///
    /// # Errors
    /// Why nothing follows. What was whole before came before.
    fn poll_frames(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Bytes, Stop>>;

    /// Throws away what comes; ready when the client is gone.
    fn poll_gone(&mut self, cx: &mut TaskContext<'_>) -> Poll<()>;

    /// Says that nothing more will be written, and leaves the client time to read what was. Without this call the
    /// connection ends at once when it is dropped.
    fn half_close(self: Box<Self>);
}

/// Why no frames follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The client is gone.
    Gone,
    /// What follows is no frame, or comes too slowly: the connection is closed with this code and sentence.
    Broken(Code, &'static str),
}

/// Runs a session's connection, as a part of the session's own task.
pub(super) struct Driver;

impl ActorFuture<Session> for Driver {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        session: &mut Session,
        ctx: &mut Context<Session>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        let end = session.guarded(|session| {
            let end = session.poll_connection(ctx, cx);
            session.state.rest();
            end
        });
        if ready!(end) == End::Finished
            && let Some(inbound) = session.inbound.take()
        {
            inbound.half_close();
        }
        ctx.stop();
        Poll::Ready(())
    }
}

impl Session {
    /// Writes what the relay could not, handles what was held and what comes; ready when the connection has to end.
    fn poll_connection(&mut self, ctx: &mut Context<Self>, cx: &mut TaskContext<'_>) -> Poll<End> {
        self.link.register(cx);
        if let Poll::Ready(Err(_)) = self.local.poll_unblock(self.conn, &self.link, cx) {
            return Poll::Ready(End::Killed);
        }
        if self.link.is_held() {
            self.work(ctx);
        }
        for _ in 0..READS_PER_TURN {
            let Some(inbound) = &mut self.inbound else { return Poll::Pending };
            match self.link.end() {
                None => {}
                Some(End::Finished) if self.local.waiting(self.conn) > 0 => {
                    // It hears nothing more, but has to notice that its client is gone.
                    return inbound.poll_gone(cx).map(|()| End::Killed);
                }
                Some(end) => return Poll::Ready(end),
            }
            if self.link.is_held() || self.local.draining() {
                return Poll::Pending;
            }
            match ready!(inbound.poll_frames(cx)) {
                Ok(frames) => {
                    self.backlog = frames;
                    self.work(ctx);
                }
                Err(Stop::Gone) => return Poll::Ready(End::Killed),
                Err(Stop::Broken(code, message)) => {
                    self.state.on_closed(code);
                    self.local.close(self.conn, code, message, 0, None);
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
