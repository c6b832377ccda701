//! `parlor serve`.

use std::process::ExitCode;

use super::args::Serve;

/// Runs a server until it is told to stop.
pub(crate) async fn run(args: Serve) -> anyhow::Result<ExitCode> {
    // PLACEHOLDER: the engine is not linked yet.
    let Serve { listen, data, config } = args;
    let config = config.map_or_else(|| "the defaults".to_owned(), |file| file.display().to_string());
    anyhow::bail!("cannot serve {} on {listen} with {config}: this build has no engine yet", data.display())
}
