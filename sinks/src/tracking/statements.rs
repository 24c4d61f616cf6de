//! Every statement of the sink, prepared once per connection. Rows travel as arrays, one per column.
//!
//! `SELECT unnest(…), unnest(…)` takes all arrays in step, row by row; `FROM unnest(…, …)` would write
//! every column into a tuple store first, which costs a third of an insert.

use tokio_postgres::{Client, Error, GenericClient, Statement};

const EVENTS: &str = "INSERT INTO order_events (order_id, accepted_at, version, merchant, status,
        reason, occurred_at, term, sequence, refusals)
    SELECT unnest($1::uuid[]), unnest($2::timestamptz[]), unnest($3::int[]), unnest($4::text[]),
        unnest($5::text[]), unnest($6::text[]), unnest($7::timestamptz[]), unnest($8::bigint[]),
        unnest($9::bigint[]), unnest($10::jsonb[])";

const ORDERS: &str = "INSERT INTO orders AS o (order_id, accepted_at, version, merchant, status,
        reason, updated_at, term, sequence, currency, total_minor, line_count, ordered_at,
        customer_id, destination, attributes)
    SELECT unnest($1::uuid[]), unnest($2::timestamptz[]), unnest($3::int[]), unnest($4::text[]),
        unnest($5::text[]), unnest($6::text[]), unnest($7::timestamptz[]), unnest($8::bigint[]),
        unnest($9::bigint[]), unnest($10::text[]), unnest($11::bigint[]), unnest($12::int[]),
        unnest($13::timestamptz[]), unnest($14::text[]), unnest($15::jsonb[]), unnest($16::jsonb[])
    ON CONFLICT (order_id, accepted_at) DO UPDATE SET version = excluded.version,
        status = excluded.status, reason = excluded.reason, updated_at = excluded.updated_at,
        term = excluded.term, sequence = excluded.sequence,
        customer_id = coalesce(o.customer_id, excluded.customer_id),
        destination = coalesce(o.destination, excluded.destination),
        attributes = coalesce(o.attributes, excluded.attributes)
    WHERE (o.version, o.term, o.sequence) < (excluded.version, excluded.term, excluded.sequence)";

const LINES: &str = "INSERT INTO order_lines (order_id, accepted_at, line, sku, quantity,
        unit_price_minor)
    SELECT unnest($1::uuid[]), unnest($2::timestamptz[]), unnest($3::int[]), unnest($4::text[]),
        unnest($5::int[]), unnest($6::bigint[])";

const CONSIGNMENTS: &str = "INSERT INTO consignments AS c (order_id, accepted_at, version, courier,
        consignment_id, tracking_number, price_minor, currency, promised_at, attempt, term, sequence)
    SELECT unnest($1::uuid[]), unnest($2::timestamptz[]), unnest($3::int[]), unnest($4::text[]),
        unnest($5::text[]), unnest($6::text[]), unnest($7::bigint[]), unnest($8::text[]),
        unnest($9::timestamptz[]), unnest($10::int[]), unnest($11::bigint[]), unnest($12::bigint[])";

/// Where rows are there already, for events and lines: they stay.
const UNLESS_THERE: &str = "ON CONFLICT DO NOTHING";

/// Where rows are there already, for consignments: the later batch's count.
const UNLESS_LATER: &str =
    "ON CONFLICT (order_id, accepted_at, version) DO UPDATE SET courier = excluded.courier,
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
        reserved, allocated, changed_at, set_aside, missing)
    SELECT unnest($1::text[]), unnest($2::text[]), unnest($3::text[]), unnest($4::bigint[]),
        unnest($5::bigint[]), unnest($6::bigint[]), unnest($7::bigint[]), unnest($8::timestamptz[]),
        unnest($9::bigint[]), unnest($10::bigint[])
    ON CONFLICT (merchant, sku, warehouse) DO UPDATE SET version = excluded.version,
        on_hand = excluded.on_hand, reserved = excluded.reserved, allocated = excluded.allocated,
        changed_at = excluded.changed_at, set_aside = excluded.set_aside,
        missing = excluded.missing
    WHERE s.version < excluded.version";

const REPEATS: &str =
    "INSERT INTO order_repeats (order_id, accepted_at, merchant, kind, fingerprint,
        repeated_at, source_partition, source_offset)
    SELECT unnest($1::uuid[]), unnest($2::timestamptz[]), unnest($3::text[]), unnest($4::text[]),
        unnest($5::uuid[]), unnest($6::timestamptz[]), unnest($7::int[]), unnest($8::bigint[])
    ON CONFLICT DO NOTHING";

const MOVEMENTS: &str = "INSERT INTO stock_movements (movement_id, merchant, sku, warehouse, kind,
        quantity, on_hand, source_id, reason, requested_by, moved_at)
    SELECT unnest($1::uuid[]), unnest($2::text[]), unnest($3::text[]), unnest($4::text[]),
        unnest($5::text[]), unnest($6::bigint[]), unnest($7::bigint[]), unnest($8::uuid[]),
        unnest($9::text[]), unnest($10::text[]), unnest($11::timestamptz[])
    ON CONFLICT DO NOTHING";

/// The inserts of rows that are written once: whatever holds them is read once, unless something
/// went wrong before.
pub(super) struct Inserts {
    pub(super) events: Statement,
    pub(super) lines: Statement,
    pub(super) consignments: Statement,
}

impl Inserts {
    /// Fails with a unique violation where a row is there already. Without `ON CONFLICT` the index is
    /// searched once per row, not twice, and the row is written in one step: half the cost.
    async fn fresh(client: &impl GenericClient) -> Result<Self, Error> {
        Ok(Self {
            events: client.prepare(EVENTS).await?,
            lines: client.prepare(LINES).await?,
            consignments: client.prepare(CONSIGNMENTS).await?,
        })
    }

    /// Goes on where rows are there already.
    pub(super) async fn careful(client: &impl GenericClient) -> Result<Self, Error> {
        Ok(Self {
            events: client.prepare(&format!("{EVENTS} {UNLESS_THERE}")).await?,
            lines: client.prepare(&format!("{LINES} {UNLESS_THERE}")).await?,
            consignments: client.prepare(&format!("{CONSIGNMENTS} {UNLESS_LATER}")).await?,
        })
    }
}

/// The statements that run all the time, prepared.
pub(crate) struct Statements {
    pub(super) fresh: Inserts,
    pub(super) orders: Statement,
    pub(super) levels: Statement,
    pub(super) repeats: Statement,
    pub(super) movements: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        Ok(Self {
            fresh: Inserts::fresh(client).await?,
            orders: client.prepare(ORDERS).await?,
            levels: client.prepare(LEVELS).await?,
            repeats: client.prepare(REPEATS).await?,
            movements: client.prepare(MOVEMENTS).await?,
        })
    }
}
