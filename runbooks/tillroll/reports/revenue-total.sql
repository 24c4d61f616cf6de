-- Revenue over all currencies
--
-- Amounts in different currencies are never added as they are. Each order is converted into the
-- currency asked for by --into (GBP if none is) at the newest rate of v_exchange_rates from its
-- local day or before; an order in that currency counts as it is. An order without a rate is left
-- out of net_converted and counted in orders_without_rate, with its money in net, so that nothing
-- disappears. net: totals of orders that are not lost, in their own currency. net_converted: the
-- same, into the one asked for; fractions below 0.0001 are dropped order by order.
--
-- chart: bar x=currency y=net_converted
SELECT currency, {into:String} AS into, count() AS orders, sum(total) AS net,
    sum(if(rate = 0, toDecimal128(0, 4), toDecimal128(total * rate, 4))) AS net_converted,
    countIf(rate = 0) AS orders_without_rate,
    (SELECT data_as_of FROM v_data_as_of) AS data_as_of
FROM
(
    SELECT o.currency AS currency, o.total AS total,
        if(o.currency = {into:String}, toDecimal64(1, 8), r.rate) AS rate
    FROM
    (
        SELECT currency, total, ordered_day_local AS day
        FROM v_orders
        WHERE NOT lost AND day BETWEEN {from:Date} AND {to:Date}
          AND ({merchant:String} = '' OR merchant = {merchant:String})
    ) AS o
    ASOF LEFT JOIN
    (
        SELECT toString(currency) AS currency, day, rate FROM v_exchange_rates WHERE into = {into:String}
    ) AS r ON o.currency = r.currency AND o.day >= r.day
)
GROUP BY currency
ORDER BY currency
