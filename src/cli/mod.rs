//! What the binary can do: `serve`, `chat`, `replay`, `bench`. A user of the library like any other: nothing in here is needed to
//! embed Parlor.

pub(crate) mod args;
mod bench;
mod chat;
mod descriptors;
mod faults;
mod own_engine;
mod replay;
mod sanitize;
mod serve;

use std::{io, process::ExitCode, time::Duration};

use args::{Args, Command};

/// How long the runtime waits at the end for threads that read the standard input; they cannot be stopped.
const RUNTIME_STOP: Duration = Duration::from_millis(100);

/// Runs what the command line asks for.
///
/// # Errors
/// Whatever kept the command from doing its work. What it found while it worked is in the exit code.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = match args.command {
        Command::Serve(args) => runtime.block_on(serve::run(args)),
        Command::Chat(args) => runtime.block_on(chat::run(args)),
        Command::Replay(args) => runtime.block_on(replay::run(args)),
        Command::Bench(args) => runtime.block_on(bench::run(args)),
    };
    runtime.shutdown_timeout(RUNTIME_STOP);
    outcome
}

/// `error` with its causes on one line, and what to do about it where that is known.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    let mut text = chain(error.as_ref());
    if refused(error) {
        text.push_str(
            "\nIs a server running there? `parlor serve` starts one on 127.0.0.1:7400; --server names another.",
        );
    }
    text
}

/// `error` and its causes on one line, without those whose text the one before them has quoted already. Harmless to a
/// terminal: some of it may be a server's own words.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    sanitize::text(&text).into_owned()
}

fn refused(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_refused_connection_is_explained() {
        let io = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = Err::<(), _>(io).context("cannot connect to 127.0.0.1:7400").unwrap_err();
        let text = explain(&error);
        assert!(text.starts_with("cannot connect to 127.0.0.1:7400: connection refused"), "{text}");
        assert!(text.contains("`parlor serve`"), "{text}");
    }

    #[test]
    fn a_server_s_words_are_harmless() {
        assert_eq!(explain(&anyhow::anyhow!("refused: \x1b[2Jgo away")), "refused: ␛[2Jgo away");
    }

    #[test]
    fn a_cause_is_not_said_twice() {
        let error = anyhow::anyhow!("disk full").context("cannot write: disk full");
        assert_eq!(explain(&error), "cannot write: disk full");
    }
}
