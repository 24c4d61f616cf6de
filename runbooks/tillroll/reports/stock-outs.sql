-- Stock-outs and what they cost
--
-- SKUs that orders were rejected for, because they could not be served; every currency apart.
-- lost_orders: rejected orders that name the SKU. lost_pieces, lost_revenue: what those orders
-- wanted of the SKU. orders_value: the whole of those orders, other SKUs included; an order
-- rejected for two SKUs counts with both, so orders_value must not be summed.
--
-- chart: bar x=sku y=lost_revenue top=20 group=currency
SELECT sku, currency, count() AS lost_orders, sum(pieces) AS lost_pieces,
    tillroll_decimal(sum(amount_minor), currency) AS lost_revenue,
    tillroll_decimal(sum(value_minor), currency) AS orders_value,
    max(at) AS last_at, (SELECT data_as_of FROM v_data_as_of) AS data_as_of
FROM
(
    SELECT order_id, accepted_at, currency, at, value_minor, arrayJoin(arrayDistinct(refused)) AS sku
    FROM
    (
        SELECT order_id, accepted_at, toString(any(currency)) AS currency, argMax(occurred_at, precedence) AS at,
            any(total_minor) AS value_minor, argMax(refused_skus, precedence) AS refused
        FROM order_events
        WHERE status = 'rejected'
          AND (order_id, accepted_at) IN
          (
              SELECT order_id, accepted_at FROM v_orders
              WHERE status = 'rejected' AND ordered_day_local BETWEEN {from:Date} AND {to:Date}
                AND ({merchant:String} = '' OR merchant = {merchant:String})
          )
        GROUP BY order_id, accepted_at
    )
) AS r
INNER JOIN
(
    SELECT order_id, accepted_at, sku, sum(quantity) AS pieces, sum(toInt64(quantity) * unit_price_minor) AS amount_minor
    FROM
    (
        SELECT order_id, accepted_at, line, sku, quantity, unit_price_minor
        FROM order_lines
        WHERE order_id IN (SELECT order_id FROM order_events WHERE status = 'rejected')
        ORDER BY precedence DESC
        LIMIT 1 BY order_id, accepted_at, line
    )
    GROUP BY order_id, accepted_at, sku
) AS l USING (order_id, accepted_at, sku)
GROUP BY sku, currency
ORDER BY lost_revenue DESC, sku, currency
LIMIT {limit:UInt32}
