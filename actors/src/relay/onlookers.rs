//! Who of an arbiter's sessions is told who is in which room.
//!
//! The channel says what changed, once for all. A session that does not read is passed over, and told all of it when it
//! reads again: for that the channel is asked.

use parlor_protocol::RoomNumber;
use rustc_hash::FxHashMap;

use crate::{channel::gathering::To, message::Conn};

/// The sessions of one arbiter that are told who is in rooms.
#[derive(Debug, Default)]
pub struct Onlookers {
    rooms: FxHashMap<RoomNumber, Room>,
    /// The rooms of each session.
    conns: FxHashMap<Conn, Vec<RoomNumber>>,
}

#[derive(Debug, Default)]
struct Room {
    /// The channel's number of what it told last.
    watch: u32,
    /// Each with whether it was passed over.
    conns: FxHashMap<Conn, bool>,
    /// The channel was asked for all of it.
    asked: bool,
}

impl Onlookers {
    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.conns.is_empty()
    }

    /// A channel tells something: the sessions that get it. `all` if it is all of it and not what changed.
    pub fn on_told(
        &mut self,
        room: RoomNumber,
        watch: u32,
        to: To,
        all: bool,
        takes: impl Fn(Conn) -> bool,
    ) -> Vec<Conn> {
        if let To::Asker(conn, _) = to {
            let known = self.rooms.entry(room).or_default();
            known.watch = watch;
            if known.conns.insert(conn, false).is_none() {
                self.conns.entry(conn).or_default().push(room);
            }
            return vec![conn];
        }
        let Some(known) = self.rooms.get_mut(&room) else { return Vec::new() };
        known.watch = watch;
        known.asked &= to != To::PassedOver;
        let mut told = Vec::new();
        for (conn, passed_over) in &mut known.conns {
            let concerned = if to == To::PassedOver { *passed_over } else { all || !*passed_over };
            if concerned {
                *passed_over = !takes(*conn);
                if !*passed_over {
                    told.push(*conn);
                }
            }
        }
        told
    }

    /// A session is told no more of a room; the number to tell the channel if it was the last one.
    pub fn on_left(&mut self, conn: Conn, room: RoomNumber) -> Option<u32> {
        let rooms = self.conns.get_mut(&conn)?;
        rooms.retain(|known| *known != room);
        if rooms.is_empty() {
            self.conns.remove(&conn);
        }
        self.forget(conn, room)
    }

    /// A session's connection is gone: the rooms of which it was the last one here.
    pub fn on_gone(&mut self, conn: Conn) -> Vec<(RoomNumber, u32)> {
        let rooms = self.conns.remove(&conn).unwrap_or_default();
        rooms.into_iter().filter_map(|room| Some((room, self.forget(conn, room)?))).collect()
    }

    fn forget(&mut self, conn: Conn, room: RoomNumber) -> Option<u32> {
        let known = self.rooms.get_mut(&room)?;
        known.conns.remove(&conn)?;
        let watch = known.conns.is_empty().then_some(known.watch)?;
        self.rooms.remove(&room);
        Some(watch)
    }

    /// A room has a new channel, which knows of nobody here: whether it has to be asked for all of it.
    pub fn on_rebuilt(&mut self, room: RoomNumber) -> bool {
        let Some(known) = self.rooms.get_mut(&room) else { return false };
        known.conns.values_mut().for_each(|passed_over| *passed_over = true);
        known.asked = true;
        true
    }

    /// The rooms of which sessions that were passed over take something again: their channels have to be asked.
    pub fn due(&mut self, takes: impl Fn(Conn) -> bool) -> Vec<RoomNumber> {
        let mut due = Vec::new();
        for (number, room) in &mut self.rooms {
            if !room.asked && room.conns.iter().any(|(conn, passed_over)| *passed_over && takes(*conn)) {
                room.asked = true;
                due.push(*number);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: RoomNumber = RoomNumber(7);

    fn conn(serial: u64) -> Conn {
        Conn { arbiter: 0, slot: 0, serial }
    }

    fn told(onlookers: &mut Onlookers, to: To, all: bool, slow: Option<u64>) -> Vec<u64> {
        let told = onlookers.on_told(ROOM, 1, to, all, |conn| Some(conn.serial) != slow);
        let mut serials: Vec<u64> = told.into_iter().map(|conn| conn.serial).collect();
        serials.sort_unstable();
        serials
    }

    fn two() -> Onlookers {
        let mut onlookers = Onlookers::default();
        for serial in [1, 2] {
            assert_eq!(told(&mut onlookers, To::Asker(conn(serial), 9), true, Some(serial)), [serial], "it asked");
        }
        onlookers
    }

    #[test]
    fn who_does_not_read_is_passed_over_and_told_all_of_it_later() {
        let mut onlookers = two();
        assert_eq!(told(&mut onlookers, To::Everybody, false, None), [1, 2]);
        assert_eq!(told(&mut onlookers, To::Everybody, false, Some(2)), [1]);
        assert_eq!(told(&mut onlookers, To::Everybody, false, None), [1], "2 does not know what this is a change of");
        assert_eq!(onlookers.due(|conn| conn.serial != 2), [], "it still does not read");
        assert_eq!(onlookers.due(|_| true), [ROOM]);
        assert_eq!(onlookers.due(|_| true), [], "the channel is asked once");
        assert_eq!(told(&mut onlookers, To::PassedOver, true, Some(2)), [0; 0], "it stopped again");
        assert_eq!(onlookers.due(|_| true), [ROOM]);
        assert_eq!(told(&mut onlookers, To::PassedOver, true, None), [2]);
        assert_eq!(told(&mut onlookers, To::Everybody, false, None), [1, 2]);
    }

    #[test]
    fn all_of_it_is_for_whoever_was_passed_over_too() {
        let mut onlookers = two();
        assert_eq!(told(&mut onlookers, To::Everybody, false, Some(2)), [1]);
        assert_eq!(told(&mut onlookers, To::Everybody, true, None), [1, 2]);
        assert_eq!(told(&mut onlookers, To::Everybody, false, None), [1, 2]);
    }

    #[test]
    fn a_new_channel_is_asked_for_everybody() {
        let mut onlookers = two();
        assert!(onlookers.on_rebuilt(ROOM) && !onlookers.on_rebuilt(RoomNumber(8)));
        assert_eq!(onlookers.due(|_| true), []);
        assert_eq!(told(&mut onlookers, To::PassedOver, true, None), [1, 2]);
    }

    #[test]
    fn who_ends_is_nowhere_any_more() {
        let mut onlookers = two();
        assert_eq!(onlookers.on_left(conn(1), ROOM), None);
        assert_eq!(onlookers.on_left(conn(1), ROOM), None);
        assert_eq!(told(&mut onlookers, To::Everybody, false, None), [2]);
        assert_eq!(onlookers.on_gone(conn(2)), [(ROOM, 1)]);
        assert_eq!(onlookers.on_gone(conn(2)), []);
        assert!(onlookers.is_empty());
        assert_eq!(told(&mut onlookers, To::Everybody, true, None), [0; 0]);
    }
}
