//! What the invariants look at, and the invariants of all that is bounded.

use parlor_actors::{message::Conn, port::Store};
use parlor_protocol::RoomNumber;

use super::House;

impl House {
    pub fn outbound_bytes(&mut self, conn: Conn) -> usize {
        let state = &mut self.arbiters[usize::from(conn.arbiter)].state;
        state.outbound(conn).map_or(0, |outbound| outbound.bytes())
    }

    pub fn pending_of(&self, conn: Conn) -> usize {
        self.arbiters[usize::from(conn.arbiter)].state.pending_of(conn)
    }

    pub fn pending(&self) -> usize {
        self.arbiters.iter().map(|arbiter| arbiter.state.pending()).sum()
    }

    pub fn pulls(&self) -> usize {
        self.arbiters.iter().map(|arbiter| arbiter.state.pulls()).sum()
    }

    pub fn connections(&self) -> usize {
        self.arbiters.iter().map(|arbiter| arbiter.state.connections()).sum()
    }

    pub fn relays_know(&self, room: RoomNumber) -> bool {
        self.arbiters.iter().any(|arbiter| arbiter.state.knows(room) || arbiter.channels.contains_key(&room))
    }

    /// How often something happened.
    pub fn counted(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    /// No queue and no table is over its limit.
    pub fn check_limits(&mut self) {
        assert!(self.store.budget().records() <= self.limits.writer_records_max, "the writer's queue");
        let limits = self.limits.clone();
        // One frame may ask for all rooms that a session may join.
        let pending_max = limits.unanswered_requests_max as usize + limits.rooms_per_session_max as usize;
        // Beyond what is pushed: answers to what was asked, and pages that were pulled.
        let page = limits.page_bytes_max as usize + 100;
        let bytes_max = limits.outbound_bytes_max + (pending_max + 4) * page;
        for at in 0..self.lines.len() {
            let (conn, line) = &self.lines[at];
            if line.dropped {
                continue;
            }
            let conn = *conn;
            let pending = self.arbiters[usize::from(conn.arbiter)].state.pending_of(conn);
            assert!(pending <= pending_max, "unanswered requests: {pending}");
            let waits = self.outbound_bytes(conn);
            assert!(waits <= bytes_max, "{waits} bytes wait for a connection, {bytes_max} may");
        }
        for room in self.rooms.values() {
            assert!(room.state.reading() <= limits.reads_per_room_max, "reads of a room");
            assert!(room.state.parked() <= limits.parked_per_room_max, "publishes that wait for what they change");
        }
        let rings: usize = self.rooms.values().map(|room| room.state.ring_bytes()).sum();
        assert_eq!(rings, self.pools.ring_bytes.used(), "what rings hold is what they say");
        assert!(rings <= limits.rings_bytes_max, "rings hold {rings} bytes");
        if self.pools.ring_bytes.cuts() > 0 {
            self.counts.insert("ring cut short", self.pools.ring_bytes.cuts());
        }
        for arbiter in &self.arbiters {
            assert!(arbiter.timers.waiting() <= arbiter.state.connections(), "deadlines of connections");
        }
        assert!(self.supervisor.rooms() <= limits.rooms_loaded_max, "loaded rooms");
        self.check_sessions();
        self.check_sleepers();
    }

    /// What others see of sessions is what there is, and no more are kept than may be.
    pub fn check_sessions(&self) {
        let sessions = self.supervisor.sessions();
        assert_eq!((sessions.count(), sessions.away()), self.attendance.counts(), "sessions, and those away");
        assert!(sessions.away() <= self.limits.sessions_away_max, "sessions without a connection");
    }

    /// Nobody is there: nothing of anybody is left.
    pub fn check_empty(&self) {
        let sessions = self.supervisor.sessions();
        assert_eq!((sessions.count(), sessions.away(), self.attendance.counts()), (0, 0, (0, 0)), "sessions at rest");
        assert_eq!(self.lines.len(), 0, "session actors at rest");
        assert_eq!(self.rooms.len(), self.supervisor.rooms(), "channel actors at rest");
        assert_eq!(self.uploads.records(), 0, "parts of long messages");
        assert_eq!(self.supervisor.telling(), 0, "changes that nobody was told of");
        assert_eq!((self.store.queued(), self.store.reading(), self.store.budget().records()), (0, 0, 0), "the store");
        for room in self.rooms.values() {
            let state = &room.state;
            let waiting = (state.subscribers(), state.reading(), state.parked(), state.changing());
            assert_eq!(waiting, (0, 0, 0, 0), "what a room has at rest");
        }
    }
}
