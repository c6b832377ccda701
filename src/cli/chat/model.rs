//! What a chat on a screen knows and shows. Pure: `on_*` are its inputs, an [`Action`] is what the shell must do.

use std::{collections::VecDeque, time::Duration};

use parlor::client::{Outgoing, RecordKind};
use parlor_protocol::{Nonce, Seq, UnixMillis};

use super::{
    clock::Clock,
    command::{Command, Deed, HELP, Request, Targets},
    input::Input,
    record::{self, Record},
    scroll::{Scroll, Size},
    typing::Typing,
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
    /// Publish a change, and tell if it is refused.
    Change(Outgoing),
    /// Ask the server, and show what it says.
    Ask(Request),
    /// Fetch the records from this seq on, backwards.
    FetchOlder {
        /// The newest of them.
        start: Seq,
    },
    /// Leave; at once if that was asked for before.
    Quit,
}

/// A line of the talk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Rises from the top of the screen to its bottom, and stays with the line.
    pub(crate) key: i64,
    /// The record, if it is one: what is shown of it may change.
    pub(crate) record: Option<Box<Record>>,
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
        /// What became of it: that it was edited, and who has reacted how.
        tags: String,
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
    /// This user; his name made harmless.
    pub(crate) me: String,
    user: String,
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
    /// Who is typing.
    pub(crate) typing: Typing,
    /// How many users are in the room, if that is known.
    pub(crate) here: Option<u32>,
    pub(super) size: Size,
    pub(super) scroll: Scroll,
    lines: VecDeque<Line>,
    pending: VecDeque<Pending>,
    /// Where the history goes on that is not shown yet.
    older: Option<Seq>,
    /// Up to where the user had read when he came, until the first line behind that is shown.
    read_before: Option<Seq>,
    /// The newest record that came.
    newest: Seq,
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
            user: me.to_owned(),
            room: sanitize::text(room).into_owned(),
            server: sanitize::text(server).into_owned(),
            link: Link::Connected,
            input: Input::default(),
            leaving: false,
            fetching: false,
            clock,
            typing: Typing::default(),
            here: None,
            size: Size::default(),
            scroll: Scroll::default(),
            lines: VecDeque::new(),
            pending: VecDeque::new(),
            older,
            read_before: None,
            newest: 0,
            next_key: 0,
            next_id: 0,
        }
    }

    /// The user had read so far before he came, and there is more.
    pub(crate) fn had_read(&mut self, seq: Seq) {
        self.read_before = Some(seq);
    }

    /// A record came.
    pub(crate) fn on_record(&mut self, record: Record) {
        self.newest = record.seq;
        if record.is_change() {
            return self.on_change(&record);
        }
        if record.kind == RecordKind::MESSAGE {
            self.typing.on_message(&sanitize::text(&record.sender));
            if record.own {
                self.settle(record.nonce, &record::text(&record));
            }
            if self.read_before.is_some_and(|read| record.seq > read) && self.read_before.take().is_some() {
                self.on_note("not read yet:");
            }
        }
        let key = self.take_key();
        self.lines.extend(line(key, record, &self.user));
        self.trim();
    }

    /// A message is changed where it stands. One that is not shown brings its changes along when it is.
    fn on_change(&mut self, change: &Record) {
        let changed = self.lines.iter_mut().rev().find(|line| line.seq() == Some(change.refers_to));
        if let Some(shown) = changed
            && let Some(record) = &mut shown.record
            && record.apply(change)
            && let Some(new) = line(shown.key, (**record).clone(), &self.user)
        {
            *shown = new;
        }
    }

    /// Somebody types in the room.
    pub(crate) fn on_typing(&mut self, user: &str, now: Duration) {
        self.typing.on_signal(&sanitize::text(user), now);
    }

    /// Up to where the user has read: everything, if he looks at the newest.
    pub(crate) fn read(&self) -> Option<Seq> {
        Some(self.newest).filter(|newest| *newest > 0 && self.scroll.follows())
    }

    /// Something happened that belongs between the messages.
    pub(crate) fn on_note(&mut self, text: &str) {
        let key = self.take_key();
        let body = Body::Note(sanitize::text(text).into_owned());
        self.lines.push_back(Line { key, record: None, time: None, body });
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
        if self.link != Link::Connected {
            self.here = None;
        }
    }

    /// A page of history came, oldest first; `next` is where it goes on.
    pub(crate) fn on_page(&mut self, records: Vec<Record>, next: Option<Seq>) {
        self.fetching = false;
        self.older = next;
        let top = self.lines.front().map_or(self.next_key, |line| line.key);
        // Changes are in the messages that they were made to.
        for (key, record) in (i64::MIN..top).rev().zip(records.into_iter().rev()) {
            if let Some(line) = line(key, record, &self.user) {
                self.lines.push_front(line);
            }
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

    /// Whether something is being typed that is to be said.
    pub(crate) fn is_saying(&self) -> bool {
        !self.input.is_empty() && !self.input.is_command()
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
        self.typing.on_sent();
        // Two slashes say a line that begins with one.
        let text = match typed.strip_prefix('/') {
            Some(said) if said.starts_with('/') => said.to_owned(),
            Some(command) => return self.command(command.trim()),
            None => typed,
        };
        let id = self.next_id;
        self.next_id += 1;
        let (sender, said) = (self.me.clone(), sanitize::text(&text).into_owned());
        let body = Body::Said { sender, text: said, tags: String::new(), mark: Mark::Sending };
        let key = PENDING_KEYS.saturating_add_unsigned(id);
        self.pending.push_back(Pending { id, nonce: None, line: Line { key, record: None, time: None, body } });
        Some(Action::Send { id, text })
    }

    fn command(&mut self, command: &str) -> Option<Action> {
        match Command::parse(command).and_then(|command| command.deed(self.targets())) {
            Ok(Deed::Quit) => return Some(Action::Quit),
            Ok(Deed::Change(outgoing)) => return Some(Action::Change(outgoing)),
            Ok(Deed::Ask(request)) => return Some(Action::Ask(request)),
            Ok(Deed::Help) => HELP.into_iter().for_each(|line| self.on_note(line)),
            Err(wrong) => self.on_note(&wrong),
        }
        None
    }

    /// What commands mean that name no message.
    fn targets(&self) -> Targets {
        let records = || self.lines.iter().rev().filter_map(|line| line.record.as_deref());
        let mut left = records().filter(|it| it.kind == RecordKind::MESSAGE && it.changes.tombstone.is_none());
        let newest = left.clone().next().map(|record| record.seq);
        Targets { own: left.find(|record| *record.sender == *self.user).map(|record| record.seq), newest }
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
            let seq = self.lines.pop_front().and_then(|line| line.seq());
            self.older = seq.or(self.older);
        }
    }
}

impl Line {
    /// The record's number, if it is one.
    pub(crate) fn seq(&self) -> Option<Seq> {
        self.record.as_ref().map(|record| record.seq)
    }
}

/// The line of a record; none of a change, which is shown where it was made.
fn line(key: i64, record: Record, me: &str) -> Option<Line> {
    let body = match record.kind {
        RecordKind::MESSAGE => {
            let mark = if *record.sender == *me { Mark::Stored } else { Mark::None };
            let sender = sanitize::text(&record.sender).into_owned();
            Body::Said { sender, text: record::text(&record), tags: record::tags(&record), mark }
        }
        _ => Body::Note(record::event(&record)?),
    };
    Some(Line { key, time: Some(record.time), record: Some(Box::new(record)), body })
}

#[cfg(test)]
mod tests;
