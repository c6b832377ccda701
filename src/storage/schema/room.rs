//! What is stored of a room besides its log.

use parlor_actors::port::{EpochStart, RoomOptions};
use parlor_protocol::{
    Epoch, Name, RoomNumber, Seq, UnixMillis,
    message::{Access, Announce, Durability, Past},
};

use super::{Fields, Wrong};

/// The most epochs kept of a room: the newest. A client whose position is of an older one is told of a new epoch anyway.
pub(in crate::storage) const EPOCHS_MAX: usize = 16;

/// What is stored of a room besides its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct RoomMeta {
    pub(in crate::storage) name: Name,
    pub(in crate::storage) options: RoomOptions,
    pub(in crate::storage) created: UnixMillis,
    /// The trim mark: records below this seq are gone on purpose…
    pub(in crate::storage) first: Seq,
    /// …and at least one of those below this one because the room keeps only so much, not because it expired.
    pub(in crate::storage) trimmed: Seq,
    /// Count and time of the newest record below the trim mark, so that a room emptied by its lifetime goes on from them.
    pub(in crate::storage) gone_count: u64,
    pub(in crate::storage) gone_time: UnixMillis,
    /// The room goes on from here, also if a compaction dropped the record.
    pub(in crate::storage) floor: Floor,
    /// The value of [`LOSSES`](super::meta::LOSSES) up to which the room was given a new epoch.
    pub(in crate::storage) losses: u64,
    /// Oldest first, 1 to [`EPOCHS_MAX`].
    pub(in crate::storage) epochs: Vec<EpochStart>,
}

/// Where a room stood with one of its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::storage) struct Floor {
    pub(in crate::storage) seq: Seq,
    pub(in crate::storage) count: u64,
    pub(in crate::storage) time: UnixMillis,
}

const ROOM_VERSION: u8 = 3;

impl RoomMeta {
    /// Adds a newest epoch; the oldest makes room for it.
    pub(in crate::storage) fn push_epoch(&mut self, start: EpochStart) {
        if self.epochs.len() >= EPOCHS_MAX {
            self.epochs.remove(0);
        }
        self.epochs.push(start);
    }

    /// `version u8 = 3 | durability u8 | created u64 | first u64 | gone_count u64 | gone_time u64 | losses u64 | access u8 |
    /// past u8 | announce u8 | lifetime_ms u64 | records_max u64 | bytes_max u64 | payload_bytes_max u32 |
    /// messages_per_second_max u32 | trimmed u64 | floor: seq u64, count u64, time u64 | epochs u8 | (epoch u64 | first u64)*
    /// | name`; version 2 has neither `trimmed` nor the floor, and version 1 ends its numbers with `losses`.
    pub(in crate::storage) fn encode(&self) -> Vec<u8> {
        debug_assert!((1..=EPOCHS_MAX).contains(&self.epochs.len()));
        let options = &self.options;
        let mut out = vec![ROOM_VERSION, options.durability as u8];
        for number in [self.created, self.first, self.gone_count, self.gone_time, self.losses] {
            out.extend(number.to_be_bytes());
        }
        out.extend([options.access as u8, options.past as u8, options.announce as u8]);
        for number in [options.lifetime_ms, options.records_max, options.bytes_max] {
            out.extend(number.to_be_bytes());
        }
        out.extend(options.payload_bytes_max.to_be_bytes());
        out.extend(options.messages_per_second_max.to_be_bytes());
        for number in [self.trimmed, self.floor.seq, self.floor.count, self.floor.time] {
            out.extend(number.to_be_bytes());
        }
        // One byte, always: there are at most 16.
        out.extend(u8::try_from(self.epochs.len()));
        for start in &self.epochs {
            out.extend(start.epoch.0.to_be_bytes());
            out.extend(start.first.to_be_bytes());
        }
        out.extend(self.name.as_bytes());
        out
    }

    pub(in crate::storage) fn decode(value: &[u8]) -> Result<Self, Wrong> {
        let mut fields = Fields(value);
        let version = fields.u8()?;
        if !(1..=ROOM_VERSION).contains(&version) {
            return Err(format!("version {version} of the value, where 1 to {ROOM_VERSION} are known"));
        }
        let mut options = RoomOptions { durability: durability_from(fields.u8()?)?, ..RoomOptions::default() };
        let (created, first) = (fields.u64()?, fields.u64()?);
        let (gone_count, gone_time, losses) = (fields.u64()?, fields.u64()?, fields.u64()?);
        if version >= 2 {
            let (access, past, announce) = (fields.u8()?, fields.u8()?, fields.u8()?);
            options = RoomOptions {
                access: one_of(&[Access::Open, Access::Members, Access::Broadcast], access, "access")?,
                past: one_of(&[Past::ByAccess, Past::All, Past::SinceAdded], past, "past")?,
                announce: one_of(&[Announce::WhileSmall, Announce::Always, Announce::Never], announce, "announce")?,
                lifetime_ms: fields.u64()?,
                records_max: fields.u64()?,
                bytes_max: fields.u64()?,
                payload_bytes_max: fields.u32()?,
                messages_per_second_max: fields.u32()?,
                ..options
            };
        }
        // Rooms of the earlier versions were never swept or trimmed.
        let (mut trimmed, mut floor) = (1, Floor::default());
        if version >= 3 {
            trimmed = fields.u64()?;
            floor = Floor { seq: fields.u64()?, count: fields.u64()?, time: fields.u64()? };
        }
        let len = usize::from(fields.u8()?);
        if !(1..=EPOCHS_MAX).contains(&len) {
            return Err(format!("{len} epochs, where 1 to {EPOCHS_MAX} are allowed"));
        }
        let mut epochs = Vec::with_capacity(len);
        for _ in 0..len {
            epochs.push(EpochStart { epoch: Epoch(fields.u64()?), first: fields.u64()? });
        }
        let name = std::str::from_utf8(fields.rest()).map_err(|error| error.to_string())?;
        let name = Name::parse(name).map_err(|error| error.to_string())?;
        let first = first.max(1);
        Ok(Self { name, options, created, first, trimmed, gone_count, gone_time, floor, losses, epochs })
    }
}

fn durability_from(byte: u8) -> Result<Durability, Wrong> {
    one_of(&[Durability::Memory, Durability::Buffered, Durability::Synced], byte, "durability")
}

/// The variant that a byte stands for.
fn one_of<T: Copy>(variants: &[T], byte: u8, what: &str) -> Result<T, Wrong> {
    variants.get(usize::from(byte)).copied().ok_or_else(|| format!("{what} {byte} is not known"))
}

/// The key of a room's meta.
pub(in crate::storage) fn room_key(room: RoomNumber) -> [u8; 8] {
    room.0.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room_meta() -> RoomMeta {
        let epochs = vec![EpochStart { epoch: Epoch(3), first: 1 }, EpochStart { epoch: Epoch(9), first: 5 }];
        RoomMeta {
            name: "lobby".parse().unwrap(),
            options: RoomOptions {
                durability: Durability::Buffered,
                access: Access::Members,
                past: Past::SinceAdded,
                announce: Announce::Always,
                lifetime_ms: 5,
                records_max: 6,
                bytes_max: 7,
                payload_bytes_max: 8,
                messages_per_second_max: 9,
            },
            created: 1_000,
            first: 2,
            trimmed: 10,
            gone_count: 1,
            gone_time: 900,
            floor: Floor { seq: 11, count: 12, time: 13 },
            losses: 4,
            epochs,
        }
    }

    #[test]
    fn a_room_reads_as_written_and_its_bytes_never_change() {
        let meta = room_meta();
        let bytes = meta.encode();
        assert_eq!(RoomMeta::decode(&bytes), Ok(meta.clone()));
        let mut want = vec![3, 1];
        want.extend([0, 0, 0, 0, 0, 0, 3, 0xe8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]);
        want.extend([0, 0, 0, 0, 0, 0, 3, 0x84, 0, 0, 0, 0, 0, 0, 0, 4]);
        let options = want.len();
        want.extend([1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7]);
        want.extend([0, 0, 0, 8, 0, 0, 0, 9]);
        let floor = want.len();
        for number in [10u64, 11, 12, 13] {
            want.extend(number.to_be_bytes());
        }
        let epochs = want.len();
        want.push(2);
        want.extend([0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1]);
        want.extend([0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 5]);
        want.extend(b"lobby");
        assert_eq!(bytes, want);

        let meta = RoomMeta { trimmed: 1, floor: Floor::default(), ..meta };
        let mut earlier = want;
        earlier.drain(floor..epochs);
        earlier[0] = 2;
        assert_eq!(RoomMeta::decode(&earlier), Ok(meta.clone()));
        earlier.drain(options..floor);
        earlier[0] = 1;
        let options = RoomOptions { durability: Durability::Buffered, ..RoomOptions::default() };
        assert_eq!(RoomMeta::decode(&earlier), Ok(RoomMeta { options, ..meta }));
    }

    #[test]
    fn no_cut_and_no_flipped_byte_of_a_room_panics() {
        let bytes = room_meta().encode();
        for cut in 0..bytes.len() - "lobby".len() + 1 {
            assert!(RoomMeta::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0xff;
            let _ = RoomMeta::decode(&bytes);
        }
    }

    #[test]
    fn the_oldest_epoch_makes_room_for_the_newest() {
        let mut meta = room_meta();
        for epoch in 10..40 {
            meta.push_epoch(EpochStart { epoch: Epoch(epoch), first: 9 });
        }
        assert_eq!(meta.epochs.len(), EPOCHS_MAX);
        assert_eq!(meta.epochs.last().unwrap().epoch, Epoch(39));
        assert_eq!(meta.epochs[0].epoch, Epoch(24));
    }
}
