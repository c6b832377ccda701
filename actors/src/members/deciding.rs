//! What a change of a room's members comes to, and whether whoever wants it may.

use std::collections::BTreeSet;

use parlor_protocol::{
    Code, Epoch, Name, Seq, UnixMillis,
    message::{Access, Durability, Role, RoomOptions},
};

use super::{
    Asker, Counts, Member, MemberChange, Refusal, direct,
    rights::{Act, Kind, may},
};

/// A room as far as decisions about it go.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its options.
    pub options: &'a RoomOptions,
    /// Whose wish it is…
    pub by: &'a Asker,
    /// …and what he is there.
    pub role: Option<Role>,
}

/// Where a room's log stands, for those who are added now.
#[derive(Clone, Copy, Debug)]
pub struct Stand {
    /// The newest seq that the store was given.
    pub tail: Seq,
    /// Its count.
    pub count: u64,
    /// The epoch.
    pub epoch: Epoch,
    /// The time.
    pub at: UnixMillis,
}

const FORBIDDEN: Refusal = (Code::Forbidden, "the user's role in this room does not allow it");

impl Facts<'_> {
    /// The room as rights see it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        kind(self.name, self.options.access)
    }

    /// Refuses what the asker may not do.
    ///
    /// # Errors
    /// If he may not.
    pub fn check(&self, act: Act) -> Result<(), Refusal> {
        if *self.by == Asker::Host || may(self.kind(), self.role, act) { Ok(()) } else { Err(FORBIDDEN) }
    }

    /// Refuses what would change what cannot be changed.
    ///
    /// # Errors
    /// If the asker may not, or a memory room would be stored or a stored one would not, or the room is a direct one that
    /// would no longer be.
    pub fn check_options(&self, wanted: &RoomOptions) -> Result<(), Refusal> {
        self.check(Act::Configure)?;
        let stored = |options: &RoomOptions| options.durability != Durability::Memory;
        if stored(wanted) != stored(self.options) {
            return Err((Code::Unsupported, "a memory room stays one, and no other becomes one"));
        }
        if direct::is_direct(self.name) && wanted.access != Access::Members {
            return Err((Code::Unsupported, "a direct room is for its two users"));
        }
        Ok(())
    }

    /// What giving `users` this role (`None`: taking it away) comes to: one change for each whose role differs.
    ///
    /// # Errors
    /// If the asker may not do that to one of them, then nothing is done to any; or what `look_up` fails with.
    pub fn change_members<E: From<Refusal>>(
        &self,
        role: Option<Role>,
        users: &[Name],
        stand: Stand,
        mut look_up: impl FnMut(&Name) -> Result<Option<Member>, E>,
    ) -> Result<Vec<MemberChange>, E> {
        if direct::is_direct(self.name) {
            return Err((Code::Forbidden, "the members of a direct room are fixed").into());
        }
        let mut changes = Vec::new();
        for user in users.iter().collect::<BTreeSet<_>>() {
            let before = look_up(user)?;
            let from = before.map(|member| member.role);
            let himself = matches!(self.by, Asker::User(by) if by == user);
            match (himself, role) {
                (true, None) => self.check(Act::Leave)?,
                (true, Some(_)) if *self.by != Asker::Host => return Err(FORBIDDEN.into()),
                _ => self.check(Act::Change { from, to: role })?,
            }
            if from != role {
                let after = role.map(|role| become_member(before, role, stand));
                changes.push(MemberChange { user: user.clone(), before, after });
            }
        }
        Ok(changes)
    }
}

/// A room as rights see it.
#[must_use]
pub fn kind(name: &str, access: Access) -> Kind {
    Kind { access, direct: direct::is_direct(name) }
}

/// Who comes, or comes back from a ban, is added now; who was there keeps since when.
#[must_use]
pub fn become_member(before: Option<Member>, role: Role, stand: Stand) -> Member {
    match before {
        Some(member) if member.role != Role::Banned => Member { role, ..member },
        _ => Member {
            role,
            since: stand.tail.saturating_add(1),
            epoch: stand.epoch,
            count: stand.count,
            added: stand.at,
        },
    }
}

/// The counts after these changes.
///
/// # Errors
/// If the room would know more people than it may.
pub fn count(mut counts: Counts, changes: &[MemberChange], members_max: u64) -> Result<Counts, Refusal> {
    let before = counts.known();
    for MemberChange { before, after, .. } in changes {
        counts.change(before.map(|member| member.role), after.map(|member| member.role));
    }
    if counts.known() > before && counts.known() > members_max {
        return Err((Code::TooManyMembers, "the room would have more members than a room may"));
    }
    Ok(counts)
}

/// The first members of a new room: the asker owns it, and is not made something else, unless it is a direct one.
#[must_use]
pub fn first_members(name: &str, by: &Asker, members: &[(Name, Role)], stand: Stand) -> Vec<MemberChange> {
    let mut wanted: Vec<(Name, Role)> = Vec::new();
    if let Asker::User(user) = by
        && !direct::is_direct(name)
    {
        wanted.push((user.clone(), Role::Owner));
    }
    wanted.extend(members.iter().cloned());
    let mut seen = BTreeSet::new();
    let new = |(user, role)| MemberChange { user, before: None, after: Some(become_member(None, role, stand)) };
    wanted.into_iter().filter(|(user, _)| seen.insert(user.clone())).map(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAND: Stand = Stand { tail: 9, count: 8, epoch: Epoch(3), at: 1_000 };

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn member(role: Role) -> Member {
        Member { role, since: 4, epoch: Epoch(2), count: 3, added: 500 }
    }

    fn roles(user: &Name) -> Option<Member> {
        let role = match &**user {
            "olga" => Role::Owner,
            "mo" => Role::Moderator,
            "ann" | "bob" => Role::Member,
            "eve" => Role::Banned,
            _ => return None,
        };
        Some(member(role))
    }

    #[track_caller]
    fn change(by: &str, to: Option<Role>, users: &[&str]) -> Result<Vec<MemberChange>, Refusal> {
        let (options, by) = (RoomOptions::default(), name(by));
        let (role, by) = (roles(&by).map(|member| member.role), Asker::User(by));
        let facts = Facts { name: "tea", options: &options, by: &by, role };
        let users: Vec<Name> = users.iter().map(|user| name(user)).collect();
        facts.change_members(to, &users, STAND, |user| Ok(roles(user)))
    }

    #[test]
    fn who_comes_is_added_now_and_who_was_there_keeps_since_when() {
        let changes = change("mo", Some(Role::Muted), &["new", "ann", "eve", "ann"]).unwrap();
        let added = Some(Member { role: Role::Muted, since: 10, epoch: Epoch(3), count: 8, added: 1_000 });
        let want = [("ann", Some(member(Role::Muted))), ("eve", added), ("new", added)];
        let got: Vec<_> = changes.iter().map(|change| (&*change.user, change.after)).collect();
        assert_eq!(got, want, "each once, and in order");
    }

    #[test]
    fn one_who_may_not_be_changed_keeps_all_from_it() {
        for (by, to, users) in [
            ("mo", Some(Role::Banned), &["ann", "olga"][..]),
            ("mo", Some(Role::Moderator), &["ann"]),
            ("ann", None, &["ann", "bob"]),
            ("olga", Some(Role::Owner), &["ann"]),
            ("olga", Some(Role::Member), &["olga"]),
            ("olga", None, &["olga"]),
            ("eve", None, &["eve"]),
            ("new", Some(Role::Member), &["new"]),
        ] {
            assert_eq!(change(by, to, users).unwrap_err().0, Code::Forbidden, "{by} {to:?} {users:?}");
        }
        assert_eq!(change("ann", None, &["ann"]).unwrap().len(), 1, "a member may go");
        assert_eq!(change("olga", Some(Role::Moderator), &["mo", "ann"]).unwrap().len(), 1, "mo is one already");
    }

    #[test]
    fn nobody_changes_the_members_of_a_direct_room() {
        let (options, by) = (RoomOptions::default(), Asker::Host);
        let facts = Facts { name: "direct:00", options: &options, by: &by, role: None };
        let refused: Result<_, Refusal> = facts.change_members(None, &[name("ann")], STAND, |_| Ok(None));
        assert_eq!(refused.unwrap_err().0, Code::Forbidden);
    }

    #[test]
    fn a_full_room_lets_people_go_and_takes_nobody() {
        let counts = Counts { members: 2, banned: 1 };
        let added = change("mo", Some(Role::Member), &["new", "eve"]).unwrap();
        assert_eq!(count(counts, &added, 4), Ok(Counts { members: 4, banned: 0 }));
        assert_eq!(count(counts, &added, 3).unwrap_err().0, Code::TooManyMembers);
        let gone = change("mo", None, &["ann"]).unwrap();
        assert_eq!(count(counts, &gone, 1), Ok(Counts { members: 1, banned: 1 }));
    }

    #[test]
    fn the_creator_owns_the_room() {
        let by = Asker::User(name("ann"));
        let first = first_members("tea", &by, &[(name("ann"), Role::Member), (name("bob"), Role::Member)], STAND);
        let got: Vec<_> = first.iter().map(|change| (&*change.user, change.after.unwrap().role)).collect();
        assert_eq!(got, [("ann", Role::Owner), ("bob", Role::Member)]);
    }
}
