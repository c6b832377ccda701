//! Any bytes as a stream of frames, and as a body of every kind: no panic, and what decodes encodes and decodes alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parlor_protocol::{Body, Kind, decode, frame, message::*, split, to_bytes};

fn body<'a, B: Body<'a>>(body: &'a [u8]) {
    let Ok(message) = decode::<B>(body) else { return };
    let again = to_bytes(1, &message);
    assert!(again.len() <= frame::HEADER_BYTES + body.len(), "{:?} grew", B::KIND);
}

macro_rules! every_message {
    ($kind:expr, $input:expr, $($name:ident)*) => {
        match $kind {
            $(Kind::$name => body::<$name<'_>>($input),)*
        }
    };
}

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    while let Ok(Some(frame)) = split(rest, |header| frame::request_body_max(header, 1_440)) {
        rest = &rest[frame.size()..];
    }
    let _ = split(input, frame::answer_body_max);
    let Some((kind, input)) = input.split_first() else { return };
    let kind = Kind::ALL[usize::from(*kind) % Kind::ALL.len()];
    every_message!(kind, input, Hello Welcome Goodbye Close Error Join Joined Leave Left Publish Ack Deliver Gap Fetch
        Page Heartbeat HeartbeatAck Part PartTaken);
});
