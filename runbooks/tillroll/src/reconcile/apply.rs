//! Corrections: commands to stock, which records what it does with them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use events::topics::{self, STOCK};
use events::{
    ChangeStock, DispatchLines, Fingerprint, Record, ReleaseLines, RequestId, StockChangeKind,
};
use machines::table::LevelKey;
use uuid::Uuid;

use super::drift::{Drift, Kind};
use crate::append;
use crate::connection::Connection;

/// A command, its key, and where a partition is named, that one.
type Correction = (Vec<u8>, Option<i32>, Record);

/// Appends what corrects these differences.
///
/// # Errors
/// When Kafka or the registry does not answer; what was appended may count, so look again.
pub(super) async fn append(
    connection: &Connection,
    drift: &BTreeSet<Drift>,
    by: &str,
    because: &str,
) -> Result<()> {
    if drift.is_empty() {
        return Ok(());
    }
    let brokers = connection.brokers()?;
    let codec = wire::registry::codec(&connection.registry()?).await?;
    let partitions = append::partitions(&brokers).await?;
    let commands = corrections(drift, Uuid::new_v4(), by, because).into_iter();
    let commands: Vec<append::Keyed> = commands
        .map(|(key, partition, record)| {
            let partition = partition.unwrap_or_else(|| topics::partition_for(&key, partitions));
            let value = codec.to_bytes(&record);
            (partition, key, value)
        })
        .collect();
    append::append(&brokers, STOCK.name, &commands).await
}

/// One change per place, one release or dispatch per order and partition.
fn corrections(drift: &BTreeSet<Drift>, run: Uuid, by: &str, because: &str) -> Vec<Correction> {
    let mut lacking = BTreeMap::<&LevelKey, i64>::new();
    let mut commands = BTreeMap::<_, Record>::new();
    for drift in drift {
        match (drift.kind, &drift.hold) {
            (Kind::History, _) => {
                *lacking.entry(&drift.place).or_default() += drift.expected - drift.found;
            }
            // A change of nothing: the level is told anew.
            (Kind::Level, _) => drop(lacking.entry(&drift.place).or_default()),
            (Kind::GoneOrder, Some((order, partition, attempt))) => {
                let dispatch = DispatchLines {
                    order_id: order.order_id,
                    accepted_at: order.accepted_at,
                    merchant: drift.place.0.clone(),
                    attempt: *attempt,
                    requested_by: by.into(),
                };
                commands.insert((*order, *partition), dispatch.into());
            }
            (_, Some((order, partition, attempt))) => {
                let release = ReleaseLines {
                    order_id: order.order_id,
                    accepted_at: order.accepted_at,
                    merchant: drift.place.0.clone(),
                    attempt: *attempt,
                };
                commands.insert((*order, *partition), release.into());
                // A release says neither who nor why: the history is told.
                lacking.entry(&drift.place).or_default();
            }
            (_, None) => {}
        }
    }
    let changes = lacking.into_iter().map(|((merchant, sku, warehouse), quantity)| {
        let change = ChangeStock {
            change_id: RequestId::derive("reconciliation", merchant, &run.to_string()),
            merchant: merchant.clone(),
            sku: sku.clone(),
            warehouse: warehouse.clone(),
            kind: StockChangeKind::Reconciliation,
            quantity,
            to_warehouse: None,
            reason: because.into(),
            requested_by: by.into(),
            fingerprint: Fingerprint(run),
        };
        (topics::stock_key(merchant, sku).into_bytes(), None, change.into())
    });
    let commands = commands.into_iter().map(|((order, partition), command)| {
        (order.order_id.as_bytes().to_vec(), Some(partition), command)
    });
    changes.chain(commands).collect()
}

#[cfg(test)]
mod tests {
    use events::{Merchant, Millis, OrderId, OrderKey, Sku, WarehouseCode};

    use super::*;

    #[test]
    fn one_change_per_place_and_one_release_per_order() {
        let merchant = Merchant::parse("shop").unwrap();
        let place = |sku| (merchant.clone(), Sku::parse(sku).unwrap(), WarehouseCode::MAIN);
        let drift = |kind, sku, count, found| Drift {
            kind,
            place: place(sku),
            count,
            expected: 9,
            found,
            hold: None,
        };
        let order_id = OrderId::derive(&merchant, "o");
        let held = |sku| Drift {
            hold: Some((OrderKey { order_id, accepted_at: Millis(7) }, 3, 2)),
            ..drift(Kind::EndedOrder, sku, "reserved", 0)
        };
        let drift = [
            drift(Kind::Level, "A", "on_hand", 8),
            drift(Kind::Level, "A", "reserved", 8),
            drift(Kind::History, "A", "on_hand", 7),
            drift(Kind::Level, "B", "on_hand", 8),
            held("A"),
            held("B"),
        ];
        let made = corrections(&drift.into(), Uuid::nil(), "ada@ops", "why");
        let changes: Vec<(String, i64)> = made
            .iter()
            .filter_map(|(_, partition, record)| match record {
                Record::ChangeStock(change) if partition.is_none() => {
                    Some((change.sku.to_string(), change.quantity))
                }
                _ => None,
            })
            .collect();
        assert_eq!(changes, [("A".to_owned(), 2), ("B".to_owned(), 0)]);
        assert_eq!(made.len(), 3);
        let Some((_, Some(3), Record::ReleaseLines(release))) = made.last() else { panic!() };
        assert_eq!((release.order_id, release.attempt), (order_id, 2));
    }
}
