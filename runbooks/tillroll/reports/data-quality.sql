-- Can these reports be trusted?
--
-- One row per check; found is 0 where all is well, but for the times, which are in milliseconds. Filters
-- by day and merchant do not apply.
-- late events are counted in the reports of the day they belong to, as soon as they arrive: there is no cut-off.
--
-- chart: none
SELECT check, found, meaning, (SELECT data_as_of FROM v_data_as_of) AS data_as_of
FROM
(
    SELECT 1 AS position, 'versions missing' AS check, toInt64(sum(toInt64(version) - toInt64(events))) AS found,
        'status changes that an order must have had but that are not here: lost, or still on their way' AS meaning
    FROM v_orders WHERE events < version
    UNION ALL
    SELECT 2, 'lines missing', toInt64(sum(line_count)) - (SELECT toInt64(count()) FROM v_order_lines),
        'lines that orders say they have, less the lines that are here' FROM v_orders
    UNION ALL
    SELECT 3, 'money missing in lines, minor units', sum(total_minor) - (SELECT sum(amount_minor) FROM v_order_lines),
        'totals of orders, less quantity x price of their lines' FROM v_orders
    UNION ALL
    SELECT 4, 'rows stored twice', toInt64(count()) - (SELECT toInt64(sum(events)) FROM v_orders),
        'hidden by the views, gone with the next merges' FROM order_events
    UNION ALL
    SELECT 5, 'late events', toInt64(countIf(dateDiff('second', occurred_at, ingested_at) >= 60)),
        'visible only a minute or more after they occurred' FROM order_events
    UNION ALL
    SELECT 6, 'freshness p99, ms', toInt64(ifNotFinite(quantile(0.99)(dateDiff('millisecond', occurred_at, ingested_at)), 0)),
        'from an event to its row, of what was stored in the last hour of data'
    FROM order_events WHERE ingested_at >= (SELECT data_as_of FROM v_data_as_of) - INTERVAL 1 HOUR
    UNION ALL
    SELECT 7, 'age of the newest row, ms', dateDiff('millisecond', (SELECT data_as_of FROM v_data_as_of), now64(3, 'UTC')),
        'no orders, or the sink is behind: compare with its lag'
    UNION ALL
    SELECT 8, 'orders waiting for over a day', toInt64(countIf(NOT lost AND status NOT IN ('delivered', 'shipped') AND updated_at < now64(3, 'UTC') - INTERVAL 1 DAY)),
        'neither shipped nor ended, and nothing happened to them since' FROM v_orders
    UNION ALL
    SELECT 9, 'columns without a comment', toInt64(count()),
        'of tables; views show the same columns' FROM system.columns
    WHERE database = currentDatabase() AND comment = '' AND table NOT LIKE 'v\_%' AND table NOT LIKE '.inner%' AND table NOT LIKE '%\_fold'
)
ORDER BY position
