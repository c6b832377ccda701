//! What is typed behind a slash. Pure.

use parlor::client::{Access, Outgoing, Role};
use parlor_protocol::Seq;

/// What the commands are, line by line.
pub(crate) const HELP: [&str; 5] = [
    "change what was said: /edit [N] TEXT, /recall [N], /react [N] 👍, /unreact [N] 👍; N is the number behind a message, \
     without it your own last one is meant, and for reactions the newest",
    "who has read a message: /who [N]; your rooms: /rooms; another room: /create NAME [open|members|broadcast]",
    "people: /online, /members, /add USER…, /kick USER…, /role member|moderator|muted|banned USER…, /dm USER [TEXT]",
    "/quit or Ctrl-C leaves; //text says /text",
    "on a screen PageUp and PageDown scroll, Up and Down bring back what you typed",
];

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Leave.
    Quit,
    /// Say what the commands are.
    Help,
    /// Another text for a message of one's own.
    Edit(Option<Seq>, String),
    /// Take a message back.
    Recall(Option<Seq>),
    /// React to a message…
    React(Option<Seq>, String),
    /// …or no longer.
    Unreact(Option<Seq>, String),
    /// Who has read a message?
    Who(Option<Seq>),
    /// Ask the server.
    Ask(Request),
}

/// What is asked of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Who has read the room up to here.
    Who(Seq),
    /// The user's rooms.
    Rooms,
    /// Who is here now.
    Online,
    /// Who has a role in this room.
    Members,
    /// A new room.
    Create(String, Access),
    /// These users become this.
    Role(Role, Vec<String>),
    /// These users become strangers.
    Kick(Vec<String>),
    /// The room with another user, and what to say there.
    Direct(String, Option<String>),
}

/// Which messages are meant if none is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Targets {
    /// The user's own newest.
    pub(crate) own: Option<Seq>,
    /// The newest.
    pub(crate) newest: Option<Seq>,
}

/// What a command comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Leave.
    Quit,
    /// Show the help.
    Help,
    /// Publish a change.
    Change(Outgoing),
    /// Ask the server.
    Ask(Request),
}

impl Command {
    /// Reads what stands behind the slash; what is wrong with it otherwise.
    pub(crate) fn parse(typed: &str) -> Result<Self, String> {
        let (command, rest) = typed.trim().split_once(char::is_whitespace).unwrap_or((typed.trim(), ""));
        let rest = rest.trim();
        let users = || -> Vec<String> { rest.split_whitespace().map(str::to_owned).collect() };
        let some =
            |users: Vec<String>| if users.is_empty() { Err(format!("/{command} whom? name users")) } else { Ok(users) };
        Ok(match command {
            "quit" | "q" | "exit" => Self::Quit,
            "help" => Self::Help,
            "edit" => {
                let (seq, text) = numbered(rest);
                Self::Edit(seq, said(text, "/edit to what? give the new text")?)
            }
            "recall" => match numbered(rest) {
                (seq, "") => Self::Recall(seq),
                _ => return Err("/recall takes the number of a message, or nothing".to_owned()),
            },
            "react" | "unreact" => {
                let (seq, text) = numbered(rest);
                let text = said(text, "with what? give a reaction, such as 👍")?;
                if command == "react" { Self::React(seq, text) } else { Self::Unreact(seq, text) }
            }
            "who" => match numbered(rest) {
                (seq, "") => Self::Who(seq),
                _ => return Err("/who takes the number of a message, or nothing".to_owned()),
            },
            "rooms" => Self::Ask(Request::Rooms),
            "online" => Self::Ask(Request::Online),
            "members" => Self::Ask(Request::Members),
            "create" => {
                let (name, access) = rest.rsplit_once(char::is_whitespace).unwrap_or((rest, ""));
                let (name, access) = match access {
                    "open" => (name, Access::Open),
                    "members" => (name, Access::Members),
                    "broadcast" => (name, Access::Broadcast),
                    _ => (rest, Access::Open),
                };
                Self::Ask(Request::Create(said(name.trim(), "/create what? give the room a name")?, access))
            }
            "add" => Self::Ask(Request::Role(Role::Member, some(users())?)),
            "kick" => Self::Ask(Request::Kick(some(users())?)),
            "role" => {
                let mut users = users();
                let role = if users.is_empty() { String::new() } else { users.remove(0) };
                Self::Ask(Request::Role(role_of(&role)?, some(users)?))
            }
            "dm" => {
                let (user, text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                let text = Some(text.trim().to_owned()).filter(|text| !text.is_empty());
                Self::Ask(Request::Direct(said(user, "/dm whom? name a user")?, text))
            }
            other => return Err(format!("there is no command /{other}; /help lists them")),
        })
    }

    /// What is to be done; what is wrong with it otherwise.
    pub(crate) fn deed(self, targets: Targets) -> Result<Deed, String> {
        let own =
            || targets.own.ok_or_else(|| "you have said nothing here yet: name a message by its number".to_owned());
        let newest = || targets.newest.ok_or_else(|| "nobody has said anything here yet".to_owned());
        Ok(match self {
            Self::Quit => Deed::Quit,
            Self::Help => Deed::Help,
            Self::Edit(seq, text) => Deed::Change(Outgoing::edit(seq.map_or_else(own, Ok)?, text)),
            Self::Recall(seq) => Deed::Change(Outgoing::recall(seq.map_or_else(own, Ok)?)),
            Self::React(seq, text) => Deed::Change(Outgoing::react(seq.map_or_else(newest, Ok)?, text)),
            Self::Unreact(seq, text) => Deed::Change(Outgoing::unreact(seq.map_or_else(newest, Ok)?, text)),
            Self::Who(seq) => Deed::Ask(Request::Who(seq.map_or_else(newest, Ok)?)),
            Self::Ask(request) => Deed::Ask(request),
        })
    }
}

/// A role by its name; owners are the host's affair.
fn role_of(text: &str) -> Result<Role, String> {
    match text {
        "member" => Ok(Role::Member),
        "moderator" => Ok(Role::Moderator),
        "muted" => Ok(Role::Muted),
        "banned" => Ok(Role::Banned),
        other => Err(format!("{other:?} is no role: say member, moderator, muted or banned")),
    }
}

/// The number of a message in front, with or without a `#`, and what stands behind it.
fn numbered(text: &str) -> (Option<Seq>, &str) {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    match first.strip_prefix('#').unwrap_or(first).parse() {
        Ok(seq) => (Some(seq), rest.trim_start()),
        Err(_) => (None, text),
    }
}

fn said(text: &str, otherwise: &str) -> Result<String, String> {
    if text.is_empty() { Err(otherwise.to_owned()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(typed: &str, want: Command) {
        assert_eq!(Command::parse(typed), Ok(want), "{typed:?}");
    }

    #[track_caller]
    fn check_wrong(typed: &str, want: &str) {
        let error = Command::parse(typed).unwrap_err();
        assert!(error.contains(want), "{typed:?}: {error}");
    }

    #[test]
    fn commands_are_read() {
        check("quit", Command::Quit);
        check("edit 12 new text", Command::Edit(Some(12), "new text".to_owned()));
        check("edit #12  3 apples", Command::Edit(Some(12), "3 apples".to_owned()));
        check("edit new text", Command::Edit(None, "new text".to_owned()));
        check("recall", Command::Recall(None));
        check("recall 7", Command::Recall(Some(7)));
        check("react 👍", Command::React(None, "👍".to_owned()));
        check("unreact #7 👍", Command::Unreact(Some(7), "👍".to_owned()));
        check("who", Command::Who(None));
        check("rooms", Command::Ask(Request::Rooms));
        check("online", Command::Ask(Request::Online));
        check("create tea time", Command::Ask(Request::Create("tea time".to_owned(), Access::Open)));
        check("create tea time members", Command::Ask(Request::Create("tea time".to_owned(), Access::Members)));
        check("add bob eve", Command::Ask(Request::Role(Role::Member, vec!["bob".to_owned(), "eve".to_owned()])));
        check("role muted bob", Command::Ask(Request::Role(Role::Muted, vec!["bob".to_owned()])));
        check("kick bob", Command::Ask(Request::Kick(vec!["bob".to_owned()])));
        check("dm bob", Command::Ask(Request::Direct("bob".to_owned(), None)));
        check(
            "dm bob are you there?",
            Command::Ask(Request::Direct("bob".to_owned(), Some("are you there?".to_owned()))),
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        check_wrong("dance", "no command /dance");
        check_wrong("edit", "give the new text");
        check_wrong("edit 12", "give the new text");
        check_wrong("recall that", "the number of a message");
        check_wrong("react 12", "give a reaction");
        check_wrong("role king bob", "member, moderator, muted or banned");
        check_wrong("role muted", "name users");
        check_wrong("kick", "name users");
        check_wrong("create", "give the room a name");
        check_wrong("dm", "name a user");
    }

    #[test]
    fn a_message_that_is_not_named_is_one_s_own_or_the_newest() {
        let targets = Targets { own: Some(3), newest: Some(5) };
        let deed = |typed: &str, targets| Command::parse(typed).unwrap().deed(targets);
        assert_eq!(deed("edit x", targets), Ok(Deed::Change(Outgoing::edit(3, "x"))));
        assert_eq!(deed("edit 4 x", targets), Ok(Deed::Change(Outgoing::edit(4, "x"))));
        assert_eq!(deed("recall", targets), Ok(Deed::Change(Outgoing::recall(3))));
        assert_eq!(deed("react x", targets), Ok(Deed::Change(Outgoing::react(5, "x"))));
        assert_eq!(deed("unreact 1 x", targets), Ok(Deed::Change(Outgoing::unreact(1, "x"))));
        assert_eq!(deed("who", targets), Ok(Deed::Ask(Request::Who(5))));
        assert!(deed("edit x", Targets::default()).unwrap_err().contains("by its number"));
        assert!(deed("who", Targets::default()).unwrap_err().contains("nobody"));
    }
}
