-- Best customers
--
-- By revenue; every currency apart; all guests together as one, "(guests)". orders: orders
-- accepted. revenue: totals of those that are not lost. lost_orders: orders that ended without a
-- sale. first_order, last_order: by the shop's time. customer_id is the shop's own code, no name
-- or address is kept here.
--
-- chart: bar x=customer y=revenue top=20 group=currency
SELECT if(customer_id = '', '(guests)', customer_id) AS customer, currency, count() AS orders,
    sumIf(o.total, NOT o.lost) AS revenue, countIf(o.lost) AS lost_orders,
    min(ordered_at) AS first_order, max(ordered_at) AS last_order,
    (SELECT data_as_of FROM v_data_as_of) AS data_as_of
FROM v_orders AS o
WHERE ordered_day_local BETWEEN {from:Date} AND {to:Date}
  AND ({merchant:String} = '' OR merchant = {merchant:String})
GROUP BY customer_id, currency
ORDER BY revenue DESC, customer, currency
LIMIT {limit:UInt32}
