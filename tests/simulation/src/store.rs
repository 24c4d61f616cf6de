//! A model of RocksDB: batches are atomic and survive the process; a power cut takes the newest ones,
//! because the write-ahead log is not synced.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use anyhow::Result;
use events::Millis;
use machines::table::{Backing, Due, TableId, Write, deadline_of};
use stream::{Meta, Store};

/// Batches that a power cut can take; what is older has been synced.
const UNSYNCED: usize = 40;

/// Rows by table.
pub type Rows = BTreeMap<u8, BTreeMap<Vec<u8>, Vec<u8>>>;

/// What one batch replaced.
#[derive(Debug)]
struct Undo {
    rows: Vec<(u8, Vec<u8>, Option<Vec<u8>>)>,
    deadlines: Vec<(Due, bool)>,
    meta: Option<Meta>,
}

/// What is on the disk.
#[derive(Debug, Default)]
pub struct Disk {
    rows: Rows,
    deadlines: BTreeSet<Due>,
    meta: Option<Meta>,
    undo: VecDeque<Undo>,
}

impl Disk {
    fn put(&mut self, table: u8, key: Vec<u8>, value: Option<Vec<u8>>, undo: &mut Undo) {
        let rows = self.rows.entry(table).or_default();
        let old = match value {
            Some(value) => rows.insert(key.clone(), value),
            None => rows.remove(&key),
        };
        undo.rows.push((table, key, old));
    }

    fn index(&mut self, due: Due, there: bool, undo: &mut Undo) {
        let was =
            if there { !self.deadlines.insert(due.clone()) } else { self.deadlines.remove(&due) };
        undo.deadlines.push((due, was));
    }

    fn remember(&mut self, undo: Undo) {
        self.undo.push_back(undo);
        if self.undo.len() > UNSYNCED {
            self.undo.pop_front();
        }
    }

    fn undo(&self) -> Undo {
        Undo { rows: vec![], deadlines: vec![], meta: self.meta.clone() }
    }

    /// Batches that a power cut could take now.
    pub fn unsynced(&self) -> usize {
        self.undo.len()
    }

    /// Takes the newest batches back.
    pub fn lose(&mut self, batches: usize) {
        for _ in 0..batches {
            let Some(undo) = self.undo.pop_back() else { return };
            for (table, key, old) in undo.rows.into_iter().rev() {
                let rows = self.rows.entry(table).or_default();
                match old {
                    Some(row) => rows.insert(key, row),
                    None => rows.remove(&key),
                };
            }
            for (due, was) in undo.deadlines.into_iter().rev() {
                if was {
                    self.deadlines.insert(due);
                } else {
                    self.deadlines.remove(&due);
                }
            }
            self.meta = undo.meta;
        }
    }

    /// Its rows.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// What it says of itself.
    pub fn meta(&self) -> Option<&Meta> {
        self.meta.as_ref()
    }

    /// The earliest deadline in its index.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.first().map(|due| due.deadline)
    }
}

/// A handle; the store is locked while one lives.
#[derive(Debug, Clone)]
pub struct ModelStore {
    disk: Rc<RefCell<Disk>>,
}

impl ModelStore {
    /// Opens the store unless somebody has it, that is unless the disk has more handles than these.
    pub fn open(disk: &Rc<RefCell<Disk>>, handles: usize) -> Option<Self> {
        (Rc::strong_count(disk) <= handles).then(|| Self { disk: disk.clone() })
    }
}

impl Backing for ModelStore {
    fn get(&self, table: TableId, key: &[u8]) -> Option<Vec<u8>> {
        self.disk.borrow().rows.get(&table.0)?.get(key).cloned()
    }

    fn scan(&self, table: TableId, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (key, row) in self.disk.borrow().rows.get(&table.0).into_iter().flatten() {
            visit(key, row);
        }
    }

    fn due(&self, now: Millis, limit: usize) -> Vec<Due> {
        let disk = self.disk.borrow();
        disk.deadlines.iter().take_while(|due| due.deadline <= now).take(limit).cloned().collect()
    }

    fn next_deadline(&self) -> Option<Millis> {
        self.disk.borrow().next_deadline()
    }
}

impl Store for ModelStore {
    fn meta(&self) -> Result<Option<Meta>> {
        Ok(self.disk.borrow().meta.clone())
    }

    fn is_empty(&self) -> bool {
        let disk = self.disk.borrow();
        disk.meta.is_none() && disk.rows.values().all(BTreeMap::is_empty)
    }

    fn clear(&self) -> Result<()> {
        let mut disk = self.disk.borrow_mut();
        let mut undo = disk.undo();
        for (table, rows) in std::mem::take(&mut disk.rows) {
            undo.rows.extend(rows.into_iter().map(|(key, row)| (table, key, Some(row))));
        }
        let deadlines = std::mem::take(&mut disk.deadlines);
        undo.deadlines.extend(deadlines.into_iter().map(|due| (due, true)));
        disk.meta = None;
        disk.remember(undo);
        Ok(())
    }

    fn apply(&self, writes: &[Write], fired: &[Due], meta: &Meta) -> Result<()> {
        let mut disk = self.disk.borrow_mut();
        let mut undo = disk.undo();
        for due in fired {
            disk.index(due.clone(), false, &mut undo);
        }
        for write in writes {
            if let Some(deadline) = write.value.as_deref().and_then(deadline_of) {
                let due = Due { deadline, table: write.table, key: write.key.clone() };
                disk.index(due, true, &mut undo);
            }
            disk.put(write.table.0, write.key.clone(), write.value.clone(), &mut undo);
        }
        disk.meta = Some(meta.clone());
        disk.remember(undo);
        Ok(())
    }

    fn touch(&self) {}
}
