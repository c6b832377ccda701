//! Questions on their way: asked when the connection allows it, asked again on the next one where that does no harm.

use std::time::Duration;

use parlor_protocol::{Code, RoomNumber, message};

use super::{
    effect::{Effect, Now, Pending},
    error::RequestError,
    question::{Answer, Ask},
    room::Stage,
    state::State,
    wire::Incoming,
};

impl State {
    /// The application asks something.
    pub(super) fn handle_ask(&mut self, now: Now, ask: Ask) {
        match ask.room {
            None => {
                self.asks.push_back(ask);
                self.settle_asks();
            }
            Some(key) => match self.rooms.get_mut(&key) {
                Some(room) if !room.leaving => {
                    room.asks.push_back(ask);
                    self.settle(now, key);
                }
                _ => self.effects.push_back(Effect::Refused(ask.ticket, RequestError::NotJoined)),
            },
        }
    }

    /// Asks what is due and not about a joined room. A part of what may be under way is left to publishes and heartbeats.
    pub(super) fn settle_asks(&mut self) {
        let most = (self.limits.unanswered_requests_max / 4).max(1) as usize;
        while self.is_online()
            && self.asking < most
            && let Some(ask) = self.asks.pop_front()
        {
            self.asking += 1;
            self.send_ask(RoomNumber::default(), ask);
        }
    }

    /// Asks what is due about a joined room.
    pub(super) fn settle_asks_of(&mut self, key: super::effect::RoomKey) {
        while let Some(room) = self.rooms.get_mut(&key)
            && let Some(ask) = room.asks.pop_front()
        {
            let number = room.number;
            self.send_ask(number, ask);
        }
    }

    fn send_ask(&mut self, number: RoomNumber, ask: Ask) {
        let request = self.write(|request, out| ask.question.encode(request, number, out));
        self.requests.insert(request, Pending::Ask(ask));
    }

    /// A frame that answers a question, if one waits for it.
    pub(super) fn on_answer(&mut self, now: Now, request: u32, frame: &Incoming<'_>) {
        let Some(Pending::Ask(ask)) = self.requests.get(&request) else { return };
        let (tag, user) = (self.tag, &self.config.user);
        let own = |record: &message::Deliver<'_>| record.device_tag == tag && *record.sender == **user;
        match ask.question.answer(frame, &mut self.messages, own) {
            Ok(Some(answer)) => {
                let Some(ask) = self.take_ask(request) else { return };
                if let (Some(key), Answer::Standing(standing)) = (ask.room, &answer) {
                    self.on_standing(key, *standing);
                }
                self.on_watch_answered(&ask, &answer);
                self.effects.push_back(Effect::Answered(ask.ticket, answer));
                self.settle_behind(now, &ask);
            }
            Ok(None) => self.handle_lost(now, format!("this answers another request: {frame:?}"), true),
            Err(error) => self.handle_lost(now, error.to_string(), true),
        }
    }

    /// A question was refused.
    pub(super) fn on_ask_refused(&mut self, now: Now, ask: &Ask, error: &message::Error<'_>) {
        self.asking -= usize::from(ask.room.is_none());
        let (code, message) = (error.code, error.message.to_owned());
        let retry_after = Duration::from_millis(u64::from(error.retry_after_ms));
        let refused = if code == Code::OutcomeUnknown && !ask.question.repeats(&self.config.user) {
            RequestError::OutcomeUnknown
        } else {
            RequestError::Refused { code, message, retry_after }
        };
        self.effects.push_back(Effect::Refused(ask.ticket, refused));
        self.settle_behind(now, ask);
    }

    /// The connection broke before the answer.
    pub(super) fn on_ask_lost(&mut self, ask: Ask) {
        match ask.room {
            Some(key) => {
                if let Some(room) = self.rooms.get_mut(&key) {
                    room.asks.push_back(ask);
                }
            }
            None if ask.question.repeats(&self.config.user) => self.asks.push_back(ask),
            None => self.effects.push_back(Effect::Refused(ask.ticket, RequestError::OutcomeUnknown)),
        }
    }

    /// Whether a question about this room is under way.
    pub(super) fn is_asking(&self, key: super::effect::RoomKey) -> bool {
        self.requests.values().any(|pending| matches!(pending, Pending::Ask(ask) if ask.room == Some(key)))
    }

    fn take_ask(&mut self, request: u32) -> Option<Ask> {
        let Some(Pending::Ask(ask)) = self.answered(request) else { return None };
        self.asking -= usize::from(ask.room.is_none());
        Some(ask)
    }

    /// What waited for this question to be answered.
    fn settle_behind(&mut self, now: Now, ask: &Ask) {
        match ask.room {
            // A leave waits for the last answer.
            Some(key) if self.rooms.get(&key).is_some_and(|room| room.stage == Stage::In) => self.settle(now, key),
            Some(_) => {}
            None => self.settle_asks(),
        }
    }
}
