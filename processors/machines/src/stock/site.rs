//! Warehouses on and off line. What is free in one that is offline is not offered; what is reserved there
//! goes to another one that has the pieces, or its saga is told why not, and gives it back.

use std::collections::{BTreeMap, BTreeSet};

use events::{
    LineRefusal, LinesRefused, LinesReserved, Merchant, Millis, OrderId, OrderKey, RefusalReason,
    Sku, WarehouseCode, WarehouseListed, topics,
};

use super::Stock;
use super::reserve::most_pieces;
use super::rows::{HeldLine, Hold, HoldState, Level, Site};
use crate::machine::{Context, Effects};
use crate::table::LevelKey;

/// The orders that have reserved pieces, by SKU and warehouse, oldest first. Kept in memory alone: a row
/// for each would be one more per line on the common path.
#[derive(Default)]
pub(super) struct Occupants(BTreeMap<LevelKey, BTreeSet<(Millis, OrderId)>>);

impl Occupants {
    fn enter(&mut self, order: OrderKey, hold: &Hold) {
        for line in hold.lines.iter().filter(|_| hold.state == HoldState::Reserved) {
            let key = (hold.merchant.clone(), line.sku.clone(), line.warehouse.clone());
            self.0.entry(key).or_default().insert((order.accepted_at, order.order_id));
        }
    }

    fn leave(&mut self, order: OrderKey, hold: &Hold) {
        for line in hold.lines.iter().filter(|_| hold.state == HoldState::Reserved) {
            let key = (hold.merchant.clone(), line.sku.clone(), line.warehouse.clone());
            if let Some(orders) = self.0.get_mut(&key) {
                orders.remove(&(order.accepted_at, order.order_id));
                if orders.is_empty() {
                    self.0.remove(&key);
                }
            }
        }
    }

    /// Those with pieces in this warehouse, of one SKU or of all.
    fn of(
        &self,
        merchant: &Merchant,
        warehouse: &WarehouseCode,
        sku: Option<&Sku>,
    ) -> BTreeSet<(Millis, OrderId)> {
        if let Some(sku) = sku {
            let key = (merchant.clone(), sku.clone(), warehouse.clone());
            return self.0.get(&key).cloned().unwrap_or_default();
        }
        let here = |(owner, _, place): &LevelKey| owner == merchant && place == warehouse;
        let all = self.0.iter().filter(|(key, _)| here(key));
        all.flat_map(|(_, orders)| orders.iter().copied()).collect()
    }
}

impl Stock {
    /// Reads every hold of the partition at the first call after a takeover, and never again.
    fn occupants(&mut self) -> &Occupants {
        self.occupants.get_or_insert_with(|| {
            let mut occupants = Occupants::default();
            for (order, hold) in self.holds.all() {
                occupants.enter(order, &hold);
            }
            occupants
        })
    }

    pub(super) fn put_hold(&mut self, order: OrderKey, hold: Hold) {
        if let Some(occupants) = &mut self.occupants {
            if let Some(before) = self.holds.peek(&order) {
                occupants.leave(order, before);
            }
            occupants.enter(order, &hold);
        }
        self.holds.put(order, hold);
    }

    pub(super) fn remove_hold(&mut self, order: OrderKey) {
        if let (Some(occupants), Some(before)) = (&mut self.occupants, self.holds.peek(&order)) {
            occupants.leave(order, before);
        }
        self.holds.remove(order);
    }

    pub(super) fn list(&mut self, listed: WarehouseListed, context: &Context, fx: &mut Effects) {
        if self.counted(listed.request_id, listed.fingerprint, fx) {
            return;
        }
        self.remember(listed.request_id, listed.fingerprint, context);
        let key = (listed.merchant.clone(), listed.warehouse.clone());
        let site = Site { online: listed.online, as_of: listed.as_of() };
        let before = self.sites().get(&key).copied();
        if before.is_some_and(|before| before.as_of > site.as_of) {
            return;
        }
        let was_online = before.is_none_or(|before| before.online);
        self.sites().insert(key.clone(), site);
        self.warehouses.put(key, site);
        if was_online && !site.online {
            let place = (&listed.merchant, &listed.warehouse, None);
            self.evict(place, i64::MAX, RefusalReason::WarehouseOffline, context, fx);
        }
    }

    /// Whether the warehouse's free stock is offered: unless it was listed as offline.
    pub(super) fn online(&mut self, merchant: &Merchant, warehouse: &WarehouseCode) -> bool {
        // Nearly always none is listed.
        self.sites().is_empty()
            || self
                .sites()
                .get(&(merchant.clone(), warehouse.clone()))
                .is_none_or(|site| site.online)
    }

    /// Whether every warehouse that a hold has pieces in is offered.
    pub(super) fn all_online(&mut self, hold: &Hold) -> bool {
        hold.lines.iter().all(|line| self.online(&hold.merchant, &line.warehouse))
    }

    /// Takes at least so many reserved pieces off a warehouse, of one SKU or of all, the newest orders
    /// first.
    pub(super) fn evict(
        &mut self,
        (merchant, warehouse, sku): (&Merchant, &WarehouseCode, Option<&Sku>),
        mut pieces: i64,
        reason: RefusalReason,
        context: &Context,
        fx: &mut Effects,
    ) {
        let here = |line: &HeldLine| {
            line.warehouse == *warehouse && sku.is_none_or(|sku| line.sku == *sku)
        };
        let orders = self.occupants().of(merchant, warehouse, sku);
        for (accepted_at, order_id) in orders.into_iter().rev() {
            if pieces <= 0 {
                return;
            }
            let order = OrderKey { order_id, accepted_at };
            let Some(mut hold) = self.holds.get(&order) else { continue };
            let own = hold.lines.iter().filter(|line| here(line));
            pieces -= own.map(|line| i64::from(line.quantity)).sum::<i64>();
            let key = order.order_id;
            if let Some(levels) = self.elsewhere(&mut hold, here) {
                levels.into_iter().for_each(|(key, level)| self.levels.put(key, level));
                let moved = LinesReserved {
                    order_id: order.order_id,
                    accepted_at: order.accepted_at,
                    stock_partition: context.partition,
                    attempt: hold.attempt,
                    warehouse: most_pieces(&hold.lines),
                    alone: vec![],
                    moved_from: Some(warehouse.clone()),
                };
                self.put_hold(order, hold);
                fx.emit(context, topics::ORDER_OUTCOMES.name, key.as_bytes(), moved);
                continue;
            }
            // The hold stays until the saga gives it back: what it has decided meanwhile counts.
            let refusal = |line: &HeldLine| LineRefusal {
                line: line.line,
                sku: line.sku.clone(),
                requested: line.quantity,
                available: 0,
                reason,
                elsewhere: vec![],
            };
            let refused = LinesRefused {
                order_id: order.order_id,
                accepted_at: order.accepted_at,
                stock_partition: context.partition,
                attempt: hold.attempt,
                refusals: hold.lines.iter().filter(|line| here(line)).map(refusal).collect(),
            };
            fx.emit(context, topics::ORDER_OUTCOMES.name, key.as_bytes(), refused);
        }
    }

    /// Other warehouses for the lines that are here, and the levels that follow; `None` if a line has
    /// none, or is a flash sale's.
    fn elsewhere(
        &mut self,
        hold: &mut Hold,
        here: impl Fn(&HeldLine) -> bool,
    ) -> Option<BTreeMap<LevelKey, Level>> {
        let merchant = hold.merchant.clone();
        let mut others: Vec<WarehouseCode> = self
            .sites()
            .iter()
            .filter(|((owner, _), site)| *owner == merchant && site.online)
            .map(|((_, warehouse), _)| warehouse.clone())
            .collect();
        // Everybody's, whether it is listed or not.
        if !others.contains(&WarehouseCode::MAIN) && self.online(&merchant, &WarehouseCode::MAIN) {
            others.push(WarehouseCode::MAIN);
        }
        let mut levels = BTreeMap::<LevelKey, Level>::new();
        let mut lines = hold.lines.clone();
        for line in lines.iter_mut().filter(|line| here(line)) {
            let quantity = i64::from(line.quantity);
            let level = |stock: &mut Self, warehouse: &WarehouseCode| {
                let key = (merchant.clone(), line.sku.clone(), warehouse.clone());
                let level = match levels.get(&key) {
                    Some(level) => *level,
                    None => stock.levels.get(&key).unwrap_or_default(),
                };
                (key, level)
            };
            let found = others.iter().filter(|other| **other != line.warehouse).find_map(|other| {
                let (key, found) = level(self, other);
                (found.available() >= quantity).then_some((other, key, found))
            });
            let (other, there, mut found) = found.filter(|_| line.sale.is_none())?;
            let (from, mut left) = level(self, &line.warehouse);
            left.reserved -= quantity;
            found.reserved += quantity;
            levels.insert(from, left);
            levels.insert(there, found);
            line.warehouse = other.clone();
        }
        hold.lines = lines;
        Some(levels)
    }
}
