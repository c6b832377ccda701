//! What waits for connections until their sockets take it: queued, written, closed behind it, and given up where nobody
//! reads.

use bytes::Bytes;
use parlor_protocol::{Code, Extensions, message::Close};

use super::{Closing, Effect, State};
use crate::{message::Conn, outbound::Outbound};

impl State {
    /// A whole frame for one connection that nobody asked for.
    pub fn on_frame(&mut self, conn: Conn, frame: Bytes) {
        self.push(conn, frame);
    }

    /// A frame for one connection that no pending request waits for.
    pub fn on_send<'a, B: parlor_protocol::Body<'a>>(&mut self, conn: Conn, request: u32, body: &B) {
        self.queue(conn, request, |outbound| outbound.encode(request, body));
    }

    /// Queues frames of a request. Those that nobody asked for, under 0, end the connection instead if it has read too little of
    /// the ones before; what is asked for is bounded by how much may be asked.
    pub(super) fn queue(&mut self, conn: Conn, request: u32, frames: impl FnOnce(&mut Outbound)) {
        let max = self.limits.outbound_bytes_max;
        let Some(connection) = self.open_mut(conn) else { return };
        if request == 0 && connection.unasked_bytes > max {
            return self.close(conn, 0, Code::SlowReader, "too much was not read: join again with the position", 0);
        }
        let before = connection.outbound.bytes();
        frames(&mut connection.outbound);
        if request == 0 {
            connection.unasked_bytes += connection.outbound.bytes() - before;
        }
        self.mark_dirty(conn.slot);
    }

    pub(super) fn push(&mut self, conn: Conn, frames: Bytes) {
        if let Some(connection) = self.open_mut(conn) {
            connection.outbound.push(frames);
            self.mark_dirty(conn.slot);
        }
    }

    /// The session ends the connection: now, or, for a goodbye of this request, when everything accepted is answered.
    pub fn on_close(&mut self, conn: Conn, code: Code, message: &str, retry_after_ms: u32, goodbye: Option<u32>) {
        let Some(connection) = self.open_mut(conn) else { return };
        if let Some(request) = goodbye {
            connection.closing = Closing::WhenAnswered(request);
            self.close_if_answered(conn);
        } else {
            self.close(conn, 0, code, message, retry_after_ms);
        }
    }

    /// Ends a connection with a last frame; nothing follows it. `request` is that of the goodbye it answers, or 0.
    pub fn close(&mut self, conn: Conn, request: u32, code: Code, message: &str, retry_after_ms: u32) {
        if let Some(connection) = self.open_mut(conn) {
            let close = Close { code, retry_after_ms, message, extensions: Extensions::default() };
            connection.outbound.encode(request, &close);
            connection.closing = Closing::Closed;
            self.mark_dirty(conn.slot);
            self.effects.push_back(Effect::Finish(conn));
        }
    }

    /// Whether some connection has something to write.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Connections with something to write, at most `max`.
    pub fn take_dirty(&mut self, max: usize) -> Vec<Conn> {
        let mut dirty = Vec::with_capacity(self.dirty.len().min(max));
        while dirty.len() < max
            && let Some(slot) = self.dirty.pop_front()
        {
            if let Some(connection) = self.connections.get_mut(slot as usize)
                && std::mem::take(&mut connection.dirty)
            {
                dirty.push(Conn { arbiter: self.arbiter, slot, serial: connection.serial });
            }
        }
        dirty
    }

    /// What waits for a connection.
    pub fn outbound(&mut self, conn: Conn) -> Option<&mut Outbound> {
        self.connection_mut(conn).map(|connection| &mut connection.outbound)
    }

    /// The socket took what it could; `progressed` if that was anything.
    pub fn on_written(&mut self, conn: Conn, progressed: bool, now_mono: u64) {
        let low = self.limits.outbound_low_bytes;
        let Some(connection) = self.connection_mut(conn) else { return };
        if connection.outbound.bytes() == 0 {
            connection.blocked_since = None;
        } else if progressed || connection.blocked_since.is_none() {
            connection.blocked_since = Some(now_mono);
            self.watch(conn);
        }
        let Some(connection) = self.connection_mut(conn) else { return };
        if connection.outbound.bytes() <= low {
            connection.unasked_bytes = 0;
            if std::mem::take(&mut connection.unheard) {
                self.effects.push_back(Effect::Answered(conn));
            }
            self.pull_lagging(conn);
            self.bring_kept(conn);
        }
    }

    pub(super) fn mark_dirty(&mut self, slot: u32) {
        if let Some(connection) = self.connections.get_mut(slot as usize)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push_back(slot);
        }
    }

    /// Ends what is over for a watched connection, which stays watched while there is something to watch.
    pub(super) fn look_at(&mut self, conn: Conn, now_mono: u64) {
        let hold_until = now_mono + self.limits.hold_back_ms;
        let (slow_reader_ms, close_linger_ms) = (self.limits.slow_reader_ms, self.limits.close_linger_ms);
        let Some(connection) = self.connection_mut(conn) else { return };
        connection.watched = false;
        connection.held.retain_mut(|held| *held.until.get_or_insert(hold_until) > now_mono);
        let closed = connection.closing == Closing::Closed;
        let patience = if closed { close_linger_ms } else { slow_reader_ms };
        let (blocked, holds) = (connection.blocked_since, !connection.held.is_empty());
        if blocked.is_some() || holds {
            self.watch(conn);
        }
        if blocked.is_none_or(|since| now_mono < since + patience) {
            return;
        }
        if closed {
            self.effects.push_back(Effect::Kill(conn));
        } else {
            self.close(conn, 0, Code::SlowReader, "nothing was read for too long: join again with the position", 0);
            self.on_written(conn, true, now_mono);
        }
    }

    /// Has the next tick look at a connection.
    pub(super) fn watch(&mut self, conn: Conn) {
        if let Some(connection) = self.connection_mut(conn)
            && !std::mem::replace(&mut connection.watched, true)
        {
            self.watched.push(conn);
        }
    }
}
