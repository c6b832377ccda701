//! The way in: streams of bytes, and pipes within the process, become sessions. Knows the actors, not the store.

use std::sync::Arc;

pub mod hello;
pub mod link;
pub mod pipe;
pub mod socket;
pub mod tcp;

/// What the network side may hold, and how long it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetLimits {
    /// The most connections at a time.
    pub connections_max: usize,
    /// The longest payload of a message; the same as the actors'.
    pub payload_bytes_max: u32,
    /// From the connection's beginning to the end of its hello.
    pub hello_ms: u64,
    /// From a frame's first byte to its last.
    pub frame_ms: u64,
    /// How long a closed connection's last bytes are read and thrown away, so that the close frame is not overtaken by
    /// a reset.
    pub linger_ms: u64,
    /// When a client that was refused for too many connections may come back.
    pub retry_after_ms: u32,
}

impl Default for NetLimits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            payload_bytes_max: 1_440,
            hello_ms: 5_000,
            frame_ms: 30_000,
            linger_ms: 1_000,
            retry_after_ms: 5_000,
        }
    }
}

/// Who wants in, as the hello says.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// The user.
    pub user: &'a str,
    /// The device.
    pub device: &'a str,
    /// Whatever the host and its clients agreed on.
    pub credentials: &'a [u8],
}

/// Decides who comes in; called on an arbiter's thread, so it must not block. `Err` says why not, to the client.
pub type Authenticate = Arc<dyn Fn(&Login<'_>) -> Result<(), String> + Send + Sync>;

/// What every connection needs.
#[derive(Clone)]
pub struct Gate {
    /// Limits of the network side.
    pub limits: Arc<NetLimits>,
    /// Who may come in; `None` lets everybody in as whom he says he is.
    pub authenticate: Option<Authenticate>,
    /// Connections there are.
    pub open: Arc<std::sync::atomic::AtomicUsize>,
}
