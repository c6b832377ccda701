//! A long message on its way up: its parts, until all are there.
//!
//! Parts may come in any order and twice. Memory is taken for what has come, never for what was announced.

use bytes::{Bytes, BytesMut};
use parlor_protocol::{
    Epoch, Nonce, RoomNumber, Seq, change,
    message::{MISSING_MAX, PARTS_MAX, Part, RecordKind},
};

use crate::port::{Budget, Place};

/// What a part costs the budget besides its bytes, in bytes.
const PART_OVERHEAD_BYTES: usize = 64;

/// What all parts of a message say alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// To which room.
    pub room: RoomNumber,
    /// Under which nonce.
    pub nonce: Nonce,
    /// How many parts there are.
    pub parts: u32,
    /// How long they are together.
    pub total_bytes: u32,
    /// What it is.
    pub kind: RecordKind,
    /// The record that it changes; 0 for none.
    pub refers_to: Seq,
    /// In which epoch that stands; `None` if no part says so.
    pub epoch: Option<Epoch>,
    /// How long it may be read.
    pub lifetime_ms: Option<u64>,
    /// As in `Publish`.
    pub flags: u32,
    /// How to read it.
    pub content_type: u16,
}

/// What became of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// These parts are missing, the lowest first; of many, the lowest.
    Missing(Vec<u32>),
    /// None is. The upload is over.
    Complete(Bytes),
}

/// Why a part was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// The number of parts cannot be.
    #[error("a message has 1 to {PARTS_MAX} parts, and no more than bytes")]
    Parts,
    /// The part's number is none of theirs.
    #[error("parts are numbered from 0, and the last is the number of parts - 1")]
    Number,
    /// It brings nothing.
    #[error("a part has 1 byte or more")]
    Empty,
    /// It says something else of the message than the parts before it.
    #[error("all parts of a message say the same of it: its parts, bytes, kind, lifetime, flags and content type")]
    Differs,
    /// It came before, with other bytes.
    #[error("a part that is sent again has the same bytes")]
    OtherBytes,
    /// The parts do not make as many bytes as they say.
    #[error("the parts are not as long together as total_bytes says")]
    Length,
    /// There is no room for it now.
    #[error("too many long messages are under way")]
    Busy,
}

/// A message of which some parts are there.
#[derive(Debug)]
pub struct Upload {
    whole: Whole,
    /// In the order of their numbers.
    parts: Vec<(u32, Box<[u8]>)>,
    bytes: usize,
    place: Place,
    /// When it is forgotten unless a part comes, on the monotonic clock.
    pub expires: u64,
}

impl Whole {
    /// What a part says of its message, if it can be.
    ///
    /// # Errors
    /// If it cannot.
    pub fn of(part: &Part<'_>) -> Result<Self, PartError> {
        let &Part {
            room, nonce, number, parts, total_bytes, kind, refers_to, lifetime_ms, flags, content_type, ..
        } = part;
        if parts == 0 || parts > PARTS_MAX || parts > total_bytes {
            Err(PartError::Parts)
        } else if number >= parts {
            Err(PartError::Number)
        } else if part.payload.is_empty() {
            Err(PartError::Empty)
        } else {
            let content_type = content_type.0;
            let epoch = change::epoch(&part.extensions);
            Ok(Self { room, nonce, parts, total_bytes, kind, refers_to, epoch, lifetime_ms, flags, content_type })
        }
    }
}

impl Upload {
    /// A message of which nothing is there yet.
    #[must_use]
    pub fn new(whole: Whole, budget: &std::sync::Arc<Budget>) -> Self {
        Self { whole, parts: Vec::new(), bytes: 0, place: budget.none(), expires: 0 }
    }

    /// Which message it is.
    #[must_use]
    pub fn is(&self, room: RoomNumber, nonce: Nonce) -> bool {
        (self.whole.room, self.whole.nonce) == (room, nonce)
    }

    /// Which room it is for.
    #[must_use]
    pub fn room(&self) -> RoomNumber {
        self.whole.room
    }

    /// Whether all parts are there: then nothing more can come of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.parts.len() == self.whole.parts as usize
    }

    /// Takes a part of it in.
    ///
    /// # Errors
    /// If it is not one of this message, or there is no room for it. What came before stays, unless all parts are there
    /// and do not fit one another.
    pub fn take(
        &mut self,
        whole: Whole,
        number: u32,
        payload: &[u8],
        budget: &std::sync::Arc<Budget>,
    ) -> Result<Taken, PartError> {
        if whole != self.whole {
            return Err(PartError::Differs);
        }
        match self.parts.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(at) if *self.parts[at].1 != *payload => return Err(PartError::OtherBytes),
            Ok(_) => {}
            Err(at) => {
                let bytes = self.bytes + payload.len();
                if bytes > whole.total_bytes as usize {
                    return Err(PartError::Length);
                }
                let place = budget.take(payload.len() + PART_OVERHEAD_BYTES).ok_or(PartError::Busy)?;
                self.place.merge(place);
                // Copied: a slice would keep all that was read with it.
                self.parts.insert(at, (number, payload.into()));
                self.bytes = bytes;
            }
        }
        if !self.is_over() {
            return Ok(Taken::Missing(self.missing()));
        }
        if self.bytes != whole.total_bytes as usize {
            return Err(PartError::Length);
        }
        let mut payload = BytesMut::with_capacity(self.bytes);
        self.parts.iter().for_each(|(_, part)| payload.extend_from_slice(part));
        Ok(Taken::Complete(payload.freeze()))
    }

    fn missing(&self) -> Vec<u32> {
        let mut have = self.parts.iter().map(|(number, _)| *number).peekable();
        (0..self.whole.parts).filter(|number| have.next_if_eq(number).is_none()).take(MISSING_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parlor_protocol::{Extensions, message::ContentType};

    use super::*;

    fn whole(parts: u32, total_bytes: u32) -> Whole {
        Whole {
            room: RoomNumber(7),
            nonce: 1,
            parts,
            total_bytes,
            kind: RecordKind::MESSAGE,
            refers_to: 0,
            epoch: None,
            lifetime_ms: None,
            flags: 0,
            content_type: 1,
        }
    }

    fn budget() -> Arc<Budget> {
        Budget::new(usize::MAX >> 1, 100_000)
    }

    fn missing(numbers: &[u32]) -> Result<Taken, PartError> {
        Ok(Taken::Missing(numbers.to_vec()))
    }

    #[test]
    fn parts_in_any_order_and_twice_make_the_message() {
        let text: Vec<u8> = (0..40).collect();
        let pieces: Vec<&[u8]> = text.chunks(7).collect();
        let parts = u32::try_from(pieces.len()).unwrap();
        for seed in 0..200_u64 {
            let (budget, whole) = (budget(), whole(parts, 40));
            let mut upload = Upload::new(whole, &budget);
            let mut state = seed;
            let complete = loop {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let number = u32::try_from(state >> 33).unwrap() % parts;
                match upload.take(whole, number, pieces[number as usize], &budget).unwrap() {
                    Taken::Missing(missing) => {
                        assert!(!missing.contains(&number) && missing.is_sorted());
                        assert_eq!(missing.len() + upload.parts.len(), parts as usize);
                    }
                    Taken::Complete(payload) => break payload,
                }
            };
            assert_eq!(complete, text, "seed {seed}");
            drop(upload);
            assert_eq!(budget.records(), 0, "its place is given back");
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        let part = |number, parts, total_bytes, payload| Part {
            room: RoomNumber(7),
            nonce: 1,
            number,
            parts,
            total_bytes,
            kind: RecordKind::MESSAGE,
            refers_to: 0,
            lifetime_ms: None,
            flags: 0,
            content_type: ContentType(1),
            payload,
            extensions: Extensions::default(),
        };
        let of = |number, parts, total, payload: &'static [u8]| Whole::of(&part(number, parts, total, payload));
        assert_eq!(of(0, 2, 9, b"x"), Ok(whole(2, 9)));
        assert_eq!(of(0, 0, 9, b"x"), Err(PartError::Parts));
        assert_eq!(of(0, PARTS_MAX + 1, u32::MAX, b"x"), Err(PartError::Parts));
        assert_eq!(of(0, 10, 9, b"x"), Err(PartError::Parts));
        assert_eq!(of(2, 2, 9, b"x"), Err(PartError::Number));
        assert_eq!(of(u32::MAX, 2, 9, b"x"), Err(PartError::Number));
        assert_eq!(of(0, 2, 9, b""), Err(PartError::Empty));
    }

    #[test]
    fn parts_that_do_not_fit_one_another_are_refused_and_those_before_stay() {
        let (budget, good) = (budget(), whole(3, 6));
        let mut upload = Upload::new(good, &budget);
        assert_eq!(upload.take(good, 1, b"cd", &budget), missing(&[0, 2]));
        for other in [
            whole(2, 6),
            whole(3, 7),
            Whole { flags: 1, ..good },
            Whole { content_type: 0, ..good },
            Whole { lifetime_ms: Some(1), ..good },
            Whole { refers_to: 1, ..good },
            Whole { kind: RecordKind(1), ..good },
        ] {
            assert_eq!(upload.take(other, 0, b"ab", &budget), Err(PartError::Differs));
        }
        assert_eq!(upload.take(good, 1, b"cX", &budget), Err(PartError::OtherBytes));
        assert_eq!(upload.take(good, 0, b"abcdef", &budget), Err(PartError::Length), "too long together");
        assert_eq!(upload.take(good, 0, b"ab", &budget), missing(&[2]));
        assert_eq!(upload.take(good, 2, b"ef", &budget), Ok(Taken::Complete("abcdef".into())));
        // Too short together: nothing can mend that.
        let mut upload = Upload::new(good, &budget);
        for number in 0..2 {
            assert!(upload.take(good, number, b"a", &budget).is_ok());
        }
        assert_eq!(upload.take(good, 2, b"a", &budget), Err(PartError::Length));
        assert!(upload.is_over());
    }

    #[test]
    fn memory_is_taken_for_what_has_come() {
        let (budget, good) = (Budget::new(usize::MAX >> 1, 300), whole(1_024, 65_536));
        let (mut one, mut other) = (Upload::new(good, &budget), Upload::new(good, &budget));
        assert!(one.parts.capacity() == 0);
        assert!(one.take(good, 9, &[0; 100], &budget).is_ok());
        assert_eq!(other.take(good, 9, &[0; 100], &budget), Err(PartError::Busy), "100 and 100, and what they cost");
        assert!(one.take(good, 9, &[0; 100], &budget).is_ok(), "a repeat costs nothing");
        drop(one);
        let taken = other.take(good, 9, &[0; 100], &budget).unwrap();
        let Taken::Missing(missing) = taken else { panic!("{taken:?}") };
        assert_eq!((missing.len(), missing[0], missing[63]), (MISSING_MAX, 0, 64));
    }
}
