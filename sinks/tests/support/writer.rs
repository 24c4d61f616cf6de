//! Writes plausible records as a processor does: in Kafka transactions, with an origin header, some
//! of them aborted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use events::{
    Codec, Consignment, CourierCode, Currency, Destination, Fingerprint, LineRefusal, Merchant,
    Millis, MovementKind, ORIGIN_HEADER, OrderId, OrderLine, OrderPlaced, OrderRepeated,
    OrderStatus, OrderStatusChanged, Origin, Record, RefusalReason, RepeatKind, Sku,
    StockLevelChanged, StockMoved, WarehouseCode, topics,
};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use uuid::Uuid;

/// Partitions of every topic.
pub(crate) const PARTITIONS: i32 = 4;

/// Milliseconds since 1970.
pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Millis(i64::try_from(since.as_millis()).expect("before 2262"))
}

pub(crate) fn merchant() -> Merchant {
    Merchant::parse("shop").expect("legal")
}

/// A writer of transactions, numbered as a processor's batches are.
pub(crate) struct Writer {
    producer: BaseProducer,
    codec: Codec,
    pub(crate) term: u64,
    pub(crate) sequence: u64,
}

impl Writer {
    pub(crate) fn new(brokers: &str, codec: &Codec, id: &str) -> Result<Self> {
        let producer: BaseProducer =
            wire::client::transactional_producer(brokers, id, id).create()?;
        producer.init_transactions(Duration::from_secs(30))?;
        Ok(Self { producer, codec: codec.clone(), term: 1, sequence: 0 })
    }

    /// Writes the records in one transaction.
    pub(crate) fn commit(&mut self, records: &[Record]) -> Result<()> {
        self.send(records)?;
        Ok(self.producer.commit_transaction(Duration::from_secs(30))?)
    }

    /// Writes the records in a transaction that is aborted: nobody may see them.
    #[allow(clippy::disallowed_methods)] // Drained first, so it races with nothing.
    pub(crate) fn abort(&mut self, records: &[Record]) -> Result<()> {
        self.send(records)?;
        Ok(self.producer.abort_transaction(Duration::from_secs(30))?)
    }

    fn send(&mut self, records: &[Record]) -> Result<()> {
        self.sequence += 1;
        self.producer.begin_transaction()?;
        for record in records {
            let (topic, key) = address(record);
            let partition = topics::partition_for(&key, PARTITIONS);
            self.bytes(topic, partition, &key, &self.codec.to_bytes(record))?;
        }
        self.producer.flush(Duration::from_secs(30))?;
        Ok(())
    }

    fn bytes(&self, topic: &str, partition: i32, key: &[u8], payload: &[u8]) -> Result<()> {
        let origin = Origin { task: "orders-0".into(), term: self.term, sequence: self.sequence };
        let origin = origin.to_string();
        let header = Header { key: ORIGIN_HEADER, value: Some(&origin) };
        let record = BaseRecord::to(topic)
            .partition(partition)
            .key(key)
            .payload(payload)
            .headers(OwnedHeaders::new().insert(header));
        self.producer.send(record).map_err(|(error, _)| error)?;
        Ok(())
    }

    /// Writes bytes as they are.
    pub(crate) fn commit_bytes(&mut self, topic: &str, payloads: &[&[u8]]) -> Result<()> {
        self.sequence += 1;
        self.producer.begin_transaction()?;
        for payload in payloads {
            self.bytes(topic, 0, b"key", payload)?;
        }
        self.producer.flush(Duration::from_secs(30))?;
        Ok(self.producer.commit_transaction(Duration::from_secs(30))?)
    }
}

fn address(record: &Record) -> (&'static str, Vec<u8>) {
    match record {
        Record::OrderStatusChanged(r) => ("order-status", r.order_id.as_bytes().to_vec()),
        Record::OrderRepeated(r) => ("order-conflicts", r.order_id.as_bytes().to_vec()),
        Record::StockLevelChanged(r) => {
            ("stock-levels", topics::stock_key(&r.merchant, &r.sku).into_bytes())
        }
        Record::StockMoved(r) => {
            ("stock-movements", topics::stock_key(&r.merchant, &r.sku).into_bytes())
        }
        other => panic!("{:?} is for processors", other.record_type()),
    }
}

/// An order's body; lines and SKUs vary with `n`.
pub(crate) fn body(prefix: &str, n: u32) -> OrderPlaced {
    let merchant = merchant();
    let key = format!("{prefix}-{n}");
    let line = |line: i32| OrderLine {
        line,
        sku: Sku::parse(&format!("SKU-{}", (n * 7 + line.unsigned_abs()) % 1000)).expect("legal"),
        quantity: 1 + i32::try_from(n % 3).expect("small"),
        unit_price_minor: 995,
    };
    let lines: Vec<_> = (1..=1 + i32::try_from(n % 3).expect("small")).map(line).collect();
    OrderPlaced {
        order_id: OrderId::derive(&merchant, &key),
        merchant,
        idempotency_key: key.as_str().into(),
        fingerprint: Fingerprint(Uuid::from_u128(u128::from(n))),
        customer_id: n.is_multiple_of(2).then(|| format!("C{n}").into()),
        currency: Currency::parse("GBP").expect("legal"),
        destination: Destination {
            name: format!("Buyer {n}").into(),
            street: format!("{n} High Street").into(),
            city: "Leeds".into(),
            postcode: "LS1 4AP".into(),
            country: "GB".into(),
        },
        total_minor: lines.iter().map(|l| i64::from(l.quantity) * l.unit_price_minor).sum(),
        lines,
        ordered_at: Millis(1_291_191_960_000 + i64::from(n)),
        attributes: [("channel".into(), "web".into())].into(),
        confirm_within_ms: 0,
        payment_methods: None,
    }
}

/// Version `version` of an order: received, reserved and routed, or received and rejected.
pub(crate) fn status(
    body: &OrderPlaced,
    accepted_at: Millis,
    version: i32,
    served: bool,
) -> OrderStatusChanged {
    let status = match (version, served) {
        (1, _) => OrderStatus::Received,
        (2, true) => OrderStatus::Reserved,
        (_, true) => OrderStatus::Routed,
        (_, false) => OrderStatus::Rejected,
    };
    let rejected = status == OrderStatus::Rejected;
    let consignment = (status == OrderStatus::Routed).then(|| Consignment {
        courier: CourierCode::parse("swift").expect("legal"),
        consignment_id: format!("swift-{}", body.idempotency_key).into(),
        tracking_number: format!("T{}", body.idempotency_key).into(),
        price_minor: 450,
        currency: "GBP".into(),
        promised_at: accepted_at.plus(86_400_000),
        attempt: 1,
        expected_by: Millis(0),
    });
    let refusal = |line: &OrderLine| LineRefusal {
        line: line.line,
        sku: line.sku.clone(),
        requested: line.quantity,
        available: 0,
        reason: RefusalReason::SoldOut,
        elsewhere: vec![],
    };
    OrderStatusChanged {
        order_id: body.order_id,
        accepted_at,
        merchant: body.merchant.clone(),
        version,
        status,
        reason: if rejected { "sold_out".into() } else { "".into() },
        occurred_at: accepted_at.plus(i64::from(version)),
        ordered_at: body.ordered_at,
        total_minor: body.total_minor,
        currency: body.currency.clone(),
        line_count: i32::try_from(body.lines.len()).expect("small"),
        order: (version == 1).then(|| body.clone()),
        consignment,
        refusals: body.lines.iter().filter(|_| rejected).map(refusal).collect(),
        payments: vec![],
    }
}

/// All versions of the orders numbered so, one after the other per order, mixed between orders.
pub(crate) fn histories(prefix: &str, numbers: std::ops::Range<u32>) -> Vec<Record> {
    let at = now();
    let orders: Vec<_> = numbers.map(|n| (body(prefix, n), n % 10 != 0)).collect();
    let mut records = Vec::new();
    for version in 1..=3 {
        for (body, served) in &orders {
            if version < 3 || *served {
                records.push(status(body, at, version, *served).into());
            }
        }
    }
    records
}

/// A stock level in a version.
pub(crate) fn level(sku: u32, version: i64) -> Record {
    StockLevelChanged {
        merchant: merchant(),
        sku: Sku::parse(&format!("SKU-{sku}")).expect("legal"),
        warehouse: WarehouseCode::parse("main").expect("legal"),
        version,
        on_hand: 1000,
        reserved: version % 100,
        allocated: version / 100,
        set_aside: 0,
        missing: 0,
        changed_at: now(),
    }
    .into()
}

/// A movement of stock, the same however often it is written.
pub(crate) fn movement(n: u32) -> Record {
    StockMoved {
        movement_id: Uuid::new_v5(&Uuid::nil(), &n.to_be_bytes()),
        merchant: merchant(),
        sku: Sku::parse(&format!("SKU-{}", n % 50)).expect("legal"),
        warehouse: WarehouseCode::parse("main").expect("legal"),
        kind: MovementKind::Adjustment,
        quantity: i64::from(n) - 20,
        on_hand: 1000,
        source_id: Uuid::nil(),
        reason: "found behind the shelf".into(),
        requested_by: "k1".into(),
        moved_at: now(),
    }
    .into()
}

/// A later click on an order.
pub(crate) fn repeat(body: &OrderPlaced, accepted_at: Millis, offset: i64) -> Record {
    OrderRepeated {
        order_id: body.order_id,
        accepted_at,
        merchant: body.merchant.clone(),
        kind: if offset % 2 == 0 { RepeatKind::Duplicate } else { RepeatKind::Conflict },
        fingerprint: body.fingerprint,
        repeated_at: accepted_at.plus(5),
        source_partition: 0,
        source_offset: offset,
    }
    .into()
}
