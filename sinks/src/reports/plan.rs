//! Pure: what one batch inserts, so that a crash in between can insert exactly the same again.
//!
//! A plan is a range of offsets. Before anything is inserted it is committed to Kafka as metadata of
//! the range's first offset; whoever owns the partition next fetches the range again. The hash is
//! over the records themselves, not the rows made of them: it proves that the log still holds what
//! was planned, and holds for a newer version of this program as well.
//!
//! Rows go into a table's partitions by month; a block that touched two would be deduplicated in
//! halves. So a plan is one block per table and month, each under a token of its own.

use std::collections::BTreeMap;
use std::hash::Hasher;

use bytes::Bytes;
use chrono::{DateTime, Datelike, Utc};
use events::Millis;
use rdkafka::message::Message;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::rows::{self, Rows, Source, TABLES, Table};
use crate::deliver::Place;
use crate::deliver::intake::{Body, Received};

/// What is about to be inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) first: i64,
    pub(super) last: i64,
    hash: u64,
}

/// The committed form, beside the first offset.
#[derive(Serialize, Deserialize)]
struct Metadata {
    last: i64,
    hash: String,
}

impl Plan {
    /// The plan for these records; `None` when there are none.
    pub(super) fn of(records: &[Received]) -> Option<Self> {
        let (first, last) = (records.first()?.offset(), records.last()?.offset());
        // Unkeyed on purpose: it must be the same in every process.
        let mut hasher = SipHasher13::new();
        for record in records {
            hasher.write_i64(record.offset());
            hasher.write(record.raw.payload().unwrap_or_default());
        }
        Some(Self { first, last, hash: hasher.finish() })
    }

    /// As committed.
    pub(super) fn metadata(&self) -> String {
        let metadata = Metadata { last: self.last, hash: format!("{:016x}", self.hash) };
        serde_json::to_string(&metadata).expect("numbers and text are JSON")
    }

    /// From what was committed with offset `first`; `None` where nothing was planned.
    ///
    /// # Errors
    /// When the metadata is none of ours.
    pub(super) fn parse(first: i64, metadata: &str) -> Result<Option<Self>, String> {
        if metadata.is_empty() {
            return Ok(None);
        }
        let unknown = || format!("committed metadata {metadata:?} is no plan");
        let Metadata { last, hash } = serde_json::from_str(metadata).map_err(|_| unknown())?;
        let hash = u64::from_str_radix(&hash, 16).map_err(|_| unknown())?;
        Ok(Some(Self { first, last, hash }))
    }

    /// The token of a block: a table ignores what comes again under a token that it has seen.
    /// Parts of a block that had to be split have tokens of their own.
    pub(super) fn token(&self, place: Place, block: &Block, rows: &[RowAt]) -> String {
        let Self { first, last, .. } = self;
        let (topic, partition) = (place.topic.name, place.partition);
        let mut token = format!("{topic}:{partition}:{first}-{last}:{}", block.month);
        if let (Some(from), true) = (rows.first(), rows.len() < block.rows.len()) {
            token.push_str(&format!(":{}+{}", from.index, rows.len()));
        }
        token
    }
}

/// The rows of a plan that go into one partition of a table.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) table: &'static Table,
    /// The partition, as `toYYYYMM` says it.
    month: i64,
    pub(super) rows: Vec<RowAt>,
    bytes: Bytes,
}

/// A row of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowAt {
    /// Its record in the plan.
    pub(super) record: usize,
    /// Its place in the block.
    index: usize,
    start: usize,
    end: usize,
}

impl Block {
    /// The bytes of neighbouring rows.
    pub(super) fn bytes(&self, rows: &[RowAt]) -> Bytes {
        match (rows.first(), rows.last()) {
            (Some(first), Some(last)) => self.bytes.slice(first.start..last.end),
            _ => Bytes::new(),
        }
    }
}

/// The blocks of a plan: table by table as in [`TABLES`], oldest month first.
pub(super) fn blocks(partition: i32, records: &[Received]) -> Vec<Block> {
    let mut sorted = Sorted::default();
    for (index, received) in records.iter().enumerate() {
        let Ok(Body { record, origin }) = &received.body else { continue };
        let offset = received.offset();
        let source = Source { partition, offset, term: origin.0, sequence: origin.1 };
        sorted.record = index;
        rows::encode(record, &source, &mut sorted);
    }
    let block = |((table, month), (rows, bytes)): ((usize, i64), (Vec<RowAt>, Vec<u8>))| Block {
        table: TABLES[table],
        month,
        rows,
        bytes: bytes.into(),
    };
    sorted.blocks.into_iter().map(block).collect()
}

/// Rows by table and month.
#[derive(Default)]
struct Sorted {
    /// Whose rows come next.
    record: usize,
    blocks: BTreeMap<(usize, i64), (Vec<RowAt>, Vec<u8>)>,
}

impl Rows for Sorted {
    fn row(&mut self, table: &'static Table, at: Millis, encode: impl FnOnce(&mut Vec<u8>)) {
        let place = TABLES.iter().position(|known| std::ptr::eq(*known, table));
        let place = place.expect("every table is listed");
        let (rows, bytes) = self.blocks.entry((place, month(at))).or_default();
        let (index, start) = (rows.len(), bytes.len());
        encode(bytes);
        rows.push(RowAt { record: self.record, index, start, end: bytes.len() });
    }
}

fn month(at: Millis) -> i64 {
    let time: DateTime<Utc> = DateTime::from_timestamp_millis(at.0)
        .expect("records outside the calendar are dead letters");
    i64::from(time.year()) * 100 + i64::from(time.month())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use rdkafka::Timestamp;
    use rdkafka::message::OwnedMessage;

    fn received(offset: i64, key: &str, accepted_at: i64) -> Received {
        let mut event = samples::status(key, 1);
        event.accepted_at = Millis(accepted_at);
        let payload = format!("{key} at {accepted_at}").into_bytes();
        let time = Timestamp::NotAvailable;
        let topic = "order-status".into();
        let raw = OwnedMessage::new(Some(payload), None, topic, time, 0, offset, None);
        Received { raw, body: Ok(Body { record: event.into(), origin: (1, 1) }) }
    }

    const NOVEMBER_ENDS: i64 = 1_796_083_199_999;

    #[test]
    fn a_plan_survives_its_metadata_and_knows_its_records() {
        let records = [received(5, "a", 0), received(7, "b", 0)];
        let plan = Plan::of(&records).unwrap();
        assert_eq!(Plan::parse(5, &plan.metadata()), Ok(Some(plan.clone())));
        assert_eq!(Plan::parse(5, ""), Ok(None));
        assert!(Plan::parse(5, "something else").is_err());
        assert_ne!(Plan::of(&[received(5, "a", 0), received(7, "c", 0)]).unwrap(), plan);
        assert_ne!(Plan::of(&[received(5, "a", 0), received(8, "b", 0)]).unwrap(), plan);
    }

    #[test]
    fn a_plan_is_one_block_per_table_and_month_and_passes_over_the_unreadable() {
        let mut records = vec![
            received(1, "a", NOVEMBER_ENDS),
            received(2, "b", NOVEMBER_ENDS + 1),
            received(3, "c", NOVEMBER_ENDS),
            received(4, "d", NOVEMBER_ENDS),
        ];
        records[3].body = Err("unreadable".into());
        let blocks = blocks(0, &records);
        let shape: Vec<_> = blocks.iter().map(|b| (b.table.name, b.month, b.rows.len())).collect();
        // Each sample has two lines.
        let lines = [("order_lines", 202_611, 4), ("order_lines", 202_612, 2)];
        let events = [("order_events", 202_611, 2), ("order_events", 202_612, 1)];
        assert_eq!(shape, [lines, events].concat());
        assert_eq!(blocks[0].rows[2].record, 2);
        assert_eq!(blocks[2].rows[1].record, 2);
    }

    #[test]
    fn every_part_of_a_plan_has_its_own_token_and_bytes() {
        let records: Vec<_> =
            (10..14).map(|n| received(n, &format!("k{n}"), NOVEMBER_ENDS)).collect();
        let plan = Plan::of(&records).unwrap();
        let place = Place { topic: &events::topics::ORDER_STATUS, partition: 3 };
        for block in &blocks(3, &records) {
            assert_eq!(plan.token(place, block, &block.rows), "order-status:3:10-13:202611");
            // Two parts may begin and end in one record: rows are counted, not offsets.
            let (left, right) = block.rows.split_at(1);
            assert_eq!(plan.token(place, block, left), "order-status:3:10-13:202611:0+1");
            let rest = format!("order-status:3:10-13:202611:1+{}", right.len());
            assert_eq!(plan.token(place, block, right), rest);
            let joined = [block.bytes(left), block.bytes(right)].concat();
            assert_eq!(joined, block.bytes(&block.rows));
        }
    }
}
