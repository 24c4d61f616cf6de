-- Courier league
--
-- Couriers by how well they keep their promise, over the orders they hold; the currency of their
-- prices apart. An order counts for the courier that took it last. booked: orders the courier
-- took. delivered: of those, arrived. on_time_pct: of the delivered, those that arrived at or
-- before promised_at. p50_h, p95_h: hours from booking to arrival, of the delivered. open: neither
-- arrived nor lost. open_past_promise: of the open, those whose promise has passed; they are
-- missing from on_time_pct, so read both. failover_pct: of the booked, those that another courier
-- had failed before. average_price: what the courier charges per order booked.
--
-- chart: bar x=courier y=on_time_pct,failover_pct
SELECT courier, courier_currency AS currency, count() AS booked,
    toDecimal128(sum(courier_price), 4) / count() AS average_price,
    countIf(delivered_at > 0) AS delivered,
    if(delivered = 0, 0, round(100 * countIf(delivered_at > 0 AND delivered_at <= promised_at) / delivered, 2)) AS on_time_pct,
    if(delivered = 0, 0, round(quantileExactIf(0.5)(dateDiff('second', routed_at, delivered_at), delivered_at > 0) / 3600, 2)) AS p50_h,
    if(delivered = 0, 0, round(quantileExactIf(0.95)(dateDiff('second', routed_at, delivered_at), delivered_at > 0) / 3600, 2)) AS p95_h,
    countIf(delivered_at = 0 AND NOT lost) AS open,
    countIf(delivered_at = 0 AND NOT lost AND promised_at < now64(3, 'UTC')) AS open_past_promise,
    round(100 * countIf(courier_attempts > 1) / count(), 2) AS failover_pct,
    (SELECT data_as_of FROM v_data_as_of) AS data_as_of
FROM v_orders
WHERE courier != '' AND ordered_day_local BETWEEN {from:Date} AND {to:Date}
  AND ({merchant:String} = '' OR merchant = {merchant:String})
GROUP BY courier, courier_currency
ORDER BY on_time_pct DESC, booked DESC, courier, currency
