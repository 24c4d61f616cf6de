//! Reserving: all lines of an order that this partition owns, or none, with the reasons.
//!
//! The command ranks the warehouses. The first that has all lines serves them; if there is none, each
//! line comes from the first that has all its pieces, and if there is none either, from several.

use std::collections::BTreeMap;

use events::{
    Alternative, LineRefusal, LinesRefused, LinesReserved, OrderKey, Record, RefusalReason,
    ReserveLine, ReserveLines, Sku, WarehouseCode, topics,
};

use super::Stock;
use super::rows::{HeldLine, Hold, HoldState, Level};
use crate::machine::{Context, Effects};
use crate::table::LevelKey;

/// Pieces for an order, and the levels that follow. Nothing is changed by choosing.
#[derive(Default)]
pub(super) struct Choice {
    pub(super) lines: Vec<HeldLine>,
    pub(super) levels: BTreeMap<LevelKey, Level>,
    alone: Vec<WarehouseCode>,
}

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
        let before = self.holds.get(&order);
        // A later attempt while the last one holds: it is replaced, or kept if that cannot be and its
        // warehouses are still there.
        let replaced = before
            .clone()
            .filter(|hold| hold.state == HoldState::Reserved && hold.attempt < command.attempt);
        if let Some(hold) = &replaced {
            self.give_back(hold, context);
        }
        let answer: Record = match before {
            // A repeat: the same answer, nothing held twice.
            Some(hold) if hold.attempt >= command.attempt => match hold.state {
                HoldState::Reserved | HoldState::Allocated => {
                    reserved(&command, &hold.lines, vec![], context).into()
                }
                // The release overtook its reservation: nobody waits for an answer.
                HoldState::Released { .. } | HoldState::Dispatched { .. } => return,
            },
            _ => self.take(order, &command, replaced, context),
        };
        let key = command.order_id;
        effects.emit(context, topics::ORDER_OUTCOMES.name, key.as_bytes(), answer);
    }

    /// Reserves what the command asks for in place of what an earlier attempt holds, if any, which has
    /// been given back.
    fn take(
        &mut self,
        order: OrderKey,
        command: &ReserveLines,
        replaced: Option<Hold>,
        context: &Context,
    ) -> Record {
        let refusals = match self.choose(command, context) {
            Ok(Choice { lines, levels, alone }) => {
                for (key, level) in levels {
                    self.levels.put(key, level);
                }
                let answer = reserved(command, &lines, alone, context);
                let on_sale = lines.iter().any(|line| line.sale.is_some());
                let customer_id = command.customer_id.clone().filter(|_| on_sale);
                let (merchant, attempt) = (command.merchant.clone(), command.attempt);
                let state = HoldState::Reserved;
                let hold = Hold { merchant, attempt, state, lines, customer_id };
                self.count_purchases(&hold);
                self.put_hold(order, hold);
                return answer.into();
            }
            Err(refusals) => refusals,
        };
        if let Some(mut hold) = replaced {
            if self.all_online(&hold) {
                self.take_again(&hold, context);
                hold.attempt = command.attempt;
                let answer = reserved(command, &hold.lines, vec![], context);
                self.put_hold(order, hold);
                return answer.into();
            }
            self.remove_hold(order);
        }
        LinesRefused {
            order_id: command.order_id,
            accepted_at: command.accepted_at,
            stock_partition: context.partition,
            attempt: command.attempt,
            refusals,
        }
        .into()
    }

    fn choose(
        &mut self,
        command: &ReserveLines,
        context: &Context,
    ) -> Result<Choice, Vec<LineRefusal>> {
        let mut choice = Choice::default();
        let mut refusals = Vec::new();
        let mut offered = Vec::with_capacity(command.warehouses.len());
        for warehouse in &command.warehouses {
            if self.online(&command.merchant, warehouse) {
                offered.push(warehouse.clone());
            }
        }
        let mut ordinary = Vec::with_capacity(command.lines.len());
        for line in &command.lines {
            let key = (command.merchant.clone(), line.sku.clone());
            let Some(sale) = self.sale_of(&key, context.now) else {
                ordinary.push(line);
                continue;
            };
            if let Err((reason, available)) = self.choose_on_sale(command, line, &sale, &mut choice)
            {
                let (sku, requested, elsewhere) = (key.1, line.quantity, vec![]);
                let line = line.line;
                refusals.push(LineRefusal { line, sku, requested, available, reason, elsewhere });
            }
        }
        for line in &ordinary {
            for warehouse in &command.warehouses {
                let key = (command.merchant.clone(), line.sku.clone(), warehouse.clone());
                if !choice.levels.contains_key(&key)
                    && let Some(level) = self.levels.get(&key)
                {
                    choice.levels.insert(key, level);
                }
            }
        }
        if offered.len() > 1 {
            let serves = |warehouse: &&WarehouseCode| choice.serves(command, &ordinary, warehouse);
            let serving: Vec<WarehouseCode> = offered.iter().filter(serves).cloned().collect();
            // What is on sale is where the sale is.
            let all = |w: &&WarehouseCode| choice.lines.iter().all(|line| line.warehouse == **w);
            choice.alone = serving.iter().filter(all).cloned().collect();
            if let Some(best) = choice.alone.first().or(serving.first()) {
                offered = vec![best.clone()];
            }
        }
        for line in ordinary {
            if !choice.take(command, line, &offered) {
                refusals.push(choice.refusal(command, line, &offered));
            }
        }
        // Only what is changed is written.
        let held = std::mem::take(&mut choice.lines);
        choice.levels.retain(|(_, sku, warehouse), _| {
            held.iter().any(|line| line.sku == *sku && line.warehouse == *warehouse)
        });
        choice.lines = held;
        if refusals.is_empty() { Ok(choice) } else { Err(refusals) }
    }
}

impl Choice {
    /// Whether a warehouse has every piece of these lines.
    fn serves(
        &self,
        command: &ReserveLines,
        lines: &[&ReserveLine],
        warehouse: &WarehouseCode,
    ) -> bool {
        let mut wanted = BTreeMap::<&Sku, i64>::new();
        for line in lines {
            *wanted.entry(&line.sku).or_default() += i64::from(line.quantity);
        }
        wanted.into_iter().all(|(sku, quantity)| {
            let key = (command.merchant.clone(), sku.clone(), warehouse.clone());
            self.levels.get(&key).is_some_and(|level| level.available() >= quantity)
        })
    }

    /// Takes a line's pieces: from the first warehouse that has all, else from several.
    fn take(
        &mut self,
        command: &ReserveLines,
        line: &ReserveLine,
        offered: &[WarehouseCode],
    ) -> bool {
        let quantity = i64::from(line.quantity);
        let key = |w: &WarehouseCode| (command.merchant.clone(), line.sku.clone(), w.clone());
        let free: Vec<i64> = offered
            .iter()
            .map(|w| self.levels.get(&key(w)).map_or(0, |level| level.available().max(0)))
            .collect();
        let whole = free.iter().position(|free| *free >= quantity);
        if whole.is_none() && free.iter().sum::<i64>() < quantity {
            return false;
        }
        let mut left = quantity;
        for (warehouse, free) in offered.iter().zip(free).skip(whole.unwrap_or(0)) {
            let taken = free.min(left);
            if taken == 0 {
                continue;
            }
            let level = self.levels.get_mut(&key(warehouse)).expect("it has free pieces");
            level.reserved += taken;
            left -= taken;
            self.lines.push(HeldLine {
                line: line.line,
                sku: line.sku.clone(),
                warehouse: warehouse.clone(),
                quantity: i32::try_from(taken).expect("no more than the line's"),
                sale: None,
            });
            if left == 0 {
                break;
            }
        }
        true
    }

    /// Why the warehouses do not serve the line. What the order's other lines have taken counts as
    /// taken, but not as held by others.
    fn refusal(
        &self,
        command: &ReserveLines,
        line: &ReserveLine,
        offered: &[WarehouseCode],
    ) -> LineRefusal {
        let quantity = i64::from(line.quantity);
        let level = |w: &WarehouseCode| {
            self.levels.get(&(command.merchant.clone(), line.sku.clone(), w.clone()))
        };
        let own: i64 = self
            .lines
            .iter()
            .filter(|held| held.sku == line.sku && offered.contains(&held.warehouse))
            .map(|held| i64::from(held.quantity))
            .sum();
        let online: Vec<(&WarehouseCode, &Level)> =
            offered.iter().filter_map(|w| Some((w, level(w)?))).collect();
        let available: i64 = online.iter().map(|(_, level)| level.available().max(0)).sum();
        // Held: there would be enough, were other orders' reservations given back.
        let could = |level: &Level| level.available() + level.reserved;
        let could: i64 = online.iter().map(|(_, level)| could(level)).sum::<i64>() - own;
        let offline = command.warehouses.iter().filter(|w| !offered.contains(w));
        let known = command.warehouses.iter().any(|w| level(w).is_some());
        let there: i64 = offline.filter_map(|w| Some(level(w)?.available().max(0))).sum();
        let reason = if !known {
            RefusalReason::UnknownSku
        } else if could >= quantity {
            RefusalReason::Held
        } else if available + there >= quantity {
            RefusalReason::WarehouseOffline
        } else {
            RefusalReason::SoldOut
        };
        let named = |(warehouse, level): &(&WarehouseCode, &Level)| {
            let available = level.available();
            let several = command.warehouses.len() > 1;
            (several && available > 0)
                .then(|| Alternative { warehouse: (*warehouse).clone(), available })
        };
        let elsewhere = online.iter().filter_map(named).collect();
        let (sku, requested) = (line.sku.clone(), line.quantity);
        LineRefusal { line: line.line, sku, requested, available, reason, elsewhere }
    }
}

fn reserved(
    command: &ReserveLines,
    lines: &[HeldLine],
    alone: Vec<WarehouseCode>,
    context: &Context,
) -> LinesReserved {
    // Nothing but `main` goes without saying: most merchants have no other warehouse.
    let main = |warehouse: &WarehouseCode| *warehouse == WarehouseCode::MAIN;
    let plain = command.warehouses.iter().all(main) && lines.iter().all(|l| main(&l.warehouse));
    LinesReserved {
        order_id: command.order_id,
        accepted_at: command.accepted_at,
        stock_partition: context.partition,
        attempt: command.attempt,
        warehouse: (!plain).then(|| most_pieces(lines)).flatten(),
        alone,
        moved_from: None,
    }
}

/// The warehouse from which most of the pieces come; of equals the first by its code.
pub(super) fn most_pieces(lines: &[HeldLine]) -> Option<WarehouseCode> {
    let mut pieces = BTreeMap::<&WarehouseCode, i64>::new();
    for line in lines {
        *pieces.entry(&line.warehouse).or_default() += i64::from(line.quantity);
    }
    let most = pieces.values().copied().max()?;
    pieces.into_iter().find(|(_, n)| *n == most).map(|(warehouse, _)| warehouse.clone())
}
