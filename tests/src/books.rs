//! The ledger in Postgres against what it is kept from, and against itself: entries as the history implies them, computed
//! here once more, and sums of debits and credits.

use std::collections::BTreeMap;

use anyhow::Result;
use events::{OrderKey, OrderStatus, OrderStatusChanged, PaymentState};
use tokio_postgres::Client;
use uuid::Uuid;

/// An entry: its order, what it is, of which payment (provider and its id), minor units.
pub type Entry = (Uuid, String, String, String, i64);

const ENTRIES: &str = "SELECT order_id, kind, coalesce(provider, ''), reference, amount_minor
    FROM ledger_entries";

/// Entries whose sides differ, and books (of a merchant, in a currency) whose balances do not sum up to 0.
const UNBALANCED: &str = "
    SELECT (SELECT count(*) FROM (SELECT 1 FROM ledger_postings
            GROUP BY order_id, accepted_at, kind, turn, method, reference
            HAVING sum(amount_minor) <> 0 OR count(*) <> 2) AS entries)
        + (SELECT count(*) FROM (SELECT 1 FROM ledger_balances
            GROUP BY merchant, currency HAVING sum(balance_minor) <> 0) AS books)";

/// The entries that follow from histories in their versions' order, sorted.
pub fn of_history(histories: &BTreeMap<OrderKey, Vec<OrderStatusChanged>>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (order, chain) in histories {
        let mut post = |kind: &str, (provider, reference): (&str, &str), amount: i64| {
            let text = [kind, provider, reference].map(str::to_owned);
            let [kind, provider, reference] = text;
            entries.push((order.order_id.0, kind, provider, reference, amount));
        };
        let mut furthest = BTreeMap::new();
        for fact in chain.iter().flat_map(|changed| &changed.payments) {
            let payment = (fact.provider.as_str(), fact.reference.as_str());
            let known = furthest.entry(payment).or_insert((fact.state, fact.amount_minor));
            known.0 = known.0.max(fact.state);
        }
        for (payment, (state, amount)) in furthest {
            if state >= PaymentState::Captured {
                post("capture", payment, amount);
            }
            if state >= PaymentState::Refunded {
                post("refund", payment, amount);
            }
        }
        let (mut with_customer, mut first) = (false, true);
        for changed in chain {
            let now = match changed.status {
                OrderStatus::Shipped | OrderStatus::Delivered => true,
                OrderStatus::Undeliverable | OrderStatus::Returned => false,
                _ => continue,
            };
            if now != with_customer {
                let kind = match (now, first) {
                    (true, true) => "sale",
                    (true, false) => "resale",
                    (false, _) => "return",
                };
                post(kind, ("", ""), changed.total_minor);
                (with_customer, first) = (now, false);
            }
        }
    }
    entries.sort();
    entries
}

/// The entries that the ledger has, sorted.
///
/// # Errors
/// When Postgres does not answer.
pub async fn of_ledger(client: &Client) -> Result<Vec<Entry>> {
    let rows = client.query(ENTRIES, &[]).await?;
    let entry =
        |row: &tokio_postgres::Row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
    let mut entries: Vec<Entry> = rows.iter().map(entry).collect();
    entries.sort();
    Ok(entries)
}

/// Captured and refunded minor units of each payment, by provider and its id.
pub fn payments(entries: &[Entry]) -> BTreeMap<(String, String), (i64, i64)> {
    let mut payments = BTreeMap::<_, (i64, i64)>::new();
    for (_, kind, provider, reference, amount) in entries {
        if !provider.is_empty() {
            let sums = payments.entry((provider.clone(), reference.clone())).or_default();
            *(if kind == "capture" { &mut sums.0 } else { &mut sums.1 }) += amount;
        }
    }
    payments
}

/// How many entries and books do not balance.
///
/// # Errors
/// When Postgres does not answer.
pub async fn unbalanced(client: &Client) -> Result<i64> {
    Ok(client.query_one(UNBALANCED, &[]).await?.try_get(0)?)
}
