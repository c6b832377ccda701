//! Members that come to rooms of one publisher each, and what each of them must receive: every message from some number
//! on, once, in order.

use std::io;

use super::payload;
use crate::peers::Event;

#[derive(Clone, Copy, Default)]
struct Member {
    /// When it had joined.
    joined: Option<u64>,
    /// The number that it expects; `None` as long as any may be its first.
    next: Option<u64>,
    /// How many more messages it has to get that were published before it had joined.
    owed: u32,
}

/// Members of rooms. Member `i` is in room `i % rooms`, where publisher `i % rooms` alone publishes.
pub(super) struct Follow {
    rooms: usize,
    members: Vec<Member>,
    /// Messages received, over all members.
    pub(super) deliveries: u64,
}

impl Follow {
    /// Members that may begin anywhere before what is published after they joined, and `newest` messages before that, or
    /// with the first.
    pub(super) fn newcomers(rooms: usize, members: usize, newest: u32) -> Self {
        let member = Member { owed: newest, ..Member::default() };
        Self { rooms, members: vec![member; members], deliveries: 0 }
    }

    /// Members that have everything of room `r` below number `next[r]`, and may get none of that again.
    pub(super) fn returning(next: &[u64], members: usize) -> Self {
        let member = |index| Member { joined: None, next: Some(next[index % next.len()]), owed: 0 };
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
        let (message, room) = (payload::read(payload)?, index % self.rooms);
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
        if member.next.is_none() && message.number == 0 {
            // It has all that there is, be it less than it asked for.
            member.owed = 0;
        }
        if member.owed > 0 && member.joined.is_some_and(|joined| message.stamp > joined) {
            let (owed, number) = (member.owed, message.number);
            let what = format!("{owed} older messages that member {index} asked for are missing");
            return Err(io::Error::other(format!("{what} before message {number} of room {room}")));
        }
        member.owed = member.owed.saturating_sub(1);
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
        let Member { joined, next, .. } = self.members[index];
        joined.is_some() && next == Some(published[index % self.rooms])
    }
}
