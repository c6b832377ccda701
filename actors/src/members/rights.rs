//! Who may do what in a room. The table under "Rights" in PROTOCOL.md says the same, and a test compares the two.

use parlor_protocol::message::{Access, Past, Role, RoomOptions};

/// Something that a user wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Join, read the past, see what the room is like and who belongs to it.
    Join,
    /// Publish, and send signals.
    Speak,
    /// Recall what others said.
    Moderate,
    /// Give up his own role.
    Leave,
    /// Change another's role; `None` is that of a stranger.
    Change {
        /// What the other is.
        from: Option<Role>,
        /// What he becomes.
        to: Option<Role>,
    },
    /// Change the room's options.
    Configure,
    /// Delete the room.
    Delete,
}

/// What of a room its rights depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Who may join and speak.
    pub access: Access,
    /// Whether it is the room of two users.
    pub direct: bool,
}

/// Whether somebody with this role may do that.
#[must_use]
pub fn may(room: Kind, role: Option<Role>, act: Act) -> bool {
    use Role::{Banned, Member, Moderator, Muted, Owner};
    let Kind { access, direct } = room;
    if direct {
        return matches!(act, Act::Join | Act::Speak) && role == Some(Member);
    }
    let keeps_order = matches!(role, Some(Owner | Moderator));
    match act {
        Act::Join => match role {
            Some(Banned) => false,
            Some(_) => true,
            None => access != Access::Members,
        },
        Act::Speak => match (access, role) {
            (_, Some(Owner | Moderator)) => true,
            (_, Some(Muted | Banned)) | (Access::Broadcast, _) => false,
            (_, Some(Member)) | (Access::Open, None) => true,
            (Access::Members, None) => false,
        },
        Act::Moderate => keeps_order,
        Act::Leave => match role {
            Some(Member | Moderator) => true,
            // Elsewhere he could come back as a stranger, who may speak or join.
            Some(Muted) => access == Access::Members,
            Some(Owner | Banned) | None => false,
        },
        Act::Change { from, to } => {
            let touches = |role| from == Some(role) || to == Some(role);
            keeps_order && !touches(Owner) && (role == Some(Owner) || !touches(Moderator))
        }
        Act::Configure | Act::Delete => role == Some(Owner),
    }
}

/// Whether the room shows a user only what was said since he was added.
#[must_use]
pub fn hides_past(options: &RoomOptions) -> bool {
    match options.past {
        Past::ByAccess => options.access == Access::Members,
        Past::All => false,
        Past::SinceAdded => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cell of the table: where it may be done.
    fn cell(role: Option<Role>, acts: &[Act]) -> String {
        let names = [(Access::Open, "Open"), (Access::Members, "Members"), (Access::Broadcast, "Broadcast")];
        let allowed = |access| acts.iter().all(|act| may(Kind { access, direct: false }, role, *act));
        let refused = |access| acts.iter().all(|act| !may(Kind { access, direct: false }, role, *act));
        let yes: Vec<&str> = names.iter().filter(|(access, _)| allowed(*access)).map(|(_, name)| *name).collect();
        for (access, name) in names {
            assert!(allowed(access) || refused(access), "{acts:?} do not belong in one row: {role:?}, {name}");
        }
        match yes.len() {
            0 => "no".into(),
            3 => "yes".into(),
            _ => yes.join(", "),
        }
    }

    #[test]
    fn the_table_of_the_protocol_says_what_the_function_does() {
        use Role::{Banned, Member, Moderator, Muted, Owner};
        let change = |from, to| Act::Change { from, to };
        let ordinary = [None, Some(Member), Some(Muted), Some(Banned)];
        let among_ordinary: Vec<Act> = ordinary.iter().flat_map(|a| ordinary.map(|b| change(*a, b))).collect();
        let moderators: Vec<Act> =
            ordinary.iter().flat_map(|a| [change(*a, Some(Moderator)), change(Some(Moderator), *a)]).collect();
        let owners: Vec<Act> = ordinary
            .iter()
            .chain(&[Some(Moderator)])
            .flat_map(|a| [change(*a, Some(Owner)), change(Some(Owner), *a)])
            .collect();
        let rows: [(&str, &[Act]); 9] = [
            ("join, fetch, describe the room, list its members", &[Act::Join]),
            ("publish, edit, react, recall what he said, signal", &[Act::Speak]),
            ("recall what others said", &[Act::Moderate]),
            ("remove oneself", &[Act::Leave]),
            ("add, remove, mute, ban, and undo these", &among_ordinary),
            ("make and unmake moderators", &moderators),
            ("make and unmake owners", &owners),
            ("configure", &[Act::Configure]),
            ("delete", &[Act::Delete]),
        ];
        let roles = [None, Some(Banned), Some(Muted), Some(Member), Some(Moderator), Some(Owner)];
        let want: Vec<String> = rows
            .iter()
            .map(|(what, acts)| format!("| {what} | {} |", roles.map(|role| cell(role, acts)).join(" | ")))
            .collect();
        let doc = include_str!("../../../PROTOCOL.md");
        let section = doc.split("### Rights\n").nth(1).expect("PROTOCOL.md has a section on rights");
        let table = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
        let have: Vec<&str> = table.skip(2).collect();
        assert_eq!(have, want, "the table under Rights in PROTOCOL.md (left) and `may` (right)");
    }

    #[test]
    fn the_two_of_a_direct_room_speak_and_change_nothing() {
        for access in [Access::Open, Access::Members, Access::Broadcast] {
            let room = Kind { access, direct: true };
            let change = Act::Change { from: None, to: Some(Role::Member) };
            for act in [Act::Moderate, Act::Leave, change, Act::Configure, Act::Delete] {
                for role in [None, Some(Role::Member), Some(Role::Owner), Some(Role::Moderator)] {
                    assert!(!may(room, role, act), "{role:?} {act:?}");
                }
            }
            for act in [Act::Join, Act::Speak] {
                assert!(may(room, Some(Role::Member), act) && !may(room, None, act));
            }
        }
    }

    #[test]
    fn the_past_is_hidden_where_the_options_say_so() {
        let hides = |access, past| hides_past(&RoomOptions { access, past, ..RoomOptions::default() });
        assert!(hides(Access::Members, Past::ByAccess) && hides(Access::Open, Past::SinceAdded));
        assert!(!hides(Access::Open, Past::ByAccess) && !hides(Access::Broadcast, Past::ByAccess));
        assert!(!hides(Access::Members, Past::All));
    }
}
