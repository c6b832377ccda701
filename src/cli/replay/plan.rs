//! From the lines of logs to the steps of clients. Pure.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use parlor_protocol::{Name, NameError};

use super::irc::{self, Line, MINUTES_PER_DAY};

const MINUTE: Duration = Duration::from_secs(60);

/// What happens in one room, in the order of its logs.
#[derive(Debug)]
pub(crate) struct RoomPlan {
    /// The room's name.
    pub(crate) room: Name,
    /// The clients by number: a nick of this room each.
    pub(crate) clients: Vec<Name>,
    /// Everything that is said, in order.
    pub(crate) messages: Vec<Message>,
    /// What the clients do, in order.
    pub(crate) steps: Vec<Step>,
    /// The most clients that are connected at once.
    pub(crate) clients_at_once: usize,
    /// Lines that say nothing that can be replayed.
    pub(crate) skipped: usize,
}

/// Something that a client says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Who.
    pub(crate) client: usize,
    /// What.
    pub(crate) text: Box<str>,
    /// Where it stands.
    pub(crate) origin: Origin,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The log's name.
    pub(crate) file: Arc<str>,
    /// From 1.
    pub(crate) line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Something that a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Which client.
    pub(crate) client: usize,
    /// When, in the time of the log, from its beginning. The log's clock has but minutes: the lines of a minute are spread
    /// over it evenly.
    pub(crate) at: Duration,
    /// What.
    pub(crate) action: Action,
}

/// What a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Joins the room; connects first, if this is its first step.
    Join,
    /// Says the message of this number.
    Say(usize),
    /// Leaves the room.
    Leave {
        /// And does nothing afterwards, so that its connection may end.
        last: bool,
    },
}

/// Reads logs into a [`RoomPlan`]: `log` for each, then `finish`.
pub(crate) struct Planner {
    plan: RoomPlan,
    numbers: HashMap<Name, usize>,
    /// By client: whether it is in the room.
    inside: Vec<bool>,
    connected: usize,
    /// When the log that is read next begins.
    begin: Duration,
}

impl Planner {
    /// Nobody has done anything yet.
    pub(crate) fn new(room: Name) -> Self {
        let plan = RoomPlan { room, clients: vec![], messages: vec![], steps: vec![], clients_at_once: 0, skipped: 0 };
        Self { plan, numbers: HashMap::new(), inside: vec![], connected: 0, begin: Duration::ZERO }
    }

    /// Adds a log, which begins where the one before it ended.
    ///
    /// # Errors
    /// Never in practice: see [`irc::name_of`].
    pub(crate) fn log(&mut self, file: &str, content: &str) -> Result<(), NameError> {
        let file: Arc<str> = file.into();
        let mut clock = Clock::default();
        let mut minute_steps = self.plan.steps.len();
        for (index, line) in content.lines().enumerate() {
            let line = irc::parse(line);
            if let Line::Said { minute, .. } = line
                && let Some(over) = clock.advance(minute)
            {
                self.spread(minute_steps, over);
                minute_steps = self.plan.steps.len();
            }
            let origin = Origin { file: file.clone(), line: index + 1 };
            self.line(line, origin)?;
        }
        self.spread(minute_steps, clock.passed);
        self.begin += MINUTE * (clock.passed + 1);
        Ok(())
    }

    fn line(&mut self, line: Line<'_>, origin: Origin) -> Result<(), NameError> {
        match line {
            Line::Said { nick, text, .. } => {
                let client = self.client(nick)?;
                self.enter(client);
                self.step(client, Action::Say(self.plan.messages.len()));
                self.plan.messages.push(Message { client, text: text.into(), origin });
            }
            Line::Joined { nick } => {
                let client = self.client(nick)?;
                self.enter(client);
            }
            Line::Left { nick } => self.exit(&irc::name_of(nick)?),
            Line::Renamed { old, new } => {
                let (old, client) = (irc::name_of(old)?, self.client(new)?);
                if old != self.plan.clients[client] {
                    self.exit(&old);
                }
                self.enter(client);
            }
            Line::Other => self.plan.skipped += 1,
        }
        Ok(())
    }

    /// The plan, complete.
    pub(crate) fn finish(mut self) -> RoomPlan {
        let mut again = vec![false; self.plan.clients.len()];
        // Backwards, the first step of a client that one meets is its last.
        for step in self.plan.steps.iter_mut().rev() {
            if let Action::Leave { last } = &mut step.action {
                *last = !again[step.client];
            }
            again[step.client] = true;
        }
        self.plan
    }

    fn client(&mut self, nick: &str) -> Result<usize, NameError> {
        let name = irc::name_of(nick)?;
        Ok(*self.numbers.entry(name).or_insert_with_key(|name| {
            self.plan.clients.push(name.clone());
            self.inside.push(false);
            self.plan.clients.len() - 1
        }))
    }

    /// Logs tell of joins twice, and not of every way out: who is in stays in.
    fn enter(&mut self, client: usize) {
        if !std::mem::replace(&mut self.inside[client], true) {
            self.step(client, Action::Join);
            self.connected += 1;
            self.plan.clients_at_once = self.plan.clients_at_once.max(self.connected);
        }
    }

    /// Who was in before the log began cannot leave, since it never came.
    fn exit(&mut self, name: &Name) {
        let Some(&client) = self.numbers.get(name) else { return };
        if std::mem::replace(&mut self.inside[client], false) {
            self.step(client, Action::Leave { last: false });
            self.connected -= 1;
        }
    }

    fn step(&mut self, client: usize, action: Action) {
        self.plan.steps.push(Step { client, at: Duration::ZERO, action });
    }

    /// Gives the steps from number `first` on their times, all within the minute of this number.
    fn spread(&mut self, first: usize, minute: u32) {
        let begin = self.begin + MINUTE * minute;
        let steps = &mut self.plan.steps[first..];
        let every = MINUTE.checked_div(u32::try_from(steps.len()).unwrap_or(u32::MAX)).unwrap_or_default();
        for (index, step) in (0..).zip(steps) {
            step.at = begin + every * index;
        }
    }
}

/// Makes passing time of the minutes of a log, over midnight and in spite of a clock that is set back.
#[derive(Default)]
struct Clock {
    /// The minute of the day that was read last.
    minute: Option<u16>,
    /// Minutes since the log began.
    passed: u32,
}

impl Clock {
    /// Takes the next line's minute. If a new one begins, returns the number of the minute that is over.
    fn advance(&mut self, minute: u16) -> Option<u32> {
        let last = *self.minute.get_or_insert(minute);
        let ahead = (minute + MINUTES_PER_DAY - last) % MINUTES_PER_DAY;
        // More than half a day ahead is rather a clock set back; the time of the log stands still meanwhile.
        if ahead == 0 || ahead > MINUTES_PER_DAY / 2 {
            return None;
        }
        self.minute = Some(minute);
        self.passed += u32::from(ahead);
        Some(self.passed - u32::from(ahead))
    }
}

#[cfg(test)]
mod tests;
