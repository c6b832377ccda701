//! Fair turns: an actor's mailbox drains until it is empty, so a flooded actor would starve its arbiter's others.

use actix::{Actor, AsyncContext, Context, fut::wrap_future};

/// Messages handled between two yields.
const MESSAGES_PER_TURN: u32 = 64;

/// Counts one actor's messages.
#[derive(Debug, Default)]
pub(crate) struct Turns(u32);

impl Turns {
    /// Call once for each message: lets the arbiter's other tasks run every so often, and says whether they do now.
    pub(crate) fn count<A: Actor<Context = Context<A>>>(&mut self, ctx: &mut Context<A>) -> bool {
        self.0 = (self.0 + 1) % MESSAGES_PER_TURN;
        let yields = self.0 == 0;
        if yields {
            ctx.wait(wrap_future(tokio::task::yield_now()));
        }
        yields
    }
}
