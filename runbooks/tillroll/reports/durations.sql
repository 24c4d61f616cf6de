-- Time between states
--
-- Seconds an order took from one status to another, over the orders that have reached both, placed
-- in the period. p50, p95, p99: the value below which that share of orders stays (exact, no
-- interpolation). A long tail of orders that have not arrived yet is not in it: see orders-by-
-- status for what is waiting.
--
-- chart: bar x=step y=p50_s,p95_s,p99_s log
SELECT step, orders, round(q[1] / 1000, 3) AS p50_s, round(q[2] / 1000, 3) AS p95_s,
    round(q[3] / 1000, 3) AS p99_s, (SELECT data_as_of FROM v_data_as_of) AS data_as_of
FROM
(
    SELECT
        [('accepted to reserved', countIf(reserved_ms > 0), quantilesExactIf(0.5, 0.95, 0.99)(reserved_ms - accepted_ms, reserved_ms > 0)),
         ('accepted to rejected', countIf(rejected_ms > 0), quantilesExactIf(0.5, 0.95, 0.99)(rejected_ms - accepted_ms, rejected_ms > 0)),
         ('accepted to routed', countIf(routed_ms > 0), quantilesExactIf(0.5, 0.95, 0.99)(routed_ms - accepted_ms, routed_ms > 0)),
         ('reserved to routed', countIf(reserved_ms > 0 AND routed_ms > 0), quantilesExactIf(0.5, 0.95, 0.99)(routed_ms - reserved_ms, reserved_ms > 0 AND routed_ms > 0)),
         ('routed to shipped', countIf(routed_ms > 0 AND shipped_ms > 0), quantilesExactIf(0.5, 0.95, 0.99)(shipped_ms - routed_ms, routed_ms > 0 AND shipped_ms > 0)),
         ('shipped to delivered', countIf(shipped_ms > 0 AND delivered_ms > 0), quantilesExactIf(0.5, 0.95, 0.99)(delivered_ms - shipped_ms, shipped_ms > 0 AND delivered_ms > 0)),
         ('accepted to delivered', countIf(delivered_ms > 0), quantilesExactIf(0.5, 0.95, 0.99)(delivered_ms - accepted_ms, delivered_ms > 0))] AS steps
    FROM
    (
        SELECT toUnixTimestamp64Milli(accepted_at) AS accepted_ms, toUnixTimestamp64Milli(reserved_at) AS reserved_ms,
            toUnixTimestamp64Milli(rejected_at) AS rejected_ms, toUnixTimestamp64Milli(routed_at) AS routed_ms,
            toUnixTimestamp64Milli(shipped_at) AS shipped_ms, toUnixTimestamp64Milli(delivered_at) AS delivered_ms
        FROM v_orders
        WHERE ordered_day_local BETWEEN {from:Date} AND {to:Date}
          AND ({merchant:String} = '' OR merchant = {merchant:String})
    )
)
ARRAY JOIN steps.1 AS step, steps.2 AS orders, steps.3 AS q
WHERE orders > 0
