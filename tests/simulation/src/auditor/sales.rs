//! Flash sales, judged by what the log says was reserved while they were on.

use std::collections::{BTreeMap, BTreeSet};

use events::{FlashSaleScheduled, OrderId, Record, topics};

use super::{Evidence, records, served};
use crate::world::World;

/// Reservations this close to a sale's start or end are not looked at: a task's time is not the
/// brokers'.
const MARGIN_MS: i64 = 1_000;

/// AU-23: what is routed out of a sale is no more than was set aside, and no customer has more than the
/// limit.
pub(super) fn check(world: &World, evidence: &Evidence, faults: &mut Vec<String>) {
    let refused = evidence.refused();
    let mut unreadable = 0;
    let mut sales = BTreeMap::new();
    for (_, entry, record) in records(world, topics::STOCK.name, &mut unreadable) {
        if let Record::FlashSaleScheduled(sale) = record
            && !refused.contains(&sale.sale_id.0)
        {
            sales.entry(sale.sale_id).or_insert((sale, entry.offset));
        }
    }
    for (sale, offset) in sales.values() {
        check_sale(world, evidence, sale, *offset, faults);
    }
}

/// Orders whose pieces of the SKU can only have come from the sale: asked for after it was scheduled
/// and on, answered before it was over.
fn buyers(world: &World, sale: &FlashSaleScheduled, scheduled: i64) -> BTreeSet<OrderId> {
    let key = topics::stock_key(&sale.merchant, &sale.sku);
    let home = topics::partition_for(key.as_bytes(), i32::from(world.kafka.partitions));
    let (mut unreadable, mut asked) = (0, BTreeMap::<OrderId, usize>::new());
    for (partition, entry, record) in records(world, topics::STOCK.name, &mut unreadable) {
        let Record::ReserveLines(command) = record else { continue };
        if i32::from(partition) == home {
            let after = entry.offset > scheduled && entry.at >= sale.starts_at.plus(MARGIN_MS);
            // One of several attempts may have been served outside the sale.
            let counts = if after && command.attempt == 1 { 1 } else { 2 };
            *asked.entry(command.order_id).or_default() += counts;
        }
    }
    let mut answered = BTreeSet::new();
    for (_, entry, record) in records(world, topics::ORDER_OUTCOMES.name, &mut unreadable) {
        let Record::LinesReserved(reserved) = record else { continue };
        let ours = reserved.stock_partition == home && asked.get(&reserved.order_id) == Some(&1);
        if ours && entry.at < sale.ends_at.plus(-MARGIN_MS) {
            answered.insert(reserved.order_id);
        }
    }
    answered
}

fn check_sale(
    world: &World,
    evidence: &Evidence,
    sale: &FlashSaleScheduled,
    scheduled: i64,
    faults: &mut Vec<String>,
) {
    let bought = buyers(world, sale, scheduled);
    let (mut total, mut by_customer) = (0, BTreeMap::<String, i64>::new());
    for chain in evidence.statuses.values().filter(|chain| served(chain)) {
        let Some(placed) = chain.iter().find_map(|c| c.order.as_ref()) else { continue };
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
        faults.push(format!("AU-23 {total} pieces sold of {} set aside", sale.quantity));
    }
    let limit = i64::from(sale.per_customer);
    for (customer, pieces) in by_customer.into_iter().filter(|(_, p)| limit > 0 && *p > limit) {
        faults
            .push(format!("AU-23 {customer} has {pieces} pieces of a sale, the limit is {limit}"));
    }
}
