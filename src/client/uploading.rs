//! Long messages: sent in parts, one message at a time.

use parlor_protocol::{
    Code, Nonce,
    change::with_epoch,
    frame::PAYLOAD_BYTES_MAX,
    message::{self, PARTS_MAX},
};

use super::{
    effect::{Now, Pending, RoomKey},
    error::PublishError,
    outbox::Entry,
    state::State,
    upload::Upload,
};

impl State {
    /// The longest payload of one publish, or of one part.
    pub(super) fn payload_max(&self) -> usize {
        self.limits.payload_bytes_max.min(PAYLOAD_BYTES_MAX) as usize
    }

    /// Why a payload of so many bytes cannot be sent over this connection, if it cannot.
    pub(super) fn too_large(&self, bytes: usize) -> Option<PublishError> {
        let part = self.payload_max();
        let text = self.limits.text_bytes_max.min(PAYLOAD_BYTES_MAX) as usize;
        let most = text.min(part.saturating_mul(PARTS_MAX as usize)).max(part);
        (bytes > most).then(|| {
            let message = format!("{bytes} bytes of payload, at most {most} are allowed");
            PublishError::Refused { code: Code::TooLarge, message }
        })
    }

    /// Begins to send a long message, or goes on after a silence (`again`); false if it has to wait for another one.
    pub(super) fn upload(&mut self, now: Now, key: RoomKey, nonce: Nonce, bytes: usize, again: bool) -> bool {
        match &mut self.upload {
            Some(upload) if upload.is(key, nonce) => {
                if again {
                    for request in upload.again() {
                        self.answered(request);
                    }
                }
            }
            Some(_) => {
                if !self.uploads_waiting.contains(&key) {
                    self.uploads_waiting.push_back(key);
                }
                return false;
            }
            None => {
                let tried = self.rooms.get(&key).and_then(|room| room.outbox.entry(nonce)).is_some_and(Entry::was_sent);
                self.upload = Some(Upload::new(key, nonce, bytes, self.payload_max().max(1), tried));
            }
        }
        let deadline = now.at.saturating_add(self.config.ack_timeout);
        if let Some(room) = self.rooms.get_mut(&key) {
            if again {
                room.outbox.sent_again(nonce, 0, deadline);
            } else {
                room.outbox.sent(0, deadline);
            }
        }
        self.send_parts();
        true
    }

    /// Sends the parts that may go out.
    fn send_parts(&mut self) {
        loop {
            let window = self.window();
            let Some(upload) = &self.upload else { return };
            let (key, nonce, parts) = (upload.key, upload.nonce, upload.parts());
            let Some(number) = upload.next(window) else { return };
            let range = upload.range(number);
            let Some(room) = self.rooms.get(&key) else { return };
            let Some(entry) = room.outbox.entry(nonce) else { return };
            let outgoing = entry.outgoing.clone();
            let ((kind, refers_to), epoch, flags) = (outgoing.kind(), outgoing.epoch(), outgoing.flags());
            let payload = outgoing.payload;
            let Some(piece) = payload.get(range) else { return };
            let to = room.number;
            let request = with_epoch(epoch, |extensions| {
                let part = message::Part {
                    room: to,
                    nonce,
                    number,
                    parts,
                    total_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
                    kind,
                    refers_to,
                    lifetime_ms: outgoing.lifetime_ms,
                    flags,
                    content_type: outgoing.content_type,
                    payload: piece,
                    extensions,
                };
                self.ask(&part, Pending::Part(key, nonce))
            });
            if let Some(upload) = &mut self.upload {
                upload.sent(request);
            }
        }
    }

    /// A part was taken, and others are missing.
    pub(super) fn on_part_taken(&mut self, now: Now, request: u32, taken: &message::PartTaken<'_>) {
        let Some(Pending::Part(key, nonce)) = self.answered(request) else { return };
        let Some(upload) = self.upload.as_mut().filter(|upload| upload.is(key, nonce)) else { return };
        upload.taken(request, taken.missing.0.clone());
        let deadline = now.at.saturating_add(self.config.ack_timeout);
        if let Some(room) = self.rooms.get_mut(&key) {
            // The server answers: the message is on its way, however long it takes.
            room.outbox.goes_on(nonce, deadline);
        }
        self.send_parts();
        self.settle(now, key);
    }

    /// The message with this nonce is no longer sent in parts, if it was: it is stored, refused, or to be begun anew.
    pub(super) fn end_upload(&mut self, key: RoomKey, nonce: Nonce) {
        if let Some(mut upload) = self.upload.take_if(|upload| upload.is(key, nonce)) {
            for request in upload.give_up() {
                self.answered(request);
            }
        }
    }

    /// The room is gone.
    pub(super) fn end_uploads_of(&mut self, key: RoomKey) {
        self.uploads_waiting.retain(|waiting| *waiting != key);
        if let Some(nonce) = self.upload.as_ref().filter(|upload| upload.key == key).map(|upload| upload.nonce) {
            self.end_upload(key, nonce);
        }
    }

    /// The next room that waits to send a long message, if it may.
    pub(super) fn next_upload(&mut self) -> Option<RoomKey> {
        if self.upload.is_none() { self.uploads_waiting.pop_front() } else { None }
    }
}
