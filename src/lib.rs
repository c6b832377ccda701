//! x
#[cfg(feature = "client")]
pub mod client;
