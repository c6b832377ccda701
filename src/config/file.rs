//! The configuration as a TOML file.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

use parlor_actors::{
    limits::Limits,
    session::heartbeat::BeatIntervals,
    supervisor::state::sessions::SessionPolicy,
    tiers::{SendRate, Tier, Tiers},
};
use parlor_protocol::message::Durability;
use serde::Deserialize;

use super::{ConfigError, EngineConfig};
use crate::net::NetLimits;

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
    come_back_spread_ms: Option<u32>,
    #[serde(default)]
    rooms: RoomsSection,
    #[serde(default)]
    limits: LimitsSection,
    #[serde(default)]
    send_rate: SendRateSection,
    #[serde(default)]
    sessions: SessionsSection,
    #[serde(default)]
    heartbeat: HeartbeatSection,
    #[serde(default)]
    net: NetSection,
    #[serde(default)]
    tiers: Vec<TierSection>,
    #[serde(default)]
    tier_of: BTreeMap<String, String>,
}

/// One of `[[tiers]]`. The one called "default" is for users that `tier_of` does not name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TierSection {
    name: String,
    lifetime_ms: Option<u64>,
    send_interval_ms: Option<u32>,
    send_burst: Option<u32>,
}

/// What users are of where nothing else is said.
const DEFAULT_TIER: &str = "default";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoomsSection {
    durability: Option<DurabilityName>,
    create_at_join: Option<bool>,
    lifetime_ms: Option<u64>,
    records_max: Option<u64>,
    bytes_max: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DurabilityName {
    Memory,
    Buffered,
    Synced,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionsSection {
    policy: Option<PolicyName>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PolicyName {
    All,
    OnePerDevice,
    OnePerClass,
    Single,
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
    text_bytes_max: u32,
    uploads_bytes_max: usize,
    upload_ms: u64,
    rooms_per_session_max: u32,
    sessions_away_max: usize,
    sessions_away_per_user_max: usize,
    unanswered_requests_max: u32,
    outbound_bytes_max: usize,
    outbound_low_bytes: usize,
    ring_records_max: usize,
    ring_bytes_max: usize,
    rings_bytes_max: usize,
    page_records: u32,
    page_records_max: u32,
    page_bytes_max: u32,
    answers_per_device_max: usize,
    absent_devices_per_room_max: usize,
    absent_max: usize,
    readers_per_room_max: usize,
    signals_per_second_max: u32,
    signals_burst_max: u32,
    signals_to_users: bool,
    signals_outbound_bytes_max: usize,
    signals_waiting_max: usize,
    presence: bool,
    presence_users_per_session_max: usize,
    presence_watches_max: usize,
    presence_window_ms: u64,
    presence_outbound_bytes_max: usize,
    presence_room_named_max: u32,
    presence_changes_waiting_max: usize,
    reads_per_room_max: usize,
    refill_waiters_per_room_max: usize,
    parked_per_room_max: usize,
    parked_per_device_max: usize,
    edit_window_ms: u64,
    recall_window_ms: u64,
    reactions_per_record_max: usize,
    reaction_notes_bytes_max: usize,
    rooms_loaded_max: usize,
    members_per_room_max: u64,
    waiters_per_room_max: usize,
    writer_records_max: usize,
    writer_bytes_max: usize,
    connections_per_turn_max: usize,
    rated_users_max: usize,
    hold_back_ms: u64,
    slow_reader_ms: u64,
    close_linger_ms: u64,
    room_idle_ms: u64,
    rest_ms: u64,
    restarts_max: u32,
    restart_window_ms: u64,
    failing_devices_max: usize,
    sweep_interval_ms: u64,
    sweep_pause_ms: u64,
    sweep_records_max: u32,
    dedupe_horizon_ms: u64,
});

section!(SendRateSection for SendRate {
    interval_ms: u32,
    burst: u32,
});

section!(HeartbeatSection for BeatIntervals {
    wired_ms: u32,
    wifi_ms: u32,
    mobile_ms: u32,
    mobile_2g_ms: u32,
    unknown_ms: u32,
    least_ms: u32,
    grace_percent: u32,
    grace_least_ms: u32,
    divisor_one_missed: u32,
    divisor_more_missed: u32,
    grants_per_lease: u32,
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
        let file: Self =
            toml::from_str(&text).map_err(|source| ConfigError::Malformed { path, source: Box::new(source) })?;
        file.check_tiers()?;
        Ok(file)
    }

    fn check_tiers(&self) -> Result<(), ConfigError> {
        let mut names = HashSet::from([DEFAULT_TIER]);
        for (at, TierSection { name, .. }) in self.tiers.iter().enumerate() {
            let known_default = name == DEFAULT_TIER && self.tiers[..at].iter().all(|tier| tier.name != DEFAULT_TIER);
            if !names.insert(name) && !known_default {
                return Err(ConfigError::TierTwice { name: name.clone() });
            }
        }
        if names.len() > 256 {
            return Err(ConfigError::TooManyTiers { found: names.len() });
        }
        match self.tier_of.iter().find(|(_, tier)| !names.contains(tier.as_str())) {
            Some((user, tier)) => Err(ConfigError::UnknownTier { user: user.clone(), tier: tier.clone() }),
            None => Ok(()),
        }
    }

    /// The tiers that the file names; `None` if it names none.
    fn tiers(&self) -> Option<Tiers> {
        if self.tiers.is_empty() && self.tier_of.is_empty() {
            return None;
        }
        let mut first = Tier { name: DEFAULT_TIER.into(), lifetime_ms: 0, send: SendRate::default() };
        let mut others = Vec::new();
        for section in &self.tiers {
            let send = SendRate {
                interval_ms: section.send_interval_ms.unwrap_or(SendRate::default().interval_ms),
                burst: section.send_burst.unwrap_or(SendRate::default().burst),
            };
            let lifetime_ms = section.lifetime_ms.unwrap_or_default();
            let tier = Tier { name: section.name.clone(), lifetime_ms, send };
            if tier.name == DEFAULT_TIER { first = tier } else { others.push(tier) }
        }
        let of = self.tier_of.clone();
        Some(Tiers::new(first, others, Some(Arc::new(move |user: &str| of.get(user).cloned()))))
    }

    /// Changes what the file names.
    pub fn apply(&self, config: &mut EngineConfig) {
        if let Some(data) = &self.data {
            config.data.clone_from(data);
        }
        config.arbiters = self.arbiters.unwrap_or(config.arbiters);
        config.come_back_spread_ms = self.come_back_spread_ms.unwrap_or(config.come_back_spread_ms);
        config.shutdown_patience_ms = self.shutdown_patience_ms.unwrap_or(config.shutdown_patience_ms);
        if let Some(name) = self.rooms.durability {
            config.room_defaults.durability = match name {
                DurabilityName::Memory => Durability::Memory,
                DurabilityName::Buffered => Durability::Buffered,
                DurabilityName::Synced => Durability::Synced,
            };
        }
        if let Some(name) = self.sessions.policy {
            config.sessions = match name {
                PolicyName::All => SessionPolicy::All,
                PolicyName::OnePerDevice => SessionPolicy::OnePerDevice,
                PolicyName::OnePerClass => SessionPolicy::OnePerClass,
                PolicyName::Single => SessionPolicy::Single,
            };
        }
        config.create_at_join = self.rooms.create_at_join.unwrap_or(config.create_at_join);
        let rooms = &mut config.room_defaults;
        rooms.lifetime_ms = self.rooms.lifetime_ms.unwrap_or(rooms.lifetime_ms);
        rooms.records_max = self.rooms.records_max.unwrap_or(rooms.records_max);
        rooms.bytes_max = self.rooms.bytes_max.unwrap_or(rooms.bytes_max);
        if let Some(tiers) = self.tiers() {
            config.tiers = tiers;
        }
        self.limits.apply(&mut config.limits);
        self.send_rate.apply(&mut config.tiers.first_mut().send);
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
        file.check_tiers().map_err(|error| error.to_string())?;
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
    fn the_policy_of_sessions_has_a_name() {
        let policy = |name| read(&format!("[sessions]\npolicy = {name:?}")).map(|config| config.sessions);
        assert_eq!(policy("all"), Ok(SessionPolicy::All));
        assert_eq!(policy("one-per-device"), Ok(SessionPolicy::OnePerDevice));
        assert_eq!(policy("one-per-class"), Ok(SessionPolicy::OnePerClass));
        assert_eq!(policy("single"), Ok(SessionPolicy::Single));
        assert!(policy("some").unwrap_err().contains("one-per-device"), "the error names what is allowed");
    }

    #[test]
    fn the_rate_of_whoever_has_no_tier_stands_in_the_file() {
        let rate = |text: &str| read(text).map(|mut config| config.tiers.first_mut().send);
        assert_eq!(rate(""), Ok(SendRate::default()));
        assert_eq!(rate("[send_rate]\ninterval_ms = 250"), Ok(SendRate { interval_ms: 250, burst: 10 }));
        assert_eq!(rate("[send_rate]\ninterval_ms = 0\nburst = 3"), Ok(SendRate { interval_ms: 0, burst: 3 }));
        assert!(rate("[send_rate]\nburst = 0").is_err(), "nobody could send");
    }

    #[test]
    fn each_figure_of_the_heartbeats_stands_in_the_file_and_makes_sense() {
        let text = "[heartbeat]\nwifi_ms = 8000\ngrace_percent = 20\ndivisor_one_missed = 3\ngrants_per_lease = 2";
        let beats = BeatIntervals {
            wifi_ms: 8_000,
            grace_percent: 20,
            divisor_one_missed: 3,
            grants_per_lease: 2,
            ..BeatIntervals::default()
        };
        assert_eq!(read(text).unwrap().beats, beats);
        for (line, error) in [
            ("wired_ms = 0", "heartbeat.wired_ms is 0; 100 to 3600000 are allowed"),
            ("divisor_one_missed = 5", "heartbeat.divisor_more_missed is 4; 5 to 1000 are allowed"),
            ("grants_per_lease = 0", "heartbeat.grants_per_lease is 0; 1 to 100 are allowed"),
        ] {
            assert_eq!(read(&format!("[heartbeat]\n{line}")).err().unwrap(), error);
        }
    }

    #[test]
    fn a_long_text_is_not_shorter_than_a_short_one_and_has_parts_enough() {
        let text = |payload, text| read(&format!("[limits]\npayload_bytes_max = {payload}\ntext_bytes_max = {text}"));
        assert!(text(1_440, 1_440).is_ok() && text(64, 65_536).is_ok());
        let error = text(1_440, 1_439).err().unwrap();
        assert_eq!(error, "limits.text_bytes_max is 1439; 1440 to 65536 are allowed");
        assert!(text(63, 65_536).is_err(), "1,024 parts of 63 bytes are less");
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

    #[test]
    fn rooms_and_tiers_say_how_long_records_live() {
        let config = read(
            "[rooms]\nlifetime_ms = 5\nrecords_max = 6\nbytes_max = 7\n[tier_of]\nann = \"gold\"\n\
             [[tiers]]\nname = \"gold\"\nlifetime_ms = 8\nsend_interval_ms = 9\nsend_burst = 10\n\
             [[tiers]]\nname = \"default\"\nlifetime_ms = 11",
        );
        let config = config.unwrap();
        let rooms = config.room_defaults;
        assert_eq!((rooms.lifetime_ms, rooms.records_max, rooms.bytes_max), (5, 6, 7));
        let tier = |user| config.tiers.get(config.tiers.of(user)).clone();
        let gold = Tier { name: "gold".into(), lifetime_ms: 8, send: SendRate { interval_ms: 9, burst: 10 } };
        assert_eq!(tier("ann"), gold);
        assert_eq!(tier("bob"), Tier { name: "default".into(), lifetime_ms: 11, send: SendRate::default() });
        assert_eq!(read("").unwrap().tiers.get(Tiers::default().of("ann")).lifetime_ms, 0);
    }

    #[test]
    fn tiers_that_do_not_fit_are_refused() {
        let error = read("[tier_of]\nann = \"gold\"").err().unwrap();
        assert_eq!(
            error,
            "tier_of.ann names the tier \"gold\", which is none of [[tiers]]; add it there, or name another"
        );
        for name in ["gold", "default"] {
            let error = read(&format!("[[tiers]]\nname = \"{name}\"\n").repeat(2)).err().unwrap();
            assert_eq!(error, format!("[[tiers]] has {name:?} twice; give each tier a name of its own"));
        }
        let many: String = (0..256).map(|tier| format!("[[tiers]]\nname = \"{tier}\"\n")).collect();
        assert!(read(&many).err().unwrap().contains("257 tiers"));
        assert!(read("[[tiers]]\nlifetime_ms = 1").err().unwrap().contains("missing field `name`"));
    }
}
