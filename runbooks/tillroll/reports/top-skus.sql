-- Best-selling SKUs
--
-- By revenue; every currency apart. From the roll-up of SKUs and local days, which is made anew
-- every ten minutes: see data_as_of. lines: lines of orders that are not lost. pieces, revenue:
-- what they hold of the SKU. lost_pieces: pieces in orders that ended without a sale.
-- average_price: revenue per piece.
--
-- chart: bar x=sku y=revenue top=20 group=currency
SELECT sku, currency, sum(r.lines) AS lines, sum(r.pieces) AS pieces,
    tillroll_decimal(sum(r.revenue_minor), currency) AS revenue, sum(r.lost_pieces) AS lost_pieces,
    if(pieces = 0, 0, toDecimal128(revenue, 4) / pieces) AS average_price,
    max(r.as_of) AS data_as_of
FROM rollup_sku_daily AS r
WHERE day BETWEEN {from:Date} AND {to:Date}
  AND ({merchant:String} = '' OR merchant = {merchant:String})
GROUP BY sku, currency
ORDER BY revenue DESC, sku, currency
LIMIT {limit:UInt32}
