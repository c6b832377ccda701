//! What a client is told when it is made.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use parlor_protocol::{
    Name,
    message::{CREDENTIALS_BYTES_MAX, DeviceClass, Network},
};

use super::{error::ConnectError, outbox_store::OutboxStore};

/// How a client connects and how patient it is. Start with [`Config::new`] and change fields.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// The servers as `host:port`. A name stands for all its addresses. The one that worked last is tried first, then the
    /// others by the time that connecting took, and those that were never reached in this order. One that does not answer
    /// within 100 ms has the next tried beside it; the first connection that is made is taken.
    pub servers: Vec<String>,
    /// The address that worked in an earlier run, from [`Client::server`](super::Client::server), to begin with. Means
    /// something only if it is one of the servers'.
    pub prefer: Option<SocketAddr>,
    /// Who speaks.
    pub user: Name,
    /// On which of the user's devices. Two clients of one device push each other out.
    pub device: Name,
    /// What kind of device that is.
    pub device_class: DeviceClass,
    /// What the device is connected through; sets the interval of the heartbeats. Later changes go to
    /// [`Client::set_network`](super::Client::set_network).
    pub network: Network,
    /// Be in all rooms that the user is a member of, and at once in each that he is added to, without joining them: they
    /// come from [`Client::attached`](super::Client::attached), which the application must then take. The number says with
    /// how many of the newest records a room begins that this client has not been in before. `None` for rooms that are
    /// joined one by one.
    pub follow: Option<u32>,
    /// Whatever the host's authentication wants, at most 4 KiB.
    pub credentials: Vec<u8>,
    /// How long a publish waits for its ack before it is sent again.
    pub ack_timeout: Duration,
    /// How often a publish is sent again on one connection before it is reported
    /// [`Busy`](super::PublishError::Busy).
    pub ack_retries: u32,
    /// How long a connection may take to be made, and then again how long the server may take to say welcome.
    pub connect_timeout: Duration,
    /// How long the first connect keeps trying; zero is one try per address. A client that was connected once comes back
    /// for as long as it lives.
    pub connect_patience: Duration,
    /// The longest wait before the first attempt to come back. Each wait is random, from nothing up to a bound that begins
    /// here, doubles with each attempt, and begins anew once a connection has stood for a minute.
    pub backoff_min: Duration,
    /// Where the bound stops doubling.
    pub backoff_max: Duration,
    /// How many messages may wait for their acks, over all rooms; above it sends are refused with
    /// [`OutboxFull`](super::PublishError::OutboxFull).
    pub outbox_messages_max: usize,
    /// Where messages are kept until they are acked, so that they outlive the program; `None` for memory alone. The clones
    /// of a configuration share it, and only one client may use it.
    pub outbox: Option<Arc<Mutex<dyn OutboxStore>>>,
    /// How many joins, leaves and questions may wait for their answers.
    pub requests_max: usize,
    /// How many events may wait for the application, over all rooms; above it the client stops reading its connection.
    pub events_max: usize,
    /// How long [`Client::close`](super::Client::close) waits for the server's `Close`.
    pub close_timeout: Duration,
}

impl Config {
    /// Connects `user` on the device `default` to one server, `host:port`.
    ///
    /// # Panics
    /// Never: `default` is a name.
    #[must_use]
    pub fn new(server: impl Into<String>, user: Name) -> Self {
        #[expect(clippy::expect_used, reason = "a literal of seven letters is a name")]
        let device = Name::parse("default").expect("a literal of seven letters is a name");
        Self {
            servers: vec![server.into()],
            prefer: None,
            user,
            device,
            device_class: DeviceClass::default(),
            network: Network::default(),
            follow: None,
            credentials: Vec::new(),
            ack_timeout: Duration::from_secs(5),
            ack_retries: 2,
            connect_timeout: Duration::from_secs(5),
            connect_patience: Duration::ZERO,
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            outbox_messages_max: 10_000,
            outbox: None,
            requests_max: 1_024,
            events_max: 10_000,
            close_timeout: Duration::from_secs(2),
        }
    }

    /// What no server could make work.
    pub(super) fn check(&self, needs_servers: bool) -> Result<(), ConnectError> {
        if needs_servers && self.servers.is_empty() {
            return Err(ConnectError::InvalidConfig("no server is named"));
        }
        if self.credentials.len() > CREDENTIALS_BYTES_MAX {
            return Err(ConnectError::InvalidConfig("the credentials are longer than 4 KiB"));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Config {
    /// Without the credentials: they have no business in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("servers", &self.servers)
            .field("user", &self.user)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}
