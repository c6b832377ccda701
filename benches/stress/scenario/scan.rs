//! The baseline of reading back: RocksDB in this process, with the options of Parlor's store, and nothing around it.

use std::{io, time::Instant};

use parlor::storage::{RocksStore, StoreConfig};
use rocksdb::{Cache, DB, Env, IteratorMode, Options, WriteBatch};

use super::payload::Noise;
use crate::{
    options::Common,
    peers::PAYLOAD,
    server::{machine_cpu_seconds, own_cpu_seconds, temporary},
    stats::{Figure, OTHERS, figure},
};

/// The column family of messages.
const FAMILY: &str = "log";

/// The room's number, which keys begin with; a message's follows.
const ROOM: u64 = 1;

/// Messages that are written at a time.
const BATCH: u64 = 1_000;

/// Writes so many values of one message's size under keys like those of one room, and reads them back in order. The
/// figures are named as those of a peer's replay.
pub(super) fn scan(messages: u64, common: &Common) -> io::Result<Vec<Figure>> {
    let dir = temporary(common)?;
    let config = StoreConfig::new(dir.path());
    // The store leaves its options beside its data; there is no second place that says them.
    drop(RocksStore::open(config.clone()).map_err(io::Error::other)?);
    let cache = Cache::new_lru_cache(config.cache_bytes);
    let env = Env::new().map_err(io::Error::other)?;
    let (options, families) = Options::load_latest(dir.path(), env, false, cache).map_err(io::Error::other)?;
    let db = DB::open_cf_descriptors(&options, dir.path(), families).map_err(io::Error::other)?;
    let log = db.cf_handle(FAMILY).ok_or_else(|| io::Error::other("the store keeps its messages elsewhere"))?;

    let key = |seq: u64| (u128::from(ROOM) << 64 | u128::from(seq)).to_be_bytes();
    let (start, mut noise) = (Instant::now(), Noise::new());
    for first in (0..messages).step_by(BATCH as usize) {
        let mut batch = WriteBatch::default();
        (first..messages.min(first + BATCH)).for_each(|seq| batch.put_cf(log, key(seq), noise.next()));
        db.write(batch).map_err(io::Error::other)?;
    }
    let fill = messages as f64 / start.elapsed().as_secs_f64();

    let (start, cpu, machine) = (Instant::now(), own_cpu_seconds()?, machine_cpu_seconds()?);
    let mut found = 0;
    for item in db.iterator_cf(log, IteratorMode::Start) {
        let (at, value) = item.map_err(io::Error::other)?;
        if *at != key(found)[..] || value.len() != PAYLOAD {
            return Err(io::Error::other(format!("record {found} is not what was stored")));
        }
        found += 1;
    }
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), own_cpu_seconds()? - cpu);
    if found != messages {
        return Err(io::Error::other(format!("{found} of {messages} were found")));
    }
    let others = (machine_cpu_seconds()? - machine - cpu).max(0.0);
    Ok(vec![
        figure("msgs/s", messages as f64 / seconds),
        figure("server CPU s per M msgs", cpu / (messages as f64 / 1e6)),
        figure("fill: stored msgs/s", fill),
        figure("server CPU %", 100.0 * cpu / seconds),
        figure("load generator CPU %", 0.0),
        figure(OTHERS, 100.0 * others / seconds),
    ])
}
