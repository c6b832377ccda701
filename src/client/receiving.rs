//! The receiving half of the client's rooms: records, of themselves and in pages, on their way to `inbound.rs`.

use parlor_protocol::message;

use super::{
    effect::{Effect, Now, Pending, RoomKey},
    event::Page,
    inbound::{Inbound, Sink},
    room::Stage,
    state::State,
    wire::{self, WireError},
};

impl State {
    fn is_own(&self, record: &message::Deliver<'_>) -> bool {
        record.device_tag == self.tag && *record.sender == *self.config.user
    }

    pub(super) fn on_deliver(&mut self, now: Now, record: &message::Deliver<'_>) -> Result<(), WireError> {
        // Records of a room that was left meanwhile are nobody's.
        let Some(key) = self.numbers.get(&record.room).copied() else { return Ok(()) };
        let own = self.is_own(record);
        let message = self.messages.message(record, own)?;
        if own {
            self.own_is_stored(key, record);
        }
        self.receive(key, |inbound, sink| inbound.on_record(message, sink));
        let needs = self.rooms.get(&key).is_some_and(|room| {
            own || room.stage != Stage::In || room.inbound.as_ref().is_some_and(|it| it.wants_fill().is_some())
        });
        if needs || self.is_mark_due(key) {
            self.settle(now, key);
        }
        Ok(())
    }

    pub(super) fn on_page(&mut self, now: Now, request: u32, page: &message::Page<'_>) -> Result<(), WireError> {
        let Some(Pending::Fill(key)) = self.answered(request) else { return Ok(()) };
        let mut messages = Vec::new();
        wire::records(page.records, |record| {
            let own = self.is_own(&record);
            if own {
                self.own_is_stored(key, &record);
            }
            messages.push(self.messages.message(&record, own)?);
            Ok(())
        })?;
        let page = Page { messages, gaps: page.gaps.0.clone(), next: page.next, tail: page.tail, epoch: page.epoch };
        self.receive(key, |inbound, sink| inbound.on_fill(page, sink));
        self.settle(now, key);
        Ok(())
    }

    pub(super) fn receive(&mut self, key: RoomKey, handle: impl FnOnce(&mut Inbound, &mut Sink<'_>)) {
        let Self { rooms, effects, stats, .. } = self;
        if let Some(inbound) = rooms.get_mut(&key).and_then(|room| room.inbound.as_mut()) {
            let events = &mut |event, position| effects.push_back(Effect::Event(key, event, position));
            handle(inbound, &mut Sink { events, stats });
        }
    }
}
