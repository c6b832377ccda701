//! The host puts sessions out.

use parlor_actors::{message::Conn, supervisor::state::sessions::Which};
use parlor_protocol::{DeviceTag, Name};

use super::{
    House,
    supervising::{ToSupervisor, Waiter},
};

impl House {
    /// The host puts a user's sessions out: all, those of a device, or the one of a connection.
    pub fn kick(&mut self, user: Name, device: DeviceTag, conn: Option<Conn>) {
        let which = match (self.chance.below(3), conn) {
            (0, _) => Which::All,
            (1, Some(conn)) => Which::Session(conn),
            _ => Which::Device(device),
        };
        self.log(|| format!("the host puts {user} out: {which:?}"));
        self.office.push_back(ToSupervisor::Kick { user, which });
    }

    pub(super) fn on_kicked(&mut self, waiter: &Waiter, sessions: usize) {
        assert!(matches!(waiter, Waiter::Kick), "{waiter:?} put nobody out");
        self.count(if sessions == 0 { "nobody to kick" } else { "kicked" });
    }
}
