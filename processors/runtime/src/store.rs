//! RocksDB behind a task's tables: a cache of the changelog, equal to the fold of a committed prefix
//! that ends at a footer.
//!
//! One database per task. Keys: `0` meta, `1` + table + row key → row, `2` + deadline + table + row
//! key → nothing (the deadline index; entries are hints, the row decides). A batch and the meta that
//! names its footer are one WriteBatch, so the store is at the old or the new footer, never between.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use events::Millis;
use machines::table::{Backing, Due, TableId, Write, deadline_of};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Direction, ErrorKind, IteratorMode, Options,
    WriteBatch,
};
use stream::{Meta, Store};

const META: &[u8] = &[0];
const ROWS: u8 = 1;
const DEADLINES: u8 = 2;

/// A store closed for longer may have missed tombstones: half of Kafka's default
/// `delete.retention.ms` (24 h).
const LONGEST_CLOSED: Duration = Duration::from_secs(12 * 60 * 60);

/// How long to wait for another thread of this process to let go of a store; the takeover is tried again.
const LOAN_TIMEOUT: Duration = Duration::from_millis(200);

/// One task's RocksDB.
#[derive(Clone)]
pub struct RocksStore {
    db: Arc<DB>,
    path: PathBuf,
}

/// Memory shared by all stores of a process.
#[derive(Clone)]
pub struct Stores {
    folder: PathBuf,
    cache: Cache,
}

impl Stores {
    /// Stores below this folder.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), cache: Cache::new_lru_cache(64 * 1024 * 1024) }
    }

    /// Opens a task's store, waiting until whoever has it in this process lets go. A store that has
    /// been closed for too long is emptied first.
    ///
    /// # Errors
    /// When it stays locked or cannot be read.
    pub fn open(&self, task: &str) -> Result<RocksStore> {
        let path = self.folder.join(task);
        fs::create_dir_all(&path)
            .with_context(|| format!("state folder {} cannot be made", path.display()))?;
        if closed_for(&path) > LONGEST_CLOSED {
            tracing::info!(task, "state store was closed for too long: restoring from scratch");
            DB::destroy(&Options::default(), &path)?;
        }
        let began = Instant::now();
        let db = loop {
            match DB::open(&self.options(), &path) {
                Ok(db) => break db,
                Err(error) if error.kind() == ErrorKind::Corruption => {
                    // A cache of the changelog: what is broken is made anew from it.
                    tracing::warn!(task, %error, "state store is corrupt: restoring from scratch");
                    DB::destroy(&Options::default(), &path)?;
                }
                Err(error) if is_locked(&error) => {
                    if began.elapsed() > LOAN_TIMEOUT {
                        bail!("state store {} stays locked: {error}", path.display());
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error).context(format!("opening {}", path.display())),
            }
        };
        let store = RocksStore { db: Arc::new(db), path };
        store.touch();
        Ok(store)
    }

    fn options(&self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_bloom_filter(10.0, false);
        table.set_cache_index_and_filter_blocks(true);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(32 * 1024 * 1024);
        options.set_max_background_jobs(2);
        options.set_max_open_files(256);
        options.set_keep_log_file_num(2);
        options.set_max_total_wal_size(64 * 1024 * 1024);
        options
    }
}

fn is_locked(error: &rocksdb::Error) -> bool {
    error.kind() == ErrorKind::IOError && error.to_string().to_lowercase().contains("lock")
}

fn closed_for(path: &Path) -> Duration {
    let touched = fs::metadata(path.join("OPEN")).and_then(|file| file.modified());
    touched.ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default()
}

impl Store for RocksStore {
    fn touch(&self) {
        if let Err(error) = fs::write(self.path.join("OPEN"), b"") {
            tracing::warn!(path = %self.path.display(), %error, "state store cannot be touched");
        }
    }

    fn meta(&self) -> Result<Option<Meta>> {
        let bytes = self.db.get(META)?;
        bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose().context("meta is unreadable")
    }

    fn is_empty(&self) -> bool {
        self.db.iterator(IteratorMode::Start).next().is_none()
    }

    fn clear(&self) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete_range([0u8], [u8::MAX]);
        self.db.write(batch)?;
        Ok(())
    }

    fn apply(&self, writes: &[Write], fired: &[Due], meta: &Meta) -> Result<()> {
        let mut batch = WriteBatch::default();
        for due in fired {
            batch.delete(deadline_key(due));
        }
        for write in writes {
            let key = row_key(write.table, &write.key);
            match &write.value {
                Some(row) => {
                    if let Some(deadline) = deadline_of(row) {
                        let (table, key) = (write.table, write.key.clone());
                        batch.put(deadline_key(&Due { deadline, table, key }), b"");
                    }
                    batch.put(key, row);
                }
                None => batch.delete(key),
            }
        }
        batch.put(META, serde_json::to_vec(meta)?);
        self.db.write(batch)?;
        Ok(())
    }
}

fn row_key(table: TableId, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + key.len());
    bytes.extend_from_slice(&[ROWS, table.0]);
    bytes.extend_from_slice(key);
    bytes
}

fn deadline_key(due: &Due) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(10 + due.key.len());
    bytes.push(DEADLINES);
    bytes.extend_from_slice(&due.deadline.0.max(0).to_be_bytes());
    bytes.push(due.table.0);
    bytes.extend_from_slice(&due.key);
    bytes
}

fn parse_deadline_key(bytes: &[u8]) -> Option<Due> {
    let rest = bytes.strip_prefix(&[DEADLINES])?;
    let (deadline, rest) = rest.split_first_chunk::<8>()?;
    let (table, key) = rest.split_first()?;
    let deadline = Millis(i64::from_be_bytes(*deadline));
    Some(Due { deadline, table: TableId(*table), key: key.to_vec() })
}

/// State that cannot be read cannot be gone on with.
const UNREADABLE: &str = "the state store can be read";

impl Backing for RocksStore {
    fn get(&self, table: TableId, key: &[u8]) -> Option<Vec<u8>> {
        self.db.get(row_key(table, key)).expect(UNREADABLE)
    }

    fn scan(&self, table: TableId, visit: &mut dyn FnMut(&[u8], &[u8])) {
        let prefix = [ROWS, table.0];
        for entry in self.db.iterator(IteratorMode::From(&prefix, Direction::Forward)) {
            let (key, row) = entry.expect(UNREADABLE);
            match key.strip_prefix(&prefix) {
                Some(key) => visit(key, &row),
                None => break,
            }
        }
    }

    fn due(&self, now: Millis, limit: usize) -> Vec<Due> {
        self.deadlines().take_while(|due| due.deadline <= now).take(limit).collect()
    }

    fn next_deadline(&self) -> Option<Millis> {
        self.deadlines().next().map(|due| due.deadline)
    }
}

impl RocksStore {
    fn deadlines(&self) -> impl Iterator<Item = Due> + '_ {
        self.db
            .iterator(IteratorMode::From(&[DEADLINES], Direction::Forward))
            .map_while(|entry| parse_deadline_key(&entry.expect(UNREADABLE).0))
    }
}

#[cfg(test)]
mod tests {
    use machines::footer::Footer;

    use super::*;

    fn footer() -> Footer {
        Footer {
            term: 1,
            sequence: 2,
            positions: [("orders".to_string(), 7)].into(),
            now: Millis(5),
            runs: vec![],
            owner: "me".into(),
            released: false,
            store_id: "s".into(),
        }
    }

    #[test]
    fn a_store_reads_back_rows_deadlines_and_meta() {
        let folder = tempfile::tempdir().unwrap();
        let stores = Stores::new(folder.path());
        let store = stores.open("orders-0").unwrap();
        assert!(store.is_empty() && store.meta().unwrap().is_none());
        let meta = Meta { position: 9, footer: footer(), term: 1, restoring: false };
        let mut due_row = vec![1];
        due_row.extend_from_slice(&50i64.to_be_bytes());
        let table = TableId(1);
        let write = |key: &[u8], value: Option<Vec<u8>>| Write { table, key: key.to_vec(), value };
        let writes = [write(b"a", Some(vec![0, 1])), write(b"b", Some(due_row))];
        store.apply(&writes, &[], &meta).unwrap();
        drop(store);
        let store = stores.open("orders-0").unwrap();
        assert_eq!(store.meta().unwrap(), Some(meta.clone()));
        assert_eq!(store.get(table, b"a"), Some(vec![0, 1]));
        assert_eq!(store.next_deadline(), Some(Millis(50)));
        assert!(store.due(Millis(49), 10).is_empty());
        let due = store.due(Millis(50), 10);
        assert_eq!(due.len(), 1);
        store.apply(&[write(b"a", None)], &due, &meta).unwrap();
        assert_eq!((store.get(table, b"a"), store.next_deadline()), (None, None));
        let mut seen = vec![];
        store.scan(table, &mut |key, _| seen.push(key.to_vec()));
        assert_eq!(seen, [b"b".to_vec()]);
        store.clear().unwrap();
        assert!(store.is_empty());
    }
}
