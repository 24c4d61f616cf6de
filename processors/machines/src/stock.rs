//! Stock: by merchant and SKU, per warehouse. States of a hold: reserved → allocated → dispatched;
//! released from the first two.
//!
//! An order's lines of one partition are reserved all or none. A repeated command finds its hold
//! and changes nothing. Levels are announced once per batch, however many orders changed them.
//!
//! A receipt counts once, and its first body counts: a line of another body under the same id is
//! rejected, as far as this partition can know (it has seen those lines of the first whose SKUs it
//! owns).

mod books;
mod hold;
mod receive;
mod reserve;
mod rows;
mod sale;
mod site;

use std::collections::BTreeMap;
use std::rc::Rc;

use events::{OrderKey, ReceiptId, Record, StockLevelChanged, StockRanLow, topics};

use crate::invariant;
use crate::machine::{Context, Effects, Machine, Source};
use crate::table::{
    AnyTable, Backing, Key, LevelKey, PurchaseKey, ReceiptKey, Row, SkuKey, Table, TableId,
    WarehouseKey,
};
pub use books::Books;
pub use rows::{HeldLine, Hold, HoldState, Level, Purchase, Receipt, ReceivedLine, Sale, Site};
use site::Occupants;

/// First bytes of the changelog keys that [`Books`] reads.
const LEVELS: u8 = 1;
const HOLDS: u8 = 2;

#[cfg(test)]
impl Stock {
    /// Every level, for other machines' tests.
    pub(crate) fn levels(&mut self) -> BTreeMap<LevelKey, Level> {
        self.levels.all()
    }
}

/// The stock machine.
pub struct Stock {
    levels: Table<LevelKey, Level>,
    holds: Table<OrderKey, Hold>,
    received: Table<ReceiptKey, ReceivedLine>,
    receipts: Table<ReceiptId, Receipt>,
    warehouses: Table<WarehouseKey, Site>,
    sales: Table<SkuKey, Sale>,
    purchases: Table<PurchaseKey, Purchase>,
    /// The warehouses and sales tables read whole, since every reservation asks them; filled on first
    /// use.
    all_sites: Option<BTreeMap<WarehouseKey, Site>>,
    /// Who has reserved what where; filled when a warehouse or a count first asks reservations to go.
    occupants: Option<Occupants>,
    all_sales: Option<BTreeMap<SkuKey, Sale>>,
}

impl Stock {
    /// The machine over a task's committed state.
    pub fn new(backing: &Rc<dyn Backing>) -> Self {
        Self {
            levels: Table::new(LEVELS, backing),
            holds: Table::new(HOLDS, backing),
            received: Table::new(3, backing),
            receipts: Table::new(4, backing),
            warehouses: Table::new(5, backing),
            sales: Table::new(6, backing),
            purchases: Table::new(7, backing),
            all_sites: None,
            occupants: None,
            all_sales: None,
        }
    }

    fn sites(&mut self) -> &mut BTreeMap<WarehouseKey, Site> {
        self.all_sites.get_or_insert_with(|| self.warehouses.all())
    }

    fn on_sale(&mut self) -> &mut BTreeMap<SkuKey, Sale> {
        self.all_sales.get_or_insert_with(|| self.sales.all())
    }
}

impl Machine for Stock {
    fn step(&mut self, record: Record, _source: Source, context: &Context, effects: &mut Effects) {
        match record {
            Record::ReserveLines(command) => self.reserve(command, context, effects),
            Record::ReleaseLines(command) => self.release(&command, context, effects),
            Record::AllocateLines(command) => self.allocate(&command, effects),
            Record::DispatchLines(command) => self.dispatch(&command, context, effects),
            Record::ChangeStock(change) => self.change_stock(change, context, effects),
            Record::FlashSaleScheduled(sale) => self.schedule(sale, context, effects),
            Record::WarehouseListed(listed) => self.list(listed, context, effects),
            Record::StockReceived(received) => self.receive(received, context, effects),
            other => effects.reject(format!("{} is not for stock", other.record_type().name())),
        }
    }

    fn fire(&mut self, table: TableId, key: &[u8], context: &Context, _effects: &mut Effects) {
        if table == self.holds.id()
            && let Some(key) = OrderKey::from_bytes(key)
            && let Some(hold) = self.holds.get(&key)
            && hold.deadline().is_some_and(|at| at <= context.now)
        {
            self.remove_hold(key);
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
        } else if table == self.sales.id()
            && let Some(key) = SkuKey::from_bytes(key)
            && self.on_sale().get(&key).is_some_and(|sale| sale.ends_at <= context.now)
        {
            self.end_sale(key);
        } else if table == self.purchases.id()
            && let Some(key) = PurchaseKey::from_bytes(key)
            && let Some(purchase) = self.purchases.get(&key)
            && purchase.forget_at <= context.now
        {
            self.purchases.remove(key);
        }
    }

    fn end_batch(&mut self, context: &Context, effects: &mut Effects) {
        for key in self.levels.written() {
            let Some(mut level) = self.levels.get(&key) else { continue };
            effects.violations.extend(invariant::level(&key, &level));
            level.version += 1;
            let low = level.low_at > 0 && level.available() <= level.low_at;
            let ran_low = low && !level.low;
            level.low = low;
            self.levels.put(key.clone(), level);
            let (merchant, sku, warehouse) = key.clone();
            if ran_low {
                let topic_key = topics::stock_key(&merchant, &sku);
                let told = StockRanLow {
                    merchant: merchant.clone(),
                    sku: sku.clone(),
                    warehouse: warehouse.clone(),
                    available: level.available().max(0),
                    low_at: level.low_at,
                    at: context.now,
                };
                let topic = topics::STOCK_MOVEMENTS.name;
                effects.emit_to(topic, context.partition, topic_key.as_bytes(), told);
            }
            let record = StockLevelChanged {
                merchant,
                sku,
                warehouse,
                version: level.version,
                on_hand: level.on_hand,
                reserved: level.reserved,
                allocated: level.allocated,
                changed_at: context.now,
                set_aside: level.set_aside,
                missing: level.missing,
            };
            let key = key.to_bytes();
            // Same partition as the stock itself: a level's changes stay in order.
            effects.emit_to(topics::STOCK_LEVELS.name, context.partition, &key, record);
        }
    }

    fn tables(&mut self) -> Vec<&mut dyn AnyTable> {
        vec![
            &mut self.levels,
            &mut self.holds,
            &mut self.received,
            &mut self.receipts,
            &mut self.warehouses,
            &mut self.sales,
            &mut self.purchases,
        ]
    }
}

#[cfg(test)]
#[path = "stock_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "stock/change_tests.rs"]
mod change_tests;

#[cfg(test)]
#[path = "stock/requests_tests.rs"]
mod requests_tests;

#[cfg(test)]
#[path = "stock/sale_tests.rs"]
mod sale_tests;

#[cfg(test)]
#[path = "stock/warehouse_tests.rs"]
mod warehouse_tests;
