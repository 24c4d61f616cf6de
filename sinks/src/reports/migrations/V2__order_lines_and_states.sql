-- What analysts ask most, ready to be asked: lines of orders, and one row per order folded from its
-- events. Retention: three years after acceptance, whole months at a time.

ALTER TABLE order_events
    ADD COLUMN IF NOT EXISTS customer_id String COMMENT 'The shop''s own code of its customer; with version 1 only, empty for a guest' AFTER guest;

ALTER TABLE order_events MODIFY SETTING ttl_only_drop_parts = 1;

ALTER TABLE order_events MODIFY TTL toDateTime(accepted_at) + INTERVAL 1096 DAY SETTINGS materialize_ttl_after_modify = 0;

CREATE TABLE IF NOT EXISTS order_lines (
    order_id       UUID                   COMMENT 'The order; the same in every event, API and table',
    accepted_at    DateTime64(3, 'UTC')   COMMENT 'When the order was accepted; with order_id its identity' CODEC(Delta(8), ZSTD(1)),
    line           UInt32                 COMMENT 'Position in the order, from 1; one SKU may stand in several',
    merchant       LowCardinality(String) COMMENT 'The shop',
    ordered_at     DateTime64(3, 'UTC')   COMMENT 'The shop''s own time of the order; reports by business day use it' CODEC(Delta(8), ZSTD(1)),
    currency       LowCardinality(String) COMMENT 'ISO 4217 code of unit_price_minor',
    sku            String                 COMMENT 'What was ordered',
    quantity       UInt32                 COMMENT 'Pieces ordered, 1 or more; whether they were sold is the order''s status to say',
    unit_price_minor Int64                COMMENT 'Price of a piece in minor units of currency (cents; yen as they are)',
    precedence     UInt64                 COMMENT 'Which batch wrote the line: of two rows with one key the higher counts',
    ingested_at    DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') COMMENT 'When the row was stored' CODEC(Delta(8), ZSTD(1))
)
ENGINE = ReplacingMergeTree(precedence)
PARTITION BY toYYYYMM(accepted_at)
ORDER BY (merchant, toDate(accepted_at), order_id, accepted_at, line)
TTL toDateTime(accepted_at) + INTERVAL 1096 DAY
SETTINGS non_replicated_deduplication_window = 10000, auto_statistics_types = '', min_parts_to_merge_at_once = 16, ttl_only_drop_parts = 1
COMMENT 'One row per line of an order; read it through v_order_lines';

-- Folded from events by functions that repetition does not change (greatest, bits set), so a block
-- that comes twice does no harm. A status that was written twice for one version, by a batch that was torn
-- and redone, leaves one bit too many: v_orders sees it and takes such an order from its events.
CREATE TABLE IF NOT EXISTS order_states (
    merchant       LowCardinality(String) COMMENT 'The shop',
    order_id       UUID                   COMMENT 'The order; the same in every event, API and table',
    accepted_at    DateTime64(3, 'UTC')   COMMENT 'When the order was accepted; with order_id its identity' CODEC(Delta(8), ZSTD(1)),
    newest         SimpleAggregateFunction(max, Tuple(version UInt32, precedence UInt64, status String, reason String, at DateTime64(3, 'UTC'))) COMMENT 'The newest status, and when it changed',
    statuses       SimpleAggregateFunction(groupBitOr, UInt32) COMMENT 'One bit per status the order has been in; as many as its version says, or the order is read from its events',
    ordered_at     SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'The shop''s own time of the order; reports by business day use it' CODEC(Delta(8), ZSTD(1)),
    currency       SimpleAggregateFunction(max, String) COMMENT 'ISO 4217 code of total_minor',
    total_minor    SimpleAggregateFunction(max, Int64) COMMENT 'Order total in minor units of currency (cents; yen as they are)',
    line_count     SimpleAggregateFunction(max, UInt32) COMMENT 'Lines of the order',
    pieces         SimpleAggregateFunction(max, UInt64) COMMENT 'Pieces over all lines',
    country        SimpleAggregateFunction(max, String) COMMENT 'Destination, ISO 3166-1 alpha-2',
    customer_id    SimpleAggregateFunction(max, String) COMMENT 'The shop''s own code of its customer; empty for a guest',
    reserved       SimpleAggregateFunction(max, Tuple(precedence UInt64, at DateTime64(3, 'UTC'))) COMMENT 'When every line was held; at 1970 = not yet, here and below',
    authorized     SimpleAggregateFunction(max, Tuple(precedence UInt64, at DateTime64(3, 'UTC'))) COMMENT 'When the payment was authorized',
    routed         SimpleAggregateFunction(max, Tuple(precedence UInt64, at DateTime64(3, 'UTC'), courier String, price_minor Int64, currency String, promised_at DateTime64(3, 'UTC'), attempt UInt16)) COMMENT 'When a courier took it, which one, at what price, with which promise',
    paid           SimpleAggregateFunction(max, Tuple(precedence UInt64, at DateTime64(3, 'UTC'))) COMMENT 'When the payment was captured',
    shipped        SimpleAggregateFunction(max, Tuple(precedence UInt64, at DateTime64(3, 'UTC'))) COMMENT 'When it was handed over to the courier',
    delivered      SimpleAggregateFunction(max, Tuple(precedence UInt64, at DateTime64(3, 'UTC'))) COMMENT 'When it arrived',
    ingested_at    SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'When the newest of its events was stored' CODEC(Delta(8), ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(accepted_at)
ORDER BY (merchant, toDate(accepted_at), order_id, accepted_at)
TTL toDateTime(accepted_at) + INTERVAL 1096 DAY
SETTINGS non_replicated_deduplication_window = 10000, auto_statistics_types = '', min_parts_to_merge_at_once = 16, ttl_only_drop_parts = 1
COMMENT 'One row per order, folded from order_events; read it through v_orders';

CREATE MATERIALIZED VIEW IF NOT EXISTS order_states_fold TO order_states AS
SELECT
    merchant, order_id, accepted_at,
    max((version, precedence, toString(status), toString(reason), occurred_at)) AS newest,
    groupBitOr(toUInt32(transform(toString(status),
        ['received', 'reserved', 'authorized', 'routed', 'paid', 'shipped', 'delivered', 'rejected', 'declined', 'expired', 'cancelled', 'undeliverable', 'returned'],
        [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096], 0))) AS statuses,
    max(e.ordered_at) AS ordered_at,
    max(toString(e.currency)) AS currency,
    max(e.total_minor) AS total_minor,
    max(e.line_count) AS line_count,
    max(e.pieces) AS pieces,
    max(toString(e.country)) AS country,
    max(e.customer_id) AS customer_id,
    maxIf((precedence, occurred_at), status = 'reserved') AS reserved,
    maxIf((precedence, occurred_at), status = 'authorized') AS authorized,
    maxIf((precedence, occurred_at, toString(courier), courier_price_minor, toString(courier_currency), promised_at, attempt), status = 'routed') AS routed,
    maxIf((precedence, occurred_at), status = 'paid') AS paid,
    maxIf((precedence, occurred_at), status = 'shipped') AS shipped,
    maxIf((precedence, occurred_at), status = 'delivered') AS delivered,
    max(e.ingested_at) AS ingested_at
FROM order_events AS e
GROUP BY merchant, order_id, accepted_at;

INSERT INTO order_states
SELECT
    merchant, order_id, accepted_at,
    max((version, precedence, toString(status), toString(reason), occurred_at)) AS newest,
    groupBitOr(toUInt32(transform(toString(status),
        ['received', 'reserved', 'authorized', 'routed', 'paid', 'shipped', 'delivered', 'rejected', 'declined', 'expired', 'cancelled', 'undeliverable', 'returned'],
        [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096], 0))) AS statuses,
    max(e.ordered_at), max(toString(e.currency)), max(e.total_minor), max(e.line_count), max(e.pieces),
    max(toString(e.country)), max(e.customer_id),
    maxIf((precedence, occurred_at), status = 'reserved'),
    maxIf((precedence, occurred_at), status = 'authorized'),
    maxIf((precedence, occurred_at, toString(courier), courier_price_minor, toString(courier_currency), promised_at, attempt), status = 'routed'),
    maxIf((precedence, occurred_at), status = 'paid'),
    maxIf((precedence, occurred_at), status = 'shipped'),
    maxIf((precedence, occurred_at), status = 'delivered'),
    max(e.ingested_at)
FROM order_events AS e
GROUP BY merchant, order_id, accepted_at
SETTINGS max_threads = 1, max_partitions_per_insert_block = 0;

CREATE TABLE IF NOT EXISTS exchange_rates (
    day            Date                   COMMENT 'From this day on, until the next one of the same pair',
    currency       LowCardinality(String) COMMENT 'ISO 4217 code of the money that is converted',
    into           LowCardinality(String) COMMENT 'ISO 4217 code of the money it becomes',
    rate           Decimal(18, 8)         COMMENT 'How much of `into` one unit of `currency` is',
    set_at         DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') COMMENT 'When the rate was entered; the last one counts'
)
ENGINE = ReplacingMergeTree(set_at)
ORDER BY (into, currency, day)
COMMENT 'Rates for totals across currencies: without one, an order is counted but not added';
