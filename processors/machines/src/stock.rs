//! Stock: by merchant and SKU, per warehouse. States of a hold: reserved → allocated; released from
//! either.
//!
//! An order's lines of one partition are reserved all or none. A repeated command finds its hold
//! and changes nothing. Levels are announced once per batch, however many orders changed them.
//!
//! A receipt counts once, and its first body counts: a line of another body under the same id is
//! rejected, as far as this partition can know (it has seen those lines of the first whose SKUs it
//! owns).

mod hold;
mod receive;
mod reserve;
mod rows;

use std::rc::Rc;

use events::{OrderKey, ReceiptId, Record, StockLevelChanged, topics};

use crate::invariant;
use crate::machine::{Context, Effects, Machine, Source};
use crate::table::{AnyTable, Backing, LevelKey, ReceiptKey, Row, Table, TableId};
pub use rows::{HeldLine, Hold, HoldState, Level, Receipt, ReceivedLine};

#[cfg(test)]
impl Stock {
    /// Every level, for other machines' tests.
    pub(crate) fn levels(&mut self) -> std::collections::BTreeMap<LevelKey, Level> {
        self.levels.all()
    }
}

/// The stock machine.
pub struct Stock {
    levels: Table<LevelKey, Level>,
    holds: Table<OrderKey, Hold>,
    received: Table<ReceiptKey, ReceivedLine>,
    receipts: Table<ReceiptId, Receipt>,
}

impl Stock {
    /// The machine over a task's committed state.
    pub fn new(backing: &Rc<dyn Backing>) -> Self {
        Self {
            levels: Table::new(1, backing),
            holds: Table::new(2, backing),
            received: Table::new(3, backing),
            receipts: Table::new(4, backing),
        }
    }
}

impl Machine for Stock {
    fn step(&mut self, record: Record, _source: Source, context: &Context, effects: &mut Effects) {
        match record {
            Record::ReserveLines(command) => self.reserve(command, context, effects),
            Record::ReleaseLines(command) => self.release(&command, context),
            Record::AllocateLines(command) => self.allocate(&command, effects),
            Record::StockReceived(received) => self.receive(received, context, effects),
            other => effects.reject(format!("{} is not for stock", other.record_type().name())),
        }
    }

    fn fire(&mut self, table: TableId, key: &[u8], context: &Context, _effects: &mut Effects) {
        use crate::table::Key;
        if table == self.holds.id()
            && let Some(key) = OrderKey::from_bytes(key)
            && let Some(hold) = self.holds.get(&key)
            && hold.deadline().is_some_and(|at| at <= context.now)
        {
            self.holds.remove(key);
        } else if table == self.received.id()
            && let Some(key) = ReceiptKey::from_bytes(key)
            && let Some(line) = self.received.get(&key)
            && line.forget_at <= context.now
        {
            self.received.remove(key);
        } else if table == self.receipts.id()
            && let Some(key) = ReceiptId::from_bytes(key)
            && let Some(receipt) = self.receipts.get(&key)
            && receipt.forget_at <= context.now
        {
            self.receipts.remove(key);
        }
    }

    fn end_batch(&mut self, context: &Context, effects: &mut Effects) {
        for key in self.levels.written() {
            let Some(mut level) = self.levels.get(&key) else { continue };
            effects.violations.extend(invariant::level(&key, &level));
            level.version += 1;
            self.levels.put(key.clone(), level);
            let (merchant, sku, warehouse) = key.clone();
            let record = StockLevelChanged {
                merchant,
                sku,
                warehouse,
                version: level.version,
                on_hand: level.on_hand,
                reserved: level.reserved,
                allocated: level.allocated,
                changed_at: context.now,
            };
            let key = crate::table::Key::to_bytes(&key);
            // Same partition as the stock itself: a level's changes stay in order.
            effects.emit_to(topics::STOCK_LEVELS.name, context.partition, &key, record);
        }
    }

    fn tables(&mut self) -> Vec<&mut dyn AnyTable> {
        vec![&mut self.levels, &mut self.holds, &mut self.received, &mut self.receipts]
    }
}

#[cfg(test)]
#[path = "stock_tests.rs"]
mod tests;
