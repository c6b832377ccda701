//! Opening and closing RocksDB: directory, lock, format, tuning.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parlor_actors::port::StoreError;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, ErrorKind,
    IteratorMode, Options, SliceTransform,
};

use super::{
    StoreConfig,
    filter::Horizons,
    schema::{self, FORMAT, Family, meta},
    sizes,
};

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another engine of this one, has the store open.
    #[error(
        "the store in {} is in use: another parlor runs on this directory; stop that one, or name another directory",
        path.display()
    )]
    Locked {
        /// The store's directory.
        path: PathBuf,
    },
    /// The path leads to something else.
    #[error("{} is not a directory; name one for the store, it is created if it is missing", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The directory is missing and cannot be created, or must not be entered.
    #[error("the directory {} for the store can be neither created nor used", path.display())]
    Unusable {
        /// The store's directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A later version of parlor wrote the store.
    #[error(
        "the store in {} has format {found}, this parlor knows formats up to {known}; use the newer parlor that wrote it",
        path.display()
    )]
    NewerFormat {
        /// The store's directory.
        path: PathBuf,
        /// The store's format.
        found: u32,
        /// The highest format that this version reads.
        known: u32,
    },
    /// What is in the directory is not a whole store.
    #[error("the store in {} is damaged, or is none: {what}", path.display())]
    Damaged {
        /// The store's directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The disk or the operating system refused something.
    #[error("the store in {} cannot be opened", path.display())]
    Failed {
        /// The store's directory.
        path: PathBuf,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The database. Shared by the writer and the readers; closed when the last of them ends.
pub(super) struct Db {
    rocks: DB,
    /// What its compactions may drop.
    pub(super) horizons: Arc<Horizons>,
}

impl Db {
    /// RocksDB itself.
    pub(super) fn rocks(&self) -> &DB {
        &self.rocks
    }

    #[expect(clippy::expect_used, reason = "open() creates every family of the catalogue, and none is ever dropped")]
    pub(super) fn family(&self, family: Family) -> &ColumnFamily {
        self.rocks.cf_handle(family.name()).expect("every family of the catalogue is open")
    }

    pub(super) fn value(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.rocks.get_cf(self.family(family), key).map_err(failed)
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        // Background work that outlives its database crashes the process.
        self.rocks.cancel_all_background_work(true);
    }
}

/// An error of RocksDB while the store is open.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn failed(error: rocksdb::Error) -> StoreError {
    match error.kind() {
        ErrorKind::Corruption => StoreError::Damaged(error.to_string().into()),
        _ => StoreError::Failed(error.to_string().into()),
    }
}

/// Opens or creates the database. Afterwards it has every family, and its format is known or it is empty and new.
pub(super) fn open(config: &StoreConfig) -> Result<(Arc<Db>, Age), OpenError> {
    let path = &config.path;
    make_directory(path)?;
    let error = |error: rocksdb::Error| open_error(path, &error);
    // A database must be opened with all the families that it has. Those of a newer format are opened like the others, so
    // that the format can be read and named; and none is created before that.
    let present = match path.join("CURRENT").try_exists() {
        Ok(true) => DB::list_cf(&Options::default(), path).map_err(error)?,
        Ok(false) => Vec::new(),
        Err(source) => return Err(OpenError::Unusable { path: path.clone(), source }),
    };
    let created = present.is_empty();
    let cache = Cache::new_lru_cache(config.cache_bytes);
    let horizons = Arc::new(Horizons::default());
    let mut names = present;
    if created {
        names.push(rocksdb::DEFAULT_COLUMN_FAMILY_NAME.to_owned());
    }
    let families =
        names.iter().map(|name| ColumnFamilyDescriptor::new(name, family_options(name, config, &cache, &horizons)));
    let mut db = DB::open_cf_descriptors(&options(config, created), path, families).map_err(error)?;

    let age = age(&db, &names, path)?;
    for family in Family::ALL.map(Family::name) {
        if db.cf_handle(family).is_none() {
            db.create_cf(family, &family_options(family, config, &cache, &horizons)).map_err(error)?;
        }
    }
    Ok((Arc::new(Db { rocks: db, horizons }), age))
}

/// Whether a store was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    New,
    Known,
}

fn age(db: &DB, names: &[String], path: &Path) -> Result<Age, OpenError> {
    let damaged = |what: String| OpenError::Damaged { path: path.into(), what };
    let format = match db.cf_handle(Family::Meta.name()) {
        Some(family) => db.get_cf(family, meta::FORMAT).map_err(|error| open_error(path, &error))?,
        None => None,
    };
    let Some(format) = format else {
        // A first opening that did not come to its end leaves families without anything in them.
        for name in names {
            if let Some(family) = db.cf_handle(name)
                && db.iterator_cf(family, IteratorMode::Start).next().is_some()
            {
                return Err(damaged(format!("it has data in {name:?} and no format version")));
            }
        }
        return Ok(Age::New);
    };
    let Ok(found) = format.as_slice().try_into().map(u32::from_be_bytes) else {
        return Err(damaged(format!("its format version has {} bytes, not 4", format.len())));
    };
    match found {
        FORMAT => Ok(Age::Known),
        0 => Err(damaged("its format version is 0".into())),
        _ => Err(OpenError::NewerFormat { path: path.into(), found, known: FORMAT }),
    }
}

/// Creates the directory so that it survives a loss of power: what it holds is synced, but its name is its parent's.
fn make_directory(path: &Path) -> Result<(), OpenError> {
    let unusable = |source| OpenError::Unusable { path: path.into(), source };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(OpenError::NotADirectory { path: path.into() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(unusable(source)),
    }
    let missing = path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
    let missing: Vec<_> = missing.collect();
    fs::create_dir_all(path).map_err(unusable)?;
    for path in missing {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(unusable)?;
    }
    Ok(())
}

pub(super) fn open_error(path: &Path, error: &rocksdb::Error) -> OpenError {
    let (path, what) = (path.to_owned(), error.to_string());
    match error.kind() {
        // RocksDB tells of its lock in words only: the first if this process holds it, the second if another does. A test
        // of the store provokes both.
        ErrorKind::IOError
            if ["lock hold by current process", "While lock file"].iter().any(|text| what.contains(text)) =>
        {
            OpenError::Locked { path }
        }
        ErrorKind::Corruption | ErrorKind::InvalidArgument => OpenError::Damaged { path, what },
        _ => OpenError::Failed { path, source: what.into() },
    }
}

fn options(config: &StoreConfig, create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    options.create_missing_column_families(create);
    // A torn end is where the machine stopped; whatever is behind it was never synced, so never acked as such.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    // Without it one quiet family keeps every log since its last write.
    options.set_max_total_wal_size(config.wal_bytes_max);
    options.set_db_write_buffer_size(config.write_buffers_bytes_max);
    options.set_max_open_files(config.open_files_max);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 << 20);
    options
}

const INSERT_WITH_HINT: &str = "memtable_insert_with_hint_prefix_extractor=fixed:8";

/// Each read of a memtable goes through its deleted ranges first, so a sweep of many rooms must not gather too many.
const RANGES_PER_MEMTABLE: &str = "memtable_max_range_deletions=512";

/// Tables older than this are rewritten, so that what they hold of expired records goes.
const REWRITE_SECONDS: u64 = 7 * 86_400;

fn family_options(name: &str, config: &StoreConfig, cache: &Cache, horizons: &Arc<Horizons>) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    // So that the cache's size bounds them too.
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let is = |family: Family| name == family.name();
    let hot = is(Family::Log) || is(Family::Answers);
    let mut options = Options::default();
    if hot {
        // Keys of one room, its number being their first 8 bytes, come in order: each insert begins where the last one
        // ended. The crate has no setter for it; without it, inserts are only slower.
        match options.get_options_from_string(INSERT_WITH_HINT) {
            Ok(hinted) => options = hinted,
            Err(error) => tracing::warn!(%error, "inserts go without hints"),
        }
        options.set_periodic_compaction_seconds(REWRITE_SECONDS);
    }
    if is(Family::Log) {
        match options.get_options_from_string(RANGES_PER_MEMTABLE) {
            Ok(bounded) => options = bounded,
            Err(error) => tracing::warn!(%error, "deleted ranges are not bounded"),
        }
    }
    if is(Family::Answers) {
        // A device's answers are asked for together, and old ones may be missing: whole keys would say nothing.
        options.set_prefix_extractor(SliceTransform::create(
            "parlor.device",
            |key| schema::answers_prefix_of(key).unwrap_or(key),
            Some(|key| schema::answers_prefix_of(key).is_some()),
        ));
        blocks.set_whole_key_filtering(false);
    }
    if is(Family::Sizes) {
        options.set_merge_operator_associative("parlor.sum", sizes::add);
    }
    horizons.install(name, &mut options);
    if is(Family::Log) {
        blocks.set_block_size(16 << 10);
    } else {
        // These are asked for single keys, often of rooms, or of devices in a room, that do not exist.
        blocks.set_bloom_filter(10.0, false);
    }
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(if hot { config.write_buffers_bytes_max / 4 } else { 1 << 20 });
    // Slow-down comes before standstill.
    options.set_max_write_buffer_number(4);
    // Also where tables come to rest: zstd would save a third of the disk there, and be half of what a join costs in a
    // full store, and most of a compaction.
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}
