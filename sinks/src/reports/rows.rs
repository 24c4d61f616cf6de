//! Pure: a record → its rows in RowBinary, table by table. The same record always makes the same
//! bytes.
//!
//! A new fact is a file here, its table in a migration, its views in `views.sql`, and a line in
//! [`encode`].

mod order_events;
mod order_lines;
mod order_states;
mod stock_movements;

use events::{Millis, OrderStatusChanged, Record};
use uuid::Uuid;

/// Bits of a precedence that hold the sequence; the term stands above them.
const SEQUENCE_BITS: u32 = 40;

/// Where rows go.
#[derive(Debug)]
pub(super) struct Table {
    /// Its name.
    pub(super) name: &'static str,
    /// Columns in the order of the bytes.
    pub(super) columns: &'static str,
}

/// Every table, in the order in which a batch fills them: an order that is seen has its lines and events.
pub(super) static TABLES: [&Table; 4] =
    [&order_lines::TABLE, &order_events::TABLE, &order_states::TABLE, &stock_movements::TABLE];

/// Where an event stands in the log, and the batch that wrote it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) term: i64,
    pub(super) sequence: i64,
}

impl Source {
    /// Term and sequence as one number that sorts as they do: a task would have to be taken over
    /// 16 million times, or commit for 300 years at 100 batches a second, to run out of bits.
    fn precedence(&self) -> u64 {
        let most = (1 << SEQUENCE_BITS) - 1;
        (unsigned(self.term) << SEQUENCE_BITS) | unsigned(self.sequence).min(most)
    }
}

/// Takes the rows of a record.
pub(super) trait Rows {
    /// One row of `table`; its partition there is the month of `at`, which never changes for the
    /// row's key.
    fn row(&mut self, table: &'static Table, at: Millis, encode: impl FnOnce(&mut Vec<u8>));
}

/// Hands out a record's rows; one that is no part of the history has none.
pub(super) fn encode(record: &Record, source: &Source, rows: &mut impl Rows) {
    match record {
        Record::OrderStatusChanged(event) => {
            order_lines::encode(event, source, rows);
            order_events::encode(event, source, rows);
            order_states::encode(event, source, rows);
        }
        Record::StockMoved(moved) => stock_movements::encode(moved, source, rows),
        _ => {}
    }
}

/// What was ordered, as two tables tell it: columns `ordered_at` to `country`.
fn placed(event: &OrderStatusChanged, out: &mut Vec<u8>) {
    let body = event.order.as_ref();
    out.extend(event.ordered_at.0.to_le_bytes());
    text(event.currency.as_str(), out);
    out.extend(event.total_minor.to_le_bytes());
    out.extend(count(event.line_count).to_le_bytes());
    let pieces = body.map_or(0, |body| body.lines.iter().map(|l| i64::from(l.quantity)).sum());
    out.extend(unsigned(pieces).to_le_bytes());
    text(body.map_or("", |body| &body.destination.country), out);
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// Two little-endian halves, the higher first, as ClickHouse keeps it.
fn uuid(id: Uuid, out: &mut Vec<u8>) {
    let (high, low) = id.as_u64_pair();
    out.extend(high.to_le_bytes());
    out.extend(low.to_le_bytes());
}

fn text(text: &str, out: &mut Vec<u8>) {
    length(text.len(), out);
    out.extend(text.as_bytes());
}

/// LEB128, as RowBinary counts bytes and items.
fn length(mut length: usize, out: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(length & 0x7f).expect("7 bits");
        length >>= 7;
        if length == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[derive(Default)]
    struct Found(Vec<(&'static str, Vec<u8>)>);

    impl Rows for Found {
        fn row(&mut self, table: &'static Table, _: Millis, encode: impl FnOnce(&mut Vec<u8>)) {
            let mut bytes = Vec::new();
            encode(&mut bytes);
            self.0.push((table.name, bytes));
        }
    }

    fn found(version: i32) -> Vec<(&'static str, Vec<u8>)> {
        let mut found = Found::default();
        encode(&samples::status("a", version).into(), &source(1, 2), &mut found);
        found.0
    }

    fn source(term: i64, sequence: i64) -> Source {
        Source { partition: 1, offset: 9, term, sequence }
    }

    #[test]
    fn the_same_event_makes_the_same_bytes_and_another_version_others() {
        assert_eq!(found(1), found(1));
        assert_ne!(found(1).last(), found(2).last());
        // ClickHouse keeps a UUID as two little-endian halves.
        let id = samples::status("a", 1).order_id.0;
        assert_eq!(found(2)[0].1[..8], id.as_u64_pair().0.to_le_bytes());
    }

    #[test]
    fn an_order_s_lines_come_with_its_first_version_and_before_it() {
        let tables = |version| found(version).iter().map(|(table, _)| *table).collect::<Vec<_>>();
        assert_eq!(tables(1), ["order_lines", "order_lines", "order_events", "order_states"]);
        assert_eq!(tables(2), ["order_events", "order_states"]);
        assert_ne!(found(1)[0], found(1)[1], "the same SKU twice is two lines");
    }

    #[test]
    fn precedence_sorts_as_term_and_sequence() {
        let ascending =
            [source(1, 5), source(1, 6), source(2, 0), source(2, i64::MAX), source(3, 1)];
        assert!(ascending.is_sorted_by(|a, b| a.precedence() < b.precedence()));
    }

    #[test]
    fn lengths_are_leb128() {
        let bytes = |n| {
            let mut out = Vec::new();
            length(n, &mut out);
            out
        };
        assert_eq!(bytes(0), [0]);
        assert_eq!(bytes(127), [127]);
        assert_eq!(bytes(300), [0xac, 0x02]);
    }
}
