//! Parlor under load, beside other systems and the baselines of the machine. How to run and read it: `benches/README.md`.
//!
//! One epoll thread, the [`client`], drives every system through a codec of its own ([`peers`]), under the same loads
//! ([`scenario`]), and checks while it measures that nothing is lost, repeated or reordered.
#![allow(
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a bench may panic, and its numbers are far from the limits of their types"
)]

mod baseline;
mod client;
mod options;
mod peers;
mod render;
mod report;
mod run;
mod scenario;
mod server;
mod stats;

use std::process::ExitCode;

use clap::Parser as _;

use crate::options::{Command, Options};

/// As the binary `parlor` has it, and as the README advises hosts: in `inprocess` the harness is the host.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Both ends of every connection are here: as many descriptors as there may be. Too few are told by what fails.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let done = match Options::parse().command {
        Command::Leash { command } => server::leash(&command),
        Command::Baseline { kind, port } => baseline::serve(kind, port),
        Command::Report(show) => report::show(&show),
        Command::Fanout { load, common } => run::run(load, common),
        Command::Durable { load, common } => run::run(load, common),
        Command::Idle { load, common } => run::run(load, common),
        Command::Inprocess { load, common } => run::run(load, common),
        Command::Replay { load, common } => run::run(load, common),
        Command::Joins { load, common } => run::run(load, common),
        Command::Reconnects { load, common } => run::run(load, common),
        Command::Rooms { load, common } => run::run(load, common),
        Command::Asleep { load, common } => run::run(load, common),
        Command::Large { load, common } => run::run(load, common),
        Command::Growth { load, common } => run::run(load, common),
        Command::Chat { load, common } => run::run(load, common),
        Command::Recovery { load, common } => run::run(load, common),
        Command::Sweep { load, common } => run::run(load, common),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
