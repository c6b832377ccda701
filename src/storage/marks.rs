//! How far users are in rooms: the bytes of it, how they are written, how they are read.
//!
//! A user's row may be behind what he sent last, since it is saved now and then: what he sent is taken from his answers
//! as well, which are stored with the records themselves. Answers are forgotten after the dedupe horizon; long before that,
//! his row says it: it is saved when he leaves, and with whatever else of it changes.

use std::collections::HashMap;

use parlor_actors::port::{Mark, Marks, RoomMarks, SaveMarks, StoreError};
use parlor_protocol::{Name, RoomNumber, message::Role};
use rocksdb::{ReadOptions, WriteBatch};

use super::{
    db::{Db, failed},
    members,
    schema::{self, Family, damaged},
};

const VERSION: u8 = 1;

/// A version and six numbers.
const VALUE_BYTES: usize = 1 + 6 * 8;

/// The most answers of one user in one room that are looked at: those of 32 devices.
const ANSWERS_MAX: usize = 4_096;

/// `room u64 | length u8 | user`: with the length in front, no user's row is the beginning of another's.
fn key(room: RoomNumber, user: &Name) -> Vec<u8> {
    schema::user_prefix(room, user)
}

/// `version u8 = 1 | read seq u64 | read count u64 | delivered seq u64 | delivered count u64 | sent seq u64 | sent count u64`
fn encode(marks: &Marks) -> [u8; VALUE_BYTES] {
    let mut out = [VERSION; VALUE_BYTES];
    let numbers = [marks.read, marks.delivered, marks.sent].into_iter().flat_map(|mark| [mark.seq, mark.count]);
    for (field, number) in out[1..].chunks_exact_mut(8).zip(numbers) {
        field.copy_from_slice(&number.to_be_bytes());
    }
    out
}

fn decode(value: &[u8]) -> Result<Marks, String> {
    let Some((&version, numbers)) = value.split_first() else { return Err("the value is empty".into()) };
    if version != VERSION {
        return Err(format!("version {version} of the value, where only {VERSION} is known"));
    }
    if value.len() != VALUE_BYTES {
        return Err(format!("{} bytes, where {VALUE_BYTES} belong", value.len()));
    }
    let (numbers, _) = numbers.as_chunks::<8>();
    let numbers: Vec<u64> = numbers.iter().copied().map(u64::from_be_bytes).collect();
    let mark = |at: usize| Mark { seq: numbers[at], count: numbers[at + 1] };
    // Since when he is a member says his row as a member.
    Ok(Marks { read: mark(0), delivered: mark(2), sent: mark(4), since: Mark::default() })
}

/// Puts what is to be saved into a batch.
pub(super) fn gather(db: &Db, save: &SaveMarks, batch: &mut WriteBatch) {
    for (user, marks) in &save.marks {
        batch.put_cf(db.family(Family::Marks), key(save.room, user), encode(marks));
    }
}

/// How far a user is in each of these rooms.
pub(super) fn of_user(db: &Db, user: &Name, rooms: &[RoomNumber]) -> Result<Vec<Marks>, StoreError> {
    let one = |room: &RoomNumber| {
        let key = key(*room, user);
        let mut marks = match db.value(Family::Marks, &key)? {
            Some(value) => decode(&value).map_err(|wrong| damaged(Family::Marks, &key, &wrong))?,
            None => Marks::default(),
        };
        marks.sent = marks.sent.max(newest_answer(db, *room, user)?);
        marks.since = members::member(db, *room, user)?.map(|member| member.added_at()).unwrap_or_default();
        Ok(marks)
    };
    rooms.iter().map(one).collect()
}

/// The newest record that a user sent, on any of his devices that are remembered.
fn newest_answer(db: &Db, room: RoomNumber, user: &Name) -> Result<Mark, StoreError> {
    let prefix = schema::user_prefix(room, user);
    let mut options = ReadOptions::default();
    // The family's filters know whole devices, and these are all of a user's.
    options.set_total_order_seek(true);
    // Device tag 0 is the host's, which recalls in a user's name: that is nothing he sent.
    options.set_iterate_lower_bound([prefix.as_slice(), &1_u64.to_be_bytes()].concat());
    // A device tag and a slot follow: this is behind all of them.
    options.set_iterate_upper_bound([prefix.as_slice(), &[u8::MAX; 10]].concat());
    let mut found = db.rocks().raw_iterator_cf_opt(db.family(Family::Answers), options);
    found.seek_to_first();
    let (mut newest, mut examined) = (Mark::default(), 0);
    while let Some((key, value)) = found.item()
        && examined < ANSWERS_MAX
    {
        let answer = schema::decode_answer(value).map_err(|wrong| damaged(Family::Answers, key, &wrong))?;
        newest = newest.max(Mark { seq: answer.seq, count: answer.count });
        examined += 1;
        found.next();
    }
    found.status().map_err(failed)?;
    Ok(newest)
}

/// How far the users of a room are, if it knows at most so many people.
pub(super) fn of_room(db: &Db, room: RoomNumber, users_max: usize) -> Result<RoomMarks, StoreError> {
    let (people, more) = members::people(db, room, users_max)?;
    let belongs = |role: &Role| *role != Role::Banned;
    let one = |(user, _): (&Name, &Role)| {
        let key = key(room, user);
        let value = db.value(Family::Marks, &key)?;
        let marks = value.map(|value| decode(&value).map_err(|wrong| damaged(Family::Marks, &key, &wrong)));
        Ok((user.clone(), marks.transpose()?.unwrap_or_default()))
    };
    let members: Vec<(Name, Marks)> =
        people.iter().filter(|(_, role)| belongs(role)).map(one).collect::<Result<_, StoreError>>()?;
    let strangers = if more { None } else { strangers(db, room, &people, users_max)? };
    Ok(RoomMarks { members, more, strangers })
}

/// Who has marks and is none of these people; `None` if there are more of them.
fn strangers(
    db: &Db,
    room: RoomNumber,
    people: &HashMap<Name, Role>,
    users_max: usize,
) -> Result<Option<Vec<(Name, Marks)>>, StoreError> {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(schema::room_key(room));
    options.set_iterate_upper_bound([&schema::room_key(room)[..], &[u8::MAX]].concat());
    let mut found = db.rocks().raw_iterator_cf_opt(db.family(Family::Marks), options);
    found.seek_to_first();
    let mut users = Vec::new();
    while let Some((key, value)) = found.item() {
        let wrong = |wrong: String| damaged(Family::Marks, key, &wrong);
        // Behind the room's number and the name's length.
        let name = key.get(9..).map(std::str::from_utf8).and_then(Result::ok).map(Name::parse);
        let Some(Ok(user)) = name else { return Err(wrong("the key ends with no name".into())) };
        if !people.contains_key(&user) {
            if users.len() == users_max {
                return Ok(None);
            }
            users.push((user, decode(value).map_err(wrong)?));
        }
        found.next();
    }
    found.status().map_err(failed)?;
    Ok(Some(users))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_read_as_written_and_their_bytes_never_change() {
        let mark = |seq, count| Mark { seq, count };
        let marks = Marks { read: mark(1, 2), delivered: mark(3, 4), sent: mark(5, u64::MAX), since: Mark::default() };
        let bytes = encode(&marks);
        let mut want = vec![1];
        for number in [1_u64, 2, 3, 4, 5, u64::MAX] {
            want.extend(number.to_be_bytes());
        }
        assert_eq!(bytes[..], want);
        assert_eq!(decode(&bytes), Ok(marks));
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err());
        }
        assert!(decode(&[&bytes[..], &[0]].concat()).is_err());
        assert!(decode(&[&[2], &bytes[1..]].concat()).unwrap_err().contains("version 2"));
        assert_eq!(key(RoomNumber(7), &"ann".parse().unwrap()), [0, 0, 0, 0, 0, 0, 0, 7, 3, b'a', b'n', b'n']);
    }
}
