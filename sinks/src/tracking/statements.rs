//! Every statement of the sink, prepared once per connection. Rows travel as arrays, one per column.

use tokio_postgres::{Client, Error, Statement};

pub(super) const OFFSET_READ: &str =
    "SELECT next_offset FROM sink_offsets WHERE sink = $1 AND topic = $2 AND \"partition\" = $3";

pub(super) const OFFSET_FIRST: &str = "INSERT INTO sink_offsets VALUES ($1, $2, $3, $4)
    ON CONFLICT DO NOTHING";

/// No row: another process has moved it, or an earlier try of ours went through.
const OFFSET_MOVE: &str = "UPDATE sink_offsets SET next_offset = $5
    WHERE sink = $1 AND topic = $2 AND \"partition\" = $3 AND next_offset = $4";

const EVENTS: &str = "INSERT INTO order_events (order_id, accepted_at, version, merchant, status,
        reason, occurred_at, term, sequence, refusals)
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::int[], $4::text[], $5::text[],
        $6::text[], $7::timestamptz[], $8::bigint[], $9::bigint[], $10::jsonb[])
    ON CONFLICT DO NOTHING";

const ORDERS: &str = "INSERT INTO orders AS o (order_id, accepted_at, version, merchant, status,
        reason, updated_at, term, sequence, currency, total_minor, line_count, ordered_at,
        customer_id, destination, attributes)
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::int[], $4::text[], $5::text[],
        $6::text[], $7::timestamptz[], $8::bigint[], $9::bigint[], $10::text[], $11::bigint[],
        $12::int[], $13::timestamptz[], $14::text[], $15::jsonb[], $16::jsonb[])
    ON CONFLICT (order_id, accepted_at) DO UPDATE SET version = excluded.version,
        status = excluded.status, reason = excluded.reason, updated_at = excluded.updated_at,
        term = excluded.term, sequence = excluded.sequence,
        customer_id = coalesce(o.customer_id, excluded.customer_id),
        destination = coalesce(o.destination, excluded.destination),
        attributes = coalesce(o.attributes, excluded.attributes)
    WHERE (o.version, o.term, o.sequence) < (excluded.version, excluded.term, excluded.sequence)";

const LINES: &str = "INSERT INTO order_lines (order_id, accepted_at, line, sku, quantity,
        unit_price_minor)
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::int[], $4::text[], $5::int[],
        $6::bigint[])
    ON CONFLICT DO NOTHING";

const CONSIGNMENTS: &str = "INSERT INTO consignments AS c (order_id, accepted_at, version, courier,
        consignment_id, tracking_number, price_minor, currency, promised_at, attempt, term, sequence)
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::int[], $4::text[], $5::text[],
        $6::text[], $7::bigint[], $8::text[], $9::timestamptz[], $10::int[], $11::bigint[],
        $12::bigint[])
    ON CONFLICT (order_id, accepted_at, version) DO UPDATE SET courier = excluded.courier,
        consignment_id = excluded.consignment_id, tracking_number = excluded.tracking_number,
        price_minor = excluded.price_minor, currency = excluded.currency,
        promised_at = excluded.promised_at, attempt = excluded.attempt, term = excluded.term,
        sequence = excluded.sequence
    WHERE (c.term, c.sequence) < (excluded.term, excluded.sequence)";

/// Which of these events stand in the table with other content.
pub(super) const EVENTS_DIFFERING: &str = "SELECT count(*)
    FROM unnest($1::uuid[], $2::timestamptz[], $3::int[], $4::text[], $5::text[], $6::text[],
        $7::timestamptz[], $8::jsonb[])
        AS n (order_id, accepted_at, version, merchant, status, reason, occurred_at, refusals)
    JOIN order_events AS o USING (order_id, accepted_at, version)
    WHERE (o.merchant, o.status, o.reason, o.occurred_at, o.refusals)
        IS DISTINCT FROM (n.merchant, n.status, n.reason, n.occurred_at, n.refusals)";

/// Of two events with one identity and different content, the later batch's counts.
pub(super) const EVENTS_SETTLE: &str = "UPDATE order_events AS o SET merchant = n.merchant,
        status = n.status, reason = n.reason, occurred_at = n.occurred_at, refusals = n.refusals,
        term = n.term, sequence = n.sequence
    FROM unnest($1::uuid[], $2::timestamptz[], $3::int[], $4::text[], $5::text[], $6::text[],
        $7::timestamptz[], $8::jsonb[], $9::bigint[], $10::bigint[])
        AS n (order_id, accepted_at, version, merchant, status, reason, occurred_at, refusals,
            term, sequence)
    WHERE o.order_id = n.order_id AND o.accepted_at = n.accepted_at AND o.version = n.version
        AND (o.term, o.sequence) < (n.term, n.sequence)
        AND (o.merchant, o.status, o.reason, o.occurred_at, o.refusals)
            IS DISTINCT FROM (n.merchant, n.status, n.reason, n.occurred_at, n.refusals)";

/// A body that comes after later versions (its record had to be redriven) still fills its gap.
pub(super) const ORDERS_FILL: &str = "UPDATE orders AS o SET customer_id = n.customer_id,
        destination = n.destination, attributes = n.attributes
    FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::jsonb[], $5::jsonb[])
        AS n (order_id, accepted_at, customer_id, destination, attributes)
    WHERE o.order_id = n.order_id AND o.accepted_at = n.accepted_at
        AND o.destination IS NULL AND n.destination IS NOT NULL";

const LEVELS: &str = "INSERT INTO stock_levels AS s (merchant, sku, warehouse, version, on_hand,
        reserved, allocated, changed_at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[],
        $6::bigint[], $7::bigint[], $8::timestamptz[])
    ON CONFLICT (merchant, sku, warehouse) DO UPDATE SET version = excluded.version,
        on_hand = excluded.on_hand, reserved = excluded.reserved, allocated = excluded.allocated,
        changed_at = excluded.changed_at
    WHERE s.version < excluded.version";

const REPEATS: &str =
    "INSERT INTO order_repeats (order_id, accepted_at, merchant, kind, fingerprint,
        repeated_at, source_partition, source_offset)
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::uuid[],
        $6::timestamptz[], $7::int[], $8::bigint[])
    ON CONFLICT DO NOTHING";

/// The statements that run all the time, prepared.
pub(super) struct Statements {
    pub(super) offset_move: Statement,
    pub(super) events: Statement,
    pub(super) orders: Statement,
    pub(super) lines: Statement,
    pub(super) consignments: Statement,
    pub(super) levels: Statement,
    pub(super) repeats: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        Ok(Self {
            offset_move: client.prepare(OFFSET_MOVE).await?,
            events: client.prepare(EVENTS).await?,
            orders: client.prepare(ORDERS).await?,
            lines: client.prepare(LINES).await?,
            consignments: client.prepare(CONSIGNMENTS).await?,
            levels: client.prepare(LEVELS).await?,
            repeats: client.prepare(REPEATS).await?,
        })
    }
}
