//! What the client was told of each order, a line of JSON each: written before a request leaves and
//! when its answer is final, so that it outlives the client. The checker reads the file, not memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// How an order's requests ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// About to leave; if nothing follows, its outcome is unknown.
    Sent,
    /// Certainly recorded.
    Acknowledged,
    /// Certainly not recorded.
    Refused,
    /// May be recorded.
    Unknown,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    told: Told,
}

/// The ledger being written.
#[derive(Debug)]
pub struct Ledger(Mutex<File>);

impl Ledger {
    /// A new ledger in this file.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(Mutex::new(file)))
    }

    /// Notes what was told of the order under an idempotency key.
    ///
    /// # Errors
    /// When it cannot be written: the run must end.
    pub fn note(&self, key: &str, told: Told) -> Result<()> {
        let mut line = serde_json::to_vec(&Line { key: key.to_owned(), told })?;
        line.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).context("the ledger cannot be written")
    }

    /// Makes what was written survive the machine.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).sync_data()?;
        Ok(())
    }
}

/// What was told last of every key in a ledger.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path) -> Result<BTreeMap<String, Told>> {
    let mut entries = BTreeMap::new();
    for line in BufReader::new(File::open(path)?).lines() {
        let Line { key, told } = serde_json::from_str(&line?)?;
        entries.insert(key, told);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_key_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let ledger = Ledger::create(&path).unwrap();
        for (key, told) in
            [("a", Told::Sent), ("b", Told::Sent), ("a", Told::Acknowledged), ("c", Told::Sent)]
        {
            ledger.note(key, told).unwrap();
        }
        ledger.sync().unwrap();
        let entries = read(&path).unwrap();
        assert_eq!(entries["a"], Told::Acknowledged);
        assert_eq!((entries["b"], entries["c"]), (Told::Sent, Told::Sent));
    }
}
