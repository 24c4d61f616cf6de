//! Reservations alone: an order durably recorded and its stock durably taken, without HTTP and without
//! sinks; and the same in PostgreSQL, one transaction per order. Both on one SKU and over many.
//!
//! Ours: orders are appended to `orders` as ingest appends them, and counted when their `LinesReserved`
//! is committed. They await a confirmation, so nothing follows the reservation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use events::{
    Codec, Currency, Destination, Fingerprint, Merchant, Millis, OrderId, OrderLine, OrderPlaced,
    ReceiptId, Record, Sku, StockReceived, WarehouseCode, topics,
};
use futures::future::{try_join, try_join_all};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio_postgres::NoTls;
use uuid::Uuid;

/// Orders of ours in a run.
pub const ORDERS: usize = 200_000;
/// How long PostgreSQL is asked.
const LASTING: Duration = Duration::from_secs(10);
/// Connections to PostgreSQL.
const CLIENTS: usize = 32;
/// More pieces than any run takes.
const PIECES: i32 = 1_000_000;
const ANSWERS: Duration = Duration::from_secs(60);

/// Orders reserved per second through Kafka and the processors, over `skus` SKUs. Blocks.
///
/// # Errors
/// When a broker refuses, or reservations stop coming.
pub fn ours(brokers: &str, codec: &Codec, merchant: &Merchant, skus: usize) -> Result<f64> {
    let partitions = wire::admin::partitions(brokers)?;
    let producer: BaseProducer = wire::client::producer(brokers, "bench-reservations", 60_000)
        .set("linger.ms", "5")
        .create()?;
    let run = Uuid::new_v4();
    let skus: Vec<Sku> =
        (0..skus).map(|n| Sku::parse(&format!("{run}-{n}"))).collect::<Result<_, _>>()?;
    for sku in &skus {
        let received = StockReceived {
            receipt_id: ReceiptId::derive(merchant, &format!("{sku}")),
            merchant: merchant.clone(),
            warehouse: WarehouseCode::MAIN,
            sku: sku.clone(),
            quantity: PIECES,
            fingerprint: None,
            reason: "".into(),
            requested_by: "".into(),
        };
        let key = topics::stock_key(merchant, sku);
        let value = codec.to_bytes(&received.into());
        send(&producer, topics::STOCK.name, partitions, key.as_bytes(), &value)?;
    }
    producer.flush(ANSWERS)?;
    let orders: Vec<(OrderId, Vec<u8>)> = (0..ORDERS)
        .map(|n| {
            let order = order(merchant, &format!("{run}-{n}"), &skus[n % skus.len()]);
            (order.order_id, codec.to_bytes(&order.into()))
        })
        .collect();
    let outcomes = outcomes(brokers, partitions)?;
    let began = Instant::now();
    let (mut sent, mut reserved, mut heard) = (0, 0, Instant::now());
    while reserved < ORDERS {
        while sent < ORDERS {
            let (id, value) = &orders[sent];
            if !try_send(&producer, topics::ORDERS.name, partitions, id.as_bytes(), value)? {
                break;
            }
            sent += 1;
            if sent % 64 == 0 {
                break;
            }
        }
        producer.poll(Duration::ZERO);
        // As many as are there: this thread shares its cores with what it measures.
        let mut wait = if sent < ORDERS { Duration::ZERO } else { Duration::from_millis(5) };
        while let Some(message) = outcomes.poll(wait) {
            wait = Duration::ZERO;
            let message = match message {
                Err(KafkaError::PartitionEOF(_)) => continue,
                message => message?,
            };
            let record = codec.decode(message.payload().unwrap_or_default())?;
            match record {
                Record::LinesReserved(_) => reserved += 1,
                Record::LinesRefused(refused) => anyhow::bail!("refused: {refused:?}"),
                _ => {}
            }
            heard = Instant::now();
        }
        ensure!(heard.elapsed() < ANSWERS, "{reserved} of {ORDERS} orders are reserved, no more");
    }
    Ok(ORDERS as f64 / began.elapsed().as_secs_f64())
}

fn order(merchant: &Merchant, key: &str, sku: &Sku) -> OrderPlaced {
    OrderPlaced {
        order_id: OrderId::derive(merchant, key),
        merchant: merchant.clone(),
        idempotency_key: key.into(),
        fingerprint: Fingerprint(Uuid::new_v5(&Uuid::nil(), key.as_bytes())),
        customer_id: Some("customer".into()),
        currency: Currency::parse("GBP").expect("a currency"),
        destination: Destination {
            name: "A. Buyer".into(),
            street: "1 High Street".into(),
            city: "Leeds".into(),
            postcode: "LS1".into(),
            country: "GB".into(),
        },
        lines: vec![OrderLine { line: 1, sku: sku.clone(), quantity: 1, unit_price_minor: 100 }],
        total_minor: 100,
        ordered_at: Millis(1_800_000_000_000),
        attributes: [].into(),
        confirm_within_ms: 900_000,
        payment_methods: None,
    }
}

/// A reader of what is committed from now on.
fn outcomes(brokers: &str, partitions: i32) -> Result<BaseConsumer> {
    let consumer: BaseConsumer =
        wire::client::assigned_consumer(brokers, "bench-reservations").create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        let topic = topics::ORDER_OUTCOMES.name;
        let (_, end) = consumer.fetch_watermarks(topic, partition, ANSWERS)?;
        list.add_partition_offset(topic, partition, Offset::Offset(end))?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

fn send(
    producer: &BaseProducer,
    topic: &str,
    partitions: i32,
    key: &[u8],
    value: &[u8],
) -> Result<()> {
    while !try_send(producer, topic, partitions, key, value)? {
        producer.poll(Duration::from_millis(10));
    }
    Ok(())
}

/// Whether the producer had room.
fn try_send(
    producer: &BaseProducer,
    topic: &str,
    partitions: i32,
    key: &[u8],
    value: &[u8],
) -> Result<bool> {
    let partition = topics::partition_for(key, partitions);
    let record = BaseRecord::to(topic).partition(partition).key(key).payload(value);
    match producer.send(record) {
        Ok(()) => Ok(true),
        Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
            Ok(false)
        }
        Err((error, _)) => Err(error.into()),
    }
}

/// Orders per second through PostgreSQL: insert the order, take its stock, commit durably; over `skus`
/// SKUs, from 32 connections.
///
/// # Errors
/// When the server refuses.
pub async fn postgres(url: &str, skus: usize) -> Result<f64> {
    let admin = connect(url).await?;
    admin
        .batch_execute(
            "DROP TABLE IF EXISTS bench_orders, bench_stock;
             CREATE TABLE bench_orders (order_id uuid PRIMARY KEY, sku text NOT NULL, body bytea NOT NULL);
             CREATE TABLE bench_stock (sku text PRIMARY KEY, available bigint NOT NULL)
                WITH (fillfactor = 50)",
        )
        .await?;
    let count = i64::try_from(skus)?;
    admin
        .execute(
            "INSERT INTO bench_stock SELECT 'sku-' || n, 1000000 FROM generate_series(0, $1::bigint - 1) n",
            &[&count],
        )
        .await?;
    let taken = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let clients = (0..CLIENTS).map(|n| buy(url, n, skus, began, Arc::clone(&taken)));
    try_join_all(clients).await?;
    let rate = taken.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    admin.batch_execute("DROP TABLE bench_orders, bench_stock").await?;
    Ok(rate)
}

async fn connect(url: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("postgres does not answer")?;
    tokio::spawn(connection);
    Ok(client)
}

/// One connection's orders until the time is over.
async fn buy(
    url: &str,
    client: usize,
    skus: usize,
    began: Instant,
    taken: Arc<AtomicUsize>,
) -> Result<()> {
    let mut connection = connect(url).await?;
    connection.batch_execute("SET synchronous_commit = on").await?;
    let insert = "INSERT INTO bench_orders VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    let insert = connection.prepare(insert).await?;
    let update =
        "UPDATE bench_stock SET available = available - 1 WHERE sku = $1 AND available >= 1";
    let update = connection.prepare(update).await?;
    // As large as an order's record.
    let body = vec![b'x'; 250];
    let mut number = client;
    while began.elapsed() < LASTING {
        let (id, sku) = (Uuid::new_v4(), format!("sku-{}", number % skus));
        number += CLIENTS + 1;
        let transaction = connection.transaction().await?;
        // Sent together: one round trip for both.
        let (_, updated) = try_join(
            transaction.execute(&insert, &[&id, &sku, &body]),
            transaction.execute(&update, &[&sku]),
        )
        .await?;
        ensure!(updated == 1, "{sku} has run out");
        transaction.commit().await?;
        taken.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// The codec of this installation's registry.
///
/// # Errors
/// When it does not answer.
pub async fn codec(url: &str) -> Result<Codec> {
    wire::registry::codec(&wire::config::Registry { url: url.to_owned() }).await
}
