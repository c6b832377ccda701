//! What all actors of one engine share.

use std::sync::Arc;

use crate::{
    limits::Limits,
    pools::Pools,
    port::{Budget, Clock, RoomOptions, Store},
    rates::Rates,
    router::Router,
    session::heartbeat::BeatIntervals,
    supervisor::state::sessions::SessionPolicy,
    tiers::Tiers,
    wall::Word,
};

/// What all actors of one engine share: the world outside, and the configuration.
pub struct Shared {
    /// Where rooms are kept.
    pub store: Arc<dyn Store>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What may be held.
    pub limits: Arc<Limits>,
    /// How often clients beat.
    pub beats: Arc<BeatIntervals>,
    /// What users of each tier may do.
    pub tiers: Arc<Tiers>,
    /// How much of that each user has left to send.
    pub rates: Arc<Rates>,
    /// What rooms have together.
    pub pools: Pools,
    /// Who says that the wall clock is right.
    pub word: Arc<Word>,
    /// What the parts of long messages may take, over all sessions.
    pub uploads: Arc<Budget>,
    /// How a join creates a room that is not there; `None` if it does not.
    pub create_at_join: Option<RoomOptions>,
    /// Which sessions of a user may live at a time.
    pub session_policy: SessionPolicy,
    /// Who is online.
    pub router: Router,
}
