//! Whoever waits for the answer to what he asked of the client.

use std::collections::HashMap;

use super::{
    effect::{Effect, Ticket},
    error::PublishError,
    shared::{AskOutcome, JoinOutcome, LeaveOutcome, Permit, Reply, SendOutcome},
};

pub(super) enum Waiter {
    Join(Reply<JoinOutcome>),
    Send(Reply<SendOutcome>),
    /// A send whose sender was told that the server does not answer. It keeps its place.
    Stalled {
        _permit: Permit,
    },
    Ask(Reply<AskOutcome>),
    Leave(Reply<LeaveOutcome>),
}

/// See the module.
#[derive(Default)]
pub(super) struct Waiters {
    waiters: HashMap<Ticket, Waiter>,
    tickets: Ticket,
}

impl Waiters {
    /// A ticket for one who waits.
    pub(super) fn add(&mut self, waiter: Waiter) -> Ticket {
        self.tickets += 1;
        self.waiters.insert(self.tickets, waiter);
        self.tickets
    }

    /// The server does not answer: the sender is told, and his message keeps its place.
    pub(super) fn stall(&mut self, ticket: Ticket) {
        if let Some(Waiter::Send(Reply { sender, _permit: permit })) = self.waiters.remove(&ticket) {
            // That he may have gone is his affair.
            let _ = sender.send(Err(PublishError::Busy));
            self.waiters.insert(ticket, Waiter::Stalled { _permit: permit });
        }
    }

    /// Answers whoever waits; that he may have gone is his affair.
    pub(super) fn answer(&mut self, ticket: Ticket, effect: Effect) {
        let Some(waiter) = self.waiters.remove(&ticket) else { return };
        let _ = match (waiter, effect) {
            (Waiter::Join(reply), Effect::Joined(_, _, info)) => reply.sender.send(Ok(info)).is_ok(),
            (Waiter::Join(reply), Effect::Refused(_, error)) => reply.sender.send(Err(error)).is_ok(),
            (Waiter::Ask(reply), Effect::Answered(_, answer)) => reply.sender.send(Ok(answer)).is_ok(),
            (Waiter::Ask(reply), Effect::Refused(_, error)) => reply.sender.send(Err(error)).is_ok(),
            (Waiter::Leave(reply), Effect::Left(_, cursor)) => reply.sender.send(Ok(cursor)).is_ok(),
            (Waiter::Leave(reply), Effect::Refused(_, error)) => reply.sender.send(Err(error)).is_ok(),
            (Waiter::Send(reply), Effect::Sent(_, outcome)) => reply.sender.send(outcome).is_ok(),
            (Waiter::Stalled { .. }, Effect::Sent(..)) => true,
            (_, effect) => {
                debug_assert!(false, "{effect:?} answers something else");
                false
            }
        };
    }
}
