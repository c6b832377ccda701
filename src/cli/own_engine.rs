//! An engine of this process on a temporary folder, for a `replay` without a server.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use parlor::{
    config::EngineConfig,
    engine::Engine,
    tiers::{SendRate, Tiers},
};
use tempfile::TempDir;

/// The engine; its folder goes with it.
pub(crate) struct OwnEngine {
    addr: SocketAddr,
    engine: Engine,
    _folder: TempDir,
}

impl OwnEngine {
    /// Starts it, without a limit on the send rate, on a port of the loopback that is free.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("parlor-replay-").tempdir().context("cannot make a folder")?;
        let mut config = EngineConfig::new(folder.path());
        config.tiers = Tiers::sending(SendRate::OFF);
        let engine = Engine::start(config)?;
        let addr = engine.listen((Ipv4Addr::LOCALHOST, 0).into()).context("cannot listen on the loopback")?;
        Ok(Self { addr, engine, _folder: folder })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops it and removes its folder.
    pub(crate) async fn shutdown(self) {
        self.engine.shutdown().await;
    }
}
