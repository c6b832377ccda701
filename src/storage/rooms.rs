//! The rooms that the writer knows, as their appends are checked against.

use std::collections::HashMap;

use parlor_actors::port::Generation;
use parlor_protocol::{Epoch, RoomNumber, Seq, message::Durability};

use super::writer::RecentlyDue;

/// A loaded room.
pub(super) struct Live {
    pub(super) generation: Generation,
    pub(super) durability: Durability,
    pub(super) epoch: Epoch,
    pub(super) tail: Seq,
    /// The number of the newest change of its members since it was loaded; 0 if there was none.
    pub(super) changed: u64,
    /// The bytes of all frames up to and with it, as they were first stored.
    pub(super) bytes_upto: u64,
    /// The same with what rewrites have changed, counted as the channel counts.
    pub(super) bytes_counted: u64,
    /// Entries of the index by time that need not be written again.
    pub(super) due: RecentlyDue,
    /// The commit that `notice` belongs to.
    pub(super) commit: u64,
    /// Where the room stands among those that are told of that commit.
    pub(super) notice: usize,
}

/// Loaded rooms, at most a fixed number.
///
/// Nobody says when a room is put to sleep, so those not heard of for longest are forgotten. A forgotten room that is
/// awake after all finds its next append refused as one of an older generation, and is loaded anew: that is safe, and
/// rare, since the limit is above the number of rooms that may be awake.
pub(super) struct Rooms {
    half: usize,
    /// Rooms heard of since `old` was last replaced…
    young: HashMap<RoomNumber, Live>,
    /// …and those heard of in the period before.
    old: HashMap<RoomNumber, Live>,
}

impl Rooms {
    pub(super) fn new(rooms_max: usize) -> Self {
        Self { half: (rooms_max / 2).max(1), young: HashMap::new(), old: HashMap::new() }
    }

    /// A room that was loaded, in place of its earlier generation.
    pub(super) fn insert(&mut self, room: RoomNumber, live: Live) {
        self.old.remove(&room);
        self.make_young(room, live);
    }

    /// A room that is still known.
    pub(super) fn find(&mut self, room: RoomNumber) -> Option<&mut Live> {
        if let Some(live) = self.old.remove(&room) {
            self.make_young(room, live);
        }
        self.young.get_mut(&room)
    }

    /// A room that is still known, which is not thereby heard of.
    pub(super) fn peek(&mut self, room: RoomNumber) -> Option<&mut Live> {
        self.young.get_mut(&room).or_else(|| self.old.get_mut(&room))
    }

    /// Forgets a room: its appends are refused until it is loaded again.
    pub(super) fn remove(&mut self, room: RoomNumber) {
        self.young.remove(&room);
        self.old.remove(&room);
    }

    fn make_young(&mut self, room: RoomNumber, live: Live) {
        if self.young.len() >= self.half && !self.young.contains_key(&room) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(room, live);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(generation: u64) -> Live {
        let (generation, epoch) = (Generation(generation), Epoch(1));
        let (tail, bytes_upto, due) = (0, 0, RecentlyDue::default());
        Live {
            generation,
            durability: Durability::Synced,
            epoch,
            tail,
            changed: 0,
            bytes_upto,
            bytes_counted: 0,
            due,
            commit: 0,
            notice: 0,
        }
    }

    #[test]
    fn the_rooms_not_heard_of_for_longest_are_forgotten() {
        let mut rooms = Rooms::new(8);
        for number in 1..=100 {
            rooms.insert(RoomNumber(number), live(number));
            assert!(rooms.find(RoomNumber(1)).is_some(), "heard of all the time");
            assert!(rooms.young.len() + rooms.old.len() <= 8);
        }
        for number in 98..=100 {
            assert_eq!(rooms.find(RoomNumber(number)).unwrap().generation, Generation(number));
        }
        assert!(rooms.find(RoomNumber(50)).is_none());
    }

    #[test]
    fn a_room_has_one_generation() {
        let mut rooms = Rooms::new(2);
        for number in [1, 2, 1] {
            rooms.insert(RoomNumber(number), live(number * 10));
        }
        rooms.insert(RoomNumber(1), live(11));
        assert_eq!(rooms.peek(RoomNumber(1)).unwrap().generation, Generation(11));
        assert_eq!(rooms.find(RoomNumber(1)).unwrap().generation, Generation(11));
        rooms.remove(RoomNumber(1));
        assert!(rooms.find(RoomNumber(1)).is_none());
    }
}
