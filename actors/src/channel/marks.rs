//! How far users are in a room: read, delivered, sent. And what follows from it: how much is unread.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use parlor_protocol::{DeviceTag, Name, Seq};

use super::absent::Absent;
use crate::{
    pools::Share,
    port::{Mark, Marks},
};

/// How many countable records a user has not read, in a room whose tail has this count.
///
/// What lies at or below one of these counts as read: what he has read, what he sent himself, what was there before he was
/// added (`since` is the place before that), what the room has forgotten on purpose. The highest counts.
#[must_use]
pub fn unread(count: u64, marks: &Marks, since: Mark, gone: Mark) -> u64 {
    // Counts rise with seqs, so that the highest seq has the highest count.
    let seen = [marks.read, marks.sent, since, gone].into_iter().map(|mark| mark.count).max();
    count.saturating_sub(seen.unwrap_or_default())
}

/// The users whose marks a channel holds: those attached, and those whose marks the store does not have yet.
///
/// Those who left are kept until many others have left since.
#[derive(Debug)]
pub struct Users<Waiting> {
    users: HashMap<Name, Box<User<Waiting>>, RandomState>,
    /// How many of them the store does not know as they are.
    dirty: usize,
    absent: Absent<Name>,
    in_memory: bool,
}

#[derive(Debug)]
struct User<Waiting> {
    marks: Marks,
    /// The devices of his subscribers, one for each.
    attached: Vec<DeviceTag>,
    /// Whether `marks` has what the store has.
    loaded: bool,
    loading: bool,
    /// Whether the store has to be told.
    dirty: bool,
    /// Whether the store is being told.
    saving: bool,
    /// What is being loaded is of a membership that has ended.
    stale: bool,
    /// He may not be in the room: nothing moves his marks.
    out: bool,
    /// How many searches for a count are under way for him.
    pins: u32,
    /// He is absent since he was given this ticket.
    ticket: Option<u64>,
    waiting: Vec<Waiting>,
}

impl<Waiting> User<Waiting> {
    fn is_needed(&self) -> bool {
        !self.attached.is_empty() || self.dirty || self.saving || self.loading || self.pins > 0
    }
}

impl<Waiting> Users<Waiting> {
    /// No user. `in_memory` says that there is no store; of those who left `absent_max` are kept, and no more than `share`
    /// may have.
    #[must_use]
    pub fn new(in_memory: bool, absent_max: usize, share: Share) -> Self {
        Self { users: HashMap::default(), dirty: 0, absent: Absent::new(absent_max, share), in_memory }
    }

    /// A subscriber is there.
    pub fn attach(&mut self, name: &Name, device: DeviceTag) {
        let user = self.entry(name);
        user.attached.push(device);
        user.ticket = None;
    }

    /// True if the user's marks have to be loaded, which is then under way.
    #[must_use]
    pub fn wants_load(&mut self, name: &Name) -> bool {
        let user = self.entry(name);
        !user.loaded && !std::mem::replace(&mut user.loading, true)
    }

    /// Leaves `waiting` with a user until his marks are loaded, or gives it back if they are.
    pub fn wait(&mut self, name: &Name, waiting: Waiting) -> Option<Waiting> {
        match self.users.get_mut(name) {
            Some(user) if !user.loaded => {
                user.waiting.push(waiting);
                None
            }
            _ => Some(waiting),
        }
    }

    /// Takes in what the store has. What waited for it is returned; the user stays until [`settle`](Self::settle).
    pub fn loaded(&mut self, name: &Name, stored: &Marks) -> Vec<Waiting> {
        let Some(user) = self.users.get_mut(name) else { return Vec::new() };
        (user.loading, user.loaded) = (false, true);
        // What he sent is the room's, whatever he was when he sent it.
        let sent = Marks { sent: stored.sent, ..Marks::default() };
        user.marks.merge(if std::mem::take(&mut user.stale) { &sent } else { stored });
        std::mem::take(&mut user.waiting)
    }

    /// A load failed: returns what waited for it.
    pub fn not_loaded(&mut self, name: &Name) -> Vec<Waiting> {
        let Some(user) = self.users.get_mut(name) else { return Vec::new() };
        user.loading = false;
        std::mem::take(&mut user.waiting)
    }

    /// A subscriber is gone.
    pub fn detach(&mut self, name: &Name, device: DeviceTag) {
        if let Some(user) = self.users.get_mut(name)
            && let Some(at) = user.attached.iter().position(|tag| *tag == device)
        {
            user.attached.swap_remove(at);
            self.settle(name);
        }
    }

    /// Raises a user's marks; true if that changed them. What he sent is told only when something else is: the store finds
    /// it out by itself.
    pub fn raise(&mut self, name: &Name, marks: &Marks) -> bool {
        let Some(user) = self.users.get_mut(name).filter(|user| !user.out) else { return false };
        let before = user.marks;
        user.marks.merge(marks);
        let changed = (before.read, before.delivered) != (user.marks.read, user.marks.delivered);
        if changed {
            self.stain(name);
        }
        changed
    }

    /// Notes what a user sent last; kept when he leaves.
    pub fn sent(&mut self, name: &Name, sent: Mark) {
        if let Some(user) = self.users.get_mut(name)
            && sent > user.marks.sent
            && !user.out
        {
            user.marks.sent = sent;
            self.stain(name);
        }
    }

    /// A user is no member any more, and the store has forgotten his marks. `out` says that he may not be here either.
    pub fn reset(&mut self, name: &Name, out: bool) {
        let Some(user) = self.users.get_mut(name) else { return };
        user.marks = Marks { sent: user.marks.sent, ..Marks::default() };
        user.stale |= user.loading;
        (user.out, user.saving) = (out, false);
        let was_dirty = std::mem::take(&mut user.dirty);
        let needed = user.is_needed();
        self.dirty -= usize::from(was_dirty);
        // What is known of him is nothing now.
        if !self.in_memory && !needed {
            self.users.remove(name);
        }
    }

    /// A user may be here.
    pub fn let_in(&mut self, name: &Name) {
        if let Some(user) = self.users.get_mut(name) {
            user.out = false;
        }
    }

    /// A user's marks, if he is known here.
    #[must_use]
    pub fn marks(&self, name: &Name) -> Option<&Marks> {
        self.users.get(name).map(|user| &user.marks)
    }

    /// The devices of a user's subscribers, one for each.
    #[must_use]
    pub fn attached(&self, name: &Name) -> &[DeviceTag] {
        self.users.get(name).map_or(&[], |user| &user.attached)
    }

    /// All users known here with their marks, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Marks)> {
        self.users.iter().map(|(name, user)| (name, &user.marks))
    }

    /// The marks that the store may not have.
    #[must_use]
    pub fn unsaved(&self) -> Vec<(Name, Marks)> {
        let unsaved = self.users.iter().filter(|(_, user)| user.dirty || user.saving);
        unsaved.map(|(name, user)| (name.clone(), user.marks)).collect()
    }

    /// How many are known.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether something is being loaded or looked for, for any of them.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.users.values().any(|user| user.loading || user.pins > 0 || !user.waiting.is_empty())
    }

    /// How many the store has to be told of.
    #[must_use]
    pub fn dirty(&self) -> usize {
        self.dirty
    }

    /// Takes what the store has to be told, of at most `max` users: none of a seq above `tail`, which the store may never
    /// get. `sent` says what a user sent last from the devices that are attached. What it takes counts as being saved until
    /// [`saved`](Self::saved).
    #[must_use]
    pub fn take_dirty(
        &mut self,
        tail: Seq,
        max: usize,
        sent: impl Fn(&Name, &[DeviceTag]) -> Mark,
    ) -> Vec<(Name, Marks)> {
        let mut taken = Vec::new();
        for (name, user) in &mut self.users {
            if taken.len() == max || self.dirty == 0 {
                break;
            }
            // What the store has may be higher than what is known here until that is loaded.
            if user.dirty && user.loaded && !user.saving && user.marks.sent.seq <= tail {
                (user.dirty, user.saving) = (false, true);
                self.dirty -= 1;
                user.marks.sent = user.marks.sent.max(sent(name, &user.attached));
                taken.push((name.clone(), user.marks));
            }
        }
        taken.sort_unstable_by(|(name, _), (other, _)| name.cmp(other));
        taken
    }

    /// Users whom the store has to be told of, and whose marks could not be loaded yet.
    #[must_use]
    pub fn not_yet_loaded(&self) -> Vec<Name> {
        if self.dirty == 0 {
            return Vec::new();
        }
        let missing = self.users.iter().filter(|(_, user)| user.dirty && !user.loaded && !user.loading);
        let mut missing: Vec<Name> = missing.map(|(name, _)| name.clone()).collect();
        missing.sort_unstable(); // So that a simulation repeats itself.
        missing
    }

    /// The store has, or has not, what was taken. What it has not it is told again.
    pub fn saved(&mut self, names: &[Name], stored: bool) {
        for name in names {
            if let Some(user) = self.users.get_mut(name) {
                // Not if he was reset meanwhile.
                if std::mem::take(&mut user.saving) && !stored {
                    self.stain(name);
                }
            }
            self.settle(name);
        }
    }

    /// Keeps a user until [`unpin`](Self::unpin), whoever leaves.
    pub fn pin(&mut self, name: &Name) {
        if let Some(user) = self.users.get_mut(name) {
            user.pins += 1;
        }
    }

    /// As before [`pin`](Self::pin).
    pub fn unpin(&mut self, name: &Name) {
        if let Some(user) = self.users.get_mut(name) {
            user.pins = user.pins.saturating_sub(1);
        }
    }

    /// Forgets a user of whom nothing is needed any more, once many others have left since.
    pub fn settle(&mut self, name: &Name) {
        let Some(user) = self.users.get_mut(name).filter(|user| !user.is_needed()) else { return };
        // Without a store, there is nothing to remember of who has read nothing.
        let worth = if self.in_memory { user.marks != Marks::default() } else { user.loaded };
        if !worth {
            self.users.remove(name);
            return;
        }
        user.ticket = Some(self.absent.push(name.clone()));
        self.forget_oldest();
    }

    /// Forgets those who left first, if there are too many.
    pub fn forget_oldest(&mut self) {
        while let Some((oldest, ticket)) = self.absent.pop() {
            let idle = |user: &User<Waiting>| user.ticket == Some(ticket) && !user.is_needed();
            if self.users.get(&oldest).is_some_and(|user| idle(user)) {
                self.users.remove(&oldest);
            }
        }
    }

    fn stain(&mut self, name: &Name) {
        if !self.in_memory
            && let Some(user) = self.users.get_mut(name)
            && !std::mem::replace(&mut user.dirty, true)
        {
            self.dirty += 1;
        }
    }

    fn entry(&mut self, name: &Name) -> &mut User<Waiting> {
        let in_memory = self.in_memory;
        self.users.entry(name.clone()).or_insert_with(|| {
            Box::new(User {
                marks: Marks::default(),
                attached: Vec::with_capacity(1),
                // Where there is no store, nothing is known of an unknown user.
                loaded: in_memory,
                loading: false,
                dirty: false,
                saving: false,
                stale: false,
                out: false,
                pins: 0,
                ticket: None,
                waiting: Vec::new(),
            })
        })
    }
}

#[cfg(test)]
mod tests;
