//! Stock: by merchant and SKU, per warehouse. States of a hold: reserved → allocated, or released.
//!
//! An order's lines of one partition are reserved all or none. A repeated command finds its hold
//! and changes nothing. Levels are announced once per batch, however many orders changed them.
//!
//! A receipt counts once, and its first body counts: a line of another body under the same id is
//! rejected, as far as this partition can know (it has seen those lines of the first whose SKUs it
//! owns).

use std::collections::BTreeMap;
use std::rc::Rc;

use events::{
    AllocateLines, Fingerprint, LineRefusal, LinesRefused, LinesReserved, Merchant, Millis,
    OrderKey, ReceiptId, Record, RefusalReason, ReleaseLines, ReserveLine, ReserveLines, Sku,
    StockLevelChanged, StockReceived, WarehouseCode, topics,
};
use serde::{Deserialize, Serialize};

use crate::invariant;
use crate::machine::{Context, Effects, Machine, Source};
use crate::planted;
use crate::table::{AnyTable, Backing, LevelKey, ReceiptKey, Row, Table, TableId};

/// A released hold is remembered this long, so that a repeated command can't bring it back: 8 days,
/// longer than the commands are kept.
const RELEASED_KEPT_MS: i64 = 8 * 24 * 60 * 60 * 1000;

/// Receipts are remembered as long as idempotency keys: 30 days.
const RECEIPT_KEPT_MS: i64 = crate::dedupe::KEY_LIFETIME_MS;

/// Pieces of a SKU in a warehouse. Available = on hand − reserved − allocated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Rises by one per batch that changed the level.
    pub version: i64,
    /// Pieces in the warehouse.
    pub on_hand: i64,
    /// Held for orders.
    pub reserved: i64,
    /// Bound to orders, not yet gone.
    pub allocated: i64,
}

impl Level {
    /// Pieces that can still be promised.
    pub fn available(&self) -> i64 {
        if planted!(AllocatedIgnored) {
            return self.on_hand - self.reserved;
        }
        self.on_hand - self.reserved - self.allocated
    }
}

impl Row for Level {}

/// What an order holds in this partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Whose stock.
    pub merchant: Merchant,
    /// The attempt that reserved.
    pub attempt: i32,
    /// Where it stands.
    pub state: HoldState,
    /// What is held; empty once released.
    pub lines: Vec<HeldLine>,
}

/// Where a hold stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldState {
    /// Held until the saga decides.
    Reserved,
    /// Bound to the order for good.
    Allocated,
    /// Given back; forgotten at the deadline.
    Released {
        /// When the marker may go.
        forget_at: Millis,
    },
}

/// One held line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLine {
    /// The order's line.
    pub line: i32,
    /// What.
    pub sku: Sku,
    /// From where.
    pub warehouse: WarehouseCode,
    /// Pieces.
    pub quantity: i32,
}

impl Row for Hold {
    fn deadline(&self) -> Option<Millis> {
        match self.state {
            HoldState::Released { forget_at } => Some(forget_at),
            _ => None,
        }
    }
}

/// A receipt of which lines have counted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Digest of its body.
    pub fingerprint: Fingerprint,
    /// When it may be forgotten.
    pub forget_at: Millis,
}

impl Row for Receipt {
    fn deadline(&self) -> Option<Millis> {
        Some(self.forget_at)
    }
}

/// A line of a receipt that has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedLine {
    /// Pieces.
    pub quantity: i32,
    /// When it may be forgotten.
    pub forget_at: Millis,
}

impl Row for ReceivedLine {
    fn deadline(&self) -> Option<Millis> {
        Some(self.forget_at)
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

    fn receive(&mut self, received: StockReceived, context: &Context, effects: &mut Effects) {
        if received.quantity <= 0 {
            effects.reject("a receipt needs a positive quantity");
            return;
        }
        let key = (received.receipt_id, received.sku.clone(), received.warehouse.clone());
        let first = self.receipts.get(&received.receipt_id).map(|receipt| receipt.fingerprint);
        let line = self.received.get(&key);
        let other_body = first.is_some_and(|f| received.fingerprint.is_some_and(|now| now != f));
        if other_body || line.is_some_and(|line| line.quantity != received.quantity) {
            let id = received.receipt_id.0;
            effects.reject(format!(
                "receipt {id} was posted before with another body, which counts: use a new key"
            ));
            return;
        }
        if line.is_some() {
            return;
        }
        let forget_at = context.now.plus(RECEIPT_KEPT_MS);
        if let (None, Some(fingerprint)) = (first, received.fingerprint) {
            self.receipts.put(received.receipt_id, Receipt { fingerprint, forget_at });
        }
        self.received.put(key, ReceivedLine { quantity: received.quantity, forget_at });
        let key = (received.merchant, received.sku, received.warehouse);
        let mut level = self.levels.get(&key).unwrap_or_default();
        level.on_hand += i64::from(received.quantity);
        self.levels.put(key, level);
    }

    fn reserve(&mut self, command: ReserveLines, context: &Context, effects: &mut Effects) {
        let order = OrderKey { order_id: command.order_id, accepted_at: command.accepted_at };
        if command.lines.iter().any(|line| line.quantity <= 0) {
            effects.reject("a reservation needs positive quantities");
            return;
        }
        let answer: Record = match self.holds.get(&order) {
            // A repeat: the same answer, nothing held twice.
            Some(hold) if hold.attempt >= command.attempt => match hold.state {
                HoldState::Reserved | HoldState::Allocated => reserved(&command, context).into(),
                // The release overtook its reservation: nobody waits for an answer.
                HoldState::Released { .. } => return,
            },
            _ => match self.choose(&command) {
                Ok((lines, levels)) => {
                    for (key, level) in levels {
                        self.levels.put(key, level);
                    }
                    let (merchant, attempt) = (command.merchant.clone(), command.attempt);
                    let hold = Hold { merchant, attempt, state: HoldState::Reserved, lines };
                    self.holds.put(order, hold);
                    reserved(&command, context).into()
                }
                Err(refusals) => LinesRefused {
                    order_id: command.order_id,
                    accepted_at: command.accepted_at,
                    stock_partition: context.partition,
                    attempt: command.attempt,
                    refusals,
                }
                .into(),
            },
        };
        let key = command.order_id;
        effects.emit(context, topics::ORDER_OUTCOMES.name, key.as_bytes(), answer);
    }

    /// A warehouse for every line and the levels that follow, or why not. Changes nothing.
    #[allow(clippy::type_complexity)]
    fn choose(
        &mut self,
        command: &ReserveLines,
    ) -> Result<(Vec<HeldLine>, BTreeMap<LevelKey, Level>), Vec<LineRefusal>> {
        let mut levels = BTreeMap::<LevelKey, Level>::new();
        let mut held = Vec::with_capacity(command.lines.len());
        let mut refusals = Vec::new();
        for line in &command.lines {
            let key = |w: &WarehouseCode| (command.merchant.clone(), line.sku.clone(), w.clone());
            for warehouse in &command.warehouses {
                let key = key(warehouse);
                if !levels.contains_key(&key)
                    && let Some(level) = self.levels.get(&key)
                {
                    levels.insert(key, level);
                }
            }
            let quantity = i64::from(line.quantity);
            let serves = |w: &&WarehouseCode| {
                levels.get(&key(w)).is_some_and(|level| level.available() >= quantity)
            };
            match command.warehouses.iter().find(serves) {
                Some(warehouse) => {
                    let level = levels.get_mut(&key(warehouse)).expect("found above");
                    level.reserved += quantity;
                    held.push(HeldLine {
                        line: line.line,
                        sku: line.sku.clone(),
                        warehouse: warehouse.clone(),
                        quantity: line.quantity,
                    });
                }
                None => {
                    let own = |w: &WarehouseCode| -> i64 {
                        let here = |h: &&HeldLine| h.sku == line.sku && h.warehouse == *w;
                        held.iter().filter(here).map(|h| i64::from(h.quantity)).sum()
                    };
                    let seen = command.warehouses.iter();
                    let seen = seen.filter_map(|w| Some((levels.get(&key(w))?, own(w))));
                    refusals.push(refusal(line, seen));
                }
            }
        }
        if refusals.is_empty() { Ok((held, levels)) } else { Err(refusals) }
    }

    fn release(&mut self, command: &ReleaseLines, context: &Context, effects: &mut Effects) {
        let order = OrderKey { order_id: command.order_id, accepted_at: command.accepted_at };
        let hold = self.holds.get(&order);
        match hold.as_ref().map(|hold| hold.state) {
            Some(HoldState::Released { .. }) => return,
            Some(HoldState::Allocated) => {
                effects.reject("an allocated hold cannot be released");
                return;
            }
            Some(HoldState::Reserved) | None => {}
        }
        for line in hold.iter().flat_map(|hold| &hold.lines) {
            self.change(&command.merchant, line, |level, pieces| level.reserved -= pieces);
        }
        let state = HoldState::Released { forget_at: context.now.plus(RELEASED_KEPT_MS) };
        let (merchant, attempt) = (command.merchant.clone(), command.attempt);
        self.holds.put(order, Hold { merchant, attempt, state, lines: vec![] });
    }

    fn allocate(&mut self, command: &AllocateLines, effects: &mut Effects) {
        let order = OrderKey { order_id: command.order_id, accepted_at: command.accepted_at };
        match self.holds.get(&order) {
            Some(mut hold) if hold.state == HoldState::Reserved => {
                for line in &hold.lines {
                    self.change(&command.merchant, line, |level, pieces| {
                        level.reserved -= pieces;
                        level.allocated += pieces;
                    });
                }
                hold.state = HoldState::Allocated;
                self.holds.put(order, hold);
            }
            Some(hold) if hold.state == HoldState::Allocated => {}
            _ => effects.reject("nothing is reserved that could be allocated"),
        }
    }

    fn change(&mut self, merchant: &Merchant, line: &HeldLine, f: impl Fn(&mut Level, i64)) {
        let key = (merchant.clone(), line.sku.clone(), line.warehouse.clone());
        let mut level = self.levels.get(&key).unwrap_or_default();
        f(&mut level, i64::from(line.quantity));
        self.levels.put(key, level);
    }
}

fn reserved(command: &ReserveLines, context: &Context) -> LinesReserved {
    LinesReserved {
        order_id: command.order_id,
        accepted_at: command.accepted_at,
        stock_partition: context.partition,
        attempt: command.attempt,
    }
}

/// Why no warehouse serves the line; each level comes with what the order's other lines have of it.
fn refusal<'a>(
    line: &ReserveLine,
    levels: impl Iterator<Item = (&'a Level, i64)> + Clone,
) -> LineRefusal {
    let known = levels.clone().next().is_some();
    let available: i64 = levels.clone().map(|(level, _)| level.available()).sum();
    // Held: one warehouse could serve it, were other orders' reservations given back.
    let could = levels.map(|(level, own)| level.on_hand - level.allocated - own).max().unwrap_or(0);
    let reason = match known {
        false => RefusalReason::UnknownSku,
        true if could >= i64::from(line.quantity) => RefusalReason::Held,
        true => RefusalReason::SoldOut,
    };
    let (sku, requested) = (line.sku.clone(), line.quantity);
    LineRefusal { line: line.line, sku, requested, available, reason }
}

impl Machine for Stock {
    fn step(&mut self, record: Record, _source: Source, context: &Context, effects: &mut Effects) {
        match record {
            Record::ReserveLines(command) => self.reserve(command, context, effects),
            Record::ReleaseLines(command) => self.release(&command, context, effects),
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
