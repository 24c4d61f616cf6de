//! Pure: an event → its row in RowBinary. The same event always makes the same bytes.

use events::OrderStatusChanged;

/// Columns in the order of the bytes.
pub(super) const COLUMNS: &str = "order_id, accepted_at, version, merchant, status, reason, \
    occurred_at, ordered_at, currency, total_minor, line_count, pieces, country, guest, courier, \
    courier_price_minor, courier_currency, promised_at, attempt, refused_skus, term, sequence, \
    precedence, kafka_partition, kafka_offset";

/// Bits of a precedence that hold the sequence; the term stands above them.
const SEQUENCE_BITS: u32 = 40;

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

/// Appends the event's row.
pub(super) fn encode(event: &OrderStatusChanged, source: &Source, out: &mut Vec<u8>) {
    let body = event.order.as_ref();
    let consignment = event.consignment.as_ref();
    let (high, low) = event.order_id.0.as_u64_pair();
    out.extend(high.to_le_bytes());
    out.extend(low.to_le_bytes());
    out.extend(event.accepted_at.0.to_le_bytes());
    out.extend(u32::try_from(event.version).unwrap_or(0).to_le_bytes());
    text(event.merchant.as_str(), out);
    text(event.status.as_str(), out);
    text(&event.reason, out);
    out.extend(event.occurred_at.0.to_le_bytes());
    out.extend(event.ordered_at.0.to_le_bytes());
    text(event.currency.as_str(), out);
    out.extend(event.total_minor.to_le_bytes());
    out.extend(u32::try_from(event.line_count).unwrap_or(0).to_le_bytes());
    let pieces = body.map_or(0, |body| body.lines.iter().map(|l| i64::from(l.quantity)).sum());
    out.extend(unsigned(pieces).to_le_bytes());
    text(body.map_or("", |body| &body.destination.country), out);
    out.push(u8::from(body.is_some_and(|body| body.customer_id.is_none())));
    text(consignment.map_or("", |c| c.courier.as_str()), out);
    out.extend(consignment.map_or(0, |c| c.price_minor).to_le_bytes());
    text(consignment.map_or("", |c| &c.currency), out);
    out.extend(consignment.map_or(0, |c| c.promised_at.0).to_le_bytes());
    let attempt = consignment.map_or(0, |c| u16::try_from(c.attempt).unwrap_or(u16::MAX));
    out.extend(attempt.to_le_bytes());
    length(event.refusals.len(), out);
    event.refusals.iter().for_each(|refusal| text(refusal.sku.as_str(), out));
    out.extend(unsigned(source.term).to_le_bytes());
    out.extend(unsigned(source.sequence).to_le_bytes());
    out.extend(source.precedence().to_le_bytes());
    out.extend(u16::try_from(source.partition).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(unsigned(source.offset).to_le_bytes());
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
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

    fn source(term: i64, sequence: i64) -> Source {
        Source { partition: 1, offset: 9, term, sequence }
    }

    #[test]
    fn the_same_event_makes_the_same_bytes_and_another_version_others() {
        let bytes = |version| {
            let mut out = Vec::new();
            encode(&samples::status("a", version), &source(1, 2), &mut out);
            out
        };
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
        // ClickHouse keeps a UUID as two little-endian halves.
        let id = samples::status("a", 1).order_id.0;
        assert_eq!(bytes(1)[..8], id.as_u64_pair().0.to_le_bytes());
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
