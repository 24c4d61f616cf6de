//! What can be counted: pieces of stock, consignments, prices.

use std::collections::{BTreeMap, BTreeSet};

use events::{
    Merchant, MovementKind, OrderKey, OrderStatus, ReceiptId, Record, Sku, StockChangeKind,
    WarehouseCode, topics,
};

use super::{Evidence, records, served};
use crate::world::World;

type Place = (Merchant, Sku, WarehouseCode);

/// AU-7: what came and went is what is on hand, what routed orders hold is allocated or has left, and
/// levels are sound at every version.
pub(super) fn stock(world: &World, evidence: &Evidence, faults: &mut Vec<String>) {
    let on_hand = movements(world, evidence, faults);
    let mut bound = BTreeMap::<(Merchant, Sku), i64>::new();
    for (order, chain) in &evidence.statuses {
        let routed = served(chain);
        let gone = evidence.dispatched.contains(&order.order_id);
        for placed in chain.iter().filter(|_| routed && !gone).filter_map(|c| c.order.as_ref()) {
            for line in &placed.lines {
                let key = (placed.merchant.clone(), line.sku.clone());
                *bound.entry(key).or_default() += i64::from(line.quantity);
            }
        }
        if gone && !routed {
            faults.push(format!("AU-7 order {} has left and is not routed", order.order_id));
        }
        if !gone && chain.iter().any(|changed| handed_over(changed.status)) {
            faults.push(format!("AU-7 order {} has left and stock does not know", order.order_id));
        }
    }
    let levels = levels(world, faults);
    for (place, pieces) in &on_hand {
        let level = levels.get(place).copied().unwrap_or_default();
        if level[0] != *pieces || level[1] != 0 || level[3] != 0 {
            let (shop, sku, warehouse) = place;
            faults.push(format!(
                "AU-7 {shop}/{sku}/{warehouse}: movements say {pieces}, level says {level:?}"
            ));
        }
    }
    let mut allocated = BTreeMap::<(Merchant, Sku), i64>::new();
    for ((merchant, sku, _), level) in levels {
        *allocated.entry((merchant, sku)).or_default() += level[2];
    }
    allocated.retain(|_, pieces| *pieces != 0);
    if allocated != bound {
        faults.push(format!("AU-7 allocated {allocated:?}, routed orders hold {bound:?}"));
    }
}

/// Whether a courier has, or had, an order of this status.
fn handed_over(status: OrderStatus) -> bool {
    use OrderStatus::{Delivered, Returned, Shipped, Undeliverable};
    matches!(status, Shipped | Delivered | Undeliverable | Returned)
}

/// The sum of all movements by place; each counted once, and each by what caused it.
fn movements(world: &World, evidence: &Evidence, faults: &mut Vec<String>) -> BTreeMap<Place, i64> {
    let mut received = BTreeMap::<(ReceiptId, Merchant, Sku), i64>::new();
    for receipt in &evidence.receipts {
        let key = (receipt.receipt_id, receipt.merchant.clone(), receipt.sku.clone());
        received.insert(key, i64::from(receipt.quantity));
    }
    for (key, pieces) in &world.accepted.receipts {
        if received.get(key) != Some(pieces) {
            faults.push(format!("AU-7 an acknowledged receipt of {} is not in the log", key.2));
        }
    }
    let (mut unreadable, mut asked) = (0, BTreeMap::new());
    for (_, _, record) in records(world, topics::STOCK.name, &mut unreadable) {
        if let Record::ChangeStock(change) = record {
            asked.insert(change.change_id.0, (change.kind, change.quantity));
        }
    }
    let refused = evidence.refused();
    let (mut sums, mut seen) = (BTreeMap::<Place, i64>::new(), BTreeSet::new());
    for moved in &evidence.movements {
        if !seen.insert(moved.movement_id) {
            faults.push(format!("AU-7 movement {} is told twice", moved.movement_id));
        }
        let key = (moved.merchant.clone(), moved.sku.clone(), moved.warehouse.clone());
        *sums.entry(key).or_default() += moved.quantity;
        if moved.kind != MovementKind::Refused && refused.contains(&moved.source_id) {
            faults.push(format!("AU-7 refused before or after: {moved:?}"));
        }
        let right = match (moved.kind, asked.get(&moved.source_id)) {
            (MovementKind::Receipt, _) => {
                let key = (ReceiptId(moved.source_id), moved.merchant.clone(), moved.sku.clone());
                received.remove(&key) == Some(moved.quantity)
            }
            (MovementKind::Adjustment, Some((kind, quantity))) => {
                *kind == StockChangeKind::Adjustment && moved.quantity == *quantity
            }
            (MovementKind::Count, Some((kind, quantity))) => {
                *kind == StockChangeKind::Count && moved.on_hand == *quantity
            }
            (MovementKind::TransferOut, Some((_, quantity))) => moved.quantity == -quantity,
            (MovementKind::TransferIn, Some((_, quantity))) => moved.quantity == *quantity,
            (MovementKind::Dispatch, None) => moved.quantity < 0,
            (MovementKind::Refused, _) => moved.quantity == 0,
            _ => false,
        };
        if !right {
            faults.push(format!("AU-7 nobody asked for {moved:?}"));
        }
    }
    if let Some(((receipt, ..), pieces)) = received.into_iter().next() {
        faults.push(format!("AU-7 receipt {} of {pieces} pieces did not count", receipt.0));
    }
    sums
}

/// AU-8: versions are gapless, and at each of them nothing is promised that is not there. The last one
/// of every place: on hand, reserved, allocated, set aside, missing. No promise is made from what a count
/// did not find.
fn levels(world: &World, faults: &mut Vec<String>) -> BTreeMap<Place, [i64; 5]> {
    let mut levels = BTreeMap::<Place, (i64, [i64; 5])>::new();
    let mut unreadable = 0;
    for (_, _, record) in records(world, topics::STOCK_LEVELS.name, &mut unreadable) {
        let Record::StockLevelChanged(level) = record else { continue };
        let now = [level.on_hand, level.reserved, level.allocated, level.set_aside, level.missing];
        let key = (level.merchant, level.sku, level.warehouse);
        let (version, before) = levels.get(&key).copied().unwrap_or_default();
        let sku = &key.1;
        if level.version != version + 1 {
            let got = level.version;
            faults.push(format!("AU-8 level of {sku}: version {got} follows {version}"));
        }
        let [hand, reserved, bound, aside, missing] = now;
        if reserved < 0 || bound < 0 || aside < 0 || reserved + bound + aside > hand {
            faults.push(format!("AU-8 level of {sku} at version {}: {now:?}", level.version));
        }
        let promised = reserved + bound;
        if missing > 0
            && missing == before[4]
            && promised > (before[1] + before[2]).max(hand - missing)
        {
            faults.push(format!("AU-8 level of {sku} at version {}: {now:?}", level.version));
        }
        levels.insert(key, (level.version, now));
    }
    levels.into_iter().map(|(key, (_, level))| (key, level)).collect()
}

/// AU-9: every order that is routed and not given up again has the one live consignment that it was told
/// of, nobody else has any.
pub(super) fn consignments(world: &World, evidence: &Evidence, faults: &mut Vec<String>) {
    let mut live = BTreeMap::<OrderKey, Vec<(String, String, i64)>>::new();
    for company in &world.companies {
        for booking in company.live() {
            let id = booking.consignment_id.clone();
            let entry = (company.code.to_string(), id, booking.price_minor);
            live.entry(booking.order).or_default().push(entry);
        }
    }
    for (order, chain) in &evidence.statuses {
        let at_companies = live.remove(order).unwrap_or_default();
        let served = served(chain);
        let told: Vec<_> = chain
            .iter()
            .filter(|_| served)
            .filter_map(|changed| changed.consignment.as_ref())
            .map(|c| (c.courier.to_string(), c.consignment_id.to_string(), c.price_minor))
            .collect();
        if told != at_companies {
            let order = order.order_id;
            faults.push(format!("AU-9 order {order} was told {told:?}, live: {at_companies:?}"));
        }
    }
    for (order, bookings) in live {
        let order = order.order_id;
        faults.push(format!("AU-9 companies hold {bookings:?} for {order}, which has no chain"));
    }
}
