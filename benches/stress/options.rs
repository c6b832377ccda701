//! The command line.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::{
    baseline::Kind,
    peers::Storage,
    scenario::{durable::Durable, fanout::Fanout, idle::Idle, inprocess::InProcess, replay::Replay},
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
    #[arg(long, default_value_t = 3)]
    pub(crate) reps: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) secs: f64,
    /// Seconds of load before each measurement.
    #[arg(long, default_value_t = 1.0)]
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
}
