//! The shell of the chat on a screen: keys and events go into the model, its actions to the room.

use std::{future::pending, time::Duration};

use anyhow::Context as _;
use crossterm::event::{Event as TerminalEvent, EventStream};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use parlor::client::{Acked, Event, Events, Outgoing, Page, PublishError, RequestError, Room};
use parlor_protocol::message::Direction;
use ratatui::DefaultTerminal;
use tokio::time::{Instant, sleep_until};

use super::{
    describe_gap,
    model::{Action, Link, Message, Model},
    view,
};

/// How many older messages are fetched at once.
const PAGE_RECORDS: u32 = 100;

/// How long leaving waits for lines that are not stored yet.
const LEAVE_PATIENCE: Duration = Duration::from_secs(3);

/// The most events that are taken before the screen is drawn again.
const EVENTS_PER_TURN_MAX: usize = 256;

type Settled = (u64, Result<Acked, PublishError>);

/// A chat on a screen.
pub(crate) struct Screen<'a, F> {
    room: &'a Room,
    events: Option<Events>,
    /// Makes a message for the model; none of a record that is not shown.
    message: F,
    model: Model,
    sending: FuturesUnordered<BoxFuture<'static, Settled>>,
    fetching: Option<BoxFuture<'static, Result<Page, RequestError>>>,
    leave_by: Option<Instant>,
    /// To be left at once.
    done: bool,
}

impl<'a, F: Fn(parlor::client::Message) -> Option<Message>> Screen<'a, F> {
    /// Nothing is shown yet.
    pub(crate) fn new(room: &'a Room, events: Events, message: F, model: Model) -> Self {
        let (sending, events) = (FuturesUnordered::new(), Some(events));
        Self { room, events, message, model, sending, fetching: None, leave_by: None, done: false }
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
            terminal.draw(|frame| view::draw(frame, &self.model)).context("cannot draw")?;
            tokio::select! {
                key = keys.next() => match key {
                    Some(key) => self.on_terminal(key.context("cannot read the terminal")?),
                    // The terminal is gone.
                    None => self.done = true,
                },
                event = next_event(&mut self.events) => self.on_event(event),
                Some(settled) = self.sending.next(), if !self.sending.is_empty() => self.on_settled(settled),
                page = fetched(&mut self.fetching) => self.on_page(page),
                () = patience(self.leave_by) => self.done = true,
                () = &mut terminated => self.done = true,
            }
            self.drain();
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
        if let TerminalEvent::Key(key) = event
            && let Some(action) = self.model.on_key(key)
        {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send { id, text } => {
                let sending = self.room.send(Outgoing::text(&text));
                self.sending.push(Box::pin(async move { (id, sending.await) }));
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
                if let Some(message) = (self.message)(message) {
                    self.model.on_message(message);
                }
            }
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
            Ok(acked) => self.model.on_stored(id, acked.nonce),
            // It is still on its way, and its line with it.
            Err(error @ PublishError::Busy) => self.model.on_note(&error.to_string()),
            Err(error) => self.model.on_refused(id, &error.to_string()),
        }
    }

    fn on_page(&mut self, page: Result<Page, RequestError>) {
        self.fetching = None;
        match page {
            Ok(page) => {
                let messages = page.messages.into_iter().filter_map(&self.message).collect();
                self.model.on_page(messages, page.next);
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

async fn fetched(fetching: &mut Option<BoxFuture<'static, Result<Page, RequestError>>>) -> Result<Page, RequestError> {
    match fetching {
        Some(fetching) => fetching.await,
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
