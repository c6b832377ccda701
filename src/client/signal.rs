//! What is said without being kept: that somebody types, where a figure of a game stands. Nothing is promised of it.

use bytes::Bytes;
use parlor_protocol::{DeviceTag, Name, message::SIGNAL_BYTES_MAX};
use tokio::sync::broadcast::{self, error::RecvError};

use std::sync::Arc;

use super::{
    Client, Handle, Membership, Room,
    error::RequestError,
    marking::Target,
    shared::{Command, Permit},
};

/// How many signals may wait for the driver; more are dropped.
const WAITING_MAX: usize = 64;

/// A signal of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Who said it.
    pub sender: Name,
    /// On which of the sender's devices.
    pub device_tag: DeviceTag,
    /// What it is about, as the application numbers it: the newer of two of one sender and key counts.
    pub key: u32,
    /// What is said; may be empty.
    pub payload: Bytes,
}

impl Room {
    /// Signals to all other sessions that have joined the room, who get it as [`Event::Signal`](super::Event::Signal). May
    /// be lost, and is while there is no connection: send again what still counts. Servers take 20 a second.
    ///
    /// # Errors
    /// If `payload` is longer than 512 bytes, or the client is closed.
    pub fn signal(&self, key: u32, payload: impl Into<Bytes>) -> Result<(), RequestError> {
        let Membership { handle, key: room } = &*self.inner.membership;
        handle.signal(Target::Room(*room), key, payload.into())
    }
}

impl Client {
    /// Signals to all other sessions of a user, who get it from [`signals`](Self::signals). May be lost, as
    /// [`Room::signal`].
    ///
    /// # Errors
    /// If `user` is not a name, `payload` is longer than 512 bytes, or the client is closed.
    pub fn signal(&self, user: &str, key: u32, payload: impl Into<Bytes>) -> Result<(), RequestError> {
        self.handle.signal(Target::User(Name::parse(user)?), key, payload.into())
    }

    /// The signals for this user, from now on. Those in rooms are among the rooms' events.
    #[must_use]
    pub fn signals(&self) -> Signals {
        Signals { queue: self.handle.shared.signals(), _handle: self.handle.clone() }
    }
}

impl Handle {
    fn signal(&self, to: Target, key: u32, payload: Bytes) -> Result<(), RequestError> {
        if payload.len() > SIGNAL_BYTES_MAX {
            return Err(RequestError::SignalTooLarge { bytes: payload.len() });
        }
        match Permit::take(&self.shared.signaling, WAITING_MAX) {
            Some(permit) => self.command(Command::Signal { to, key, payload, _permit: permit }),
            None => Ok(()), // Signals are what is dropped first.
        }
    }
}

/// The signals for a user. Who takes them too slowly gets the newest 64.
pub struct Signals {
    queue: broadcast::Receiver<Signal>,
    _handle: Arc<Handle>,
}

impl Signals {
    /// The next signal; `None` once the client is closed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Signal> {
        loop {
            match self.queue.recv().await {
                Ok(signal) => return Some(signal),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
