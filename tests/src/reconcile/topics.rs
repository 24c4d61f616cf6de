//! What Kafka holds: topics read from their beginning, committed records only.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use events::topics::{ORDER_STATUS, ORDERS as ORDERS_TOPIC, STOCK_LEVELS, Topic};
use events::{
    Codec, OrderId, OrderPlaced, OrderStatus, OrderStatusChanged, PaymentFact, PaymentState, Record,
};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::{
    ASKED, AUTHORIZED, CAPTURED, Column, LINES, MONEY, ORDERS, PIECES, REFUNDED, REFUSED_RECORDED,
    REPEATS, STATUS_EVENTS, STOCK_ALLOCATED, STOCK_BELOW_ZERO, STOCK_RECEIVED, STOCK_RESERVED,
    UNSERVABLE, VERSION_GAPS,
};

const SILENCE: Duration = Duration::from_secs(15);

/// Reads the topics; `refused` are ids that no order may have. Blocks.
///
/// # Errors
/// When Kafka does not answer, or a record cannot be read.
pub fn column(brokers: &str, codec: &Codec, refused: &[OrderId]) -> Result<Column> {
    let log = Log::new(brokers, codec)?;
    let mut column = Column::default();
    let received = log.stock(&mut column)?;
    let statuses = log.statuses(&mut column)?;
    let refused: HashSet<OrderId> = refused.iter().copied().collect();
    for row in [ORDERS, LINES, PIECES, MONEY, REPEATS, UNSERVABLE, REFUSED_RECORDED, ASKED] {
        column.set(row, 0);
    }
    let mut seen = HashSet::new();
    log.read(&ORDERS_TOPIC, |record| {
        let Record::OrderPlaced(order) = record else { bail!("orders holds {record:?}") };
        if !seen.insert(order.order_id) {
            column.add(REPEATS, 1);
            return Ok(());
        }
        if refused.contains(&order.order_id) {
            column.add(REFUSED_RECORDED, 1);
        }
        let served = |sku: &str| received.contains(sku);
        let rejected = statuses.get(&order.order_id) == Some(&OrderStatus::Rejected);
        if rejected && !order.lines.iter().all(|line| served(line.sku.as_str())) {
            column.add(UNSERVABLE, 1);
        }
        count(&mut column, &order)
    })?;
    Ok(column)
}

fn count(column: &mut Column, order: &OrderPlaced) -> Result<()> {
    column.add(ORDERS, 1);
    column.add(LINES, i64::try_from(order.lines.len())?);
    column.add(PIECES, order.lines.iter().map(|line| i64::from(line.quantity)).sum());
    column.add(MONEY, order.total_minor);
    if order.payment_methods.is_some() {
        column.add(ASKED, order.total_minor);
    }
    Ok(())
}

fn pay(column: &mut Column, facts: &[PaymentFact]) {
    for fact in facts {
        let row = match fact.state {
            PaymentState::Authorized => AUTHORIZED,
            PaymentState::Captured => CAPTURED,
            PaymentState::Refunded => REFUNDED,
            _ => continue,
        };
        column.add(row, fact.amount_minor);
    }
}

/// Topics of a cluster.
pub(crate) struct Log<'a> {
    brokers: &'a str,
    /// Partitions of every topic.
    pub(crate) partitions: i32,
    codec: &'a Codec,
}

impl<'a> Log<'a> {
    /// The topics of the cluster behind these brokers. Blocks.
    pub(crate) fn new(brokers: &'a str, codec: &'a Codec) -> Result<Self> {
        Ok(Self { brokers, partitions: wire::admin::partitions(brokers)?, codec })
    }

    /// Counts stock; the SKUs of which there is or was any.
    fn stock(&self, column: &mut Column) -> Result<HashSet<String>> {
        let mut newest = HashMap::new();
        let mut below = HashSet::new();
        self.read(&STOCK_LEVELS, |record| {
            let Record::StockLevelChanged(level) = record else { bail!("unexpected {record:?}") };
            let key = (level.merchant, level.sku, level.warehouse);
            let available = level.on_hand - level.reserved - level.allocated;
            if [level.on_hand, level.reserved, level.allocated, available].iter().any(|n| *n < 0) {
                below.insert(key.clone());
            }
            newest.insert(key, (level.on_hand, level.reserved, level.allocated));
            Ok(())
        })?;
        column.set(STOCK_RECEIVED, newest.values().map(|level| level.0).sum());
        column.set(STOCK_RESERVED, newest.values().map(|level| level.1).sum());
        column.set(STOCK_ALLOCATED, newest.values().map(|level| level.2).sum());
        column.set(STOCK_BELOW_ZERO, i64::try_from(below.len())?);
        let some = newest.into_iter().filter(|(_, level)| level.0 > 0);
        Ok(some.map(|((_, sku, _), _)| sku.as_str().to_owned()).collect())
    }

    /// Counts changes of status; each order's newest.
    fn statuses(&self, column: &mut Column) -> Result<HashMap<OrderId, OrderStatus>> {
        let mut orders: HashMap<OrderId, (Vec<i32>, OrderStatusChanged)> = HashMap::new();
        let mut changes = 0;
        for row in [AUTHORIZED, CAPTURED, REFUNDED] {
            column.set(row, 0);
        }
        self.read(&ORDER_STATUS, |record| {
            let Record::OrderStatusChanged(mut change) = record else { bail!("{record:?}") };
            changes += 1;
            pay(column, &change.payments);
            // Bodies of all orders together are large, and not needed here.
            change.order = None;
            let (versions, newest) =
                orders.entry(change.order_id).or_insert_with(|| (Vec::new(), change.clone()));
            versions.push(change.version);
            if change.version > newest.version {
                *newest = change;
            }
            Ok(())
        })?;
        column.set(STATUS_EVENTS, changes);
        column.set(VERSION_GAPS, 0);
        let mut statuses = HashMap::with_capacity(orders.len());
        for (id, (versions, newest)) in orders {
            // In the order they were written: a gap, a repeat or a step back all show.
            if !versions.iter().copied().eq(1..=newest.version) {
                column.add(VERSION_GAPS, 1);
            }
            let lines = i64::from(newest.line_count);
            column.add_status(newest.status.as_str(), 1, lines, newest.total_minor);
            statuses.insert(id, newest.status);
        }
        Ok(statuses)
    }

    /// Hands over every committed record that a topic holds now.
    pub(crate) fn read(
        &self,
        topic: &Topic,
        mut each: impl FnMut(Record) -> Result<()>,
    ) -> Result<()> {
        let consumer: BaseConsumer =
            wire::client::assigned_consumer(self.brokers, "reconcile").create()?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..self.partitions {
            assignment.add_partition_offset(topic.name, partition, Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        let mut ended = HashSet::new();
        let mut heard = Instant::now();
        while ended.len() < usize::try_from(self.partitions)? {
            if heard.elapsed() > SILENCE {
                bail!("topic {} cannot be read: nothing came for {SILENCE:?}", topic.name);
            }
            let message = match consumer.poll(Duration::from_millis(100)) {
                None => continue,
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                    continue;
                }
                // librdkafka tries again by itself; the silence above bounds it.
                Some(Err(KafkaError::MessageConsumption(code))) => {
                    tracing::warn!(topic = topic.name, %code, "not read yet");
                    continue;
                }
                Some(message) => message?,
            };
            heard = Instant::now();
            let at = || format!("{}-{}@{}", topic.name, message.partition(), message.offset());
            let record = self.codec.decode(message.payload().unwrap_or_default());
            each(record.with_context(at)?).with_context(at)?;
        }
        Ok(())
    }
}
