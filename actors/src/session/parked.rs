//! What is left of a session while it has no connection.

use parlor_protocol::{Name, RoomNumber};

use super::{heartbeat::Heartbeat, state::SignalPace, upload::Upload};
use crate::limits::Limits;

/// A session without a connection: enough for its client to go on where it was, until its lease ends.
///
/// It is attached to no room meanwhile. Its client's positions say where delivery goes on.
#[derive(Debug)]
pub struct Parked {
    /// The rooms that it was attached to.
    pub(super) rooms: Vec<(RoomNumber, Name)>,
    /// A long message of which some parts are there.
    pub(super) upload: Option<Box<Upload>>,
    pub(super) heartbeat: Heartbeat,
    pub(super) signals: SignalPace,
    /// When its client's last frame came, on the monotonic clock.
    pub(super) last_frame: u64,
}

impl Parked {
    /// A session that was attached to no room, or of which no more is known. Its client's last frame came then, on the
    /// monotonic clock.
    #[must_use]
    pub fn idle(heartbeat: Heartbeat, limits: &Limits, last_frame: u64) -> Self {
        Self { rooms: Vec::new(), upload: None, heartbeat, signals: SignalPace::new(limits), last_frame }
    }

    /// When it has to be looked at: its parts are forgotten, or it ends. On the monotonic clock.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        self.lease_ends().min(self.upload.as_ref().map_or(u64::MAX, |upload| upload.expires))
    }

    /// Time passed: forgets parts of which no more came. False if the session is over.
    #[must_use]
    pub fn lives(&mut self, now_mono: u64) -> bool {
        self.upload.take_if(|upload| upload.expires <= now_mono);
        now_mono < self.lease_ends()
    }

    fn lease_ends(&self) -> u64 {
        self.last_frame + self.heartbeat.lease_ms()
    }
}
