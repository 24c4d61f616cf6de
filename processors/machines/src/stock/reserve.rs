//! Reserving: all lines of an order that this partition owns, or none, with the reasons.

use std::collections::BTreeMap;

use events::{
    LineRefusal, LinesRefused, LinesReserved, OrderKey, Record, RefusalReason, ReserveLine,
    ReserveLines, WarehouseCode, topics,
};

use super::Stock;
use super::rows::{HeldLine, Hold, HoldState, Level};
use crate::machine::{Context, Effects};
use crate::table::LevelKey;

impl Stock {
    pub(super) fn reserve(
        &mut self,
        command: ReserveLines,
        context: &Context,
        effects: &mut Effects,
    ) {
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
