//! Pure: the rows that a batch of records inserts, table by table.
//!
//! Rows go into a table's partitions by month, and a server stores one partition at a time: a block
//! holds the rows of one table and month, so it is stored as a whole or not at all.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Datelike, Utc};
use events::Millis;

use super::rows::{self, Rows, Source, TABLES, Table};
use crate::deliver::intake::{Body, Received};

/// The rows of a batch that go into one partition of a table.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) table: &'static Table,
    pub(super) rows: Vec<RowAt>,
    bytes: Bytes,
}

/// A row of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowAt {
    /// Its record in the batch.
    pub(super) record: usize,
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

/// The blocks of a batch: table by table as in [`TABLES`], oldest month first.
pub(super) fn blocks(partition: i32, records: &[Received]) -> Vec<Block> {
    let mut sorted = Sorted::default();
    for (index, received) in records.iter().enumerate() {
        let Ok(Body { record, origin }) = &received.body else { continue };
        let offset = received.offset();
        let source = Source { partition, offset, term: origin.0, sequence: origin.1 };
        sorted.record = index;
        rows::encode(record, &source, &mut sorted);
    }
    let block = |((table, _), (rows, bytes)): ((usize, i64), (Vec<RowAt>, Vec<u8>))| Block {
        table: TABLES[table],
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
        let start = bytes.len();
        encode(bytes);
        rows.push(RowAt { record: self.record, start, end: bytes.len() });
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
    fn a_block_is_of_one_table_and_month_and_passes_over_the_unreadable() {
        let mut records = vec![
            received(1, "a", NOVEMBER_ENDS),
            received(2, "b", NOVEMBER_ENDS + 1),
            received(3, "c", NOVEMBER_ENDS),
            received(4, "d", NOVEMBER_ENDS),
        ];
        records[3].body = Err("unreadable".into());
        let blocks = blocks(0, &records);
        let shape: Vec<_> = blocks.iter().map(|b| (b.table.name, b.rows.len())).collect();
        // Each sample has two lines; November's rows come before December's.
        let lines = [("order_lines", 4), ("order_lines", 2)];
        let events = [("order_events", 2), ("order_events", 1)];
        let states = [("order_states", 2), ("order_states", 1)];
        assert_eq!(shape, [lines, events, states].concat());
        assert_eq!(blocks[0].rows[2].record, 2);
        assert_eq!(blocks[2].rows[1].record, 2);
    }

    #[test]
    fn the_parts_of_a_block_are_its_bytes() {
        let records: Vec<_> =
            (10..14).map(|n| received(n, &format!("k{n}"), NOVEMBER_ENDS)).collect();
        for block in &blocks(3, &records) {
            let (left, right) = block.rows.split_at(1);
            let joined = [block.bytes(left), block.bytes(right)].concat();
            assert_eq!(joined, block.bytes(&block.rows));
        }
    }
}
