#!/usr/bin/env python3
"""Compares every report, as `tillroll report` prints it, with a computation of its own.

    check.py invoices --orders FILE.csv.gz --tillroll BIN   after the file was replayed, with stock for
                                                            all SKUs but those that are never received
    check.py generated --tillroll BIN                       writes made-up orders into the tables first
    check.py never --orders FILE.csv.gz                     prints the SKUs that must not be received

ClickHouse comes from CLICKHOUSE_URL; CLICKHOUSE_USER and CLICKHOUSE_PASSWORD read the reports, and ADMIN_USER and
ADMIN_PASSWORD write, refresh roll-ups and read the tables as they are. Exit code 1 when a figure differs.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import date
from decimal import Decimal
from pathlib import Path

import model
import orders as source

RATES = {("EUR", "2026-10-20"): "0.87654321", ("EUR", "2026-10-28"): "0.9"}


def admin(sql, data=None):
    query = {"database": "tillroll", "user": os.environ["ADMIN_USER"], "password": os.environ["ADMIN_PASSWORD"]}
    if data is not None:
        query["query"] = sql
    request = urllib.request.Request(os.environ["CLICKHOUSE_URL"] + "/?" + urllib.parse.urlencode(query), data=(data or sql).encode())
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        sys.exit(f"ClickHouse refuses: {error.read().decode()}")


def refresh():
    for view in ("rollup_sku_daily", "rollup_sales_hourly"):
        # One that runs already began before the last row came.
        admin(f"SYSTEM WAIT VIEW {view}")
        admin(f"SYSTEM REFRESH VIEW {view}")
        admin(f"SYSTEM WAIT VIEW {view}")


def report(tillroll, name, *flags):
    done = subprocess.run([tillroll, "report", name, "--format", "json", "--limit", "100000", *flags], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"tillroll report {name}: {done.stderr}")
    document = json.loads(done.stdout, parse_float=float)
    kinds = [column["type"] for column in document["columns"]]
    if document["rows"] and not document["data_as_of"]:
        sys.exit(f"{name} does not say how fresh it is")
    return [[plain(value, kind) for value, kind in zip(row, kinds)] for row in document["rows"]]


def plain(value, kind):
    return Decimal(value) if "Decimal" in kind else value


def same(name, found, expected):
    """Exact, but for percentages and seconds, which are floats rounded the same way."""
    def equal(a, b):
        if isinstance(a, float) or isinstance(b, float):
            return abs(a - b) < 0.0101
        return a == b

    if len(found) != len(expected):
        print(f"FAILED {name}: {len(found)} rows, expected {len(expected)}")
        return False
    for at, (mine, theirs) in enumerate(zip(expected, found)):
        if len(mine) != len(theirs) or not all(equal(a, b) for a, b in zip(mine, theirs)):
            print(f"FAILED {name}, row {at + 1}: is {theirs}, expected {mine}")
            return False
    print(f"ok     {name}: {len(found)} rows")
    return True


def compare(tillroll, orders, rates):
    days = {(currency, date.fromisoformat(day)): Decimal(rate) for (currency, day), rate in rates.items()}
    now = int(time.time() * 1000)
    expected = {
        "revenue-hourly": model.revenue_hourly(orders),
        "revenue-daily": model.revenue_daily(orders),
        "revenue-total": model.revenue_total(orders, days),
        "orders-by-status": model.orders_by_status(orders),
        "funnel": model.funnel(orders),
        "durations": model.durations(orders),
        "stock-outs": model.stock_outs(orders),
        "top-skus": model.top_skus(orders),
        "top-customers": model.top_customers(orders),
        "courier-league": model.courier_league(orders, now),
        "promise-calibration": model.promise_calibration(orders),
    }
    good = [same(name, report(tillroll, name), rows) for name, rows in expected.items()]
    sale = report(tillroll, "flash-sale")
    good.append(same("flash-sale", sale, next((rows for rows in model.flash_sale(orders) if rows == sale), model.flash_sale(orders)[0])))
    checks = dict((row[0], row[1]) for row in report(tillroll, "data-quality"))
    for name in ("orders with a version missing", "lines missing", "money missing in lines, minor units", "columns without a comment"):
        good.append(same(f"data-quality: {name}", [[checks[name]]], [[0]]))
    hourly = "SELECT sum(orders), sum(gross_minor), sum(lost_minor) FROM rollup_sales_hourly"
    sums = [len(orders), sum(o.total_minor for o in orders), sum(o.total_minor for o in orders if o.lost)]
    good.append(same("rollup_sales_hourly", [[int(n) for n in admin(hourly).split()]], [sums]))
    # One day and one merchant.
    day = sorted(order.day for order in orders)[len(orders) // 2]
    of_day = [order for order in orders if order.day == day]
    flags = ["--from", day.isoformat(), "--to", day.isoformat(), "--merchant", "shop"]
    good.append(same("revenue-daily of a day", report(tillroll, "revenue-daily", *flags), model.revenue_daily(of_day)))
    good.append(same("top-skus of a day", report(tillroll, "top-skus", *flags), model.top_skus(of_day)))
    good.append(same("of nobody", report(tillroll, "revenue-daily", "--merchant", "nobody"), []))
    return all(good)


def folded():
    """The sink's rows of orders are those that SQL folds from the events."""
    columns, fold = re.fullmatch(r"INSERT INTO order_states \((.*?), ingested_at\)\n(SELECT.*)", source.FOLD, re.DOTALL).groups()
    stored = f"SELECT {columns} FROM order_states FINAL"
    fold = fold.replace(",\n    max(e.ingested_at)", "").replace("FROM order_events AS e", "FROM order_events AS e FINAL")
    count = int(admin("SELECT count() FROM order_states FINAL"))
    differing = [int(admin(f"SELECT count() FROM ({one} EXCEPT DISTINCT {other})")) for one, other in ((stored, fold), (fold, stored))]
    print(f"{'ok    ' if not any(differing) else 'FAILED'} order_states: {count} rows, {differing} differ from what SQL folds")
    return count > 0 and not any(differing)


def dashboards():
    """Every query of every dashboard is understood, with Grafana's filters put to true, by the user that Grafana is."""
    good = True
    for file in sorted((Path(__file__).resolve().parents[2] / "compose/grafana/dashboards").glob("*.json")):
        panels = json.loads(file.read_text())["panels"]
        for panel in panels:
            sql = re.sub(r"\$__(time|date)Filter\(\w+\)", "1", panel["targets"][0]["rawSql"])
            query = {"database": "tillroll", "user": os.environ["CLICKHOUSE_USER"], "password": os.environ["CLICKHOUSE_PASSWORD"]}
            address = os.environ["CLICKHOUSE_URL"] + "/?" + urllib.parse.urlencode(query)
            try:
                urllib.request.urlopen(urllib.request.Request(address, data=sql.encode())).read()
            except urllib.error.HTTPError as error:
                good = False
                print(f"FAILED {file.stem}, {panel['title']}: {error.read().decode()[:300]}")
        print(f"ok     dashboard {file.stem}: {len(panels)} panels" if good else f"FAILED dashboard {file.stem}")
    return good


def replayed(file):
    """The file's orders, with times and couriers as they stand in the table; whether they are lost is the file's to say."""
    orders = source.invoices(file)
    never = source.never_received(orders)
    known = {str(source.order_id("shop", order.key)): order for order in orders}
    columns = "order_id, version, status, occurred_at, accepted_at, courier, courier_price_minor, promised_at, attempt, refused_skus"
    milliseconds = columns.replace("_at", "_ms")
    for name in ("occurred", "accepted", "promised"):
        milliseconds = milliseconds.replace(f"{name}_ms", f"toUnixTimestamp64Milli({name}_at) AS {name}_ms")
    rows = admin(f"SELECT {milliseconds} FROM order_events ORDER BY order_id, version, precedence SETTINGS output_format_json_quote_64bit_integers = 0 FORMAT JSONEachRow")
    for row in map(json.loads, rows.splitlines()):
        order = known[row["order_id"]]
        order.accepted_ms, order.version, order.status = row["accepted_ms"], row["version"], row["status"]
        order.reached[row["status"]] = row["occurred_ms"]
        order.refused = order.refused or row["refused_skus"]
        if row["courier"]:
            order.courier, order.price_minor = row["courier"], row["courier_price_minor"]
            order.promised_ms, order.attempt = row["promised_ms"], row["attempt"]
    wrong = [order.key for order in orders if (order.status == "rejected") != any(sku in never for sku, _, _ in order.lines)]
    if wrong:
        sys.exit(f"{len(wrong)} orders are not as the file says, e.g. {wrong[:3]}")
    print(f"{len(orders)} orders, {sum(order.lost for order in orders)} of them rejected, as the file says")
    return orders


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["invoices", "generated", "never"])
    parser.add_argument("--orders")
    parser.add_argument("--tillroll", default="tillroll")
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.what == "never":
        print("\n".join(sorted(source.never_received(source.invoices(given.orders)))))
        return
    rates = {}
    if given.what == "invoices":
        orders = replayed(given.orders)
    else:
        orders = source.generated(given.count, given.seed)
        for table, rows in source.rows_of(orders, given.seed):
            admin(f"INSERT INTO {table} FORMAT JSONEachRow", rows)
        admin(source.FOLD)
        rates = RATES
        values = ", ".join(f"('{day}', '{currency}', 'GBP', {rate})" for (currency, day), rate in RATES.items())
        admin(f"INSERT INTO exchange_rates (day, currency, into, rate) VALUES {values}")
    refresh()
    # Made-up orders are folded by SQL in the first place.
    good = [compare(given.tillroll, orders, rates), given.what == "generated" or folded(), dashboards()]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
