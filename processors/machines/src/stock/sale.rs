//! Flash sales: pieces set aside, sold from a moment on to whoever comes first in the log, a few to each
//! customer. While a sale is on, its SKU is sold from the pieces set aside alone.

use events::{FlashSaleScheduled, Millis, RefusalReason, ReserveLine, ReserveLines};

use super::Stock;
use super::receive::{Cause, refuse};
use super::reserve::Choice;
use super::rows::{HeldLine, Hold, Purchase, Sale};
use crate::machine::{Context, Effects};
use crate::planted;
use crate::table::{PurchaseKey, SkuKey};

impl Stock {
    pub(super) fn schedule(
        &mut self,
        command: FlashSaleScheduled,
        context: &Context,
        effects: &mut Effects,
    ) {
        // Neither a repeat of one that is over, nor of one that was refused.
        if self.counted(command.sale_id, command.fingerprint, effects) {
            return;
        }
        self.remember(command.sale_id, command.fingerprint, context);
        let key = (command.merchant.clone(), command.sku.clone());
        let place = (command.merchant, command.sku, command.warehouse.clone());
        let mut level = self.levels.get(&place).unwrap_or_default();
        let (free, ends, on) =
            (level.available().max(0), command.quantity == 0, self.on_sale().contains_key(&key));
        let fault = match (ends, on) {
            (true, true) => return self.end_sale(key),
            (true, false) => "the SKU has no flash sale that could be ended".into(),
            (false, true) => "the SKU has a flash sale already: one at a time".into(),
            (false, false) if command.ends_at <= context.now => {
                "the sale was over before it was read: schedule it anew".into()
            }
            (false, false)
                if command.quantity < 0
                    || command.ends_at <= command.starts_at
                    || free < command.quantity =>
            {
                format!("a sale needs pieces, {free} are free, and must end after its start")
            }
            (false, false) => String::new(),
        };
        if !fault.is_empty() {
            let (source_id, requested_by) = (command.sale_id.0, command.requested_by.as_str());
            let cause = Cause { source_id, reason: &fault, requested_by };
            refuse(place, level.on_hand, &cause, context, effects);
            return;
        }
        level.set_aside += command.quantity;
        self.levels.put(place, level);
        let sale = Sale {
            sale_id: command.sale_id,
            warehouse: command.warehouse,
            per_customer: command.per_customer,
            starts_at: command.starts_at,
            ends_at: command.ends_at,
        };
        self.on_sale().insert(key.clone(), sale.clone());
        self.sales.put(key, sale);
    }

    /// The sale that the SKU is sold in now.
    pub(super) fn sale_of(&mut self, key: &SkuKey, now: Millis) -> Option<Sale> {
        // Nearly always there is none at all.
        if self.on_sale().is_empty() {
            return None;
        }
        self.on_sale().get(key).filter(|sale| sale.on(now)).cloned()
    }

    /// Chooses the pieces of a line that is on sale, or says why not.
    pub(super) fn choose_on_sale(
        &mut self,
        command: &ReserveLines,
        line: &ReserveLine,
        sale: &Sale,
        choice: &mut Choice,
    ) -> Result<(), (RefusalReason, i64)> {
        let key = (command.merchant.clone(), line.sku.clone(), sale.warehouse.clone());
        let level = match choice.levels.get(&key) {
            Some(level) => *level,
            None => self.levels.get(&key).unwrap_or_default(),
        };
        let quantity = i64::from(line.quantity);
        if !self.online(&command.merchant, &sale.warehouse) {
            return Err((RefusalReason::WarehouseOffline, 0));
        }
        if sale.per_customer > 0 && !planted!(LimitIgnored) {
            let own = choice.lines.iter().filter(|held| held.sku == line.sku);
            let own: i32 = own.map(|held| held.quantity).sum();
            let before = match &command.customer_id {
                None => i32::MAX,
                Some(customer) => {
                    let key = (key.0.clone(), key.1.clone(), customer.clone());
                    let bought = self.purchases.get(&key);
                    bought.filter(|p| p.sale_id == sale.sale_id).map_or(0, |p| p.pieces)
                }
            };
            if before.saturating_add(own).saturating_add(line.quantity) > sale.per_customer {
                return Err((RefusalReason::CustomerLimit, level.for_sale().max(0)));
            }
        }
        if level.for_sale() < quantity {
            let held = level.for_sale() + level.reserved >= quantity;
            let reason = if held { RefusalReason::Held } else { RefusalReason::SoldOut };
            return Err((reason, level.for_sale().max(0)));
        }
        let mut level = level;
        level.set_aside -= quantity;
        level.reserved += quantity;
        choice.levels.insert(key, level);
        choice.lines.push(HeldLine {
            line: line.line,
            sku: line.sku.clone(),
            warehouse: sale.warehouse.clone(),
            quantity: line.quantity,
            sale: Some(sale.sale_id),
        });
        Ok(())
    }

    /// Counts what a hold takes against its customer's limits.
    pub(super) fn count_purchases(&mut self, hold: &Hold) {
        for line in hold.lines.iter().filter(|line| line.sale.is_some()) {
            self.change_purchase(hold, line, line.quantity);
        }
    }

    /// Takes what a hold gives back off its customer's limits.
    pub(super) fn uncount_purchases(&mut self, hold: &Hold) {
        for line in hold.lines.iter().filter(|line| line.sale.is_some()) {
            self.change_purchase(hold, line, -line.quantity);
        }
    }

    /// Whether a line's pieces come from a sale that is not over, and go back to it.
    pub(super) fn of_sale(&mut self, hold: &Hold, line: &HeldLine, now: Millis) -> bool {
        if line.sale.is_none() {
            return false;
        }
        let key = (hold.merchant.clone(), line.sku.clone());
        let sale = self.on_sale().get(&key);
        sale.is_some_and(|sale| Some(sale.sale_id) == line.sale && now < sale.ends_at)
    }

    fn change_purchase(&mut self, hold: &Hold, line: &HeldLine, pieces: i32) {
        let key = (hold.merchant.clone(), line.sku.clone());
        let Some(sale) = self.on_sale().get(&key).cloned() else { return };
        let (Some(customer), true) = (&hold.customer_id, sale.per_customer > 0) else { return };
        if Some(sale.sale_id) != line.sale {
            return;
        }
        let key: PurchaseKey = (key.0, key.1, customer.clone());
        let (sale_id, forget_at) = (sale.sale_id, sale.ends_at);
        let bought = self.purchases.get(&key).filter(|p| p.sale_id == sale_id);
        let pieces = bought.map_or(0, |p| p.pieces) + pieces;
        self.purchases.put(key, Purchase { sale_id, pieces, forget_at });
    }

    /// The sale is over: what is left is free again.
    pub(super) fn end_sale(&mut self, key: SkuKey) {
        let Some(sale) = self.sales.get(&key) else { return };
        let place = (key.0.clone(), key.1.clone(), sale.warehouse);
        if let Some(mut level) = self.levels.get(&place) {
            level.set_aside = 0;
            self.levels.put(place, level);
        }
        self.on_sale().remove(&key);
        self.sales.remove(key);
    }
}
