#!/usr/bin/env python3
"""Reports on many events: how fast they are stored, how much room they take, how long each report is.

    tillroll-local up                                   an empty stack; its last lines are the addresses
    CLICKHOUSE_URL=… bench.py --orders 1590000          10.4 million events; into database `tillroll`
    CLICKHOUSE_URL=… bench.py --storm 60                eight analysts looping the three heaviest reports
    CLICKHOUSE_URL=… bench.py --freshness               of what was stored in the last five minutes

Events are made by ClickHouse, fetched, and inserted as the sink does it: RowBinary, blocks of 20,000 rows;
orders are folded from them by SQL in the end. Prints a table and writes target/reports.json.
"""

import argparse
import json
import os
import re
import statistics
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from orders import FOLD

ROOT = Path(__file__).resolve().parent.parent.parent
PACK = ROOT / "runbooks/tillroll/reports"
BLOCK = 20_000
HEAVIEST = ["stock-outs", "durations", "data-quality"]
EVENTS = "order_id, accepted_at, version, merchant, status, occurred_at, ordered_at, currency, total_minor, line_count, pieces, country, customer_id, courier, courier_price_minor, courier_currency, promised_at, attempt, refused_skus, term, sequence, precedence, kafka_partition, kafka_offset"
LINES = "order_id, accepted_at, line, merchant, ordered_at, currency, sku, quantity, unit_price_minor, precedence"
COMMON = """WITH cityHash64(number) AS h,
    toDateTime64('2026-08-20 00:00:00', 3, 'UTC') + toIntervalMillisecond(toInt64(number * (7776000000 / {orders}))) AS placed,
    multiIf(h % 1000 < 40, ['received', 'rejected'], h % 1000 < 70, ['received', 'reserved', 'declined'], h % 1000 < 80, ['received', 'reserved', 'expired'],
        h % 1000 < 95, ['received', 'reserved', 'authorized', 'paid', 'routed', 'cancelled'], h % 1000 < 150, ['received', 'reserved', 'authorized', 'paid', 'routed', 'shipped'],
        ['received', 'reserved', 'authorized', 'paid', 'routed', 'shipped', 'delivered']) AS path,
    reinterpretAsUUID(sipHash128(number)) AS id, if(h % 10 < 8, 'shop', concat('shop', toString(h % 4))) AS merchant,
    if(h % 20 = 0, 'EUR', 'GBP') AS currency, placed - toIntervalMillisecond(h % 1500) AS ordered,
    arrayMap(v -> concat('SKU-', toString(cityHash64(h, v) % 3000)), range(1, 2 + h % 5)) AS skus,
    arrayMap(v -> toInt64(100 + cityHash64(h, v) % 2000), range(1, 2 + h % 5)) AS prices,
    arrayMap(v -> toUInt32(1 + cityHash64(h, v) % 9), range(1, 2 + h % 5)) AS quantities
"""
MAKE_EVENTS = COMMON + """SELECT id, placed, toUInt32(v), merchant, path[v] AS st,
    placed + toIntervalMillisecond([0, 40, 400, 900, 1800, 36000000, 130000000][v] + cityHash64(number, v) % [1, 300, 500, 3000, 2000, 30000000, 90000000][v]),
    ordered, currency, toInt64(arraySum(arrayMap((p, q) -> p * q, prices, quantities))), toUInt32(length(skus)), toUInt64(if(v = 1, arraySum(quantities), 0)),
    if(v = 1, ['GB', 'GB', 'GB', 'DE', 'FR', 'IE', 'NL', 'ES'][1 + h % 8], ''), if(v = 1 AND h % 4 > 0, concat('C', toString(h % 50000)), ''),
    if(st = 'routed', ['swift', 'royal', 'dash', 'cargo'][1 + cityHash64(h, 2) % 4], ''), toInt64(if(st = 'routed', 300 + h % 400, 0)), if(st = 'routed', 'GBP', ''),
    if(st = 'routed', placed + toIntervalHour(48), toDateTime64(0, 3, 'UTC')), toUInt16(if(st = 'routed', 1 + (h % 50 = 0), 0)), if(st = 'rejected', [skus[1]], []),
    toUInt64(3), toUInt64(number), bitShiftLeft(toUInt64(3), 40) + number, toUInt16(h % 4), toUInt64(number * 7 + v)
FROM numbers({first}, {count}) ARRAY JOIN range(1, length(path) + 1) AS v FORMAT RowBinary"""
MAKE_LINES = COMMON + """SELECT id, placed, toUInt32(v), merchant, ordered, currency, skus[v], quantities[v], prices[v], bitShiftLeft(toUInt64(3), 40) + number
FROM numbers({first}, {count}) ARRAY JOIN range(1, length(skus) + 1) AS v FORMAT RowBinary"""


def ask(sql, data=None, analyst=False, **parameters):
    kind = "READER" if analyst else "ADMIN"
    default = "analyst" if analyst else "tillroll"
    query = {"database": "tillroll", "user": os.environ.get(f"{kind}_USER", default), "password": os.environ.get(f"{kind}_PASSWORD", default), **parameters}
    if data is not None:
        query["query"] = sql
    address = os.environ["CLICKHOUSE_URL"] + "/?" + urllib.parse.urlencode(query)
    with urllib.request.urlopen(urllib.request.Request(address, data=sql.encode() if data is None else data)) as answer:
        return answer.read()


def report(name):
    parameters = {"param_from": "1970-01-01", "param_to": "2149-06-06", "param_merchant": "", "param_limit": "50", "param_currency": "GBP", "param_into": "GBP"}
    began = time.monotonic()
    ask((PACK / f"{name}.sql").read_text(), analyst=True, **parameters)
    return time.monotonic() - began


def store(orders):
    """Fetches and inserts block by block; only the inserts are timed."""
    took, rows = {"order_lines": 0.0, "order_events": 0.0}, {"order_lines": 0, "order_events": 0}
    step = BLOCK // 7
    for first in range(0, orders, step):
        count = min(step, orders - first)
        for table, columns, make in (("order_lines", LINES, MAKE_LINES), ("order_events", EVENTS, MAKE_EVENTS)):
            data = ask(make.format(orders=orders, first=first, count=count))
            settings = {"async_insert": "0", "max_partitions_per_insert_block": "0"}
            began = time.monotonic()
            ask(f"INSERT INTO {table} ({columns}) FORMAT RowBinary", data, **settings)
            took[table] += time.monotonic() - began
        if first // step % 50 == 0:
            print(f"\r{100 * first // orders} % stored", end="", flush=True)
    print("\r" + " " * 20, end="\r")
    ask(FOLD)
    for table in rows:
        rows[table] = int(ask(f"SELECT count() FROM {table}"))
    return took, rows


def measure(orders):
    took, rows = store(orders)
    events = rows["order_events"]
    results = {"reports.events": events, "reports.insert_events_per_s": events / sum(took.values()), "reports.insert_events_only_per_s": events / took["order_events"]}
    deadline = time.monotonic() + 300
    while int(ask("SELECT count() FROM system.merges")) and time.monotonic() < deadline:
        time.sleep(1)
    for line in ask("SELECT table, sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'tillroll' AND table LIKE 'order\\_%' GROUP BY table").decode().splitlines():
        table, size = line.split("\t")
        results[f"reports.{table}_bytes_per_event"] = int(size) / events
    results["reports.bytes_per_event"] = sum(value for name, value in results.items() if name.endswith("_bytes_per_event"))
    for view in ("rollup_sku_daily", "rollup_sales_hourly"):
        ask(f"SYSTEM WAIT VIEW {view}")
        began = time.monotonic()
        ask(f"SYSTEM REFRESH VIEW {view}")
        ask(f"SYSTEM WAIT VIEW {view}")
        results[f"reports.{view}_refresh_s"] = time.monotonic() - began
    for file in sorted(PACK.glob("*.sql")):
        times = [report(file.stem) for _ in range(6)]
        results[f"reports.{file.stem}_s"] = statistics.median(times[1:])
    of_reports = {name: value for name, value in results.items() if re.fullmatch(r"reports\.[a-z-]+_s", name)}
    heaviest = max(of_reports, key=of_reports.get)
    print(f"heaviest: {heaviest.removeprefix('reports.').removesuffix('_s')}, {of_reports[heaviest]:.2f} s, median of five, warm")
    return results


def storm(seconds, analysts=8):
    """Loops the heaviest reports; a query that is refused for its limits counts as refused."""
    end, times, refused = time.monotonic() + seconds, [], [0]

    def analyst(turn):
        while time.monotonic() < end:
            try:
                times.append(report(HEAVIEST[turn % len(HEAVIEST)]))
            except urllib.error.HTTPError:
                refused[0] += 1
                time.sleep(0.1)
            turn += 1

    threads = [threading.Thread(target=analyst, args=(n,)) for n in range(analysts)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return {"storm.reports": len(times), "storm.refused": refused[0], "storm.report_p50_s": statistics.median(times) if times else 0}


def freshness():
    sql = """SELECT count(), quantileExact(0.5)(ms), quantileExact(0.99)(ms), max(ms) FROM
        (SELECT dateDiff('millisecond', occurred_at, ingested_at) AS ms FROM order_events WHERE ingested_at > now64(3, 'UTC') - INTERVAL 5 MINUTE)"""
    count, p50, p99, most = ask(sql).decode().split()
    return {"freshness.events": int(count), "freshness.p50_ms": int(p50), "freshness.p99_ms": int(p99), "freshness.max_ms": int(most)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, help="so many orders, 6.55 events each")
    parser.add_argument("--storm", type=int, metavar="SECONDS")
    parser.add_argument("--freshness", action="store_true")
    given = parser.parse_args()
    if given.storm:
        results = storm(given.storm)
    elif given.freshness:
        results = freshness()
    elif given.orders:
        results = measure(given.orders)
    else:
        parser.error("give --orders, --storm or --freshness")
    for name, value in results.items():
        print(f"{name:<48} {value:>14,.2f}")
    (ROOT / "target").mkdir(exist_ok=True)
    (ROOT / "target/reports.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
