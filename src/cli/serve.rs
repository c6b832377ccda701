//! `parlor serve`.

use std::{io::IsTerminal as _, net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Context as _;
use parlor::{
    config::{ConfigFile, EngineConfig},
    engine::Engine,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{args::Serve, descriptors};

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7400);
const DATA: &str = "parlor-data";

/// How often the store is asked whether it still works.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// Runs a server until it is told to stop.
pub(crate) async fn run(args: Serve) -> anyhow::Result<ExitCode> {
    let filter = EnvFilter::try_from_env("PARLOR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).init();

    let file = args.config.map(ConfigFile::read).transpose()?.unwrap_or_default();
    let mut config = EngineConfig::new(DATA);
    file.apply(&mut config);
    if let Some(data) = args.data {
        config.data = data;
    }
    if let Some(rate) = args.send_rate {
        config.tiers.first_mut().send = rate.0;
    }
    // As many as there may be; the engine refuses further clients by itself.
    descriptors::ensure(256, "a server", "start it as a user who may have more")?;
    // Before the first client: from here on a signal means a clean end.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    let data = config.data.clone();
    let listen = args.listen.or(file.listen).unwrap_or(LISTEN);
    let engine = Engine::start(config)?;
    let address = engine.listen(listen).with_context(|| format!("cannot listen on {listen}"))?;
    if !address.ip().is_loopback() {
        tracing::warn!(
            "this server checks no credentials: whoever reaches {address} may come in as anybody; embed the engine to \
             decide who comes in"
        );
    }
    tracing::info!(%address, data = %data.display(), "listening");
    println!("parlor listens on {address} and keeps its rooms in {}", data.display());

    let why = tokio::select! {
        _ = interrupt.recv() => "interrupted",
        _ = terminate.recv() => "told to terminate",
        failure = failure(&engine) => {
            engine.shutdown().await;
            anyhow::bail!("the store failed, and what is wrong with it has to be mended before the next start: {failure}");
        }
    };
    tracing::info!(why, "shutting down: everything accepted is stored and answered first");
    engine.shutdown().await;
    tracing::info!("shut down");
    Ok(ExitCode::SUCCESS)
}

/// Waits until the store takes no more writes: a server that cannot store must not stay up as if it could.
async fn failure(engine: &Engine) -> std::sync::Arc<str> {
    let mut look = tokio::time::interval(HEALTH_EVERY);
    loop {
        look.tick().await;
        if let Some(failure) = engine.failure() {
            return failure;
        }
    }
}
