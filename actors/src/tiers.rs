//! Tiers: kinds of users, and what each may do. The host says who is of which.

use std::{fmt, sync::Arc};

/// What users of one kind may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// What the configuration calls it.
    pub name: String,
    /// How long their records may be read, in milliseconds, if the room allows as much; 0 for as long as the room.
    pub lifetime_ms: u64,
    /// How fast they may send.
    pub send: SendRate,
}

/// How fast a user may send, over all his sessions and rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendRate {
    /// One message in this many milliseconds, sustained; 0 for any number.
    pub interval_ms: u32,
    /// How many messages may come at once after a rest.
    pub burst: u32,
}

impl Default for SendRate {
    fn default() -> Self {
        Self { interval_ms: 1_000, burst: 10 }
    }
}

impl SendRate {
    /// No limit.
    pub const OFF: Self = Self { interval_ms: 0, burst: 0 };
}

/// A tier's place in [`Tiers`]. 0 is the tier of whoever has no other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TierNumber(pub u8);

/// Which tier a user is of, by its name; `None` for the first. Called when a session begins, on an arbiter's thread: must
/// not block.
pub type TierOf = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// All tiers of an engine: at least one, at most 256.
#[derive(Clone)]
pub struct Tiers {
    tiers: Vec<Tier>,
    of: Option<TierOf>,
}

impl Tiers {
    /// These tiers, the first for whoever has no other. Those beyond 256 are never found.
    #[must_use]
    pub fn new(first: Tier, others: Vec<Tier>, of: Option<TierOf>) -> Self {
        let mut tiers = vec![first];
        tiers.extend(others);
        Self { tiers, of }
    }

    /// One tier, of which everybody is, who may send so fast.
    #[must_use]
    pub fn sending(send: SendRate) -> Self {
        let mut tiers = Self::default();
        tiers.first_mut().send = send;
        tiers
    }

    /// The tier of whoever has no other.
    pub fn first_mut(&mut self) -> &mut Tier {
        // There is always one.
        &mut self.tiers[0]
    }

    /// The tier of a user. One that does not exist counts as the first, and is logged.
    #[must_use]
    pub fn of(&self, user: &str) -> TierNumber {
        let Some(name) = self.of.as_ref().and_then(|of| of(user)) else { return TierNumber(0) };
        let at = self.tiers.iter().position(|tier| tier.name == name).and_then(|at| u8::try_from(at).ok());
        TierNumber(at.unwrap_or_else(|| {
            tracing::warn!(user, tier = name, "there is no such tier, the first one is taken");
            0
        }))
    }

    /// What a tier allows.
    #[must_use]
    pub fn get(&self, number: TierNumber) -> &Tier {
        // There is always a first one, and numbers come from here.
        self.tiers.get(usize::from(number.0)).unwrap_or(&self.tiers[0])
    }
}

impl Default for Tiers {
    fn default() -> Self {
        let first = Tier { name: "default".into(), lifetime_ms: 0, send: SendRate::default() };
        Self::new(first, Vec::new(), None)
    }
}

impl fmt::Debug for Tiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiers").field("tiers", &self.tiers).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_of_the_tier_that_the_host_names() {
        let tier = |name: &str, lifetime_ms| Tier { name: name.into(), lifetime_ms, send: SendRate::OFF };
        let of: TierOf = Arc::new(|user| match user {
            "ann" => Some("gold".into()),
            "bob" => Some("tin".into()),
            _ => None,
        });
        let tiers = Tiers::new(tier("plain", 1), vec![tier("gold", 2)], Some(of));
        let lifetime = |user| tiers.get(tiers.of(user)).lifetime_ms;
        assert_eq!(["ann", "bob", "cid"].map(lifetime), [2, 1, 1]);
    }
}
