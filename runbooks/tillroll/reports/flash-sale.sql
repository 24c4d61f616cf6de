-- A flash sale, minute by minute
--
-- The busiest minute of the period by accepted_at, our own time of acceptance, and half an hour on
-- either side of it; minutes without orders included. orders: accepted. reserved: of these, orders
-- that got their stock. rejected: those that did not. undecided: neither yet. gross: totals of
-- all, in the one currency that --currency names (GBP if none does). decided_p50_ms,
-- decided_p99_ms: from acceptance to stock's answer.
--
-- chart: line x=minute y=orders,reserved,rejected
WITH (
    SELECT argMax(minute, orders) FROM
    (
        SELECT toStartOfMinute(accepted_at) AS minute, count() AS orders FROM v_orders
        WHERE toDate(accepted_at) BETWEEN {from:Date} AND {to:Date}
          AND ({merchant:String} = '' OR merchant = {merchant:String})
        GROUP BY minute
    )
) AS peak
SELECT minute, orders, reserved, rejected, orders - reserved - rejected AS undecided, gross, decided_p50_ms, decided_p99_ms,
    (SELECT data_as_of FROM v_data_as_of) AS data_as_of
FROM
(
    SELECT toStartOfMinute(accepted_at) AS minute, count() AS orders, countIf(reserved_at > 0) AS reserved,
        countIf(reserved_at = 0 AND rejected_at > 0) AS rejected, sumIf(o.total, o.currency = {currency:String}) AS gross,
        quantileExactIf(0.5)(decided_ms, decided_ms >= 0) AS decided_p50_ms,
        quantileExactIf(0.99)(decided_ms, decided_ms >= 0) AS decided_p99_ms
    FROM
    (
        SELECT accepted_at, reserved_at, rejected_at, total, currency,
            if(reserved_at > 0 OR rejected_at > 0, dateDiff('millisecond', accepted_at, if(reserved_at > 0, reserved_at, rejected_at)), -1) AS decided_ms
        FROM v_orders
        WHERE accepted_at >= peak - INTERVAL 30 MINUTE AND accepted_at < peak + INTERVAL 31 MINUTE
          AND ({merchant:String} = '' OR merchant = {merchant:String})
    ) AS o
    GROUP BY minute
    ORDER BY minute WITH FILL STEP INTERVAL 1 MINUTE
)
ORDER BY minute
