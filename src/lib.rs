//! x
#[cfg(feature = "engine")]
pub mod storage;
