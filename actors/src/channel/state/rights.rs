//! What a room's people may do: loaded when a device joins, kept while it is attached, changed as the store is.
//!
//! A change is told after the store has it, so a device that joins later reads it; one that is attached, or waits for
//! what the store says, is given it here. Nothing that is decided about a publish or a fetch waits for anything.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use parlor_protocol::{
    Code, Name, Seq,
    message::{Durability, GapReason, JoinFrom, Role},
};

use super::{BUSY_RETRY_MS, Effect, State};
use crate::{
    channel::{
        devices::{Device, Rights},
        position::{Extent, Start},
    },
    members::{
        Changed, Member, MembersChanged,
        announcing::Announcement,
        deciding,
        rights::{Act, Kind, hides_past, may},
    },
    message::FromChannel,
    port::{DeviceKey, Loaded, Mark, Marks, Now, Records, Run, StoreError},
};

/// What a channel knows of a room's people, besides what each device's user may do.
#[derive(Debug)]
pub(super) struct People {
    pub(super) kind: Kind,
    pub(super) hides_past: bool,
    /// How many people the store knows; where there are none, nothing has to be read.
    pub(super) known: u64,
    /// The number of the newest change of members that the store had when the room was loaded…
    pub(super) loaded_change: u64,
    /// …and of the newest one that this channel has heard of.
    pub(super) heard: u64,
    /// What has yet to be recorded, oldest first.
    pub(super) unannounced: VecDeque<Announcement>,
    /// In a room without a log on disk: who was added since the room was loaded, and where that was.
    added: HashMap<Name, Mark>,
    /// Arbiters whose subscribers are taken up…
    pub(super) adopting: Vec<u16>,
    /// …once the rights of so many devices are loaded.
    adopted_loading: usize,
}

impl People {
    /// Where a user was added, as far as only this channel knows.
    pub(super) fn added(&self, user: &Name) -> Mark {
        self.added.get(user).copied().unwrap_or_default()
    }

    /// How many people the room knows, the banned among them.
    pub(super) fn known(&self) -> u64 {
        self.known
    }

    /// Whether subscribers of a channel before wait to be taken up.
    pub(super) fn are_being_taken_up(&self) -> bool {
        self.adopted_loading > 0 || !self.adopting.is_empty()
    }

    pub(super) fn new(loaded: &Loaded) -> Self {
        Self {
            kind: deciding::kind(&loaded.name, loaded.options.access),
            hides_past: hides_past(&loaded.options),
            known: loaded.known,
            loaded_change: loaded.change,
            heard: loaded.change,
            unannounced: loaded.announcements.iter().cloned().collect(),
            added: HashMap::new(),
            adopting: Vec::new(),
            adopted_loading: 0,
        }
    }
}

impl State {
    pub(super) fn rights_of(&self, device: &DeviceKey) -> Option<Rights> {
        self.devices.get(device)?.rights
    }

    /// A stranger who comes back is there from now on, not since he was there before.
    pub(super) fn meet_again(&mut self, device: &DeviceKey) {
        let stranger = self.rights(&device.user, None);
        if let Some(known) = self.devices.device(device)
            && known.is_alone()
            && let Some(rights) = &mut known.rights
            && rights.role.is_none()
        {
            *rights = stranger;
        }
    }

    /// Has a device's rights loaded, if they are not known.
    pub(super) fn want_rights(&mut self, device: &DeviceKey) {
        let known = (self.people.known == 0).then(|| self.rights_on(device, None));
        if self.devices.wants_rights(device, known) {
            self.effects.push_back(Effect::LoadRights(device.clone()));
        }
    }

    fn rights(&self, user: &Name, member: Option<&Member>) -> Rights {
        let Some(member) = member else {
            return Rights { since: self.extent.tail + 1, count: self.committed_count, ..Rights::default() };
        };
        let since = match self.people.added.get(user) {
            Some(mark) => mark.seq + 1,
            None => member.since_in(&self.extent.epochs),
        };
        Rights { role: Some(member.role), since, ..Rights::default() }
    }

    /// What the store says that a device's user may do, who may have come to the channel before this one.
    fn rights_on(&self, device: &DeviceKey, member: Option<&Member>) -> Rights {
        let rights = self.rights(&device.user, member);
        match self.devices.get(device).and_then(|device| device.met) {
            Some(met) if member.is_none() => {
                let Mark { seq, count } = self.within_tail(met);
                Rights { since: seq + 1, count, ..rights }
            }
            _ => rights,
        }
    }

    pub(super) fn on_rights(&mut self, device: &DeviceKey, member: Result<Option<Member>, StoreError>) {
        let adopted = self.devices.device(device).is_some_and(|device| std::mem::take(&mut device.adopted));
        match member {
            Ok(member) => {
                let rights = self.rights_on(device, member.as_ref());
                let is_back = self.devices.get(device).is_some_and(Device::is_let_in);
                let waited = self.devices.rights_loaded(device, rights);
                if is_back {
                    self.note_members([&device.user]);
                }
                for join in waited {
                    self.on_device_ready(join);
                }
            }
            Err(error) => {
                tracing::warn!(room = %self.name, user = %device.user, %error, "a user's role could not be loaded");
                if adopted {
                    // Nobody may be served on a guess. The supervisor tries again, at its pace.
                    return self.effects.push_back(Effect::Stop);
                }
                for join in self.devices.rights_not_loaded(device) {
                    self.detach_user(&join.device);
                    self.devices.detach(&join.device);
                    self.refuse(join.conn, join.request, Code::Busy, BUSY_RETRY_MS, "the store is busy");
                }
            }
        }
        if adopted {
            self.people.adopted_loading -= 1;
            self.finish_adoptions();
        }
    }

    /// A subscriber of the channel before this one: it is taken up once it is known what its user may do.
    pub(super) fn adopt(&mut self, device: &DeviceKey) {
        self.want_rights(device);
        if let Some(device) = self.devices.device(device)
            && device.rights.is_none()
            && !std::mem::replace(&mut device.adopted, true)
        {
            self.people.adopted_loading += 1;
        }
    }

    pub(super) fn finish_adoptions(&mut self) {
        if self.people.adopted_loading > 0 || self.people.adopting.is_empty() {
            return;
        }
        let is_ahead = |rights| self.is_ahead(rights);
        if self.devices.iter().any(|(_, device)| device.is_attached() && device.rights.is_some_and(is_ahead)) {
            return; // Until that is told.
        }
        for arbiter in std::mem::take(&mut self.people.adopting) {
            let Extent { epochs, first, trimmed, tail } = self.extent.clone();
            self.relay(arbiter, FromChannel::Adopted { epochs, first, trimmed, tail });
        }
        self.expel();
        // It may have been hidden while nobody ran the room.
        self.hide(|_, _| true);
    }

    pub(super) fn on_changed(&mut self, now: Now, id: u64, change: &Changed) {
        match change {
            Changed::Configured(_, options) => {
                let kept = self.options.records_max > 0;
                self.options = *options;
                self.people.kind = deciding::kind(&self.name, options.access);
                let hid = std::mem::replace(&mut self.people.hides_past, hides_past(options));
                if !hid {
                    self.hide(|_, _| true);
                }
                // It may keep less from now on. If it keeps more, what was gone must not come back.
                self.keep(0);
                if kept {
                    self.trim_hidden();
                }
            }
            Changed::Members(change) => {
                self.on_members(change);
                self.note_announcements(change);
                self.announce(now);
            }
            Changed::Made { .. } | Changed::Deleted { .. } => {}
        }
        self.expel();
        self.effects.push_back(Effect::Told(id));
    }

    fn on_members(&mut self, change: &MembersChanged) {
        self.people.known = change.counts.known();
        let in_memory = self.options.durability == Durability::Memory;
        let now = Mark { seq: self.extent.tail, count: self.committed_count };
        for one in &change.users {
            let role = one.after.map(|after| after.role);
            let gone = matches!(role, None | Some(Role::Banned));
            if gone {
                // The store has forgotten them with the membership.
                let out = !self.users.attached(&one.user).is_empty() || !may(self.people.kind, role, Act::Join);
                self.users.reset(&one.user, out);
            } else {
                self.users.let_in(&one.user);
            }
            self.note_in_asked(&one.user, gone);
            if let Some(after) = one.after {
                let since = if in_memory { now } else { after.added_at() };
                let known = one.before.is_some_and(|before| before.added == after.added);
                if !known {
                    self.users.raise(&one.user, &Marks { since, ..Marks::default() });
                }
            }
        }
        if in_memory {
            for one in &change.users {
                match one.after {
                    // Whoever was there keeps since when.
                    Some(after) if one.before.is_some_and(|before| before.added == after.added) => {}
                    Some(_) => drop(self.people.added.insert(one.user.clone(), now)),
                    None => drop(self.people.added.remove(&one.user)),
                }
            }
        }
        let changed: HashMap<&Name, Rights> =
            change.users.iter().map(|one| (&one.user, self.rights(&one.user, one.after.as_ref()))).collect();
        let mut later: HashSet<Name> = HashSet::new();
        for (key, device) in self.devices.each() {
            if let Some(rights) = changed.get(&key.user) {
                let gone = matches!(rights.role, None | Some(Role::Banned));
                // Who is added again before he is out was put out all the same, and his client is told so.
                let out = device.is_let_in() && (gone || device.rights.is_some_and(|before| before.out));
                let before = device.rights.replace(Rights { out, ..*rights });
                if before.is_some_and(|before| before.since < rights.since) {
                    later.insert(key.user.clone());
                }
            }
        }
        self.hide(|user, _| later.contains(user));
        self.note_members(change.users.iter().map(|one| &one.user));
    }

    /// Whether what was said before a user was added is not told yet: it would be delivered to him if he were there. The
    /// store had it when he was added, so it is soon told, unless the room's records can no longer be stored.
    pub(super) fn is_ahead(&self, rights: Rights) -> bool {
        self.is_untold(rights) && self.people.hides_past && rights.may(self.people.kind, Act::Join)
    }

    /// The same, whoever may read it: who is attached as he was added begins behind it.
    pub(super) fn is_untold(&self, rights: Rights) -> bool {
        self.extent.tail + 1 < rights.since && self.failed.is_none() && rights.role.is_some()
    }

    /// Strangers who are here may have become members: their relays keep that in mind, for a channel after this one.
    fn note_members<'a>(&mut self, users: impl IntoIterator<Item = &'a Name>) {
        let mut members = Vec::new();
        for user in users {
            let mut noted = false;
            for tag in self.users.attached(user) {
                let key = DeviceKey { user: user.clone(), tag: *tag };
                noted |= self.devices.device(&key).is_some_and(Device::note_member);
            }
            if noted {
                members.push(user.clone());
            }
        }
        if !members.is_empty() {
            let members: Arc<[Name]> = members.into();
            self.relay_all(|| FromChannel::Members(members.clone()));
        }
    }

    /// Whether some device of this user is being put out. Relays are told of users: who came in on another one would be put
    /// out with it when that is said again.
    pub(super) fn is_being_put_out(&self, user: &Name) -> bool {
        self.users.attached(user).iter().any(|tag| {
            let known = self.devices.get(&DeviceKey { user: user.clone(), tag: *tag });
            known.is_some_and(|known| known.is_attached() && known.rights.is_some_and(|rights| rights.out))
        })
    }

    /// Detaches everybody who may not be here any more, or was removed.
    pub(super) fn expel(&mut self) {
        let kind = self.people.kind;
        let expelled = |rights: Rights| !rights.may(kind, Act::Join);
        let devices =
            self.devices.each().filter(|(_, device)| device.is_attached() && device.rights.is_some_and(expelled));
        let mut users: Vec<Name> = devices.map(|(key, _)| key.user.clone()).collect();
        if users.is_empty() {
            return;
        }
        // He may be here on several devices.
        users.sort_unstable();
        users.dedup();
        let users: Arc<[Name]> = users.into();
        let (code, message) = (Code::Forbidden, "the user was removed, or may no longer be in this room");
        self.relay_all(|| FromChannel::Detach { users: users.clone(), code, message });
    }

    /// Tells every arbiter that has subscribers.
    fn relay_all(&mut self, news: impl Fn() -> FromChannel) {
        for arbiter in (0..).take(self.subscribers.len()) {
            if self.subscribers[usize::from(arbiter)] > 0 {
                self.relay(arbiter, news());
            }
        }
    }

    /// Where a join begins, and the first seq that its user may read.
    pub(super) fn start(&self, from: JoinFrom, rights: Rights) -> (Start, Seq) {
        let Some(seen) = self.seen_by(rights) else { return (self.extent.start(from), self.extent.first) };
        let mut start = seen.start(from);
        if let Some((_, _, why)) = &mut start.gap
            && matches!(*why, GapReason::TRIMMED | GapReason::EXPIRED)
        {
            *why = GapReason::NOT_YOURS;
        }
        (start, seen.first)
    }

    /// What of the room a user may read, if that is less than there is.
    pub(super) fn seen_by(&self, rights: Rights) -> Option<Extent> {
        let first = if self.people.hides_past { rights.since.min(self.extent.tail + 1) } else { 0 };
        (first > self.extent.first).then(|| Extent { first, ..self.extent.clone() })
    }
}

/// Says of what is hidden from a user that it is not his, rather than that it is gone.
pub(super) fn not_yours(records: &mut Records, first: Seq) {
    for run in &mut records.runs {
        if let Run::Gap { to, why, .. } = run
            && *to < first
        {
            *why = GapReason::NOT_YOURS;
        }
    }
}

#[cfg(test)]
mod tests;
