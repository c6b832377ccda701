//! Long messages: parts come in, a publish goes out.

use bytes::Bytes;
use parlor_protocol::{
    Code, DecodeError,
    message::{self, PUBLISH_SILENT, RecordKind},
};

use super::{Effect, State, is_whole};
use crate::{
    message::Publish,
    port::Now,
    session::upload::{PartError, Taken, Upload, Whole},
};

impl State {
    pub(super) fn on_part(&mut self, now: Now, request: u32, body: &Bytes) -> Result<(), DecodeError> {
        let part: message::Part<'_> = parlor_protocol::decode(body)?;
        let (payload_max, text_max) = (self.payload_bytes_max, self.text_bytes_max);
        if !self.is_joined(part.room) {
            self.not_joined(request, part.room);
        } else if part.payload.len() > payload_max as usize {
            let text = format!("the part has {} bytes, at most {payload_max} are allowed", part.payload.len());
            self.error(request, Code::TooLarge, text);
        } else if part.total_bytes > text_max {
            let text = format!("the message has {} bytes, at most {text_max} are allowed", part.total_bytes);
            self.error(request, Code::TooLarge, text);
        } else if let Err(wrong) = is_offered(&part) {
            self.error(request, Code::Unsupported, wrong.into());
        } else {
            match self.take_part(now, &part) {
                Ok((_, Taken::Missing(missing))) => {
                    let (room, nonce) = (part.room, part.nonce);
                    self.effects.push_back(Effect::PartTaken { request, room, nonce, missing });
                }
                Ok((whole, Taken::Complete(payload))) => self.publish_whole(request, whole, payload),
                Err(error) => {
                    let code = if error == PartError::Busy { Code::Busy } else { Code::InvalidPart };
                    self.error(request, code, error.to_string());
                }
            }
        }
        Ok(())
    }

    fn take_part(&mut self, now: Now, part: &message::Part<'_>) -> Result<(Whole, Taken), PartError> {
        let whole = Whole::of(part)?;
        if self.upload.as_ref().is_none_or(|upload| !upload.is(part.room, part.nonce)) {
            // The client knows which one it wants: what it had begun before is forgotten.
            self.upload = Some(Box::new(Upload::new(whole, &self.uploads)));
        }
        let Some(upload) = &mut self.upload else { return Err(PartError::Busy) };
        let taken = upload.take(whole, part.number, part.payload, &self.uploads);
        upload.expires = now.mono_ms + self.upload_ms;
        if upload.is_over() {
            self.upload = None;
        } else if !std::mem::replace(&mut self.upload_timed, true) {
            self.effects.push_back(Effect::Arm);
        }
        taken.map(|taken| (whole, taken))
    }

    fn publish_whole(&mut self, request: u32, whole: Whole, payload: Bytes) {
        let Whole { room, nonce, kind, refers_to, epoch, lifetime_ms, flags, content_type, .. } = whole;
        let message = Publish {
            conn: self.conn,
            request,
            device: self.device.clone(),
            tier: self.tier,
            nonce,
            kind,
            refers_to,
            epoch: epoch.unwrap_or_default(),
            lifetime_ms,
            silent: flags & PUBLISH_SILENT != 0,
            remove: false,
            content_type,
            payload,
        };
        self.publish(room, message);
    }

    /// Forgets an upload of which nothing came for too long. Called at every wake of the session's timer, which is set
    /// anew after it. While the session has stopped reading, what has come may be waiting.
    pub(super) fn expire_upload(&mut self, now: Now, owes: bool) {
        if let Some(upload) = self.upload.as_mut().filter(|_| owes) {
            upload.expires = now.mono_ms + self.upload_ms;
        }
        self.upload.take_if(|upload| upload.expires <= now.mono_ms);
        self.upload_timed = self.upload.is_some();
    }
}

/// Whether what the parts make up can be published so: recalls and reactions are short.
fn is_offered(part: &message::Part<'_>) -> Result<(), &'static str> {
    match part.kind {
        RecordKind::MESSAGE | RecordKind::EDIT => is_whole(part.kind, part.refers_to, part.flags, part.payload),
        _ => Err("only messages and edits (kinds 0 and 1) go up in parts"),
    }
}
