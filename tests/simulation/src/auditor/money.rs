//! What can be counted: pieces of stock, consignments, prices.

use std::collections::BTreeMap;

use events::{Merchant, OrderKey, OrderStatus, ReceiptId, Record, Sku, topics};

use super::{Evidence, records};
use crate::world::World;

/// AU-7: receipts − what routed orders hold = levels; sound at every version.
pub(super) fn stock(world: &World, evidence: &Evidence, faults: &mut Vec<String>) {
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
    let mut on_hand = BTreeMap::<(Merchant, Sku), i64>::new();
    for ((_, merchant, sku), pieces) in received {
        *on_hand.entry((merchant, sku)).or_default() += pieces;
    }
    let mut allocated = BTreeMap::<(Merchant, Sku), i64>::new();
    for chain in evidence.statuses.values() {
        let routed = chain.last().is_some_and(|last| last.status == OrderStatus::Routed);
        for placed in chain.iter().filter(|_| routed).filter_map(|c| c.order.as_ref()) {
            for line in &placed.lines {
                let key = (placed.merchant.clone(), line.sku.clone());
                *allocated.entry(key).or_default() += i64::from(line.quantity);
            }
        }
    }
    let mut levels = BTreeMap::<(Merchant, Sku), (i64, [i64; 3])>::new();
    let mut unreadable = 0;
    for (_, _, record) in records(world, topics::STOCK_LEVELS.name, &mut unreadable) {
        let Record::StockLevelChanged(level) = record else { continue };
        let now = [level.on_hand, level.reserved, level.allocated];
        let key = (level.merchant, level.sku);
        let (version, before) = levels.get(&key).copied().unwrap_or_default();
        let sku = &key.1;
        if level.version != version + 1 {
            let got = level.version;
            faults.push(format!("AU-8 level of {sku}: version {got} follows {version}"));
        }
        let [hand, reserved, bound] = now;
        if reserved < 0 || bound < 0 || reserved + bound > hand || hand < before[0] {
            faults.push(format!("AU-8 level of {sku} at version {}: {now:?}", level.version));
        }
        levels.insert(key, (level.version, now));
    }
    for (key, pieces) in &on_hand {
        let level = levels.get(key).map(|(_, level)| *level).unwrap_or_default();
        let bound = allocated.remove(key).unwrap_or_default();
        if level != [*pieces, 0, bound] {
            let (shop, sku) = key;
            faults.push(format!(
                "AU-7 {shop}/{sku}: received {pieces}, bound {bound}, level says {level:?}"
            ));
        }
    }
    for ((shop, sku), bound) in allocated.into_iter().filter(|(_, bound)| *bound != 0) {
        faults.push(format!("AU-7 {bound} of {shop}/{sku} are bound, none was received"));
    }
}

/// AU-9: every order that is routed and not cancelled has the one live consignment that it was told of,
/// nobody else has any.
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
        let cancelled = chain.last().is_some_and(|last| last.status == OrderStatus::Cancelled);
        let told: Vec<_> = chain
            .iter()
            .filter(|_| !cancelled)
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
