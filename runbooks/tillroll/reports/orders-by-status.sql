-- Orders by status
--
-- Every order once, under the status it has now; currencies apart. orders: how many. share_pct: of
-- all orders of that currency. total: their totals. pieces: pieces ordered. longest_since: when
-- the one that has been in this status longest came into it.
--
-- chart: bar x=status y=orders group=currency
SELECT status, currency, count() AS orders,
    round(100 * orders / sum(orders) OVER (PARTITION BY currency), 2) AS share_pct,
    sum(o.total) AS total, sum(o.pieces) AS pieces, min(updated_at) AS longest_since,
    (SELECT data_as_of FROM v_data_as_of) AS data_as_of
FROM v_orders AS o
WHERE ordered_day_local BETWEEN {from:Date} AND {to:Date}
  AND ({merchant:String} = '' OR merchant = {merchant:String})
GROUP BY status, currency
ORDER BY currency, orders DESC, status
