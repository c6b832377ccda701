//! How a client sends what is in its outbox: whole or in parts, once or again.

use parlor_protocol::{
    Extensions,
    message::{ContentType, PUBLISH_REMOVE, PUBLISH_SILENT, Part, Publish, RecordKind},
};

use super::{Ask, Client, Message, ON_THE_WAY_MAX, Standing, said};
use crate::house::House;

impl Client {
    /// Sends what the outbox holds and is not on the way; or again what is, as after a timeout.
    pub fn push(&mut self, house: &mut House, at: usize, again: bool) {
        let on_the_way = self.on_the_way(at);
        let view = &mut self.views[at];
        if view.standing != Standing::In || on_the_way >= ON_THE_WAY_MAX || self.closing {
            return;
        }
        if view.stalled {
            if on_the_way > 0 {
                return;
            }
            view.stalled = false;
        }
        let next = view.outbox.iter().find(|message| again || message.nonce > view.sent);
        let Some(Message { nonce, silent, change }) = next.filter(|message| !again || message.nonce <= view.sent)
        else {
            return;
        };
        let (nonce, silent, change, room) = (*nonce, *silent, *change, view.number);
        view.sent = view.sent.max(nonce);
        let (kind, refers_to, remove) = change.unwrap_or((RecordKind::MESSAGE, 0, false));
        let payload = said(kind, &self.key.user, &view.name, nonce);
        let publish = Publish {
            room,
            nonce,
            kind,
            refers_to,
            // The same each time that it is sent.
            lifetime_ms: (nonce % 4 > 0).then_some(100 + nonce % 9 * 200),
            flags: if silent { PUBLISH_SILENT } else { 0 } | if remove { PUBLISH_REMOVE } else { 0 },
            content_type: ContentType::TEXT,
            payload: payload.as_bytes(),
            extensions: Extensions::default(),
        };
        // Recalls and reactions are short.
        if matches!(kind, RecordKind::MESSAGE | RecordKind::EDIT) && house.chance.one_in(4) {
            return self.push_in_parts(house, at, &publish);
        }
        self.send(house, Some(Ask::Publish(at, nonce)), &publish);
    }

    /// Sends a message in two parts, the same each time, in either order, one of them perhaps twice.
    pub(super) fn push_in_parts(&mut self, house: &mut House, at: usize, publish: &Publish<'_>) {
        let cut = publish.payload.split_at(if publish.nonce % 4 > 1 { 1 } else { 9 });
        let parts = [(0, cut.0), (1, cut.1)];
        let (first, last) = if house.chance.one_in(2) { (parts[0], parts[1]) } else { (parts[1], parts[0]) };
        for (number, payload) in [first, first, last].into_iter().skip(house.chance.below(2)) {
            let part = Part {
                room: publish.room,
                nonce: publish.nonce,
                number,
                parts: 2,
                total_bytes: u32::try_from(publish.payload.len()).unwrap(),
                kind: publish.kind,
                refers_to: publish.refers_to,
                lifetime_ms: publish.lifetime_ms,
                flags: publish.flags,
                content_type: publish.content_type,
                payload,
                extensions: Extensions::default(),
            };
            let ask = if number == last.0 { Ask::Publish(at, publish.nonce) } else { Ask::Part(at, publish.nonce) };
            self.send(house, Some(ask), &part);
        }
    }

    pub(super) fn on_the_way(&self, at: usize) -> usize {
        self.waiting.values().filter(|ask| matches!(ask, Ask::Publish(room, _) if *room == at)).count()
    }
}
