//! The protocol's versions, and the first bytes of every connection.

/// The first four bytes of a [`Hello`](crate::message::Hello)'s body.
pub const MAGIC: [u8; 4] = *b"PRLR";

/// The version described by this crate.
pub const VERSION: u16 = 1;

/// The newest version that both sides speak, or `None` where their ranges do not meet.
#[must_use]
pub fn choose(client_min: u16, client_max: u16) -> Option<u16> {
    (client_min <= VERSION && VERSION <= client_max).then_some(VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_chosen_where_the_ranges_meet() {
        assert_eq!(choose(1, 1), Some(1));
        assert_eq!(choose(0, 9), Some(1));
        assert_eq!(choose(2, 9), None);
        assert_eq!(choose(0, 0), None);
        assert_eq!(choose(9, 0), None);
    }
}
