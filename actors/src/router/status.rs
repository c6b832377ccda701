//! What one user is told of another: whether he is online, since when, on which devices.

use std::{fmt, hash::Hash, sync::Arc};

use parlor_protocol::{
    Name, UnixMillis,
    message::{DeviceClass, DevicePresence, Network, PRESENCE_DEVICES_MAX, UserPresence},
};

use super::Entry;

/// Whether one user may see another: asked with who asks and whom he asks about. Called on arbiters' threads, often: must
/// not block.
#[derive(Clone)]
pub struct MaySee(Arc<Sees>);

type Sees = dyn Fn(&str, &str) -> bool + Send + Sync;

impl MaySee {
    /// Asks this.
    pub fn new(may_see: impl Fn(&str, &str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(may_see))
    }

    /// Whether `asker` may see `asked`. Everybody sees himself.
    #[must_use]
    pub fn allows(&self, asker: &str, asked: &str) -> bool {
        asker == asked || (self.0)(asker, asked)
    }
}

impl fmt::Debug for MaySee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MaySee")
    }
}

/// A user as others see him.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Since when he has been online without a break; `None` if he is offline.
    pub since: Option<UnixMillis>,
    /// His sessions, at most as many as are told; the newest if there are more.
    pub devices: Vec<DeviceStatus>,
}

/// One session of a user, as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceStatus {
    /// Its device.
    pub device: Name,
    /// What kind of device.
    pub device_class: DeviceClass,
    /// What it is connected through.
    pub network: Network,
    /// Whether it has a connection.
    pub connected: bool,
}

impl Status {
    /// The status of a user with these sessions, in the order in which they began.
    pub(super) fn of(since: UnixMillis, sessions: &[Arc<Entry>]) -> Self {
        let newest = &sessions[sessions.len().saturating_sub(PRESENCE_DEVICES_MAX)..];
        let device = |entry: &Arc<Entry>| DeviceStatus {
            device: entry.device().clone(),
            device_class: entry.device_class(),
            network: entry.network(),
            connected: entry.is_connected(),
        };
        let mut devices: Vec<DeviceStatus> = newest.iter().map(device).collect();
        // So that whoever goes and comes back looks as he did.
        devices
            .sort_by(|a, b| (&a.device, a.network as u8, a.connected).cmp(&(&b.device, b.network as u8, b.connected)));
        Self { since: (!sessions.is_empty()).then_some(since), devices }
    }

    /// Whether he is online.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.since.is_some()
    }

    /// The same as a message has it.
    #[must_use]
    pub fn told<'a>(&'a self, user: &'a str) -> UserPresence<'a> {
        let device = |known: &'a DeviceStatus| DevicePresence {
            device: &known.device,
            device_class: known.device_class,
            network: known.network,
            connected: known.connected,
        };
        let devices = parlor_protocol::List(self.devices.iter().map(device).collect());
        UserPresence { user, online: self.is_online(), since: self.since.unwrap_or_default(), devices }
    }
}

impl Hash for Status {
    /// Without the time: somebody who goes and comes back at once has not gone.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.is_online(), &self.devices).hash(state);
    }
}
