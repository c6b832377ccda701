//! An engine of this process on a temporary folder, for a `replay` without a server.

use std::net::SocketAddr;

/// The engine; its folder goes with it.
pub(crate) struct OwnEngine {
    addr: SocketAddr,
}

impl OwnEngine {
    /// Starts it, without a limit on the send rate, on a port of the loopback that is free.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        // PLACEHOLDER: the engine is not linked yet.
        anyhow::bail!("this build has no engine yet: name a server with --server")
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops it and removes its folder.
    pub(crate) async fn shutdown(self) {}
}
