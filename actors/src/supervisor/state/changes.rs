//! Changes of rooms and members: from whoever wants one to the store, to the room's channel if it runs, and back.
//!
//! A change is answered when it counts everywhere: it is stored, and the channel has said that it goes by it. A channel
//! that is being built is told when it is there; one that died meanwhile has a successor, which reads the store.

use std::sync::Arc;

use parlor_protocol::{
    Code, Name, RoomNumber,
    message::{JoinFrom, Role},
};

use super::{Effect, Refusal, State, Status};
use crate::{
    members::{Asker, Changed, Member, MemberChange, RoomChange, What},
    port::{RoomOptions, StoreError},
};

/// A change that the store has and a channel has not confirmed.
#[derive(Debug)]
pub(super) struct Telling<W> {
    room: RoomNumber,
    name: Name,
    waiter: Option<W>,
    change: Arc<Changed>,
}

impl<H: Clone, S: Clone, W> State<H, S, W> {
    pub(super) fn on_change(&mut self, change: RoomChange, waiter: Option<W>) {
        self.effects.push_back(Effect::Change { change, waiter });
    }

    pub(super) fn on_changed(
        &mut self,
        change: RoomChange,
        waiter: Option<W>,
        outcome: Result<Result<Changed, Refusal>, StoreError>,
    ) {
        let changed = match outcome {
            Ok(Ok(changed)) => changed,
            Ok(Err(refusal)) => return self.answer(waiter, Err(refusal)),
            Err(error) => {
                if matches!(change.what, What::Purge(_)) {
                    // What is left is out of everybody's sight; the next tick goes on.
                    self.purges.push(change);
                } else if error != StoreError::Busy {
                    tracing::error!(room = %change.name, %error, "a room could not be changed");
                }
                let refusal = match error {
                    StoreError::Busy => (Code::Busy, "the store is busy"),
                    _ => (Code::StoreUnavailable, "the store could not change the room"),
                };
                return self.answer(waiter, Err(refusal));
            }
        };
        match changed {
            Changed::Made { room, ref name, fresh } => {
                if fresh {
                    self.tell_first_members(room, name, &change);
                }
                self.answer(waiter, Ok(changed));
            }
            Changed::Deleted { room, more } => {
                if more {
                    self.effects.push_back(Effect::Change { change: purge(&change, room), waiter: None });
                }
                // A purge deletes nothing that anybody still sees.
                if !matches!(change.what, What::Purge(_)) {
                    self.on_deleted(&change.name, room, waiter);
                }
            }
            Changed::Configured(room, _) => self.tell(change.name, room, waiter, changed, false),
            Changed::Members(ref members) => {
                let (room, wakes) = (members.room, !members.announcements.is_empty());
                self.tell(change.name, room, waiter, changed, wakes);
            }
        }
    }

    /// The room's channel goes by a change.
    pub(super) fn on_told(&mut self, id: u64) {
        if let Some(Telling { waiter, name, change, .. }) = self.telling.remove(&id) {
            self.counts(&name, waiter, Arc::unwrap_or_clone(change));
        }
    }

    fn tell(&mut self, name: Name, number: RoomNumber, waiter: Option<W>, changed: Changed, wakes: bool) {
        // Subscribers of a room that sleeps may have to go.
        let sleeps = self.sleepers.number(&name) == Some(number);
        if (wakes || sleeps) && !self.rooms.contains_key(&name) && !self.load(name.clone()) {
            self.sleepers.changed(&name);
        }
        let Some(room) = self.rooms.get_mut(&name).filter(|room| room.number.is_none_or(|known| known == number))
        else {
            return self.counts(&name, waiter, changed);
        };
        let handle = match &room.status {
            Status::Running { handle, .. } => Some(handle.clone()),
            Status::Loading { .. } | Status::Falling { .. } => None,
            // Whoever takes it up again reads the store.
            Status::Resting { .. } => return self.counts(&name, waiter, changed),
        };
        self.changes += 1;
        let (id, change) = (self.changes, Arc::new(changed));
        match handle {
            Some(handle) => self.effects.push_back(Effect::Tell { handle, id, change: change.clone() }),
            None => room.untold.push(id),
        }
        self.telling.insert(id, Telling { room: number, name, waiter, change });
    }

    /// A change counts everywhere: whoever wanted it is answered, and sessions that follow users who were added are told.
    fn counts(&mut self, name: &Name, waiter: Option<W>, changed: Changed) {
        if let Changed::Members(members) = &changed {
            let belongs = |member: &Member| member.role != Role::Banned;
            for MemberChange { user, before, after } in &members.users {
                if let (None, Some(after)) = (before.filter(belongs), after.filter(belongs)) {
                    let from = JoinFrom::Position(after.epoch, after.since.saturating_sub(1));
                    self.sessions.on_added(user, members.room, name, from);
                }
            }
        }
        self.answer(waiter, Ok(changed));
    }

    /// A room was made: sessions that follow its first members are told.
    fn tell_first_members(&mut self, room: RoomNumber, name: &Name, change: &RoomChange) {
        let What::Create { members, .. } = &change.what else { return };
        let maker = if let Asker::User(user) = &change.by { Some(user) } else { None };
        let others = members.iter().map(|(user, _)| user).filter(|user| Some(*user) != maker);
        for user in maker.into_iter().chain(others) {
            self.sessions.on_added(user, room, name, JoinFrom::Seq(1));
        }
    }

    /// A channel is there: it is told what changed while it was built.
    pub(super) fn tell_untold(&mut self, name: &Name, handle: &H) {
        let untold = self.rooms.get_mut(name).map(|room| std::mem::take(&mut room.untold)).unwrap_or_default();
        for id in untold {
            if let Some(telling) = self.telling.get(&id) {
                let (handle, change) = (handle.clone(), telling.change.clone());
                self.effects.push_back(Effect::Tell { handle, id, change });
            }
        }
    }

    /// A room has no channel that could confirm anything: what it was told counts all the same.
    pub(super) fn settle_tellings(&mut self, number: RoomNumber) {
        let mut told: Vec<u64> = self.telling.iter().filter(|(_, it)| it.room == number).map(|(id, _)| *id).collect();
        told.sort_unstable(); // In the order in which they were made.
        told.into_iter().for_each(|id| self.on_told(id));
    }

    /// As [`settle_tellings`](Self::settle_tellings), for a room that could not be loaded.
    pub(super) fn settle_untold(&mut self, untold: Vec<u64>) {
        untold.into_iter().for_each(|id| self.on_told(id));
    }

    fn on_deleted(&mut self, name: &Name, number: RoomNumber, waiter: Option<W>) {
        let sleeps = self.sleepers.number(name) == Some(number);
        let Some(room) = self.rooms.get_mut(name).filter(|room| room.number == Some(number) || sleeps) else {
            if sleeps {
                return self.gone(number, waiter);
            }
            return self.answer(waiter, Ok(Changed::Deleted { room: number, more: false }));
        };
        match &mut room.status {
            Status::Running { handle, .. } | Status::Falling { handle, .. } => {
                // Its death is the last that is heard of it.
                room.ending = Some(waiter);
                self.effects.push_back(Effect::End(handle.clone()));
            }
            Status::Loading { .. } => {
                // The load finds no such room, or a new one.
                room.number = None;
                self.gone(number, waiter);
            }
            Status::Resting { .. } => {
                self.rooms.remove(name);
                self.resting.retain(|resting| resting != name);
                self.gone(number, waiter);
            }
        }
    }

    /// A room is no more, and neither is its channel.
    pub(super) fn gone(&mut self, number: RoomNumber, waiter: Option<W>) {
        if let Some(name) = self.names.remove(&number) {
            self.sleepers.forget(&name);
        }
        self.settle_tellings(number);
        self.effects.push_back(Effect::Gone(number));
        self.answer(waiter, Ok(Changed::Deleted { room: number, more: false }));
    }

    /// Who waited for a room that is no more wants what now has its name.
    pub(super) fn resolve_again(&mut self, name: &Name, waiting: Vec<(W, Option<RoomOptions>)>) {
        for (waiter, create) in waiting {
            self.on_resolve(name.clone(), create, waiter);
        }
    }

    /// Goes on with what could not be cleared away before.
    pub(super) fn purge_on(&mut self) {
        for change in std::mem::take(&mut self.purges) {
            self.effects.push_back(Effect::Change { change, waiter: None });
        }
    }

    fn answer(&mut self, waiter: Option<W>, outcome: Result<Changed, Refusal>) {
        if let Some(waiter) = waiter {
            self.effects.push_back(Effect::Changed { waiter, outcome });
        }
    }
}

fn purge(change: &RoomChange, room: RoomNumber) -> RoomChange {
    RoomChange { by: Asker::Host, what: What::Purge(room), ..change.clone() }
}
