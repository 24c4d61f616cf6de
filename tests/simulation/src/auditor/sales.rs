//! Flash sales, judged by what the log says was reserved while they were on.

use std::collections::{BTreeMap, BTreeSet};

use events::{FlashSaleScheduled, OrderId, OrderStatus, Record, topics};

use super::{Evidence, records};
use crate::world::World;

/// Reservations this close to a sale's start or end are not looked at: a task's time is not the
/// brokers'.
const MARGIN_MS: i64 = 1_000;

/// AU-17: what is routed out of a sale is no more than was set aside, and no customer has more than the
/// limit.
pub(super) fn check(world: &World, evidence: &Evidence, faults: &mut Vec<String>) {
    let mut unreadable = 0;
    let mut sales = BTreeMap::new();
    for (_, _, record) in records(world, topics::STOCK.name, &mut unreadable) {
        if let Record::FlashSaleScheduled(sale) = record {
            sales.entry(sale.sale_id).or_insert(sale);
        }
    }
    for sale in sales.values() {
        check_sale(world, evidence, sale, faults);
    }
}

fn check_sale(
    world: &World,
    evidence: &Evidence,
    sale: &FlashSaleScheduled,
    faults: &mut Vec<String>,
) {
    let key = topics::stock_key(&sale.merchant, &sale.sku);
    let home = topics::partition_for(key.as_bytes(), i32::from(world.kafka.partitions));
    let (mut unreadable, mut first) = (0, BTreeSet::<OrderId>::new());
    let mut bought = BTreeSet::<OrderId>::new();
    for (_, entry, record) in records(world, topics::ORDER_OUTCOMES.name, &mut unreadable) {
        let Record::LinesReserved(reserved) = record else { continue };
        // An order of several attempts may have been served outside the sale before.
        if reserved.stock_partition != home || !first.insert(reserved.order_id) {
            bought.remove(&reserved.order_id);
            continue;
        }
        let inside = sale.starts_at.plus(MARGIN_MS)..sale.ends_at.plus(-MARGIN_MS);
        if inside.contains(&entry.at) {
            bought.insert(reserved.order_id);
        }
    }
    let (mut total, mut by_customer) = (0, BTreeMap::<String, i64>::new());
    for chain in evidence.statuses.values() {
        let routed = chain.last().is_some_and(|last| last.status == OrderStatus::Routed);
        let Some(placed) = chain.iter().find_map(|c| c.order.as_ref()).filter(|_| routed) else {
            continue;
        };
        if placed.merchant != sale.merchant || !bought.contains(&placed.order_id) {
            continue;
        }
        let pieces: i64 = placed
            .lines
            .iter()
            .filter(|line| line.sku == sale.sku)
            .map(|line| i64::from(line.quantity))
            .sum();
        total += pieces;
        let customer = placed.customer_id.as_deref().unwrap_or("guest").to_string();
        *by_customer.entry(customer).or_default() += pieces;
    }
    if total > sale.quantity {
        faults.push(format!("AU-17 {total} pieces sold of {} set aside", sale.quantity));
    }
    let limit = i64::from(sale.per_customer);
    for (customer, pieces) in by_customer.into_iter().filter(|(_, p)| limit > 0 && *p > limit) {
        faults
            .push(format!("AU-17 {customer} has {pieces} pieces of a sale, the limit is {limit}"));
    }
}
