//! What stock's changelog says, for whoever compares it with what others say. Decides nothing.

use std::collections::BTreeMap;

use events::OrderKey;

use super::rows::{Hold, HoldState, Level};
use super::{HOLDS, LEVELS};
use crate::table::{self, Key, LevelKey, Row, Write};

/// Levels and holds of some stock partitions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Every level there is.
    pub levels: BTreeMap<LevelKey, Level>,
    /// What orders hold, by the partition that holds it; markers of what is gone or given back, too.
    pub holds: BTreeMap<(i32, OrderKey), Hold>,
}

/// Pieces of a level that orders hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Promised {
    /// Held until the saga decides.
    pub reserved: i64,
    /// Bound for good, not yet gone.
    pub allocated: i64,
}

impl Books {
    /// Takes one row of a partition's changelog, in log order. Rows of other tables are passed over.
    ///
    /// # Errors
    /// The row's key, if it is written in a way that this version cannot read.
    pub fn take(&mut self, partition: i32, write: &Write) -> Result<(), Vec<u8>> {
        let taken = match write.table.0 {
            LEVELS => put(&mut self.levels, LevelKey::from_bytes(&write.key), write),
            HOLDS => {
                let key = OrderKey::from_bytes(&write.key).map(|order| (partition, order));
                put(&mut self.holds, key, write)
            }
            _ => Some(()),
        };
        taken.ok_or_else(|| write.key.clone())
    }

    /// What orders hold of each level, added up from the holds.
    pub fn promised(&self) -> BTreeMap<LevelKey, Promised> {
        let mut promised = BTreeMap::<LevelKey, Promised>::new();
        for hold in self.holds.values() {
            for line in &hold.lines {
                let key = (hold.merchant.clone(), line.sku.clone(), line.warehouse.clone());
                let sums = promised.entry(key).or_default();
                match hold.state {
                    HoldState::Reserved => sums.reserved += i64::from(line.quantity),
                    HoldState::Allocated => sums.allocated += i64::from(line.quantity),
                    HoldState::Dispatched { .. } | HoldState::Released { .. } => {}
                }
            }
        }
        promised
    }
}

fn put<K: Ord, V: Row>(rows: &mut BTreeMap<K, V>, key: Option<K>, write: &Write) -> Option<()> {
    let key = key?;
    match &write.value {
        Some(bytes) => drop(rows.insert(key, table::read(bytes)?)),
        None => drop(rows.remove(&key)),
    }
    Some(())
}
