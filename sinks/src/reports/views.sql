-- What analysts read. Made anew at every start of the sink, so a view is changed here and nowhere
-- else. {time_zone} is the shop's, from the sink's settings.
--
-- Money: `…_minor` are integers, the same without it decimals, both in the currency beside them.
-- Amounts in different currencies are never added: group by currency, or convert by exchange_rates,
-- leaving out of the total, and counting, what has no rate.
-- Days: `ordered_at` is the shop's business time and decides the day: `ordered_day_local` in its time
-- zone, `ordered_day` in UTC. `accepted_at`, `occurred_at` are our times, `ingested_at` the reports'.
-- A time of 1970 means "not yet".

-- Most currencies have 100 minor units; these have not (ISO 4217).
CREATE OR REPLACE FUNCTION tillroll_decimal AS (minor, currency) -> toDecimal128(minor, 4) / transform(toString(currency),
    ['BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'UYI', 'VND', 'VUV', 'XAF', 'XOF', 'XPF',
     'BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND', 'CLF', 'UYW'],
    [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
     1000, 1000, 1000, 1000, 1000, 1000, 1000, 10000, 10000], 100);

CREATE OR REPLACE VIEW v_order_events AS
SELECT
    order_id, accepted_at, version, merchant, status, reason, occurred_at, ordered_at,
    toDate(ordered_at) AS ordered_day,
    toDate(ordered_at, '{time_zone}') AS ordered_day_local,
    currency,
    tillroll_decimal(total_minor, currency) AS total,
    total_minor, line_count, pieces, country, guest, customer_id, courier,
    tillroll_decimal(courier_price_minor, courier_currency) AS courier_price,
    courier_price_minor, courier_currency, promised_at, attempt, refused_skus,
    kafka_partition, kafka_offset, ingested_at
FROM order_events FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'Every status change once: order_events without duplicates, money also as decimals';

CREATE OR REPLACE VIEW v_order_lines AS
SELECT
    order_id, accepted_at, line, merchant, ordered_at,
    toDate(ordered_at) AS ordered_day,
    toDate(ordered_at, '{time_zone}') AS ordered_day_local,
    currency, sku, quantity,
    tillroll_decimal(unit_price_minor, currency) AS unit_price,
    unit_price_minor,
    tillroll_decimal(toInt64(quantity) * unit_price_minor, currency) AS amount,
    toInt64(quantity) * unit_price_minor AS amount_minor,
    ingested_at
FROM order_lines FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'Every line of every order once; the order''s status says whether it was sold';

CREATE OR REPLACE VIEW v_stock_movements AS
SELECT
    movement_id, merchant, sku, warehouse, kind, quantity, on_hand, source_id, reason, requested_by, moved_at,
    toDate(moved_at, '{time_zone}') AS moved_day_local,
    ingested_at
FROM stock_movements FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'Every movement of stock once: the sum of quantity is what is on hand';

-- Times and texts stand below the precedence that they were told with.
CREATE OR REPLACE FUNCTION tillroll_time AS (told) -> fromUnixTimestamp64Milli(toInt64(bitAnd(told, 18446744073709551615)), 'UTC');

CREATE OR REPLACE VIEW v_order_states AS
SELECT
    order_id, accepted_at, merchant,
    transform(toUInt8(bitAnd(newest, 255)), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13],
        ['received', 'reserved', 'authorized', 'routed', 'paid', 'shipped', 'delivered', 'rejected', 'declined', 'expired', 'cancelled', 'undeliverable', 'returned'],
        'unknown') AS status,
    substring(newest_reason, 25) AS reason,
    toUInt32(bitShiftRight(newest, 72)) AS version,
    bitAnd(newest, 255) >= 8 AS lost,
    toUInt64(bitCount(statuses)) AS events,
    ordered_at, currency, total_minor, line_count, pieces, country, customer_id,
    substring(courier, 17) AS courier,
    toInt64(bitAnd(courier_price, 18446744073709551615)) AS courier_price_minor,
    substring(courier_currency, 17) AS courier_currency,
    tillroll_time(promised) AS promised_at,
    toUInt16(bitAnd(attempt, 65535)) AS courier_attempts,
    tillroll_time(received) AS received_at,
    tillroll_time(reserved) AS reserved_at,
    tillroll_time(authorized) AS authorized_at,
    tillroll_time(routed) AS routed_at,
    tillroll_time(paid) AS paid_at,
    tillroll_time(shipped) AS shipped_at,
    tillroll_time(delivered) AS delivered_at,
    tillroll_time(ended) AS ended_at,
    ingested_at
FROM order_states FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'For support: one row per order as folded from its events; where events and version differ it may be wrong, see v_orders';

-- The second part is for orders that were told a status twice (overdue, refunded), whose events
-- contradict each other until they are settled, or have gaps: few. A status is reached when it is told first,
-- and what is told again names no consignment.
CREATE OR REPLACE VIEW v_orders AS
SELECT
    order_id, accepted_at, merchant, status, reason, version, lost, events, ordered_at,
    toDate(ordered_at) AS ordered_day,
    toDate(ordered_at, '{time_zone}') AS ordered_day_local,
    if(lost, ended_at, multiIf(status = 'delivered', delivered_at, status = 'shipped', shipped_at, status = 'paid', paid_at, status = 'routed', routed_at,
        status = 'authorized', authorized_at, status = 'reserved', reserved_at, received_at)) AS updated_at,
    currency,
    tillroll_decimal(total_minor, currency) AS total,
    total_minor, line_count, pieces, country, customer_id,
    customer_id = '' AS guest,
    courier,
    tillroll_decimal(courier_price_minor, courier_currency) AS courier_price,
    courier_price_minor, courier_currency, promised_at, courier_attempts,
    reserved_at, authorized_at, routed_at, paid_at, shipped_at, delivered_at,
    if(status = 'rejected', ended_at, toDateTime64(0, 3, 'UTC')) AS rejected_at,
    ingested_at AS as_of
FROM v_order_states
WHERE events = version
UNION ALL
SELECT
    e.order_id AS order_id,
    e.accepted_at AS accepted_at,
    any(e.merchant) AS merchant,
    argMax(toString(e.status), e.version) AS status,
    argMax(toString(e.reason), e.version) AS reason,
    max(e.version) AS version,
    argMax(e.status, e.version) IN ('rejected', 'declined', 'expired', 'cancelled', 'undeliverable', 'returned') AS lost,
    count() AS events,
    any(e.ordered_at) AS ordered_at,
    any(e.ordered_day) AS ordered_day,
    any(e.ordered_day_local) AS ordered_day_local,
    argMax(e.occurred_at, e.version) AS updated_at,
    any(toString(e.currency)) AS currency,
    any(e.total) AS total,
    any(e.total_minor) AS total_minor,
    any(e.line_count) AS line_count,
    max(e.pieces) AS pieces,
    max(toString(e.country)) AS country,
    max(e.customer_id) AS customer_id,
    max(e.customer_id) = '' AS guest,
    argMaxIf(toString(e.courier), e.version, e.courier != '') AS courier,
    argMaxIf(e.courier_price, e.version, e.courier != '') AS courier_price,
    argMaxIf(e.courier_price_minor, e.version, e.courier != '') AS courier_price_minor,
    argMaxIf(toString(e.courier_currency), e.version, e.courier != '') AS courier_currency,
    argMaxIf(e.promised_at, e.version, e.courier != '') AS promised_at,
    argMaxIf(e.attempt, e.version, e.courier != '') AS courier_attempts,
    minIf(e.occurred_at, e.status = 'reserved') AS reserved_at,
    minIf(e.occurred_at, e.status = 'authorized') AS authorized_at,
    minIf(e.occurred_at, e.status = 'routed') AS routed_at,
    minIf(e.occurred_at, e.status = 'paid') AS paid_at,
    minIf(e.occurred_at, e.status = 'shipped') AS shipped_at,
    minIf(e.occurred_at, e.status = 'delivered') AS delivered_at,
    minIf(e.occurred_at, e.status = 'rejected') AS rejected_at,
    max(e.ingested_at) AS as_of
FROM v_order_events AS e
WHERE e.order_id IN (SELECT order_id FROM v_order_states WHERE events != version)
GROUP BY e.order_id, e.accepted_at
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'One row per order: its last status, amounts and times (1970 = not yet); lost = it ended without a sale; as_of = data as of';

CREATE OR REPLACE VIEW v_exchange_rates AS
SELECT day, currency, into, rate FROM exchange_rates FINAL
COMMENT 'From day on, one unit of currency is rate units of into';

CREATE OR REPLACE VIEW v_data_as_of AS
SELECT max(ingested_at) AS data_as_of FROM order_states
COMMENT 'When the newest row of order events was stored: what happened later is not in the reports yet';

-- Roll-ups: computed anew, as a whole, beside everything else, and put in place at once; so they are
-- exact as of `as_of`, however often a row arrived. Where the engine may, it gives way to all others.
CREATE MATERIALIZED VIEW IF NOT EXISTS rollup_sku_daily
REFRESH EVERY 10 MINUTE
(
    merchant      LowCardinality(String) COMMENT 'The shop',
    day           Date                   COMMENT 'Day of ordered_at in the shop''s time zone',
    sku           String                 COMMENT 'What was ordered',
    currency      LowCardinality(String) COMMENT 'ISO 4217 code of the amounts',
    lines         UInt64                 COMMENT 'Lines of orders that are not lost',
    pieces        UInt64                 COMMENT 'Pieces in these lines',
    revenue_minor Int64                  COMMENT 'Quantity times price of these lines, minor units',
    lost_pieces   UInt64                 COMMENT 'Pieces in orders that ended without a sale',
    lost_minor    Int64                  COMMENT 'Quantity times price of those, minor units',
    as_of         DateTime64(3, 'UTC')   COMMENT 'Data as of: later events are not in it'
)
ENGINE = MergeTree ORDER BY (merchant, day, sku, currency)
AS
WITH (SELECT data_as_of FROM v_data_as_of) AS newest
SELECT
    merchant, ordered_day_local AS day, sku, currency,
    countIf(NOT is_lost) AS lines, sumIf(quantity, NOT is_lost) AS pieces, sumIf(amount_minor, NOT is_lost) AS revenue_minor,
    sumIf(quantity, is_lost) AS lost_pieces, sumIf(amount_minor, is_lost) AS lost_minor, newest AS as_of
FROM
(
    SELECT merchant, ordered_day_local, sku, currency, quantity, amount_minor,
        (order_id, accepted_at) IN (SELECT order_id, accepted_at FROM v_orders WHERE lost) AS is_lost
    FROM v_order_lines
)
GROUP BY merchant, day, sku, currency
SETTINGS max_threads = 1, os_threads_nice_value_query = 19
COMMENT 'Sales by SKU and local day, every ten minutes';

CREATE MATERIALIZED VIEW IF NOT EXISTS rollup_sales_hourly
REFRESH EVERY 5 MINUTE
(
    merchant    LowCardinality(String) COMMENT 'The shop',
    hour        DateTime('UTC')        COMMENT 'UTC hour of ordered_at',
    currency    LowCardinality(String) COMMENT 'ISO 4217 code of the amounts',
    orders      UInt64                 COMMENT 'Orders accepted',
    lost_orders UInt64                 COMMENT 'Of these, ended without a sale',
    gross_minor Int64                  COMMENT 'Totals of all, minor units',
    lost_minor  Int64                  COMMENT 'Totals of the lost, minor units',
    pieces      UInt64                 COMMENT 'Pieces of all',
    as_of       DateTime64(3, 'UTC')   COMMENT 'Data as of: later events are not in it'
)
ENGINE = MergeTree ORDER BY (merchant, hour, currency)
AS
WITH (SELECT data_as_of FROM v_data_as_of) AS newest
SELECT
    merchant, toStartOfHour(ordered_at) AS hour, currency, count() AS orders, countIf(o.lost) AS lost_orders,
    sum(o.total_minor) AS gross_minor, sumIf(o.total_minor, o.lost) AS lost_minor, sum(o.pieces) AS pieces, newest AS as_of
FROM v_orders AS o
GROUP BY merchant, hour, currency
SETTINGS max_threads = 1, os_threads_nice_value_query = 19
COMMENT 'Sales by hour, every five minutes';
