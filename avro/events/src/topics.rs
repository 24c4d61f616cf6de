//! The topic catalogue: name, partitions, retention and record types, declared once.

use crate::record::RecordType;

/// Partitions of every topic unless configured at creation; fixed from then on.
pub const DEFAULT_PARTITIONS: i32 = 4;

/// Most bytes of key and value of a record that is processed; a larger one is a dead letter. Twice the
/// largest body that ingest may take.
pub const MAX_RECORD_BYTES: usize = 512 * 1024;

/// Most bytes of a record that a topic takes: what follows from one record (an order's whole history
/// record, its row) can be several times its size.
pub const MAX_MESSAGE_BYTES: usize = 5 * 1024 * 1024;

/// How long a topic keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// At least this many days.
    Days(u16),
    /// For good: this is history.
    Forever,
    /// The newest record per key.
    Compacted,
}

/// One topic.
#[derive(Debug, Clone, Copy)]
pub struct Topic {
    /// Its name.
    pub name: &'static str,
    /// What may stand in it.
    pub record_types: &'static [RecordType],
    /// How long it is kept.
    pub retention: Retention,
}

/// Clients' orders, by order id; written by ingest alone.
pub const ORDERS: Topic = Topic {
    name: "orders",
    record_types: &[RecordType::OrderPlaced],
    retention: Retention::Days(7),
};

/// Answers to the orders processor, by order id; read before `orders`.
pub const ORDER_OUTCOMES: Topic = Topic {
    name: "order-outcomes",
    record_types: &[
        RecordType::LinesReserved,
        RecordType::LinesRefused,
        RecordType::ConsignmentBooked,
        RecordType::ConsignmentFailed,
        RecordType::CancelRequested,
        RecordType::OrderConfirmed,
        RecordType::ConfirmationTimedOut,
        RecordType::ConsignmentMoved,
        RecordType::PaymentAnswered,
        RecordType::PaymentNotified,
        RecordType::OrderDispatched,
        RecordType::WarehouseListed,
    ],
    retention: Retention::Days(7),
};

/// Commands to stock; merchant and SKU decide the partition.
pub const STOCK: Topic = Topic {
    name: "stock",
    record_types: &[
        RecordType::ReserveLines,
        RecordType::ReleaseLines,
        RecordType::AllocateLines,
        RecordType::StockReceived,
        RecordType::DispatchLines,
        RecordType::ChangeStock,
        RecordType::FlashSaleScheduled,
        RecordType::WarehouseListed,
    ],
    retention: Retention::Days(7),
};

/// Commands to the couriers processor, outcomes of its calls and couriers' reports, by lane.
pub const COURIERS: Topic = Topic {
    name: "couriers",
    record_types: &[
        RecordType::CourierListed,
        RecordType::BookConsignment,
        RecordType::VoidConsignment,
        RecordType::CourierAnswered,
        RecordType::CourierRuled,
        RecordType::LaneRuled,
        RecordType::BreakerMoved,
        RecordType::TrackingReported,
    ],
    retention: Retention::Days(7),
};

/// How couriers were chosen and what came of it, by lane: what other policies are judged by.
pub const COURIER_DECISIONS: Topic = Topic {
    name: "courier-decisions",
    record_types: &[RecordType::CourierDecided, RecordType::DeliveryJudged],
    retention: Retention::Forever,
};

/// The history of every order, by order id.
pub const ORDER_STATUS: Topic = Topic {
    name: "order-status",
    record_types: &[RecordType::OrderStatusChanged],
    retention: Retention::Forever,
};

/// Live stock, by merchant, SKU and warehouse.
pub const STOCK_LEVELS: Topic = Topic {
    name: "stock-levels",
    record_types: &[RecordType::StockLevelChanged],
    retention: Retention::Compacted,
};

/// Duplicates and conflicts that reached the log, by order id.
pub const ORDER_CONFLICTS: Topic = Topic {
    name: "order-conflicts",
    record_types: &[RecordType::OrderRepeated],
    retention: Retention::Days(30),
};

/// The history of what is on hand, by merchant and SKU.
pub const STOCK_MOVEMENTS: Topic = Topic {
    name: "stock-movements",
    record_types: &[RecordType::StockMoved, RecordType::StockRanLow],
    retention: Retention::Forever,
};

/// Reference data as it is now, by merchant and id. A change is also appended to every partition of the
/// inboxes that decide by it, so that it has a place in their logs.
pub const REFERENCE: Topic = Topic {
    name: "reference",
    record_types: &[RecordType::WarehouseListed],
    retention: Retention::Compacted,
};

/// Every topic that carries records.
pub const ALL: &[Topic] = &[
    ORDERS,
    ORDER_OUTCOMES,
    STOCK,
    COURIERS,
    COURIER_DECISIONS,
    ORDER_STATUS,
    STOCK_LEVELS,
    ORDER_CONFLICTS,
    STOCK_MOVEMENTS,
    REFERENCE,
];

/// Processors, each with a changelog.
pub const PROCESSORS: &[&str] = &["orders", "stock", "couriers"];

/// What the processors read.
pub const INBOXES: &[&Topic] = &[&ORDERS, &ORDER_OUTCOMES, &STOCK, &COURIERS];

/// What the sink `tracking` reads.
pub const TRACKED: &[&Topic] = &[&ORDER_STATUS, &STOCK_LEVELS, &ORDER_CONFLICTS, &STOCK_MOVEMENTS];

/// What the sink `reports` reads.
pub const REPORTED: &[&Topic] = &[&ORDER_STATUS, &STOCK_MOVEMENTS];

/// What the sink `billing` reads.
pub const BILLED: &[&Topic] = &[&ORDER_STATUS];

/// Name of a processor's changelog topic.
pub fn changelog(processor: &str) -> String {
    format!("{processor}-changelog")
}

/// Name of a topic's dead letter queue.
pub fn dead_letters(topic: &str) -> String {
    format!("{topic}.dlq")
}

/// The partition of a record key: murmur2 as in Kafka's Java clients, so that every client agrees.
///
/// # Panics
/// When `partitions` is not positive.
pub fn partition_for(key: &[u8], partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has at least one partition");
    let hash = i32::from_ne_bytes(murmur2(key).to_ne_bytes()) & 0x7fff_ffff;
    hash % partitions
}

/// The key under which stock of a SKU is partitioned.
pub fn stock_key(merchant: &crate::Merchant, sku: &crate::Sku) -> String {
    format!("{merchant}/{sku}")
}

/// MurmurHash2, 32 bit, seed 0x9747b28c (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).expect("a key is shorter than 4 GiB");
    let mut hash = 0x9747_b28c ^ length;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (i, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * i);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_agrees_with_kafkas_own_test_vectors() {
        // org.apache.kafka.common.utils.UtilsTest.testMurmur2.
        let vectors: &[(&[u8], i32)] = &[
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in vectors {
            assert_eq!(i32::from_ne_bytes(murmur2(key).to_ne_bytes()), *expected);
        }
    }

    #[test]
    fn every_record_type_has_one_topic_and_reference_data_its_readers_too() {
        for t in RecordType::ALL {
            let homes = ALL.iter().filter(|topic| topic.record_types.contains(t)).count();
            let reference = REFERENCE.record_types.contains(t);
            assert!(if reference { homes > 1 } else { homes == 1 }, "{}", t.name());
        }
    }
}
