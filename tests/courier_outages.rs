//! The preferred courier hangs, fails, is slow or flaps under 300 orders a second, and then all do:
//! orders go on through the others within seconds, the bad one is left alone but for probes and has
//! its traffic back soon after it is well, and no order has two consignments.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use events::{CourierDecided, DecisionReason, OrderId, OrderStatus, Record, topics};
use local::Stack;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;
use tests::couriers;
use tests::load::{self, Load, Target};
use tests::settle::settle;
use tests::shop::Shop;
use tests::stack::{Instances, System};

const INSTANCES: Instances = Instances { ingest: 1, processors: 1, sinks: 1 };
const PER_SECOND: u32 = 300;
/// The cheapest, so the preferred one while nothing is known of deliveries.
const PREFERRED: &str = "budget";
const ALL: [&str; 4] = ["budget", "parcelo", "royal", "swift"];
const BEFORE: Duration = Duration::from_secs(8);
const OUTAGE: Duration = Duration::from_secs(25);
const AFTER: Duration = Duration::from_secs(32);
const PATIENCE: Duration = Duration::from_secs(90);

/// From when to when a courier behaved so, UTC ms.
struct Phase {
    mode: &'static str,
    from: i64,
    to: i64,
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_go_on_while_the_preferred_courier_does_not() -> Result<()> {
    let system = System::start(Stack::builder(), INSTANCES).await?;
    let urls = system.stack.ingest_urls();
    let shop = Shop::new(urls.clone(), &system.key)?;
    load::stock_up(&shop).await?;
    let address = urls[0].trim_start_matches("http://").to_owned();
    let target = Target { address, merchant: system.merchant.clone(), key: system.key.clone() };
    let modes = ["hang", "error", "slow", "flap"];
    let lasting = (BEFORE + OUTAGE + AFTER) * 4 + OUTAGE;
    let load = Load { per_second: Some(PER_SECOND), lasting, clients: 64, seed: 1 };
    let script = async {
        let mut phases = vec![];
        for mode in modes {
            tokio::time::sleep(BEFORE).await;
            phases.push(outage(&system.stack, &[PREFERRED], mode).await?);
            tokio::time::sleep(AFTER).await;
        }
        phases.push(outage(&system.stack, &ALL, "error").await?);
        Ok::<_, anyhow::Error>(phases)
    };
    let (sent, phases) = tokio::try_join!(load::send(&target, load), script)?;
    let orders = i64::try_from(sent.began.len())?;
    if let Some(left) = settle(&system, orders.try_into()?, PATIENCE, |_| {}).await? {
        anyhow::bail!("orders are stranded: {left}");
    }
    assert_eq!(couriers::booked_twice(&system.stack, PATIENCE).await?, 0, "orders at two couriers");

    let (brokers, registry) = (system.stack.brokers(), system.stack.registry_url());
    let codec = wire::registry::codec(&wire::config::Registry { url: registry }).await?;
    let (waits, decisions) =
        tokio::task::spawn_blocking(move || history(&brokers, &codec)).await??;
    for phase in &phases[..4] {
        check(phase, &waits, &decisions);
    }
    system.stack.shutdown().await
}

/// What must hold of an outage of the preferred courier.
fn check(phase: &Phase, waits: &[(i64, i64)], decisions: &[CourierDecided]) {
    let mut during: Vec<i64> = waits
        .iter()
        .filter(|(reserved, _)| (phase.from..phase.to).contains(reserved))
        .map(|(_, waited)| *waited)
        .collect();
    during.sort_unstable();
    let p99 = during[during.len() * 99 / 100];
    let usual = |decided: &CourierDecided| {
        !matches!(decided.reason, DecisionReason::Probe | DecisionReason::LastResort)
    };
    let of_it = || decisions.iter().filter(|d| d.courier.as_str() == PREFERRED);
    let settled = phase.from + 10_000..phase.to;
    let asked = of_it().filter(|d| usual(d) && settled.contains(&d.decided_at.0)).count();
    let back = of_it().find(|d| usual(d) && d.decided_at.0 > phase.to).map(|d| d.decided_at.0);
    let back_after = back.map_or(i64::MAX, |at| at - phase.to);
    let _ = writeln!(
        std::io::stderr(),
        "{}: {} orders reserved, p99 reserved to routed {p99} ms; asked as usual {asked} times after \
         10 s; traffic back after {back_after} ms",
        phase.mode,
        during.len(),
    );
    // The goals are 3 s and 30 s, and the figures above say how far they are met; a machine that is busy
    // with something else must not make this fail.
    assert!(p99 < 15_000, "{}: p99 from reserved to routed is {p99} ms", phase.mode);
    assert!(back_after < i64::MAX, "{}: no traffic came back", phase.mode);
    // A courier that flaps is well half of the time.
    assert!(asked == 0 || phase.mode == "flap", "{}: asked {asked} times", phase.mode);
}

async fn outage(stack: &Stack, names: &[&str], mode: &'static str) -> Result<Phase> {
    let from = now();
    for name in names {
        behave(stack, name, mode).await?;
    }
    tokio::time::sleep(OUTAGE).await;
    for name in names {
        behave(stack, name, "normal").await?;
    }
    Ok(Phase { mode, from, to: now() })
}

async fn behave(stack: &Stack, name: &str, mode: &str) -> Result<()> {
    let url = format!("{}/settings/{name}", stack.courier_simulator_url());
    let answer = reqwest::Client::new().patch(&url).json(&json!({ "mode": mode })).send().await?;
    answer.error_for_status().with_context(|| url)?;
    Ok(())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// When an order was reserved, and how long until it was routed, ms.
type Wait = (i64, i64);

/// Every order's wait, and every decision.
fn history(brokers: &str, codec: &events::Codec) -> Result<(Vec<Wait>, Vec<CourierDecided>)> {
    let consumer: BaseConsumer = wire::client::assigned_consumer(brokers, "history").create()?;
    let partitions = wire::admin::partitions(brokers)?;
    let mut list = TopicPartitionList::new();
    for topic in [topics::ORDER_STATUS.name, topics::COURIER_DECISIONS.name] {
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
    }
    consumer.assign(&list)?;
    let mut reserved: BTreeMap<[u8; 16], i64> = BTreeMap::new();
    let (mut waits, mut decisions) = (vec![], vec![]);
    let key = |order: &OrderId| *order.as_bytes();
    let (mut open, mut heard) = (list.count(), Instant::now());
    while open > 0 {
        ensure!(heard.elapsed() < Duration::from_secs(30), "topics have no end");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => match codec.decode(message.payload().unwrap_or_default())? {
                Record::OrderStatusChanged(changed) => {
                    let (order, at) = (key(&changed.order_id), changed.occurred_at.0);
                    match changed.status {
                        OrderStatus::Reserved => {
                            reserved.insert(order, at);
                        }
                        OrderStatus::Routed => {
                            let from = reserved.get(&order).copied();
                            let from = from.context("routed before it was reserved")?;
                            waits.push((from, at - from));
                        }
                        _ => {}
                    }
                }
                Record::CourierDecided(decided) => decisions.push(decided),
                _ => {}
            },
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            _ => continue,
        }
        heard = Instant::now();
    }
    decisions.sort_by_key(|decided: &CourierDecided| decided.decided_at);
    Ok((waits, decisions))
}
