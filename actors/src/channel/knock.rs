//! A join on its way from a session to a channel.
//!
//! The session has the channel's address from the supervisor, and the channel may end before the join is there: it is put
//! to sleep, or it dies. Actix drops what lies in the mailbox of an actor that ends, and this message says so then.

use actix::{Addr, Context, Handler, Message};
use parlor_protocol::RoomNumber;

use super::{Channel, state::Input};
use crate::{
    message::Join,
    relay::{Relay, ToRelay},
};

/// A join that tells its relay if no channel gets it.
pub(crate) struct Knock {
    room: RoomNumber,
    /// Taken by the channel.
    join: Option<Join>,
    relay: Addr<Relay>,
}

impl Knock {
    /// A join of a connection of this relay.
    pub(crate) fn new(room: RoomNumber, join: Join, relay: Addr<Relay>) -> Self {
        Self { room, join: Some(join), relay }
    }
}

impl Message for Knock {
    type Result = ();
}

impl Handler<Knock> for Channel {
    type Result = ();

    fn handle(&mut self, mut knock: Knock, ctx: &mut Context<Self>) {
        if let Some(join) = knock.join.take() {
            self.told(Input::Join(join), ctx);
        }
    }
}

impl Drop for Knock {
    /// May run while unwinding: must not panic.
    fn drop(&mut self) {
        if let Some(Join { conn, request, .. }) = self.join.take() {
            self.relay.do_send(ToRelay::Unheard { room: self.room, conn, request });
        }
    }
}

#[cfg(test)]
mod tests;
