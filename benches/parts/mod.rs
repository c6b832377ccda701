//! The parts that every message passes, set up alike for `core`, which times them, and for `instructions`, which counts.

pub(crate) mod codec;
pub(crate) mod relay;
pub(crate) mod ring;
pub(crate) mod room;
pub(crate) mod wire;

use parlor_actors::port::Now;

/// What is said in all of them.
pub(crate) const PAYLOAD: &[u8] = &[b'x'; 128];

/// When it is said.
pub(crate) const NOW: Now = Now { unix_ms: 1_790_000_000_000, mono_ms: 1 };
