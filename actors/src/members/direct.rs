//! Direct rooms: two users have exactly one, whoever opens it.

use std::fmt::Write;

use parlor_protocol::{
    Name,
    message::{Access, Announce, Past, Role, RoomOptions},
};
use sha2::{Digest, Sha256};

use super::What;

/// What the names of direct rooms begin with, and no others.
pub const PREFIX: &str = "direct:";

/// Whether this is a name that only direct rooms have.
#[must_use]
pub fn is_direct(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The name of the room of these two, in either order. Stored, so it must not change.
///
/// It ends with 128 bits of a cryptographic hash, so that nobody finds names whose room would be that of two others.
#[must_use]
pub fn name_of(one: &Name, other: &Name) -> Name {
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    let mut hash = Sha256::new();
    for user in [first, second] {
        // With its length in front, so that no two pairs read alike; a name has at most 64 bytes.
        hash.update([u8::try_from(user.len()).unwrap_or(u8::MAX)]);
        hash.update(user.as_bytes());
    }
    let mut name = PREFIX.to_owned();
    for byte in &hash.finalize()[..16] {
        // Infallible: the target is a string.
        let _ = write!(name, "{byte:02x}");
    }
    #[expect(clippy::expect_used, reason = "39 bytes of printable ASCII")]
    Name::parse(&name).expect("such a text is a name")
}

/// What opens the room of these two: its name, and how it is made if it is not there.
#[must_use]
pub fn open(one: &Name, other: &Name, defaults: RoomOptions) -> (Name, What) {
    let members = vec![(one.clone(), Role::Member), (other.clone(), Role::Member)];
    (name_of(one, other), What::Create { options: options(defaults), members, or_find: true })
}

/// What a direct room is like where new rooms are like `defaults`.
#[must_use]
pub fn options(defaults: RoomOptions) -> RoomOptions {
    RoomOptions { access: Access::Members, past: Past::All, announce: Announce::Never, ..defaults }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(one: &str, other: &str) -> String {
        name_of(&one.parse().unwrap(), &other.parse().unwrap()).to_string()
    }

    #[test]
    fn two_users_have_one_name_in_either_order() {
        assert_eq!(room("ann", "bob"), room("bob", "ann"));
        assert_ne!(room("ann", "bob"), room("annb", "ob"));
        assert_ne!(room("a", "aa"), room("aa", "aa"));
        assert!(is_direct(&room("x".repeat(64).as_str(), "y")));
        assert_eq!(room("ann", "bob"), "direct:8b5090a9a0cf7d0ea4ad77ff936d1bdf", "stored rooms have it");
    }
}
