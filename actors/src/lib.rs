//! Parlor's actors.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod limits;
pub mod port;
