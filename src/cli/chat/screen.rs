//! The shell of the chat on a screen: keys and events go into the model, its actions to the room.

use std::{future::pending, time::Duration};

use anyhow::Context as _;
use crossterm::event::{Event as TerminalEvent, EventStream, KeyCode};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use parlor::client::{Acked, Client, Event, Events, Outgoing, Page, PublishError, RequestError, Room, RoomPresence};
use parlor_protocol::{Seq, message::Direction};
use ratatui::DefaultTerminal;
use tokio::time::{Instant, sleep_until};

use super::{
    describe_gap,
    model::{Action, Link, Model},
    requests::perform,
    typing::TYPING_KEY,
    view,
};

/// How many older messages are fetched at once.
const PAGE_RECORDS: u32 = 100;

/// How long leaving waits for lines that are not stored yet.
const LEAVE_PATIENCE: Duration = Duration::from_secs(3);

/// The most events that are taken before the screen is drawn again.
const EVENTS_PER_TURN_MAX: usize = 256;

/// A line's number, none for a change, and what became of it.
type Settled = (Option<u64>, Result<Acked, PublishError>);

/// What the server was asked.
type Asked<T> = BoxFuture<'static, Result<T, RequestError>>;

/// The most commands that wait for their answers.
const ASKED_MAX: usize = 8;

/// A chat on a screen.
pub(crate) struct Screen<'a> {
    client: &'a Client,
    room: &'a Room,
    events: Option<Events>,
    model: Model,
    began: Instant,
    /// Marked as read up to here.
    marked: Seq,
    asked: FuturesUnordered<BoxFuture<'static, Result<Vec<String>, String>>>,
    sending: FuturesUnordered<BoxFuture<'static, Settled>>,
    fetching: Option<Asked<Page>>,
    /// The room is about to be watched.
    watching: Option<Asked<RoomPresence>>,
    leave_by: Option<Instant>,
    /// To be left at once.
    done: bool,
}

impl<'a> Screen<'a> {
    /// Nothing is shown yet.
    pub(crate) fn new(client: &'a Client, room: &'a Room, events: Events, model: Model) -> Self {
        Self {
            client,
            room,
            events: Some(events),
            model,
            began: Instant::now(),
            marked: room.joined().read,
            asked: FuturesUnordered::new(),
            sending: FuturesUnordered::new(),
            fetching: None,
            watching: Some(Box::pin({
                let room = room.clone();
                async move { room.watch_presence().await }
            })),
            leave_by: None,
            done: false,
        }
    }

    /// Runs until the user leaves. Returns how many lines were not stored.
    pub(crate) async fn run(mut self) -> anyhow::Result<usize> {
        // Also makes a panic, on whatever thread, restore the terminal before it is printed.
        let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
        let outcome = self.talk(&mut terminal).await;
        ratatui::restore();
        outcome.map(|()| self.model.unsent())
    }

    async fn talk(&mut self, terminal: &mut DefaultTerminal) -> anyhow::Result<()> {
        let mut keys = EventStream::new();
        let mut terminated = terminated()?;
        while !self.is_over() {
            let area = terminal.size().context("cannot read the terminal's size")?;
            self.model.resize(view::talk_size(area.into()));
            let forget = self.model.typing.timeout().map(|at| self.began + at);
            terminal.draw(|frame| view::draw(frame, &self.model)).context("cannot draw")?;
            tokio::select! {
                key = keys.next() => match key {
                    Some(key) => self.on_terminal(key.context("cannot read the terminal")?),
                    // The terminal is gone.
                    None => self.done = true,
                },
                event = next_event(&mut self.events) => self.on_event(event),
                Some(settled) = self.sending.next(), if !self.sending.is_empty() => self.on_settled(settled),
                Some(answer) = self.asked.next(), if !self.asked.is_empty() => self.on_answer(answer),
                page = answered(&mut self.fetching) => self.on_page(page),
                // What comes of it is among the events. A server that tells no presence is shown without.
                _ = answered(&mut self.watching) => self.watching = None,
                () = patience(forget) => {}
                () = patience(self.leave_by) => self.done = true,
                () = &mut terminated => self.done = true,
            }
            self.drain();
            self.model.typing.on_time(self.began.elapsed());
            self.mark();
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.done || (self.model.leaving && self.model.unsent() == 0)
    }

    /// Takes what is there already, so that a burst is drawn once.
    fn drain(&mut self) {
        for _ in 0..EVENTS_PER_TURN_MAX {
            let Some(event) = next_event(&mut self.events).now_or_never() else { break };
            self.on_event(event);
        }
        while let Some(Some(settled)) = self.sending.next().now_or_never() {
            self.on_settled(settled);
        }
    }

    fn on_terminal(&mut self, event: TerminalEvent) {
        let TerminalEvent::Key(key) = event else { return };
        if let Some(action) = self.model.on_key(key) {
            self.act(action);
        } else if matches!(key.code, KeyCode::Char(_))
            && self.model.is_saying()
            && self.model.typing.on_key(self.began.elapsed())
        {
            // That it may be lost is the nature of a signal.
            let _ = self.room.signal(TYPING_KEY, "");
        }
    }

    /// Tells the server what was read.
    fn mark(&mut self) {
        if let Some(read) = self.model.read().filter(|read| *read > self.marked) {
            self.marked = read;
            // That the client is closed is told by its events.
            let _ = self.room.mark_read(read);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send { id, text } => {
                let sending = self.room.send(Outgoing::text(&text));
                self.sending.push(Box::pin(async move { (Some(id), sending.await) }));
            }
            Action::Change(outgoing) => {
                let sending = self.room.send(outgoing);
                self.sending.push(Box::pin(async move { (None, sending.await) }));
            }
            Action::Ask(_) if self.asked.len() >= ASKED_MAX => {
                self.model.on_note("too many commands wait for their answers: wait for some");
            }
            Action::Ask(request) => {
                let (client, room) = (self.client.clone(), self.room.clone());
                self.asked.push(Box::pin(perform(client, room, self.model.clock.clone(), request)));
            }
            Action::FetchOlder { start } => {
                let room = self.room.clone();
                self.fetching =
                    Some(Box::pin(async move { room.fetch(Some(start), Direction::Backward, PAGE_RECORDS).await }));
            }
            Action::Quit => {
                self.done = self.model.leaving || self.model.link != Link::Connected;
                self.model.leaving = true;
                self.leave_by = Some(Instant::now() + LEAVE_PATIENCE);
            }
        }
    }

    fn on_event(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Message(message)) => {
                self.model.on_record(message);
            }
            Some(Event::Signal(signal)) if signal.key == TYPING_KEY => {
                self.model.on_typing(&signal.sender, self.began.elapsed());
            }
            Some(Event::Presence(presence)) => self.model.here = Some(presence.count),
            Some(Event::Signal(_) | Event::Marked(_)) => {}
            Some(Event::Gap(gap)) => self.model.on_note(&describe_gap(&gap)),
            Some(Event::Disconnected { reason }) => self.model.on_link(Link::Reconnecting(reason)),
            Some(Event::Reconnected) => self.model.on_link(Link::Connected),
            Some(Event::Closed { code, message }) => self.model.on_link(Link::Over(format!("{code}: {message}"))),
            None => {
                self.events = None;
                if !matches!(self.model.link, Link::Over(_)) {
                    self.model.on_link(Link::Over("the client has stopped".to_owned()));
                }
            }
        }
    }

    fn on_settled(&mut self, (id, settled): Settled) {
        match settled {
            // A change shows where it was made.
            Ok(acked) => id.into_iter().for_each(|id| self.model.on_stored(id, acked.nonce)),
            // It is still on its way, and its line with it.
            Err(error @ PublishError::Busy) => self.model.on_note(&error.to_string()),
            Err(error) => match id {
                Some(id) => self.model.on_refused(id, &error.to_string()),
                None => self.model.on_note(&format!("not changed: {error}")),
            },
        }
    }

    fn on_answer(&mut self, answer: Result<Vec<String>, String>) {
        match answer {
            Ok(lines) => lines.iter().for_each(|line| self.model.on_note(line)),
            Err(error) => self.model.on_note(&format!("not done: {error}")),
        }
    }

    fn on_page(&mut self, page: Result<Page, RequestError>) {
        self.fetching = None;
        match page {
            Ok(page) => {
                self.model.on_page(page.messages, page.next);
            }
            Err(error) => self.model.on_page_failed(&error.to_string()),
        }
    }
}

async fn next_event(events: &mut Option<Events>) -> Option<Event> {
    match events {
        Some(events) => events.next().await,
        None => pending().await,
    }
}

async fn answered<T>(asked: &mut Option<Asked<T>>) -> Result<T, RequestError> {
    match asked {
        Some(asked) => asked.await,
        None => pending().await,
    }
}

async fn patience(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => pending().await,
    }
}

/// Resolves when the process is asked to end: the terminal must be restored then too.
#[cfg(unix)]
fn terminated() -> anyhow::Result<BoxFuture<'static, ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    Ok(Box::pin(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = hangup.recv() => {}
        }
    }))
}

#[cfg(not(unix))]
fn terminated() -> anyhow::Result<BoxFuture<'static, ()>> {
    Ok(Box::pin(pending()))
}
