-- Tables and views of the sink `reports`. Statements are safe to repeat: there is no transaction
-- around them. Analysts read the views; `order_events` may hold a row twice until it is merged.
--
-- The sorting key is a function of (order_id, accepted_at, version), for an order's id is derived
-- from its merchant; the month of accepted_at never changes, so both copies of a row meet in one
-- partition. Without a deduplication window an identical retry would be inserted again.
--
-- Blocks are small and many: by default ClickHouse would keep statistics of every column of each,
-- and rewrite a row at every few blocks that follow.

CREATE TABLE IF NOT EXISTS order_events (
    order_id       UUID                   COMMENT 'The order; the same in every event, API and table',
    accepted_at    DateTime64(3, 'UTC')   COMMENT 'When the order was accepted; with order_id its identity' CODEC(Delta(8), ZSTD(1)),
    version        UInt32                 COMMENT 'Version of the order''s status, gapless from 1; a gap means a lost event',
    merchant       LowCardinality(String) COMMENT 'The shop',
    status         LowCardinality(String) COMMENT 'The status from this event on: received, reserved, authorized, routed, paid, shipped, delivered, rejected, declined, expired, cancelled, undeliverable, returned',
    reason         LowCardinality(String) COMMENT 'Machine-readable cause, e.g. sold_out; empty where the status says it all',
    occurred_at    DateTime64(3, 'UTC')   COMMENT 'When the status changed' CODEC(Delta(8), ZSTD(1)),
    ordered_at     DateTime64(3, 'UTC')   COMMENT 'The shop''s own time of the order; reports by business day use it' CODEC(Delta(8), ZSTD(1)),
    currency       LowCardinality(String) COMMENT 'ISO 4217 code of total_minor',
    total_minor    Int64                  COMMENT 'Order total in minor units of currency (cents; yen as they are)',
    line_count     UInt32                 COMMENT 'Lines of the order',
    pieces         UInt64                 COMMENT 'Pieces over all lines; with version 1 only, else 0',
    country        LowCardinality(String) COMMENT 'Destination, ISO 3166-1 alpha-2; with version 1 only, else empty',
    guest          Bool                   COMMENT 'Ordered without a customer account; with version 1 only, else false',
    courier        LowCardinality(String) COMMENT 'Courier that took the order; with routed only, else empty',
    courier_price_minor Int64             COMMENT 'What the courier charges, minor units of courier_currency; with routed only',
    courier_currency LowCardinality(String) COMMENT 'ISO 4217 code of courier_price_minor; with routed only, else empty',
    promised_at    DateTime64(3, 'UTC')   COMMENT 'The courier''s promise of delivery; with routed only, else 1970' CODEC(Delta(8), ZSTD(1)),
    attempt        UInt16                 COMMENT 'Which courier in turn took it: more than 1 means that others failed; 0 without courier',
    refused_skus   Array(String)          COMMENT 'SKUs that could not be served; with rejected only, else empty',
    term           UInt64                 COMMENT 'With sequence: the batch that wrote the event, for support',
    sequence       UInt64                 COMMENT 'See term',
    precedence     UInt64                 COMMENT 'term and sequence as one number: of two rows with one key the higher counts',
    kafka_partition UInt16                COMMENT 'Where the event stands in topic order-status',
    kafka_offset   UInt64                 COMMENT 'See kafka_partition' CODEC(Delta(8), ZSTD(1)),
    ingested_at    DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') COMMENT 'When the row was stored; minus occurred_at it is the freshness of reports' CODEC(Delta(8), ZSTD(1))
)
ENGINE = ReplacingMergeTree(precedence)
PARTITION BY toYYYYMM(accepted_at)
ORDER BY (merchant, toDate(accepted_at), order_id, accepted_at, version)
SETTINGS non_replicated_deduplication_window = 10000, auto_statistics_types = '', min_parts_to_merge_at_once = 16
COMMENT 'One row per change of an order''s status; read it through v_order_events';

CREATE OR REPLACE VIEW v_order_events AS
WITH
    -- Currencies whose unit has not 100 minor ones, and how many it has (ISO 4217).
    ['BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'UYI', 'VND', 'VUV', 'XAF', 'XOF', 'XPF',
     'BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND', 'CLF', 'UYW'] AS currencies,
    [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
     1000, 1000, 1000, 1000, 1000, 1000, 1000, 10000, 10000] AS minor_units
SELECT
    order_id, accepted_at, version, merchant, status, reason, occurred_at, ordered_at, currency,
    toDecimal128(total_minor, 4) / transform(currency, currencies, minor_units, 100) AS total,
    total_minor, line_count, pieces, country, guest, courier,
    toDecimal128(courier_price_minor, 4) / transform(courier_currency, currencies, minor_units, 100) AS courier_price,
    courier_price_minor, courier_currency, promised_at, attempt, refused_skus,
    kafka_partition, kafka_offset, ingested_at
FROM order_events FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'Every status change once: order_events without duplicates, money also as decimals';

CREATE OR REPLACE VIEW v_orders AS
SELECT
    e.order_id AS order_id,
    e.accepted_at AS accepted_at,
    any(e.merchant) AS merchant,
    argMax(e.status, e.version) AS status,
    argMax(e.reason, e.version) AS reason,
    max(e.version) AS version,
    count() AS events,
    any(e.ordered_at) AS ordered_at,
    max(e.occurred_at) AS updated_at,
    any(e.currency) AS currency,
    any(e.total) AS total,
    any(e.total_minor) AS total_minor,
    any(e.line_count) AS line_count,
    max(e.pieces) AS pieces,
    max(e.country) AS country,
    max(e.guest) AS guest,
    argMaxIf(e.courier, e.version, e.courier != '') AS courier,
    argMaxIf(e.courier_price, e.version, e.courier != '') AS courier_price,
    argMaxIf(e.courier_currency, e.version, e.courier != '') AS courier_currency,
    argMaxIf(e.promised_at, e.version, e.courier != '') AS promised_at,
    max(e.attempt) AS courier_attempts,
    minIf(e.occurred_at, e.status = 'reserved') AS reserved_at,
    minIf(e.occurred_at, e.status = 'routed') AS routed_at,
    minIf(e.occurred_at, e.status = 'rejected') AS rejected_at,
    minIf(e.occurred_at, e.status = 'delivered') AS delivered_at,
    max(e.ingested_at) AS as_of
FROM v_order_events AS e
GROUP BY e.order_id, e.accepted_at
COMMENT 'One row per order: its last status, amounts and times (1970 = not yet); as_of = data as of';
