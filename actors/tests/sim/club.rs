//! A room with members: what the store's table of them allows, held against what sessions get and what is stored. In some
//! seeds strangers may come as well, and in some of those its past is hidden all the same.
//!
//! A change counts from its answer on; before that both what was and what will be are right. What is counted from then on is
//! exact: who is put out is brought nothing that is newer, who is muted says nothing more, and what was said before
//! somebody was added is never his where the past is hidden, nor what was said before he came as a stranger.

use std::collections::BTreeMap;

use parlor_actors::{
    members::{
        Changed, Member,
        rights::{Act, Kind, hides_past, may},
    },
    message::Attach,
    port::RoomOptions,
    testkit::{MemStore, with_deliver},
};
use parlor_protocol::{
    Name, RoomNumber, Seq,
    message::{Access, RecordKind, Role, decode_member_changes},
};

use places::{Place, Places};

mod places;

/// The room's name; its first letter says that it is synced.
pub const CLUB: &str = "synced club";

pub struct Club {
    pub options: RoomOptions,
    users: BTreeMap<String, Standing>,
    pub places: Places,
    /// Up to here records were looked at.
    seen: Seq,
    /// Whom each change that is not answered concerns.
    changing: BTreeMap<u64, Vec<String>>,
    changes: u64,
}

#[derive(Default)]
struct Standing {
    role: Option<Role>,
    /// Since when he is a member, if that is the last of what follows.
    open: Option<Seq>,
    /// What he may have been shown: from the first seq to the last.
    mine: Vec<(Seq, Seq)>,
    /// He says nothing that is stored above this.
    silent_above: Option<Seq>,
    /// He may not be there, and is shown nothing above this.
    barred_above: Option<Seq>,
    was_removed: bool,
    /// Since when he was a member, each time that a change made him one: two looks at the table may miss that.
    added: Vec<Seq>,
}

impl Club {
    pub fn new(options: RoomOptions) -> Self {
        let (users, changing) = (BTreeMap::new(), BTreeMap::new());
        Self { options, users, places: Places::default(), seen: 0, changing, changes: 0 }
    }

    /// Whether strangers may come.
    pub fn is_open(&self) -> bool {
        self.options.access == Access::Open
    }

    pub fn hides_past(&self) -> bool {
        hides_past(&self.options)
    }

    /// Whether a user is no member, and may be there.
    pub fn is_stranger(&self, user: &str) -> bool {
        self.is_open() && self.users.get(user).is_none_or(|standing| standing.role.is_none())
    }

    /// Another channel runs the room.
    pub fn begins_anew(&mut self) {
        let role = |user: &str| self.users.get(user).and_then(|standing| standing.role);
        let is = |user: &str, member| if member { belongs(role(user)) } else { role(user).is_none() };
        self.places.begin_anew(is);
    }

    fn may(&self, role: Option<Role>, act: Act) -> bool {
        may(Kind { access: self.options.access, direct: false }, role, act)
    }

    /// The channel lets somebody in; returns what is to be counted.
    pub fn lets_in(&mut self, attach: &Attach) -> Option<&'static str> {
        let standing = self.users.entry(attach.device.user.to_string()).or_default();
        let (barred, was_removed) = (standing.barred_above, standing.was_removed);
        let begins = match (self.is_open(), self.hides_past()) {
            (false, _) => None,
            (true, false) => Some(0),
            (true, true) => (!attach.member).then(|| self.places.met(&attach.device)),
        };
        self.places.take((attach.conn, attach.request), &attach.device, attach.member, (begins, barred));
        let strange = if was_removed { "came in again as a stranger" } else { "came in as a stranger" };
        (!attach.member).then_some(strange)
    }

    /// A change is on its way; returns its number.
    pub fn begin(&mut self, users: &[Name]) -> u64 {
        self.changes += 1;
        for user in users {
            // Until it is answered he may still or already speak, and be there.
            let standing = self.users.entry(user.to_string()).or_default();
            (standing.silent_above, standing.barred_above) = (None, None);
        }
        self.changing.insert(self.changes, users.iter().map(ToString::to_string).collect());
        self.changes
    }

    /// A change is answered, and counts.
    pub fn answered(&mut self, change: u64, made: Option<&Changed>, store: &MemStore, on_their_way: usize) {
        let users = self.changing.remove(&change).unwrap();
        if let Some(Changed::Members(made)) = made {
            for one in &made.users {
                self.users.entry(one.user.to_string()).or_default().added.extend(one.after.map(|member| member.since));
            }
        }
        let tail = tail(store);
        for user in users {
            self.settle(&user, tail, tail + on_their_way as Seq);
        }
    }

    /// The engine is gone: whatever the table says now counts.
    pub fn engine_crashed(&mut self, store: &MemStore) {
        self.changing.clear();
        self.places = Places::default();
        self.observe(store, RoomNumber(1));
        let tail = tail(store);
        self.seen = self.seen.min(tail);
        for user in self.users.keys().cloned().collect::<Vec<_>>() {
            self.settle(&user, tail, tail);
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.changing.is_empty()
    }

    fn settle(&mut self, user: &str, tail: Seq, given: Seq) {
        if self.changing.values().flatten().any(|other| other == user) {
            return;
        }
        let role = self.users[user].role;
        let (bars, silences) = (!self.may(role, Act::Join), !self.may(role, Act::Speak));
        let standing = self.users.get_mut(user).unwrap();
        if !belongs(role) {
            standing.open = None;
        }
        self.places.end(user, tail, bars);
        let current = standing.mine.len() - usize::from(standing.open.is_some());
        for (_, to) in &mut standing.mine[..current] {
            *to = (*to).min(tail);
        }
        standing.silent_above = silences.then_some(given);
        standing.barred_above = bars.then_some(tail);
    }

    /// Looks at the table, and at what was stored since the last look.
    pub fn observe(&mut self, store: &MemStore, room: RoomNumber) {
        let table: BTreeMap<String, Member> =
            store.members(&name()).into_iter().map(|(user, member)| (user.to_string(), member)).collect();
        for user in table.keys() {
            self.users.entry(user.clone()).or_default();
        }
        for (user, standing) in &mut self.users {
            let member = table.get(user);
            let role = member.map(|member| member.role);
            let before = std::mem::replace(&mut standing.role, role);
            if belongs(before) && !belongs(role) {
                standing.was_removed = true;
                self.places.doom(user);
            } else if before != role && !belongs(before) && role != Some(Role::Banned) {
                self.places.give_back(user, role.is_some());
            }
            let since = member.map(|member| member.since);
            if belongs(standing.role) && standing.open != since {
                standing.open = since;
                standing.mine.push((since.unwrap_or_default(), Seq::MAX));
            }
        }
        let tail = tail(store);
        for seq in self.seen + 1..=tail {
            let Some(frame) = store.first_frame(room, seq) else { break };
            with_deliver(&frame, |deliver| {
                let silent = self.users.get(deliver.sender).and_then(|standing| standing.silent_above);
                let says = deliver.kind != RecordKind::MEMBERS && silent.is_some_and(|above| seq > above);
                assert!(!says, "{} says {seq} and is silent above {silent:?}", deliver.sender);
            });
        }
        self.seen = tail;
    }

    /// A client that was let in there read this record.
    pub fn check_shown(&self, place: Place, user: &str, seq: Seq) {
        let mine = self.users.get(user).map(|standing| &standing.mine[..]).unwrap_or_default();
        let (above, upto) = self.places.shown(place);
        let allowed =
            above.is_some_and(|above| seq > above) || mine.iter().any(|(from, to)| (*from..=*to).contains(&seq));
        assert!(
            allowed && seq <= upto,
            "{user} is shown {seq} of the club at {place:?}, and may have been shown {mine:?}, or what is above {above:?}, \
             all up to {upto}"
        );
    }

    /// Where what a user may read begins, for each time that he was added.
    pub fn starts(&self, user: &str) -> Vec<Seq> {
        let Some(Standing { mine, added, .. }) = self.users.get(user) else { return Vec::new() };
        mine.iter().map(|(from, _)| from).chain(added).copied().collect()
    }

    /// Whether a user was ever anything but a member who may speak.
    pub fn may_be_refused(&self, user: &str) -> bool {
        user != "ann"
    }

    /// At rest: the room's records of its members, one after the other, come to the table. True if they do.
    pub fn records_agree(&self, store: &MemStore, room: RoomNumber) -> bool {
        let mut replayed: BTreeMap<String, Role> = self.first();
        for seq in 1..=tail(store) {
            let frame = store.first_frame(room, seq).unwrap();
            with_deliver(&frame, |deliver| {
                if deliver.kind == RecordKind::MEMBERS {
                    for (user, role) in decode_member_changes(deliver.payload).unwrap() {
                        match role {
                            Some(role) => replayed.insert(user.to_owned(), role),
                            None => replayed.remove(user),
                        };
                    }
                }
            });
        }
        let table = store.members(&name()).into_iter().map(|(user, member)| (user.to_string(), member.role)).collect();
        assert!(replayed == table, "{replayed:?} is recorded, {table:?} is so");
        replayed == table
    }

    /// Those whom the room was created with.
    fn first(&self) -> BTreeMap<String, Role> {
        FIRST.into_iter().map(|(user, role)| (user.to_owned(), role)).collect()
    }
}

/// Whom the room is created with.
pub const FIRST: [(&str, Role); 2] = [("ann", Role::Owner), ("bob", Role::Member)];

/// Whether somebody with this role is a member.
fn belongs(role: Option<Role>) -> bool {
    role.is_some_and(|role| role != Role::Banned)
}

fn name() -> Name {
    CLUB.parse().unwrap()
}

fn tail(store: &MemStore) -> Seq {
    store.extent(&name()).map_or(0, |(_, tail)| tail)
}
