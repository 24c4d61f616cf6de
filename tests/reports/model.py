"""Second opinion on the reports: every figure computed again, in plain Python, from orders.

Nothing here knows SQL or the tables; a report's definition (the head of its .sql file) is all that the
two have in common. Money is in Decimal, never float.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import ROUND_DOWN, Decimal
from zoneinfo import ZoneInfo

LOST = {"rejected", "declined", "expired", "cancelled", "undeliverable", "returned"}
STEPS = ["reserved", "authorized", "paid", "routed", "shipped", "delivered"]
ZONE = ZoneInfo("Europe/London")


@dataclass
class Order:
    """One order as it came to be; times are milliseconds since 1970, UTC."""

    key: str
    ordered_ms: int
    accepted_ms: int
    currency: str
    lines: list  # of (sku, quantity, unit price in minor units)
    customer: str = ""
    status: str = "received"
    version: int = 1
    reached: dict = field(default_factory=dict)  # status -> ms
    courier: str = ""
    price_minor: int = 0
    promised_ms: int = 0
    attempt: int = 0
    refused: list = field(default_factory=list)
    overdue: bool = False  # told that it is routed once more, without its consignment

    @property
    def total_minor(self):
        return sum(quantity * price for _, quantity, price in self.lines)

    @property
    def lost(self):
        return self.status in LOST

    @property
    def day(self):
        return datetime.fromtimestamp(self.ordered_ms / 1000, ZONE).date()


def money(minor):
    """Minor units of a currency with a hundred of them."""
    return Decimal(minor) / 100


def down(value, places="0.0001"):
    return value.quantize(Decimal(places), rounding=ROUND_DOWN)


def percent(part, whole):
    return round(100 * part / whole, 2) if whole else 0


def quantile(values, level):
    """The value at that place of the sorted ones, without interpolation."""
    values = sorted(values)
    return values[min(int(level * len(values)), len(values) - 1)] if values else 0


def by(orders, *keys):
    groups = defaultdict(list)
    for order in orders:
        groups[tuple(key(order) for key in keys)].append(order)
    return groups


def gross(orders):
    return money(sum(order.total_minor for order in orders))


def lost(orders):
    return gross([order for order in orders if order.lost])


def per_period(orders, start, step, row):
    """Every period from the first to the last of each currency, empty ones included."""
    rows = []
    for (currency,), group in sorted(by(orders, lambda o: o.currency).items()):
        periods = by(group, start)
        at, last = min(periods)[0], max(periods)[0]
        while at <= last:
            rows.append(row(at, currency, periods.get((at,), [])))
            at += step
    return rows


def revenue_hourly(orders):
    def hour(order):
        at = datetime.fromtimestamp(order.ordered_ms // 1000, timezone.utc)
        return at.replace(minute=0, second=0)

    def row(at, currency, group):
        return [at.strftime("%Y-%m-%d %H:%M:%S"), currency, len(group), gross(group), lost(group), gross(group) - lost(group)]

    return per_period(orders, hour, timedelta(hours=1), row)


def revenue_daily(orders):
    def row(day, currency, group):
        bad = sum(order.lost for order in group)
        net = gross(group) - lost(group)
        average = down(net / (len(group) - bad)) if len(group) > bad else Decimal(0)
        return [day.isoformat(), currency, len(group), bad, gross(group), lost(group), net, average]

    return per_period(orders, lambda order: order.day, timedelta(days=1), row)


def revenue_total(orders, rates):
    """`rates`: (currency, first day) -> Decimal, into GBP."""
    rows = []
    for (currency,), group in sorted(by([o for o in orders if not o.lost], lambda o: o.currency).items()):
        converted, without = Decimal(0), 0
        for order in group:
            days = [day for known, day in rates if known == currency and day <= order.day]
            rate = Decimal(1) if currency == "GBP" else rates[(currency, max(days))] if days else None
            without += rate is None
            converted += down(money(order.total_minor) * rate) if rate else 0
        rows.append([currency, "GBP", len(group), gross(group), converted, without])
    return rows


def orders_by_status(orders):
    rows = []
    for (status, currency), group in by(orders, lambda o: o.status, lambda o: o.currency).items():
        of = sum(order.currency == currency for order in orders)
        pieces = sum(quantity for order in group for _, quantity, _ in order.lines)
        since = min(order.reached[status] for order in group)
        rows.append([status, currency, len(group), percent(len(group), of), gross(group), pieces, stamp(since)])
    return sorted(rows, key=lambda row: (row[1], -row[2], row[0]))


def stamp(ms):
    at = datetime.fromtimestamp(ms // 1000, timezone.utc)
    return at.strftime("%Y-%m-%d %H:%M:%S.") + f"{ms % 1000:03}"


def funnel(orders):
    counts = [len(orders)] + [sum(step in order.reached for order in orders) for step in STEPS]
    return [
        [step, count, percent(count, len(orders)), percent(count, counts[max(at - 1, 0)])]
        for at, (step, count) in enumerate(zip(["placed", *STEPS], counts))
    ]


def durations(orders):
    rows = []
    pairs = ["accepted reserved", "accepted rejected", "accepted routed", "reserved routed", "routed shipped",
             "shipped delivered", "accepted delivered"]
    for start, end in (pair.split() for pair in pairs):
        times = [
            order.reached[end] - (order.accepted_ms if start == "accepted" else order.reached[start])
            for order in orders
            if end in order.reached and (start == "accepted" or start in order.reached)
        ]
        if times:
            values = [round(quantile(times, level) / 1000, 3) for level in (0.5, 0.95, 0.99)]
            rows.append([f"{start} to {end}", len(times), *values])
    return rows


def stock_outs(orders):
    found = defaultdict(lambda: [0, 0, 0, 0, 0])
    for order in orders:
        if order.status != "rejected":
            continue
        for sku in set(order.refused):
            entry = found[(sku, order.currency)]
            entry[0] += 1
            entry[1] += sum(q for s, q, _ in order.lines if s == sku)
            entry[2] += sum(q * p for s, q, p in order.lines if s == sku)
            entry[3] += order.total_minor
            entry[4] = max(entry[4], order.reached["rejected"])
    rows = [[sku, currency, e[0], e[1], money(e[2]), money(e[3]), stamp(e[4])] for (sku, currency), e in found.items()]
    return sorted(rows, key=lambda row: (-row[4], row[0], row[1]))


def top_skus(orders):
    found = defaultdict(lambda: [0, 0, 0, 0])
    for order in orders:
        for sku, quantity, price in order.lines:
            entry = found[(sku, order.currency)]
            if order.lost:
                entry[3] += quantity
            else:
                entry[0] += 1
                entry[1] += quantity
                entry[2] += quantity * price
    rows = []
    for (sku, currency), (lines, pieces, minor, lost_pieces) in found.items():
        average = down(money(minor) / pieces) if pieces else Decimal(0)
        rows.append([sku, currency, lines, pieces, money(minor), lost_pieces, average])
    return sorted(rows, key=lambda row: (-row[4], row[0], row[1]))


def top_customers(orders):
    rows = []
    for (customer, currency), group in by(orders, lambda o: o.customer, lambda o: o.currency).items():
        times = [order.ordered_ms for order in group]
        bad = sum(order.lost for order in group)
        rows.append([customer or "(guests)", currency, len(group), gross(group) - lost(group), bad, stamp(min(times)), stamp(max(times))])
    return sorted(rows, key=lambda row: (-row[3], row[0], row[1]))


def half_up(value, places=2):
    """As ClickHouse rounds a float: to the nearest, halves to even."""
    return round(value, places)


def courier_league(orders, now_ms):
    rows = []
    for (courier,), group in by([o for o in orders if o.courier], lambda o: o.courier).items():
        arrived = [o for o in group if "delivered" in o.reached]
        hours = [o.reached["delivered"] // 1000 - o.reached["routed"] // 1000 for o in arrived]
        open_now = [o for o in group if "delivered" not in o.reached and not o.lost]
        rows.append([
            courier, "GBP", len(group), down(money(sum(o.price_minor for o in group)) / len(group)), len(arrived),
            percent(sum(o.reached["delivered"] <= o.promised_ms for o in arrived), len(arrived)),
            half_up(quantile(hours, 0.5) / 3600), half_up(quantile(hours, 0.95) / 3600), len(open_now),
            sum(o.promised_ms < now_ms for o in open_now), percent(sum(o.attempt > 1 for o in group), len(group)),
        ])
    return sorted(rows, key=lambda row: (-row[5], -row[2], row[0]))


def promise_calibration(orders):
    groups = defaultdict(list)
    for o in orders:
        if "delivered" in o.reached and o.promised_ms:
            ahead = o.promised_ms // 1000 - o.reached["routed"] // 1000
            groups[(o.courier, math.ceil(ahead / 86400))].append(o.promised_ms // 1000 - o.reached["delivered"] // 1000)
    return [
        [courier, days, len(margins), percent(sum(m >= 0 for m in margins), len(margins)),
         half_up(quantile(margins, 0.5) / 3600), half_up(quantile([-m for m in margins], 0.95) / 3600)]
        for (courier, days), margins in sorted(groups.items())
    ]


def flash_sale(orders):
    def minute(order):
        return order.accepted_ms // 60000

    minutes = by(orders, minute)
    # Of equally busy minutes any may be chosen: the checker tries each.
    most = max(len(group) for group in minutes.values())
    choices = []
    for (peak,) in (at for at, group in minutes.items() if len(group) == most):
        near = {at: group for (at,), group in minutes.items() if peak - 30 <= at <= peak + 30}
        rows = []
        for at in range(min(near), max(near) + 1):
            group = near.get(at, [])
            reserved = [o for o in group if "reserved" in o.reached]
            rejected = [o for o in group if "reserved" not in o.reached and "rejected" in o.reached]
            times = [o.reached["reserved"] - o.accepted_ms for o in reserved] + [o.reached["rejected"] - o.accepted_ms for o in rejected]
            times = [time for time in times if time >= 0]
            rows.append([
                stamp(at * 60000)[:19], len(group), len(reserved), len(rejected), len(group) - len(reserved) - len(rejected),
                gross([o for o in group if o.currency == "GBP"]), quantile(times, 0.5), quantile(times, 0.99),
            ])
        choices.append(rows)
    return choices
