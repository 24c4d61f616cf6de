//! Payments on the real stack: refusals, cancels, lost answers, doubled webhooks and a provider that is
//! down for a while. At the end the money that order-status tells of is the money in the provider's own ledger and in
//! ours, to the cent.
//!
//! `ORDERS`, `DOWN_S` choose the size; the figures are written to stderr.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use events::{OrderKey, OrderStatus, OrderStatusChanged, PaymentState, Record, topics};
use futures::StreamExt as _;
use local::Stack;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tests::books;
use tests::reconcile::postgres;
use tests::shop::Shop;
use tests::stack::{Instances, System};

const INSTANCES: Instances = Instances { ingest: 1, processors: 1, sinks: 1 };
/// Orders, unless `ORDERS` says otherwise.
const ORDERS: u64 = 400;
/// Seconds that the provider is down, unless `DOWN_S` says otherwise.
const DOWN_S: u64 = 10;
/// Orders that are sent at the same time.
const AT_ONCE: usize = 64;
/// Longest wait for the last order to be final and its money settled.
const SETTLED_WITHIN: Duration = Duration::from_secs(300);
/// Longest wait for the last entry of the ledger, once all is settled.
const BOOKED_WITHIN: Duration = Duration::from_secs(30);
const SKU: &str = "PAID";

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_providers_ledger_and_the_history_agree_to_the_cent() -> Result<()> {
    let (orders, down) = (number("ORDERS", ORDERS), number("DOWN_S", DOWN_S));
    let system = System::start(Stack::builder(), INSTANCES).await?;
    let simulator = system.stack.payment_simulator_url();
    let shop = Shop::new(system.stack.ingest_urls(), &system.key)?;
    settings(
        &simulator,
        &json!({
            "decline_rate": 0.05, "timeout_rate": 0.02, "webhook_double_rate": 0.02,
        }),
    )
    .await?;
    let pieces = json!({"lines": [{"sku": SKU, "quantity": orders}]});
    ensure!(shop.post(0, "/v1/stock/receipts", "stock", &pieces).await?.status.is_success());

    let began = Instant::now();
    let outage = outage(&simulator, down);
    let sending = futures::stream::iter(0..orders).for_each_concurrent(AT_ONCE, |n| {
        let shop = &shop;
        async move {
            let answer = shop.post(0, "/v1/orders", &format!("paid-{n}"), &order(n)).await;
            let accepted = answer.expect("ingest answers within a minute");
            assert_eq!(accepted.status.as_u16(), 202, "{accepted:?}");
            if n.is_multiple_of(9) {
                cancel(shop, n, &accepted.body).await;
            }
        }
    });
    let (back, ()) = tokio::join!(outage, sending);
    let (back, accepted) = (back?, began.elapsed());
    let settled = settled(&system, &simulator, orders).await?;
    let Some(verdict) = settled else {
        system.save_logs(Path::new("target/payments-logs"))?;
        anyhow::bail!("orders are not final: see target/payments-logs");
    };
    let (recovered, all) = (back.elapsed(), began.elapsed());
    let report = format!(
        "{orders} orders accepted in {:.1} s, all settled {:.1} s after the first; provider down for \
         {down} s, everything settled {:.1} s after it was back\n{verdict}",
        accepted.as_secs_f64(),
        all.as_secs_f64(),
        recovered.as_secs_f64(),
    );
    let _ = writeln!(std::io::stderr(), "{report}");
    assert!(verdict.faults.is_empty(), "{:#?}", verdict.faults);
    books(&system, &simulator).await?;
    system.stack.shutdown().await
}

/// The provider goes down in the middle; returns when it came back.
async fn outage(simulator: &str, down: u64) -> Result<Instant> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    settings(simulator, &json!({"down": true})).await?;
    tokio::time::sleep(Duration::from_secs(down)).await;
    settings(simulator, &json!({"down": false})).await?;
    Ok(Instant::now())
}

async fn settings(simulator: &str, change: &Value) -> Result<()> {
    let url = format!("{simulator}/settings");
    reqwest::Client::new().patch(url).json(change).send().await?.error_for_status()?;
    Ok(())
}

fn order(n: u64) -> Value {
    let price = 100 + n % 4_000;
    let gift = if n.is_multiple_of(4) { price / 3 } else { 0 };
    let card = json!({"provider": "stripe", "token": "pm_1", "amount_minor": price - gift});
    let methods = match gift {
        0 => json!([card]),
        gift => json!([{"provider": "gift", "token": "g_1", "amount_minor": gift}, card]),
    };
    json!({
        "currency": "GBP",
        "destination": {"name": "n", "street": "s", "city": "c", "postcode": "p", "country": "GB"},
        "lines": [{"sku": SKU, "quantity": 1, "unit_price_minor": price}],
        "ordered_at": "2026-11-21T12:00:00Z",
        "payment_methods": methods,
    })
}

/// At every stage, since some are asked for at once and some later.
async fn cancel(shop: &Shop, n: u64, accepted: &Value) {
    tokio::time::sleep(Duration::from_millis(n % 7 * 150)).await;
    let id = accepted["order_id"].as_str().expect("an accepted order has an id");
    let path = format!("/v1/orders/{id}/cancel");
    let asked = shop.post(0, &path, &format!("cancel-{n}"), &json!({})).await;
    let status = asked.expect("ingest answers within a minute").status.as_u16();
    assert!(matches!(status, 202 | 409), "{path}: {status}");
}

type Histories = BTreeMap<OrderKey, Vec<OrderStatusChanged>>;

/// Waits until every order has ended and history and provider agree, and says how they compare; `None`:
/// some order never ended.
async fn settled(system: &System, simulator: &str, orders: u64) -> Result<Option<Verdict>> {
    let began = Instant::now();
    loop {
        let histories = histories(system).await?;
        let late = began.elapsed() > SETTLED_WITHIN;
        let done = histories.values().filter(|chain| has_ended(chain)).count() as u64;
        if done == orders {
            let verdict = compare(&histories, &ledger(simulator).await?);
            if verdict.faults.is_empty() || late {
                return Ok(Some(verdict));
            }
        } else if late {
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// What the order's methods came to, by (provider, reference).
fn standing(chain: &[OrderStatusChanged]) -> BTreeMap<(String, String), (PaymentState, i64)> {
    let facts = chain.iter().flat_map(|changed| &changed.payments);
    facts
        .map(|fact| {
            let key = (fact.provider.to_string(), fact.reference.to_string());
            (key, (fact.state, fact.amount_minor))
        })
        .collect()
}

fn has_ended(chain: &[OrderStatusChanged]) -> bool {
    use OrderStatus::{Cancelled, Declined, Delivered, Rejected, Routed, Shipped};
    chain.last().is_some_and(|last| {
        matches!(last.status, Routed | Shipped | Delivered | Declined | Rejected | Cancelled)
    })
}

async fn histories(system: &System) -> Result<Histories> {
    let registry = wire::config::Registry { url: system.stack.registry_url() };
    let (brokers, codec) = (system.stack.brokers(), wire::registry::codec(&registry).await?);
    tokio::task::spawn_blocking(move || read(&brokers, &codec)).await?
}

fn read(brokers: &str, codec: &events::Codec) -> Result<Histories> {
    let consumer: BaseConsumer = wire::client::assigned_consumer(brokers, "payments").create()?;
    let mut all = TopicPartitionList::new();
    let partitions = wire::admin::partitions(brokers)?;
    for partition in 0..partitions {
        all.add_partition_offset(topics::ORDER_STATUS.name, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let (mut histories, mut open) = (Histories::new(), partitions);
    while open > 0 {
        match consumer.poll(Duration::from_secs(10)).context("the topic has no end")? {
            Ok(message) => {
                if let Record::OrderStatusChanged(changed) =
                    codec.decode(message.payload().unwrap_or_default())?
                {
                    let (order_id, accepted_at) = (changed.order_id, changed.accepted_at);
                    histories.entry(OrderKey { order_id, accepted_at }).or_default().push(changed);
                }
            }
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(histories)
}

async fn ledger(simulator: &str) -> Result<Vec<Value>> {
    let url = format!("{simulator}/ledger/payments");
    Ok(reqwest::get(url).await?.error_for_status()?.json().await?)
}

/// Waits until our ledger has the entries that the history implies, and of every payment what the provider's own
/// record has; balances are then those of that record.
async fn books(system: &System, simulator: &str) -> Result<()> {
    const CLEARING: &str = "SELECT coalesce(sum(balance_minor), 0)::bigint FROM ledger_balances
        WHERE account = 'clearing'";
    let client = postgres::connect(&system.stack.postgres_url()).await?;
    let theirs: BTreeMap<(String, String), (i64, i64)> = ledger(simulator)
        .await?
        .iter()
        .filter(|payment| payment["captures"] != 0)
        .map(|payment| {
            let text = |field: &str| payment[field].as_str().unwrap_or("").to_owned();
            let number = |field: &str| payment[field].as_i64().unwrap_or(0);
            let amount = number("amount_minor");
            let sums = (number("captures") * amount, number("refunds") * amount);
            ((text("provider"), text("id")), sums)
        })
        .collect();
    let began = Instant::now();
    let entries = loop {
        // Couriers still report, so the history is read anew, too.
        let told = books::of_history(&histories(system).await?);
        let kept = books::of_ledger(&client).await?;
        let agree = (kept == told, books::payments(&kept) == theirs);
        if agree == (true, true) {
            break kept;
        }
        let (ours, of_theirs) = (kept.len(), theirs.len());
        ensure!(
            began.elapsed() < BOOKED_WITHIN,
            "the ledger's {ours} entries agree with the history's {} and the provider's {of_theirs} payments: \
             {agree:?}; first amiss: {:?}",
            told.len(),
            told.iter().find(|entry| !kept.contains(entry)),
        );
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    ensure!(
        books::unbalanced(&client).await? == 0,
        "an entry or a merchant's books do not balance"
    );
    let clearing: i64 = client.query_one(CLEARING, &[]).await?.get(0);
    let kept: i64 = theirs.values().map(|(captured, refunded)| captured - refunded).sum();
    ensure!(clearing == kept, "clearing is {clearing}, the provider keeps {kept}");
    let report = format!("ledger: {} entries, clearing {clearing} (minor units)", entries.len());
    let _ = writeln!(std::io::stderr(), "{report}");
    Ok(())
}

struct Verdict {
    faults: Vec<String>,
    lines: Vec<String>,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

/// The provider's ledger against the history, payment by payment.
fn compare(histories: &Histories, ledger: &[Value]) -> Verdict {
    let (mut faults, mut lines) = (vec![], vec![]);
    let text = |payment: &Value, field: &str| payment[field].as_str().unwrap_or("").to_owned();
    let mut told = BTreeMap::new();
    let (mut due, mut ends) = (0_i64, BTreeMap::<&str, u64>::new());
    for (order, chain) in histories {
        let last = chain.last().map_or(OrderStatus::Unknown, |last| last.status);
        *ends.entry(last.as_str()).or_default() += 1;
        let kept: i64 = standing(chain)
            .values()
            .filter(|(state, _)| *state == PaymentState::Captured)
            .map(|(_, amount)| amount)
            .sum();
        let fulfilled =
            matches!(last, OrderStatus::Routed | OrderStatus::Shipped | OrderStatus::Delivered);
        let total = if fulfilled { chain[0].total_minor } else { 0 };
        if kept != total {
            faults.push(format!("order {}: {kept} are kept, {total} are due", order.order_id));
        }
        due += total;
        told.extend(standing(chain));
    }
    let mut kept = 0;
    for payment in ledger {
        let key = (text(payment, "provider"), text(payment, "id"));
        let (state, amount) = (text(payment, "state"), payment["amount_minor"].as_i64());
        let taken = payment["captures"].as_u64().unwrap_or(0);
        if taken > 1 {
            faults.push(format!("{key:?} was captured {taken} times"));
        }
        kept += if state == "captured" { amount.unwrap_or(0) } else { 0 };
        let ours = told.remove(&key).map(|(state, amount)| (state.as_str(), amount));
        if ours != amount.map(|amount| (state.as_str(), amount)) {
            faults.push(format!("{key:?} is {state} at the provider, told: {ours:?}"));
        }
    }
    for key in told.keys() {
        faults.push(format!("{key:?} is told of, the provider does not know it"));
    }
    if kept != due {
        faults.push(format!("the provider keeps {kept}, fulfilled orders are worth {due}"));
    }
    lines.push(format!("orders ended: {ends:?}"));
    lines.push(format!("payments in the provider's ledger: {}", ledger.len()));
    lines.push(format!("money captured {kept}, money of fulfilled orders {due} (minor units)"));
    faults.truncate(20);
    Verdict { faults, lines }
}
