//! Where stock's state and what others say of it differ. Pure.

use std::collections::{BTreeMap, BTreeSet};

use events::{Millis, OrderKey};
use machines::stock::{Books, Hold, HoldState, Level};
use machines::table::LevelKey;

/// An order that nobody has heard of is one that was never told, only once its record is gone from `orders`,
/// which keeps seven days: until then it may be on its way.
const FORGOTTEN_MS: i64 = 8 * 24 * 60 * 60 * 1000;

/// What the databases say.
#[derive(Debug, Default)]
pub(super) struct Stores {
    /// PostgreSQL's levels.
    pub(super) levels: BTreeMap<LevelKey, Level>,
    /// Sums of PostgreSQL's movements: all of them, and those that ClickHouse still keeps.
    pub(super) history: BTreeMap<LevelKey, (i64, i64)>,
    /// Sums of ClickHouse's movements, of the same time.
    pub(super) reports: BTreeMap<LevelKey, i64>,
    /// Statuses of the orders that hold something.
    pub(super) orders: BTreeMap<OrderKey, String>,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// PostgreSQL shows another level than stock has.
    Level,
    /// The movements do not add up to what is on hand.
    History,
    /// ClickHouse has other movements than PostgreSQL.
    Reports,
    /// A level counts more or fewer promised pieces than orders hold.
    Promised,
    /// A store knows stock in a place where stock has never had any.
    UnknownPlace,
    /// An order that ended unserved still holds pieces.
    EndedOrder,
    /// An order whose parcel has left still holds pieces.
    GoneOrder,
    /// An order that nobody knows holds pieces.
    UnknownOrder,
}

/// A difference. Two are the same only if nothing about them changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Drift {
    pub(super) kind: Kind,
    pub(super) place: LevelKey,
    /// What is counted: a column of `stock_levels`.
    pub(super) count: &'static str,
    /// Pieces by stock's own state; with [`Kind::Reports`] by PostgreSQL.
    pub(super) expected: i64,
    /// Pieces by the other.
    pub(super) found: i64,
    /// With an order's kinds: it, the partition that holds for it, and the attempt that reserved.
    pub(super) hold: Option<(OrderKey, i32, i32)>,
}

impl Drift {
    /// Whether the command can correct it by recorded events.
    pub(super) fn correctable(&self, now: Millis) -> bool {
        match self.kind {
            Kind::Level | Kind::History | Kind::EndedOrder | Kind::GoneOrder => true,
            Kind::Reports | Kind::Promised | Kind::UnknownPlace => false,
            Kind::UnknownOrder => self
                .hold
                .as_ref()
                .is_some_and(|(order, ..)| order.accepted_at.plus(FORGOTTEN_MS) < now),
        }
    }

    /// What to do about it.
    pub(super) fn remedy(&self, now: Millis) -> &'static str {
        match self.kind {
            _ if self.correctable(now) => "--apply corrects it",
            Kind::Reports => "fill the reports again: tillroll reports backfill",
            Kind::UnknownOrder => "see tillroll why and tillroll dlq list: it may be on its way",
            _ => "a fault of the program: see runbooks/InvariantViolated.md",
        }
    }
}

/// Every difference between the books and the stores.
pub(super) fn compare(books: &Books, stores: &Stores) -> BTreeSet<Drift> {
    let mut found = BTreeSet::new();
    levels(books, stores, &mut found);
    let promised = books.promised();
    let places: BTreeSet<&LevelKey> = books.levels.keys().chain(promised.keys()).collect();
    for place in places {
        let level = books.levels.get(place).copied().unwrap_or_default();
        let held = promised.get(place).copied().unwrap_or_default();
        let counts = [
            ("reserved", level.reserved, held.reserved),
            ("allocated", level.allocated, held.allocated),
        ];
        differing(Kind::Promised, place, &counts, &mut found);
    }
    for ((partition, order), hold) in &books.holds {
        if matches!(hold.state, HoldState::Reserved | HoldState::Allocated) {
            orders(*partition, order, hold, stores, &mut found);
        }
    }
    found
}

fn levels(books: &Books, stores: &Stores, found: &mut BTreeSet<Drift>) {
    let known = books.levels.keys().chain(stores.levels.keys());
    let told = stores.history.keys().chain(stores.reports.keys());
    let places: BTreeSet<&LevelKey> = known.chain(told).collect();
    for place in places {
        let ours = books.levels.get(place).copied().unwrap_or_default();
        let shown = stores.levels.get(place).copied().unwrap_or_default();
        let counts = [
            ("on_hand", ours.on_hand, shown.on_hand),
            ("reserved", ours.reserved, shown.reserved),
            ("allocated", ours.allocated, shown.allocated),
            ("set_aside", ours.set_aside, shown.set_aside),
            ("missing", ours.missing, shown.missing),
        ];
        let known = books.levels.contains_key(place);
        let kind = |kind| if known { kind } else { Kind::UnknownPlace };
        differing(kind(Kind::Level), place, &counts, found);
        let (all, recent) = stores.history.get(place).copied().unwrap_or_default();
        differing(kind(Kind::History), place, &[("on_hand", ours.on_hand, all)], found);
        let reported = stores.reports.get(place).copied().unwrap_or_default();
        differing(Kind::Reports, place, &[("on_hand", recent, reported)], found);
    }
}

fn differing(
    kind: Kind,
    place: &LevelKey,
    counts: &[(&'static str, i64, i64)],
    all: &mut BTreeSet<Drift>,
) {
    let different = counts.iter().filter(|(_, expected, found)| expected != found);
    all.extend(different.map(|&(count, expected, found)| {
        let place = place.clone();
        Drift { kind, place, count, expected, found, hold: None }
    }));
}

fn orders(
    partition: i32,
    order: &OrderKey,
    hold: &Hold,
    stores: &Stores,
    found: &mut BTreeSet<Drift>,
) {
    let kind = match stores.orders.get(order).map(String::as_str) {
        None => Kind::UnknownOrder,
        Some("rejected" | "declined" | "expired" | "cancelled") => Kind::EndedOrder,
        // Unless it is only reserved: that is no order that could have left.
        Some("delivered" | "undeliverable" | "returned") if hold.state == HoldState::Allocated => {
            Kind::GoneOrder
        }
        Some(_) => return,
    };
    let count = if hold.state == HoldState::Allocated { "allocated" } else { "reserved" };
    let mut pieces = BTreeMap::<LevelKey, i64>::new();
    for line in &hold.lines {
        let place = (hold.merchant.clone(), line.sku.clone(), line.warehouse.clone());
        *pieces.entry(place).or_default() += i64::from(line.quantity);
    }
    found.extend(pieces.into_iter().map(|(place, expected)| {
        let hold = Some((*order, partition, hold.attempt));
        Drift { kind, place, count, expected, found: 0, hold }
    }));
}

#[cfg(test)]
mod tests {
    use events::{Merchant, OrderId, Sku, WarehouseCode};
    use machines::stock::HeldLine;

    use super::*;

    const NOW: Millis = Millis(FORGOTTEN_MS + 1_001);

    fn place(sku: &str) -> LevelKey {
        let merchant = Merchant::parse("shop").unwrap();
        (merchant, Sku::parse(sku).unwrap(), WarehouseCode::MAIN)
    }

    fn order(name: &str, at: i64) -> OrderKey {
        let order_id = OrderId::derive(&place("A").0, name);
        OrderKey { order_id, accepted_at: Millis(at) }
    }

    fn hold(order: OrderKey, quantity: i32) -> ((i32, OrderKey), Hold) {
        let (merchant, sku, warehouse) = place("A");
        // The same SKU in two lines.
        let line = |line| HeldLine {
            line,
            sku: sku.clone(),
            warehouse: warehouse.clone(),
            quantity,
            sale: None,
        };
        let lines = vec![line(1), line(2)];
        let state = HoldState::Reserved;
        ((3, order), Hold { merchant, attempt: 1, state, lines, customer_id: None })
    }

    fn agreeing() -> (Books, Stores) {
        let level = Level { version: 4, on_hand: 9, reserved: 4, ..Level::default() };
        let (paid, open) = (order("open", 1_000), hold(order("open", 1_000), 2));
        let books = Books { levels: [(place("A"), level)].into(), holds: [open].into() };
        let stores = Stores {
            levels: [(place("A"), level)].into(),
            history: [(place("A"), (9, 3))].into(),
            reports: [(place("A"), 3)].into(),
            orders: [(paid, "paid".to_owned())].into(),
        };
        (books, stores)
    }

    fn kinds(books: &Books, stores: &Stores) -> Vec<(Kind, &'static str, i64, i64)> {
        let found = compare(books, stores);
        found.into_iter().map(|d| (d.kind, d.count, d.expected, d.found)).collect()
    }

    #[test]
    fn what_agrees_is_not_found() {
        let (books, stores) = agreeing();
        assert_eq!(kinds(&books, &stores), []);
    }

    #[test]
    fn each_source_is_found_when_it_alone_differs() {
        let (books, mut stores) = agreeing();
        stores.levels.get_mut(&place("A")).unwrap().reserved = 5;
        assert_eq!(kinds(&books, &stores), [(Kind::Level, "reserved", 4, 5)]);

        let (books, mut stores) = agreeing();
        stores.history.insert(place("A"), (7, 3));
        assert_eq!(kinds(&books, &stores), [(Kind::History, "on_hand", 9, 7)]);

        let (books, mut stores) = agreeing();
        stores.reports.clear();
        assert_eq!(kinds(&books, &stores), [(Kind::Reports, "on_hand", 3, 0)]);

        let (mut books, stores) = agreeing();
        books.holds.clear();
        assert_eq!(kinds(&books, &stores), [(Kind::Promised, "reserved", 4, 0)]);
    }

    #[test]
    fn a_level_that_stock_does_not_have_is_found() {
        let (books, mut stores) = agreeing();
        stores.levels.insert(place("B"), Level { on_hand: 1, ..Level::default() });
        assert_eq!(kinds(&books, &stores), [(Kind::UnknownPlace, "on_hand", 0, 1)]);
    }

    #[test]
    fn what_has_left_is_not_allocated_any_more() {
        let (mut books, mut stores) = agreeing();
        for level in books.levels.values_mut().chain(stores.levels.values_mut()) {
            (level.reserved, level.allocated) = (0, 4);
        }
        books.holds.values_mut().for_each(|hold| hold.state = HoldState::Allocated);
        stores.orders.insert(order("open", 1_000), "shipped".to_owned());
        assert_eq!(kinds(&books, &stores), []);
        stores.orders.insert(order("open", 1_000), "delivered".to_owned());
        assert_eq!(kinds(&books, &stores), [(Kind::GoneOrder, "allocated", 4, 0)]);
    }

    #[test]
    fn an_order_that_ended_or_nobody_knows_holds_nothing() {
        let (books, mut stores) = agreeing();
        stores.orders.insert(order("open", 1_000), "cancelled".to_owned());
        assert_eq!(kinds(&books, &stores), [(Kind::EndedOrder, "reserved", 4, 0)]);
        stores.orders.clear();
        let unknown = compare(&books, &stores).pop_first().unwrap();
        assert_eq!(unknown.kind, Kind::UnknownOrder);
        // It may be on its way for as long as its record is kept.
        assert!(unknown.correctable(NOW) && !unknown.correctable(Millis(NOW.0 - 1)));
    }
}
