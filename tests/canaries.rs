//! Canaries: secrets, tokens and a customer that can be recognised go through the whole system, on good ways
//! and bad ones. Afterwards every log, topic, metric and table is searched: secrets are nowhere, tokens only in
//! the topics that need them, customers in no log and no metric.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use events::topics;
use local::payment_simulator::{GIFT_SECRET, STRIPE_SECRET};
use local::{Service, Stack};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tests::reconcile::{clickhouse, postgres};
use tests::settle::settle;
use tests::shop::Shop;
use tests::stack::{Instances, System};

const INSTANCES: Instances = Instances { ingest: 1, processors: 1, sinks: 1 };
const ORDERS: u64 = 60;
const PATIENCE: Duration = Duration::from_secs(120);
const KAFKA_ANSWERS: Duration = Duration::from_secs(15);

const STRIPE_KEY: &str = "sk_canary_of_stripe";
const GIFT_KEY: &str = "sk_canary_of_gift";
/// An API key that nobody has.
const WRONG_KEY: &str = "canary.of-a-wrong-key";
const CARD_TOKEN: &str = "pm_canary_token";
const GIFT_TOKEN: &str = "gift_canary_token";
/// A test number of Stripe's, as people write it.
const CARD_NUMBERS: [&str; 3] = ["4242424242424242", "4242 4242 4242 4242", "4242-4242-4242-4242"];
const CUSTOMER: &str = "Ada Canary";

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_nowhere_and_tokens_only_where_they_are_needed() -> Result<()> {
    let builder = Stack::builder()
        .service_env(
            Service::Processors,
            "PROCESSORS_PAYMENTS__PROVIDERS__STRIPE__SECRET",
            STRIPE_KEY,
        )
        .service_env(Service::Processors, "PROCESSORS_PAYMENTS__PROVIDERS__GIFT__SECRET", GIFT_KEY);
    let system = System::start(builder, INSTANCES).await?;
    let outcome = canaries(&system).await;
    if outcome.is_err() {
        system.save_logs(Path::new("target/canaries-logs"))?;
    }
    system.stack.shutdown().await?;
    outcome
}

async fn canaries(system: &System) -> Result<()> {
    plant(system).await?;
    let left = settle(system, ORDERS, PATIENCE, |_| {}).await?;
    ensure!(left.is_none(), "not settled: {}", left.expect("there is"));
    let mut places = logs(system)?;
    places.extend(metrics(system).await?);
    let shown: BTreeSet<String> = places.keys().cloned().collect();
    let brokers = system.stack.brokers();
    places.extend(tokio::task::spawn_blocking(move || every_topic(&brokers)).await??);
    places.extend(tables_of_postgres(system).await?);
    places.extend(tables_of_clickhouse(system).await?);

    let api_key = system.key.trim_start_matches("tr_");
    ensure!(api_key.len() >= 32, "the key has changed its form");
    let gift_bytes = GIFT_SECRET.trim_start_matches("whsec_");
    let secrets = [api_key, WRONG_KEY, STRIPE_KEY, GIFT_KEY, STRIPE_SECRET, gift_bytes];
    for canary in secrets.into_iter().chain(CARD_NUMBERS) {
        let found = places_of(&places, canary);
        ensure!(found.is_empty(), "{canary} stands in {found:?}");
    }
    // The order as it was accepted, and the state of its payment.
    let needed = ["topic orders", "topic orders-changelog"].map(str::to_owned).into();
    for token in [CARD_TOKEN, GIFT_TOKEN] {
        let found = places_of(&places, token);
        ensure!(found == needed, "{token} stands in {found:?}");
    }
    let told = places_of(&places, CUSTOMER);
    ensure!(told.contains("postgres orders"), "nothing would be found in Postgres: {told:?}");
    let shown: Vec<_> = told.intersection(&shown).collect();
    ensure!(shown.is_empty(), "a customer stands in {shown:?}");
    Ok(())
}

fn places_of(places: &BTreeMap<String, Vec<u8>>, canary: &str) -> BTreeSet<String> {
    let found = places.iter().filter(|(_, bytes)| holds(bytes, canary.as_bytes()));
    found.map(|(place, _)| place.clone()).collect()
}

fn holds(bytes: &[u8], canary: &[u8]) -> bool {
    bytes.windows(canary.len()).any(|window| window == canary)
}

/// Orders that are paid, declined, cancelled, asked about and restarted with; requests that are refused.
async fn plant(system: &System) -> Result<()> {
    let http = reqwest::Client::new();
    let simulator = system.stack.payment_simulator_url();
    let trouble = json!({"decline_rate": 0.1, "timeout_rate": 0.03, "webhook_double_rate": 0.1});
    let patch = http.patch(format!("{simulator}/settings")).json(&trouble).send().await?;
    patch.error_for_status()?;
    let shop = Shop::new(system.stack.ingest_urls(), &system.key)?;
    let pieces = json!({"lines": [{"sku": "CANARY", "quantity": 1_000}]});
    ensure!(shop.post(0, "/v1/stock/receipts", "stock", &pieces).await?.status == 202);
    for n in 0..ORDERS {
        let answer = shop.post(0, "/v1/orders", &format!("canary-{n}"), &order()).await?;
        ensure!(answer.status == 202, "{answer:?}");
        if n.is_multiple_of(5) {
            let id = answer.body["order_id"].as_str().context("an id")?;
            let path = format!("/v1/orders/{id}/cancel");
            shop.post(0, &path, &format!("cancel-{n}"), &json!({})).await?;
        }
        if n == ORDERS / 2 {
            system.stack.kill("processors-1").await?;
            system.stack.restart("processors-1").await?;
        }
    }
    refused(&http, &shop, system).await
}

/// What is refused is logged, too, or becomes an answer: neither may repeat what it was given.
async fn refused(http: &reqwest::Client, shop: &Shop, system: &System) -> Result<()> {
    let orders = format!("{}/v1/orders", shop.url(0));
    let mut unknown = order();
    unknown[CARD_TOKEN] = json!(1);
    let mut requests = vec![(&*system.key, unknown, 422), (WRONG_KEY, order(), 401)];
    for number in CARD_NUMBERS {
        let (mut in_a_note, mut as_a_name, mut as_a_token) = (order(), order(), order());
        in_a_note["attributes"] = json!({"note": format!("charge {number} please")});
        as_a_name["attributes"] = json!({number: "please"});
        as_a_token["payment_methods"][0]["token"] = json!(number);
        requests.extend([in_a_note, as_a_name, as_a_token].map(|body| (&*system.key, body, 422)));
    }
    for (key, body, status) in requests {
        let request = http.post(&orders).bearer_auth(key).header("Idempotency-Key", "refused");
        let answer = request.json(&body).send().await?;
        ensure!(answer.status() == status, "{status} was expected, not {}", answer.status());
        let text = answer.text().await?;
        let repeated = CARD_NUMBERS.into_iter().chain([WRONG_KEY]).any(|what| text.contains(what));
        ensure!(!repeated, "{text}");
    }
    for (provider, header) in [("stripe", "stripe-signature"), ("gift", "webhook-signature")] {
        let url = format!("{}/v1/webhooks/payments/{provider}", shop.url(0));
        let body = json!({"id": "evt_1", "token": CARD_TOKEN});
        let request = http.post(url).header(header, "t=1,v1=00").header("webhook-id", "evt_1");
        let answer = request.header("webhook-timestamp", "1").json(&body).send().await?;
        ensure!(answer.status() == 401, "a webhook without a signature got {}", answer.status());
    }
    Ok(())
}

fn order() -> Value {
    json!({
        "customer_id": null, "currency": "GBP",
        "destination": {"name": CUSTOMER, "street": "s", "city": "c", "postcode": "p", "country": "GB"},
        "lines": [{"sku": "CANARY", "quantity": 1, "unit_price_minor": 300}],
        "ordered_at": "2026-11-21T12:00:00Z",
        "payment_methods": [
            {"provider": "gift", "token": GIFT_TOKEN, "amount_minor": 100},
            {"provider": "stripe", "token": CARD_TOKEN, "amount_minor": 200},
        ],
    })
}

/// What every component wrote.
fn logs(system: &System) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut logs = BTreeMap::new();
    for entry in std::fs::read_dir(system.stack.folder().join("logs"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        logs.insert(format!("log {name}"), std::fs::read(&path)?);
    }
    for service in ["ingest-1", "processors-1", "sinks-1"] {
        let log = logs.get(&format!("log {service}.log")).map(Vec::len);
        ensure!(log.is_some_and(|bytes| bytes > 0), "{service} has no log: {:?}", logs.keys());
    }
    Ok(logs)
}

/// What every service tells at its operator's port.
async fn metrics(system: &System) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut told = BTreeMap::new();
    for service in [Service::Ingest, Service::Processors, Service::Sinks] {
        for instance in system.stack.instances(service) {
            for path in ["metrics", "readyz?verbose"] {
                let url = format!("{}/{path}", instance.url());
                let text = reqwest::get(url).await?.error_for_status()?.text().await?;
                ensure!(!text.is_empty(), "{} tells nothing at {path}", instance.name());
                told.insert(format!("{} {path}", instance.name()), text.into_bytes());
            }
        }
    }
    Ok(told)
}

/// Every byte of every topic of the cluster, aborted records and Kafka's own topics included. Blocks.
fn every_topic(brokers: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut config = wire::client::assigned_consumer(brokers, "canaries");
    let consumer: BaseConsumer = config.set("isolation.level", "read_uncommitted").create()?;
    let metadata = consumer.fetch_metadata(None, KAFKA_ANSWERS)?;
    let mut all = TopicPartitionList::new();
    for topic in metadata.topics() {
        for partition in topic.partitions() {
            all.add_partition_offset(topic.name(), partition.id(), Offset::Beginning)?;
        }
    }
    let mut open = all.count();
    consumer.assign(&all)?;
    let mut bytes = BTreeMap::<String, Vec<u8>>::new();
    while open > 0 {
        match consumer.poll(KAFKA_ANSWERS).context("a topic has no end")? {
            Ok(message) => {
                let all = bytes.entry(format!("topic {}", message.topic())).or_default();
                let mut add = |part: Option<&[u8]>| {
                    all.extend_from_slice(part.unwrap_or_default());
                    all.push(b'\n');
                };
                add(message.key());
                add(message.payload());
                let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                headers.for_each(|header| add(header.value));
            }
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) => return Err(error.into()),
        }
    }
    for topic in [topics::ORDER_STATUS, topics::ORDER_OUTCOMES, topics::COURIERS] {
        let read = bytes.contains_key(&format!("topic {}", topic.name));
        ensure!(read, "{} was not read: {:?}", topic.name, bytes.keys());
    }
    Ok(bytes)
}

async fn tables_of_postgres(system: &System) -> Result<BTreeMap<String, Vec<u8>>> {
    let client = postgres::connect(&system.stack.postgres_url()).await?;
    let names = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'";
    let mut tables = BTreeMap::new();
    for name in client.query(names, &[]).await? {
        let name: String = name.try_get(0)?;
        let rows = client.query(&format!("SELECT t::text FROM \"{name}\" t"), &[]).await?;
        let rows: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        tables.insert(format!("postgres {name}"), rows.join("\n").into_bytes());
    }
    Ok(tables)
}

async fn tables_of_clickhouse(system: &System) -> Result<BTreeMap<String, Vec<u8>>> {
    let client = clickhouse::client(&system.stack.clickhouse_url());
    let names = "SELECT name FROM system.tables WHERE database = currentDatabase()";
    let names: Vec<String> = client.query(names).fetch_all().await?;
    ensure!(names.iter().any(|name| name == "order_events"), "tables: {names:?}");
    let mut tables = BTreeMap::new();
    for name in names {
        let rows = format!("SELECT toString(tuple(*)) FROM `{name}`");
        let rows: Vec<String> =
            client.query(&rows).fetch_all().await.with_context(|| name.clone())?;
        tables.insert(format!("clickhouse {name}"), rows.join("\n").into_bytes());
    }
    Ok(tables)
}
