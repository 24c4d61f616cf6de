//! A stack with Kafka, registry, PostgreSQL and two ingest processes, and a client for them.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use events::{Codec, Merchant, Record};
use local::{Service, Stack, StackBuilder};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use wire::admin::Layout;

pub(crate) const PARTITIONS: i32 = 4;
/// The sinks' own tables: what ingest reads is what they write.
const TABLES: &[&str] = &[
    include_str!("../../../sinks/src/tracking/migrations/V1__tables.sql"),
    include_str!("../../../sinks/src/tracking/migrations/V2__orders_lists.sql"),
    include_str!("../../../sinks/src/tracking/migrations/V3__stock_movements.sql"),
];

/// A running world and the secrets of its merchants.
pub(crate) struct World {
    pub(crate) stack: Stack,
    pub(crate) shop: String,
    pub(crate) other: String,
    pub(crate) codec: Codec,
    pub(crate) http: reqwest::Client,
}

/// An answer, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
    pub(crate) took: Duration,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("")
    }

    pub(crate) fn order_id(&self) -> String {
        self.body["order_id"].as_str().unwrap_or("").to_owned()
    }

    pub(crate) fn replayed(&self) -> bool {
        self.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
    }
}

impl World {
    pub(crate) async fn start(adjust: impl FnOnce(StackBuilder) -> StackBuilder) -> Result<Self> {
        let stack = adjust(Stack::builder().registry().postgres()).start().await?;
        wire::admin::set_up(&stack.brokers(), Layout { partitions: PARTITIONS, replication: None })
            .await?;
        let registry = wire::config::Registry { url: stack.registry_url() };
        let codec = wire::registry::set_up(&registry).await?;
        for tables in TABLES {
            database(&stack).await?.batch_execute(tables).await?;
        }
        let key = |merchant: &str| -> Result<String> {
            let (secret, entry) = wire::keys::issue(&Merchant::parse(merchant)?);
            wire::keys::add(&stack.keys_file(), entry)?;
            Ok(secret)
        };
        let (shop, other) = (key("shop")?, key("other")?);
        stack.start_service(Service::Ingest, 2).await?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build()?;
        Ok(Self { stack, shop, other, codec, http })
    }

    pub(crate) fn url(&self, process: usize, path: &str) -> String {
        format!("{}{path}", self.stack.ingest_urls()[process])
    }

    pub(crate) async fn get(&self, process: usize, secret: &str, path: &str) -> Result<Answer> {
        let request = self.http.get(self.url(process, path)).bearer_auth(secret);
        answer(request).await
    }

    pub(crate) async fn post(
        &self,
        process: usize,
        path: &str,
        key: &str,
        body: &Value,
    ) -> Result<Answer> {
        let request = self.http.post(self.url(process, path)).bearer_auth(&self.shop);
        answer(request.header("idempotency-key", key).json(body)).await
    }

    pub(crate) async fn order(&self, process: usize, key: &str) -> Result<Answer> {
        self.post(process, "/v1/orders", key, &order()).await
    }

    pub(crate) async fn metric(&self, process: usize, name: &str) -> Result<f64> {
        let text = self.http.get(self.url(process, "/metrics")).send().await?.text().await?;
        let values = text.lines().filter(|line| line.starts_with(name));
        Ok(values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Every record of a topic, in the order of its partitions.
    pub(crate) fn records(&self, topic: &str) -> Result<Vec<Record>> {
        let consumer: BaseConsumer =
            wire::client::assigned_consumer(&self.stack.brokers(), "test").create()?;
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        let (mut records, mut open) = (Vec::new(), PARTITIONS);
        while open > 0 {
            match consumer.poll(Duration::from_secs(10)).context("the topic has no end")? {
                Ok(message) => {
                    records.push(self.codec.decode(message.payload().unwrap_or_default())?);
                }
                Err(KafkaError::PartitionEOF(_)) => open -= 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(records)
    }

    /// How often each order stands in `orders`.
    pub(crate) fn orders(&self) -> Result<BTreeMap<String, usize>> {
        let mut orders = BTreeMap::new();
        for record in self.records("orders")? {
            if let Record::OrderPlaced(order) = record {
                *orders.entry(order.order_id.to_string()).or_insert(0) += 1;
            }
        }
        Ok(orders)
    }
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Result<Answer> {
    let start = std::time::Instant::now();
    let response = request.send().await?;
    let status = response.status().as_u16();
    let text = |value: &reqwest::header::HeaderValue| value.to_str().unwrap_or("").to_owned();
    let headers: BTreeMap<String, String> =
        response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let bytes = response.bytes().await?;
    let took = start.elapsed();
    Ok(Answer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or_default(), took })
}

pub(crate) async fn database(stack: &Stack) -> Result<tokio_postgres::Client> {
    let (client, connection) =
        tokio_postgres::connect(&stack.postgres_url(), tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Waits until `check` holds, for at most half a minute.
pub(crate) async fn eventually(
    what: &str,
    mut check: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    for _ in 0..300 {
        if check().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(false, "it never came true: {what}");
    Ok(())
}

pub(crate) fn order() -> Value {
    json!({
        "customer_id": "17850",
        "currency": "GBP",
        "destination": {
            "name": "A. Buyer", "street": "1 High Street", "city": "Leeds", "postcode": "LS1",
            "country": "GB"
        },
        "lines": [
            {"sku": "85123A", "quantity": 6, "unit_price_minor": 255},
            {"sku": "71053", "quantity": 6, "unit_price_minor": 339}
        ],
        "ordered_at": "2010-12-01T08:26:00Z",
        "attributes": {"channel": "web"}
    })
}
