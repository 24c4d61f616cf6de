"""Orders to compute on: real ones from the invoices' file, or made up with everything that goes wrong."""

import csv
import gzip
import json
import random
import re
import uuid
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from model import STEPS, Order, stamp

NAMESPACE = uuid.UUID("6d1f9c53-0b6f-5c5e-9a51-9f4a3f0e7d21")
LEGAL_SKU = re.compile(r"(?! )[A-Za-z0-9_. -]{1,64}(?<! )")
DAY_MS = 86_400_000
MIGRATION = Path(__file__).resolve().parents[2] / "sinks/src/reports/migrations/V2__order_lines_and_states.sql"
# Fills order_states from order_events, in SQL: what the sink does row by row.
FOLD = re.search(r"^INSERT INTO order_states .*?(?=;$)", MIGRATION.read_text(), re.DOTALL | re.MULTILINE)[0]


def order_id(merchant, key):
    return uuid.uuid5(NAMESPACE, f"order/{merchant}/{key}")


def invoices(file):
    """The invoices that are orders: lines of one number that follow each other, each with 1 piece and 1 penny or more."""
    opened = gzip.open(file, "rt", encoding="utf-8", errors="replace") if file.endswith(".gz") else open(file, encoding="utf-8")
    with opened as lines:
        groups = []
        for row in csv.DictReader(lines):
            if not groups or groups[-1][0] != row["InvoiceNo"]:
                groups.append((row["InvoiceNo"], []))
            groups[-1][1].append(row)
    seen, orders = {}, []
    for number, rows in groups:
        seen[number] = seen.get(number, 0) + 1
        key = number if seen[number] == 1 else f"{number}/{seen[number]}"
        prices = [Decimal(row["UnitPrice"]) * 100 for row in rows]
        good = all(
            LEGAL_SKU.fullmatch(row["StockCode"].strip()) and 1 <= int(row["Quantity"]) <= 1_000_000 and price >= 1 and price == int(price)
            for row, price in zip(rows, prices)
        )
        if good and len(rows) <= 1000:
            at = datetime.fromisoformat(rows[0]["InvoiceDate"].replace("Z", "+00:00"))
            customer = rows[0]["CustomerID"].strip()
            lines = [(row["StockCode"].strip(), int(row["Quantity"]), int(price)) for row, price in zip(rows, prices)]
            orders.append(Order(key, int(at.timestamp() * 1000), 0, "GBP", lines, "" if customer == r"\N" else customer))
    return orders


def never_received(orders):
    """The SKUs that the shop never gets: every hundredth of those ordered, from the fiftieth, by name."""
    skus = sorted({sku.encode() for order in orders for sku, _, _ in order.lines})
    return {sku.decode() for at, sku in enumerate(skus) if at % 100 == 50}


def generated(count, seed):
    """Orders that end in every way there is, over twenty days, around a change of the clocks, in two currencies."""
    chance = random.Random(seed)
    start = int(datetime.fromisoformat("2026-10-15T00:00:00+00:00").timestamp() * 1000)
    orders = []
    for n in range(count):
        # Most of one hour in one minute: a flash sale.
        ordered = start + (12 * DAY_MS + 3_600_000 + chance.randrange(90_000) if n % 5 == 0 else chance.randrange(20 * DAY_MS))
        lines = [(f"SKU-{chance.randrange(60)}", 1 + chance.randrange(9), 1 + chance.randrange(5000)) for _ in range(1 + chance.randrange(4))]
        order = Order(f"g{n}", ordered, ordered + chance.randrange(3000), chance.choice(["GBP", "GBP", "EUR"]), lines,
                      chance.choice(["", *(f"C{c}" for c in range(25))]))
        ends = ["received", "rejected", "reserved", "declined", "expired", "routed", "cancelled", "paid", "shipped", "delivered",
                "delivered", "delivered", "delivered", "undeliverable", "returned"]
        end = chance.choice(ends)
        before = {"rejected": [], "declined": ["reserved"], "expired": ["reserved"], "cancelled": STEPS[:4], "undeliverable": STEPS[:5], "returned": STEPS}
        steps = before[end] + [end] if end in before else STEPS[: STEPS.index(end) + 1] if end in STEPS else []
        at = order.accepted_ms
        order.reached = {"received": at}
        for step in steps:
            at += 1 + chance.randrange(40_000 if step in ("reserved", "rejected", "authorized", "routed", "paid") else 2 * DAY_MS)
            order.reached[step] = at
        order.overdue = "shipped" in order.reached and n % 7 == 0
        order.status, order.version = (steps or ["received"])[-1], 1 + len(steps) + order.overdue
        if "routed" in order.reached:
            order.courier, order.price_minor = chance.choice(["swift", "royal", "dash"]), 200 + chance.randrange(500)
            order.promised_ms = order.reached["routed"] + chance.randrange(5 * DAY_MS)
            order.attempt = 1 + (chance.randrange(10) == 0)
        if end == "rejected":
            order.refused = [sku for at, (sku, _, _) in enumerate(lines) if at == 0 or chance.randrange(2)]
        orders.append(order)
    return orders


def rows_of(orders, seed):
    """Rows of order_events and order_lines as the sink would write them, in blocks; of every tenth order some come
    twice, of every twentieth one version was told otherwise by a batch that was torn and redone, and overdue ones are told as
    such."""
    chance = random.Random(seed)
    events, lines = [], []
    for n, order in enumerate(orders):
        identity = {"order_id": str(order_id("shop", order.key)), "accepted_at": stamp(order.accepted_ms), "merchant": "shop"}
        told = list(order.reached.items())
        if order.overdue:
            routed = order.reached["routed"]
            told.insert(told.index(("routed", routed)) + 1, ("routed", routed + 1))
        for version, (status, at) in enumerate(told, 1):
            event = identity | {
                "version": version, "status": status, "occurred_at": stamp(at), "ordered_at": stamp(order.ordered_ms),
                "currency": order.currency, "total_minor": order.total_minor, "line_count": len(order.lines),
                "precedence": (2 << 40) + n, "term": 2, "sequence": n,
            }
            if version == 1:
                event |= {"pieces": sum(q for _, q, _ in order.lines), "country": "GB", "customer_id": order.customer, "guest": not order.customer}
            if status == "routed" and order.reached[status] == at:
                event |= {"courier": order.courier, "courier_price_minor": order.price_minor, "courier_currency": "GBP",
                          "promised_at": stamp(order.promised_ms), "attempt": order.attempt}
            if status == "rejected":
                event["refused_skus"] = order.refused
            events.append(event)
            if n % 10 == 0:
                events.append(event)
            if n % 20 == 3 and version == order.version > 1:
                torn = event | {"status": "authorized" if status != "authorized" else "declined", "precedence": (1 << 40) + n, "term": 1,
                                "occurred_at": stamp(at + 5), "refused_skus": []}
                events.append(torn)
        for at, (sku, quantity, price) in enumerate(order.lines, 1):
            line = identity | {"line": at, "ordered_at": stamp(order.ordered_ms), "currency": order.currency, "sku": sku,
                               "quantity": quantity, "unit_price_minor": price, "precedence": (2 << 40) + n}
            lines.extend([line, line] if n % 10 == 0 else [line])
    chance.shuffle(events)
    chance.shuffle(lines)
    blocks = []
    for table, rows in (("order_lines", lines), ("order_events", events)):
        for at in range(0, len(rows), 3000):
            blocks.append((table, "\n".join(json.dumps(row) for row in rows[at : at + 3000])))
    return blocks
