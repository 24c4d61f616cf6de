-- Stock-outs and what they cost
--
-- SKUs that orders were rejected for, because they could not be served; every currency apart.
-- lost_orders: rejected orders that name the SKU. lost_pieces, lost_revenue: what those orders
-- wanted of the SKU. orders_value: the whole of those orders, other SKUs included; an order rejected for two
-- SKUs counts with both, so orders_value must not be summed.
--
-- chart: bar x=sku y=lost_revenue top=20 group=currency
SELECT sku, currency, uniqExact(order_id, accepted_at) AS lost_orders, sum(pieces) AS lost_pieces, sum(amount) AS lost_revenue,
    sum(value) AS orders_value, max(at) AS last_at, (SELECT data_as_of FROM v_data_as_of) AS data_as_of
FROM
(
    SELECT r.order_id AS order_id, r.accepted_at AS accepted_at, r.sku AS sku, r.at AS at, r.value AS value,
        l.currency AS currency, l.pieces AS pieces, l.amount AS amount
    FROM
    (
        SELECT order_id, accepted_at, arrayJoin(arrayDistinct(refused_skus)) AS sku, occurred_at AS at, total AS value
        FROM v_order_events
        WHERE status = 'rejected' AND ordered_day_local BETWEEN {from:Date} AND {to:Date}
          AND ({merchant:String} = '' OR merchant = {merchant:String})
    ) AS r
    INNER JOIN
    (
        SELECT order_id, accepted_at, sku, toString(any(l.currency)) AS currency, sum(quantity) AS pieces, sum(l.amount) AS amount
        FROM v_order_lines AS l
        WHERE order_id IN (SELECT order_id FROM order_events WHERE status = 'rejected')
        GROUP BY order_id, accepted_at, sku
    ) AS l ON r.order_id = l.order_id AND r.accepted_at = l.accepted_at AND r.sku = l.sku
)
GROUP BY sku, currency
ORDER BY lost_revenue DESC, sku, currency
LIMIT {limit:UInt32}
