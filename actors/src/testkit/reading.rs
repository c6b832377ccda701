//! The reader of a [`MemStore`](super::MemStore).

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use parlor_protocol::{
    RoomNumber, Seq,
    message::{Direction, GapReason},
};

use super::{Inside, Job, Room, Tell, index};
use crate::port::{Answer, DeviceKey, Read, Records, Run, StoreError, Target};

impl Inside {
    /// Does a read; what comes back tells it.
    pub(super) fn job(&mut self, job: Job) -> Tell {
        let busy = self.faults.busy_read_one_in;
        match job {
            Job::Done(tell) => tell,
            Job::Read(read, reply) => {
                let found = if self.chance.one_in(busy) { Err(StoreError::Busy) } else { Ok(self.read(read)) };
                Box::new(move || reply(found))
            }
            Job::Marks(user, rooms, reply) => {
                let found = rooms.iter().map(|room| self.marks(*room, &user)).collect();
                let found = if self.chance.one_in(busy) { Err(StoreError::Busy) } else { Ok(found) };
                Box::new(move || reply(found))
            }
            Job::RoomMarks(room, users_max, reply) => {
                let found = self.room_marks(room, users_max);
                Box::new(move || reply(Ok(found)))
            }
            Job::Target(room, seq, reply) => {
                let found = if self.chance.one_in(busy) { Err(StoreError::Busy) } else { Ok(self.target(room, seq)) };
                Box::new(move || reply(found))
            }
            Job::Answers(room, device, reply) => {
                let found =
                    if self.chance.one_in(busy) { Err(StoreError::Busy) } else { Ok(self.answers(room, &device)) };
                Box::new(move || reply(found))
            }
            Job::Member(room, user, reply) => {
                let found = if self.chance.one_in(busy) { Err(StoreError::Busy) } else { Ok(self.member(room, &user)) };
                Box::new(move || reply(found))
            }
            Job::Look(look, reply) => {
                let found = if self.chance.one_in(busy) { Err(StoreError::Busy) } else { Ok(self.look(look)) };
                Box::new(move || reply(found))
            }
        }
    }

    pub(super) fn read(&self, read: Read) -> Records {
        let Read { room, start, end, direction, records_max, bytes_max, now } = read;
        let Some(room) = self.names.get(&room).and_then(|name| self.rooms.get(name)) else {
            return Records::default();
        };
        let (low, high) = if direction == Direction::Forward { (start, end) } else { (end, start) };
        assert!(high <= room.tail(), "a read passes the newest record, {}", room.tail());
        let (mut records, mut bytes) = (0, 0);
        let mut fits = |seq: Seq| {
            records += 1;
            bytes += room.records[index(seq)].frame().len();
            records == 1 || (records <= records_max && bytes <= bytes_max as usize)
        };
        let mut taken: Vec<Seq> = match direction {
            Direction::Forward => (low..=high).take_while(|seq| fits(*seq)).collect(),
            Direction::Backward => (low..=high).rev().take_while(|seq| fits(*seq)).collect(),
        };
        let next = match (direction, taken.last()) {
            (Direction::Forward, Some(last)) => (*last < high).then_some(last + 1),
            (Direction::Backward, Some(last)) => (*last > low).then(|| last - 1),
            (_, None) => None,
        };
        taken.sort_unstable();
        let mut runs = Vec::new();
        for seq in taken {
            room.add(&mut runs, seq, now);
        }
        Records { runs, next }
    }

    pub(super) fn target(&self, room: RoomNumber, seq: Seq) -> Option<Target> {
        let room = self.names.get(&room).and_then(|name| self.rooms.get(name))?;
        let kept = room.records.get(index(seq)).filter(|_| seq >= room.first)?;
        let notes = kept.rewrites.last().map_or(Bytes::new(), |rewrite| rewrite.notes.clone());
        Some(Target { frame: kept.frame().clone(), notes })
    }

    pub(super) fn answers(&self, room: RoomNumber, device: &DeviceKey) -> Vec<(u8, Answer)> {
        let room = self.names.get(&room).and_then(|name| self.rooms.get(name));
        let mut slots = BTreeMap::new();
        for kept in room.iter().flat_map(|room| &room.records).filter(|kept| kept.device == *device) {
            slots.insert(kept.slot, kept.answer);
        }
        slots.retain(|_, answer| room.is_some_and(|room| answer.time >= room.answers_from));
        slots.into_iter().collect()
    }
}

impl Room {
    /// Adds a seq to the last run, or begins another.
    fn add(&self, runs: &mut Vec<Run>, seq: Seq, now: u64) {
        let kept = &self.records[index(seq)];
        let frame = kept.frame();
        let gap = if seq < self.trimmed {
            Some(GapReason::TRIMMED)
        } else {
            (seq < self.first || kept.is_expired(now)).then_some(GapReason::EXPIRED)
        };
        match (runs.last_mut(), gap) {
            (Some(Run::Frames { last, frames, .. }), None) => {
                let mut joined = BytesMut::from(&frames[..]);
                joined.extend_from_slice(frame);
                (*last, *frames) = (seq, joined.freeze());
            }
            (Some(Run::Gap { to, why, .. }), Some(gap)) if *why == gap => *to = seq,
            (_, None) => runs.push(Run::Frames { first: seq, last: seq, frames: frame.clone() }),
            (_, Some(why)) => runs.push(Run::Gap { from: seq, to: seq, why }),
        }
    }
}
