-- Revenue per local day
--
-- For every day in the shop's time zone, by ordered_at, days without orders included, and every
-- currency apart: orders: orders accepted. lost_orders: those that ended without a sale (rejected,
-- declined, expired, cancelled, undeliverable, returned). gross: totals of all orders. lost:
-- totals of the lost ones. net: gross - lost. average_order: net per order that is not lost, 0
-- where there is none.
--
-- chart: bar x=day y=net,lost stack group=currency
SELECT day, currency, orders, lost_orders, gross, lost, gross - lost AS net,
    if(orders > lost_orders, toDecimal128(net, 4) / (orders - lost_orders), 0) AS average_order,
    (SELECT data_as_of FROM v_data_as_of) AS data_as_of
FROM
(
    SELECT ordered_day_local AS day, currency, count() AS orders, countIf(o.lost) AS lost_orders,
        sum(o.total) AS gross, sumIf(o.total, o.lost) AS lost
    FROM v_orders AS o
    WHERE day BETWEEN {from:Date} AND {to:Date}
      AND ({merchant:String} = '' OR merchant = {merchant:String})
    GROUP BY day, currency
    ORDER BY currency, day WITH FILL STEP INTERVAL 1 DAY
)
ORDER BY currency, day
