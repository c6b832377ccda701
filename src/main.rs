//! The binary `parlor`: parses the command line, runs what it asks for, and turns the outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;

mod cli;

fn main() -> ExitCode {
    match cli::run(cli::args::Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("parlor: {}", cli::explain(&error));
            ExitCode::FAILURE
        }
    }
}
