//! What becomes of a hold: allocated, dispatched, or released from either state before. Repeats change
//! nothing.

use std::collections::BTreeMap;

use events::{
    AllocateLines, DispatchLines, Merchant, MovementKind, OrderKey, ReleaseLines, Sku,
    WarehouseCode,
};

use super::Stock;
use super::receive::Cause;
use super::rows::{HeldLine, Hold, HoldState, Level, RELEASED_KEPT_MS};
use crate::machine::{Context, Effects};

impl Stock {
    pub(super) fn release(
        &mut self,
        command: &ReleaseLines,
        context: &Context,
        effects: &mut Effects,
    ) {
        let order = OrderKey { order_id: command.order_id, accepted_at: command.accepted_at };
        let hold = self.holds.get(&order);
        // A later attempt holds: this release is an old one that was redriven.
        if hold.as_ref().is_some_and(|hold| hold.attempt > command.attempt) {
            return;
        }
        if let Some(Hold { state: HoldState::Dispatched { .. }, .. }) = hold {
            effects.reject("what has left the warehouse cannot be released");
            return;
        }
        if let Some(hold) = &hold {
            self.give_back(hold, context);
        }
        self.put_hold(order, released(command.merchant.clone(), command.attempt, context));
    }

    /// The levels, and the sale and the customer's limit, as if the hold had never been.
    pub(super) fn give_back(&mut self, hold: &Hold, context: &Context) {
        let allocated = hold.state == HoldState::Allocated;
        for line in &hold.lines {
            let of_sale = self.of_sale(hold, line, context.now);
            self.change(&hold.merchant, line, |level, pieces| {
                *(if allocated { &mut level.allocated } else { &mut level.reserved }) -= pieces;
                level.set_aside += if of_sale { pieces } else { 0 };
            });
        }
        self.uncount_purchases(hold);
    }

    /// Undoes [`Self::give_back`] within one step.
    pub(super) fn take_again(&mut self, hold: &Hold, context: &Context) {
        for line in &hold.lines {
            let of_sale = self.of_sale(hold, line, context.now);
            self.change(&hold.merchant, line, |level, pieces| {
                level.reserved += pieces;
                level.set_aside -= if of_sale { pieces } else { 0 };
            });
        }
        self.count_purchases(hold);
    }

    pub(super) fn allocate(&mut self, command: &AllocateLines, effects: &mut Effects) {
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
                self.put_hold(order, hold);
            }
            Some(hold) if hold.state == HoldState::Allocated => {}
            _ => effects.reject("nothing is reserved that could be allocated"),
        }
    }

    pub(super) fn dispatch(
        &mut self,
        command: &DispatchLines,
        context: &Context,
        effects: &mut Effects,
    ) {
        let order = OrderKey { order_id: command.order_id, accepted_at: command.accepted_at };
        let Some(mut hold) = self.holds.get(&order) else {
            effects.reject("nothing is held that could be dispatched");
            return;
        };
        match hold.state {
            HoldState::Dispatched { .. } => return,
            HoldState::Allocated => {}
            HoldState::Reserved | HoldState::Released { .. } => {
                effects.reject("only what is allocated can be dispatched");
                return;
            }
        }
        // The same SKU twice is one movement: its identity is source, kind, SKU and warehouse.
        let mut pieces = BTreeMap::<(Sku, WarehouseCode), i64>::new();
        for line in &hold.lines {
            let key = (line.sku.clone(), line.warehouse.clone());
            *pieces.entry(key).or_default() += i64::from(line.quantity);
            self.change(&command.merchant, line, |level, pieces| level.allocated -= pieces);
        }
        // The same key may name another order one day.
        let at = order.accepted_at.0.to_be_bytes();
        let source_id = uuid::Uuid::new_v5(&order.order_id.0, &at);
        let reason = order.order_id.to_string();
        let cause = Cause { source_id, reason: &reason, requested_by: &command.requested_by };
        for ((sku, warehouse), pieces) in pieces {
            let key = (command.merchant.clone(), sku, warehouse);
            self.move_pieces(key, MovementKind::Dispatch, -pieces, &cause, context, effects);
        }
        hold.lines.clear();
        hold.state = HoldState::Dispatched { forget_at: context.now.plus(RELEASED_KEPT_MS) };
        self.put_hold(order, hold);
    }

    pub(super) fn change(
        &mut self,
        merchant: &Merchant,
        line: &HeldLine,
        f: impl Fn(&mut Level, i64),
    ) {
        let key = (merchant.clone(), line.sku.clone(), line.warehouse.clone());
        let mut level = self.levels.get(&key).unwrap_or_default();
        f(&mut level, i64::from(line.quantity));
        self.levels.put(key, level);
    }
}

/// What stays of a hold that was given back, so that a late or repeated command can't bring it back.
fn released(merchant: Merchant, attempt: i32, context: &Context) -> Hold {
    let state = HoldState::Released { forget_at: context.now.plus(RELEASED_KEPT_MS) };
    Hold { merchant, attempt, state, lines: vec![], customer_id: None }
}
