//! Handshakes that are a fixed conversation: say this, wait for that.

use std::{collections::VecDeque, io};

use bytes::BytesMut;

use super::{Event, Session};

/// Say `send`, then wait until `expect` stands in what was received.
pub(super) struct Step {
    send: Vec<u8>,
    expect: Vec<u8>,
}

impl Step {
    pub(super) fn new(send: impl Into<Vec<u8>>, expect: impl Into<Vec<u8>>) -> Self {
        Self { send: send.into(), expect: expect.into() }
    }
}

/// A protocol behind its handshake.
pub(super) trait Codec {
    /// See [`Session::decode`].
    fn decode<'a>(&mut self, input: &'a [u8], out: &mut BytesMut) -> io::Result<Option<(usize, Event<'a>)>>;

    /// See [`Session::publish`].
    fn publish(&mut self, payload: &[u8], out: &mut BytesMut);

    /// See [`Session::read_on`].
    fn read_on(&mut self, _records: u64, _out: &mut BytesMut) {}

    /// See [`Session::beat`].
    fn beat(&mut self, _out: &mut BytesMut) -> bool {
        false
    }
}

/// A codec with a handshake of [`Step`]s in front of it.
pub(crate) struct Stepped<C> {
    steps: VecDeque<Step>,
    codec: C,
}

impl<C> Stepped<C> {
    pub(super) fn new(steps: impl Into<VecDeque<Step>>, codec: C) -> Self {
        Self { steps: steps.into(), codec }
    }
}

impl<C: Codec> Session for Stepped<C> {
    fn start(&mut self, out: &mut BytesMut) -> bool {
        self.steps.front().inspect(|step| out.extend_from_slice(&step.send)).is_none()
    }

    fn decode<'a>(&mut self, input: &'a [u8], out: &mut BytesMut) -> io::Result<Option<(usize, Event<'a>)>> {
        let Some(step) = self.steps.front() else {
            return self.codec.decode(input, out);
        };
        let Some(at) = memchr::memmem::find(input, &step.expect) else { return Ok(None) };
        // What came before the expected answer belongs to the handshake; what comes behind it may be a message.
        let end = at + step.expect.len();
        self.steps.pop_front();
        let event = match self.steps.front() {
            Some(step) => {
                out.extend_from_slice(&step.send);
                Event::Other
            }
            None => Event::Ready,
        };
        Ok(Some((end, event)))
    }

    fn publish(&mut self, payload: &[u8], out: &mut BytesMut) {
        self.codec.publish(payload, out);
    }

    fn read_on(&mut self, records: u64, out: &mut BytesMut) {
        self.codec.read_on(records, out);
    }

    fn beat(&mut self, out: &mut BytesMut) -> bool {
        self.codec.beat(out)
    }
}
