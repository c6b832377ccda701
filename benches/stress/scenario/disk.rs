//! What the disk takes for itself.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    time::Instant,
};

use crate::stats::{latency_histogram, quantiles_ms};

/// How often the disk is asked.
const SYNCS: usize = 100;

/// What is appended before each sync, about as much as a group of messages.
const BYTES: [u8; 4_096] = [b'x'; 4_096];

/// How long an `fdatasync` of a file in this directory takes: the median of many, in milliseconds.
pub(super) fn fdatasync_ms(dir: &Path) -> io::Result<f64> {
    let mut file = File::create(dir.join("fdatasync"))?;
    let mut took = latency_histogram();
    for _ in 0..SYNCS {
        file.write_all(&BYTES)?;
        let start = Instant::now();
        file.sync_data()?;
        took.saturating_record(start.elapsed().as_nanos() as u64);
    }
    Ok(quantiles_ms(&took)[0])
}
