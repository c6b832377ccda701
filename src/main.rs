//! The binary `parlor`: parses the command line, runs what it asks for, and turns the outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;

mod cli;

/// Messages are made on one thread and freed on another, and small allocations are most of the store's memtables: with
/// the C library's allocator both threads wait for its locks. It serves RocksDB, too. A host chooses its own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run(cli::args::Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("parlor: {}", cli::explain(&error));
            ExitCode::FAILURE
        }
    }
}
