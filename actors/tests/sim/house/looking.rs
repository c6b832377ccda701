//! What the invariants look at.

use parlor_actors::{message::Conn, port::Store};
use parlor_protocol::RoomNumber;

use super::House;

impl House {
    pub fn outbound_bytes(&mut self, conn: Conn) -> usize {
        let state = &mut self.arbiters[usize::from(conn.arbiter)].state;
        state.outbound(conn).map_or(0, |outbound| outbound.bytes())
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

    pub fn check_limits(&mut self) {
        assert!(self.store.budget().records() <= self.limits.writer_records_max, "the writer's queue");
        let limits = self.limits.clone();
        for conn in self.conns() {
            let pending = self.arbiters[usize::from(conn.arbiter)].state.pending_of(conn);
            assert!(pending <= limits.unanswered_requests_max as usize, "unanswered requests: {pending}");
            // Beyond what is pushed: answers to what was asked, and pages that were pulled.
            let page = limits.page_bytes_max as usize + 100;
            let max = limits.outbound_bytes_max + (limits.unanswered_requests_max as usize + 4) * page;
            let waits = self.outbound_bytes(conn);
            assert!(waits <= max, "{waits} bytes wait for a connection, {max} may");
        }
        for room in self.rooms.values() {
            assert!(room.state.reading() <= limits.reads_per_room_max, "reads of a room");
        }
    }
}
