//! The engine's configuration: in code, or as a TOML file.

use std::{net::SocketAddr, path::PathBuf};

use parlor_actors::{limits::Limits, port::RoomOptions, session::heartbeat::BeatIntervals, tiers::Tiers};
use parlor_protocol::message::{Durability, ROOMS_PER_SESSION_MAX};
use serde::Deserialize;

use crate::net::{Authenticate, NetLimits};

/// The largest page that fits a frame with room to spare, in bytes of records.
const PAGE_BYTES_MAX: u32 = 384 << 10;

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
    /// How often clients beat.
    pub beats: BeatIntervals,
    /// Who may come in; `None` lets everybody in as whom he says he is.
    pub authenticate: Option<Authenticate>,
    /// What users of each tier may do.
    pub tiers: Tiers,
    /// How long a shutdown waits for answers, and then for clients to read them, in milliseconds.
    pub shutdown_patience_ms: u64,
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
            beats: BeatIntervals::default(),
            authenticate: None,
            tiers: Tiers::default(),
            shutdown_patience_ms: 5_000,
        }
    }

    /// Says what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let payload_max = parlor_protocol::frame::PAYLOAD_BYTES_MAX;
        let rule = |name: &'static str, value: u64, least: u64, most: u64| {
            let holds = (least..=most).contains(&value);
            if holds { Ok(()) } else { Err(ConfigError::OutOfRange { name, value, least, most }) }
        };
        rule("arbiters", self.arbiters as u64, 1, 64)?;
        rule("limits.payload_bytes_max", limits.payload_bytes_max.into(), 1, payload_max.into())?;
        rule("limits.rooms_per_session_max", limits.rooms_per_session_max.into(), 1, ROOMS_PER_SESSION_MAX as u64)?;
        rule("limits.unanswered_requests_max", limits.unanswered_requests_max.into(), 1, 65_536)?;
        rule("limits.page_records_max", limits.page_records_max.into(), 1, 10_000)?;
        rule("limits.page_bytes_max", limits.page_bytes_max.into(), 1, PAGE_BYTES_MAX.into())?;
        rule("limits.answers_per_device_max", limits.answers_per_device_max as u64, 1, 128)?;
        let readers_max = parlor_protocol::message::READERS_MAX;
        rule("limits.readers_per_room_max", limits.readers_per_room_max as u64, 1, readers_max as u64)?;
        rule("limits.signals_per_second_max", limits.signals_per_second_max.into(), 0, 1_000_000)?;
        rule("limits.signals_burst_max", limits.signals_burst_max.into(), 1, 1_000_000)?;
        rule("limits.signals_waiting_max", limits.signals_waiting_max as u64, 1, 4_096)?;
        rule("limits.ring_records_max", limits.ring_records_max as u64, 1, 1 << 20)?;
        rule("limits.writer_records_max", limits.writer_records_max as u64, 1, 1 << 20)?;
        for (name, value) in [
            ("net.connections_max", self.net.connections_max),
            ("limits.rooms_loaded_max", limits.rooms_loaded_max),
            ("limits.waiters_per_room_max", limits.waiters_per_room_max),
            ("limits.reads_per_room_max", limits.reads_per_room_max),
            ("limits.writer_bytes_max", limits.writer_bytes_max),
            ("limits.outbound_bytes_max", limits.outbound_bytes_max),
            ("limits.connections_per_turn_max", limits.connections_per_turn_max),
        ] {
            rule(name, value as u64, 1, 1 << 40)?;
        }
        for (name, value) in [
            ("limits.slow_reader_ms", limits.slow_reader_ms),
            ("limits.close_linger_ms", limits.close_linger_ms),
            ("limits.hold_back_ms", limits.hold_back_ms),
        ] {
            rule(name, value, 1, 86_400_000)?;
        }
        rule("heartbeat.least_ms", self.beats.least_ms.into(), 100, 3_600_000)
    }
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
}

/// A configuration file: every key is optional, an unknown one is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Where to listen.
    pub listen: Option<SocketAddr>,
    /// Where rooms are kept.
    pub data: Option<PathBuf>,
    arbiters: Option<usize>,
    shutdown_patience_ms: Option<u64>,
    #[serde(default)]
    rooms: RoomsSection,
    #[serde(default)]
    limits: LimitsSection,
    #[serde(default)]
    heartbeat: HeartbeatSection,
    #[serde(default)]
    net: NetSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoomsSection {
    durability: Option<DurabilityName>,
    create_at_join: Option<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DurabilityName {
    Memory,
    Buffered,
    Synced,
}

/// A section whose keys are the fields of a struct: what is there replaces the default.
macro_rules! section {
    ($section:ident for $target:ty { $($field:ident: $type:ty),* $(,)? }) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $section {
            $($field: Option<$type>,)*
        }

        impl $section {
            fn apply(&self, target: &mut $target) {
                $(if let Some(value) = self.$field {
                    target.$field = value;
                })*
            }
        }
    };
}

section!(LimitsSection for Limits {
    payload_bytes_max: u32,
    rooms_per_session_max: u32,
    unanswered_requests_max: u32,
    outbound_bytes_max: usize,
    outbound_low_bytes: usize,
    ring_records_max: usize,
    ring_bytes_max: usize,
    page_records: u32,
    page_records_max: u32,
    page_bytes_max: u32,
    answers_per_device_max: usize,
    absent_devices_per_room_max: usize,
    readers_per_room_max: usize,
    signals_per_second_max: u32,
    signals_burst_max: u32,
    signals_to_users: bool,
    signals_outbound_bytes_max: usize,
    signals_waiting_max: usize,
    reads_per_room_max: usize,
    rooms_loaded_max: usize,
    waiters_per_room_max: usize,
    writer_records_max: usize,
    writer_bytes_max: usize,
    connections_per_turn_max: usize,
    hold_back_ms: u64,
    slow_reader_ms: u64,
    close_linger_ms: u64,
    room_rest_ms: u64,
    restarts_max: u32,
    restart_window_ms: u64,
});

section!(HeartbeatSection for BeatIntervals {
    wired_ms: u32,
    wifi_ms: u32,
    mobile_ms: u32,
    mobile_2g_ms: u32,
    unknown_ms: u32,
    least_ms: u32,
    grace_least_ms: u32,
});

section!(NetSection for NetLimits {
    connections_max: usize,
    hello_ms: u64,
    frame_ms: u64,
    linger_ms: u64,
    retry_after_ms: u32,
});

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is not TOML, or has a key that does not exist.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        let path = path.into();
        let text =
            std::fs::read_to_string(&path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Malformed { path, source: Box::new(source) })
    }

    /// Changes what the file names.
    pub fn apply(&self, config: &mut EngineConfig) {
        if let Some(data) = &self.data {
            config.data.clone_from(data);
        }
        config.arbiters = self.arbiters.unwrap_or(config.arbiters);
        config.shutdown_patience_ms = self.shutdown_patience_ms.unwrap_or(config.shutdown_patience_ms);
        if let Some(name) = self.rooms.durability {
            config.room_defaults.durability = match name {
                DurabilityName::Memory => Durability::Memory,
                DurabilityName::Buffered => Durability::Buffered,
                DurabilityName::Synced => Durability::Synced,
            };
        }
        config.create_at_join = self.rooms.create_at_join.unwrap_or(config.create_at_join);
        self.limits.apply(&mut config.limits);
        self.heartbeat.apply(&mut config.beats);
        self.net.apply(&mut config.net);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(text: &str) -> Result<EngineConfig, String> {
        let file: ConfigFile = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut config = EngineConfig::new("data");
        file.apply(&mut config);
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn a_file_replaces_what_it_names() {
        let config = read("data = \"x\"\n[rooms]\ndurability = \"buffered\"\n[limits]\npage_records = 7").unwrap();
        assert_eq!(config.data, PathBuf::from("x"));
        assert_eq!(config.room_defaults.durability, Durability::Buffered);
        assert_eq!(config.limits, Limits { page_records: 7, ..Limits::default() });
    }

    #[test]
    fn a_wrong_file_says_what_is_wrong() {
        let error = read("[limits]\npage_record = 7").err().unwrap();
        assert!(error.contains("unknown field `page_record`"), "{error}");
        let error = read("[limits]\npayload_bytes_max = 99999999").err().unwrap();
        assert_eq!(error, "limits.payload_bytes_max is 99999999; 1 to 65536 are allowed");
        assert!(read("arbiters = 0").is_err());
        assert!(read("[limits]\nconnections_per_turn_max = 0").is_err(), "it would never write");
    }
}
