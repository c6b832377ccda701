//! The command line.

use std::{ffi::OsString, fmt, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{
    baseline::Kind,
    peers::Storage,
    report::Show,
    scenario::{
        asleep::Asleep, chat::Chat, durable::Durable, fanout::Fanout, growth::Growth, idle::Idle, inprocess::InProcess,
        joins::Joins, large::Large, reconnects::Reconnects, recovery::Recovery, replay::Replay, rooms::Rooms,
        sweep::Sweep,
    },
};

/// Parlor and other systems under the same load, in turn.
#[derive(Debug, Parser)]
#[command(name = "stress", bin_name = "cargo bench --bench stress --", max_term_width = 120)]
pub(crate) struct Options {
    /// What to run.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Cargo says this to every bench; it means nothing here.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

/// What to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Rooms of members, some of which publish; every member receives every message of its room (W1).
    Fanout {
        /// The load.
        #[command(flatten)]
        load: Fanout,
        /// What all scenarios take.
        #[command(flatten)]
        common: Common,
    },
    /// Publishers whose messages are acknowledged once they are stored (W2).
    Durable {
        /// The load.
        #[command(flatten)]
        load: Durable,
        /// What all scenarios take.
        #[command(flatten)]
        common: Common,
    },
    /// Connections that do nothing: the server's memory for each (W3).
    Idle {
        /// The load.
        #[command(flatten)]
        load: Idle,
        /// What all scenarios take.
        #[command(flatten)]
        common: Common,
    },
    /// Subscribers within the engine's own process, all on one CPU; Parlor only, and `memory` only.
    Inprocess {
        /// The load.
        #[command(flatten)]
        load: InProcess,
        /// What all scenarios take.
        #[command(flatten)]
        common: Common,
    },
    /// One reader reads a room's stored messages back (W4).
    Replay {
        /// The load.
        #[command(flatten)]
        load: Replay,
        /// What all scenarios take.
        #[command(flatten)]
        common: Common,
    },
    /// Clients that all connect and join at once.
    Joins {
        /// The load.
        #[command(flatten)]
        load: Joins,
        /// What all scenarios take.
        #[command(flatten)]
        common: Common,
    },
    /// Clients that were cut off all come back at once, and read what they missed.
    Reconnects {
        /// The load.
        #[command(flatten)]
        load: Reconnects,
        /// What all scenarios take.
        #[command(flatten)]
        common: Common,
    },
    /// A fan-out in a few rooms, in a server with few rooms and in one with many.
    Rooms {
        /// The load.
        #[command(flatten)]
        load: Rooms,
        /// What all scenarios take.
        #[command(flatten)]
        common: Common,
    },
    /// Memory with many rooms in each of which somebody is, of which few are active and the others sleep.
    Asleep {
        /// The load.
        #[command(flatten)]
        load: Asleep,
        /// What all scenarios take.
        #[command(flatten)]
        common: Common,
    },
    /// A fan-out in one room, with some members and with very many.
    Large {
        /// The load.
        #[command(flatten)]
        load: Large,
        /// What all scenarios take.
        #[command(flatten)]
        common: Common,
    },
    /// What publishing costs in an empty store and in a full one.
    Growth {
        /// The load.
        #[command(flatten)]
        load: Growth,
        /// What all scenarios take.
        #[command(flatten)]
        common: Common,
    },
    /// How long a server with a full store takes from its start to its first answer.
    Recovery {
        /// The load.
        #[command(flatten)]
        load: Recovery,
        /// What all scenarios take.
        #[command(flatten)]
        common: Common,
    },
    /// Whether publishing waits while very many records expire.
    Sweep {
        /// The load.
        #[command(flatten)]
        load: Sweep,
        /// What all scenarios take.
        #[command(flatten)]
        common: Common,
    },
    /// Recorded conversations, as fast as they go.
    Chat {
        /// The load.
        #[command(flatten)]
        load: Chat,
        /// What all scenarios take.
        #[command(flatten)]
        common: Common,
    },
    /// Show results of earlier runs as a page, as a picture or both.
    Report(Show),
    /// Becomes a server that ends with the harness; the harness starts all of them so.
    #[command(hide = true)]
    Leash {
        /// The server's program and what it is given.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Serves as one of the baselines; the harness starts these itself.
    #[command(hide = true)]
    Baseline {
        /// Which.
        kind: Kind,
        /// Where on 127.0.0.1.
        #[arg(long)]
        port: u16,
    },
}

/// What all scenarios take.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// The peers, in the order of a table: parlor, raw-mio, raw-tokio, raw-local, raw-store, raw-sync, redis, nats,
    /// mosquitto, rumqttd, ejabberd. With -memory, -buffered or -synced behind its name a peer stores at that level,
    /// whatever --storage says. parlor@PATH is another build of Parlor, to be compared with this one. Those that are not installed or do not offer the scenario are skipped [default: all that fit].
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) peers: Vec<String>,
    /// How servers store. In fan-out only Parlor stores at all, and `synced` is its default.
    #[arg(long, value_enum, default_value = "synced")]
    pub(crate) storage: Storage,
    /// How often each peer is measured, each time with a fresh server. Peers take turns, so that a slow minute of the
    /// machine does not hit one of them alone.
    #[arg(long, default_value_t = 3, value_parser = at_least_one::<usize>)]
    pub(crate) reps: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    pub(crate) secs: f64,
    /// Seconds of load before each measurement.
    #[arg(long, default_value_t = 1.0, value_parser = rest)]
    pub(crate) warm: f64,
    /// Measure again, at most five times, while others use more than this of a CPU, in percent; the quietest counts.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) quiet: Option<f64>,
    /// Threads that run rooms and sockets, for Parlor [default: its own].
    #[arg(long)]
    pub(crate) arbiters: Option<usize>,
    /// Where servers keep their data, each in a folder that is removed afterwards [default: the temporary folder].
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Also write the results to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// How often the scenario's clients beat.
    #[arg(skip)]
    pub(crate) beats: Option<Duration>,
    /// How long a room has to be idle to be put to sleep, where the scenario says so.
    #[arg(skip)]
    pub(crate) room_idle: Option<Duration>,
    /// Also write the results to this file, as a page with charts and tables.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// A number that a load cannot do without.
pub(crate) fn at_least_one<T: FromStr<Err: fmt::Display> + Default + PartialEq>(text: &str) -> Result<T, String> {
    let number: T = text.parse().map_err(|error: T::Err| error.to_string())?;
    if number == T::default() { Err("at least 1 is needed".to_owned()) } else { Ok(number) }
}

/// Messages that one connection may have in flight: for each there is a place in memory.
const WINDOW_MAX: u32 = 65_536;

/// How many messages may be in flight.
pub(crate) fn window<T: TryFrom<u32>>(text: &str) -> Result<T, String> {
    let number = text.parse::<u64>().map_err(|error| error.to_string())?;
    let allowed = u32::try_from(number).ok().filter(|number| (1..=WINDOW_MAX).contains(number));
    let allowed = allowed.and_then(|number| T::try_from(number).ok());
    allowed.ok_or_else(|| format!("1 to {WINDOW_MAX} messages may be in flight"))
}

/// Messages in flight that there need not be.
pub(crate) fn none_or_window(text: &str) -> Result<usize, String> {
    if text.parse() == Ok(0) { Ok(0) } else { window(text) }
}

/// Messages a second; 0 is as fast as it goes.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|error: std::num::ParseFloatError| error.to_string())?;
    if (0.0..=1e7).contains(&rate) { Ok(rate) } else { Err("a rate is 0 to 10000000 messages a second".to_owned()) }
}

/// A time that there need not be.
fn rest(text: &str) -> Result<f64, String> {
    if text.parse() == Ok(0.0) { Ok(0.0) } else { seconds(text) }
}

/// A time that something can be divided by.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error: std::num::ParseFloatError| error.to_string())?;
    if seconds > 0.0 && seconds <= 86_400.0 {
        Ok(seconds)
    } else {
        Err("more than 0 and at most a day is needed".to_owned())
    }
}
