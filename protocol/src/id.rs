//! Names and numbers: who, where, which.

use std::{fmt, sync::Arc};

use xxhash_rust::xxh3::Xxh3;

use crate::{
    codec::{BorrowDecode, Encode},
    error::NameError,
};

/// A record's number in its room: 1 is the first of an epoch's room; 0 stands for "before the first".
pub type Seq = u64;

/// What a device raises with every send to a room.
pub type Nonce = u64;

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type UnixMillis = u64;

/// The longest name of a user, a device or a room, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 64;

/// A room's number: engine-wide, given at creation, never reused. Knowing it grants nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, BorrowDecode)]
pub struct RoomNumber(pub u64);

impl fmt::Display for RoomNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One incarnation of a room's log; engine-wide, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, BorrowDecode)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Tells one user's devices apart without naming them: 64 bits derived from user and device.
///
/// A device learns its own tag from `Welcome` and knows a record as its own by sender, tag and nonce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, BorrowDecode)]
pub struct DeviceTag(pub u64);

impl DeviceTag {
    /// The tag of `device` of `user`; the same for ever, since it is stored with every record.
    #[must_use]
    pub fn of(user: &Name, device: &Name) -> Self {
        let mut hash = Xxh3::new();
        hash.update(user.as_bytes());
        hash.update(&[0]); // No name holds a control character, so the two cannot run into one another.
        hash.update(device.as_bytes());
        Self(hash.digest())
    }
}

/// A session's secret: 128 random bits that let a client take its session up again.
#[derive(Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Token(pub [u8; 16]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

/// A user's, device's or room's name: 1 to 64 bytes of UTF-8 without control characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Takes `text` as it is: no trimming, no case folding, no normalisation.
    ///
    /// # Errors
    /// Says what is wrong with `text` as a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { bytes: text.len() });
        }
        if let Some(at) = text.find(char::is_control) {
            return Err(NameError::ControlCharacter { at });
        }
        Ok(Self(text.into()))
    }
}

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Sound, because `str` and `Name` hash and compare alike: a map keyed by `Name` can be asked with a `&str`.
impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Result<(), NameError>) {
        assert_eq!(Name::parse(text).map(drop), want, "{text:?}");
    }

    #[test]
    fn names_are_short_printable_text() {
        check("ann", Ok(()));
        check(" zcat[1] ", Ok(()));
        check("添加", Ok(()));
        check(&"x".repeat(64), Ok(()));
        check("", Err(NameError::Empty));
        check(&"x".repeat(65), Err(NameError::TooLong { bytes: 65 }));
        check("a\nb", Err(NameError::ControlCharacter { at: 1 }));
        check("a\u{85}", Err(NameError::ControlCharacter { at: 1 }));
    }

    #[test]
    fn a_device_tag_never_changes() {
        let tag = |user: &str, device: &str| DeviceTag::of(&user.parse().unwrap(), &device.parse().unwrap());
        assert_eq!(tag("ann", "phone"), DeviceTag(0x27e0_8034_f5b4_4c89), "stored records carry it");
        assert_ne!(tag("ann", "phone"), tag("annp", "hone"));
    }
}
