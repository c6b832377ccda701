//! A room with members: what the store's table of them allows, held against what sessions get and what is stored.
//!
//! A change counts from its answer on; before that both what was and what will be are right. What is counted from then on is
//! exact: who is put out is brought nothing that is newer, who is muted says nothing more, and what was said before
//! somebody was added is never his.

use std::collections::BTreeMap;

use parlor_actors::{
    members::Member,
    testkit::{MemStore, with_deliver},
};
use parlor_protocol::{
    Name, RoomNumber, Seq,
    message::{RecordKind, Role, decode_member_changes},
};

/// The room's name; its first letter says that it is synced.
pub const CLUB: &str = "synced club";

#[derive(Default)]
pub struct Club {
    users: BTreeMap<String, Standing>,
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
}

impl Club {
    /// A change is on its way; returns its number.
    pub fn begin(&mut self, users: &[Name]) -> u64 {
        self.changes += 1;
        for user in users {
            // Until it is answered he may still or already speak.
            self.users.entry(user.to_string()).or_default().silent_above = None;
        }
        self.changing.insert(self.changes, users.iter().map(ToString::to_string).collect());
        self.changes
    }

    /// A change is answered, and counts.
    pub fn answered(&mut self, change: u64, store: &MemStore, on_their_way: usize) {
        let users = self.changing.remove(&change).unwrap();
        let tail = tail(store);
        for user in users {
            self.settle(&user, tail, tail + on_their_way as Seq);
        }
    }

    /// The engine is gone: whatever the table says now counts.
    pub fn engine_crashed(&mut self, store: &MemStore) {
        self.changing.clear();
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
        let standing = self.users.get_mut(user).unwrap();
        if !may_read(standing.role) {
            standing.open = None;
        }
        let current = standing.mine.len() - usize::from(standing.open.is_some());
        for (_, to) in &mut standing.mine[..current] {
            *to = (*to).min(tail);
        }
        standing.silent_above = (!may_speak(standing.role)).then_some(given);
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
            standing.role = member.map(|member| member.role);
            let since = member.map(|member| member.since);
            if may_read(standing.role) && standing.open != since {
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

    /// A client read this record.
    pub fn check_shown(&self, user: &str, seq: Seq) {
        let mine = self.users.get(user).map(|standing| &standing.mine[..]).unwrap_or_default();
        let allowed = mine.iter().any(|(from, to)| (*from..=*to).contains(&seq));
        assert!(allowed, "{user} is shown {seq} of the club, and may have been shown {mine:?}");
    }

    /// Where what a user may read begins, for each time that he was added.
    pub fn starts(&self, user: &str) -> Vec<Seq> {
        let mine = self.users.get(user).map(|standing| &standing.mine[..]).unwrap_or_default();
        mine.iter().map(|(from, _)| *from).collect()
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

fn may_read(role: Option<Role>) -> bool {
    role.is_some_and(|role| role != Role::Banned)
}

fn may_speak(role: Option<Role>) -> bool {
    matches!(role, Some(Role::Owner | Role::Moderator | Role::Member))
}

fn name() -> Name {
    CLUB.parse().unwrap()
}

fn tail(store: &MemStore) -> Seq {
    store.extent(&name()).map_or(0, |(_, tail)| tail)
}
