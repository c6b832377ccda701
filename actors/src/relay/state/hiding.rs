//! Subscribers from whom some of the past is hidden while they lag behind.

use std::collections::HashMap;

use parlor_protocol::{
    Extensions, RoomNumber, Seq,
    message::{Gap, GapReason},
};

use super::{Standing, State};
use crate::{
    message::{Conn, Hidden},
    port::DeviceKey,
};

impl State {
    /// Moves the cursors of those who lag up to where they may read, and tells them. What was pulled for them before is
    /// dropped when it comes: it is not for the new cursor.
    pub(super) fn on_hide(&mut self, room: RoomNumber, hidden: &[Hidden]) {
        // Subscribers that are not taken up yet are told when they are.
        let Some(entry) = self.rooms.get_mut(&room).filter(|entry| !entry.orphaned) else { return };
        let firsts: HashMap<&DeviceKey, Seq> = hidden.iter().map(|hidden| (&hidden.device, hidden.first)).collect();
        let (epoch, tail) = (entry.epoch, entry.tail);
        let mut moved = Vec::new();
        for subscriber in &mut entry.subscribers {
            let Some(connection) = self.connections.get_mut(subscriber.slot as usize) else { continue };
            let Some(first) = firsts.get(&connection.device).copied() else { continue };
            let (from, to) = (subscriber.cursor + 1, first.min(tail + 1) - 1);
            if from > to {
                continue;
            }
            if subscriber.standing == Standing::Pulling {
                connection.pulls -= 1;
            }
            connection.lagging.retain(|lagging| *lagging != room);
            subscriber.cursor = to;
            subscriber.standing = if to == tail { Standing::Live } else { Standing::Lagging };
            if subscriber.standing == Standing::Lagging {
                connection.lagging.push_back(room);
            }
            moved.push((Conn { arbiter: self.arbiter, slot: subscriber.slot, serial: connection.serial }, from, to));
        }
        for (conn, from, to) in moved {
            let why = GapReason::NOT_YOURS;
            self.on_send(conn, 0, &Gap { room, epoch, from, to, why, extensions: Extensions::default() });
            self.pull_lagging(conn);
        }
    }
}
