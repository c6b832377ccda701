//! Members that come to rooms of one publisher each, and what each of them must receive: every message from some number
//! on, once, in order.

use std::io;

use super::payload;
use crate::peers::{Event, PAYLOAD};

#[derive(Clone, Copy, Default)]
struct Member {
    /// When it had joined.
    joined: Option<u64>,
    /// The number that it expects; `None` as long as any may be its first.
    next: Option<u64>,
}

/// Members of rooms. Member `i` is in room `i % rooms`, where publisher `i % rooms` alone publishes.
pub(super) struct Follow {
    rooms: usize,
    members: Vec<Member>,
    /// Messages received, over all members.
    pub(super) deliveries: u64,
}

impl Follow {
    /// Members that may begin anywhere before what is published after they joined.
    pub(super) fn newcomers(rooms: usize, members: usize) -> Self {
        Self { rooms, members: vec![Member::default(); members], deliveries: 0 }
    }

    /// Members that have everything of room `r` below number `next[r]`, and may get none of that again.
    pub(super) fn returning(next: &[u64], members: usize) -> Self {
        let member = |index| Member { joined: None, next: Some(next[index % next.len()]) };
        Self { rooms: next.len(), members: (0..members).map(member).collect(), deliveries: 0 }
    }

    /// Something came to a member.
    ///
    /// # Errors
    /// If it is not the message that the member had to get next.
    pub(super) fn on(&mut self, index: usize, event: &Event<'_>, now: u64) -> io::Result<()> {
        let (payload, sender) = match event {
            Event::Ready => {
                self.members[index].joined = Some(now);
                return Ok(());
            }
            Event::Delivery { payload, sender } => (*payload, *sender),
            _ => return Ok(()),
        };
        if payload.len() != PAYLOAD {
            return Err(io::Error::other(format!("member {index} got {} bytes, {PAYLOAD} were sent", payload.len())));
        }
        let (message, room) = (payload::read(payload), index % self.rooms);
        let member = &mut self.members[index];
        let due = match member.next {
            Some(next) => message.number == next,
            // What was published after the member had joined must have come to it.
            None => message.number == 0 || member.joined.is_some_and(|joined| payload::before(payload) <= joined),
        };
        if !due || message.publisher != room || sender.is_some_and(|sender| sender as usize != room) {
            let what = format!("sent as {sender:?}, and had to get {:?} of room {room}", member.next);
            return Err(io::Error::other(format!("member {index} got {message:?}, {what}")));
        }
        member.next = Some(message.number + 1);
        self.deliveries += 1;
        Ok(())
    }

    /// Whether the member has joined.
    pub(super) fn joined(&self, index: usize) -> bool {
        self.members[index].joined.is_some()
    }

    /// Whether the member has all that was published, which is `published[r]` messages in room `r`.
    pub(super) fn has_all(&self, index: usize, published: &[u64]) -> bool {
        let Member { joined, next } = self.members[index];
        joined.is_some() && next == Some(published[index % self.rooms])
    }
}
