//! Changes of the club's members, as the host makes them.

use parlor_actors::{
    members::{Asker, Changed, RoomChange, What},
    port::Store,
    supervisor::state::Refusal,
};

use super::{
    CLUB_NUMBER, House,
    supervising::{ToSupervisor, Waiter},
};
use crate::club::{CLUB, FIRST};

impl House {
    /// Makes the club, before anything else happens.
    pub fn make_club(&mut self) {
        let options = self.club.options;
        let members = FIRST.map(|(user, role)| (user.parse().unwrap(), role)).into();
        let change = self.change_of(What::Create { options, members, or_find: false });
        self.store.change(change, Box::new(|made| assert!(made.unwrap().is_ok())));
        self.store.run();
        self.club.observe(&self.store, CLUB_NUMBER);
    }

    /// The host wants the club's members changed.
    pub fn change_club(&mut self, what: What) {
        let users = match &what {
            What::Set(_, users) | What::Remove(users) => users.clone(),
            _ => Vec::new(),
        };
        let waiter = Some(Waiter::Host(self.club.begin(&users)));
        self.log(|| format!("the host wants {what:?}"));
        let change = self.change_of(what);
        self.office.push_back(ToSupervisor::Change { change, waiter });
    }

    pub(super) fn on_changed(&mut self, number: u64, outcome: &Result<Changed, Refusal>) {
        self.log(|| format!("change {number} is answered: {outcome:?}"));
        self.count(if outcome.is_ok() { "members changed" } else { "members not changed" });
        self.club.answered(number, outcome.as_ref().ok(), &self.store, self.store.budget().records());
    }

    fn change_of(&self, what: What) -> RoomChange {
        RoomChange { name: CLUB.parse().unwrap(), by: Asker::Host, at: self.now().unix_ms, members_max: 100, what }
    }
}
