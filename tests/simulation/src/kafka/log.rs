//! One partition: records with their fate, markers, the last stable offset, compaction.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use events::Millis;

/// A record as it stands in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value; `None` deletes.
    pub value: Option<Vec<u8>>,
    /// What its headers say.
    pub header: Header,
}

/// What the headers of a record say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// Nothing.
    None,
    /// `task/term/sequence` of an output.
    Origin(String),
    /// Term and sequence of a changelog record.
    Batch([u8; 16]),
    /// Topic, partition, offset and stage of a dead letter.
    Rejected(&'static str, i32, i64, &'static str),
}

/// What became of a record's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// No transaction, or a committed one.
    Committed,
    /// Under way.
    Open,
    /// Aborted: nobody sees it.
    Aborted,
}

/// A place in a log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Offset.
    pub offset: i64,
    /// When the broker appended it.
    pub at: Millis,
    /// The record; `None` for a marker.
    pub record: Option<Rc<Record>>,
    /// The producer id, of transactional records.
    pub producer: Option<u64>,
    /// What became of its transaction.
    pub fate: Fate,
}

/// A partition.
#[derive(Debug, Default)]
pub struct Log {
    entries: Vec<Entry>,
    end: i64,
    /// First offset of each producer's open transaction.
    open: BTreeMap<u64, i64>,
    /// Newest epoch that a marker or record showed, per producer.
    epochs: BTreeMap<u64, i32>,
}

impl Log {
    /// The end: offset of the next record.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// The last stable offset: nothing before it is open.
    pub fn stable(&self) -> i64 {
        self.open.values().min().copied().unwrap_or(self.end)
    }

    /// Whether this producer has an open transaction here.
    pub fn is_open(&self, producer: u64) -> bool {
        self.open.contains_key(&producer)
    }

    /// Whether a newer epoch of this producer was seen.
    pub fn fences(&self, producer: u64, epoch: i32) -> bool {
        self.epochs.get(&producer).is_some_and(|seen| *seen > epoch)
    }

    fn push(&mut self, at: Millis, record: Option<Rc<Record>>, producer: Option<u64>, fate: Fate) {
        let at = self.entries.last().map_or(at, |last| last.at.max(at));
        self.entries.push(Entry { offset: self.end, at, record, producer, fate });
        self.end += 1;
    }

    /// Appends a record; of a transaction when it names its producer and epoch.
    pub fn append(&mut self, at: Millis, record: Rc<Record>, producer: Option<(u64, i32)>) -> i64 {
        let offset = self.end;
        if let Some((id, epoch)) = producer {
            self.open.entry(id).or_insert(offset);
            self.epochs.insert(id, epoch);
        }
        let fate = if producer.is_some() { Fate::Open } else { Fate::Committed };
        self.push(at, Some(record), producer.map(|(id, _)| id), fate);
        offset
    }

    /// Writes the marker that ends a producer's transaction here.
    pub fn mark(&mut self, at: Millis, (producer, epoch): (u64, i32), commit: bool) {
        if let Some(first) = self.open.remove(&producer) {
            let from = self.entries.partition_point(|entry| entry.offset < first);
            for entry in &mut self.entries[from..] {
                if entry.producer == Some(producer) && entry.fate == Fate::Open {
                    entry.fate = if commit { Fate::Committed } else { Fate::Aborted };
                }
            }
        }
        self.epochs.insert(producer, epoch);
        self.push(at, None, None, Fate::Committed);
    }

    /// The first committed record of `from..end`.
    pub fn next_committed(&self, from: i64, end: i64) -> Option<(&Entry, &Rc<Record>)> {
        self.committed(from, end).next()
    }

    /// The committed records of `from..end`, up to the last stable offset.
    pub fn committed(&self, from: i64, end: i64) -> impl Iterator<Item = (&Entry, &Rc<Record>)> {
        let end = end.min(self.stable());
        let start = self.entries.partition_point(|entry| entry.offset < from);
        self.entries[start..]
            .iter()
            .take_while(move |entry| entry.offset < end)
            .filter(|entry| entry.fate == Fate::Committed)
            .filter_map(|entry| entry.record.as_ref().map(|record| (entry, record)))
    }

    /// Removes what a compaction of everything before `end` would: committed records with a newer
    /// committed one of the same key, and what was aborted. Returns how many went.
    pub fn compact(&mut self, end: i64) -> usize {
        let end = end.min(self.stable());
        let before = self.entries.len();
        let mut seen = BTreeSet::new();
        let mut kept = Vec::with_capacity(before);
        for entry in std::mem::take(&mut self.entries).into_iter().rev() {
            let superseded = match &entry.record {
                Some(record) if entry.offset < end => {
                    entry.fate == Fate::Aborted || !seen.insert(record.key.clone())
                }
                _ => false,
            };
            if !superseded {
                kept.push(entry);
            }
        }
        kept.reverse();
        self.entries = kept;
        before - self.entries.len()
    }

    /// Aborted records still in the log.
    pub fn aborted(&self) -> usize {
        self.entries.iter().filter(|entry| entry.fate == Fate::Aborted).count()
    }
}
