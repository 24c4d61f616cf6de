//! What becomes of a hold: allocated, or released from either state. Repeats change nothing.

use events::{AllocateLines, Merchant, OrderKey, ReleaseLines};

use super::Stock;
use super::rows::{HeldLine, Hold, HoldState, Level, RELEASED_KEPT_MS};
use crate::machine::{Context, Effects};

impl Stock {
    pub(super) fn release(&mut self, command: &ReleaseLines, context: &Context) {
        let order = OrderKey { order_id: command.order_id, accepted_at: command.accepted_at };
        let hold = self.holds.get(&order);
        // A later attempt holds: this release is an old one that was redriven.
        if hold.as_ref().is_some_and(|hold| hold.attempt > command.attempt) {
            return;
        }
        for line in hold.iter().flat_map(|hold| &hold.lines) {
            let allocated = hold.as_ref().is_some_and(|hold| hold.state == HoldState::Allocated);
            self.change(&command.merchant, line, |level, pieces| {
                *(if allocated { &mut level.allocated } else { &mut level.reserved }) -= pieces;
            });
        }
        let state = HoldState::Released { forget_at: context.now.plus(RELEASED_KEPT_MS) };
        let (merchant, attempt) = (command.merchant.clone(), command.attempt);
        self.holds.put(order, Hold { merchant, attempt, state, lines: vec![] });
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
