-- Revenue per hour
--
-- For every UTC hour of ordered_at, the shop's own time of the order, hours without orders
-- included, and every currency apart: orders: orders accepted. gross: their totals. lost: the part
-- of gross whose orders ended without a sale (rejected, declined, expired, cancelled,
-- undeliverable, returned), at whatever time that was. net: gross - lost. An hour's figures move
-- until its last order has ended.
--
-- chart: bar x=hour y=net,lost stack group=currency
SELECT hour, currency, orders, gross, lost, gross - lost AS net,
    (SELECT data_as_of FROM v_data_as_of) AS data_as_of
FROM
(
    SELECT toStartOfHour(ordered_at) AS hour, currency, count() AS orders,
        sum(o.total) AS gross, sumIf(o.total, o.lost) AS lost
    FROM v_orders AS o
    WHERE ordered_day_local BETWEEN {from:Date} AND {to:Date}
      AND ({merchant:String} = '' OR merchant = {merchant:String})
    GROUP BY hour, currency
    ORDER BY currency, hour WITH FILL STEP INTERVAL 1 HOUR
)
ORDER BY currency, hour
