//! Follows `order-status` for the [`Hub`]: once for all watchers, from the topic's end.
//!
//! What it costs without a watcher: the fetch, 20 times a second at most, and a look at each record's key.

use std::sync::Arc;

use anyhow::{Context, Result};
use events::{Record, topics};
use rdkafka::consumer::Consumer as _;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::hub::Hub;
use crate::database::Event;
use crate::follow::{CALL_TIMEOUT, Consumer, Reader};

/// The last record of a partition lies within this many offsets before its end: what else takes offsets are the marks of
/// transactions.
const LOOK_BACK: i64 = 1000;

/// Hands changes to those who watch their order.
pub(super) struct Statuses {
    pub(super) hub: Arc<Hub>,
}

impl Reader for Statuses {
    const TOPIC: &'static str = topics::ORDER_STATUS.name;
    const NAME: &'static str = "watch";
    const FETCH_EVERY_MS: u32 = 50;

    fn start(&mut self, consumer: &Consumer, partitions: i32) -> Result<TopicPartitionList> {
        let mut positions = TopicPartitionList::new();
        for partition in 0..partitions {
            let (low, high) = consumer
                .fetch_watermarks(Self::TOPIC, partition, CALL_TIMEOUT)
                .context("Kafka doesn't tell where a partition ends")?;
            let start = (high - LOOK_BACK).max(low);
            // Nothing but marks and aborted records may follow: then no record moves the position.
            self.hub.passing(partition, start - 1);
            positions.add_partition_offset(Self::TOPIC, partition, Offset::Offset(start))?;
        }
        Ok(positions)
    }

    fn caught_up(&mut self) {
        tracing::info!("order-status is followed");
        self.hub.following();
    }

    fn lost(&mut self) {
        self.hub.lost();
    }

    fn wants(&mut self, message: &BorrowedMessage<'_>) -> bool {
        self.hub.passing(message.partition(), message.offset());
        order(message).is_some_and(|id| self.hub.watches(id))
    }

    fn take(&mut self, message: &BorrowedMessage<'_>, record: Record) {
        if let (Some(order_id), Record::OrderStatusChanged(changed)) = (order(message), record) {
            self.hub.tell(order_id, &Arc::new(Event::from(&changed)));
        }
    }
}

fn order(message: &BorrowedMessage<'_>) -> Option<Uuid> {
    message.key().and_then(|key| Uuid::from_slice(key).ok())
}
