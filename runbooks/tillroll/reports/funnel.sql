-- Conversion funnel
--
-- Of the orders placed in the period, how many ever reached each step, whatever became of them
-- later. of_placed_pct: of all placed. of_previous_pct: of the step before; a step that this
-- shop's flow does not have (payment, for one that is paid by invoice) shows 0, and so does what
-- follows it in of_previous_pct; where only some orders name payment methods, it can exceed 100.
--
-- chart: bar x=step y=orders
SELECT step, orders,
    if(placed = 0, 0, round(100 * orders / placed, 2)) AS of_placed_pct,
    if(previous = 0, 0, round(100 * orders / previous, 2)) AS of_previous_pct,
    (SELECT data_as_of FROM v_data_as_of) AS data_as_of
FROM
(
    SELECT step, orders, placed, lagInFrame(orders, 1, orders) OVER (ORDER BY position) AS previous, position
    FROM
    (
        SELECT count() AS placed,
            [placed, countIf(reserved_at > 0), countIf(authorized_at > 0), countIf(paid_at > 0),
             countIf(routed_at > 0), countIf(shipped_at > 0), countIf(delivered_at > 0)] AS counts
        FROM v_orders
        WHERE ordered_day_local BETWEEN {from:Date} AND {to:Date}
          AND ({merchant:String} = '' OR merchant = {merchant:String})
    )
    ARRAY JOIN counts AS orders,
        ['placed', 'reserved', 'authorized', 'paid', 'routed', 'shipped', 'delivered'] AS step,
        [1, 2, 3, 4, 5, 6, 7] AS position
)
ORDER BY position
