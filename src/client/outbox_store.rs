//! Where a client keeps what is not acked, so that it outlives the program.

use std::io;

use parlor_protocol::{Name, Nonce};

use super::event::Outgoing;

/// Keeps the messages of one device that are not acked yet.
///
/// A client that has one ([`Config::outbox`](super::Config::outbox)) appends each message before it goes out, and removes
/// it once it is stored or refused for good. What is left when the program ends goes out at the next join of its room,
/// under the nonce that it had: so it is one message, however often the program died. For that, the device must be the
/// same, and no two clients may have one store at a time.
///
/// Called from the client's task, which waits meanwhile: must be quick.
pub trait OutboxStore: Send {
    /// Keeps a message. Nonces of a room rise.
    ///
    /// # Errors
    /// If it cannot be kept. Then it is not sent, and its sender is told.
    fn append(&mut self, room: &Name, nonce: Nonce, message: &Outgoing) -> io::Result<()>;

    /// Keeps a message under another nonce, at once: there is no time at which it is kept under both or neither.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    fn renumber(&mut self, room: &Name, from: Nonce, to: Nonce) -> io::Result<()>;

    /// Keeps a message no longer.
    ///
    /// # Errors
    /// If that cannot be noted. Then the message goes out once more at the next start, which the server takes for a
    /// repeat. The client logs it and counts it in [`Stats::outbox_errors`](super::Stats::outbox_errors).
    fn remove(&mut self, room: &Name, nonce: Nonce) -> io::Result<()>;

    /// The messages of a room, in the order of their nonces.
    ///
    /// # Errors
    /// If they cannot be read. Then the room is not joined, since what is sent to it would overtake them.
    fn load(&mut self, room: &Name) -> io::Result<Vec<(Nonce, Outgoing)>>;
}
