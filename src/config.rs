//! The engine's configuration: in code, or as a TOML file.

use std::path::PathBuf;

use parlor_actors::{
    limits::Limits,
    port::RoomOptions,
    session::heartbeat::BeatIntervals,
    tiers::{TierNumber, Tiers},
};
use parlor_protocol::message::{GAPS_PER_PAGE_MAX, PARTS_MAX, ROOMS_PER_SESSION_MAX};

pub use file::ConfigFile;
pub use parlor_actors::{router::MaySee, supervisor::state::sessions::SessionPolicy};

use crate::net::{Authenticate, NetLimits};

mod file;

/// The largest page that fits a frame with room to spare, in bytes of records.
const PAGE_BYTES_MAX: u32 = 384 << 10;

/// The most records of a page: before, between and behind them may be gaps, and a page has room for so many.
const PAGE_RECORDS_MAX: u64 = GAPS_PER_PAGE_MAX as u64 - 1;

/// Everything that an engine can be told. [`EngineConfig::new`] has the defaults.
#[derive(Clone)]
pub struct EngineConfig {
    /// Where rooms are kept; created if it is not there.
    pub data: PathBuf,
    /// Threads that run rooms, sessions and sockets.
    pub arbiters: usize,
    /// What a new room's acks mean, unless its creation says otherwise.
    pub room_defaults: RoomOptions,
    /// Whether joining a room that is not there creates it.
    pub create_at_join: bool,
    /// What the actors may hold.
    pub limits: Limits,
    /// What the network side may hold.
    pub net: NetLimits,
    /// How many sessions one user may have, and which has to go for another.
    pub sessions: SessionPolicy,
    /// How often clients beat.
    pub beats: BeatIntervals,
    /// Who may come in; `None` lets everybody in as whom he says he is.
    pub authenticate: Option<Authenticate>,
    /// Which user may see whether which other one is online; `None` lets all see all.
    pub may_see: Option<MaySee>,
    /// What users of each tier may do.
    pub tiers: Tiers,
    /// How long a shutdown waits for answers, and then for clients to read them, in milliseconds.
    pub shutdown_patience_ms: u64,
    /// Within how long clients come back after a shutdown: each is told a time of its own, a millisecond apart where that
    /// is enough.
    pub come_back_spread_ms: u32,
}

impl EngineConfig {
    /// The defaults, with rooms kept in `data`.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            arbiters: 1,
            room_defaults: RoomOptions::default(),
            create_at_join: true,
            limits: Limits::default(),
            net: NetLimits::default(),
            sessions: SessionPolicy::default(),
            beats: BeatIntervals::default(),
            authenticate: None,
            may_see: None,
            tiers: Tiers::default(),
            shutdown_patience_ms: 5_000,
            come_back_spread_ms: 30_000,
        }
    }

    /// Says what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let payload_max = parlor_protocol::frame::PAYLOAD_BYTES_MAX;
        rule("arbiters", self.arbiters as u64, 1, 64)?;
        rule("limits.payload_bytes_max", limits.payload_bytes_max.into(), 1, payload_max.into())?;
        let text_most = limits.payload_bytes_max.saturating_mul(PARTS_MAX).min(payload_max);
        let text_least = limits.payload_bytes_max;
        rule("limits.text_bytes_max", limits.text_bytes_max.into(), text_least.into(), text_most.into())?;
        rule("limits.uploads_bytes_max", limits.uploads_bytes_max as u64, 1 << 18, 1 << 40)?;
        let send = self.tiers.get(TierNumber(0)).send;
        rule("send_rate.interval_ms", send.interval_ms.into(), 0, 86_400_000)?;
        if send.interval_ms > 0 {
            rule("send_rate.burst", send.burst.into(), 1, 1 << 20)?;
        }
        rule("limits.rooms_per_session_max", limits.rooms_per_session_max.into(), 1, ROOMS_PER_SESSION_MAX as u64)?;
        rule("limits.unanswered_requests_max", limits.unanswered_requests_max.into(), 1, 65_536)?;
        rule("limits.page_records_max", limits.page_records_max.into(), 1, PAGE_RECORDS_MAX)?;
        rule("limits.page_bytes_max", limits.page_bytes_max.into(), 1, PAGE_BYTES_MAX.into())?;
        rule("limits.answers_per_device_max", limits.answers_per_device_max as u64, 1, 128)?;
        let readers_max = parlor_protocol::message::READERS_MAX;
        rule("limits.readers_per_room_max", limits.readers_per_room_max as u64, 1, readers_max as u64)?;
        rule("limits.signals_per_second_max", limits.signals_per_second_max.into(), 0, 1_000_000)?;
        rule("limits.signals_burst_max", limits.signals_burst_max.into(), 1, 1_000_000)?;
        rule("limits.signals_waiting_max", limits.signals_waiting_max as u64, 1, 4_096)?;
        let presence_max = parlor_protocol::message::PRESENCE_USERS_MAX as u64;
        let watched = limits.presence_users_per_session_max as u64;
        rule("limits.presence_users_per_session_max", watched, 1, presence_max)?;
        rule("limits.presence_watches_max", limits.presence_watches_max as u64, 1, 1 << 40)?;
        rule("limits.presence_window_ms", limits.presence_window_ms, 10, 60_000)?;
        rule("limits.presence_room_named_max", limits.presence_room_named_max.into(), 0, presence_max)?;
        rule("limits.presence_changes_waiting_max", limits.presence_changes_waiting_max as u64, 1, 1 << 20)?;
        rule("limits.reactions_per_record_max", limits.reactions_per_record_max as u64, 1, 65_535)?;
        rule("limits.reaction_notes_bytes_max", limits.reaction_notes_bytes_max as u64, 1, 1 << 20)?;
        rule("limits.ring_records_max", limits.ring_records_max as u64, 1, 1 << 20)?;
        // A room in memory has to be able to hold the longest message, and a change of one.
        rule("limits.rings_bytes_max", limits.rings_bytes_max as u64, 1 << 20, 1 << 40)?;
        rule("limits.writer_records_max", limits.writer_records_max as u64, 1, 1 << 20)?;
        for (name, value) in [
            ("net.connections_max", self.net.connections_max),
            ("limits.rooms_loaded_max", limits.rooms_loaded_max),
            ("limits.waiters_per_room_max", limits.waiters_per_room_max),
            ("limits.reads_per_room_max", limits.reads_per_room_max),
            ("limits.refill_waiters_per_room_max", limits.refill_waiters_per_room_max),
            ("limits.parked_per_room_max", limits.parked_per_room_max),
            ("limits.parked_per_device_max", limits.parked_per_device_max),
            ("limits.writer_bytes_max", limits.writer_bytes_max),
            ("limits.outbound_bytes_max", limits.outbound_bytes_max),
            ("limits.rated_users_max", limits.rated_users_max),
            ("limits.absent_max", limits.absent_max),
            ("limits.connections_per_turn_max", limits.connections_per_turn_max),
        ] {
            rule(name, value as u64, 1, 1 << 40)?;
        }
        for (name, value) in [
            ("limits.upload_ms", limits.upload_ms),
            ("limits.slow_reader_ms", limits.slow_reader_ms),
            ("limits.close_linger_ms", limits.close_linger_ms),
            ("limits.hold_back_ms", limits.hold_back_ms),
            ("limits.sweep_interval_ms", limits.sweep_interval_ms),
            ("limits.sweep_pause_ms", limits.sweep_pause_ms),
        ] {
            rule(name, value, 1, 86_400_000)?;
        }
        rule("limits.room_idle_ms", limits.room_idle_ms, 0, 1 << 40)?;
        rule("limits.sweep_records_max", limits.sweep_records_max.into(), 1, 1 << 20)?;
        rule("limits.dedupe_horizon_ms", limits.dedupe_horizon_ms, 60_000, u64::MAX)?;
        self.check_beats()
    }

    fn check_beats(&self) -> Result<(), ConfigError> {
        let beats = &self.beats;
        for (name, value, least, most) in [
            ("heartbeat.wired_ms", beats.wired_ms, 100, 3_600_000_u32),
            ("heartbeat.wifi_ms", beats.wifi_ms, 100, 3_600_000),
            ("heartbeat.mobile_ms", beats.mobile_ms, 100, 3_600_000),
            ("heartbeat.mobile_2g_ms", beats.mobile_2g_ms, 100, 3_600_000),
            ("heartbeat.unknown_ms", beats.unknown_ms, 100, 3_600_000),
            ("heartbeat.least_ms", beats.least_ms, 100, 3_600_000),
            ("heartbeat.grace_percent", beats.grace_percent, 0, 100),
            ("heartbeat.grace_least_ms", beats.grace_least_ms, 0, 3_600_000),
            ("heartbeat.divisor_one_missed", beats.divisor_one_missed, 1, 1_000),
            // Who misses more is not asked less often.
            ("heartbeat.divisor_more_missed", beats.divisor_more_missed, beats.divisor_one_missed, 1_000),
            ("heartbeat.grants_per_lease", beats.grants_per_lease, 1, 100),
        ] {
            rule(name, value.into(), least.into(), most.into())?;
        }
        Ok(())
    }
}

fn rule(name: &'static str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    let holds = (least..=most).contains(&value);
    if holds { Ok(()) } else { Err(ConfigError::OutOfRange { name, value, least, most }) }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {path} cannot be read: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key that does not exist, or a value of the wrong type.
    #[error("the configuration {path} is wrong: {source}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: Box<toml::de::Error>,
    },
    /// A value is out of its range.
    #[error("{name} is {value}; {least} to {most} are allowed")]
    OutOfRange {
        /// Which value.
        name: &'static str,
        /// What it is.
        value: u64,
        /// The least allowed.
        least: u64,
        /// The most allowed.
        most: u64,
    },
    /// A user is of a tier that is not there.
    #[error("tier_of.{user} names the tier {tier:?}, which is none of [[tiers]]; add it there, or name another")]
    UnknownTier {
        /// Which user.
        user: String,
        /// Which tier.
        tier: String,
    },
    /// Two tiers have one name.
    #[error("[[tiers]] has {name:?} twice; give each tier a name of its own")]
    TierTwice {
        /// The name.
        name: String,
    },
    /// There are too many tiers.
    #[error("[[tiers]] has {found} tiers; 256 are allowed, with the one called \"default\"")]
    TooManyTiers {
        /// How many there are.
        found: usize,
    },
}
