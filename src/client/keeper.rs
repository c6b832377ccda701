//! The driver's hand on the outbox on disk: rooms by their keys, and nothing at all where there is none.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use parlor_protocol::{Name, Nonce};

use super::{effect::RoomKey, event::Outgoing, outbox_store::OutboxStore};

/// See the module.
pub(super) struct Keeper {
    store: Option<Arc<Mutex<dyn OutboxStore>>>,
    rooms: HashMap<RoomKey, Name>,
}

impl Keeper {
    pub(super) fn new(store: Option<Arc<Mutex<dyn OutboxStore>>>) -> Self {
        Self { store, rooms: HashMap::new() }
    }

    /// A room is about to be joined: what is kept for it.
    pub(super) fn load(&mut self, key: RoomKey, name: &Name) -> io::Result<Vec<(Nonce, Outgoing)>> {
        let Some(store) = &self.store else { return Ok(Vec::new()) };
        // A room that is being left still has its messages on the way.
        let again = self.rooms.values().any(|other| other == name);
        let kept = if again { Vec::new() } else { lock(store).load(name)? };
        self.rooms.insert(key, name.clone());
        Ok(kept)
    }

    pub(super) fn keep(&self, key: RoomKey, nonce: Nonce, message: &Outgoing) -> io::Result<()> {
        self.with(key, |store, room| store.append(room, nonce, message))
    }

    pub(super) fn renumber(&self, key: RoomKey, from: Nonce, to: Nonce) -> io::Result<()> {
        self.with(key, |store, room| store.renumber(room, from, to))
    }

    pub(super) fn forget(&self, key: RoomKey, nonce: Nonce) -> io::Result<()> {
        self.with(key, |store, room| store.remove(room, nonce))
    }

    /// A room is gone.
    pub(super) fn leave(&mut self, key: RoomKey) {
        self.rooms.remove(&key);
    }

    fn with(&self, key: RoomKey, act: impl FnOnce(&mut dyn OutboxStore, &Name) -> io::Result<()>) -> io::Result<()> {
        match (&self.store, self.rooms.get(&key)) {
            (Some(store), Some(room)) => act(&mut *lock(store), room),
            _ => Ok(()),
        }
    }
}

/// A panic within the store leaves it to say so itself.
fn lock<'a>(store: &'a Mutex<dyn OutboxStore + 'static>) -> MutexGuard<'a, dyn OutboxStore + 'static> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}
