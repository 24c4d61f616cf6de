//! Records that a newer version could write, and all that stand in a topic.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use events::{
    Codec, Currency, Destination, Fingerprint, Merchant, Millis, OrderId, OrderLine, OrderPlaced,
    OrderStatus, OrderStatusChanged, Record, RecordType, Sku,
};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedMessage;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use tests::load;
use tests::stack::MERCHANT;
use uuid::Uuid;

use super::PARTITIONS;

/// Which schemas nobody has registered, and the ids under which they are written.
pub(super) fn poisoned(ids: [u32; 2]) -> [(RecordType, u32); 2] {
    [(RecordType::OrderPlaced, ids[0]), (RecordType::OrderStatusChanged, ids[1])]
}

/// A schema that a newer version could have: one more field.
pub(super) fn newer(record_type: RecordType) -> String {
    let mut schema: Value = serde_json::from_str(record_type.schema_json()).expect("JSON");
    let fields = schema["fields"].as_array_mut().expect("a record has fields");
    fields.push(serde_json::json!({ "name": "wave", "type": "int", "default": 0 }));
    schema.to_string()
}

/// A record as the newer version would write it.
pub(super) fn written(codec: &Codec, record: Record, id: u32) -> Vec<u8> {
    let mut bytes = codec.to_bytes(&record);
    bytes[1..5].copy_from_slice(&id.to_be_bytes());
    // The field: 0.
    bytes.push(0);
    bytes
}

/// The first or second record of an order.
pub(super) fn placed(n: i32, second: bool) -> OrderPlaced {
    let merchant = Merchant::parse(MERCHANT).expect("legal");
    let quantity = if second { 7 } else { 1 };
    let sku = Sku::parse(&load::sku(n.unsigned_abs() as usize)).expect("legal");
    OrderPlaced {
        order_id: OrderId::derive(&merchant, &format!("redriven-{n}")),
        merchant,
        idempotency_key: format!("redriven-{n}").into(),
        fingerprint: Fingerprint(Uuid::from_u128(u128::from(second))),
        customer_id: None,
        currency: Currency::parse("GBP").expect("legal"),
        destination: Destination {
            name: "Ada".into(),
            street: "Main St 1".into(),
            city: "York".into(),
            postcode: "YO1".into(),
            country: "GB".into(),
        },
        lines: vec![OrderLine { line: 1, sku, quantity, unit_price_minor: 100 }],
        total_minor: i64::from(quantity) * 100,
        ordered_at: Millis(1_795_262_400_000),
        attributes: BTreeMap::new(),
        confirm_within_ms: 0,
        payment_methods: None,
    }
}

/// A version of an order that no processor knows.
pub(super) fn status(n: i32, version: i32) -> OrderStatusChanged {
    let mut order = placed(n, false);
    order.order_id = OrderId::derive(&order.merchant, &format!("history-{n}"));
    let statuses = [OrderStatus::Received, OrderStatus::Reserved, OrderStatus::Rejected];
    OrderStatusChanged {
        order_id: order.order_id,
        accepted_at: Millis(1_795_262_400_000),
        merchant: order.merchant.clone(),
        version,
        status: statuses[version.unsigned_abs() as usize - 1],
        reason: "".into(),
        occurred_at: Millis(1_795_262_400_000 + i64::from(version)),
        ordered_at: order.ordered_at,
        total_minor: order.total_minor,
        currency: order.currency.clone(),
        line_count: 1,
        order: (version == 1).then_some(order),
        consignment: None,
        refusals: vec![],
        payments: vec![],
    }
}

/// The committed records of these topics.
pub(super) fn everything(brokers: &str, topics: &[&str]) -> Result<Vec<OwnedMessage>> {
    let consumer: BaseConsumer = wire::client::assigned_consumer(brokers, "everything").create()?;
    let mut records = Vec::new();
    for (topic, partition) in topics.iter().flat_map(|t| (0..PARTITIONS).map(move |p| (t, p))) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
        consumer.assign(&list)?;
        let began = Instant::now();
        loop {
            ensure!(began.elapsed() < Duration::from_secs(20), "{topic}-{partition} has no end");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => records.push(message.detach()),
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(_)) | None => {}
            }
        }
    }
    Ok(records)
}
