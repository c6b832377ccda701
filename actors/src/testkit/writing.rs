//! The writer of a [`MemStore`](super::MemStore): appends and loads, in turns.

use std::{collections::BTreeMap, sync::Arc};

use parlor_protocol::{
    Epoch, RoomNumber, Seq,
    message::{Deliver, Durability},
};

use super::{Entry, Inside, Kept, Room, Tell, index, with_deliver};
use crate::port::{
    Append, AppendRecord, Commit, CommitNumber, Commits, EpochStart, Generation, Load, Loaded, Outcome, RoomOptions,
    StoreError,
};

impl Inside {
    pub(super) fn turn(&mut self, batch: Vec<Entry>) -> Vec<Tell> {
        self.commit += 1;
        let commit = CommitNumber(self.commit);
        // A turn that fails may have been written all the same.
        let fails = std::mem::take(&mut self.faults.fail_next_turn);
        let written = !self.poisoned && (!fails || self.chance.one_in(2));
        self.poisoned |= fails;
        let poison = self.poisoned.then(|| StoreError::Poisoned("a planted failure".into()));
        let (mut buffered, mut synced, mut refused, mut loads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for entry in batch {
            match entry {
                Entry::Append(append) => {
                    let (upto, commits) = (last(&append), append.commits.clone());
                    let promised = self.names.get(&append.room).and_then(|name| self.rooms.get(name));
                    let durability =
                        promised.map_or(append.durability, |room| room.options.durability.max(append.durability));
                    let (room, generation) = (append.room, append.generation);
                    let outcome = if written { self.append(append) } else { Ok(()) };
                    let tell = match poison.clone().map_or(outcome, Err) {
                        Ok(()) => {
                            let commit = Commit { number: commit, upto };
                            Box::new(move || tell(commits, room, generation, Ok(commit))) as Tell
                        }
                        Err(error) => {
                            refused.push(Box::new(move || tell(commits, room, generation, Err(error))) as Tell);
                            continue;
                        }
                    };
                    if durability == Durability::Buffered { buffered.push(tell) } else { synced.push(tell) }
                }
                Entry::Marks(save, reply) => {
                    let saved = poison.clone().map_or_else(|| self.save_marks(save), Err);
                    loads.push(Box::new(move || reply(saved)) as Tell);
                }
                Entry::Load(load, reply) => {
                    let loaded = match poison.clone() {
                        Some(poison) => Err(poison),
                        None if self.chance.one_in(self.faults.busy_load_one_in) => Err(StoreError::Busy),
                        None => self.load(load),
                    };
                    loads.push(Box::new(move || reply(loaded)) as Tell);
                }
                Entry::Sweep(sweep, reply) => {
                    let swept = poison.clone().map_or_else(|| Ok(self.sweep(sweep)), Err);
                    refused.push(Box::new(move || reply(swept)) as Tell);
                }
                Entry::Trim(trim, reply) => {
                    let trimmed = poison.clone().map_or_else(|| self.trim(trim), Err);
                    refused.push(Box::new(move || reply(trimmed)) as Tell);
                }
                Entry::Change(change, reply) => {
                    let changed = match poison.clone() {
                        Some(poison) => Err(poison),
                        None => Ok(self.change(change)),
                    };
                    loads.push(Box::new(move || reply(changed)) as Tell);
                }
                Entry::Settle(reply) => {
                    let settled = poison.clone().map_or(Ok(()), Err);
                    loads.push(Box::new(move || reply(settled)) as Tell);
                }
            }
        }
        if !synced.is_empty() || !loads.is_empty() {
            self.rooms.values_mut().for_each(|room| room.synced = room.records.len());
        }
        buffered.into_iter().chain(synced).chain(refused).chain(loads).collect()
    }

    /// Writes an append, or says why not.
    pub(super) fn append(&mut self, append: Append) -> Result<(), StoreError> {
        let Append { room, generation, epoch, durability, first, frames, records, rewrites, .. } = append;
        assert_ne!(durability, Durability::Memory, "memory rooms are not stored");
        let fenced = !self.faults.unfenced;
        let Some(room) = self.names.get(&room).and_then(|name| self.rooms.get_mut(name)) else {
            return Err(StoreError::Damaged("an append to no room".into()));
        };
        if fenced && room.writer != Some(generation) {
            return Err(StoreError::Superseded(generation));
        }
        if !fenced && first <= room.tail() {
            room.lose(index(first));
        }
        if first != room.tail() + 1 || room.epoch() != epoch {
            room.writer = None;
            assert!(!fenced, "an append begins with seq {first} of {epoch}, the tail is {}", room.tail());
            return Err(StoreError::Damaged("not the next append".into()));
        }
        let mut start = 0;
        for (record, seq) in records.into_iter().zip(first..) {
            let AppendRecord { end, expires, device, slot, answer } = record;
            let frame = frames.slice(start..end as usize);
            start = end as usize;
            with_deliver(&frame, |deliver| assert_eq!(deliver.seq, seq, "a frame is that of its record"));
            room.records.push(Kept {
                frame,
                rewrites: Vec::new(),
                too_late: Vec::new(),
                expires,
                device,
                slot,
                answer,
            });
        }
        assert_eq!(start, frames.len(), "the records make up the frames");
        room.counted += frames.len() as u64;
        for rewrite in rewrites {
            let (seq, revision) = (rewrite.seq, rewrite.revision);
            let stated = |deliver: &Deliver<'_>| (deliver.seq, deliver.changed().revision);
            assert_eq!(with_deliver(&rewrite.frame, stated), (seq, revision), "a rewrite is that of its record");
            assert!(
                seq < revision && (first..=room.tail()).contains(&revision),
                "a rewrite is of the append's changes"
            );
            // What was trimmed meanwhile is not there to be rewritten.
            let (first, kept) = (room.first, &mut room.records[index(seq)]);
            if seq >= first {
                room.counted = room.counted + rewrite.frame.len() as u64 - kept.frame().len() as u64;
                kept.rewrites.push(rewrite);
            } else {
                kept.too_late.push(rewrite.frame);
            }
        }
        Ok(())
    }

    pub(super) fn load(&mut self, load: Load) -> Result<Loaded, StoreError> {
        let Load { name, create } = load;
        let losses = self.losses;
        if !self.rooms.contains_key(&name) {
            let options = create.ok_or(StoreError::UnknownRoom)?;
            let room = self.new_room(options);
            self.names.insert(room.number, name.clone());
            self.rooms.insert(name.clone(), room);
        }
        let Some(room) = self.rooms.get_mut(&name) else { return Err(StoreError::UnknownRoom) };
        let lost = match room.options.durability {
            Durability::Memory => {
                room.epochs.clear();
                true
            }
            Durability::Buffered => room.losses != losses,
            Durability::Synced => false,
        };
        if lost || room.epochs.is_empty() {
            room.losses = losses;
            room.epochs.push(EpochStart { epoch: Epoch(self.next_epoch), first: room.tail() + 1 });
            self.next_epoch += 1;
        }
        self.generation += 1;
        room.writer = Some(Generation(self.generation));
        room.changed = 0;
        let (count, time) = (room.count(), room.time());
        room.counted = room.bytes_from(1);
        Ok(Loaded {
            room: room.number,
            name,
            options: room.options,
            generation: Generation(self.generation),
            epochs: room.epochs.clone(),
            first: room.first,
            tail: room.tail(),
            count,
            time,
            gone_count: room.gone().count,
            trimmed: room.trimmed,
            bytes_before: room.counted - room.bytes_from(room.first),
            bytes_upto: room.counted,
            known: room.counts().known(),
            change: self.changes,
            announcements: room.unannounced(),
        })
    }

    pub(super) fn new_room(&mut self, options: RoomOptions) -> Room {
        self.next_room += 1;
        let (epochs, records, losses) = (Vec::new(), Vec::new(), self.losses);
        let number = RoomNumber(self.next_room);
        let (marks, members, announcements) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Room {
            number,
            options,
            epochs,
            losses,
            first: 1,
            trimmed: 1,
            records,
            synced: 0,
            writer: None,
            members,
            marks,
            changed: 0,
            announcements,
            counted: 0,
            answers_from: 0,
        }
    }
}

pub(super) fn tell(
    commits: Arc<dyn Commits>,
    room: RoomNumber,
    generation: Generation,
    stored: Result<Commit, StoreError>,
) {
    commits.settled(vec![Outcome { room, generation, stored }]);
}

pub(super) fn last(append: &Append) -> Seq {
    append.first + append.records.len() as u64 - 1
}
