-- Are promises kept as often as they claim?
--
-- Delivered orders by courier and by how far ahead the promise was, in whole days from booking.
-- promised_days: days from booking to promised_at, rounded up. delivered: orders that arrived.
-- kept_pct: of those, the share that arrived at or before promised_at. p50_margin_h, p95_late_h:
-- hours from arrival to promise; the margin that half of the orders had (below 0: late), and the
-- lateness that only one in twenty exceeded (below 0: early).
--
-- chart: bar x=promised_days y=kept_pct group=courier
SELECT courier, promised_days, count() AS delivered, round(100 * countIf(margin_s >= 0) / count(), 2) AS kept_pct,
    round(quantileExact(0.5)(margin_s) / 3600, 2) AS p50_margin_h,
    round(quantileExact(0.95)(-margin_s) / 3600, 2) AS p95_late_h,
    (SELECT data_as_of FROM v_data_as_of) AS data_as_of
FROM
(
    SELECT courier, toInt64(ceil(dateDiff('second', routed_at, promised_at) / 86400)) AS promised_days,
        dateDiff('second', delivered_at, promised_at) AS margin_s
    FROM v_orders
    WHERE delivered_at > 0 AND promised_at > 0 AND ordered_day_local BETWEEN {from:Date} AND {to:Date}
      AND ({merchant:String} = '' OR merchant = {merchant:String})
)
GROUP BY courier, promised_days
ORDER BY courier, promised_days
