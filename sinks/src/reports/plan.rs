//! Pure: what one batch inserts, so that a crash in between can insert exactly the same again.
//!
//! A plan is a range of offsets. Before anything is inserted it is committed to Kafka as metadata of
//! the range's first offset; whoever owns the partition next fetches the range again. The hash is
//! over the records themselves, not the rows made of them: it proves that the log still holds what
//! was planned, and holds for a newer version of this program as well.
//!
//! Rows go into ClickHouse's table partitions by the month of `accepted_at`; a block that touched two
//! would be deduplicated in halves. So a plan is one block per month, each under a token of its own.

use std::collections::BTreeMap;
use std::hash::Hasher;

use bytes::Bytes;
use chrono::{DateTime, Datelike, Utc};
use events::{Millis, Record};
use rdkafka::message::Message;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::row::{self, Source};
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

    /// The token of a block: ClickHouse ignores what comes again under a token that it has seen.
    /// Parts of a block that had to be split have tokens of their own.
    pub(super) fn token(&self, partition: i32, block: &Block, rows: &[RowAt]) -> String {
        let Self { first, last, .. } = self;
        let mut token = format!("order-status:{partition}:{first}-{last}:{}", block.month);
        if rows.len() < block.rows.len() {
            let (from, to) = (rows.first(), rows.last());
            let offset = |row: Option<&RowAt>| row.map_or(-1, |row| row.offset);
            token.push_str(&format!(":{}-{}", offset(from), offset(to)));
        }
        token
    }
}

/// The rows of a plan that go into one partition of the table.
#[derive(Debug)]
pub(super) struct Block {
    /// `toYYYYMM(accepted_at)`.
    month: i64,
    pub(super) rows: Vec<RowAt>,
    bytes: Bytes,
}

/// A row of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowAt {
    /// Its record in the plan.
    pub(super) record: usize,
    offset: i64,
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

/// The blocks of a plan, oldest month first.
pub(super) fn blocks(partition: i32, records: &[Received]) -> Vec<Block> {
    let mut months: BTreeMap<i64, (Vec<RowAt>, Vec<u8>)> = BTreeMap::new();
    for (index, received) in records.iter().enumerate() {
        let Ok(Body { record: Record::OrderStatusChanged(event), origin }) = &received.body else {
            continue;
        };
        let (rows, bytes) = months.entry(month(event.accepted_at)).or_default();
        let (start, offset) = (bytes.len(), received.offset());
        let source = Source { partition, offset, term: origin.0, sequence: origin.1 };
        row::encode(event, &source, bytes);
        rows.push(RowAt { record: index, offset, start, end: bytes.len() });
    }
    let block =
        |(month, (rows, bytes)): (_, (_, Vec<u8>))| Block { month, rows, bytes: bytes.into() };
    months.into_iter().map(block).collect()
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
    fn a_plan_is_one_block_per_month_and_passes_over_the_unreadable() {
        let mut records = vec![
            received(1, "a", NOVEMBER_ENDS),
            received(2, "b", NOVEMBER_ENDS + 1),
            received(3, "c", NOVEMBER_ENDS),
            received(4, "d", NOVEMBER_ENDS),
        ];
        records[3].body = Err("unreadable".into());
        let blocks = blocks(0, &records);
        let shape: Vec<_> = blocks.iter().map(|b| (b.month, b.rows.len())).collect();
        assert_eq!(shape, [(202_611, 2), (202_612, 1)]);
        assert_eq!(blocks[0].rows[1].record, 2);
    }

    #[test]
    fn every_part_of_a_plan_has_its_own_token_and_bytes() {
        let records: Vec<_> =
            (10..14).map(|n| received(n, &format!("k{n}"), NOVEMBER_ENDS)).collect();
        let plan = Plan::of(&records).unwrap();
        let block = &blocks(3, &records)[0];
        assert_eq!(plan.token(3, block, &block.rows), "order-status:3:10-13:202611");
        let (left, right) = block.rows.split_at(2);
        assert_eq!(plan.token(3, block, right), "order-status:3:10-13:202611:12-13");
        let joined = [block.bytes(left), block.bytes(right)].concat();
        assert_eq!(joined, block.bytes(&block.rows));
    }
}
