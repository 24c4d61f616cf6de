-- Can these reports be trusted?
--
-- One row per check; found is 0 where all is well, but for the times, which are in milliseconds.
-- Filters by day and merchant do not apply. late events are counted in the reports of the day they
-- belong to, as soon as they arrive: there is no cut-off.
--
-- chart: none
SELECT check, found, meaning, (SELECT data_as_of FROM v_data_as_of) AS data_as_of
FROM
(
    SELECT
        (SELECT (count(), sum(toInt64(quantity) * unit_price_minor)) FROM order_lines FINAL) AS line,
        (SELECT (count(), countIf(dateDiff('second', occurred_at, ingested_at) >= 60)) FROM order_events) AS event,
        (SELECT toInt64(ifNotFinite(quantile(0.99)(dateDiff('millisecond', occurred_at, ingested_at)), 0))
         FROM order_events WHERE ingested_at >= (SELECT data_as_of FROM v_data_as_of) - INTERVAL 1 HOUR) AS freshness_ms,
        (SELECT count() FROM system.columns
         WHERE database = currentDatabase() AND comment = '' AND match(table, '^(order|exchange|rollup|schema)') AND table NOT LIKE '%_fold') AS undocumented,
        (SELECT count() FROM
            (SELECT 1 FROM order_events FINAL WHERE order_id IN (SELECT order_id FROM v_order_states AS o WHERE o.events < version)
             GROUP BY order_id, accepted_at HAVING count() < max(version))) AS incomplete,
        countIf(s.events > version) AS contradictory,
        sum(s.line_count) AS lines, sum(s.total_minor) AS total, sum(greatest(s.events, version)) AS events,
        countIf(NOT lost AND status NOT IN ('shipped', 'delivered')
            AND greatest(received_at, reserved_at, authorized_at, routed_at, paid_at) < now64(3, 'UTC') - INTERVAL 1 DAY) AS waiting
    FROM v_order_states AS s
)
ARRAY JOIN
    ['orders with a version missing', 'orders told in two ways', 'lines missing', 'money missing in lines, minor units',
     'rows stored twice', 'late events', 'freshness p99, ms', 'age of the newest row, ms',
     'orders waiting for over a day', 'columns without a comment'] AS check,
    [toInt64(incomplete), toInt64(contradictory), toInt64(lines) - toInt64(line.1), total - line.2,
     toInt64(event.1) - toInt64(events), toInt64(event.2), freshness_ms,
     dateDiff('millisecond', (SELECT data_as_of FROM v_data_as_of), now64(3, 'UTC')),
     toInt64(waiting), toInt64(undocumented)] AS found,
    ['a status change that must have been is not here: lost, or still on its way',
     'two changes for one version, until the later is settled as the right one: the views show that one',
     'lines that orders say they have, less the lines that are here',
     'totals of orders, less quantity x price of their lines; all currencies together, for 0 is 0 in each',
     'rows of order_events that repeat one; hidden by the views, gone with the next merges',
     'visible only a minute or more after they occurred',
     'from an event to its row, of what was stored in the last hour of data',
     'no orders, or the sink is behind: compare with its lag',
     'neither shipped nor ended, and nothing happened to them since',
     'of the tables'] AS meaning
