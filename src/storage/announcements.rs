//! What rooms' logs have yet to say of changes of their members: written beside the change, deleted beside the record.

use parlor_actors::{
    members::{Asker, announcing::Announcement},
    port::StoreError,
};
use parlor_protocol::{Name, RoomNumber, message::RecordKind};
use rocksdb::{ReadOptions, WriteBatch};

use super::{
    db::{Db, failed},
    schema::{self, Family, Fields, Wrong, damaged},
};

/// What the key of one begins with, in `meta`; the room's number and its own follow.
const PREFIX: &[u8] = b"announce";

const VERSION: u8 = 1;

fn room_prefix(room: RoomNumber) -> Vec<u8> {
    [PREFIX, &schema::room_key(room)].concat()
}

fn key(room: RoomNumber, number: u64) -> Vec<u8> {
    [PREFIX, &schema::room_key(room), &number.to_be_bytes()].concat()
}

/// `version u8 = 1 | length u8 | who changed the members, nobody for the host | the record's payload`
fn encode(announcement: &Announcement) -> Vec<u8> {
    let by: &[u8] = match &announcement.by {
        Asker::Host => b"",
        Asker::User(user) => user.as_bytes(),
    };
    let mut value = vec![VERSION];
    // Always one byte: a name has at most 64.
    value.extend(u8::try_from(by.len()));
    value.extend_from_slice(by);
    value.extend_from_slice(&announcement.payload);
    value
}

fn decode(number: u64, value: &[u8]) -> Result<Announcement, Wrong> {
    let mut fields = Fields(value);
    fields.version(VERSION)?;
    let length = usize::from(fields.u8()?);
    let Some((by, payload)) = fields.0.split_at_checked(length) else { return Err("it ends within a name".into()) };
    let by = match by {
        b"" => Asker::Host,
        by => {
            let user = std::str::from_utf8(by).ok().and_then(|user| Name::parse(user).ok());
            Asker::User(user.ok_or("who changed the members is no name")?)
        }
    };
    Ok(Announcement { number, by, payload: payload.to_vec().into() })
}

/// Puts what is to be recorded beside the change that is in the batch.
pub(super) fn put(db: &Db, batch: &mut WriteBatch, room: RoomNumber, announcements: &[Announcement]) {
    for announcement in announcements {
        batch.put_cf(db.family(Family::Meta), key(room, announcement.number), encode(announcement));
    }
}

/// A record from no device is in the batch: if it says what was to be recorded, that is done.
pub(super) fn done(db: &Db, batch: &mut WriteBatch, room: RoomNumber, frame: &[u8]) {
    if let Ok(deliver) = schema::deliver_of(frame)
        && deliver.kind == RecordKind::MEMBERS
    {
        batch.delete_cf(db.family(Family::Meta), key(room, deliver.nonce));
    }
}

/// What a room has yet to record, oldest first.
pub(super) fn of_room(db: &Db, room: RoomNumber) -> Result<Vec<Announcement>, StoreError> {
    let prefix = room_prefix(room);
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(prefix.as_slice());
    options.set_iterate_upper_bound([prefix.as_slice(), &[u8::MAX; 9]].concat());
    let mut found = db.rocks().raw_iterator_cf_opt(db.family(Family::Meta), options);
    found.seek_to_first();
    let mut all = Vec::new();
    while let Some((key, value)) = found.item() {
        let wrong = |wrong: Wrong| damaged(Family::Meta, key, &wrong);
        let number = schema::decode_u64(&key[prefix.len()..]).map_err(wrong)?;
        all.push(decode(number, value).map_err(wrong)?);
        found.next();
    }
    found.status().map_err(failed)?;
    Ok(all)
}

/// A room is deleted, and what it had yet to record with it.
pub(super) fn forget(db: &Db, batch: &mut WriteBatch, room: RoomNumber) -> Result<(), StoreError> {
    for announcement in of_room(db, room)? {
        batch.delete_cf(db.family(Family::Meta), key(room, announcement.number));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn an_announcement_reads_as_written_and_its_bytes_never_change() {
        for (by, bytes) in
            [(Asker::Host, &b"\x01\x00\xff\x01x"[..]), (Asker::User("ann".parse().unwrap()), b"\x01\x03ann\xff\x01x")]
        {
            let announcement = Announcement { number: 7, by, payload: Bytes::from_static(b"\xff\x01x") };
            assert_eq!(encode(&announcement), bytes);
            assert_eq!(decode(7, bytes), Ok(announcement));
        }
        for wrong in [&b""[..], b"\x01", b"\x02\x00", b"\x01\x04ann", b"\x01\x01\n"] {
            assert!(decode(7, wrong).is_err(), "{wrong:?}");
        }
        let want = b"announce\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x01\x02";
        assert_eq!(key(RoomNumber(7), 0x0102), want);
    }
}
