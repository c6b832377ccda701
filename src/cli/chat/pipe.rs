//! A chat without a terminal: lines in, lines out.

use std::{
    io::{self, BufRead as _, Read as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use parlor::client::{Acked, Event, Events, Outgoing, PublishError, Room};
use parlor_protocol::Seq;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{clock::Clock, model::Message};
use crate::cli::sanitize;

/// How many lines may wait for their acks; the input is not read on meanwhile.
const UNACKED_MAX: usize = 64;

/// The longest line that is read, in bytes without its end: no server takes more.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// How long to wait at the input's end while nothing happens at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// A line of the input; none if it is longer than one may be.
type Typed = Option<String>;

/// Runs until the input has ended, every line of it is acknowledged and everything up to the last of them is written.
pub(crate) async fn run(
    room: &Room,
    events: Events,
    message: impl Fn(parlor::client::Message) -> Option<Message>,
) -> anyhow::Result<ExitCode> {
    let (sender, typed) = mpsc::channel(UNACKED_MAX);
    std::thread::spawn(move || read_lines(io::stdin().lock(), &sender));
    let mut pipe = Pipe {
        room,
        clock: Clock::local(),
        seen: room.joined().cursor,
        awaited: room.joined().tail,
        failed: 0,
        deaf: false,
        cut: false,
    };
    let outcome = pipe.run(events, typed, message).await;
    if pipe.failed > 0 {
        eprintln!("{} lines were not stored", pipe.failed);
    }
    outcome.map(|()| if pipe.failed > 0 || pipe.cut { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

struct Pipe<'a> {
    room: &'a Room,
    clock: Clock,
    /// Written, or told to be missing, up to here.
    seen: Seq,
    /// To be written before the end.
    awaited: Seq,
    /// Lines that were not stored.
    failed: usize,
    /// Nobody reads the output any more, as after `head`.
    deaf: bool,
    /// So the rest of the input was not taken.
    cut: bool,
}

impl Pipe<'_> {
    async fn run(
        &mut self,
        mut events: Events,
        mut typed: mpsc::Receiver<Typed>,
        message: impl Fn(parlor::client::Message) -> Option<Message>,
    ) -> anyhow::Result<()> {
        let (mut open, mut sending) = (true, FuturesUnordered::new());
        let mut last = Instant::now();
        while open || !sending.is_empty() || (self.seen < self.awaited && !self.deaf) {
            tokio::select! {
                line = typed.recv(), if open && sending.len() < UNACKED_MAX => match line {
                    Some(Some(text)) => sending.push(self.room.send(Outgoing::text(&text))),
                    Some(None) => self.fail(&format!("a line is longer than {LINE_BYTES_MAX} bytes")),
                    None => open = false,
                },
                Some(settled) = sending.next(), if !sending.is_empty() => self.on_settled(settled),
                event = events.next() => match event {
                    Some(event) => self.on_event(event, &message)?,
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

    fn on_settled(&mut self, settled: Result<Acked, PublishError>) {
        match settled {
            Ok(acked) => self.awaited = self.awaited.max(acked.seq),
            Err(error) => self.fail(&error.to_string()),
        }
    }

    fn fail(&mut self, why: &str) {
        self.failed += 1;
        notice(&format!("not stored: {why}"));
    }

    fn write(&mut self, message: &Message) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let Message { time, sender, text, .. } = message;
        match writeln!(out, "{} <{sender}> {text}", self.clock.minute(*time)).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.deaf = true,
            written => written.context("cannot write")?,
        }
        Ok(())
    }

    fn on_event(
        &mut self,
        event: Event,
        message: impl Fn(parlor::client::Message) -> Option<Message>,
    ) -> anyhow::Result<()> {
        match event {
            Event::Message(record) => {
                self.seen = record.seq;
                if let Some(message) = message(record)
                    && !self.deaf
                {
                    self.write(&message)?;
                }
            }
            Event::Gap(gap) => {
                self.seen = gap.to;
                notice(&super::describe_gap(&gap));
            }
            Event::Disconnected { reason } => notice(&format!("connection lost ({reason}), reconnecting…")),
            Event::Reconnected => notice("connected again"),
            Event::Closed { code, message } => notice(&format!("closed: {code}: {message}")),
        }
        Ok(())
    }
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

    #[track_caller]
    fn check(input: &[u8], want: &[Option<&str>]) {
        let (sender, mut lines) = mpsc::channel(100);
        read_lines(input, &sender);
        drop(sender);
        let read: Vec<_> = std::iter::from_fn(|| lines.blocking_recv()).collect();
        assert_eq!(read, want.iter().map(|line| line.map(str::to_owned)).collect::<Vec<_>>());
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
