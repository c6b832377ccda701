//! What a chat on a screen knows and shows. Pure: `on_*` are its inputs, an [`Action`] is what the shell must do.

use std::collections::VecDeque;

use parlor_protocol::{Nonce, Seq, UnixMillis};

use super::{
    clock::Clock,
    input::Input,
    scroll::{Scroll, Size},
};
use crate::cli::sanitize;

/// How many lines are kept while the newest are shown. Older ones can be fetched again.
const LINES_MAX: usize = 2_000;

/// How many lines are kept while one reads back.
const LINES_READING_MAX: usize = 20_000;

/// What the shell must do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send the text; tell of its fate by this number.
    Send {
        /// The number.
        id: u64,
        /// What was typed.
        text: String,
    },
    /// Fetch the records from this seq on, backwards.
    FetchOlder {
        /// The newest of them.
        start: Seq,
    },
    /// Leave; at once if that was asked for before.
    Quit,
}

/// A message as it came, its texts made harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Its number in the room.
    pub(crate) seq: Seq,
    /// When it was said.
    pub(crate) time: UnixMillis,
    /// Who said it.
    pub(crate) sender: String,
    /// What was said.
    pub(crate) text: String,
    /// Whether this user said it, on whatever device.
    pub(crate) mine: bool,
    /// Its nonce, if it was said on this device.
    pub(crate) own: Option<Nonce>,
}

/// A line of the talk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Rises from the top of the screen to its bottom, and stays with the line.
    pub(crate) key: i64,
    /// The record's number, if it is one.
    pub(crate) seq: Option<Seq>,
    /// When, if that is known.
    pub(crate) time: Option<UnixMillis>,
    /// What.
    pub(crate) body: Body,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Somebody said something.
    Said {
        /// Who.
        sender: String,
        /// What.
        text: String,
        /// Whether it is stored, if it is one's own.
        mark: Mark,
    },
    /// Something that happened.
    Note(String),
}

/// How far a line of one's own is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It is somebody else's.
    None,
    /// Not acknowledged yet.
    Sending,
    /// Stored.
    Stored,
    /// Not stored, and why.
    Refused(String),
}

/// How the connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// In order.
    Connected,
    /// Lost; the client tries to come back.
    Reconnecting(String),
    /// Over for good.
    Over(String),
}

/// A line of one's own that did not come back from the room yet.
#[derive(Debug)]
struct Pending {
    id: u64,
    /// Known once it is acknowledged.
    nonce: Option<Nonce>,
    line: Line,
}

/// The state.
#[derive(Debug)]
pub(crate) struct Model {
    /// This user.
    pub(crate) me: String,
    /// The room.
    pub(crate) room: String,
    /// The server.
    pub(crate) server: String,
    /// How the connection is.
    pub(crate) link: Link,
    /// What is being typed.
    pub(crate) input: Input,
    /// Whether the user is about to leave.
    pub(crate) leaving: bool,
    /// Whether older lines are on their way.
    pub(crate) fetching: bool,
    /// Tells times.
    pub(crate) clock: Clock,
    pub(super) size: Size,
    pub(super) scroll: Scroll,
    lines: VecDeque<Line>,
    pending: VecDeque<Pending>,
    /// Where the history goes on that is not shown yet.
    older: Option<Seq>,
    next_key: i64,
    next_id: u64,
}

/// Keys of pending lines begin here: they stand below all others.
const PENDING_KEYS: i64 = 1 << 62;

impl Model {
    /// A chat of `me` in `room`, nothing said yet. `older` is the newest seq that will not come by itself.
    pub(crate) fn new(me: &str, room: &str, server: &str, older: Option<Seq>, clock: Clock) -> Self {
        Self {
            me: sanitize::text(me).into_owned(),
            room: sanitize::text(room).into_owned(),
            server: sanitize::text(server).into_owned(),
            link: Link::Connected,
            input: Input::default(),
            leaving: false,
            fetching: false,
            clock,
            size: Size::default(),
            scroll: Scroll::default(),
            lines: VecDeque::new(),
            pending: VecDeque::new(),
            older,
            next_key: 0,
            next_id: 0,
        }
    }

    /// A message came.
    pub(crate) fn on_message(&mut self, message: Message) {
        if let Some(nonce) = message.own {
            self.settle(nonce, &message.text);
        }
        let key = self.take_key();
        self.lines.push_back(said(key, message));
        self.trim();
    }

    /// Something happened that belongs between the messages.
    pub(crate) fn on_note(&mut self, text: &str) {
        let key = self.take_key();
        let body = Body::Note(sanitize::text(text).into_owned());
        self.lines.push_back(Line { key, seq: None, time: None, body });
        self.trim();
    }

    /// The connection changed.
    pub(crate) fn on_link(&mut self, link: Link) {
        let harmless = |why: &str| sanitize::text(why).into_owned();
        self.link = match link {
            Link::Connected => Link::Connected,
            Link::Reconnecting(why) => Link::Reconnecting(harmless(&why)),
            Link::Over(why) => Link::Over(harmless(&why)),
        };
    }

    /// A page of history came, oldest first; `next` is where it goes on.
    pub(crate) fn on_page(&mut self, messages: Vec<Message>, next: Option<Seq>) {
        self.fetching = false;
        self.older = next;
        let top = self.lines.front().map_or(self.next_key, |line| line.key);
        for (key, message) in (i64::MIN..top).rev().zip(messages.into_iter().rev()) {
            self.lines.push_front(said(key, message));
        }
    }

    /// The page did not come.
    pub(crate) fn on_page_failed(&mut self, why: &str) {
        self.fetching = false;
        self.on_note(&format!("older messages could not be fetched: {why}"));
    }

    /// A send is stored.
    pub(crate) fn on_stored(&mut self, id: u64, nonce: Nonce) {
        // It may have come back from the room already; then it is no longer pending.
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.id == id) {
            pending.nonce = Some(nonce);
            if let Body::Said { mark, .. } = &mut pending.line.body {
                *mark = Mark::Stored;
            }
        }
    }

    /// A send was refused.
    pub(crate) fn on_refused(&mut self, id: u64, why: &str) {
        let Some(at) = self.pending.iter().position(|pending| pending.id == id) else { return };
        let Some(mut pending) = self.pending.remove(at) else { return };
        if let Body::Said { mark, .. } = &mut pending.line.body {
            *mark = Mark::Refused(sanitize::text(why).into_owned());
        }
        pending.line.key = self.take_key();
        self.lines.push_back(pending.line);
        self.trim();
    }

    /// How many lines of one's own are not stored yet.
    pub(crate) fn unsent(&self) -> usize {
        self.pending.iter().filter(|pending| pending.nonce.is_none()).count()
    }

    /// Says the typed line, or does what it commands.
    pub(super) fn submit(&mut self) -> Option<Action> {
        let typed = self.input.take();
        if typed.trim().is_empty() {
            return None;
        }
        self.scroll = Scroll::default();
        // Two slashes say a line that begins with one.
        let text = match typed.strip_prefix('/') {
            Some(said) if said.starts_with('/') => said.to_owned(),
            Some(command) => return self.command(command.trim()),
            None => typed,
        };
        let id = self.next_id;
        self.next_id += 1;
        let body =
            Body::Said { sender: self.me.clone(), text: sanitize::text(&text).into_owned(), mark: Mark::Sending };
        let key = PENDING_KEYS.saturating_add_unsigned(id);
        self.pending.push_back(Pending { id, nonce: None, line: Line { key, seq: None, time: None, body } });
        Some(Action::Send { id, text })
    }

    fn command(&mut self, command: &str) -> Option<Action> {
        if matches!(command, "quit" | "q" | "exit") {
            return Some(Action::Quit);
        }
        if command != "help" {
            self.on_note(&format!("there is no command /{command}"));
        }
        self.on_note("/quit or Ctrl-C leaves; PageUp and PageDown scroll; Up and Down bring back what you typed; //text says /text");
        None
    }

    /// The scroll stands at the top: asks for what is above, if there is something and nobody has asked.
    pub(super) fn want_older(&mut self) -> Option<Action> {
        let start = self.older.filter(|_| !self.fetching && self.lines.len() < LINES_READING_MAX)?;
        self.fetching = true;
        Some(Action::FetchOlder { start })
    }

    /// How many lines there are, pending ones included.
    pub(super) fn len(&self) -> usize {
        self.lines.len() + self.pending.len()
    }

    /// A line by its place from the top.
    pub(super) fn line(&self, at: usize) -> Option<&Line> {
        self.lines.get(at).or_else(|| Some(&self.pending.get(at.checked_sub(self.lines.len())?)?.line))
    }

    /// The place of the line with this key, or of the one above where it was.
    pub(super) fn place(&self, key: i64) -> usize {
        let above = self.lines.partition_point(|line| line.key <= key)
            + self.pending.partition_point(|pending| pending.line.key <= key);
        above.saturating_sub(1)
    }

    /// One's own message came back: it is no longer pending. Its ack may not have come yet; then the first one with this
    /// text is meant, since the room keeps the order of sending.
    fn settle(&mut self, nonce: Nonce, said: &str) {
        let by_nonce = self.pending.iter().position(|pending| pending.nonce == Some(nonce));
        let by_text = || {
            self.pending.iter().position(|pending| {
                pending.nonce.is_none() && matches!(&pending.line.body, Body::Said { text, .. } if text == said)
            })
        };
        if let Some(at) = by_nonce.or_else(by_text) {
            self.pending.remove(at);
        }
    }

    fn take_key(&mut self) -> i64 {
        self.next_key += 1;
        self.next_key - 1
    }

    fn trim(&mut self) {
        let most = if self.scroll.follows() { LINES_MAX } else { LINES_READING_MAX };
        while self.lines.len() > most {
            let seq = self.lines.pop_front().and_then(|line| line.seq);
            self.older = seq.or(self.older);
        }
    }
}

fn said(key: i64, message: Message) -> Line {
    let mark = if message.mine { Mark::Stored } else { Mark::None };
    let body = Body::Said { sender: message.sender, text: message.text, mark };
    Line { key, seq: Some(message.seq), time: Some(message.time), body }
}

#[cfg(test)]
mod tests;
