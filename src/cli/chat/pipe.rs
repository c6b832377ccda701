//! A chat without a terminal: lines in, lines out.

use std::{
    io::{self, BufRead as _, Read as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use parlor::client::{Acked, Client, Event, Events, Outgoing, PublishError, RecordKind, Room};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    clock::Clock,
    command::{Command, Deed, HELP, Targets},
    progress::Progress,
    record::{self, Record},
    requests::perform,
};
use crate::cli::sanitize;

/// How many lines may wait for their acks; the input is not read on meanwhile.
const UNACKED_MAX: usize = 64;

/// The longest line that is read, in bytes without its end: no server takes more.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// How long to wait at the input's end while nothing happens at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// A line of the input; none if it is longer than one may be.
type Typed = Option<String>;

/// How a pipe reads and writes its lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// Whether lines that begin with a slash are commands.
    pub(crate) commands: bool,
    /// Whether lines of the output begin with a message's number.
    pub(crate) numbers: bool,
}

/// What became of a line of the input.
enum Settled {
    Sent(RecordKind, Result<Acked, PublishError>),
    Answered(Result<Vec<String>, String>),
}

type Sending = FuturesUnordered<BoxFuture<'static, Settled>>;

/// Runs until the input has ended, every line of it is acknowledged and everything up to the last of them is written.
pub(crate) async fn run(client: &Client, room: &Room, events: Events, style: Style) -> anyhow::Result<ExitCode> {
    let (sender, typed) = mpsc::channel(UNACKED_MAX);
    std::thread::spawn(move || read_lines(io::stdin().lock(), &sender));
    let joined = room.joined();
    let mut pipe = Pipe {
        client,
        room,
        style,
        clock: Clock::local(),
        progress: Progress::new(joined.epoch, joined.cursor, joined.tail),
        targets: Targets::default(),
        failed: 0,
        deaf: false,
        cut: false,
    };
    let outcome = pipe.run(events, typed).await;
    if pipe.failed > 0 {
        eprintln!("{} lines were not stored", pipe.failed);
    }
    outcome.map(|()| if pipe.failed > 0 || pipe.cut { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

struct Pipe<'a> {
    client: &'a Client,
    room: &'a Room,
    style: Style,
    clock: Clock,
    progress: Progress,
    /// What commands mean that name no message.
    targets: Targets,
    /// Lines that were not stored.
    failed: usize,
    /// Nobody reads the output any more, as after `head`.
    deaf: bool,
    /// So the rest of the input was not taken.
    cut: bool,
}

impl Pipe<'_> {
    async fn run(&mut self, mut events: Events, mut typed: mpsc::Receiver<Typed>) -> anyhow::Result<()> {
        let (mut open, mut sending) = (true, Sending::new());
        // A command may refer to what was said in the line before it, so that one is waited for.
        let most = if self.style.commands { 1 } else { UNACKED_MAX };
        let mut last = Instant::now();
        while open || !sending.is_empty() || (!self.progress.is_done() && !self.deaf) {
            tokio::select! {
                line = typed.recv(), if open && sending.len() < most => match line {
                    Some(Some(text)) => open = self.on_line(text, &sending)?,
                    Some(None) => self.fail(&format!("not stored: a line is longer than {LINE_BYTES_MAX} bytes")),
                    None => open = false,
                },
                Some(settled) = sending.next(), if !sending.is_empty() => self.on_settled(settled)?,
                event = events.next() => match event {
                    Some(event) => self.on_event(event)?,
                    None => {
                        self.failed += sending.len();
                        anyhow::ensure!(!open && sending.is_empty(), "the connection is over");
                        break;
                    }
                },
                () = sleep_until(last + PATIENCE), if !open => {
                    self.failed += sending.len();
                    anyhow::bail!("gave up: nothing came for {} s", PATIENCE.as_secs());
                }
                _ = tokio::signal::ctrl_c() => {
                    self.failed += sending.len();
                    break;
                }
            }
            last = Instant::now();
            if self.deaf && open {
                // What was taken from the input is still waited for.
                notice("the output is closed: the rest of the input is not sent");
                (self.cut, open) = (true, false);
            }
        }
        Ok(())
    }

    /// Sends a line, or does what it commands. Whether to go on.
    fn on_line(&mut self, text: String, sending: &Sending) -> anyhow::Result<bool> {
        let outgoing = match text.strip_prefix('/').filter(|_| self.style.commands) {
            Some(said) if said.starts_with('/') => Outgoing::text(said),
            Some(command) => match Command::parse(command).and_then(|command| command.deed(self.targets)) {
                Ok(Deed::Quit) => return Ok(false),
                Ok(Deed::Change(outgoing)) => outgoing,
                Ok(Deed::Ask(request)) => {
                    let asked = perform(self.client.clone(), self.room.clone(), self.clock.clone(), request);
                    sending.push(Box::pin(async move { Settled::Answered(asked.await) }));
                    return Ok(true);
                }
                Ok(Deed::Help) => {
                    HELP.iter().try_for_each(|line| self.write(&format!("* {line}")))?;
                    return Ok(true);
                }
                Err(wrong) => {
                    self.fail(&wrong);
                    return Ok(true);
                }
            },
            None => Outgoing::text(text),
        };
        let kind = outgoing.change.map_or(RecordKind::MESSAGE, |change| change.kind);
        let sent = self.room.send(outgoing);
        sending.push(Box::pin(async move { Settled::Sent(kind, sent.await) }));
        Ok(true)
    }

    fn on_settled(&mut self, settled: Settled) -> anyhow::Result<()> {
        match settled {
            Settled::Sent(kind, Ok(acked)) => {
                self.progress.on_acked(acked.epoch, acked.seq);
                if kind == RecordKind::MESSAGE {
                    self.targets = Targets { own: Some(acked.seq), newest: self.targets.newest.max(Some(acked.seq)) };
                }
            }
            Settled::Sent(_, Err(error)) => self.fail(&format!("not stored: {error}")),
            Settled::Answered(Ok(lines)) => {
                lines.iter().try_for_each(|line| self.write(&format!("* {}", sanitize::text(line))))?;
            }
            Settled::Answered(Err(error)) => self.fail(&format!("not done: {error}")),
        }
        Ok(())
    }

    fn fail(&mut self, why: &str) {
        self.failed += 1;
        notice(why);
    }

    fn write_record(&mut self, record: &Record) -> anyhow::Result<()> {
        let Some(line) = describe(record) else { return Ok(()) };
        let minute = self.clock.minute(record.time);
        if self.style.numbers {
            self.write(&format!("{} {minute} {line}", record.seq))
        } else {
            self.write(&format!("{minute} {line}"))
        }
    }

    fn write(&mut self, line: &str) -> anyhow::Result<()> {
        if self.deaf {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.deaf = true,
            written => written.context("cannot write")?,
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Message(record) => {
                self.progress.on_record(record.seq);
                if record.kind == RecordKind::MESSAGE && record.changes.tombstone.is_none() {
                    self.targets.newest = Some(record.seq);
                    if *record.sender == **self.client.user() {
                        self.targets.own = Some(record.seq);
                    }
                }
                self.write_record(&record)?;
            }
            Event::Marked(_) | Event::Presence(_) | Event::Signal(_) => {}
            Event::Gap(gap) => {
                self.progress.on_gap(gap.epoch, gap.to);
                notice(&super::describe_gap(&gap));
            }
            Event::Disconnected { reason } => notice(&format!("connection lost ({reason}), reconnecting…")),
            Event::Reconnected => notice("connected again"),
            Event::Closed { code, message } => notice(&format!("closed: {code}: {message}")),
        }
        Ok(())
    }
}

/// A record as a line; none where there is nothing to say.
fn describe(record: &Record) -> Option<String> {
    let (sender, text, seq) = (sanitize::text(&record.sender), record::text(record), record.refers_to);
    let gone = record.changes.tombstone.is_some();
    Some(match record.kind {
        RecordKind::MESSAGE => {
            let tags = record::tags(record);
            format!("<{sender}> {text}{}{tags}", if tags.is_empty() { "" } else { " " })
        }
        // A later edit has replaced it, or a recall has.
        RecordKind::EDIT if gone => return None,
        RecordKind::EDIT => format!("* {sender} edited {seq}: {text}"),
        RecordKind::RECALL => format!("* {sender} recalled {seq}"),
        RecordKind::REACTION if record.changes.removes => format!("* {sender} took back {text} from {seq}"),
        RecordKind::REACTION => format!("* {sender} reacted to {seq}: {text}"),
        _ => format!("* {}", record::event(record)?),
    })
}

/// Some of it may be a server's own words.
fn notice(text: &str) {
    eprintln!("{}", sanitize::text(text));
}

/// Reads lines until the end, an error, or until nobody wants them any more. A thread of its own, since reading the
/// standard input can be neither polled on every system nor stopped.
fn read_lines(mut input: impl io::BufRead, lines: &mpsc::Sender<Typed>) {
    let mut line = Vec::new();
    loop {
        line.clear();
        match input.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => return eprintln!("cannot read the input: {error}"),
        }
        let whole = line.ends_with(b"\n") || line.len() as u64 <= LINE_BYTES_MAX;
        let text = String::from_utf8_lossy(&line);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let typed = whole.then(|| text.strip_suffix('\r').unwrap_or(text).to_owned());
        if lines.blocking_send(typed).is_err() || (!whole && input.skip_until(b'\n').is_err()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::chat::record::{change, said};

    #[track_caller]
    fn check(input: &[u8], want: &[Option<&str>]) {
        let (sender, mut lines) = mpsc::channel(100);
        read_lines(input, &sender);
        drop(sender);
        let read: Vec<_> = std::iter::from_fn(|| lines.blocking_recv()).collect();
        assert_eq!(read, want.iter().map(|line| line.map(str::to_owned)).collect::<Vec<_>>());
    }

    #[test]
    fn records_are_lines() {
        let check = |record: Record, want: &str| assert_eq!(describe(&record).as_deref().unwrap_or("-"), want);
        check(said(1, "bob", "hi\x1b"), "<bob> hi␛");
        let mut edited = said(1, "bob", "hi");
        edited.apply(&change(2, RecordKind::EDIT, 1, "bob", "ho"));
        edited.apply(&change(3, RecordKind::REACTION, 1, "ann", "👍"));
        check(edited, "<bob> ho (edited) 👍 1");
        check(change(2, RecordKind::EDIT, 1, "bob", "ho"), "* bob edited 1: ho");
        check(change(2, RecordKind::RECALL, 1, "bob", ""), "* bob recalled 1");
        check(change(2, RecordKind::REACTION, 1, "bob", "👍"), "* bob reacted to 1: 👍");
        let mut back = change(2, RecordKind::REACTION, 1, "bob", "👍");
        back.changes.removes = true;
        check(back, "* bob took back 👍 from 1");
        let mut replaced = change(2, RecordKind::EDIT, 1, "bob", "");
        replaced.changes.tombstone = Some(parlor::client::TombstoneReason::REPLACED);
        check(replaced, "-");
        check(change(2, RecordKind(9), 0, "bob", "?"), "-");
    }

    #[test]
    fn lines_are_read_with_or_without_an_end_and_never_too_long() {
        check(b"", &[]);
        check(b"one\ntwo\r\n\nthree", &[Some("one"), Some("two"), Some(""), Some("three")]);
        check(b"caf\xe9\n", &[Some("caf\u{fffd}")]);
        let mut long = vec![b'x'; 100_000];
        long.extend(b"\nshort\n");
        check(&long, &[None, Some("short")]);
    }
}
