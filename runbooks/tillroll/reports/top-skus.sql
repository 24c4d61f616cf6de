-- Best-selling SKUs
--
-- By revenue; every currency apart. orders: orders that are not lost and hold the SKU. pieces, revenue: what
-- they hold of it. lost_pieces: pieces in orders that ended without a sale. average_price: revenue per piece.
--
-- chart: bar x=sku y=revenue top=20 group=currency
SELECT sku, currency, sold_orders AS orders, sold_pieces AS pieces, sold AS revenue, all_pieces - sold_pieces AS lost_pieces,
    if(sold_pieces = 0, 0, toDecimal128(sold, 4) / sold_pieces) AS average_price,
    (SELECT data_as_of FROM v_data_as_of) AS data_as_of
FROM
(
    SELECT sku, currency, uniqExactIf(order_id, is_sold) AS sold_orders, sumIf(quantity, is_sold) AS sold_pieces,
        sum(quantity) AS all_pieces, sumIf(l.amount, is_sold) AS sold
    FROM
    (
        SELECT order_id, sku, currency, quantity, amount,
            (order_id, accepted_at) NOT IN (SELECT order_id, accepted_at FROM v_orders WHERE lost) AS is_sold
        FROM v_order_lines
        WHERE ordered_day_local BETWEEN {from:Date} AND {to:Date}
          AND ({merchant:String} = '' OR merchant = {merchant:String})
    ) AS l
    GROUP BY sku, currency
)
ORDER BY revenue DESC, sku, currency
LIMIT {limit:UInt32}
