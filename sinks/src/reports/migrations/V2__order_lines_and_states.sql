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
-- that comes twice does no harm. Of two stories for one status the one with the higher precedence counts, so it
-- stands in front of the value. A status that was told for a version that has another in truth, by a
-- batch that was torn and redone, leaves one bit too many: v_orders sees it and takes such an order from
-- its events. Numbers, not tuples: the greatest tuple costs ten times the greatest number, and a part of one
-- read alone is not merged by FINAL.
CREATE TABLE IF NOT EXISTS order_states (
    merchant         LowCardinality(String) COMMENT 'The shop',
    order_id         UUID COMMENT 'The order; the same in every event, API and table',
    accepted_at      DateTime64(3, 'UTC') COMMENT 'When the order was accepted; with order_id its identity' CODEC(Delta(8), ZSTD(1)),
    newest           SimpleAggregateFunction(max, UInt128) COMMENT 'Version (from bit 72), precedence (from bit 8) and place in the list of statuses (8 bits) of the newest change; greatest = newest',
    newest_reason    SimpleAggregateFunction(max, String) COMMENT 'Its reason, behind 24 hexadecimal digits of version and precedence',
    statuses         SimpleAggregateFunction(groupBitOr, UInt32) COMMENT 'One bit per status the order has been in; as many as its version says, or v_orders reads it from its events',
    ordered_at       SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'The shop''s own time of the order; reports by business day use it' CODEC(Delta(8), ZSTD(1)),
    currency         SimpleAggregateFunction(max, String) COMMENT 'ISO 4217 code of total_minor',
    total_minor      SimpleAggregateFunction(max, Int64) COMMENT 'Order total in minor units of currency (cents; yen as they are)',
    line_count       SimpleAggregateFunction(max, UInt32) COMMENT 'Lines of the order',
    pieces           SimpleAggregateFunction(max, UInt64) COMMENT 'Pieces over all lines',
    country          SimpleAggregateFunction(max, String) COMMENT 'Destination, ISO 3166-1 alpha-2',
    customer_id      SimpleAggregateFunction(max, String) COMMENT 'The shop''s own code of its customer; empty for a guest',
    received         SimpleAggregateFunction(max, UInt128) COMMENT 'When it was received: precedence in the upper 64 bits, milliseconds since 1970 in the lower; 0 = never, here and below',
    reserved         SimpleAggregateFunction(max, UInt128) COMMENT 'When every line was held, in the same form',
    authorized       SimpleAggregateFunction(max, UInt128) COMMENT 'When the payment was authorized',
    routed           SimpleAggregateFunction(max, UInt128) COMMENT 'When a courier took it',
    paid             SimpleAggregateFunction(max, UInt128) COMMENT 'When the payment was captured',
    shipped          SimpleAggregateFunction(max, UInt128) COMMENT 'When it was handed over to the courier',
    delivered        SimpleAggregateFunction(max, UInt128) COMMENT 'When it arrived',
    ended            SimpleAggregateFunction(max, UInt128) COMMENT 'When it ended without a sale, by whatever status',
    courier          SimpleAggregateFunction(max, String) COMMENT 'The courier that took it, behind 16 hexadecimal digits of precedence',
    courier_price    SimpleAggregateFunction(max, UInt128) COMMENT 'What the courier charges, minor units of courier_currency, below the precedence',
    courier_currency SimpleAggregateFunction(max, String) COMMENT 'ISO 4217 code, behind 16 hexadecimal digits of precedence',
    promised         SimpleAggregateFunction(max, UInt128) COMMENT 'The courier''s promise, milliseconds since 1970, below the precedence',
    attempt          SimpleAggregateFunction(max, UInt128) COMMENT 'Which courier in turn took it, below the precedence',
    ingested_at      SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'When the newest of its events was stored' CODEC(Delta(8), ZSTD(1))
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
    max(bitOr(bitOr(bitShiftLeft(toUInt128(version), 72), bitShiftLeft(toUInt128(precedence), 8)), toUInt128(indexOf(['received', 'reserved', 'authorized', 'routed', 'paid', 'shipped', 'delivered', 'rejected', 'declined', 'expired', 'cancelled', 'undeliverable', 'returned'], toString(status))))) AS newest,
    max(concat(leftPad(hex(version), 8, '0'), leftPad(hex(precedence), 16, '0'), toString(reason))) AS newest_reason,
    groupBitOr(toUInt32(bitShiftRight(bitShiftLeft(toUInt64(1), indexOf(['received', 'reserved', 'authorized', 'routed', 'paid', 'shipped', 'delivered', 'rejected', 'declined', 'expired', 'cancelled', 'undeliverable', 'returned'], toString(status))), 1))) AS statuses,
    max(e.ordered_at) AS ordered_at,
    max(toString(e.currency)) AS currency,
    max(e.total_minor) AS total_minor,
    max(e.line_count) AS line_count,
    max(e.pieces) AS pieces,
    max(toString(e.country)) AS country,
    max(e.customer_id) AS customer_id,
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(occurred_at))), status = 'received') AS received,
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(occurred_at))), status = 'reserved') AS reserved,
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(occurred_at))), status = 'authorized') AS authorized,
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(occurred_at))), status = 'routed') AS routed,
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(occurred_at))), status = 'paid') AS paid,
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(occurred_at))), status = 'shipped') AS shipped,
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(occurred_at))), status = 'delivered') AS delivered,
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(occurred_at))), status IN ('rejected', 'declined', 'expired', 'cancelled', 'undeliverable', 'returned')) AS ended,
    maxIf(concat(leftPad(hex(precedence), 16, '0'), toString(courier)), status = 'routed') AS courier,
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(courier_price_minor)), status = 'routed') AS courier_price,
    maxIf(concat(leftPad(hex(precedence), 16, '0'), toString(courier_currency)), status = 'routed') AS courier_currency,
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(promised_at))), status = 'routed') AS promised,
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(attempt)), status = 'routed') AS attempt,
    max(e.ingested_at) AS ingested_at
FROM order_events AS e
GROUP BY merchant, order_id, accepted_at;

-- What was there before the fold.
INSERT INTO order_states (merchant, order_id, accepted_at, newest, newest_reason, statuses, ordered_at, currency, total_minor, line_count, pieces, country, customer_id, received, reserved, authorized, routed, paid, shipped, delivered, ended, courier, courier_price, courier_currency, promised, attempt, ingested_at)
SELECT
    merchant, order_id, accepted_at,
    max(bitOr(bitOr(bitShiftLeft(toUInt128(version), 72), bitShiftLeft(toUInt128(precedence), 8)), toUInt128(indexOf(['received', 'reserved', 'authorized', 'routed', 'paid', 'shipped', 'delivered', 'rejected', 'declined', 'expired', 'cancelled', 'undeliverable', 'returned'], toString(status))))),
    max(concat(leftPad(hex(version), 8, '0'), leftPad(hex(precedence), 16, '0'), toString(reason))),
    groupBitOr(toUInt32(bitShiftRight(bitShiftLeft(toUInt64(1), indexOf(['received', 'reserved', 'authorized', 'routed', 'paid', 'shipped', 'delivered', 'rejected', 'declined', 'expired', 'cancelled', 'undeliverable', 'returned'], toString(status))), 1))),
    max(e.ordered_at),
    max(toString(e.currency)),
    max(e.total_minor),
    max(e.line_count),
    max(e.pieces),
    max(toString(e.country)),
    max(e.customer_id),
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(occurred_at))), status = 'received'),
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(occurred_at))), status = 'reserved'),
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(occurred_at))), status = 'authorized'),
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(occurred_at))), status = 'routed'),
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(occurred_at))), status = 'paid'),
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(occurred_at))), status = 'shipped'),
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(occurred_at))), status = 'delivered'),
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(occurred_at))), status IN ('rejected', 'declined', 'expired', 'cancelled', 'undeliverable', 'returned')),
    maxIf(concat(leftPad(hex(precedence), 16, '0'), toString(courier)), status = 'routed'),
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(courier_price_minor)), status = 'routed'),
    maxIf(concat(leftPad(hex(precedence), 16, '0'), toString(courier_currency)), status = 'routed'),
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(toUnixTimestamp64Milli(promised_at))), status = 'routed'),
    maxIf(bitOr(bitShiftLeft(toUInt128(precedence), 64), toUInt128(attempt)), status = 'routed'),
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
