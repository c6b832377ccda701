//! The end of a channel's turn: when its mailbox is empty, within the same poll of its task. A message to itself would wake it
//! once more.

use std::{
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use actix::{Context, fut::ActorFuture};

use super::{Channel, state::Input};

/// Beside the mailbox for as long as the channel lives: polled whenever that has been emptied. So all that may begin a turn has to
/// come through the mailbox.
pub(super) struct TurnEnd;

impl ActorFuture<Channel> for TurnEnd {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        channel: &mut Channel,
        ctx: &mut Context<Channel>,
        _: &mut TaskContext<'_>,
    ) -> Poll<()> {
        while std::mem::take(&mut channel.turn_ends) {
            channel.input(Input::EndOfTurn, ctx);
        }
        channel.now = None;
        Poll::Pending
    }
}
