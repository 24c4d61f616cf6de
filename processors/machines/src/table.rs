//! State store: reads fall through to what is committed, writes are staged until their transaction
//! committed.
//!
//! Three layers, newest first: *staged* (the batch being processed), *in flight* (the batch that is
//! being committed) and the backing (RocksDB, or a map in simulation), which holds exactly what has
//! been committed. A table's write-set is its changelog: there is no second path for restoring.
//!
//! Rows are MessagePack arrays: a field may be added at the end with `#[serde(default)]`, nothing
//! else may change.

use std::collections::BTreeMap;
use std::rc::Rc;

use compact_str::CompactString;
use events::{CourierCode, Merchant, Millis, OrderId, OrderKey, ReceiptId, Sku, WarehouseCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// A table within its processor; first byte of its changelog keys, so never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u8);

/// The committed state of one task.
///
/// An implementation that cannot read panics: state that can't be read can't be gone on with, and
/// the task is restored elsewhere.
pub trait Backing {
    /// The row's bytes.
    fn get(&self, table: TableId, key: &[u8]) -> Option<Vec<u8>>;

    /// Every row of a table, in key order.
    fn scan(&self, table: TableId, visit: &mut dyn FnMut(&[u8], &[u8]));

    /// Up to `limit` index entries with a deadline at or before `now`, oldest first.
    fn due(&self, now: Millis, limit: usize) -> Vec<Due>;

    /// The earliest deadline in the index.
    fn next_deadline(&self) -> Option<Millis>;
}

/// An entry of the deadline index: the row it names had this deadline when it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// When.
    pub deadline: Millis,
    /// Table of the row.
    pub table: TableId,
    /// Key of the row.
    pub key: Vec<u8>,
}

/// One changed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Table.
    pub table: TableId,
    /// Row key.
    pub key: Vec<u8>,
    /// Row bytes; `None` deletes.
    pub value: Option<Vec<u8>>,
}

/// A row's deadline, read from its bytes alone (so that restoring needs no types).
pub fn deadline_of(row: &[u8]) -> Option<Millis> {
    match row.split_first() {
        Some((1, rest)) => rest.first_chunk::<8>().map(|bytes| Millis(i64::from_be_bytes(*bytes))),
        _ => None,
    }
}

/// What can be a row.
pub trait Row: Clone + Serialize + DeserializeOwned {
    /// When the machine must look at the row again.
    fn deadline(&self) -> Option<Millis> {
        None
    }
}

/// What can be a row's key.
pub trait Key: Ord + Clone {
    /// The key's bytes; different keys have different bytes.
    fn to_bytes(&self) -> Vec<u8>;

    /// The key of these bytes; `None` if they are no key.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// A typed table.
pub struct Table<K, V> {
    id: TableId,
    backing: Rc<dyn Backing>,
    staged: BTreeMap<K, Staged<V>>,
    in_flight: BTreeMap<K, Option<V>>,
}

struct Staged<V> {
    row: Option<V>,
    dirty: bool,
}

impl<K: Key, V: Row> Table<K, V> {
    /// A table over the committed rows in `backing`.
    pub fn new(id: u8, backing: &Rc<dyn Backing>) -> Self {
        let (staged, in_flight) = (BTreeMap::new(), BTreeMap::new());
        Self { id: TableId(id), backing: backing.clone(), staged, in_flight }
    }

    /// The table's id.
    pub fn id(&self) -> TableId {
        self.id
    }

    /// A copy of the row as the batch at hand sees it, to be changed and put back.
    pub fn get(&mut self, key: &K) -> Option<V> {
        self.peek(key).cloned()
    }

    /// The row as the batch at hand sees it.
    pub fn peek(&mut self, key: &K) -> Option<&V> {
        if !self.staged.contains_key(key) {
            if self.in_flight.contains_key(key) {
                return self.in_flight[key].as_ref();
            }
            let row = self.backing.get(self.id, &key.to_bytes()).map(|bytes| decode(&bytes));
            self.staged.insert(key.clone(), Staged { row, dirty: false });
        }
        self.staged[key].row.as_ref()
    }

    /// Writes a row.
    pub fn put(&mut self, key: K, row: V) {
        self.staged.insert(key, Staged { row: Some(row), dirty: true });
    }

    /// Deletes a row.
    pub fn remove(&mut self, key: K) {
        self.staged.insert(key, Staged { row: None, dirty: true });
    }

    /// Keys written in the batch at hand.
    pub fn written(&self) -> Vec<K> {
        self.staged.iter().filter(|(_, s)| s.dirty).map(|(k, _)| k.clone()).collect()
    }

    /// Every row as the batch at hand sees it. Reads the whole table: for takeover and tests.
    pub fn all(&mut self) -> BTreeMap<K, V> {
        let mut rows = BTreeMap::new();
        self.backing.scan(self.id, &mut |key, row| {
            let key = K::from_bytes(key).expect("keys are read back as they were written");
            rows.insert(key, decode(row));
        });
        let staged = self.staged.iter().map(|(k, s)| (k, &s.row));
        for (key, row) in self.in_flight.iter().chain(staged) {
            match row {
                Some(row) => rows.insert(key.clone(), row.clone()),
                None => rows.remove(key),
            };
        }
        rows
    }
}

/// A table as its task sees it, whatever its types.
pub trait AnyTable {
    /// Ends the batch: staged rows become in flight and are appended to `writes`.
    fn seal(&mut self, writes: &mut Vec<Write>);

    /// The batch in flight is in the backing now.
    fn committed(&mut self);
}

impl<K: Key, V: Row> AnyTable for Table<K, V> {
    fn seal(&mut self, writes: &mut Vec<Write>) {
        debug_assert!(self.in_flight.is_empty(), "one batch in flight at a time");
        for (key, staged) in std::mem::take(&mut self.staged) {
            if staged.dirty {
                let value = staged.row.as_ref().map(encode);
                writes.push(Write { table: self.id, key: key.to_bytes(), value });
                self.in_flight.insert(key, staged.row);
            }
        }
    }

    fn committed(&mut self) {
        self.in_flight.clear();
    }
}

fn encode<V: Row>(row: &V) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    match row.deadline() {
        None => bytes.push(0),
        Some(deadline) => {
            bytes.push(1);
            bytes.extend_from_slice(&deadline.0.to_be_bytes());
        }
    }
    rmp_serde::encode::write(&mut bytes, row).expect("rows are plain data");
    bytes
}

fn decode<V: Row>(bytes: &[u8]) -> V {
    read(bytes)
        .expect("rows are read back as they were written, or by a version that only added fields")
}

/// The row of these bytes; `None` if they are none, or of a version that did more than add fields.
pub(crate) fn read<V: Row>(bytes: &[u8]) -> Option<V> {
    let start = if bytes.first() == Some(&1) { 9 } else { 1 };
    rmp_serde::from_slice(bytes.get(start..)?).ok()
}

impl Key for OrderId {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }
}

impl Key for OrderKey {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.order_id.as_bytes().to_vec();
        bytes.extend_from_slice(&self.accepted_at.0.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, at) = bytes.split_first_chunk::<16>()?;
        let at = i64::from_be_bytes(at.try_into().ok()?);
        Some(Self { order_id: OrderId(Uuid::from_bytes(*id)), accepted_at: Millis(at) })
    }
}

impl Key for CourierCode {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_str().as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::parse(std::str::from_utf8(bytes).ok()?).ok()
    }
}

/// A SKU of a merchant in a warehouse.
pub type LevelKey = (Merchant, Sku, WarehouseCode);

impl Key for LevelKey {
    fn to_bytes(&self) -> Vec<u8> {
        format!("{}/{}/{}", self.0, self.1, self.2).into_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(bytes).ok()?.splitn(3, '/');
        let merchant = Merchant::parse(parts.next()?).ok()?;
        let sku = Sku::parse(parts.next()?).ok()?;
        Some((merchant, sku, WarehouseCode::parse(parts.next()?).ok()?))
    }
}

/// A SKU of a merchant.
pub type SkuKey = (Merchant, Sku);

impl Key for SkuKey {
    fn to_bytes(&self) -> Vec<u8> {
        format!("{}/{}", self.0, self.1).into_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (merchant, sku) = std::str::from_utf8(bytes).ok()?.split_once('/')?;
        Some((Merchant::parse(merchant).ok()?, Sku::parse(sku).ok()?))
    }
}

/// A merchant's warehouse.
pub type WarehouseKey = (Merchant, WarehouseCode);

impl Key for WarehouseKey {
    fn to_bytes(&self) -> Vec<u8> {
        format!("{}/{}", self.0, self.1).into_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (merchant, warehouse) = std::str::from_utf8(bytes).ok()?.split_once('/')?;
        Some((Merchant::parse(merchant).ok()?, WarehouseCode::parse(warehouse).ok()?))
    }
}

/// A SKU and the customer, by the shop's own id, who bought it.
pub type PurchaseKey = (Merchant, Sku, CompactString);

impl Key for PurchaseKey {
    fn to_bytes(&self) -> Vec<u8> {
        format!("{}/{}/{}", self.0, self.1, self.2).into_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        // The customer's id may have any character; the codes before it have no '/'.
        let mut parts = std::str::from_utf8(bytes).ok()?.splitn(3, '/');
        let merchant = Merchant::parse(parts.next()?).ok()?;
        let sku = Sku::parse(parts.next()?).ok()?;
        Some((merchant, sku, parts.next()?.into()))
    }
}

impl Key for ReceiptId {
    fn to_bytes(&self) -> Vec<u8> {
        self.0.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }
}

/// One SKU of a receipt.
pub type ReceiptKey = (ReceiptId, Sku, WarehouseCode);

impl Key for ReceiptKey {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.0.0.as_bytes().to_vec();
        bytes.extend_from_slice(format!("{}/{}", self.1, self.2).as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk::<16>()?;
        let (sku, warehouse) = std::str::from_utf8(rest).ok()?.split_once('/')?;
        let receipt = ReceiptId(Uuid::from_bytes(*id));
        Some((receipt, Sku::parse(sku).ok()?, WarehouseCode::parse(warehouse).ok()?))
    }
}

pub mod memory {
    //! A map as backing: what simulation and tests use instead of RocksDB.

    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};

    use events::Millis;

    use super::{Backing, Due, TableId, Write, deadline_of};

    /// Row bytes by table and key.
    pub type Rows = BTreeMap<(TableId, Vec<u8>), Vec<u8>>;

    /// Rows in memory.
    #[derive(Debug, Default)]
    pub struct Memory {
        rows: RefCell<Rows>,
        deadlines: RefCell<BTreeSet<Due>>,
    }

    impl Memory {
        /// Applies a committed batch, as a store does.
        pub fn apply(&self, writes: &[Write], fired: &[Due]) {
            let mut rows = self.rows.borrow_mut();
            let mut deadlines = self.deadlines.borrow_mut();
            for due in fired {
                deadlines.remove(due);
            }
            for write in writes {
                let (table, key) = (write.table, write.key.clone());
                match &write.value {
                    Some(row) => {
                        if let Some(deadline) = deadline_of(row) {
                            deadlines.insert(Due { deadline, table, key: key.clone() });
                        }
                        rows.insert((table, key), row.clone());
                    }
                    None => {
                        rows.remove(&(table, key));
                    }
                }
            }
        }

        /// Every row, for comparing states.
        pub fn rows(&self) -> Rows {
            self.rows.borrow().clone()
        }
    }

    impl Backing for Memory {
        fn get(&self, table: TableId, key: &[u8]) -> Option<Vec<u8>> {
            self.rows.borrow().get(&(table, key.to_vec())).cloned()
        }

        fn scan(&self, table: TableId, visit: &mut dyn FnMut(&[u8], &[u8])) {
            for ((t, key), row) in self.rows.borrow().iter() {
                if *t == table {
                    visit(key, row);
                }
            }
        }

        fn due(&self, now: Millis, limit: usize) -> Vec<Due> {
            let deadlines = self.deadlines.borrow();
            deadlines.iter().take_while(|d| d.deadline <= now).take(limit).cloned().collect()
        }

        fn next_deadline(&self) -> Option<Millis> {
            self.deadlines.borrow().first().map(|due| due.deadline)
        }
    }
}
